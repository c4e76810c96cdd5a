"""Data sets as they lie on disk: which layout a folder has, and what it says. One module per layout.

Of volumes only names are read here, never voxels. `survey` and `survey_labelled` collect every problem for `vpt check`,
`read_dataset` and `read_labelled` raise the first one; who trains and who is tested is `splits.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from vpt.data.cases import SegmentationSet, kind_of, raise_first, require_plain_names
from vpt.data.check_command import check_command
from vpt.data.label_values import Claim, LabelValues
from vpt.data.layouts.annotated import read_annotated, with_annotated
from vpt.data.layouts.bids import is_bids, survey_bids
from vpt.data.layouts.by_name import is_told_by_names, survey_by_name
from vpt.data.layouts.class_lists import lists_in
from vpt.data.layouts.description import description, read_codes, require_few_channels
from vpt.data.layouts.image_folders import have_names_in_common, is_image_set, survey_images
from vpt.data.layouts.labelled import is_labelled, read_labelled, require_no_run, survey_labelled
from vpt.data.layouts.lists import is_mask_list, survey_list
from vpt.data.layouts.medsam import is_medsam, survey_medsam
from vpt.data.layouts.patterns import is_paired, survey_pairs
from vpt.data.layouts.volume_folders import is_described, lists_masks, survey_volumes
from vpt.data.layouts.written import write_description
from vpt.data.patients import by_pattern
from vpt.data.walking import Walk, folders_in, leads_back
from vpt.errors import VptError
from vpt.files import may_enter
from vpt.readers import Relabelled
from vpt.vocabulary import LISTS
from vpt.words import either, listed

__all__ = ["is_labelled", "read_dataset", "read_labelled", "survey", "survey_labelled", "write_description"]


def read_dataset(
    root: str | Path,
    patients: str | None = None,
    labels: Mapping[str, Claim] | None = None,
    task: str | None = None,
) -> SegmentationSet:
    """The data set in a folder, cases sorted by name, each with its label. Raises VptError at the first problem.

    patients: a regular expression that finds in every case's name whose it is, instead of what dataset.json says;
    labels: names for the values of its masks, see `LabelValues.read_as`; task: what was asked for by name, for the
    command that is told.
    """
    dataset, problems = survey(root, patients, labels)
    command = check_command(root, patients, labels, task)
    raise_first(problems, f"`{command}` lists them all")
    return replace(dataset, check=command)


def survey(
    root: str | Path, patients: str | None = None, labels: Mapping[str, Claim] | None = None
) -> tuple[SegmentationSet, list[VptError]]:
    """The data set with every case that has an image, and all that is wrong with the pairing of its files.

    patients, labels: as of `read_dataset`. Raises VptError only when dataset.json itself is missing or unusable.
    """
    dataset, problems = _survey(Path(root))
    require_few_channels(dataset.channels, dataset.root)
    require_plain_names(dataset)
    if patients is not None:
        dataset = replace(dataset, patients=by_pattern([case.name for case in dataset.cases], patients))
    said, wrong = read_annotated(dataset)
    valued, source = _with_values(dataset, labels), dataset.root / "dataset.json"
    try:
        valued = replace(valued, codes=read_codes(description(source), valued.labels, source))
    except VptError as error:
        wrong = [*wrong, error]
    return with_annotated(valued, said, dataset.labels), [*problems, *wrong]


def _with_values(dataset: SegmentationSet, claims: Mapping[str, Claim] | None) -> SegmentationSet:
    """Its masks' values as the labels that they stand for, where several are one, or some are dropped or ignored."""
    values = LabelValues(dataset.labels)
    if claims:
        values = values.read_as(claims, "data.labels")
    elif values.is_plain:
        return dataset
    cases = tuple(
        replace(case, label=Relabelled(case.label, values.ids, values.ignored)) if case.label is not None else case
        for case in dataset.cases
    )
    return replace(dataset, labels=values.labels, cases=cases, label_values=values)


def _survey(root: Path) -> tuple[SegmentationSet, list[VptError]]:
    require_no_run(root)
    if is_mask_list(root):
        return survey_list(root)
    if not root.is_dir():
        found, lists = "a file" if root.exists() else "no such folder", either(LISTS)
        raise VptError(f"{root}: {found}; give the folder with dataset.json, or a list ({lists})")
    if is_paired(root):
        return survey_pairs(root)
    if not is_described(root) and is_bids(root):
        return survey_bids(root)
    if lists_masks(root):
        return survey_volumes(root)
    if is_image_set(root) and (root / "masks").is_dir():
        return survey_images(root) if have_names_in_common(root) or not is_told_by_names(root) else survey_by_name(root)
    if not is_described(root) and is_medsam(root):
        return survey_medsam(root)
    if is_described(root) or not is_told_by_names(root):
        if is_image_set(root):
            return survey_images(root)
        _require_no_set_inside(root)
        return survey_volumes(root)
    _require_no_described_inside(root)
    return survey_by_name(root)


def _require_no_set_inside(root: Path) -> None:
    """Raise VptError for a folder in which one alone holds scans, and is a data set, as of an unpacked archive."""
    if is_described(root) or lists_in(root):
        return
    inner = root
    while not any(kind_of(path) for path in inner.iterdir()):
        holding = [folder for folder in folders_in(inner) if any(kind_of(path) for path in Walk(folder).files())]
        if len(holding) != 1:
            return
        (inner,) = holding
        if is_labelled(inner) or is_described(inner):
            raise VptError(f"{root}: no data set by itself, but the folder in it is one; give that ({inner})")


def _require_no_described_inside(root: Path) -> None:
    """Raise VptError where all scans lie in folders that a dataset.json describes each, as those of nnUNet_raw."""
    inner = [root]
    while len(inner) == 1 and not (inner[0] / "dataset.json").exists():
        real = inner[0].resolve()
        inner = [each for each in folders_in(inner[0]) if may_enter(each) and not leads_back(each, [real])]
    described = [folder for folder in inner if folder != root and _describes_labels(folder / "dataset.json")]
    if described and all({*described} & {*path.parents} for path in Walk(root).files() if kind_of(path)):
        one = f"the folder in it is one; give that ({described[0]})"
        several = f"the folders in it are, each by its dataset.json; give one of them ({listed(described, 3)})"
        raise VptError(f"{root}: no data set by itself, but {one if len(described) == 1 else several}")


def _describes_labels(source: Path) -> bool:
    with suppress(VptError):  # a damaged one describes nothing
        return bool(description(source).get("labels"))
    return False
