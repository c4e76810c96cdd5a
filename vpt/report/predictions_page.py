"""The page of a folder of predictions: what failed, what is unusual, and what was found in every scan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from vpt.palette import colours_of
from vpt.report.inlined import InlinedViewer
from vpt.report.overlays import Panel
from vpt.report.pages import render
from vpt.report.parts import MOST_ROWS, WORST, Tile, amount
from vpt.scores.trust import TRUST, flags_in_words
from vpt.words import counted


@dataclass(frozen=True)
class PredictedCase:
    """A record of `predictions.json`.

    sizes: label -> ml of a volume, pixels of an image; answers: class -> probability; output: its mask in the folder;
    trust: score -> value, of those of `--quality` that are known; beyond: what of it lies beyond its limit, in words,
    None where there are no limits; flagged: whether the case itself is beyond one, not a label of it alone.
    """

    name: str
    failed: bool
    reason: str
    seconds: float
    sizes: Mapping[str, float]
    answers: Mapping[str, float]
    warnings: tuple[str, ...]
    output: str
    trust: Mapping[str, float] = field(default_factory=dict)
    beyond: tuple[str, ...] | None = None
    flagged: bool = False

    @property
    def nothing_predicted(self) -> bool:
        return bool(self.sizes) and not any(self.sizes.values())


@dataclass(frozen=True)
class PredictedCard:
    case: PredictedCase
    panels: tuple[Panel, ...] = ()
    note: str = ""

    @property
    def said(self) -> tuple[str, ...]:
        return (*self.case.warnings, *filter(None, [self.note]))


def read_predicted(found: Mapping[str, Any]) -> list[PredictedCase]:
    """The content of `predictions.json`: what failed first, then the most unusual."""
    cases = [
        PredictedCase(
            str(each["case"]),
            each["status"] == "failed",
            str(each.get("reason", "")),
            float(each.get("seconds", 0)),
            each.get("volumes_ml") or each.get("pixels") or {},
            each.get("probabilities") or {},
            tuple(each.get("warnings", ())),
            str(each.get("output", "")),
            *_judged(each.get("quality") or {}),
        )
        for each in found["cases"]
    ]
    usual = _usual_sizes(cases)
    return sorted(cases, key=lambda case: (-_rank(case), -_unusual(case, usual), case.name))


def _judged(quality: Mapping[str, Any]) -> tuple[dict[str, float], tuple[str, ...] | None, bool]:
    """What `vpt.scores.trust.described` says: the scores of the case, and where it, or a label, is beyond a limit."""
    if not quality:
        return {}, None, False
    whole = quality["case"]
    trust = {score: whole[score] for score in TRUST if whole[score] is not None}
    if whole["beyond"] is None:
        return trust, None, False
    of_labels = ((name, found["beyond"]) for name, found in quality["structures"].items())
    beyond = (*whole["beyond"], *(f"{score} of {name}" for name, scores in of_labels for score in scores))
    return trust, beyond, bool(whole["beyond"])


def cases_to_show(cases: Sequence[PredictedCase]) -> list[PredictedCase]:
    """Those of the ordered cases whose masks get pictures."""
    return [case for case in cases if case.output and not case.failed and not case.answers][:WORST]


def predictions_page(
    title: str,
    cases: Sequence[PredictedCase],
    cards: Sequence[PredictedCard],
    labels: Sequence[str],
    unit: str,
    facts: Sequence[tuple[str, str]],
    viewer: InlinedViewer | None = None,
    to_view: str = "",
) -> str:
    """One file of HTML. cases: in order; labels: names of what is segmented; unit: ml or px; to_view: the command
    that puts volumes inside the page.
    """
    failed = [case for case in cases if case.failed]
    nothing = sum(case.nothing_predicted for case in cases)
    verb = "segmented" if labels else "classified"
    sentences = [f"{len(cases) - len(failed)} of {counted(len(cases), 'scan')} {verb}"]
    sentences += [f"in {counted(nothing, 'scan')} nothing was predicted"] if nothing else []
    judged = [case for case in cases if case.beyond is not None]
    flagged = sum(case.flagged for case in judged)
    of_labels = sum(bool(case.beyond) for case in judged) - flagged
    sentences += [flags_in_words(flagged, of_labels)] if flagged or of_labels else []
    colours = dict(zip(labels, colours_of(range(1, len(labels) + 1)).values(), strict=True))
    classes = list(dict.fromkeys(name for case in cases for name in case.answers))
    scores = [score for score in TRUST if any(score in case.trust for case in cases)]
    seconds = [case.seconds for case in cases if not case.failed]
    return render(
        "predictions.html",
        title=title,
        headline=f"{'; '.join(sentences)}.",
        tiles=[
            Tile("Scans", str(len(cases)), f"{len(failed)} failed"),
            Tile("With warnings", str(sum(bool(case.warnings) for case in cases))),
            *([Tile("Flagged", str(flagged), "beyond limits of validation")] if judged else []),
            *([Tile("Time per scan", f"{median(seconds):.2g} s", "median")] if seconds else []),
        ],
        failed=failed,
        cards=cards,
        colours=colours,
        unit=unit,
        classes=classes,
        scores=scores,
        heads=[*(f"{name} ({unit})" for name in colours), *(f"p({name})" for name in classes), *scores],
        cases=cases[:MOST_ROWS],
        left_out=max(0, len(cases) - MOST_ROWS),
        amount=amount,
        facts=facts,
        viewer=viewer,
        to_view=to_view if labels else "",
    )


def _rank(case: PredictedCase) -> int:
    return 3 if case.failed else 2 if case.nothing_predicted else 1 if case.warnings or case.beyond else 0


def _usual_sizes(cases: Sequence[PredictedCase]) -> dict[str, float]:
    names = {name for case in cases for name in case.sizes}
    return {name: median(case.sizes.get(name, 0.0) for case in cases if case.sizes) for name in names}


def _unusual(case: PredictedCase, usual: Mapping[str, float]) -> float:
    """How far its sizes are from the median, as factors: of halved and of doubled alike."""
    least = 1e-3
    factors = [abs(math.log(max(size, least) / max(usual[name], least))) for name, size in case.sizes.items()]
    return max(factors, default=0.0)
