"""Augmentation: the same for the same seed, image and label alike, never left for right, never the network."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from vpt.data.transforms import Albumentations, identity, make_augment

SIZE = 64


def picture() -> tuple[np.ndarray, np.ndarray]:
    """A bright L in a grey gradient, and its label: no mirror image of an L is an L."""
    label = np.zeros((SIZE, SIZE), np.uint8)
    label[16:48, 20:28] = 1
    label[40:48, 20:44] = 1
    image = np.broadcast_to(np.linspace(0.05, 0.25, SIZE, dtype=np.float32), (3, SIZE, SIZE)) + 0.6 * label
    return image.astype(np.float32), label


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture(scope="module", params=["light", "strong"])
def strength(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def augment(strength) -> Albumentations:
    return make_augment(strength)


def test_none_is_the_identity():
    image, label = picture()
    assert make_augment("none") is identity
    out = identity(image, label, 3)
    assert out[0] is image
    assert out[1] is label


def test_same_seed_same_result_whatever_came_before(augment, strength):
    image, label = picture()
    first = augment(image, label, 5)
    augment(image, label, 6)
    second = augment(image, label, 5)
    third = make_augment(strength)(image, label, 5)  # as another worker would
    for again in (second, third):
        assert np.array_equal(first[0], again[0])
        assert np.array_equal(first[1], again[1])


def test_different_seeds_differ_and_the_input_is_not_touched(augment):
    image, label = picture()
    results = {augment(image, label, seed)[0].tobytes() for seed in range(20)}
    assert len(results) >= 18  # now and then no step is drawn
    assert np.array_equal(image, picture()[0])
    assert np.array_equal(label, picture()[1])


def test_shape_dtype_and_values_are_kept(augment):
    label = picture()[1] * 117
    rng = np.random.default_rng(0)
    for seed in range(60):
        image = rng.choice([0, 1, rng.random()], (3, SIZE, SIZE)).astype(np.float32)
        out, mask = augment(image, label, seed)
        assert (out.shape, out.dtype) == (image.shape, np.float32)
        assert (mask.shape, mask.dtype) == (label.shape, np.uint8)
        assert out.flags.c_contiguous
        assert out.min() >= 0
        assert out.max() <= 1
        assert set(np.unique(mask)) <= {0, 117}  # labels are never mixed


def test_image_and_label_move_together():
    augment = make_augment("light")
    label = picture()[1]
    moved = 0
    for seed in range(40):
        out, mask = augment(np.repeat(label[None].astype(np.float32), 3, 0), label, seed)
        shown = out[1] > (out[1].min() + out[1].max()) / 2
        assert dice(shown, mask > 0) > 0.93, seed
        moved += dice(label > 0, mask > 0) < 0.9
    assert moved > 15


def turns(label: np.ndarray) -> bool:
    """Whether one comes to 1, 2, 3 clockwise: so it stays when turned, sheared and scaled, but not in a mirror."""
    a, b, c = (np.argwhere(label == id).mean(0) for id in (1, 2, 3))
    return bool(np.linalg.det([b - a, c - a]) > 0)


def test_left_stays_left(augment):
    image, label = picture()
    label[:] = 0
    label[20:26, 20:26], label[38:44, 20:26], label[38:44, 38:44] = 1, 2, 3
    assert turns(label) == turns(np.rot90(label)) != turns(label[:, ::-1])
    assert all(turns(augment(image, label, seed)[1]) == turns(label) for seed in range(80))


@pytest.mark.slow
def test_no_network_when_albumentations_is_imported():
    """It asks for its newest version on import, unless the environment says otherwise before that."""
    code = """
import os, socket, sys
os.environ.pop("NO_ALBUMENTATIONS_UPDATE", None)
def refuse(*args, **kwargs):
    raise SystemExit("network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from vpt.data.transforms import make_augment
assert "albumentations" not in sys.modules, "imported before it is needed"
make_augment("light")
assert "albumentations" in sys.modules
assert os.environ["NO_ALBUMENTATIONS_UPDATE"]
"""
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("mirror", "turned"),
    [("horizontal", {(), (-1,)}), ("vertical", {(), (-2,)}), ("both", {(), (-1,), (-2,), (-2, -1)})],
)
def test_mirrors_image_and_label_alike_and_only_along_the_named_axes(mirror, turned):
    rng = np.random.default_rng(0)
    image, label = rng.random((3, 8, 8), np.float32), rng.integers(0, 9, (8, 8), np.uint8)
    seen = []
    for seed in range(200):
        found, mask = make_augment("none", mirror=mirror)(image, label, seed)
        same = [axes for axes in [(), (-1,), (-2,), (-2, -1)] if np.array_equal(found, np.flip(image, axes))]
        assert len(same) == 1
        assert np.array_equal(mask, np.flip(label, same[0]))
        seen += same
    assert set(seen) == turned
    assert all(0.6 < seen.count(axes) * len(turned) / 200 < 1.4 for axes in turned)


def test_without_a_word_nothing_is_mirrored():
    ramp = np.tile(np.linspace(0, 1, 32, dtype=np.float32), (3, 32, 1))
    label = np.zeros((32, 32), np.uint8)
    for seed in range(50):
        found, _ = make_augment("light")(ramp, label, seed)
        assert found[:, 8:24, 20:28].mean() > found[:, 8:24, 4:12].mean()


def test_what_happens_to_place_and_to_colour_is_drawn_apart():
    image = np.full((3, 32, 32), 0.5, np.float32)
    label = np.zeros((32, 32), np.uint8)
    label[8:24, 8:24] = 1
    coloured: dict[bool, list[bool]] = {True: [], False: []}
    for seed in range(200):
        found, mask = make_augment("light", fill=(0.5, 0.5, 0.5))(image, label, seed)
        coloured[bool((mask != label).any())].append(not np.allclose(found, image, atol=1e-3))
    shares = [np.mean(of) for of in coloured.values()]
    assert min(map(len, coloured.values())) > 20
    assert abs(shares[0] - shares[1]) < 0.3
    assert min(shares) > 0.5


@pytest.mark.parametrize("channels", [4, 16])
def test_modalities_move_alike_and_change_their_values_each_for_itself(strength, channels):
    image, label = picture()
    many = np.broadcast_to(image[:1], (channels, SIZE, SIZE)).copy()
    augment = make_augment(strength, (0.0,) * channels)
    changed = 0
    for seed in range(12):
        found, moved = augment(many, label, seed)
        again, _ = augment(many, label, seed)
        assert np.array_equal(found, again)
        assert (found.shape, found.dtype) == (many.shape, np.float32)
        changed += not np.array_equal(found[0], found[-1])
        for channel in found:  # the bright L lies where its label does, in every one of them
            inside, outside = channel[moved == 1], channel[moved == 0]
            assert np.median(inside) > np.median(outside) + 0.1
    assert changed > 6
    assert many[0].tobytes() == image[0].tobytes()


def test_values_of_modalities_change_as_those_of_one_image(strength):
    image, label = picture()
    many = np.broadcast_to(image[:1], (5, SIZE, SIZE)).copy()
    by_size = {size: make_augment(strength, (0.3,) * size) for size in (3, 5)}
    spread = {
        size: np.std([augment(many[:size], label, seed)[0][0].mean() for seed in range(60)])
        for size, augment in by_size.items()
    }
    assert spread[5] == pytest.approx(spread[3], rel=0.5)
