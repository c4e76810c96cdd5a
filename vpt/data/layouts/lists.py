"""Scans and masks in a list: a CSV, or JSON with an object on every line. Only names are read here.

Columns (keys): `image`, or `image_T1`, `image_T2`, ... for the channels; `mask`; and where wanted `case`, `patient` and
`split`; what others say, such as `group`, scores can be told apart by. Paths are seen from the list's folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vpt.data.cases import Case, SegmentationSet, case_name, kind_of
from vpt.data.layouts.by_name import only_channel
from vpt.data.layouts.class_lists import LONGEST, csv_lines
from vpt.data.layouts.description import description, given_labels, read_channels, read_patients, shown_name
from vpt.data.layouts.image_folders import found_labels, image_channels, labels_of_masks, turned
from vpt.data.layouts.rows import PATIENT_COLUMNS, split_column
from vpt.errors import VptError
from vpt.files import parse_json, require_file, spellings
from vpt.readers import SUPPORTED, Kind, endings
from vpt.vocabulary import LISTS, SIDE_WORDS, WITH_VAL
from vpt.words import did_you_mean, listed, with_article

IMAGE, MASK = ("image", "scan", "path", "file"), ("mask", "segmentation", "seg", "label")
CASE = ("case", "id", "name")


@dataclass(frozen=True)
class _Line:
    """A line's cells by column, in lower case, and what a sentence about it begins with."""

    where: str
    cells: Mapping[str, str]

    def cell(self, names: Sequence[str]) -> str:
        return next((self.cells[name] for name in names if self.cells.get(name)), "")


def is_mask_list(path: Path) -> bool:
    """Whether a file lists scans and masks: by its columns, or because its `label` is a path, of a file or not."""
    if path.suffix.lower() not in LISTS or not path.is_file():
        return False
    line = next(_lines(path), None)
    if line is None:
        return not {*MASK[:-1]}.isdisjoint(_header(path))
    if any(name in line.cells for name in MASK[:-1]):
        return True
    label = line.cell(MASK[-1:])
    return bool(label) and (_there(path.parent, label) is not None or _are_paths(path))


def listed_masks(source: Path) -> list[Path]:
    """The masks of a table with a column of these that are there; none of what cannot be read."""
    with suppress(VptError):
        _, header = next(csv_lines(source), (0, []))
        if not {*MASK[:-1]}.isdisjoint(name.strip().casefold() for name in header):
            found = (_there(source.parent, mask) for line in _lines(source) if (mask := line.cell(MASK[:-1])))
            return [path for path in found if path is not None]
    return []


def _header(path: Path) -> list[str]:
    """The columns of a list that has no line below them; none of JSON lines."""
    rows = [] if path.suffix.lower() == ".jsonl" else list(csv_lines(path))
    return [name.strip().casefold() for name in rows[0][1]] if rows else []


def _are_paths(path: Path) -> bool:
    """Whether what stands under `label` ends as a scan's file does, and is another on most lines, as no class is."""
    labels = [line.cell(MASK[-1:]).lower() for line in _lines(path)]
    return all(label.endswith(endings()) for label in labels) and 2 * len({*labels}) > len(labels)


def survey_list(source: Path) -> tuple[SegmentationSet, list[VptError]]:
    """The data set with every line's case that has its files, and all that is wrong with the others.

    A dataset.json beside the list may name channels, labels and patients. Raises VptError for a file that cannot be
    read or lacks a column, and where the labels cannot be told.
    """
    root, lines, problems = source.parent, list(_lines(source)), []
    if not lines:
        raise VptError(f"{source}: no line in it, expected a header with `image` and `mask`, and a line for each case")
    columns = _image_columns(lines[0], source)
    found: dict[str, tuple[_Line, Case]] = {}
    for line in lines:
        case = _case(line, root, columns)
        if isinstance(case, VptError):
            problems.append(case)
        elif case.name in found:
            mend = "name each once" if line.cell(CASE) else "name them in a column `case`"
            problems.append(VptError(f"{line.where}: the second case called {case.name}; {mend}"))
        else:
            found[case.name] = line, case
    if not found:
        raise problems[0]
    cases = tuple(case for _, (_, case) in sorted(found.items()))
    content = description(root / "dataset.json")
    channels, labels, cases, kind = _described(root, content, columns, cases, problems)
    sided = split_column(list(lines[0].cells), lambda name: (line.cells.get(name, "") for line in lines))
    sides = {name: _side(line.cells.get(sided, ""), line, problems) for name, (line, _) in found.items()}
    of_patients = next((name for name in PATIENT_COLUMNS if any(line.cells.get(name) for line in lines)), "")
    patients = {name: its for name, (line, _) in found.items() if (its := line.cells.get(of_patients, ""))}
    return SegmentationSet(
        root,
        shown_name(content, source.with_suffix("")),
        channels,
        labels,
        cases,
        patients | read_patients(content, root / "dataset.json", found),
        kind,
        {name: side for name, side in sides.items() if side},
        source,
        columns=_other_columns({name: line for name, (line, _) in found.items()}, {*columns, sided}),
    ), problems


# --- lines ------------------------------------------------------------------------------------------------------------


def _lines(source: Path) -> Iterator[_Line]:
    if source.suffix.lower() == ".jsonl":
        yield from _json_lines(source)
        return
    (_, header), *body = list(csv_lines(source)) or [(1, [])]
    names = [name.strip().casefold() for name in header]
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise VptError(f"{source}: two columns are called {twice[0]!r}; keep one, or rename the other")
    for number, cells in body:
        yield _Line(f"{source}: line {number}", dict(zip(names, map(str.strip, cells), strict=False)))


def _json_lines(source: Path) -> Iterator[_Line]:
    try:
        require_file(source, LONGEST, "a list")
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise VptError(f"{source}: no text file in UTF-8 ({error}); export it again") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{source}: line {number}"
        try:
            content = parse_json(line, where)
        except VptError as error:
            raise VptError(f"{error}; write an object on each line") from error
        if not isinstance(content, dict):
            raise VptError(
                f"{where}: {with_article(type(content).__name__)}, expected an object, {{'image': PATH, 'mask': PATH}}"
            )
        yield _Line(
            where, {str(key).casefold(): cell for key, value in content.items() for key, cell in _cells(key, value)}
        )


def _cells(key: str, value: object) -> Iterator[tuple[str, str]]:
    """A value as cells: a list of channels is a column for each."""
    if isinstance(value, list):
        yield from ((f"{key}_{k}", str(each)) for k, each in enumerate(value))
    elif value is not None:
        yield key, str(value)


def _image_columns(line: _Line, source: Path) -> list[str]:
    """The columns of the channels, in their order."""
    several = [name for name in line.cells if name.startswith("image_")]
    single = next((name for name in IMAGE if name in line.cells), None)
    if not several and single is None:
        raise VptError(f"{source}: no column `image` among {listed(line.cells, 10)}; add one with the scans' paths")
    return several or [str(single)]


# --- cases ------------------------------------------------------------------------------------------------------------


def _case(line: _Line, root: Path, columns: Sequence[str]) -> Case | VptError:
    written = [*(line.cells.get(column, "") for column in columns), line.cell(MASK)]
    names = [*columns, "mask"]
    if empty := [name for name, path in zip(names, written, strict=True) if not path]:
        return VptError(f"{line.where}: no {listed(empty)}; fill it in, or remove the line")
    for called in (MASK, *([IMAGE] if columns[0] in IMAGE else [])):
        if len(said := _files(line, root, called)) > 1:
            told = " and ".join(f"{name} ({line.cells[name]})" for name in said.values())
            return VptError(f"{line.where}: different files in the columns {told}; keep the column that is meant")
    files = [_there(root, path) for path in written]
    if None in files:
        lacking = written[files.index(None)]
        if _is_folder(root, lacking):
            told = "a folder, and no DICOM series; give one file (slices as a stack in one volume, as NIfTI has them)"
            return VptError(f"{line.where}: {lacking}: {told}, or remove the line")
        return VptError(f"{line.where}: no such file: {lacking}; correct the path, or remove the line")
    *images, mask = (path for path in files if path is not None)
    if wrong := [path for path in (*images, mask) if kind_of(path) is None]:
        return VptError(f"{line.where}: {wrong[0].name}: not a supported ending; {SUPPORTED}")
    return Case(line.cell(CASE) or case_name(images[0]), tuple(images), mask)


def _files(line: _Line, root: Path, names: Sequence[str]) -> dict[Path, str]:
    """The files that are there by these columns, each with the first that says it."""
    found: dict[Path, str] = {}
    for name in names:
        if (cell := line.cells.get(name, "")) and (path := _there(root, cell)):
            found.setdefault(path, name)
    return found


def _is_folder(root: Path, path: str) -> bool:
    try:
        return any((root / each).is_dir() for each in spellings(path))
    except (OSError, ValueError):  # as of `_there`
        return False


def _there(root: Path, path: str) -> Path | None:
    """The file of a path, or the folder of a DICOM series, however it is spelled."""
    places = [root / each for each in spellings(path)]
    try:
        return next((place for place in places if place.is_file() or (place.is_dir() and kind_of(place))), None)
    except (OSError, ValueError):  # a name that is too long, or holds a null byte
        return None


def _other_columns(lines: Mapping[str, _Line], read: Collection[str]) -> dict[str, dict[str, str]]:
    """Column -> case -> its cell, of the columns that hold no file, name or side; read: what was taken for these."""
    names = dict.fromkeys(name for line in lines.values() for name in line.cells)
    others = [name for name in names if name and name not in (*read, *IMAGE, *MASK, *CASE)]
    return {name: {case: line.cells[name] for case, line in lines.items() if line.cells.get(name)} for name in others}


def _side(word: str, line: _Line, problems: list[VptError]) -> str:
    if word and word.lower() not in SIDE_WORDS:
        meant = did_you_mean(word.lower(), SIDE_WORDS.keys() - {*WITH_VAL})
        problems.append(VptError(f"{line.where}: split {word!r}, expected train, val or test{meant}"))
    return SIDE_WORDS.get(word.lower(), "")


def _described(
    root: Path, content: dict[str, object], columns: Sequence[str], cases: tuple[Case, ...], problems: list[VptError]
) -> tuple[tuple[str, ...], dict[int, str], tuple[Case, ...], Kind]:
    """Channels, labels, the cases with their masks as they are to be read, and their kind."""
    source = root / "dataset.json"
    given = given_labels(content, source)
    masks = {case.name: path for case in cases for path in case.files[len(case.images) :]}
    kinds = {kind_of(path) for case in cases for path in case.images}
    if len(kinds) > 1:
        problems.append(VptError(f"{root}: images and volumes in one list; keep one kind in a list"))
    if kinds != {"images"}:
        named = tuple(column.removeprefix("image_") for column in columns)
        alone = columns[0] in IMAGE
        channels = only_channel(root, [case.images[0] for case in cases]) if alone else named
        if content.keys() & {"channel_names", "modality"}:
            channels = read_channels(content, source)
        return channels, given or found_labels(root, list(masks.values()), problems), cases, "volumes"
    labels, read = labels_of_masks(root, masks, given, problems)
    cases = tuple(Case(case.name, case.images, read[case.name]) for case in cases)
    problems += turned(cases)
    return image_channels(content, source, [case.images[0] for case in cases]), labels, cases, "images"
