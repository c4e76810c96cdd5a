"""`vpt explain`: what each prompt of a trained model does on a scan, as maps, numbers and a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vpt.data.framing import as_channels, as_float32, crop_or_pad, placement_of
from vpt.errors import VptError
from vpt.explaining import Prompt, Score, hidden_in_order, influence, read_prompts
from vpt.files import atomic, write_json, write_text
from vpt.model import PromptedModel
from vpt.progress import Tick, silent
from vpt.readers import Scan
from vpt.report.explain_page import explain_page
from vpt.tasks.classification import to_probabilities
from vpt.tasks.images import Normalise
from vpt.use.classifier import Classifier
from vpt.use.load import load
from vpt.use.models import models_in
from vpt.use.segmenter import Segmenter

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # of the patches, that are hidden
DRAWS = 5  # of random patches to compare with


class Hidden(NamedTuple):
    """The score as a share of the patches is hidden: those that attend most to prompts that help, or random ones."""

    share: float
    most_attending: float
    random: float


@dataclass(frozen=True)
class Explanation:
    """What prompts do on one image of a scan.

    image: (S, S, 3) or (S, S) in [0, 1], as the encoder is given it; watched: in words, what the score is; alike:
    block -> (P, P) cosines; heads: block -> (heads, rows, columns, P) softmax weights; hidden: a deletion curve.
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

    def save(self, out: str | Path) -> list[Path]:
        """explain.html, explain.json and attention.npz into the folder `out`."""
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        page, facts, maps = out / "explain.html", out / "explain.json", out / "attention.npz"
        write_text(page, explain_page(self))
        write_json(facts, self.to_dict())
        arrays: dict[str, Any] = {f"block_{i}": heads.astype(np.float16) for i, heads in self.heads.items()}
        with atomic(maps) as part:
            np.savez_compressed(part, **arrays)
        return [page, facts, maps]

    def to_dict(self) -> dict[str, object]:
        prompts = [
            {"block": each.block, "number": each.number, "share": each.share, "influence": each.influence}
            for each in self.prompts
        ]
        return {
            "case": self.case,
            "slice": self.slice,
            "watched": self.watched,
            "score": self.score,
            "prompts": prompts,
            "similarity": {str(i): matrix.tolist() for i, matrix in self.alike.items()},
            "hidden": [each._asdict() for each in self.hidden],
        }


def explain(
    run: str | Path,
    scan: Scan,
    *,
    slice: int | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    leave_out: bool = True,
    force: bool = False,
    progress: Tick = silent,
) -> Explanation:
    """What each prompt of a run or artifact does on a scan (of a volume, on one slice), in float32.

    Args:
        slice: its number along the plan's axis; None takes the one in which most is found, or the middle one.
        leave_out: also answer without each prompt in turn, which takes a pass for each.
        force: as in `Segmenter.segment`.

    Raises:
        VptError: what `load` and the readers refuse; prompts that no block attends to beside its tokens; a slice that
            is not there.
    """
    if len(models := models_in(run)) > 1:
        raise VptError(f"{run}: {len(models)} models; explain reads the prompts of one, such as {models[0]}")
    answers = load(run, device, weights, "32-true")
    look = _of_scan if isinstance(answers, Segmenter) else _of_image
    seen = look(answers, scan, slice, force)  # type: ignore[arg-type]
    model = answers.model
    normalise = Normalise.of(model).to(answers.device)
    with torch.no_grad():
        image = normalise(seen.image.to(answers.device))
        logits = model(image)
    score, watched = seen.watch(logits)
    read = read_prompts(model, image)
    means = {i: each.weights[0].mean(0) for i, each in read.items()}  # over heads
    counts = {i: each.shape[-1] for i, each in means.items()}
    changes = influence(model, image, score, counts, progress) if leave_out else {}
    return Explanation(
        case=seen.name,
        slice=seen.slice,
        image=_shown(seen.image),
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
    )


Watch = Callable[[Tensor], tuple[Score, str]]


@dataclass(frozen=True)
class _Seen:
    """image: (1, C, S, S) in [0, 1]; watch: the logits of it -> the score to follow, and what that is in words."""

    name: str
    slice: int | None
    image: Tensor
    watch: Watch


def _of_image(classifier: Classifier, scan: Scan, slice: int | None, force: bool) -> _Seen:
    """Of the slices of a volume the middle one, answered for by itself."""
    if slice is not None:
        raise VptError(
            f"slice {slice}: a classifier looks at the slices of its plan, and the middle one is told; leave it out"
        )
    stack = classifier.prepare(scan, force)
    middle = len(stack) // 2
    image = torch.from_numpy(stack[middle : middle + 1]).float() / 255

    def watch(logits: Tensor) -> tuple[Score, str]:
        best = int(to_probabilities(logits, classifier.target, classifier.temperature)[0].argmax())

        def score(logits: Tensor) -> float:
            return float(to_probabilities(logits, classifier.target, classifier.temperature)[0, best])

        return score, f"the probability of {classifier.classes[best]}"

    return _Seen(_name(scan), middle if len(stack) > 1 else None, image, watch)


def _of_scan(segmenter: Segmenter, scan: Scan, slice: int | None, force: bool) -> _Seen:
    prepared, plan = segmenter.prepare(scan, force), segmenter.plan
    found = segmenter.classes_of(prepared, None, silent)
    depth = len(found)
    if slice is not None and not 0 <= slice < depth:
        raise VptError(f"{prepared.reader.name}: no slice {slice}; it has {depth}, from 0 on")
    per_slice = (found > 0).reshape(depth, -1).sum(1)
    chosen = slice if slice is not None else int(per_slice.argmax()) if per_slice.any() else depth // 2
    below = max(chosen - 1, 0)
    part = prepared.slices[below : chosen + 2]
    image = as_float32(as_channels(part, chosen - below, plan.neighbours)[None])
    placement = placement_of(tuple(image.shape[-2:]), plan)  # type: ignore[arg-type]
    framed = placement.pad(image.numpy(), plan.around)
    top, left = _window(found[chosen] > 0, framed.shape[-2:], plan.image_size)
    square = crop_or_pad(framed, plan.image_size, top, left, plan.around)
    return _Seen(_name(scan), chosen if depth > 1 else None, torch.from_numpy(square), _watch_mask)


def _window(found: np.ndarray, size: tuple[int, ...], side: int) -> tuple[int, int]:
    """Corner of the square of a larger image that has what was found in its middle."""
    places = np.argwhere(found)
    middle = (places.mean(0) + 0.5) / found.shape if len(places) else np.full(2, 0.5)
    wanted = [round(share * length - side / 2) for share, length in zip(middle, size, strict=True)]
    top, left = (min(max(at, 0), length - side) for at, length in zip(wanted, size, strict=True))
    return top, left


def _watch_mask(logits: Tensor) -> tuple[Score, str]:
    """The mean probability, over the pixels in which something is found, of what is found there."""
    classes = logits[0].argmax(0)
    counts = classes > 0
    words = "the mean probability of what is found, over its pixels"
    if not counts.any():
        counts, words = torch.ones_like(counts), "the mean probability of background, where nothing is found"

    def score(logits: Tensor) -> float:
        own = logits[0].softmax(0).gather(0, classes[None])[0]
        return float(own[counts].mean())

    return score, words


def _hidden(
    model: PromptedModel, image: Tensor, score: Score, means: dict[int, Tensor], changes: dict[tuple[int, int], float]
) -> tuple[Hidden, ...]:
    """The score as patches are hidden: those that attend most to prompts that help, and random ones.

    A prompt's map, divided by its mean, counts as much as the score falls without it; all alike where that is unknown.
    """
    size = next(iter(means.values())).shape[:2]
    most = torch.zeros(size, device=image.device)
    for i, maps in means.items():
        for k in range(maps.shape[-1]):
            one = F.interpolate(maps[None, None, ..., k], size=size, mode="bilinear")[0, 0]
            most += max(changes.get((i, k), 1.0 if not changes else 0.0), 0.0) * one / one.mean()
    generator = torch.Generator().manual_seed(0)
    draws = [torch.rand(size, generator=generator).to(image.device) for _ in range(DRAWS)]
    random = np.mean([hidden_in_order(model, image, score, order, SHARES) for order in draws], 0).tolist()
    return tuple(map(Hidden, SHARES, hidden_in_order(model, image, score, most, SHARES), random))


def _shown(image: Tensor) -> np.ndarray:
    """(1, C, S, S) -> what a person is shown of it: colour, or the first channel in grey."""
    channels = image[0].numpy()
    if len(channels) == 3 and not (
        np.array_equal(channels[0], channels[1]) and np.array_equal(channels[0], channels[2])
    ):
        return channels.transpose(1, 2, 0)
    return channels[0]


def _name(scan: Scan) -> str:
    from vpt.readers import reader_of

    return Path(reader_of(scan).name).name
