"""`vpt explain`: what each prompt of a trained model does on a scan, as maps, numbers and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vpt.errors import VptError
from vpt.explaining import Hidden, Prompt, Score, deletion, influence, read_prompts
from vpt.files import atomic, write_json, write_text
from vpt.model import PromptedModel
from vpt.progress import Tick, silent
from vpt.prompts.class_queries import ClassQueries
from vpt.readers import Scan, reader_of
from vpt.report.explain_page import explain_page
from vpt.report.report_page import FactGroup
from vpt.tasks.images import Normalise
from vpt.use.by_task import SegmenterByTask
from vpt.use.classifier import Classifier
from vpt.use.explain_classes import ClassExplanation, explain_classes
from vpt.use.explain_volume import write_volumes
from vpt.use.known_task import of_task
from vpt.use.load import load
from vpt.use.models import models_in
from vpt.use.neighbours import Neighbours, neighbours
from vpt.use.segmenter import Segmenter
from vpt.use.watched import look_at, shown

SEARCHED = 32  # training images


@dataclass(frozen=True)
class Explanation:
    """What prompts do on one image of a scan.

    image: (S, S, 3) or (S, S) in [0, 1], as the encoder is given it; watched: in words, what the score is; alike:
    block -> (P, P) cosines; heads: block -> (heads, rows, columns, P) softmax weights; hidden: a deletion curve; near:
    the training patches nearest to each prompt, or in words why none were searched; volumes: files with its attention
    over the whole scan.
    """

    case: str
    slice: int | None
    image: np.ndarray
    watched: str
    score: float
    prompts: tuple[Prompt, ...]
    alike: dict[int, np.ndarray]
    heads: dict[int, np.ndarray]
    hidden: tuple[Hidden, ...]
    near: Neighbours | str = "not asked for"
    volumes: tuple[Path, ...] = ()

    def save(self, out: str | Path, facts: Sequence[FactGroup] = ()) -> list[Path]:
        """explain.html, explain.json and attention.npz into the folder `out`; facts: how to repeat it, for the page."""
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        page, numbers, maps = out / "explain.html", out / "explain.json", out / "attention.npz"
        write_text(page, explain_page(self, facts))
        write_json(numbers, self.to_dict())
        arrays: dict[str, Any] = {f"block_{i}": heads.astype(np.float16) for i, heads in self.heads.items()}
        with atomic(maps) as part:
            np.savez_compressed(part, **arrays)
        return [page, numbers, maps]

    def to_dict(self) -> dict[str, object]:
        prompts: list[dict[str, Any]] = [
            {"block": each.block, "number": each.number, "share": each.share, "influence": each.influence}
            for each in self.prompts
        ]
        if isinstance(self.near, Neighbours):
            for each in prompts:
                each["nearest"] = [found.to_dict() for found in self.near.found[each["block"], each["number"]]]
        return {
            "case": self.case,
            "slice": self.slice,
            "watched": self.watched,
            "score": self.score,
            "prompts": prompts,
            "similarity": {str(i): matrix.tolist() for i, matrix in self.alike.items()},
            "hidden": [each._asdict() for each in self.hidden],
            **({"training_images": list(self.near.names)} if isinstance(self.near, Neighbours) else {}),
            **({"volumes": [path.name for path in self.volumes]} if self.volumes else {}),
        }


def explain(
    run: str | Path,
    scan: Scan,
    *,
    slice: int | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    leave_out: bool = True,
    images: int | None = 0,
    volumes: str | Path | None = None,
    force: bool = False,
    task: str | None = None,
    progress: Tick = silent,
) -> Explanation | ClassExplanation:
    """What each prompt of a run or artifact does on a scan (of a volume, on one slice), in float32.

    Of prompts that belong to classes: where each class is read from.

    Args:
        slice: its number along the plan's axis; None takes the one in which most is found, or the middle one.
        leave_out: also answer without each prompt in turn, which takes a pass for each.
        images: of the run's training cases so many are searched for the patches nearest to each prompt in key space;
            None takes `SEARCHED` where the run's folder and data are there.
        volumes: a folder into which, of a volume that is segmented, the attention to each prompt over the whole scan is
            written, a NIfTI file each.
        force: as in `Segmenter.segment`.
        task: of a model that has learned to segment several, the scan's; None chooses it, as `segment` does.

    Raises:
        VptError: what `load` and the readers refuse; prompts that no block attends to beside its tokens; a slice that
            is not there; training images of an artifact without its run, or for prompts of classes.
    """
    if images is not None and images < 0:
        raise VptError(f"images: {images}, expected how many training cases are searched, from 0 on")
    if len(models := models_in(run)) > 1:
        raise VptError(f"{run}: {len(models)} models; explain reads the prompts of one, such as {models[0]}")
    whole = load(run, device, weights, "32-true")
    answers = _of_task(whole, scan, task, force)
    seen = look_at(answers, scan, slice, force)
    if own := _task_of(whole, answers):
        seen = seen.told(f"task {own}")
    model = answers.model
    if isinstance(model.prompts, ClassQueries) and images:
        raise VptError(
            f"{type(model.prompts).__name__}: prompts of classes ask the patches and are not asked by them, so no "
            "training patches are near to them in key space; leave --images out"
        )
    with torch.no_grad():
        image = Normalise.of(model).to(answers.device)(seen.image.to(answers.device))
    if isinstance(model.prompts, ClassQueries):
        return explain_classes(answers, seen, image)
    with torch.no_grad():
        logits = model(image)
    score, watched = seen.watch(logits)
    read = read_prompts(model, image)
    means = {i: each.weights[0].mean(0) for i, each in read.items()}  # over heads
    counts = {i: each.shape[-1] for i, each in means.items()}
    changes = influence(model, image, score, counts, progress) if leave_out else {}
    near = _near(models[0], whole, answers, image, images, progress)
    return Explanation(
        case=seen.name,
        slice=seen.slice,
        image=shown(seen.image),
        watched=watched,
        score=score(logits),
        prompts=tuple(
            Prompt(i, k, maps[..., k].cpu(), float(maps[..., k].mean()), changes.get((i, k)))
            for i, maps in means.items()
            for k in range(maps.shape[-1])
        ),
        alike={i: each.cosines.cpu().numpy() for i, each in read.items() if each.cosines is not None},
        heads={i: each.weights[0].cpu().numpy() for i, each in read.items()},
        hidden=_hidden(model, image, score, means, changes),
        near=near,
        volumes=_volumes(answers, scan, volumes, force, progress),
    )


def _of_task(whole: Segmenter | Classifier, scan: Scan, task: str | None, force: bool) -> Segmenter | Classifier:
    """The model, of several tasks the one of the scan's own: told, or chosen."""
    if isinstance(whole, SegmenterByTask):
        of = whole if task is None else whole.of_task(task)
        return of.answering(of.prepare(scan, force))
    if task is not None and isinstance(whole, Classifier) and whole.tasks:
        raise VptError(f"task {task!r}: a classifier is explained as it answers among all its classes; leave it out")
    return of_task(whole, task)  # which says that the model has learned one alone


def _task_of(whole: Segmenter | Classifier, answers: Segmenter | Classifier) -> str:
    """Which of several tasks answers; "" of a model of one."""
    if not isinstance(whole, SegmenterByTask):
        return ""
    return next(task for task, member in whole.members.items() if member is answers)


def _near(
    run: Path,
    whole: Segmenter | Classifier,
    answers: Segmenter | Classifier,
    image: Tensor,
    count: int | None,
    progress: Tick,
) -> Neighbours | str:
    if count == 0:
        return "not asked for"
    try:
        if isinstance(whole, SegmenterByTask) and answers is not list(whole.members.values())[-1]:
            raise VptError(
                f"{run}: has the training images of its last task, not those of {_task_of(whole, answers)}; "
                "explain the run that learned it, or leave the search out with --images 0"
            )
        return neighbours(run, answers, image, SEARCHED if count is None else count, progress)
    except VptError as error:
        if count is None:
            return str(error)
        raise


def _volumes(
    answers: Segmenter | Classifier, scan: Scan, folder: str | Path | None, force: bool, progress: Tick
) -> tuple[Path, ...]:
    if folder is None or not isinstance(answers, Segmenter) or reader_of(scan).kind != "volumes":
        return ()
    return write_volumes(answers, scan, Path(folder), force, progress)


def _hidden(
    model: PromptedModel, image: Tensor, score: Score, means: dict[int, Tensor], changes: dict[tuple[int, int], float]
) -> tuple[Hidden, ...]:
    """The score as patches are hidden: those that attend most to prompts that help, and random ones.

    A prompt's map, divided by its mean, counts as `weights_of` says.
    """
    size = next(iter(means.values())).shape[:2]
    most = torch.zeros(size, device=image.device)
    places = [(i, k) for i, maps in means.items() for k in range(maps.shape[-1])]
    for (i, k), weight in weights_of(places, changes).items():
        one = F.interpolate(means[i][None, None, ..., k], size=size, mode="bilinear")[0, 0]
        most += weight * one / one.mean()
    return deletion(model, image, score, most)


def weights_of(
    places: Sequence[tuple[int, int]], changes: Mapping[tuple[int, int], float]
) -> dict[tuple[int, int], float]:
    """Of the prompts at these places (block, number) how much the score falls without each, 0 where it rises.

    1 of all where none adds anything, or nobody has asked: else no order of patches would follow.
    """
    found = {place: max(changes.get(place, 0.0), 0.0) for place in places}
    return found if any(found.values()) else dict.fromkeys(places, 1.0)
