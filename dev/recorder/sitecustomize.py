"""Python runs this at its start where the folder is in its path: it notes whom the process connects to.

The interpreter's own audit events are the witness, whatever library opens the connection.  Names of the reserved domain
`.example` lead where `RECORDER_NAMES` says, or nowhere, and are asked of nobody.
"""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

_LOG = os.environ.get("RECORDER_LOG", "")
_NAMES = json.loads(os.environ.get("RECORDER_NAMES", "{}"))


def _begin() -> None:
    file = Path(_LOG).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115 - open as long as the process lives

    def note(event: str, arguments: Any) -> None:
        if event == "socket.connect" and isinstance(arguments[1], tuple):
            file.write(json.dumps(["connect", *arguments[1][:2]]) + "\n")
        elif event == "socket.getaddrinfo":
            file.write(json.dumps(["look up", str(arguments[0]), arguments[1]]) + "\n")

    sys.addaudithook(note)
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        name = (host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)).lower().rstrip(".")
        if name.endswith(".example"):
            if name not in _NAMES:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            host = _NAMES[name]
        return real(host, port, *more, **options)

    socket.getaddrinfo = getaddrinfo


if _LOG:
    _begin()
