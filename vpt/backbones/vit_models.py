"""timm's ViTs by name, from a folder, and the embedded `vit_micro`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors import SafetensorError
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import VisionTransformer, save_for_hf
from timm.models.beit import Beit
from timm.models.deepseek_vit import DeepseekVitClassifier
from timm.models.eva import Eva
from timm.models.hiera import Hiera
from timm.models.hieradet_sam2 import HieraDet
from timm.models.qwen3_vit import Qwen3VitClassifier
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.swin_transformer_v2_cr import SwinTransformerV2Cr
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import nn

from vpt.backbones.base import Backbone, BackboneSpec, require_colours, require_whole_patches
from vpt.backbones.eva import EvaBackbone
from vpt.backbones.fetch import hub_or_its_cache, require_within_reach, why_not
from vpt.backbones.hiera import HieraBackbone
from vpt.backbones.hieradet import HieraDetBackbone
from vpt.backbones.origin import UNKNOWN, Origin
from vpt.backbones.preprocessing import preprocessing_beside
from vpt.backbones.relative import RelativeBackbone
from vpt.backbones.swin import SwinBackbone, SwinCrBackbone
from vpt.backbones.timm_model import Pooling, TimmBackbone
from vpt.backbones.towers import TowerBackbone
from vpt.backbones.vit import VitBackbone
from vpt.backbones.weights import RANDOM, load_weights, sha256_of
from vpt.errors import VptError
from vpt.files import read_object
from vpt.progress import Tick

MICRO = "vit_micro"
ASSETS = Path(__file__).parents[1] / "assets"
MICRO_WEIGHTS = ASSETS / "vit_micro.safetensors"
# By `Backbone.sha256` of `vit_micro` and `sam_micro`: the weights that they had up to version 0.2, then up to 0.5.
EARLIER = {
    "d8762b174682a0bf3e9f89188ccc9284796ad7985bd279bf429bf9a014d66699": ASSETS / "vit_micro_1.safetensors",
    "1b66cc423431b2e83e0266f9463de76e278ad27ff7f7d960e00416cacaa5c3fc": ASSETS / "vit_micro_1.safetensors",
    "096797964eaddc918fbb2532475ac06e4786fdc3154de6964de2a3a4ef8b9688": ASSETS / "vit_micro_2.safetensors",
    "7cfd26b855ac59383f6480d544dae37b09505a02b4beee34790c3e60b4ff6bec": ASSETS / "vit_micro_2.safetensors",
}
COMMON = "apache-2.0"
NOBODY = "which does not say whose they are"
Size = tuple[int, int]
Normalisation = Literal["own", "imagenet"]
Timm = VisionTransformer | Eva | SwinTransformer | SwinTransformerV2 | SwinTransformerV2Cr | Hiera | HieraDet
ADAPTERS: dict[type[nn.Module], type[TimmBackbone]] = {  # of timm's models; of all others it is `VitBackbone`
    Eva: EvaBackbone,
    Beit: RelativeBackbone,
    VisionTransformerRelPos: RelativeBackbone,
    SwinTransformer: SwinBackbone,
    SwinTransformerV2: SwinBackbone,
    SwinTransformerV2Cr: SwinCrBackbone,
    Hiera: HieraBackbone,
    HieraDet: HieraDetBackbone,
    Qwen3VitClassifier: TowerBackbone,
    DeepseekVitClassifier: TowerBackbone,
}


def load_micro(name: str, weights: str | Path | None, image_size: Size | None) -> Backbone:
    return wrapped(micro_vit(weights), name, image_size)


def origin_of_micro(name: str) -> Origin:
    return Origin(f"{name} of this package, see its model card", "for research and education, see there")


def origin_of_timm(name: str) -> Origin:
    """timm names one licence for all where it knows of no other, so only another one is believed."""
    known: Any = timm.get_pretrained_cfg(name, allow_unregistered=True)
    named = known.license if known else None
    return Origin(f"{name} of timm", named if named and named != COMMON else "as its model card says")


def load_timm(name: str, weights: str | Path | None, image_size: Size | None, **options: Any) -> Backbone:
    """A ViT of timm's, with its pretrained weights, those of a file, or random ones; options: see `VitOptions`."""
    return wrapped(timm_vit(name, weights), name, image_size, **options)


def load_folder(name: str, weights: str | Path | None, image_size: Size | None, **options: Any) -> Backbone:
    """A folder with timm's `config.json` and weights, as `timm.models.save_for_hf` and the hub write it."""
    vit = _described_by(name)
    if weights != RANDOM:
        load_weights(vit, weights or name, name)
    return wrapped(prepared_as(vit, weights), name, image_size, **options)


def taken_apart(model: Any, name: str) -> tuple[Backbone, nn.Module]:
    """A ViT of timm's in memory -> its encoder, and the classifier that stood on it, with its dropout.

    Raises:
        VptError: a model of another kind, which stays as it is.
    """
    adapter = adapter_of(model)
    adapter.require_supported(model, name)
    if hasattr(model, "head_dist"):
        raise VptError(
            f"{name}: has two classifiers, one on each of two tokens, of which one would be lost here; load it by its "
            "name (vpt.load_backbone) and put a head of your own on it"
        )
    head = adapter.take_head(model)
    model.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)} | (
        getattr(model, "pretrained_cfg", None) or {}
    )
    return wrapped(model, name, None), head


def origin_of_folder(name: str) -> Origin:
    """What its config.json says: timm writes whose weights a model began with, and their licence, if it restricts."""
    said, called = read_object(Path(name) / "config.json"), Path(name).name
    own = said.get("pretrained_cfg")
    tag, licence = (own.get("tag"), own.get("license")) if isinstance(own, dict) else (None, None)
    whose = f"whose config.json names {said.get('architecture')}.{tag} of timm" if tag else NOBODY
    return Origin(f"the folder {called}, {whose}", licence if licence and licence != COMMON else UNKNOWN)


def describe_micro(name: str, weights: str | Path | None) -> BackboneSpec:
    return spec_of(micro_vit(RANDOM), name)


def describe_timm(name: str, weights: str | Path | None, **options: Any) -> BackboneSpec:
    require_tag(name)
    with torch.device("meta"):
        return spec_of(prepared_as(_random_vit(name, name), weights), name, **options)


def describe_folder(name: str, weights: str | Path | None, **options: Any) -> BackboneSpec:
    with torch.device("meta"):
        return spec_of(prepared_as(_described_by(name), weights), name, **options)


def prepared_as(vit: Any, weights: str | Path | None) -> Any:
    """timm's model, for images prepared as it is said beside the weights that it is given."""
    vit.pretrained_cfg = {**vit.pretrained_cfg, **preprocessing_beside(weights)}
    return vit


def micro_vit(weights: str | Path | None = None) -> VisionTransformer:
    """The ViT that ships with the package: 1.6 M parameters, 64 px, patch 8, 8 blocks (see its model card)."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        vit: Any = VisionTransformer(img_size=64, patch_size=8, embed_dim=128, depth=8, num_heads=4, num_classes=0)
    vit.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    if weights != RANDOM:
        load_weights(vit, weights or MICRO_WEIGHTS, MICRO)
    return vit


def timm_vit(name: str, weights: str | Path | None) -> Timm:
    require_tag(name)
    if weights is None:
        return _pretrained(name)
    vit: Any = _random_vit(name, name)
    if weights != RANDOM:
        load_weights(vit, weights, name)
        vit = prepared_as(vit, weights)
    return vit


def _pretrained(name: str) -> Timm:
    """timm's model with its own weights; nothing is built that cannot be had or is not supported."""
    with torch.device("meta"):
        _random_vit(name, name)
    try:
        with torch.random.fork_rng(devices=[]), hub_or_its_cache():
            require_within_reach(timm.get_pretrained_cfg(name, allow_unregistered=True))
            vit: Any = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # the hub's client raises a dozen kinds for one meaning
        raise VptError(
            f"backbone {name}: its pretrained weights cannot be had ({why_not(error)}); "
            "with a network try again, without one give a local file (`--weights FILE`) or a folder as the backbone"
        ) from error
    return vit


def is_timm(name: str) -> bool:
    return timm.is_model(name.partition(".")[0])


def require_tag(name: str) -> None:
    """Raise VptError where timm has no weights of that tag."""
    architecture, _, tag = name.partition(".")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise VptError(
            f"backbone {name}: timm has no such weights; for {architecture} it has {', '.join(tags) or 'none'}"
        )


def fetch_vit(name: str, to: Path, progress: Tick) -> Path:
    """A folder with config.json and weights that `load_backbone(folder)` takes without a network."""
    return saved(to / name, lambda: timm_vit(name, None))


def saved(folder: Path, load: Callable[[], Any]) -> Path:
    """A folder as timm writes it for the hub, with what `load` gives; one that is there stays as it is."""
    if all(os.path.isfile(folder / wanted) for wanted in ("config.json", "model.safetensors")):
        return folder
    vit = load()
    part = folder.with_name(f".part-{os.getpid()}-{folder.name}")
    try:
        save_for_hf(vit, str(part), safe_serialization=True)
        part.replace(folder)
    except (OSError, SafetensorError) as error:
        raise VptError(f"{folder}: cannot be written ({error}); free space or choose another folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def wrapped(
    vit: Any,
    name: str,
    image_size: Size | None,
    normalisation: Normalisation = "own",
    pooling: Pooling = "own",
) -> Backbone:
    sha256 = sha256_of(vit)
    adapter = adapter_of(vit)
    if image_size is not None:
        require_whole_patches(image_size, adapter.patch_of(vit), name)
        if image_size != adapter.size_of(vit):
            adapter.resize(vit, image_size)
    return adapter(vit, name=name, **_normalisation(vit, normalisation), sha256=sha256, pooling=pooling)


def adapter_of(vit: Any) -> type[TimmBackbone]:
    """The one for a model of timm's; that of plain ViTs for all others, which refuses what it does not know."""
    return next((adapter for kind, adapter in ADAPTERS.items() if isinstance(vit, kind)), VitBackbone)


def spec_of(vit: Any, name: str, normalisation: Normalisation = "own", pooling: Pooling = "own") -> BackboneSpec:
    return adapter_of(vit)(vit, name=name, **_normalisation(vit, normalisation), sha256="", pooling=pooling).spec


def _normalisation(vit: Any, chosen: Normalisation) -> dict[str, Any]:
    if chosen == "imagenet":
        return {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}
    return {"mean": vit.pretrained_cfg.get("mean"), "std": vit.pretrained_cfg.get("std")}


def _described_by(name: str) -> Any:
    if not os.path.isfile(Path(name) / "config.json"):
        raise VptError(f"backbone {name}: the folder has no config.json; give a folder as timm saves it for the hub")
    try:
        return _random_vit(f"local-dir:{name}", name)
    except (RuntimeError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise VptError(
            f"{name}/config.json: describes no model that timm can build ({type(error).__name__}: "
            f"{_first_line(error)}); give a folder as timm saves it for the hub"
        ) from error


def _random_vit(source: str, name: str) -> Timm:
    """timm's model with seeded random values; torch's own generators are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        vit: Any = timm.create_model(source, pretrained=False, num_classes=0)
    adapter = adapter_of(vit)
    adapter.require_supported(vit, name)
    require_colours(vit, name)
    adapter.wake(vit)
    return vit


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
