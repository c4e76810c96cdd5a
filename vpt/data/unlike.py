"""Cases whose values do not fit those of the others of their data set, as one CT among many that lost its intercept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vpt.data.value_doubts import FEWEST, Expected, doubt_of, is_ct, units_of
from vpt.data.values import LOWEST, USUAL, CaseValues, values_over
from vpt.readers import Kind
from vpt.words import listed

TOLD = 10  # in a line each
AIR = (-1150.0, -850.0)  # HU: where it lies, with noise
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
    usual = (kind == "volumes" and _with_air([values for _, values in cases], channels)) or [
        values for _, values in cases
    ]
    most = values_over(usual, spared=len(usual) // USUAL)
    named = zip(channels, most.channels, strict=True)
    fixed = [is_ct(name) if kind == "volumes" else 1 < known.high <= 255 for name, known in named]
    expected = Expected(most, units_of(most, channels, kind, fixed))
    found = [(file, doubt_of(values, expected)) for file, values in cases]
    others = "of most other cases" if len(usual) > len(cases) / 2 else "of those with air at -1000"
    doubts = [(file, doubt.sentence(others)) for file, doubt in found if doubt]
    yield from doubts[:TOLD]
    if more := doubts[TOLD:]:
        file, text = more[0]
        yield file, f"{text} (so {len(more)} more: {listed((name for name, _ in more), 3)})"


def _with_air(cases: Sequence[CaseValues], channels: Sequence[str]) -> list[CaseValues]:
    """The cases whose CT has its lowest values, without padding, where air is; none where they are too few."""
    places = [k for k, name in enumerate(channels) if is_ct(name)]
    found = [case for case in cases if places and all(_is_air(case.channels[k].quantiles[LOWEST]) for k in places)]
    return found if len(found) >= FEW_WITH_AIR else []


def _is_air(value: float) -> bool:
    return AIR[0] <= value <= AIR[1]
