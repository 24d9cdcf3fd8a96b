"""Child processes that never outlive us.

A test run that is killed must not leave an etcd behind: every long-running child lives in a process group
of its own, which is stopped as a whole, and the kernel kills it when this process dies in whatever way.
(The kernel watches the thread that started the child: start children from a thread that stays.)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_STOP_SECONDS = 5.0
_TAIL_BYTES = 4000


class CommandError(RuntimeError):
    """A command ended with another exit code than 0, or not in time."""


@dataclass(frozen=True)
class Completed:
    """What a finished command left: its exit code and its two outputs."""

    returncode: int
    stdout: str
    stderr: str


def tied_to_us(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The command, made to die with this process where the system can do that (Linux)."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL", *argv) if setpriv else argv


def tail(path: Path) -> str:
    """The last lines of a log file, for an error message."""
    try:
        text = path.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-15:])


async def run(
    *argv: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    log: Path | None = None,
    seconds: float = 600.0,
    check: bool = True,
) -> Completed:
    """Run a command to its end; with `log`, its output is appended there instead of being returned.

    Raises:
        CommandError: the command failed (only with `check`) or did not end within `seconds`.
    """
    words = tuple(str(word) for word in argv)
    with contextlib.ExitStack() as files:
        output = files.enter_context(log.open("ab")) if log else asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *tied_to_us(words),
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT if log else asyncio.subprocess.PIPE,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate(None if stdin is None else stdin.encode())
    except TimeoutError:
        raise CommandError(f"{words[0]} did not end within {seconds:.0f} s") from None
    finally:
        if process.returncode is None:
            _signal_group(process.pid, signal.SIGKILL)
            await process.wait()
    done = Completed(
        process.returncode if process.returncode is not None else -1,
        (out or b"").decode(errors="replace"),
        (err or b"").decode(errors="replace"),
    )
    if check and done.returncode != 0:
        said = f"{tail(log)}\nThe whole log: {log}" if log else (done.stderr or done.stdout).strip()
        raise CommandError(f"{' '.join(words[:4])} … ended with exit code {done.returncode}:\n{said}")
    return done


@dataclass
class Child:
    """A long-running process with a log file; made by `Child.start`, ended by `stop`."""

    name: str
    log: Path
    process: asyncio.subprocess.Process

    @classmethod
    async def start(cls, name: str, *argv: str | Path, log: Path, env: Mapping[str, str] | None = None) -> Child:
        """Start the process in a group of its own, its output appended to `log`."""
        words = tied_to_us(tuple(str(word) for word in argv))
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )
        return cls(name, log, process)

    def require_alive(self) -> None:
        """Raise CommandError, with the end of its log, if the process is gone."""
        if self.process.returncode is not None:
            raise CommandError(
                f"{self.name} ended with exit code {self.process.returncode}; "
                f"the end of its log {self.log}:\n{tail(self.log)}"
            )

    async def stop(self, *, kill: bool = False) -> None:
        """End the whole process group: asked first, then killed; with `kill`, killed at once."""
        if self.process.returncode is not None:
            return
        _signal_group(self.process.pid, signal.SIGKILL if kill else signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            _signal_group(self.process.pid, signal.SIGKILL)
            await self.process.wait()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)
