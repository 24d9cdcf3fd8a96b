"""A world for the keeper in virtual time: a provider, a registry that proves, the operator's namespace, an engine."""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import copy
import dataclasses
import datetime as dt
import json
from typing import TYPE_CHECKING, Any

from regcred import dockerconfig
from regcred.api import names, resource
from regcred.cluster import errors
from regcred.credentials import asks, cache, keeper, plugins, provider, verification
from tests.credentials.virtual_time import EPOCH, VirtualClock, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence

__all__ = ["EPOCH", "FakeProvider", "Secrets", "World", "entry", "play", "spec"]

HOME = "regcred-system"
LIFE = 12 * 3600.0


@dataclasses.dataclass
class Asked:
    """One call of the provider: when, by loop time, for whom, and when it was answered."""

    identity: str
    at: float
    until: float = -1.0


class FakeProvider:
    """A provider in memory.  What it answers is set by identity; without that, a new token every time.

    Attributes:
        asked: every call.
        latency: seconds that an answer takes, by identity; `*` for all others.
        faults: what is raised in place of an answer, by identity; a list is used up call by call.
        life: seconds that a token lives, by identity; None for ever; `*` for all others.
        fixed: the password that is always handed out, by identity.
        granted: makes the whole answer, by identity.
        single: whether to object to two calls at once for one identity.
        most: the most calls there were at once.
    """

    name = "fake"

    def __init__(self, world: World) -> None:
        self._world = world
        self.asked: list[Asked] = []
        self.latency: dict[str, float] = {"*": 0.1}
        self.faults: dict[str, BaseException | list[BaseException | None]] = {}
        self.life: dict[str, float | None] = {"*": LIFE}
        self.fixed: dict[str, str] = {}
        self.granted: dict[str, Callable[[provider.Ask], Any]] = {}
        self.single = True
        self.busy: collections.Counter[str] = collections.Counter()
        self.most = 0

    def serves(self, server: str) -> bool:
        return server.endswith(".fake.example")

    def key(self, ask: provider.Ask) -> str:
        if ask.config.get("bad"):
            raise provider.InvalidSpec("InvalidSpec", "the entry is bad; mend it", field="plugin.config.bad")
        return f"{ask.config['identity']}|{ask.config.get('secret', '')}"

    def sources(self, ask: provider.Ask) -> Sequence[provider.SourceRef]:
        name = ask.config.get("secret")
        return [provider.SourceRef(ask.namespace, name)] if name else []

    async def fetch(self, ask: provider.Ask) -> provider.Grant:
        who = str(ask.config["identity"])
        call = Asked(who, asyncio.get_running_loop().time())
        self.asked.append(call)
        self.busy[who] += 1
        assert self.busy[who] == 1 or not self.single, f"{who} is asked twice at once"
        number = len(self.asked)
        self.most = max(self.most, sum(self.busy.values()))
        try:
            password = ""
            if ask.config.get("secret"):
                password = (await ask.cluster.read_secret(ask.config["secret"]))["password"].decode()
            await asyncio.sleep(self.latency.get(who, self.latency["*"]))
            fault = self.faults.get(who)
            if isinstance(fault, list):
                fault = fault.pop(0) if fault else None
            if fault is not None:
                raise fault
        finally:
            call.until = asyncio.get_running_loop().time()
            self.busy[who] -= 1
        if who in self.granted:
            return self.granted[who](ask)
        return self.grant(who, self.fixed.get(who) or password or f"token-{number}")

    def grant(self, who: str, password: str) -> provider.Grant:
        now = self._world.clock.true()
        life = self.life.get(who, self.life["*"])
        return provider.Grant(
            logins={provider.ANY_SERVER: dockerconfig.Login("user", password)},
            identity=who,
            issued_at=now,
            expires_at=now + dt.timedelta(seconds=life) if life is not None else None,
        )

    def times(self, who: str) -> list[float]:
        """When it was asked for an identity."""
        return [call.at for call in self.asked if call.identity == who]


class Secrets:
    """The Secrets of one namespace as the API server has them: the client of a `cache.Cache`.

    Attributes:
        fault: raised in place of every answer to a write.
        delay: seconds that a write takes.
        written: how often anything was written.
    """

    def __init__(self) -> None:
        self.bodies: dict[str, dict[str, Any]] = {}
        self.fault: Exception | None = None
        self.delay = 0.001
        self.written = 0

    async def pages(self, path: str, **_: Any) -> AsyncIterator[tuple[list[dict[str, Any]], str]]:
        yield copy.deepcopy(list(self.bodies.values())), "1"

    async def request(self, method: str, path: str, *, body: Any = None, **_: Any) -> Any:
        await asyncio.sleep(self.delay)
        if self.fault is not None:
            raise self.fault
        self.written += 1
        name = path.rpartition("/")[2]
        if method == "DELETE":
            if self.bodies.pop(name, None) is None:
                raise errors.NotFound(404, "NotFound")
            return None
        self.bodies[name] = json.loads(json.dumps(body))
        return body

    def record(self, uid: str) -> dict[str, Any]:
        """What is kept of a resource."""
        data = self.bodies[f"regcred-cache-{uid}"]["data"]["record.json"]
        kept: dict[str, Any] = json.loads(base64.b64decode(data))
        return kept


class _Reader:
    """Reads the sources of one namespace of the world."""

    def __init__(self, world: World, namespace: str) -> None:
        self.versions: dict[str, str | None] = {}
        self._world = world
        self._namespace = namespace

    async def read_secret(self, name: str) -> Mapping[str, bytes]:
        found = self._world.sources.get((self._namespace, name))
        if found is None:
            self.versions[name] = None
            raise provider.InvalidSpec("SourceMissing", f"the Secret {name} does not exist; create it")
        version, password = found
        self.versions[name] = version
        return {"password": password.encode(), "": b"Opaque"}


class World:
    """Everything around one keeper, which can be ended and started again.

    Attributes:
        published: every publication: loop time, UIDs, and what each of them had to hand out by server.
        verdicts: what a handshake shows, by server; a list is used up.
        proofs: every handshake: loop time, server, password.
    """

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.provider = FakeProvider(self)
        self.secrets = Secrets()
        self.sources: dict[tuple[str, str], tuple[str, str]] = {}
        self.published: list[tuple[float, frozenset[str], dict[str, dict[str, str]]]] = []
        self.verdicts: dict[str, Any] = {}
        self.proof_latency = 0.05
        self.proofs: list[tuple[float, str, str]] = []
        self.policy = asks.Policy(HOME)
        self.keeper: keeper.Keeper = None  # type: ignore[assignment]
        self._task: asyncio.Task[None] | None = None
        self._generation = 0

    # The keeper's life.

    async def start(self, *resources: Mapping[str, Any], others: Mapping[str, Any] | None = None) -> None:
        """Start a keeper as the runtime does: cache, resources, loop."""
        factories = {"fake": lambda: self.provider, **(others or {})}
        entries = asks.Entries(plugins.Providers(factories), self.policy, lambda name, _: _Reader(self, name))  # type: ignore[arg-type,return-value]
        self.cache = cache.Cache(self.secrets, HOME)  # type: ignore[arg-type]
        self.keeper = keeper.Keeper(entries, self.cache, self._verify, self._publish, clock=self.clock)
        await self.keeper.load()
        for body in resources:
            self.update(body)
        self._task = asyncio.create_task(self.keeper.run(), name="keeper")

    async def stop(self) -> None:
        """End it, as SIGTERM does."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def restart(self, *resources: Mapping[str, Any]) -> None:
        """End it and start another one from the cache."""
        await self.stop()
        await self.start(*resources)

    @property
    def running(self) -> bool:
        """Whether the keeper's loop goes on."""
        return self._task is not None and not self._task.done()

    def update(self, body: Mapping[str, Any]) -> str:
        """Hand a resource over, and return its UID."""
        parsed = resource.parse(body)
        assert not parsed.problems or parsed.spec is None
        self.keeper.update(parsed)
        return parsed.uid

    def put_source(
        self, name: str, version: str, password: str, *, namespace: str = HOME, tell: bool = True
    ) -> None:
        """Store a source, and let its watch tell."""
        self.sources[namespace, name] = (version, password)
        if tell:
            self.keeper.source_changed(provider.SourceRef(namespace, name), version)

    # What the keeper is given.

    async def _verify(self, asked: asks.Entry, login: dockerconfig.Login) -> verification.Verdict:
        server = asked.servers[0]
        self.proofs.append((asyncio.get_running_loop().time(), server, login.password))
        await asyncio.sleep(self.proof_latency)
        verdict = self.verdicts.get(server, verification.Outcome.OK)
        if isinstance(verdict, list):
            verdict = verdict.pop(0) if verdict else verification.Outcome.OK
        if callable(verdict):
            verdict = verdict(login)
        if isinstance(verdict, BaseException):
            raise verdict
        return verification.Verdict(verdict, f"The handshake showed: {verdict.value}.")

    def _publish(self, uids: frozenset[str]) -> None:
        at = asyncio.get_running_loop().time()
        self.published.append((at, uids, {uid: self.passwords(uid) for uid in uids}))

    # What can be seen.

    def passwords(self, uid: str) -> dict[str, str]:
        """What a resource hands out: server to password."""
        return {server: login.password for server, (login, _, _) in self.keeper.logins(uid).items()}

    def versions(self, uid: str) -> dict[str, str]:
        """Server to version of its login."""
        return {server: version for server, (_, version, _) in self.keeper.logins(uid).items()}

    def row(self, uid: str, server: str = "") -> keeper.Row:
        """The row of a server, or the only one."""
        rows = [row for row in self.keeper.rows(uid) if not server or row.server == server]
        assert len(rows) == 1
        return rows[0]

    def changes(self, uid: str) -> list[tuple[float, dict[str, str]]]:
        """When what a resource hands out was published anew, and as what: writes of Secrets follow from these."""
        found: list[tuple[float, dict[str, str]]] = []
        last: dict[str, str] = {}
        for at, _, handed in self.published:
            if uid in handed and handed[uid] != last:
                last = handed[uid]
                found.append((at, last))
        return found

    async def until(self, seconds: float) -> None:
        """Let the loop's time come to `seconds`."""
        await asyncio.sleep(max(seconds - asyncio.get_running_loop().time(), 0.0))


def entry(server: str, identity: str = "", **more: Any) -> dict[str, Any]:
    """A registry entry of the fake provider; `secret` and `bad` go to its config."""
    config = {"identity": identity or server, **{key: more.pop(key) for key in ("secret", "bad") if key in more}}
    if isinstance(more.get("verify"), str):
        more["verify"] = {"repository": more["verify"]}
    return {"server": server, "plugin": {"name": more.pop("plugin", "fake"), "config": config}, **more}


def spec(
    name: str,
    *registries: Mapping[str, Any],
    namespace: str = "",
    refresh: str = "",
    status: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The body of a resource: of the cluster kind, or of the namespaced kind in `namespace`."""
    annotations = {names.REFRESH: refresh} if refresh else {}
    metadata: dict[str, Any] = {"name": name, "uid": f"uid-{name}", "generation": 1, "annotations": annotations}
    metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
    body: dict[str, Any] = {"apiVersion": names.API_VERSION, "status": dict(status or {})}
    what: dict[str, Any] = {"registries": list(registries), **more}
    if namespace:
        return body | {
            "kind": names.NAMESPACED_KIND,
            "metadata": metadata | {"namespace": namespace},
            "spec": what,
        }
    return body | {"kind": names.CLUSTER_KIND, "metadata": metadata, "spec": {"namespaces": {}} | what}


def play(scene: Callable[[World], Coroutine[Any, Any, None]]) -> World:
    """Play a scene in virtual time, and return the world it leaves."""
    world = World()

    async def whole() -> None:
        try:
            await scene(world)
            assert world.running, "the keeper has ended"
        finally:
            await world.stop()

    run(whole)
    return world
