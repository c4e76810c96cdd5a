"""Attention of SAM's encoder with prompts beside the patches: the literal sums, whichever way they are computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from encoders import literal_attention
from segment_anything.modeling.image_encoder import Attention
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vpt.backbones import pieces, sam_attention
from vpt.backbones.attention import keys_and_values
from vpt.backbones.sam_attention import Arithmetic
from vpt.backbones.tokens import KeysValues

WIDTH, HEADS, BATCH = 32, 2, 3
BOTH = pytest.mark.parametrize("arithmetic", ["original", "fused"])
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no_positions": {"use_rel_pos": False},
    "no_bias": {"qkv_bias": False},
    "oblong": {"input_size": (3, 5)},
    "tables_of_another_size": {"input_size": (7, 2)},
}


def make_attention(dtype: torch.dtype = torch.float64, **options: Any) -> Attention:
    """SAM's own module; its tables of relative positions start at zero, so they are filled."""
    torch.manual_seed(0)
    attention = Attention(WIDTH, **({"num_heads": HEADS, "use_rel_pos": True, "input_size": (4, 4)} | options))
    with torch.no_grad():
        for name, parameter in attention.named_parameters():
            parameter.add_((1.0 if "rel_pos" in name else 0.2) * torch.randn_like(parameter))
    return attention.to(dtype).requires_grad_(False)


def draw(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def none(batch: int = BATCH, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.empty(batch, 0, WIDTH, dtype=dtype)


def attend(
    attention: Attention, patches: Tensor, prompts: Tensor, context: Tensor | None, arithmetic: Arithmetic
) -> tuple[Tensor, Tensor]:
    """With a context (E, C) or (B, E, C) that is normed, but not projected yet."""
    beside = None if context is None else KeysValues(*keys_and_values(attention.qkv, HEADS, context))
    return sam_attention.attend(attention, patches, prompts, beside, arithmetic)


# Without prompts


@BOTH
@pytest.mark.parametrize("kind", KINDS)
def test_without_prompts_it_is_sams_own_attention(kind: str, arithmetic: Arithmetic) -> None:
    attention, patches = make_attention(torch.float32, **KINDS[kind]), draw(2 * BATCH, 4, 3, dtype=torch.float32)

    found, prompts = attend(attention, patches, none(dtype=torch.float32), None, arithmetic)

    assert prompts.shape == (BATCH, 0, WIDTH)
    if arithmetic == "original":
        assert torch.equal(found, attention(patches))
    assert (found - attention(patches)).abs().max() <= 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_the_literal_form_of_these_tests_is_sams_own_attention(kind: str) -> None:
    attention, patches = make_attention(**KINDS[kind]), draw(BATCH, 4, 3)

    literal = torch.stack([literal_attention(attention, window, none(1)[0])[0] for window in patches])

    assert (literal - attention(patches)).abs().max() <= 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_fused_equals_the_original_in_double_precision(kind: str) -> None:
    attention, patches = make_attention(**KINDS[kind]), draw(2 * BATCH, 4, 3)

    found, _ = attend(attention, patches, none(), None, "fused")

    assert (found - attention(patches)).abs().max() <= 1e-12


def test_relative_positions_matter_in_these_tests() -> None:
    with_them, without = make_attention(), make_attention(use_rel_pos=False)
    without.load_state_dict({name: tensor for name, tensor in with_them.state_dict().items() if "rel_pos" not in name})

    assert (with_them(draw(1, 4, 4)) - without(draw(1, 4, 4))).abs().max() > 0.1


# With prompts


@BOTH
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("windows", [1, 4])
@pytest.mark.parametrize("travelling", [0, 2])
@pytest.mark.parametrize("context", ["none", "shared", "per_sample"])
def test_prompts_are_tokens_like_others_without_a_position(
    kind: str, windows: int, travelling: int, context: str, arithmetic: Arithmetic
) -> None:
    attention, patches = make_attention(**KINDS[kind]), draw(BATCH * windows, 4, 3)
    prompts = draw(BATCH, travelling, seed=2)
    given = {"none": None, "shared": draw(5, seed=3), "per_sample": draw(BATCH, 5, seed=3)}[context]

    found, moved = attend(attention, patches, prompts, given, arithmetic)

    assert found.shape == patches.shape
    assert moved.shape == prompts.shape
    for image in range(BATCH):
        own = none(1)[0] if given is None else given if given.ndim == 2 else given[image]
        beside, of_windows = torch.cat([prompts[image], own]), []
        for window in range(image * windows, (image + 1) * windows):  # an image's windows lie in a row
            seen, met = literal_attention(attention, patches[window], beside)
            assert (found[window] - seen).abs().max() <= 1e-12
            of_windows.append(met[:travelling])
        if travelling:
            assert (moved[image] - torch.stack(of_windows).mean(0)).abs().max() <= 1e-12


@BOTH
def test_an_images_prompts_reach_its_own_windows_only(arithmetic: Arithmetic) -> None:
    attention, patches, prompts = make_attention(), draw(BATCH * 4, 4, 4), draw(BATCH, 2, seed=2)
    other = prompts.clone()
    other[1] += 1

    before, after = (attend(attention, patches, given, None, arithmetic) for given in (prompts, other))

    differs = (before[0] - after[0]).abs().amax((1, 2, 3)) > 1e-6
    assert differs.tolist() == [False] * 4 + [True] * 4 + [False] * 4
    assert ((before[1] - after[1]).abs().amax((1, 2)) > 1e-6).tolist() == [False, True, False]


@BOTH
def test_a_windows_patches_reach_the_prompts_of_their_own_image_only(arithmetic: Arithmetic) -> None:
    attention, patches, prompts = make_attention(), draw(BATCH * 4, 4, 4), draw(BATCH, 2, seed=2)
    other = patches.clone()
    other[7] += 1  # the last window of the second image

    before, after = (attend(attention, given, prompts, None, arithmetic)[1] for given in (patches, other))

    assert ((before - after).abs().amax((1, 2)) > 1e-6).tolist() == [False, True, False]


@BOTH
def test_what_travelling_prompts_gather_knows_no_positions(arithmetic: Arithmetic) -> None:
    attention, prompts = make_attention(), draw(BATCH, 2, seed=2)
    patches = draw(BATCH, 4, 4)
    turned = patches.flip(1, 2)

    there, back = (attend(attention, given, prompts, None, arithmetic) for given in (patches, turned))

    assert (there[1] - back[1]).abs().max() <= 1e-12
    assert (there[0] - back[0].flip(1, 2)).abs().max() > 0.1


@BOTH
def test_gradients_of_prompts_and_patches_are_those_of_the_literal_form(arithmetic: Arithmetic) -> None:
    attention = make_attention()
    leaves = [draw(2, 3, 4), draw(1, 2, seed=2), draw(5, seed=3)]
    for leaf in leaves:
        leaf.requires_grad_(True)
    patches, prompts, context = leaves
    along, moving = draw(2, 3, 4, seed=4), draw(1, 2, seed=5)

    found, moved = attend(attention, patches, prompts, context, arithmetic)
    ours = torch.autograd.grad((found * along).sum() + (moved * moving).sum(), leaves)
    literal = [literal_attention(attention, window, torch.cat([prompts[0], context])) for window in patches]
    seen, met = torch.stack([pair[0] for pair in literal]), torch.stack([pair[1][:2] for pair in literal]).mean(0)
    theirs = torch.autograd.grad((seen * along).sum() + (met * moving).sum(), leaves)

    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= 1e-11


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5,), (BATCH, 5)])
def test_keys_and_values_are_those_of_sams_own_projection(bias: bool, shape: tuple[int, ...]) -> None:
    attention, context = make_attention(qkv_bias=bias), draw(*shape)

    keys, values = keys_and_values(attention.qkv, HEADS, context)

    _, own_keys, own_values = attention.qkv(context).view(-1, 5, 3 * WIDTH).chunk(3, dim=-1)
    for found, own in ((keys, own_keys), (values, own_values)):
        assert (found - own.unflatten(-1, (HEADS, -1)).transpose(1, 2)).abs().max() <= 1e-12


# Cost and precision


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes."""

    found = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple) else (made,):
            if isinstance(tensor, Tensor):
                self.found = max(self.found, tensor.numel())
        return made


@pytest.mark.parametrize("gradients", [False, True])
def test_fused_never_forms_the_map_of_scores(gradients: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    attention, patches = make_attention(torch.float32), draw(1, 24, 24, dtype=torch.float32)
    prompts, context = draw(1, 2, dtype=torch.float32), draw(5, dtype=torch.float32).requires_grad_(gradients)
    scores = HEADS * (24 * 24) ** 2
    monkeypatch.setattr(pieces, "CHUNK", 3 * scores // 4)  # bytes: 3 / 16 of them at once, where in pieces

    largest = {}
    for arithmetic in ("fused", "original"):
        with Largest() as mode:
            gathered, _ = attend(attention, patches, prompts, context, arithmetic)
            if gradients:
                gathered.sum().backward()
        largest[arithmetic] = mode.found

    assert largest["original"] >= scores
    assert largest["fused"] < scores / 4


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("context", [None, (5, WIDTH)])
def test_without_a_backward_pass_one_head_after_the_other_gives_the_same(
    context: tuple[int, int] | None, arithmetic: Arithmetic, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention, patches, prompts = make_attention(), draw(2 * BATCH, 24, 24), draw(BATCH, 2, seed=2)
    beside = None if context is None else draw(context[0], seed=3)
    expected, largest = attend(attention, patches, prompts, beside, arithmetic), {}

    for part in (1, 2**20):
        monkeypatch.setattr(sam_attention, "PART", part)
        with torch.no_grad(), Largest() as mode:
            found = attend(attention, patches, none(BATCH), beside, arithmetic)[0]
        largest[part] = mode.found
        with torch.inference_mode():
            both = attend(attention, patches, prompts, beside, arithmetic)
        for a, b in zip(both, expected, strict=True):
            assert (a - b).abs().max() <= 1e-12
        assert (found - attend(attention, patches, none(BATCH), beside, arithmetic)[0]).abs().max() <= 1e-12

    assert largest[1] < largest[2**20]


@BOTH
def test_bfloat16_is_close(arithmetic: Arithmetic) -> None:
    attention = make_attention(torch.float32)
    given = (draw(4 * BATCH, 4, 4), draw(BATCH, 2, seed=2), draw(5, seed=3))
    patches, prompts, context = (tensor.float() for tensor in given)

    exact = attend(attention, patches, prompts, context, arithmetic)
    with torch.autocast("cpu", torch.bfloat16):
        rough = attend(attention, patches, prompts, context, arithmetic)

    for a, b in zip(exact, rough, strict=True):
        assert F.cosine_similarity(a.flatten(), b.float().flatten(), dim=0) > 0.999
