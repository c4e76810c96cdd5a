"""Words of messages: names that may have been meant, lists that are not too long, numbers with their nouns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The names that may have been meant, as the end of a sentence."""
    close = get_close_matches(name, list(names), n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def listed(names: Iterable[object], most: int = 5) -> str:
    """The first of the names, and how many more there are: "a, b, c and 12 more"."""
    shown = list(map(str, names))
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


def some_of(names: Iterable[str], most: int = 6) -> str:
    """`listed` in alphabetical order."""
    return listed(sorted(names), most)


def either(names: Sequence[str]) -> str:
    """ "a, b or c"."""
    return " or ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def counted(number: int, noun: str) -> str:
    """ "1 case", "2 cases", "2 classes"."""
    return f"{number:,} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"


def agreeing(number: int, verb: str) -> str:
    """The verb for so many: "have" or "has", "are" or "is", "were" or "was"."""
    return {"have": "has", "are": "is", "were": "was"}[verb] if number == 1 else verb


def with_article(noun: str) -> str:
    """ "a list", "an int"; by its first letter."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
