"""The engine and the keeper at work in virtual time, on a cluster of several namespaces in memory, and their judge.

Everything between the API server's answers and the resources is the real thing: mirror, queue, engine, planner, writer,
keeper, schedule, cache.  Every request is judged as it is made, with rules written down anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from regcred import dockerconfig, engine
from regcred.api import names, resource
from regcred.cluster import errors, mirror
from regcred.credentials import asks, cache, keeper, plugins
from regcred.distribution import writer
from tests.credentials import keeper_support
from tests.credentials.virtual_time import EPOCH, VirtualClock, VirtualLoop
from tests.distribution import simulated_api

Json = dict[str, Any]
HOME = keeper_support.HOME
PROTECTED = (HOME, "kube-*")


def secret_path(namespace: str, name: str = names.DEFAULT_SECRET_NAME) -> str:
    """Return where a Secret is."""
    return f"/api/v1/namespaces/{namespace}/secrets/{name}"


def account_path(namespace: str, name: str = "default") -> str:
    """Return where an account is."""
    return f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}"


class _Watches:
    """Everything is watched."""

    def need(self, secret_names: frozenset[str], sources: Iterable[tuple[str, str]]) -> None:
        """Watch nothing more."""

    def synced(self, _: str) -> bool:
        return True

    def refused(self, _: str) -> bool:
        return False


@dataclasses.dataclass
class Namespace:
    """A namespace as it is."""

    uid: str
    labels: dict[str, str]
    version: int


class Api(simulated_api.SimulatedApi):
    """An API server that knows its namespaces, and when each of its changes was made.

    Args:
        clock: seconds of the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.namespaces: dict[str, Namespace] = {}
        self.times: list[float] = []
        self._clock = clock

    async def request(self, method: str, path: str, **more: Any) -> Any:
        """Answer one request; in a namespace that is not there nothing can be made."""
        if path.split("/")[4] not in self.namespaces:
            self.before_request(method, path)
            raise errors.NotFound(404, "NotFound")
        try:
            return await super().request(method, path, **more)
        finally:
            self.times += [self._clock()] * (len(self.log) - len(self.times))


class Operator:
    """The cluster, the resources, and the operator that serves them; it can be killed and started anew.

    Args:
        loop: of virtual time.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.clock = VirtualClock()
        self.api = Api(self.now)
        self.namespaces = self.api.namespaces
        self.bodies: dict[str, Json] = {}
        self.provider = keeper_support.FakeProvider(self)  # type: ignore[arg-type]
        self.provider.single = False
        #: The operator's own Secrets, with the kept logins.
        self.kept = keeper_support.Secrets()
        self.ends: dict[str, float] = {}
        self.whose: dict[str, str] = {}
        self._judged = 0
        self._at = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        grant = self.provider.grant

        def noted(who: str, password: str) -> Any:
            made = grant(who, password)
            self.ends[password] = made.expires_at.timestamp() if made.expires_at else float("inf")
            self.whose[password] = who
            return made

        self.provider.grant = noted  # type: ignore[method-assign]

    # Time and life.

    def do(self, seconds: float = 0.0) -> None:
        """Let the operator work for so long, and judge what it did."""

        async def pass_() -> None:
            await asyncio.sleep(seconds)

        self.loop.run_until_complete(pass_())
        for task in self._tasks:
            if task.done():
                task.result()
        self.judge()

    def now(self) -> float:
        """Return what time it really is, in seconds of the epoch."""
        return (EPOCH + dt.timedelta(seconds=self.loop.time())).timestamp()

    def start(self) -> None:
        """Start the operator: it knows what it lists, and what it has kept."""
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        self.seen = mirror.Mirror(lambda namespace, urgent: self.engine.touch(namespace, urgent))
        for table in (self.seen.namespaces, self.seen.accounts, self.seen.secrets):
            table._clock = self.loop.time
        entries = asks.Entries(
            plugins.Providers({"fake": lambda: self.provider}),  # type: ignore[dict-item,return-value]
            asks.Policy(HOME),
            lambda _, __: types.SimpleNamespace(versions={}),  # type: ignore[arg-type,return-value]
        )
        self.logins = keeper.Keeper(
            entries,
            cache.Cache(self.kept, HOME),  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            lambda uids: self.engine.published(uids),
            clock=self.clock,
        )
        self.engine = engine.Engine(
            self.seen,
            self.logins,
            writer.Writer(self.api, self.seen),  # type: ignore[arg-type]
            _Watches(),
            protected=PROTECTED,
            workers=3,
        )
        await self.logins.load()
        for body in self.bodies.values():
            self.engine.upsert(resource.parse(body))
        self._watch()
        self._tasks = [
            asyncio.create_task(self.logins.run(), name="keeper"),
            asyncio.create_task(self.engine.run(lambda: None), name="engine"),
        ]
        await asyncio.sleep(0)

    def kill(self) -> None:
        """End the operator; whatever it was about to do is not done."""
        tasks, self._tasks = self._tasks, []

        async def end() -> None:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    await task

        # Whoever is dying reaches nobody any more.
        reach, self.api.before_request = self.api.before_request, _unreachable
        fault, self.kept.fault = self.kept.fault, _Dead()
        self.loop.run_until_complete(end())
        self.api.before_request, self.kept.fault = reach, fault

    def inside(self, act: Callable[[], object]) -> None:
        """Do something within the loop, where the operator would hear of it."""

        async def once() -> None:
            act()

        self.loop.run_until_complete(once())

    def watch(self) -> None:
        """Let the watches deliver everything that has happened."""
        self.inside(self._watch)

    def _watch(self) -> None:
        version = str(self.api.revision)
        for name, each in self.namespaces.items():
            self.seen.namespaces.upsert(
                {
                    "metadata": {
                        "name": name,
                        "uid": each.uid,
                        "resourceVersion": str(each.version),
                        "labels": dict(each.labels),
                    }
                }
            )
        self.seen.namespaces.replace([("", name) for name in self.namespaces], version)
        for table, kind in ((self.seen.secrets, "secrets"), (self.seen.accounts, "serviceaccounts")):
            found = {path: stored for path, stored in self.api.objects.items() if f"/{kind}/" in path}
            for stored in found.values():
                table.upsert(stored.rendered())  # type: ignore[attr-defined]
            table.replace([(path.split("/")[4], path.split("/")[6]) for path in found], version)  # type: ignore[attr-defined]

    # What others do.

    def make_namespace(self, name: str, labels: Mapping[str, str]) -> None:
        """Create a namespace with its default account."""
        self.api.revision += 1
        self.namespaces[name] = Namespace(f"uid-{name}-{self.api.revision}", dict(labels), self.api.revision)
        self.api.create(account_path(name), {"metadata": {}}, "kube-controller-manager")

    def label(self, name: str, labels: Mapping[str, str]) -> None:
        """Give a namespace other labels."""
        self.api.revision += 1
        self.namespaces[name] = dataclasses.replace(
            self.namespaces[name], labels=dict(labels), version=self.api.revision
        )

    def end_namespace(self, name: str) -> None:
        """Delete a namespace and all that is in it."""
        del self.namespaces[name]
        for path in [path for path in self.api.objects if path.split("/")[4] == name]:
            self.api.objects[path].meta.pop("finalizers", None)
            self.api.remove(path)

    def apply(self, body: Json) -> None:
        """Create or change a resource."""
        self.api.revision += 1
        body["metadata"]["resourceVersion"] = str(self.api.revision)
        assert not resource.parse(body).problems
        self.bodies[body["metadata"]["uid"]] = body
        self.inside(lambda: self.engine.upsert(resource.parse(body)))

    def delete(self, uid: str) -> None:
        """Delete a resource."""
        del self.bodies[uid]
        self.inside(lambda: self.engine.remove(uid))

    # The judge.

    def judge(self) -> None:
        """Judge every change that the operator has made since the last time."""
        done = zip(self.api.log[self._judged :], self.api.times[self._judged :], strict=True)
        for (method, path, before, after), at in done:
            self._at = at
            namespace, kind, name = path.split("/")[4:7]
            assert namespace not in (HOME, "kube-system"), f"{method} {path}: a protected namespace"
            if kind == "secrets":
                self._judge_secret(namespace, name, before, after)
            else:
                self._judge_account(before, after)
        self._judged = len(self.api.log)

    def _judge_secret(self, namespace: str, name: str, before: Json | None, after: Json | None) -> None:
        assert name in ("regcred", "other"), "only Secrets of the names that resources have"
        had, has = _logins(before), _logins(after)
        if before is not None:
            meta = before["metadata"]
            ours = meta.get("labels", {}).get(
                names.MANAGED_BY_LABEL
            ) == names.MANAGED_BY and names.CONTRIBUTORS in meta.get("annotations", {})
            adopted = meta.get("annotations", {}).get(names.ADOPT) == "true"
            assert ours or adopted, f"{namespace}/{name} is foreign"
            assert after is None or after["metadata"]["uid"] == meta["uid"], "a Secret keeps its UID"
        for server, password in has.items():
            if had.get(server) != password and password in self.ends:
                assert self.ends[password] > self._at, f"{server} is handed out though it has ended"
        for server, password in had.items():
            # What a resource no longer gives is taken away, whoever else waits for a login of his own.
            givers = {
                row["plugin"]["config"]["identity"]
                for body in self.wanted(namespace, name, seen=True).get(server, [])
                for row in body["spec"]["registries"]
                if row["server"] == server
            }
            if self.ends.get(password, 0.0) <= self._at or self.whose[password] not in givers:
                continue
            assert server in has, f"{namespace}/{name} lost the living login of {server}"
            assert self.ends.get(has[server], 0.0) > self._at, f"{server} was replaced by a login that has ended"

    @staticmethod
    def _judge_account(before: Json | None, after: Json | None) -> None:
        assert before is not None, "an account is never created"
        assert after is not None, "an account is never deleted"
        had, has = _entries(before), _entries(after)
        mine = ("regcred", "other")
        assert [name for name in had if name not in mine] == [name for name in has if name not in mine]
        assert before["metadata"].get("annotations") == after["metadata"].get("annotations")

    # What should be.

    def wanted(self, namespace: str, name: str, *, seen: bool = False) -> dict[str, list[Json]]:
        """Return server to the resources that want it in a Secret, the winner first.

        Args:
            namespace: where.
            name: of the Secret.
            seen: by the labels that the operator has seen, which may be old.
        """
        if seen:
            view = self.seen.namespaces.get("", namespace)
            labels = dict(view.labels) if view is not None else {}
        else:
            labels = self.namespaces[namespace].labels
        found: dict[str, list[Json]] = {}
        for body in sorted(self.bodies.values(), key=_rank):
            if body["spec"].get("secretName", "regcred") == name and self._applies(body, namespace, labels):
                for row in body["spec"]["registries"]:
                    found.setdefault(row["server"], []).append(body)
        return found

    @staticmethod
    def _applies(body: Json, namespace: str, labels: Mapping[str, str]) -> bool:
        if labels.get(names.IGNORE) == "true" or body["spec"].get("suspend"):
            return False
        if body["kind"] == names.NAMESPACED_KIND:
            return body["metadata"]["namespace"] == namespace
        where = body["spec"]["namespaces"]
        selector = where["selector"].get("matchLabels", {}) if "selector" in where else None
        chosen = namespace in where.get("names", ())
        chosen = chosen or (selector is not None and all(labels.get(key) == selector[key] for key in selector))
        return chosen and namespace != HOME and not namespace.startswith("kube-")

    def held(self, namespace: str, name: str = "regcred") -> dict[str, str]:
        """Return server to password of the Secret of that name; {} where there is none."""
        stored = self.api.objects.get(secret_path(namespace, name))
        return _logins(stored.rendered()) if stored is not None else {}

    def entries(self, namespace: str, account: str = "default") -> list[str]:
        """Return what an account lists."""
        stored = self.api.objects.get(account_path(namespace, account))
        return _entries(stored.rendered()) if stored is not None else []


class _Dead(Exception):
    pass


def _unreachable(_method: str, _path: str) -> None:
    raise asyncio.CancelledError


def _logins(body: Json | None) -> dict[str, str]:
    try:
        logins = dockerconfig.parse(simulated_api.content_of(body)).logins if body else {}
    except dockerconfig.BadConfig:
        return {}
    return {server: login.password for server, login in logins.items()}


def _entries(body: Json) -> list[str]:
    return [entry["name"] for entry in body.get("imagePullSecrets") or []]


def _rank(body: Json) -> tuple[bool, str, str]:
    meta = body["metadata"]
    return body["kind"] == names.CLUSTER_KIND, meta["creationTimestamp"], meta["name"]


@contextlib.contextmanager
def virtual_modules(loop: VirtualLoop, patch: Callable[[Any, str, Any], None]) -> Any:
    """Let the engine see the loop's time as wall clock and as monotonic clock."""

    class Datetime(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
            return (EPOCH + dt.timedelta(seconds=loop.time())).astimezone(tz)

    patch(engine, "datetime", types.SimpleNamespace(datetime=Datetime, UTC=dt.UTC, timedelta=dt.timedelta))
    patch(engine, "time", types.SimpleNamespace(monotonic=loop.time))
    yield
