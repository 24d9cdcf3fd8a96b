"""The loop: dirty namespace -> plan -> write -> status.

Level-triggered: whatever happens only marks namespaces as dirty, and what is done about one follows from what is
observed then.  Each namespace fails, waits and recovers on its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from regcred import demand, reporting, telemetry
from regcred.api import names
from regcred.api import resource as api_resource
from regcred.cluster import heartbeat, lease, mirror, views
from regcred.credentials import keeper, provider
from regcred.distribution import (
    contention,
    endings,
    gather,
    model,
    pace,
    plan,
    selection,
    tally,
    workqueue,
    writer,
)

_log = logging.getLogger(__name__)

#: Seconds that a removed resource is remembered: longer than what tells of it late can take.
_MEMORY = 600.0
#: How often a namespace is planned again at once when something changed under a write.
_TRIES = 5
#: Seconds until the deletion of records that failed is tried again.
_TIDY_AGAIN = 30.0


class Watches(Protocol):
    """Which collections are watched; the engine says what it needs."""

    def need(self, secret_names: frozenset[str], sources: Iterable[tuple[str, str]]) -> None:
        """Watch the Secrets of these names everywhere, and these single Secrets as sources."""

    def synced(self, secret_name: str) -> bool:
        """Whether the Secrets of that name have been listed."""

    def refused(self, secret_name: str) -> bool:
        """Whether the operator may not list the Secrets of that name."""


class Reports(Protocol):
    """Where statuses go."""

    def changed(self, uid: str) -> None:
        """Ask for the status of a resource to be looked at again."""

    def removed(self, uid: str) -> None:
        """Forget a resource."""


class Engine:
    """Keeps every namespace as the resources want it.

    Args:
        seen: what is observed.
        logins: every login.
        hand: carries out plans.
        watches: what is watched.
        protected: globs of namespaces that no cluster resource serves, the operator's own among them.
        workers: namespaces in work at once.
    """

    def __init__(
        self,
        seen: mirror.Mirror,
        logins: keeper.Keeper,
        hand: writer.Writer,
        watches: Watches,
        *,
        protected: tuple[str, ...],
        workers: int = 32,
    ) -> None:
        self.queue = workqueue.WorkQueue(pace.Pace(workers))
        self.reports: Reports | None = None
        self._seen = seen
        self._logins = logins
        self._hand = hand
        self._watches = watches
        self._workers = workers
        self._demand = demand.Demand(logins, protected)
        # A Secret is written once for many resources that get their first logins together.
        self._gather = gather.Gather(self._touch, lambda: logins.expecting(self._demand.platform))
        self._endings = endings.Endings(lambda uid: self._gather.add(self._served(uid)))
        self._tallies: dict[str, tally.Tally] = {}
        self._pending: dict[str, set[str]] = {}
        self._contention = contention.Contention()
        self._repairs = contention.Repairs()
        self.heartbeat = heartbeat.Heartbeat()
        self._unseen: set[str] = set()
        #: What was asked of the watches last: names of Secrets, and sources.
        self._needed: tuple[frozenset[str], frozenset[provider.SourceRef]] | None = None
        self._removed: dict[str, float] = {}
        self._running = False
        self._guard: Callable[[], None] = lambda: None

    @property
    def resources(self) -> Mapping[str, api_resource.Resource]:
        """Every resource, by UID."""
        return self._demand.resources

    # What happens.

    def touch(self, namespace: str, urgent: bool) -> None:  # noqa: FBT001 - the mirror's callback
        """Mark a namespace as dirty."""
        if self._running:
            self.queue.add(namespace, workqueue.Priority.URGENT if urgent else self._priority(namespace))

    def _priority(self, namespace: str) -> workqueue.Priority:
        """Return how soon a namespace is looked at: one without any login goes before those that have one."""
        known = self._seen.secrets.within(namespace)
        return workqueue.Priority.NORMAL if known else workqueue.Priority.FIRST

    def _touch(self, namespaces: set[str]) -> None:
        for namespace in namespaces:
            self.touch(namespace, False)

    def lacks(self, uid: str, version: str) -> bool:
        """Whether a resource as of that resource version is news."""
        known = self.resources.get(uid)
        if known is None:
            return uid not in self._removed
        return known.version != version and views.newer(version, known.version)

    def upsert(self, resource: api_resource.Resource) -> bool:
        """Take in a resource as it is now, and return whether that is something to act on."""
        before = self.resources.get(resource.uid)
        if resource.uid in self._removed or (before and not views.newer(resource.version, before.version)):
            return False  # overtaken: a list or an event of an earlier time
        self._demand.put(resource)
        if before is not None and _same(before, resource):
            refresh = before.refresh_requested_at != resource.refresh_requested_at and not resource.deleting
            if refresh:
                # What a refresh brings is published; until then there is nothing new to hand out.
                self._logins.update(resource)
                self._report(resource.uid)
            return refresh
        if resource.deleting:
            self._logins.remove(resource.uid)
            self._endings.forget(resource.uid)
        else:
            self._logins.update(resource)
            self._endings.watch(self._demand.contribute(resource))
        self._need()
        affected = self._affected(resource) | (self._affected(before) if before is not None else set())
        if self._running:
            self._pending[resource.uid] = set(affected)
            self._gather.add(affected)
        self._report(resource.uid)
        return True

    def remove(self, uid: str) -> None:
        """Take in that a resource is gone."""
        resource = self._demand.pop(uid)
        if resource is None:
            return
        _log.info("Deleted %s", resource.key)
        now = time.monotonic()
        self._removed = {gone: at for gone, at in self._removed.items() if now - at < _MEMORY} | {uid: now}
        self._logins.remove(uid)
        self._endings.forget(uid)
        affected = self._affected(resource)
        self._tallies.pop(uid, None)
        self._pending.pop(uid, None)
        if self.reports is not None:
            self.reports.removed(uid)
        self._need()
        self._touch(affected)

    def published(self, uids: frozenset[str]) -> None:
        """Take in that the logins or the rows of resources changed."""
        for uid in uids:
            resource = self.resources.get(uid)
            if resource is None or resource.deleting:
                continue
            before = self._demand.contributions.get(uid)
            after = self._demand.contribute(resource)
            self._endings.watch(after)
            if before is None or before.logins != after.logins:
                self._gather.add(self._served(uid))
            self._report(uid)
        # What has arrived may be what others wait for.
        self._gather.add(set())
        self._need()

    def watches_changed(self) -> None:
        """Take in that a watch has been listed, or was refused."""
        self._touch({namespace.name for namespace in self._seen.namespaces})
        for uid in self.resources:
            self._report(uid)

    # What a resource wants.

    def _need(self) -> None:
        if not self._running:
            return  # thousands of resources are taken in before we begin, and then all is asked for at once
        wanted, sources = self._logins.secret_names() | {names.DEFAULT_SECRET_NAME}, self._logins.sources()
        if (wanted, sources) != self._needed:
            self._needed = (wanted, sources)
            self._watches.need(wanted, [(source.namespace, source.name) for source in sources])

    def _affected(self, resource: api_resource.Resource) -> set[str]:
        """Return the namespaces that a resource is for, or has something in."""
        earlier = self._tallies.get(resource.uid)
        return self._demand.affects(resource, self._seen) | (earlier.namespaces if earlier else set())

    def _served(self, uid: str) -> set[str]:
        """Return the namespaces that a resource is for, as they were looked at or wait for it."""
        known = self._tallies.get(uid)
        return self._pending.get(uid, set()) | (known.namespaces if known else set())

    def _report(self, uid: str) -> None:
        if self.reports is not None:
            self.reports.changed(uid)

    # The loop.

    async def run(self, guard: Callable[[], None]) -> None:
        """Work for ever; every first listing must be in.

        Args:
            guard: raises when this replica may not write any more; called before every plan is carried out.
        """
        self._guard = guard
        self._running = True
        self._need()
        everywhere = {namespace.name for namespace in self._seen.namespaces}
        for uid, resource in self.resources.items():
            self._pending[uid] = self._affected(resource)
        self._unseen = set(everywhere)
        for namespace in sorted(everywhere):
            self.touch(namespace, False)
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._workers):
                    group.create_task(self._work(), name=f"worker {number}")
                group.create_task(self._tidy(), name="tidy")
        finally:
            self._running = False
            self.queue.close()
            self._gather.close()
            self._endings.close()

    async def _work(self) -> None:
        while True:
            namespace = await self.queue.get()
            self.heartbeat.beat(namespace)
            try:
                await self._reconcile(namespace)
            except lease.LeaseLost:
                raise
            except Exception:  # noqa: BLE001 - logged, and tried again
                # A defect that one namespace brings to light must not end the service of the others.
                _log.exception("Failed unexpectedly in namespace %s", namespace)
                telemetry.RECONCILE_PANICS.inc()
                self.queue.retry(namespace)
            finally:
                self.heartbeat.rest(namespace)
                self._unseen.discard(namespace)
                self.queue.done(namespace)

    async def _reconcile(self, namespace: str) -> None:
        """Bring one namespace to what is desired, or see to it that it is tried again."""
        began = time.monotonic()
        result = writer.Result()
        for attempt in range(_TRIES):
            wanted = self._secret_names()
            observed = self._observe(namespace, wanted)
            desired = self._demand.of(namespace, observed.namespace, wanted)
            uid = observed.namespace.uid if observed.namespace is not None else ""
            planned = plan.plan(observed, desired, datetime.datetime.now(datetime.UTC))
            planned = self._repairs.spare(planned, namespace, uid, time.monotonic())
            if planned.idle:
                self._record(namespace, planned, writer.Result())
                self.queue.succeeded(namespace)
                break
            self._guard()
            sent_at = time.monotonic()
            result = await self._hand.execute(planned, lambda: self.heartbeat.beat(namespace))
            self.queue.pace.answered(time.monotonic() - sent_at, planned.actions)
            self._note(planned, uid, result)
            if not result.stale:
                self._record(namespace, planned, result)
                if result.failures:
                    self.queue.retry(namespace, after=result.retry_after)
                else:
                    self.queue.succeeded(namespace)
                    if planned.more:
                        self.queue.add(namespace)
                break
            await asyncio.sleep(random.uniform(0.0, 0.02 * 2**attempt))
        else:
            self._record(namespace, planned, result)
            self.queue.retry(namespace, after=result.retry_after)
        telemetry.RECONCILE_SECONDS.observe(time.monotonic() - began)

    def _observe(self, name: str, wanted: Sequence[str]) -> plan.Observed:
        namespace = self._seen.namespaces.get("", name)
        secrets = self._seen.secrets.within(name)
        departed = {each: self._seen.secrets.departed(name, each) for each in wanted}
        if namespace is not None:
            departed |= {each: view for each, view in self._left(namespace).items() if each not in secrets}
        accounts = tuple(self._seen.accounts.within(name).values())
        now = time.monotonic()
        pairs = [(account.uid, each) for account in accounts for each in wanted]
        return plan.Observed(
            namespace=namespace,
            secrets=dict(secrets),
            departed={each: view for each, view in departed.items() if view is not None},
            accounts=accounts,
            contended=frozenset(pair for pair in pairs if self._contention.contended(*pair, now)),
            taken=frozenset(pair for pair in pairs if self._contention.taken(*pair, now)),
        )

    def _left(self, namespace: views.NamespaceView) -> dict[str, views.SecretView]:
        """Return the Secrets that went unseen: they stood for a resource that is gone since before we began."""
        return {
            name: views.SecretView(namespace.name, name, uid="", version="0", ours=True)
            for name, scopes in self._logins.left().items()
            if any(selection.selects(scope, namespace.name, namespace.labels) for scope in scopes)
        }

    def _secret_names(self) -> list[str]:
        wanted = self._logins.secret_names() | {names.DEFAULT_SECRET_NAME}
        return sorted(name for name in wanted if self._watches.synced(name))

    def _note(self, planned: model.Plan, uid: str, result: writer.Result) -> None:
        """Count what was done, and remember what a rival may undo."""
        telemetry.SECRET_WRITES.inc(result.writes)
        telemetry.SECRET_DELETIONS.inc(result.deleted)
        telemetry.ACCOUNT_PATCHES.labels("attached").inc(len(result.attached))
        telemetry.ACCOUNT_PATCHES.labels("detached").inc(len(result.detached))
        now = time.monotonic()
        for account, added in result.attached:
            for name in added:
                self._contention.added(account.uid, name, now)
                if self._contention.contended(account.uid, name, now):
                    self.queue.later(account.namespace, contention.TRUCE + 1)
        for account, removed in result.detached:
            for name in removed:
                self._contention.removed(account.uid, name, now)
        for write in planned.writes:
            if write.name not in result.failures and self._repairs.wrote(write, uid, now):
                self.queue.later(write.namespace, contention.SECRET_TRUCE + 1)
        for deletion in planned.deletions:
            self._repairs.deleted(deletion.before)

    def _record(self, namespace: str, planned: model.Plan, result: writer.Result) -> None:
        """Take in how the namespace stands now for each resource."""
        for uid in self._demand.near(namespace):
            outcome = planned.outcomes.get(uid)
            failure = result.failures.get(planned.secrets_of.get(uid, ""))
            if outcome is not None and failure is not None and outcome.state is not model.State.CONFLICT:
                reason, message = failure
                outcome = model.Outcome(model.State.FAILED, reason, message, accounts=outcome.accounts)
            if uid not in self._tallies:
                self._tallies[uid] = tally.Tally()
            news = self._tallies[uid].put(namespace, outcome)
            pending = self._pending.get(uid)
            if pending and namespace in pending:
                pending.discard(namespace)
                news = True
            if news:
                self._report(uid)

    async def _tidy(self) -> None:
        """Delete the records of resources of which nothing is left, whenever there is nothing else to do."""
        while True:
            # Where the last try has left some, nothing else may ever happen that would bring us back.
            left = self._logins.gone() - set(self.resources)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TIDY_AGAIN if left else None):
                    await self.queue.changed()
            if self.queue.busy or self.queue.retrying or self._gather:
                continue
            wanted = self._logins.secret_names()
            if not all(self._watches.synced(name) or self._watches.refused(name) for name in wanted):
                continue
            for uid in self._logins.gone() - set(self.resources):
                _log.info("Nothing is left of the resource %s", uid)
                self._guard()
                await self._logins.forget(uid)
            self._need()

    # What is known.

    @property
    def passed(self) -> bool:
        """Whether every namespace that was there at the start has been looked at."""
        return self._running and not self._unseen

    def rows(self, uid: str) -> Sequence[keeper.Row]:
        """Return how each registry entry of a resource stands."""
        return self._logins.rows(uid)

    def facts(self, uid: str) -> reporting.Facts | None:
        """Return what is known of a resource, or None where it is gone."""
        resource = self.resources.get(uid)
        if resource is None:
            return None
        blocked = ""
        if resource.spec is not None and self._watches.refused(resource.spec.secret_name):
            blocked = (
                f"spec.secretName: the operator may not handle Secrets named {resource.spec.secret_name}; add the name "
                f"to resourceNames of the ClusterRole regcred-secrets, or leave secretName at its default"
            )
        return reporting.Facts(
            resource=resource,
            rows=self._logins.rows(uid),
            count=self._tallies.get(uid, tally.Tally()).count(),
            pending=len(self._pending.get(uid, ())),
            refresh_handled=self._logins.refresh_handled(uid),
            blocked=blocked,
        )


def _same(before: api_resource.Resource, after: api_resource.Resource) -> bool:
    """Whether nothing that the engine acts on differs, a wish for fresh logins apart."""
    return (before.generation, before.deleting) == (after.generation, after.deleting)
