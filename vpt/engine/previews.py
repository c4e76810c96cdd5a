"""While a run trains: the same validation cases at some epochs, those that were worst at the first validation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vpt.data.cases import Case
from vpt.engine.ranks import ALONE, Ranks
from vpt.engine.setup import Setup
from vpt.errors import VptError, VptWarning
from vpt.readers import reader_of
from vpt.report.cuts import LETTERS, NAMES, Letters
from vpt.report.pictures import slices_to_show, write_preview

WATCHED = 4  # cases
MOST = 10  # epochs with pictures, and the first


@dataclass(frozen=True, eq=False)
class Seen:
    """A validation case at one epoch: three of its `depth` slices, as positions of labels (3, rows, columns), and its
    Dice by label.
    """

    name: str
    places: tuple[int, ...]
    depth: int
    found: np.ndarray
    truth: np.ndarray
    dice: Mapping[str, float]

    @property
    def mean(self) -> float:
        """Infinite where no label has a score."""
        defined = [value for value in self.dice.values() if math.isfinite(value)]
        return sum(defined) / len(defined) if defined else math.inf

    def title(self, epoch: int) -> str:
        scores = [f"{name} {value:.3f}" for name, value in self.dice.items() if math.isfinite(value)]
        return f"{self.name}, epoch {epoch}: Dice {', '.join(scores) or 'undefined'}"


@dataclass(frozen=True, eq=False)
class Shown:
    """A case's scan as it is drawn, (slices, rows, columns) or with three colours, in [0, 1].

    pixel_mm: a pixel's width, None of images.
    """

    image: np.ndarray
    aspect: float
    letters: Letters | None
    pixel_mm: float | None


def show_scan(case: Case, setup: Setup) -> Shown:
    """In the plan's orientation, with the plan's intensities; images of three channels in colour."""
    plan = setup.plan
    oriented = reader_of(case.images).voxels(len(plan.channels)).oriented(plan.orientation)
    _, rows_mm, columns_mm = oriented.grid.spacing
    colour = plan.kind == "images" and len(plan.channels) == 3
    channels = [scale(values) for scale, values in zip(plan.intensity, oriented.values(), strict=True)]
    letters = LETTERS[NAMES.index(plan.plane)] if plan.kind == "volumes" else None
    pixel_mm = columns_mm if plan.kind == "volumes" else None
    return Shown(np.stack(channels, axis=-1) if colour else channels[0], rows_mm / columns_mm, letters, pixel_mm)


class Previews:
    """`previews/CASE/epoch_005.png` in the run's folder, bounded in number; a resumed run goes on with its cases."""

    def __init__(self, run: Path, setup: Setup):
        self.folder, self.setup = run / "previews", setup
        self.names: set[str] = set()
        self.last = 0
        self.seen: list[Seen] = []

    def go_on(self, epoch: int) -> None:
        """After so many epochs, with their cases. What a killed run has drawn since is drawn again."""
        drawn = [int(path.stem.rpartition("_")[2]) for path in self.folder.glob("*/epoch_*.png")]
        self.last = max((number for number in drawn if number <= epoch), default=0)
        self.names = {path.name for path in self.folder.glob("*/")} if self.last else set()

    def begin(self, ranks: Ranks = ALONE) -> None:
        """Another validation starts, of whose cases each rank sees some."""
        self.seen, self.names = [], ranks.told(lambda: self.names)

    def end(self, ranks: Ranks = ALONE) -> None:
        """What all of them saw."""
        self.seen = self._worst([each for seen in ranks.all(self.seen) for each in seen])

    def see(self, name: str, found: np.ndarray, truth: np.ndarray, dice: Mapping[str, float]) -> None:
        """A case that was validated: what was found and what is there, (slices, rows, columns)."""
        if self.names and name not in self.names:
            return
        labelled = truth > 0
        places = slices_to_show(labelled if labelled.any() else found > 0)
        mine, true = (np.maximum(each[places], 0) for each in (found, truth))
        self.seen = self._worst([*self.seen, Seen(name, tuple(places), len(truth), mine, true, dice)])

    def _worst(self, seen: list[Seen]) -> list[Seen]:
        return sorted(seen, key=lambda each: (each.mean, each.name))[:WATCHED]

    def draw(self, epoch: int) -> dict[str, Path]:
        """The pictures of this epoch by case; none where it was not validated, or the last ones are not long ago."""
        epochs = self.setup.config.train.epochs
        if not self.seen or (self.last and epoch < epochs and epoch - self.last < math.ceil(epochs / MOST)):
            return {}
        self.last, self.names = epoch, {each.name for each in self.seen}
        drawn = {each.name: self._draw(each, epoch) for each in self.seen}
        return {name: path for name, path in drawn.items() if path is not None}

    def _draw(self, seen: Seen, epoch: int) -> Path | None:
        """Draw a case; should its scan be gone by now, the training goes on without, and a `VptWarning` says so."""
        try:
            return self._drawn(seen, epoch)
        except VptError as error:
            warnings.warn(f"no preview in epoch {epoch}: {error}", VptWarning, stacklevel=2)
            return None

    def _drawn(self, seen: Seen, epoch: int) -> Path:
        path = self.folder / seen.name / f"epoch_{epoch:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset = self.setup.dataset
        case = dataset.case(seen.name)
        if not isinstance(case, Case):
            raise VptError(f"{seen.name}: no scan with a mask")
        shown = show_scan(case, self.setup)
        write_preview(
            path,
            shown.image[list(seen.places)],
            seen.found,
            seen.truth,
            list(dataset.labels.values()),
            seen.title(epoch),
            shown.aspect,
            shown.letters,
            (seen.places, seen.depth),
            shown.pixel_mm,
        )
        return path
