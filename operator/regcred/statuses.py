"""Writes statuses and posts events: only what changed, and at most once a second for each resource."""

from __future__ import annotations

import asyncio
import datetime
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from regcred import reporting
from regcred.api import names
from regcred.api import resource as api_resource
from regcred.cluster import client as api
from regcred.cluster import errors, events, heartbeat, lease

_log = logging.getLogger(__name__)

#: Seconds between two writes of one status.
_PACE = 1.0
#: Statuses written at once: thousands of tenants have a resource each, and each answer takes its time.
_AT_ONCE = 8
#: The same while a pass over many namespaces is under way: only its numbers change, and each write costs the API server
#: as much as several of the writes that they count.
_PROGRESS = 5.0
#: Seconds that a status of this very generation may stand while a pass is under way, as after a restart.
_HOLD = 20.0


class StatusWriter:
    """The `Reports` of the engine.

    Args:
        client: the API client.
        recorder: posts events.
        facts: what is known of a resource, or None where it is gone.
    """

    def __init__(
        self,
        client: api.Client,
        recorder: events.Recorder,
        facts: Callable[[str], reporting.Facts | None],
    ) -> None:
        self._client = client
        self._recorder = recorder
        self._facts = facts
        self._due: dict[str, float] = {}
        self._written_at: dict[str, float] = {}
        self._written: dict[str, Mapping[str, Any]] = {}
        self._held_since: dict[str, float] = {}
        self._wake = asyncio.Event()
        self.heartbeat = heartbeat.Heartbeat()

    def changed(self, uid: str) -> None:
        """Ask for the status of a resource to be looked at again."""
        due = max(time.monotonic(), self._written_at.get(uid, 0.0) + _PACE)
        self._due[uid] = min(due, self._due.get(uid, due))
        self._wake.set()

    def removed(self, uid: str) -> None:
        """Forget a resource."""
        for table in (self._due, self._written_at, self._written, self._held_since):
            table.pop(uid, None)

    async def run(self, guard: Callable[[], None]) -> None:
        """Write what is due, for ever; `guard` raises when this replica may not write any more."""
        while True:
            now = time.monotonic()
            due = [uid for uid, at in self._due.items() if at <= now]
            waiting = iter(due)
            async with asyncio.TaskGroup() as group:
                for _ in due[:_AT_ONCE]:
                    group.create_task(self._lane(waiting, guard))
            self._wake.clear()
            pause = min((due - time.monotonic() for due in self._due.values()), default=None)
            try:
                async with asyncio.timeout(None if pause is None else max(pause, 0.0)):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _lane(self, waiting: Iterator[str], guard: Callable[[], None]) -> None:
        for uid in waiting:
            if self._due.pop(uid, None) is None:
                continue  # removed while another was written
            self.heartbeat.beat(uid)
            try:
                await self._look(uid, guard)
            except lease.LeaseLost:
                raise
            except Exception:  # noqa: BLE001 - logged, and tried again
                _log.exception("Could not report on the resource %s", uid)
                self._due[uid] = time.monotonic() + _HOLD
            finally:
                self.heartbeat.rest(uid)

    async def _look(self, uid: str, guard: Callable[[], None]) -> None:
        facts = self._facts(uid)
        if facts is None or facts.resource.deleting:
            return
        if self._holds(uid, facts):
            self._due[uid] = time.monotonic() + _PACE
            return
        again = self._written_at.get(uid, -math.inf) + _PROGRESS
        if facts.pending and uid in self._written and time.monotonic() < again:
            self._due[uid] = again  # its end comes sooner: `changed` is told of it
            return
        now = datetime.datetime.now(datetime.UTC)
        before = self._written.get(uid, facts.resource.status)
        after = reporting.build(facts, now)
        ends = reporting.until(facts)
        if ends is not None:
            # What time alone changes is looked at when its time has come.
            self._due[uid] = time.monotonic() + max((ends - now).total_seconds(), _PACE)
        if after == before:
            return
        guard()
        self._written_at[uid] = time.monotonic()
        if await self._write(facts.resource, before, after):
            self._written[uid] = after
            for event in reporting.transitions(before, after):
                self._recorder.post(_subject(facts.resource), event)

    def _holds(self, uid: str, facts: reporting.Facts) -> bool:
        """Whether to wait for the end of a pass, since the status that stands is of this generation."""
        under_way = facts.pending or any(row.pending for row in facts.rows)
        if not under_way or facts.resource.status.get("observedGeneration") != facts.resource.generation:
            self._held_since.pop(uid, None)
            return False
        since = self._held_since.setdefault(uid, time.monotonic())
        return time.monotonic() - since < _HOLD

    async def _write(
        self, resource: api_resource.Resource, before: Mapping[str, Any], after: Mapping[str, Any]
    ) -> bool:
        try:
            await self._client.request(
                "PATCH",
                f"{api_resource.path(resource.namespace, resource.name)}/status",
                params={"fieldManager": names.MANAGER},
                body={
                    # The uid keeps the status of a deleted resource off a new one of the same name.
                    "metadata": {"uid": resource.uid},
                    # No apply-patch: API servers of 1.20 refuse one that fills a keyed list that was empty.
                    "status": merge_patch(before, after),
                },
                content_type=api.MERGE,
                accept=api.METADATA,
            )
        except (errors.NotFound, errors.Conflict):
            return False
        except errors.ApiError as error:
            _log.warning("Could not write the status of %s: %s", resource.key, error)
            self._due[resource.uid] = time.monotonic() + (error.retry_after or 5.0)
            return False
        return True


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON merge patch (RFC 7386) that turns `before` into `after`."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        known = before.get(key)
        if isinstance(value, Mapping) and isinstance(known, Mapping):
            patch |= {key: inner} if (inner := merge_patch(known, value)) else {}
        elif value != known:
            patch[key] = value
    return patch


def _subject(resource: api_resource.Resource) -> events.Subject:
    return events.Subject(resource.kind, resource.namespace, resource.name, resource.uid, "")
