"""Puts the parts together and runs them in one event loop: clients, Lease, watches, kopf, engine, metrics.

Any part that ends by itself ends the process: a new one starts from what is observed, and nothing that matters lives
only in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from regcred import comparison, dockerconfig, engine, gauges, handlers, settings, statuses, telemetry
from regcred.api import names
from regcred.cluster import client as api
from regcred.cluster import errors, events, heartbeat, lease, mirror, watches
from regcred.credentials import asks, cache, federation, keeper, plugins, provider, verification
from regcred.distribution import writer
from regcred.eviction import evictor

_log = logging.getLogger(__name__)

_LEASE = "regcred"
#: Seconds before kopf is started again where it has ended by itself: the first time, and at the most.
_AGAIN = 1.0
_AGAIN_CEILING = 60.0
#: Seconds after the start in which the first list of Secrets may have missed some that an earlier replica wrote: it
#: comes from a cache, which may lag, though not for long where writes go through.
_LAG = 60.0


class Stopped(Exception):
    """A part of the operator ended that never should."""


class Operator:
    """One replica of the operator.

    Args:
        chosen: the settings.
        providers: the providers, in place of the installed ones.
        on_lost: called the moment the Lease is lost, before anything is unwound.
    """

    def __init__(
        self,
        chosen: settings.Settings,
        *,
        providers: plugins.Providers | None = None,
        on_lost: Callable[[lease.LeaseLost], None] | None = None,
    ) -> None:
        self._settings = chosen
        self._on_lost = on_lost or (lambda _: None)
        self._providers = providers or plugins.Providers()
        self._leading = False
        self._engine: engine.Engine | None = None
        self._watches: watches.Watches | None = None
        self._parts: dict[str, heartbeat.Heartbeat] = {}
        #: The port of probes and metrics, once it listens.
        self.port = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set.

        Raises:
            lease.LeaseLost: another replica may work now; the caller must end the process at once.
            Stopped: a part ended by itself.
        """
        chosen = self._settings
        access = await asyncio.to_thread(api.login, chosen.kubeconfig, chosen.context)
        async with contextlib.AsyncExitStack() as stack:
            client = api.Client(access, connections=chosen.concurrency, observe=gauges.request)
            stack.push_async_callback(client.close)
            server = telemetry.Server(self._alive, self._ready, self._collect)
            self.port = await server.start(chosen.listen, chosen.port)
            stack.push_async_callback(server.stop)
            elected = lease.Lease(
                client,
                chosen.namespace,
                _LEASE,
                chosen.identity,
                duration=chosen.lease_duration,
                deadline=chosen.lease_deadline,
            )
            if chosen.leader_election and not await _unless(stop, elected.acquire()):
                return
            self._leading = True
            telemetry.LEADER.set(1)
            guard = elected.check if chosen.leader_election else _no_guard
            client.fence = guard
            try:
                if chosen.leader_election:
                    keeping = asyncio.create_task(elected.keep(), name="lease")
                    stack.callback(keeping.cancel)
                    work = asyncio.create_task(self._work(client, access, stop, guard), name="work")
                    stack.callback(work.cancel)
                    await asyncio.wait({keeping, work}, return_when=asyncio.FIRST_COMPLETED)
                    if keeping.done():
                        keeping.result()
                    await work
                else:
                    await self._work(client, access, stop, guard)
            except lease.LeaseLost as lost:
                self._on_lost(lost)
                raise
            except BaseExceptionGroup as group:
                if group.subgroup(lease.LeaseLost) is None:
                    raise
                found = lease.LeaseLost("the Lease was lost")
                self._on_lost(found)
                raise found from None
            else:
                await elected.release()
            finally:
                self._leading = False
                telemetry.LEADER.set(0)

    async def _work(
        self, client: api.Client, access: api.Login, stop: asyncio.Event, guard: Callable[[], None]
    ) -> None:
        """Do what a leader does, until `stop` is set."""
        chosen = self._settings
        async with contextlib.AsyncExitStack() as stack:
            recorder = events.Recorder(client, chosen.identity)
            seen = mirror.Mirror(lambda namespace, urgent: built.touch(namespace, urgent))
            logins = keeper.Keeper(
                asks.Entries(
                    self._providers,
                    asks.Policy(chosen.namespace, chosen.cluster_ambient_credentials, chosen.ambient_credentials),
                    lambda namespace, block: federation.NamespaceReader(
                        client,
                        namespace,
                        operator_account=f"{chosen.namespace}/{chosen.service_account}",
                        block=block,
                    ),
                ),
                cache.Cache(client, chosen.namespace),
                _prove,
                lambda uids: built.published(uids),
                observe=gauges.fetched,
            )
            watched = watches.Watches(
                client,
                seen,
                chosen.namespace,
                on_source=lambda namespace, name, version: logins.source_changed(
                    provider.SourceRef(namespace, name), version
                ),
                on_state=lambda: built.watches_changed(),
                on_restart=lambda kind, reason: telemetry.WATCH_RESTARTS.labels(kind, reason).inc(),
                silence=chosen.watch_silence,
            )
            stack.push_async_callback(watched.stop)
            sure_at = time.monotonic() + _LAG
            built = engine.Engine(
                seen,
                logins,
                writer.Writer(client, seen, lambda name: name in logins.inherited and time.monotonic() < sure_at),
                watched,
                protected=(chosen.namespace, *chosen.protected_namespaces),
                workers=chosen.concurrency,
            )
            reports = statuses.StatusWriter(client, recorder, built.facts)
            stack.push_async_callback(recorder.drain)
            began = time.monotonic()
            if not await _unless(stop, self._begin(client, logins, watched, built)):
                return
            _log.info(
                "Listed %d namespaces, %d service accounts and %d resources in %.1f s",
                len(seen.namespaces),
                len(seen.accounts),
                len(built.resources),
                time.monotonic() - began,
            )
            built.reports = reports
            comparing = heartbeat.Heartbeat()
            evicting = evictor.Evictor(
                client,
                seen,
                lambda: built.resources.values(),
                recorder,
                protected=(chosen.namespace, *chosen.protected_namespaces),
            )
            self._engine, self._watches = built, watched
            self._parts = {
                "keeper": logins.heartbeat,
                "engine": built.heartbeat,
                "statuses": reports.heartbeat,
                "comparison": comparing,
            }
            kopf_stop = asyncio.Event()
            parts = [
                _part("keeper", logins.run()),
                _part("engine", built.run(guard)),
                _part("statuses", reports.run(guard)),
                _part("comparison", comparison.run(client, built, comparing, chosen.watch_silence)),
                _part("evictor", evicting.run(guard)),
                _part("kopf", self._kopf(built, access, kopf_stop, stop)),
            ]
            stopping = asyncio.create_task(stop.wait(), name="stop")
            try:
                ends: set[asyncio.Future[Any]] = {*parts, stopping, watched.failed}
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if not stop.is_set():
                    ended = next((part for part in parts if part.done()), None)
                    if ended is not None:
                        ended.result()
                    raise Stopped(f"{ended.get_name() if ended else 'a watch'} ended")
                _log.info("Stopping")
            finally:
                stopping.cancel()
                kopf_stop.set()
                watched.failed.cancel()
                for part in parts:
                    if part.get_name() != "kopf":
                        part.cancel()
                await asyncio.wait(parts, timeout=8)
                for part in parts:
                    part.cancel()

    async def _begin(
        self, client: api.Client, logins: keeper.Keeper, watched: watches.Watches, built: engine.Engine
    ) -> None:
        """Get the first full listing of everything: before it nothing is decided."""
        await _patiently("the cache", logins.load)
        for plural in names.KINDS:
            found = await _patiently(plural, lambda plural=plural: comparison.listed(client, plural))  # type: ignore[misc]
            for parsed in found:
                built.upsert(parsed)
        await watched.start(logins.secret_names() | {names.DEFAULT_SECRET_NAME})

    async def _kopf(
        self, built: engine.Engine, access: api.Login, kopf_stop: asyncio.Event, stop: asyncio.Event
    ) -> None:
        """Run kopf, and start it again where it ends by itself: it does at some answers that make no sense to it."""
        pause = _AGAIN
        while not kopf_stop.is_set():
            began = time.monotonic()
            ready = asyncio.Event()
            own = asyncio.create_task(_own_signals(ready, stop), name="signals")
            try:
                chosen = handlers.settings(self._settings.watch_silence)
                await handlers.serve(handlers.registry(built, access), chosen, kopf_stop, ready)
            except Exception as error:  # noqa: BLE001 - whatever it is, a new start lists everything anew
                _log.warning("kopf ended (%s); starting it again", type(error).__name__)
            else:
                # In good order only by our flag, or by a signal that came before we had taken it back.
                stop.set()
                return
            finally:
                own.cancel()
            for plural in names.KINDS:
                telemetry.WATCH_RESTARTS.labels(plural, "error").inc()
            pause = _AGAIN if time.monotonic() - began > _AGAIN_CEILING else min(pause * 2, _AGAIN_CEILING)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await kopf_stop.wait()

    # Probes and gauges.

    def _alive(self) -> str:
        """Say which part is stuck.

        How slow the API server or a provider is does not matter here: to start again would make it worse.  An event
        loop that does not turn answers no probe at all.
        """
        watched = {f"watch of {each.collection.title}": each.heartbeat for each in self._watches or ()}
        for name, part in {**self._parts, **watched}.items():
            found = part.stuck()
            if found is not None:
                what, still = found
                return f"the {name} has not moved for {still:.0f} s{f' ({what})' if what else ''}"
        return ""

    def _ready(self) -> str:
        """Say what the first pass waits for; a replica that stands by is ready to take over."""
        if not self._leading:
            return ""
        if self._engine is None:
            return "the first listing is under way"
        return "" if self._engine.passed else "the first pass is under way"

    def _collect(self) -> None:
        if self._engine is None or self._watches is None:
            return
        gauges.collect(self._engine, self._watches.stalest())


def _no_guard() -> None:
    """Let every write pass: there is only this one replica."""


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Await `work` unless `stop` comes first; return whether it was finished."""
    task = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return True
        return False
    finally:
        task.cancel()
        stopping.cancel()
        await asyncio.gather(task, stopping, return_exceptions=True)


def _part(name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(work, name=name)


async def _own_signals(ready: asyncio.Event, stop: asyncio.Event) -> None:
    """Take SIGTERM and SIGINT back from kopf once it has taken them: we stop in our own order."""
    await ready.wait()
    install_signals(stop)


def install_signals(stop: asyncio.Event) -> None:
    """Set `stop` on SIGTERM and SIGINT, where this is the main thread."""
    import signal  # noqa: PLC0415 - only the process's own program gets here

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(RuntimeError, ValueError, NotImplementedError):
            loop.add_signal_handler(number, stop.set)


async def _patiently(what: str, action: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Await `action` again and again until the API server plays along: CRDs may be installed later."""
    told = ""
    while True:
        try:
            return await action()
        except errors.ApiError as error:
            if str(error) != told:
                told = str(error)
                hint = "; are the CRDs installed?" if isinstance(error, errors.NotFound) else ""
                _log.warning("Could not list %s: %s%s; trying again", what, error, hint)
            await asyncio.sleep(error.retry_after or 2.0)


async def _prove(entry: asks.Entry, login: dockerconfig.Login) -> verification.Verdict:
    """Prove a login by the registry's own handshake, as its entry asks for it."""
    assert entry.spec is not None  # noqa: S101 - only a declared entry asks for proof
    assert entry.spec.verify is not None  # noqa: S101
    asked = entry.spec.verify
    # A session of its own each time: proofs are rare, and no connection is shared between tenants.
    verdict = await verification.verify(
        None,
        entry.servers[0],
        asked.repository,
        asked.reference,
        login,
        ca_bundle=entry.spec.tls.ca_bundle if entry.spec.tls else "",
        timeout=float(asked.timeout_seconds),
        tenant=entry.ask is not None and entry.ask.tenant,
    )
    telemetry.VERIFICATIONS.labels(verdict.outcome.reason).inc()
    return verdict
