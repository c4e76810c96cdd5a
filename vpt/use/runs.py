"""A finished run on one side of its split: segment the cases, score them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vpt.artifact import find_artifact
from vpt.data.annotated import keep_labels
from vpt.data.cases import Case, Cases
from vpt.data.groups import read_groupings
from vpt.data.labelled import Example, LabelledSet
from vpt.data.layouts import read_dataset, read_labelled
from vpt.data.postprocess import in_words
from vpt.data.slice_stacks import annotated_of, prepare_stacks, stacks_folder, truth_of
from vpt.data.splits import read_written
from vpt.errors import VptError
from vpt.files import make_folder
from vpt.model import PromptedModel
from vpt.progress import Tick, silent
from vpt.readers import reader_of
from vpt.report.classification import ClassReport
from vpt.scores.cases import check_options
from vpt.scores.groups import Grouping
from vpt.scores.trust import Quality
from vpt.use.archives import Beside, Failure, classify_cases, mask_file, segment_cases
from vpt.use.archives.masks import Answer
from vpt.use.by_task import SegmenterByTask
from vpt.use.classifier import Classifier
from vpt.use.evaluation import evaluate
from vpt.use.limits import judge, keep_limits, require_different
from vpt.use.load import load
from vpt.use.segmenter import Segmenter

if TYPE_CHECKING:
    from vpt.config.run import DataConfig
    from vpt.report.segmentation import Report


def evaluate_run(
    run: str | Path | Sequence[str | Path],
    *,
    split: str | None = None,
    data: str | Path | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    weights: str | Path | None = None,
    oracle_box: bool = False,
    tta: bool = False,
    postprocess: bool = True,
    by: str | Sequence[str] | None = None,
    groups: str | Path | None = None,
    quality: bool = False,
    cache: Path | None = None,
    progress: Tick = silent,
    **settings: Any,
) -> tuple[Report | ClassReport, Path]:
    """Use the best artifact on a split of the run's own data set and score it -> report, and the folder of masks.

    A run that classifies gives a `ClassReport`, and leaves `settings` out. Of several runs on one split it is the mean
    of their probabilities; the folder lies beside the first.

    Args:
        split: "test" or "val"; None takes test, or val where the run has no test cases, and the title says so;
        data: where the data set lies now, if elsewhere than in training;
        out: folder of the masks, by default RUN/test or RUN/val, of boxes RUN/test_oracle_box; settings: see
            `vpt.evaluate`;
        oracle_box: tell the model, for every case, the box around the reference's foreground: what a perfect user
            would draw, so no score for automatic use. The report's title says so;
        by: columns that scores are told apart by (sex,site), of the data set's list, the CSV that its dataset.json
            names, or that of `groups`;
        tta: the mean over mirror images, see `vpt.load`; the folder is RUN/test_tta, and the title says so;
        postprocess: False leaves out what the training chose to do with masks; the folder is RUN/test_raw then;
        quality: how far the masks are to be trusted, and whether that tells good from bad; the limits of what is usual
            are chosen on the validation cases, and kept for `vpt predict --quality` (see `vpt.use.limits`);
        cache: of a run that classifies: a folder for prepared examples, found again by other runs with the same plan.

    Raises:
        VptError: not a run, an empty split, a case that cannot be segmented or scored.
    """
    runs = [Path(run)] if isinstance(run, str | Path) else [Path(each) for each in run]
    run, splits = runs[0], _common_splits(runs)
    name, called = run, str(run)
    if len(runs) > 1:
        name = run.parent / "-".join(["mean", *(each.resolve().name for each in runs)])
        called = f"mean of {', '.join(map(str, runs))}"
    split, side = _side(run, splits, split)
    check_options(settings.get("empty", "nan"), settings.get("tolerance", 1.0), settings.get("tolerances"))
    if quality:
        require_different([find_artifact(each) for each in runs])
    segmenter = load(runs, device, weights, tta=tta, postprocess=postprocess)
    if isinstance(segmenter, SegmenterByTask):
        *_, (task, segmenter) = segmenter.members.items()
        called += f", told its task {task}"
    suffix, told = variant(oracle_box, tta, postprocess)
    folder, title = Path(out) if out is not None else name / f"{split}{suffix}", f"{called}: {side}{told}"
    if isinstance(segmenter, Classifier):
        _require_no_masks(run, oracle_box, bool(settings.get("lesions")), quality)
        labelled = _labelled(run, data)
        examples = [labelled.case(each) for each in splits[split]]
        groupings = _groupings(labelled, splits[split], by, groups)
        scored = classify_split(segmenter, labelled, examples, title=title, cache=cache, progress=progress)
        return replace(scored, groupings=groupings), folder
    known = _data_config(run)
    root = Path(data) if data is not None else known.path
    if not root.exists():
        raise VptError(f"{root}: the run's data set is not there; say where it lies now with --data")
    names = [name for label, name in segmenter.labels.items() if label]
    dataset = keep_labels(read_dataset(root, known.patients, known.labels), names)
    if oracle_box and not segmenter.model.head.takes_hints:
        raise VptError(f"{run}: takes no boxes; leave --oracle-box out, or train with head.hints=true")
    cases = [dataset.case(name) for name in splits[split]]
    groupings = _groupings(dataset, splits[split], by, groups)
    box = reference_box if oracle_box else None
    if segmenter.postprocess:
        title += f"; post-processed: {in_words(segmenter.postprocess, segmenter.labels)}"
        title += ", as chosen on these cases" if split == "val" else ""
    report = evaluate_split(
        segmenter, cases, folder, dataset.patient, title=title, progress=progress, box=box, quality=quality, **settings
    )
    if report.qualities is not None:
        known_cases = [] if split == "val" else [dataset.case(each) for each in splits["val"]]
        usual = report.qualities if split == "val" else judge(segmenter, known_cases, progress)
        report = replace(report, limits=keep_limits([find_artifact(each) for each in runs], tta, usual))
    return replace(report, groupings=groupings), folder


def _require_no_masks(run: Path, oracle_box: bool, lesions: bool, quality: bool) -> None:
    """Refuse what only masks have, of a run that classifies."""
    for given, why in (
        (oracle_box, "so it takes no boxes; leave --oracle-box out"),
        (lesions, "so there are no lesions to find; leave --lesions out"),
        (quality, "and its probabilities say how sure it is; leave --quality out"),
    ):
        if given:
            raise VptError(f"{run}: classifies, {why}")


def _common_splits(runs: Sequence[Path]) -> dict[str, list[str]]:
    """Of runs on one split; raises VptError for another folder, and for runs that differ in a side."""
    found = []
    for run in runs:
        if not (run / "splits.json").is_file():
            raise VptError(
                f"{run}: not a run's folder (no splits.json); give a run of `vpt train`, or two folders of masks: "
                "predictions and references"
            )
        found.append(read_written(run / "splits.json").to_dict())
    for run, splits in zip(runs, found, strict=True):
        for side in ("train", "val", "test"):
            if sorted(splits[side]) != sorted(found[0][side]):
                raise VptError(
                    f"{run}: another {side} side than {runs[0]}, so one may have trained on what the other is tested "
                    "on; give runs that differ in their seed alone"
                )
    return found[0]


def _groupings(
    data: Cases[Any], names: Sequence[str], by: str | Sequence[str] | None, file: str | Path | None
) -> tuple[Grouping, ...]:
    described = [path for path in (data.root / "dataset.json",) if path.is_file()]
    return read_groupings(by, names, data.patient, file=file, columns=data.columns, described=described)


def variant(oracle_box: bool, tta: bool, postprocess: bool = True) -> tuple[str, str]:
    """What a folder and a title have at their end where a model was told more, or asked more often, than usual, or its
    masks are left as they are.
    """
    folder = ("_oracle_box" if oracle_box else "") + ("_tta" if tta else "") + ("" if postprocess else "_raw")
    boxed = ", told the BOX OF THE REFERENCE (oracle)" if oracle_box else ""
    raw = "" if postprocess else ", without post-processing"
    return folder, (", mean over mirror images" if tta else "") + raw + boxed


def _side(run: Path, splits: Mapping[str, Sequence[str]], split: str | None) -> tuple[str, str]:
    """The side to evaluate, and what to call it in titles."""
    if split is None:
        if splits["test"] or not splits["val"]:
            return _side(run, splits, "test")
        return "val", "val split, which chose the epoch (it has no test cases)"
    if split not in ("test", "val"):
        raise VptError(f"split {split}: expected test or val")
    if not splits[split]:
        raise VptError(f"{run}: its split has no {split} cases; evaluate another side with --split")
    return split, f"{split} split"


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


def _labelled(run: Path, data: str | Path | None) -> LabelledSet:
    """The run's own data set for classification, with the target and the classes it was trained with."""
    known = _data_config(run)
    path = Path(data) if data is not None else known.path
    if not path.exists():
        raise VptError(f"{path}: the run's data set is not there; say where it lies now with --data")
    return read_labelled(path, known.target, known.classes, known.patients, known.only)


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
    **settings: Any,
) -> Report:
    """Segment labelled cases into `folder` and score every mask.

    patient: whose scan a case of that name is, since intervals are over patients; box: where to look in a case;
    quality: is looked at as well. Values that do not look like those of the training are warned of: they belong to the
    same data set.
    """
    make_folder(folder, "choose another place")
    qualities = list[Quality]()

    def tell(case: Case, found: Answer | Failure) -> None:
        if isinstance(found, Answer) and found.quality:
            qualities.append(found.quality)

    beside = Beside(quality=quality)
    failures = segment_cases(
        segmenter, cases, lambda case: mask_file(folder, case), progress, box, force=True, beside=beside, tell=tell
    )
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


def _data_config(run: Path) -> DataConfig:
    from vpt.config import load_config

    return load_config(run / "config.yaml").data
