"""A model on the cases of one side of a split: it answers, and what it answers is scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vpt.data.cases import Case
from vpt.data.labelled import Example, LabelledSet
from vpt.data.slices.slice_stacks import annotated_of, prepare_stacks, stacks_folder, truth_of
from vpt.errors import VptError
from vpt.files import make_folder
from vpt.model import PromptedModel
from vpt.progress import Tick, silent
from vpt.readers import reader_of
from vpt.report.classification import ClassReport
from vpt.report.own_results import marked
from vpt.scores.trust import Quality
from vpt.use.archives import Beside, Failure, Masking, classify_cases, mask_file, segment_cases
from vpt.use.archives.masks import Answer
from vpt.use.archives.outputs import require_own_places
from vpt.use.classifier import Classifier
from vpt.use.evaluation.scoring import evaluate
from vpt.use.segmenter import Segmenter

if TYPE_CHECKING:
    from vpt.report.segmentation import Report


def classify_split(
    classifier: Classifier,
    labelled: LabelledSet,
    examples: Sequence[Example],
    *,
    title: str,
    cache: Path | None = None,
    progress: Tick = silent,
) -> ClassReport:
    """Classify labelled examples and score them."""
    if cache is None:
        named = [(example.name, example.images) for example in examples]
        _, probabilities, failures = classify_cases(classifier, named, progress, force=True)
        if failures:
            raise VptError("; ".join(failure.reason for failure in failures))
    else:
        place = stacks_folder(cache, labelled.source, examples, classifier.plan)
        probabilities = classifier.probabilities(
            prepare_stacks(examples, classifier.plan, place / "stacks.npy", progress)
        )
    return report_on(labelled, examples, probabilities, title, origin_in_words(classifier.model))


def origin_in_words(model: PromptedModel) -> str | None:
    """Whose the weights of a model's encoder are, and their licence; None where it has none."""
    return str(model.backbone.origin) if model.backbone.origin else None


def report_on(
    labelled: LabelledSet, examples: Sequence[Example], probabilities: np.ndarray, title: str, weights: str | None
) -> ClassReport:
    """Probabilities (N, K) of N examples beside what they are labelled with; weights: see `origin_in_words`."""
    return ClassReport(
        names=tuple(example.name for example in examples),
        probabilities=probabilities,
        targets=truth_of(examples, len(labelled.classes)).astype(bool),
        annotated=annotated_of(examples, len(labelled.classes)),
        classes=labelled.classes,
        target=labelled.target,
        title=title,
        groups=tuple(labelled.patient(example.name) for example in examples),
        weights=weights,
    )


def evaluate_split(
    segmenter: Segmenter,
    cases: Sequence[Case],
    folder: Path,
    patient: Callable[[str], str],
    *,
    title: str,
    progress: Tick = silent,
    box: Callable[[Case], Any] | None = None,
    quality: bool = False,
    to_save: bool = False,
    **settings: Any,
) -> Report:
    """Segment labelled cases into `folder` and score every mask.

    patient: whose scan a case of that name is, since intervals are over patients; box: where to look in a case;
    quality: is looked at as well; to_save: the report will be saved in the folder (see `own_results.marked`). Values
    that do not look like those of the training are warned of: they belong to the same data set.
    """
    read = [file for case in cases for file in case.files if isinstance(file, Path)]
    require_own_places(
        {case.name: [mask_file(folder, case)] for case in cases}, read, folder, "the scans or true masks"
    )
    make_folder(folder, "choose another place")
    qualities = list[Quality]()

    def tell(case: Case, found: Answer | Failure) -> None:
        if isinstance(found, Answer) and found.quality:
            qualities.append(found.quality)

    beside = Beside(quality=quality)
    with marked(folder, to_save=to_save) as writing:
        masking = Masking(
            segmenter, lambda case: mask_file(folder, case), box, force=True, beside=beside, writing=writing
        )
        failures = segment_cases(masking, cases, progress, tell=tell)
        if failures:
            raise VptError("; ".join(failure.reason for failure in failures))
        report = evaluate(
            [mask_file(folder, case) for case in cases],
            [case.label for case in cases if case.label is not None],
            {label: name for label, name in segmenter.labels.items() if label > 0},
            annotated=[case.annotated for case in cases if case.label is not None],
            title=title,
            **settings,
        )
    return replace(
        report,
        cases=tuple(replace(scored, name=case.name) for scored, case in zip(report.cases, cases, strict=True)),
        groups=tuple(patient(case.name) for case in cases),
        weights=origin_in_words(segmenter.model),
        notes=(),
        doubts=tuple(doubt for doubt in report.doubts if doubt.side == "references"),  # the masks are the model's own
        qualities=tuple(qualities) if quality else None,
    )


def reference_box(case: Case) -> np.ndarray | None:
    """The box (2, 3) around all labels of a case's reference, in voxels; None where it is empty."""
    assert case.label is not None  # of a data set's case
    places = np.argwhere(reader_of(case.label).labels_on(reader_of(case.scan).grid()).counted)
    return np.stack([places.min(0), places.max(0)]) if len(places) else None
