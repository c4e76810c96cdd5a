"""A further task: its classes are added to those of an artifact, whose own answers stay."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Told
from tasks_in_turn import STEP, write_classes

from vpt.artifact import read_artifact
from vpt.config import load_config
from vpt.describe import describe
from vpt.engine.classifying import Classifying
from vpt.engine.run import train
from vpt.engine.setup import prepare_setup
from vpt.errors import VptError
from vpt.model import Output
from vpt.tasks.batch import Batch
from vpt.tensor_files import read_tensors, write_tensors
from vpt.use.classifier import Classifier
from vpt.use.load import load
from vpt.use.runs import evaluate_run

DUAL = {"method": "dualprompt", "general_length": 2, "length": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six classes. Read only."""
    return write_classes(tmp_path_factory.mktemp("turns") / "six")


@pytest.fixture(scope="module")
def first(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark and bright, learned in one step with dualprompt."""
    wanted = STEP | {"prompts": DUAL, "data.only": ["dark", "bright"], "start.task": "light"}
    return train(data, tmp_path_factory.mktemp("turns") / "first", overrides=wanted, brief=True)


def further(data: Path, run: Path, **more: Any) -> dict[str, Any]:
    return STEP | {"start.path": str(run), "start.adds": True} | more


@pytest.fixture(scope="module")
def second(data: Path, first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lying and standing after them."""
    wanted = further(data, first, **{"data.only": ["lying", "standing"], "start.task": "stripes"})
    return train(data, tmp_path_factory.mktemp("turns") / "second", overrides=wanted)


def classifier(run: Path) -> Classifier:
    found = load(run, "cpu")
    assert isinstance(found, Classifier)
    return found


def test_classes_are_added_and_the_artifact_holds_the_tasks(first: Path, second: Path) -> None:
    artifact, found = read_artifact(second), classifier(second)
    tasks = {"light": ("dark", "bright"), "stripes": ("lying", "standing")}
    assert list(artifact.labels.values()) == ["dark", "bright", "lying", "standing"]
    assert artifact.config.head.learned == found.tasks == tasks
    assert artifact.config.prompts.learned == 2
    assert ("tasks", "light: dark, bright; stripes: lying, standing") in describe(str(second))
    assert classifier(first).tasks == {}
    log = (second / "train.log").read_text()
    assert "with the task 'stripes': adds lying, standing; what light taught the head stays" in log


def test_told_its_task_an_image_is_answered_bit_for_bit_as_before(data: Path, first: Path, second: Path) -> None:
    before, after, path = classifier(first), classifier(second), data / "bright" / "im4.png"
    assert after.classify(path, task="light") == before.classify(path)
    untold = after.classify(path)
    assert list(untold) == ["dark", "bright", "lying", "standing"]
    assert sum(untold.values()) == pytest.approx(1)
    with pytest.raises(VptError, match="task 'ligth': the model has learned the tasks light, stripes; did you mean"):
        after.classify(path, task="ligth")
    with pytest.raises(VptError, match="task 'light': the model has learned one task alone"):
        before.classify(path, task="light")


@pytest.mark.slow
def test_the_temperature_of_a_calibrated_run_stays_in_its_answers(data: Path, first: Path, tmp_path: Path) -> None:
    tensors, metadata = read_tensors(first / "best.safetensors", "")
    header = json.loads(metadata["vpt"]) | {"temperature": 0.25}
    write_tensors(tmp_path / "hot.safetensors", tensors, metadata | {"vpt": json.dumps(header)})
    wanted = further(
        data, tmp_path / "hot.safetensors", **{"data.only": ["lying", "standing"], "start.task": "stripes"}
    )
    later = train(data, tmp_path / "later", overrides=wanted, brief=True)

    image = data / "bright" / "im4.png"
    before, plain = load(tmp_path / "hot.safetensors", "cpu").classify(image), classifier(first).classify(image)
    assert classifier(later).classify(image, task="light") == pytest.approx(before, abs=1e-6)
    assert before["bright"] != pytest.approx(plain["bright"], abs=1e-3)  # it does divide


@pytest.mark.slow
def test_predict_tells_images_whose_task_is_known(
    vpt: Callable[..., Told], data: Path, first: Path, second: Path, tmp_path: Path
) -> None:
    images = ("predict", "-i", data / "bright", "--device", "cpu")
    code, _, err = vpt(*images, "-m", second, "--task", "light", "-o", tmp_path / "light.json")
    assert (code, err) == (0, "")
    found = json.loads((tmp_path / "light.json").read_text())
    old = classifier(first)
    for name, given in found.items():
        assert given == pytest.approx(old.classify(data / "bright" / f"{name}.png"), abs=1e-6)
    code, _, err = vpt(*images, "-m", second, "--task", "stripes", "-o", tmp_path / "out")
    assert code == 0, err
    record = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {tuple(each["probabilities"]) for each in record["cases"]} == {("lying", "standing")}
    assert {each["settings"]["task"] for each in record["cases"]} == {"stripes"}
    header = (tmp_path / "out" / "predictions.csv").read_text().splitlines()[0]
    assert header == "name,prediction,p_lying,p_standing"
    code, out, err = vpt(*images, "-m", second, "--task", "light", "-o", tmp_path / "out", "--continue")
    assert "are unchanged" not in out  # an answer as another task is another answer
    assert code == 0, err
    header = (tmp_path / "out" / "predictions.csv").read_text().splitlines()[0]
    assert header == "name,prediction,p_dark,p_bright"


def test_a_task_that_was_not_learned_is_refused_with_those_that_were(
    vpt: Callable[..., Told], data: Path, first: Path, second: Path, tmp_path: Path
) -> None:
    images = ("predict", "-i", data / "bright", "--device", "cpu", "-o", tmp_path / "out.json")
    code, _, err = vpt(*images, "-m", second, "--task", "organs")
    assert (code, err) == (1, "error: task 'organs': the model has learned the tasks light, stripes\n")
    code, _, err = vpt(*images, "-m", first, "--task", "light")
    assert (code, err) == (1, "error: task 'light': the model has learned one task alone\n")
    code, _, err = vpt(*images, "-m", f"a={first}", "-m", f"b={second}", "--task", "light")
    assert code == 2
    assert "--task light: not for several models side by side" in err
    assert not (tmp_path / "out.json").exists()


def test_a_run_of_a_further_task_is_evaluated_among_all_classes(second: Path) -> None:
    report, _ = evaluate_run(second, device="cpu")
    assert report.classes == ("dark", "bright", "lying", "standing")  # type: ignore[union-attr]
    assert [name.partition("/")[0] for name in report.names] == ["lying"] * 2 + ["standing"] * 2  # type: ignore[union-attr]
    assert (second / "validation" / "summary.json").is_file()


def test_only_what_is_new_trains_and_its_loss_is_among_its_own_classes(
    data: Path, second: Path, tmp_path: Path
) -> None:
    wanted = further(data, second, **{"data.only": ["coarse", "fine"], "start.task": "grain"})
    job = Classifying(tmp_path / "run", prepare_setup(load_config(data, wanted)), tmp_path / "cache")
    job.prepare()
    before = read_artifact(second).tensors
    state = job.model.trained_state()
    assert torch.equal(state["prompts.past_experts"][-1], before["prompts.expert"])
    assert torch.equal(state["prompts.general"], before["prompts.general"])
    assert torch.equal(state["head.past.1.weight"], before["head.output.weight"])
    assert {name for name in job.model.trained() if name.startswith("head")} == {
        "head.output.weight",
        "head.output.bias",
    }
    batch = torch.utils.data.default_collate([job.dataset[draw] for draw in job.draw(0)[0]])
    logits = torch.randn(len(batch["truth"]), 6)
    expected = torch.nn.functional.cross_entropy(logits[:, 4:], batch["truth"][:, 4:].argmax(1))
    assert float(job.loss(Output(logits), Batch(truth=batch["truth"]))) == pytest.approx(float(expected))
    assert sorted(example.name.partition("/")[0] for example in job.examples) == ["coarse"] * 3 + ["fine"] * 3


@pytest.mark.slow
def test_the_same_classes_at_another_site_get_rows_beside_the_old_ones(first: Path, tmp_path: Path) -> None:
    site = write_classes(tmp_path / "site b", ("dark", "bright"), first=20)
    run = train(site, tmp_path / "run", overrides=further(site, first), brief=True)
    found = classifier(run)
    assert found.tasks == {"light": ("dark", "bright"), "site b": ("bright", "dark")}
    assert found.classes == ("dark", "bright")
    path = site / "dark" / "im4.png"
    assert found.classify(path, task="light") == classifier(first).classify(path)
    assert list(found.classify(path, task="site b")) == ["bright", "dark"]
    assert sum(found.classify(path).values()) == pytest.approx(1)


def test_no_old_image_is_needed(first: Path, tmp_path: Path) -> None:
    """The artifact alone is enough: neither the run's folder nor its data are read."""
    start = shutil.copy(first / "best.safetensors", tmp_path / "start.safetensors")
    site = write_classes(tmp_path / "grain", ("coarse", "fine"))
    setup = prepare_setup(load_config(site, further(site, Path(start))))
    assert setup.config.head.learned == {"light": ("dark", "bright"), "grain": ("coarse", "fine")}
    assert setup.config.data.classes == ("dark", "bright", "coarse", "fine")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"start.task": "light"}, r"has learned a task called 'light' \(dark, bright\); give the new one another name"),
        (
            {"data.only": ["lying", "standin"]},
            "data.only names 'standin', which is no class of it .*did you mean standing",
        ),
        ({"data.only": ["lying"]}, "1 named .lying., expected at least 2"),
        ({"data.classes": ["lying", "dark"]}, r"data.classes=.* with --continue: all classes of the artifact stay"),
        ({"train.calibrate": True}, "train.calibrate=True with --continue: a temperature fitted to the new task would"),
        ({"fair": {"method": "balanced", "by": "sex"}}, "fair with --continue: groups are treated alike within one"),
        ({"prompts": {"method": "coda"}}, r"prompts.method=coda \(there dualprompt\) contradicts the artifact"),
        ({"task": "segmentation"}, "task=segmentation"),
    ],
)
def test_what_does_not_fit_is_refused(data: Path, first: Path, changes: dict[str, Any], said: str) -> None:
    wanted = further(data, first, **({"data.only": ["lying", "standing"], "start.task": "stripes"} | changes))
    with pytest.raises(VptError, match=said):
        prepare_setup(load_config(data, wanted))


def test_a_class_that_differs_in_capitals_alone_is_refused(first: Path, tmp_path: Path) -> None:
    site = write_classes(tmp_path / "site", ("dark", "lying"))
    (site / "dark").rename(site / "Dark")
    (site / "split.json").write_text((site / "split.json").read_text().replace("dark/", "Dark/"))
    with pytest.raises(
        VptError, match="has the class 'Dark', and the artifact knows 'dark', which would be another one"
    ):
        prepare_setup(load_config(site, further(site, first)))


@pytest.mark.slow
def test_other_heads_and_tuned_encoders_cannot_take_a_task(data: Path, tmp_path: Path) -> None:
    only = {"data.only": ["dark", "bright"], "prompts": {"method": "none"}}
    for name, changes in (("mlp", {"head": {"kind": "mlp"}}), ("bias", {"tuning": {"method": "bias"}})):
        run = train(data, tmp_path / name, overrides=STEP | only | changes, brief=True)
        with pytest.raises(VptError, match=f"(has the head|was trained with tuning) {name}; tasks are added"):
            prepare_setup(load_config(data, further(data, run, **{"start.task": "new"})))


def test_from_and_by_task_alone_are_refused(data: Path, second: Path) -> None:
    with pytest.raises(
        VptError, match="has learned 2 tasks one after another; go on with a further one with --continue"
    ):
        prepare_setup(load_config(data, STEP | {"start.path": str(second)}))
    with pytest.raises(VptError, match=r"start.adds: no artifact to go on from"):
        prepare_setup(load_config(data, STEP | {"start.adds": True}))


def test_a_set_without_its_other_classes_keeps_its_fixed_sides(data: Path) -> None:
    setup = prepare_setup(load_config(data, STEP | {"data.only": ["fine", "dark"]}))
    assert setup.config.data.classes == ("fine", "dark")
    assert setup.splits.test == ("dark/im4", "dark/im5", "fine/im4", "fine/im5")


@pytest.mark.slow
def test_a_task_that_is_interrupted_goes_on_with_its_own_state(data: Path, first: Path, tmp_path: Path) -> None:
    wanted = further(data, first, **{"data.only": ["lying", "standing"], "start.task": "stripes"})
    wanted |= {"optim.schedule": "constant"}
    train(data, tmp_path / "run", overrides=wanted, brief=True)
    again = wanted | {"train.epochs": 2}
    train(data, tmp_path / "run", overrides=again, brief=True, resume=True)
    whole = train(data, tmp_path / "whole", overrides=again, brief=True)
    a, b = (read_artifact(run / "last.safetensors").tensors for run in (tmp_path / "run", whole))
    assert all(torch.equal(a[name], b[name]) for name in b)
