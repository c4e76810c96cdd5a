"""A hub that does not answer: within seconds one sentence, and what its cache holds still loads."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from vpt.backbones import fetch, load_backbone
from vpt.backbones.fetch import hub_file, hub_or_its_cache
from vpt.errors import VptError

NAME = "test_vit.r160_in1k"
LONGEST = 10.0  # seconds


@contextmanager
def silent() -> Iterator[str]:
    """The address of a server that accepts, reads, and never answers."""
    over, kept = threading.Event(), []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)

        def accept() -> None:
            while not over.is_set():
                try:
                    kept.append(server.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            over.set()
            thread.join()
            for connection in kept:
                connection.close()


@contextmanager
def closed() -> Iterator[str]:
    """The address of a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


HUBS = {"closed": closed, "silent": silent}


@pytest.fixture(params=HUBS)
def hub(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A hub that does not answer, and the folder of its cache, which is empty."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with HUBS[request.param]() as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        yield tmp_path / "hub"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub has half a second to answer; how long it has as a rule, the first test shows."""
    monkeypatch.setattr(fetch, "PATIENCE", 0.5)


def put(cache: Path, repository: str, tensors: dict[str, torch.Tensor]) -> None:
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    save_file(tensors, snapshot / "model.safetensors")


@pytest.mark.slow
def test_a_name_that_is_not_cached_fails_soon_with_one_sentence(hub: Path) -> None:
    started = time.monotonic()
    with pytest.raises(VptError) as refused:
        load_backbone(NAME)
    took = time.monotonic() - started

    said = str(refused.value)
    assert took < LONGEST
    assert said.startswith(f"backbone {NAME}: its pretrained weights cannot be had (")
    assert said.endswith("without one give a local file (`--weights FILE`) or a folder as the backbone")
    assert "\n" not in said
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.usefixtures("impatient")
def test_a_file_that_is_not_cached_fails_soon_with_one_sentence(hub: Path) -> None:
    started = time.monotonic()
    with pytest.raises(VptError, match=r"^samvit_base_patch16\.sa1b: its weights cannot be fetched \(") as refused:
        hub_file("samvit_base_patch16.sa1b")

    assert time.monotonic() - started < LONGEST
    assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("impatient")
def test_what_is_cached_still_loads(hub: Path) -> None:
    torch.manual_seed(3)
    model = timm.create_model("test_vit", pretrained=False)
    put(hub, "timm/test_vit.r160_in1k", model.state_dict())
    started = time.monotonic()

    backbone = load_backbone(NAME)

    assert time.monotonic() - started < LONGEST
    assert torch.equal(backbone.vit.pos_embed, model.pos_embed)
    with hub_or_its_cache():
        assert constants.HF_HUB_OFFLINE is True
    assert constants.HF_HUB_OFFLINE is False
