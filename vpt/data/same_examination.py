"""Cases of one DICOM examination, by their frame of reference, on two sides of a split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vpt.data.splits import Splits
from vpt.words import counted, listed


def parted_examinations(frames: Iterable[tuple[str, str]], splits: Sequence[Splits]) -> list[str]:
    """(case, frame of reference or "") -> one sentence at most about those that are on two sides in any split."""
    of: dict[str, list[str]] = {}
    for name, frame in frames:
        if frame:
            of.setdefault(frame, []).append(name)
    parted: dict[str, str] = {}
    for each in splits:
        side = {name: its for its, names in each.to_dict().items() for name in names}
        for frame, names in of.items():
            first = {side[name]: name for name in names if name in side}
            if len(first) > 1:
                parted.setdefault(frame, " and ".join(f"{name} in {its}" for its, name in first.items()))
    if not parted:
        return []
    return [
        f"cases of {counted(len(parted), 'DICOM examination')} (frame of reference) are on two sides "
        f"({listed(parted.values(), 3)}); they are one patient's: say so in `patients`, keep them on one side, or give "
        "every series a folder of its own, if they are slices"
    ]
