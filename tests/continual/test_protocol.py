"""What a protocol may say, and how its tasks are dealt."""

from __future__ import annotations

from pathlib import Path

import pytest
from organs_in_turn import write_organ
from tasks_in_turn import CLASSES, write_classes

from vpt.config import load_config
from vpt.continual.protocol import METHODS, OF_CLASSES, SHOWN, TUNED, Protocol, load_protocol
from vpt.continual.tasks import make_tasks
from vpt.errors import VptError

CONFIGS = Path(__file__).parents[2] / "configs" / "continual"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six classes. Read only."""
    return write_classes(tmp_path_factory.mktemp("turns") / "six")


@pytest.mark.parametrize("name", ["split_cifar100", "split_imagenet_r"])
def test_the_published_protocols_parse_and_every_method_of_them_has_a_config(name: str) -> None:
    protocol = load_protocol([CONFIGS / f"{name}.yaml"], {})
    assert (protocol.tasks, protocol.projection) == (10, 10_000)
    for method in TUNED:
        values = {"data": {"path": str(CONFIGS)}, "prompts": protocol.prompts_of(method)}
        config = load_config(values, protocol.settings)
        assert config.backbone.name.startswith("vit_base_patch16_224")
    assert f"vpt continual configs/continual/{name}.yaml --out" in (CONFIGS / f"{name}.yaml").read_text()
    assert protocol.prompts_of("coda") | {"components": 10} == protocol.prompts_of("coda")


def test_every_method_has_a_name_for_tables() -> None:
    assert set(SHOWN) == set(METHODS)


def test_a_protocol_may_be_a_set_a_file_or_values(data: Path, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("data: six\ntasks: 3\nmethods: [ncm]\nsettings: {train.epochs: 2}\n")
    own = load_protocol([tmp_path / "p.yaml"], {"settings": {"optim.lr": 1}, "methods": ["coda", "coda"]})
    assert own.data == (tmp_path / "six",)
    assert own.settings == {"train.epochs": 2, "optim.lr": 1}
    assert own.methods == ("coda",)
    assert load_protocol([data], {}).learners == OF_CLASSES
    assert load_protocol([data, data], {}).learners == OF_CLASSES[:-1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: six\nmethod: [ncm]", r"p\.yaml: unknown key method; did you mean methods\?$"),
        ("data: six\nqqq: 1", "unknown key qqq; its keys are data, tasks"),
        ("data: six\nmethods: [cod]", r"p\.yaml: methods: no method is called 'cod'; did you mean coda\?$"),
        ("data: six\nmethods: ncm", r"p\.yaml: methods: found 'ncm', expected a list of names$"),
        ("data: six\nmethods: []", r"methods: found \[\], expected a list of names"),
        (
            "data: six\ntasks: two",
            r"p\.yaml: tasks: found 'two', expected a number of tasks, or a list of lists of classes$",
        ),
        ("data: six\nseeds: 3", "seeds: found 3, expected a list of whole numbers from 0 on"),
        ("data: six\nseeds: []", r"seeds: found \[\], expected a list of whole numbers"),
        ("data: six\nseeds: [-1]", r"seeds: found \[-1\], expected a list of whole numbers"),
        ("data: six\nsettings: 3", "settings: found 3, expected settings of `vpt train` by dotted keys"),
        ("data: six\nsettings: {seed: 3}", "seed is not the same in all runs; a protocol says it by seeds"),
        ("data: six\nsettings: {data.path: x}", "data.path is not the same in all runs; a protocol says it by data"),
        (
            "data: six\nsettings: {prompts.count: 3}",
            "prompts.count is not the same in all runs; .* by prompts, by method",
        ),
        ("data: six\nprompts: 3", "prompts: found 3, expected the settings of methods"),
        ("data: six\nprompts: {codaa: {}}", "no method with prompts is called 'codaa'; did you mean coda"),
        ("data: six\nprompts: {ncm: {count: 3}}", "no method with prompts is called 'ncm'"),
        ("data: {a: six}", "data: found {'a': 'six'}, expected the path of a data set, or a list"),
        ("tasks: 3", "names no data; a protocol has the keys data"),
        ("data: [", "not readable as YAML"),
        ("data: x\norders: 010\n", r"the number 8 \(base 8\) \(line 2, column 9\); write 8 or 10, or put it in quotes"),
    ],
)
def test_what_a_protocol_cannot_say_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(VptError, match=said):
        load_protocol([tmp_path / "p.yaml"], {})


def test_what_is_no_protocol_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(VptError, match=r"none\.yaml: No such file or directory; give a data set, or a protocol"):
        load_protocol([tmp_path / "none.yaml"], {})
    with pytest.raises(VptError, match=r"p\.yaml: a protocol names its data itself; give it alone"):
        load_protocol([tmp_path / "p.yaml", data], {})
    with pytest.raises(VptError, match=r"^vpt continual: methods: no method is called 'nmc'; did you mean ncm\?$"):
        load_protocol([data], {"methods": ["nmc"]})
    assert load_protocol([data], {"seeds": [1, 1]}).seeds == (1,)


def test_what_would_stop_a_training_is_said_before_the_first(data: Path, tmp_path: Path) -> None:
    def usable(*paths: Path, **more: object) -> None:
        Protocol(data=paths, **more).require_usable()  # type: ignore[arg-type]

    usable(data)
    organ = write_organ(tmp_path / "organ", "disc")
    with pytest.raises(VptError, match="nowhere: no such file or folder; give a data set, or a protocol as YAML"):
        usable(data, tmp_path / "nowhere", methods=("ncm",))
    with pytest.raises(VptError, match=r"six has classes, .*organ has none; give data sets of one kind"):
        usable(organ, data, methods=("ncm",))
    with pytest.raises(VptError, match=r"^coda: config: unknown key prompts\.componentss; did you mean prompts\.comp"):
        usable(data, prompts={"coda": {"componentss": 3}})
    with pytest.raises(VptError, match=r"^ncm: config: unknown key optim\.lrr"):
        usable(data, methods=("ncm",), settings={"optim.lrr": 3})


def test_classes_are_dealt_in_an_order_of_the_seed_each_to_one_task(data: Path) -> None:
    orders = [make_tasks(Protocol(data=(data,), tasks=3), seed) for seed in (0, 0, 1)]
    dealt = [[task.classes for task in tasks] for tasks in orders]
    assert dealt[0] == dealt[1] != dealt[2]
    assert sorted(name for classes in dealt[0] for name in classes) == sorted(CLASSES)
    first = orders[0][0]
    assert first.name == "task 1"
    assert {example.name.partition("/")[0] for example in first.tested} == set(first.classes)
    assert len(first.tested) == 4
    assert set(first.labels(first.tested)) == set(first.classes)
    as_read = make_tasks(Protocol(data=(data,), tasks=3, shuffle=False), 5)
    assert [task.classes for task in as_read] == [("bright", "coarse"), ("dark", "fine"), ("lying", "standing")]


def test_classes_may_be_named_and_sets_may_be_tasks(data: Path, tmp_path: Path) -> None:
    named = (("dark", "lying"), ("fine", "coarse", "bright"))
    assert tuple(task.classes for task in make_tasks(Protocol(data=(data,), tasks=named), 0)) == named
    sites = tuple(write_classes(tmp_path / name, ("dark", "bright")) for name in ("north", "south"))
    tasks = make_tasks(Protocol(data=sites, shuffle=False), 0)
    assert [(task.name, task.classes) for task in tasks] == [(name, ("bright", "dark")) for name in ("north", "south")]


def test_tasks_that_cannot_be_made_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(VptError, match=r"6 classes .* for 4 tasks; 2 tasks at least, of 2 classes each"):
        make_tasks(Protocol(data=(data,), tasks=4), 0)
    with pytest.raises(VptError, match="the class 'dark' is there twice"):
        make_tasks(Protocol(data=(data,), tasks=(("dark", "fine"), ("dark", "lying"))), 0)
    for groups, found in (
        ((), "none"),
        ((("dark", "fine"),), "'dark', 'fine'"),
        ((("dark", "fine"), ("lying",)), "lying"),
    ):
        with pytest.raises(VptError, match=rf"tasks: found .*{found}.*; expected 2 tasks at least, of 2 classes each"):
            make_tasks(Protocol(data=(data,), tasks=groups), 0)
    with pytest.raises(VptError, match="each of several data sets is a task by itself"):
        make_tasks(Protocol(data=(data, tmp_path), tasks=2), 0)
    other = write_classes(tmp_path / "six", ("dark", "bright"))
    with pytest.raises(VptError, match="two data sets are called six"):
        make_tasks(Protocol(data=(data, other)), 0)
    (other / "split.json").unlink()
    with pytest.raises(VptError, match=r"north has no test case; fix the sides in split.json"):
        make_tasks(Protocol(data=(other.rename(tmp_path / "north"), data), shuffle=False), 0)
