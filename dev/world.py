"""A corner of a cluster with names of its own: what tests and fault experiments do there, and what they see."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import uuid
from typing import Any

from dev.cluster import Cluster
from dev.operator_process import NAMESPACE, OperatorProcess
from dev.processes import tail
from dev.waiting import eventually
from regcred.cluster import client as api
from regcred.cluster import errors

Json = dict[str, Any]

_PATHS = {
    "Namespace": "/api/v1/namespaces",
    "Secret": "/api/v1/{}secrets",
    "ClusterRegistryCredential": "/apis/regcred.io/v1alpha1/clusterregistrycredentials",
    "RegistryCredential": "/apis/regcred.io/v1alpha1/{}registrycredentials",
}


def path_of(kind: str, name: str, namespace: str = "") -> str:
    """Return the path of an object of the API."""
    return f"{_PATHS[kind].format(f'namespaces/{namespace}/' if namespace else '')}/{name}"


class World:
    """What an end-to-end test does to a cluster, and what it sees there.  Names are the test's own."""

    def __init__(self, cluster: Cluster, operator: OperatorProcess) -> None:
        self.cluster = cluster
        self.operator = operator
        # Everything goes straight to the API server: kubectl takes a quarter of a second each time, and more when busy.
        self.api = api.Client(api.login(str(cluster.admin_kubeconfig)))
        self.id = f"t{uuid.uuid4().hex[:6]}"
        self._made: set[str] = set()
        self._namespaces: set[str] = set()

    async def apply(self, *objects: Json) -> None:
        """Create or change objects, by server-side apply."""
        for given in objects:
            body = dict(given)
            texts = body.pop("stringData", None)
            if texts is not None:
                body["data"] = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
            path = path_of(body["kind"], body["metadata"]["name"], body["metadata"].get("namespace", ""))
            params = {"fieldManager": "world", "force": "true"}
            await self.api.request("PATCH", path, params=params, body=body, content_type=api.APPLY)

    def take(self, kind: str, name: str, namespace: str = "") -> None:
        """Delete this at the end, too."""
        (self._namespaces if kind == "Namespace" else self._made).add(path_of(kind, name, namespace))

    async def namespaces(self, *names: str, labels: dict[str, str] | None = None) -> list[str]:
        """Create namespaces `<test>-<name>`, labelled with the test's id."""
        full = [f"{self.id}-{name}" for name in names]
        await self.apply(
            *(
                {
                    "apiVersion": "v1",
                    "kind": "Namespace",
                    "metadata": {"name": name, "labels": {"test": self.id, **(labels or {})}},
                }
                for name in full
            )
        )
        for name in full:
            self.take("Namespace", name)
        return full

    async def login(self, username: str, password: str, *, name: str = "", namespace: str = NAMESPACE) -> str:
        """Create or change a basic-auth source Secret; return its name."""
        name = name or f"{self.id}-login"
        await self.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "kubernetes.io/basic-auth",
                "metadata": {"name": name, "namespace": namespace},
                "stringData": {"username": username, "password": password},
            }
        )
        self.take("Secret", name, namespace)
        return name

    async def declare(self, *registries: Json, name: str = "", namespace: str = "", **spec: Any) -> str:
        """Create or change a resource for the test's namespaces; return its name."""
        name = name or self.id
        body: Json = {
            "apiVersion": "regcred.io/v1alpha1",
            "kind": "RegistryCredential" if namespace else "ClusterRegistryCredential",
            "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
            "spec": {"registries": list(registries), **spec},
        }
        if not namespace:
            body["spec"].setdefault("namespaces", {"selector": {"matchLabels": {"test": self.id}}})
        await self.apply(body)
        self.take(body["kind"], name, namespace)
        return name

    async def resource(self, name: str = "", namespace: str = "") -> Json:
        """Return a resource."""
        where = f"namespaces/{namespace}/registrycredentials" if namespace else "clusterregistrycredentials"
        return await self.api.get(f"/apis/regcred.io/v1alpha1/{where}/{name or self.id}")

    async def condition(self, type_: str, name: str = "", namespace: str = "") -> Json:
        """Return a condition of a resource, or {}."""
        body = await self.resource(name, namespace)
        found = (body.get("status") or {}).get("conditions") or []
        return next((condition for condition in found if condition["type"] == type_), {})

    async def ready(self, name: str = "", namespace: str = "", *, status: str = "True", reason: str = "") -> Json:
        """Wait until a resource's Ready condition of its present generation has a status (and a reason)."""
        last: Json = {}

        async def check() -> Json | None:
            nonlocal last
            body = last = await self.resource(name, namespace)
            told = body.get("status") or {}
            if told.get("observedGeneration") != body["metadata"]["generation"]:
                return None
            for condition in told.get("conditions") or []:
                if condition["type"] == "Ready" and condition["status"] == status:
                    return body if not reason or condition["reason"] == reason else None
            return None

        try:
            found = await eventually(check, f"Ready={status} {reason}", seconds=90, every=0.05)
            return found or {}
        except AssertionError:
            raise AssertionError(
                f"Ready={status} {reason} was not seen\n{json.dumps(last.get('status'), indent=1)}\n"
                f"{tail(self.operator.log)}"
            ) from None

    async def secret(self, namespace: str, name: str = "regcred") -> Json | None:
        """Return a Secret, or None."""
        try:
            return await self.api.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        except errors.NotFound:
            return None

    async def auths(self, namespace: str, name: str = "regcred") -> dict[str, tuple[str, str]]:
        """Return the logins that a Secret holds: server to user name and password; {} where there is none."""
        body = await self.secret(namespace, name)
        if body is None:
            return {}
        document = json.loads(base64.b64decode(body["data"][".dockerconfigjson"]))
        return {server: (row["username"], row["password"]) for server, row in document["auths"].items()}

    async def pull_secrets(self, namespace: str, account: str = "default") -> list[str] | None:
        """Return the names that an account lists, or None where there is no such account."""
        try:
            body = await self.api.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}")
        except errors.NotFound:
            return None
        return [entry["name"] for entry in body.get("imagePullSecrets") or []]

    async def served(self, *namespaces: str, login: tuple[str, str] | None = None) -> None:
        """Wait until every namespace has its Secret (with this login) and its default account lists it."""

        async def check() -> bool:
            for namespace in namespaces:
                auths = await self.auths(namespace)
                if not auths or (login is not None and login not in auths.values()):
                    return False
                if "regcred" not in (await self.pull_secrets(namespace) or []):
                    return False
            return True

        await eventually(check, f"{namespaces} to be served\n{tail(self.operator.log)}", seconds=60, every=0.05)

    async def bare(self, *namespaces: str, name: str = "regcred") -> None:
        """Wait until no namespace has the Secret or an account that lists it."""

        async def check() -> bool:
            for namespace in namespaces:
                if await self.secret(namespace, name) is not None:
                    return False
                if name in (await self.pull_secrets(namespace) or []):
                    return False
            return True

        await eventually(check, f"{namespaces} to be bare\n{tail(self.operator.log)}", seconds=60, every=0.05)

    async def events(self, name: str = "") -> list[Json]:
        """Return the events about a cluster resource."""
        chosen = {"fieldSelector": f"involvedObject.name={name or self.id}"}
        found = await self.api.request("GET", "/api/v1/namespaces/default/events", params=chosen)
        items: list[Json] = found["items"]
        return items

    async def clean(self) -> None:
        """Delete what was made; nobody waits until it is gone."""
        try:
            # The resources first, so that nobody is told of a namespace that goes before them.
            for paths in (self._made, self._namespaces):
                await asyncio.gather(*(self._delete(path) for path in sorted(paths)))
                paths.clear()
        finally:
            await self.api.close()

    async def _delete(self, path: str) -> None:
        with contextlib.suppress(errors.NotFound, errors.Conflict):
            await self.api.request("DELETE", path)
