"""The names that several rooms speak of, without torch: tasks, targets, and what an encoder is called."""

from __future__ import annotations

from typing import Literal

Task = Literal["segmentation", "classification"]
Target = Literal["classes", "labels", "grades"]
"""Of a classification: one class per case, any number of labels, or one of ordered grades."""
