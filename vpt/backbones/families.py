"""Every kind of encoder in one table: which names it claims, how it loads, its options, where its weights come from."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import timm
import torch
from pydantic import ValidationError

from vpt.backbones import hub_models, nothing, sam2_models, sam_models, tiny_vit_models, vit_models
from vpt.backbones.base import Backbone, BackboneSpec
from vpt.backbones.hub_models import say_licence
from vpt.backbones.options import ImageOptions, NoOptions, SamOptions, VitOptions
from vpt.backbones.origin import Origin, origin_of
from vpt.backbones.preprocessing import is_backbone
from vpt.backbones.sam2_models import SAM2_CHECKPOINTS
from vpt.backbones.sam_models import CHECKPOINTS, SAM_MICRO
from vpt.backbones.tiny_vit_models import TINY_CHECKPOINTS
from vpt.backbones.vit_models import MICRO
from vpt.errors import VptError
from vpt.foreign import blaming, shown
from vpt.progress import Tick, silent
from vpt.sections import Section, entry_points_of, load_foreign
from vpt.vocabulary import NO_ENCODER

Size = tuple[int, int]  # (height, width) in pixels
Weights = str | Path | None


@dataclass(frozen=True)
class Family:
    """A kind of encoder.

    names: what a user may write, in words; claims: whether a name is of this family; load: name, weights (a file, an
    address, "random", None for the pretrained ones of that name), image size (None for the native one) and the
    family's options -> the encoder; describe: name, weights, options -> the spec at the native size, without weights in
    memory; fetch: name, folder, progress -> the file or folder to give, for a machine without
    a network; None where there is nothing to fetch; options: the section of its options; embedded: the weights are part
    of the package; origin: name -> whose the weights of that name are, None where no one has said.
    """

    name: str
    names: str
    claims: Callable[[str], bool]
    load: Callable[..., Backbone]
    describe: Callable[..., BackboneSpec]
    fetch: Callable[[str, Path, Tick], Path] | None = None
    options: type[Section] = NoOptions
    embedded: bool = False
    origin: Callable[[str], Origin | None] | None = None


FAMILIES: tuple[Family, ...] = (
    Family(
        "vit_micro",
        MICRO,
        lambda name: name == MICRO,
        vit_models.load_micro,
        vit_models.describe_micro,
        embedded=True,
        origin=vit_models.origin_of_micro,
    ),
    Family(
        "sam_micro",
        SAM_MICRO,
        lambda name: name == SAM_MICRO,
        sam_models.load_sam_micro,
        sam_models.describe_sam_micro,
        options=SamOptions,
        embedded=True,
        origin=vit_models.origin_of_micro,
    ),
    Family(
        "sam",
        f"Segment Anything ({', '.join(CHECKPOINTS)}, timm's samvit)",
        sam_models.is_sam,
        sam_models.load_sam,
        sam_models.describe_sam,
        sam_models.fetch_sam,
        SamOptions,
        origin=sam_models.origin_of_sam,
    ),
    Family(
        "tiny_sam",
        f"{' and '.join(TINY_CHECKPOINTS)}",
        tiny_vit_models.is_tiny_sam,
        tiny_vit_models.load_tiny_sam,
        tiny_vit_models.describe_tiny_sam,
        tiny_vit_models.fetch_tiny_sam,
        SamOptions,
        origin=tiny_vit_models.origin_of_tiny_sam,
    ),
    Family(
        "sam2",
        "SAM 2.1 and 2 with their decoder (sam2.1_hiera_tiny, _small, _base_plus, _large, sam2.0_...)",
        sam2_models.is_sam2,
        sam2_models.load_sam2,
        sam2_models.describe_sam2,
        sam2_models.fetch_sam2,
        origin=sam2_models.origin_of_sam2,
    ),
    Family(
        "none",
        f"{NO_ENCODER} (no encoder, for the head unet)",
        lambda name: name == NO_ENCODER,
        nothing.load_none,
        nothing.describe_none,
        options=ImageOptions,
        embedded=True,
    ),
    Family(
        "folder",
        "a folder with config.json and weights",
        os.path.isdir,
        vit_models.load_folder,
        vit_models.describe_folder,
        options=VitOptions,
        origin=vit_models.origin_of_folder,
    ),
    Family(
        "hub",
        "hf-hub:OWNER/NAME (a model of timm's on the Hugging Face hub)",
        hub_models.is_hub,
        hub_models.load_hub,
        hub_models.describe_hub,
        hub_models.fetch_hub,
        VitOptions,
        origin=hub_models.origin_of_hub,
    ),
    Family(
        "vit",
        "every timm VisionTransformer of its usual blocks (for example vit_base_patch16_224.augreg_in21k), "
        "EVA, DINOv3 and other rotary ViTs (vit_small_patch16_dinov3), BEiT and ViTs with relative positions, "
        "Swin and Swin v2 (swin_tiny_patch4_window7_224), Hiera and SAM 2's encoder (hiera_tiny_224, sam2_hiera_tiny)",
        vit_models.is_timm,
        vit_models.load_timm,
        vit_models.describe_timm,
        vit_models.fetch_vit,
        VitOptions,
        origin=vit_models.origin_of_timm,
    ),
)
ENTRY_POINTS = "vpt.backbones"  # of other packages: each gives a `Family`
_registered: dict[str, Family] = {}


def families() -> tuple[Family, ...]:
    """Those that were registered first, then those of other packages, then our own."""
    return (*others(), *FAMILIES)


def others() -> tuple[Family, ...]:
    """Those of someone else: registered, or of an installed package."""
    return (*_registered.values(), *_foreign())


def is_of_others(name: str) -> bool:
    """Whether a family of someone else claims a name."""
    return any(family.claims(name) for family in others())


def register_backbones(family: Family) -> Family:
    """Make a family of someone else's known for as long as the process runs.

    Raises:
        VptError: it is none, or there is one of that name.
    """
    if not isinstance(family, Family):
        raise VptError(f"backbones: {shown(family)}, expected a vpt.backbones.Family; see docs/extending.md")
    if any(family.name == other.name for other in families()):
        raise VptError(f"backbones: a family called {family.name!r} is there already; give yours another name")
    _registered[family.name] = family
    return family


def family_of(name: str) -> Family:
    """The family that claims a name.

    Raises:
        VptError: none does.
    """
    if not isinstance(name, str):
        raise VptError(f"backbone: {shown(name)}, expected a name such as vit_micro, or a folder's path as text")
    for family in families():
        if family.claims(name):
            return family
    architecture = name.partition(".")[0]
    names = [
        MICRO,
        SAM_MICRO,
        *CHECKPOINTS,
        *TINY_CHECKPOINTS,
        *SAM2_CHECKPOINTS,
        *timm.list_models(["*vit*", "*swin*", "*hiera*"]),
    ]
    close = next(
        filter(None, (difflib.get_close_matches(each, names, n=3, cutoff=0.5) for each in (architecture, name))), []
    )
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise VptError(
        f"backbone {name}: no such model or folder; {hint}supported are "
        f"{', '.join(family.names for family in families())}"
    )


@torch.inference_mode(False)  # a server may load inside of that mode; what was made in it could never train
def load_backbone(
    name: str | Path,
    *,
    weights: Weights = None,
    image_size: int | Size | None = None,
    **options: Any,
) -> Backbone:
    """A frozen encoder in eval mode.

    Args:
        name: `vit_micro` or `sam_micro` (embedded, need no network); a timm model such as
            `vit_base_patch16_224.augreg_in21k`; a folder with `config.json` and weights as timm and the Hugging Face
            hub save it (offline use); `hf-hub:OWNER/NAME`; `sam_vit_b`, `sam_vit_l`, `sam_vit_h`, `medsam_vit_b` or
            `sam_med2d_vit_b`; `lite_medsam` or `mobile_sam`; `sam2.1_hiera_tiny` and its like; `none`, for a head that
            reads the images alone.
        weights: a checkpoint on disk or a folder with one, for SAM also an address; None takes the pretrained weights
            of that name (downloaded once), `"random"` takes seeded random weights: the control for what pretraining
            brings.
        image_size: pixels, one number or (height, width); position embeddings are resized. None keeps the native size.
        options: of the family; of SAM `attention`: "fused", or "original" for the arithmetic of `segment_anything`.

    Raises:
        VptError: unknown or unsupported name; weights that do not fit or cannot be had; a size that is no multiple of
            the patch; an option that the family does not have.
    """
    name = str(name) if isinstance(name, Path) else name
    family, size = family_of(name), _size(image_size)
    chosen = _options(family, name, options)
    if weights is None and vit_models.is_timm(name):
        vit_models.require_tag(name)
    if weights is None and (vit_models.is_timm(name) or hub_models.is_hub(name)):
        say_licence(name, published(name).licence)
    with blaming(family.load, doing=f"load {name}"):
        backbone = family.load(name, weights, size, **chosen.model_dump())
    if not isinstance(backbone, Backbone):
        raise VptError(
            f"backbone {name}: its family loads {shown(backbone)}, expected an instance of a class that derives from "
            "vpt.backbones.Backbone, as VitBackbone(vit, ...) is; see docs/extending.md"
        )
    if backbone.state_dict():
        itself = weights is not None and is_backbone(weights)  # a folder that says whose they are, as for a backbone
        whose = published(str(weights) if itself else name)
        backbone.origin = origin_of(None if itself else weights, backbone.sha256, whose)
    return backbone.requires_grad_(False).eval()


def _size(given: Any) -> Size | None:
    """An image's (height, width) of one number, or of both."""
    if given is None:
        return None
    sides = given if isinstance(given, tuple | list) else (given, given)
    if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, Integral) for side in sides):
        raise VptError(f"image_size {given!r}: expected pixels, one whole number such as 224 or (height, width)")
    return int(sides[0]), int(sides[1])


def published(name: str) -> Origin:
    """Whose the weights are that `load_backbone` takes where it is given none."""
    family = family_of(name)
    return (family.origin and family.origin(name)) or Origin(f"{name}, of which no one has said whose they are")


def describe_backbone(name: str, *, weights: Weights = None, **options: Any) -> BackboneSpec:
    """The spec that `load_backbone` would give, at the native size, without any weights in memory.

    Raises:
        VptError: unknown or unsupported name; a checkpoint that is not there.
    """
    family = family_of(name)
    chosen = _options(family, name, options)
    with blaming(family.describe, doing=f"describe {name}"):
        return family.describe(name, weights, **chosen.model_dump())


def require_known(name: str, options: Mapping[str, Any]) -> None:
    """Raise VptError for a name that no family claims, or options that it does not take."""
    _options(family_of(name), name, options)


def fetch(name: str, to: Path, progress: Tick = silent) -> Path:
    """A backbone's weights in the folder `to`, for a machine without a network.

    Returns the file to give as weights (Segment Anything), or the folder to give as backbone (timm's ViTs).

    Raises:
        VptError: unknown name, no network, no space, or a file that is not what it should be.
    """
    family = family_of(name)
    if family.embedded:
        raise VptError(f"{name}: ships with the package, there is nothing to fetch; give it as the backbone")
    if family.fetch is None:
        what = "is a folder already" if os.path.isdir(name) else "is no download of ours"
        raise VptError(f"{name}: {what}, there is nothing to fetch; give it as the backbone")
    return family.fetch(name, Path(to), progress)


def _options(family: Family, name: str, given: Mapping[str, Any]) -> Section:
    try:
        return family.options.model_validate(dict(given))
    except ValidationError as error:
        known = ", ".join(family.options.model_fields) or "none"
        problem = error.errors()[0]
        where, found = ".".join(map(str, problem["loc"])), problem["input"]
        raise VptError(
            f"backbone {name}: option {where}={found!r} is not one that its family takes ({problem['msg']}); "
            f"its options are: {known}"
        ) from error


def _foreign() -> list[Family]:
    found = []
    for point in entry_points_of(ENTRY_POINTS):
        family = load_foreign(point, "backbone")
        if not isinstance(family, Family):
            raise VptError(f"backbones: {point.value} is no vpt.backbones.families.Family; see docs/extending.md")
        found.append(family)
    return found
