"""One table of encoders: what is described is what loads, options are of a family, other packages bring theirs."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from encoders import Stages
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch.utils._python_dispatch import TorchDispatchMode

import vpt
from vpt.backbones import describe_backbone, load_backbone, register_backbones
from vpt.backbones.catalogue import catalogue
from vpt.backbones.families import FAMILIES, Family, families, family_of, fetch, published
from vpt.backbones.options import NoOptions
from vpt.backbones.origin import KNOWN, Origin
from vpt.backbones.sam_models import SIZES, build_sam
from vpt.config import load_config
from vpt.engine.setup import encoder_input
from vpt.errors import VptError

TIMM = "test_vit.r160_in1k"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder as timm saves it for the hub, of a size that is not its architecture's."""
    vit = timm.create_model("test_vit", pretrained=False, num_classes=0, img_size=96)
    save_for_hf(vit, str(tmp_path / "mine"), model_args={"img_size": 96}, safe_serialization=True)
    return str(tmp_path / "mine")


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A checkpoint of SAM in the official layout, for images of 64 px; ViT-B's size is a small one for the test."""
    small = replace(SIZES["b"], width=32, depth=2, heads=2, global_blocks=(1,))
    monkeypatch.setitem(SIZES, "b", small)
    torch.save(build_sam(small, 64).state_dict(), tmp_path / "sam.pth")
    return str(tmp_path / "sam.pth")


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor with memory that any operation makes."""

    bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for each in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(each, torch.Tensor) and each.device.type != "meta":
                self.bytes = max(self.bytes, each.numel() * each.element_size())
        return result


# Described and loaded


@pytest.mark.parametrize("name", ["vit_micro", "sam_micro"])
@pytest.mark.parametrize("weights", [None, "random"])
def test_the_embedded_ones_are_described_as_they_load(name: str, weights: str | None) -> None:
    assert describe_backbone(name, weights=weights) == load_backbone(name, weights=weights).spec


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [TIMM, "test_vit", "vit_tiny_patch16_224", "vit_base_patch16_siglip_224", "beit3_base_patch16_224"]
)
def test_a_timm_model_is_described_as_it_loads_without_memory_for_its_weights(name: str) -> None:
    state = torch.get_rng_state()
    with Largest() as largest:
        spec = describe_backbone(name)

    assert largest.bytes < 1e6
    assert torch.equal(torch.get_rng_state(), state)
    assert spec == load_backbone(name, weights="random").spec
    assert spec.name == name


def test_a_folder_is_described_as_it_loads(folder: str) -> None:
    with Largest() as largest:
        spec = describe_backbone(folder)

    assert largest.bytes < 1e5
    assert spec == load_backbone(folder).spec
    assert (spec.image_size, spec.name) == ((96, 96), folder)


@pytest.mark.parametrize("attention", ["fused", "original"])
def test_a_checkpoint_of_sam_is_described_as_it_loads_at_its_own_size(checkpoint: str, attention: str) -> None:
    spec = describe_backbone("sam_vit_b", weights=checkpoint, attention=attention)
    loaded = load_backbone("sam_vit_b", weights=checkpoint, attention=attention)

    assert spec == loaded.spec
    assert spec.image_size == (64, 64)
    assert loaded.attention == attention
    assert describe_backbone("sam_vit_b").image_size == (1024, 1024)  # nothing is fetched to say so


def test_sam_is_described_without_memory_for_its_weights() -> None:
    with Largest() as largest:
        spec = describe_backbone("sam_vit_h")

    assert largest.bytes < 1e6
    assert (spec.depth, spec.blocks[0].width, spec.finished) == (32, 1280, (256, (64, 64)))


@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [
        ("vit_micron", None, "backbone vit_micron: no such model or folder; did you mean"),
        ("test_vit.zzz", None, "backbone test_vit.zzz: timm has no such weights"),
        ("test_resnet", None, "is not supported"),
        ("sam_vit_b", "/nowhere/sam.pth", "/nowhere/sam.pth: no such file"),
    ],
)
def test_what_cannot_load_is_not_described(name: str, weights: str | None, said: str) -> None:
    with pytest.raises(VptError, match=said):
        describe_backbone(name, weights=weights)
    with pytest.raises(VptError, match=said):
        load_backbone(name, weights=weights)


# Options


@pytest.mark.parametrize("call", [load_backbone, describe_backbone])
@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("vit_micro", {"attention": "fused"}, r"option attention='fused' is not one .*; its options are: none$"),
        ("test_vit", {"patch": 8}, r"option patch=8 is not one .*; its options are: normalisation, pooling$"),
        ("sam_micro", {"atention": "fused"}, r"option atention='fused' .*; its options are: attention$"),
        ("sam_micro", {"attention": "flash"}, r"option attention='flash' .*'fused' or 'original'\); its options are: "),
        ("sam_vit_b", {"attention": 3}, r"option attention=3 is not one that its family takes"),
    ],
)
def test_an_option_that_a_family_does_not_take_is_refused_by_name(
    call: Any, name: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(VptError, match=f"^backbone {name}: {said}"):
        call(name, **options)


# Of others


def load_stages(name: str, weights: Any, image_size: Any) -> Stages:
    return Stages()


def describe_stages(name: str, weights: Any) -> Any:
    return Stages().spec


STAGES = Family("stages", "stages", lambda name: name == "stages", load_stages, describe_stages)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Family]:
    """What the tests register, gone after them."""
    found: dict[str, Family] = {}
    monkeypatch.setattr("vpt.backbones.families._registered", found)
    return found


def test_a_registered_family_loads_and_is_named(registered: dict[str, Family]) -> None:
    assert vpt.register_backbones is register_backbones
    with pytest.raises(VptError, match="backbone stages: no such model"):
        load_backbone("stages")

    assert register_backbones(STAGES) is STAGES

    assert registered == {"stages": STAGES}
    assert families() == (STAGES, *FAMILIES)
    assert load_backbone("stages").spec == describe_backbone("stages")
    assert not load_backbone("stages").training
    with pytest.raises(VptError, match=r"supported are stages, vit_micro, sam_micro, "):
        load_backbone("nothing like it")
    with pytest.raises(VptError, match=r"^backbone stages: option depth=3 .*its options are: none$"):
        load_backbone("stages", depth=3)
    with pytest.raises(VptError, match=r"^stages: is no download of ours, there is nothing to fetch; give it as"):
        fetch("stages", Path("models"))


@pytest.mark.usefixtures("registered")
def test_what_a_family_of_someone_elses_names_is_in_the_catalogue() -> None:
    register_backbones(replace(STAGES, names="stages, or what else is called so"))

    (found,) = catalogue("stage*")

    assert (found.name, found.kind, found.spec) == ("stages", "stages", describe_backbone("stages"))


@pytest.mark.usefixtures("registered")
def test_a_family_of_a_name_that_is_there_is_refused() -> None:
    register_backbones(STAGES)
    for name in ("stages", "vit"):
        with pytest.raises(VptError, match=rf"^backbones: a family called '{name}' is there already; give yours"):
            register_backbones(replace(STAGES, name=name))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """installed(line): a distribution on sys.path whose entry point in `vpt.backbones` is that line."""

    def install(line: str) -> None:
        info = tmp_path / "site" / "zoo-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[vpt.backbones]\n{line}\n")
        monkeypatch.syspath_prepend(tmp_path / "site")
        assert importlib.metadata.entry_points(group="vpt.backbones")

    return install


def test_a_family_of_another_package_loads(installed: Any) -> None:
    installed("half = vpt_test_families:HALF")
    import sys
    import types

    module = types.ModuleType("vpt_test_families")
    module.HALF = replace(STAGES, name="half", claims=lambda name: name == "half")  # type: ignore[attr-defined]
    sys.modules["vpt_test_families"] = module
    try:
        assert family_of("half").name == "half"
        assert load_backbone("half").spec == Stages().spec
        assert family_of("vit_micro").name == "vit_micro"
    finally:
        del sys.modules["vpt_test_families"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "half = nowhere:HALF",
            r"^backbone half: the package that brings it, nowhere:HALF, cannot be loaded \(Mod.* update or remove it$",
        ),
        (
            "half = vpt.errors:VptError",
            r"^backbones: vpt\.errors:VptError is no vpt\.backbones\.families\.Family; ",
        ),
    ],
)
def test_a_package_that_brings_no_family_is_told(installed: Any, line: str, said: str) -> None:
    installed(line)
    with pytest.raises(VptError, match=said):
        load_backbone("half")


def test_every_family_of_ours_is_whole() -> None:
    assert [family.name for family in FAMILIES] == [
        "vit_micro",
        "sam_micro",
        "sam",
        "tiny_sam",
        "sam2",
        "none",
        "folder",
        "hub",
        "vit",
    ]
    assert all(issubclass(family.options, NoOptions) or family.options.model_fields for family in FAMILIES)
    assert {family.name for family in FAMILIES if family.embedded} == {"vit_micro", "sam_micro", "none"}


# Whose the weights are


def test_whose_the_weights_of_a_name_are() -> None:
    assert published("lite_medsam") == Origin("LiteMedSAM (bowang-lab/MedSAM, branch LiteMedSAM)", "Apache-2.0")
    assert published("sam_vit_h").licence == published("samvit_base_patch16.sa1b").licence == "Apache-2.0"
    assert "MedSAM" in published("medsam_vit_b").weights
    assert published("vit_tiny_patch16_224").licence == "as its model card says"  # timm names one for all, and is wrong
    assert "research and education" in published("sam_micro").licence
    assert all(family.origin for family in FAMILIES if family.name != "none")


def test_what_was_loaded_says_whose_it_is(folder: str) -> None:
    assert load_backbone("vit_micro").origin == published("vit_micro")
    assert str(load_backbone("vit_micro", weights="random").origin) == "random values; licence: none"
    assert load_backbone(folder).origin == Origin("the folder mine, whose config.json names test_vit.r160_in1k of timm")
    assert load_backbone("none").origin is None


def test_a_file_says_whose_its_weights_are_or_no_one_knows(tmp_path: Path) -> None:
    vit = timm.create_model(TIMM[:8], num_classes=0)
    state = {name: tensor.contiguous() for name, tensor in vit.state_dict().items()}
    silent, said = tmp_path / "silent.safetensors", tmp_path / "said.safetensors"
    save_file(state, silent)
    save_file(state, said, metadata={"origin": "Ann's ViT", "licence": "MIT"})
    torch.save(state, tmp_path / "mine.pth")
    unknown = "which does not say whose they are; licence: not known here"
    assert load_backbone(TIMM[:8], weights=said).origin == Origin("Ann's ViT", "MIT")
    assert str(load_backbone(TIMM[:8], weights=silent).origin) == f"silent.safetensors, {unknown}"
    assert str(load_backbone(TIMM[:8], weights=tmp_path / "mine.pth").origin) == f"mine.pth, {unknown}"


def test_weights_that_are_known_are_known_under_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    micro = load_backbone("vit_micro")
    monkeypatch.setitem(KNOWN, micro.sha256, Origin("Ann's ViT", "MIT"))
    state = {name.removeprefix("vit."): tensor for name, tensor in micro.state_dict().items()}
    save_file(state, tmp_path / "x.safetensors")
    assert load_backbone("vit_micro", weights=tmp_path / "x.safetensors").origin == Origin("Ann's ViT", "MIT")


def test_a_family_of_someone_else_may_say_nothing(registered: dict[str, Family]) -> None:
    registered["own"] = replace(FAMILIES[0], name="own", claims=lambda name: name == "own", origin=None)
    assert str(published("own")) == "own, of which no one has said whose they are; licence: not known here"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vit_micro", "bilinear"),
        ("sam_micro", "bilinear"),
        ("vit_small_patch14_dinov2", "bicubic"),
        ("swin_tiny_patch4_window7_224", "bicubic"),
    ],
)
def test_how_images_are_enlarged_is_the_weights_own(name: str, said: str) -> None:
    assert describe_backbone(name).interpolation == said
    config = load_config({"data": {"path": "."}, "backbone": {"name": name}}).resolved("segmentation")
    assert encoder_input(config).interpolation == said


@pytest.mark.parametrize("size", [32, np.int64(32), (32, 32), [32, np.int64(32)]])
def test_a_size_is_one_number_or_two(size: Any) -> None:
    assert load_backbone("vit_micro", image_size=size).spec.image_size == (32, 32)


@pytest.mark.parametrize("size", [32.0, "32", True, (32,), (32, 32, 3)])
def test_what_is_no_size_is_refused(size: Any) -> None:
    with pytest.raises(VptError, match=r"image_size .*: expected pixels, one whole number"):
        load_backbone("vit_micro", image_size=size)


def test_a_folder_may_be_a_path_and_what_is_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VptError, match=r"the folder has no config\.json"):
        load_backbone(tmp_path)
    with pytest.raises(VptError, match="backbone: None, expected a name"):
        load_backbone(None)  # type: ignore[arg-type]
