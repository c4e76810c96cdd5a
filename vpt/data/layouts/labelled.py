"""Data sets for classification: images with classes, read from class folders, a CSV or a MedMNIST .npz.

Only names are read here, never pixels (but for whether images have colour). `survey_labelled` collects every problem
for `vpt check`, `read_labelled` raises the first one; who trains and who is tested is `splits.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from vpt.data.cases import kind_of, raise_first
from vpt.data.check_command import check_command
from vpt.data.labelled import LabelledSet
from vpt.data.layouts.bids import is_bids
from vpt.data.layouts.by_name import is_told_by_names
from vpt.data.layouts.class_folders import class_folders, folder_rows
from vpt.data.layouts.class_lists import CSV_NAME, csv_rows
from vpt.data.layouts.class_rows import chosen, examples, ordered, refuse_classes, usable
from vpt.data.layouts.description import (
    description,
    read_channels,
    read_patients,
    require_few_channels,
    shown_name,
)
from vpt.data.layouts.image_folders import COLOUR, GREY, image_channels, is_image_set
from vpt.data.layouts.lists import is_mask_list
from vpt.data.layouts.masks_beside import without_masks
from vpt.data.layouts.medmnist import npz_rows
from vpt.data.layouts.medsam import is_medsam
from vpt.data.layouts.no_classes import no_classes
from vpt.data.layouts.patterns import is_paired
from vpt.data.layouts.rows import Row
from vpt.data.patients import by_pattern
from vpt.data.walking import is_training
from vpt.errors import VptError
from vpt.files import NO_TEXT, holds_file, is_text, read_json, spelled
from vpt.readers import Kind, reader_of
from vpt.vocabulary import ARRAYS, TABLES, Target
from vpt.words import did_you_mean, listed

LAYOUTS = (
    "supported are class folders (CLASS/NAME.jpg), labels.csv with the columns `path` and `label`, and a MedMNIST .npz"
)


def is_labelled(path: str | Path) -> bool:
    """Whether a path is a data set for classification: a table, an .npz, or a folder of classes or with labels.csv.

    Not a folder for segmentation (masks/, or a dataset.json with labels), even where it has a labels.csv as well, nor
    one whose files' names pair scans with masks.
    """
    path = Path(path)
    if not path.is_dir():
        return path.suffix.lower() in (*TABLES, *ARRAYS) and not is_mask_list(path)
    source = path / "dataset.json"
    if (is_image_set(path) and (path / "masks").is_dir()) or _has_label_ids(source) or is_paired(path):
        return False
    if holds_file(path / CSV_NAME):
        return True
    return bool(class_folders(path)) and not is_bids(path) and not is_told_by_names(path) and not is_medsam(path)


def _has_label_ids(source: Path) -> bool:
    """Whether a dataset.json is one for segmentation, or damaged, which its own reader says better."""
    if not source.is_file():
        return False
    try:
        content = read_json(source)
    except VptError:
        return True
    return not isinstance(content, dict) or bool(content.get("labels"))


def require_no_run(path: Path) -> None:
    """Raise VptError for the folder of a training, which is given where its data set is meant."""
    if is_training(path):
        raise VptError(
            f"{path}: the run of a training, expected a data set; give that, and the run with --from, --continue or "
            "--resume --out if it is to go on"
        )


def read_labelled(
    path: str | Path,
    target: Target | None = None,
    classes: Sequence[str] | None = None,
    patients: str | None = None,
    only: Sequence[str] | None = None,
    task: str | None = None,
) -> LabelledSet:
    """The labelled set in a folder, .csv or .npz. Raises VptError at the first problem.

    target: by default `labels` where an image has several, else `classes`. classes: their order, and that there are no
    others; by default the names found, sorted as numbers if they all are (of an .npz: "class 0", "class 1", ...).
    patients: a regular expression that finds in every case's name whose it is, instead of what else says it.
    only: leave out the examples of all other classes. task: as of `read_dataset`.
    """
    found, problems = survey_labelled(path, target, classes, patients, only)
    command = check_command(path, patients, task=task)
    raise_first(problems, f"`{command}` lists them all")
    return replace(found, check=command)


def survey_labelled(
    path: str | Path,
    target: Target | None = None,
    classes: Sequence[str] | None = None,
    patients: str | None = None,
    only: Sequence[str] | None = None,
) -> tuple[LabelledSet, list[VptError]]:
    """The set with every example that has an image and a usable label, and all that is wrong with the others.

    Raises VptError only where the layout, its classes or dataset.json are unusable.
    """
    path = Path(path)
    require_no_run(path)
    _require_target(target)
    if classes is not None:
        refuse_classes(classes)
    problems: list[VptError] = []
    source, rows, order, target = _read(path, target, classes if only is None else None, problems)
    rows = _of_text(rows, problems)
    rows, masks = without_masks(rows) if source.is_dir() else (rows, [])
    if source.is_dir() and (classes or only) is None and (text := no_classes(source, rows)):
        problems.append(VptError(f"{source}: {text}"))
    rows, apart = chosen(rows, only, order, target, path)
    order = order if only is None else classes or only
    root = source if source.is_dir() else source.parent
    content = description(root / "dataset.json")
    names = tuple(
        order if order is not None else ordered({label for row in rows for label in row.labels}, target, path)
    )
    rows = usable(rows, names, target, problems)
    if not rows:
        raise problems[0] if problems else VptError(f"{path}: no image in it; {LAYOUTS}")
    if len(names) < 2:
        problems.append(VptError(f"{path}: one class ({listed(names)}), expected at least 2; add images of another"))
    kind = _kind(rows, problems)
    given = read_patients(content, root / "dataset.json", {row.name for row in rows})
    said = {row.name: row.patient for row in rows if row.patient} | given
    found = LabelledSet(
        root,
        shown_name(content, root) if source.is_dir() or source.name == CSV_NAME else source.stem,
        _channels(rows, kind, content, root / "dataset.json"),
        names,
        target,
        examples(rows, names),
        said if patients is None else by_pattern([row.name for row in rows], patients),
        {row.name: row.side for row in rows if row.side},
        kind,
        source,
        stems={row.name: row.stem for row in rows if row.stem},
        columns=_columns(rows),
        left_out=frozenset((*apart, *(row.name for row in masks))),
        masks=tuple(row.image for row in masks),
    )
    _keep_patients_together(found, rows, problems)
    return found, problems


def _require_target(target: Target | None) -> None:
    known = get_args(Target)
    if target is not None and target not in known:
        raise VptError(f"target {target!r}, expected {' or '.join(known)}{did_you_mean(target, known)}")


def _of_text(rows: Sequence[Row], problems: list[VptError]) -> list[Row]:
    """The rows whose names and labels are text that a file can be called by; the others are problems."""
    named = []
    for row in rows:
        if is_text("".join((row.name, *row.labels))):
            named.append(row)
        else:
            problems.append(VptError(f"{spelled(row.where)}: {NO_TEXT}; rename it"))
    return named


def _read(
    path: Path, target: Target | None, classes: Sequence[str] | None, problems: list[VptError]
) -> tuple[Path, list[Row], Sequence[str] | None, Target]:
    """(what was read, rows, the order of the classes if it is known, the target)."""
    source = path / CSV_NAME if (path / CSV_NAME).is_file() else path
    ending = source.suffix.lower()
    if not path.exists():
        raise VptError(f"{path}: no such file or folder; {LAYOUTS}")
    if path.is_dir() and source == path:
        if not class_folders(path):
            raise VptError(f"{path}: neither labels.csv nor two folders of images; {LAYOUTS}")
        return path, list(folder_rows(path)), classes, target or "classes"
    if ending in TABLES:
        rows = list(csv_rows(source, problems))
        return source, rows, classes, target or ("labels" if any(map(_has_several, rows)) else "classes")
    if ending == ".npz":
        rows, order, several = npz_rows(path, classes)
        if several and target in ("classes", "grades"):
            raise VptError(f"{path}: several labels an image, but the target is {target}; set it to labels")
        return path, rows, order, target or ("labels" if several else "classes")
    raise VptError(f"{path}: no data set for classification; {LAYOUTS}")


def _has_several(row: Row) -> bool:
    return len(row.labels) > 1 or row.annotated is not None


# --- what else a set is -----------------------------------------------------------------------------------------------


def _kind(rows: Sequence[Row], problems: list[VptError]) -> Kind:
    volumes = [row for row in rows if reader_of(row.image).kind == "volumes"]
    if 0 < len(volumes) < len(rows):
        problems.append(VptError(f"{volumes[0].image}: a volume among images; keep one kind, take the others out"))
    return "volumes" if len(volumes) == len(rows) else "images"


def _channels(rows: Sequence[Row], kind: Kind, content: dict[str, Any], source: Path) -> tuple[str, ...]:
    """Of images grey, or red, green, blue if any is stored with colours; dataset.json has the last word.

    Only headers are read. To the encoder grey images look the same either way, since it is given three channels.
    """
    if kind == "volumes":
        named = read_channels(content, source) if content.keys() & {"channel_names", "modality"} else ("image",)
        require_few_channels(named, source)
        return named
    if isinstance(first := rows[0].image, np.ndarray):
        return COLOUR if first.ndim == 3 else GREY
    files = [row.image for row in rows if isinstance(row.image, Path) and kind_of(row.image) == "images"]
    return image_channels(content, source, files, exact=False)


def _columns(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Column -> image -> what it says."""
    names = dict.fromkeys(name for row in rows for name in row.others)
    return {name: {row.name: row.others[name] for row in rows if row.others.get(name)} for name in names}


def _keep_patients_together(found: LabelledSet, rows: Sequence[Row], problems: list[VptError]) -> None:
    """A problem for every image whose patient, as something says, is on another side as well.

    It counts to the side of the first.
    """
    first: dict[str, Row] = {}
    for row in (row for row in rows if row.side and found.whose.are_said(row.name)):
        other = first.setdefault(found.patient(row.name), row)
        if other.side != row.side:
            text = (
                f"patient {found.patient(row.name)} is in {row.side} here and in {other.side} "
                f"({other.where.removeprefix(f'{found.source}: ')}); keep a patient on one side"
            )
            problems.append(VptError(f"{row.where}: {text}"))
            found.sides[row.name] = other.side
