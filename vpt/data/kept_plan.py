"""A plan that was made for other cases, applied to these as it is: prompts know no other images than it makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vpt.data.doubts.headers import another_size
from vpt.data.doubts.values import Expected, doubt_of
from vpt.data.plan import Plan
from vpt.data.planned import FINGERPRINTED, Planned, Wishes, spread
from vpt.data.planning import sampling_of
from vpt.data.values import values_of
from vpt.errors import VptError
from vpt.progress import Tick, silent
from vpt.readers import reader_of
from vpt.words import counted, listed


def keep_plan(plan: Plan, dataset: Planned, cases: Sequence[Any], wishes: Wishes, progress: Tick = silent) -> Plan:
    """The same plan for the training cases of another data set; only how their slices are drawn is chosen for them.

    Raises:
        VptError: another kind or other channels than the plan's; mm or values of up to 40 volumes or 100 images that do
            not look like those that it was made for.
    """
    _require_alike(plan, dataset)
    chosen = spread(cases, FINGERPRINTED[dataset.kind])[: FINGERPRINTED[dataset.kind]]
    for done, case in enumerate(chosen, start=1):
        _require_usual(plan, case)
        progress(done, len(chosen), case.name)
    if wishes.slices is not None:
        return plan
    reasons = {what: why for what, why in plan.reasons.items() if what != "sampling"}
    sampling = wishes.sampling
    if sampling is None:
        sampling, reasons["sampling"] = sampling_of(dataset, cases, plan.plane, progress)
    return plan.model_copy(update={"sampling": sampling, "reasons": reasons})


def _require_alike(plan: Plan, dataset: Planned) -> None:
    kept = "the run goes on from an artifact, whose plan is kept"
    if dataset.kind != plan.kind:
        raise VptError(f"{dataset.root}: {dataset.kind}, but {kept}, and it is for {plan.kind}; start anew")
    ours, theirs = ([name.strip().casefold() for name in names] for names in (dataset.channels, plan.channels))
    if len(ours) != len(theirs):
        raise VptError(
            f"{dataset.root}: {counted(len(ours), 'channel')} ({listed(dataset.channels)}), but {kept}, and it has "
            f"{len(theirs)} ({listed(plan.channels)}); give the data the same channels, or start anew"
        )
    if ours != theirs and sorted(ours) == sorted(theirs):
        raise VptError(
            f"{dataset.root}: channels in the order {listed(dataset.channels)}, but {kept}, and there they are "
            f"{listed(plan.channels)}; bring them into that order"
        )


def _require_usual(plan: Plan, case: Any) -> None:
    """What `vpt predict` refuses in a new scan, it refuses here, but as training reads it."""
    reader = reader_of(case.images)
    if text := another_size(reader.grid(), plan):
        raise VptError(f"{reader.name}: {text}")
    if (expected := Expected.by(plan)) is None:
        return
    found = values_of(reader.voxels(len(plan.channels)))
    if doubt := doubt_of(found, expected):
        raise VptError(f"{reader.name}: {doubt.sentence('that the artifact was trained on')}, or start anew")
