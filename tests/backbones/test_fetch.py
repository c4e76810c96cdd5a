"""Downloads from a server that behaves, and from ones that do not: the whole file arrives verified, or none does."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from server import Server, serving

from vpt.backbones import fetch as module
from vpt.backbones import load_backbone
from vpt.backbones.families import fetch
from vpt.backbones.fetch import Source, download
from vpt.backbones.sam_models import SOURCES, checkpoint_file
from vpt.errors import VptError

CONTENT = bytes(range(256)) * 12_000  # 3 MB
MD5, LATER = (hashlib.md5(content).hexdigest() for content in (CONTENT, CONTENT[::-1]))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0, 0.0))
    with serving(CONTENT) as server:
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "sam.pth"


def left(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


# Whole files


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("md5", [MD5, None])
def test_a_file_arrives_whole_in_a_folder_that_was_not_there(
    server: Server, target: Path, ranges: bool, md5: str | None
) -> None:
    server.ranges = ranges
    ticks: list[tuple[int, int, str]] = []

    path = download(server.url, target, md5=md5, progress=lambda *tick: ticks.append(tick))

    assert path == target
    assert target.read_bytes() == CONTENT
    assert left(target) == ["sam.pth"]
    assert ticks[-1] == (len(CONTENT) >> 20, len(CONTENT) >> 20, "MB")
    assert [done for done, _, _ in ticks] == sorted(done for done, _, _ in ticks)


def test_a_file_address_is_copied(tmp_path: Path, target: Path) -> None:
    (tmp_path / "with space.pth").write_bytes(CONTENT)

    download((tmp_path / "with space.pth").as_uri(), target, md5=MD5)

    assert target.read_bytes() == CONTENT


def test_what_is_there_with_the_right_hash_is_not_fetched_again(server: Server, target: Path) -> None:
    download(server.url, target, md5=MD5)
    download(server.url, target, md5=MD5)
    download(server.url, target)

    assert len(server.asked) == 1


def test_what_is_there_with_another_hash_is_kept_and_named(server: Server, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.write_bytes(b"mine")

    with pytest.raises(VptError, match=rf"sam\.pth: has MD5 \w+, expected {MD5} of http.*; move it away"):
        download(server.url, target, md5=MD5)
    assert target.read_bytes() == b"mine"
    assert server.asked == []


def test_several_processes_or_threads_fetch_once(server: Server, target: Path) -> None:
    threads = [threading.Thread(target=download, args=(server.url, target), kwargs={"md5": MD5}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert left(target) == ["sam.pth"]


# Broken connections


@pytest.mark.parametrize("md5", [MD5, None])
def test_a_broken_connection_is_taken_up_where_it_broke(server: Server, target: Path, md5: str | None) -> None:
    server.cuts = [1_000_000, 2_500_000]

    download(server.url, target, md5=md5)

    assert target.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000000-", "bytes=2500000-"]


@pytest.mark.parametrize("tag", ["ETag", "Last-Modified", None])
@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("md5", [LATER, None])
def test_two_versions_of_a_file_are_not_joined(
    server: Server, target: Path, tag: str | None, asks: bool, md5: str | None
) -> None:
    """Where the hash is known and the server names no version, the hash tells it instead."""
    server.tag, server.asks, server.cuts, server.later = tag, asks, [1_000_000], CONTENT[::-1]
    if md5 and not tag:
        with pytest.raises(VptError, match="what came has MD5"):
            download(server.url, target, md5=md5)

    download(server.url, target, md5=md5)

    assert hashlib.md5(target.read_bytes()).hexdigest() == LATER
    assert left(target) == ["sam.pth"]


def test_a_weak_tag_does_not_tell_bytes_apart() -> None:
    assert module._version({"ETag": 'W/"a"', "Last-Modified": "Mon"}) == "Mon"
    assert module._version({"ETag": 'W/"a"'}) == ""
    assert module._version({"ETag": '"a"', "Last-Modified": "Mon"}) == '"a"'


def test_a_server_that_names_no_version_starts_again_where_no_hash_is_known(server: Server, target: Path) -> None:
    server.tag, server.cuts = None, [1_000_000]

    download(server.url, target)

    assert target.read_bytes() == CONTENT
    assert server.asked == [None, None]


def test_a_silent_connection_is_given_up_and_taken_up_again(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.3)
    monkeypatch.setattr(module, "FIRST_TIMEOUT", 0.3)
    server.cuts, server.stalls = [1 << 20], True

    download(server.url, target, md5=MD5)

    assert target.read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={1 << 20}-"]


def test_a_server_without_ranges_starts_again(server: Server, target: Path) -> None:
    server.ranges, server.cuts = False, [1_000_000, 2_500_000]

    download(server.url, target, md5=MD5)

    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_a_part_of_an_earlier_attempt_is_continued(server: Server, target: Path) -> None:
    server.cuts = [700_000] * 4
    with pytest.raises(VptError, match=r"cannot be fetched \(.*700000.*3072000"):
        download(server.url, target, md5=MD5)
    assert left(target) == ["sam.pth.part"]
    server.cuts = []

    download(server.url, target, md5=MD5)

    assert target.read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=700000-"
    assert left(target) == ["sam.pth"]


def test_without_a_hash_the_part_of_an_earlier_attempt_is_not_trusted(server: Server, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.with_name("sam.pth.part").write_bytes(b"of another file")

    download(server.url, target)

    assert target.read_bytes() == CONTENT
    assert server.asked == [None]


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more"])
def test_a_part_that_is_whole_or_too_long_needs_no_care(server: Server, target: Path, part: bytes) -> None:
    target.parent.mkdir(parents=True)
    target.with_name("sam.pth.part").write_bytes(part)

    download(server.url, target, md5=MD5)

    assert target.read_bytes() == CONTENT
    assert left(target) == ["sam.pth"]


@pytest.mark.parametrize("error", [500, 503, 429])
def test_a_server_that_is_busy_is_asked_again(server: Server, target: Path, error: int) -> None:
    server.errors = [error, error]

    download(server.url, target, md5=MD5)

    assert target.read_bytes() == CONTENT


def test_after_a_few_attempts_it_gives_up(server: Server, target: Path) -> None:
    server.errors = [503] * 9

    with pytest.raises(VptError, match=r"cannot be fetched \(503 Service Unavailable\)"):
        download(server.url, target, md5=MD5)
    assert len(server.asked) == 4
    assert left(target) == []


# Refusals


@pytest.mark.parametrize(("error", "said"), [(404, "404 Not Found"), (403, "403 Forbidden")])
def test_a_wrong_address_is_told_at_once(server: Server, target: Path, error: int, said: str) -> None:
    server.errors = [error] * 4

    with pytest.raises(VptError, match=rf"sam\.pth: cannot be fetched \({said}\); check the address.*--weights FILE"):
        download(server.url, target)
    assert len(server.asked) == 1
    assert left(target) == []


def test_a_wrong_hash_deletes_what_came(server: Server, target: Path) -> None:
    server.content = b"<html>please log in to the hospital's network</html>"

    with pytest.raises(VptError, match=rf"sam\.pth: what came has MD5 \w+, expected {MD5}; it is deleted"):
        download(server.url, target, md5=MD5)
    assert left(target) == []


def test_a_part_of_another_file_is_found_out(server: Server, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.with_name("sam.pth.part").write_bytes(b"of another file")

    with pytest.raises(VptError, match="it is deleted, try again"):
        download(server.url, target, md5=MD5)
    assert left(target) == []
    assert download(server.url, target, md5=MD5).read_bytes() == CONTENT


def test_no_network_is_one_sentence_with_the_way_out_at_once(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES", (99.0,))  # a server that never answered is not waited for
    with socket.socket() as closed:  # a port on which nothing listens
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/sam.pth"
        with pytest.raises(VptError, match=r"cannot be fetched \(.*refused.*vpt fetch.*--weights FILE") as refusal:
            download(url, target)
    assert "\n" not in str(refusal.value)
    assert left(target) == []


def test_a_missing_local_file_is_told_without_waiting(tmp_path: Path, target: Path) -> None:
    with pytest.raises(VptError, match=r"none\.pth: cannot be fetched \(.*No such file"):
        download((tmp_path / "none.pth").as_uri(), target)


@pytest.mark.parametrize("url", ["ftp://host/sam.pth", "sam.pth", "data:text/plain,abc", "/etc/passwd"])
def test_other_addresses_are_refused(url: str, target: Path) -> None:
    with pytest.raises(VptError, match=rf"{re.escape(url)}: no address to fetch from; expected .*https://"):
        download(url, target)
    assert not target.parent.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told_and_leaves_no_target(server: Server, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.with_name("sam.pth.part").symlink_to("/dev/full")

    with pytest.raises(VptError, match=r"sam\.pth: cannot be written \(No space left on device\); free space or"):
        download(server.url, target, md5=MD5)
    assert not target.exists()
    assert len(server.asked) == 1


def test_too_little_space_is_told_before_anything_is_written(server: Server, target: Path) -> None:
    server.claims = 1 << 60

    with pytest.raises(
        VptError, match=r"folder: 1099511627776 MB are needed for sam\.pth, \d+ MB are free; free space"
    ):
        download(server.url, target, md5=MD5)
    assert left(target) == []


def test_a_folder_that_cannot_be_made_is_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")

    with pytest.raises(VptError, match=r"sam\.pth: cannot be written \(.*\); free space or choose another folder"):
        download(server.url, tmp_path / "file" / "sam.pth")


# By name


@pytest.fixture
def official(server: Server, monkeypatch: pytest.MonkeyPatch) -> Source:
    """The source of sam_vit_b, on the local server."""
    source = Source(server.url, MD5, len(CONTENT))
    monkeypatch.setitem(SOURCES, "sam_vit_b", source)
    return source


def test_the_official_files_carry_the_start_of_their_hash_in_their_name() -> None:
    assert set(SOURCES) == {"sam_vit_b", "sam_vit_l", "sam_vit_h"}
    for name, source in SOURCES.items():
        assert source.url.startswith("https://dl.fbaipublicfiles.com/segment_anything/")
        assert source.filename == f"{name}_{source.md5[:6]}.pth"
        assert re.fullmatch(r"[0-9a-f]{32}", source.md5)


def test_fetch_puts_the_official_file_in_the_folder(official: Source, tmp_path: Path) -> None:
    assert fetch("sam_vit_b", tmp_path / "models") == tmp_path / "models" / "sam.pth"
    assert (tmp_path / "models" / "sam.pth").read_bytes() == CONTENT


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, torch.Tensor]], None]:
    """hub("timm/NAME", tensors): the cache of the Hugging Face hub, offline, holds that model."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(repository: str, tensors: dict[str, torch.Tensor]) -> None:
        folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        (folder / "snapshots" / ("a" * 40)).mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("a" * 40)
        save_file(tensors, folder / "snapshots" / ("a" * 40) / "model.safetensors")

    return put


def test_fetch_saves_a_timm_model_as_a_folder_that_is_a_backbone(hub: Callable[..., None], tmp_path: Path) -> None:
    hub("timm/test_vit.r160_in1k", timm.create_model("test_vit", pretrained=False).state_dict())

    folder = fetch("test_vit.r160_in1k", tmp_path / "models")
    (tmp_path / "hub").rename(tmp_path / "gone")
    saved = load_backbone(str(folder))

    assert folder == tmp_path / "models" / "test_vit.r160_in1k"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert [path.name for path in (tmp_path / "models").iterdir()] == [folder.name]
    assert fetch("test_vit.r160_in1k", tmp_path / "models") == folder  # it is there, so no network is needed
    (tmp_path / "gone").rename(tmp_path / "hub")
    assert load_backbone("test_vit.r160_in1k").sha256 == saved.sha256


def test_a_licence_travels_with_a_fetched_folder(
    hub: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "test_vit.r160_in1k"
    hub("timm/test_vit.r160_in1k", timm.create_model("test_vit", pretrained=False).state_dict())
    registered = timm.get_pretrained_cfg(name)
    assert registered is not None
    monkeypatch.setattr(registered, "license", "for-looking-only")
    create = timm.create_model

    def restricted(*args: Any, **options: Any) -> Any:
        model = create(*args, **options)
        model.pretrained_cfg["license"] = "for-looking-only"
        return model

    monkeypatch.setattr(timm, "create_model", restricted)
    folder = fetch(name, tmp_path / "models")
    monkeypatch.undo()
    for found in (load_backbone(str(folder)), load_backbone("test_vit", weights=folder)):
        assert found.origin is not None
        assert found.origin.licence == "for-looking-only"
        assert "test_vit.r160_in1k of timm" in found.origin.weights


def test_fetch_copies_timms_sam_encoder(hub: Callable[..., None], tmp_path: Path) -> None:
    hub("timm/samvit_base_patch16.sa1b", {"pos_embed": torch.ones(1, 2, 2, 4)})

    path = fetch("samvit_base_patch16.sa1b", tmp_path / "models")

    assert path == tmp_path / "models" / "samvit_base_patch16.sa1b.safetensors"
    assert load_file(path)["pos_embed"].shape == (1, 2, 2, 4)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vit_micro", "ships with the package"),
        ("vit_micron", "no such model or folder; did you mean"),
        ("test_vit.zzz", "timm has no such weights"),
        ("test_resnet", "not supported"),
        ("test_vit.r160_in1k", "cannot be had .* with a network try again"),
        ("samvit_base_patch16.zzz", "no address is known"),
        ("samvit_base_patch16.sa1b", "cannot be fetched .*--weights FILE"),
    ],
)
def test_fetch_of_what_cannot_be_fetched(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(VptError, match=said) as refusal:
        fetch(name, tmp_path / "models")
    assert name in str(refusal.value)
    assert not (tmp_path / "models").exists()


def test_fetch_of_a_folder_says_that_it_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("mine")

    with pytest.raises(VptError, match="mine: is a folder already"):
        fetch("mine", tmp_path / "models")


# The cache


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    return tmp_path / "torch" / "checkpoints"


def test_the_cache_is_filled_once_by_name_or_address(official: Source, server: Server, cache: Path) -> None:
    assert checkpoint_file("sam_vit_b") == checkpoint_file(official.url) == cache / "sam.pth"
    assert (cache / "sam.pth").read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_the_cache_verifies_what_it_fetches(official: Source, server: Server, cache: Path) -> None:
    server.content = b"other"

    with pytest.raises(VptError, match="what came has MD5"):
        checkpoint_file("sam_vit_b")
    assert list(cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_named(official: Source, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "sam.pth").write_bytes(CONTENT[:-1])

    with pytest.raises(VptError, match=r"sam\.pth: has 3071999 bytes, expected 3072000 of http.*; delete it"):
        checkpoint_file("sam_vit_b")


def test_files_of_one_name_from_two_addresses_are_two_files(server: Server, cache: Path) -> None:
    first = checkpoint_file(f"{server.url}?download=1")
    server.content = b"another model"
    second = checkpoint_file(server.url.replace("/models/", "/others/"))

    assert (first.name, second.name) == ("sam.pth", "sam.pth")
    assert (first.read_bytes(), second.read_bytes()) == (CONTENT, b"another model")
    assert checkpoint_file(f"{server.url}?download=1") == first
    assert len(server.asked) == 2


def test_a_local_address_is_the_file_itself(tmp_path: Path) -> None:
    assert checkpoint_file((tmp_path / "with space.pth").as_uri()) == tmp_path / "with space.pth"


def test_timms_sam_encoder_lies_in_the_hubs_cache(hub: Callable[..., None]) -> None:
    hub("timm/samvit_base_patch16.sa1b", {"pos_embed": torch.ones(1, 2, 2, 4)})

    assert load_file(checkpoint_file("samvit_base_patch16.sa1b"))["pos_embed"].shape == (1, 2, 2, 4)


def test_a_name_without_an_address_asks_for_the_file() -> None:
    with pytest.raises(VptError, match=r"medsam_vit_b: no address is known .*--weights FILE"):
        checkpoint_file("medsam_vit_b")
