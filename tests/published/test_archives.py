"""An archive is unpacked below one folder, or refused before a file of it is written."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections import namedtuple
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from vpt.errors import VptError
from vpt.published import archives

FILES = {"set/images/a.png": b"picture" * 50, "set/README.txt": b"", "set/deep/er/b.nii.gz": bytes(range(256)) * 9}
CLUTTER = {"__MACOSX/set/images/._a.png": b"x", "set/._README.txt": b"x", "set/.DS_Store": b"x"}


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        for name, data in files.items():
            content.writestr(name, data)
    return path


def tarred(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as content:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            content.addfile(info, io.BytesIO(data))
    return path


MAKERS: dict[str, Callable[[Path, Mapping[str, bytes]], Path]] = {
    "set.zip": zipped,
    "set.tar": tarred,
    "set.tgz": tarred,
}


@pytest.fixture
def to(tmp_path: Path) -> Path:
    (tmp_path / "to").mkdir()
    return tmp_path / "to"


def unpacked(to: Path) -> dict[str, bytes]:
    return {path.relative_to(to).as_posix(): path.read_bytes() for path in to.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", MAKERS)
def test_files_come_out_as_they_went_in_without_what_file_managers_leave(name: str, tmp_path: Path, to: Path) -> None:
    archives.extract(MAKERS[name](tmp_path / name, {**FILES, **CLUTTER}), to)

    assert unpacked(to) == FILES


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("path", ["../out.png", "/tmp/out.png", "set/../../out.png", "C:/out.png"])
def test_a_path_that_leads_out_is_refused_before_anything_is_written(
    name: str, path: str, tmp_path: Path, to: Path
) -> None:
    archive = MAKERS[name](tmp_path / name, {**FILES, path: b"bad"})

    with pytest.raises(VptError, match="leads out of its folder; get the data from a source you trust"):
        archives.extract(archive, to)
    assert unpacked(to) == {}
    assert sorted(each.name for each in tmp_path.iterdir()) == [name, "to"]


def test_a_path_with_backslashes_is_one_with_folders(tmp_path: Path, to: Path) -> None:
    archives.extract(zipped(tmp_path / "set.zip", {"set\\images\\a.png": b"x"}), to)
    assert unpacked(to) == {"set/images/a.png": b"x"}

    with pytest.raises(VptError, match="leads out of its folder"):
        archives.extract(zipped(tmp_path / "bad.zip", {"set\\..\\..\\a.png": b"x"}), to)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_of_a_tar_are_refused(kind: bytes, tmp_path: Path, to: Path) -> None:
    archive = tarred(tmp_path / "set.tar", FILES)
    with tarfile.open(archive, "a") as content:
        info = tarfile.TarInfo("set/link")
        info.type, info.linkname = kind, "/etc"
        content.addfile(info)

    with pytest.raises(VptError, match="set/link is a link or a device"):
        archives.extract(archive, to)
    assert unpacked(to) == {}


def test_links_of_a_zip_are_refused(tmp_path: Path, to: Path) -> None:
    archive = zipped(tmp_path / "set.zip", FILES)
    with zipfile.ZipFile(archive, "a") as content:
        info = zipfile.ZipInfo("set/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        content.writestr(info, "/etc")

    with pytest.raises(VptError, match="set/link is a link or a device"):
        archives.extract(archive, to)
    assert unpacked(to) == {}


def test_more_than_the_disk_holds_is_refused_before_anything_is_written(
    tmp_path: Path, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(1 << 20))
    archive = zipped(tmp_path / "bomb.zip", {"zeros": bytes(4 << 20)})
    assert archive.stat().st_size < 10_000

    with pytest.raises(VptError, match="unpacked it takes 4 MB, 1 MB are free"):
        archives.extract(archive, to)
    assert unpacked(to) == {}


def test_a_file_that_is_larger_than_announced_is_cut_off_and_refused(tmp_path: Path, to: Path) -> None:
    archive = zipped(tmp_path / "liar.zip", {"zeros": bytes(1 << 20)})
    content = archive.read_bytes().replace((1 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    archive.write_bytes(content)

    with pytest.raises(VptError, match=r"liar\.zip: "):
        archives.extract(archive, to)
    assert (to / "zeros").stat().st_size <= 1000


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", MAKERS)
def test_a_name_twice_is_refused(name: str, tmp_path: Path, to: Path) -> None:
    archive = MAKERS[name](tmp_path / name, {"set/a.png": b"1", "set/./a.png": b"2"})

    with pytest.raises(VptError, match=r"set/a\.png is in it twice"):
        archives.extract(archive, to)
    assert unpacked(to) == {}


@pytest.mark.parametrize("name", MAKERS)
def test_damage_is_one_sentence(name: str, tmp_path: Path, to: Path) -> None:
    archive = MAKERS[name](tmp_path / name, FILES)
    whole = archive.read_bytes()
    boundary = 512 * 3 if name.endswith(".tar") else len(whole) // 2  # of a tar the first two files are whole then
    archive.write_bytes(whole[:boundary])
    with pytest.raises(VptError, match=r"cannot be unpacked \(.*\); copy or download it again"):
        archives.extract(archive, to)

    archive.write_bytes(b"<html>Please log in</html>")
    with pytest.raises(VptError, match=r"cannot be unpacked \(.*\); copy or download it again"):
        archives.extract(archive, to)


def test_a_wrong_checksum_is_damage(tmp_path: Path, to: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as content:
        content.writestr("a", b"A" * 1000)
    (tmp_path / "set.zip").write_bytes((tmp_path / "set.zip").read_bytes().replace(b"AAAA", b"AAAB", 1))

    with pytest.raises(VptError, match="cannot be unpacked"):
        archives.extract(tmp_path / "set.zip", to)
