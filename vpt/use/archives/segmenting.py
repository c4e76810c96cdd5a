"""An archive to masks: what is there is found, what is done is left out, the rest is segmented and recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vpt.data.cases import Case
from vpt.data.doubts.headers import unlike_the_plan
from vpt.errors import VptError
from vpt.files import clear_parts_beside, real
from vpt.progress import Tick, silent
from vpt.readers.grid import Grid
from vpt.use.archives.attempts import Failure
from vpt.use.archives.batch import Asked, Outcome, Recorder, Spread, summed_up
from vpt.use.archives.finding import Found, find_archive
from vpt.use.archives.fingerprints import ModelMark
from vpt.use.archives.masks import Answer, Masking, mask_file, never, segment_cases
from vpt.use.archives.outputs import is_single, plan_outputs, require_own_places
from vpt.use.archives.records import is_recorded, require_own_summaries, summarise
from vpt.use.segmenter import Segmenter
from vpt.words import counted

MOST = 20  # scans unlike those of the training that are said; the record has all


def segment_archive(
    segmenter: Segmenter,
    inputs: Sequence[Path],
    out: Path,
    asked: Asked,
    mark: ModelMark,
    progress: Tick = silent,
    spread: Spread | None = None,
) -> Outcome:
    """Masks of all scans at the inputs, or of this process's part of them, into a folder, or of one into a file.

    spread: who answers a folder's cases, by default this process.

    Raises:
        VptError: no scans, answers that may not be replaced, an output that cannot be written; a full disk.
    """
    plan = segmenter.plan
    found = find_archive(inputs, plan.kind, plan.channels, out, asked.series, asked.recursive)
    cases = asked.part.of_all(found.cases)
    if is_single(out) and len(found.cases) == 1:
        return _one(segmenter, cases, out, asked, found, progress)
    batch = MaskBatch(segmenter, out, asked, mark)
    return batch.whole(cases, found, progress, spread)


def _one(segmenter: Segmenter, cases: list[Case], out: Path, asked: Asked, found: Found, progress: Tick) -> Outcome:
    """One mask into one file, with no record beside it."""
    if asked.existing == "continue":
        raise VptError(f"{out}: --continue needs the record of a folder; give a folder as the output")
    overwrite, skip = asked.existing == "overwrite", asked.existing == "skip"
    todo, target = plan_outputs(cases, out, overwrite, skip, asked.form)
    require_own_places(
        {case.name: [target(case), *asked.beside.files(target(case))] for case in cases}, found.files, out
    )
    doubts = Doubts(segmenter)
    failures = segment_cases(_masking(segmenter, target, asked, doubts), todo, progress)
    before = len(cases) - len(todo)
    return Outcome("segmented", len(cases), out, failures, before, doubts.sentences(), list(found.notes))


class Doubts:
    """What is doubted of the headers of scans, said once for all files of the same doubt."""

    def __init__(self, segmenter: Segmenter):
        self.plan = segmenter.plan
        self.told: dict[str, tuple[str, int]] = {}
        self.far: list[str] = []

    def say(self, file: str, text: str) -> None:
        if self.plan.kind == "volumes":
            first, others = self.told.get(text, (file, -1))
            self.told[text] = first, others + 1

    def unlike(self, file: str, grid: Grid) -> list[str]:
        """Sentences of pixels that are far from those of the training."""
        found = list(unlike_the_plan(file, grid, self.plan)) if self.plan.kind == "volumes" else []
        self.far += found if len(self.far) < MOST else []
        return found

    def sentences(self) -> list[str]:
        more = {others: f" (and {counted(others, 'more file')})" for _, others in self.told.values() if others}
        return [*(f"{first}{more.get(others, '')}: {text}" for text, (first, others) in self.told.items()), *self.far]


def _masking(segmenter: Segmenter, target: Callable[[Case], Path], asked: Asked, doubts: Doubts) -> Masking:
    return Masking(
        segmenter,
        target,
        form=asked.form,
        force=asked.force,
        beside=asked.beside,
        say=doubts.say,
        unlike=doubts.unlike,
    )


@dataclass(frozen=True)
class Planned:
    """What is to be done, what failed before or cannot be read, and how many answers stand."""

    todo: list[Case]
    failures: list[Failure]
    done: int


class MaskBatch:
    """Masks of scans in a folder, with their record."""

    def __init__(self, segmenter: Segmenter, out: Path, asked: Asked, mark: ModelMark):
        self.segmenter, self.out, self.asked = segmenter, out, asked
        self.recorder = Recorder(out, mark, asked.part, asked.beside)
        self.doubts = Doubts(segmenter)

    def whole(self, cases: list[Case], found: Found, progress: Tick, spread: Spread | None) -> Outcome:
        """All of these cases, the record begun and summed up, also where the batch breaks off."""
        planned = self.plan(cases, found)
        self.begin(planned, cases, found)
        with summed_up(self.sum_up):
            answered = spread(planned.todo, progress, self.recorder) if spread else self.run(planned.todo, progress)
        return self.conclude(planned, answered, found)

    def plan(self, cases: list[Case], found: Found) -> Planned:
        """What is to be done of these cases, which are this process's part of all that was found."""
        answers = {real(self.out / record.output) for record in self.recorder.known.values() if record.output}
        given = [path for path in found.files if real(path) not in answers]
        require_own_places({case.name: self.files(case) for case in found.cases}, given, self.out)
        existing, form = self.asked.existing, self.asked.form
        resumed = existing == "continue" and is_recorded(self.out)
        todo, _ = plan_outputs(cases, self.out, resumed or existing == "overwrite", existing == "skip", form)
        if existing != "overwrite":
            require_own_summaries(self.out)
        if not resumed:
            return Planned(todo, [], len(cases) - len(todo))
        known = self.recorder.sort(todo, self.files, self.asked.skip_failed)
        return Planned(known.todo, known.failed, len(known.done))

    def begin(self, planned: Planned, cases: list[Case], found: Found) -> None:
        """The record of a batch, and what could not be read of it."""
        clear_parts_beside(file for case in cases for file in self.files(case))
        self.recorder.begin(len(cases))
        for failure in self.asked.part.of_all(found.failures):
            self.recorder.unreadable(failure)
            planned.failures.append(failure)

    def conclude(self, planned: Planned, answered: Sequence[Failure], found: Found) -> Outcome:
        """What became of them all; answered: those that failed of what was to be done."""
        total = len(planned.todo) + len(planned.failures) + planned.done
        failures = [*answered, *planned.failures]
        notes = list(found.notes)
        outcome = Outcome("segmented", total, self.out, failures, planned.done, self.doubts.sentences(), notes)
        self.recorder.end(f"{outcome.answered} of {total} scans segmented")
        return outcome

    def files(self, case: Case) -> list[Path]:
        """What the answer of a case consists of."""
        mask = self.target(case)
        return [mask, *self.asked.beside.files(mask)]

    def target(self, case: Case) -> Path:
        return mask_file(self.out, case, self.asked.form)

    def run(self, cases: Sequence[Case], progress: Tick = silent, stop: Callable[[], bool] = never) -> list[Failure]:
        """Segment and record these cases."""
        masking = _masking(self.segmenter, self.target, self.asked, self.doubts)
        failures = segment_cases(masking, cases, progress, before=self.recorder.note_input, tell=self._tell, stop=stop)
        by_name = {case.name: case for case in cases}
        return [self._beside_earlier(by_name[failure.name], failure) for failure in failures]

    def _beside_earlier(self, case: Case, failure: Failure) -> Failure:
        """Said of a mask that stays, so that nobody takes it for the answer."""
        if not (mask := self.target(case)).exists():
            return failure
        return replace(failure, reason=f"{failure.reason}; {mask.name}, which lies there, is an earlier answer")

    def _tell(self, case: Case, found: Answer | Failure) -> None:
        if isinstance(found, Failure):
            self.recorder.failed(case, self._beside_earlier(case, found))
        else:
            self.recorder.answered(case, found)

    def sum_up(self) -> None:
        summarise(self.out)
