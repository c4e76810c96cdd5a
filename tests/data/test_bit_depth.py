"""Pictures of 16 bits become those of 8 where white is known, and stay what they are elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from scans import voxels_of
from values import xray

from vpt.data.bit_depth import in_8_bits

GREY = xray(0).astype(np.float32)


def shown(picture: np.ndarray, white: float | None = None) -> np.ndarray:
    voxels = in_8_bits(voxels_of(np.ascontiguousarray(picture.T[None, ..., None])), white)
    return voxels.values()[0, ..., 0].T


@pytest.mark.parametrize("factor", [256, 257])
def test_8_bits_that_were_widened_come_back_as_they_were(factor: int) -> None:
    assert np.allclose(shown(GREY * factor), GREY, atol=1e-4)


@pytest.mark.parametrize("bits", [10, 12, 14, 15, 16])
def test_a_white_that_is_stated_becomes_255(bits: int) -> None:
    deep = np.rint(GREY / 255 * (2**bits - 1)) * 2 ** (16 - bits)

    assert np.abs(shown(deep, 65535.0) - GREY).max() < 256 / 2**bits + 0.6


@pytest.mark.parametrize("picture", [GREY * 16, GREY * 257 + 1, GREY * 100, GREY, GREY / 255])
def test_what_is_not_known_stays_as_it_is(picture: np.ndarray) -> None:
    assert np.array_equal(shown(picture), picture)
