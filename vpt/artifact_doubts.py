"""What an artifact asks for, which a stranger may have made: doubted before anything is opened, fetched or built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from vpt.backbones import BackboneSpec
from vpt.backbones.weights import require_fit
from vpt.config import ResolvedConfig
from vpt.config.run import BackboneConfig
from vpt.data.plan import Plan
from vpt.errors import VptError
from vpt.files import is_address
from vpt.heads.base import Answer
from vpt.machine.memory import total_memory
from vpt.sections import is_own
from vpt.tensor_files import KINDS, kind_of
from vpt.words import some_of

LARGEST_VALUE = 1e4  # of a trained number; beyond it a file is damaged, or its training diverged
SMALLEST_VALUE = 1e-30  # of the largest number of a head; below it every answer is the same
LARGEST_SETTING = 100_000  # of a method's whole numbers: tokens, ranks, widths
LARGEST_IMAGE = 4096  # pixels of the side of the image that an encoder sees
SMALLEST_PIXEL = 1e-6  # mm, of what is read
CPU = torch.device("cpu")


def require_sane(tensors: Mapping[str, Tensor], path: Path) -> None:
    """What is no number, or an absurd one, gives no answer, or an empty mask that looks like one."""
    if odd := [f"{name}: {kind_of(tensor)}" for name, tensor in tensors.items() if kind_of(tensor) not in KINDS]:
        raise VptError(
            f"{path}: the trained tensors are of a kind that no training leaves ({some_of(odd, 3)}); copy the file "
            "again from where it was trained"
        )
    again = "copy the file again from where it was trained, or train anew"
    if absurd := absurd_numbers(tensors):
        raise VptError(f"{path}: {absurd}; {again}")
    numbers = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    heads = [tensor.abs().max() for name, tensor in numbers.items() if name.startswith("head.") and tensor.numel()]
    if heads and max(heads) < SMALLEST_VALUE:
        raise VptError(
            f"{path}: all numbers of its trained head are 0, so that every answer would be the same; {again}"
        )


def absurd_numbers(tensors: Mapping[str, Tensor]) -> str:
    """What is said of trained tensors that are not finite, or too large to be of any use; "" of others."""
    numbers = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()}
    if odd := [name for name, tensor in numbers.items() if not tensor.isfinite().all()]:
        return f"the trained tensors are not finite ({some_of(odd, 3)})"
    if odd := [name for name, tensor in numbers.items() if tensor.abs().max() > LARGEST_VALUE]:
        return f"the trained tensors hold values beyond {LARGEST_VALUE:g} ({some_of(odd, 3)})"
    return ""


def require_no_address(backbone: BackboneConfig, weights: str | Path | None, path: Path) -> None:
    """An artifact's header may name the package's own weights or a local file, but no address that is then opened.

    weights: those that the user gave, in whose place the header's are not looked at.
    """
    for what, given in (("weights", backbone.weights if weights is None else None), ("name", backbone.name)):
        if given is not None and is_address(given):
            raise VptError(
                f"{path}: names an address as the encoder's {what} ({given}), which is not opened for an artifact; "
                "fetch the file yourself if you trust it, and give it with --weights FILE"
            )


def require_plausible(
    config: ResolvedConfig, plan: Plan, classes: int, spec: BackboneSpec, tensors: Mapping[str, Tensor], path: Path
) -> None:
    """The encoder fits into the machine, and prompts and head of the config have the shapes of the artifact's tensors.

    spec: of the encoder at its native size. Nothing takes memory here.

    Raises:
        VptError: what would only be found after gigabytes were taken.
    """
    _require_sizes(config, plan, path)
    needed, there = 4 * sum(12 * block.width**2 for block in spec.blocks), total_memory(CPU)
    if needed > there:
        raise VptError(
            f"{path}: its encoder {spec.name} takes {needed / 2**30:.0f} GiB, this machine has "
            f"{there / 2**30:.0f} GiB; use a larger one"
        )
    wanted = dict(
        _shapes(config, Answer(classes, config.data.target or "classes", plan.slices is not None), spec, plan)
    )
    found = {
        name: tensor for name, tensor in tensors.items() if name.split(".")[0] in {k.split(".")[0] for k in wanted}
    }
    require_fit(wanted, found, path, f"{spec.name} with the prompts and head of its own config")


def _require_sizes(config: ResolvedConfig, plan: Plan, path: Path) -> None:
    settings = {
        f"{section}.{key}": value
        for section in ("prompts", "head", "tuning")
        for key, value in getattr(config, section).model_dump().items()
    }
    absurd: dict[str, float] = {
        key: value for key, value in settings.items() if isinstance(value, int) and value > LARGEST_SETTING
    }
    if not 8 <= plan.image_size <= LARGEST_IMAGE:
        absurd["plan.image_size"] = plan.image_size
    if plan.pixel_mm is not None and (config.task == "classification" or not SMALLEST_PIXEL < plan.pixel_mm < 1e5):
        absurd["plan.pixel_mm"] = plan.pixel_mm  # what is classified is resized whole
    if absurd:
        said = ", ".join(f"{key} {value:.10g}" for key, value in absurd.items())
        raise VptError(f"{path}: its header is damaged, or was edited: {said}; copy the file again")


def _shapes(config: ResolvedConfig, answer: Answer, spec: BackboneSpec, plan: Plan) -> Iterator[tuple[str, Tensor]]:
    """Tensors without memory, as prompts and head would have them; not of a head built from an encoder's own, nor of
    what other packages build, which may need more than a spec, and memory.
    """
    spec = _at_size(spec, plan.image_size)
    parts: dict[str, nn.Module] = {}
    with torch.device("meta"):
        if is_own(config.prompts):
            parts["prompts"] = config.prompts.build_for(spec, answer.classes)
        if is_own(config.head) and config.head.kind != "sam_decoder":
            parts["head"] = config.head.build(SimpleNamespace(spec=spec), answer)
    for part, module in parts.items():
        own = (*module.named_parameters(), *module.named_buffers())  # what two places share is saved once
        yield from ((f"{part}.{name}", tensor) for name, tensor in own)


def _at_size(spec: BackboneSpec, size: int) -> BackboneSpec:
    def at(grid: tuple[int, int]) -> tuple[int, int]:
        rows, columns = (cells * size // own for cells, own in zip(grid, spec.image_size, strict=True))
        return rows, columns

    return replace(
        spec,
        image_size=(size, size),
        blocks=tuple(replace(block, grid=at(block.grid)) for block in spec.blocks),
        finished=spec.finished._replace(grid=at(spec.finished.grid)),
    )
