"""A finished run on one side of its split: segment the cases, score them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpt.artifact import find_artifact
from vpt.data.annotated import keep_labels
from vpt.data.cases import Cases, SegmentationSet
from vpt.data.doubts.class_names import plain_name
from vpt.data.doubts.labels import without_name
from vpt.data.groups import read_groupings
from vpt.data.labelled import LabelledSet
from vpt.data.layouts import read_dataset, read_labelled
from vpt.data.postprocess import in_words
from vpt.data.splits import read_written
from vpt.errors import VptError
from vpt.progress import Tick, silent
from vpt.report.classification import ClassReport
from vpt.scores.cases import check_options
from vpt.scores.groups import Grouping
from vpt.scores.trust import Quality
from vpt.use.by_task import SegmenterByTask
from vpt.use.classifier import Classifier
from vpt.use.limits import judge, keep_limits, require_different
from vpt.use.load import load
from vpt.use.scored_splits import classify_split, evaluate_split, reference_box
from vpt.use.segmenter import Segmenter
from vpt.vocabulary import DECIDED, SIDES, AskedDecision
from vpt.words import listed

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
    decide: AskedDecision = "auto",
    postprocess: bool = True,
    by: str | Sequence[str] | None = None,
    groups: str | Path | None = None,
    quality: bool = False,
    cache: Path | None = None,
    to_save: bool = False,
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
        decide: how masks are made of probabilities, see `vpt.load`; of `dice` the folder is RUN/test_dice, of
            `likeliest` RUN/test_likeliest, and the title says so;
        postprocess: False leaves out what the training chose to do with masks; the folder is RUN/test_raw then;
        quality: how far the masks are to be trusted, and whether that tells good from bad; the limits of what is usual
            are chosen on the validation cases, and kept for `vpt predict --quality` (see `vpt.use.limits`);
        cache: of a run that classifies: a folder for prepared examples, found again by other runs with the same plan;
        to_save: the report will be saved in the folder: what an earlier evaluation left there is removed before the
            first mask, so that no mask lies beside scores of another.

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
    segmenter = load(runs, device, weights, tta=tta, postprocess=postprocess, decide=decide)
    if isinstance(segmenter, SegmenterByTask):
        *_, (task, segmenter) = segmenter.members.items()
        called += f", told its task {task}"
    suffix, told = variant(oracle_box, tta, postprocess, decide)
    folder, title = Path(out) if out is not None else name / f"{split}{suffix}", f"{called}: {side}{told}"
    if isinstance(segmenter, Classifier):
        _require_no_masks(run, oracle_box, postprocess, quality, settings)
        labelled = _labelled(run, data)
        examples = [labelled.case(each) for each in splits[split]]
        groupings = _groupings(labelled, splits[split], by, groups)
        scored = classify_split(segmenter, labelled, examples, title=title, cache=cache, progress=progress)
        return replace(scored, groupings=groupings), folder
    dataset = _with_masks(run, data, segmenter.labels)
    if oracle_box and not segmenter.model.head.takes_hints:
        raise VptError(f"{run}: takes no boxes; leave --oracle-box out, or train with head.hints=true")
    cases = [dataset.case(name) for name in splits[split]]
    groupings = _groupings(dataset, splits[split], by, groups)
    report = evaluate_split(
        segmenter,
        cases,
        folder,
        dataset.patient,
        title=title + _chosen_in_words(segmenter, decide, split),
        progress=progress,
        box=reference_box if oracle_box else None,
        quality=quality,
        to_save=to_save,
        **settings,
    )
    if report.qualities is not None:
        usual: Sequence[Quality] = report.qualities
        if split != "val":
            usual = judge(segmenter, [dataset.case(name) for name in splits["val"]], progress)
        report = replace(report, limits=keep_limits([find_artifact(each) for each in runs], tta, usual))
    return replace(report, groupings=groupings), folder


def _require_same_numbers(labels: Mapping[int, str], known: Mapping[int, str], root: Path) -> None:
    """Refuse a data set in which labels of the run have other numbers, or its numbers are other labels: masks are
    compared by number. Names may be written in other ways, and where nobody has named a label there is none.
    """
    there, own = ({id: plain_name(name) for id, name in each.items()} for each in (labels, known))
    numbers = {name: id for id, name in there.items()}
    moved = [
        f"{known[id]} is {numbers[name]} there and {id} in the run"
        for id, name in own.items()
        if numbers.get(name, id) != id
    ]
    named = (own.keys() & there.keys()) - {0} - without_name(labels) - without_name(known)
    others = [f"{id} is {labels[id]} there and {known[id]} in the run" for id in sorted(named) if there[id] != own[id]]
    if told := moved or others:
        raise VptError(
            f"{root}: numbers labels otherwise than the run ({listed(told, 3)}), and masks are compared by number; "
            "give the data set as it was in training, or number and name its labels as the run does"
        )


def _require_no_masks(
    run: Path, oracle_box: bool, postprocess: bool, quality: bool, settings: Mapping[str, Any]
) -> None:
    """Refuse what only masks have, of a run that classifies."""
    tolerances = settings.get("tolerance", 1.0) != 1.0 or settings.get("tolerances")
    for given, why in (
        (oracle_box, "so it takes no boxes; leave --oracle-box out"),
        (settings.get("lesions"), "so there are no lesions to find; leave --lesions out"),
        (quality, "and its probabilities say how sure it is; leave --quality out"),
        (tolerances, "so there are no surfaces to compare; leave --tolerance out"),
        (settings.get("empty", "nan") != "nan", "so no label is absent in a mask; leave --empty out"),
        (not postprocess, "so there are no masks to tidy; leave --postprocess out"),
    ):
        if given:
            raise VptError(f"{run}: classifies, {why}")


def _common_splits(runs: Sequence[Path]) -> dict[str, list[str]]:
    """The split that all runs share; raises VptError for another folder, and for runs that differ in a side."""
    found = []
    for run in runs:
        if not (run / "splits.json").is_file():
            raise VptError(
                f"{run}: not a run's folder (no splits.json); give a run of `vpt train`, or two folders of masks: "
                "predictions and references"
            )
        found.append(read_written(run / "splits.json").to_dict())
    for run, splits in zip(runs, found, strict=True):
        for side in SIDES:
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


def variant(oracle_box: bool, tta: bool, postprocess: bool = True, decide: AskedDecision = "auto") -> tuple[str, str]:
    """What a folder and a title have at their end where a model was told more, or asked more often, than usual, or its
    masks are left as they are, or decided otherwise.
    """
    usual = {"_oracle_box": not oracle_box, "_tta": not tta, f"_{decide}": decide == "auto", "_raw": postprocess}
    folder = "".join(name for name, is_usual in usual.items() if not is_usual)
    boxed = ", told the BOX OF THE REFERENCE (oracle)" if oracle_box else ""
    raw = "" if postprocess else ", without post-processing"
    mirrored = ", mean over mirror images" if tta else ""
    decided = "" if decide == "auto" else f", {DECIDED[decide]}"
    return folder, mirrored + decided + raw + boxed


def _chosen_in_words(segmenter: Segmenter, decide: AskedDecision, split: str) -> str:
    """What validation chose for the masks, as the end of a title."""
    here = ", as chosen on these cases" if split == "val" else ""
    decided = f"; {DECIDED['dice']}{here}" if decide == "auto" and segmenter.decision == "dice" else ""
    if not segmenter.postprocess:
        return decided
    return f"{decided}; post-processed: {in_words(segmenter.postprocess, segmenter.labels)}{here}"


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


def _labelled(run: Path, data: str | Path | None) -> LabelledSet:
    """The run's own data set for classification, with the target and the classes it was trained with."""
    known, path = _data_of(run, data)
    return read_labelled(path, known.target, known.classes, known.patients, known.only)


def _with_masks(run: Path, data: str | Path | None, labels: Mapping[int, str]) -> SegmentationSet:
    """The run's own data set for segmentation, with the labels it was trained with."""
    known, path = _data_of(run, data)
    dataset = read_dataset(path, known.patients, known.labels)
    _require_same_numbers(dataset.labels, labels, path)
    return keep_labels(dataset, [name for label, name in labels.items() if label])


def _data_of(run: Path, data: str | Path | None) -> tuple[DataConfig, Path]:
    """What the run's config says of its data, and where these lie now."""
    from vpt.config import load_config

    known = load_config(run / "config.yaml").data
    path = Path(data) if data is not None else known.path
    if not path.exists():
        raise VptError(f"{path}: the run's data set is not there; say where it lies now with --data")
    return known, path
