"""`vpt backbones` and docs/backbones.md say which encoders load, and why not the others."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vpt.backbones.catalogue import MODULES, catalogue
from vpt.errors import VptError
from vpt.use.encoders import encoders_page, facts_of, row_of

PAGE = Path(__file__).parents[2] / "docs" / "backbones.md"


def test_what_loads_is_told_in_a_row() -> None:
    (found,) = catalogue("vit_small_patch16_dinov3")
    row = row_of(found)
    assert (row.image, row.patch, row.blocks, row.prefix) == ("256x256", "16x16", "12 of 384", 5)
    assert row.licence == "dinov3-license"
    (stages,) = catalogue("lite_medsam")
    assert row_of(stages).blocks == "2 of 64, 2 of 128, 6 of 160, 2 of 320"


def test_what_does_not_load_has_its_reason() -> None:
    (found,) = catalogue("naflexvit_base_patch16_gap")
    assert found.spec is None
    assert found.refused.startswith("NaFlexVit is not supported, since images of several sizes are packed into one")
    assert facts_of(found) == {"name": found.name, "kind": "NaFlexViT", "refused": found.refused}


def test_timms_other_models_are_told_with_why_they_are_refused() -> None:
    found = catalogue("pit_ti_*")
    assert {each.name for each in found} >= {"pit_ti_224", "pit_ti_distilled_224"}
    assert all(each.spec is None and "pooled by convolutions between stages" in each.refused for each in found)


def test_a_pattern_that_nothing_fits_says_what_may_have_been_meant() -> None:
    with pytest.raises(
        VptError, match=r"beit_base_patch16_22: no encoder is called so; did you mean beit_base_patch16"
    ):
        catalogue("beit_base_patch16_22")


def test_every_kind_of_timm_still_has_names() -> None:
    import timm

    assert [module for module in MODULES if not timm.list_models(module=module)] == []


@pytest.mark.slow
def test_a_page_holds_tables_and_reasons() -> None:
    page = encoders_page(catalogue("*micro*") + catalogue("test_vit*"))
    assert "| `vit_micro` | 64x64 | 8x8 | 8 of 128 | 1 | for research" in page
    assert re.search(r"^\| of this package \| 2 \| 2 \|$", page, re.MULTILINE)


def test_the_files_that_the_page_names_as_proof_are_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)`", PAGE.read_text(encoding="utf-8"))
    assert len(named) > 4
    assert [name for name in named if not (PAGE.parents[1] / name).exists()] == []


@pytest.mark.slow
def test_the_command_gives_json() -> None:
    code = "import sys; sys.argv[0] = 'vpt'; from vpt.cli import main; main()"
    asked = [sys.executable, "-c", code, "backbones", "sam_micro", "--json"]
    found = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
    assert [(each["name"], len(each["blocks"])) for each in found] == [("sam_micro", 8)]


@pytest.mark.slow
def test_the_page_in_docs_is_that_of_this_version() -> None:
    assert PAGE.read_text(encoding="utf-8") == encoders_page(catalogue()), (
        "vpt backbones --markdown > docs/backbones.md"
    )
