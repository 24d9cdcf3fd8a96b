"""One fetch of a credential: what it brought last, when it is due, and how a provider's surprises are contained.

Entries of all resources that ask for the same thing share one.  It is due by the wall clock and by the monotonic
clock, whichever comes first, since either may stand still or jump; and it is never begun sooner than half a minute
after the last try, but for a few times in a row when there is news, such as a changed source.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import logging
import math
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol

from regcred import dockerconfig
from regcred.api.conditions import RegistryReason
from regcred.cluster import views
from regcred.credentials import asks, federation, provider, schedule
from regcred.credentials.cache import Accepted
from regcred.credentials.holdings import Slot

_log = logging.getLogger(__name__)

#: How long one fetch may take, in seconds.
TIMEOUT = 90.0
#: Tries because of news that need not wait for the floor, and the seconds of rest after which there are as many again.
_RUSHES = 4
_REST = 300.0


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


@dataclasses.dataclass(eq=False, slots=True)
class Fetch:
    """One key.

    Attributes:
        key: what makes two entries the same fetch.
        entry: the entry to ask with: the latest of that key.
        slots: the entries that use it, in order.
        grant: the last that was brought.
        whole: `grant` is as the provider gave it, and not narrowed to the servers of one entry.
        sources: name to resource version of the Secrets that the last try read, or was begun with.
        error: of the last try.
        attempt: tries in a row that failed.
        begun: number of the last try that was begun.
        ended: number of the last try that has ended.
        brought: number of the try that brought `grant`.
        tried: monotonic time of the last try.
        patience: monotonic time before which the provider asked us not to come again.
        news: the next try is due because of news.
        rushes: tries of late that did not wait for the floor.
        due_at: UTC.
        due: monotonic.
        task: the try under way, waiting for its place included.
        asking: it has its place.
        again: it is to be followed by another at once.
    """

    key: str
    entry: asks.Entry
    slots: dict[Slot, None] = dataclasses.field(default_factory=dict)
    grant: provider.Grant | None = None
    whole: bool = False
    sources: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    error: provider.ProviderError | None = None
    attempt: int = 0
    begun: int = 0
    ended: int = 0
    brought: int = 0
    tried: float = -math.inf
    patience: float = -math.inf
    news: bool = False
    rushes: int = 0
    due_at: datetime.datetime | None = None
    due: float | None = None
    task: asyncio.Task[None] | None = None
    asking: bool = False
    again: bool = False

    @property
    def tenant(self) -> str:
        """The namespace of the tenant that asks, or ""."""
        ask = self.entry.ask
        return ask.namespace if ask is not None and ask.tenant else ""

    @property
    def renews(self) -> bool:
        """Whether the next try is an ordinary renewal of a login that is well."""
        return self.grant is not None and self.error is None and not self.news

    def living(self, now: datetime.datetime) -> bool:
        """Whether the grant is there and has not ended."""
        return self.grant is not None and (self.grant.expires_at is None or self.grant.expires_at > now)

    # When.

    def pause(self, clock: Clock) -> float | None:
        """Return the seconds until the next try may begin; None where none is planned, or one is under way."""
        if self.task is not None or (self.due is None and self.due_at is None):
            return None
        mono = clock.monotonic()
        pauses = [self.due - mono] if self.due is not None else []
        if self.due_at is not None:
            pauses.append((self.due_at - clock.now()).total_seconds())
        return max(min(pauses), self.ready_at() - mono, 0.0)

    def ready_at(self) -> float:
        """Return the monotonic time before which no try may begin."""
        rush = self.news and self.rushes < _RUSHES
        return max(self.patience, -math.inf if rush else self.tried + schedule.FLOOR)

    def plan(self, clock: Clock, pause: float | None) -> None:
        """Make the next try due in `pause` seconds, or never."""
        self.due_at = self.due = None
        if pause is not None:
            self.due_at = clock.now() + datetime.timedelta(seconds=pause)
            self.due = clock.monotonic() + pause

    def bring_forward(self, clock: Clock, pause: float) -> None:
        """Make the next try due in `pause` seconds at the latest."""
        if self.due is None or clock.monotonic() + pause < self.due:
            self.plan(clock, pause)

    def hurry(self, clock: Clock, *, news: bool) -> None:
        """Make the next try due now, or right after the one that is asking.

        Args:
            clock: the time.
            news: something is different from the last try, so it need not wait for the floor.
        """
        self.news = self.news or news
        if self.asking:
            self.again = True
        elif self.task is None:
            self.due = clock.monotonic()

    def resume(self, clock: Clock, accepted: Accepted) -> None:
        """Take over the last good login of an entry, as an earlier run or a suspension has left it behind."""
        if self.whole or self.task is not None or self.error is not None:
            return
        if self.grant is None:
            self.grant, self.sources = accepted.grant, accepted.sources
        grant = accepted.grant
        pause = schedule.resume_after(self.key, clock.now(), grant.issued_at, grant.expires_at)
        if pause is not None:
            self.bring_forward(clock, pause)

    # What.

    async def ask(self, clock: Clock, reader: federation.NamespaceReader, known: Mapping[str, str | None]) -> None:
        """Ask the provider, and plan what comes next.

        Args:
            clock: the time.
            reader: of the cluster.
            known: name to resource version of its sources as they are known now.
        """
        self.begun += 1
        began = clock.monotonic()
        if began - self.tried >= _REST:
            self.rushes = 0
        elif began - self.tried < schedule.FLOOR:
            self.rushes += 1
        self.tried, self.news = began, False
        grant: provider.Grant | None = None
        failure: provider.ProviderError | None = None
        name = self.entry.provider_name
        _log.debug("Fetching %s", self.key)
        try:
            async with asyncio.timeout(TIMEOUT):
                grant = _checked(await self.entry.fetch(reader))
        except provider.ProviderError as error:
            failure = error
        except TimeoutError:
            failure = provider.Retryable("Unreachable", f"{name} gave no answer in {TIMEOUT:.0f} s; tried again")
        except (Exception, asyncio.CancelledError) as error:  # a provider's surprise must not end its renewal
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                raise
            _log.warning("Provider %s failed unexpectedly: %s", name, type(error).__name__)
            failure = provider.Retryable(
                "ProviderBroken",
                f"{name} failed in an unexpected way ({type(error).__name__}); tried again",
            )
        # The error of the try before stands until now: a row does not look well only because it is tried again.
        self.error = failure
        self.ended = self.begun
        self.sources = {**known, **reader.versions}
        if grant is not None:
            self.grant, self.whole, self.brought, self.attempt = grant, True, self.begun, 0
            taken = clock.monotonic() - began
            pause = schedule.renew_after(self.key, clock.now(), grant.issued_at, grant.expires_at, taken=taken)
            self.plan(clock, pause)
        elif failure is not None:
            self._plan_retry(clock, failure)
        self._tell(clock, clock.monotonic() - began)

    def _tell(self, clock: Clock, seconds: float) -> None:
        """Log what the try that has ended brought, and when the next one is due."""
        due = "none" if self.due is None else f"in {self.due - clock.monotonic():.0f} s"
        if self.error is not None:
            what = f"failed: {self.error.reason} ({type(self.error).__name__}, {self.attempt} in a row)"
        else:
            assert self.grant is not None  # noqa: S101 - a try brings the one or the other
            ends = self.grant.expires_at
            life = f"{(ends - self.grant.issued_at).total_seconds():.0f} s" if ends is not None else "no end"
            what = f"brought logins of {len(self.grant.logins)} servers as {self.grant.identity}, life {life}"
        _log.debug("Fetch %s %s, after %.1f s; next try %s", self.key, what, seconds, due)

    def _plan_retry(self, clock: Clock, error: provider.ProviderError) -> None:
        self.attempt += 1
        ends = self.grant.expires_at if self.grant is not None else None
        after = error.after if isinstance(error, provider.Throttled) else 0.0
        pause = schedule.retry_after(
            self.key,
            self.attempt,
            # A source that is missing or may not be read costs nobody but our API server: asked for sooner.
            denied=error.stalled and error.reason not in (RegistryReason.SOURCE_MISSING, RegistryReason.FORBIDDEN),
            wait=after,
            left=(ends - clock.now()).total_seconds() if ends is not None else None,
        )
        if after > 0:
            self.patience = clock.monotonic() + pause
        self.plan(clock, pause)


def companions(clock: Clock, due: Collection[Fetch], all_: Iterable[Fetch]) -> list[Fetch]:
    """Return the fetches that are renewed early, since a Secret of theirs is about to be written anyway.

    Args:
        clock: the time.
        due: what is fetched now.  Retries and news take nobody along.
        all_: every fetch.
    """
    places = {slot.holding.place for fetch in due if fetch.renews for slot in fetch.slots}
    begun, now, mono = set(due), clock.now(), clock.monotonic()
    return [
        fetch
        for fetch in (all_ if places else ())
        if fetch not in begun
        and fetch.task is None
        and fetch.renews
        and fetch.grant is not None
        and fetch.ready_at() <= mono
        and schedule.may_join(now, fetch.grant.issued_at, fetch.grant.expires_at)
        and any(slot.holding.place in places for slot in fetch.slots)
    ]


class Versions:
    """Resource versions of source Secrets, as their watches tell."""

    def __init__(self) -> None:
        self._known: dict[provider.SourceRef, str | None] = {}

    def put(self, source: provider.SourceRef, version: str | None, *, read: bool) -> None:
        """Take in a version, or that the Secret is gone (None); `read`: somebody reads it."""
        if version is None and not read:
            self._known.pop(source, None)
        else:
            self._known[source] = version

    def known(self, fetch: Fetch) -> dict[str, str | None]:
        """Return what is known of the sources of a fetch, by name."""
        return {source.name: self._known[source] for source in fetch.entry.sources if source in self._known}

    def stale(self, fetch: Fetch) -> bool:
        """Whether a source is known to be of another version than the last try has seen."""
        for name, known in self.known(fetch).items():
            seen = fetch.sources.get(name)
            # A watch may lag behind what was read.
            if known != seen and (known is None or seen is None or views.newer(known, seen)):
                return True
        return False


def _checked(grant: Any) -> provider.Grant:
    """Return what a provider has handed out if it is what the protocol says; plugins are checked here.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(grant, provider.Grant):
        raise TypeError("no Grant")
    for at in (grant.issued_at, grant.expires_at):
        if at is not None and (not isinstance(at, datetime.datetime) or at.utcoffset() is None):
            raise TypeError("a time without its zone")
    if grant.issued_at is None:
        raise TypeError("no time of issue")
    logins = dict(grant.logins)
    for server, login in logins.items():
        if not isinstance(server, str) or not isinstance(login, dockerconfig.Login):
            raise TypeError("no Login")
    return dataclasses.replace(
        grant,
        logins=logins,
        identity=str(grant.identity),
        issued_at=grant.issued_at.astimezone(datetime.UTC),
        expires_at=grant.expires_at.astimezone(datetime.UTC) if grant.expires_at is not None else None,
        notes=tuple(str(note) for note in grant.notes),
    )
