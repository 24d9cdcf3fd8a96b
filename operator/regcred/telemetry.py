"""Metrics and probes of one process, on one port, from its first moment on.

A replica that waits for the Lease is alive and ready too, so this is a small server of its own and not kopf's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import prometheus_client
from aiohttp import web

import regcred

_log = logging.getLogger(__name__)

REGISTRY = prometheus_client.CollectorRegistry()

BUILD_INFO = prometheus_client.Info("regcred_build", "Version of the running operator.", registry=REGISTRY)
BUILD_INFO.info({"version": regcred.__version__})
LEADER = prometheus_client.Gauge("regcred_leader", "1 on the replica that works.", registry=REGISTRY)

# What was done.

SECRET_WRITES = prometheus_client.Counter(
    "regcred_secret_writes", "Pull Secrets created or updated.", registry=REGISTRY
)
SECRET_DELETIONS = prometheus_client.Counter(
    "regcred_secret_deletions", "Pull Secrets deleted.", registry=REGISTRY
)
ACCOUNT_PATCHES = prometheus_client.Counter(
    "regcred_serviceaccount_patches", "Service accounts changed.", ["result"], registry=REGISTRY
)
POD_EVICTIONS = prometheus_client.Counter(
    "regcred_pod_evictions",
    "Evictions of pods that were created before their entry: done, or held back by a disruption budget or an error.",
    ["result"],
    registry=REGISTRY,
)
FETCHES = prometheus_client.Counter(
    "regcred_fetches", "Logins asked of providers.", ["provider", "result"], registry=REGISTRY
)
FETCH_SECONDS = prometheus_client.Histogram(
    "regcred_fetch_duration_seconds",
    "Time a provider took to answer.",
    ["provider"],
    registry=REGISTRY,
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 90),
)
VERIFICATIONS = prometheus_client.Counter(
    "regcred_verifications",
    "Logins tried on a registry before they were published.",
    ["result"],
    registry=REGISTRY,
)
REQUESTS = prometheus_client.Counter(
    "regcred_kubernetes_requests",
    "Answers of the API server, watches and kopf's requests apart; code 0 is no answer.",
    ["method", "code"],
    registry=REGISTRY,
)
RECONCILE_SECONDS = prometheus_client.Histogram(
    "regcred_reconcile_duration_seconds",
    "Time to bring one namespace to what is desired.",
    registry=REGISTRY,
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
RECONCILE_PANICS = prometheus_client.Counter(
    "regcred_reconcile_panics", "Namespaces whose reconciliation failed by a defect.", registry=REGISTRY
)

# What is to be done.

QUEUE_DEPTH = prometheus_client.Gauge("regcred_queue_depth", "Namespaces that wait for work.", registry=REGISTRY)
QUEUE_RETRYING = prometheus_client.Gauge(
    "regcred_queue_retrying", "Namespaces that failed and wait to be tried again.", registry=REGISTRY
)
WATCH_AGE = prometheus_client.Gauge(
    "regcred_watch_last_event_age_seconds", "Seconds since the quietest watch was heard of.", registry=REGISTRY
)
WATCH_RESTARTS = prometheus_client.Counter(
    "regcred_watch_restarts",
    "Collections listed anew, because their watch was silent, its version had expired, it failed, or it had missed "
    "something.",
    ["resource", "reason"],
    registry=REGISTRY,
)

# How things stand.

_ENTRY = ["kind", "namespace", "name", "server"]
RESOURCES = prometheus_client.Gauge(
    "regcred_resources",
    "Resources by the state of a condition.",
    ["kind", "condition", "status"],
    registry=REGISTRY,
)
NAMESPACES = prometheus_client.Gauge(
    "regcred_namespaces",
    "Namespaces that a cluster resource selects, by how they stand.",
    ["name", "state"],
    registry=REGISTRY,
)
ACCOUNTS = prometheus_client.Gauge(
    "regcred_serviceaccounts",
    "Service accounts that a cluster resource is for, by how they stand.",
    ["name", "state"],
    registry=REGISTRY,
)
EXPIRY = prometheus_client.Gauge(
    "regcred_credential_expiration_timestamp_seconds",
    "When the login of a registry ends, as Unix time.",
    _ENTRY,
    registry=REGISTRY,
)
RENEWAL = prometheus_client.Gauge(
    "regcred_credential_renewal_timestamp_seconds",
    "When the login of a registry is to be fetched next, as Unix time.",
    _ENTRY,
    registry=REGISTRY,
)
USABLE = prometheus_client.Gauge(
    "regcred_credential_usable", "1 where a registry has a login that has not ended.", _ENTRY, registry=REGISTRY
)
FAILING = prometheus_client.Gauge(
    "regcred_credential_failing",
    "1 where the last try at a registry's login failed, whatever is still in use.",
    _ENTRY,
    registry=REGISTRY,
)
UNLISTED = prometheus_client.Gauge(
    "regcred_credentials_unlisted",
    "Registries left out of the metrics that have one series each.",
    registry=REGISTRY,
)
TASKS = prometheus_client.Gauge("regcred_asyncio_tasks", "Tasks of the event loop.", registry=REGISTRY)
# Memory, file descriptors and processor time, by the names that every dashboard knows.
prometheus_client.ProcessCollector(registry=REGISTRY)

#: Says what is wrong, or "" where nothing is.
Probe = Callable[[], str]


class Server:
    """Serves `/healthz`, `/readyz` and `/metrics`.

    Args:
        alive: what is wrong with the process; the kubelet then restarts it.
        ready: what it still waits for.
        collect: called before metrics are rendered, to set gauges.
    """

    def __init__(self, alive: Probe, ready: Probe, collect: Callable[[], None]) -> None:
        self._collect = collect
        application = web.Application()
        application.router.add_get("/healthz", self._probe(alive))
        application.router.add_get("/readyz", self._probe(ready))
        application.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        bound: int = self._runner.addresses[0][1]
        _log.info("Serving probes and metrics on port %d", bound)
        return bound

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    @staticmethod
    def _probe(probe: Probe) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(_: web.Request) -> web.Response:
            wrong = probe()
            return web.Response(status=503 if wrong else 200, text=wrong or "ok")

        return answer

    async def _metrics(self, _: web.Request) -> web.Response:
        self._collect()
        TASKS.set(len(asyncio.all_tasks()))
        body = prometheus_client.generate_latest(REGISTRY)
        return web.Response(body=body, headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST})
