"""A provider that lives only during a benchmark: it hands out a new login at once and counts how often it is asked.

`install` lays it out as an installed distribution with an entry point, in a folder for PYTHONPATH: the operator finds
it the way it finds every plugin, and nothing in regcred knows of benchmarks.
"""

from __future__ import annotations

from pathlib import Path

NAME = "bench"
CALLS = "REGCRED_BENCH_CALLS"

_MODULE = '''"""The provider of the benchmark."""

import datetime
import os
import secrets

from regcred import dockerconfig
from regcred.credentials import provider


class Desk:
    """Hands out a random login of `config.size` characters for `config.seconds`."""

    name = "bench"

    def serves(self, server):
        return False

    def key(self, ask):
        return f"bench|{ask.server}"

    def sources(self, ask):
        return ()

    async def fetch(self, ask):
        with open(os.environ["REGCRED_BENCH_CALLS"], "a") as calls:
            calls.write(ask.server + "\\n")
        size = int(ask.config["size"])
        now = datetime.datetime.now(datetime.UTC)
        return provider.Grant(
            logins={provider.ANY_SERVER: dockerconfig.Login("AWS", secrets.token_urlsafe(size)[:size])},
            identity="bench",
            issued_at=now,
            expires_at=now + datetime.timedelta(seconds=int(ask.config["seconds"])),
        )
'''


def install(folder: Path) -> None:
    """Lay the provider out in `folder`."""
    (folder / "regcred_bench_desk.py").write_text(_MODULE, encoding="utf-8")
    info = folder / "regcred_bench_desk-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: regcred-bench-desk\nVersion: 1\n", encoding="utf-8"
    )
    (info / "entry_points.txt").write_text(
        f"[regcred.providers]\n{NAME} = regcred_bench_desk:Desk\n", encoding="utf-8"
    )


def entry(number: int) -> dict[str, object]:
    """Return a registry entry: of every four one has a login as long as ECR's, the others are shorter."""
    size = (2048, 1024, 512, 256)[number % 4]
    return {
        "server": f"{number:012d}.registry.example.com",
        "plugin": {"name": NAME, "config": {"size": size, "seconds": 12 * 3600}},
    }
