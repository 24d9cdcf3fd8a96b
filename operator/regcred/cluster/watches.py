"""Which collections are watched: namespaces and accounts always, Secrets by name as they are needed.

Our Secrets are watched by name and by metadata only, one watch a distinct name over all namespaces, which RBAC with
`resourceNames` allows; no login is ever downloaded.  Sources are watched the same way, so that a changed password
reaches all targets in seconds; where tenants have very many of them, the rest is asked for now and then.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

from regcred.cluster import client as api
from regcred.cluster import errors, mirror, polling, reflector

_log = logging.getLogger(__name__)

#: Sources of tenants that are watched; each costs a connection, and half a megabyte.
WATCHED = 100
OnSource = polling.OnSource


class Sources:
    """Resource versions of source Secrets; the store of their reflectors.

    What somebody reads and is not there is told too: a source may have been deleted while we did not run.

    Args:
        namespace: where.
        on_change: told about each change.
        expected: names that somebody reads.
    """

    def __init__(self, namespace: str, on_change: OnSource, expected: Iterable[str] = ()) -> None:
        self._namespace = namespace
        self._on_change = on_change
        self._versions: dict[str, str] = {}
        self._expected = frozenset(expected)
        self._listed = False

    def expect(self, names: Iterable[str]) -> None:
        """Take in the names that somebody reads."""
        before, self._expected = self._expected, frozenset(names)
        self._miss(self._expected - before)

    def upsert(self, body: dict[str, Any]) -> bool:
        """Take in a Secret's metadata as it is now, and return whether that is news."""
        meta = body["metadata"]
        name, version = meta["name"], meta["resourceVersion"]
        if self._versions.get(name) == version:
            return False
        self._versions[name] = version
        self._on_change(self._namespace, name, version)
        return True

    def remove(self, body: dict[str, Any]) -> None:
        """Take in that a Secret is gone."""
        self._drop(body["metadata"]["name"])

    def replace(self, seen: Iterable[tuple[str, str]], version: str) -> bool:  # noqa: ARG002 - the protocol's
        """Take in that only `seen` is there, and return whether there were others."""
        known = {name for _, name in seen}
        others = [name for name in self._versions if name not in known]
        for name in others:
            self._drop(name)
        if not self._listed:
            self._listed = True
            self._miss(self._expected)
        return bool(others)

    def _miss(self, names: Iterable[str]) -> None:
        for name in names if self._listed else ():
            if name not in self._versions:
                self._on_change(self._namespace, name, None)

    def _drop(self, name: str) -> None:
        if self._versions.pop(name, None) is not None:
            self._on_change(self._namespace, name, None)


class Watches:
    """Every reflector of the operator.

    Args:
        client: the API client.
        seen: what they fill.
        namespace: the operator's own; its Secrets are watched as a whole.
        on_source: told about changed sources.
        on_state: told when a watch of Secrets of our names is listed, or refused.
        on_restart: told what kind of collection is listed anew, and why.
        silence: seconds without an event after which a watch counts as dead.
    """

    def __init__(
        self,
        client: api.Client,
        seen: mirror.Mirror,
        namespace: str,
        *,
        on_source: OnSource,
        on_state: Callable[[], None],
        on_restart: Callable[[str, str], None] = lambda _kind, _reason: None,
        silence: float = reflector.SILENCE,
    ) -> None:
        self._client = client
        self._seen = seen
        self._namespace = namespace
        self._on_source = on_source
        self._on_state = on_state
        self._on_restart = on_restart
        self._silence = silence
        self._reflectors: dict[tuple[str, ...], reflector.Reflector] = {}
        self._tasks: dict[tuple[str, ...], asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._own = Sources(namespace, on_source)
        self._poller = polling.Poller(client, on_source)
        self._moved = asyncio.Event()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __iter__(self) -> Iterator[reflector.Reflector]:
        return iter(list(self._reflectors.values()))

    async def start(self, secret_names: frozenset[str]) -> None:
        """Begin with what is always watched, and return when the first listing of all of it is in.

        A name of Secrets that RBAC refuses is not waited for.

        Raises:
            Exception: a watch has ended, which none ever should.
        """
        self._begin(
            ("namespaces",),
            reflector.Collection("namespaces", "/api/v1/namespaces", metadata=True),
            self._seen.namespaces,
        )
        self._begin(
            ("serviceaccounts",),
            reflector.Collection("serviceaccounts", "/api/v1/serviceaccounts"),
            self._seen.accounts,
        )
        self._begin(
            ("sources", self._namespace),
            reflector.Collection("sources", f"/api/v1/namespaces/{self._namespace}/secrets", metadata=True),
            self._own,
        )
        self._need_secrets(secret_names)
        self._run(("poller",), self._poller.run(), "poller of sources")
        while not self.failed.done() and any(self._awaited(key) for key in self._reflectors):
            self._moved.clear()
            moved = asyncio.ensure_future(self._moved.wait())
            first: set[asyncio.Future[Any]] = {moved, self.failed}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            moved.cancel()
        if self.failed.done():
            self.failed.result()

    def _awaited(self, key: tuple[str, ...]) -> bool:
        """Whether the first listing waits for a collection; a tenant may not have allowed his sources yet."""
        refused = key[0] == "secrets" and self.refused(key[1])
        return key[0] != "source" and not refused and not self._reflectors[key].synced.is_set()

    def need(self, secret_names: frozenset[str], sources: Iterable[tuple[str, str]]) -> None:
        """Watch the Secrets of these names everywhere and these single Secrets as sources, and nothing else."""
        self._need_secrets(secret_names)
        wanted: set[tuple[str, ...]] = {("secrets", name) for name in secret_names}
        listed = set(sources)
        # The operator's own namespace is watched as a whole.
        own = {name for namespace, name in listed if namespace == self._namespace}
        self._own.expect(own)
        tenants = {source for source in listed if source[0] != self._namespace}
        watched = {source for source in tenants if ("source", *source) in self._reflectors}
        watched |= set(sorted(tenants - watched)[: max(WATCHED - len(watched), 0)])
        self._poller.need(tenants - watched)
        for namespace, name in watched:
            key: tuple[str, ...] = ("source", namespace, name)
            wanted.add(key)
            if key not in self._reflectors:
                self._begin(
                    key,
                    _named(f"source {namespace}/{name}", f"/api/v1/namespaces/{namespace}/secrets", name),
                    Sources(namespace, self._on_source, (name,)),
                )
        for other in [key for key in self._reflectors if key[0] in ("secrets", "source") and key not in wanted]:
            task = self._tasks.pop(other)
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            del self._reflectors[other]

    def _need_secrets(self, secret_names: frozenset[str]) -> None:
        for name in secret_names:
            if ("secrets", name) not in self._reflectors:
                self._begin(
                    ("secrets", name),
                    # Whatever else is in the cluster: Secrets of others are many and large.
                    dataclasses.replace(_named(f"secrets {name}", "/api/v1/secrets", name), cached=True),
                    mirror.Named(self._seen.secrets, name),
                )

    def synced(self, secret_name: str) -> bool:
        """Whether the Secrets of that name have been listed."""
        watched = self._reflectors.get(("secrets", secret_name))
        return watched is not None and watched.synced.is_set()

    def refused(self, secret_name: str) -> bool:
        """Whether the operator may not list the Secrets of that name."""
        watched = self._reflectors.get(("secrets", secret_name))
        return watched is not None and isinstance(watched.error, errors.Forbidden)

    def stalest(self) -> float:
        """Return the seconds since the quietest watch was last heard of; one that is refused is no watch."""
        now = time.monotonic()
        allowed = (w for w in self._reflectors.values() if not isinstance(w.error, errors.Forbidden))
        return max((now - watched.heard_at for watched in allowed), default=0.0)

    async def stop(self) -> None:
        """End every watch."""
        tasks = [*self._tasks.values(), *self._ending]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, key: tuple[str, ...], collection: reflector.Collection, store: reflector.Store) -> None:
        def moved(_: reflector.Reflector) -> None:
            self._moved.set()
            if key[0] == "secrets" and key in self._reflectors:
                self._on_state()

        watched = reflector.Reflector(
            self._client,
            collection,
            store,
            on_state=moved,
            on_restart=lambda reason: self._on_restart(key[0], reason),
            silence=self._silence,
        )
        self._reflectors[key] = watched
        self._run(key, watched.run(), f"reflector {collection.title}")

    def _run(self, key: tuple[str, ...], work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks[key] = task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A reflector never ends by itself: if one does, the process must not go on half blind."""
        if not task.cancelled() and not self.failed.done():
            error = task.exception() or RuntimeError(f"{task.get_name()} ended")
            _log.error("The %s ended: %s", task.get_name(), type(error).__name__, exc_info=error)
            self.failed.set_exception(error)


def _named(title: str, path: str, name: str) -> reflector.Collection:
    return reflector.Collection(title, path, {"fieldSelector": f"metadata.name={name}"}, metadata=True)
