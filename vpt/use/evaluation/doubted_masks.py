"""What is doubtful in the masks of an evaluation, as `vpt check` and `vpt train` doubt those of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vpt.data.doubts.labels import doubtful_numbers, unnamed_label
from vpt.data.doubts.mask_looks import MaskLook, look_at_map, mask_doubts
from vpt.data.doubts.mask_values import MOST_LABELS, MaskValues, SeenMask
from vpt.readers import Kind, LabelMap, reader_of
from vpt.scores.segmentation import Doubt, Side
from vpt.use.evaluation.pairs import Mask, Pair
from vpt.use.evaluation.scored_labels import MOST_SHADES, Labels
from vpt.use.evaluation.turned_predictions import agreements, turned_predictions
from vpt.words import agreeing, counted, listed


@dataclass(frozen=True)
class Seen:
    """Of one mask: its look, the ids above 0, whether its file is lossy, how EXIF turns it, and its values.

    values: only where others than the labels may be in it, which nobody has looked at then; fits: of a prediction, how
    it agrees with its reference, as it is and turned, see `agreements`.
    """

    name: str
    look: MaskLook
    held: frozenset[int]
    lossy: bool
    turn: int
    values: SeenMask | None
    fits: Mapping[str, float] = field(default_factory=dict)


def see_pair(pair: Pair, found: LabelMap, true: LabelMap, labels: Labels) -> tuple[Seen, Seen]:
    """What is to be known of a prediction and of its reference, which were read as these."""
    mine, theirs = see_mask(pair.prediction, found, labels), see_mask(pair.reference, true, labels)
    return replace(mine, fits=agreements(found.array, true.array, _kind(pair))), theirs


def _kind(pair: Pair) -> Kind:
    return "images" if pair.reference.unit == "px" else "volumes"


def see_mask(mask: Mask, found: LabelMap, labels: Labels) -> Seen:
    held = frozenset(found.ids) - {0, found.ignored}
    reader = reader_of(mask.source) if isinstance(mask.source, Path) else None
    values = None if labels.complete else SeenMask.of(found, MOST_SHADES if mask.unit == "px" else MOST_LABELS)
    name = Path(mask.shown).name
    lossy, turn = (reader.is_lossy, reader.orientation()) if reader and mask.unit == "px" else (False, 1)
    return Seen(name, look_at_map(name, found, held), held, lossy, turn, values)


def doubts_of_masks(pairs: Sequence[Pair], seen: Sequence[tuple[Seen, Seen]], labels: Labels) -> tuple[Doubt, ...]:
    """About predictions and references; seen: both of every pair."""
    sides: Mapping[Side, Sequence[Seen]] = {
        "references": [reference for _, reference in seen],
        "predictions": [prediction for prediction, _ in seen],
    }
    kind = _kind(pairs[0])
    names = {0: "background", **{id: unnamed_label(id) for id in labels.names}} if labels.found else labels.names
    found = []
    for side, masks in sides.items():
        shades = _shades(side, masks, labels)
        texts = mask_doubts([mask.look for mask in masks], names, kind, shades_told=bool(shades))
        if side == "references" and labels.found:
            texts += doubtful_numbers(names, [mask.held for mask in masks])
        if side == "references":
            texts += _none_held(masks, labels)
        texts += [*_lossy(masks), *shades]
        found += [Doubt(side, text) for text in texts]
    across = [*_of_themselves(pairs), *_never_predicted(seen, labels), *_turned_apart(seen)]
    across += turned_predictions([prediction.fits for prediction, _ in seen], kind)
    return (*found, *(Doubt("predictions", text) for text in across))


def _none_held(references: Sequence[Seen], labels: Labels) -> list[str]:
    """Labels none of which is in any reference, where these hold others: likely a slip in the labels to score."""
    there = frozenset().union(*(mask.held for mask in references))
    if not there or there & labels.names.keys():
        return []
    return [
        f"none holds {listed(labels.names.values(), 5)} (from {labels.origin}), but {listed(sorted(there), 5)}; are "
        "these the labels to score?"
    ]


def _of_themselves(pairs: Sequence[Pair]) -> list[str]:
    """What is said where predictions are the references' own files, also by a link."""
    files = [(pair.prediction.source, pair.reference.source) for pair in pairs]
    same = [
        mine.name for mine, true in files if isinstance(mine, Path) and isinstance(true, Path) and mine.samefile(true)
    ]
    if not same:
        return []
    return [
        f"{len(same)} of {counted(len(pairs), 'mask')} {agreeing(len(same), 'are')} the reference itself "
        f"({listed(same, 3)}), so that all agrees; give the folder of the predictions"
    ]


def _never_predicted(seen: Sequence[tuple[Seen, Seen]], labels: Labels) -> list[str]:
    """Labels of references that no prediction holds, while some hold ids that are neither scored nor in references."""
    mine, theirs = (frozenset().union(*(both[side].held for both in seen)) for side in (0, 1))
    lacking = [name for id, name in labels.names.items() if id in theirs - mine]
    others = sorted(mine - theirs - labels.names.keys())
    if not lacking or not others:
        return []
    return [
        f"none holds {listed(lacking, 5)}, which references hold, but there is {listed(others, 5)}; number labels "
        "alike in both, or correct the labels to score"
    ]


def _turned_apart(seen: Sequence[tuple[Seen, Seen]]) -> list[str]:
    apart = [(mine.name, mine.turn, true.turn) for mine, true in seen if mine.turn != true.turn]
    if not apart:
        return []
    marks = listed(sorted({f"{mine} against {true}" for _, mine, true in apart}), 3)
    return [
        f"{len(apart)} of {counted(len(seen), 'mask')} ({listed((name for name, _, _ in apart), 3)}) "
        f"{'is' if len(apart) == 1 else 'are'} turned by EXIF in another way than the reference (orientation {marks}), "
        "so that they may not lie on each other; save both without that mark (mogrify -auto-orient, or exiftool "
        "-Orientation= if it is wrong)"
    ]


def _lossy(masks: Sequence[Seen]) -> list[str]:
    if not (lossy := [mask.name for mask in masks if mask.lossy]):
        return []
    some = f"{len(lossy)} of {counted(len(masks), 'mask')} ({listed(lossy, 3)}) {'is' if len(lossy) == 1 else 'are'}"
    return [f"{some} JPEG, whose values are not exact, so above 127 counts as 255, the rest as 0; save masks as PNG"]


def _shades(side: Side, masks: Sequence[Seen], labels: Labels) -> list[str]:
    """Values beside those of the labels that were given, which are not scored: shades, or a label's second value."""
    values = MaskValues(Path(side))
    for mask in masks:
        if mask.values:
            values.add(mask.name, mask.values)
    if not values.ids - labels.names.keys():
        return []
    shades = values.shades()
    if shades and not {*shades} - labels.names.keys():
        return []
    return [str(problem).removeprefix(f"{side}: ") for problem in values.problems()]
