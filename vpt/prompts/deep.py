"""VPT-deep (Jia et al., ECCV 2022, section 3.2): fresh prompts for every block."""

from __future__ import annotations

from torch import Tensor

from vpt.backbones.base import BackboneSpec, Tokens
from vpt.prompts.base import Blocks, Prompts, PromptTable, choose_blocks


class DeepPrompts(Prompts):
    """`count` learned tokens for each chosen block, attended to as keys and values. Parameters: blocks * count * C.

    Where they are `shared`, all chosen blocks have the same tokens. Parameters: count * C.

    The published form concatenates them to the sequence and throws their outputs away after the block; the patches and
    the CLS token come out the same. A block that is not chosen runs without prompts.

    Args:
        spec: of the encoder; count: prompts per block; project, dropout: see `PromptTable`;
        blocks: "all", "global" (those that attend to the whole image), "last:K" or block numbers;
        shared: one set of prompts for all of them.
    """

    fixed = True

    def __init__(
        self,
        spec: BackboneSpec,
        *,
        count: int = 10,
        blocks: Blocks = "all",
        shared: bool = False,
        project: int | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        chosen = choose_blocks(blocks, spec.depth, spec.windowed)
        self.rows = {block: 0 if shared else row for row, block in enumerate(chosen)}
        self.table = PromptTable(spec, rows=1 if shared else len(chosen), count=count, project=project, dropout=dropout)
        self.count = count
        self.starts = chosen if project is None and not shared else ()

    def first(self, depth: int) -> int:
        return min(self.rows)

    def enter(self, i: int, tokens: Tokens) -> tuple[Tokens, Tensor | None]:
        if i not in self.rows:
            return tokens, None
        return tokens, self.table.row(self.rows[i], len(tokens.grid))

    def start_from(self, tokens: Tensor) -> None:
        """Set the prompts to tokens (blocks, count, C), or (1, count, C) where they are shared."""
        self.table.start_from(tokens)
