"""Pairs of label volumes -> Report. Everything that can be wrong with the files is said before any score is computed,
but for voxels, which are checked case by case as they are read.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vpt.errors import VptError
from vpt.metrics import CaseScores, Empty, check_options, score_case
from vpt.report import CaseResult, Report, Settings

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage

__all__ = ["CaseScores", "evaluate", "score_case"]

ENDINGS = (".nii.gz", ".nii")
GRID_TOLERANCE_MM = 1e-3  # between corner voxels: what rounding to float32 in headers may do
WHOLE_TOLERANCE = 1e-3  # of a value to the next integer: scl_slope in the header leaves rounding errors

Volume = Any  # str | Path | nibabel image; nibabel is not imported here
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Source:
    """A label volume that is not read yet: its file or, of an image in memory, a word for messages."""

    name: str
    shown: str
    path: Path | None
    image: SpatialImage | None = None

    def open(self) -> SpatialImage:
        """Header only. Raises VptError when this is no readable 3-D NIfTI."""
        image = self.image if self.path is None else _open(self.path)
        assert image is not None
        if len(image.shape) != 3:
            shape = "x".join(map(str, image.shape))
            raise VptError(
                f"{self.shown}: shape {shape}, expected a 3-D label volume; save one volume (X, Y, Z) of labels"
            )
        return image

    def read(self) -> tuple[np.ndarray, SpatialImage]:
        """The labels as integers (X, Y, Z), and the image. Raises VptError when they cannot be read or are none."""
        image = self.open()
        try:
            if self.path is not None and self.path.suffix == ".gz":
                _check_gzip(self.path)
            data = np.asanyarray(image.dataobj)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise VptError(f"{self.shown}: {_damaged(error)}") from error
        return _whole_numbers(data, self.shown), image


@dataclass(frozen=True)
class Pair:
    prediction: Source
    reference: Source


def evaluate(
    predictions: Volume | Sequence[Volume],
    references: Volume | Sequence[Volume],
    labels: Mapping[int, str] | Iterable[int] | None = None,
    *,
    cases: Iterable[str] | None = None,
    empty: Empty = "nan",
    tolerance: float = 1.0,
    title: str = "Evaluation",
    progress: Progress | None = None,
) -> Report:
    """Score predicted against reference label volumes (3-D NIfTI), each case on its own grid.

    Args:
        predictions, references: two folders (paired by case name: the file's name without .nii or .nii.gz), two files
            or nibabel images, or two sequences of them in the same order.
        labels: the labels to score: ids, or id -> name. None takes them from `dataset.json` in the references'
            folder or the one above, else every label above 0 that a reference holds.
        cases: of two folders, score these cases only. Without it, every file must have its partner.
        empty: score of a label that is absent in both volumes: "nan" (left out of means), "one" or "zero".
        tolerance: of NSD, mm.
        progress: called as (done, total, name) after each case.

    Raises:
        VptError: a file without partner, an unreadable file, grids that differ, a label that is not in `labels`,
            values that are no whole numbers, no label at all, an option outside its range.

    >>> evaluate("out", "labelsTr").save("scores")
    """
    check_options(empty, tolerance)
    pairs = _pair(predictions, references, cases)
    for pair in pairs:
        _check_grids(pair)
    named, origin = _choose_labels(labels, pairs)
    results = []
    for done, pair in enumerate(pairs, start=1):
        results.append(_score(pair, named, origin, empty, tolerance))
        if progress is not None:
            progress(done, len(pairs), pair.reference.name)
    return Report(tuple(results), named, Settings(title, empty, tolerance))


def _score(pair: Pair, labels: dict[int, str], origin: str, empty: Empty, tolerance: float) -> CaseResult:
    prediction, _ = pair.prediction.read()
    reference, image = pair.reference.read()
    _check_values(prediction, pair.prediction.shown, labels, origin)
    if origin.endswith("dataset.json"):  # labels given in the call may be a part of those in the references
        _check_values(reference, pair.reference.shown, labels, origin)
    scores = score_case(prediction, reference, _spacing(image), labels, empty=empty, tolerance=tolerance)
    return CaseResult(pair.reference.name, pair.prediction.shown, pair.reference.shown, scores)


# --- pairing ---------------------------------------------------------------------------------------------------------


def _pair(predictions: Any, references: Any, cases: Iterable[str] | None) -> list[Pair]:
    if _is_folder(predictions) or _is_folder(references):
        return _pair_folders(predictions, references, cases)
    if cases is not None:
        raise VptError("cases: chooses among two folders, but files or images were given; give only those to score")
    first, second = _sources(predictions), _sources(references)
    if len(first) != len(second):
        raise VptError(
            f"{len(first)} predictions but {len(second)} references; give one of each per case, in one order"
        )
    if not first:
        raise VptError("no predictions and no references were given; give at least one pair of label volumes")
    return [Pair(*pair) for pair in zip(first, second, strict=True)]


def _pair_folders(predictions: Any, references: Any, cases: Iterable[str] | None) -> list[Pair]:
    for one, other in ((predictions, references), (references, predictions)):
        if not _is_folder(one):
            raise VptError(f"{_shown(one)}: not a folder, but {other} is one; give two folders or two files")
    found, expected = _volumes_in(Path(predictions)), _volumes_in(Path(references))
    if cases is not None:
        names = set(cases)
        _check_partner(names - set(expected), references, "no reference", "the names in `cases`")
        found, expected = ({k: v for k, v in files.items() if k in names} for files in (found, expected))
    mend = "add them, or name the cases to score with `cases`"
    _check_partner(set(expected) - set(found), predictions, "no prediction", f"the names in {references}; {mend}")
    _check_partner(set(found) - set(expected), references, "no reference", f"the names in {predictions}; {mend}")
    if not expected:
        raise VptError("cases: no case is named; name at least one, or leave `cases` out to score all")
    return [Pair(_source(found[name]), _source(expected[name])) for name in sorted(expected)]


def _check_partner(missing: set[str], folder: Any, what: str, rest: str) -> None:
    if missing:
        raise VptError(
            f"{folder}: {what} for {_listed(sorted(missing))}; expected a .nii.gz or .nii file for each of {rest}"
        )


def _volumes_in(folder: Path) -> dict[str, Path]:
    """Case name -> file. Hidden files (macOS leaves `._case.nii.gz`) are no cases."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.name.endswith(ENDINGS):
            continue
        if (name := _case_name(path)) in found:
            raise VptError(f"{path}: {found[name].name} has the same case name {name}; keep one of the two")
        found[name] = path
    if not found:
        below = [each.name for each in sorted(folder.iterdir()) if each.is_dir() and any(each.glob("*.nii*"))]
        hint = (
            f"did you mean its folder {' or '.join(below)}?"
            if below
            else "give the folder that holds the label volumes"
        )
        raise VptError(f"{folder}: no .nii.gz or .nii files in this folder; {hint}")
    return found


def _sources(given: Any) -> list[Source]:
    if isinstance(given, str | Path) or hasattr(given, "dataobj"):
        return [_source(given)]
    return [_source(one, f"image {number}") for number, one in enumerate(given, start=1)]


def _source(given: Volume, unnamed: str = "image") -> Source:
    """A path, or an image in memory, called by its file's name where it has one."""
    if isinstance(given, str | Path):
        return Source(_case_name(Path(given)), str(given), Path(given))
    if not (hasattr(given, "dataobj") and hasattr(given, "affine")):
        raise VptError(
            f"{unnamed}: a {type(given).__name__}, expected a path or a nibabel image; arrays go to score_case"
        )
    file = given.get_filename()
    return Source(_case_name(Path(file)) if file else unnamed, str(file or unnamed), None, given)


def _case_name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _is_folder(given: Any) -> bool:
    return isinstance(given, str | Path) and Path(given).is_dir()


def _shown(given: Any) -> str:
    return str(given) if isinstance(given, str | Path) else f"a {type(given).__name__}"


def _listed(names: Sequence[Any], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(str, names[:limit])) + more


# --- reading ---------------------------------------------------------------------------------------------------------


def _open(path: Path) -> SpatialImage:
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    if not path.exists():
        raise VptError(f"{path}: there is no such file or folder; check the path")
    if path.is_dir():
        raise VptError(f"{path}: a folder, expected a .nii.gz or .nii file")
    if path.stat().st_size == 0:
        raise VptError(f"{path}: an empty file (0 bytes), expected a NIfTI; copy it again")
    try:
        image = nibabel.load(path)
    except (OSError, EOFError, zlib.error) as error:
        raise VptError(f"{path}: {_damaged(error)}") from error
    except (ImageFileError, ValueError) as error:
        raise VptError(
            f"{path}: not a NIfTI, or one with a damaged header; save it as .nii.gz, or copy it again"
        ) from error
    if not isinstance(image, nibabel.Nifti1Pair):
        raise VptError(f"{path}: not a NIfTI but a {type(image).__name__}; save it as .nii.gz")
    return image


def _check_gzip(path: Path) -> None:
    """Read to the checksum at the end, which nibabel never reaches: damaged voxels would pass for labels."""
    with gzip.open(path) as file:
        while file.read(1 << 22):
            pass


def _damaged(error: Exception) -> str:
    return f"cannot be read to its end ({_brief(error)}); the file is damaged or was cut short, copy it again"


def _brief(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


def _whole_numbers(data: np.ndarray, shown: str) -> np.ndarray:
    """Label values of any type -> integers. Raises VptError on NaN, infinity and fractions."""
    if data.dtype.kind in "iub":
        return data
    if data.dtype.kind != "f":
        raise VptError(f"{shown}: holds {data.dtype} values, expected whole numbers; save labels as uint8 or int16")
    if not np.isfinite(data).all():
        raise VptError(f"{shown}: holds NaN or infinite values, expected whole numbers; set those voxels to 0")
    whole = np.rint(data)
    off = np.abs(data - whole) > WHOLE_TOLERANCE
    if off.any():
        raise VptError(
            f"{shown}: holds {data[off][0]:.4g}, expected whole numbers; "
            "save the label map itself, and resample it with nearest neighbour"
        )
    return whole.astype(np.int64)


# --- grids -----------------------------------------------------------------------------------------------------------


def _check_grids(pair: Pair) -> None:
    prediction, reference = pair.prediction.open(), pair.reference.open()
    if prediction.shape == reference.shape:
        apart = np.linalg.norm(_corners(prediction) - _corners(reference), axis=1).max()
        if apart <= GRID_TOLERANCE_MM:
            return
        difference = f" (corners up to {apart:.3g} mm apart)"
    else:
        difference = ""
    raise VptError(
        f"{pair.prediction.shown}: its grid ({_grid(prediction)}) is not that of {pair.reference.shown} "
        f"({_grid(reference)}){difference}; resample the prediction to the reference with nearest neighbour, "
        "or predict on the scan that the reference was drawn on"
    )


def _corners(image: SpatialImage) -> np.ndarray:
    """World coordinates of the eight corner voxels' centres: (8, 3), mm."""
    corners = np.stack(np.meshgrid(*[(0, size - 1) for size in image.shape], indexing="ij"), axis=-1).reshape(-1, 3)
    return corners @ image.affine[:3, :3].T + image.affine[:3, 3]


def _spacing(image: SpatialImage) -> tuple[float, ...]:
    """mm per voxel axis. On a sheared grid, whose axes are not at right angles, distances are approximate."""
    return tuple(float(step) for step in np.linalg.norm(image.affine[:3, :3], axis=0))


def _grid(image: SpatialImage) -> str:
    from nibabel.orientations import aff2axcodes

    shape = "x".join(map(str, image.shape))
    spacing = "x".join(f"{step:.4g}" for step in _spacing(image))
    origin = ", ".join(f"{step:.4g}" for step in image.affine[:3, 3])
    axes = "".join(code or "?" for code in aff2axcodes(image.affine))
    return f"{shape} voxels of {spacing} mm, axes {axes}, origin {origin}"


# --- labels ----------------------------------------------------------------------------------------------------------


def _choose_labels(given: Mapping[int, str] | Iterable[int] | None, pairs: list[Pair]) -> tuple[dict[int, str], str]:
    """(id -> name in order of ids, without the background; where it comes from, for messages)."""
    if given is not None:
        chosen = given if isinstance(given, Mapping) else {label: str(label) for label in given}
        return _foreground(chosen, "`labels`"), "`labels`"
    for file in _dataset_files(pairs):
        if (named := _dataset_labels(file)) is not None:
            return _foreground(named, str(file)), str(file)
    found: set[int] = set()
    for reference in (pair.reference for pair in pairs):
        values = [int(value) for value in np.unique(reference.read()[0])]
        if values[0] < 0:
            raise VptError(
                f"{reference.shown}: holds {values[0]}, expected labels of 0 and above; is this a label map?"
            )
        found.update(values)
    if found <= {0}:
        raise VptError(f"{pairs[0].reference.shown}: no label above 0 in any of {len(pairs)} references; give `labels`")
    return {label: str(label) for label in sorted(found - {0})}, "the references"


def _foreground(named: Mapping[Any, Any], origin: str) -> dict[int, str]:
    try:
        labels = {int(label): str(name) for label, name in named.items() if int(label) != 0}
    except (TypeError, ValueError):
        raise VptError(f"{origin}: {_listed(list(named))} are not integer labels, such as 1, 2, 3") from None
    if not labels or min(labels) < 0:
        raise VptError(f"{origin}: labels {_listed(sorted(labels)) or 'none'}, expected at least one, all above 0")
    return dict(sorted(labels.items()))


def _dataset_files(pairs: list[Pair]) -> list[Path]:
    """`dataset.json` of the references' folder and of the one above, when all references lie in one folder."""
    folders = {pair.reference.path.resolve().parent for pair in pairs if pair.reference.path is not None}
    if len(folders) != 1:
        return []
    (folder,) = folders
    return [file for file in (folder / "dataset.json", folder.parent / "dataset.json") if file.is_file()]


def _dataset_labels(file: Path) -> dict[int, str] | None:
    """The labels of a `dataset.json`: MSD {"1": "liver"} or nnU-Net {"liver": 1}; None where it has none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VptError(f"{file}: cannot be read as JSON ({_brief(error)}); mend it, or give `labels`") from error
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, dict):
        return None
    if all(str(key).isdigit() for key in labels):
        return {int(key): str(name) for key, name in labels.items()}
    for name, label in labels.items():
        if not str(label).isdigit():
            raise VptError(
                f"{file}: label {name} is {label}, expected one integer; regions are not scored, give `labels`"
            )
        if name == "ignore":
            raise VptError(f"{file}: has an `ignore` label, which is not supported; give `labels` without it")
    return {int(label): name for name, label in labels.items()}


def _check_values(data: np.ndarray, shown: str, labels: dict[int, str], origin: str) -> None:
    unknown = sorted({int(value) for value in np.unique(data)} - {0, *labels})
    if unknown:
        raise VptError(
            f"{shown}: label{'s' if len(unknown) > 1 else ''} {_listed(unknown)} not in {_listed(list(labels), 20)} "
            f"(from {origin}); add it to `labels`, or take it out of the file"
        )
