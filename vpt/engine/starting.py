"""A run that goes on from what another one learned: its artifact decides all that its prompts were trained in."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from vpt.artifact import Artifact, find_artifact, read_artifact
from vpt.config import Config, ResolvedConfig
from vpt.config.start import StartConfig
from vpt.data.annotated import counts_of
from vpt.data.cases import SegmentationSet
from vpt.data.doubts.class_names import written_otherwise
from vpt.data.labelled import LabelledSet
from vpt.data.layouts import is_labelled
from vpt.data.plan import Plan, Window
from vpt.data.splits import Splits, read_written
from vpt.engine.continuing import continued_model, further_task
from vpt.engine.further_task import beside, is_beside
from vpt.errors import VptError
from vpt.heads import Answer
from vpt.model import PromptedModel
from vpt.restoring import encoder_of, restore_model
from vpt.words import listed

CHOSEN_ANEW = ("sampling",)  # of the plan: nothing that the encoder sees


def adopt(config: Config) -> tuple[Config, Artifact | None]:
    """The config with the encoder, prompts, head, tuning and plan of the artifact that it starts from, and that.

    Raises:
        VptError: no artifact there, or another one than that of the config's hash; settings that contradict it.
    """
    if config.start.path is None:
        if config.start.adds or config.start.shared:
            key = "adds" if config.start.adds else "shared"
            raise VptError(f"start.{key}: no artifact to go on from; give its run with --continue RUN, or leave it out")
        return config, None
    artifact, digest = _read(config.start)
    _require_no_reprogramming(config, artifact)
    _require_agreement(config, artifact)
    _require_same_kind(config, artifact)
    if is_beside(config, artifact):
        return beside(config, artifact, digest, encoder_of(artifact, _weights_given(config))), artifact
    _require_one_task(config, artifact)
    own = artifact.config
    start = {"path": artifact.path, "sha256": digest, "kept": _kept_labels(config, artifact)}
    anew = {name: getattr(config.plan, name) for name in CHOSEN_ANEW}
    adopted = config.model_copy(
        update={
            **{name: getattr(own, name) for name in ("task", "prompts", "head", "tuning")},
            "backbone": encoder_of(artifact, _weights_given(config)),
            "plan": own.plan.model_copy(update=anew),
            "data": config.data.model_copy(update={"target": own.data.target}),
            "start": config.start.model_copy(update=start),
        }
    )
    if config.start.adds:
        adopted = adopted.model_copy(update=further_task(adopted, artifact))
    return adopted, artifact


def _require_no_reprogramming(config: Config, artifact: Artifact) -> None:
    for where, fair in ((artifact.path, artifact.config.fair), ("config", config.fair)):
        if fair is not None and fair.method == "reprogram":
            raise VptError(
                f"{where}: fair.method=reprogram adds to every image what is learned with the rest from the start, so "
                "no run goes on from it or to it; start anew without --from"
            )


def _require_same_kind(config: Config, artifact: Artifact) -> None:
    """Where no task is set: refuse masks for an artifact that classifies, and classes for one that segments."""
    if config.task is not None:
        return
    task, has_classes = artifact.config.task, is_labelled(config.data.path)
    if has_classes != (task == "classification"):
        found = "has classes" if has_classes else "has no classes"
        raise VptError(
            f"{config.data.path}: {found}, but the artifact that the run starts from is for {task} "
            f"({artifact.path}); give it data of that kind, or start anew"
        )


def _require_one_task(config: Config, artifact: Artifact) -> None:
    """An artifact of several tasks is only gone on from with a further one."""
    if artifact.earlier:
        raise VptError(
            f"{artifact.path}: has learned {len(artifact.earlier) + 1} tasks, each with prompts of its own; add a "
            "further one with --continue, or go on from the run of one of them"
        )
    if config.start.shared:
        raise VptError("start.shared: is of a further task of segmentation (--continue); leave it out")
    head = artifact.config.head
    if head.kind == "by_task" and not config.start.adds:
        raise VptError(
            f"{artifact.path}: has learned {len(head.learned)} tasks one after another; go on with a further one "
            "with --continue, or start anew"
        )


def _read(start: StartConfig) -> tuple[Artifact, str]:
    """The artifact, and the SHA-256 of its file."""
    assert start.path is not None
    path = find_artifact(start.path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if start.sha256 not in (None, digest):
        raise VptError(
            f"{path}: the artifact that the run starts from has the SHA-256 {digest[:16]}..., expected "
            f"{str(start.sha256)[:16]}...; give that one, or leave start.sha256 out"
        )
    return read_artifact(path), digest


def _weights_given(config: Config) -> str | None:
    """Where the encoder's weights lie now, if it is said: a file, or a folder that is an encoder."""
    own = config.backbone
    return own.weights or (own.name if os.path.isdir(own.name) else None)


def _kept_labels(config: Config, artifact: Artifact) -> tuple[str, ...]:
    """The artifact's labels that stay although the data lack them."""
    if artifact.config.task == "classification":
        if config.start.kept:
            raise VptError(
                f"start.kept={listed(config.start.kept)}: a class without examples would be unlearned; leave it out"
            )
        return ()
    known = [name for id, name in artifact.labels.items() if id]
    if config.start.kept is None:
        return tuple(known)
    if unknown := [name for name in config.start.kept if name not in known]:
        raise VptError(
            f"start.kept: {unknown[0]!r} is no label of {artifact.path}, whose are {listed(known, 20)}; correct it"
        )
    return config.start.kept


def _require_agreement(config: Config, artifact: Artifact) -> None:
    """Raise VptError for what was set otherwise than the artifact has it."""
    kept = dict(_kept(artifact))
    if is_beside(config, artifact):  # prompts, head and plan are the new task's own
        kept = {key: value for key, value in kept.items() if key.partition(".")[0] in ("task", "backbone")}
    differing = [
        f"{key}={value} (there {kept[key]})"
        for key, value in _given(config)
        if key in kept and value not in (None, kept[key]) and not _is_folder(key, value)
    ]
    if differing:
        raise VptError(
            f"{artifact.path}: {listed(differing)} {'contradicts' if len(differing) == 1 else 'contradict'} the "
            "artifact that the run starts from; leave out what is not to change, or start anew without --from"
        )


def _is_folder(key: str, value: Any) -> bool:
    """An encoder that lies elsewhere now, of which only the weights can tell whether it is the same."""
    return key == "backbone.name" and os.path.isdir(value)


def _kept(artifact: Artifact) -> Iterator[tuple[str, Any]]:
    """Dotted keys of what an artifact decides, each with what it came to."""
    own, plan = artifact.config, artifact.plan
    yield from {"task": own.task, "data.target": own.data.target, "backbone.name": own.backbone.name}.items()
    yield "backbone.options", encoder_of(artifact).options
    for name in ("prompts", "head", "tuning"):
        section = getattr(own, name)
        yield from ((f"{name}.{key}", getattr(section, key)) for key in type(section).model_fields)
    for key in type(own.plan).model_fields:
        if key == "window":
            window = next((each for each in plan.intensity if isinstance(each, Window)), None)
            yield "plan.window", (window.low, window.high) if window else None
        elif key == "slices":
            yield "plan.slices", own.plan.slices
        elif key not in CHOSEN_ANEW:
            yield f"plan.{key}", getattr(plan, key)


def _given(config: Config) -> Iterator[tuple[str, Any]]:
    """Dotted keys of what a person has set, in sections at their fields."""
    for name in config.model_fields_set:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from ((f"{name}.{key}", getattr(value, key)) for key in value.model_fields_set)
        else:
            yield name, value


def adapted_model(artifact: Artifact, config: ResolvedConfig, plan: Plan, labels: Mapping[int, str]) -> PromptedModel:
    """The artifact's model, its head for these labels: rows of labels that it knows are theirs, others are fresh.

    Of a further task it is `continued_model`.

    config: as `adopt` made it. Raises VptError for another encoder than the artifact's, and for a head that cannot.
    """
    if config.start.adds:
        return continued_model(artifact, config, labels)
    model = restore_model(replace(artifact, config=config))
    rows = rows_of(artifact, labels, config)
    if rows != list(range(len(artifact.labels))):
        answer = Answer(len(labels), config.data.target or "classes", plan.slices is not None)
        head = config.head.build(model.backbone, answer)
        head.start_from(model.head, rows)
        prompts = config.prompts.build_for(model.backbone.spec, len(labels))
        prompts.take_over(model.prompts, rows)
        model.head, model.prompts = head, prompts
    return model.train()


def held_labels(config: Config, dataset: SegmentationSet, training: Sequence[str]) -> list[str]:
    """Labels of the artifact that stay although no training case is annotated for them."""
    counts = counts_of([dataset.case(name) for name in training], dataset.labels)
    return [name for name in config.start.kept or () if counts.get(name) == 0]


def teacher_of(
    config: ResolvedConfig, start: Artifact | None, labels: Mapping[int, str], names: Sequence[str]
) -> tuple[PromptedModel, dict[int, int]]:
    """The artifact's own model, and of these of the labels: class -> its class there.

    start: None where a run is resumed, which reads the artifact again.
    """
    artifact = _read(config.start)[0] if start is None else start
    own, known = list(labels.values()), list(artifact.labels.values())
    model = restore_model(replace(artifact, config=config))
    return model, {own.index(name): known.index(name) for name in names}


def rows_of(artifact: Artifact, labels: Mapping[int, str], config: Config) -> list[int | None]:
    """For each of the labels its number among the artifact's, by name; of segmentation the first is the background.

    Raises:
        VptError: a name that is the artifact's but for capitals and blanks; other grades.
    """
    known, wanted = list(artifact.labels.values()), list(labels.values())
    if config.data.target == "grades" and known != wanted:
        raise VptError(
            f"{artifact.path}: grades {listed(known)}, found {listed(wanted)}; what is learned are the steps between "
            "neighbouring grades, so give the data the same ones in the same order, or start anew"
        )
    if pair := written_otherwise(wanted, known):
        raise VptError(
            f"{artifact.path}: knows the label {pair[1]!r}, the data {pair[0]!r}, which would be another one; call it "
            "as the artifact does"
        )
    rows = [known.index(name) if name in known else None for name in wanted]
    return [0, *rows[1:]] if config.task == "segmentation" else rows


def start_in_words(artifact: Artifact, dataset: SegmentationSet | LabelledSet) -> str:
    """What becomes of the labels of both."""
    known, labels = list(artifact.labels.values()), list(dataset.labels.values())
    channels = artifact.plan.channels
    segments = isinstance(dataset, SegmentationSet)
    unseen: list[str] = []
    if isinstance(dataset, SegmentationSet):
        unseen = [name for name, count in counts_of(dataset.cases, dataset.labels).items() if not count]
    kept = [name for name in labels if name in known and name not in unseen][segments:]
    said = [
        f"{listed(names, 10)} {what}"
        for names, what in (
            (kept, "as learned there"),
            ([name for name in unseen if name in known], "as learned there, though no case is annotated for it"),
            ([name for name in labels if name not in known], "anew"),
            (
                [name for id, name in artifact.labels.items() if name not in labels and (id or not segments)],
                "dropped, since the data do not have it",
            ),
        )
        if names
    ]
    if [name.strip().casefold() for name in dataset.channels] != [name.strip().casefold() for name in channels]:
        said.append(f"reads {listed(dataset.channels)} as the artifact read {listed(channels)}")
    return f"starts from {artifact.path}: {'; '.join(said)}"


def require_unseen(artifact: Artifact, dataset: SegmentationSet | LabelledSet, splits: Splits) -> None:
    """Raise VptError where cases validate or test that the artifact was trained on: their scores would say nothing."""
    written = artifact.path.parent / "splits.json"
    source, theirs = dataset.source if dataset.source.name else dataset.root, artifact.config.data.path
    if not written.is_file() or not (theirs.exists() and os.path.samefile(source, theirs)):
        return
    learned = {*read_written(written).train}
    if seen := [name for name in (*splits.val, *splits.test) if name in learned]:
        raise VptError(
            f"{artifact.path}: was trained on {len(seen)} of the cases that would validate or test "
            f"({listed(seen, 3)}), so their scores would say nothing; keep its split, see {Path(written)}"
        )
