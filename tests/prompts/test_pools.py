"""Keys, components and prefixes that the prompts of a sequence of tasks are made of."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from encoders import make_vit, plain_spec

from vpt.errors import VptError
from vpt.prompts.base import Info
from vpt.prompts.pools.keys import attended_cosines, cosines, oblique, orthonormal_rows, query_in
from vpt.prompts.pools.prefix import keys_values, prefix_blocks


def test_an_attended_cosine_is_that_of_the_attended_query_with_the_key() -> None:
    queries, attentions, keys = torch.randn(3, 7), torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    found = attended_cosines(queries, attentions, keys)
    for block in range(2):
        for image in range(3):
            for m in range(5):
                expected = F.cosine_similarity(queries[image] * attentions[block, m], keys[block, m], dim=0)
                assert found[block, image, m] == pytest.approx(float(expected), abs=1e-6)


def test_cosines_stay_single_under_autocast() -> None:
    queries, keys = torch.randn(3, 64), torch.randn(5, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cosines(queries, keys), attended_cosines(queries, keys, keys), oblique(keys)
    assert all(each.dtype == torch.float32 for each in found)
    expected = F.cosine_similarity(queries[:, None], keys[None], dim=-1)
    torch.testing.assert_close(found[0], expected, atol=1e-6, rtol=0)


def test_new_rows_are_at_right_angles_to_each_other_and_to_those_that_were_learned() -> None:
    learned = torch.randn(4, 16)
    rows = orthonormal_rows(5, learned)
    torch.testing.assert_close(rows @ rows.T, torch.eye(5), atol=1e-6, rtol=0)
    assert (rows @ learned.T).abs().max() < 1e-5
    assert oblique(rows) < 1e-12
    skew = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert oblique(skew) == pytest.approx(float(((skew @ skew.T - torch.eye(2)) ** 2).mean()))
    with pytest.raises(VptError, match="14 components are learned and 3 are to be added, but of vectors of 16 numbers"):
        orthonormal_rows(3, torch.randn(14, 16))


def test_the_first_half_of_a_prefix_is_keys_the_second_values_head_by_head() -> None:
    prompts = torch.randn(2, 6, 8)
    found = keys_values(prompts, heads=4)
    assert found.keys.shape == found.values.shape == (2, 4, 3, 2)
    for head in range(4):
        torch.testing.assert_close(found.keys[:, head], prompts[:, :3, 2 * head : 2 * head + 2])
        torch.testing.assert_close(found.values[:, head], prompts[:, 3:, 2 * head : 2 * head + 2])


def test_a_query_that_nobody_made_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match=r"give Info\(query=...\)"):
        query_in(Info())


def test_blocks_that_an_encoder_lacks_and_blocks_of_other_widths_are_refused(stages: object) -> None:
    assert prefix_blocks((1, 0), plain_spec(), "coda") == (0, 1)
    with pytest.raises(VptError, match=r"blocks \[0, 1, 2, 3, 4\] are not in 0..3"):
        prefix_blocks((0, 1, 2, 3, 4), make_vit().spec, "coda")
    with pytest.raises(VptError, match=r"prompts as keys and values \(coda\) needs blocks of one width"):
        prefix_blocks((1, 2), stages.spec, "coda")  # type: ignore[attr-defined]
    with pytest.raises(VptError, match="block 1 of stages widens its tokens, which coda has no form for"):
        prefix_blocks((1,), stages.spec, "coda")  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def stages() -> object:
    from encoders import Stages

    return Stages()
