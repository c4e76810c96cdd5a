"""A run from a config to its artifacts: what both tasks share. The tasks are `segmenting` and `classifying`."""

from __future__ import annotations

import logging
import shutil
from logging import Logger
from pathlib import Path
from typing import Any

import torch

from vpt.artifact import save_artifact
from vpt.config import Config, load_config
from vpt.data.cases import SegmentationSet
from vpt.data.splits import fold_in_words
from vpt.engine.average import Average
from vpt.engine.checkpoint import Progress, load_state, save_state
from vpt.engine.classifying import Classifying
from vpt.engine.fit import Hooks, Interrupted, Settings, choose_workers, fit, in_words
from vpt.engine.job import Job
from vpt.engine.logs import Pictures, open_log, write_metrics
from vpt.engine.optim import build_optimizer
from vpt.engine.segmenting import Segmenting
from vpt.engine.setup import STATE, Setup, create_run, prepare_setup, remove_run, reopen_run, require_new_run
from vpt.errors import VptError
from vpt.machine.precision import prepare_frozen
from vpt.model import PromptedModel, trained_parts
from vpt.model_card import write_card
from vpt.progress import bar
from vpt.use.pages.evaluation import write_run_page
from vpt.vocabulary import Task

JOBS: dict[Task, type[Job]] = {"segmentation": Segmenting, "classification": Classifying}


def train(
    config: str | Path | dict[str, Any] | Config | None,
    out: str | Path,
    *,
    overrides: dict[str, Any] | None = None,
    resume: bool = False,
    cache: Path | None = None,
    brief: bool = False,
) -> Path:
    """Train on a data set and leave a run in `out`.

    Args:
        config: a data set's folder (all defaults, a plan from the data), a YAML file, a dictionary or a `Config`;
            None with `resume`.
        out: the run's folder, new or empty; with `resume` the folder of an interrupted run.
        overrides: settings by dotted key, `{"optim.lr": 1e-3}`.
        resume: continue exactly where the run in `out` stopped; its own config.yaml counts, `config` must agree.
        cache: where prepared data, and features of a frozen encoder, are kept and found again by other runs with the
            same data and plan; None keeps them in the run's folder while it trains.
        brief: say nothing, and leave out `validation/` and the pictures: for one of many runs of a search.

    Returns:
        The run's folder: config.yaml, plan.json, splits.json, environment.json, train.log, metrics.csv, progress.png,
        report.html, tensorboard/, best.safetensors, last.safetensors, state/, and validation/ where cases validate.

    Raises:
        VptError: what is wrong with the config, the data or the folder, before anything is trained or written.
        vpt.engine.fit.Interrupted: after SIGINT or SIGTERM, with the state saved.
    """
    run = Path(out)
    if resume:
        setup = reopen_run(run, config, overrides)
    elif config is None:
        raise VptError("no data set or config to train on; give one, or resume an interrupted run")
    else:
        wanted = config if isinstance(config, Config) else load_config(config, overrides)
        require_new_run(run)
        setup = prepare_setup(wanted)
        fresh = create_run(run, setup)
    try:
        job = JOBS[setup.task](run, setup, cache or run / "cache")
        job.prepare(start=not resume)
    except BaseException:
        if not resume:
            remove_run(run, fresh)
        raise
    log = open_log(run / "train.log", terminal=not brief)
    log.info(("resumed" if resume else "started") + f" {run}: {_summary(setup, job.model)}")
    if guess := setup.dataset.guess:
        log.info(guess)
    if drawn := fold_in_words(setup.dataset, setup.config.data.fold, setup.config.data.folds, setup.splits):
        log.info(drawn)
    if isinstance(setup.dataset, SegmentationSet) and setup.dataset.label_values:
        log.info(f"labels: {setup.dataset.label_values}")
    if job.model.backbone.origin:
        log.info(f"encoder: {job.model.backbone.origin}")
    for proposal in job.proposals():
        log.info(proposal)
    for doubt in job.doubts():
        log.warning(doubt)
    progress = _train(run, setup, job, log, resume, brief)
    if job.validates and not brief:
        job.finish(log)
    shutil.rmtree(run / "cache", ignore_errors=True)
    _conclude(run, job, log, progress)
    write_card(run)
    if not brief:
        _write_page(run, job, log)
    return run


def _train(run: Path, setup: Setup, job: Job, log: Logger, resume: bool, brief: bool) -> Progress:
    from lightning.fabric import Fabric

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # it announces the precision
    config, model = setup.config, job.model
    settings = _settings(config, job)
    model.checkpointing = config.train.checkpoint
    if config.train.compile:
        model.compile_blocks()
    fabric = Fabric(
        accelerator=setup.device.type,
        devices=[setup.device.index or 0] if setup.device.type == "cuda" else 1,
        precision=job.precision,
    )
    prepare_frozen(model.backbone, job.precision)
    optimizer = build_optimizer(model, **config.optim.model_dump(exclude={"warmup", "schedule", "clip", "ema"}))
    average = Average(model, config.optim.ema) if config.optim.ema else None
    # the model is on its device, where the optimiser's moments go as well
    progress = load_state(run / STATE, model, optimizer, average) if resume else Progress()
    forward, fabric_optimizer = fabric.setup(job.forward, optimizer)
    pictures = None if brief else Pictures(run, job.shown, job.score, progress.epoch + 1)

    def write_artifact(name: str, scores: dict[str, float]) -> None:
        dataset = setup.dataset
        save_artifact(
            run / name,
            model,
            config=config,
            plan=setup.plan,
            labels=dataset.labels,
            scores={"validation": scores},
            codes=dataset.codes if isinstance(dataset, SegmentationSet) else None,
        )

    def epoch_end(progress: Progress, best: bool) -> None:
        row = progress.rows[-1]
        scores = {key: value for key, value in row.items() if key == job.score or key in job.shown}
        if best:
            write_artifact("best.safetensors", scores | {"epoch": progress.epoch})
        write_artifact("last.safetensors", scores | {"epoch": progress.epoch})
        write_metrics(run / "metrics.csv", progress.rows)
        if pictures:
            pictures.show(progress.rows)
        log.info(f"epoch {progress.epoch}/{settings.epochs}: loss {row['loss']:.4f}, {_said(job, row)}")

    hooks = Hooks(
        validate=(lambda: job.validate(forward)) if job.validates else None,
        save=lambda progress: save_state(run / STATE, model, optimizer, progress, average),
        epoch_end=epoch_end,
    )
    try:
        return fit(
            fabric, forward, fabric_optimizer, job.loss, job.dataset, job.draw, settings, hooks, progress, average
        )
    except torch.OutOfMemoryError as error:
        raise VptError(
            f"out of memory on {setup.device} with {job.batch_size} {job.unit}s of {setup.plan.image_size} px a "
            "batch; lower train.batch_size or plan.image_size"
        ) from error
    except Interrupted:
        log.info(
            f"interrupted in epoch {progress.epoch + 1}, step {progress.step}; "
            f"continue with: vpt train --resume --out {run}"
        )
        raise
    finally:
        if pictures:
            pictures.close()


def _said(job: Job, row: dict[str, float]) -> str:
    scores = ", ".join(f"{name} {row[key]:.3f}" for key, name in job.shown.items() if key in row)
    what = "Dice" if job.score == "dice" else "scores"
    return f"validation {what} {scores or 'not taken'}"


def _conclude(run: Path, job: Job, log: Logger, progress: Progress) -> None:
    chosen = (
        f"best validation {in_words(job.score)} {progress.best:.4f} in epoch {progress.best_epoch}"
        if job.validates
        else f"nothing validates, so the last epoch counts ({progress.epoch})"
    )
    log.info(
        f"done: {chosen}, {job.model.count_parameters()['trained']:,} trained parameters, "
        f"artifact {(run / 'best.safetensors').stat().st_size / 1e6:.2f} MB, {progress.seconds:.0f} s of training"
    )


def _write_page(run: Path, job: Job, log: Logger) -> None:
    """`report.html`; whatever goes wrong with it takes nothing from what is trained."""
    try:
        with bar("drawing the report") as tick:
            write_run_page(run, job.shown, job.score, tick)
    except VptError as error:
        log.warning(f"no report.html: {error}")
    except Exception as error:
        log.warning(f"no report.html, a fault of vpt: {type(error).__name__}: {error}", exc_info=True)


def _settings(config: Config, job: Job) -> Settings:
    train = config.train
    return Settings(
        epochs=train.epochs,
        steps=job.steps,
        validate_every=train.validate_every,
        patience=train.patience,
        workers=choose_workers(train.workers),
        warmup=config.optim.warmup,
        clip=config.optim.clip,
        schedule=config.optim.schedule,
        score=job.score,
        accumulate=train.accumulate,
    )


def _summary(setup: Setup, model: PromptedModel) -> str:
    config, counts, splits = setup.config, model.count_parameters(), setup.splits
    parts = {"prompts": "prompts", "head": "head", "backbone": f"in the backbone by {config.tuning.method}"}
    parts |= {"mixing": f"that mix {len(setup.plan.channels)} channels"}
    shares = ", ".join(f"{counts[part]:,} {parts[part]}" for part in trained_parts(counts))
    return (
        f"{setup.task}, {len(splits.train)} training and {len(splits.val)} validation cases, {setup.plan}; "
        f"{config.backbone.name} with prompts {config.prompts.method} and head {config.head.kind}, "
        f"{counts['trained']:,} trained parameters ({shares}), {counts['frozen']:,} frozen"
    )
