"""Checkers whose own requirements do not go with ours: each in a virtual environment of its own, in the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

from dev.cache import cache_home, exclusive
from dev.processes import run

ROOT = Path(__file__).resolve().parents[1]


def uv() -> Path:
    """The installer that `make venv` brought, or the machine's own.

    Raises:
        FileNotFoundError: neither is there.
    """
    found = shutil.which("uv") or shutil.which("uv", path=ROOT / ".tool" / "bin")
    if found is None:
        raise FileNotFoundError("uv is neither in PATH nor in .tool: run `make venv`")
    return Path(found)


async def checkov() -> Path:
    """Checkov, which knows what Kubernetes manifests had better not say.

    Raises:
        dev.processes.CommandError: it could not be installed.
    """
    return await _installed() / "checkov"


async def kubernetes_validate() -> Path:
    """The program that knows the fields of every Kubernetes version.

    Where it is installed the `kubernetes` package loads it, which would cost the operator 20 MiB and seconds.

    Raises:
        dev.processes.CommandError: it could not be installed.
    """
    return await _installed() / "kubernetes-validate"


async def _installed() -> Path:
    """Return the folder of the checkers' programs, installed as their lock file has them."""
    lock = ROOT / "requirements-linters.txt"
    home = cache_home() / f"linters-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    done = home / ".done"
    if not done.exists():
        async with exclusive("linters"):
            if not done.exists():
                print("Installing the locked requirements of the checkers ...", flush=True)
                env = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1", **os.environ}
                await run(uv(), "venv", "--quiet", "--allow-existing", "--python", sys.executable, home, env=env)
                python = f"--python={home / 'bin' / 'python'}"
                await run(uv(), "pip", "sync", "--quiet", "--require-hashes", python, lock, env=env)
                done.touch()
    return home / "bin"
