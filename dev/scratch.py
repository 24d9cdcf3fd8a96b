"""Temporary folders that do not pile up.

A process that is killed cannot remove its data folder. Each folder is therefore locked by its owner, and
whoever makes the next one removes those whose owner is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "regcred-dev-"
_LOCK = "owner.lock"
_MEMORY = Path("/dev/shm")  # noqa: S108
_MEMORY_NEEDED = 1 << 30


@contextlib.contextmanager
def scratch_folder(purpose: str, *, in_memory: bool = False) -> Iterator[Path]:
    """A private folder, removed at the end; `in_memory` asks for one that needs no disk, where there is room."""
    base = Path(tempfile.gettempdir())
    if in_memory and _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _MEMORY_NEEDED:
        base = _MEMORY
    _sweep(base)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{purpose}-", dir=base))
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(base: Path) -> None:
    for folder in base.glob(f"{_PREFIX}*"):
        try:
            lock = (folder / _LOCK).open()
        except OSError:
            continue  # being made right now, or another user's
        with lock:
            if _unowned(lock):
                shutil.rmtree(folder, ignore_errors=True)


def _unowned(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
