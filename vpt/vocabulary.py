"""The names that several rooms speak of, without torch: of tasks, of choices in training, of files, of no backbone."""

from __future__ import annotations

from typing import Literal, get_args

Task = Literal["segmentation", "classification"]
TASKS: tuple[Task, ...] = get_args(Task)
Target = Literal["classes", "labels", "grades"]
"""Of a classification: one class per case, any number of labels, or one of ordered grades."""
Mirror = Literal["none", "horizontal", "vertical", "both"]
"""Which mirror images of a slice count as images too: left and right, up and down, or both."""
Sampling = Literal["even", "by_label"]
"""How training draws labelled slices: alike, or every label as often as the others."""
Crop = Literal["none", "foreground"]
"""What is looked at of a volume: all, or the box around what is not air, padding or 0."""
Planes = Literal["one", "all"]
"""Whether slices of a volume are cut in the plan's plane alone, or in the other two as well."""
Plane = Literal["axial", "coronal", "sagittal"]
Padding = Literal["centre", "corner"]
"""Where an image that is smaller than the encoder's lies in it."""
Decision = Literal["likeliest", "dice"]
"""Which mask is given: every voxel's likeliest label, or the mask whose Dice is expected to be highest."""
DECIDED: dict[Decision, str] = {
    "likeliest": "every voxel's likeliest label",
    "dice": "masks of the highest expected Dice",
}
AskedDecision = Literal["auto", Decision]
"""The same, or `auto`: as the training chose."""
Interpolation = Literal["bilinear", "bicubic"]
"""How an image is enlarged; where it shrinks, areas are averaged."""
Chosen = Literal["32-true", "bf16-mixed", "16-mixed"]
Precision = Literal["auto", Chosen]
"""What is multiplied with: float32, or where it helps bfloat16 or float16, as Lightning calls them."""
SIDES = ("train", "val", "test")
WITH_VAL = ("trainval", "train_val", "train-val", "train+val")  # a training side of which a fold validates
SIDE_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(WITH_VAL, "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""How folders and lists call a side -> the side."""
TABLES = (".csv", ".tsv")  # lists with columns
LISTS, ARRAYS = (*TABLES, ".jsonl"), (".npz",)  # files that are data sets by themselves, by their endings
LARGEST_ID, LARGEST_IN_PNG = 2**63 - 1, 2**16 - 1  # of a label
COLOURS = 3  # channels of the images that encoders are given
NO_ENCODER = "none"  # the backbone of a head that reads the images alone
