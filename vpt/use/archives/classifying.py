"""An archive to probabilities: a table, and in a folder the record beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from vpt.data.cases import Case
from vpt.data.doubts.headers import reader_doubts, scan_doubts
from vpt.errors import VptError
from vpt.progress import Tick, silent
from vpt.readers import reader_of
from vpt.use.archives.attempts import Failure, attempt
from vpt.use.archives.batch import Asked, Outcome, Recorder, Spread, summed_up
from vpt.use.archives.classes import classify_cases
from vpt.use.archives.finding import Found, find_archive
from vpt.use.archives.fingerprints import ModelMark
from vpt.use.archives.image_sets import classify_set, is_image_set
from vpt.use.archives.masks import never
from vpt.use.archives.outputs import is_single, plan_predictions
from vpt.use.archives.records import Record, is_recorded, require_own_summaries, summarise
from vpt.use.archives.tables import write_table
from vpt.use.classifier import Classifier


def classify_archive(
    classifier: Classifier,
    inputs: Sequence[Path],
    out: Path,
    asked: Asked,
    mark: ModelMark,
    progress: Tick = silent,
    spread: Spread | None = None,
) -> Outcome:
    """Probabilities of all scans at the inputs, or of this process's part, into a table or the folder `out`.

    spread: who answers a folder's cases, by default this process.

    Raises:
        VptError: no scans, a table that may not be replaced, an output that cannot be written.
    """
    plan = classifier.plan
    if is_image_set(inputs):
        return classify_set(classifier, inputs[0], out, asked, progress)
    found = find_archive(inputs, plan.kind, plan.channels, out, asked.series, asked.recursive)
    if is_single(out):
        return _table(classifier, found, out, asked, progress)
    batch = ClassBatch(classifier, out, asked, mark)
    return batch.whole(found, progress, spread)


def _table(classifier: Classifier, found: Found, out: Path, asked: Asked, progress: Tick) -> Outcome:
    """One table, with no record beside it."""
    if asked.existing == "continue" or asked.part.of > 1:
        raise VptError(f"{out}: --continue and parts need the record of a folder; give a folder as the output")
    path, cases = plan_predictions(out, asked.existing == "overwrite"), found.cases
    names, probabilities, failures = classify_cases(
        classifier, [(case.name, case.scan) for case in cases], progress, asked.force
    )
    if names:  # else the failures say it all
        write_table(path, classifier, names, probabilities)
    failures += found.failures
    doubts = scan_doubts(_without(cases, failures), plan=classifier.plan)
    total = len(cases) + len(found.failures)
    return Outcome("classified", total, path, failures, doubts=doubts, notes=list(found.notes))


def _without(cases: Sequence[Case], failures: Sequence[Failure]) -> list[Case]:
    failed = {failure.name for failure in failures}
    return [case for case in cases if case.name not in failed]


class ClassBatch:
    """Probabilities of scans in a folder, with their record; the table is made of the record."""

    def __init__(self, classifier: Classifier, out: Path, asked: Asked, mark: ModelMark):
        self.classifier, self.out, self.asked, self.mark = classifier, out, asked, mark
        self.recorder = Recorder(out, mark, asked.part)

    def whole(self, found: Found, progress: Tick, spread: Spread | None) -> Outcome:
        """This process's part of these cases, the record begun and summed up, also where the batch breaks off."""
        asked, cases = self.asked, self.asked.part.of_all(found.cases)
        unreadable = asked.part.of_all(found.failures)
        resumed = asked.existing == "continue" and is_recorded(self.out)
        shared = asked.part.of > 1 and is_recorded(self.out)
        plan_predictions(self.out, resumed or shared or asked.existing == "overwrite")
        if asked.existing != "overwrite":
            require_own_summaries(self.out)
        left = self.recorder.sort(cases, lambda case: [], asked.skip_failed) if resumed else None
        todo, failed, done = (left.todo, left.failed, len(left.done)) if left else (cases, [], 0)
        self.recorder.begin(len(cases))
        for failure in unreadable:
            self.recorder.unreadable(failure)
        with summed_up(partial(self.sum_up, {case.name for case in found.cases})):
            answered = spread(todo, progress, self.recorder) if spread else self.run(todo, progress)
            failures = [*answered, *unreadable, *failed]
        doubts = scan_doubts(_without(todo, failures), self.classifier.plan)
        total, path = len(cases) + len(unreadable), self.out / "predictions.csv"
        outcome = Outcome("classified", total, path, failures, done, doubts, list(found.notes))
        self.recorder.end(f"{outcome.answered} of {total} scans classified")
        return outcome

    def files(self, case: Case) -> list[Path]:
        """An answer stands in the record alone."""
        return []

    def run(self, cases: Sequence[Case], progress: Tick = silent, stop: Callable[[], bool] = never) -> list[Failure]:
        """Classify and record these cases."""
        by_name = {case.name: case for case in cases}

        def tell(names: list[str], probabilities: np.ndarray, seconds: float) -> None:
            rows = zip(names, probabilities.tolist(), strict=True)
            classes = self.classifier.classes
            found = ((by_name[name], dict(zip(classes, row, strict=True))) for name, row in rows)
            self.recorder.classified([(case, given, self._doubts(case)) for case, given in found], seconds)

        _, _, failures = classify_cases(
            self.classifier,
            [(case.name, case.scan) for case in cases],
            progress,
            self.asked.force,
            before=lambda name: self.recorder.note_input(by_name[name]),
            tell=tell,
            fail=lambda failure: self.recorder.failed(by_name[failure.name], failure),
            stop=stop,
        )
        return failures

    def _doubts(self, case: Case) -> tuple[str, ...]:
        found = attempt(case.name, case.images[0], lambda: reader_doubts(reader_of(case.scan), self.classifier.plan))
        return () if isinstance(found, Failure) else tuple(found)

    def sum_up(self, names: set[str] | None = None) -> None:
        """names: the cases that the table may hold, by default all."""
        summarise(self.out, partial(self._write, names=names))

    def _write(self, records: Mapping[str, Record], names: set[str] | None) -> None:
        """Only what this model has answered: probabilities of another do not belong into one table."""
        own = [
            record
            for record in records.values()
            if record.status == "done"
            and (record.model_sha256, record.settings) == (self.mark.sha256, self.mark.settings)
            and (names is None or record.case in names)
        ]
        if own:
            found = np.array([[record.probabilities[name] for name in self.classifier.classes] for record in own])
            write_table(self.out / "predictions.csv", self.classifier, [record.case for record in own], found)
