"""Cases whose values do not fit those of the others of their data set, as one CT among many that lost its intercept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vpt.data.value_doubts import FEWEST, Expected, doubt_of, is_ct, units_of
from vpt.data.values import USUAL, CaseValues, values_over
from vpt.readers import Kind
from vpt.words import listed

TOLD = 10  # in a line each


def unlike_others(
    cases: Sequence[tuple[str, CaseValues]], channels: Sequence[str], kind: Kind
) -> Iterator[tuple[str, str]]:
    """(file, its values) of all cases -> the files that are doubtful, and why.

    Compared is with what most cases have: a range leaves out a fifth of them at each end, and so the case itself where
    it is the odd one.
    """
    if len(cases) < FEWEST:
        return
    most = values_over([values for _, values in cases], spared=len(cases) // USUAL)
    named = zip(channels, most.channels, strict=True)
    fixed = [is_ct(name) if kind == "volumes" else known.high <= 255 for name, known in named]
    expected = Expected(most, units_of(most, channels, kind, fixed))
    found = [(file, doubt_of(values, expected)) for file, values in cases]
    doubts = [(file, doubt.sentence("of most other cases")) for file, doubt in found if doubt]
    yield from doubts[:TOLD]
    if more := doubts[TOLD:]:
        file, text = more[0]
        yield file, f"{text} (so {len(more)} more: {listed((name for name, _ in more), 3)})"
