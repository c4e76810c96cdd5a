"""`report.html` of a run and of an evaluation, from what lies in their folders."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vpt.data.cases import case_name
from vpt.errors import VptError
from vpt.files import read_json, write_text
from vpt.progress import Tick, silent
from vpt.report.class_summary import ClassSummary, read_class_summary
from vpt.report.class_view import ClassSection, Thumb
from vpt.report.inlined import InlinedViewer
from vpt.report.mask_summary import MaskCase, MaskSummary, read_mask_summary
from vpt.report.mask_view import CaseCard, MaskSection, choose_cases
from vpt.report.parts import BEST, WORST
from vpt.report.report_page import report_page
from vpt.report.training_charts import training_charts
from vpt.use.pages.planes import CaseFiles, count_confusion, show_case
from vpt.use.pages.sources import Sources, sources_beside, sources_of
from vpt.use.pages.viewer import inline_viewer

PAGE = "report.html"
MOST_COUNTED = 60  # cases whose voxels are counted for the confusion between labels


def write_run_page(run: Path, shown: Mapping[str, str], score: str, progress: Tick = silent) -> Path:
    """`report.html` of a finished run -> its path. shown: validation scores by key; score: the one that chose.

    Raises:
        VptError: a folder that is no finished run; a page that cannot be written.
    """
    from vpt.artifact import read_artifact
    from vpt.use.pages.facts import groups_of, read_metrics, tiles_of

    artifact = read_artifact(run)
    section = _section(run / "validation", sources_of(artifact), progress)
    rows = read_metrics(run)
    charts = training_charts(rows, shown, score)
    facts = groups_of(run, artifact, rows)
    title = f"{run.resolve().name}: {artifact.config.data.path.name}"
    page = report_page("Training run", title, section, charts, facts, tiles_of(artifact), "validation case")
    return _written(run, page)


def write_evaluation_page(
    folder: Path, run: Path | None = None, data: Path | None = None, progress: Tick = silent, viewer: bool = False
) -> Path:
    """`report.html` of the evaluation that a folder holds (summary.json, cases.csv, masks) -> its path.

    run: whose model made the masks, if one is known; data: where its data set lies now;
    viewer: the volumes are inside the page, worst first.

    Raises:
        VptError: no evaluation; a page that cannot be written.
    """
    if run is not None:
        return _write_page_of(run, folder, data, progress, viewer)
    sources = _beside(folder)
    section = _require_section(folder, sources, progress)
    inlined = _viewer(section, folder, sources) if viewer else None
    return _written(folder, report_page("Evaluation", section.summary.title, section, [], [], viewer=inlined))


def _write_page_of(run: Path, folder: Path, data: Path | None, progress: Tick, viewer: bool) -> Path:
    """With what the run says of its model, which takes torch to read."""
    from vpt.artifact import read_artifact
    from vpt.use.pages.facts import groups_of, read_metrics, tiles_of

    artifact = read_artifact(run)
    sources = sources_of(artifact, data)
    section = _require_section(folder, sources, progress)
    facts, tiles = groups_of(run, artifact, read_metrics(run)), tiles_of(artifact)
    inlined = _viewer(section, folder, sources) if viewer else None
    return _written(folder, report_page("Evaluation", section.summary.title, section, [], facts, tiles, viewer=inlined))


def _viewer(section: MaskSection | ClassSection, folder: Path, sources: Sources) -> InlinedViewer:
    """All cases, worst first."""
    if not isinstance(section, MaskSection):
        raise VptError(f"{folder}: its cases are classified, and the viewer shows masks; leave --viewer out")
    found: list[CaseFiles | VptError] = []
    for case in section.summary.worst_first():
        try:
            found.append(_files(case, folder, sources))
        except VptError as error:
            found.append(error)
    return inline_viewer(found, section.summary.labels)


def _written(folder: Path, page: str) -> Path:
    write_text(folder / PAGE, page)
    return folder / PAGE


# --- what was scored --------------------------------------------------------------------------------------------------


def _section(folder: Path, sources: Sources, progress: Tick) -> MaskSection | ClassSection | None:
    if not (folder / "summary.json").is_file():
        return None
    found = read_json(folder / "summary.json")
    if "metric_per_case" in found:
        names = [case_name(each["prediction_file"]) for each in found["metric_per_case"]]
        return _mask_section(read_mask_summary(found, names), folder, sources, progress)
    if "confusion" not in found:
        return None
    with open(folder / "cases.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return _class_section(read_class_summary(found, rows), sources, progress)


def _beside(folder: Path) -> Sources:
    found = read_json(folder / "summary.json") if (folder / "summary.json").is_file() else {}
    return sources_beside(case["reference_file"] for case in found.get("metric_per_case", ()))


def _require_section(folder: Path, sources: Sources, progress: Tick) -> MaskSection | ClassSection:
    section = _section(folder, sources, progress)
    if section is None:
        raise VptError(f"{folder}: holds no evaluation (summary.json); make one with `vpt evaluate`")
    return section


def _mask_section(summary: MaskSummary, folder: Path, sources: Sources, progress: Tick) -> MaskSection:
    chosen = choose_cases(summary.worst_first())
    cards = []
    for done, (case, standing) in enumerate(chosen, start=1):
        cards.append(_card(case, standing, summary.labels, folder, sources))
        progress(done, len(chosen), case.name)
    confusion, counted = _confusion(summary, folder, sources)
    return MaskSection(summary, tuple(cards), confusion, counted)


def _card(case: MaskCase, standing: str, labels: Mapping[int, str], folder: Path, sources: Sources) -> CaseCard:
    """With pictures where the files are there, else with a note why there are none."""
    try:
        shown = show_case(_files(case, folder, sources), labels, sources.plan)
    except VptError as error:
        return CaseCard(case, standing, note=f"no picture: {error}")
    return CaseCard(case, standing, shown.panels, shown.error)


def _files(case: MaskCase, folder: Path, sources: Sources) -> CaseFiles:
    found = next(
        (path for path in (folder / Path(case.prediction_file).name, Path(case.prediction_file)) if path.exists()), None
    )
    if found is None:
        raise VptError(f"{case.prediction_file}: the mask is no longer there; evaluate again")
    known = sources.masked_case(case.name, case.reference_file)
    if known is not None:
        return CaseFiles(case.name, known.scan, known.label, found)
    truth = Path(case.reference_file)
    if not truth.exists():
        raise VptError(f"{truth}: the reference is not there")
    return CaseFiles(case.name, None, truth, found)


def _confusion(summary: MaskSummary, folder: Path, sources: Sources) -> tuple[np.ndarray | None, int]:
    """Between labels, over the cases that can be read; of one label the scores say it all."""
    if len(summary.labels) < 2:
        return None, 0
    total, counted = np.zeros((len(summary.labels) + 1,) * 2, np.int64), 0
    for case in summary.worst_first()[:MOST_COUNTED]:
        try:
            total += count_confusion(_files(case, folder, sources), summary.labels)
        except VptError:
            continue
        counted += 1
    return (total, counted) if counted else (None, 0)


def _class_section(summary: ClassSummary, sources: Sources, progress: Tick) -> ClassSection:
    ranked = summary.worst_first()
    chosen = ranked[: WORST + BEST]
    thumbs = []
    for done, case in enumerate(chosen, start=1):
        thumbs.append(Thumb(case, sources.thumb(case.name)))
        progress(done, len(chosen), case.name)
    return ClassSection(summary, tuple(thumbs))
