"""Evicts stuck pods, one after the other, by the Eviction API.

Pods are watched only while some resource asks for it, and of them only those that are Pending.  A pod is judged once
more by what the API server says of its account at that moment, and its eviction is bound to the very state that was
judged, so a pod that has begun to run is never evicted.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from regcred import kubelet, telemetry
from regcred.api import resource as api_resource
from regcred.cluster import client as api
from regcred.cluster import errors, events, mirror, reflector
from regcred.distribution import selection
from regcred.eviction import stuck

_log = logging.getLogger(__name__)

#: Seconds between two evictions, between two looks at all that wait, and until one that must wait is looked at again.
_PACE = 1.0
_REST = 0.5
_TICK = 5.0
_PATIENCE = 15.0
_PENDING = "status.phase=Pending"


class Waiting:
    """The pods that wait for an image; the store of a reflector, which forgets all others at once.

    Args:
        on_change: told when there is something to look at.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.pods: dict[tuple[str, str], kubelet.Pod] = {}
        self._on_change = on_change

    def upsert(self, body: dict[str, Any]) -> bool:
        """Take in a Pod as it is now, and return whether that is news."""
        pod = kubelet.pod(body)
        before = self.pods.pop((pod.namespace, pod.name), None)
        if stuck.waits(pod):
            self.pods[pod.namespace, pod.name] = pod
            self._on_change()
        return before != self.pods.get((pod.namespace, pod.name))

    def remove(self, body: dict[str, Any]) -> None:
        """Take in that a pod is gone, or not Pending any more."""
        meta = body["metadata"]
        self.pods.pop((meta["namespace"], meta["name"]), None)

    def replace(self, seen: Iterable[tuple[str, str]], version: str) -> bool:  # noqa: ARG002 - the protocol's
        """Take in that only `seen` is Pending, and return whether there were others."""
        known = set(seen)
        others = [key for key in self.pods if key not in known]
        for key in others:
            del self.pods[key]
        return bool(others)


class Evictor:
    """Evicts pods for the resources that ask for it.

    Args:
        client: the API client.
        seen: what is observed of accounts, Secrets and namespaces.
        resources: the resources as they are now.
        recorder: where events go.
        protected: globs of namespaces that no cluster resource serves.
        pace: seconds between two evictions.
        patience: seconds until a pod that has to wait is looked at again.
        tick: seconds between two looks where nothing has happened.
    """

    def __init__(
        self,
        client: api.Client,
        seen: mirror.Mirror,
        resources: Callable[[], Iterable[api_resource.Resource]],
        recorder: events.Recorder,
        *,
        protected: tuple[str, ...] = (),
        pace: float = _PACE,
        patience: float = _PATIENCE,
        tick: float = _TICK,
    ) -> None:
        self._client = client
        self._seen = seen
        self._resources = resources
        self._recorder = recorder
        self._protected = protected
        self._pace = pace
        self._patience = patience
        self._tick = tick
        self._wake = asyncio.Event()
        self.waiting = Waiting(self._wake.set)
        self._reflector: reflector.Reflector | None = None
        self._watch: asyncio.Task[None] | None = None
        self._evicted: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._told: set[str] = set()
        self._versions: tuple[str, str] | None = None

    async def run(self, guard: Callable[[], None]) -> None:
        """Work until cancelled.

        Args:
            guard: raises when this replica may not write any more.

        Raises:
            Exception: the watch of pods has ended, which it never should.
        """
        try:
            while True:
                self._wake.clear()
                asking = [resource for resource in self._resources() if asks(resource)]
                if asking:
                    await self._pass(asking, guard)
                else:
                    await self._unwatch()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._tick):
                        await self._wake.wait()
                await asyncio.sleep(_REST)
        finally:
            await self._unwatch()

    async def _pass(self, asking: Sequence[api_resource.Resource], guard: Callable[[], None]) -> None:
        """Look at every pod that waits, once."""
        watched = self._watched()
        if isinstance(watched.error, errors.Forbidden):
            self._tell_refusal(asking)
            return
        for found in list(self._find(asking)):
            guard()
            if await self._settle(found):
                await asyncio.sleep(self._pace)
        alive = {pod.uid for pod in self.waiting.pods.values()}
        self._evicted &= alive
        self._told &= alive | {resource.uid for resource in asking}
        self._not_before = {uid: at for uid, at in self._not_before.items() if uid in alive}

    def _watched(self) -> reflector.Reflector:
        """Return the reflector of pods, begun where there is none."""
        if self._watch is not None and self._watch.done():
            self._watch.result()
        if self._reflector is None:
            collection = reflector.Collection("pods", "/api/v1/pods", {"fieldSelector": _PENDING})
            self._reflector = reflector.Reflector(
                self._client, collection, self.waiting, on_state=lambda _: self._wake.set()
            )
            self._watch = asyncio.create_task(self._reflector.run(), name="reflector pods")
        return self._reflector

    async def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        self._reflector = self._watch = None
        self.waiting.pods.clear()

    def _find(self, asking: Iterable[api_resource.Resource]) -> Iterator[stuck.Stuck]:
        """Yield the pods that may be evicted as far as is seen, the oldest first."""
        now, clock = dt.datetime.now(dt.UTC), time.monotonic()
        for pod in sorted(self.waiting.pods.values(), key=lambda pod: (pod.created or now, pod.uid)):
            if pod.uid in self._evicted or self._not_before.get(pod.uid, 0.0) > clock:
                continue
            namespace = self._seen.namespaces.get("", pod.namespace)
            if namespace is None or namespace.terminating:
                continue
            account = self._seen.accounts.get(pod.namespace, pod.account)
            for resource in asking:
                if resource.spec is None or not selection.applies(
                    resource, namespace.name, namespace.labels, self._protected
                ):
                    continue
                secret = self._seen.secrets.get(pod.namespace, resource.spec.secret_name)
                found = stuck.judge(pod, account, secret, resource, now)
                if found is not None:
                    yield found
                    break

    async def _settle(self, found: stuck.Stuck) -> bool:
        """Evict a pod, or put it off; return whether it was evicted."""
        pod = found.pod
        try:
            account = await self._client.get(f"/api/v1/namespaces/{pod.namespace}/serviceaccounts/{pod.account}")
            if not stuck.older(pod, kubelet.list_since(account)):
                self._not_before[pod.uid] = float("inf")
                return False
            if budget := await self._budget(pod):
                self._put_off(found, f"the disruption budget {budget} lets no pod go")
                return False
            await self._evict(pod)
        except errors.NotFound:
            self._put_off(found)
        except errors.Conflict:
            # It is not what was judged any more: its watch says what it is.
            self._put_off(found)
        except errors.ApiError as error:
            blocked = "a disruption budget lets no pod go now" if error.status == 429 else str(error)
            self._put_off(found, blocked, error.retry_after)
        else:
            self._evicted.add(pod.uid)
            telemetry.POD_EVICTIONS.labels("evicted").inc()
            _log.info("Evicted the pod %s/%s, which was created before its entry", pod.namespace, pod.name)
            self._recorder.post(
                _subject(pod),
                events.Event(
                    False,
                    "EvictedStuckPod",
                    f"Created before its service account {pod.account} listed {found.secret}, so it cannot pull "
                    f"{found.image}; its successor can (asked for by {found.resource.key})",
                ),
            )
            return True
        return False

    async def _budget(self, pod: kubelet.Pod) -> str:
        _, version = await self._served()
        path = f"/apis/policy/{version}/namespaces/{pod.namespace}/poddisruptionbudgets"
        budgets: list[Mapping[str, Any]] = []
        async with contextlib.aclosing(self._client.pages(path)) as pages:
            async for items, _ in pages:
                budgets += items
        return stuck.holding_budget(budgets, pod.labels)

    async def _evict(self, pod: kubelet.Pod) -> None:
        version, _ = await self._served()
        await self._client.request(
            "POST",
            f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/eviction",
            body={
                "apiVersion": f"policy/{version}",
                "kind": "Eviction",
                "metadata": {"name": pod.name, "namespace": pod.namespace},
                "deleteOptions": {"preconditions": {"uid": pod.uid, "resourceVersion": pod.version}},
            },
            tries=1,
        )

    async def _served(self) -> tuple[str, str]:
        """Return the versions of the group `policy` that evictions and budgets have on this server: v1beta1 or v1."""
        if self._versions is None:
            core = await self._client.request("GET", "/api/v1")
            eviction = next(row for row in core["resources"] if row["name"] == "pods/eviction")
            group = await self._client.request("GET", "/apis/policy")
            self._versions = (eviction["version"], group["preferredVersion"]["version"])
        return self._versions

    def _put_off(self, found: stuck.Stuck, why: str = "", after: float | None = None) -> None:
        """Look at a pod again later; where there is something to tell, tell it once."""
        pod = found.pod
        self._not_before[pod.uid] = time.monotonic() + max(self._patience, after or 0.0)
        if not why:
            return
        telemetry.POD_EVICTIONS.labels("blocked").inc()
        if pod.uid not in self._told:
            self._told.add(pod.uid)
            _log.info("The pod %s/%s is not evicted yet: %s", pod.namespace, pod.name, why)
            told = f"Cannot pull {found.image} without {found.secret}, and is not evicted yet: {why}"
            self._recorder.post(_subject(pod), events.Event(True, "EvictionBlocked", told))

    def _tell_refusal(self, asking: Iterable[api_resource.Resource]) -> None:
        for resource in asking:
            if resource.uid in self._told:
                continue
            self._told.add(resource.uid)
            subject = events.Subject(resource.kind, resource.namespace, resource.name, resource.uid, "")
            self._recorder.post(subject, events.Event(True, "RestartStuckForbidden", _FORBIDDEN))


_FORBIDDEN = (
    "spec.pods.restartStuck: the operator may not look at pods; install manifests/components/restart-stuck, or set it "
    "to false"
)


def asks(resource: api_resource.Resource) -> bool:
    """Whether a resource wants stuck pods to be evicted."""
    spec = resource.spec
    return spec is not None and spec.pods.restart_stuck and not spec.suspend and not resource.deleting


def _subject(pod: kubelet.Pod) -> events.Subject:
    return events.Subject("Pod", pod.namespace, pod.name, pod.uid, pod.version, api_version="v1")
