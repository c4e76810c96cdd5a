"""The tests of reports look at their pictures."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def as_for_people(drawn: None) -> None:
    """See `drawn`."""
