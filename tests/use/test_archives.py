"""Reading ahead and writing behind change nothing but the time: order, failures, memory, what an interrupt leaves."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from vpt.data.cases import Case
from vpt.errors import VptError
from vpt.use.archives import Failure, attempt, one_ahead
from vpt.use.segmenter import segment_cases

CASES = [Case(name, (Path(f"{name}.nii"),), None) for name in "abcde"]


def wait_for(condition) -> None:
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.002)
    assert condition()


def test_the_next_item_is_made_meanwhile_and_no_other():
    made = []
    with closing(one_ahead(lambda item: made.append(item) or item, range(5))) as takes:
        for k, take in enumerate(takes):
            wait_for(lambda k=k: len(made) == min(k + 2, 5))
            time.sleep(0.01)
            assert made == list(range(min(k + 2, 5)))
            assert take() == k
    assert list(one_ahead(str, [])) == []


def test_errors_arise_at_their_own_item_and_stop_no_other():
    def make(item: int) -> int:
        if item % 2:
            raise VptError(f"item {item}")
        return item

    found = [attempt(str(k), "file", take) for k, take in enumerate(one_ahead(make, range(4)))]
    assert found == [0, Failure("1", "item 1"), 2, Failure("3", "item 3")]


def test_what_found_no_memory_beside_another_is_tried_alone():
    held, tries = threading.Event(), []

    def make(item: int) -> int:
        tries.append(item)
        if item == 3 or (item == 1 and held.is_set()):
            raise MemoryError
        return item

    found = []
    for take in one_ahead(make, range(4)):
        held.set()  # the item taken is in memory
        wait_for(lambda: len(tries) >= 2)
        found.append(attempt("x", "file", take))
        held.clear()
    assert found[:3] == [0, 1, 2]
    assert found[3] == Failure("x", "file: could not be processed (MemoryError); the others were")
    assert tries == [0, 1, 1, 2, 3, 3]


def test_leaving_early_ends_the_thread():
    with closing(one_ahead(str, range(5))) as takes:
        assert next(takes)() == "0"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vpt-read")]


class Steps:
    """A segmenter that notes what happens; `prepare` and `segment_prepared` are all that `segment_cases` uses."""

    def __init__(self, fails=()):
        self.fails, self.seen, self.threads = dict(fails), [], {}

    def note(self, step: str, name: str) -> None:
        self.seen.append((step, name))
        self.threads.setdefault(step, set()).add(threading.current_thread().name)
        if (step, name) in self.fails:
            raise self.fails[step, name]

    def prepare(self, images):
        self.note("read", images[0].stem)
        return images[0].stem

    def segment_prepared(self, scan, box=None):
        self.note("segment", scan)
        return np.full((2, 2), ord(scan), np.uint8)


@pytest.fixture
def run(tmp_path, monkeypatch):
    def run(steps, tick=lambda done, total, note: None, box=None):
        def save(path, labels):
            steps.note("write", path.stem)
            path.write_bytes(labels.tobytes())

        monkeypatch.setattr("vpt.use.segmenter.save_labels", save)
        return segment_cases(steps, CASES, lambda case: tmp_path / f"{case.name}.png", tick, box)

    return run


def test_masks_and_progress_come_in_order_from_three_threads(run, tmp_path):
    steps, ticks = Steps(), []

    def tick(done, total, note):
        assert (tmp_path / f"{note}.png").exists()
        assert not (tmp_path / f"{chr(ord(note) + 1)}.png").exists()
        ticks.append((done, total, note))

    assert run(steps, tick) == []
    assert ticks == [(k + 1, 5, name) for k, name in enumerate("abcde")]
    for step in ("read", "segment", "write"):
        assert [name for what, name in steps.seen if what == step] == list("abcde")
    assert steps.threads["segment"] == {threading.current_thread().name}
    assert all(len(steps.threads[step]) == 1 for step in ("read", "write"))
    assert len(set.union(*steps.threads.values())) == 3
    for k, name in enumerate("abc"):  # one ahead: the scan after the next is read only when this one is done
        assert steps.seen.index(("read", "cde"[k])) > steps.seen.index(("segment", name))


def test_failures_come_in_the_order_of_cases_whatever_failed(run, tmp_path):
    fails = {
        ("write", "a"): OSError(28, "No space left on device"),
        ("segment", "b"): RuntimeError("CUDA out of memory\nmore"),
        ("read", "c"): VptError("c.nii: damaged"),
        ("write", "e"): VptError("e.png: cannot be written"),
    }
    ticks = []
    failures = run(Steps(fails), lambda done, total, note: ticks.append(done))
    assert [failure.name for failure in failures] == ["a", "b", "c", "e"]
    assert failures[1].reason == "b.nii: could not be processed (CUDA out of memory); the others were"
    assert failures[2].reason == "c.nii: damaged"
    assert ticks == [1, 2, 3, 4, 5]
    assert [path.name for path in tmp_path.iterdir()] == ["d.png"]


@pytest.mark.parametrize("step", ["read", "segment", "write"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupt_comes_through_and_earlier_masks_are_whole(run, tmp_path, step, error):
    steps = Steps({(step, "c"): error()})
    with pytest.raises(error):
        run(steps)
    assert sorted(path.name for path in tmp_path.iterdir() if path.stem < "d") == ["a.png", "b.png"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vpt-")]


def test_a_box_that_fails_is_the_failure_of_its_case(run):
    def box(case):
        if case.name == "b":
            raise VptError("no label")

    assert run(Steps(), box=box) == [Failure("b", "no label")]
