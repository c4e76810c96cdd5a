"""A file of MedMNIST, from the network or from disk, lies unchanged beside a config that vpt reads."""

from __future__ import annotations

import hashlib
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import prepare_medmnist as script
import pytest
from server import Server, serving

from vpt.backbones import fetch
from vpt.config import load_config
from vpt.data.layouts import read_labelled
from vpt.errors import VptError

KNOWN = script.catalogue()


def npz_of(name: str, size: int = 28, count: int = 6, **changes: Any) -> bytes:
    """A file like the published one of that set, with few images."""
    published, rng = KNOWN[name], np.random.default_rng(0)
    shape = [size if side == "size" else side for side in published.shape]
    several = published.target == "labels"
    arrays: dict[str, np.ndarray] = {}
    for side in ("train", "val", "test"):
        arrays[f"{side}_images"] = rng.integers(0, 255, (count, *shape), np.uint8)
        high, columns = (2, len(published.classes)) if several else (len(published.classes), 1)
        arrays[f"{side}_labels"] = rng.integers(0, high, (count, columns), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{key: value for key, value in (arrays | changes).items() if value is not None})
    return buffer.getvalue()


def publish(monkeypatch: pytest.MonkeyPatch, name: str, size: int, content: bytes) -> None:
    """Have that content be the published file."""
    md5 = KNOWN[name].md5 | {size: hashlib.md5(content).hexdigest()}
    monkeypatch.setattr(script, "catalogue", lambda: KNOWN | {name: replace(KNOWN[name], md5=md5)})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "PAUSES", ())
    with serving(b"") as server:
        monkeypatch.setattr(script, "RECORD", f"http://127.0.0.1:{server.server_port}/files")
        yield server


# --- what is published ------------------------------------------------------------------------------------------------


def test_the_catalogue_has_twelve_flat_and_six_solid_sets() -> None:
    flat = {name: entry for name, entry in KNOWN.items() if not name.endswith("3d")}

    assert (len(flat), len(KNOWN)) == (12, 18)
    assert all(list(entry.md5) == [28, 64, 128, 224] for entry in flat.values())
    assert all(list(KNOWN[name].md5) == [28, 64] for name in KNOWN.keys() - flat.keys())
    assert all(KNOWN[name].shape == ("size",) * 3 for name in KNOWN.keys() - flat.keys())
    every = [md5 for entry in KNOWN.values() for md5 in entry.md5.values()]
    assert len(set(every)) == len(every) == 60
    assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in every)


def test_the_catalogue_says_what_is_asked_of_the_classes() -> None:
    assert {name: entry.target for name, entry in KNOWN.items() if entry.target != "classes"} == {
        "chestmnist": "labels",
        "retinamnist": "grades",
    }
    counts = [len(entry.classes) for entry in KNOWN.values()]
    assert counts == [9, 14, 7, 4, 2, 5, 2, 8, 8, 11, 11, 11, 11, 2, 2, 3, 2, 2]
    assert all(isinstance(each, str) for entry in KNOWN.values() for each in entry.classes)


@pytest.mark.parametrize("name", KNOWN)
def test_the_config_and_the_file_of_every_set_are_read_by_vpt(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = npz_of(name)
    publish(monkeypatch, name, 28, content)
    (tmp_path / "mine.npz").write_bytes(content)

    config = load_config(script.prepare(name, 28, tmp_path / "data", tmp_path / "mine.npz"))

    assert (config.task, config.data.path) == ("classification", tmp_path / "data" / f"{name}.npz")
    found = read_labelled(config.data.path, config.data.target, config.data.classes)
    assert (found.classes, found.target, len(found.cases)) == (KNOWN[name].classes, KNOWN[name].target, 18)


# --- from the network -------------------------------------------------------------------------------------------------


def test_a_set_is_fetched_verified_and_kept(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.content = npz_of("dermamnist", 64)
    publish(monkeypatch, "dermamnist", 64, server.content)

    for _ in range(2):
        config = script.prepare("dermamnist", 64, tmp_path / "new" / "dermamnist")

    assert server.paths == ["/files/dermamnist_64.npz?download=1"]
    assert sorted(path.name for path in config.parent.iterdir()) == ["config.yaml", "dermamnist_64.npz"]
    assert (config.parent / "dermamnist_64.npz").read_bytes() == server.content


def test_another_file_than_the_published_one_is_not_kept(tmp_path: Path, server: Server) -> None:
    server.content = npz_of("dermamnist")

    with pytest.raises(VptError, match=r"what came has MD5 \w+, expected 0744692d530f8e62ec473284d019b0c7"):
        script.prepare("dermamnist", 28, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_no_network_says_how_to_go_without(tmp_path: Path, server: Server) -> None:
    server.errors = [404]

    with pytest.raises(VptError, match=r"404 Not Found.*give it with `--from FILE`$"):
        script.prepare("dermamnist", 28, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


# --- from disk --------------------------------------------------------------------------------------------------------


def test_another_version_is_taken_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.npz").write_bytes(npz_of("retinamnist"))

    for _ in range(2):
        script.prepare("retinamnist", 28, tmp_path / "data", tmp_path / "mine.npz")

    assert (tmp_path / "data" / "retinamnist.npz").samefile(tmp_path / "mine.npz")
    assert re.search(r"warning: .*MD5 \w+, published is bd4c0672f1bba3e3a89f0e4e876791e4", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no archive", r"no \.npz, or damaged"),
        (npz_of("pathmnist")[:-400], r"no \.npz, or damaged"),
        (npz_of("pathmnist", 64), r"train has images \(6, 64, 64, 3\) and labels .*, expected \(N, 28, 28, 3\)"),
        (npz_of("octmnist"), r"images \(6, 28, 28\) and .*, expected \(N, 28, 28, 3\) and \(N, 1\); give the --name"),
        (npz_of("pathmnist", val_labels=np.zeros((5, 1))), r"val has images .* and labels \(5, 1\)"),
        (npz_of("pathmnist", test_labels=None), "no test_images with test_labels"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "mine.npz").write_bytes(content)

    with pytest.raises(VptError, match=sentence):
        script.prepare("pathmnist", 28, tmp_path / "data", tmp_path / "mine.npz")
    assert not (tmp_path / "data").exists()


def test_a_damaged_array_is_found(tmp_path: Path) -> None:
    content = bytearray(npz_of("pathmnist"))
    content[3000] ^= 255
    (tmp_path / "mine.npz").write_bytes(bytes(content))

    with pytest.raises(VptError, match=r"damaged.*; copy or download it again"):
        script.prepare("pathmnist", 28, tmp_path / "data", tmp_path / "mine.npz")


def test_what_is_there_already_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.npz").write_bytes(npz_of("octmnist"))
    config = script.prepare("octmnist", 28, tmp_path / "data", tmp_path / "mine.npz")
    (tmp_path / "other.npz").write_bytes(npz_of("octmnist", count=7))

    with pytest.raises(VptError, match=r"octmnist\.npz: is there already with other content; move it away"):
        script.prepare("octmnist", 28, tmp_path / "data", tmp_path / "other.npz")
    config.write_text(config.read_text() + "seed: 3\n")
    with pytest.raises(VptError, match=r"config\.yaml: is there already and says something else"):
        script.prepare("octmnist", 28, tmp_path / "data", tmp_path / "mine.npz")
    assert config.read_text().endswith("seed: 3\n")


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [
        ("mnist", 28, "mnist: no data set of MedMNIST; choose one of pathmnist, chestmnist"),
        ("pathmnist", 32, "pathmnist: not published in size 32; choose 28 or 64 or 128 or 224"),
        ("organmnist3d", 128, "organmnist3d: not published in size 128; choose 28 or 64"),
        ("pathmnist", 28, r"gone\.npz: no such file; give the \.npz with --from"),
    ],
)
def test_unknown_names_sizes_and_files_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, size: int, sentence: str
) -> None:
    given = ["--name", name, "--size", str(size), "--to", str(tmp_path / "data"), "--from", str(tmp_path / "gone.npz")]
    monkeypatch.setattr(sys, "argv", ["prepare", *given])

    with pytest.raises(SystemExit, match=f"error: .*{sentence}"):
        script.main()
