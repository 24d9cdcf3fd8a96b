"""Holds every login, renews it in time, and never lets go of a good one for a worse.

One fetch a key, shared by every entry of every resource that asks for the same thing (single flight).  What a fetch
brings is proven where the entry asks for it, accepted, kept in the cache, and only then published.  On any failure
the last good login stays.  Fetches that fall due together are published together, so that a namespace whose Secret
holds ten registries is written once.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from regcred import dockerconfig
from regcred.api import resource as api_resource
from regcred.cluster import errors
from regcred.credentials import asks, provider, schedule, verification
from regcred.credentials.cache import Accepted, Cache, Record

_log = logging.getLogger(__name__)

#: A turn of the loop at the most, in seconds: wall clock steps and suspends are noticed within it.
_TURN = 60.0
#: How long logins that have arrived wait for others fetched at the same moment, in seconds.
_GATHER = 3.0
_FETCHES_AT_ONCE = 8
_FETCH_TIMEOUT = 90.0


class Clock(Protocol):
    """Wall clock and monotonic clock; both are checked, since either may stand still or jump."""

    def now(self) -> datetime.datetime:
        """Return the time, UTC."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime.datetime:
        """Return the time, UTC."""
        return datetime.datetime.now(datetime.UTC)

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic()


#: Proves a login by the registry's own handshake.
Verify = Callable[[asks.Entry, dockerconfig.Login], Awaitable[verification.Verdict]]


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """How one registry entry of a resource stands.

    Attributes:
        server: as the resource spells it.
        servers: the server and its aliases, canonical, or those an import brought.
        provider: its name, or "".
        identity: who we are there.
        issued_at: of the login in use.
        expires_at: of the login in use.
        next_at: the next try, where one is planned.
        reason: CamelCase word.
        message: one sentence for people, or "".
        usable: a login is there to hand out, and has not ended.
        settled: the last try succeeded.
        stalled: a human must act.
        pending: the first answer is still awaited.
        verified: True or False as proven, None where nothing is known, or nothing was asked.
        wants_proof: the entry asks for a handshake.
    """

    server: str
    servers: tuple[str, ...] = ()
    provider: str = ""
    identity: str = ""
    issued_at: datetime.datetime | None = None
    expires_at: datetime.datetime | None = None
    next_at: datetime.datetime | None = None
    reason: str = ""
    message: str = ""
    usable: bool = False
    settled: bool = False
    stalled: bool = False
    pending: bool = False
    verified: bool | None = None
    wants_proof: bool = False


@dataclasses.dataclass(eq=False, slots=True)
class _Fetch:
    """One key: what it brought last, and when it is tried next."""

    key: str
    entry: asks.Entry
    users: set[tuple[str, str]] = dataclasses.field(default_factory=set)
    grant: provider.Grant | None = None
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    error: provider.ProviderError | None = None
    attempt: int = 0
    tried: float | None = None
    due_at: datetime.datetime | None = None
    due_mono: float | None = None
    task: asyncio.Task[None] | None = None
    again: bool = False


@dataclasses.dataclass(eq=False, slots=True)
class _Slot:
    """One registry entry of one resource."""

    server: str
    entry: asks.Entry | None = None
    error: provider.ProviderError | None = None
    accepted: Accepted | None = None
    verdict: verification.Verdict | None = None
    attempt: int = 0


@dataclasses.dataclass(eq=False, slots=True)
class _Holding:
    """One resource."""

    uid: str
    key: str
    secret_names: tuple[str, ...]
    slots: dict[str, _Slot] = dataclasses.field(default_factory=dict)
    refresh_wanted: str = ""
    refresh_handled: str = ""
    refreshing: set[str] = dataclasses.field(default_factory=set)
    gone: bool = False


class Keeper:
    """Every login of every resource.

    Args:
        entries: turns a registry entry into an ask of its provider.
        cache: where last good logins are kept.
        verify: proves a login.
        publish: called with the UIDs of resources whose logins or rows changed.
        clock: the time.
    """

    def __init__(
        self,
        entries: asks.Entries,
        cache: Cache,
        verify: Verify,
        publish: Callable[[frozenset[str]], None],
        *,
        clock: Clock | None = None,
    ) -> None:
        self._entries = entries
        self._cache = cache
        self._verify = verify
        self._publish = publish
        self._clock: Clock = clock or SystemClock()
        self._records: dict[str, Record] = {}
        self._holdings: dict[str, _Holding] = {}
        self._fetches: dict[str, _Fetch] = {}
        self._source_versions: dict[provider.SourceRef, str | None] = {}
        self._changed: set[str] = set()
        self._wake = asyncio.Event()
        self._slots_free = asyncio.Semaphore(_FETCHES_AT_ONCE)

    # What the engine asks.

    async def load(self) -> None:
        """Read the cache; before anything else."""
        self._records = dict(await self._cache.load())
        for record in self._records.values():
            self._holdings[record.uid] = _Holding(record.uid, record.resource, record.secret_names, gone=True)

    def update(self, resource: api_resource.Resource) -> None:
        """Take in a resource as it is now."""
        holding = self._holdings.get(resource.uid)
        record = self._records.pop(resource.uid, None)
        if holding is None or holding.gone:
            holding = _Holding(resource.uid, resource.key, record.secret_names if record else ())
            holding.refresh_handled = str(resource.status.get("lastHandledRefreshAt") or "")
            holding.slots = {
                server: _Slot(server, accepted=accepted)
                for server, accepted in (record.entries if record else {}).items()
            }
            self._holdings[resource.uid] = holding
        if resource.spec is None or resource.spec.suspend:
            # Frozen: what it has stays as it is, and nothing is asked of anybody.
            self._release(resource.uid)
            self._changed.add(resource.uid)
            self._wake.set()
            return
        if resource.spec.secret_name not in holding.secret_names:
            holding.secret_names = (*holding.secret_names, resource.spec.secret_name)
        self._release(resource.uid, keep=True)
        slots: dict[str, _Slot] = {}
        for entry in self._entries.of(resource):
            slot = holding.slots.get(entry.server) or _Slot(entry.server)
            self._attach(resource.uid, slot, entry)
            slots[entry.server] = slot
        holding.slots = slots
        self._sweep()
        holding.refresh_wanted = resource.refresh_requested_at
        if holding.refresh_wanted != holding.refresh_handled:
            holding.refreshing = {fetch.key for fetch in self._used_by(resource.uid)}
            for fetch in self._used_by(resource.uid):
                self._hurry(fetch)
            if not holding.refreshing:
                holding.refresh_handled = holding.refresh_wanted
        self._changed.add(resource.uid)
        self._wake.set()

    def remove(self, uid: str) -> None:
        """Forget a resource; its record stays until `forget`."""
        self._release(uid)
        holding = self._holdings.get(uid)
        if holding is not None:
            holding.slots = {}
            holding.gone = True
        self._changed.discard(uid)

    def gone(self) -> frozenset[str]:
        """Return the UIDs of resources that are gone and still have a record."""
        return frozenset(uid for uid, holding in self._holdings.items() if holding.gone)

    async def forget(self, uid: str) -> None:
        """Delete the record of a resource of which nothing is left in the cluster."""
        await self._cache.delete(uid)
        self._records.pop(uid, None)
        self._holdings.pop(uid, None)

    def secret_names(self) -> frozenset[str]:
        """Return every Secret name that a resource has, or had and may have left something under."""
        return frozenset(name for holding in self._holdings.values() for name in holding.secret_names)

    def sources(self) -> frozenset[provider.SourceRef]:
        """Return every Secret that some entry reads."""
        return frozenset(source for fetch in self._fetches.values() for source in fetch.entry.sources)

    def source_changed(self, source: provider.SourceRef, version: str | None) -> None:
        """Take in that a source Secret is now of resource version `version`, or gone (None)."""
        self._source_versions[source] = version
        for fetch in self._fetches.values():
            if source in fetch.entry.sources and fetch.sources.get(source.name) != version:
                self._hurry(fetch)

    def logins(self, uid: str) -> Mapping[str, tuple[dockerconfig.Login, str, datetime.datetime | None]]:
        """Return what a resource has to hand out: server to login, its version, and its end (UTC)."""
        holding = self._holdings.get(uid)
        found: dict[str, tuple[dockerconfig.Login, str, datetime.datetime | None]] = {}
        # What an import brings stands back behind an entry that names the server.
        for slot in sorted(holding.slots.values() if holding else (), key=lambda slot: slot.server != "*"):
            if slot.accepted is not None:
                grant = slot.accepted.grant
                for server, login in grant.logins.items():
                    found[server] = (login, slot.accepted.versions[server], grant.expires_at)
        return found

    def rows(self, uid: str) -> Sequence[Row]:
        """Return how each registry entry of a resource stands, by server."""
        holding = self._holdings.get(uid)
        now = self._clock.now()
        return [self._row(slot, now) for slot in holding.slots.values()] if holding else []

    def refresh_handled(self, uid: str) -> str:
        """Return the last refresh request of a resource that was carried out, or ""."""
        holding = self._holdings.get(uid)
        return holding.refresh_handled if holding else ""

    # The loop.

    async def run(self) -> None:
        """Fetch what is due, for ever; ends only by cancellation."""
        try:
            while True:
                self._wake.clear()
                self._start_due()
                self._flush()
                pause = self._until_next()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
        finally:
            for fetch in self._fetches.values():
                if fetch.task is not None:
                    fetch.task.cancel()

    def _until_next(self) -> float:
        now, mono = self._clock.now(), self._clock.monotonic()
        pause = _TURN
        for fetch in self._fetches.values():
            if fetch.task is None and fetch.due_at is not None:
                pause = min(pause, (fetch.due_at - now).total_seconds())
            if fetch.task is None and fetch.due_mono is not None:
                pause = min(pause, fetch.due_mono - mono)
        return max(pause, 0.0)

    def _is_due(self, fetch: _Fetch) -> bool:
        if fetch.task is not None:
            return False
        return (fetch.due_at is not None and fetch.due_at <= self._clock.now()) or (
            fetch.due_mono is not None and fetch.due_mono <= self._clock.monotonic()
        )

    def _start_due(self) -> None:
        due = [fetch for fetch in self._fetches.values() if self._is_due(fetch)]
        if not due:
            return
        names = {name for fetch in due for name in self._names(fetch)}
        now = self._clock.now()
        joining = [
            fetch
            for fetch in self._fetches.values()
            if fetch not in due
            and fetch.task is None
            and fetch.grant is not None
            and fetch.error is None
            and names & self._names(fetch)
            and schedule.may_join(now, fetch.grant.issued_at, fetch.grant.expires_at)
        ]
        for fetch in (*due, *joining):
            fetch.due_at = fetch.due_mono = None
            fetch.task = asyncio.create_task(self._fetch(fetch), name=f"fetch {fetch.key}")

    def _names(self, fetch: _Fetch) -> set[str]:
        return {name for uid, _ in fetch.users for name in self._holdings[uid].secret_names[-1:]}

    def _flush(self) -> None:
        """Publish what changed, unless more of it is about to arrive."""
        if self._changed:
            changed, self._changed = frozenset(self._changed), set()
            self._publish(changed)

    # One fetch.

    async def _fetch(self, fetch: _Fetch) -> None:
        async with self._slots_free:
            fetch.tried = self._clock.monotonic()
            reader = self._entries.reader(fetch.entry)
            try:
                async with asyncio.timeout(_FETCH_TIMEOUT):
                    grant = await fetch.entry.fetch(reader)
                fetch.grant, fetch.error, fetch.attempt = grant, None, 0
            except provider.ProviderError as error:
                fetch.error = error
            except TimeoutError:
                fetch.error = provider.Retryable(
                    "Timeout", f"{fetch.entry.provider_name} gave no answer in {_FETCH_TIMEOUT:.0f} s"
                )
            except Exception as error:  # noqa: BLE001 - a provider's surprise must not end the renewal of others
                _log.warning(
                    "Provider %s failed unexpectedly: %s", fetch.entry.provider_name, type(error).__name__
                )
                fetch.error = provider.Retryable(
                    "Unexpected",
                    f"{fetch.entry.provider_name} failed in an unexpected way ({type(error).__name__}); tried again",
                )
            fetch.sources = reader.versions
        try:
            await self._settle(fetch)
        finally:
            fetch.task = None
            if fetch.again:
                fetch.again = False
                self._hurry(fetch)
            self._wake.set()

    async def _settle(self, fetch: _Fetch) -> None:
        """Plan the next try, hand the grant to every entry that uses it, and keep it."""
        if fetch.error is not None:
            fetch.attempt += 1
            self._plan_retry(fetch, fetch.error)
        elif fetch.grant is not None:
            self._plan_renewal(fetch, fetch.grant)
            await asyncio.gather(*(self._accept(fetch, uid, server) for uid, server in sorted(fetch.users)))
        users = {uid for uid, _ in fetch.users}
        await asyncio.gather(*(self._gathered(uid) for uid in users))
        for uid in users:
            holding = self._holdings.get(uid)
            if holding is None or holding.gone:
                continue
            if fetch.key in holding.refreshing:
                holding.refreshing.discard(fetch.key)
                if not holding.refreshing:
                    holding.refresh_handled = holding.refresh_wanted
            await self._keep(holding)
            self._changed.add(uid)

    async def _gathered(self, uid: str) -> None:
        """Wait a moment for the other fetches of a resource, so that they are published in one write."""
        others = [
            other.task
            for other in self._used_by(uid)
            if other.task is not None and other.task is not asyncio.current_task()
        ]
        unfinished = [task for task in others if not task.done()]
        if unfinished:
            await asyncio.wait(unfinished, timeout=_GATHER)

    async def _keep(self, holding: _Holding) -> None:
        """Save the record before anything of it is handed out, so that a crash loses no login."""
        entries = {slot.server: slot.accepted for slot in holding.slots.values() if slot.accepted is not None}
        if not entries:
            return
        try:
            await self._cache.save(Record(holding.uid, holding.key, holding.secret_names, entries))
        except errors.ApiError as error:
            _log.warning("Could not keep the logins of %s: %s", holding.key, error)

    def _plan_renewal(self, fetch: _Fetch, grant: provider.Grant) -> None:
        now, mono = self._clock.now(), self._clock.monotonic()
        fetch.due_at = fetch.due_mono = None
        due = schedule.renew_at(fetch.key, grant.issued_at, grant.expires_at)
        if due is None:
            return
        pause = max((due - now).total_seconds(), schedule.FLOOR)
        if grant.expires_at is not None and grant.expires_at <= now:
            # Ended on arrival: our clock or theirs is wrong, and asking again at once mends neither.
            pause = schedule.RETRY_CEILING
        fetch.due_at = now + datetime.timedelta(seconds=pause)
        fetch.due_mono = mono + pause

    def _plan_retry(self, fetch: _Fetch, error: provider.ProviderError) -> None:
        now = self._clock.now()
        ends = fetch.grant.expires_at if fetch.grant is not None else None
        pause = schedule.retry_after(
            fetch.key,
            fetch.attempt,
            denied=error.stalled,
            wait=error.after if isinstance(error, provider.Throttled) else 0.0,
            left=(ends - now).total_seconds() if ends is not None else None,
        )
        fetch.due_at = now + datetime.timedelta(seconds=pause)
        fetch.due_mono = self._clock.monotonic() + pause

    async def _accept(self, fetch: _Fetch, uid: str, server: str) -> None:
        """Give the grant of `fetch` to one entry, if it proves good there."""
        holding = self._holdings.get(uid)
        slot = holding.slots.get(server) if holding else None
        if slot is None or slot.entry is None or fetch.grant is None or slot.entry.key != fetch.key:
            return
        grant = slot.entry.narrow(fetch.grant)
        if not grant.logins:
            slot.error = provider.InvalidSpec("SourceInvalid", "there is no login in it for this server")
            return
        slot.error = None
        if slot.entry.proof:
            known_good = (
                slot.accepted is not None
                and slot.accepted.proof == slot.entry.proof
                and dict(slot.accepted.grant.logins) == dict(grant.logins)
            )
            forced = holding is not None and fetch.key in holding.refreshing
            if not known_good or forced or (slot.verdict is not None and slot.verdict.outcome.accepts is not True):
                slot.verdict = await self._verify(slot.entry, next(iter(grant.logins.values())))
            if slot.verdict is not None and slot.verdict.outcome.accepts is not True and not self._yields(slot):
                slot.attempt += 1
                pause = schedule.retry_after(
                    f"{uid}/{server}", slot.attempt, denied=slot.verdict.outcome.accepts is False
                )
                self._bring_forward(fetch, pause)
                return
        else:
            slot.verdict = None
        slot.attempt = 0
        slot.accepted = _accepted(slot, fetch, grant)

    def _yields(self, slot: _Slot) -> bool:
        """Whether a login that could not be proven is published all the same: nothing better is there."""
        assert slot.verdict is not None  # noqa: S101 - the caller has one
        if slot.verdict.outcome.accepts is False:
            return False
        if slot.accepted is None:
            return True
        ends = slot.accepted.grant.expires_at
        if ends is not None:
            return (ends - self._clock.now()).total_seconds() < 2 * schedule.RETRY_CEILING
        return slot.attempt >= 3

    def _bring_forward(self, fetch: _Fetch, pause: float) -> None:
        mono = self._clock.monotonic() + pause
        if fetch.due_mono is None or mono < fetch.due_mono:
            fetch.due_mono = mono
            fetch.due_at = self._clock.now() + datetime.timedelta(seconds=pause)

    # Bookkeeping.

    def _attach(self, uid: str, slot: _Slot, entry: asks.Entry) -> None:
        """Tie an entry to the fetch of its key, starting from its last good grant where the key is the same."""
        slot.entry = entry
        slot.error = entry.error
        if entry.error is not None:
            return
        fetch = self._fetches.get(entry.key)
        accepted = slot.accepted if slot.accepted is not None and slot.accepted.key == entry.key else None
        if fetch is None:
            fetch = self._fetches[entry.key] = _Fetch(entry.key, entry)
            if accepted is not None:
                fetch.grant, fetch.sources = accepted.grant, accepted.sources
                self._plan_renewal(fetch, accepted.grant)
        newcomer = (uid, entry.server) not in fetch.users
        fetch.users.add((uid, entry.server))
        fetch.entry = entry
        stale = any(
            source in self._source_versions and self._source_versions[source] != fetch.sources.get(source.name)
            for source in entry.sources
        )
        proven = accepted is not None and accepted.proof == entry.proof
        covered = accepted is not None and entry.covered(accepted.grant)
        untried = fetch.grant is None and fetch.error is None
        if untried or stale or ((newcomer or accepted is not None) and not (proven and covered)):
            self._hurry(fetch)

    def _hurry(self, fetch: _Fetch) -> None:
        """Fetch now, or again right after the fetch that is under way."""
        if fetch.task is not None:
            fetch.again = True
            return
        fetch.due_mono = self._clock.monotonic()
        self._wake.set()

    def _used_by(self, uid: str) -> list[_Fetch]:
        return [fetch for fetch in self._fetches.values() if any(user == uid for user, _ in fetch.users)]

    def _release(self, uid: str, *, keep: bool = False) -> None:
        for fetch in self._used_by(uid):
            fetch.users = {user for user in fetch.users if user[0] != uid}
        if not keep:
            self._sweep()

    def _sweep(self) -> None:
        """Drop the fetches that nobody uses any more."""
        for key in [key for key, fetch in self._fetches.items() if not fetch.users]:
            fetch = self._fetches.pop(key)
            if fetch.task is not None:
                fetch.task.cancel()

    def _row(self, slot: _Slot, now: datetime.datetime) -> Row:
        fetch = self._fetches.get(slot.entry.key) if slot.entry is not None and slot.error is None else None
        accepted = slot.accepted
        error = slot.error or (fetch.error if fetch is not None else None)
        ended = accepted is not None and accepted.grant.expires_at is not None and accepted.grant.expires_at <= now
        base = Row(
            server=slot.server,
            servers=tuple(accepted.grant.logins) if accepted else (),
            provider=slot.entry.provider_name
            if slot.entry is not None
            else (accepted.provider_name if accepted else ""),
            identity=accepted.grant.identity if accepted else "",
            issued_at=accepted.grant.issued_at if accepted else None,
            expires_at=accepted.grant.expires_at if accepted else None,
            next_at=fetch.due_at if fetch is not None else None,
            usable=accepted is not None and not ended,
            verified=slot.verdict.outcome.accepts if slot.verdict is not None else None,
            wants_proof=slot.entry is not None and bool(slot.entry.proof),
        )
        if accepted is not None and slot.verdict is None and base.wants_proof and accepted.proof:
            base = dataclasses.replace(base, verified=True)
        if error is not None:
            field = f"{error.field}: " if error.field else ""
            return dataclasses.replace(
                base, reason=error.reason, message=field + error.message, stalled=error.stalled
            )
        if slot.verdict is not None and slot.verdict.outcome.accepts is not True:
            refused = slot.verdict.outcome.accepts is False
            return dataclasses.replace(
                base,
                reason=slot.verdict.outcome.reason if refused else "Unverified",
                message=slot.verdict.message,
                stalled=refused,
                settled=not refused and accepted is not None,
            )
        if ended:
            return dataclasses.replace(base, reason="Expired", message="the login has ended and was not renewed")
        if accepted is None:
            return dataclasses.replace(
                base, reason="Progressing", message="the login is being fetched", pending=True
            )
        return dataclasses.replace(base, reason="Issued", message="; ".join(accepted.grant.notes), settled=True)


def _accepted(slot: _Slot, fetch: _Fetch, grant: provider.Grant) -> Accepted:
    """Return the grant as the entry's last good one; a login that is the same keeps its version."""
    assert slot.entry is not None  # noqa: S101 - only entries that fetch get here
    before = slot.accepted
    versions = {
        server: before.versions[server]
        if before is not None and before.grant.logins.get(server) == login
        else secrets.token_hex(8)
        for server, login in grant.logins.items()
    }
    return Accepted(
        provider_name=slot.entry.provider_name,
        key=fetch.key,
        grant=grant,
        versions=versions,
        sources=dict(fetch.sources),
        proof=slot.entry.proof if slot.verdict is not None and slot.verdict.outcome.accepts else "",
    )
