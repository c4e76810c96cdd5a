"""A hub that does not answer: within seconds one sentence, and what its cache holds still loads."""

from __future__ import annotations

import socket
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from timm.models._hub import save_config_for_hf

from vpt.backbones import describe_backbone, fetch, load_backbone
from vpt.backbones.families import fetch as fetch_weights
from vpt.backbones.fetch import hub_file, hub_or_its_cache
from vpt.backbones.hub_models import say_licence
from vpt.errors import VptError, VptWarning

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


@pytest.mark.slow
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


def test_nothing_is_asked_of_the_hub_where_the_environment_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even whether it is there; what its cache holds still loads, and so does a file of one's own."""

    def asked(*args: object, **more: object) -> None:
        raise AssertionError("a network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    monkeypatch.setattr(socket, "create_connection", asked)
    monkeypatch.setattr(fetch, "_answers", asked)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("VPT_OFFLINE", "1")
    with pytest.raises(VptError, match=r"cannot be had \(VPT_OFFLINE is set, and they are not in the hub's cache\)"):
        load_backbone(NAME)
    with pytest.raises(VptError, match=r"sam_vit_b_01ec64\.pth: is not fetched, since VPT_OFFLINE is set; unset it"):
        fetch_weights("sam_vit_b", tmp_path / "to")
    model = timm.create_model("test_vit", pretrained=False)
    put(tmp_path / "hub", "timm/test_vit.r160_in1k", model.state_dict())
    assert torch.equal(load_backbone(NAME).vit.pos_embed, model.pos_embed)
    (tmp_path / "here.pth").write_bytes(b"weights")
    there = fetch.download((tmp_path / "here.pth").as_uri(), tmp_path / "there.pth")
    assert there.read_bytes() == b"weights"


def test_nothing_of_a_model_that_cannot_be_had_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the largest that would take all of the memory, and minutes."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("VPT_OFFLINE", "1")
    built = timm.create_model

    def on_meta_alone(*args: object, **more: object) -> object:
        model = built(*args, **more)
        assert all(parameter.is_meta for parameter in model.parameters())
        return model

    monkeypatch.setattr(timm, "create_model", on_meta_alone)
    with pytest.raises(VptError, match=r"dinov2: its pretrained weights cannot be had \(VPT_OFFLINE is set"):
        load_backbone("vit_small_patch14_dinov2")
    with pytest.raises(VptError, match=r"sam2\.1_hiera_tiny\.pt: is not fetched, since VPT_OFFLINE is set"):
        load_backbone("sam2.1_hiera_tiny")


def test_a_network_that_tells_no_addresses_is_left_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PATIENCE", 0.3)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: time.sleep(5))
    started = time.monotonic()
    with pytest.raises(VptError, match=r"cannot be fetched \(no one tells the address of example\.org\)"):
        fetch.download("https://example.org/w.pth", tmp_path / "w.pth")
    assert time.monotonic() - started < 3


def test_anyones_model_on_the_hub_is_loaded_by_its_own_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("VPT_OFFLINE", "1")
    name = "hf-hub:ann/my-vit"
    with pytest.raises(VptError, match=r"cannot be had from the hub \(VPT_OFFLINE is set.*give a folder"):
        load_backbone(name)
    torch.manual_seed(3)
    own = {"img_size": 96}
    model = timm.create_model("test_vit", pretrained=False, num_classes=0, **own)
    put(tmp_path / "hub", "ann/my-vit", model.state_dict())
    (snapshot,) = (tmp_path / "hub" / "models--ann--my-vit" / "snapshots").iterdir()
    save_config_for_hf(model, str(snapshot / "config.json"), model_args=own)
    backbone = load_backbone(name)
    assert torch.equal(backbone.vit.pos_embed, model.pos_embed)
    assert backbone.spec == describe_backbone(name)
    assert (backbone.spec.image_size, backbone.spec.name) == ((96, 96), name)
    assert str(backbone.origin) == "ann/my-vit on the Hugging Face hub; licence: as its model card says"
    folder = fetch_weights(name, tmp_path / "to")
    assert folder.name == "my-vit"
    assert load_backbone(str(folder)).sha256 == backbone.sha256


def test_a_licence_that_restricts_is_said_before_the_weights_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(fetch, "_answers", lambda address: False)
    name = "vit_small_patch16_dinov3.lvd1689m"
    said = f"{name}: its weights are fetched, under the licence dinov3-license; read it"
    with pytest.warns(VptWarning, match=said), pytest.raises(VptError, match="weights cannot be had"):
        load_backbone(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setenv("VPT_OFFLINE", "1")  # with which nothing is fetched
        with pytest.raises(VptError, match="VPT_OFFLINE"):
            load_backbone(name)
        monkeypatch.delenv("VPT_OFFLINE")
        say_licence("vit_tiny_patch16_224", "apache-2.0")
        put(tmp_path / "hub", "timm/vit_small_patch16_dinov3.lvd1689m", {"x": torch.zeros(1)})
        say_licence(name, "dinov3-license")  # they are here


def test_of_timms_own_repositories_the_licence_is_said_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(fetch, "_answers", lambda address: False)
    name = "hf-hub:timm/vit_small_patch16_dinov3.lvd1689m"
    with (
        pytest.warns(VptWarning, match="fetched, under the licence dinov3-license; read it"),
        pytest.raises(VptError, match="cannot be had from the hub"),
    ):
        load_backbone(name)
