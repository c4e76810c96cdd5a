"""Predictions and references paired by name, before anything of them is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vpt.data.ids_in_names import id_of
from vpt.errors import VptError
from vpt.readers import is_volume
from vpt.use.evaluation.paired_folders import is_folder, pair_folders
from vpt.use.evaluation.pairs import Mask, Matched, Pair, Volume, mask_of
from vpt.words import counted, with_article


def pair_masks(predictions: Volume | Sequence[Volume], references: Volume | Sequence[Volume]) -> Matched:
    """The pairs in two folders (by case name), two files or images, or two sequences of them in the same order.

    Where folders in both hold masks that are called alike, as of an archive with subfolders, these are paired as well.
    Files in folders that are not called alike are paired by what is left of their names without the words that say
    mask, scan or sequence (`pat01_T1` and `pat01_seg`), where each case has a folder by what is left of their paths
    (`pat01` and `pat01/seg`). Raises VptError for predictions without a reference, names that fit several, sequences
    whose names say another order, and for anything that is no label volume by its name or type; files are not opened.
    """
    if is_folder(predictions) or is_folder(references):
        return pair_folders(predictions, references)
    first, second = _masks(predictions), _masks(references)
    if len(first) != len(second):
        raise VptError(
            f"{counted(len(first), 'prediction')} but {counted(len(second), 'reference')}; give one of each, in one "
            "order"
        )
    if not first:
        raise VptError("no predictions and no references were given; give at least one pair of label volumes")
    _require_one_order(first, second)
    return Matched([Pair(*both) for both in zip(first, second, _case_names(first, second), strict=True)])


def _require_one_order(predictions: Sequence[Mask], references: Sequence[Mask]) -> None:
    """Raise VptError for a prediction that is called as another pair's reference, where the names tell these apart.

    Only where every prediction is called as one of them: others may be compared with those of the next day.
    """
    ids = [id_of(mask.name) for mask in references]
    if len({*ids}) < len(ids) or not {id_of(mask.name) for mask in predictions} <= {*ids}:
        return
    for number, (prediction, reference) in enumerate(zip(predictions, references, strict=True), start=1):
        its = id_of(prediction.name)
        if its != id_of(reference.name) and its in ids:
            raise VptError(
                f"pair {number}: {prediction.shown} and {reference.shown}, but {its} is the name of reference "
                f"{ids.index(its) + 1} of {len(ids)}; give predictions and references in one order"
            )


def _case_names(predictions: Sequence[Mask], references: Sequence[Mask]) -> list[str]:
    """The references' names; where they share one (`P0/segmentation.nii.gz`), the predictions', with their folders, or
    with their places in the order.
    """
    for names in (
        [mask.name for mask in references],
        [mask.name for mask in predictions],
        [f"{Path(mask.shown).parent.name}_{mask.name}" for mask in references],
    ):
        if len({*names}) == len(names):
            return names
    return [f"{mask.name} {number}" for number, mask in enumerate(references, start=1)]


def _masks(given: Any) -> list[Mask]:
    if isinstance(given, str | Path) or is_volume(given):
        return [mask_of(given)]
    if not isinstance(given, Iterable):
        found = with_article(type(given).__name__)
        raise VptError(f"{found} is no mask; give a folder, a file, an image of nibabel, or a list of files or images")
    return [mask_of(one, f"image {number}") for number, one in enumerate(given, start=1)]
