"""The state of a run: what is saved comes back, bit for bit, from a file without pickle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

from vpt.backbones import load_backbone
from vpt.backbones.vit import VitBackbone
from vpt.engine.checkpoint import Progress, load_state, save_state
from vpt.engine.optim import build_optimizer
from vpt.errors import VptError
from vpt.heads import MaskHead
from vpt.model import PromptedModel
from vpt.prompts import DeepPrompts
from vpt.tensor_files import write_tensors
from vpt.tuning.partial import tune_partial

PROGRESS = Progress(
    epoch=3, step=2, best=0.1 + 0.2, best_epoch=2, loss_sum=1 / 3, seconds=4.5, rows=[{"epoch": 1, "loss": 0.1}]
)


def build(count: int = 2) -> tuple[PromptedModel, torch.optim.AdamW]:
    backbone = load_backbone("vit_micro", weights="random")
    head = MaskHead(backbone.spec, classes=2, width=16, detail=8)
    model = PromptedModel(backbone, DeepPrompts(backbone.spec, count=count), head)
    return model, build_optimizer(model, lr=1e-2, prompt_lr=1e-2, backbone_lr=1e-2, weight_decay=0.1)


def step(model: PromptedModel, optimizer: torch.optim.Optimizer) -> None:
    """One step on random images: depends on the weights, the moments and the random state."""
    optimizer.zero_grad()
    model(torch.rand(2, 3, 64, 64)).square().mean().backward()
    optimizer.step()


def test_what_continues_from_a_state_is_what_never_stopped(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model, optimizer = build()
    for _ in range(3):
        step(model, optimizer)
    save_state(tmp_path / "state" / "last.safetensors", model, optimizer, PROGRESS)
    step(model, optimizer)
    expected = {name: tensor.clone() for name, tensor in model.trained_state().items()}
    drawn = torch.rand(3)

    torch.manual_seed(2)
    other, other_optimizer = build()
    progress = load_state(tmp_path / "state" / "last.safetensors", other, other_optimizer)
    step(other, other_optimizer)

    assert progress == PROGRESS
    assert all(torch.equal(tensor, expected[name]) for name, tensor in other.trained_state().items())
    assert torch.equal(torch.rand(3), drawn)


def test_a_run_of_a_version_that_left_the_norm_of_pooled_tokens_frozen_is_not_resumed(tmp_path: Path) -> None:
    """Its averages and moments are of other parameters than those that train now (BEiT with `tuning partial`)."""
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 0}
    vit = VisionTransformer(**size, class_token=False, global_pool="avg", fc_norm=True)
    backbone = VitBackbone(vit, name="tiny", mean=(0.5,) * 3, std=(0.5,) * 3, sha256="as loaded")
    head = MaskHead(backbone.spec, classes=2, width=16, detail=8)
    model = PromptedModel(backbone, DeepPrompts(backbone.spec, count=2), head)
    tune_partial(model, blocks=1)

    def optimizer() -> torch.optim.AdamW:
        return build_optimizer(model, lr=1e-2, prompt_lr=1e-2, backbone_lr=1e-2, weight_decay=0.1)

    backbone.vit.fc_norm.requires_grad_(False)
    save_state(tmp_path / "state" / "s.safetensors", model, optimizer(), PROGRESS)
    load_state(tmp_path / "state" / "s.safetensors", model, optimizer())
    backbone.vit.fc_norm.requires_grad_(True)
    with pytest.raises(VptError, match=r"left backbone\.vit\.fc_norm\.\w+ as it was; finish the run with the version"):
        load_state(tmp_path / "state" / "s.safetensors", model, optimizer())


def test_moments_come_back_and_peaks_stay(tmp_path: Path) -> None:
    model, optimizer = build()
    step(model, optimizer)
    save_state(tmp_path / "state" / "s.safetensors", model, optimizer, PROGRESS)
    other, other_optimizer = build()
    load_state(tmp_path / "state" / "s.safetensors", other, other_optimizer)
    for mine, theirs in zip(model.trained().values(), other.trained().values(), strict=True):
        for key in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[mine][key], other_optimizer.state[theirs][key])
    assert [group["peak"] for group in other_optimizer.param_groups] == [0.01] * 3


def test_the_file_holds_tensors_and_json_only_and_nothing_of_the_frozen_backbone(tmp_path: Path) -> None:
    model, optimizer = build()
    step(model, optimizer)
    path = tmp_path / "state" / "last.safetensors"
    save_state(path, model, optimizer, PROGRESS)
    with safe_open(path, framework="pt") as file:  # refuses whatever is not plain tensors
        assert set(file.metadata()) == {"progress", "backbone", "decided", "sha256"}
    names = load_file(path).keys()
    assert {name.removeprefix("model.") for name in names if name.startswith("model.")} == model.trained_state().keys()
    assert not any("backbone" in name for name in names)
    assert sorted(path.parent.iterdir()) == [path]


def test_a_damaged_file_is_said_in_a_sentence(tmp_path: Path) -> None:
    model, optimizer = build()
    path = tmp_path / "state" / "last.safetensors"
    save_state(path, model, optimizer, PROGRESS)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(VptError, match=r"last\.safetensors: not a readable safetensors file .*start the run anew"):
        load_state(path, model, optimizer)


def test_a_state_of_another_model_is_refused(tmp_path: Path) -> None:
    model, optimizer = build(count=2)
    path = tmp_path / "state" / "last.safetensors"
    save_state(path, model, optimizer, PROGRESS)
    with pytest.raises(VptError, match=r"last\.safetensors.*prompts\.table\.tokens \(found .*2, 128\), expected .*3"):
        load_state(path, *build(count=3))


def test_a_state_of_other_weights_is_refused(tmp_path: Path) -> None:
    model, optimizer = build()
    path = tmp_path / "state" / "last.safetensors"
    save_state(path, model, optimizer, PROGRESS)
    model.backbone.sha256 = "0" * 64
    with pytest.raises(VptError, match=r"was started on other weights of vit_micro .*, found 0000"):
        load_state(path, model, optimizer)


def test_of_other_data_it_says_how_to_go_on(tmp_path: Path) -> None:
    """A scan that was packed anew has the same voxels, which nobody can know without reading all of them."""
    model, optimizer = build()
    path = tmp_path / "state" / "last.safetensors"
    what = "data, of which a file is larger or smaller"
    save_state(path, model, optimizer, PROGRESS, decided={what: "a", "splits.json": "b"})
    with pytest.raises(VptError, match=rf"another {what}; put back .* packed .* another, .* with --from {tmp_path}$"):
        load_state(path, model, optimizer, decided={what: "c", "splits.json": "b"})
    with pytest.raises(VptError, match=r"another splits\.json; put back .* belongs to it$"):
        load_state(path, model, optimizer, decided={what: "a", "splits.json": "c"})


def test_the_gradient_scale_of_float16_is_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "last.safetensors"
    scaler, other = torch.amp.GradScaler("cpu", init_scale=256.0), torch.amp.GradScaler("cpu")
    save_state(path, *build(), PROGRESS, None, scaler)
    load_state(path, *build(), None, other)
    assert other.state_dict() == scaler.state_dict()


# --- two generations --------------------------------------------------------------------------------------------------


def two_states(folder: Path) -> Path:
    """Of epochs 3 and 4."""
    path, (model, optimizer) = folder / "state" / "last.safetensors", build()
    for epoch in (3, 4):
        save_state(path, model, optimizer, Progress(epoch=epoch))
    return path


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-300] ^= 1
    path.write_bytes(content)


def test_a_damaged_newest_state_falls_back_and_says_so(tmp_path: Path) -> None:
    path, told = two_states(tmp_path), []
    damage(path)
    assert load_state(path, *build(), say=told.append).epoch == 3
    assert len(told) == 1
    assert told[0].startswith(f"{path}: damaged: ")
    assert told[0].endswith("the state before it is taken")


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({}, "holds no state of a run"),  # as an artifact that was put in its place
        ({"progress": "{"}, "holds no state of a run"),
        ({"progress": '{"epok": 1}'}, "holds no state of a run, or one of a newer version"),
        ({"progress": "{}"}, "holds a part of a state only"),
    ],
)
def test_what_is_whole_but_no_state_falls_back_too(tmp_path: Path, metadata: dict[str, str], said: str) -> None:
    model, optimizer = build()
    path, told = tmp_path / "state" / "last.safetensors", []
    save_state(path, model, optimizer, PROGRESS)
    save_state(path, model, optimizer, PROGRESS)
    write_tensors(path, {"a": torch.zeros(2)}, metadata)
    assert load_state(path, model, optimizer, say=told.append) == PROGRESS
    assert said in told[0]
    assert "the state before it is taken" in told[0]
    write_tensors(path.with_name("previous.safetensors"), {"a": torch.zeros(2)}, metadata)
    with pytest.raises(VptError, match=rf"previous\.safetensors: {said}.*; so is the newest state: start the run anew"):
        load_state(path, model, optimizer)


def test_both_damaged_is_a_sentence(tmp_path: Path) -> None:
    path = two_states(tmp_path)
    damage(path)
    damage(path.with_name("previous.safetensors"))
    with pytest.raises(VptError, match=r"previous.safetensors: damaged: .*so is the newest state: start the run anew"):
        load_state(path, *build())


def test_a_kill_between_the_renames_loses_nothing(tmp_path: Path) -> None:
    path = two_states(tmp_path)
    path.rename(path.with_name("next.safetensors"))
    assert load_state(path, *build()).epoch == 4
    assert {item.name for item in path.parent.iterdir()} == {"last.safetensors", "previous.safetensors"}


def test_a_newest_state_that_is_gone_falls_back(tmp_path: Path) -> None:
    path, told = two_states(tmp_path), []
    path.unlink()
    assert load_state(path, *build(), say=told.append).epoch == 3
    assert "the newest state is missing" in told[0]
