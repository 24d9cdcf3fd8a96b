"""What an attacker, or somebody careless, does to the operator through its own doors: sources, resources, registries.

Each attack runs against a real operator on a real control plane, with a good resource beside it that has to be served
and renewed meanwhile.  Whom the operator connects to, the interpreter itself writes down (`dev/recorder`).
"""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import dataclasses
import ipaddress
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from dev.cluster import Cluster
from dev.evil import MISDEEDS, Evil
from dev.operator_process import ACCOUNT, NAMESPACE, OperatorProcess
from dev.waiting import eventually
from regcred.cluster import client as api
from regcred.cluster import errors

Json = dict[str, Any]
RECORDER = Path(__file__).parent / "recorder"
_RESOURCES = "/apis/regcred.io/v1alpha1/namespaces/{}/registrycredentials"


class Corner(Protocol):
    """What an attack needs of a corner of a cluster."""

    cluster: Cluster
    operator: OperatorProcess
    api: api.Client
    id: str

    async def namespaces(self, *names: str) -> list[str]:
        """Create namespaces."""

    async def login(self, username: str, password: str, *, name: str = "", namespace: str = NAMESPACE) -> str:
        """Create or change a source."""

    async def declare(self, *registries: Json, name: str = "", namespace: str = "", **spec: Any) -> str:
        """Create or change a resource."""

    async def served(self, *namespaces: str, login: tuple[str, str] | None = None) -> None:
        """Wait until the namespaces are served."""

    async def secret(self, namespace: str, name: str = "regcred") -> Json | None:
        """Return a Secret."""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attack.

    Attributes:
        wrong: what should not have been, a sentence each; empty where the operator has held.
        seen: one sentence.
        figure: what was measured.
    """

    wrong: tuple[str, ...]
    seen: str
    figure: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Recording:
    """Whom a process looks up and connects to."""

    log: Path

    @classmethod
    def into(cls, folder: Path) -> Recording:
        """Return a new one, whose file is in `folder`."""
        log = folder / f"connections-{secrets.token_hex(4)}"
        log.touch()
        return cls(log)

    def environment(self, names: Mapping[str, str], *paths: str) -> dict[str, str]:
        """Return what the process needs in its environment; `paths` are those of its modules."""
        return {
            "PYTHONPATH": ":".join((str(RECORDER), *paths)),
            "RECORDER_LOG": str(self.log),
            "RECORDER_NAMES": json.dumps(names),
        }

    def connections(self) -> list[tuple[str, int]]:
        """Return host and port of every connection that was tried."""
        rows = [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]
        return [(str(row[1]), int(row[2])) for row in rows if row[0] == "connect"]

    def forbidden(self, allowed: Iterable[int]) -> list[tuple[str, int]]:
        """Return the connections to this machine, its link or its cloud, but for `allowed` ports of loopback."""
        ports = frozenset(allowed)
        return [
            (host, port)
            for host, port in self.connections()
            if _out_of_reach(host) and not (host in {"127.0.0.1", "::1"} and port in ports)
        ]


def _out_of_reach(host: str) -> bool:
    address: Any = ipaddress.ip_address(host.partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    return bool(address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast)


@contextlib.asynccontextmanager
async def listener() -> AsyncIterator[tuple[int, list[str]]]:
    """Listen on this machine where no tenant may get, and yield the port and a list of who came."""
    came: list[str] = []

    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(str(writer.get_extra_info("peername")))
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield port, came


async def consent(corner: Corner, namespace: str, *names: str) -> None:
    """Allow the operator to read these Secrets of a tenant."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "regcred-sources"}
    rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": list(names)}
    meta = {"name": "regcred-sources", "namespace": namespace}
    rbac = "rbac.authorization.k8s.io/v1"
    await corner.cluster.apply(
        {
            "apiVersion": rbac,
            "kind": "Role",
            "metadata": meta,
            "rules": [{**rule, "verbs": ["get", "list", "watch"]}],
        },
        {
            "apiVersion": rbac,
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}],
        },
    )


async def declared(
    corner: Corner, namespace: str, entries: Mapping[str, Json]
) -> tuple[dict[str, Json], set[str]]:
    """Declare each entry in a resource of its own, and wait until each is settled.

    Returns:
        Entry to the resource as it ended; the entries that the API server refused.
    """
    path, refused = _RESOURCES.format(namespace), set()
    resources = {f"r{number}": name for number, name in enumerate(entries)}
    for resource, name in resources.items():
        body = {
            "apiVersion": "regcred.io/v1alpha1",
            "kind": "RegistryCredential",
            "metadata": {"name": resource},
            "spec": {"registries": [entries[name]]},
        }
        try:
            await corner.api.request("POST", path, body=body)
        except errors.ApiError:
            refused.add(name)
    wanted = {resource for resource, name in resources.items() if name not in refused}

    async def settled() -> dict[str, Json] | None:
        found = {body["metadata"]["name"]: body async for items, _ in corner.api.pages(path) for body in items}
        done = {name: body for name, body in found.items() if _settled(body)}
        return done if wanted <= set(done) else None

    bodies = await eventually(settled, f"{len(wanted)} resources to be settled", seconds=240, every=0.5)
    return {resources[name]: body for name, body in (bodies or {}).items()}, refused


def _settled(body: Json) -> bool:
    status = body.get("status") or {}
    rows = status.get("registries") or [{}]
    stalled = any(row["type"] == "Stalled" for row in status.get("conditions") or [])
    return stalled or rows[0].get("reason", "Progressing") != "Progressing"


@contextlib.asynccontextmanager
async def beside(corner: Corner, name: str) -> AsyncIterator[list[float]]:
    """Have a good resource renewed again and again within the block; yield the seconds that each renewal took."""
    (namespace,) = await corner.namespaces(f"{name}-good")
    took: list[float] = []

    async def renew() -> None:
        password = f"pw-{secrets.token_hex(12)}"
        began = time.monotonic()
        # A source of a new name each time: one that changes again and again is read every half minute at most.
        source = await corner.login("robot", password, name=f"{corner.id}-{name}-{len(took)}")
        entry = {"server": "good.example.com", "login": {"secretRef": {"name": source}}}
        await corner.declare(entry, name=f"{corner.id}-{name}-good", namespaces={"names": [namespace]})
        await corner.served(namespace, login=("robot", password))
        took.append(time.monotonic() - began)

    async def again() -> None:
        while True:
            await renew()
            await asyncio.sleep(0.5)

    await renew()
    task = asyncio.create_task(again())
    try:
        yield took
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await renew()


def told(corner: Corner, bodies: Iterable[Json], *secret: str) -> list[str]:
    """Return where one of these texts is told: a status, or the operator's log."""
    shown = [json.dumps(body.get("status")) for body in bodies]
    shown.append(corner.operator.log.read_text(encoding="utf-8", errors="replace"))
    return [f"a canary was told: {text[:12]}..." for text in secret if any(text in page for page in shown)]


# Experiment 22: sources.

CANARY = "canary-9f3c5d7e1b-never-told"
_KEY = {
    "type": "service_account",
    "client_email": "a@p.iam.gserviceaccount.com",
    "private_key": f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n",
    "private_key_id": "1",
    "project_id": "p",
}


def _sources(port: int) -> dict[str, tuple[bytes, bytes, str]]:
    """Return what careless and hostile people store: key of the Secret, value, and the provider that reads it."""
    limit = 1_000_000
    url = f"http://127.0.0.1:{port}/token"
    outside = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/x",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": url,
        "credential_source": {"url": f"http://169.254.169.254/{CANARY}"},
    }
    from_file = outside | {"credential_source": {"file": "/var/run/secrets/kubernetes.io/serviceaccount/token"}}
    of_a_program = outside | {
        "credential_source": {"executable": {"command": "/bin/true", "timeout_millis": 5000}}
    }
    many = b'{"auths":{' + b",".join(b'"h%d.io":{"auth":"YTpi"}' % number for number in range(38_000)) + b"}}"
    empty = b'{"auths":{' + b",".join(b'"%x":{}' % number for number in range(95_000)) + b"}}"
    deep = b"[" * limit
    config = b".dockerconfigjson"
    return {
        "a key of 1 MB": (b"key.json", json.dumps(_KEY | {"private_key": CANARY * 34_000}).encode(), "gcr"),
        "a key that is text": (b"key.json", (CANARY * 34_000).encode(), "gcr"),
        "a deep key": (b"key.json", deep, "gcr"),
        "a deep object as a key": (b"key.json", b'{"a":' * 190_000, "gcr"),
        "a key with a byte order mark": (b"key.json", b"\xef\xbb\xbf" + json.dumps(_KEY).encode(), "gcr"),
        "a key with a line end": (b"key.json", json.dumps(_KEY).encode() + b"\n", "gcr"),
        "a user's key": (
            b"key.json",
            json.dumps({"type": "authorized_user", "refresh_token": CANARY}).encode(),
            "gcr",
        ),
        "a key of the metadata service": (b"key.json", json.dumps(outside).encode(), "gcr"),
        "a key from a file": (b"key.json", json.dumps(from_file).encode(), "gcr"),
        "a key from a program": (b"key.json", json.dumps(of_a_program).encode(), "gcr"),
        "a key with its own endpoint": (b"key.json", json.dumps(_KEY | {"token_uri": url}).encode(), "gcr"),
        "a client secret of 1 MB": (b"clientSecret", (CANARY * 34_000).encode(), "acr"),
        "a certificate of 1 MB": (b"tls.crt", (CANARY * 34_000).encode(), "acr"),
        "a password of 1 MB": (b"password", (CANARY * 34_000).encode(), "login"),
        "a password with a line end inside": (b"password", f"{CANARY}\r\nX-Evil: 1".encode(), "login"),
        "a config of 38,000 entries": (config, many, "*"),
        "a config of 95,000 empty entries": (config, empty, "*"),
        "a deep config": (config, b'{"auths":{"a.io":' + deep[:900_000], "*"),
        "a deep config that is closed": (config, b"[" * 450_000 + b"]" * 450_000, "*"),
        "a config of one long number": (config, b'{"auths":' + b"9" * 900_000 + b"}", "*"),
        "a config with a byte order mark": (config, b'\xef\xbb\xbf{"auths":{}}', "*"),
        "a config in UTF-16": (config, '{"auths":{}}'.encode("utf-16"), "*"),
        "no text at all": (b"password", b"\xff\xfe\x00" * 1000, "login"),
    }


_SERVERS = {"gcr": "europe-docker.pkg.dev", "acr": "evil.azurecr.io", "login": "evil.example.com", "*": "*"}


async def hostile_sources(corner: Corner, recording: Recording) -> Outcome:
    """Let a tenant's sources be giant, deep, of the wrong kind, or ask for what the operator's machine can reach."""
    (tenant,) = await corner.namespaces("sources")
    api_port = int(corner.operator.cluster.url.rpartition(":")[2])
    async with listener() as (port, came), beside(corner, "sources") as renewals:
        sources = _sources(port)
        names = {what: f"s{number}" for number, what in enumerate(sources)}
        await consent(corner, tenant, *names.values())
        stored = {}
        for what, (key, value, kind) in sources.items():
            more = {"username": "dQ=="} if kind == "login" else {}
            body = {
                "metadata": {"name": names[what]},
                "data": {key.decode(): base64.b64encode(value).decode(), **more},
            }
            with contextlib.suppress(errors.ApiError):  # a server may know better than to store it
                await corner.api.request("POST", f"/api/v1/namespaces/{tenant}/secrets", body=body)
                stored[what] = _entry(kind, names[what])
        before, began = corner.operator.memory(), time.monotonic()
        bodies, _ = await declared(corner, tenant, stored)
        took, grown = time.monotonic() - began, corner.operator.memory() - before
        reasons = {what: await _outcome(corner, body) for what, body in bodies.items()}
    wrong = [f"{len(came)} connections to a listener on loopback"] if came else []
    wrong += [f"a connection to {host}" for host, _ in recording.forbidden((api_port,))]
    wrong += told(corner, bodies.values(), CANARY)
    wrong += [f"{what}: {reason}" for what, reason in reasons.items() if reason not in _REFUSED]
    wrong += [f"it grew by {grown:.0f} MiB"] if grown > 150 else []
    return Outcome(
        tuple(wrong),
        f"{len(sources)} sources: {len(sources) - len(stored)} refused by the API server, "
        + ", ".join(f"{number} {reason}" for reason, number in collections.Counter(reasons.values()).most_common())
        + f"; none usable, none echoed; the neighbour was renewed {len(renewals)} times",
        f"settled in {took:.0f} s, memory +{max(grown, 0):.0f} MiB, slowest renewal beside {max(renewals):.1f} s",
    )


#: What a source ends in that cannot be used, or is not allowed, or makes a login that no Secret can hold.
_REFUSED = frozenset({"SourceInvalid", "AddressRefused", "TooLarge"})


def _entry(kind: str, name: str) -> Json:
    block = {"gcr": "gcr", "acr": "acr"}.get(kind, "login")
    more = {"tenantId": "72f988bf-86f1-41af-91ab-2d7cd011db47", "clientId": "8a1a2b3c-0000-4000-8000-000000000001"}
    return {
        "server": _SERVERS[kind],
        block: {"secretRef": {"name": name}, **(more if kind == "acr" else {})},
    }


def _said(body: Json | None) -> str:
    status = (body or {}).get("status") or {}
    return json.dumps(status.get("registries") or status.get("conditions"))[:400]


async def _outcome(corner: Corner, body: Json) -> str:
    """Return the reason that a resource with one source ends with: of its registry, or else of what became of it."""
    row = ((body.get("status") or {}).get("registries") or [{}])[0]
    if row.get("reason", "Issued") != "Issued":
        return str(row["reason"])
    path = f"{_RESOURCES.format(body['metadata']['namespace'])}/{body['metadata']['name']}"

    async def ready() -> str:
        status = (await corner.api.get(path)).get("status") or {}
        reasons = [str(row["reason"]) for row in status.get("conditions") or [] if row["type"] == "Ready"]
        return reasons[0] if reasons and reasons[0] != "Progressing" else ""

    return await eventually(ready, f"{path} to be done with", seconds=90)


# Experiment 23: a tenant.

_METADATA_SPELLINGS = (
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0xa9.0xfe.0xa9.0xfe",
    "0251.0376.0251.0376",
    "0251.254.43518",
    "169.254.43518",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "\u2460\u2461\u2462.254.169.254",
    "\uff11\uff16\uff19.254.169.254",
    "169\u3002254\u3002169\u3002254",
    "metadata.evil.example",
    "mapped.evil.example",
    "metadata.evil.example.",
    "METADATA.evil.example",
)
_LOOPBACK_SPELLINGS = (
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "017700000001",
    "0177.0.0.1",
    "0",
    "0.0.0.0",  # noqa: S104 - one of the spellings
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "\u217cocalhost",
    "loc\u0430lhost",
    "\uff4cocalhost",
    "loopback.evil.example",
    "127.0.0.1#",
    "user@127.0.0.1",
    "evil.example@127.0.0.1",
    "127.0.0.1%2f",
)
_NAMES = (
    "{victim}/mine",
    "../{victim}/mine",
    "../../{victim}/secrets/mine",
    "../../../namespaces/{victim}/secrets/mine",
    "..%2f..%2f{victim}%2fsecrets%2fmine",
    "%2e%2e/{victim}/mine",
    "{victim}%2Fmine",
    "{victim}:mine",
    "{victim}.mine",
    "mine?namespace={victim}",
    "mine#{victim}",
    "mine\n",
    "mine\u0000",
    "mi\u2024ne",
    "/api/v1/namespaces/{victim}/secrets/mine",
    "..",
    ".",
    "",
    "a" * 253,
    "a" * 100_000,
)


async def hostile_tenant(corner: Corner, recording: Recording, evil: Evil, came: list[str]) -> Outcome:
    """Let a tenant name other tenants' Secrets, the metadata service and an evil registry in every spelling.

    Args:
        corner: where the operator runs with the recorder, and resolves the names of `evil`.
        recording: of the operator.
        evil: the registry.
        came: who came to the listener at `evil.listener`.
    """
    victim, tenant = await corner.namespaces("victim", "tenant")
    password = f"{CANARY}-{secrets.token_hex(4)}"
    for namespace, text in ((victim, f"{password}-of-the-victim"), (tenant, password)):
        await corner.login("robot", text, name="mine", namespace=namespace)
    await consent(corner, tenant, "mine")
    source = {"login": {"secretRef": {"name": "mine"}}}
    proof = {**source, "verify": {"repository": "a/b", "timeoutSeconds": 5}}
    entries: dict[str, Json] = {
        f"name {name[:60]!r}": {
            "server": "registry.example.com",
            "login": {"secretRef": {"name": name.format(victim=victim)}},
        }
        for name in _NAMES
    }
    entries["a namespace"] = {
        "server": "registry.example.com",
        "login": {"secretRef": {"name": "mine", "namespace": victim}},
    }
    entries |= {f"metadata {host}": {"server": host, **proof} for host in _METADATA_SPELLINGS}
    entries |= {f"loopback {host}": {"server": f"{host}:{evil.listener}", **proof} for host in _LOOPBACK_SPELLINGS}
    trusted = {**proof, "tls": {"caBundle": evil.ca}}
    entries |= {name: {"server": f"{name}.evil.example:{evil.port}", **trusted} for name in MISDEEDS}
    async with beside(corner, "tenant") as renewals:
        before, began = corner.operator.memory(), time.monotonic()
        bodies, refused = await declared(corner, tenant, entries)
        took, grown = time.monotonic() - began, corner.operator.memory() - before
    api_port = int(corner.operator.cluster.url.rpartition(":")[2])
    wrong = [f"{len(came)} connections to a listener on loopback"] if came else []
    wrong += [f"a connection to {host}:{port}" for host, port in recording.forbidden((api_port,))]
    wrong += [f"a login was sent to {host}" for host in evil.logins if not host.endswith(".evil.example")]
    wrong += told(corner, bodies.values(), password)
    missed = [name for name in MISDEEDS if not evil.asked.get(f"{name}.evil.example")]
    wrong += [f"the evil registry was not even asked as {name}: {_said(bodies.get(name))}" for name in missed]
    wrong += [f"it grew by {grown:.0f} MiB"] if grown > 150 else []
    for name in ("name", "a namespace"):
        for what, body in bodies.items():
            if what.startswith(name) and "of-the-victim" in json.dumps(body):
                wrong.append(f"{what} has reached the victim")
    held = await corner.secret(tenant)
    data = base64.b64decode(held["data"][".dockerconfigjson"]).decode() if held else ""
    wrong += ["the victim's login stands in the tenant's Secret"] if "of-the-victim" in data else []
    return Outcome(
        tuple(wrong),
        f"{len(entries)} hostile entries, {len(refused)} refused by the API server; forbidden connections 0; logins "
        f"sent to strangers 0; the neighbour was renewed {len(renewals)} times",
        f"settled in {took:.0f} s, memory +{max(grown, 0):.0f} MiB, slowest renewal beside {max(renewals):.1f} s",
    )


# Experiment 24: a cluster resource that is a mistake.


async def mistaken_platform(corner: Corner) -> Outcome:
    """Let the platform select everything, and name a Secret that somebody else has."""
    (team,) = await corner.namespaces("team")
    system = ("kube-system", "kube-public", "kube-node-lease", NAMESPACE)
    foreign = {
        "metadata": {"name": "regcred"},
        "type": "Opaque",
        "data": {"key": base64.b64encode(b"somebody's").decode()},
    }
    path = f"/api/v1/namespaces/{team}/secrets"
    before = await corner.api.request("POST", path, body=foreign)
    source = await corner.login("robot", f"pw-{secrets.token_hex(8)}", name=f"{corner.id}-mistake")
    entry = {"server": "mistake.example.com", "login": {"secretRef": {"name": source}}}
    choices: dict[str, Json] = {
        "every name": {"names": ["*"]},
        "by name": {"names": [*system, "kube-*"]},
        "everything": {},
    }
    wrong = []
    for number, (what, namespaces) in enumerate(choices.items()):
        name = f"{corner.id}-m{number}"
        await corner.declare(entry, name=name, namespaces=namespaces)
        resource = f"/apis/regcred.io/v1alpha1/clusterregistrycredentials/{name}"

        async def settled(resource: str = resource) -> bool:
            status = (await corner.api.get(resource)).get("status") or {}
            ready = [row for row in status.get("conditions") or [] if row["type"] == "Ready"]
            return bool(ready) and ready[0]["reason"] not in ("Progressing", "Waiting")

        await eventually(settled, f"{what} to be settled", seconds=90, every=0.2)
        wrong += [f"{what}: a Secret in {place}" for place in system if await corner.secret(place)]
        await corner.cluster.kubectl("delete", "crcred", name)
    found = await corner.cluster.get("serviceaccounts", "-A")
    wrong += [
        f"an account of {body['metadata']['namespace']} lists it"
        for body in found["items"]
        if body["metadata"]["namespace"] in system and {"name": "regcred"} in (body.get("imagePullSecrets") or [])
    ]
    after = await corner.api.get(f"{path}/regcred")
    wrong += ["the foreign Secret was changed"] if after != before else []
    # Another name that the operator has no right to: refused by RBAC, told, and nothing else.
    other = await corner.declare(
        entry, name=f"{corner.id}-other", secretName="kube-root-ca", namespaces={"names": [team]}
    )

    async def refused() -> bool:
        body = await corner.api.get(f"/apis/regcred.io/v1alpha1/clusterregistrycredentials/{other}")
        return "resourceNames" in json.dumps(body.get("status"))

    await eventually(refused, "the other name to be refused", seconds=90)
    return Outcome(
        tuple(wrong),
        f"{len(choices)} selections of everything: {len(system)} namespaces of the system hold nothing, a foreign "
        f"Secret kept its resource version, another Secret's name is refused by RBAC and told",
    )
