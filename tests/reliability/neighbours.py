"""What others do to the files and folders of a command: names, links, pipes, races, signals, folders that move.

The trials are run by `surroundings.py`.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from kills import _as_command, _wait, differing_masks, differing_runs
from surroundings import Place, Said, Trial, judged, whole

LONG = ("--set", "train.max_steps=60", "--set", "train.save_every=5")
WAITED = 400.0  # seconds for whatever is waited for
NAMES = (
    *("[bold]x", "[red", "{0}", "%s", "*", "?", "[ab]", "a b", "-rf", "--help", "~", "$HOME", '"q"', "'q'", "a&b"),
    *("=cmd", "a,b", "a;b", "\u00e9", "\u00df", "CON", "predictions", "failures", "log", "name.with.dots"),
    *("<script>alert(1)", "x" * 190),
)
UNFIT = ("line\nx", "escape\x1b[31m", "bell\x07", "tab\tx", "\u202egnp", "\u2066gnp", "x" * 203)
LINKS = ("predictions.json", "failures.json", "predictions.csv")


# --- names ------------------------------------------------------------------------------------------------------------


def odd_names(place: Place) -> Iterator[str]:
    """Every name that a file may have is answered, or refused by it, and nothing of it moves the terminal."""
    scans, out = place.new("names"), place.no("named")
    source = sorted(place.scans.iterdir())[0]
    for name in (*NAMES, *UNFIT):
        shutil.copy(source, scans / f"{name}_0000.nii.gz")
    said = place.vpt(place.predict(out, "--report", "--preview", scans=scans))
    yield from judged(said, 1, f"{len(NAMES)} of {len(NAMES) + len(UNFIT)} scans segmented")
    if raw := {letter for letter in said.text if (letter < " " and letter not in "\n\r") or letter in "\u202e\u2066"}:
        yield f"printed as they are: {raw}"
    if missing := [name for name in NAMES if not (out / f"{name}.nii.gz").exists()]:
        yield f"no masks of {missing}"
    if "<script>alert(1)" in (out / "report.html").read_text(encoding="utf-8"):
        yield "a name is a script in report.html"
    yield from judged(place.vpt(["evaluate", out, out, "--out", place.no("scores")]), (0, 1))


def odd_cases(place: Place) -> Iterator[str]:
    """The same names, of cases that are trained on, with labels that are called like markup."""
    data, out = place.new("odd"), place.no("[bold run")
    images, masks = sorted(place.scans.iterdir()), sorted((place.data / "labelsTr").iterdir())
    for folder in ("imagesTr", "labelsTr"):
        (data / folder).mkdir()
    for k, name in enumerate(NAMES[:20]):
        image = nib.load(images[k % 6])
        other = nib.Nifti1Image(
            np.asarray(image.dataobj) + k, image.affine, image.header
        )  # a scan given twice is refused
        nib.save(other, data / "imagesTr" / f"{name}_0000.nii.gz")
        shutil.copy(masks[k % 6], data / "labelsTr" / f"{name}.nii.gz")
    said = json.loads((place.data / "dataset.json").read_text())
    said["labels"] = {"background": 0, "[bold]<b>x": 1, "{0}%s": 2}
    (data / "dataset.json").write_text(json.dumps(said))
    for words in (["check", data], place.train(out, data=data), ["info", out]):
        yield from judged(place.vpt(words), 0, "[bold]<b>x")
    if "<b>x" in (out / "report.html").read_text(encoding="utf-8"):
        yield "a label is markup in report.html"


def twins(place: Place) -> Iterator[str]:
    """Two names that look alike, or have one mask."""
    first, second = sorted(place.scans.iterdir())[:2]
    for names in (("\u00e9_0000.nii.gz", "e\u0301_0000.nii.gz"), ("a_0000.nii.gz", "a_0000.NII.GZ")):
        scans = place.new("twins")
        for source, name in zip((first, second), names, strict=True):
            shutil.copy(source, scans / name)
        yield from judged(place.vpt(place.predict(place.no("of twins"), scans=scans)), 1, "the second scan called")


# --- links and pipes --------------------------------------------------------------------------------------------------


def links_in_output(place: Place) -> Iterator[str]:
    """What links in an output folder lead to is not written into."""
    precious, out = place.new("precious") / "a.txt", place.new("linked")
    precious.write_text("mine")
    for name in (*LINKS, "blobs_000.nii.gz"):
        (out / name).symlink_to(precious)
    yield from judged(place.vpt(place.predict(out, "--overwrite")), 0)
    yield from differing_masks(out, place.masks)
    (out / "log.txt").unlink()
    (out / "log.txt").symlink_to(precious)
    yield from judged(place.vpt(place.predict(out, "--overwrite")), 1, "log.txt: a link")
    run = place.copied(place.model, "linked run")
    (run / "train.log").unlink()
    (run / "train.log").symlink_to(precious)
    yield from judged(place.vpt(["train", "--resume", "--out", run]), 1, "train.log: a link")
    if precious.read_text() != "mine":
        yield "a file outside was written into"


def over_the_scans(place: Place) -> Iterator[str]:
    """Masks do not replace the scans, by whatever way to them."""
    scans = place.new("same")
    for path in place.scans.iterdir():
        shutil.copy(path, scans / path.name.replace("_0000", ""))
    before = {path: path.read_bytes() for path in scans.iterdir()}
    one = sorted(before)[0]
    link = place.no("alias.nii.gz")
    link.symlink_to(one)
    for out, given in ((scans, scans), (one, one), (link, one)):
        yield from judged(place.vpt(place.predict(out, "--overwrite", scans=given)), 1, "would replace the scans")
    yield from (f"{path.name} has changed" for path, content in before.items() if path.read_bytes() != content)


def no_places(place: Place) -> Iterator[str]:
    circle = place.no("circle")
    circle.symlink_to(circle)
    for out in (circle, Path("/proc/x"), Path("/dev/null"), Path("/dev/null/x"), Path("/dev/stdout")):
        yield from judged(place.vpt(place.train(out)), 1)
        yield from judged(place.vpt(place.predict(out)), 1)
    for out in (place.data, Path("/")):
        yield from judged(place.vpt(place.train(out)), 1, "the folder is not empty")
    for words in (["check", circle], ["info", circle], place.predict(place.no("x"), scans=circle)):
        yield from judged(place.vpt(words), 1)


def in_place_of(place: Place, make: Callable[[Path], None]) -> Iterator[str]:
    """A pipe, a device, a folder or a link to nothing where a file is read."""
    model, data, scans = (
        place.copied(source, name)
        for source, name in ((place.model, "a model"), (place.data, "a set"), (place.scans, "some scans"))
    )
    for path, words in (
        (model / "best.safetensors", ["info", model]),
        (data / "split.json", ["check", data]),
        (data / "dataset.json", place.train(place.no("never"), data=data)),
        (scans / "blobs_000_0000.nii.gz", place.predict(place.no("of some"), scans=scans)),
        (data / "labelsTr" / "blobs_000.nii.gz", ["check", data]),
        (place.new("configs") / "c.yaml", ["train", place.folder / "configs" / "c.yaml", "--out", place.no("never")]),
    ):
        kept = path.read_bytes() if path.exists() else None
        path.unlink(missing_ok=True)
        make(path)
        yield from judged(place.vpt(words), 1)
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        if kept is not None:
            path.write_bytes(kept)


# --- races, signals, and folders that move ----------------------------------------------------------------------------


def started(place: Place, words: list[str], log: str) -> int:
    child = os.fork()
    if child == 0:
        _as_command([str(word) for word in words], place.folder / log)
    return child


def ended(place: Place, child: int, log: str) -> Said:
    code = _wait(child, WAITED)
    if code is None:
        os.kill(child, signal.SIGKILL)
        _wait(child, WAITED)
    said = (place.folder / log).read_text(errors="replace")
    return Said(-1 if code is None else code, said, log)


def until(held: Callable[[], bool]) -> None:
    end = time.monotonic() + WAITED
    while not held() and time.monotonic() < end:
        time.sleep(0.02)


def two_at_once(place: Place, command: str) -> Iterator[str]:
    """One folder for two commands: both make the same, or the second is refused."""
    out, link = place.new("both"), place.no("the same")
    link.symlink_to(out)
    words: dict[str, Callable[[Path], list[str]]] = {
        "train": place.train,
        "predict": lambda path: place.predict(path, "--continue"),
        "evaluate": lambda path: ["evaluate", str(place.masks), str(place.masks), "--out", str(path)],
    }
    children = [started(place, words[command](path), f"log-{k}") for k, path in enumerate((out, link))]
    said = [ended(place, child, f"log-{k}") for k, child in enumerate(children)]
    for each in said:
        yield from judged(each, (0, 1) if command == "train" else 0)
    if all(each.code for each in said):
        yield f"neither ended well\n{said[0].text}\n{said[1].text}"
    yield from whole(out)
    if command == "train":
        yield from differing_runs(out, place.model)
    if command == "predict":
        yield from differing_masks(out, place.masks)


def in_training(place: Place, act: Callable[[int, Path, Path], None], data: Path | None = None) -> Said:
    """A training in `moving`, on which `act` is called with its process, run and data once it has saved a step."""
    data, out = data or place.copied(place.data, "its data"), place.no("moving")
    child = started(place, place.train(out, *LONG, data=data), "log-moving")
    state = out / "state" / "last.safetensors"
    until(state.exists)
    first = state.stat().st_mtime_ns
    until(lambda: state.exists() and state.stat().st_mtime_ns > first)
    act(child, out, data)
    return ended(place, child, "log-moving")


def told(place: Place, number: int) -> Iterator[str]:
    said = in_training(place, lambda child, run, data: os.kill(child, number))
    yield from judged(said, 128 + number, "interrupted in epoch", "continue with")
    yield from whole(place.folder / "moving")


def terminal_closed(place: Place) -> Iterator[str]:
    """The window of a terminal is closed while a bar is drawn in it."""
    out = place.no("in a window")
    child, window = pty.fork()
    if child == 0:
        _in_terminal(place.train(out, *LONG))
    os.set_blocking(window, False)

    def saved() -> bool:
        try:
            os.read(window, 65536)
        except BlockingIOError:
            pass
        except OSError:
            return True
        return (out / "state" / "previous.safetensors").exists()

    until(saved)
    os.close(window)
    code = _wait(child, WAITED)
    log = (out / "train.log").read_text() if out.exists() else ""
    yield from judged(Said(-1 if code is None else code, log, "train"), 129, "interrupted in epoch")
    yield from whole(out)


def _in_terminal(words: list[str]) -> None:
    import sys

    from vpt.cli import main

    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    sys.argv = ["vpt", *words]
    try:
        main()
    except SystemExit as left:
        os._exit(int(left.code or 0))
    finally:
        os._exit(99)


def moved(place: Place, what: str) -> Iterator[str]:
    """The run's folder is renamed, removed, or replaced by another run while it trains."""
    aside = place.no("aside")

    def act(child: int, run: Path, data: Path) -> None:
        shutil.rmtree(run, ignore_errors=True) if what == "removed" else run.rename(aside)
        if what == "replaced":
            shutil.copytree(place.model, run)
            shutil.copytree(aside / "cache", run / "cache")

    said = in_training(place, act)
    yield from judged(said, 1, *(() if what == "replaced" else ("the run's folder is gone",)))  # or its slices are
    if what == "replaced":
        shutil.rmtree(place.folder / "moving" / "cache")
        yield from differing_runs(place.folder / "moving", place.model)
    if what != "removed":
        yield from whole(aside)
        yield from judged(place.vpt(["train", "--resume", "--out", aside]), 0)


def with_changed_data(place: Place, change: Callable[[Path], None], code: int, *holding: str) -> Iterator[str]:
    """A training that was told to stop is resumed, and its data are no longer what they were."""
    in_training(place, lambda child, run, data: os.kill(child, signal.SIGTERM))
    change(place.folder / "its data")
    yield from judged(place.vpt(["train", "--resume", "--out", place.folder / "moving"]), code, *holding)


def _touched(data: Path) -> None:
    for path in data.rglob("*"):
        os.utime(path)


def _brighter(data: Path) -> None:
    path = data / "imagesTr" / "blobs_000_0000.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + 500, image.affine, image.header), path)


def _renamed_labels(data: Path) -> None:
    said = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps(said | {"labels": {"background": 0, "bright": 1, "dark": 2}}))


def _without_a_mask(data: Path) -> None:
    (data / "labelsTr" / "blobs_000.nii.gz").unlink()


def trials_of_neighbours(place: Place) -> dict[str, Trial]:
    """By name."""
    instead: dict[str, Callable[[Path], None]] = {
        "a pipe": os.mkfifo,
        "a device": lambda path: path.symlink_to("/dev/zero"),
        "a folder": Path.mkdir,
        "a link to nothing": lambda path: path.symlink_to("nowhere"),
    }
    changed = partial(with_changed_data, place)
    return {
        "odd names of scans": partial(odd_names, place),
        "odd names of cases and labels": partial(odd_cases, place),
        "twins of names": partial(twins, place),
        "links in the output": partial(links_in_output, place),
        "an output that is the input": partial(over_the_scans, place),
        "outputs that can be none": partial(no_places, place),
        **{f"{name} in place of a file": partial(in_place_of, place, make) for name, make in instead.items()},
        **{f"two of `vpt {name}`": partial(two_at_once, place, name) for name in ("train", "predict", "evaluate")},
        **{f"{each.name}": partial(told, place, each) for each in (signal.SIGHUP, signal.SIGXCPU)},
        "the terminal is closed": partial(terminal_closed, place),
        **{f"the run's folder is {what}": partial(moved, place, what) for what in ("renamed", "removed", "replaced")},
        "resumed, data touched": lambda: changed(_touched, 0),
        "resumed, a scan changed": lambda: changed(_brighter, 1, "another data"),
        "resumed, labels renamed": lambda: changed(_renamed_labels, 1, "another set of labels"),
        "resumed, a mask is gone": lambda: changed(_without_a_mask, 1, "without a label"),
    }
