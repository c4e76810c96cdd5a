"""The loss, and slices -> classes: batches, tiles and sizes change nothing but the cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from encoders import plain_spec
from forwards import forward_of
from plans import plan_with
from torch import Tensor, nn

from vpt.data.label_values import IGNORED
from vpt.model import Output
from vpt.tasks.batch import Batch
from vpt.tasks.images import Normalise
from vpt.tasks.segmentation import dice_ce, likeliest, segment_slices, where_it_counts

CPU = torch.device("cpu")


# --- loss -------------------------------------------------------------------------------------------------------------


def classes_of(batch: int = 4, labels: int = 3) -> Tensor:
    classes = torch.zeros(batch, 16, 16, dtype=torch.long)
    for label in range(1, labels):
        classes[:, 4 * label : 4 * label + 3, 3:12] = label
    return classes


def confident(classes: Tensor, labels: int = 3) -> Tensor:
    return 30.0 * F.one_hot(classes, labels).permute(0, 3, 1, 2).float()


def loss(logits: Tensor, classes: Tensor) -> Tensor:
    return dice_ce()(Output(logits), Batch(truth=classes))


def test_perfect_logits_cost_nothing_and_wrong_ones_much():
    classes = classes_of()
    assert loss(confident(classes), classes).item() == pytest.approx(0, abs=1e-3)
    assert loss(confident((classes + 1) % 3), classes).item() > 10
    assert loss(torch.zeros(4, 3, 16, 16), classes).item() > 1


def test_what_is_ignored_has_no_part_in_the_loss_or_its_gradient():
    """The loss is that of the images without the ignored rows, whatever is predicted there."""
    classes, weights = classes_of(), (1.0, 2.0, 0.5)
    logits = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    ignoring = classes.clone()
    ignoring[:, 10:] = IGNORED
    for whole in (dice_ce(), dice_ce(weights, 0.1)):
        found = where_it_counts(whole)(Output(logits), Batch(truth=ignoring))
        cut = whole(Output(logits[:, :, :10]), Batch(truth=classes[:, :10]))
        assert found.item() == pytest.approx(cut.item(), rel=1e-5)
        (gradient,) = torch.autograd.grad(found, logits)
        assert gradient[:, :, :10].abs().min() > 0
        assert not gradient[:, :, 10:].any()
    assert where_it_counts(dice_ce())(Output(logits), Batch(truth=classes)).item() == pytest.approx(
        loss(logits, classes).item(), rel=1e-5
    )


def test_a_batch_of_which_nothing_counts_costs_nothing():
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    found = where_it_counts(dice_ce())(Output(logits), Batch(truth=torch.full((2, 8, 8), IGNORED)))
    found.backward()
    assert found.item() == 0
    assert not logits.grad.any()


def test_loss_falls_along_its_gradient():
    classes = classes_of()
    logits = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    before = loss(logits, classes)
    before.backward()
    assert torch.isfinite(logits.grad).all()
    assert loss(logits - 10 * logits.grad, classes) < before


def test_slices_without_label_are_no_failures():
    """Dice over the batch: adding empty slices, segmented as empty, does not make the loss worse."""
    classes = classes_of()
    empty = torch.zeros_like(classes)
    both = torch.cat([classes, empty])
    assert loss(confident(both), both).item() == pytest.approx(0, abs=1e-3)
    # A shadow of doubt on an empty slice would be a Dice of 0 there, if each slice counted by itself.
    logits = torch.cat([confident(classes), confident(empty) / 6])
    dice = loss(logits, both) - F.cross_entropy(logits, both)
    assert dice < 0.15


def test_a_batch_without_any_label_is_finite_and_teaches_background():
    empty = torch.zeros(2, 8, 8, dtype=torch.long)
    logits = torch.zeros(2, 3, 8, 8, requires_grad=True)
    value = loss(logits, empty)
    value.backward()
    assert torch.isfinite(value)
    assert (logits.grad[:, 0] < 0).all()


def test_half_precision_logits_give_a_float32_loss():
    classes = classes_of()
    half = loss(confident(classes).bfloat16(), classes)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(0, abs=1e-3)


# --- normalisation ----------------------------------------------------------------------------------------------------


def test_normalise_takes_the_encoders_mean_and_deviation_per_channel():
    spec = plain_spec(width=8, image_size=(8, 8), patch=(4, 4), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    normalise = Normalise(spec)
    out = normalise(torch.tensor([0.6, 0.7, 0.8]).view(1, 3, 1, 1).expand(2, 3, 4, 4))
    assert out[1, :, 0, 0].tolist() == pytest.approx([1.0, 2.0, 0.25])
    assert normalise.state_dict() == {}  # no tensor of its own in an artifact


# --- slices -> classes ------------------------------------------------------------------------------------------------


def pointwise(images: Tensor) -> Tensor:
    """Three classes by the central slice's brightness: the exact answer is known at every pixel."""
    x = images[:, 1]
    return torch.stack([1 - 3 * x, 0.9 - (3 * x - 1.5).abs(), 3 * x - 2], 1)


def smooth(shape, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((shape[0], 1, 5, 6)).astype(np.float32))
    return F.interpolate(coarse, size=shape[1:], mode="bilinear").numpy()


def expected(slices: np.ndarray, pixels: tuple[int, int]) -> Tensor:
    """Class logits on the whole slice at once, resized as they are."""
    whole = torch.from_numpy(slices).expand(-1, 3, -1, -1)
    return F.interpolate(pointwise(whole), size=pixels, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("shape", [(5, 32, 32), (5, 20, 27), (5, 75, 60), (3, 100, 20), (1, 33, 31)])
@pytest.mark.parametrize("pixels", [None, (24, 50), (110, 70), (1, 1)])
def test_padded_tiled_and_resized_slices_equal_the_untiled_answer(shape, pixels):
    slices = smooth(shape)
    pixels = pixels or shape[1:]
    found = segment_slices(forward_of(pointwise), slices, plan_with(), pixels=pixels, device=CPU, classes=2)
    assert (found.shape, found.dtype) == ((shape[0], *pixels), np.uint8)
    logits = expected(slices, pixels)
    best = logits.topk(2, dim=1).values
    clear = (best[:, 0] - best[:, 1] > 1e-4).numpy()  # but for ties
    assert clear.mean() > 0.98
    assert np.array_equal(found[clear], logits.argmax(1).numpy()[clear])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 32])
@pytest.mark.parametrize("shape", [(7, 30, 32), (7, 50, 40)])
def test_batched_equals_one_by_one(batch_size, shape):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.GELU(), nn.Conv2d(8, 4, 1)).eval()
    slices = np.random.default_rng(0).random((shape[0], 1, *shape[1:])).astype(np.float32)
    one = segment_slices(forward_of(network), slices, plan_with(), pixels=(40, 41), device=CPU, classes=2, batch_size=1)
    many = segment_slices(
        forward_of(network), slices, plan_with(), pixels=(40, 41), device=CPU, classes=2, batch_size=batch_size
    )
    assert len(np.unique(one)) > 1
    assert (one == many).mean() > 0.9999  # but for ties in the last bit


def test_slices_come_back_in_order():
    slices = np.repeat(np.arange(9, dtype=np.float32) / 10, 8 * 8).reshape(9, 1, 8, 8)

    def number(images: Tensor) -> Tensor:
        return -(images[:, 1:2] * 10 - torch.arange(9).view(1, 9, 1, 1)).abs()

    found = segment_slices(forward_of(number), slices, plan_with(), pixels=(8, 8), device=CPU, classes=2, batch_size=4)
    assert found[:, 4, 4].tolist() == list(range(9))
    backwards = segment_slices(
        forward_of(number), slices[::-1].copy(), plan_with(), pixels=(8, 8), device=CPU, classes=2, batch_size=4
    )
    assert np.array_equal(backwards, found[::-1])


@pytest.mark.parametrize("classes", [1, 2, 5, 300])
def test_the_likeliest_class_is_argmax_and_the_first_of_equals(classes):
    logits = torch.randint(-3, 4, (classes, 9, 11), generator=torch.Generator().manual_seed(0)).float()
    assert np.array_equal(likeliest(logits).numpy(), logits.numpy().argmax(0))
    logits[0, 0, 0] = -torch.inf
    assert np.array_equal(likeliest(logits).numpy(), logits.numpy().argmax(0))


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_blank_slices_are_background_without_the_encoder_only_if_the_plan_says_so(batch_size):
    slices = smooth((7, 20, 27))
    slices[[0, 3, 4]] = 0.25
    seen = []

    def spy(images: Tensor) -> Tensor:
        seen.extend(images)
        return torch.cat([-images[:, :1], images[:, :1]], 1)  # foreground everywhere

    how = {"pixels": (20, 27), "device": CPU, "classes": 2, "batch_size": batch_size}
    for skips, blank in ((False, []), (True, [0, 3, 4])):
        seen.clear()
        found = segment_slices(forward_of(spy), slices, plan_with(neighbours=False, skip_blank=skips), **how)
        assert len(seen) == 7 - len(blank)
        assert [k for k in range(7) if not found[k].any()] == blank
    seen.clear()
    segment_slices(forward_of(spy), slices, plan_with(neighbours=True, skip_blank=True), **how)
    assert len(seen) == 7  # every slice has a neighbour with something in it


def test_the_model_sees_each_slice_with_its_neighbours_across_batches():
    slices = np.repeat(np.arange(5, dtype=np.float32), 32 * 32).reshape(5, 1, 32, 32)
    seen = []

    def spy(images: Tensor) -> Tensor:
        assert torch.is_inference_mode_enabled()
        seen.extend(images[:, :, 16, 16].tolist())
        return images

    segment_slices(forward_of(spy), slices, plan_with(), pixels=(32, 32), device=CPU, classes=2, batch_size=2)
    assert seen == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 4]]


def test_the_model_never_sees_more_than_a_batch_however_deep_the_scan():
    sizes = []

    def spy(images: Tensor) -> Tensor:
        sizes.append(tuple(images.shape))
        return images

    for depth in (3, 50):
        segment_slices(
            forward_of(spy), smooth((depth, 60, 60)), plan_with(), pixels=(9, 9), device=CPU, classes=2, batch_size=4
        )
    assert {shape[1:] for shape in sizes} == {(3, 32, 32)}
    assert max(shape[0] for shape in sizes) <= 4


@pytest.mark.parametrize("padding", ["centre", "corner"])
@pytest.mark.parametrize("shape", [(32, 20), (20, 32), (9, 13), (75, 20), (20, 75), (40, 50)])
def test_padded_at_the_encoders_place_the_answer_is_the_same(padding, shape):
    slices = smooth((2, *shape))
    plan = plan_with(padding=padding, fill=(0.2, 0.9, 0.4))
    found = segment_slices(forward_of(pointwise), slices, plan, pixels=(50, 60), device=CPU, classes=2)
    logits = expected(slices, (50, 60))
    best = logits.topk(2, dim=1).values
    clear = (best[:, 0] - best[:, 1] > 1e-4).numpy()
    assert np.array_equal(found[clear], logits.argmax(1).numpy()[clear])


def test_the_model_sees_the_fill_colour_right_and_below_in_the_corner():
    seen = []

    def spy(images: Tensor) -> Tensor:
        seen.append(images.clone())
        return images

    plan = plan_with(padding="corner", fill=(0.2, 0.9, 0.4), neighbours=False)
    segment_slices(forward_of(spy), np.zeros((1, 1, 20, 32), np.float32), plan, pixels=(20, 32), device=CPU, classes=2)
    (image,) = seen
    assert image.shape == (1, 3, 32, 32)
    assert not image[0, :, :20].any()
    assert torch.equal(image[0, :, 20:], torch.tensor(plan.fill).view(3, 1, 1).expand(3, 12, 32))
