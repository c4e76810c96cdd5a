"""A finished run on one side of its split: segment the cases, score them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpt.data.cases import Case, read_dataset
from vpt.errors import VptError
from vpt.evaluation import evaluate
from vpt.files import read_json
from vpt.metrics import check_options
from vpt.predict import Segmenter, load, segment_cases
from vpt.progress import Tick, silent

if TYPE_CHECKING:
    from vpt.report import Report


def evaluate_run(
    run: str | Path,
    *,
    split: str = "test",
    data: str | Path | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    weights: str | Path | None = None,
    progress: Tick = silent,
    **settings: Any,
) -> tuple[Report, Path]:
    """Segment a split of the run's own data set with its best artifact and score it -> report, and the masks' folder.

    Args:
        split: "test" or "val"; data: where the data set lies now, if elsewhere than in training;
        out: folder of the masks, by default RUN/test or RUN/val; settings: see `vpt.evaluate`.

    Raises:
        VptError: not a run, an empty split, a case that cannot be segmented or scored.
    """
    run = Path(run)
    if not (run / "splits.json").is_file():
        raise VptError(
            f"{run}: not a run's folder (no splits.json); give a run of `vpt train`, or two folders of masks: "
            "predictions and references"
        )
    splits = read_json(run / "splits.json")
    if split not in ("test", "val"):
        raise VptError(f"split {split}: expected test or val")
    if not splits[split]:
        raise VptError(
            f"{run}: its split has no {split} cases; evaluate another side with --split, or two folders of masks"
        )
    check_options(settings.get("empty", "nan"), settings.get("tolerance", 1.0))
    segmenter = load(run, device, weights)
    root = Path(data) if data is not None else _data_path(run)
    if not root.is_dir():
        raise VptError(f"{root}: the run's data set is not there; say where it lies now with --data")
    dataset = read_dataset(root)
    folder = Path(out) if out is not None else run / split
    cases = [dataset.case(name) for name in splits[split]]
    report = evaluate_split(segmenter, cases, folder, title=f"{run}: {split} split", progress=progress, **settings)
    return report, folder


def evaluate_split(
    segmenter: Segmenter, cases: Sequence[Case], folder: Path, *, title: str, progress: Tick = silent, **settings: Any
) -> Report:
    """Segment labelled cases into `folder` and score every mask."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VptError(f"{folder}: cannot be made a folder ({error.strerror}); choose another place") from error
    failures = segment_cases(segmenter, cases, lambda case: folder / f"{case.name}.nii.gz", progress)
    if failures:
        raise VptError("; ".join(failure.reason for failure in failures))
    return evaluate(
        [folder / f"{case.name}.nii.gz" for case in cases],
        [case.label for case in cases if case.label is not None],
        {label: name for label, name in segmenter.labels.items() if label > 0},
        title=title,
        **settings,
    )


def _data_path(run: Path) -> Path:
    from vpt.config import load_config

    return load_config(run / "config.yaml").data.path
