"""Lesions as a table, and what is said below it."""

from __future__ import annotations

import numpy as np
from label_scores import lesions_of

from vpt.report.lesion_blocks import lesion_block
from vpt.scores.lesions import sum_up


def test_a_label_without_true_lesions_has_no_line_of_sizes() -> None:
    one = np.zeros((4, 4, 4), bool)
    one[1:3, 1:3, 1:3] = True
    there, nowhere = (sum_up([lesions_of(one, true)]) for true in (one, np.zeros_like(one)))
    block = lesion_block([("tumour", there), ("cyst", nowhere)], "mm", 0.5)
    assert [row[:4] for row in block.rows] == [["tumour", "1", "0", "0"], ["cyst", "0", "0", "1"]]
    assert [note.partition(":")[0] for note in block.notes] == ["tumour, found by size", "lesions"]
