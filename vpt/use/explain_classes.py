"""`vpt explain` of class prompts and class queries: where each class is read from, as maps, numbers and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vpt.class_maps import class_attention, class_evidence
from vpt.explaining import Hidden, deletion
from vpt.files import atomic, write_json, write_text
from vpt.report.class_maps_page import class_maps_page
from vpt.report.report_page import FactGroup
from vpt.tasks.classification import to_probabilities
from vpt.use.classifier import Classifier
from vpt.use.segmenter import Segmenter
from vpt.use.watched import Seen, shown

SHOWN = 2  # classes of an image: what is answered, and the runner-up


@dataclass(frozen=True)
class ClassMap:
    """Where a class is read from.

    probability: of the image, or the largest in its mask; map: (rows, columns), a prompt's attention to the patches
    (mean of the heads) or a mask's probabilities; heads: (heads, rows, columns), of a mask none; evidence: (rows,
    columns), what each patch adds to the class's log-probability in the last block, None of a mask.
    """

    name: str
    probability: float
    map: np.ndarray
    heads: np.ndarray
    evidence: np.ndarray | None = None


@dataclass(frozen=True)
class ClassExplanation:
    """Where a model with prompts of classes reads them from, on one image of a scan.

    image: (S, S, 3) or (S, S) in [0, 1], as the encoder is given it; kind: what the maps are; watched: in words, what
    the score is; maps: of an image the likeliest classes, of masks all; hidden: a deletion curve of the first map, or
    of all that is no background; hidden_by_evidence: of the first map's evidence, None of masks.
    """

    case: str
    slice: int | None
    image: np.ndarray
    kind: Literal["attention", "masks"]
    watched: str
    score: float
    maps: tuple[ClassMap, ...]
    hidden: tuple[Hidden, ...]
    hidden_by_evidence: tuple[Hidden, ...] | None = None

    def save(self, out: str | Path, facts: Sequence[FactGroup] = ()) -> list[Path]:
        """explain.html, explain.json and maps.npz (a map for each class by its number, heads beside) into `out`.

        facts: how to repeat it, for the page.
        """
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        page, numbers, maps = out / "explain.html", out / "explain.json", out / "maps.npz"
        write_text(page, class_maps_page(self, facts))
        write_json(numbers, self.to_dict())
        arrays = {f"map_{number}": each.map for number, each in enumerate(self.maps)}
        arrays |= {f"heads_{number}": each.heads for number, each in enumerate(self.maps) if len(each.heads)}
        arrays |= {f"evidence_{k}": each.evidence for k, each in enumerate(self.maps) if each.evidence is not None}
        with atomic(maps) as part:
            np.savez_compressed(part, **{name: values.astype(np.float16) for name, values in arrays.items()})  # type: ignore[arg-type]
        return [page, numbers, maps]

    def to_dict(self) -> dict[str, object]:
        return {
            "case": self.case,
            "slice": self.slice,
            "watched": self.watched,
            "score": self.score,
            "maps": self.kind,
            "classes": [
                {"map": number, "name": each.name, "probability": each.probability, "share": float(each.map.sum())}
                for number, each in enumerate(self.maps)
            ],
            "hidden": [each._asdict() for each in self.hidden],
            "hidden_by_evidence": [each._asdict() for each in self.hidden_by_evidence or ()],
        }


@torch.no_grad()
def explain_classes(answers: Classifier | Segmenter, seen: Seen, image: Tensor) -> ClassExplanation:
    """Of the model of `answers`; image: `seen.image`, normalised (1, 3, S, S), on its device."""
    model = answers.model
    logits = model(image)
    score, watched = seen.watch(logits)
    reads = isinstance(answers, Classifier)
    maps, order = _attended(answers, image, logits) if reads else _masked(answers, logits)  # type: ignore[arg-type]
    evidence = maps[0].evidence
    return ClassExplanation(
        case=seen.name,
        slice=seen.slice,
        image=shown(seen.image),
        kind="attention" if reads else "masks",
        watched=watched,
        score=score(logits),
        maps=maps,
        hidden=deletion(model, image, score, order),
        hidden_by_evidence=None if evidence is None else deletion(model, image, score, torch.from_numpy(evidence)),
    )


def _attended(classifier: Classifier, image: Tensor, logits: Tensor) -> tuple[tuple[ClassMap, ...], Tensor]:
    """The likeliest classes, and what to hide first."""
    weights = class_attention(classifier.model, image)[0].cpu()
    probabilities = to_probabilities(logits, classifier.target, classifier.temperature)[0]

    def of_class(k: int) -> ClassMap:
        def log_probability(logits: Tensor) -> Tensor:
            apart = classifier.target == "labels"
            return F.logsigmoid(logits[:, k]) if apart else logits.log_softmax(1)[:, k]

        evidence = class_evidence(classifier.model, image, log_probability)[0].sum(0).cpu()
        heads, name = weights[k], classifier.classes[k]
        return ClassMap(name, float(probabilities[k]), heads.mean(0).numpy(), heads.numpy(), evidence.numpy())

    best = probabilities.argsort(descending=True)[:SHOWN].tolist()
    return tuple(map(of_class, best)), weights[best[0]].mean(0)


def _masked(segmenter: Segmenter, logits: Tensor) -> tuple[tuple[ClassMap, ...], Tensor]:
    """All labels, and what to hide first: the patches that are least of the background."""
    probabilities = logits[0].softmax(0)
    maps = tuple(
        ClassMap(name, float(each.max()), each.cpu().numpy(), np.empty((0, *each.shape), np.float32))
        for name, each in zip(segmenter.labels.values(), probabilities, strict=True)
    )
    grid = segmenter.model.backbone.spec.finished.grid
    return maps, F.adaptive_avg_pool2d(1 - probabilities[:1], grid)[0]
