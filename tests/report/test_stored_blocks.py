"""What a page shows of lesions and groups is what the terminal shows, read back from `summary.json`."""

from __future__ import annotations

import json

from vpt.report.segmentation import Report
from vpt.report.stored_blocks import stored_blocks
from vpt.scores.cases import score_case
from vpt.scores.groups import Grouping
from vpt.scores.lesions import score_lesions
from vpt.scores.settings import CaseResult, Settings


def report() -> Report:
    import numpy as np

    rng = np.random.default_rng(0)
    cases = []
    for number in range(12):
        true, found = (rng.random((6, 6, 6)) < share for share in (0.05, 0.05 + number / 50))
        scores = score_case(found.astype(int), true.astype(int), (1, 1, 1), [1], distances=False)
        lesions = score_lesions(found.astype(int), true.astype(int), (1, 1, 1), [1], overlap=0.3)
        cases.append(CaseResult(f"c{number}", "m", "r", scores, lesions))
    sexes = {f"c{number}": "fm"[number % 2] for number in range(11)}
    settings = Settings(lesions=(1,), lesion_overlap=0.3, distances=False)
    return Report(tuple(cases), {1: "tumour"}, settings, grouping=Grouping("sex", sexes, ("c11",)))


def test_tables_read_back_are_those_that_were_told() -> None:
    told = report()
    lesions, groups = told.blocks()[-2:]

    found = list(stored_blocks(json.loads(told.to_json()), "Dice"))

    assert [title for title, _ in found] == ["Lesions", "Dice by sex"]
    assert found[0][1] == lesions
    assert found[1][1] == groups
    assert any("IoU of 0.3" in note for note in lesions.notes)
    assert any("without a sex" in note for note in groups.notes)


def test_without_lesions_or_groups_there_is_none() -> None:
    assert list(stored_blocks({"labels": {"1": "a"}, "settings": {}}, "Dice")) == []
