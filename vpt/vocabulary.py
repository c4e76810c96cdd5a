"""The names that several rooms speak of, without torch: tasks, targets, files of data, the backbone that is none."""

from __future__ import annotations

from typing import Literal, get_args

Task = Literal["segmentation", "classification"]
TASKS: tuple[Task, ...] = get_args(Task)
Target = Literal["classes", "labels", "grades"]
"""Of a classification: one class per case, any number of labels, or one of ordered grades."""
LISTS, ARRAYS = (".csv", ".tsv", ".jsonl"), (".npz",)  # files that are data sets by themselves, by their endings
COLOURS = 3  # channels of the images that encoders are given
NO_ENCODER = "none"  # the backbone of a head that reads the images alone
