"""A run from a config to its artifacts: what both tasks share. The tasks are `segmenting` and `classifying`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from logging import Logger
from pathlib import Path
from typing import Any

from vpt.config import Config, ResolvedConfig, as_config, dump_config
from vpt.config.start import StartConfig
from vpt.data.cases import SegmentationSet
from vpt.data.splits import fold_in_words
from vpt.engine.callbacks import Callback, Told, check_callbacks, load_callbacks
from vpt.engine.callbacks.tensorboard import TensorBoard
from vpt.engine.checkpoint import Progress
from vpt.engine.classifying import Classifying
from vpt.engine.fit import in_words
from vpt.engine.folder import STATE, Standing, at_work, remove_begun, require_same, same_folder, standing_of
from vpt.engine.job import Job
from vpt.engine.joining import together
from vpt.engine.logs import open_log, silent_log
from vpt.engine.processes import place_of, refuse_settings_of_fabric
from vpt.engine.ranks import Ranks, require_own
from vpt.engine.segmenting import Segmenting
from vpt.engine.setup import Setup, agreed, describe_run, follow_run, prepare_setup, reopen_run
from vpt.engine.signals import Interrupted, Signals, heed_signals
from vpt.engine.training import train_job
from vpt.errors import VptError
from vpt.files import write_text
from vpt.machine.interruption import raise_again
from vpt.machine.scarce import KINDS, TO_TRAIN, is_out_of_memory, require_room
from vpt.model import PromptedModel, trained_parts
from vpt.model_card import write_card
from vpt.progress import bar
from vpt.use.pages.evaluation import write_run_page
from vpt.vocabulary import Task
from vpt.words import counted

JOBS: dict[Task, type[Job]] = {"segmentation": Segmenting, "classification": Classifying}


def train(
    config: str | Path | dict[str, Any] | Config | None,
    out: str | Path,
    *,
    overrides: dict[str, Any] | None = None,
    start: str | Path | None = None,
    resume: bool = False,
    cache: Path | None = None,
    brief: bool = False,
    devices: int | None = None,
    nodes: int | None = None,
    alone: bool = False,
) -> Path:
    """Train on a data set and leave a run in `out`.

    What was interrupted before its end goes on exactly where it stopped, with the same call or with `resume`.

    Args:
        config: a data set's folder (all defaults, a plan from the data), a YAML file, a dictionary or a `Config`;
            None with `resume`.
        out: the run's folder, new or empty, or that of an interrupted run.
        overrides: settings by dotted key, `{"optim.lr": 1e-3}`.
        start: a run or an artifact that this one goes on from: prompts, head and tuned parts start from it, labels of
            the same name keep their rows of the head, and encoder and plan are the artifact's; in place of
            `start.path` in the config.
        resume: continue the run in `out`, also one that is at its end; its own config.yaml counts, `config` must agree.
            Where nothing is there yet, a run is started.
        cache: where prepared data, and features of a frozen encoder, are kept and found again by other runs with the
            same data and plan; None keeps them in the run's folder while it trains.
        devices, nodes: train in so many processes on each machine, on so many machines; None: in those that a launcher
            (torchrun, srun) started, else in this one. All reach the same data and the same `out`, and the first one
            writes. See docs/scale.md.
        alone: train in this process, whatever launcher started it: for one of several that share many runs.
        brief: say nothing, and leave out `validation/` and the pictures: for one of many runs of a search.

    Returns:
        The run's folder: config.yaml, plan.json, splits.json, environment.json, train.log, metrics.csv, progress.png,
        report.html, tensorboard/, best.safetensors, last.safetensors, state/, and validation/ and previews/ where cases
        validate.

    Raises:
        VptError: what is wrong with the config, the data or the folder, before anything is trained or written; another
            training in the same folder.
        vpt.engine.signals.Interrupted: after SIGINT or SIGTERM, with the state saved.
    """
    run = Path(out)
    require_room(TO_TRAIN)
    refuse_settings_of_fabric()
    if config is None and not resume:
        raise VptError("no data set or config to train on; give one, or resume an interrupted run")
    if config is None and start is not None:
        raise VptError(f"start={start}: a run that is resumed goes on from its own state; leave it out")
    with heed_signals() as signals, signals.at_once(), together(signals, place_of(devices, nodes), alone) as ranks:
        wanted = None if config is None else as_config(config, overrides)
        if wanted is not None and start is not None:
            wanted = wanted.model_copy(update={"start": StartConfig(path=Path(start))})
        standing = ranks.told(lambda: _standing(run, wanted, resume))
        known = wanted if standing == "new" else _agreed(run, standing, wanted, overrides)
        assert known is not None
        quiet = brief or not ranks.first
        callbacks = {} if quiet else {"tensorboard": TensorBoard(), **load_callbacks(known.callbacks)}
        check_callbacks(callbacks)
        ranks.wait()  # until all know how the folder stands
        with (
            at_work(run, standing) if ranks.first else nullcontext(),
            _breaking_off_told(run, brief, ranks),
            signals.at_once(),  # once more, so that what a library made of it is told as what it is
        ):
            _go_on(run, known, standing, cache or run / "cache", signals, callbacks, brief, ranks)
    return run


@contextmanager
def _breaking_off_told(run: Path, brief: bool, ranks: Ranks) -> Iterator[None]:
    """The log says how to go on after an interruption; too little memory is told in a sentence."""
    try:
        yield
    except Interrupted as stop:
        _log(run, brief, ranks).info(f"interrupted{stop.place}; continue with: vpt train --resume --out {run}")
        raise
    except KINDS as error:
        if not is_out_of_memory(error):
            raise
        raise VptError(
            f"{run}: too little memory ({type(error).__name__}); close other programs, lower plan.image_size "
            "or choose a smaller encoder, and start the same command again"
        ) from error


def _log(run: Path, brief: bool, ranks: Ranks) -> Logger:
    return open_log(run / "train.log", terminal=not brief) if ranks.first else silent_log()


def _standing(run: Path, wanted: Config | None, resume: bool) -> Standing:
    """Where the run stands, if it may go on from there."""
    standing = standing_of(run)
    if standing == "done" and not resume:
        raise VptError(f"{run}: the folder is not empty; continue it with --resume, or choose another --out")
    if wanted is None and not (run / "config.yaml").is_file():
        raise VptError(
            f"{run}: holds no state to resume ({STATE}), and no config.yaml; give the data set's folder or a YAML "
            "config as well, and it is started"
        )
    return standing


def _agreed(run: Path, standing: Standing, wanted: Config | None, overrides: dict[str, Any] | None) -> Config | None:
    """The run's own config, but where it was killed before that was written."""
    if standing == "begun" and not (run / "config.yaml").is_file():
        return wanted
    return agreed(run, wanted, overrides)


def _go_on(
    run: Path,
    config: Config,
    standing: Standing,
    cache: Path,
    signals: Signals,
    callbacks: dict[str, Callback],
    brief: bool,
    ranks: Ranks,
) -> None:
    """Train from where the run stands to its end."""
    resume = standing in ("stopped", "done")
    if ranks.first:
        job = _reopened(run, config, cache, ranks) if resume else _begun(run, config, cache, ranks)
    else:
        job = _followed(run, config, cache, ranks)
    log = _log(run, brief, ranks)
    _tell_start(log, run, job, "resumed" if resume else "started")
    told, stays = Told(callbacks, log.warning), same_folder(run)
    with told.until_end(run):
        progress = train_job(run, job, log, signals, told, resume=resume, brief=brief)
        if ranks.first:
            require_same(run, stays())
            _end(run, job, log, progress, brief)
        ranks.wait()


def _end(run: Path, job: Job, log: Logger, progress: Progress, brief: bool) -> None:
    """What comes after the last epoch."""
    if job.validates and not brief:
        job.finish(log)
    job.keep_familiar()
    shutil.rmtree(run / "cache", ignore_errors=True)
    _conclude(run, job, log, progress)
    write_card(run)
    if not brief:
        _write_page(run, job, log)


def _begun(run: Path, config: Config, cache: Path, ranks: Ranks) -> Job:
    """The job of a run that starts; what is wrong with it leaves nothing behind."""
    setup = prepare_setup(config)
    require_own(setup.device, ranks)
    stays = same_folder(run)
    try:
        describe_run(run, setup)
        job = JOBS[setup.task](run, setup, cache, ranks)
        with ranks.in_turn():
            job.prepare()
    except Exception as error:
        raise_again(error)  # an interruption that a library made an error of, after which what was begun goes on
        if stays():
            remove_begun(run)
        raise
    return job


def _reopened(run: Path, config: Config, cache: Path, ranks: Ranks) -> Job:
    assert isinstance(config, ResolvedConfig)
    setup = reopen_run(run, config)
    require_own(setup.device, ranks)
    write_text(run / "config.yaml", dump_config(config))
    job = JOBS[setup.task](run, setup, cache, ranks)
    with ranks.in_turn():
        job.prepare(start=False)
    return job


def _followed(run: Path, config: Config, cache: Path, ranks: Ranks) -> Job:
    """The job as the first process has described it, with the data that it has prepared."""
    with ranks.in_turn():
        setup = follow_run(run, config)
        require_own(setup.device, ranks)
        job = JOBS[setup.task](run, setup, cache, ranks)
        job.prepare(start=False)
    return job


def _tell_start(log: Logger, run: Path, job: Job, how: str) -> None:
    setup = job.setup
    log.info(f"{how} {run}: {_summary(setup, job.model)}")
    if job.ranks.several:
        log.info(f"{job.ranks.of} processes, each with its share of every batch")
    if guess := setup.dataset.guess:
        log.info(guess)
    if drawn := fold_in_words(setup.dataset, setup.config.data.fold, setup.config.data.folds, setup.splits):
        log.info(drawn)
    if isinstance(setup.dataset, SegmentationSet) and setup.dataset.label_values:
        log.info(f"labels: {setup.dataset.label_values}")
    if job.model.backbone.origin:
        log.info(f"encoder: {job.model.backbone.origin}")
    for sentence in (*job.starts(), *job.proposals()):
        log.info(sentence)
    for doubt in job.doubts():
        log.warning(doubt)


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
            write_run_page(run, job.shown, job.score, tick, job.setup.config.train.viewer)
    except VptError as error:
        log.warning(f"no report.html: {error}")
    except Exception as error:
        log.warning(f"no report.html, a fault of vpt: {type(error).__name__}: {error}", exc_info=True)


def _summary(setup: Setup, model: PromptedModel) -> str:
    config, counts, splits = setup.config, model.count_parameters(), setup.splits
    parts = {"prompts": "prompts", "head": "head", "backbone": f"in the backbone by {config.tuning.method}"}
    parts |= {"mixing": f"that mix {counted(len(setup.plan.channels), 'channel')}", "trigger": "added to images"}
    shares = ", ".join(f"{counts[part]:,} {parts[part]}" for part in trained_parts(counts))
    return (
        f"{setup.task}, {len(splits.train)} training and {counted(len(splits.val), 'validation case')}, {setup.plan}; "
        f"{config.backbone.name} with prompts {config.prompts.method} and head {config.head.kind}, "
        f"{counts['trained']:,} trained parameters ({shares}), {counts['frozen']:,} frozen"
    )
