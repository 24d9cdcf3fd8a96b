"""Holds every login, renews it in time, and never lets go of a good one for a worse.

One fetch a key, shared by every entry of every resource that asks for the same thing (single flight).  What a fetch
brings is proven where the entry asks for it, accepted, kept in the cache, and only then published.  On any failure
the last good login stays.  Logins that fall due together are fetched and published together, so that a namespace
whose Secret holds ten registries is written once; but none waits long for another, and the first login of an entry
waits for nobody but entries of its own resource.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pydantic

from regcred import dockerconfig
from regcred.api import resource as api_resource
from regcred.api import spec
from regcred.cluster import errors, heartbeat
from regcred.credentials import asks, deliveries, lanes, proofs, provider, schedule
from regcred.credentials.cache import Cache, Record
from regcred.credentials.fetches import Clock, Fetch, SystemClock, Versions, companions
from regcred.credentials.holdings import Holding, Place, Row, Slot
from regcred.credentials.proofs import Verify

__all__ = ["Clock", "Keeper", "Row", "SystemClock", "Verify"]

_log = logging.getLogger(__name__)

#: A turn of the loop at the most, in seconds: wall clock steps and suspends are noticed within it.
_TURN = 60.0
#: From so many fetches on, what happens within as many seconds is looked at together.
_MANY = 200
_TOGETHER = 0.02


class Keeper:
    """Every login of every resource.

    Args:
        entries: turns a registry entry into an ask of its provider.
        cache: where last good logins are kept.
        verify: proves a login.
        publish: called with the UIDs of resources whose logins or rows changed.
        clock: the time.
        observe: called after each fetch with the provider's name, what went wrong, and seconds.
    """

    def __init__(
        self,
        entries: asks.Entries,
        cache: Cache,
        verify: Verify,
        publish: Callable[[frozenset[str]], None],
        *,
        clock: Clock | None = None,
        observe: Callable[[str, provider.ProviderError | None, float], None] = lambda *_: None,
    ) -> None:
        self._entries = entries
        self._observe = observe
        self._cache = cache
        self._clock: Clock = clock or SystemClock()
        self._places = lanes.Lanes()
        self._proofs = proofs.Proofs(verify, self._places)
        self._wake = asyncio.Event()
        self.heartbeat = heartbeat.Heartbeat()
        self._deliveries = deliveries.Deliveries(cache, publish, self._clock, self._wake)
        self._records: dict[str, Record] = {}
        self._holdings: dict[str, Holding] = {}
        self._fetches: dict[str, Fetch] = {}
        self._versions = Versions()
        # Asked for each namespace, and different only when a resource is.
        self._names: frozenset[str] | None = None
        self._sources: frozenset[provider.SourceRef] | None = None
        self._left: Mapping[str, tuple[spec.Namespaces, ...]] | None = None
        #: Names of Secrets that an earlier run may have written.
        self.inherited: frozenset[str] = frozenset()

    # What the engine asks.

    async def load(self) -> None:
        """Read the cache; before anything else."""
        self._records = dict(await self._cache.load())
        self.inherited = frozenset(name for record in self._records.values() for name in record.secret_names)
        for record in self._records.values():
            self._holdings[record.uid] = Holding(
                record.uid,
                record.resource,
                secret_names=record.secret_names,
                namespaces=record.namespaces,
                gone=True,
            )
        self._names = self._left = None

    def update(self, resource: api_resource.Resource) -> None:
        """Take in a resource as it is now."""
        holding = self._holding(resource)
        self._deliveries.changed(resource.uid)
        holding.suspended = resource.spec is not None and resource.spec.suspend
        if resource.spec is None or resource.spec.suspend:
            # Frozen: what it has stays as it is, and nothing is asked of anybody.
            for slot in holding.slots.values():
                self._detach(slot)
            holding.refresh_wanted = holding.refresh_handled
            self._sweep()
            return
        holding.secret_name = resource.spec.secret_name
        holding.namespaces = _namespaces(resource)
        self._names = None
        if holding.secret_name not in holding.secret_names:
            holding.secret_names = (*holding.secret_names, holding.secret_name)
        before, holding.slots = holding.slots, {}
        for entry in self._entries.of(resource):
            slot = before.pop(entry.server) if entry.server in before else Slot(holding, entry.server)
            holding.slots[entry.server] = slot
            self._attach(slot, entry)
        for slot in before.values():
            self._detach(slot)
        self._sweep()
        self._refresh(holding, resource.refresh_requested_at)
        self._deliveries.arrived(holding)

    def remove(self, uid: str) -> None:
        """Forget a resource; its record stays until `forget`."""
        holding = self._holdings.get(uid)
        if holding is None:
            return
        for slot in holding.slots.values():
            self._detach(slot)
        holding.slots = {}
        holding.gone = True
        self._left = None
        self._sweep()
        self._deliveries.drop(uid)

    def gone(self) -> frozenset[str]:
        """Return the UIDs of resources that are gone and still have a record."""
        return frozenset(uid for uid, holding in self._holdings.items() if holding.gone)

    async def forget(self, uid: str) -> None:
        """Delete the record of a resource that is gone and of which nothing is left in the cluster.

        Where that fails it stays among those that are `gone`.
        """
        holding = self._holdings.get(uid)
        if holding is None or not holding.gone:
            return
        await self._deliveries.stop(uid)
        try:
            await self._cache.delete(uid)
        except errors.ApiError as error:
            _log.warning("Could not delete the kept logins of %s: %s", uid, error)
            return
        if holding.gone:
            self._records.pop(uid, None)
            self._holdings.pop(uid, None)
            self._names = self._left = None

    def secret_names(self) -> frozenset[str]:
        """Return every Secret name that a resource has, or had and may have left something under."""
        if self._names is None:
            self._names = frozenset(name for holding in self._holdings.values() for name in holding.secret_names)
        return self._names

    def left(self) -> Mapping[str, tuple[spec.Namespaces, ...]]:
        """Return where resources that are gone may have left something.

        Returns:
            The name of a Secret to the `spec.namespaces` of each of them, without what cannot be read.
        """
        if self._left is None:
            found: dict[str, tuple[spec.Namespaces, ...]] = {}
            for holding in self._holdings.values():
                if holding.gone and holding.namespaces is not None:
                    with contextlib.suppress(pydantic.ValidationError):
                        scope = spec.Namespaces.model_validate(holding.namespaces)
                        found |= {name: (*found.get(name, ()), scope) for name in holding.secret_names}
            self._left = found
        return self._left

    def sources(self) -> frozenset[provider.SourceRef]:
        """Return every Secret that some entry reads."""
        if self._sources is None:
            self._sources = frozenset(each for fetch in self._fetches.values() for each in fetch.entry.sources)
        return self._sources

    def source_changed(self, source: provider.SourceRef, version: str | None) -> None:
        """Take in that a source Secret is now of resource version `version`, or gone (None)."""
        readers = [fetch for fetch in self._fetches.values() if source in fetch.entry.sources]
        self._versions.put(source, version, read=bool(readers))
        for fetch in readers:
            # One that is under way is looked at when it has ended: it may have read this very version.
            if not fetch.asking and self._versions.stale(fetch):
                self._hurry(fetch, news=True)

    def logins(self, uid: str) -> Mapping[str, tuple[dockerconfig.Login, str, datetime.datetime | None]]:
        """Return what a resource has to hand out: server to login, its version, and its end (UTC)."""
        holding = self._holdings.get(uid)
        return holding.logins() if holding is not None else {}

    def rows(self, uid: str) -> Sequence[Row]:
        """Return how each registry entry of a resource stands, by server."""
        holding = self._holdings.get(uid)
        found: list[Row] = []
        for slot in holding.slots.values() if holding is not None else ():
            fetch = self._fetch_of(slot)
            known = fetch is not None and slot in fetch.slots
            error, next_at = (fetch.error, fetch.due_at) if fetch is not None and known else (None, None)
            found.append(slot.row(self._clock.now(), error, next_at))
        return found

    def refresh_handled(self, uid: str) -> str:
        """Return the last refresh request of a resource that was carried out, or ""."""
        holding = self._holdings.get(uid)
        return holding.refresh_handled if holding else ""

    def expecting(self, uids: Iterable[str]) -> bool:
        """Whether the first login of some entry of these resources may be there in a moment."""
        return any(
            slot.offered is None and (not slot.answered or slot.accepted is not None)
            for uid in uids
            if uid in self._holdings
            for slot in self._holdings[uid].slots.values()
        )

    # The loop.

    async def run(self) -> None:
        """Fetch what is due, for ever; ends only by cancellation."""
        try:
            while True:
                self.heartbeat.beat()
                self._wake.clear()
                self._start_due()
                self._deliveries.flush(self._awaits())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._until_next()):
                        await self._wake.wait()
                if len(self._fetches) > _MANY:
                    # All of them are looked through at every turn: once for much that happens together.
                    await asyncio.sleep(_TOGETHER)
        finally:
            tasks = [*self._deliveries.tasks()]
            tasks += [fetch.task for fetch in self._fetches.values() if fetch.task is not None]
            slots = [slot for holding in self._holdings.values() for slot in holding.slots.values()]
            tasks += [slot.proving for slot in slots if slot.proving is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _until_next(self) -> float:
        pauses = [fetch.pause(self._clock) for fetch in self._fetches.values()]
        return min(_TURN, *(pause for pause in (*pauses, self._deliveries.pause(), _TURN) if pause is not None))

    def _start_due(self) -> None:
        due = [fetch for fetch in self._fetches.values() if fetch.pause(self._clock) == 0.0]
        for fetch in (*due, *companions(self._clock, due, self._fetches.values())):
            fetch.plan(self._clock, None)
            fetch.task = asyncio.create_task(self._run(fetch), name=f"fetch {fetch.key}")

    # One fetch.

    async def _run(self, fetch: Fetch) -> None:
        try:
            async with self._places.place(fetch.tenant, failing=fetch.attempt > 0):
                fetch.asking = True
                known = self._versions.known(fetch)
                await fetch.ask(self._clock, self._entries.reader(fetch.entry), known)
                self._observe(fetch.entry.provider_name, fetch.error, self._clock.monotonic() - fetch.tried)
        except Exception:  # noqa: BLE001 - logged, and tried again
            _log.exception("The fetch %s ended unexpectedly", fetch.key)
            fetch.plan(self._clock, schedule.RETRY_CEILING)
            return
        finally:
            fetch.asking = False
            fetch.task = None
            self._wake.set()
        again, fetch.again = fetch.again, False
        if again or self._versions.stale(fetch):
            self._hurry(fetch, news=True)
        for slot in list(fetch.slots):
            if fetch.brought == fetch.begun:
                self._judge(slot, fetch)
            else:
                slot.error = None
                self._answered(slot, fetch)

    def _judge(self, slot: Slot, fetch: Fetch) -> None:
        """Give the grant of `fetch` to one entry, at once or as soon as it is proven."""
        assert slot.entry is not None  # noqa: S101 - only entries that fetch get here
        if slot.proving is not None:
            return  # it looks again when it has ended
        if slot.entry.proof:
            slot.proving = asyncio.create_task(self._prove(slot, fetch), name=f"prove {slot.server}")
            return
        slot.verdict, slot.attempt = None, 0
        self._take(slot, fetch, proven=False)

    async def _prove(self, slot: Slot, fetch: Fetch) -> None:
        """Take the grant of `fetch` for one entry if it is proven, or nothing better is there."""
        grant: provider.Grant | None = None
        try:
            while slot.entry is not None and fetch.grant is not None and fetch.grant is not grant:
                grant = fetch.grant
                forced = 0 < slot.refresh_from <= fetch.brought
                await self._proofs.look(slot, slot.entry.narrow(grant), fetch.tenant, forced=forced)
            if slot.entry is None or fetch.grant is None:
                return
            proven = proofs.proven(slot)
            if proven or proofs.yields(slot, self._clock.now()):
                self._take(slot, fetch, proven=proven)
            else:
                slot.error = None
                self._answered(slot, fetch)
            if not proven:
                fetch.bring_forward(self._clock, proofs.again_after(slot))
        finally:
            if slot.proving is asyncio.current_task():
                slot.proving = None
            self._wake.set()

    def _take(self, slot: Slot, fetch: Fetch, *, proven: bool) -> None:
        """Accept the grant of `fetch` for one entry, if it is of use there."""
        assert fetch.grant is not None  # noqa: S101 - the callers have looked
        first = slot.offered is None
        if slot.take(fetch.grant, self._clock.now(), sources=fetch.sources, proven=proven):
            self._deliveries.arrived(slot.holding, first=first)
        self._answered(slot, fetch)

    def _answered(self, slot: Slot, fetch: Fetch) -> None:
        """Take in that an entry was tried."""
        slot.answered = True
        if 0 < slot.refresh_from <= fetch.ended:
            slot.refresh_from = 0
            slot.holding.refreshed()
        self._deliveries.changed(slot.holding.uid)

    # What belongs together.

    def _awaits(self) -> Callable[[Holding, bool], bool]:
        """Return what says whether logins of a resource wait for others: of its own, or of the same Secret."""

        @functools.cache
        def renewing() -> frozenset[Place]:
            busy = [fetch for fetch in self._fetches.values() if fetch.task is not None]
            return frozenset(
                slot.holding.place
                for fetch in busy
                if fetch.grant is not None and fetch.attempt == 0
                for slot in fetch.slots
            )

        def awaits(holding: Holding, alone: bool) -> bool:  # noqa: FBT001 - the protocol's
            if any(self._on_its_way(slot) for slot in holding.slots.values()):
                return True
            return not alone and holding.place in renewing()

        return awaits

    def _on_its_way(self, slot: Slot) -> bool:
        """Whether an entry may have a login in a moment; what failed the last time is not waited for."""
        fetch = self._fetch_of(slot)
        asking = fetch is not None and fetch.task is not None and fetch.attempt == 0
        return asking or (slot.proving is not None and slot.attempt == 0)

    # Bookkeeping.

    def _holding(self, resource: api_resource.Resource) -> Holding:
        """Return what is held for a resource, taking over what was kept of it."""
        holding = self._holdings.get(resource.uid)
        if holding is None:
            holding = self._holdings[resource.uid] = Holding(resource.uid, resource.key, gone=True)
        if holding.gone:
            holding.gone = False
            self._names = self._left = None
            holding.key = resource.key
            holding.namespace = "" if resource.cluster else resource.namespace
            holding.refresh_handled = str(resource.status.get("lastHandledRefreshAt") or "")
            record = self._records.pop(resource.uid, None)
            if record is not None:
                holding.restore(record)
        return holding

    def _fetch_of(self, slot: Slot) -> Fetch | None:
        return self._fetches.get(slot.key) if slot.key else None

    def _attach(self, slot: Slot, entry: asks.Entry) -> None:
        """Tie an entry to the fetch of its key, starting from its last good grant where the key is the same."""
        before, slot.entry = slot.entry, entry
        self._sources = None
        if before is not None and before.key != entry.key and before.key in self._fetches:
            self._fetches[before.key].slots.pop(slot, None)
        if entry.error is not None:
            slot.stop()
            slot.answered, slot.refresh_from = True, 0
            return
        fetch = self._fetches.get(entry.key)
        if fetch is None:
            fetch = self._fetches[entry.key] = Fetch(entry.key, entry)
        if slot.accepted is not None and slot.accepted.key == entry.key and slot not in fetch.slots:
            fetch.resume(self._clock, slot.accepted)
        fetch.entry = entry
        same = (
            slot in fetch.slots
            and before is not None
            and (before.proof, before.servers) == (entry.proof, entry.servers)
        )
        fetch.slots[slot] = None
        untried = fetch.grant is None and fetch.error is None and fetch.task is None
        if untried or (self._versions.stale(fetch) and not fetch.asking):
            self._hurry(fetch, news=True)
        if same:
            return
        slot.stop()
        slot.error = slot.verdict = None
        slot.attempt = slot.refresh_from = 0
        slot.answered = slot.good
        if fetch.task is not None:
            return
        if fetch.whole and fetch.living(self._clock.now()):
            # What others of the same key have is good for this entry too: the provider is not asked again.
            self._judge(slot, fetch)
        elif not slot.good:
            self._hurry(fetch, news=fetch.attempt == 0)

    def _detach(self, slot: Slot) -> None:
        """Untie an entry from its fetch; it keeps what it has."""
        fetch = self._fetch_of(slot)
        if fetch is not None:
            fetch.slots.pop(slot, None)
        slot.stop()
        slot.refresh_from = 0

    def _sweep(self) -> None:
        """Drop the fetches that nobody uses any more."""
        for key in [key for key, fetch in self._fetches.items() if not fetch.slots]:
            fetch = self._fetches.pop(key)
            self._sources = None
            if fetch.task is not None:
                fetch.task.cancel()

    def _refresh(self, holding: Holding, wanted: str) -> None:
        """Begin what a refresh request asks for, once: every entry is fetched and proven anew."""
        if wanted and wanted not in (holding.refresh_wanted, holding.refresh_handled):
            holding.refresh_wanted = wanted
            for slot in holding.slots.values():
                fetch = self._fetch_of(slot)
                if fetch is not None:
                    slot.refresh_from = fetch.begun + 1
                    self._hurry(fetch, news=True)
        holding.refreshed()

    def _hurry(self, fetch: Fetch, *, news: bool) -> None:
        fetch.hurry(self._clock, news=news)
        self._wake.set()


def _namespaces(resource: api_resource.Resource) -> Mapping[str, Any]:
    """Return the namespaces that a resource is for, as `spec.namespaces` says it."""
    if not resource.cluster:
        return {"names": [resource.namespace]}
    said: Mapping[str, Any] = resource.spec.namespaces.model_dump(  # type: ignore[union-attr]
        mode="json", by_alias=True, exclude_defaults=True
    )
    return said
