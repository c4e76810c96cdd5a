"""Keys under other names: none is lost in silence where two of them would have the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from vpt.backbones.families import load_backbone
from vpt.backbones.renames import under_names
from vpt.errors import VptError

ONE, OTHER = torch.zeros(2), torch.ones(2)


def test_tensors_alike_are_one_and_others_are_refused() -> None:
    assert torch.equal(under_names([("a.x", ONE), ("x", ONE.clone())], lambda key: key[-1], "file")["x"], ONE)
    with pytest.raises(VptError, match="file: holds two different tensors for x; give a checkpoint with one of them"):
        under_names([("a.x", ONE), ("x", OTHER)], lambda key: key[-1], "file")


@pytest.mark.parametrize(
    ("name", "state", "said"),
    [
        ("sam_vit_b", {"model.no_weight": ONE, "sam.no_weight": OTHER}, "no_weight"),
        ("lite_medsam", {"model.neck.0.weight": ONE, "image_encoder.neck.0.weight": OTHER}, r"image_encoder\.neck\.0"),
        (
            "vit_tiny_patch16_224",
            {
                "vit.embeddings.patch_embeddings.projection.bias": ONE,
                "embeddings.patch_embeddings.projection.bias": OTHER,
            },
            r"embeddings\.patch_embeddings\.projection\.bias",
        ),
        ("vit_tiny_patch16_224", {"embedding/kernel": ONE, "cls": ONE, "params/cls": OTHER}, "cls_token"),
    ],
    ids=["sam", "tiny", "transformers", "npz"],
)
def test_a_checkpoint_within_another_is_refused(name: str, state: dict[str, Tensor], said: str, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "file.pth")
    with pytest.raises(VptError, match=rf"file\.pth: holds two different tensors for {said}"):
        load_backbone(name, weights=tmp_path / "file.pth")
