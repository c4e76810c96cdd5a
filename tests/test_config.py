"""Settings: YAML in and out without loss, a mistake told with its place and its remedy, all mistakes at once."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vpt.building import load_encoder
from vpt.config import (
    Config,
    as_config,
    build_config,
    dump_config,
    load_config,
    parse_labels,
    parse_override,
    parse_prompts,
)
from vpt.config.files import CHOSEN
from vpt.config.idle import idle_settings
from vpt.config.run import OF_ONE_TASK
from vpt.errors import VptError
from vpt.heads.linear import LinearConfig
from vpt.heads.mask import MaskHeadConfig
from vpt.heads.sam_decoder import SamDecoderConfig
from vpt.prompts.additive import AdditiveConfig
from vpt.prompts.conditioned import ConditionedConfig
from vpt.prompts.cross import CrossConfig
from vpt.prompts.deep import DeepConfig
from vpt.prompts.fourier import FourierConfig
from vpt.prompts.gated import GatedConfig
from vpt.prompts.low_rank import LowRankConfig
from vpt.prompts.none import NoPromptsConfig
from vpt.prompts.shallow import ShallowConfig
from vpt.vocabulary import TASKS

COUNTED = ("conditioned", "cross", "deep", "fourier", "gated", "low_rank", "shallow")

DATA = {"path": "/data/set"}
BOUNDED = {"levels", "last", "blocks", "kernel"}  # by the encoder, when it is loaded
PLAIN = {"alpha"}  # of which nothing is made


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(values: dict[str, Any], overrides: dict[str, Any] | None = None) -> str:
    with pytest.raises(VptError) as error:
        load_config({"data": DATA} | values, overrides)
    return str(error.value)


# Where it comes from


def test_a_data_sets_folder_is_a_config_of_defaults(tmp_path: Path) -> None:
    config = load_config(tmp_path)

    assert config == Config.model_validate({"data": {"path": tmp_path}})
    assert config.data.path == tmp_path
    assert (config.backbone.name, config.tuning.method) == ("vit_micro", "prompts")
    assert config.prompts == DeepConfig(count=10)


def test_a_relative_data_path_is_taken_from_the_yaml_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path.parent)

    config = load_config(write(tmp_path / "configs", "data:\n  path: ../data/set\n"))

    assert config.data.path == tmp_path / "data" / "set"


def test_a_path_given_in_python_or_as_an_override_is_taken_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    yaml = write(tmp_path / "elsewhere", "data:\n  path: set\n")
    monkeypatch.chdir(tmp_path)

    for config in (load_config({"data": {"path": "set"}}), load_config(yaml, {"data.path": "set"})):
        assert config.data.path == tmp_path / "set"


def test_a_config_stored_in_another_folder_still_names_the_same_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "set").mkdir()
    monkeypatch.chdir(tmp_path)
    config = load_config("set")

    again = load_config(write(tmp_path / "run", dump_config(config)))

    assert again == config
    assert again.data.path == tmp_path / "set"


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert load_config(write(tmp_path, "data:\n  path: ~/set\n")).data.path == tmp_path / "set"


def test_the_callers_dictionary_is_left_as_it_was() -> None:
    values = {"data": dict(DATA), "optim": {"lr": 0.1}}

    config = load_config(values, {"optim.lr": 0.2, "train.epochs": 3})

    assert config.optim.lr == 0.2
    assert values == {"data": DATA, "optim": {"lr": 0.1}}


# There and back


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"prompts": {"method": "none"}, "tuning": "full", "seed": 7},
        {"prompts": {"method": "shallow", "count": 20, "project": 16, "dropout": 0.1}},
        {"prompts": {"method": "deep", "count": 5, "blocks": "last:4"}},
        {"prompts": {"method": "deep", "blocks": [0, 2, 11]}},
        {"data": DATA | {"fold": 3}, "backbone": {"name": "vit_base_patch16_224.augreg_in21k", "weights": "random"}},
        {"plan": {"plane": "axial", "image_size": 224, "window": [-100, 240.5], "neighbours": False}},
        {"prompts": {"method": "additive", "form": "vector"}},
        {"prompts": {"method": "deep", "shared": True}},
        {"prompts": {"method": "low_rank", "count": 100, "rank": 17, "blocks": "last:4"}},
        {"prompts": {"method": "gated", "count": 20, "gate": -1.5, "project": 16, "dropout": 0.1}},
        {"prompts": {"method": "fourier", "share": 0.3, "blocks": [0, 2]}},
        {"prompts": {"method": "conditioned", "hidden": 8, "kernel": 5, "blocks": "global"}},
        {"head": {"kind": "mask", "width": 32, "levels": 2}},
        {"head": {"kind": "sam_decoder"}, "backbone": {"name": "sam_micro", "options": {"attention": "original"}}},
        {"head": {"kind": "sam_decoder", "tune": "tokens", "refine": False, "hints": True}},
        {"optim": {"lr": 1e-5, "weight_decay": 0}, "train": {"patience": 3, "workers": 0, "augment": "none"}},
    ],
)
def test_what_is_written_reads_back_the_same(tmp_path: Path, values: dict[str, Any]) -> None:
    config = load_config({"data": DATA} | values)

    again = load_config(write(tmp_path, dump_config(config)))

    assert again == config
    assert dump_config(again) == dump_config(config)


def test_what_is_written_holds_every_setting() -> None:
    text = dump_config(load_config({"data": DATA}))

    assert all(f"\n{name}:" in f"\n{text}" for name in Config.model_fields)
    assert "python" not in text  # plain YAML, no tags that only Python reads


def test_a_config_cannot_be_changed() -> None:
    config = load_config({"data": DATA})

    with pytest.raises(ValidationError, match="frozen"):
        config.optim.lr = 1.0


# Overrides


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("train.epochs=3", "train.epochs", 3),
        ("optim.lr=0.001", "optim.lr", 0.001),
        ("seed=7", "seed", 7),
        ("plan.neighbours=false", "plan.neighbours", False),
        ("train.patience=null", "train.patience", None),
        ("prompts.blocks=[0, 2]", "prompts.blocks", [0, 2]),
        ("prompts.blocks=last:2", "prompts.blocks", "last:2"),
        ("backbone.weights=a=b.pth", "backbone.weights", "a=b.pth"),
    ],
)
def test_an_override_is_a_dotted_key_and_a_yaml_value(text: str, key: str, value: Any) -> None:
    assert parse_override(text) == (key, value)


@pytest.mark.parametrize("rate", ["1e-3", "1.0e-3", "0.001", ".001"])
def test_a_rate_may_be_written_as_people_write_it(tmp_path: Path, rate: str) -> None:
    override = dict([parse_override(f"optim.lr={rate}")])
    yaml = write(tmp_path, f"data: {{path: x}}\noptim: {{lr: {rate}}}\n")

    assert load_config({"data": DATA}, override).optim.lr == pytest.approx(1e-3)
    assert load_config(yaml).optim.lr == pytest.approx(1e-3)


@pytest.mark.parametrize("text", ["optim.lr", "=3", "", "optim.lr:3"])
def test_an_override_without_key_or_value_says_how_to_write_it(text: str) -> None:
    with pytest.raises(VptError, match=r"--set .*expected KEY=VALUE, for example optim\.lr=1e-3"):
        parse_override(text)


def test_an_override_that_is_not_yaml_is_refused() -> None:
    with pytest.raises(VptError, match=r"--set prompts\.blocks=\[0: the value is not readable as YAML"):
        parse_override("prompts.blocks=[0")


def test_overrides_replace_what_the_file_says_and_leave_the_rest(tmp_path: Path) -> None:
    yaml = write(tmp_path, "data: {path: x}\noptim: {lr: 0.1, clip: 2}\ntrain: {epochs: 5}\n")

    config = load_config(yaml, {"optim.lr": 0.3, "plan.plane": "axial", "seed": 9})

    assert (config.optim.lr, config.optim.clip, config.train.epochs) == (0.3, 2, 5)
    assert (config.plan.plane, config.seed) == ("axial", 9)


def test_an_override_of_an_unknown_key_is_refused_with_a_suggestion() -> None:
    assert "unknown key optim.learning_rate" in refusal({}, {"optim.learning_rate": 1})
    assert "unknown key train.epoch; did you mean train.epochs?" in refusal({}, {"train.epoch": 1})


def test_an_override_inside_a_value_is_refused() -> None:
    assert "seed is a value, not a section" in refusal({"seed": 1}, {"seed.number": 2})


def test_the_count_alone_can_be_overridden() -> None:
    assert load_config({"data": DATA}, {"prompts.count": 5}).prompts == DeepConfig(count=5)


# Heads


def test_a_head_without_a_kind_is_the_one_of_the_task() -> None:
    config = load_config({"data": DATA})
    assert config.head is None  # the data say which task it is
    assert config.resolved("segmentation").head == MaskHeadConfig()
    assert config.resolved("classification").head == LinearConfig()
    assert load_config({"data": DATA, "task": "classification", "head": {"pool": "mean"}}).head == LinearConfig(
        pool="mean"
    )
    assert load_config({"data": DATA, "head": {"width": 32}}).head == MaskHeadConfig(width=32)
    assert load_config({"data": DATA}, {"head.levels": 2}).head == MaskHeadConfig(levels=2)


def test_an_encoder_may_be_written_by_its_name_alone() -> None:
    assert build_config({"data": {"path": "d"}, "backbone": "sam_micro"}, "config").backbone.name == "sam_micro"


def test_a_value_for_a_whole_section_is_refused_with_the_keys_it_has() -> None:
    said = refusal({"optim": 5})
    assert "optim: a section with keys of its own (optim.method, optim.lr, " in said
    assert said.endswith("found 5")


def test_the_sam_decoder_is_chosen_by_its_kind() -> None:
    chosen = load_config({"data": DATA}, {"head.kind": "sam_decoder", "head.hints": True}).head

    assert chosen == SamDecoderConfig(tune="auto", queries=None, refine=True, hints=True)


# Prompts in short


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("deep:10", DeepConfig(count=10)),
        ("deep:1", DeepConfig(count=1)),
        ("deep", DeepConfig()),
        ("shallow:50", ShallowConfig(count=50)),
        ("shallow", ShallowConfig()),
        ("none", NoPromptsConfig()),
        ("additive", AdditiveConfig(form="grid")),
        ("low_rank:100", LowRankConfig(count=100, rank=8)),
        ("low_rank", LowRankConfig(count=50)),
        ("gated:20", GatedConfig(count=20, gate=-5)),
        ("gated", GatedConfig(count=50)),
        ("fourier:5", FourierConfig(count=5, share=0.5)),
        ("fourier", FourierConfig(count=10)),
        ("conditioned:4", ConditionedConfig(count=4, hidden=16, kernel=3)),
        ("conditioned", ConditionedConfig(count=10)),
        ("cross:200", CrossConfig(count=200)),
        ("cross", CrossConfig(count=20, blocks="all", dropout=0, init="uniform")),
    ],
)
def test_prompts_in_short(text: str, prompts: Any) -> None:
    assert load_config({"data": DATA, "prompts": parse_prompts(text)}).prompts == prompts


@pytest.mark.parametrize(
    "text",
    [
        "depp:10",
        "deep:ten",
        "deep:-1",
        "deep:1.5",
        "deep:10:3",
        "none:3",
        "additive:3",
        "additve",
        "",
        ":3",
        "DEEP",
        "deep:²",
        "low-rank:3",
        "fourier:0.5",
        "conditioned:x",
    ],
)
def test_prompts_that_cannot_be_read_say_how_to_write_them(text: str) -> None:
    expected = (
        r"--prompts .*: expected class_queries:COUNT, conditioned:COUNT, cross:COUNT, deep:COUNT, fourier:COUNT, "
        r"gated:COUNT, low_rank:COUNT, shallow:COUNT, additive, class_prompts, coda, dualprompt, l2p, none or "
        r"smope, for example deep:10"
    )
    with pytest.raises(VptError, match=expected):
        parse_prompts(text)


def test_a_method_of_prompts_that_may_have_been_meant_is_named() -> None:
    with pytest.raises(VptError, match=r"--prompts gatd:3: .*; did you mean gated\?$"):
        parse_prompts("gatd:3")


@pytest.mark.parametrize("method", ["shallow", "deep", "gated", "cross"])
@pytest.mark.parametrize("init", ["uniform", "tokens", "kmeans", "vipamin"])
def test_prompts_may_start_from_tokens(method: str, init: str) -> None:
    prompts = load_config({"data": DATA, "prompts": {"method": method, "init": init}}).prompts

    assert prompts.model_dump()["init"] == init


@pytest.mark.parametrize(
    "prompts",
    [
        {"method": "shallow", "project": 8},
        {"method": "gated", "project": 8},
        {"method": "deep", "project": 8},
        {"method": "deep", "shared": True},
    ],
)
def test_projected_or_shared_prompts_cannot_start_from_tokens(prompts: dict[str, Any]) -> None:
    assert (
        "prompts: Value error, init kmeans needs prompts as wide as the encoder and a set of them for each block; "
        in (refusal({"prompts": prompts | {"init": "kmeans"}}))
    )
    assert load_config({"data": DATA, "prompts": prompts | {"init": "uniform"}})


@pytest.mark.parametrize("method", COUNTED)
def test_a_count_of_zero_is_refused(method: str) -> None:
    assert "prompts.count: Input should be greater than or equal to 1, found 0" in refusal(
        {"prompts": parse_prompts(f"{method}:0")}
    )


# Mistakes


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"optm": {}}, "unknown key optm; did you mean optim?"),
        ({"optim": {"lrr": 1}}, "unknown key optim.lrr; did you mean optim.lr?"),
        ({"train": {"batchsize": 1}}, "unknown key train.batchsize; did you mean train.batch_size?"),
        ({"lr": 1}, "unknown key lr; did you mean optim.lr?"),
        ({"optim": {"epochs": 1}}, "unknown key optim.epochs; did you mean train.epochs?"),
        ({"optim": {"learning_rate": 1}}, "unknown key optim.learning_rate; did you mean optim.lr?"),
        ({"learning_rate": 1}, "unknown key learning_rate; did you mean optim.lr?"),
        ({"train": {"seed": 1}}, "unknown key train.seed; did you mean seed?"),
        ({"data": {"root": 1}}, "unknown key data.root; known keys here: data.path, "),
        ({"prompts": {"method": "deep", "cuont": 1}}, "unknown key prompts.cuont; did you mean prompts.count?"),
        (
            {"prompts": {"method": "conditioned", "kernal": 3}},
            "unknown key prompts.kernal; did you mean prompts.kernel?",
        ),
        (
            {"prompts": {"method": "additive", "from": "grid"}},
            "unknown key prompts.from; did you mean prompts.form?",
        ),
        (
            {"head": {"kind": "sam_decoder", "tunne": "tokens"}},
            "unknown key head.tunne; did you mean head.tune?",
        ),
        ({"head": {"kind": "sam_decoder", "hint": True}}, "unknown key head.hint; did you mean head.hints?"),
        ({"head": {"wdith": 32}}, "unknown key head.wdith; did you mean head.width?"),
        ({"backbone": {"option": {}}}, "unknown key backbone.option; did you mean backbone.options?"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(values: dict[str, Any], said: str) -> None:
    assert said in refusal(values)


@pytest.mark.parametrize(
    ("key", "given"), [("train.epochs", True), ("optim.lr", True), ("train.augment", False), ("optim.clip", False)]
)
def test_true_and_false_are_no_number_and_no_word(key: str, given: bool) -> None:
    said = refusal({}, {key: given})

    assert f"{key}: " in said
    assert f"true and false are no value of it (YAML reads yes, no, on and off as these), found {given}" in said


def test_a_label_that_yaml_reads_as_an_answer_is_to_be_quoted(tmp_path: Path) -> None:
    with pytest.raises(VptError, match=r"data\.labels: .*a label's name is read as False; quote a name such as yes"):
        load_config(write(tmp_path, "data: {path: ., labels: {no: [1], yes: [2]}}\n"))


def test_settings_that_are_true_or_false_take_both(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "data: {path: ., use_val: on}\ntrain: {calibrate: no, mirror: none}\n"))

    assert config.data.use_val
    assert not config.train.calibrate


def test_a_seed_that_no_generator_takes_is_refused() -> None:
    assert "seed: Input should be less than 9223372036854775808" in refusal({"seed": 10**20})


def test_an_unknown_key_that_resembles_nothing_lists_what_is_known_there() -> None:
    said = refusal({"zzzzzzzz": 1})

    assert "unknown key zzzzzzzz; known keys here: " in said
    assert all(name in said for name in Config.model_fields)


def test_a_key_of_another_method_is_not_suggested_for_itself() -> None:
    said = refusal({"prompts": {"method": "shallow", "blocks": "all"}})

    assert "prompts.blocks is a setting of prompts.method=coda, " in said
    assert "found prompts.method=shallow; choose one that has it" in said
    assert "did you mean prompts.blocks?" not in said


@pytest.mark.parametrize(
    "head", [{"tune": "tokens"}, {"kind": "mask", "refine": True}, {"kind": "sam_decoder", "width": 64}]
)
def test_a_key_of_another_head_is_refused_and_not_suggested_for_itself(head: dict[str, Any]) -> None:
    key, said = list(head)[-1], refusal({"head": head})

    assert f"config: head.{key} is a setting of head.kind=" in said
    assert f", found head.kind={head.get('kind', 'mask')}; choose one that has it" in said
    assert f"did you mean head.{key}?" not in said


@pytest.mark.parametrize("name", ["deep", "none", "additive", "mask", "sam_decoder"])
def test_a_section_named_like_a_method_or_a_head_is_refused(name: str) -> None:
    assert f"unknown key {name}; " in refusal({name: {}})


@pytest.mark.parametrize(("section", "key"), [("prompts", "deep"), ("head", "sam_decoder")])
def test_a_key_named_like_a_method_or_a_head_is_named_in_full(section: str, key: str) -> None:
    assert f"unknown key {section}.{key}; " in refusal({section: {key: 10}})


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"optim": {"lr": 0}}, "optim.lr"),
        ({"optim": {"lr": float("nan")}}, "optim.lr"),
        ({"optim": {"warmup": 1}}, "optim.warmup"),
        ({"train": {"epochs": 0}}, "train.epochs"),
        ({"train": {"foreground": 1.5}}, "train.foreground"),
        ({"train": {"augment": "wild"}}, "train.augment"),
        ({"head": {"width": 12}}, "head.width"),
        ({"data": DATA | {"fold": -1}}, "data.fold"),
        ({"plan": {"plane": "oblique"}}, "plan.plane"),
        ({"plan": {"window": [1]}}, "plan.window"),
        ({"prompts": {"method": "deep", "dropout": 1}}, "prompts.dropout"),
        ({"prompts": {"method": "deep", "blocks": [1, "x"]}}, "prompts.blocks"),
        ({"prompts": {"method": "low_rank", "rank": 0}}, "prompts.rank"),
        ({"prompts": {"method": "gated", "gate": "open"}}, "prompts.gate"),
        ({"prompts": {"method": "gated", "gate": float("inf")}}, "prompts.gate"),
        ({"prompts": {"method": "fourier", "share": 0}}, "prompts.share"),
        ({"prompts": {"method": "fourier", "share": 1.1}}, "prompts.share"),
        ({"prompts": {"method": "conditioned", "hidden": 0}}, "prompts.hidden"),
        ({"prompts": {"method": "conditioned", "kernel": 0}}, "prompts.kernel"),
        ({"prompts": {"method": "additive", "form": "line"}}, "prompts.form: Input should be 'vector' or 'grid'"),
        (
            {"head": {"kind": "sam_decoder", "tune": "all"}},
            "head.tune: Input should be 'auto', 'tokens', 'upscaling' or 'decoder'",
        ),
        ({"head": {"kind": "sam_decoder", "hints": "perhaps"}}, "head.hints"),
        ({"head": {"kind": "mask", "levels": 0}}, "head.levels"),
        ({"head": 3}, "head"),
        ({"precision": "8-bit"}, "precision"),
        ({"seed": -1}, "seed"),
        ({"seed": "one"}, "seed"),
        ({"optim": 3}, "optim"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_place_and_what_was_found(values: dict[str, Any], where: str) -> None:
    said = refusal(values)

    assert f"config: {where}" in said
    assert ", found " in said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"prompts": {"method": "depp"}}, "config: prompts: no method is called 'depp'; did you mean deep"),
        ({"prompts": "depp"}, "config: prompts: no method is called 'depp'; did you mean deep"),
        ({"head": {"kind": "sam"}}, "config: head: no kind is called 'sam'; "),
        ({"tuning": "lora9"}, "config: tuning: no method is called 'lora9'; did you mean lora"),
        ({"tuning": "zzz"}, "config: tuning: no method is called 'zzz'; expected one of adapter, bias, full, lora, "),
    ],
)
def test_a_name_that_no_section_has_is_refused_with_those_there_are(values: dict[str, Any], said: str) -> None:
    assert refusal(values).startswith(said)


def test_a_config_without_data_is_refused() -> None:
    with pytest.raises(VptError, match="config: data is missing; set it"):
        load_config({})


def test_several_problems_are_told_together(tmp_path: Path) -> None:
    yaml = write(tmp_path, "data: {path: x}\noptim: {lr: -1, lrr: 2}\ntrain: {epochs: 0}\nhed: {}\n")

    with pytest.raises(VptError) as error:
        load_config(yaml)

    said = str(error.value)
    assert said.count("; ") >= 3
    for part in (str(yaml), "optim.lr:", "optim.lrr", "train.epochs", "unknown key hed; did you mean head?"):
        assert part in said
    assert "pydantic" not in said


def test_build_config_names_where_the_values_come_from() -> None:
    with pytest.raises(VptError, match=r"^run/best\.safetensors: seed: "):
        build_config({"data": DATA, "seed": -1}, "run/best.safetensors")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("data:\n  path: x\nseed: [1, 2\n", 4),
        ("data:\n\tpath: x\n", 2),
        ("data:\n  path: x\n optim: 1\n", 3),
        ("seed: 1\ndata: {path: x}}\n", 2),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    yaml = write(tmp_path, text)

    with pytest.raises(VptError, match=rf"not readable as YAML \(line {line}, column \d+\)") as error:
        load_config(yaml)
    assert str(yaml) in str(error.value)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("010", r"reads as the number 8 \(base 8\) \(line 2, column 7\); write 8 or 10, or put it in quotes"),
        ("01", r"reads as the number 1 \(base 8\) .*; write 1, or"),
        ("0__10_", r"reads as the number 8 \(base 8\) .*; write 8 or 10, or"),
        ("1:30", r"reads as the number 90 \(base 60\) .*; write 90, or"),
        ("'010'", None),
        ("0x0a", None),
        ("1_0", None),
    ],
)
def test_a_number_that_counts_otherwise_than_it_looks_is_refused(tmp_path: Path, number: str, said: str | None) -> None:
    yaml = write(tmp_path, f"data: {{path: x}}\nseed: {number}\n")
    if said is None:
        assert load_config(yaml).seed == 10
        return
    with pytest.raises(VptError, match=said):
        load_config(yaml)
    with pytest.raises(VptError, match=f"--set seed={number}: the value is {number} without quotes"):
        parse_override(f"seed={number}")
    with pytest.raises(VptError, match=f"--labels .*: {number} without quotes, which YAML reads as .*; write "):
        parse_labels(f"{{liver: {number}}}")


@pytest.mark.parametrize("method", ["deep", "shallow", "low_rank", "gated", "fourier", "cross", "conditioned"])
def test_more_prompts_than_any_image_has_patches_are_refused(method: str) -> None:
    values = {"data": DATA, "prompts": {"method": method, "count": 4096}}
    assert load_config(values).prompts.count == 4096
    with pytest.raises(VptError, match=r"prompts\.count: .* 4096, found 1000000"):
        load_config(values | {"prompts": parse_prompts(f"{method}:1000000")})


@pytest.mark.parametrize(
    ("key", "room", "name", "setting"),
    [
        (room.key, part, name, setting)
        for part, room in CHOSEN.items()
        if part != "fair"  # its width is bounded by the images
        for name in room.names()
        for setting, field in room.section(name).model_fields.items()
        if field.annotation in (int, int | None) and setting not in BOUNDED | PLAIN
    ],
)
def test_a_number_that_would_take_all_memory_is_refused(key: str, room: str, name: str, setting: str) -> None:
    with pytest.raises(VptError, match=rf"{room}\.{setting}: .* found 10000000"):
        load_config({"data": DATA, room: {key: name, setting: 10_000_000}})


@pytest.mark.parametrize("method", ["class_prompts", "class_queries"])
def test_more_prompts_below_those_of_classes_are_refused(method: str) -> None:
    with pytest.raises(VptError, match=r"prompts\.before: .* 4096, found 1000000"):
        load_config({"data": DATA, "prompts": {"method": method, "before": 1000000}})


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00\x01")

    with pytest.raises(VptError, match=r"config\.yaml: not readable as YAML"):
        load_config(tmp_path / "config.yaml")


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "- 1\n- 2\n", "just words\n"])
def test_yaml_without_pairs_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(VptError, match=r"config\.yaml: holds no `key: value` pairs"):
        load_config(write(tmp_path, text))


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    mark = tmp_path / "it_ran"
    yaml = write(tmp_path, f"data: {{path: x}}\nseed: !!python/object/apply:os.mkdir ['{mark}']\n")

    with pytest.raises(VptError, match=r"not readable as YAML \(line 2"):
        load_config(yaml)
    assert not mark.exists()


def test_a_missing_file_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(VptError, match=r"none\.yaml: no such file or folder; give a data set's folder or a YAML"):
        load_config(tmp_path / "none.yaml")


# Settings of one task


OF_CLASSIFICATION: dict[str, Any] = {
    "data.target": "labels",
    "data.classes": ["a", "b"],
    "data.only": ["a", "b"],
    "plan.slices": 8,
    "train.calibrate": True,
}
OF_SEGMENTATION: dict[str, Any] = {
    "data.labels": {"liver": [1, 2]},
    "plan.skip_blank": True,
    "plan.sampling": "by_label",
    "plan.crop": "foreground",
    "plan.planes": "all",
    "train.foreground": 0.5,
    "train.postprocess": "auto",
    "train.keep_cases": False,
    "train.viewer": True,
}


@pytest.mark.parametrize(
    ("task", "key", "value", "its"),
    [("segmentation", key, value, "classification") for key, value in OF_CLASSIFICATION.items()]
    + [("classification", key, value, "segmentation") for key, value in OF_SEGMENTATION.items()],
)
def test_a_setting_of_the_other_task_is_refused_with_that_tasks_name(task: Any, key: str, value: Any, its: Any) -> None:
    config = load_config({"data": DATA}, {key: value})
    with pytest.raises(VptError, match=rf"^{key}=.* is a setting of {its}, which {task} does not use; leave it out$"):
        config.resolved(task)

    assert config.resolved(its).task == its
    assert config.resolved(task, strict=False).task == task  # of artifacts that were written before this was asked
    assert load_config({"data": DATA}, {key: value}).resolved(its) == config.resolved(its)


def test_every_setting_of_one_task_is_tried_above() -> None:
    assert (
        dict.fromkeys(OF_CLASSIFICATION, "classification") | dict.fromkeys(OF_SEGMENTATION, "segmentation")
        == OF_ONE_TASK
    )


def test_defaults_are_refused_by_no_task() -> None:
    for task in TASKS:
        assert load_config({"data": DATA}).resolved(task).task == task


def test_balanced_weights_are_for_classification() -> None:
    config = load_config({"data": DATA, "loss": {"class_weights": "balanced"}})
    with pytest.raises(VptError, match=r"^loss\.class_weights=balanced is for classification; of segmentation give"):
        config.resolved("segmentation")
    assert config.resolved("classification").loss.class_weights == "balanced"


# --- the recipes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "configs").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_recipe_can_be_read_and_says_its_command(path: Path) -> None:
    load_config(path)
    assert f"vpt train configs/{path.name} --out" in path.read_text()


def test_a_name_that_no_system_takes_is_left_to_who_reads_it() -> None:
    long = "x" * 5000
    config = Config.model_validate({"data": {"path": "."}, "backbone": {"name": long, "weights": long}})
    assert (config.backbone.name, config.backbone.weights) == (long, long)
    for backbone in ({"name": long}, {"name": "vit_micro", "weights": long}):
        config = Config.model_validate({"data": {"path": "."}, "backbone": backbone})
        with pytest.raises(VptError):
            load_encoder(config.backbone, 32)


@pytest.mark.parametrize("given", ["{a: yes}", "{a: [1, on]}", "{'': 1}", "{' ': 1}", "{}", "[1]", "{a: 1.5}"])
def test_labels_are_names_with_values(given):
    with pytest.raises(VptError, match="expected names with their values"):
        parse_labels(given)


def test_a_slip_of_yaml_in_labels_is_said():
    with pytest.raises(VptError, match=r"labels.*a: true and false .* are no values"):
        load_config({"data": {"path": ".", "labels": {"a": True}}})


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"task": "segmentation"}, (2e-3, 2e-4)),
        ({"task": "segmentation", "tuning": "full"}, (2e-3, 5e-5)),
        ({"task": "segmentation", "tuning": "lora"}, (2e-3, 1e-3)),
        ({"task": "segmentation", "tuning": "ssf", "optim.lr": 1e-4}, (1e-4, 5e-3)),
        ({"task": "classification", "tuning": "ssf", "optim.backbone_lr": 1e-4}, (1e-2, 1e-4)),
    ],
)
def test_a_rate_that_is_not_set_is_that_of_the_head_or_tuning(settings: dict, rates: tuple[float, float]) -> None:
    optim = load_config({"data": DATA}, settings).resolved(settings["task"]).optim
    assert (optim.lr, optim.backbone_lr) == rates


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"tuning": {"rank": 4}},
            "tuning.rank is a setting of tuning.method=lora, found tuning.method=prompts; choose",
        ),
        ({"prompts": {"method": "deep", "rank": 4}}, "prompts.rank is a setting of prompts.method=low_rank, found"),
        ({"head": {"hidden": 3}}, "head.hidden is a setting of head.kind=mlp, head.kind=readout, found head.kind=mask"),
    ],
)
def test_a_setting_of_another_choice_is_told_with_whose_it_is(values: dict[str, Any], said: str) -> None:
    assert said in refusal(values)


def test_a_label_without_a_value_is_told_with_how_it_is_written() -> None:
    assert "object:255: names no value; write {name: value}" in refusal({}, {"data.labels": {"object:255": None}})


IDLE: dict[str, Any] = {
    "optim.momentum": 0.8,
    "optim.prompt_lr": 0.1,
    "optim.prompt_weight_decay": 0.1,
    "optim.backbone_lr": 1e-3,
    "train.patience": 2,
    "train.views": 3,
    "plan.slices": 4,
    "data.folds": 3,
}


def test_settings_that_change_nothing_are_told_each_with_the_reason() -> None:
    config = load_config({"data": DATA, "prompts": "none"}, {"data.use_val": True, **IDLE}).resolved("classification")
    said = idle_settings(config, {"head"}, pictures=True, fixed=True, in_folds=False)
    wanted = [f"{key}={value}" for key, value in IDLE.items()]
    assert [text.partition(" changes nothing: ")[0] for text in said] == wanted


def test_settings_that_a_run_heeds_are_not_told_nor_those_that_nobody_gave() -> None:
    heeded = load_config({"data": DATA, "tuning": "lora"}, {"optim.method": "sgd", **IDLE}).resolved("classification")
    assert idle_settings(heeded, {"prompts", "head", "backbone"}, pictures=False, fixed=False, in_folds=True) == []
    usual = load_config({"data": DATA, "prompts": "none"}).resolved("classification")
    assert idle_settings(usual, {"head"}, pictures=True, fixed=True, in_folds=False) == []
    triggered = load_config({"data": DATA}, {"optim.prompt_lr": 0.1}).resolved("segmentation")
    assert idle_settings(triggered, {"head", "trigger"}, pictures=True, fixed=True, in_folds=True) == []


def test_a_config_takes_overrides_as_a_dictionary_does() -> None:
    config = load_config({"data": DATA, "train": {"batch_size": 3}})
    assert as_config(config) is config
    changed = as_config(config, {"train.epochs": 5})
    assert (changed.train.epochs, changed.train.batch_size) == (5, 3)
    with pytest.raises(VptError, match="unknown key nonsense"):
        as_config(config, {"nonsense": 1})


def test_an_override_goes_into_a_section_that_is_one_word_or_empty_and_leaves_what_else_it_has() -> None:
    given = {"data": DATA, "backbone": "sam_micro", "optim": None, "train": {"batch_size": 3}}
    found = load_config(given, {"backbone.weights": "random", "optim.lr": 0.1, "train": {"epochs": 3}})
    assert (found.backbone.name, found.backbone.weights, found.optim.lr) == ("sam_micro", "random", 0.1)
    assert (found.train.epochs, found.train.batch_size) == (3, 3)


@pytest.mark.parametrize(
    ("given", "said"),
    [(3, "config: an int, expected a data set's folder"), (None, "config: a NoneType, expected a data set's folder")],
)
def test_what_is_no_config_is_refused(given: Any, said: str) -> None:
    with pytest.raises(VptError, match=said):
        load_config(given)


def test_overrides_that_are_no_dictionary_are_refused() -> None:
    with pytest.raises(VptError, match="overrides: a list, expected a dictionary"):
        load_config({}, ["train.epochs=2"])  # type: ignore[arg-type]


def test_a_key_that_is_no_word_is_refused() -> None:
    assert "overrides: the key 3, expected one with dots" in refusal({}, {3: 4})  # type: ignore[dict-item]


@pytest.mark.parametrize("key", ["data.only", "data.classes"])
def test_classes_may_be_numbers_and_what_yaml_changes_is_not_guessed(key: str) -> None:
    def held(names: str) -> tuple[str, ...]:
        found = load_config({"data": {"path": "x"}}, dict([parse_override(f"{key}={names}")]))
        return tuple(getattr(found.data, key.partition(".")[2]))

    assert held("[0, 1, two]") == ("0", "1", "two")
    assert held('["010", "yes"]') == ("010", "yes")
    for odd in ("[yes, no]", "[1.0, 2.0]", "[null, a]"):
        with pytest.raises(VptError, match=rf"{key}: .*YAML reads a name as .*; write classes in quotes"):
            held(odd)


def test_what_a_caller_gives_stays_as_it_is() -> None:
    source = {"data": {"path": "x"}, "prompts": {"method": "deep"}}
    overrides = {"prompts": {"method": "shallow", "count": 2}, "prompts.count": 3, "train": {"epochs": 1}}
    before = copy.deepcopy((source, overrides))
    assert load_config(source, overrides).prompts.count == 3
    assert (source, overrides) == before
