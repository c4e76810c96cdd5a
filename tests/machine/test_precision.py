"""Which numbers a device computes with, and that those it only imitates are told."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from banks import WINDOW, trained
from masks import scan_plan

import vpt
from vpt.errors import VptError, VptWarning
from vpt.machine.precision import choose_precision, slow_precision
from vpt.vocabulary import Precision

CPU = torch.device("cpu")
Ables = Callable[..., None]


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> Ables:
    """The processor is told to have these instructions alone."""
    return lambda *names: monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(names, True))


@pytest.mark.parametrize(
    ("has", "chosen"),
    [((), "32-true"), (("avx512_f",), "32-true"), (("avx512_bf16",), "bf16-mixed"), (("amx_bf16",), "bf16-mixed")],
)
def test_auto_is_what_a_processor_computes_with_and_never_slow(able: Ables, has: tuple[str, ...], chosen: str) -> None:
    able(*has)
    assert choose_precision("auto", CPU) == chosen
    assert not slow_precision(choose_precision("auto", CPU), CPU)


@pytest.mark.parametrize("word", ["fp16", "bf16", "float32", "16", ""])
def test_a_word_that_is_no_precision_is_refused(word: Any) -> None:
    with pytest.raises(VptError, match=f"precision '{word}': expected auto, 32-true, bf16-mixed or 16-mixed"):
        choose_precision(word, CPU)


@pytest.mark.parametrize(
    ("precision", "has", "said"),
    [
        ("bf16-mixed", ("avx512_fp16",), "precision=bf16-mixed: this processor imitates bfloat16"),
        ("16-mixed", ("avx512_bf16",), "precision=16-mixed: this processor imitates float16"),
        ("bf16-mixed", ("amx_bf16",), ""),
        ("16-mixed", ("avx512_fp16",), ""),
        ("32-true", (), ""),
        ("auto", (), ""),
    ],
)
def test_what_is_only_imitated_is_told(able: Ables, precision: Precision, has: tuple[str, ...], said: str) -> None:
    able(*has)
    assert slow_precision(precision, CPU).startswith(said)
    assert bool(slow_precision(precision, CPU)) == bool(said)
    assert not slow_precision(precision, torch.device("cuda"))


@pytest.mark.slow
def test_a_model_told_to_compute_so_is_warned_of_once(able: Ables, tmp_path: Path) -> None:
    able()
    models = [trained(tmp_path / f"{n}.safetensors", n, scan_plan(intensity=WINDOW)) for n in (1, 2)]
    for load in (lambda precision: vpt.load(models, "cpu", precision=precision), bank_of):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            load("bf16-mixed")
            load("auto")
        assert [str(each.message).split(",")[0] for each in found if issubclass(each.category, VptWarning)] == [
            "precision=bf16-mixed: this processor imitates bfloat16"
        ]
        assert found[0].filename == __file__


def bank_of(precision: Precision) -> vpt.Bank:
    return vpt.Bank("vit_micro", "cpu", precision=precision)
