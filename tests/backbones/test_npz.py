"""The first ViTs' own files are read as timm reads them, with every key told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer, _load_weights

from vpt.backbones.weights import load_weights
from vpt.errors import VptError

WIDTH, HEADS, DEPTH = 32, 2, 2
FIRST = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1"


def vit() -> VisionTransformer:
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=0)


def arrays(second: str = "LayerNorm_2", attention: str = "MultiHeadDotProductAttention_1", mlp: str = "MlpBlock_3"):
    """What such a file holds."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape, scale=0.3).astype(np.float32)

    found = {"cls": draw(1, 1, WIDTH), "Transformer/posembed_input/pos_embedding": draw(1, 17, WIDTH)}
    found |= {"embedding/kernel": draw(8, 8, 3, WIDTH), "embedding/bias": draw(WIDTH)}
    found |= {"Transformer/encoder_norm/scale": draw(WIDTH), "Transformer/encoder_norm/bias": draw(WIDTH)}
    found |= {"head/kernel": draw(WIDTH, 5), "head/bias": draw(5)}
    for i in range(DEPTH):
        block, depth = f"Transformer/encoderblock_{i}", WIDTH // HEADS
        for norm in ("LayerNorm_0", second):
            found |= {f"{block}/{norm}/scale": draw(WIDTH), f"{block}/{norm}/bias": draw(WIDTH)}
        for part in ("query", "key", "value"):
            found[f"{block}/{attention}/{part}/kernel"] = draw(WIDTH, HEADS, depth)
            found[f"{block}/{attention}/{part}/bias"] = draw(HEADS, depth)
        found |= {
            f"{block}/{attention}/out/kernel": draw(HEADS, depth, WIDTH),
            f"{block}/{attention}/out/bias": draw(WIDTH),
        }
        found |= {
            f"{block}/{mlp}/Dense_0/kernel": draw(WIDTH, 4 * WIDTH),
            f"{block}/{mlp}/Dense_0/bias": draw(4 * WIDTH),
        }
        found |= {f"{block}/{mlp}/Dense_1/kernel": draw(4 * WIDTH, WIDTH), f"{block}/{mlp}/Dense_1/bias": draw(WIDTH)}
    return found


@pytest.mark.parametrize(
    "names",
    [(), ("LayerNorm_1", "MultiHeadDotProductAttention_0", "MlpBlock_0")],
    ids=["first", "later"],
)
@torch.no_grad()
def test_every_tensor_is_where_timm_puts_it(names: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "ViT.npz"
    np.savez(file, **arrays(*names))
    found, expected = vit(), vit()
    load_weights(found, file, "vit")
    if names:
        np.savez(file, **arrays())
    _load_weights(expected, str(file))
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


def test_a_key_that_no_vit_has_and_one_that_is_missing_are_named(tmp_path: Path) -> None:
    file = tmp_path / "ViT.npz"
    held = arrays()
    del held["Transformer/encoderblock_1/MlpBlock_3/Dense_0/bias"]
    np.savez(file, **held, **{"conv_root/kernel": np.zeros((7, 7, 3, 64), np.float32)})
    with pytest.raises(VptError, match=r"missing keys: blocks\.1\.mlp\.fc1\.bias; left-over keys: conv_root/weight"):
        load_weights(vit(), file, "vit")


def test_nothing_pickled_is_read(tmp_path: Path) -> None:
    file = tmp_path / "ViT.npz"
    np.savez(file, **{"embedding/kernel": np.array([{"a": print}], dtype=object)})
    with pytest.raises(VptError, match="cannot be read as weights"):
        load_weights(vit(), file, "vit")


@torch.no_grad()
def test_positions_of_another_grid_are_resized_as_timm_does(tmp_path: Path) -> None:
    file = tmp_path / "ViT.npz"
    np.savez(file, **arrays())
    theirs, ours = (
        VisionTransformer(img_size=56, patch_size=8, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=0)
        for _ in range(2)
    )
    _load_weights(theirs, str(file))
    load_weights(ours, file, "tiny")
    assert torch.equal(ours.pos_embed, theirs.pos_embed)


def test_other_heads_are_refused_though_every_shape_fits(tmp_path: Path) -> None:
    file = tmp_path / "ViT.npz"
    np.savez(file, **arrays())
    other = VisionTransformer(img_size=32, patch_size=8, embed_dim=WIDTH, depth=DEPTH, num_heads=4, num_classes=0)
    with pytest.raises(VptError, match=r"ViT\.npz: trained with 2 heads, and the encoder has 4; choose the backbone"):
        load_weights(other, file, "tiny")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({f"{FIRST}/query/bias": None}, r"missing keys: blocks\.0\.attn\.qkv\.bias"),
        ({f"{FIRST}/key/bias": None}, r"missing keys: blocks\.0\.attn\.qkv\.bias"),
        ({"embedding/kernel": (8, 8, WIDTH)}, r"misshapen keys: patch_embed\.proj\.weight"),
        ({f"{FIRST}/query/kernel": (16, HEADS, 8)}, r"left-over keys: .*blocks\.0\.attn\.q\.weight"),
        ({"Transformer/posembed_input/pos_embedding": (1, 15, WIDTH)}, r"pos_embed is \(1, 15, 32\), expected \(1, 17"),
    ],
    ids=["query", "key", "patches", "narrow", "positions"],
)
def test_what_is_missing_or_has_other_axes_is_named(
    changes: dict[str, tuple[int, ...] | None], said: str, tmp_path: Path
) -> None:
    changed = {key: None if shape is None else np.ones(shape, np.float32) for key, shape in changes.items()}
    np.savez(tmp_path / "ViT.npz", **{key: value for key, value in (arrays() | changed).items() if value is not None})
    with pytest.raises(VptError, match=rf"ViT\.npz: does not fit tiny: .*{said}"):
        load_weights(vit(), tmp_path / "ViT.npz", "tiny")


def test_a_folder_with_one_such_file_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "ViT.npz", **arrays())
    load_weights(vit(), tmp_path, "tiny")
