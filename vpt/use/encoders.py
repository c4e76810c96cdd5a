"""Which encoders there are, in words: `vpt backbones`, docs/backbones.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from vpt.backbones.base import BackboneSpec
from vpt.backbones.catalogue import Entry
from vpt.readers.grid import by
from vpt.report.pages import render

USUAL = "as its model card says"  # of licences: nothing that restricts is known


@dataclass(frozen=True)
class Row:
    """An encoder in words: image and patch in pixels, blocks and their widths, tokens before the patches, licence."""

    name: str
    kind: str
    image: str
    patch: str
    blocks: str
    prefix: int
    licence: str


def row_of(entry: Entry) -> Row:
    """The row of an encoder that loads."""
    spec = entry.spec
    assert spec is not None
    licence = "" if entry.licence == USUAL else entry.licence
    return Row(entry.name, entry.kind, by(spec.image_size), by(spec.patch), _blocks(spec), spec.prefix, licence)


def facts_of(entry: Entry) -> dict[str, Any]:
    """All facts of an encoder, for programs; `refused` says why it does not load."""
    facts: dict[str, Any] = {"name": entry.name, "kind": entry.kind}
    if entry.spec is None:
        return facts | {"refused": entry.refused}
    spec = entry.spec
    blocks = [{"width": block.width, "heads": block.heads, "grid": block.grid} for block in spec.blocks]
    size = {"image_size": spec.image_size, "patch": spec.patch, "prefix": spec.prefix, "blocks": blocks}
    return facts | size | {"licence": entry.licence}


def encoders_page(entries: Sequence[Entry]) -> str:
    """docs/backbones.md: a table for each kind, and the refused with their reasons."""
    kinds: dict[str, list[Entry]] = {}
    for each in entries:
        kinds.setdefault(each.kind, []).append(each)
    counts = [(kind, sum(not each.refused for each in group), len(group)) for kind, group in kinds.items()]
    tables = [(kind, [row_of(each) for each in group if not each.refused]) for kind, group in kinds.items()]
    refused: dict[str, list[str]] = {}
    for each in entries:
        if each.refused:
            refused.setdefault(each.refused.partition(";")[0], []).append(each.name)
    loaded = sum(not each.refused for each in entries)
    return render(
        "backbones.md", counts=counts, tables=[each for each in tables if each[1]], refused=refused, loaded=loaded
    )


def _blocks(spec: BackboneSpec) -> str:
    """`12 of 384`, or for stages `2 of 96, 2 of 192, 6 of 384`."""
    return ", ".join(f"{len(list(group))} of {width}" for width, group in groupby(block.width for block in spec.blocks))
