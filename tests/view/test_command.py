"""`vpt view` prints its address, opens the browser unless told not to, ends with Ctrl-C, and says what is wrong."""

from __future__ import annotations

import webbrowser

import numpy as np
import pytest

from vpt.view.server import Server


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """What was opened; the server is interrupted as soon as it serves."""
    addresses: list[str] = []

    def interrupted(self) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", interrupted)
    monkeypatch.setattr(webbrowser, "open", addresses.append)
    return addresses


@pytest.fixture
def scan(tmp_path, save):
    return save(tmp_path / "a.nii.gz", np.ones((4, 4, 4), np.int16))


def test_it_opens_the_browser_at_the_address_that_it_prints(vpt, opened, scan) -> None:
    told = vpt("view", scan)
    (address,) = opened
    assert (told.code, told.err) == (0, "")
    assert f"1 scan: {address}\n" in told.out
    assert address.startswith("http://127.0.0.1:")
    assert told.out.endswith("ended\n")


def test_without_a_browser_it_only_prints(vpt, opened, scan) -> None:
    assert vpt("view", scan, "--no-browser").code == 0
    assert opened == []


def test_what_is_wrong_is_said_before_anything_opens(vpt, opened, scan, save) -> None:
    told = vpt("view", scan, save(scan.with_name("b.nii.gz"), np.ones((4, 4, 5), np.uint8)))
    assert told.code == 1
    assert "b.nii.gz: not on the grid of" in told.err
    assert opened == []


def test_a_models_labels_name_those_of_the_masks(vpt, opened, scan, tiny_run) -> None:
    assert vpt("view", scan, scan, "-m", tiny_run, "--no-browser").code == 0
