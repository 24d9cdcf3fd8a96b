"""Where things that take long to make are kept between runs, and how two runs do not make them at once."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_LOCK_POLL_SECONDS = 0.5


def cache_home() -> Path:
    """The project's own cache folder, made if it is not there."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "regcred"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.asynccontextmanager
async def exclusive(name: str) -> AsyncIterator[None]:
    """Hold the lock of that name; another process that holds it is waited for, and said so once."""
    path = cache_home() / f"{name}.lock"
    with path.open("w") as handle:
        said = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not said:
                    print(f"waiting for another process that holds {path}", flush=True)
                    said = True
                await asyncio.sleep(_LOCK_POLL_SECONDS)
        yield
