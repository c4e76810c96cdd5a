"""What the viewer shows of a case: scan and masks as NIfTI, their labels by name, and where two masks differ most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpt.data.cases import Case, case_name, kind_of
from vpt.data.ids_in_names import id_of
from vpt.data.label_maps import positions, read_label
from vpt.data.label_values import LabelValues
from vpt.data.layouts.description import read_labels
from vpt.data.plan import ORIENTATIONS
from vpt.data.scans import find_scans
from vpt.errors import VptError
from vpt.palette import colours_of, darkened, lightened
from vpt.readers import LabelMap, Reader, Unit, reader_of
from vpt.readers.as_nifti import label_bytes, scan_bytes
from vpt.report.cuts import worst_error
from vpt.words import counted, listed

AXES = ORIENTATIONS["axial"]
MOST_LABELS = 1000


@dataclass(frozen=True)
class ViewedCase:
    """A scan and the masks that lie on it, each as `vpt.readers.reader_of` takes it.

    titles: what the masks are called; none for the names of their files.
    """

    name: str
    scan: tuple[Any, ...]
    masks: tuple[Any, ...]
    titles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layer:
    """A mask: `.nii` of places in `labels` (0: background), which are (id, name, colour)."""

    name: str
    data: bytes
    labels: tuple[tuple[int, str, str], ...]


@dataclass(frozen=True)
class Scene:
    """error: where the first two masks differ most, RAS in mm, and how much, in words; notes: what to know of it."""

    name: str
    scan: bytes
    layers: tuple[Layer, ...]
    error: tuple[tuple[float, float, float], str] | None
    unit: Unit
    flat: bool
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For the page, without the voxels."""
        keys = ("id", "name", "colour")
        return {
            "name": self.name,
            "layers": [
                {"name": layer.name, "labels": [dict(zip(keys, each, strict=True)) for each in layer.labels]}
                for layer in self.layers
            ],
            "error": None if self.error is None else {"mm": self.error[0], "words": self.error[1]},
            "unit": self.unit,
            "flat": self.flat,
            "notes": self.notes,
        }


def find_cases(scan: Path, masks: Sequence[Path]) -> list[ViewedCase]:
    """A scan with its masks; of a folder of scans every one with the masks of its name in the folders of masks. Where
    no mask is called like a scan, they are those of its id (`pat01_T1` with `pat01_seg`).

    Raises:
        VptError: no scans, a mask that is not there, a single mask for several scans, no mask for any of the scans.
    """
    if missing := [mask for mask in masks if not mask.exists()]:
        raise VptError(f"{missing[0]}: no such file or folder; give masks that lie on {scan}")
    cases = find_scans(scan, 1)
    folders = [mask for mask in masks if mask.is_dir() and kind_of(mask) is None]
    if len(cases) > 1 and len(folders) < len(masks):
        single = next(mask for mask in masks if mask not in folders)
        raise VptError(
            f"{single}: one mask for {counted(len(cases), 'scan')} in {scan}; give the folder of their masks"
        )
    named = {folder: _masks_in(folder, [case.name for case in cases]) for folder in folders}
    found = [
        ViewedCase(
            case.name,
            case.scan,
            tuple(path for mask in masks if (path := _mask_of(case, mask, named.get(mask)))),
        )
        for case in cases
    ]
    if without := [
        folder for folder in folders if not any(path.parent == folder for each in found for path in each.masks)
    ]:
        raise VptError(
            f"{without[0]}: no mask is called like one of the scans ({listed([case.name for case in cases])})"
        )
    return found


def _masks_in(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Name of a scan -> its mask in the folder: of the same name, or of the same id, if only these two have it."""
    found = {case_name(path): path for path in sorted(folder.iterdir()) if kind_of(path) is not None}
    if any(name in found for name in names):
        return found
    of_masks, of_scans = Counter(map(id_of, found)), Counter(map(id_of, names))
    by_id = {id_of(name): path for name, path in found.items()}
    return {name: by_id[id] for name in names if of_masks[id := id_of(name)] == of_scans[id] == 1}


def _mask_of(case: Case, mask: Path, named: Mapping[str, Path] | None) -> Path | None:
    return mask if named is None else named.get(case.name)


def make_scene(case: ViewedCase, names: Mapping[int, str] | None) -> Scene:
    """Read a case. names: label id -> name, None to take those of a `dataset.json` beside masks or scan.

    Raises:
        VptError: what the readers refuse, a mask on another grid, more than 1000 labels.
    """
    reader = reader_of(case.scan)
    count = reader.count_channels()
    voxels = reader.voxels(count)
    colour = reader.kind == "images" and count == 3
    maps = [_read_mask(mask, reader) for mask in case.masks]
    named = _names_beside([*case.masks, *reader.files()]) if names is None else names
    shown = case.titles or _apart(case.masks)
    notes = [f"channel 1 of {count} is shown"] if count > 1 and not colour else []
    return Scene(
        case.name,
        scan_bytes(voxels, colour),
        tuple(_layer(name, found, named, k) for k, (name, found) in enumerate(zip(shown, maps, strict=True))),
        _error(maps, reader.unit, named),
        reader.unit,
        voxels.grid.shape[2] == 1,
        (*notes, *reader.doubts()),
    )


def _read_mask(mask: Any, reader: Reader) -> LabelMap:
    ids = reader_of(mask).labels_on(reader.grid()).ids
    if len(ids) > MOST_LABELS:
        raise VptError(f"{mask}: {len(ids)} values, expected {MOST_LABELS} labels at most; is this a scan?")
    if ids and min(ids) < 0:
        raise VptError(f"{mask}: holds {min(ids)}, expected labels of 0 and above; is this a scan?")
    return read_label(mask, ids, reader.grid(), reader.name)


def _apart(masks: Sequence[Path]) -> list[str]:
    """What to call them: by their files' names, with their folders where two have one name."""
    names = [mask.name for mask in masks]
    return names if len(set(names)) == len(names) else [f"{mask.resolve().parent.name}/{mask.name}" for mask in masks]


def _layer(name: str, found: LabelMap, named: Mapping[int, str], place: int) -> Layer:
    """place: of the mask; the second is in lighter colours, others in darker ones, which tell them from the first."""
    ids = sorted({0, *found.ids})
    colours = colours_of({*named, *ids})
    shades = (str, lightened, darkened)
    shown = {id: shades[min(place, 2)](colour) for id, colour in colours.items()}
    labels = tuple((id, named.get(id, str(id)), shown[id]) for id in ids if id)
    return Layer(name, label_bytes(positions(found.array, ids), found.grid), labels)


def _names_beside(files: Sequence[Path]) -> Mapping[int, str]:
    """Of a `dataset.json` in the folder of one of the files, or in the one above."""
    folders = [folder for file in files for folder in list(file.resolve().parents)[:2]]
    for folder in dict.fromkeys(folders):
        if (folder / "dataset.json").is_file():
            try:
                found = read_labels(folder / "dataset.json")
            except VptError:
                continue
            if found:
                return LabelValues(found).names
    return {}


def _error(
    maps: Sequence[LabelMap], unit: str, named: Mapping[int, str]
) -> tuple[tuple[float, float, float], str] | None:
    """Where the first two masks differ most, in the label in which they agree least."""
    if len(maps) < 2:
        return None
    first, second = (found.oriented(AXES) for found in maps[:2])
    labels = sorted({*first.ids, *second.ids} - {0})
    error = worst_error(first.counted, second.counted, labels)
    if error is None:
        return None
    x, y, z = (first.grid.affine @ [*error.place, 1])[:3].tolist()
    size = counted(error.voxels, "pixel") if unit == "px" else f"{error.voxels * first.grid.voxel_ml:.3g} ml"
    whose = f"{named.get(error.label, error.label)}, " if error.label is not None and len(labels) > 1 else ""
    return (x, y, z), f"{whose}{size}"
