"""What counts as a folder of data, and what is nobody's."""

from __future__ import annotations

from pathlib import Path

from vpt.data.walking import is_training


def test_a_folder_that_the_system_does_not_show_is_no_training(tmp_path: Path) -> None:
    """`Path.is_file` would raise, as it does of one that nobody may enter."""
    assert not is_training(tmp_path / ("n" * 300))
