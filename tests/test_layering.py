"""Imports point down only, heavy libraries stay where they belong (DESIGN.md), and importing costs next to nothing."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vpt

PACKAGE = Path(vpt.__file__).parent
DESIGN = Path(__file__).parents[1] / "docs" / "design.md"

# From the bottom up. A module may import from its own room and from the levels below it, not from beside it.
LEVELS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"words", "vocabulary", "palette", "progress", "parallel", "versions"}),
    frozenset({"files", "machine", "sections"}),
    frozenset({"sealed", "tensor_files", "foreign"}),
    frozenset({"backbones", "config", "readers", "scores"}),
    frozenset({"data", "prompts", "heads", "report", "mixing", "trigger"}),
    frozenset({"contract"}),
    frozenset({"model"}),
    frozenset(
        {"tuning", "tasks", "streams", "wrapping", "explaining", "building", "artifact_header", "artifact_doubts"}
    ),
    frozenset({"artifact", "view", "fair", "class_maps", "nearest_patches"}),
    frozenset({"artifact_tasks", "restoring"}),
    frozenset({"use", "describe", "published"}),
    frozenset({"model_card"}),
    frozenset({"engine"}),
    frozenset({"demo", "continual"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
# Library or module -> the parts of vpt that may import it; a part is a module, a package, or a path inside one.
RESERVED: dict[str, frozenset[str]] = {
    "timm": frozenset({"backbones"}),
    "segment_anything": frozenset({"backbones"}),
    "lightning": frozenset({"engine"}),
    "monai": frozenset({"tasks", "scores", "heads.unet", "data.synthetic"}),
    "nibabel": frozenset({"readers", "data.synthetic"}),
    "PIL": frozenset({"readers"}),
    "SimpleITK": frozenset({"readers"}),
    "pydicom": frozenset({"readers"}),
    "highdicom": frozenset({"readers"}),
    "albumentations": frozenset({"data.transforms"}),
    "matplotlib": frozenset({"report"}),
    "jinja2": frozenset({"report"}),
    "ray": frozenset({"use.archives"}),
    "peft": frozenset({"tuning.lora"}),
    "vpt.config": frozenset(
        {"config", "building", "artifact", "artifact_doubts", "restoring", "use", "engine", "continual", "cli"}
    ),
}


def modules() -> dict[str, Path]:
    """Dotted name below `vpt` -> file; the package itself, a facade over all levels, is left out."""
    names = {path: path.relative_to(PACKAGE).with_suffix("").parts for path in sorted(PACKAGE.rglob("*.py"))}
    dotted = {".".join(part for part in parts if part != "__init__"): path for path, parts in names.items()}
    return {name: path for name, path in dotted.items() if name}


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, absolute dotted name) of every import, those inside functions and for type checkers included."""
    found = []
    package = ("vpt", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            # `from vpt import model` and `from vpt.engine import run` name modules, not only what is in them
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return found


def level_of(name: str) -> int:
    """Level of a dotted name below `vpt`."""
    return next(number for number, parts in enumerate(LEVELS) if room_of(name) in parts)


def room_of(name: str) -> str:
    """Of a dotted name below `vpt`: the folder or file in the package that it lies in."""
    return name.partition(".")[0]


def within(name: str, parts: frozenset[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def test_every_module_has_a_level() -> None:
    placed = frozenset().union(*LEVELS)

    unplaced = sorted({name.split(".")[0] for name in modules()} - placed)
    gone = sorted(placed - {name.split(".")[0] for name in modules()})

    assert unplaced == [], f"give {unplaced} a level here and in DESIGN.md"
    assert gone == [], f"{gone} are no longer in vpt/; take them out of LEVELS"


@pytest.mark.slow
def test_imports_point_down_only() -> None:
    offenders = [
        f"vpt/{path.relative_to(PACKAGE)}:{line}: {name} imports {imported}, which does not lie below it"
        for name, path in modules().items()
        for line, imported in imports(path)
        if imported.startswith("vpt.")
        and room_of(imported.removeprefix("vpt.")) != room_of(name)
        and level_of(imported.removeprefix("vpt.")) >= level_of(name)
    ]

    assert offenders == [], "\n".join(offenders)


def rooms_in_design() -> dict[str, int]:
    """Room -> the row of the table in docs/design.md that it stands in."""
    table = DESIGN.read_text(encoding="utf-8").partition("| room |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    return {room: number for number, row in enumerate(rows) for room in re.findall(r"`([\w]+)/?`", row)}


@pytest.mark.slow
def test_the_rooms_stand_in_the_design_from_the_bottom_up() -> None:
    rows = rooms_in_design()
    offenders = {
        f"{room_of(name)} imports {room_of(imported.removeprefix('vpt.'))}, which stands in a row further down"
        for name, path in modules().items()
        for _, imported in imports(path)
        if imported.startswith("vpt.")
        and name != "__main__"
        and rows[room_of(imported.removeprefix("vpt."))] > rows[room_of(name)]
    }

    assert sorted(offenders) == []


def import_graph() -> dict[str, set[str]]:
    """Module -> those of ours that it imports, inside functions and for type checkers included.

    Importing `vpt.a.b` runs `vpt/a/__init__.py` too, unless the importer lies in `vpt/a` itself.
    """
    known, graph = modules(), {}
    for name, path in known.items():
        found: set[str] = set()
        for _, imported in imports(path):
            parts = imported.split(".")
            if parts[0] != "vpt":
                continue
            names = [".".join(parts[1:end]) for end in range(2, len(parts) + 1)]
            found |= {each for each in names if each in known and not f"{name}.".startswith(f"{each}.")}
            if path.name == "__init__.py" and name in names[:-1]:
                found.discard(name)
        graph[name] = found
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which leads to all others of its group."""
    reached = {}
    for start in graph:
        seen: set[str] = set()
        ahead = [*graph[start]]
        while ahead:
            if (name := ahead.pop()) not in seen:
                seen.add(name)
                ahead += graph[name]
        reached[start] = seen
    groups = {frozenset(a for a in reached[b] if b in reached[a]) for b in graph if b in reached[b]}
    return sorted(sorted(group) for group in groups)


@pytest.mark.slow
def test_no_module_leads_back_to_itself() -> None:
    assert circles(import_graph()) == []


def test_the_check_sees_circles_also_inside_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    sources = {
        "data/__init__.py": "from vpt.data.cases import read\n",
        "data/cases.py": "def read():\n    from vpt.engine import run\n",
        "engine/__init__.py": "",
        "engine/run.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vpt.files import write\n",
        "files.py": "import vpt.data\n",
        "words.py": "import vpt.files\n",  # leads into a circle, but lies in none
    }
    for name, source in sources.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)

    assert import_graph()["data.cases"] == {"engine", "engine.run"}
    assert circles(import_graph()) == [["data", "data.cases", "engine.run", "files"]]


@pytest.mark.slow
def test_nothing_imports_the_facade() -> None:
    offenders = [
        f"vpt/{path.relative_to(PACKAGE)}:{line}: imports {imported}; import from where it lives"
        for path in modules().values()
        for line, imported in imports(path)
        if imported == "vpt" or (imported.startswith("vpt.") and imported.split(".")[1] in vpt.__all__)
    ]

    assert offenders == [], "\n".join(offenders)


@pytest.mark.slow
@pytest.mark.parametrize("reserved", RESERVED)
def test_libraries_stay_where_they_belong(reserved: str) -> None:
    allowed = RESERVED[reserved]
    offenders = [
        f"vpt/{path.relative_to(PACKAGE)}:{line}: {name} imports {imported}; only {', '.join(sorted(allowed))} may"
        for name, path in modules().items()
        for line, imported in imports(path)
        if within(imported, frozenset({reserved})) and not within(name, allowed)
    ]

    assert offenders == [], "\n".join(offenders)


def test_the_check_sees_imports_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "data").mkdir()
    source = tmp_path / "data" / "odd.py"
    source.write_text(
        "import monai.data as md\nfrom vpt import cli\nfrom . import cases\nfrom ..engine.run import train\n"
        "def f():\n    from timm.layers import Attention\n"
    )

    assert imports(source) == [
        (1, "monai.data"),
        (2, "vpt.cli"),
        (3, "vpt.data.cases"),
        (4, "vpt.engine.run.train"),
        (6, "timm.layers.Attention"),
    ]
    assert list(modules()) == ["data.odd"]


HEAVY = (
    "torch",
    "peft",
    "monai",
    "timm",
    "lightning",
    "albumentations",
    "cv2",
    "matplotlib",
    "jinja2",
    "scipy",
    "nibabel",
    "SimpleITK",
)


@pytest.mark.parametrize("module", ["vpt", "vpt.cli", "vpt.config", "vpt.errors"])
def test_importing_loads_no_heavy_library(module: str) -> None:
    program = f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert loaded.stdout.split() == []
    assert loaded.stderr == ""


@pytest.mark.slow
def test_importing_does_nothing_else(tmp_path: Path) -> None:
    """No file, no thread, no print, from any module."""
    program = (
        "import importlib, threading\n"
        f"for name in {sorted(modules())}: importlib.import_module('vpt.' + name)\n"
        "print(threading.active_count())"
    )

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)

    assert loaded.stdout.split() == ["1"]
    assert list(tmp_path.iterdir()) == []


def test_only_public_names_are_offered() -> None:
    assert set(dir(vpt)) == {*vpt.__all__, "__version__"}
    assert vpt.__version__ == importlib.metadata.version("vpt")


def test_every_public_name_is_there() -> None:
    assert all(getattr(vpt, name) is not None for name in vpt.__all__)
    with pytest.raises(AttributeError, match=r"no attribute 'segment'; it has .*load"):
        vpt.segment  # noqa: B018
