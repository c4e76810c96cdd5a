"""A data set's files are found, unpacked or fetched; a new folder is whole or absent; sides keep groups together."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from zipfile import ZipFile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server import serving

import vpt.published.material as script
from vpt.backbones import fetch
from vpt.errors import VptError

ORIGIN = script.Origin("Sets", "https://example.org", "1 MB", "CC0", "Nobody (2020)", (script.Archive("set.zip"),))


def zip_of(tmp_path: Path, name: str = "set.zip") -> Path:
    with ZipFile(tmp_path / name, "w") as content:
        content.writestr("Set/images/a.png", b"a")
    return tmp_path / name


def material(tmp_path: Path, source: Path | None, origin: script.Origin = ORIGIN) -> script.Material:
    return script.Material(origin, source, tmp_path / "downloads", Path(mkdtemp(prefix="scratch", dir=tmp_path)))


# --- where the files are ----------------------------------------------------------------------------------------------


def test_a_folder_is_found_in_the_source_however_deep_and_as_the_source_itself(tmp_path: Path) -> None:
    images = tmp_path / "mine" / "Set" / "images"
    images.mkdir(parents=True)

    for source in (tmp_path / "mine", tmp_path / "mine" / "Set", images):
        assert material(tmp_path, source).folder("images") == images


def test_a_folder_is_found_in_an_archive_and_in_a_folder_of_archives(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    archive = zip_of(tmp_path / "mine")

    for source in (archive, tmp_path / "mine"):
        found = material(tmp_path, source).folder("images")
        assert (found / "a.png").read_bytes() == b"a"


def test_what_is_unpacked_already_is_taken_before_the_archive(tmp_path: Path) -> None:
    (tmp_path / "mine" / "images").mkdir(parents=True)
    zip_of(tmp_path / "mine")

    held = material(tmp_path, tmp_path / "mine")
    assert held.folder("images") == tmp_path / "mine" / "images"
    assert list(held.scratch.iterdir()) == []


def test_no_folder_and_two_folders_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(VptError, match=r"expected one folder called images, found none; download set\.zip from https"):
        material(tmp_path, tmp_path / "mine").folder("images")

    (tmp_path / "mine" / "a" / "images").mkdir(parents=True)
    (tmp_path / "mine" / "b" / "images").mkdir(parents=True)
    with pytest.raises(VptError, match=r"expected one folder called images, found .*a/images, .*b/images"):
        material(tmp_path, tmp_path / "mine").folder("images")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gone.zip", r"gone\.zip: no such folder or archive; download set\.zip"),
        ("set.rar", r"set\.rar: neither a folder nor an archive; expected one that ends in \.zip"),
        ("", "Sets lies behind a login: ask them, download set.zip from https://example.org and give"),
    ],
)
def test_what_cannot_be_had_says_how_to_get_it(name: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "set.rar").touch()
    with pytest.raises(VptError, match=sentence):
        material(tmp_path, tmp_path / name if name else None, replace(ORIGIN, login="ask them")).folder("images")


# --- fetched ----------------------------------------------------------------------------------------------------------


def test_an_archive_is_fetched_resumed_verified_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = zip_of(tmp_path).read_bytes()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "PAUSES", (0.0,))
    with serving(content) as server:
        server.cuts = [60]
        known = script.Archive("set.zip", server.url, sha256=hashlib.sha256(content).hexdigest())
        origin = replace(ORIGIN, archives=(known,))
        for _ in range(2):
            assert (material(tmp_path, None, origin).folder("images") / "a.png").read_bytes() == b"a"

        assert server.asked == [None, "bytes=60-"]  # and never again
        assert [path.name for path in (tmp_path / "downloads").iterdir()] == ["set.zip"]

        (tmp_path / "downloads" / "set.zip").unlink()
        wrong = replace(ORIGIN, archives=(replace(known, sha256="0" * 64),))
        with pytest.raises(VptError, match=r"what came has SHA-256 \w{64}, expected 0{64}; it is deleted"):
            material(tmp_path, None, wrong).folder("images")
        assert list((tmp_path / "downloads").iterdir()) == []

        server.errors = [404]
        with pytest.raises(VptError, match=r"404 .*without a network download set\.zip from .* with `--source`$"):
            material(tmp_path, None, origin).folder("images")


# --- the new folder ---------------------------------------------------------------------------------------------------


def test_a_new_folder_is_whole_or_absent(tmp_path: Path) -> None:
    with script.new_folder(tmp_path / "deep" / "new") as (_, new):
        (new / "a").touch()
    assert [path.name for path in (tmp_path / "deep" / "new").iterdir()] == ["a"]

    with pytest.raises(VptError, match="is there already; remove it"), script.new_folder(tmp_path / "deep" / "new"):
        pass

    def fail() -> None:
        with script.new_folder(tmp_path / "other") as (_, new):
            (new / "a").touch()
            raise VptError(f"{new / 'a'}: is wrong")

    with pytest.raises(VptError, match=f"^{tmp_path / 'other' / 'a'}: is wrong$"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_the_terms_name_licence_and_citation() -> None:
    assert ORIGIN.terms.splitlines() == ["Sets (1 MB), https://example.org", "licence: CC0", "cite: Nobody (2020)"]


# --- sides ------------------------------------------------------------------------------------------------------------


def test_sides_have_their_shares_and_their_classes() -> None:
    names = [f"case_{k:03d}" for k in range(100)]
    classes = {name: "rare" if k < 20 else "common" for k, name in enumerate(names)}

    split = script.draw({name: name for name in names}, classes)

    assert {side: len(found) for side, found in split.items()} == {"train": 70, "val": 10, "test": 20}
    rare = {side: Counter(classes[name] for name in found)["rare"] for side, found in split.items()}
    assert rare == {"train": 14, "val": 2, "test": 4}
    assert split == script.draw({name: name for name in reversed(names)}, classes)
    assert split != script.draw({name: name for name in names}, classes, seed=1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=2, max_size=40).filter(lambda found: len(set(found)) > 1))
def test_a_group_is_on_one_side_and_both_main_sides_have_cases(found: list[int]) -> None:
    groups = {f"case_{k:02d}": str(group) for k, group in enumerate(found)}

    split = script.draw(groups)

    assert sorted(name for names in split.values() for name in names) == sorted(groups)
    sides = {(groups[name], side) for side, names in split.items() for name in names}
    assert len(sides) == len(set(found))
    assert split["train"]
    assert split["val"]


def test_one_patient_cannot_be_split() -> None:
    with pytest.raises(VptError, match=r"2 cases of 1 patient, expected at least 2 patients"):
        script.draw({"a": "one", "b": "one"})


def test_a_folder_is_found_beside_what_macos_keeps_and_where_it_was_unpacked_into_one_of_its_name(tmp_path):
    for name in ("__MACOSX/set/images", "images/images"):
        (tmp_path / "mine" / name).mkdir(parents=True)

    assert material(tmp_path, tmp_path / "mine").folder("images") == tmp_path / "mine/images/images"

    (tmp_path / "mine/other/images").mkdir(parents=True)
    with pytest.raises(VptError, match="expected one folder called images, found "):
        material(tmp_path, tmp_path / "mine").folder("images")
