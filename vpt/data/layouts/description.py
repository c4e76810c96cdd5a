"""What dataset.json says: name, channels, labels, patients."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from vpt.data.cases import Case, as_case
from vpt.data.label_values import BACKGROUND, IGNORE, LabelValues, require_plain_name
from vpt.data.layouts.regions import ORDER, parts_of
from vpt.data.layouts.slips import refuse_slips
from vpt.errors import VptError
from vpt.files import holds_file, read_json
from vpt.readers import Code
from vpt.vocabulary import LARGEST_ID
from vpt.words import counted, did_you_mean, listed, with_article

PAIRS = "pairs"
PAIRED = f'"{PAIRS}": {{"scans": "*/imaging.nii.gz", "masks": "*/segmentation.nii.gz"}}'  # see `layouts.patterns`
MOST_CHANNELS = 16  # that a model mixes to the three of its encoder


def description(source: Path) -> dict[str, Any]:
    """What a dataset.json says; nothing where there is none."""
    content = read_json(source) if holds_file(source) else {}
    if not isinstance(content, dict):
        raise VptError(f"{source}: {with_article(type(content).__name__)} at the top, expected an object")
    refuse_slips(content, source)
    return content


def shown_name(content: dict[str, Any], root: Path) -> str:
    """What dataset.json calls the data set, else its folder's name."""
    return str(content.get("name") or root.resolve().name)


def read_patients(content: dict[str, Any], source: Path, cases: Collection[str]) -> dict[str, str]:
    """Case -> patient from a dataset.json, where cases may be written with their files' endings; empty where it says
    nothing.
    """
    patients = content.get("patients", {})
    if not isinstance(patients, dict):
        raise VptError(f'{source}: `patients` is no object; expected {{"CASE": "PATIENT", ...}}')
    return {as_case(str(case), cases): str(patient) for case, patient in patients.items()}


def fewer_than_said(content: dict[str, Any], found: int) -> str:
    """That `numTraining` counts more cases than there are, as after a copy that broke off; "" where it does not."""
    said = content.get("numTraining")
    if isinstance(said, bool) or not isinstance(said, int) or said <= found:
        return ""
    return f"`numTraining` is {said}, but {counted(found, 'case')} of it can be found; is the copy complete?"


def require_few_channels(channels: Sequence[str], source: Path) -> None:
    """Raise VptError where there are more channels than a model mixes."""
    if (count := len(channels)) > MOST_CHANNELS:
        raise VptError(
            f"{source}: {count} channels ({listed(channels, 8)}), a model takes {MOST_CHANNELS} at most; make a copy "
            "of the data set with those that matter"
        )


def read_channels(content: dict[str, Any], source: Path) -> tuple[str, ...]:
    """Names in channel order, from nnU-Net's `channel_names` or MSD's `modality`."""
    both = [_in_order(content[word]) for word in ("channel_names", "modality") if content.get(word)]
    if both and isinstance(content.get("modality"), str) and content.get("channel_names"):
        both = both[:1]  # what the scans are, in a word
    if not both or None in both:
        raise VptError(
            f'{source}: no channels; add "channel_names": {{"0": "MRI"}} (or `modality`), numbered from 0 without gaps'
        )
    names, *others = (found for found in both if found is not None)
    for other in others:
        if (other != names and sorted(other) == sorted(names)) or len(other) != len(names):
            raise VptError(
                f"{source}: `channel_names` says {', '.join(names)} and `modality` {', '.join(other)}; take out the "
                "one that is wrong"
            )
    return names


def _in_order(channels: Any) -> tuple[str, ...] | None:
    """Names by their numbers, from 0 on, or in a list; None where they are not numbered so."""
    found = dict(enumerate(channels)) if isinstance(channels, list) else channels
    if not isinstance(found, dict) or sorted(map(str, found)) != sorted(map(str, range(len(found)))):
        return None
    return tuple(str(name) for _, name in sorted(found.items(), key=lambda item: int(item[0])))


def labels_of(content: dict[str, Any], source: Path) -> dict[int, str]:
    """Value -> name, sorted, from MSD's id -> name or nnU-Net's name -> id or ids; 0 is the background.

    What has one name is one label, see `LabelValues`; regions that overlap become parts, see `layouts.regions`.
    """
    found = content.get("labels")
    if not isinstance(found, dict) or not found:
        raise VptError(f'{source}: no labels; add "labels": {{"0": "background", "1": "NAME"}}')
    labels: dict[int, str] = {}
    for value, name in _disjoint(_pairs(found, source), content.get(ORDER), source):
        if labels.setdefault(value, name) != name:
            raise VptError(
                f"{source}: label {value} is in {labels[value]} and in {name}; give every label one name, or add "
                f"nnU-Net's `{ORDER}`, by which regions that overlap are read as parts"
            )
    for value, name in labels.items():
        if value:
            require_plain_name(name, source)
    if labels.get(0, BACKGROUND) != BACKGROUND and BACKGROUND in labels.values():
        raise VptError(
            f"{source}: 0 is always the background, but it is {labels[0]}; write that with an id from 1 on, and the "
            "background as 0, here and in the masks"
        )
    read = LabelValues({0: BACKGROUND} | dict(sorted(labels.items())))
    if len(read.labels) == 1:
        raise VptError(f"{source}: labels hold only the background; add what is to be segmented with an id from 1 on")
    return read.names


def _disjoint(pairs: list[tuple[int, str]], order: Any, source: Path) -> list[tuple[int, str]]:
    """The same (value, name), or of regions that overlap their parts."""
    if order is None or len({value for value, _ in pairs}) == len(pairs):
        return pairs
    regions: dict[str, list[int]] = {}
    for value, name in pairs:
        regions.setdefault(name, []).append(value)
    return parts_of(regions, order, source)


def _pairs(found: dict[str, Any], source: Path) -> list[tuple[int, str]]:
    """(id, name) in the order of the file; of a list of ids one pair each."""
    if not all(isinstance(value, int | float | list) for value in found.values()) and all(_is_id(key) for key in found):
        pairs = [(_id(key), str(value)) for key, value in found.items()]
        if len({id for id, _ in pairs}) == len({name for _, name in pairs}) == len(pairs):
            return pairs
        raise VptError(
            f"{source}: labels {found} name the same id or the same name twice; make both unique, "
            'or merge labels with "NAME": [1, 2]'
        )
    named = {str(name): value if isinstance(value, list) else [value] for name, value in found.items()}
    if not all(values and all(_is_id(value) for value in values) for values in named.values()):
        raise VptError(f"{source}: labels {found} are neither id -> name nor name -> id (whole numbers from 0 on)")
    pairs = [(_id(value), name) for name, values in named.items() for value in values]
    if len(set(pairs)) < len(pairs):
        raise VptError(f"{source}: labels {found} name the same id twice; make them unique")
    if any(id == 0 and name == IGNORE for id, name in pairs):
        raise VptError(
            f"{source}: `ignore` is 0, which is the background; write what is to be ignored with an id from 1 on"
        )
    return pairs


def read_labels(source: Path) -> dict[int, str] | None:
    """`labels_of` a dataset.json; None where it has no labels."""
    content = read_json(source)
    return given_labels(content, source) if isinstance(content, dict) else None


def given_labels(content: dict[str, Any], source: Path) -> dict[int, str] | None:
    """`labels_of` its content; None where it has no labels."""
    return labels_of(content, source) if content.get("labels") else None


def numbers_of(
    names: Collection[str], given: dict[int, str] | None = None, source: Path | None = None
) -> dict[str, int]:
    """Label -> id of labels in files of their own: as `given` has them, or from 1 on in the order of their names.

    A name that differs from one of `given` in capitals alone is that, where no other does.
    Raises VptError for one that `given`, what `source` says, does not name, or calls the background.
    """
    if given is None:
        return {name: id for id, name in enumerate(sorted(names), start=1)}
    ids = {name: id for id, name in reversed(given.items())}
    ids |= _by_capitals({*names} - ids.keys(), {name: id for name, id in ids.items() if name not in names})
    if unknown := sorted({*names} - ids.keys()):
        raise VptError(
            f"{source}: `labels` names no {unknown[0]}, of which there are masks{did_you_mean(unknown[0], ids)}; add "
            f"it, or take `labels` out: files of a label each are numbered by their names then"
        )
    if (other := given[0]).casefold() != BACKGROUND and any(ids[name] == 0 for name in names):
        raise VptError(
            f"{source}: 0 is always the background, but it is {other}, of which there are masks; write that with an id "
            "from 1 on"
        )
    return {name: ids[name] for name in sorted(names)}


def _by_capitals(names: Collection[str], ids: Mapping[str, int]) -> dict[str, int]:
    """Those names with their ids that one of `ids` is but for capitals, and none other is."""
    alike: dict[str, tuple[list[str], list[int]]] = {}
    for name in names:
        alike.setdefault(name.casefold(), ([], []))[0].append(name)
    for name, id in ids.items():
        alike.setdefault(name.casefold(), ([], []))[1].append(id)
    return {mine[0]: theirs[0] for mine, theirs in alike.values() if len(mine) == len(theirs) == 1}


def read_codes(content: dict[str, Any], labels: dict[int, str], source: Path) -> dict[str, Code]:
    """A label's name -> the code that DICOM segmentations give it, from `codes`; empty where it says nothing."""
    found = content.get("codes", {})
    form = '"codes": {"liver": ["10200004", "SCT", "Liver"]} (value, scheme, meaning)'
    if not isinstance(found, dict):
        raise VptError(f"{source}: `codes` is no object; expected {form}")
    codes: dict[str, Code] = {}
    for name, code in found.items():
        if name not in labels.values():
            raise VptError(f"{source}: `codes` names {name!r}, which is no label{did_you_mean(name, labels.values())}")
        if not (isinstance(code, list) and len(code) == 3 and all(isinstance(part, str) and part for part in code)):
            raise VptError(f"{source}: the code of {name} is {code!r}; expected {form}")
        codes[name] = (code[0], code[1], code[2])
    return codes


def _is_id(value: Any) -> bool:
    """1, "1" and 1.0, as R and pandas write whole numbers."""
    found = None if isinstance(value, bool) else re.fullmatch(r"(\d{1,19})(\.0)?", str(value))
    return found is not None and int(found[1]) <= LARGEST_ID


def _id(value: Any) -> int:
    return int(str(value).removesuffix(".0"))


def case_in_words(root: Path, case: Case, count: int, channels: Sequence[str], left_out: str = "") -> str:
    """What was read where nothing describes it: how many cases, and one with its files, as seen from `root`."""
    scans = [path.relative_to(root).as_posix() for path in case.images]
    masks = [path.relative_to(root).as_posix() for path in case.files[len(scans) :]]
    return (
        f"{counted(count, 'case')} such as {case.name}, with the {'scans' if len(scans) > 1 else 'scan'} "
        f"{listed(scans, 4)} ({', '.join(channels)}) and the {'masks' if len(masks) > 1 else 'mask'} "
        f"{listed(masks, 4)}{left_out}; `vpt check {root} --write dataset.json` fixes it"
    )
