"""A model made ready for new scans: its precision, and what making it ready is for."""

from __future__ import annotations

import torch
from masks import LABELS, scan_plan, tiny
from torch import Tensor, nn

from vpt.machine.precision import autocast
from vpt.tasks.batch import Batch, Output
from vpt.use.classifier import Classifier
from vpt.use.inference import in_precision
from vpt.use.segmenter import Segmenter

CPU = torch.device("cpu")


def test_what_leaves_a_precision_is_float32() -> None:
    layer, batch = nn.Linear(3, 2), Batch(images=torch.ones(1, 3))

    def forward(batch: Batch) -> Output:
        return Output(layer(batch["images"]))

    assert in_precision(forward, "bf16-mixed", CPU)(batch).logits.dtype == torch.float32
    with autocast("bf16-mixed", CPU):
        assert forward(batch).logits.dtype == torch.bfloat16


def test_constructors_leave_the_model_alone() -> None:
    """It is a verb that freezes prompts and keeps weights in half precision."""
    plan = scan_plan()
    model = tiny(plan)[0].train()

    def forward(batch: Batch) -> Output:
        return Output(batch["images"])

    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for made in (
        Segmenter(model, forward, plan, LABELS, CPU, batch_size=2),
        Classifier(model, forward, plan, list(LABELS.values()), "classes", CPU, batch_size=2),
    ):
        assert made.forward is forward
        assert made.batch_size == 2
    assert model.training
    assert_same(model.state_dict(), before)

    ready = Segmenter.from_model(model, plan, LABELS, CPU, "bf16-mixed")
    assert ready.model is model
    assert not model.training
    assert model.backbone.vit.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(found[name].dtype == expected[name].dtype for name in found)
    assert all(torch.equal(found[name], expected[name]) for name in found)
