"""Many tasks on one encoder: `vpt.Bank`."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from vpt.artifact import Artifact, read_artifact
from vpt.artifact_tasks import tasks_of
from vpt.backbones import Backbone, describe_backbone
from vpt.building import FROZEN
from vpt.data.slices.slice_stacks import prepare_stack
from vpt.errors import VptError
from vpt.machine.device import choose_device
from vpt.machine.precision import choose_precision
from vpt.progress import Tick, silent
from vpt.readers import Mask, Scan
from vpt.restoring import restore_model
from vpt.use.classifier import Classifier
from vpt.use.inference import ReadScan, read_scan, require_usual, warn_of_header, warn_of_precision
from vpt.use.load import ready, require_switches
from vpt.use.models import models_in
from vpt.use.segmenter import Segmenter
from vpt.use.several import scans_in
from vpt.use.side_by_side import Asked, classify_together, segment_together, sight_of
from vpt.vocabulary import Precision
from vpt.words import did_you_mean, listed

Model = TypeVar("Model", Segmenter, Classifier)
VERBS: Mapping[type, tuple[str, str]] = {  # what one does, and does not
    Segmenter: ("segments", "segment"),
    Classifier: ("classifies", "classify"),
}


class Bank:
    """One frozen encoder in memory, and the prompts and heads of many tasks, which come and go.

        bank = vpt.Bank("lite_medsam")
        bank.add("liver", "runs/liver")
        bank.add("tumour", "runs/tumour")
        masks = bank.segment("scan.nii.gz", tasks=["liver", "tumour"])

    Asked together, tasks that prepare a scan alike share its slices and all blocks of the encoder below the first
    prompts of each, and run side by side above them (`vpt.streams`). Each answers as it does alone, up to the rounding
    of a larger batch. `bank["liver"]` is what `vpt.load` gives of it. One thread may add and remove tasks while others
    ask.

    Args:
        backbone: the encoder's name or file, as in the config of the runs.
        device, weights, precision, postprocess: as for `vpt.load`, of the encoder and so of all tasks.

    Raises:
        VptError: an encoder that is not known.
    """

    def __init__(
        self,
        backbone: str,
        device: str = "auto",
        weights: str | Path | None = None,
        precision: Precision = "auto",
        postprocess: bool = True,
    ):
        require_switches(postprocess=postprocess)
        describe_backbone(backbone)
        self.name = backbone
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        warn_of_precision([precision], self.device)
        self.backbone: Backbone | None = None
        self._weights, self._postprocess = weights, postprocess
        self._tasks: dict[str, Segmenter | Classifier] = {}
        self._changing = Lock()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy, or one in another process, has of it: all but the lock, of which each has its own."""
        return {name: value for name, value in vars(self).items() if name != "_changing"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _changing=Lock())

    @property
    def tasks(self) -> tuple[str, ...]:
        """Their names, in the order in which they were added."""
        return tuple(self._tasks)

    def __getitem__(self, task: str) -> Segmenter | Classifier:
        if task not in self._tasks:
            known = did_you_mean(str(task), self._tasks) or f"; it has {listed(self._tasks) or 'none yet'}"
            raise VptError(f"{task}: no task of this bank is called so{known}")
        return self._tasks[task]

    def __contains__(self, task: object) -> bool:
        return task in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, task: str, run_or_artifact: str | Path) -> None:
        """Take in what was trained on this encoder, under a name; the first one decides the encoder's image size.

        Raises:
            VptError: a name that is taken; a model of another encoder, other weights, another image size, or one whose
                tuning changes the encoder; several models.
        """
        with self._changing:
            self._add(task, run_or_artifact)

    def _add(self, task: str, run_or_artifact: str | Path) -> None:
        if not isinstance(task, str) or not task:
            raise VptError(f"task {task!r}: expected a name, such as 'liver'")
        if task in self._tasks:
            raise VptError(f"{task}: the bank has a task of this name; remove it first, or choose another name")
        artifact = self._read(task, run_or_artifact)
        model = restore_model(artifact, self._weights, self.device, self.precision)
        if self.backbone is not None and model.backbone is not self.backbone:
            config = artifact.config.backbone
            raise VptError(
                f"{task}: {artifact.path} has its encoder loaded otherwise than the bank's first task "
                f"(backbone.options {config.options}, backbone.weights {config.weights}); give the weights to the bank "
                "(weights=FILE), or give it a bank of its own"
            )
        if self.backbone is None:
            self.backbone = model.backbone
            self._weights = self._weights or artifact.config.backbone.weights
        self._tasks[task] = ready(artifact, model, self.device, self.precision, postprocess=self._postprocess)

    def remove(self, task: str) -> None:
        """Forget a task; the encoder stays."""
        with self._changing:
            self[task]
            del self._tasks[task]

    def segment(
        self, scan: Scan, tasks: Iterable[str] | None = None, *, force: bool = False, progress: Tick = silent
    ) -> dict[str, Mask] | list[dict[str, Mask]]:
        """A scan as `Segmenter.segment` takes it -> of each task its mask; by default of all tasks that segment.

        A list of scans -> a list of these. Memory holds a scan once for all tasks that prepare it alike, and a mask for
        each task.

        Raises:
            VptError: what the tasks refuse; one that does not segment.
        """
        asked = self._asked(tasks, Segmenter)
        several = scans_in(scan, *(member.plan for member in asked.values()))
        found = [self._segment(one, asked, force, progress) for one in ([scan] if several is None else several)]
        return found[0] if several is None else found

    def _segment(self, scan: Scan, asked: Mapping[str, Segmenter], force: bool, progress: Tick) -> dict[str, Mask]:
        """The masks of one scan."""
        masks: dict[str, Mask] = {}
        groups = by_sight(asked)
        for number, group in enumerate(groups):
            members = [asked[task] for task in group]
            with of_task(group[0]):
                prepared = members[0].prepare(scan, force)
            for task in group[1:]:
                with of_task(task):
                    prepared.judged_by(asked[task].plan, force)
            warn_of_header(prepared.reader, *(member.plan for member in members))
            found = segment_together(members, prepared, self.precision, _share(progress, number, len(groups)))
            for task, member, classes in zip(group, members, found, strict=True):
                labels = member.ids_of(classes, prepared)
                masks[task] = member.shown(scan, prepared, member.mask_of(prepared, labels))
        return {task: masks[task] for task in asked}

    def classify(
        self, scan: Scan, tasks: Iterable[str] | None = None, *, force: bool = False
    ) -> dict[str, dict[str, float]] | list[dict[str, dict[str, float]]]:
        """An image or scan as `Classifier.classify` takes it -> of each task {class: p}; by default of all that do.

        A list of scans -> a list of these.

        Raises:
            VptError: what the tasks refuse; one that does not classify.
        """
        asked = self._asked(tasks, Classifier)
        several = scans_in(scan, *(member.plan for member in asked.values()))
        scans = [scan] if several is None else several
        answers = iter(self.classify_each([(one, task) for one in scans for task in asked], force=force))
        found = [dict(zip(asked, answers, strict=False)) for _ in scans]
        return found[0] if several is None else found

    def classify_each(
        self, requests: Iterable[tuple[Scan, str]], *, force: bool = False, progress: Tick = silent
    ) -> list[dict[str, float]]:
        """Pairs of a scan and a task -> {class: p} of each, in their order, from batches that mix tasks.

        A scan that several tasks of one preparation are asked about is prepared, and its common blocks run, once.
        Arrays are read when all requests are there, so each scan needs an array of its own.
        """
        requests = list(requests)
        for request in requests:
            if not isinstance(request, tuple | list) or len(request) != 2:
                raise VptError(f"{request!r} is no request; give pairs of a scan and a task, [(scan, 'liver'), ...]")
        tasks = self._asked([task for _, task in requests], Classifier)
        read: dict[Hashable, ReadScan] = {}
        stacks: dict[Hashable, np.ndarray] = {}
        asked: list[Asked] = []
        for scan, task in requests:
            member, which = tasks[task], scan if isinstance(scan, str | Path) else id(scan)
            sight = which, sight_of(member)
            with of_task(task):
                if sight in stacks:
                    require_usual(member.plan, read[sight].reader.name, read[sight].voxels, force)
                else:
                    read[sight] = read_scan(member.plan, scan, force)
                    stacks[sight] = prepare_stack(read[sight].voxels, member.plan)
            warn_of_header(read[sight].reader, member.plan)
            asked.append((member, list(stacks).index(sight)))
        found = classify_together(list(stacks.values()), asked, self.precision, progress)
        return [
            dict(zip(member.classes, row.tolist(), strict=True)) for (member, _), row in zip(asked, found, strict=True)
        ]

    def segmenters(self) -> dict[str, Segmenter]:
        """The segmenters of its tasks by name; a bank without any is refused."""
        return self._asked(None, Segmenter)

    def _read(self, task: str, run_or_artifact: str | Path) -> Artifact:
        """The artifact, if its encoder is the bank's and left as it is."""
        models = models_in(run_or_artifact)
        if len(models) > 1:
            raise VptError(f"{task}: {run_or_artifact} holds {len(models)} models; add each of them under its own name")
        artifact = read_artifact(models[0])
        if artifact.earlier:
            raise VptError(
                f"{task}: {artifact.path} has learned {listed(tasks_of(artifact), 10)}, and gives each scan to one of "
                "them; use it by itself with vpt.load, or add the run of each task"
            )
        config = artifact.config
        said = f"{task}: {artifact.path} was trained"
        if config.backbone.name != self.name:
            raise VptError(f"{said} on {config.backbone.name}, the bank's encoder is {self.name}; give it its own bank")
        if config.tuning.method != FROZEN:
            raise VptError(
                f"{said} with tuning {config.tuning.method}, which changes the encoder that a bank shares; "
                "use it by itself with vpt.load"
            )
        if self.backbone is not None:
            self._require_alike(artifact, said)
        return artifact

    def _require_alike(self, artifact: Artifact, said: str) -> None:
        assert self.backbone is not None
        mine, theirs = self.backbone.spec.image_size[0], artifact.plan.image_size
        if mine != theirs:
            raise VptError(
                f"{said} on images of {theirs} px, the bank's encoder is set to {mine} px by its first task; "
                f"train it with plan.image_size={mine}, or give it a bank of its own"
            )
        if artifact.backbone_sha256 != self.backbone.sha256:
            raise VptError(
                f"{said} on weights of SHA-256 {artifact.backbone_sha256[:16]}..., the bank's encoder has "
                f"{self.backbone.sha256[:16]}...; give it a bank of its own"
            )

    def _asked(self, tasks: Iterable[str] | None, kind: type[Model]) -> dict[str, Model]:
        """Tasks of that kind by their names; all of them by default."""
        if isinstance(tasks, str):
            raise VptError(f"tasks is the text {tasks!r}; give a list of names, [{tasks!r}]")
        if tasks is None:
            found = {name: task for name, task in list(self._tasks.items()) if isinstance(task, kind)}
            if not found:
                raise VptError(f"the bank has no task that {VERBS[kind][0]}; add one with bank.add(name, run)")
            return found
        found = {}
        for name in tasks:
            task = self[name]
            if not isinstance(task, kind):
                raise VptError(f"{name}: this task does not {VERBS[kind][1]}; ask bank[{name!r}] itself")
            found[name] = task
        return found


@contextmanager
def of_task(task: str) -> Iterator[None]:
    """What a task refuses is said with its name."""
    try:
        yield
    except VptError as error:
        raise VptError(f"{task}: {error}") from error


def by_sight(tasks: Mapping[str, Segmenter]) -> list[list[str]]:
    """Names of tasks, those to which a scan is the same images together."""
    groups: dict[Hashable, list[str]] = {}
    for name, member in tasks.items():
        groups.setdefault(sight_of(member), []).append(name)
    return list(groups.values())


def _share(progress: Tick, done: int, groups: int) -> Tick:
    """The progress of one of several groups as part of the whole."""
    return lambda so_far, total, note: progress(done * total + so_far, groups * total, note)
