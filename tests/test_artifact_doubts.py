"""A stranger's artifact opens no address, builds nothing implausible, and gives no answer where it is damaged."""

from __future__ import annotations

import json
import random
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vpt.artifact import Artifact, read_artifact, save_artifact
from vpt.artifact_doubts import require_sane
from vpt.building import build_model
from vpt.config import load_config
from vpt.data.plan import Percentiles, Plan
from vpt.errors import VptError, VptWarning
from vpt.restoring import restore_model
from vpt.tensor_files import CHECKSUM, read_tensors, write_tensors

PLAN = Plan(
    plane="axial", pixel_mm=1.0, image_size=64, neighbours=True, channels=("MRI",), intensity=(Percentiles(),)
)  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "best.safetensors"
    config = load_config({"data": {"path": "x"}, "prompts": {"method": "deep", "count": 2}}).resolved("segmentation")
    model = build_model(config, PLAN, 2)
    labels = {0: "background", 1: "rim"}
    save_artifact(path, model, config=config, plan=PLAN, labels=labels, scores={"validation": {"dice": 0.5}})
    return path


@pytest.fixture
def forged(original: Path, tmp_path: Path) -> Callable[..., Path]:
    """forged(config={"backbone": {...}}, plan={...}): with other entries in its header and the right checksum."""

    def forge(config: dict[str, dict[str, Any]] | None = None, **sections: dict[str, Any]) -> Path:
        tensors, metadata = read_tensors(original, "")
        header = json.loads(metadata["vpt"])
        for section, values in (config or {}).items():
            header["config"][section] |= values
        for section, values in sections.items():
            header[section] |= values
        path = tmp_path / "best.safetensors"
        write_tensors(path, tensors, metadata | {"vpt": json.dumps(header)})
        return path

    return forge


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*args: Any) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    "backbone",
    [
        {"name": "sam_vit_b", "weights": "http://127.0.0.1:9/x.pth"},
        {"name": "sam_vit_b", "weights": "https://127.0.0.1:9/x.pth"},
        {"weights": "file:///etc/passwd"},
        {"weights": "ftp://127.0.0.1/x"},
        {"weights": "hf-hub:someone/something"},
        {"weights": "//host/share/x.pth"},
        {"weights": "\\\\host\\share\\x.pth"},
        {"name": "hf-hub:someone/something"},
        {"name": "http://127.0.0.1:9/x"},
    ],
)
def test_it_opens_no_address(forged: Callable[..., Path], backbone: dict[str, str]) -> None:
    path = forged(config={"backbone": backbone})
    with pytest.raises(VptError, match=r"best\.safetensors: names an address .*give it with --weights FILE"):
        restore_model(read_artifact(path))


def test_weights_that_the_user_gives_stand_in_for_an_address(forged: Callable[..., Path]) -> None:
    from vpt.backbones.vit_models import MICRO_WEIGHTS

    path = forged(config={"backbone": {"weights": "http://127.0.0.1:9/x.pth"}})
    assert restore_model(read_artifact(path), MICRO_WEIGHTS).backbone.spec.name == "vit_micro"


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["vit_giant_patch14_224", "sam_vit_h"])
def test_an_encoder_that_does_not_fit_is_refused_before_it_is_built(forged: Callable[..., Path], name: str) -> None:
    path = forged(config={"backbone": {"name": name}})
    with pytest.raises(
        VptError, match=rf"does not fit {name} with the prompts and head of its own config: .*misshapen"
    ):
        restore_model(read_artifact(path))


def test_an_encoder_larger_than_the_machine_is_refused(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vpt.artifact_doubts.total_memory", lambda device: 2**20)
    with pytest.raises(
        VptError, match=r"its encoder vit_micro takes .* GiB, this machine has .* GiB; use a larger one"
    ):
        restore_model(read_artifact(original))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"plan": {"image_size": 10**6}}, r"plan\.image_size 1000000"),
        ({"plan": {"image_size": 0}}, r"plan\.image_size 0"),
        ({"plan": {"pixel_mm": 1e-9}}, r"plan\.pixel_mm 1e-09"),
        ({"config": {"prompts": {"count": 10**9}}}, r"prompts\.count: .* found 1000000000"),
        ({"config": {"head": {"width": 10**8}}}, r"head\.width: .* found 100000000"),
        ({"config": {"prompts": {"count": 4_000}}}, "misshapen keys: prompts"),
    ],
)
def test_absurd_sizes_are_refused(forged: Callable[..., Path], change: dict[str, Any], said: str) -> None:
    with pytest.raises(VptError, match=said):
        restore_model(read_artifact(forged(**change)))


HEADERS: dict[str, dict[str, Any]] = {
    "no hash": {"backbone": {"sha256": "x"}},
    "scores": {"scores": {"validation": "good"}},
    "counts": {"counts": {"trained": "many"}},
    "codes": {"codes": {"rim": 1}},
}


HEADERS |= {
    "a name twice": {"labels": {"1": "background"}},
    "a name of blanks": {"labels": {"1": " "}},
}


@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS)
def test_odd_headers_are_refused_in_a_sentence(forged: Callable[..., Path], change: dict[str, Any]) -> None:
    with pytest.raises(VptError, match=r"best\.safetensors: its header is damaged"):
        read_artifact(forged(**change))


def test_two_hundred_random_bytes_anywhere_in_the_payload_are_told(original: Path, tmp_path: Path) -> None:
    rng, whole, path = random.Random(0), original.read_bytes(), tmp_path / "best.safetensors"
    start = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(8):
        place = rng.randrange(start, len(whole) - 200)
        path.write_bytes(whole[:place] + rng.randbytes(200) + whole[place + 200 :])
        with pytest.raises(VptError, match=r"best\.safetensors: damaged: its content .*; copy it again from where"):
            read_artifact(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e7, -1e30])
def test_values_that_no_training_gives_are_refused(original: Path, value: float) -> None:
    found: Artifact = read_artifact(original)
    name = next(iter(found.tensors))
    with pytest.raises(VptError, match=rf"(are not finite|hold values beyond 10000) \({name}\); copy the file again"):
        require_sane(replace(found, tensors={name: torch.tensor([0.0, value])}).tensors, original)


def test_two_saves_give_the_same_bytes(original: Path, tmp_path: Path) -> None:
    found = read_artifact(original)
    save_artifact(
        tmp_path / "again.safetensors",
        restore_model(found),
        config=found.config,
        plan=found.plan,
        labels=found.labels,
        scores=found.scores,
    )
    assert (tmp_path / "again.safetensors").read_bytes() == original.read_bytes()


def test_predict_ends_with_one_sentence_and_exit_code_1(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vpt.cli import main

    content = bytearray(original.read_bytes())
    content[-1000] ^= 0xFF
    (tmp_path / "best.safetensors").write_bytes(content)
    run = ["vpt", "predict", "-m", str(tmp_path / "best.safetensors"), "-i", str(tmp_path), "-o", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", run)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'best.safetensors'}: damaged: its content has")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"channels": []}, "plan is not what was expected"),
        ({"channels": ["CT", "MR"]}, "plan is not what was expected"),
        ({"intensity": []}, "plan is not what was expected"),
        ({"intensity": [{"kind": "window", "low": 5, "high": 5}]}, "plan.intensity.0.window is not what"),
        ({"intensity": [{"kind": "window", "low": 0, "high": float("nan")}]}, "plan.intensity.0.window.high is not"),
        ({"intensity": [{"kind": "window", "low": 0, "high": 1e-320}]}, "plan.intensity.0.window is not what"),
        ({"intensity": [{"kind": "window", "low": -1e30, "high": 1e30}]}, "plan.intensity.0.window.low"),
        ({"intensity": [{"kind": "percentiles", "low": 99.5, "high": 0.5}]}, "plan.intensity.0.percentiles is not"),
        ({"intensity": [{"kind": "percentiles", "low": -5}]}, "plan.intensity.0.percentiles.low is not what"),
        ({"intensity": [{"kind": "percentiles", "high": float("nan")}]}, "plan.intensity.0.percentiles.high is not"),
        ({"fill": [float("nan"), 0, 0]}, "plan.fill.0 is not what was expected"),
        ({"fill": [0, 0, 1e6]}, "plan.fill.2 is not what was expected"),
        ({"sizes": {"pixel": [0, 0], "side": [5, 10]}}, "plan.sizes.pixel is not what was expected"),
        ({"sizes": {"pixel": [1, 2], "side": [10, 5]}}, "plan.sizes.side is not what was expected"),
        ({"pixel_mm": float("inf")}, "plan.pixel_mm is not what was expected"),
        ({"pixel_mm": 0}, "plan.pixel_mm is not what was expected"),
        ({"slices": -1}, "plan.slices is not what was expected"),
        ({"plane": "oblique"}, "plan.plane is not what was expected"),
        ({"another": 1}, "plan.another is unknown here"),
    ],
)
def test_a_plan_that_was_edited_is_refused_by_what_is_wrong(forged, plan: dict[str, Any], said: str) -> None:
    with pytest.raises(VptError, match=rf"its header is damaged, or was edited: .*{said}"):
        read_artifact(forged(plan=plan))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"versions": {"vpt": "9" * 5000}}, "versions.vpt is missing or not what was expected"),
        ({"counts": {"trained": -5, "frozen": 1}}, "counts.trained is missing or not what was expected"),
        ({"counts": {"trained": 10**30, "frozen": 1}}, "counts.trained is missing or not what was expected"),
    ],
)
def test_versions_and_counts_that_nothing_has_are_refused(forged, header: dict[str, Any], said: str) -> None:
    with pytest.raises(VptError, match=rf"its header is damaged, or of another version.*: {said}"):
        read_artifact(forged(**header))


def test_numbers_of_a_kind_that_no_training_leaves_are_refused(original: Path, tmp_path: Path) -> None:
    tensors, metadata = read_tensors(original, "")
    name = next(iter(tensors))
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    save_file(
        tensors, tmp_path / "best.safetensors", {key: value for key, value in metadata.items() if key != CHECKSUM}
    )
    with pytest.raises(VptError, match=rf"of a kind that no training leaves \({name}: float8_e4m3fn\)"):
        read_artifact(tmp_path / "best.safetensors")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"1": "rim", "2": "core"}, "its labels begin with 1, expected 0"),
        ({"0": "background", "-5": "rim"}, "its labels begin with -5, expected 0"),
        ({"0": "background", "1": ""}, "label 1 has no name"),
        ({"0": "background", str(2**63): "rim"}, "expected ids up to 9223372036854775807"),
    ],
)
def test_labels_that_give_no_mask_are_refused(
    original: Path, tmp_path: Path, labels: dict[str, str], said: str
) -> None:
    tensors, metadata = read_tensors(original, "")
    path = tmp_path / "best.safetensors"
    write_tensors(path, tensors, metadata | {"vpt": json.dumps(json.loads(metadata["vpt"]) | {"labels": labels})})
    with pytest.raises(VptError, match=said):
        read_artifact(path)


def test_whole_numbers_in_the_place_of_trained_ones_are_refused(original: Path, tmp_path: Path) -> None:
    tensors, metadata = read_tensors(original, "")
    path = tmp_path / "best.safetensors"
    write_tensors(path, {name: tensor.int() for name, tensor in tensors.items()}, metadata)
    with pytest.raises(VptError, match=r"is of torch\.int32, expected torch\.float32"):
        restore_model(read_artifact(path))


def test_a_newer_version_is_named_also_where_the_checksum_does_not_fit(original: Path, tmp_path: Path) -> None:
    """As in a file that was edited, or whose checksum is made in another way by then."""
    from safetensors.torch import load_file, save_file

    tensors, metadata = read_tensors(original, "")
    header = json.loads(metadata["vpt"])
    header["versions"]["vpt"] = "99.1"
    header["config"]["prompts"]["init_scale"] = 2
    path = tmp_path / "best.safetensors"
    save_file(load_file(original), path, metadata | {"vpt": json.dumps(header), "sha256": "0" * 64})
    with pytest.raises(
        VptError, match=r"made with a newer vpt 99\.1: prompts\.init_scale is unknown here .*update vpt"
    ):
        read_artifact(path)
    assert tensors


TWO: dict[str, Any] = {"channels": ["T1", "T2"], "intensity": [{"kind": "percentiles"}] * 2}


@pytest.mark.parametrize("change", [TWO, {"kind": "images"}, {"slices": 3}], ids=["channels", "images", "slices"])
def test_a_plan_that_no_planning_makes_is_refused(forged: Callable[..., Path], change: dict[str, Any]) -> None:
    with pytest.raises(VptError, match=r"best\.safetensors: its header is damaged, or was edited: .* copy the file"):
        read_artifact(forged(plan=change))


NEWER: dict[str, dict[str, Any]] = {
    "method": {"prompts": {"method": "hyper"}},
    "head": {"head": {"kind": "state_space"}},
    "choice": {"train": {"augment": "wild"}},
    "key": {"optim": {"lookahead": 5}},
    "target": {"data": {"target": "boxes"}},
    "encoder": {"backbone": {"name": "vit_colossal"}},
    "option": {"backbone": {"options": {"registers": 4}}},
}


@pytest.mark.parametrize("change", NEWER.values(), ids=NEWER)
def test_what_a_newer_version_brought_is_told_as_such(forged: Callable[..., Path], change: dict[str, Any]) -> None:
    newer = forged(config=change, versions={"vpt": "99.1.0"})
    with pytest.raises(VptError, match=r"best\.safetensors: made with a newer vpt 99\.1\.0: .*; update vpt$"):
        restore_model(read_artifact(newer))

    with pytest.raises(VptError, match=r"best\.safetensors: ") as told:
        restore_model(read_artifact(forged(config=change)))
    assert "made with a newer" not in str(told.value)


@pytest.mark.parametrize("change", [{"prompts": {"count": 0}}, {"prompts": {"dropout": 2}}, {"task": "detection"}])
def test_a_setting_that_an_edit_spoilt_is_told_as_damage(original: Path, tmp_path: Path, change: Any) -> None:
    tensors, metadata = read_tensors(original, "")
    header = json.loads(metadata["vpt"])
    for section, values in change.items():
        header["config"][section] = values if isinstance(values, str) else header["config"][section] | values
    write_tensors(tmp_path / "best.safetensors", tensors, metadata | {"vpt": json.dumps(header)})

    with pytest.raises(VptError, match=r"its header is damaged, or was edited: made with vpt .*; copy the file"):
        read_artifact(tmp_path / "best.safetensors")


@pytest.mark.parametrize("version", ["99.1.0", "0.0.1"])
def test_entries_that_are_unknown_here_are_warned_of(forged: Callable[..., Path], version: str) -> None:
    path = forged(versions={"vpt": version})
    tensors, metadata = read_tensors(path, "")
    write_tensors(path, tensors, metadata | {"vpt": json.dumps(json.loads(metadata["vpt"]) | {"sharpen": 2})})

    with pytest.warns(VptWarning, match=r"best\.safetensors: its header \(vpt .*\) holds sharpen, which this version"):
        read_artifact(path)


def test_a_key_that_stands_in_a_header_twice_is_refused(original: Path, tmp_path: Path) -> None:
    tensors, metadata = read_tensors(original, "")
    for key in ("labels", "plan", "temperature", "config", "counts"):
        text = f'{metadata["vpt"][:-1]}, "{key}": {json.dumps(json.loads(metadata["vpt"])[key])}}}'
        write_tensors(tmp_path / "best.safetensors", tensors, metadata | {"vpt": text})
        with pytest.raises(VptError, match=rf"its header is damaged \(the key '{key}' twice in one object\)"):
            read_artifact(tmp_path / "best.safetensors")


@pytest.mark.parametrize("temperature", [0, -1, 1e-300, 1e300, float("nan"), float("inf")])
def test_a_temperature_that_leaves_no_answer_is_refused(original: Path, tmp_path: Path, temperature: float) -> None:
    tensors, metadata = read_tensors(original, "")
    header = json.dumps(json.loads(metadata["vpt"]) | {"temperature": temperature})
    write_tensors(tmp_path / "best.safetensors", tensors, metadata | {"vpt": header})

    with pytest.raises(VptError, match="its header is damaged: temperature"):
        read_artifact(tmp_path / "best.safetensors")


@pytest.mark.parametrize(
    ("factor", "of", "said"),
    [
        (0.0, "", "all numbers of its trained head are 0"),
        (0.0, "head.", "all numbers of its trained head are 0"),
        (1e-42, "", "all numbers of its trained head are 0"),
        (1e8, "", "hold values beyond 10000"),
        (1e30, "head.", "hold values beyond 10000"),
        (float("nan"), "head.", "are not finite"),
    ],
)
def test_numbers_that_give_one_answer_to_all_are_refused(
    original: Path, tmp_path: Path, factor: float, of: str, said: str
) -> None:
    tensors, metadata = read_tensors(original, "")
    changed = {name: tensor * factor if name.startswith(of) else tensor for name, tensor in tensors.items()}
    write_tensors(tmp_path / "best.safetensors", changed, metadata)

    with pytest.raises(
        VptError, match=rf"best\.safetensors: .*{said}.*; copy the file again from where it was trained"
    ):
        read_artifact(tmp_path / "best.safetensors")


def test_prompts_that_are_0_are_those_of_a_start(original: Path, tmp_path: Path) -> None:
    tensors, metadata = read_tensors(original, "")
    changed = {name: tensor * (not name.startswith("prompts.")) for name, tensor in tensors.items()}
    write_tensors(tmp_path / "best.safetensors", changed, metadata)

    restore_model(read_artifact(tmp_path / "best.safetensors"))
