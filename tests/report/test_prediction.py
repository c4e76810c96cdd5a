"""A picture of a prediction says which slices of how many it shows, where their sides lie, in the pages' colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from vpt.palette import colours_of
from vpt.report.cuts import LETTERS
from vpt.report.pictures import write_progress
from vpt.report.prediction import write_prediction


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    from matplotlib.figure import Figure

    seen, save = list[Any](), Figure.savefig

    def look(figure: Any, *place: Any, **options: Any) -> None:
        seen.append(figure)
        save(figure, *place, **options)

    monkeypatch.setattr(Figure, "savefig", look)
    return seen


def test_slices_are_counted_from_one_and_sides_are_named(figures: list[Any], tmp_path: Path) -> None:
    classes = np.zeros((3, 8, 8), np.int64)
    classes[:, 2:5, 2:5] = 2
    images = np.full((3, 8, 8), 0.5)
    names = ["background", "liver", "tumour"]
    write_prediction(tmp_path / "a.png", images, classes, ([0, 4, 9], 10), names, "a", letters=LETTERS[0])

    (figure,) = figures
    assert [axes.get_title() for axes in figure.axes] == ["slice 1 of 10", "slice 5 of 10", "slice 10 of 10"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["A", "L", "P", "R"]  # without mm, no scale
    (line,) = figure.legends[0].get_lines()
    assert (line.get_label(), to_hex(line.get_color())) == ("tumour", colours_of([1, 2])[2])
    assert (tmp_path / "a.png").stat().st_size > 0


def test_a_scan_has_a_scale_in_mm(figures: list[Any], tmp_path: Path) -> None:
    """Of 64 mm a quarter is 16, and 10 the next round length below: 20 pixels of half a millimetre."""
    pictures = np.zeros((1, 32, 128))
    write_prediction(tmp_path / "a.png", pictures, pictures.astype(int), ([0], 1), ["background"], "a", pixel_mm=0.5)
    (axes,) = figures[0].axes
    assert [text.get_text() for text in axes.texts] == ["10 mm"]
    assert np.ptp(axes.lines[0].get_xdata()) == pytest.approx(20)


def test_progress_has_the_labels_colours(figures: list[Any], tmp_path: Path) -> None:
    """As masks on pictures have, in the order of the labels; black is the score that chooses."""
    rows = [{"epoch": 1, "loss": 1.0, "lr": 0.1, "dice": 0.5, "dice_a": 0.4, "dice_b": 0.6}]
    write_progress(tmp_path / "p.png", rows, {"dice_a": "a", "dice_b": "b"}, "dice", "run")
    colours = {line.get_label(): to_hex(line.get_color()) for line in figures[0].axes[1].lines}
    assert colours == {"a": colours_of([1, 2])[1], "b": colours_of([1, 2])[2], "mean Dice": "#000000"}


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 8, 40])
def test_progress_of_many_labels_of_long_names_keeps_its_axes(
    figures: list[Any], tmp_path: Path, recwarn: pytest.WarningsRecorder, count: int
) -> None:
    shown = {f"dice_{k}": f"vertebra_number_{k}_with_a_name_that_is_long" for k in range(count)}
    rows = [{"epoch": 1, "loss": 1.0, "lr": 0.1, "dice": 0.5, **dict.fromkeys(shown, 0.5)}]
    write_progress(tmp_path / "p.png", rows, shown, "dice", "run")
    axes = figures[0].axes[1]
    assert axes.get_position().width > 0.8
    assert len(axes.get_legend().get_texts()) == (count + 1 if count < 9 else 1)
    assert not [warning for warning in recwarn if "constrained_layout" in str(warning.message)]
