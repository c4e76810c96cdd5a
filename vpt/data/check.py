"""What is wrong with a data set, all of it at once, and how to mend it: the work behind `vpt check DATA`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vpt.data.annotated import annotated_in_words
from vpt.data.case_facts import CaseFacts, held_in, read_safely
from vpt.data.cases import SegmentationSet, unwritable
from vpt.data.check_images import parted, unlike
from vpt.data.check_labelled import check_labelled
from vpt.data.doubts.crossed_names import crossed_names
from vpt.data.doubts.headers import once, single_slices, unusual_spacing
from vpt.data.doubts.image_and_mask import compared, drawn_in, misplaced
from vpt.data.doubts.inside_out import masks_of
from vpt.data.doubts.labels import doubtful_numbers, numbered_files
from vpt.data.doubts.left_out import left_out
from vpt.data.doubts.mask_looks import lossy, mask_doubts
from vpt.data.doubts.mask_values import SHADES, TWO_WAYS
from vpt.data.doubts.not_hu import doubtful_hu, no_hu, unnamed_hu
from vpt.data.doubts.one_patient import guessed_on_two_sides
from vpt.data.doubts.pictures_as_masks import pictures_as_masks
from vpt.data.doubts.twins import Look, near_twins, twins
from vpt.data.doubts.unlike import same_channels
from vpt.data.doubts.unread_columns import unread_columns
from vpt.data.doubts.unread_lists import unread_lists
from vpt.data.doubts.unread_sides import unread_sides
from vpt.data.doubts.unread_tables import unread_tables
from vpt.data.findings import (
    Check,
    LabelSummary,
    Problem,
    intensity_of,
    orientations_of,
    problem_of,
    seen_from,
    spread_of,
)
from vpt.data.label_values import Claim
from vpt.data.layouts import is_labelled, survey
from vpt.data.layouts.description import description, fewer_than_said
from vpt.data.layouts.naming import UNLABELLED
from vpt.data.layouts.patterns import is_paired
from vpt.data.reading import read_each
from vpt.data.splits import Splits, first_sides, source_in_words, split_source, survey_folds
from vpt.errors import VptError
from vpt.readers import ColourMask, LabelFiles, Relabelled
from vpt.readers.colours import Colour, shown
from vpt.vocabulary import Task
from vpt.words import counted, listed

FEW_PIXELS = 10  # a mask of less is likely a slip of the mouse


def check_dataset(
    root: str | Path,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
    patients: str | None = None,
    labels: Mapping[str, Claim] | None = None,
    task: Task | None = None,
) -> Check:
    """Read every image and label of a data set once, and collect all problems.

    progress: called after each case with (done, total, name); patients: see `vpt.data.patients.by_pattern`; labels:
    names for the values of the masks, see `LabelValues.read_as`; task: what it is to be read for, by default what its
    layout says. Raises VptError only when the folder or its dataset.json cannot be used at all, so that there is
    nothing to check. Labelled sets are `check_labelled`'s.
    """
    if task == "classification" or (task is None and is_labelled(root)):
        if labels:
            raise VptError(f"{root}: a data set for classification, whose images have no masks; leave --labels out")
        return check_labelled(root, progress=progress, patients=patients)
    dataset, pairing = survey(root, patients, labels)
    near = compared(dataset.cases, dataset.kind)
    facts = read_each(
        lambda case: read_safely(case, dataset, near.get(case.name)), dataset.cases, dataset.kind, progress
    )
    splits, split_errors = survey_folds(dataset, {each.case.name: held_in(each, dataset) for each in facts})
    looks = [Look(each.case, each.digest, each.steps) for each in facts]
    problems = [
        *(problem_of(error) for error in pairing),
        *(problem_of(error) for error in split_errors),
        *(problem for each in facts for problem in each.problems),
        *(Problem("warning", file, text) for file, text in once(doubt for each in facts for doubt in each.doubts)),
        *([Problem("error", masks_of(dataset), text)] if (text := unwritable(dataset)) else []),
        *_label_problems(dataset, facts),
        *(_mask_doubts(dataset, facts) if dataset.kind == "images" else ()),
        *_numbers(dataset, facts, pairing),
        *_looks(dataset, facts, pairing),
        *_beside(dataset, facts),
        *twins(dataset, looks, splits),
        *near_twins(dataset, looks, splits),
        *unlike(facts, dataset.channels, dataset.kind),
        *_same_channels(dataset, facts),
        *_hu(dataset, facts),
        *_in_no_split(dataset, splits),
        *_guessed(dataset, splits),
        *parted(facts, dataset.whose, splits, split_source(dataset)),
        *_spacings(dataset, facts),
        *_shared(dataset),
        *_left_out(dataset, pairing),
    ]
    return _summary(dataset, facts, splits, tuple(seen_from(problem, dataset.root) for problem in problems))


def _same_channels(dataset: SegmentationSet, facts: Sequence[CaseFacts]) -> Iterator[Problem]:
    if dataset.kind == "volumes":
        cases = [(each.name, each.values) for each in facts if each.values]
        for text in same_channels(cases, dataset.channels):
            yield Problem("warning", str(dataset.root), text)


def _hu(dataset: SegmentationSet, facts: Sequence[CaseFacts]) -> Iterator[Problem]:
    """CT in another unit, throughout."""
    if dataset.kind == "volumes":
        read = [each.values for each in facts if each.values]
        if text := no_hu(dataset.channels, read):
            yield Problem("error", str(dataset.root), text)
        elif text := doubtful_hu(dataset.channels, read) or unnamed_hu(dataset.channels, read):
            yield Problem("warning", str(dataset.root), text)


def _numbers(dataset: SegmentationSet, facts: Sequence[CaseFacts], told: Sequence[VptError]) -> Iterator[Problem]:
    """Numbers without a name that may be no labels; where they were refused as one label's, it is told."""
    if any(TWO_WAYS in str(error) for error in told):
        return
    in_files = any(isinstance(case.label, LabelFiles) for case in dataset.cases)
    held = [each.voxels for each in facts if each.voxels]
    for text in (*numbered_files(dataset.labels, in_files), *doubtful_numbers(dataset.labels, held)):
        yield Problem("warning", masks_of(dataset), text)


def _looks(dataset: SegmentationSet, facts: Sequence[CaseFacts], told: Sequence[VptError]) -> Iterator[Problem]:
    """A background that is not 0, edges that were interpolated or dithered; what was refused is not told again."""
    shades_told = any(SHADES in str(error) for error in told)
    looks = [each.look for each in facts if each.look]
    for text in mask_doubts(looks, dataset.labels, dataset.kind, shades_told=shades_told):
        yield Problem("warning", masks_of(dataset), text)


def _beside(dataset: SegmentationSet, facts: Sequence[CaseFacts]) -> Iterator[Problem]:
    """Masks that lie turned on their images, are drawn into them, or are the images themselves."""
    found = [each.beside for each in facts if each.beside]
    copies = pictures_as_masks(dataset.cases) if dataset.kind == "images" else []
    for text in (*misplaced(found, dataset.kind), *drawn_in(found, dataset.kind), *copies):
        yield Problem("warning", masks_of(dataset), text)


def _label_problems(dataset: SegmentationSet, facts: Sequence[CaseFacts]) -> Iterator[Problem]:
    """Nothing to learn anywhere, or a label that no case has, or only one."""
    read = [each for each in facts if each.voxels is not None]
    if not read:
        return
    if not any(each.voxels for each in read):
        nothing = f"no {dataset.element} of any label in {counted(len(read), 'case')}"
        text = f"{nothing}, so nothing can be learned; check the export"
        yield Problem("error", str(dataset.root), text)
        return
    for id, name in dataset.labels.items():
        having = [each.case for each in read if each.voxels and id in each.voxels]
        if id and not having:
            file, mend = masks_of(dataset), "add a case that has it"
            if (source := dataset.root / "dataset.json").exists():
                file, mend = str(source), f"remove it from `labels`, or {mend}"
            yield Problem("warning", file, f"label {id} ({name}) is in no case; {mend}")
        elif id and len(having) == 1 < len(read):
            text = f"label {id} ({name}) is in this case only, so it cannot be both trained and tested; add more cases"
            yield Problem("warning", str(having[0].label), text)
    if dataset.label_values:
        for text in dataset.label_values.absent({id for each in facts for id in each.stored}):
            yield Problem("warning", str(dataset.root / "dataset.json"), text)


def _mask_doubts(dataset: SegmentationSet, facts: Sequence[CaseFacts]) -> Iterator[Problem]:
    """Masks of images that may be a mistake; one line for all of a kind, since there are thousands of images."""
    masks = [(each.case, sum(each.voxels.values())) for each in facts if each.voxels is not None]
    doubts = {
        "empty; fine if nothing is there, otherwise annotate them": [c.name for c, n in masks if n == 0],
        f"of less than {FEW_PIXELS} pixels; are they slips of the mouse?": [
            c.name for c, n in masks if 0 < n < FEW_PIXELS
        ],
    }
    labels = (case.label.mask if isinstance(case.label, Relabelled) else case.label for case, _ in masks)
    coloured = [label for label in labels if isinstance(label, ColourMask)]
    if coloured:
        ids = listed(
            (_meant(colour, id, dataset.labels) for colour, id in sorted(coloured[0].ids, key=lambda pair: pair[1])), 8
        )
        text = f"read by their colours, since their palettes' numbers differ or they have none: {ids}"
        yield Problem("warning", str(dataset.root / "masks"), f"{text}; say so in the names under `labels`")
    for what, names in doubts.items():
        if names:
            said, _, fix = what.partition(";")
            text = f"{len(names)} of {counted(len(masks), 'mask')} {'is' if len(names) == 1 else 'are'} {said}"
            yield Problem("warning", str(dataset.root / "masks"), f"{text} ({listed(names, 3)});{fix}")
    for text in lossy({case.name: case.label for case, _ in masks if case.label is not None}):
        yield Problem("warning", str(dataset.root / "masks"), text)


def _meant(colour: Colour, id: int, labels: Mapping[int, str]) -> str:
    """`#ff0000 is 1 (tumour)`."""
    name = labels.get(id, "")
    return f"{shown(colour)} is {id}{f' ({name})' if id and name != shown(colour) else ''}"


def _guessed(dataset: SegmentationSet, splits: Sequence[Splits]) -> Iterator[Problem]:
    for text in guessed_on_two_sides(dataset, splits):
        yield Problem("warning", split_source(dataset), text)
    for text in filter(None, [unread_sides(dataset), unread_lists(dataset), crossed_names(dataset.cases)]):
        yield Problem("warning", str(dataset.root), text)
    for text in unread_columns(dataset, splits):
        yield Problem("warning", str(dataset.source), text)
    for text in unread_tables(dataset, splits):
        yield Problem("warning", str(dataset.root), text)
    for text in dataset.whose.doubts([each.to_dict() for each in splits]):
        yield Problem("warning", str(dataset.root), text)


def _spacings(dataset: SegmentationSet, facts: Sequence[CaseFacts]) -> Iterator[Problem]:
    grids = [(each.file, each.grid) for each in facts if each.grid]
    if dataset.kind == "volumes":
        for file, text in (*unusual_spacing(grids), *single_slices(grids)):
            yield Problem("warning", file, text)


def _shared(dataset: SegmentationSet) -> Iterator[Problem]:
    """A file that stands for two channels of a case, or for the masks of two."""
    owners: dict[str, list[str]] = {}
    for case in dataset.cases:
        if twice := [str(path) for path, count in Counter(case.images).items() if count > 1]:
            text = "two channels of this case are this one file; give each its own"
            yield Problem("warning", twice[0], text)
        if isinstance(case.label, Path):
            owners.setdefault(str(case.label), []).append(case.name)
    for file, names in owners.items():
        if len(names) > 1:
            yield Problem("warning", file, f"the mask of {len(names)} cases ({listed(names, 3)}); is that so?")


def _left_out(dataset: SegmentationSet, told: Sequence[VptError]) -> Iterator[Problem]:
    """Files in the data set's folder that belong to no case; not those that were `told` of already."""
    read = [file for case in dataset.cases for file in case.files]
    out = left_out(dataset.root, [*read, *(Path(problem_of(error).file) for error in told)])
    files = [path for path in out.files if path.relative_to(dataset.root).parts[0].lower() not in UNLABELLED]
    if text := fewer_than_said(description(source := dataset.root / "dataset.json"), len(dataset.cases)):
        yield Problem("warning", str(source), text)
    if is_paired(dataset.root):  # which files count is said
        return
    read_as = " to .nii.gz" if dataset.kind == "volumes" else " to PNG"
    for text in replace(out, files=tuple(files)).sentences(read_as, ": they belong to no case; move or remove them"):
        yield Problem("warning", str(dataset.root), text)


def _in_no_split(dataset: SegmentationSet, splits: Sequence[Splits]) -> Iterator[Problem]:
    used = {name for each in splits for names in each.to_dict().values() for name in names}
    unused = [case.name for case in dataset.cases if case.label and case.name not in used]
    if splits and unused:
        shown = ", ".join(unused[:5]) + (" ..." if len(unused) > 5 else "")
        text = f"{counted(len(unused), 'labelled case')} in no split: {shown}; add to train, or leave out on purpose"
        yield Problem("warning", split_source(dataset), text)


def _summary(
    dataset: SegmentationSet, facts: list[CaseFacts], splits: list[Splits], problems: tuple[Problem, ...]
) -> Check:
    grids = [each.grid for each in facts if each.grid]
    return Check(
        root=dataset.root,
        name=dataset.name,
        cases=len(dataset.cases),
        channels=dataset.channels,
        labels=tuple(_label_summary(id, name, facts) for id, name in dataset.labels.items() if id),
        shape=spread_of([grid.shape for grid in grids]),
        spacing=spread_of([grid.spacing for grid in grids]),
        orientations=orientations_of(grids),
        intensity=intensity_of([each.ranges for each in facts if each.ranges]),
        splits={side: len(names) for side, names in splits[0].to_dict().items()} if splits else {},
        split_source=source_in_words(dataset, splits),
        patients=dataset.whose.guess(),
        problems=problems,
        kind=dataset.kind,
        guess=dataset.guess,
        label_values=str(dataset.label_values or ""),
        annotated=annotated_in_words(dataset.cases, dataset.labels),
        dataset=dataset,
        sides=first_sides(splits),
    )


def _label_summary(id: int, name: str, facts: Sequence[CaseFacts]) -> LabelSummary:
    volumes = [each.ml[id] for each in facts if id in each.ml]
    voxels = sum(each.voxels.get(id, 0) for each in facts if each.voxels)
    shares = [each.voxels[id] / each.size for each in facts if each.voxels and id in each.voxels]
    ml, share = (float(np.mean(values)) if values else 0.0 for values in (volumes, shares))
    return LabelSummary(id, name, len(volumes), voxels, ml, share)
