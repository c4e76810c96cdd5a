"""A word of dataset.json that is nearly one that is read is no word that may be passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vpt.data.layouts import read_dataset
from vpt.data.layouts.description import read_channels
from vpt.errors import VptError


def described(root: Path, **words: Any) -> Path:
    source = root / "dataset.json"
    source.write_text(json.dumps(json.loads(source.read_text()) | words))
    return root


@pytest.mark.parametrize(
    ("word", "value", "said"),
    [
        ("patient", {"case_00": "A"}, "nothing reads `patient`; did you mean `patients`"),
        ("Patients", {"case_00": "A"}, "did you mean `patients`"),
        ("patient-ids", {"case_00": "A"}, "did you mean `patients`"),
        ("subjects", {"case_00": "A"}, "did you mean `patients`"),
        ("annotate", {"case_00": ["rim"]}, "did you mean `annotated`"),
        ("region_class_order", [1, 2], "did you mean `regions_class_order`"),
        ("ignore_label", 2, '"labels": {"ignore": 2, ...}'),
        ("split", {"train": ["case_00"], "test": ["case_01"]}, "write the sides into split.json"),
    ],
)
@pytest.mark.parametrize("layout", ["nnunet", "msd"])
def test_a_slip_is_refused_by_name(make_dataset, layout: str, word: str, value: Any, said: str) -> None:
    with pytest.raises(VptError) as caught:
        read_dataset(described(make_dataset(layout), **{word: value}))
    assert "dataset.json: nothing reads `" in str(caught.value)
    assert said in str(caught.value)


def test_words_of_others_and_those_beside_what_is_read_are_none(make_dataset) -> None:
    words = {"code": "https://example.org", "label": "a lesion", "subjects": 4, "test": [], "testing": [], "split": "a"}
    words |= {"patient": {"case_00": "B"}, "patients": {"case_00": "A"}, "ignore_label": None, "tensorImageSize": "3D"}

    assert read_dataset(described(make_dataset(), **words)).patient("case_00") == "A"


@pytest.mark.parametrize(
    "words",
    [
        {"split": {"train": 4, "test": 2}},
        {"splits": {"train": 0.8, "val": 0.2}},
        {"ignore_index": -100},
        {"ignore_label": 9, "labels": {"background": 0, "core": 1, "rim": 2, "ignore": 9}},
        {"modality": "MRI"},
    ],
)
def test_what_says_nothing_of_its_own_is_none(make_dataset, words: dict[str, Any]) -> None:
    assert read_dataset(described(make_dataset(), **words)).cases


@pytest.mark.parametrize(
    "words",
    [
        {"channel_names": {"0": "T1", "1": "T2"}, "modality": {"0": "T2", "1": "T1"}},
        {"channel_names": ["T1", "T2"], "modality": ["MRI"]},
    ],
)
def test_channels_that_are_said_in_two_ways_are_refused(words: dict[str, Any]) -> None:
    with pytest.raises(
        VptError, match=r"`channel_names` says T1, T2 and `modality` .*; take out the one that is wrong"
    ):
        read_channels(words, Path("dataset.json"))


def test_a_modality_beside_the_channels_own_names_is_no_contradiction() -> None:
    words = {"channel_names": {"1": "T2", "0": "T1"}, "modality": {"0": "MRI", "1": "MRI"}}
    assert read_channels(words, Path("dataset.json")) == ("T1", "T2")
