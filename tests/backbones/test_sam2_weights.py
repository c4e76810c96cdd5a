"""SAM 2 as `transformers` saves it: its own answer from our model, every key told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from encoders import draw
from hieradets import make_timm
from safetensors.torch import load_file, save_file
from sam2s import STAGES, WIDTH, masks_without_prompts, stages_of
from torch import Tensor

import vpt.backbones.sam2_models as models
from vpt.backbones.sam2_models import Sam2, fill_sam2
from vpt.backbones.weights import load_weights, read_state
from vpt.errors import VptError

transformers = pytest.importorskip("transformers")
NAME, SIDE = "sam2.1_hiera_tiny", 64


def empty() -> Sam2:
    """Ours, of the shape of `theirs`, all zero."""
    sam = Sam2(make_timm((SIDE, SIDE), **STAGES, init_values=None), width=WIDTH, mlp=48, heads=2)
    with torch.no_grad():
        for parameter in sam.parameters():
            parameter.zero_()
    return sam.eval().requires_grad_(False)


def theirs(kind: str = "Sam2Model") -> Any:
    """A small model of transformers with values that all matter."""
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=16,
        image_size=[SIDE, SIDE],
        blocks_per_stage=list(STAGES["stages"]),
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=list(STAGES["window_spec"]),
        global_attention_blocks=list(STAGES["global_att_blocks"]),
        window_positional_embedding_background_size=[3, 3],
    )
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[128, 64, 32, 16],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=WIDTH,
    )
    torch.manual_seed(0)
    if kind == "Sam2VisionModel":
        model = transformers.Sam2VisionModel(vision)
    else:
        config = transformers.Sam2VideoConfig if kind == "Sam2VideoModel" else transformers.Sam2Config
        more = {"memory_attention_hidden_size": WIDTH} if kind == "Sam2VideoModel" else {}
        model = getattr(transformers, kind)(
            config(
                vision_config=vision,
                prompt_encoder_config={"hidden_size": WIDTH, "image_size": SIDE, "patch_size": 16},
                mask_decoder_config={
                    "hidden_size": WIDTH,
                    "mlp_dim": 48,
                    "num_attention_heads": 2,
                    "iou_head_hidden_dim": 256,
                    "dynamic_multimask_via_stability": False,
                },
                **more,
            )
        )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
        if kind != "Sam2VisionModel":  # one table in the official files, from which theirs were made
            table = model.shared_image_embedding.positional_embedding
            model.prompt_encoder.shared_embedding.positional_embedding.copy_(table)
    return model.eval()


@pytest.fixture(scope="module")
def original() -> Any:
    return theirs()


@pytest.fixture(scope="module")
def folder(original: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sam2")
    original.save_pretrained(path)
    return path


@pytest.mark.parametrize("given", ["folder", "file", "as in memory"])
@torch.no_grad()
def test_our_model_answers_as_theirs_does(original: Any, folder: Path, given: str, tmp_path: Path) -> None:
    path = folder if given == "folder" else folder / "model.safetensors"
    if given == "as in memory":  # with the table of frequencies under both names
        path = tmp_path / "memory.safetensors"
        save_file({key: value.clone() for key, value in original.state_dict().items()}, path)
    sam, images = empty(), draw(2, (SIDE, SIDE))
    assert fill_sam2(sam, read_state(path), path, NAME)
    finest, fine, coarse = original.vision_encoder(images).fpn_hidden_states
    grids = stages_of(sam, images)
    embedding, finer = sam.pyramid(grids)
    without = embedding - sam.pyramid.no_memory.view(1, -1, 1, 1)
    torch.testing.assert_close(without, coarse, rtol=1e-4, atol=1e-4)
    for own, other in zip(finer, (fine, finest), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)
    decoder = original.mask_decoder
    dense = original.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
    points, labels = torch.tensor([[[[9.0, 21.0], [40.0, 33.0]]]]), torch.tensor([[[1, 0]]])
    asked, _ = original.prompt_encoder(points, labels, None, None)
    masks, _, _, _ = decoder(
        embedding,
        original.get_image_wide_positional_embeddings().expand(2, -1, -1, -1),
        asked.expand(2, -1, -1, -1),
        dense,
        multimask_output=False,
        high_resolution_features=[decoder.conv_s0(finer[1]), decoder.conv_s1(finer[0])],
    )
    found = masks_without_prompts(sam, grids, asked[0, 0])
    torch.testing.assert_close(found, masks[:, 0, 0], rtol=1e-3, atol=1e-3)
    assert found.std() > 0.1


@torch.no_grad()
def test_points_and_masks_are_told_as_theirs_are(original: Any, folder: Path) -> None:
    sam = empty()
    fill_sam2(sam, read_state(folder), folder, NAME)
    points, labels, mask = (
        torch.tensor([[[9.0, 21.0], [40.0, 33.0]]]),
        torch.tensor([[1, 0]]),
        torch.randn(1, 1, 16, 16),
    )
    sam.prompt_encoder.input_image_size = (SIDE, SIDE)
    sparse, dense = sam.prompt_encoder((points, labels), None, mask)
    theirs_sparse, theirs_dense = original.prompt_encoder(points[None], labels[None], None, mask)
    torch.testing.assert_close(sparse, theirs_sparse[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dense, theirs_dense, rtol=1e-4, atol=1e-5)


def test_a_video_model_is_read_without_what_remembers(original: Any, tmp_path: Path) -> None:
    video = theirs("Sam2VideoModel")
    video.save_pretrained(tmp_path)
    keys = set(load_file(tmp_path / "model.safetensors"))
    assert {key.partition(".")[0] for key in keys} > {"memory_attention", "memory_encoder", "object_pointer_proj"}
    sam = empty()
    assert fill_sam2(sam, read_state(tmp_path), tmp_path, NAME)
    own = video.mask_decoder.state_dict()["obj_score_token.weight"]
    assert torch.equal(sam.mask_decoder.obj_score_token.weight, own)


@torch.no_grad()
def test_an_encoder_alone_is_read_into_ours_and_into_timms(original: Any, folder: Path, tmp_path: Path) -> None:
    images = draw(1, (SIDE, SIDE))
    vision = theirs("Sam2VisionModel")
    vision.save_pretrained(tmp_path)
    sam = empty()
    assert not fill_sam2(sam, read_state(tmp_path), tmp_path, NAME)
    torch.testing.assert_close(
        stages_of(sam, images)[-1], vision.backbone(images).last_hidden_state.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-4
    )
    hiera = empty().image_encoder
    load_weights(hiera, folder, "sam2_hiera_tiny")
    expected = original.vision_encoder.backbone(images).last_hidden_state
    torch.testing.assert_close(hiera.forward_features(images), expected, rtol=1e-4, atol=1e-4)


def test_files_that_do_not_fit_are_refused_by_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    state, path = load_file(folder / "model.safetensors"), tmp_path / "odd.safetensors"

    def load(changed: dict[str, Tensor]) -> None:
        save_file(changed, path)
        fill_sam2(empty(), read_state(path), path, NAME)

    with pytest.raises(VptError, match=r"left-over keys: mask_decoder\.colour_token"):
        load(state | {"mask_decoder.colour_token": torch.zeros(1)})
    with pytest.raises(VptError, match=r"missing keys: pyramid\.no_memory"):
        load({key: value for key, value in state.items() if key != "no_memory_embedding"})
    with pytest.raises(VptError, match=r"misshapen keys: prompt_encoder\.point_embeddings\.0\.weight"):
        load(state | {"prompt_encoder.point_embed.weight": torch.zeros(4, WIDTH + 1)})
    frequencies = state["shared_image_embedding.positional_embedding"]
    with pytest.raises(VptError, match=r"left-over keys: shared_image_embedding\.positional_embedding"):
        load(state | {"prompt_encoder.shared_embedding.positional_embedding": frequencies + 1})


def test_a_folder_is_given_as_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "build_sam2", lambda architecture: empty())
    backbone = models.load_sam2(NAME, folder, (SIDE, SIDE))
    assert backbone.decoder is not None
    assert backbone.decoder.trained
