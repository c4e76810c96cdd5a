"""A name that is another's but for capitals and blanks is found; one that is known as it is, is not doubted."""

from __future__ import annotations

import pytest

from vpt.data.doubts.class_names import written_otherwise


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["tumour", "liver"], None),
        (["lung"], None),
        (["liver", " Tumour "], (" Tumour ", "tumour")),
        (["LIVER", "Tumour"], ("LIVER", "Liver")),
    ],
)
def test_the_first_name_that_is_written_otherwise(names: list[str], found: tuple[str, str] | None) -> None:
    assert written_otherwise(names, ("tumour", "liver", "Liver")) == found
