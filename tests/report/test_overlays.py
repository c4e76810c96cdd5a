"""Outlines lie where the labels end, whatever the pixels' shape, and errors are what the masks do not share."""

from __future__ import annotations

import base64
import re

import cv2
import numpy as np
import pytest

from vpt.report.cuts import Cut
from vpt.report.overlays import HEIGHT, MOST_PIXELS, Panel, draw_panel, encoded, path_of

COLOURS = {1: "#111111", 2: "#222222"}


def panel(truth=None, found=None, shape=(20, 30), pixel=(1.0, 1.0), unit="mm") -> Panel:
    cut = Cut("axial", "slice 1 of 2", np.zeros(shape, np.float32), truth, found, pixel, unit, None)
    return draw_panel(cut, COLOURS, "case_7")


def box(path: str) -> list[float]:
    """Left, top, right, bottom of a path."""
    numbers = np.array(re.findall(r"-?[\d.]+", path), float).reshape(-1, 2)
    return [*numbers.min(0), *numbers.max(0)]


def decoded(uri: str) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8), cv2.IMREAD_UNCHANGED)


def test_an_outline_lies_on_the_pixels_edges() -> None:
    mask = np.zeros((20, 30), bool)
    mask[5:10, 10:20] = True
    np.testing.assert_allclose(box(path_of(mask, (300, 200))), [100, 50, 200, 100])


def test_thick_pixels_are_drawn_thick() -> None:
    truth = np.zeros((20, 30), np.uint8)
    truth[5:10, 10:20] = 1
    drawn = panel(truth, pixel=(3.0, 1.0))
    assert drawn.ratio == pytest.approx(30 / 60)
    left, top, right, bottom = box(drawn.outlines[0].path)
    assert (right - left) / (bottom - top) == pytest.approx(10 / 15)


def test_holes_and_parts_have_outlines_of_their_own_and_the_border_is_closed() -> None:
    mask = np.zeros((20, 20), bool)
    mask[:9, :9], mask[3:6, 3:6], mask[15:, 15:] = True, False, True
    assert path_of(mask, (200, 200)).count("Z") == 3
    assert path_of(np.zeros((4, 4), bool), (9, 9)) == ""


def test_truth_and_prediction_have_the_labels_colour_and_say_whose_they_are() -> None:
    truth, found = np.zeros((2, 20, 30), np.uint8)
    truth[2:5, 2:5], found[9:12, 9:12] = 1, 2
    assert [(each.colour, each.whose) for each in panel(truth, found).outlines] == [
        ("#111111", "truth"),
        ("#222222", "found"),
    ]


def test_errors_are_missed_added_or_taken_for_another() -> None:
    truth, found = np.zeros((2, 20, 30), np.uint8)
    truth[0:10, 0:10], found[0:5, 0:20] = 1, 1
    found[5:8, 5:8] = 2
    drawn = panel(truth, found)
    unit = HEIGHT / 20
    np.testing.assert_allclose(box(drawn.added), np.array([10, 0, 20, 5]) * unit, atol=0.1)
    np.testing.assert_allclose(box(drawn.taken), np.array([5, 5, 8, 8]) * unit, atol=0.1)
    np.testing.assert_allclose(box(drawn.missed), np.array([0, 5, 10, 10]) * unit, atol=0.1)
    assert drawn.errors == 50 + 50
    assert "they differ in 100 pixels" in drawn.alt


def test_without_a_truth_nothing_is_called_wrong() -> None:
    found = np.ones((20, 30), np.uint8)
    drawn = panel(None, found)
    assert (drawn.missed, drawn.added, drawn.taken, drawn.errors) == ("", "", "", 0)
    assert drawn.alt == "case_7, axial, slice 1 of 2: outlines of the prediction"


@pytest.mark.parametrize(("millimetres", "words"), [(30, "5 mm"), (300, "50 mm"), (9, "2 mm"), (800, "200 mm")])
def test_the_scale_bar_is_a_round_length(millimetres: float, words: str) -> None:
    pixel = millimetres / 30
    drawn = panel(pixel=(pixel, pixel))
    assert drawn.bar.words == words
    assert drawn.bar.length / drawn.width == pytest.approx(float(words.split()[0]) / millimetres, abs=1e-3)


@pytest.mark.parametrize(("columns", "is_raised"), [(30, False), (8, True)])
def test_the_scale_bar_of_a_narrow_plane_stands_above_the_letter_in_its_middle(columns: int, is_raised: bool) -> None:
    bar = panel(shape=(20, columns)).bar
    assert (bar.height > 20) == is_raised  # the letter ends 20 units above the edge


def test_large_pictures_shrink_and_their_labels_with_them() -> None:
    truth = np.zeros((1000, 2000), np.int64)
    truth[500:, 1000:] = 1
    drawn = panel(truth, truth, shape=truth.shape)
    assert decoded(drawn.picture).shape[:2] == (MOST_PIXELS // 2, MOST_PIXELS)
    np.testing.assert_allclose(box(drawn.outlines[0].path), [240, 120, 480, 240], atol=2)
    assert len(drawn.picture) < 20_000


def test_colours_are_kept_and_values_clipped() -> None:
    image = np.zeros((4, 4, 3), np.float32)
    image[..., 0], image[..., 1] = 2.0, 0.5
    assert decoded(encoded(image))[0, 0].tolist() == [0, 128, 255]  # BGR
