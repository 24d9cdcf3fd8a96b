"""Leader election on a coordination Lease: one replica works, the others wait.

The Lease is taken and renewed by compare-and-swap on its resourceVersion.  A leader that could not renew it in time
must not write any more: it says so by ending, and the process exits at once.  Source: the rules of client-go's
`leaderelection` (lease 15 s, renew deadline 10 s, retry 2 s); the elector of the `kubernetes` package goes on
working through a partition and is not used.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import math
import random
import time
from collections.abc import Callable
from typing import Any

from regcred.cluster import client as api
from regcred.cluster import errors

_log = logging.getLogger(__name__)

#: Seconds that an orderly end waits for the Lease to be freed.
_RELEASE_TIMEOUT = 5.0


def since_boot() -> float:
    """Return seconds that go on while the machine is suspended, where the system has such a clock."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class LeaseLost(Exception):
    """Somebody else leads now, or may: nothing may be written any more."""


class Lease:
    """One replica's part in the election.

    Args:
        client: the API client.
        namespace: of the Lease.
        name: of the Lease.
        identity: of this replica; no two that run may share one.
        duration: seconds after which others may take a Lease that was not renewed.
        deadline: seconds without renewal after which this replica gives up; less than `duration`.
        retry: seconds between tries.
        monotonic: the clock; wall clocks of replicas are never compared.
    """

    def __init__(
        self,
        client: api.Client,
        namespace: str,
        name: str,
        identity: str,
        *,
        duration: float = 15.0,
        deadline: float = 10.0,
        retry: float = 2.0,
        monotonic: Callable[[], float] = since_boot,
    ) -> None:
        self._client = client
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._collection}/{name}"
        self._name = name
        self.identity = identity
        self._duration = max(math.ceil(duration), 1)
        self._deadline = deadline
        self._retry = retry
        self._monotonic = monotonic
        self._seen: tuple[str, float] = ("", 0.0)
        # The renewals that we have sent: one of another replica that has our name is none of them.
        self._stamps: list[str] = []
        self.renewed_at = -math.inf
        self.held = False

    async def acquire(self) -> None:
        """Wait until this replica leads."""
        told = ""
        while True:
            try:
                holder = await self._try()
                if self.held:
                    _log.info("Acquired the Lease %s", self._name)
                    return
                if told != holder:
                    _log.info("Waiting for the Lease %s, held by %s", self._name, holder or "nobody")
                    told = holder
            except errors.ApiError as error:
                if told != str(error):
                    _log.warning("Could not read or write the Lease %s: %s; trying again", self._name, error)
                    told = str(error)
            await asyncio.sleep(self._retry * random.uniform(0.8, 1.2))

    async def keep(self) -> None:
        """Renew until it fails.

        Raises:
            LeaseLost: somebody else holds it, or it was not renewed within the deadline.
        """
        while True:
            # Woken at the deadline at the latest, so that an outage is noticed then, and not a turn later.
            left = self.renewed_at + self._deadline - self._monotonic()
            await asyncio.sleep(max(min(self._retry, left + 0.001), 0.0))
            self.check()
            try:
                async with asyncio.timeout(self.renewed_at + self._deadline - self._monotonic()):
                    await self._try()
            except (errors.ApiError, TimeoutError) as error:
                _log.warning("Could not renew the Lease %s (%s)", self._name, type(error).__name__)
                continue
            if not self.held:
                raise LeaseLost(f"the Lease {self._name} was taken by another replica")

    def check(self) -> None:
        """Raise `LeaseLost` unless this replica leads for certain.

        That is not so when the deadline has passed, as it has after a long stop of the whole process.
        """
        if not self.held:
            raise LeaseLost(f"the Lease {self._name} is not held")
        if self._monotonic() - self.renewed_at > self._deadline:
            self.held = False
            raise LeaseLost(f"the Lease {self._name} was not renewed for {self._deadline:.0f} s")

    async def release(self) -> None:
        """Free the Lease, so that the next replica need not wait; best effort."""
        if not self.held:
            return
        self.held = False
        try:
            async with asyncio.timeout(_RELEASE_TIMEOUT):
                body = await self._client.get(self._path)
                spec = body.get("spec") or {}
                if self._ours(spec):
                    freed = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
                    await self._send("PUT", self._path, body | {"spec": spec | freed})
        except (errors.ApiError, TimeoutError) as error:
            _log.warning("Could not release the Lease %s (%s)", self._name, type(error).__name__)

    async def _try(self) -> str:
        """Take or renew the Lease if that is fair; return its holder as it was found."""
        began = self._monotonic()
        try:
            # Once more at once, should a connection have gone stale.
            body = await self._client.request("GET", self._path, tries=2, urgent=True)
        except errors.NotFound:
            metadata = {"name": self._name}
            created = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
            await self._write("POST", self._collection, created, {}, began)
            return ""
        spec: dict[str, Any] = body.get("spec") or {}
        holder = str(spec.get("holderIdentity") or "")
        if self.held and not self._ours(spec):
            self.held = False
            return holder
        if holder not in ("", self.identity):
            # How old it is, is measured by when we saw it change: the holder's clock may be wrong.
            stamp = str(body["metadata"]["resourceVersion"])
            if stamp != self._seen[0]:
                self._seen = (stamp, began)
            life = float(spec.get("leaseDurationSeconds") or self._duration)
            if began - self._seen[1] < life:
                return holder
        await self._write("PUT", self._path, body, spec, began)
        return holder

    def _ours(self, spec: dict[str, Any]) -> bool:
        """Whether the Lease stands as this very process has written it."""
        return spec.get("holderIdentity") == self.identity and spec.get("renewTime") in self._stamps

    async def _write(
        self, method: str, path: str, body: dict[str, Any], before: dict[str, Any], began: float
    ) -> None:
        now = _now()
        again = before.get("holderIdentity") == self.identity
        spec = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self._duration,
            "acquireTime": before.get("acquireTime") if again and before.get("acquireTime") else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if again else 1),
        }
        self._stamps.append(now)
        try:
            await self._send(method, path, body | {"spec": spec})
        except errors.Conflict:
            # Somebody was faster, if only to add a label; who holds it now, the next reading tells.
            return
        # Until here any of those sent may be the one that stands.
        self._stamps = [now]
        # Counted from before the request: the server may have stored it at any moment since.
        self.renewed_at = began
        self.held = True

    async def _send(self, method: str, path: str, body: dict[str, Any]) -> None:
        await self._client.request(method, path, body=body, tries=1, urgent=True)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
