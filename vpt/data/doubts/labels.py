"""What numbers in masks may stand for besides labels: void, instances, one label written in two ways.

Only of numbers that nothing names; what is named under `labels` is believed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from vpt.data.doubts.mask_values import MOST_LABELS
from vpt.data.label_values import IGNORE
from vpt.words import counted, listed

VOIDS = (255, 65535)  # that void has beside small ids, in Pascal VOC, Cityscapes and ADE20K
NUMBERED, WAYS, CASES = 6, 3, 5  # objects of a case; numbers of objects, and cases, of fewer nothing is told


def unnamed_label(id: int) -> str:
    """What a label is called that has no name."""
    return f"label {id}"


def without_name(labels: Mapping[int, str]) -> set[int]:
    """The ids above 0 that nothing names; labels: id -> name."""
    return {id for id, name in labels.items() if id and name == unnamed_label(id)}


def doubtful_numbers(labels: Mapping[int, str], held: Sequence[Collection[int]]) -> list[str]:
    """Sentences about the ids above 0 that cases hold, each case's; labels: id -> name."""
    unnamed = without_name(labels)
    masks = [{*ids} for ids in held if ids]
    if not masks or {*labels} - {0} != unnamed:
        return []
    return [text for text in (_void(unnamed, masks), _one_each(unnamed, masks), _instances(masks)) if text]


def numbered_files(labels: Mapping[int, str], files: bool) -> list[str]:
    """That a case's masks are told apart by numbers alone; files: whether each label is called as its files are."""
    names = [name for id, name in sorted(labels.items()) if id]
    if not files or len(names) < 2 or not all(name.isdecimal() for name in names):
        return []
    return [
        f"a case's masks are told apart by a number alone ({listed(names, 5)}), each of which is a label then; if they "
        f"are of objects of one kind (lesions), join them: --labels '{{object: {[id for id in sorted(labels) if id]}}}'"
    ]


def _void(ids: set[int], masks: Sequence[set[int]]) -> str:
    void = next((id for id in VOIDS if id in ids), None)
    small = ids - {void}
    if void is None or max(small, default=MOST_LABELS + 1) > MOST_LABELS:
        return ""
    if not any(void in mask and mask & small for mask in masks):
        return ""
    return (
        f"{void} lies beside {listed(sorted(small), 5)} in the same masks, as what shall not count does in many sets "
        f'(void, a border); if it is that, call it `{IGNORE}` under `labels` in dataset.json: "{IGNORE}": {void}'
    )


def _one_each(ids: set[int], masks: Sequence[set[int]]) -> str:
    if len(ids) < 2 or max(ids) <= MOST_LABELS or any(len(mask) > 1 for mask in masks):
        return ""
    counts = Counter(id for mask in masks for id in mask)
    said = listed((f"{id} in {counts[id]}" for id in sorted(counts)), 5)
    return (
        f"every mask holds one label alone, {said}; if that is one label written in several ways, write all alike; if "
        "these are labels of their own, name them under `labels` in dataset.json"
    )


def _instances(masks: Sequence[set[int]]) -> str:
    numbers = {len(mask) for mask in masks}
    if len(masks) < CASES or len(numbers) < WAYS or max(numbers) < NUMBERED:
        return ""
    if any(mask != {*range(1, len(mask) + 1)} for mask in masks):
        return ""
    return (
        f"every mask counts from 1 on, up to {min(numbers)} in some and up to {max(numbers)} in others "
        f"({counted(len(masks), 'mask')}), as numbered objects (instances) do; if that is so, join them: "
        f"--labels '{{object: {sorted(set().union(*masks))}}}'"
    )
