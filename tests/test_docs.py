"""The code in the documents runs, as it stands."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from vpt.backbones import families
from vpt.engine.callbacks import Callback
from vpt.sections import HEADS, PROMPTS, TUNINGS

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [DOCS.parent / "README.md", DOCS.parent / "SECURITY.md", *sorted(DOCS.rglob("*.md"))]
ROOMS = (HEADS, PROMPTS, TUNINGS)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.S)


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a page registers is gone after it."""
    monkeypatch.setattr(families, "_registered", {})
    yield
    for room in ROOMS:
        room.registered.clear()


@pytest.mark.slow
@pytest.mark.usefixtures("as_before")
def test_the_page_on_extending_runs(tiny_classes: Path, tmp_path: Path) -> None:
    names: dict[str, Any] = {
        "DATA": str(tiny_classes),
        "OUT": tmp_path / "run",
        "PICTURE": next((tiny_classes / "flat").glob("*.png")),
    }
    found = blocks("extending.md", "python")
    for number, source in enumerate(found):
        exec(compile(source, f"docs/extending.md, block {number + 1}", "exec", dont_inherit=True), names)

    assert len(found) == 6
    assert isinstance(names["Diary"](), Callback)
    assert "mirror" in PROMPTS.names()
    assert "cosine" in HEADS.names()
    assert (tmp_path / "run" / "best.safetensors").is_file()


@pytest.mark.slow
def test_the_page_on_loops_of_ones_own_runs() -> None:
    names: dict[str, Any] = {}
    for source in blocks("wrapping.md", "python"):
        exec(compile(source, "docs/wrapping.md", "exec", dont_inherit=True), names)
    assert names["losses"][-1] < 0.5 * names["losses"][0]
    assert names["same"]
    assert names["file"].getbuffer().nbytes < 20_000


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = json.loads((DOCS / "first_steps.ipynb").read_text(encoding="utf-8"))["cells"]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, cell in enumerate(cell for cell in cells if cell["cell_type"] == "code"):
        exec(compile("".join(cell["source"]), f"docs/first_steps.ipynb, cell {number + 1}", "exec"), names)

    assert (tmp_path / "first_steps" / "run" / "report.html").is_file()
    assert names["mask"].volumes.keys() == {"dark", "bright"}
    assert names["report"].values("Dice").shape == (3, 2)


def test_the_entry_points_on_the_page_are_of_the_groups_that_are_read() -> None:
    (source,) = blocks("extending.md", "toml")
    groups = tomllib.loads(source)["project"]["entry-points"]

    assert set(groups) == {PROMPTS.package, HEADS.package, families.ENTRY_POINTS}
    page = (DOCS / "extending.md").read_text(encoding="utf-8")
    assert all(f"`{room.package}`" in page for room in ROOMS)


@pytest.mark.parametrize("page", [DOCS / "promises.md", DOCS.parent / "SECURITY.md", DOCS / "reliability.md"])
def test_every_test_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text(encoding="utf-8"))

    assert len(named) > 3
    for file, test in named:
        content = (DOCS.parent / file).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in content, f"{page.name}: {file}::{test}"


def test_the_versions_left_out_are_those_of_the_project() -> None:
    root = DOCS.parent
    page = (root / "SECURITY.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+[<>!=][^`]*)` \|.*CVE-", page, re.MULTILINE)
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    assert len(rows) > 10
    assert [row for row in rows if f'"{row}"' not in project] == []
    pinned = dict(line.split("==") for line in (root / "constraints.txt").read_text().split() if "==" in line)
    brought = re.findall(r"(\w+) \((?:CVE-[\d-]+, )+([\d.]+)\)", page.partition("What others bring along")[2])
    assert len(brought) == 10
    for name, least in [*brought, *(re.match(r"([\w-]+)>=([\d.]+)", row).groups() for row in rows)]:
        assert Version(pinned[name]) >= Version(least), name


def anchors(page: Path) -> set[str]:
    """The names by which headings are linked to, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_an_audit_that_could_ask_nobody_fails() -> None:
    """Without --strict pip-audit skips packages of which it learns nothing, finds nothing wrong, and leaves with 0."""
    recipe = (DOCS.parent / "Makefile").read_text(encoding="utf-8").partition("\naudit:")[2].split("\n\n")[0]
    assert "pip-audit --strict" in recipe


@pytest.mark.parametrize("page", PAGES)
def test_every_file_of_the_project_that_a_page_names_is_there(page: Path) -> None:
    """But for what a page says was of an earlier commit, and what a reader is to write."""
    text = page.read_text(encoding="utf-8")
    for named in re.finditer(
        r"(?<!Saved as )`((?:vpt|benchmarks|data_scripts|configs)/[\w/.-]+\.\w+)`(?! of commit)", text
    ):
        assert (DOCS.parent / named[1]).exists(), f"{page.name}: {named[1]}"


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"
