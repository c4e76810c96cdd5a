"""What a page shows of lesions and groups is what the terminal shows, read back from `summary.json`."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from vpt.report.classification import ClassReport
from vpt.report.group_blocks import group_blocks
from vpt.report.mask_charts import trust_chart
from vpt.report.segmentation import Report
from vpt.report.stored_blocks import stored_blocks
from vpt.scores.cases import score_case
from vpt.scores.groups import Grouping
from vpt.scores.lesions import score_lesions
from vpt.scores.plain import plain
from vpt.scores.settings import CaseResult, Settings
from vpt.scores.trust import Quality, StructureQuality, choose_limits


def report() -> Report:
    rng = np.random.default_rng(0)
    cases = []
    for number in range(12):
        true, found = (rng.random((6, 6, 6)) < share for share in (0.05, 0.05 + number / 50))
        scores = score_case(found.astype(int), true.astype(int), (1, 1, 1), [1], distances=False)
        lesions = score_lesions(found.astype(int), true.astype(int), (1, 1, 1), [1], overlap=0.3)
        cases.append(CaseResult(f"c{number}", "m", "r", scores, lesions))
    sexes = {f"c{number}": "fm"[number % 2] for number in range(11)}
    settings = Settings(lesions=(1,), lesion_overlap=0.3, distances=False)
    return Report(tuple(cases), {1: "tumour"}, settings, groupings=(Grouping("sex", sexes, ("c11",)),))


def test_tables_read_back_are_those_that_were_told() -> None:
    told = report()
    lesions, groups = told.blocks()[-2:]

    found = list(stored_blocks(json.loads(told.to_json()), "Dice"))

    assert [title for title, _ in found] == ["Lesions", "Dice by sex"]
    assert found[0][1] == lesions
    assert found[1][1] == groups
    assert any("IoU of 0.3" in note for note in lesions.notes)
    assert any("without sex" in note for note in groups.notes)


def test_groups_of_one_column_are_read_as_earlier_versions_wrote_them() -> None:
    told = report()
    now = json.loads(told.to_json())
    [groups] = now["by_group"]
    earlier = now | {"by_group": {key: groups[key] for key in ("grouping", "rows", "gaps")}}

    found = dict(stored_blocks(earlier, "Dice"))["Dice by sex"]

    shown = told.blocks()[-1]
    assert found.rows == shown.rows
    assert [note for note in shown.notes if note not in found.notes] == [
        note for note in shown.notes if note.startswith("equity-scaled")
    ]


def test_which_cases_to_trust_is_read_back() -> None:
    told = report()
    qualities = [
        Quality(found, {"tumour": found}, number / 3)
        for number in range(12)
        for found in [StructureQuality(number, 0.9 - number / 50, 0.1 + number % 3 / 10)]
    ]
    told = replace(told, qualities=tuple(qualities), limits=choose_limits(qualities[:6]))
    block = told.blocks()[-1]

    found = dict(stored_blocks(json.loads(told.to_json()), "Dice"))["Which cases to trust"]

    assert found == block
    assert [row[0] for row in block.rows] == ["agreement", "entropy", "distance", "random", "best possible"]
    assert any(note.startswith("flagged: ") for note in block.notes)
    chart = trust_chart(told.trust) if told.trust else None
    assert chart is not None
    assert [line.words.partition(":")[0] for line in chart.lines] == [row[0] for row in block.rows]
    assert chart.y.low == 0


def test_how_answers_differ_by_group_is_read_back() -> None:
    truth = np.eye(2, dtype=bool)[np.arange(40) % 2]
    sure = np.where(np.arange(40) % 7 < 3, 0.3, 0.9)
    names = tuple(f"c{k}" for k in range(40))
    grouping = Grouping("sex", {name: "ab"[k // 20] for k, name in enumerate(names)})
    probabilities = np.where(truth, sure[:, None], 1 - sure[:, None])
    told = ClassReport(names, probabilities, truth, ("no", "yes"), "classes", groupings=(grouping,))

    found = list(stored_blocks(json.loads(json.dumps(plain(told.summary()))), "Scores"))

    assert [title for title, _ in found] == ["Scores by sex", "Differences by sex"]
    assert [block for _, block in found] == list(group_blocks(told.by_group[0], "Scores"))


def test_without_lesions_or_groups_there_is_none() -> None:
    assert list(stored_blocks({"labels": {"1": "a"}, "settings": {}}, "Dice")) == []
