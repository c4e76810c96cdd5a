"""The interface by which a machine is reached is found by its address."""

from __future__ import annotations

import socket

import pytest

from vpt.engine.interface import interface_to


@pytest.mark.skipif(all(name != "lo" for _, name in socket.if_nameindex()), reason="loopback is not called lo here")
def test_the_loopbacks_own_address() -> None:
    assert interface_to("127.0.0.1") == "lo"


@pytest.mark.parametrize("address", ["no address", "999.1.1.1"])
def test_what_is_no_address_has_none(address: str) -> None:
    assert interface_to(address) is None
