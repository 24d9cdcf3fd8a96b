"""A namespace of a real cluster with the operator's own hand in it."""

from __future__ import annotations

import dataclasses
import datetime
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dev.cluster import Cluster
from dev.waiting import eventually
from regcred.api import names
from regcred.cluster import client as api
from regcred.cluster import mirror, views
from regcred.distribution import model, writer
from regcred.distribution import plan as planning
from tests.distribution.distribution_support import NOW, contribution, desired, logins_of
from tests.distribution.simulated_api import content_of

Json = dict[str, Any]


class Place:
    """A namespace, what the operator sees of it, and its writer."""

    def __init__(self, cluster: Cluster, client: api.Client, namespace: str) -> None:
        self.cluster, self.client, self.namespace = cluster, client, namespace
        self.seen = mirror.Mirror(lambda _namespace, _urgent: None)
        self.hand = writer.Writer(client, self.seen)

    # What others do.

    def path(self, name: str, kind: str = "secrets") -> str:
        """Return the path of an object, or of its collection."""
        return f"/api/v1/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    async def create(self, name: str, kind: str = "secrets", manager: str = "kubectl-create", **body: Any) -> Json:
        """Create an object as somebody else."""
        meta = {"name": name, **body.pop("metadata", {})}
        answer: Json = await self.client.request(
            "POST", self.path("", kind), params={"fieldManager": manager}, body={"metadata": meta, **body}
        )
        if kind == "serviceaccounts":
            answer = await self._with_its_token(answer)
        return answer

    async def _with_its_token(self, account: Json) -> Json:
        """Return a new account as it stands once its controller is done with it: servers before 1.24 list a token."""
        if not self.cluster.controllers or self.cluster.version >= (1, 24):
            return account

        async def listed() -> Json | None:
            body = await self.read(account["metadata"]["name"], "serviceaccounts")
            return body if body.get("secrets") else None

        return await eventually(listed, "the account to list its token", seconds=60, every=0.02)

    async def patch(self, name: str, kind: str = "secrets", manager: str = "kubectl-patch", **body: Any) -> Json:
        """Change an object as somebody else."""
        answer: Json = await self.client.request(
            "PATCH", self.path(name, kind), params={"fieldManager": manager}, body=body, content_type=api.MERGE
        )
        return answer

    async def read(self, name: str = names.DEFAULT_SECRET_NAME, kind: str = "secrets") -> Json:
        """Return an object as it is."""
        return await self.client.get(self.path(name, kind))

    async def logins(self, name: str = names.DEFAULT_SECRET_NAME) -> dict[str, str]:
        """Return server to password of a Secret as it is."""
        return logins_of(content_of(await self.read(name)))

    async def listed(self, name: str = "app") -> list[str]:
        """Return what a service account lists."""
        return [entry["name"] for entry in (await self.read(name, "serviceaccounts")).get("imagePullSecrets", [])]

    async def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl in the namespace."""
        return await self.cluster.kubectl(*arguments, "-n", self.namespace, input=stdin)

    # The operator.

    async def resource(self, name: str = "a", *rest: Any, **more: Any) -> model.Contribution:
        """Return what a resource brings that accounts called app list; its owner reference names what exists."""
        owner = await self.create(f"owner-{uuid.uuid4().hex[:6]}", "configmaps")
        made = contribution(name, *rest, **{"accounts": ("app",), **more})
        meta = owner["metadata"]
        return dataclasses.replace(made, api_version="v1", kind="ConfigMap", name=meta["name"], uid=meta["uid"])

    async def look(self) -> None:
        """Take in the namespace as it is now."""
        self.seen.namespaces.upsert(await self.client.get(f"/api/v1/namespaces/{self.namespace}"))
        for table, kind in ((self.seen.secrets, "secrets"), (self.seen.accounts, "serviceaccounts")):
            found = await self.client.get(self.path("", kind))
            for body in found["items"]:
                table.upsert(body)
            listed = [(self.namespace, body["metadata"]["name"]) for body in found["items"]]
            table.replace(listed, found["metadata"]["resourceVersion"])

    def plan(self, *contributions: model.Contribution, now: datetime.datetime = NOW, **rest: Any) -> model.Plan:
        """Plan from what is seen."""
        observed = planning.Observed(
            namespace=self.seen.namespaces.get("", self.namespace),
            secrets=dict(self.seen.secrets.within(self.namespace)),
            departed={},
            accounts=tuple(self.seen.accounts.within(self.namespace).values()),
        )
        return planning.plan(observed, desired(*contributions, **rest), now)

    async def serve(self, *contributions: model.Contribution, **rest: Any) -> writer.Result:
        """Look, plan and write once; what is planned then from the answers alone is nothing."""
        await self.look()
        result = await self.hand.execute(self.plan(*contributions, **rest))
        assert self.plan(*contributions, **rest).idle, "the answers of the writes tell that all is done"
        return result

    def view(self, name: str = names.DEFAULT_SECRET_NAME) -> views.SecretView:
        """Return what is seen of a Secret."""
        view = self.seen.secrets.get(self.namespace, name)
        assert view is not None
        return view


@pytest.fixture(scope="session")
async def administrator(control_plane: Cluster) -> AsyncIterator[api.Client]:
    """A client of ours that may do everything."""
    client = api.Client(api.login(str(control_plane.admin_kubeconfig)))
    yield client
    await client.close()


@pytest.fixture
async def place(control_plane: Cluster, administrator: api.Client) -> AsyncIterator[Place]:
    """A namespace of the test's own, with a service account called app."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    await administrator.request("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
    made = Place(control_plane, administrator, name)
    await made.create("app", "serviceaccounts")
    await made.look()
    yield made
    await administrator.request("DELETE", f"/api/v1/namespaces/{name}")


def document(server: str, password: str) -> str:
    """Return a docker config as text."""
    return json.dumps({"auths": {server: {"username": "u", "password": password}}})
