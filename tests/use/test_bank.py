"""A bank: every task answers as alone, on one encoder; what does not fit it is refused by name."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from banks import LATE, WINDOW, trained
from masks import image_plan, scan, scan_plan, voxels
from tiny_classes import stripes

import vpt
from vpt.data.plan import Window
from vpt.data.sizes import TrainingSizes
from vpt.data.values import values_of, values_over
from vpt.errors import VptError, VptWarning
from vpt.use.inference import read_scan

OTHER_LABELS = {0: "background", 1: "whole"}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tasks")
    plan, other = scan_plan(intensity=WINDOW), scan_plan(intensity=(Window(low=50, high=500),))
    images = image_plan()
    return {
        "core": trained(folder / "core.safetensors", 1, plan),
        "rim": trained(folder / "rim.safetensors", 2, plan, prompts=LATE),
        "whole": trained(folder / "whole.safetensors", 3, plan, OTHER_LABELS),
        "elsewhere": trained(folder / "elsewhere.safetensors", 4, other),
        "kind": trained(folder / "kind.safetensors", 5, images, {0: "a", 1: "b", 2: "c"}, task="classification"),
        "grade": trained(folder / "grade.safetensors", 6, images, {0: "low", 1: "high"}, LATE, "classification"),
    }


@pytest.fixture(scope="module")
def bank(artifacts: dict[str, Path]) -> vpt.Bank:
    bank = vpt.Bank("vit_micro", "cpu", precision="32-true")
    for name, path in artifacts.items():
        bank.add(name, path)
    return bank


@pytest.mark.slow
def test_masks_are_those_of_each_task_alone(artifacts: dict[str, Path], bank: vpt.Bank) -> None:
    given = scan()
    masks = bank.segment(given)
    assert list(masks) == ["core", "rim", "whole", "elsewhere"]
    alone = {name: vpt.load(artifacts[name], "cpu", precision="32-true").segment(given) for name in masks}
    for name, mask in masks.items():
        assert len(np.unique(voxels(alone[name]))) > 1, name
        assert (voxels(mask) == voxels(alone[name])).mean() > 0.999, name  # ties may round otherwise
        assert mask.labels == bank[name].labels
    assert not np.array_equal(voxels(masks["core"]), voxels(masks["rim"]))


def test_only_the_tasks_asked_for_answer_in_their_order(bank: vpt.Bank) -> None:
    given = scan()
    found = bank.segment(given, ["elsewhere", "core"])
    assert list(found) == ["elsewhere", "core"]
    assert np.array_equal(voxels(found["core"]), voxels(bank.segment(given, ["core"])["core"]))
    other = scan(seed=1)
    alone = [bank.segment(one, ["core"])["core"] for one in (other, given)]
    for masks, expected in zip(bank.segment([other, given], ["core"]), alone, strict=True):
        assert np.array_equal(voxels(masks["core"]), voxels(expected))


@pytest.mark.slow
def test_classes_are_those_of_each_task_alone_in_batches_that_mix_them(
    artifacts: dict[str, Path], bank: vpt.Bank
) -> None:
    images = [stripes(kind, number) for kind in range(3) for number in range(2)]
    requests = [(image, task) for image in images for task in ("kind", "grade")][:-1]
    alone = {name: vpt.load(artifacts[name], "cpu", precision="32-true") for name in ("kind", "grade")}
    for (image, task), found in zip(requests, bank.classify_each(requests), strict=True):
        expected = alone[task].classify(image)
        assert found.keys() == expected.keys()
        assert list(found.values()) == pytest.approx(list(expected.values()), abs=1e-5)
    assert bank.classify_each(iter(requests[:2])) == bank.classify_each(requests[:2])
    expected = [
        {task: pytest.approx(alone[task].classify(image), abs=1e-5) for task in ("kind", "grade")}
        for image in images[:2]
    ]
    assert bank.classify(images[0]) == expected[0]
    assert bank.classify(images[:2]) == expected


def test_all_tasks_have_the_encoder_that_is_in_memory_once(bank: vpt.Bank) -> None:
    assert {id(bank[task].model.backbone) for task in bank} == {id(bank.backbone)}


@pytest.mark.slow
def test_tasks_come_and_go(artifacts: dict[str, Path]) -> None:
    bank = vpt.Bank("vit_micro", "cpu")
    with pytest.raises(VptError, match=r"no task that segments; add one with bank\.add"):
        bank.segment(scan())
    bank.add("core", artifacts["core"])
    encoder = bank.backbone
    bank.remove("core")
    assert bank.tasks == ()
    bank.add("rim", artifacts["rim"])
    assert bank["rim"].model.backbone is encoder
    with pytest.raises(VptError, match=r"rims: no task of this bank is called so; did you mean rim"):
        bank.remove("rims")


@pytest.mark.parametrize("way", ["copied", "sent"])
def test_a_bank_can_be_copied_and_sent_to_another_process(bank: vpt.Bank, way: str) -> None:
    again = copy.deepcopy(bank) if way == "copied" else pickle.loads(pickle.dumps(bank))
    asked = scan()
    for task, mask in bank.segment(asked).items():
        np.testing.assert_array_equal(voxels(again.segment(asked)[task]), voxels(mask))
    again.remove("core")
    assert "core" in bank
    assert len({id(again[task].model.backbone) for task in again}) == 1


@pytest.mark.slow
def test_threads_ask_while_another_adds_and_removes(artifacts: dict[str, Path]) -> None:
    bank = vpt.Bank("vit_micro", "cpu", precision="32-true")
    bank.add("core", artifacts["core"])
    failed: list[Exception] = []

    def come_and_go() -> None:
        try:
            for number in range(40):
                bank.add(f"rim {number % 3}", artifacts["rim"])
                bank.remove(f"rim {number % 3}")
        except Exception as error:
            failed.append(error)

    changing = Thread(target=come_and_go)
    changing.start()
    while changing.is_alive():
        assert "core" in bank.segmenters()
        assert "core" in [*bank]
    assert failed == []


@pytest.mark.slow
def test_what_does_not_fit_is_refused_by_name(artifacts: dict[str, Path], tmp_path: Path, bank: vpt.Bank) -> None:
    small = trained(tmp_path / "small.safetensors", 1, scan_plan(intensity=WINDOW, image_size=32))
    tuned = trained(
        tmp_path / "tuned.safetensors",
        1,
        scan_plan(intensity=WINDOW),
        tuning={"method": "bias"},
        prompts={"method": "none"},
    )
    for path, sentence in {
        small: r"new: .*small.safetensors was trained on images of 32 px, the bank's encoder is set to 64 px",
        tuned: r"new: .*was trained with tuning bias, which changes the encoder",
    }.items():
        with pytest.raises(VptError, match=sentence):
            bank.add("new", path)
    with pytest.raises(VptError, match="core: the bank has a task of this name"):
        bank.add("core", artifacts["core"])
    with pytest.raises(VptError, match=r"was trained on vit_micro, the bank's encoder is vit_small_patch16_224"):
        vpt.Bank("vit_small_patch16_224", "cpu").add("core", artifacts["core"])
    with pytest.raises(VptError, match=r"kind: this task does not segment; ask bank\['kind'\] itself"):
        bank.segment(scan(), ["kind"])
    with pytest.raises(VptError, match=r"core: this task does not classify; ask bank\['core'\] itself"):
        bank.classify(scan(), ["core"])
    with pytest.raises(VptError, match=r"tasks is the text 'core'; give a list of names"):
        bank.segment(scan(), "core")
    with pytest.raises(VptError, match="vit_mikro"):
        vpt.Bank("vit_mikro")
    with pytest.raises(VptError, match="backbone: a VitBackbone, expected a name"):
        vpt.Bank(vpt.load_backbone("vit_micro"))  # type: ignore[arg-type]
    with pytest.raises(VptError, match="postprocess 'none': expected True or False"):
        vpt.Bank("vit_micro", postprocess="none")  # type: ignore[arg-type]
    for name in ("", None, 3):
        with pytest.raises(VptError, match="expected a name, such as 'liver'"):
            bank.add(name, artifacts["core"])  # type: ignore[arg-type]
    with pytest.raises(VptError, match=r"'a\.png' is no request; give pairs of a scan and a task"):
        bank.classify_each(["a.png"])  # type: ignore[list-item]
    with pytest.raises(VptError, match="None: no task of this bank is called so"):
        bank.segment(scan(), [None])  # type: ignore[list-item]
    assert "new" not in bank


@pytest.mark.slow
def test_an_encoder_of_other_options_is_not_shared(tmp_path: Path) -> None:
    """They would be given to the first task's encoder in silence."""
    plan = scan_plan(intensity=WINDOW)
    encoder = {"name": "sam_micro", "weights": "random"}
    first = trained(tmp_path / "first.safetensors", 1, plan, backbone=encoder)
    other = trained(tmp_path / "other.safetensors", 2, plan, backbone=encoder | {"options": {"attention": "original"}})
    bank = vpt.Bank("sam_micro", "cpu")
    bank.add("first", first)
    with pytest.raises(VptError, match=r"loaded otherwise than the bank's first task .*'attention': 'original'"):
        bank.add("other", other)
    assert bank.tasks == ("first",)


@pytest.mark.slow
def test_values_and_sizes_that_fit_one_task_and_not_another_are_refused_with_its_name(tmp_path: Path) -> None:
    usual = TrainingSizes(pixel=(1.0, 1.2), side=(20.0, 30.0))
    here = scan_plan(intensity=WINDOW, sizes=usual)
    there = here.model_copy(update={"sizes": TrainingSizes(pixel=(10.0, 12.0), side=(200.0, 300.0))})
    images = image_plan()
    bank = vpt.Bank("vit_micro", "cpu")
    bank.add("here", trained(tmp_path / "here.safetensors", 1, here))
    bank.add("there", trained(tmp_path / "there.safetensors", 2, there))
    assert bank.segment(scan(), ["here"]).keys() == {"here"}
    with pytest.raises(VptError, match=r"^there: .*so both are .* times smaller"):
        bank.segment(scan())
    with pytest.warns(VptWarning, match="times smaller"):
        assert bank.segment(scan(), force=True).keys() == {"here", "there"}

    eight = [values_of(read_scan(images, stripes(kind, number)).voxels) for kind in range(3) for number in range(3)]
    known = images.model_copy(update={"values": values_over(eight)})
    for name, plan in (("any", images), ("eight", known)):
        bank.add(name, trained(tmp_path / f"{name}.safetensors", 3, plan, {0: "a", 1: "b"}, task="classification"))
    faint = stripes(1, 0) // 200
    assert bank.classify(faint, ["any"])
    with pytest.raises(VptError, match=r"^eight: "):
        bank.classify(faint, ["any", "eight"])
