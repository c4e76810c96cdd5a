"""CT by its name, whose values cannot be HU in any case of the data set, or may not be."""

from __future__ import annotations

from collections.abc import Sequence

from vpt.data.doubts.hu_modes import is_negated, looks_like_hu
from vpt.data.doubts.values import DENSE, FAT, SOME, is_ct
from vpt.data.values import LEVELS, CaseValues, values_over
from vpt.words import counted

NARROW = 20.0  # HU on both sides of water, which no scan keeps within; [0, 1] and standard scores do
FEW = 3  # cases; of fewer it is not known
FIRST = LEVELS.index(0.01)
BELOW_AIR = -1500.0  # HU: what is no padding lies above it
RENAME = "save it in HU, or, if it is meant so, give the channel another name than CT in `channel_names`"


def no_hu(channels: Sequence[str], cases: Sequence[CaseValues]) -> str | None:
    """What shows that no case's CT is in HU, in words: all within 20 of 0; None where that is not so."""
    for low, high in _spans(channels, cases):
        if low >= -NARROW and high <= NARROW:
            return (
                f"a CT by its name, but its values lie within {low:.4g} to {high:.4g} in every case, so no HU; {RENAME}"
            )
    return None


def doubtful_hu(channels: Sequence[str], cases: Sequence[CaseValues]) -> str | None:
    """What makes it likely in all cases: no value below 0; or of each no fat and air, but much bone; or air
    far above 0; or values far below air. None where that is not so.
    """
    for low, high in _spans(channels, cases):
        if low >= 0:
            return (
                f"a CT by its name, but no value is below 0 in {counted(len(cases), 'case')} "
                f"({low:.4g} to {high:.4g}), and air has -1000 HU; {RENAME}"
            )
    for k in (k for k, name in enumerate(channels) if is_ct(name) and cases):
        each = [case.channels[k] for case in cases]
        if all(one.quantiles[FIRST] > FAT and one.above(DENSE) > SOME for one in each):
            return (
                f"a CT by its name, but nearly nothing lies below {FAT:g} in {counted(len(cases), 'case')} and much "
                f"above {DENSE:g}, and air has -1000 HU; is its intercept lost? {RENAME[0].upper()}{RENAME[1:]}"
            )
        if all(map(is_negated, each)):
            return (
                f"a CT by its name, but along the edges of {counted(len(cases), 'case')} lies about 1000, and air has "
                f"-1000 HU; are the values negated? {RENAME[0].upper()}{RENAME[1:]}"
            )
        if all(one.quantiles[FIRST] < BELOW_AIR for one in each):
            return (
                f"a CT by its name, but values lie below {BELOW_AIR:g} in {counted(len(cases), 'case')}, and air, than "
                f"which nothing is less dense, has -1000 HU; {RENAME}"
            )
    return None


def unnamed_hu(channels: Sequence[str], cases: Sequence[CaseValues]) -> str | None:
    """That a channel which is not called CT has the values of CT in all cases, in words; None where that is not so."""
    if len(cases) < FEW:
        return None
    known = values_over(cases).channels
    names = [name for name, values in zip(channels, known, strict=True) if not is_ct(name) and looks_like_hu(values)]
    if not names:
        return None
    return (
        f"{names[0]} has air at -1000 in {counted(len(cases), 'case')}, as CT in HU, but is not called so, and is "
        "scaled by each scan's own percentiles; call it CT in `channel_names` to have one window in HU for all"
    )


def _spans(channels: Sequence[str], cases: Sequence[CaseValues]) -> list[tuple[float, float]]:
    """(lowest, highest value of all cases) of the channels that are CT."""
    return [
        (min(case.channels[k].low for case in cases), max(case.channels[k].high for case in cases))
        for k, name in enumerate(channels)
        if is_ct(name) and cases
    ]
