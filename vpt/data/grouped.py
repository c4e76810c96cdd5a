"""The groups of cases that a training treats alike, and those by which it chooses its best epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vpt.data.cases import SegmentationSet
from vpt.data.groups import group_doubts, read_grouping
from vpt.data.labelled import LabelledSet
from vpt.data.splits import Splits
from vpt.errors import VptError
from vpt.files import holds_file, read_json, write_json
from vpt.scores.groups import SMALL, Grouping, large_of, members_of
from vpt.words import agreeing, counted, listed

WRITTEN = "groups.json"  # in a run's folder
SETTINGS = ("fair.by=", "fair.groups")


@dataclass(frozen=True)
class Groups:
    """names: of the groups, in order; of: training or validation case -> its group; choosing: those by which the best
    epoch is chosen, none where it is chosen by all cases together.
    """

    names: tuple[str, ...]
    of: Mapping[str, str]
    choosing: tuple[str, ...] = ()

    def numbers(self, cases: Sequence[str]) -> list[int]:
        return [self.names.index(self.of[case]) for case in cases]

    def chosen_by(self, cases: Sequence[str]) -> dict[str, list[int]]:
        """Group that chooses -> the places of its cases among these."""
        return {group: [k for k, case in enumerate(cases) if self.of[case] == group] for group in self.choosing}

    def counts(self, cases: Sequence[str]) -> str:
        """`f 12, m 8`; of groups by class `f, ill 3; f, well 9`."""
        own = [self.of[case] for case in cases]
        between = "; " if any("," in name for name in self.names) else ", "
        return between.join(f"{name} {own.count(name)}" for name in self.names)

    def doubts(self, training: Sequence[str], validation: Sequence[str]) -> Iterator[str]:
        """Groups that may be one or none, that teach nothing, or by which no epoch is chosen although others choose."""
        yield from (f"fair: {doubt}" for doubt in group_doubts(self.names))
        for side, cases in (("training", training), ("validation", validation)):
            own = {self.of[case] for case in cases}
            if none := [name for name in self.names if name not in own] if own else []:
                yield f"fair: no {side} case is in {listed(none)}"
        there = {self.of[case] for case in validation}
        small = [name for name in self.names if name in there and name not in self.choosing]
        if self.choosing and small:
            yield f"fair: {listed(small)}: fewer than {SMALL} patients validate, so they choose no epoch"

    def write(self, run: Path) -> None:
        write_json(run / WRITTEN, {"names": self.names, "of": dict(self.of), "choosing": self.choosing})

    @classmethod
    def written(cls, run: Path) -> Groups:
        found = read_json(run / WRITTEN)
        return cls(tuple(found["names"]), found["of"], tuple(found["choosing"]))


def read_groups(fair: Any, dataset: SegmentationSet | LabelledSet, splits: Splits) -> Groups:
    """The groups by the column that a `fair` section names, of all cases that train or validate.

    Raises:
        VptError: what `read_grouping` refuses; cases without a group; a single group; `by_class` where a case may have
            no class or several; too few patients for the worst group to choose.
    """
    cases = [*splits.train, *splits.val]
    grouping = _read(fair, dataset, cases)
    if grouping.without:
        raise VptError(
            f"fair.by={fair.by}: {len(grouping.without)} of {len(cases)} training and validation cases "
            f"{agreeing(len(grouping.without), 'have')} no value "
            f"({listed(grouping.without, 3)}); add them to the CSV, or take them out of train and val"
        )
    if fair.splits_classes:
        grouping = _by_class(grouping, dataset)
    names = tuple(members_of(cases, grouping))
    if len(there := {grouping.of[name] for name in splits.train}) < 2:
        raise VptError(
            f"fair.by={fair.by}: all training cases are in one group ({listed(there)}), so there is none to treat "
            "like it; choose another column, or leave fair out"
        )
    choosing = _choosing(fair, grouping, dataset, splits.val) if fair.choose == "worst" and splits.val else ()
    return Groups(names, dict(grouping.of), choosing)


def _read(fair: Any, dataset: SegmentationSet | LabelledSet, cases: Sequence[str]) -> Grouping:
    described = [path for path in (dataset.root / "dataset.json",) if holds_file(path)]
    where: dict[str, Any] = {"file": fair.groups, "columns": dataset.columns, "described": described}
    return read_grouping(fair.by, cases, dataset.patient, **where, settings=SETTINGS)


def _by_class(grouping: Grouping, dataset: SegmentationSet | LabelledSet) -> Grouping:
    """The groups of each class apart."""
    if not isinstance(dataset, LabelledSet) or dataset.target != "classes":
        found = "masks" if isinstance(dataset, SegmentationSet) else dataset.target
        raise VptError(f"fair.by_class: is of one class a case, found {found}; leave it out")
    of = {name: f"{group}, {dataset.classes[dataset.case(name).target[0]]}" for name, group in grouping.of.items()}
    return replace(grouping, of=of)


def _choosing(
    fair: Any, grouping: Grouping, dataset: SegmentationSet | LabelledSet, validation: Sequence[str]
) -> tuple[str, ...]:
    members = members_of(validation, grouping)
    large = large_of(members, [dataset.patient(name) for name in validation])
    if len(large) < 2:
        raise VptError(
            f"fair.by={fair.by}: {len(large)} of {counted(len(members), 'group')} with {SMALL} validation patients or "
            "more, too few for the worst group to choose the best epoch; set fair.choose=mean, or validate with more "
            "cases"
        )
    return tuple(large)
