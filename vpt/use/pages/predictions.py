"""`report.html` of a folder of predictions, from its `predictions.json`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from vpt.data.cases import Case
from vpt.data.plan import Plan
from vpt.errors import VptError
from vpt.files import read_json, write_text
from vpt.progress import Tick, silent
from vpt.report.own_results import PAGE, require_own_page
from vpt.report.predictions_page import PredictedCard, PredictedCase, cases_to_show, predictions_page, read_predicted
from vpt.use.pages.making import as_typed, to_view
from vpt.use.pages.planes import CaseFiles, show_case
from vpt.use.pages.viewer import inline_viewer, viewed
from vpt.words import listed


def write_predictions_page(
    folder: Path,
    labels: Mapping[int, str],
    scans: Sequence[Case] = (),
    plan: Plan | None = None,
    progress: Tick = silent,
    viewer: bool = False,
    command: Sequence[str] = (),
    weights: str = "",
) -> Path:
    """Write the page of what `vpt predict` recorded in a folder -> its path.

    labels: id -> name of what the model segments, empty of one that classifies; scans: what was predicted, for the
    pictures, without which outlines lie on grey; plan: how the model sees them; viewer: the volumes are inside
    the page; command: as `sys.argv` has it; weights: whose the encoder's are, and their licence.

    Raises:
        VptError: no `predictions.json`; a page that cannot be written.
    """
    if not (folder / "predictions.json").is_file():
        raise VptError(f"{folder}: holds no predictions.json; make it with `vpt predict -o {folder}`")
    found = read_json(folder / "predictions.json")
    cases = read_predicted(found)
    foreground = {id: name for id, name in sorted(labels.items()) if id > 0} if _segmented(found) else {}
    known = {case.name: case.scan for case in scans}
    chosen = cases_to_show(cases)
    cards = []
    for done, case in enumerate(chosen, start=1):
        cards.append(_card(case, folder, known.get(case.name), foreground, plan))
        progress(done, len(chosen), case.name)
    unit = "px" if any(each.get("pixels") for each in found["cases"]) else "ml"
    answered = [each for each in cases if each.output and not each.failed and not each.answers]
    files = [viewed(CaseFiles(each.name, known.get(each.name), None, folder / each.output)) for each in answered]
    inlined = inline_viewer(files, foreground) if viewer and foreground else None
    title, names = folder.resolve().name, [*foreground.values()]
    facts = [*([("weights of the encoder", weights)] if weights else []), *_facts(found), *_asked(command)]
    page = predictions_page(title, cases, cards, names, unit, facts, inlined, to_view(command))
    require_own_page(folder / PAGE)
    write_text(folder / PAGE, page)
    return folder / PAGE


def _segmented(found: Mapping[str, Any]) -> bool:
    return not any(each.get("probabilities") for each in found["cases"])


def _moment(written: str) -> str:
    """To the minute, where it is a time with its zone."""
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return written
    return f"{moment:%Y-%m-%d %H:%M} {moment.tzname() or ''}".rstrip()


def _card(case: PredictedCase, folder: Path, scan: Any, labels: Mapping[int, str], plan: Plan | None) -> PredictedCard:
    try:
        shown = show_case(CaseFiles(case.name, scan, None, folder / case.output), labels, plan)
    except VptError as error:
        return PredictedCard(case, note=f"no picture: {error}")
    return PredictedCard(case, shown.panels)


def _facts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """When, by which model and versions; of several all are named."""
    yield "written", _moment(str(found.get("written", "not recorded")))
    records = found["cases"]
    models = dict.fromkeys(str(each["model_sha256"]) for each in records if each.get("model_sha256"))
    yield "model, SHA-256", listed(models) or "not recorded"
    versions = dict.fromkeys(
        f"{name} {number}" for each in records for name, number in each.get("versions", {}).items()
    )
    yield "versions", listed(versions) or "not recorded"
    settings = dict.fromkeys(
        _option(name, value) for each in records for name, value in each.get("settings", {}).items()
    )
    yield "options", " ".join(filter(None, settings)) or "not recorded"


def _option(name: str, value: Any) -> str:
    """A recorded setting as it is given: `--device cpu`, `--tta`; nothing of one that was off."""
    if value is None or value is False:
        return ""
    return f"--{name}" if value is True else f"--{name} {shlex.quote(str(value))}"


def _asked(command: Sequence[str]) -> Iterator[tuple[str, str]]:
    if command:
        yield "last command", as_typed(command)
        yield "started in", str(Path.cwd())
