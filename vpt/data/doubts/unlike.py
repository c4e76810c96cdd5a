"""Cases whose values do not fit those of the others of their data set, as one CT among many that lost its intercept."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vpt.data.doubts.colours import of_two_orders
from vpt.data.doubts.hu_modes import is_air, is_cut_at_air
from vpt.data.doubts.values import FEWEST, Expected, doubt_of, is_ct, units_of
from vpt.data.values import LOWEST, USUAL, CaseValues, ChannelValues, TrainingValues, values_over
from vpt.readers import Kind
from vpt.words import agreeing, counted, listed

TOLD = 10  # in a line each
WHITE = 255  # of 8 bits
FEW_WITH_AIR = 3  # of so many it is known what a CT of the set is like


def unlike_others(
    cases: Sequence[tuple[str, CaseValues]], channels: Sequence[str], kind: Kind
) -> Iterator[tuple[str, str]]:
    """(file, its values) of all cases -> the files that are doubtful, and why.

    Compared is with what most cases have: a range leaves out a fifth of them at each end, and so the case itself where
    it is the odd one. Of CT it is those that have air where it is in HU, however few: what else there is need not be.
    """
    if len(cases) < FEWEST:
        return
    every = [values for _, values in cases]
    usual = (kind == "volumes" and _with_air(every, channels)) or every
    most = _with_few_zeros(values_over(usual, spared=len(usual) // USUAL), usual)
    named = zip(channels, most.channels, strict=True)
    fixed = [is_ct(name) if kind == "volumes" else 1 < known.high <= 255 for name, known in named]
    expected = Expected(most, units_of(most, channels, kind, fixed))
    found = [(file, doubt_of(values, expected)) for file, values in cases]
    others = "of most other cases" if len(usual) > len(cases) / 2 else "of those with air at -1000"
    doubts = [(file, doubt.sentence(others)) for file, doubt in found if doubt]
    if not doubts and "none" in expected.units:
        yield from _of_two_signs(cases, expected)
    if not doubts and kind == "images":
        yield from _of_two_depths(cases)
        yield from of_two_orders(cases)
    yield from doubts[:TOLD]
    if more := doubts[TOLD:]:
        file, text = more[0]
        yield file, f"{text} (so {len(more)} more: {listed((name for name, _ in more), 3)})"


def _with_few_zeros(most: TrainingValues, cases: Sequence[CaseValues]) -> TrainingValues:
    """The same with the share of 0 that the quarter of the cases with the fewest has: others may be padded with it."""
    shares = zip(*([channel.zeros for channel in case.channels] for case in cases), strict=True)
    few = [sorted(each)[len(cases) // 4] for each in shares]
    channels = (its.model_copy(update={"zeros": zeros}) for its, zeros in zip(most.channels, few, strict=True))
    return most.model_copy(update={"channels": tuple(channels)})


def _with_air(cases: Sequence[CaseValues], channels: Sequence[str]) -> list[CaseValues]:
    """The cases whose CT has its lowest values, without padding, where air is; none where they are too few.

    What CT is called is not asked: nothing else has many of its lowest values there. What is called so may be cut off
    at air, which then looks like padding.
    """
    aired = [
        [
            is_air(float(channel.quantiles[LOWEST])) or (is_ct(name) and is_cut_at_air(channel))
            for name, channel in zip(channels, case.channels, strict=True)
        ]
        for case in cases
    ]
    often = [sum(column) >= FEW_WITH_AIR for column in zip(*aired, strict=True)]
    places = [k for k, name in enumerate(channels) if is_ct(name) or often[k]]
    found = [case for case, air in zip(cases, aired, strict=True) if places and all(air[k] for k in places)]
    return found if len(found) >= FEW_WITH_AIR else []


def _of_two_signs(cases: Sequence[tuple[str, CaseValues]], expected: Expected) -> Iterator[tuple[str, str]]:
    """Scans without a unit of which some have much below 0 and the others nothing, as normalised ones beside raw."""
    for k, unit in enumerate(expected.units):
        below = [file for file, values in cases if unit == "none" and values.channels[k].has_much_below_0]
        above = [file for file, values in cases if unit == "none" and values.channels[k].low >= 0]
        if not (below and above):
            continue
        fewer, more = sorted((below, above), key=len)
        has, others = ("much", "nothing") if fewer is below else ("nothing", "much")
        yield (
            fewer[0],
            (
                f"{has} lies below 0 in {len(fewer)} of {len(cases)} cases ({_names(fewer)}), and {others} in "
                f"{len(more)} ({_names(more)}), as where some were normalised or are CT; give all as the scanner wrote "
                "them, or all scaled alike"
            ),
        )


def _of_two_depths(cases: Sequence[tuple[str, CaseValues]]) -> Iterator[tuple[str, str]]:
    """Pictures of which some need 8 bits and the others more: none has a white that all have."""
    highest = [(file, max(channel.high for channel in values.channels)) for file, values in cases]
    shallow = [file for file, high in highest if 1 < high <= WHITE]
    deep = [file for file, high in highest if high > WHITE]
    if shallow and deep:
        fewer, what = (shallow, "no value above 255") if len(shallow) < len(deep) else (deep, "values above 255")
        rest = "some" if fewer is shallow else "none"
        text = (
            f"{len(fewer)} of {len(cases)} pictures ({_names(fewer)}) {agreeing(len(fewer), 'have')} {what}, the "
            f"others {rest}, so they are of"
        )
        yield (
            fewer[0],
            (f"{text} two depths, and all are scaled by their own percentiles; save all alike, with 8 bits or with 16"),
        )


def _names(files: Sequence[str]) -> str:
    return listed((Path(file).name for file in files), 2)


def same_channels(cases: Sequence[tuple[str, CaseValues]], names: Sequence[str]) -> list[str]:
    """Channels that hold the same values in a scan, as a file that was copied under two names leaves them.

    cases: name and values of scans; names: of their channels. A sentence for each two of them.
    """
    found = []
    pairs = [(case, equal_channels(values)) for case, values in cases]
    for first, second in itertools.combinations(range(len(names)), 2):
        odd = [case for case, equal in pairs if (first, second) in equal]
        if odd:
            some = f"{len(odd)} of {counted(len(cases), 'case')} ({listed(odd, 3)})"
            found.append(
                f"{names[first]} and {names[second]} hold the same values in {some}; is one file there under two "
                "names? Give each channel its own scan"
            )
    return found


def equal_channels(values: CaseValues) -> list[tuple[int, int]]:
    """The places of each two channels of a scan that hold the same values."""
    every = enumerate(values.channels)
    return [(a, b) for (a, one), (b, other) in itertools.combinations(every, 2) if _are_same(one, other)]


def _are_same(one: ChannelValues, other: ChannelValues) -> bool:
    """Equal in all that is kept of them; what is constant is told otherwise."""
    ends = (one.low, one.high, one.zeros, one.distinct) == (other.low, other.high, other.zeros, other.distinct)
    return ends and one.low < one.high and np.array_equal(one.body, other.body)
