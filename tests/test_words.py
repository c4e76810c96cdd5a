"""Words of messages: nouns with their numbers and articles, and that messages leave both to one place."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from vpt.words import agreeing, counted, with_article

ROOT = Path(__file__).parents[1]


def test_nouns_follow_their_numbers_and_have_their_article() -> None:
    assert [counted(number, "class") for number in (0, 1, 2)] == ["0 classes", "1 class", "2 classes"]
    assert [counted(number, "channel") for number in (1, 1200)] == ["1 channel", "1,200 channels"]
    assert [agreeing(number, "have") for number in (1, 2)] == ["has", "have"]
    assert [with_article(word) for word in ("int", "dict", "ArrayLike")] == ["an int", "a dict", "an ArrayLike"]


@pytest.mark.parametrize("noun", ["channel", "class", "list", "prompt", "patient", "validation case"])
def test_counts_of_what_may_be_one_go_through_counted(noun: str) -> None:
    """`{len(...)} channels` says "1 channels"."""
    found = [text for text in _messages() if re.search(rf"\{{len\([^{{}}]*\)\}} {noun}(s|es)\b", text)]
    assert found == []
    assert [text for text in _messages() if re.search(r"[a-z]\(s\)", text)] == []


def test_articles_before_what_is_only_known_later_are_chosen_by_it() -> None:
    found = [text for text in _messages() if re.search(r"\b[Aa]n? \{[^{}]*(__name__|column)[^{}]*\}", text)]
    assert found == []


@cache
def _messages() -> list[str]:
    """The sentences of the package that hold values."""
    return [text for path in sorted((ROOT / "vpt").rglob("*.py")) for text in _in_file(path)]


def _in_file(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                part.value if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"  # type: ignore[misc, attr-defined]
                for part in node.values
            )
