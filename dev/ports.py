"""Free loopback ports that stay free.

The kernel hands out ports above 32768 to outgoing connections, so a server that is stopped and started again
on such a port may find it taken. Ours come from below that range.
"""

from __future__ import annotations

import random
import socket

_LOWEST = 18000
_HIGHEST = 29999
_TRIES = 200
_given: set[int] = set()


def free_port() -> int:
    """A loopback TCP port nothing listens on, never given twice by this process.

    Raises:
        RuntimeError: none was found.
    """
    chance = random.SystemRandom()
    for _ in range(_TRIES):
        port = chance.randint(_LOWEST, _HIGHEST)
        if port in _given:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise RuntimeError(f"no free loopback port between {_LOWEST} and {_HIGHEST}")
