"""What the tests of the clouds do to their cluster and see there, many objects at once."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from dev.cluster import Cluster
from dev.operator_process import OperatorProcess
from dev.processes import tail
from dev.waiting import eventually
from regcred.api import times
from tests.clouds.local_clouds import Clouds
from tests.clouds.mode import Mode
from tests.e2e.conftest import World

Json = dict[str, Any]

#: Seconds by which an end may be told too early: Google tells whole seconds that are left.
TOLD = 3.0
_KINDS = ("clusterregistrycredentials", "registrycredentials")


@dataclasses.dataclass(frozen=True)
class Sight:
    """How one mode was seen to stand.

    Attributes:
        data: the docker config in its Secret, byte for byte.
        secret: the Secret.
        resource: the resource.
    """

    data: bytes = dataclasses.field(repr=False)
    secret: Json = dataclasses.field(repr=False)
    resource: Json = dataclasses.field(repr=False)

    @property
    def row(self) -> Json:
        """The status row of its one registry."""
        row: Json = self.resource["status"]["registries"][0]
        return row

    @property
    def ready(self) -> Json:
        """Its condition Ready."""
        return ready_of(self.resource)


def ready_of(resource: Json) -> Json:
    """Return the condition Ready of a resource, of its present generation; {} where there is none."""
    status = resource.get("status") or {}
    if status.get("observedGeneration") != resource["metadata"]["generation"]:
        return {}
    return next((row for row in status.get("conditions") or [] if row["type"] == "Ready"), {})


def docker_config(servers: Iterable[str], username: str, password: str) -> bytes:
    """Return the bytes that a pull Secret with this one login has to hold, written down without our own code."""
    auth = base64.b64encode(f"{username}:{password}".encode()).decode()
    entry = {"auth": auth, "password": password, "username": username}
    return json.dumps({"auths": dict.fromkeys(sorted(servers), entry)}, separators=(",", ":")).encode()


def config_in(secret: Json) -> bytes:
    """Return the docker config in a Secret."""
    return base64.b64decode(secret["data"][".dockerconfigjson"])


class Hub(World):
    """A `World` for all tests of the session, and for a thousand objects."""

    def __init__(self, cluster: Cluster, operator: OperatorProcess, clouds: Clouds) -> None:
        super().__init__(cluster, operator)
        self.clouds = clouds

    async def restart(self, environment: Mapping[str, str] | None = None) -> None:
        """Stop the operator in order and start it anew, perhaps with another environment."""
        await self.operator.stop()
        if environment is not None:
            self.operator.environment = dict(environment)
        await self.operator.start()

    async def listed(self, path: str, **query: str) -> list[Json]:
        """Return all objects at a path of the API."""
        return [item async for items, _ in self.api.pages(path, params=query) for item in items]

    async def resources(self) -> dict[str, Json]:
        """Return every resource of both kinds by name."""
        found = [item for kind in _KINDS for item in await self.listed(f"/apis/regcred.io/v1alpha1/{kind}")]
        return {item["metadata"]["name"]: item for item in found}

    async def pull_secret_of_all(self) -> dict[str, Json]:
        """Return every Secret named regcred by namespace."""
        found = await self.listed("/api/v1/secrets", fieldSelector="metadata.name=regcred")
        return {item["metadata"]["namespace"]: item for item in found}

    async def create_namespaces(self, names: Iterable[str], labels: Mapping[str, str]) -> None:
        """Create many namespaces, faster than kubectl does."""

        async def create(name: str) -> None:
            body = {"metadata": {"name": name, "labels": dict(labels)}}
            await self.api.request("POST", "/api/v1/namespaces", body=body)

        await asyncio.gather(*map(create, names))

    async def apply_modes(self, modes: Iterable[Mode]) -> None:
        """Declare modes, all in one go, and remember what is secret of them."""
        objects = [body for mode in modes for body in mode.objects()]
        for mode in modes:
            for data in mode.secrets.values():
                self.clouds.planted.update(_parts(data))
        order = ("Namespace", "ServiceAccount", "Secret")
        objects.sort(key=lambda body: order.index(body["kind"]) if body["kind"] in order else len(order))
        await self.cluster.apply(*objects)

    async def sights(self, modes: Iterable[Mode]) -> dict[str, Sight]:
        """Return how modes stand, those without a Secret left out."""
        secrets, resources = await self.pull_secret_of_all(), await self.resources()
        return {
            mode.name: Sight(config_in(secrets[mode.namespace]), secrets[mode.namespace], resources[mode.name])
            for mode in modes
            if mode.namespace in secrets and mode.name in resources
        }

    async def all_ready(self, modes: Iterable[Mode], *, seconds: float = 240.0) -> dict[str, Sight]:
        """Wait until every mode is Ready and its Secret stands."""
        modes = list(modes)
        waiting: dict[str, Any] = {}

        async def check() -> dict[str, Sight] | None:
            seen, resources = await self.sights(modes), await self.resources()
            waiting.clear()
            for mode in modes:
                if mode.name not in seen or seen[mode.name].ready.get("status") != "True":
                    waiting[mode.name] = resources[mode.name].get("status", {}).get("conditions")
            return None if waiting else seen

        try:
            return await eventually(check, "all modes to be Ready", seconds=seconds, every=0.5)
        except AssertionError:
            told = json.dumps(waiting, indent=1)
            raise AssertionError(f"not all modes are Ready: {told}\n{tail(self.operator.log)}") from None

    async def all_issued(self, modes: Iterable[Mode], number: int, *, seconds: float = 90.0) -> None:
        """Wait until the clouds have handed out so many logins for each mode that has one which ends."""
        waiting: dict[str, int] = {}

        async def check() -> bool:
            waiting.clear()
            waiting.update({mode.name: len(mode.issued(self.clouds)) for mode in modes if mode.document is None})
            return all(had >= number for had in waiting.values())

        try:
            await eventually(check, f"{number} logins for every mode", seconds=seconds)
        except AssertionError:
            raise AssertionError(f"not {number} each: {waiting}\n{tail(self.operator.log)}") from None

    async def all_hold_the_latest(self, modes: Iterable[Mode], *, seconds: float = 30.0) -> dict[str, Sight]:
        """Wait until every Secret holds the last login that its cloud handed out, and the status tells its end."""
        modes = list(modes)
        waiting: list[str] = []

        async def check() -> dict[str, Sight] | None:
            seen = await self.sights(modes)
            waiting[:] = [
                mode.name for mode in modes if mode.name not in seen or not self._latest(mode, seen[mode.name])
            ]
            return None if waiting else seen

        try:
            return await eventually(check, "all modes to hold the latest", seconds=seconds, every=0.5)
        except AssertionError:
            raise AssertionError(f"not the latest: {waiting}\n{tail(self.operator.log)}") from None

    def _latest(self, mode: Mode, sight: Sight) -> bool:
        latest = mode.issued(self.clouds)[-1]
        told = sight.row.get("expiresAt")
        return (
            sight.ready.get("status") == "True"
            and sight.data == docker_config(mode.servers, mode.username, latest.password)
            and told is not None
            and abs(times.parse_time(told).timestamp() - latest.ends) < TOLD
        )


def _parts(data: Mapping[str, str]) -> set[str]:
    """Return the secret values in a source Secret: those of a document rather than the document."""
    values = set()
    for key, value in data.items():
        if key == "key.json" and value.startswith("{"):
            values |= {json.loads(value)["private_key"], json.loads(value)["private_key_id"]}
        elif key not in {"tls.crt", "accessKeyId"}:
            values.add(value)
    return values - {""}
