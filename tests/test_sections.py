"""Sections found by name: those in the package's folders, those of other packages, those that were registered."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file
from tiny_classes import CLASS_SETTINGS, ONE_CLASS_STEP
from typer.testing import CliRunner

import vpt
from vpt.cli import app
from vpt.config import Config, load_config
from vpt.engine.methods import choose_methods, methods
from vpt.errors import VptError
from vpt.heads.base import HeadSettings
from vpt.heads.mask import MaskHeadConfig
from vpt.prompts.base import PromptSettings
from vpt.prompts.deep import DeepConfig, DeepPrompts
from vpt.sections import HEADS, PROMPTS, TUNINGS, Choice, Room
from vpt.tuning.base import TuningSettings

ROOMS = {"prompts": PROMPTS, "head": HEADS, "tuning": TUNINGS}
BASES = {"prompts": PromptSettings, "head": HeadSettings, "tuning": TuningSettings}
OWN = {
    "prompts": (
        "additive",
        "class_prompts",
        "class_queries",
        "coda",
        "conditioned",
        "cross",
        "deep",
        "dualprompt",
        "fourier",
        "gated",
        "l2p",
        "low_rank",
        "none",
        "shallow",
        "smope",
    ),
    "head": ("by_task", "class_masks", "class_scores", "linear", "mask", "mlp", "readout", "sam_decoder", "unet"),
    "tuning": ("adapter", "bias", "full", "lora", "partial", "prompts", "ssf"),
}
EVERY_ROOM = pytest.mark.parametrize("room", ROOMS)
STEP = {key: value for key, value in CLASS_SETTINGS.items() if key != "prompts"} | {
    "train.epochs": 1,
    "train.max_steps": 1,
}
# A prompt method, whole: what the one file of it holds, wherever that lies.
METHOD = '''
"""Deep prompts with their mirror images."""

from typing import Literal

import torch
from pydantic import Field

from vpt.prompts.base import PromptSettings, compared
from vpt.prompts.deep import DeepPrompts


class MirrorConfig(PromptSettings):
    method: Literal["mirror"] = "mirror"
    count: int = Field(4, ge=1)

    compared = (compared("mirror", "mirrored, 4", count=4),)

    def build(self, spec):
        return MirrorPrompts(spec, **self.arguments())


class MirrorPrompts(DeepPrompts):
    """[P; -P] for every block. Parameters: blocks * count * C."""

    def context(self, i, batch):
        prompts = super().context(i, batch)
        return torch.cat([prompts, -prompts], dim=-2)
'''


class Plain(PromptSettings):
    """Registered by the tests: deep prompts by another name."""

    method: Literal["plain"] = "plain"
    count: int = 2

    def build(self, spec: Any) -> DeepPrompts:
        return DeepPrompts(spec, **self.arguments())


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What a test registers is gone after it."""
    yield
    for room in ROOMS.values():
        room.registered.clear()


def command(*words: Any) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def options(settings: dict[str, Any]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


# Names


@EVERY_ROOM
def test_the_files_of_the_folder_are_the_names(room: str) -> None:
    assert ROOMS[room].names() == OWN[room]
    folder = Path(vpt.__file__).parent / ROOMS[room].package.split(".")[1]
    assert {path.stem for path in folder.glob("*.py")} - {"__init__", "base"} == set(OWN[room])


@EVERY_ROOM
def test_every_section_is_called_as_its_file_and_is_built_of_its_defaults(room: str) -> None:
    for name, section in zip(OWN[room], ROOMS[room], strict=True):
        assert section.name_by(ROOMS[room].key) == name
        assert issubclass(section, BASES[room])
        assert section.__module__ == f"{ROOMS[room].package}.{name}"
        assert ROOMS[room].validate({ROOMS[room].key: name}) == section()
        assert ROOMS[room].validate(section()) == section()


def test_the_names_are_known_without_torch() -> None:
    code = (
        "import sys, vpt.cli\nfrom vpt.sections import HEADS, PROMPTS, TUNINGS\n"
        "print(*PROMPTS.names(), *HEADS.names(), *TUNINGS.names())\n"
        "print([name for name in ('torch', 'timm', 'monai', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [" ".join(name for names in OWN.values() for name in names), "[]"]


def test_the_help_of_train_lists_them() -> None:
    said = " ".join(command("train", "--help").replace("│", " ").split())
    for names in OWN.values():
        assert ", ".join(names) in said


# Registered


@pytest.mark.parametrize(
    ("room", "register"),
    [("prompts", "register_prompts"), ("head", "register_heads"), ("tuning", "register_tuning")],
)
def test_the_public_functions_are_those_of_the_rooms(room: str, register: str) -> None:
    assert register in vpt.__all__
    assert getattr(vpt, register) == ROOMS[room].register


def test_what_is_registered_is_as_good_as_ours() -> None:
    assert vpt.register_prompts(Plain) is Plain
    assert vpt.register_prompts(Plain) is Plain  # a module that is run again
    assert "plain" in PROMPTS.names()
    assert PROMPTS.section("plain") is Plain
    config = load_config({"data": {"path": "x"}, "prompts": {"method": "plain", "count": 3}})
    assert config.prompts == Plain(count=3)
    assert load_config({"data": {"path": "x"}, "prompts": "plain"}).prompts == Plain()
    with pytest.raises(VptError, match=r"unknown key prompts\.cuont; did you mean prompts\.count\?"):
        load_config({"data": {"path": "x"}, "prompts": {"method": "plain", "cuont": 3}})


def test_a_name_that_is_there_is_refused() -> None:
    class Deep(PromptSettings):
        method: Literal["deep"] = "deep"

    class Second(Plain):
        pass

    with pytest.raises(VptError, match=r"^prompts: 'deep' is there already; give yours another name$"):
        PROMPTS.register(Deep)
    PROMPTS.register(Plain)
    with pytest.raises(VptError, match=r"^prompts: 'plain' is there already; give yours another name$"):
        PROMPTS.register(Second)
    assert PROMPTS.section("deep") is DeepConfig


class Choiceless(Choice):
    kind: str = "x"


class Nameless(PromptSettings):
    count: int = 2


class Tuned(TuningSettings):
    method: Literal["tuned"] = "tuned"


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (Plain(), r"^prompts: Plain\(.*\) is an instance of Plain; give the class itself; see docs/extending\.md$"),
        (Nameless, r"Nameless'> has no name; give its field a default, `method: Literal\['mine'\] = 'mine'`; see"),
        (Tuned, r"Tuned'> is no section of this kind, which derive from that of vpt\.prompts\.base; see"),
    ],
)
def test_sections_that_were_meant_otherwise_are_told_why(section: Any, said: str) -> None:
    with pytest.raises(VptError, match=said):
        PROMPTS.register(section)
    assert PROMPTS.names() == OWN["prompts"]


@pytest.mark.parametrize("section", [int, "deep", Choiceless, None, DeepPrompts])
def test_what_is_no_section_is_refused(section: Any) -> None:
    with pytest.raises(VptError, match=r"^prompts: .* is no section with a field `method`; see docs/extending\.md$"):
        PROMPTS.register(section)
    assert PROMPTS.names() == OWN["prompts"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"method": "depp"}, "prompts: no method is called 'depp'; did you mean deep"),
        ({"method": "zzz"}, "prompts: no method is called 'zzz'; expected one of additive, class_prompts, "),
        ({"method": ["deep"]}, "prompts: {'method': ['deep']} names no method; expected one of additive, "),
        ({"method": None}, "prompts: {'method': None} names no method; "),
        ({"count": 3}, "prompts: {'count': 3} names no method; "),
        (3, "prompts: 3 names no method; "),
        (MaskHeadConfig(), "prompts: MaskHeadConfig"),
        (PromptSettings(method="deep"), "prompts: PromptSettings(method='deep') is not the section that is called"),
    ],
)
def test_a_name_that_is_none_is_refused(values: Any, said: str) -> None:
    with pytest.raises(VptError) as refused:
        PROMPTS.validate(values)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


def test_a_file_without_a_section_is_told(tmp_path: Path) -> None:
    room: Room[Any] = Room("vpt.backbones", "method", "prompts")
    with pytest.raises(VptError, match=r"^prompts tokens: .*tokens\.py holds no section of that name; see docs/"):
        room.section("tokens")


# Of another package


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """installed("vpt.prompts", "mirror = foreign:MirrorConfig"): a distribution on sys.path with that entry point."""
    site = tmp_path / "site"
    info = site / "foreign-1.0.dist-info"

    def install(group: str, line: str, source: str = METHOD) -> Path:
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{line}\n")
        (site / "foreign.py").write_text(source)
        monkeypatch.syspath_prepend(site)
        return site

    yield install
    sys.modules.pop("foreign", None)


@pytest.mark.slow
def test_one_that_cannot_be_loaded_is_in_nobodys_way_and_is_told_where_it_is_chosen(
    installed: Any, tiny_classes: Path, tmp_path: Path
) -> None:
    installed("vpt.prompts", "broken = foreign:Nothing", "print('imported')")
    run = vpt.train(tiny_classes, tmp_path / "run", overrides=ONE_CLASS_STEP)
    assert "imported" not in command("info", run)
    assert "foreign" not in sys.modules
    assert vpt.load(run, device="cpu").classify(tiny_classes / "flat/im0.png")
    with pytest.raises(VptError, match=r"prompts\.cuont.*did you mean prompts\.count"):
        vpt.train(tiny_classes, tmp_path / "other", overrides=ONE_CLASS_STEP | {"prompts.cuont": 3})
    with pytest.raises(VptError, match="prompts broken: the package that brings it, foreign:Nothing, cannot be loaded"):
        vpt.train(tiny_classes, tmp_path / "other", overrides=ONE_CLASS_STEP | {"prompts": {"method": "broken"}})


@pytest.mark.slow
def test_a_method_of_another_package_works_in_training_artifacts_and_comparisons(
    installed: Any, tiny_classes: Path, tmp_path: Path
) -> None:
    installed("vpt.prompts", "mirror = foreign:MirrorConfig")
    names = PROMPTS.names()
    assert "mirror" in names
    assert "foreign" not in sys.modules  # its name is known, it is not imported
    assert "mirrored, 4" in command("compare", "x", "--methods", "list")

    run = tmp_path / "run"
    command("train", tiny_classes, "--out", run, "--prompts", "mirror:3", *options(STEP))

    tensors = load_file(run / "best.safetensors")
    assert tensors["prompts.table.tokens"].shape == (8, 3, 128)
    classifier = vpt.load(run, device="cpu")
    picture = next((tiny_classes / "flat").glob("*.png"))
    found = classifier.classify(picture)
    assert sum(found.values()) == pytest.approx(1, abs=1e-4)
    assert "method mirror" in command("info", run)
    chosen = options({**STEP, "train.workers": 0})
    command("compare", tiny_classes, "-o", tmp_path / "out", "--methods", "linear,mirror", "--seeds", 1, *chosen)
    assert (tmp_path / "out" / "mirror" / "seed-0" / "result.json").is_file()
    assert "mirrored, 4" in (tmp_path / "out" / "compare.csv").read_text()


def test_a_head_of_another_package_is_built(installed: Any) -> None:
    source = (
        "from typing import Literal\nfrom vpt.heads.linear import LinearConfig\n"
        "class Wide(LinearConfig):\n    kind: Literal['wide'] = 'wide'\n    compared = ()\n"
    )
    installed("vpt.heads", "wide = foreign:Wide", source)
    config = load_config({"data": {"path": "x"}, "task": "classification", "head": {"kind": "wide", "pool": "mean"}})
    assert config.resolved("classification").head.pool == "mean"
    said = r"head\.kind=wide is not for segmentation; choose mask, readout, sam_decoder or unet, "
    with pytest.raises(VptError, match=said):
        config.resolved("segmentation")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "mirror = foreign:Missing",
            r"^prompts mirror: the package that brings it, foreign:Missing, cannot be loaded \(AttributeError: .*\); "
            r"update or remove it$",
        ),
        ("mirror = nowhere:Config", r"cannot be loaded \(ModuleNotFoundError: .*nowhere.*update or remove it$"),
        (
            "mirror = foreign:MirrorPrompts",
            r"^prompts mirror: foreign:MirrorPrompts is no section of that name \(.* with a field `method`\); see",
        ),
        (
            "glass = foreign:MirrorConfig",
            r"^prompts glass: foreign:MirrorConfig is no section of that name \(is called 'mirror'\); see",
        ),
    ],
)
def test_a_package_that_brings_no_section_is_told_where_it_is_used(installed: Any, line: str, said: str) -> None:
    installed("vpt.prompts", line)
    name = line.partition(" ")[0]
    assert name in PROMPTS.names()
    assert isinstance(load_config({"data": {"path": "x"}}), Config)  # all others work
    with pytest.raises(VptError, match=said):
        PROMPTS.section(name)


def test_a_package_cannot_take_the_place_of_one_of_ours(installed: Any) -> None:
    installed("vpt.prompts", "deep = foreign:MirrorConfig")
    assert PROMPTS.section("deep") is DeepConfig
    assert PROMPTS.names() == OWN["prompts"]


# The number of files that a new method touches


@pytest.mark.slow
def test_a_new_prompt_method_is_one_file(tiny_classes: Path, tmp_path: Path) -> None:
    """Written into a copy of the package: it is in the help, in the list, in the config, and it trains."""
    source = Path(vpt.__file__).parent
    shutil.copytree(source, tmp_path / "vpt", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "vpt" / "prompts" / "mirror.py").write_text(METHOD)
    code = (
        "import vpt\nfrom vpt.sections import PROMPTS\nfrom vpt.engine.methods import methods\n"
        "from vpt.config import parse_prompts\nfrom vpt.engine.run import train\n"
        f"assert vpt.__file__ == {str(tmp_path / 'vpt' / '__init__.py')!r}\n"
        "print(*PROMPTS.names(), methods()['mirror'].shown, parse_prompts('mirror:3'))\n"
        f"train({str(tiny_classes)!r}, {str(tmp_path / 'run')!r}, "
        f"overrides={STEP | {'prompts': {'method': 'mirror', 'count': 3}}!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "low_rank mirror none" in done.stdout
    assert "mirrored, 4 {'method': 'mirror', 'count': 3}" in done.stdout
    assert load_file(tmp_path / "run" / "best.safetensors")["prompts.table.tokens"].shape == (8, 3, 128)
    assert torch.isfinite(load_file(tmp_path / "run" / "best.safetensors")["prompts.table.tokens"]).all()


def test_rows_of_the_comparison_are_said_by_the_sections() -> None:
    shown = {row.name: row.shown for room in ROOMS.values() for section in room for row in section.compared}
    found = {name: method.shown for name, method in methods().items()}
    assert found == {"head": "head only"} | shown
    assert set(choose_methods(None, "segmentation")) <= set(found)
