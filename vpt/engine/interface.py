"""By which of its network interfaces a machine reaches another; gloo otherwise takes the one of the machine's own name.

On a Debian that name is 127.0.1.1, where no other machine finds it.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

SIOCGIFADDR = 0x8915  # Linux: an interface's IPv4 address (`man 7 netdevice`)
ANY_PORT = 9  # nothing is sent there


def interface_to(address: str) -> str | None:
    """The name of the interface to an IPv4 address, be it this machine's own; None where that cannot be known."""
    with suppress(OSError, ImportError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        import fcntl

        asked.connect((address, ANY_PORT))
        own = asked.getsockname()[0]
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # an interface without an IPv4 address
                found = fcntl.ioctl(asked, SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(found[20:24]) == own:
                    return name
    return None
