"""Nothing of a model stays on the CPU when it goes to a GPU, which no one needs to have to see it.

torch's fake tensors know where they lie and refuse to meet others, but hold no values.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from vpt.backbones import Backbone, load_backbone
from vpt.config import Config
from vpt.errors import VptError
from vpt.heads import Answer
from vpt.model import PromptedModel
from vpt.sections import PROMPTS, TUNINGS
from vpt.tasks.segmentation import SliceModel

SIZE = 64
HEADS = {"vit_micro": "mask", "sam_micro": "sam_decoder", "lite_medsam": "sam_decoder", "none": "unet"}
PROMPT_METHODS = {section.name_by("method"): section.partner for section in PROMPTS}
OF_CLASSES = {"class_prompts", "class_queries"}
TUNING_METHODS = [section.name_by("method") for section in TUNINGS]


def load(encoder: str) -> Backbone:
    return load_backbone(encoder, weights=None if encoder == "none" else "random", image_size=SIZE)


def model_of(backbone: Backbone, prompts: str, head: str, tuning: str = "prompts") -> PromptedModel:
    config = Config(data={"path": "."}, prompts={"method": prompts}, head={"kind": head}, tuning={"method": tuning})
    built: Any = config.head
    methods: Any = config.prompts
    model = PromptedModel(backbone, methods.build_for(backbone.spec, 2), built.build(backbone, Answer(2, "classes")))
    config.tuning.apply(model)
    return model


def runs_on_a_gpu(model: PromptedModel) -> None:
    slices = SliceModel(model)
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def moved(tensor: Tensor) -> Tensor:
        with mode:
            kind: Any = {"dtype": tensor.dtype, "device": "cuda", "requires_grad": tensor.requires_grad}
            return torch.empty_strided(tensor.shape, tensor.stride(), **kind)

    tensors = itertools.chain(slices.named_parameters(), slices.named_buffers())
    state = {name: moved(tensor) for name, tensor in tensors}
    with mode:
        logits = functional_call(slices, state, ({"images": torch.empty(2, 3, SIZE, SIZE, device="cuda")},)).logits
    assert logits.device.type == "cuda"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize(
    ("encoder", "refused"),
    [
        ("vit_micro", set()),
        ("sam_micro", OF_CLASSES),
        ("lite_medsam", {"shallow", "gated", "conditioned", "coda", "dualprompt", "l2p", "smope", *OF_CLASSES}),
    ],
)
def test_every_prompt_method_runs_where_its_encoder_lies(encoder: str, refused: set[str]) -> None:
    backbone = load(encoder)
    for method, partner in PROMPT_METHODS.items():
        if method in refused:
            with pytest.raises(VptError, match=r"blocks of one width|no token can travel|is made of convolutions"):
                model_of(backbone, method, partner or HEADS[encoder])
        else:
            runs_on_a_gpu(model_of(backbone, method, partner or HEADS[encoder]))


@pytest.mark.slow
@pytest.mark.parametrize("method", TUNING_METHODS)
def test_every_control_runs_where_its_encoder_lies(method: str) -> None:
    runs_on_a_gpu(model_of(load("vit_micro"), "none", "mask", method))


def test_a_network_of_its_own_runs_on_a_gpu() -> None:
    runs_on_a_gpu(model_of(load("none"), "none", "unet"))
