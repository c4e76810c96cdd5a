"""YAML from strangers: plain values only, no larger when its aliases are written out, no key twice."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import yaml

NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
LONGEST = 2**18  # characters
MOST_NODES = 20_000  # values, with every alias written out
DEEPEST = 32  # levels
IN_EIGHTS = re.compile(r"[-+]?0_*[0-7][0-7_]*")  # 010 is 8 to YAML 1.1
IN_SIXTIES = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")  # 1:30 is 90
# What the loader raises for scalars that are no numbers, dates or keys, besides its own errors.
UNREADABLE = (
    yaml.YAMLError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    RecursionError,
)


class Unusable(Exception):
    """A text that is no usable YAML, in words without a name.

    where: the line and column; mend: what to do; "" where none is known.
    """

    def __init__(self, reason: str, where: str = "", mend: str = ""):
        super().__init__(reason)
        self.reason = reason
        self.where = where
        self.mend = mend


def parse_yaml(text: str) -> Any:
    """The plain values of a text.

    Raises:
        Unusable: no YAML; too long, too deep, or too large with its aliases written out; a key twice in one section; a
            number that counts otherwise than it looks.
    """
    if len(text) > LONGEST:
        raise Unusable(f"{len(text)} characters, expected {LONGEST} at most")
    try:
        loader = _Shallow(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {})
        return loader.construct_document(node)
    except UNREADABLE as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise Unusable("not readable as YAML", where) from error


class _Shallow(yaml.SafeLoader):
    """Stops where it gets deep: to read a thousand brackets on end takes seconds."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unusable(f"more than {DEEPEST} levels deep")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(node, yaml.ScalarNode):
            self._require_plain(node)
        return node

    def _require_plain(self, node: yaml.ScalarNode) -> None:
        """Raises Unusable for whole numbers that YAML counts in eights and any that it counts in sixties."""
        if node.tag not in NUMBERS:
            return
        base = 8 if IN_EIGHTS.fullmatch(node.value) else 60 if IN_SIXTIES.fullmatch(node.value) else 10
        if base == 10:
            return
        value = self.construct_object(node)
        meant = {value, int(node.value.replace("_", ""))} if base == 8 else {value}
        mend = f"write {' or '.join(map(str, sorted(meant, key=abs)))}, or put it in quotes if it is a name"
        reason = f"{node.value} without quotes, which YAML reads as the number {value} (base {base})"
        raise Unusable(reason, _place(node), mend)


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node is with its aliases written out; every node is looked at once."""
    if id(node) in known:
        if not known[id(node)]:
            raise Unusable("holds itself by an alias", _place(node))
        return known[id(node)]
    known[id(node)] = 0
    size = 1 + sum(_size(child, known) for child in _children(node))
    if size > MOST_NODES:
        raise Unusable(f"more than {MOST_NODES} values with its aliases written out", _place(node))
    known[id(node)] = size
    return size


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if not isinstance(node, yaml.MappingNode):
        return []
    names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<")
    if twice := [name for name, count in names.items() if count > 1]:
        raise Unusable(f"the key {twice[0]!r} is there twice in one section", _place(node))
    return [child for pair in node.value for child in pair]


def _place(node: yaml.Node) -> str:
    return f" (line {node.start_mark.line + 1}, column {node.start_mark.column + 1})"
