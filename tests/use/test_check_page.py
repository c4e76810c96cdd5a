"""The page of a check shows every case, doubtful ones first, labels in the colours that the legend names."""

from __future__ import annotations

import re

import cv2
import nibabel as nib
import numpy as np
import pytest

from vpt.cli import app
from vpt.data.thumbnails import colours, thumbnail


def decoded(picture: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)


@pytest.fixture
def page(make_dataset, save, tmp_path):
    root = make_dataset("msd", cases=4)
    (root / "imagesTr/case_02.nii.gz").write_bytes(b"no scan")
    save(root / "labelsTr/case_03.nii.gz", np.full((12, 10, 6), 9, np.uint8), np.diag([-1.0, -1.5, 3.0, 1.0]))
    with pytest.raises(SystemExit) as done:
        app(["check", str(root), "--html", str(tmp_path / "page.html")])
    assert done.value.code == 1
    return (tmp_path / "page.html").read_text()


def test_cases_with_findings_come_first_and_say_them(page):
    cards = page.split('<article class="card">')[1:]
    assert [re.search("case_0.", card)[0] for card in cards] == ["case_02", "case_03", "case_00", "case_01"]
    assert "not readable" in cards[0]
    assert 'class="error"' in cards[0]
    assert "label 9 not in" in cards[1]
    assert 'class="error"' not in cards[2] + cards[3]


def test_the_page_loads_nothing_from_elsewhere_and_names_the_labels(page):
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "rim" in page
    assert "core" in page


def test_a_label_has_its_colour_in_every_picture(tmp_path, save):
    labels = (0, 3, 117)
    scan = save(tmp_path / "scan.nii.gz", np.linspace(0, 1, 40 * 40 * 3).reshape(40, 40, 3).astype(np.float32))
    array = np.zeros((40, 40, 3), np.uint8)
    array[10:30, 10:30, 1] = 117
    found = decoded(thumbnail(scan, 1, save(tmp_path / "mask.nii.gz", array), labels))
    tint = found[80, 80] - found[80, 80].min()
    meant = np.array(colours(labels)[117]) - min(colours(labels)[117])
    assert found.shape == (160, 160, 3)
    assert np.argmax(tint) == np.argmax(meant)
    assert np.abs(found[5, 5] - found[5, 5].mean()).max() < 8  # grey where nothing is labelled


def test_pixels_keep_their_shape(tmp_path):
    nib.save(
        nib.Nifti1Image(np.random.default_rng(0).normal(size=(20, 40, 3)), np.diag([2.0, 1.0, 5.0, 1.0])),
        tmp_path / "a.nii",
    )
    assert decoded(thumbnail(tmp_path / "a.nii", 1)).shape == (160, 160, 3)
