"""CODA-Prompt: sums of components by the image's own query, and a further task that leaves the others' as they are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from encoders import WIDTH, draw, flat, make_vit, shaken, total

from vpt.model import Below, encode, frozen_query
from vpt.prompts import CodaPrompts, Prompts
from vpt.prompts.base import Info
from vpt.prompts.coda import PARTS, CodaConfig

SETTINGS = {"components": 3, "length": 4, "blocks": (0, 2)}


def make(spec: object, learned: int = 1, **more: object) -> CodaPrompts:
    torch.manual_seed(0)
    return CodaPrompts(spec, **SETTINGS, learned=learned, **more)  # type: ignore[arg-type]


def penalty_of(prompts: CodaPrompts) -> float:
    found = prompts.penalty(None)
    assert found is not None
    return found.item()


def test_a_prompt_is_the_sum_of_components_weighted_by_attended_cosines() -> None:
    backbone, images = make_vit(), draw(3)
    prompts = shaken(make(backbone.spec))
    query = encode(backbone, Prompts(), images).prefix[:, 0]
    torch.testing.assert_close(frozen_query(backbone, Below(0, backbone.embed(images))), query)
    state = prompts.begin(images, Info(query=query))
    for row in range(2):
        for image in range(3):
            expected = torch.zeros(4, WIDTH)
            for m in range(3):
                attended = query[image] * prompts.attentions[row, m]
                weight = F.cosine_similarity(attended, prompts.keys[row, m], dim=0)
                expected += weight * prompts.prompts[row, m].view(4, WIDTH)
            torch.testing.assert_close(state[row, image], expected, atol=1e-5, rtol=0)
    _, context = prompts.enter(2, backbone.embed(images), state)
    assert context is not None
    torch.testing.assert_close(context.keys[1, 1], state[1, 1, :2, WIDTH // 2 :])
    torch.testing.assert_close(context.values[1, 0], state[1, 1, 2:, : WIDTH // 2])
    assert prompts.enter(1, backbone.embed(images), state)[1] is None


def test_the_model_makes_the_query_and_images_do_not_matter_to_each_other() -> None:
    backbone, images = make_vit(), draw(5)
    prompts, order = shaken(make(backbone.spec)), [2, 0, 4, 1, 3]
    with torch.no_grad():
        together = flat(encode(backbone, prompts, images))
        alone = torch.cat([flat(encode(backbone, prompts, image[None])) for image in images])
        turned = flat(encode(backbone, prompts, images[order]))
        query = frozen_query(backbone, Below(0, backbone.embed(images)))
        given = flat(encode(backbone, prompts, images, Info(query=query)))
        bare = flat(encode(backbone, Prompts(), images))
    assert (together - alone).abs().max() < 2e-5
    assert (together[order] - turned).abs().max() < 2e-5
    assert torch.equal(together, given)
    assert (together - bare).abs().max() > 0.02


def test_the_penalty_is_how_far_components_keys_and_attentions_are_from_right_angles() -> None:
    prompts = make(make_vit().spec, mu=0.3)
    assert penalty_of(prompts) < 1e-10
    prompts = shaken(prompts)
    expected = 0.0
    for part in PARTS:
        for rows in getattr(prompts, part):
            expected += (rows @ rows.T - torch.eye(3)).square().mean().item() / 2
    assert penalty_of(prompts) == pytest.approx(0.3 * expected, rel=1e-5)
    assert make(make_vit().spec, mu=0.0).penalty(None) is None


def test_a_further_task_keeps_all_components_and_trains_only_its_own() -> None:
    spec = make_vit().spec
    first = shaken(make(spec))
    second = make(spec, learned=2)
    second.continue_from(first)
    third = make(spec, learned=3)
    third.continue_from(shaken(second))
    assert {name for name, _ in third.named_parameters()} == {*PARTS}
    assert total(third) == total(first) == 2 * 3 * (4 * WIDTH + 2 * WIDTH)
    for part in PARTS:
        past = getattr(third, f"past_{part}")
        assert torch.equal(past[:, :3], getattr(first, part))
        assert torch.equal(past[:, 3:], getattr(second, part))
        across = getattr(third, part) @ past.mT
        assert across.abs().max() < 1e-4
    loss = third.begin(None, Info(query=torch.randn(2, WIDTH))).square().sum() + third.penalty(None)
    loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in third.parameters())


def test_its_settings_count_the_tasks() -> None:
    config = CodaConfig()
    assert (config.learned, config.further().further().learned) == (1, 3)
    assert CodaConfig(components=3).further().components == 3
