"""Real commands in odd surroundings: limits, environments, closed streams, names, links, races, folders that move.

    python tests/reliability/surroundings.py [--only NAME ...]

Each trial gives `vpt train`, `predict`, `evaluate`, `check`, `watch`, `info` or `fetch` something that a user's machine
or an unkind neighbour may give it, and says what must come of it: the same result as elsewhere, or one sentence. Faults
are a traceback, another exit code, a stranger's file that has changed, a damaged file, and another answer. They are
printed, exit code 1. Trials on mounts are for root. What others do to the folders lies in `neighbours.py`.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hosts import can_begin, report_trials, trial_parser
from kills import SETTINGS, damaged, differing_masks, differing_runs, import_all, left_over, require, run

NOTHING: Mapping[str, str | None] = {}
NOT_SAID = (1, 141)  # exit codes where nobody reads what is printed
Trial = Callable[[], Iterator[str]]


@dataclass(frozen=True)
class Said:
    """What a command left: its exit code and all that it printed; what: its name."""

    code: int
    text: str
    what: str


@dataclass(frozen=True)
class Place:
    """data: a data set; model: a run on it; masks: its scans', by one `vpt predict`; folder: for what is tried."""

    folder: Path
    data: Path
    model: Path
    masks: Path

    @property
    def scans(self) -> Path:
        return self.data / "imagesTr"

    def no(self, name: str) -> Path:
        """A place where nothing is."""
        path = self.folder / name
        path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path, ignore_errors=True)
        return path

    def new(self, name: str) -> Path:
        """An empty folder."""
        self.no(name).mkdir()
        return self.folder / name

    def copied(self, source: Path, name: str) -> Path:
        shutil.copytree(source, self.no(name))
        return self.folder / name

    def train(self, out: Path, *more: str, data: Path | None = None) -> list[str]:
        return ["train", str(data or self.data), "--out", str(out), *SETTINGS, *more]

    def predict(self, out: Path, *more: str, scans: Path | None = None, model: Path | None = None) -> list[str]:
        given = ["-i", str(scans or self.scans), "-o", str(out), "-m", str(model or self.model)]
        return ["predict", *given, "--device", "cpu", *more]

    def vpt(self, words: Sequence[object], begin: Callable[[], None] = lambda: None) -> Said:
        """In a process that is forked from this one."""
        given, log = [str(word) for word in words], self.folder / "log"
        code = run(given, log, begin=begin)
        return Said(code, log.read_text(errors="replace"), given[0])

    def fresh(
        self, words: Sequence[object], around: str = '"$@"', environment: Mapping[str, str | None] = NOTHING
    ) -> Said:
        """In a process that starts anew, by a line of bash in which `"$@"` is the command; None unsets a variable."""
        given = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        known = {key: value for key, value in given.items() if value is not None}
        command = ["/bin/bash", "-c", around, "bash", sys.executable, "-m", "vpt.cli", *map(str, words)]
        done = subprocess.run(command, capture_output=True, env=known, timeout=900)
        return Said(done.returncode, (done.stdout + done.stderr).decode(errors="replace"), str(words[0]))


def judged(said: Said, codes: Sequence[int] | int, *holding: str) -> Iterator[str]:
    """Faults of what a command left: a traceback, another exit code, no word, words that are missing."""
    expected = [codes] if isinstance(codes, int) else list(codes)
    flat = " ".join(said.text.split())
    if "Traceback" in said.text or "Exception ignored" in said.text:
        yield f"{said.what}: a traceback (exit code {said.code})\n{said.text[-3000:]}"
    elif said.code not in expected:
        yield f"{said.what}: exit code {said.code}, expected {expected}\n{said.text[-2000:]}"
    elif lacking := [words for words in holding if words not in flat]:
        yield f"{said.what}: does not say {lacking}\n{said.text[-2000:]}"


def whole(*folders: Path) -> Iterator[str]:
    for folder in folders:
        yield from damaged(folder)
        yield from left_over(folder) if folder.exists() else ()


# --- what surrounds a process -----------------------------------------------------------------------------------------

ENVIRONMENTS: dict[str, dict[str, str | None]] = {
    "an ASCII locale": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "no HOME": {"HOME": None, "USER": None, "LOGNAME": None, "XDG_CACHE_HOME": None},
    "a HOME that is not there": {"HOME": "/nonexistent/x", "XDG_CACHE_HOME": None},
    "a HOME that is a file": {"HOME": "/etc/passwd", "XDG_CACHE_HOME": None},
    "a TMPDIR that is not there": {"TMPDIR": "/nonexistent/x"},
    "no such time zone": {"TZ": "Nowhere/There"},
    "no PATH": {"PATH": ""},
    "COLUMNS=1": {"COLUMNS": "1"},
    "COLUMNS=x": {"COLUMNS": "x"},
    "COLUMNS=0": {"COLUMNS": "0"},
}
CLOSED = {"stdin": '"$@" <&-', "stdout": '"$@" >&-', "stderr": '"$@" 2>&-', "all": '"$@" <&- >&- 2>&-'}
UNREAD = {
    "check into a full disk": ("check", '"$@" > /dev/full', (1,)),
    "check where all is full": ("check", '"$@" > /dev/full 2>&1', (1,)),
    "check | true": ("check", '"$@" | true; exit ${PIPESTATUS[0]}', NOT_SAID),
    "info | head -1": ("info", '"$@" | head -1; exit ${PIPESTATUS[0]}', (0, *NOT_SAID)),
    "predict 2>&1 | true": ("predict", '"$@" 2>&1 | true; exit ${PIPESTATUS[0]}', NOT_SAID),
}
INSIDE = 'unshare --mount --propagation private /bin/bash -c \'{}; exec "$@"\' bash "$@"'
READ_ONLY = "mount --bind {0} {0}; mount -o remount,ro,bind {0}"


def answers(place: Place, around: str = '"$@"', environment: Mapping[str, str | None] = NOTHING) -> Iterator[str]:
    """`vpt predict` in these surroundings makes the masks that it makes elsewhere."""
    out = place.no("answers")
    yield from judged(place.fresh(place.predict(out), around, environment), 0)
    yield from differing_masks(out, place.masks)


def trains(place: Place, around: str) -> Iterator[str]:
    """`vpt train` in these surroundings makes the run that it makes elsewhere."""
    out = place.no("trained")
    said = place.fresh(place.train(out), around)
    yield from judged(said, 0)
    if said.code == 0:
        yield from differing_runs(out, place.model)


def unread(place: Place, command: str, around: str, codes: Sequence[int]) -> Iterator[str]:
    given = {
        "check": ["check", place.data],
        "info": ["info", place.model],
        "predict": place.predict(place.no("unread")),
    }
    yield from judged(place.fresh(given[command], around), codes)


def refused(place: Place, words: Sequence[object], around: str, *holding: str) -> Iterator[str]:
    yield from judged(place.fresh(words, around), 1, *holding)


def bounded(place: Place, bound: int, value: int) -> Iterator[str]:
    """Training, prediction and evaluation under a bound on the process; then the training goes on without it."""
    run_, masks, scores = place.no("run"), place.no("bounded"), place.no("scores")
    begin = partial(resource.setrlimit, bound, (value, value))
    yield from judged(place.vpt(place.train(run_), begin), (0, 1))
    yield from judged(place.vpt(place.predict(masks, "--preview"), begin), (0, 1))
    yield from judged(place.vpt(["evaluate", place.model, "--device", "cpu", "--out", scores], begin), (0, 1))
    yield from whole(run_, masks, scores)
    if not (run_ / "last.safetensors").exists() or (run_ / "state" / "running.json").exists():
        yield from judged(place.vpt(place.train(run_)), 0)
    yield from differing_runs(run_, place.model)


def from_mounts(place: Place) -> dict[str, Trial]:
    hidden = "mount -t tmpfs tmpfs /proc"  # by which torch knows the processor
    closed, tiny = place.new("closed"), "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    shut = INSIDE.format(READ_ONLY.format(closed))
    gone = f'mkdir {place.folder}/gone; cd {place.folder}/gone; rmdir {place.folder}/gone; "$@"'
    return {
        "/dev/shm of 64 kB": partial(
            refused, place, place.train(place.no("tight")), INSIDE.format(tiny), "does not fit into /dev/shm"
        ),
        "/sys hidden": partial(trains, place, INSIDE.format("mount -t tmpfs tmpfs /sys")),
        "/proc hidden": partial(
            refused, place, place.train(place.no("blind")), INSIDE.format(hidden), "/proc is hidden"
        ),
        "data read-only": partial(trains, place, INSIDE.format(READ_ONLY.format(place.data))),
        "a closed folder for a run": partial(
            refused, place, place.train(closed / "run"), shut, "Read-only file system"
        ),
        "a closed folder for masks": partial(
            refused, place, place.predict(closed / "o"), shut, "Read-only file system"
        ),
        "the folder that one is in is gone": partial(refused, place, place.predict(place.no("x")), gone, "is gone"),
    }


def all_trials(place: Place) -> dict[str, Trial]:
    """By name."""
    from neighbours import trials_of_neighbours

    found: dict[str, Trial] = {
        **{name: partial(answers, place, environment=given) for name, given in ENVIRONMENTS.items()},
        **{f"closed: {name}": partial(answers, place, line) for name, line in CLOSED.items()},
        "closed: stderr of a training": partial(trains, place, CLOSED["stderr"]),
        "python -OO": partial(answers, place, 'python=$1; shift; "$python" -OO "$@"'),
        **{name: partial(unread, place, *given) for name, given in UNREAD.items()},
        **{f"{k} open files": partial(bounded, place, resource.RLIMIT_NOFILE, k) for k in (64, 16)},
        **{f"files of {k} kB": partial(bounded, place, resource.RLIMIT_FSIZE, k << 10) for k in (1, 8, 40, 150)},
    }
    return found | (from_mounts(place) if os.geteuid() == 0 else {}) | trials_of_neighbours(place)


def prepared(folder: Path) -> Place:
    from vpt.data.synthetic import make_dataset

    sys.dont_write_bytecode = True  # Python would write half of it where files are bounded
    import_all()
    place = Place(folder, make_dataset(folder / "blobs", cases=6), folder / "model", folder / "masks")
    for words in (place.train(place.model), place.predict(place.masks)):
        said = place.vpt(words)
        require(said.code == 0, said.text)
    return place


def main() -> int:
    only = trial_parser(__doc__).parse_args().only
    if not can_begin(None):
        return 0
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with tempfile.TemporaryDirectory() as folder:
        return report_trials(all_trials(prepared(Path(folder))), only)


if __name__ == "__main__":
    sys.exit(main())
