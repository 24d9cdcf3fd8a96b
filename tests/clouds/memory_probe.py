"""A process that holds nothing but the keeper and the providers: 50 identities, renewed again and again.

It reads what it shall do from standard input, and after each round writes one line: logins renewed so far and its
resident memory.  The clock is hurried, so that no renewal waits for the one before; everything else is real.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import gc
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt

from regcred.api import resource as api_resource
from regcred.credentials import asks, cache, keeper, plugins, provider

Json = dict[str, Any]
NAMESPACE = "regcred-system"


class HurriedClock:
    """The machine's clocks, ahead by what was skipped."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> dt.datetime:
        """Return the time."""
        return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self.ahead)

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic() + self.ahead


@dataclasses.dataclass
class Reader:
    """The cluster: Secrets, accounts, and tokens signed by the issuer's key."""

    work: Json
    versions: dict[str, str | None] = dataclasses.field(default_factory=dict)

    async def read_secret(self, name: str) -> Mapping[str, bytes]:
        """Return the data of a Secret."""
        self.versions[name] = "1"
        return {"": b"Opaque", **{key: value.encode() for key, value in self.work["secrets"][name].items()}}

    async def read_service_account(self, name: str) -> provider.ServiceAccount:
        """Return an account."""
        return provider.ServiceAccount(NAMESPACE, name, f"uid-of-{name}", self.work["accounts"][name])

    async def request_token(self, service_account: str, audience: str, seconds: int = 600) -> str:
        """Return a token as the API server makes it."""
        now = int(time.time())
        claims = {
            "iss": self.work["issuer"],
            "sub": f"system:serviceaccount:{NAMESPACE}:{service_account}",
            "aud": [audience],
            "iat": now,
            "nbf": now,
            "exp": now + seconds,
        }
        return jwt.encode(claims, self.work["key"], algorithm="RS256")


class NoCache:
    """Keeps records in memory."""

    def __init__(self) -> None:
        self._records: dict[str, cache.Record] = {}

    async def load(self) -> Mapping[str, cache.Record]:
        """Return nothing: this is the first run."""
        return {}

    def keeps(self, record: cache.Record) -> bool:
        """Whether a record is kept already."""
        return self._records.get(record.uid) == record

    async def save(self, record: cache.Record) -> None:
        """Keep a record."""
        self._records[record.uid] = record

    async def delete(self, uid: str) -> None:
        """Forget a record."""
        self._records.pop(uid, None)


def memory() -> float:
    """Return the resident memory of this process in MiB."""
    gc.collect()
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def parsed(number: int, registry: Json, round_: int) -> api_resource.Resource:
    """Return a resource with one registry, which asks for a refresh in each round."""
    return api_resource.parse(
        {
            "apiVersion": "regcred.io/v1alpha1",
            "kind": "ClusterRegistryCredential",
            "metadata": {
                "name": f"r{number}",
                "uid": f"uid-{number}",
                "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"regcred.io/refresh-requested-at": str(round_)},
            },
            "spec": {"registries": [registry], "namespaces": {"names": ["a"]}},
        }
    )


async def main() -> None:
    """Renew as often as asked."""
    work: Json = json.load(sys.stdin)
    clock = HurriedClock()
    entries = asks.Entries(plugins.Providers(), asks.Policy(NAMESPACE), lambda *_: Reader(work))  # type: ignore[arg-type,return-value]
    changed = asyncio.Event()
    held = keeper.Keeper(entries, NoCache(), never, lambda _: changed.set(), clock=clock)  # type: ignore[arg-type]
    running = asyncio.create_task(held.run())
    tell(0, [])
    for round_ in range(1, work["rounds"] + 1):
        clock.ahead += 60.0
        for number, registry in enumerate(work["registries"]):
            held.update(parsed(number, registry, round_))
        while any(
            held.refresh_handled(f"uid-{number}") != str(round_) for number in range(len(work["registries"]))
        ):
            changed.clear()
            async with asyncio.timeout(60):
                await changed.wait()
        rows = [row for number in range(len(work["registries"])) for row in held.rows(f"uid-{number}")]
        tell(round_, [f"{row.server} {row.reason} {row.message}" for row in rows if row.reason != "Issued"])
    running.cancel()


async def never(*_: object) -> Any:
    """Prove a login, which nobody asks for."""
    raise NotImplementedError


def tell(round_: int, wrong: list[str]) -> None:
    """Write a line."""
    print(json.dumps({"round": round_, "memory": memory(), "wrong": wrong}), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())
