"""A folder of MedSAM's .npz files: each a case, with the scan `imgs` and its labels `gts` (see `vpt.readers.npz`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vpt.data.cases import Case, SegmentationSet, case_name
from vpt.data.layouts.description import description, given_labels, read_channels, read_patients, shown_name
from vpt.data.layouts.image_folders import COLOUR, found_labels
from vpt.data.walking import Walk
from vpt.errors import VptError
from vpt.readers import reader_of
from vpt.readers.npz import LABELS, NpzReader, arrays_of, is_case
from vpt.vocabulary import SIDE_WORDS
from vpt.words import counted


def is_medsam(root: Path) -> bool:
    """Whether any file in a folder, or below, is such a case."""
    return root.is_dir() and any(is_case(path) for path in _files(root))


def survey_medsam(root: Path) -> tuple[SegmentationSet, list[VptError]]:
    """The data set with every file that can be read, and what is wrong with the others.

    Folders called train, val and test are the sides. A dataset.json may name channels, labels and patients. Raises
    VptError where the labels cannot be told.
    """
    source, files, problems = root / "dataset.json", list(_files(root)), list[VptError]()
    content = description(source)
    counts = {path: count for path in files if (count := _count_channels(path, problems))}
    channels = _channels(content, source, list(counts.values()))
    for path, count in counts.items():
        if count != len(channels):
            problems.append(
                VptError(f"{path}: {counted(count, 'channel')}, the set has {len(channels)}; keep one kind")
            )
    paths = [path for path, count in counts.items() if count == len(channels)]
    named = dict(zip(_names(root, paths), paths, strict=True))
    labels = given_labels(content, source) or found_labels(root, paths, problems)
    return SegmentationSet(
        root,
        shown_name(content, root),
        channels,
        labels,
        tuple(Case(name, (named[name],), named[name]) for name in sorted(named)),
        read_patients(content, source, named),
        sides={name: side for name, path in named.items() if (side := _side(path.relative_to(root)))},
        guess=f"{len(paths)} .npz files with the scan `imgs` and its labels `gts`, as MedSAM keeps them",
    ), problems


def _files(root: Path) -> Iterator[Path]:
    return (path for path in Walk(root).files() if NpzReader.claims_name(path))


def _count_channels(path: Path, problems: list[VptError]) -> int:
    """0, with a problem, of what is no case that can be trained on."""
    try:
        if LABELS not in arrays_of(path):
            raise VptError(f"{path}: holds no labels (`gts`); add them, or take the file out")
        return reader_of(path).count_channels()
    except VptError as error:
        problems.append(error)
        return 0


def _channels(content: dict[str, Any], source: Path, counts: Sequence[int]) -> tuple[str, ...]:
    """As dataset.json says, else what most files have; CT is not in HU here, so its name would mislead."""
    if content.keys() & {"channel_names", "modality"}:
        return read_channels(content, source)
    return COLOUR if counts and Counter(counts).most_common(1)[0][0] == len(COLOUR) else ("image",)


def _names(root: Path, paths: Sequence[Path]) -> list[str]:
    """The files' own names; where two would be alike, with those of their folders."""
    own = [case_name(path) for path in paths]
    if len(set(own)) == len(own):
        return own
    return ["_".join((*path.relative_to(root).parts[:-1], case_name(path))) for path in paths]


def _side(path: Path) -> str:
    return next((SIDE_WORDS[part.lower()] for part in path.parts[:-1] if part.lower() in SIDE_WORDS), "")
