"""SIGKILL before and after every kind of write, a new start, and the same end as if nothing had happened.

The fault proxy holds the write at one of two points: before the API server has heard of it, or when it has done it and
the answer is on its way.  There the operator is killed, so that a boundary is met exactly, and not by luck.  What a
corner of the cluster comes to after the next start is compared with what an undisturbed run of the same steps made.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime
import functools
import json
import os
import secrets
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from dev.audit import AuditLog, Request
from dev.chaos.arena import Arena
from dev.chaos.book import Finding, experiment
from dev.cluster import Cluster
from dev.faults import FaultProxy, Silence
from dev.operator_process import NAMESPACE, OperatorProcess
from dev.processes import tail
from dev.replicas import OPERATOR_USER
from dev.waiting import NeverHappenedError, eventually
from regcred.api import names
from regcred.cluster import client as api
from regcred.cluster import errors

Json = dict[str, Any]
#: A step of the story: bring it about.
Step = Callable[["Corner"], Awaitable[None]]

_CACHE = "regcred-cache-*"
#: Names that the steps of a story have, in order.
STEPS = ("declare", "renew", "delete")
#: The password that a step hands out.
PASSWORDS = {step: f"c4n4ry{secrets.token_hex(16)}" for step in STEPS[:2]}


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """A kind of write.

    Attributes:
        name: of the kind.
        step: in which it happens; "start" is the start of the process, "rest" its doing nothing, "stop" its end.
        verb: as the API server names it.
        resource: likewise.
        subresource: likewise.
        where: "corner" for the corner's namespace, "own" for the operator's, "" for any.
        target: glob of the object's name.
        sites: where the operator's source sends it: module and HTTP method.
    """

    name: str
    step: str
    verb: str
    resource: str
    sites: tuple[tuple[str, str], ...]
    subresource: str = ""
    where: str = "corner"
    target: str = "*"


#: Every kind of write that the operator can make.
KINDS = (
    Kind("keep a login", "declare", "patch", "secrets", (("credentials/cache.py", "PATCH"),), "", "own", _CACHE),
    Kind(
        "create a Secret", "declare", "patch", "secrets", (("distribution/writer.py", "PATCH"),), target="regcred"
    ),
    Kind("attach an entry", "declare", "patch", "serviceaccounts", (("distribution/writer.py", "PATCH"),)),
    Kind(
        "write a status",
        "declare",
        "patch",
        names.CLUSTER_PLURAL,
        (("statuses.py", "PATCH"),),
        subresource="status",
        where="",
    ),
    Kind("post an event", "declare", "create", "events", (("cluster/events.py", "POST"),), where=""),
    Kind("update a Secret", "renew", "patch", "secrets", (("distribution/writer.py", "PATCH"),), target="regcred"),
    Kind("detach an entry", "delete", "patch", "serviceaccounts", (("distribution/writer.py", "PATCH"),)),
    Kind(
        "delete a Secret", "delete", "delete", "secrets", (("distribution/writer.py", "DELETE"),), target="regcred"
    ),
    Kind(
        "forget a kept login",
        "delete",
        "delete",
        "secrets",
        (("credentials/cache.py", "DELETE"),),
        where="own",
        target=_CACHE,
    ),
    Kind("create the Lease", "start", "create", "leases", (("cluster/lease.py", "POST"),), where="own"),
    Kind("renew the Lease", "rest", "update", "leases", (("cluster/lease.py", "PUT"),), where="own"),
    Kind("free the Lease", "stop", "update", "leases", (("cluster/lease.py", "PUT"),), where="own"),
)
#: Requests with a verb that writes which leave nothing in the cluster.
NO_WRITES = (
    ("credentials/federation.py", "POST"),
    # An eviction is done once, whoever restarts: the pod's age against its account's entry decides.
    ("eviction/evictor.py", "POST"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Boundary:
    """A moment to be killed at: just before a kind of write, or just after."""

    kind: Kind
    done: bool

    def __str__(self) -> str:
        return f"{'after' if self.done else 'before'}: {self.kind.name}"


BOUNDARIES = tuple(Boundary(kind, done) for kind in KINDS for done in (False, True))


class Corner:
    """A namespace, a source, a resource, and how they stand; everything by the API, for kubectl takes its time.

    Args:
        client: an administrator's.
    """

    def __init__(self, client: api.Client) -> None:
        self.id = f"crash-{uuid.uuid4().hex[:6]}"
        self.namespace = self.id
        self._client = client
        self._source = f"/api/v1/namespaces/{NAMESPACE}/secrets"
        self._resources = f"/apis/{names.API_VERSION}/{names.CLUSTER_PLURAL}"

    async def begin(self) -> None:
        """Make the namespace and the source."""
        await self._client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": self.id}})

        async def account() -> bool:
            return await self._get(f"/api/v1/namespaces/{self.id}/serviceaccounts/default") is not None

        await eventually(account, "the default account", seconds=60, every=0.05)
        await self._client.request(
            "POST",
            self._source,
            body={
                "metadata": {"name": self.id},
                "type": "kubernetes.io/basic-auth",
                "stringData": {"username": "robot", "password": PASSWORDS["declare"]},
            },
        )

    async def take(self, step: str) -> None:
        """Bring a step about, and do not wait for the operator."""
        if step == "declare":
            entry = {"server": "registry.example.com", "login": {"secretRef": {"name": self.id}}}
            body = {
                "apiVersion": names.API_VERSION,
                "kind": names.CLUSTER_KIND,
                "metadata": {"name": self.id},
                "spec": {"registries": [entry], "namespaces": {"names": [self.id]}},
            }
            await self._client.request("POST", self._resources, body=body)
        elif step == "renew":
            change = {"stringData": {"password": PASSWORDS["renew"]}}
            await self._client.request("PATCH", f"{self._source}/{self.id}", body=change, content_type=api.MERGE)
        elif step == "delete":
            await self._client.request("DELETE", f"{self._resources}/{self.id}")

    async def clean(self) -> None:
        """Delete what is left."""
        for path in (f"{self._resources}/{self.id}", f"{self._source}/{self.id}", f"/api/v1/namespaces/{self.id}"):
            with contextlib.suppress(errors.NotFound):
                await self._client.request("DELETE", path)

    async def _get(self, path: str) -> Json | None:
        with contextlib.suppress(errors.NotFound):
            return await self._client.get(path)
        return None

    async def tracked(self) -> bool:
        """Whether the server tells who wrote an account's list."""
        account = await self._get(f"/api/v1/namespaces/{self.id}/serviceaccounts/default") or {}
        return bool(account["metadata"].get("managedFields"))

    async def password(self) -> str:
        """Return the password in the namespace's Secret, or ""."""
        body = await self._get(f"/api/v1/namespaces/{self.id}/secrets/regcred")
        text = base64.b64decode(((body or {}).get("data") or {}).get(names.SECRET_KEY, ""))
        auths = json.loads(text)["auths"] if text else {}
        return next((str(row["password"]) for row in auths.values()), "")

    async def state(self) -> Json:
        """Return all that the operator has made of this corner, without what differs from run to run."""
        secret = await self._get(f"/api/v1/namespaces/{self.id}/secrets/regcred")
        account = await self._get(f"/api/v1/namespaces/{self.id}/serviceaccounts/default") or {}
        found: Json = {"account": [entry["name"] for entry in account.get("imagePullSecrets") or []]}
        if secret is not None:
            meta = secret["metadata"]
            annotations = {
                key: json.loads(value) for key, value in meta["annotations"].items() if value[:1] in "[{"
            }
            for row in annotations.get(names.SERVERS, {}).values():
                row.pop("version", None)
            found["secret"] = {
                "data": secret["data"],
                "labels": meta["labels"],
                "annotations": annotations,
                "owners": meta.get("ownerReferences"),
            }
        kept = await self._client.get(self._source)
        mine = [
            body
            for body in kept["items"]
            if (body["metadata"].get("annotations") or {}).get("regcred.io/resource", "").endswith(f"/{self.id}")
        ]
        found["kept"] = len(mine)
        body = await self._get(f"{self._resources}/{self.id}")
        uid = ""
        if body is not None:
            uid = body["metadata"]["uid"]
            status = body.get("status") or {}
            found["status"] = {
                "conditions": sorted(
                    (row["type"], row["status"], row["reason"]) for row in status.get("conditions", [])
                ),
                "namespaces": status.get("namespaces"),
                "accounts": status.get("serviceAccounts"),
                "registries": [row.get("reason", "") for row in status.get("registries", [])],
            }
        text = json.dumps(found, sort_keys=True).replace(self.id, "ID")
        answer: Json = json.loads(text.replace(uid, "UID") if uid else text)
        return answer


@dataclasses.dataclass(frozen=True, slots=True)
class Reached:
    """What came of a boundary.

    Attributes:
        same: whether the end was that of the undisturbed run.
        difference: where it was not.
        dangles: it was, but for an entry of an account: the garbage collector was faster than the next start, and the
            server does not tell who wrote the entry.  The page on uninstalling has a script for those.
    """

    boundary: Boundary
    same: bool
    difference: str = ""
    dangles: bool = False


class CrashPoints:
    """Kills one operator again and again.

    Args:
        cluster: where it runs, with an audit log.
        proxy: before the API server of the operator.
        operator: elected by a Lease, always by the same identity, so that no start has to wait.
    """

    def __init__(self, cluster: Cluster, proxy: FaultProxy, operator: OperatorProcess) -> None:
        self._cluster = cluster
        self._proxy = proxy
        self._operator = operator
        self._reference: dict[str, Json] = {}
        self._tracks = True
        self._dangles = False
        self._client: api.Client

    async def run(self, boundaries: Sequence[Boundary] = BOUNDARIES) -> list[Reached]:
        """Kill the operator at each boundary, and return what came of each."""
        self._client = api.Client(api.login(str(self._cluster.admin_kubeconfig)))
        try:
            await self._operator.start()
            await self._undisturbed()
            return [await self._reach(boundary) for boundary in boundaries]
        finally:
            await self._client.close()

    async def _undisturbed(self) -> None:
        """Take every step without a disturbance, and remember what it comes to."""
        corner = Corner(self._client)
        try:
            await corner.begin()
            for step in STEPS:
                await corner.take(step)
                await eventually(functools.partial(_done, corner, step), step, seconds=120, every=0.1)
                self._reference[step] = await self._resting(corner)
                if step == "declare":
                    self._tracks = await corner.tracked()
        finally:
            await corner.clean()

    async def _resting(self, corner: Corner) -> Json:
        """Return the state that stands for two seconds."""
        last, since = await corner.state(), time.monotonic()
        while time.monotonic() - since < 2.0:
            now = await corner.state()
            if now != last:
                last, since = now, time.monotonic()
        return last

    async def _reach(self, boundary: Boundary) -> Reached:
        corner = Corner(self._client)
        step = boundary.kind.step
        at = STEPS.index(step) if step in STEPS else 0
        try:
            await corner.begin()
            for earlier in STEPS[:at]:
                await self._settled(corner, earlier)
            await self._kill(boundary, corner)
            for later in STEPS[at:]:
                # The killed step was taken already; to take it again changes nothing.
                await self._settled(corner, later, again=later != step)
            return Reached(boundary, same=True, dangles=self._dangles)
        except NeverHappenedError as error:
            return Reached(boundary, same=False, difference=str(error)[:1000])
        finally:
            self._proxy.clear()
            if not self._operator.running:
                await self._operator.start()
            await corner.clean()

    async def _settled(self, corner: Corner, step: str, *, again: bool = True) -> None:
        """Take a step, and wait until all is as in the undisturbed run."""
        if again:
            await corner.take(step)
        last: Json = {}

        async def same() -> bool:
            nonlocal last
            last = await corner.state()
            self._dangles = not self._tracks and step == "delete" and last == {"account": ["regcred"], "kept": 0}
            return last == self._reference[step] or self._dangles

        try:
            await eventually(same, step, seconds=90, every=0.1)
        except NeverHappenedError:
            raise NeverHappenedError(
                f"{step}: {json.dumps(last)} instead of {json.dumps(self._reference[step])}\n"
                f"{tail(self._operator.log)}"
            ) from None

    async def _kill(self, boundary: Boundary, corner: Corner) -> None:
        """Bring the boundary about, kill the operator there, and start it again."""
        kind = boundary.kind
        assert self._cluster.audit_log is not None, "the audit log tells when a write is done"  # noqa: S101
        if kind.step == "start":
            await self._operator.stop()
            await self._cluster.kubectl("delete", "lease", "-n", NAMESPACE, "regcred", "--ignore-not-found")
        if kind.step == "stop":
            # The next renewal is two seconds away: what comes before it is the end of the Lease.
            await self._renewed()
            os.kill(self._operator.pid, signal.SIGTERM)
        audit, moment = AuditLog(self._cluster.audit_log), _now()
        rule = self._proxy.add(
            Silence(forwarded=boundary.done),
            verb=kind.verb,
            resource=kind.resource,
            subresource=kind.subresource,
            namespace={"corner": corner.namespace, "own": NAMESPACE, "": "*"}[kind.where],
            name=kind.target,
            times=1,
        )
        if kind.step == "start":
            await self._operator.start(ready=False)
        elif kind.step in STEPS:
            await corner.take(kind.step)

        async def there() -> bool:
            if not rule.hits:
                return False
            return not boundary.done or any(_fits(row, kind, moment) for row in audit.requests(OPERATOR_USER))

        await eventually(there, str(boundary), seconds=60, every=0.01)
        self._operator.kill()
        await self._operator.ended()
        self._proxy.clear()
        await self._operator.start()

    async def _renewed(self) -> None:
        """Wait for a renewal of the Lease."""
        seen = self._proxy.counts["update", "leases"]

        async def more() -> bool:
            return self._proxy.counts["update", "leases"] > seen

        await eventually(more, "a renewal", seconds=60, every=0.01)


async def _done(corner: Corner, step: str) -> bool:
    """Whether the operator is done with a step of the undisturbed run, by what people see."""
    state = await corner.state()
    if step == "delete":
        return state == {"account": [], "kept": 0}
    ready = ("Ready", "True") in [(row[0], row[1]) for row in state.get("status", {}).get("conditions", [])]
    return ready and await corner.password() == PASSWORDS[step]


def _fits(row: Request, kind: Kind, moment: str) -> bool:
    return (
        row.began >= moment
        and (row.verb, row.resource, row.subresource) == (kind.verb, kind.resource, kind.subresource)
        and row.code < 400
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@experiment(
    10,
    "crash-points",
    title="SIGKILL before and after every kind of write, then a new start",
    expected="The same end as without it, at every boundary",
)
async def crash_points(arena: Arena) -> Finding:
    """Kill at every boundary."""
    for password in PASSWORDS.values():
        arena.evidence.look_for(password)
    operator = arena.process(elect=True)
    try:
        found = await CrashPoints(arena.cluster, arena.proxy, operator).run()
    finally:
        await operator.stop()
    wrong = [row for row in found if not row.same]
    dangling = sum(row.dangles for row in found)
    told = f"{len(found)} boundaries, one end" + (
        f"; {dangling} of them with a dangling entry, on a server that does not tell who wrote it"
        if dangling
        else ""
    )
    return Finding(
        not wrong,
        "; ".join(f"{row.boundary}: {row.difference}" for row in wrong) or told,
        f"{100 * len(found) // len(BOUNDARIES)} % of {len(BOUNDARIES)} boundaries covered",
    )
