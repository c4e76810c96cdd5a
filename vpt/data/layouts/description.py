"""What dataset.json says: name, channels, labels, patients."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vpt.errors import VptError
from vpt.files import read_json
from vpt.readers import Code
from vpt.words import did_you_mean


def description(source: Path) -> dict[str, Any]:
    """What a dataset.json says; nothing where there is none."""
    content = read_json(source) if source.is_file() else {}
    if not isinstance(content, dict):
        raise VptError(f"{source}: a {type(content).__name__} at the top, expected an object")
    return content


def shown_name(content: dict[str, Any], root: Path) -> str:
    """What dataset.json calls the data set, else its folder's name."""
    return str(content.get("name") or root.resolve().name)


def read_patients(content: dict[str, Any], source: Path) -> dict[str, str]:
    """Case -> patient from a dataset.json; empty where it says nothing."""
    patients = content.get("patients", {})
    if not isinstance(patients, dict):
        raise VptError(f'{source}: `patients` is no object; expected {{"CASE": "PATIENT", ...}}')
    return {str(case): str(patient) for case, patient in patients.items()}


def read_channels(content: dict[str, Any], source: Path) -> tuple[str, ...]:
    """Names in channel order, from nnU-Net's `channel_names` or MSD's `modality`."""
    found = content.get("channel_names") or content.get("modality")
    if isinstance(found, list):
        found = dict(enumerate(found))
    if not isinstance(found, dict) or sorted(map(str, found)) != sorted(map(str, range(len(found)))):
        raise VptError(
            f'{source}: no channels; add "channel_names": {{"0": "MRI"}} (or `modality`), numbered from 0 without gaps'
        )
    return tuple(str(name) for _, name in sorted(found.items(), key=lambda item: int(item[0])))


def labels_of(content: dict[str, Any], source: Path) -> dict[int, str]:
    """Id -> name, sorted, from MSD's id -> name or nnU-Net's name -> id; 0 is added as background if it is missing."""
    found = content.get("labels")
    if not isinstance(found, dict) or not found:
        raise VptError(f'{source}: no labels; add "labels": {{"0": "background", "1": "NAME"}}')
    if any(isinstance(value, list) for value in found.values()):
        raise VptError(
            f"{source}: region-based labels (a list of ids) are not supported; give every label one id of its own"
        )
    if not all(isinstance(value, int) for value in found.values()) and all(_is_id(key) for key in found):
        pairs = [(int(key), str(value)) for key, value in found.items()]
    elif all(_is_id(value) for value in found.values()):
        pairs = [(int(value), str(key)) for key, value in found.items()]
    else:
        raise VptError(f"{source}: labels {found} are neither id -> name nor name -> id (whole numbers from 0 on)")
    labels = dict(sorted(pairs))
    if "ignore" in labels.values():
        raise VptError(f"{source}: an `ignore` label is not supported; annotate those voxels, or make them background")
    if len(labels) < len(pairs) or len(set(labels.values())) < len(pairs):
        raise VptError(f"{source}: labels {found} name the same id or the same name twice; make both unique")
    if not any(labels):
        raise VptError(f"{source}: labels hold only the background; add what is to be segmented with an id from 1 on")
    return labels if 0 in labels else {0: "background", **labels}


def read_labels(source: Path) -> dict[int, str] | None:
    """Id -> name, sorted and with the background, from a dataset.json; None where it has no labels."""
    content = read_json(source)
    return labels_of(content, source) if isinstance(content, dict) and content.get("labels") else None


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
    return not isinstance(value, bool) and re.fullmatch(r"\d+", str(value)) is not None
