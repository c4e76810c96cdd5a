"""`vpt fetch-data`: a task of the Decathlon, from an address or from disk, whole and verified or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Told
from published import write_label_map, write_scan
from server import Server, serving

from vpt.errors import VptError
from vpt.published import msd

TASK = "Task04_Hippocampus"
SHIPPED = Path(__file__).parents[2] / "configs" / "splits" / "hippocampus.json"
SPLIT: dict[str, list[str]] = json.loads(SHIPPED.read_text())
NAMES = sorted(name for names in SPLIT.values() for name in names)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The task as published: the cases of our split, one that is not among them, and one without labels."""
    files = tmp_path_factory.mktemp("files")
    write_scan(files / "scan.nii.gz", 0)
    write_label_map(files / "label.nii.gz", 0, [1, 2])
    return packed(files, [*NAMES, "hippocampus_999"])


def packed(files: Path, names: list[str], more: str = "") -> bytes:
    scan, label = ((files / name).read_bytes() for name in ("scan.nii.gz", "label.nii.gz"))
    content = {
        "name": "Hippocampus",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "numTraining": len(names),
        "training": [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names],
        "test": ["./imagesTs/hippocampus_002.nii.gz"],
    }
    members = {"dataset.json": json.dumps(content).encode(), "imagesTs/hippocampus_002.nii.gz": scan}
    members |= {f"imagesTr/{name}.nii.gz": scan for name in names} | {
        f"labelsTr/{name}.nii.gz": label for name in names
    }
    members |= {more: b"x"} if more else {}
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tarred:
        for name, data in members.items():
            info = tarfile.TarInfo(f"{TASK}/{name}")
            info.size = len(data)
            tarred.addfile(info, io.BytesIO(data))
    return made.getvalue()


@pytest.fixture
def host(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """In the place of the published address; its hash is that of the archive."""
    with serving(archive) as server:
        monkeypatch.setattr(msd, "HOST", server.url.rpartition("/")[0])
        monkeypatch.setitem(msd.TASKS, TASK, ("1 MB", hashlib.md5(archive).hexdigest()))
        yield server


def test_the_command_fetches_it_goes_on_where_it_broke_off_and_says_the_terms(
    host: Server, tmp_path: Path, vpt: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vpt.backbones.fetch.PAUSES", (0.0,))
    host.cuts.append(100_000)
    to = tmp_path / "data" / "hippocampus"

    code, said, _ = vpt("fetch-data", "hippocampus", "--to", to)

    assert code == 0
    assert host.asked == [None, "bytes=100000-"]
    assert host.paths[0].endswith(f"/{TASK}.tar")
    assert "licence: CC BY-SA 4.0\ncite: Antonelli et al." in said
    assert f"{to}: 230 cases are ready (train 182, val 26, test 22), look at them with `vpt check {to}`" in said
    assert json.loads((to / "split.json").read_text()) == SPLIT
    assert len(list((to / "imagesTr").iterdir())) == 230
    assert (to / "imagesTs" / "hippocampus_002.nii.gz").is_file()
    assert (tmp_path / "data" / "downloads" / f"{TASK}.tar").read_bytes() == host.content


def test_what_came_whole_is_not_fetched_again(host: Server, tmp_path: Path) -> None:
    for name in ("first", "second"):
        msd.fetch_task("hippocampus", tmp_path / name)

    assert len(host.asked) == 1


def test_another_hash_leaves_nothing(host: Server, tmp_path: Path) -> None:
    host.content = host.content[:-1] + b"x"

    with pytest.raises(VptError, match=r"what came has MD5 .*, expected .*; it is deleted"):
        msd.fetch_task("hippocampus", tmp_path / "to")

    assert list(tmp_path.iterdir()) == []


def test_a_path_that_leads_out_is_refused_and_nothing_is_left(archive: bytes, tmp_path: Path) -> None:
    write_scan(tmp_path / "scan.nii.gz", 0)
    write_label_map(tmp_path / "label.nii.gz", 0, [1, 2])
    source = tmp_path / f"{TASK}.tar"
    source.write_bytes(packed(tmp_path, NAMES[:3], more="../../outside.txt"))

    with pytest.raises(VptError, match=r"outside\.txt' leads out of its folder"):
        msd.fetch_task("hippocampus", tmp_path / "deep" / "to", source)

    assert not (tmp_path / "deep" / "to").exists()
    assert not list(tmp_path.rglob("outside.txt"))


def test_it_is_taken_from_disk_without_a_network(archive: bytes, tmp_path: Path) -> None:
    source = tmp_path / "mine.tar"
    source.write_bytes(archive)

    msd.fetch_task("hippocampus", tmp_path / "to", source)

    assert json.loads((tmp_path / "to" / "split.json").read_text()) == SPLIT
    assert not (tmp_path / "downloads").exists()


def test_a_set_of_other_cases_is_refused_with_the_names_that_it_lacks(tmp_path: Path) -> None:
    write_scan(tmp_path / "scan.nii.gz", 0)
    write_label_map(tmp_path / "label.nii.gz", 0, [1, 2])
    (tmp_path / "mine.tar").write_bytes(packed(tmp_path, NAMES[1:]))

    with pytest.raises(VptError, match=f"the task has no case {NAMES[0]}"):
        msd.fetch_task("hippocampus", tmp_path / "to", tmp_path / "mine.tar")


def test_another_name_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(VptError, match=r"hippocampos: no data set is called so.*did you mean hippocampus"):
        msd.fetch_task("hippocampos", tmp_path / "to")
    assert {"hippocampus", "spleen", "hepaticvessel"} <= msd.NAMES.keys()


def test_the_split_of_the_package_is_that_of_configs() -> None:
    assert json.loads(msd.SPLITS[TASK].read_text()) == SPLIT
