"""What a run says before it trains: what it goes on from, whom it treats alike, what could be chosen instead."""

from __future__ import annotations

from vpt.data.splits import fold_count, is_fixed
from vpt.engine.continuing import task_in_words
from vpt.engine.further_task import beside_in_words, shared_labels
from vpt.engine.setup import Setup
from vpt.engine.starting import start_in_words
from vpt.words import counted

FEW = 50  # cases: of fewer a single validation split says little


def starts_of(setup: Setup) -> list[str]:
    """What the run goes on from, and the groups that it treats alike."""
    start, groups, splits, said = setup.start, setup.groups, setup.splits, list[str]()
    if start is not None:
        adds = setup.config.start.adds
        said.append(task_in_words(start, setup.config) if adds else start_in_words(start, setup.dataset))
    if setup.earlier:
        said.append(beside_in_words(setup.config, setup.earlier))
        said += shared_labels(setup.dataset.labels, setup.earlier)
    if groups:
        fair = setup.fair
        sides = f"training {groups.counts(splits.train)}; validation {groups.counts(splits.val)}"
        said.append(f"fair {fair.method}, groups by {fair.by}: {sides}")
    return said


def folds_proposed(setup: Setup) -> list[str]:
    """To train folds, where few cases are there and none is left to test with, to whoever chose no fold."""
    config, splits = setup.config.data, setup.splits
    cases = len(splits.train) + len(splits.val)
    if splits.test or config.fold is not None or config.shots or config.use_val or cases > FEW:
        return []
    if is_fixed(setup.dataset):
        return []
    folds = fold_count(setup.dataset)
    return [
        f"{counted(cases, 'case')} and no test split; `vpt train {config.path} --folds {folds}` scores every case by a "
        "model that has not seen it"
    ]
