"""`vpt demo`: the main job end to end on volumes that it makes itself."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vpt.artifact import read_artifact
from vpt.data.check import check_dataset
from vpt.data.synthetic import make_dataset
from vpt.engine.run import train
from vpt.errors import VptError
from vpt.progress import bar
from vpt.report.segmentation import Report
from vpt.use.runs import evaluate_run

if TYPE_CHECKING:
    from rich.console import Console

MARK = ".vpt-demo"
SETTINGS = {"train.epochs": 5, "train.batch_size": 16, "train.max_steps": 40}


def run_demo(out: Path, console: Console) -> None:
    """Make a dozen volumes in `out`/data, check, train, segment the held-out scans, score them, and say where all lies.

    Raises:
        VptError: `out` holds something that is not an earlier demo.
    """
    from rich.rule import Rule

    started = time.perf_counter()
    _clear(out)
    console.print(Rule("1. a dozen small volumes: anisotropic, some LPS or PSR, some oblique", align="left"))
    data = make_dataset(out / "data")
    console.print(Rule(f"2. vpt check {data}", align="left"))
    with bar("checking") as tick:
        found = check_dataset(data, tick)
    console.print(found.table())
    run = out / "run"
    console.print(Rule(f"3. vpt train {data} --out {run}   (deep prompts in the embedded vit_micro)", align="left"))
    train(data, run, overrides=SETTINGS)
    console.print(Rule(f"4. vpt evaluate {run}   (segments the test cases and scores them)", align="left"))
    with bar("evaluating") as tick:
        report, masks = evaluate_run(run, to_save=True, progress=tick)
    assert isinstance(report, Report)  # the demo segments
    report.save(masks)
    console.print(report.table())
    artifact = read_artifact(run)
    console.print(
        f"Dice {report.mean():.3f} on scans it has not seen; {artifact.counts['trained']:,} trained parameters, "
        f"artifact {artifact.path.stat().st_size / 1e6:.2f} MB, {time.perf_counter() - started:.0f} s in all\n"
        f"run       {run}   (progress.png, metrics.csv, best.safetensors)\n"
        f"masks     {masks}\n"
        f"pictures  {run / 'validation' / 'previews'}",
        markup=False,
        soft_wrap=True,
    )


def _clear(out: Path) -> None:
    """An earlier demo is replaced; anything else is left alone."""
    if out.is_file():
        raise VptError(f"{out}: a file, expected a folder; choose another one with --out")
    if out.exists() and any(out.iterdir()):
        if not (out / MARK).exists():
            raise VptError(f"{out}: the folder is not empty and no earlier demo; choose another one with --out")
        shutil.rmtree(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / MARK).touch()
    except OSError as error:
        raise VptError(f"{out}: cannot be written ({error.strerror}); choose another folder with --out") from error
