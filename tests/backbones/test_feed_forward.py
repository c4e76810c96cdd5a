"""Two layers and the GELU between them: what the encoder's own module gives, as one product less where that serves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from segment_anything.modeling.common import MLPBlock
from timm.layers import GELU, Mlp
from torch import Tensor, nn

from vpt.backbones import eva
from vpt.backbones.feed_forward import feed_forward
from vpt.machine import gelu
from vpt.machine.precision import autocast, prepare_frozen

CPU = torch.device("cpu")
ABLE = gelu._has_operators() and gelu._has_bfloat16()
PLAIN: dict[str, Callable[[], nn.Module]] = {
    "timm": partial(Mlp, 12, 48),
    "timm's own GELU": partial(Mlp, 12, 48, act_layer=GELU),
    "segment-anything": partial(MLPBlock, 12, 48),
}
OTHER: dict[str, Callable[[], nn.Module]] = {
    "tanh": partial(Mlp, 12, 48, act_layer=partial(nn.GELU, approximate="tanh")),
    "ReLU": partial(Mlp, 12, 48, act_layer=nn.ReLU),
    "a norm between": partial(Mlp, 12, 48, norm_layer=nn.LayerNorm),
    "a tuned layer": lambda: _tuned(Mlp(12, 48)),
}


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def _tuned(mlp: Mlp) -> Mlp:
    mlp.fc1 = Doubled(12, 48)
    return mlp


def frozen(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build().eval().requires_grad_(False)


def tokens() -> Tensor:
    return torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [*PLAIN, *OTHER])
def test_without_preparation_it_is_the_encoders_own_to_the_last_digit(kind: str) -> None:
    mlp = frozen((PLAIN | OTHER)[kind])
    assert torch.equal(feed_forward(mlp, tokens()), mlp(tokens()))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("kind", [*PLAIN, *OTHER])
def test_prepared_it_is_that_up_to_rounding(kind: str, precision: str) -> None:
    mlp = frozen((PLAIN | OTHER)[kind])
    wanted = mlp.double()(tokens().double())
    mlp.float()
    prepare_frozen(mlp, precision)
    with torch.inference_mode(), autocast(precision, CPU):
        found = feed_forward(mlp, tokens())
    assert (found - wanted).abs().max() <= (2e-2 if precision == "bf16-mixed" else 1e-5) * wanted.abs().max()


@pytest.mark.skipif(not ABLE, reason="this processor or torch has no such operator")
@pytest.mark.parametrize("kind", PLAIN)
def test_the_gelu_is_part_of_the_product(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mlp = frozen(PLAIN[kind])
    prepare_frozen(mlp, "bf16-mixed")
    called = []
    monkeypatch.setattr(mlp.act, "forward", lambda x: called.append("act") or x)
    with torch.inference_mode(), autocast("bf16-mixed", CPU):
        feed_forward(mlp, tokens())
    assert called == []


def test_who_listens_hears() -> None:
    mlp, heard = frozen(PLAIN["timm"]), []
    mlp.act.register_forward_hook(lambda *given: heard.append(given[-1].shape))
    prepare_frozen(mlp, "bf16-mixed")
    with torch.inference_mode(), autocast("bf16-mixed", CPU):
        feed_forward(mlp, tokens())
    assert heard == [(2, 5, 48)]


def test_dropout_of_a_training_stays() -> None:
    mlp = frozen(partial(Mlp, 12, 48, drop=0.5)).train()
    with torch.inference_mode(), autocast("bf16-mixed", CPU):
        torch.manual_seed(0)
        found = feed_forward(mlp, tokens())
        torch.manual_seed(0)
        assert torch.equal(found, mlp(tokens()))
        assert not torch.equal(found, feed_forward(mlp, tokens()))


@pytest.mark.parametrize("shape", [(9, 16), (3, 9, 16)])  # of all heads, of each
def test_turned_image_by_image_as_all_together(shape: tuple[int, ...]) -> None:
    """Rotary positions in bfloat16: the same turn as with float32 heads, rounded once."""
    generator = torch.Generator().manual_seed(0)
    heads = torch.randn(4, 3, 11, 8, generator=generator).bfloat16()
    rope = torch.randn(*shape, generator=generator)
    wanted = eva.turned(heads.float(), rope, 2, half=True)

    with torch.inference_mode():
        found = eva.turned(heads, rope, 2, half=True)

    assert found.dtype == torch.bfloat16
    assert torch.equal(found[:, :, :2], heads[:, :, :2])
    torch.testing.assert_close(found.float(), wanted, rtol=2**-8, atol=1e-6)
