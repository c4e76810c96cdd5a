"""`report.html` of a run and of an evaluation, from what lies in their folders."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
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
from vpt.report.own_results import PAGE, require_own_page
from vpt.report.parts import BEST, WORST
from vpt.report.report_page import report_page
from vpt.report.training_charts import training_charts
from vpt.scores.settings import Settings
from vpt.use.evaluation.label_folders import mask_at
from vpt.use.pages.making import as_typed, making_of, masks_sha256, to_view
from vpt.use.pages.planes import CaseFiles, count_confusion, show_case
from vpt.use.pages.sources import Sources, sources_beside, sources_of
from vpt.use.pages.viewer import inline_viewer, viewed
from vpt.view.scenes import ViewedCase

MOST_COUNTED = 60  # cases whose voxels are counted for the confusion between labels


def write_run_page(
    run: Path, shown: Mapping[str, str], score: str, progress: Tick = silent, viewer: bool = False
) -> Path:
    """`report.html` of a finished run -> its path. shown: validation scores by key; score: the one that chose; viewer:
    the volumes of its validation cases are inside the page, worst first.

    Raises:
        VptError: a folder that is no finished run; a page that cannot be written.
    """
    from vpt.artifact import read_artifact
    from vpt.use.pages.facts import groups_of, read_metrics, tiles_of

    artifact = read_artifact(run)
    sources, validated = sources_of(artifact), run / "validation"
    section = _section(validated, sources, progress)
    rows = read_metrics(run)
    charts = training_charts(rows, shown, score)
    facts = groups_of(run, artifact, rows)
    title = ": ".join(dict.fromkeys([run.resolve().name, artifact.config.data.path.name]))
    inlined = _viewer(section, validated, sources) if viewer and section else None
    again = f"{as_typed(['vpt', 'evaluate', str(run)])} --split val --viewer"
    tiles = tiles_of(artifact)
    page = report_page("Training run", title, section, charts, facts, tiles, "validation case", inlined, again)
    return _written(run, page)


def write_evaluation_page(
    folder: Path,
    run: Path | None = None,
    data: Path | None = None,
    progress: Tick = silent,
    viewer: bool = False,
    command: Sequence[str] = (),
) -> Path:
    """`report.html` of the evaluation that a folder holds (summary.json, cases.csv, masks) -> its path.

    run: whose model made the masks, if one is known; data: where its data set lies now;
    viewer: the volumes are inside the page, worst first; command: that made it.

    Raises:
        VptError: no evaluation; a page that cannot be written.
    """
    if run is not None:
        return _write_page_of(run, folder, data, progress, viewer, command)
    sources = _beside(folder)
    section = _require_section(folder, sources, progress)
    inlined = _viewer(section, folder, sources) if viewer else None
    facts = [making_of("To repeat it", command, _hashes(section))]
    page = report_page("Evaluation", _title(section), section, [], facts, viewer=inlined, to_view=to_view(command))
    return _written(folder, page)


def _title(section: MaskSection | ClassSection) -> str:
    """Of masks that are only called an evaluation what was compared: their folders, or of one case the files."""
    summary = section.summary
    if summary.title != Settings().title or not isinstance(summary, MaskSummary) or not summary.cases:
        return summary.title
    files = [Path(summary.cases[0].prediction_file), Path(summary.cases[0].reference_file)]
    names = (
        [file.parent.name or file.name for file in files] if len(summary.cases) > 1 else [file.name for file in files]
    )
    return " against ".join(names)


def _write_page_of(
    run: Path, folder: Path, data: Path | None, progress: Tick, viewer: bool, command: Sequence[str]
) -> Path:
    """`write_evaluation_page` with what a run says of its model, which takes torch to read."""
    from vpt.artifact import read_artifact
    from vpt.use.pages.facts import groups_of, read_metrics, tiles_of

    artifact = read_artifact(run)
    sources = sources_of(artifact, data)
    section = _require_section(folder, sources, progress)
    model, tiles = groups_of(run, artifact, read_metrics(run)), tiles_of(artifact)
    facts = [*model, making_of("This evaluation", command, _hashes(section))] if command else model
    inlined = _viewer(section, folder, sources) if viewer else None
    page = report_page(
        "Evaluation", section.summary.title, section, [], facts, tiles, viewer=inlined, to_view=to_view(command)
    )
    return _written(folder, page)


def _hashes(section: MaskSection | ClassSection) -> dict[str, str]:
    """Digests of the masks and of the truth that were scored; none of classes."""
    if not isinstance(section, MaskSection):
        return {}
    cases = section.summary.cases
    return {
        "masks": masks_sha256([case.prediction_file for case in cases]),
        "truth": masks_sha256([case.reference_file for case in cases]),
    }


def _viewer(section: MaskSection | ClassSection, folder: Path, sources: Sources) -> InlinedViewer:
    """All cases, worst first."""
    if not isinstance(section, MaskSection):
        raise VptError(f"{folder}: its cases are classified, and the viewer shows masks; leave --viewer out")
    found: list[ViewedCase | VptError] = []
    for case in section.summary.worst_first():
        try:
            found.append(viewed(_files(case, section.summary.labels, folder, sources)))
        except VptError as error:
            found.append(error)
    return inline_viewer(found, section.summary.labels)


def _written(folder: Path, page: str) -> Path:
    require_own_page(folder / PAGE)
    write_text(folder / PAGE, page)
    return folder / PAGE


# --- what was scored --------------------------------------------------------------------------------------------------


def _section(folder: Path, sources: Sources, progress: Tick) -> MaskSection | ClassSection | None:
    if not (folder / "summary.json").is_file():
        return None
    found = read_json(folder / "summary.json")
    if "metric_per_case" in found:
        names = [each.get("case") or case_name(each["prediction_file"]) for each in found["metric_per_case"]]
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
    cards, counts = [], dict[str, np.ndarray | None]()
    for done, (case, standing) in enumerate(chosen, start=1):
        card, counts[case.name] = _card(case, standing, summary.labels, folder, sources)
        cards.append(card)
        progress(done, len(chosen), case.name)
    confusion, counted = _confusion(summary, folder, sources, counts)
    return MaskSection(summary, tuple(cards), confusion, counted)


def _card(
    case: MaskCase, standing: str, labels: Mapping[int, str], folder: Path, sources: Sources
) -> tuple[CaseCard, np.ndarray | None]:
    """With pictures where the files are there, else with a note why there are none; and the case's confusion."""
    try:
        shown = show_case(_files(case, labels, folder, sources), labels, sources.plan)
    except VptError as error:
        return CaseCard(case, standing, note=f"no picture: {error}"), None
    return CaseCard(case, standing, shown.panels, shown.error), shown.confusion


def _files(case: MaskCase, labels: Mapping[int, str], folder: Path, sources: Sources) -> CaseFiles:
    found = next(
        (path for path in (folder / Path(case.prediction_file).name, Path(case.prediction_file)) if path.exists()), None
    )
    if found is None:
        raise VptError(f"{case.prediction_file}: the mask is no longer there; evaluate again")
    known = sources.masked_case(case.name, case.reference_file)
    if known is not None:
        return CaseFiles(case.name, known.scan, known.label, mask_at(found, labels))
    truth = Path(case.reference_file)
    if not truth.exists():
        raise VptError(f"{truth}: the reference is not there")
    return CaseFiles(case.name, None, mask_at(truth, labels), mask_at(found, labels))


def _confusion(
    summary: MaskSummary, folder: Path, sources: Sources, counts: Mapping[str, np.ndarray | None]
) -> tuple[np.ndarray | None, int]:
    """Between labels, over the cases that can be read; of one label the scores say it all. counts: of those that are
    known, None where one could not be shown.
    """
    if len(summary.labels) < 2:
        return None, 0
    total, counted = np.zeros((len(summary.labels) + 1,) * 2, np.int64), 0
    for case in summary.worst_first()[:MOST_COUNTED]:
        found = counts.get(case.name)
        if found is None:
            try:
                found = count_confusion(_files(case, summary.labels, folder, sources), summary.labels)
            except VptError:
                continue
        total += found
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
