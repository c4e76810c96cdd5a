"""SAM 2 with its decoder: official files, its own answer from our head, prompts below it, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from encoders import draw
from hieradets import literal
from safetensors.torch import save_file
from sam2s import SIZE, WIDTH, Sam2, make_sam2, masks_without_prompts, official, stages_of, wrap_sam2
from staged import deep, rows_of
from torch import Tensor

import vpt.backbones.sam2_models as models
from vpt.backbones import describe_backbone
from vpt.backbones.sam2_models import SAM2_CHECKPOINTS, build_sam2, fill_sam2
from vpt.errors import VptError
from vpt.heads import MaskHead, SamDecoderHead
from vpt.model import PromptedModel, encode, frozen_below
from vpt.prompts import Prompts

NAME = "sam2.1_hiera_tiny"


@pytest.fixture(scope="module")
def sam() -> Sam2:
    return make_sam2()


def head_of(sam: Sam2, queries: int = 0, classes: int = 2, **options: Any) -> SamDecoderHead:
    torch.manual_seed(2)
    return SamDecoderHead(wrap_sam2(sam), classes=classes, queries=queries, refine=False, **options)


def answer_of_sam2(sam: Sam2, images: Tensor, asked: Tensor) -> Tensor:
    logits = masks_without_prompts(sam, stages_of(sam, images), asked)[:, None]
    return F.interpolate(logits, size=SIZE, mode="bilinear", align_corners=False)[:, 0]


# --- the answer -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_with_its_own_four_tokens_the_head_says_what_sam_2_says(sam: Sam2) -> None:
    """Classes that start as SAM 2's mask tokens: those of the first are SAM 2's logits, the background's are zero."""
    head, images = head_of(sam, classes=4), draw(2, SIZE)
    head.class_tokens.copy_(sam.mask_decoder.mask_tokens.weight)
    head.kernels[0].load_state_dict(sam.mask_decoder.output_hypernetworks_mlps[0].state_dict())
    found = PromptedModel(wrap_sam2(sam), Prompts(), head).eval()(images)
    wanted = answer_of_sam2(sam, images, torch.empty(0, WIDTH))
    torch.testing.assert_close(found[:, 0], wanted, rtol=1e-4, atol=1e-5)
    assert wanted.std() > 0.1


@torch.no_grad()
def test_it_starts_from_the_box_around_the_whole_image(sam: Sam2) -> None:
    """The queries that it starts with are the tokens of that box, as SAM 2's prompt encoder makes them."""
    queries = head_of(sam, queries=2).queries
    corners = torch.tensor([[[0.0, 0.0], [float(SIZE[1]), float(SIZE[0])]]])
    first, last = sam.prompt_encoder.point_embeddings[2].weight[0], sam.prompt_encoder.point_embeddings[3].weight[0]
    places = sam.prompt_encoder.pe_layer.forward_with_coords(corners, SIZE)[0]
    assert queries is not None
    torch.testing.assert_close(queries.data, places + torch.stack([first, last]))


@torch.no_grad()
def test_prompts_below_the_decoder_reach_every_level(sam: Sam2) -> None:
    backbone, images = wrap_sam2(sam), draw(2, SIZE)
    head, prompts = head_of(sam), deep(backbone)
    features = encode(backbone, prompts, images, levels=head.levels)
    assert [tuple(level.shape[1:]) for level in features.levels] == [(16, 16, 8), (32, 8, 4), (64, 4, 2), (128, 2, 1)]
    wanted = literal(sam.image_encoder, images, rows_of(prompts))
    torch.testing.assert_close(features.levels[-1], wanted, rtol=1e-4, atol=1e-4)
    plain = stages_of(sam, images)
    assert all((level - own).abs().max() > 1e-2 for level, own in zip(features.levels, plain, strict=True))


def test_gradients_reach_every_prompt_and_what_trains_of_the_head(sam: Sam2) -> None:
    for tune, frozen in (("tokens", ("pyramid", "upscale", "details")), ("upscaling", ("pyramid",)), ("decoder", ())):
        backbone, head = wrap_sam2(sam), head_of(sam, queries=2, tune=tune)
        model = PromptedModel(backbone, deep(backbone), head)
        model(draw(2, SIZE))[:, 1].square().sum().backward()
        assert not [name for name, p in head.named_parameters() if p.requires_grad and name.startswith(frozen)]
        for name, parameter in model.trained().items():
            spared = name.startswith(("head.kernels.0", "head.quality", "head.presence", "head.positions"))
            assert spared or (parameter.grad is not None and bool(parameter.grad.abs().max() > 0)), name


@torch.no_grad()
def test_stored_levels_give_the_same_answer(sam: Sam2) -> None:
    backbone, images = wrap_sam2(sam), draw(2, SIZE)
    head = head_of(sam)
    model = PromptedModel(backbone, deep(backbone, blocks="last:2"), head).eval()
    below = frozen_below(model.first_trained_block(), backbone, images, head.levels)
    assert len(below.levels) == 3
    assert torch.equal(head(model.encode(None, below=below).features, images), model(images))


def test_a_head_of_our_own_stands_on_it_as_well(sam: Sam2) -> None:
    backbone = wrap_sam2(sam)
    assert PromptedModel(backbone, Prompts(), MaskHead(backbone.spec, classes=3))(draw(1, SIZE)).shape == (1, 3, *SIZE)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names stand for small models, of images of 64x32 pixels."""
    monkeypatch.setattr(models, "build_sam2", lambda architecture: make_sam2_at_the_start())


def make_sam2_at_the_start() -> Sam2:
    sam = make_sam2()
    with torch.no_grad():
        for parameter in sam.parameters():
            parameter.zero_()
    return sam


@pytest.mark.parametrize("name", ["sam2.1_hiera_tiny", "sam2.0_hiera_large"])
@torch.no_grad()
def test_an_official_file_is_read_whole(sam: Sam2, tmp_path: Path, small: None, name: str) -> None:
    torch.save({"model": official(sam)}, tmp_path / "official.pt")
    backbone = models.load_sam2(name, tmp_path / "official.pt", SIZE)
    images, wanted = draw(1, SIZE), wrap_sam2(sam)
    assert backbone.decoder is not None
    assert backbone.decoder.trained
    found, own = (SamDecoderHead(each, classes=2, queries=2, refine=False) for each in (backbone, wanted))
    assert all(torch.equal(found.state_dict()[key], value) for key, value in own.state_dict().items())
    assert torch.equal(encode(backbone, Prompts(), images).grid, encode(wanted, Prompts(), images).grid)
    assert backbone.spec.mean == (0.485, 0.456, 0.406)


def test_the_encoder_alone_has_no_decoder(sam: Sam2, tmp_path: Path, small: None) -> None:
    trunk = {key: value for key, value in official(sam).items() if key.startswith("image_encoder.trunk.")}
    save_file(trunk, tmp_path / "trunk.safetensors")
    backbone = models.load_sam2(NAME, tmp_path / "trunk.safetensors", SIZE)
    with pytest.raises(VptError, match=rf"the weights of {NAME} hold an encoder only, no mask decoder"):
        SamDecoderHead(backbone, classes=2)


def test_files_that_do_not_fit_are_refused_by_what_is_wrong(sam: Sam2, tmp_path: Path, small: None) -> None:
    state, path = official(sam), tmp_path / "odd.safetensors"

    def load(changed: dict[str, Tensor]) -> None:
        save_file({key: value.clone() for key, value in changed.items()}, path)
        models.load_sam2(NAME, path, SIZE)

    with pytest.raises(VptError, match=r"left-over keys: another\.part"):
        load(state | {"another.part": torch.zeros(1)})
    with pytest.raises(VptError, match=r"missing keys: pyramid\.no_memory"):
        load({key: value for key, value in state.items() if key != "no_mem_embed"})
    with pytest.raises(VptError, match=r"misshapen keys: mask_decoder\.conv_s0\.weight"):
        load(state | {"sam_mask_decoder.conv_s0.weight": torch.zeros(8, WIDTH, 1, 1)})
    with pytest.raises(VptError, match=r"no checkpoint of sam2\.1_hiera_tiny: found .* as in sam2\.1_hiera_tiny\.pt"):
        load({"encoder.weight": torch.zeros(1)})


# --- names ------------------------------------------------------------------------------------------------------------


def test_every_name_is_described_at_1024_pixels_without_weights() -> None:
    for name in SAM2_CHECKPOINTS:
        spec = describe_backbone(name)
        assert (spec.image_size, spec.patch, spec.finished.grid) == ((1024, 1024), (32, 32), (32, 32))
    assert describe_backbone("sam2.1_hiera_large").finished.width == 1152


@pytest.mark.slow
def test_a_whole_tiny_one_of_random_weights_is_loaded_and_refuses_a_head_that_would_keep_them() -> None:
    sam = build_sam2("sam2_hiera_tiny")
    assert fill_sam2(build_sam2("sam2_hiera_tiny"), official(sam), Path("whole.pt"), NAME)
    backbone = models.load_sam2(NAME, "random", (256, 256))
    assert backbone.decoder is not None
    assert backbone.decoder.prompt_encoder.image_embedding_size == (16, 16)
    with pytest.raises(VptError, match=r"tune: tokens leaves the decoder as it is, but that of .* is random"):
        SamDecoderHead(backbone, classes=2, tune="tokens")
    with pytest.raises(
        VptError, match=r"image size 250x250 is not a multiple of the patch of sam2.1_hiera_tiny, 32x32"
    ):
        models.load_sam2(NAME, "random", (250, 250))


def test_fetching_asks_the_authors_server_for_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "server" / "092824").mkdir(parents=True)
    (tmp_path / "server" / "092824" / "sam2.1_hiera_tiny.pt").write_bytes(b"weights")
    monkeypatch.setattr(models, "URL", f"{(tmp_path / 'server').as_uri()}/")
    fetched = models.fetch_sam2(NAME, tmp_path / "to", lambda done, total, name: None)
    assert fetched == tmp_path / "to" / "sam2.1_hiera_tiny.pt"
    assert fetched.read_bytes() == b"weights"
