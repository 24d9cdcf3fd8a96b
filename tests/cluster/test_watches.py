"""Which collections are watched, on the real API server and with no more than RBAC allows."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from dev.waiting import eventually
from regcred.cluster import client as api
from regcred.cluster import errors, mirror, polling, watches
from tests.cluster.fake_api import client_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from dev.cluster import Cluster


class Seen:
    """Watches of a home namespace, and all that they tell.

    Attributes:
        sources: every (namespace, name, version) that was told.
        states: how often the state of our Secrets changed.
    """

    def __init__(self, client: api.Client, home: str) -> None:
        self.touched: list[tuple[str, bool]] = []
        self.sources: list[tuple[str, str, str | None]] = []
        self.states = 0
        self.mirror = mirror.Mirror(lambda namespace, urgent: self.touched.append((namespace, urgent)))
        self.watches = watches.Watches(
            client,
            self.mirror,
            home,
            on_source=lambda *told: self.sources.append(told),
            on_state=self._state,
        )

    def _state(self) -> None:
        self.states += 1

    async def told(self, namespace: str, name: str, check: Callable[[str | None], bool]) -> None:
        """Wait until the last thing told of a source is as it should be."""

        async def last() -> bool:
            found = [version for where, what, version in self.sources if (where, what) == (namespace, name)]
            return bool(found) and check(found[-1])

        await eventually(last, f"news of {namespace}/{name}", every=0.02)


@contextlib.asynccontextmanager
async def watching(client: api.Client, home: str) -> AsyncIterator[Seen]:
    """Watches that are ended at the end."""
    seen = Seen(client, home)
    try:
        yield seen
    finally:
        await seen.watches.stop()
        seen.watches.failed.cancel()


async def started(seen: Seen, *secret_names: str) -> None:
    """Begin, with a deadline."""
    async with asyncio.timeout(30):
        await seen.watches.start(frozenset(secret_names or ("regcred",)))


@pytest.fixture
async def client(control_plane: Cluster) -> AsyncIterator[api.Client]:
    """A client of the real API server, as administrator."""
    async with client_of(control_plane.admin_kubeconfig) as made:
        yield made


async def put(client: api.Client, namespace: str, name: str, value: str = "v") -> str:
    """Create or change a Secret, and return its resource version."""
    answer = await client.request(
        "PATCH",
        f"/api/v1/namespaces/{namespace}/secrets/{name}",
        params={"fieldManager": "test", "force": "true"},
        body={"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"k": value}},
        content_type=api.APPLY,
    )
    return str(answer["metadata"]["resourceVersion"])


class TestStart:
    """The first listing."""

    async def test_everything_is_listed(self, client: api.Client, namespace: str) -> None:
        """After `start` every namespace, account, source and Secret of our names is known."""
        await put(client, namespace, "regcred")
        version = await put(client, namespace, "source")
        async with watching(client, namespace) as seen:
            seen.watches.need(frozenset({"regcred"}), [(namespace, "source")])
            await started(seen)
            assert seen.mirror.namespaces.get("", namespace) is not None
            assert seen.mirror.secrets.get(namespace, "regcred") is not None
            assert seen.mirror.secrets.get(namespace, "source") is None
            assert (namespace, "source", version) in seen.sources
            assert seen.watches.synced("regcred")
            assert not seen.watches.synced("other")
            assert {watched.collection.title for watched in seen.watches} == {
                "namespaces",
                "serviceaccounts",
                "sources",
                "secrets regcred",
            }
            assert seen.watches.stalest() < 60

    async def test_no_login_is_downloaded(self, client: api.Client, namespace: str) -> None:
        """Of Secrets only the metadata is ever asked for."""
        await put(client, namespace, "regcred", "c4n4ry")
        asked: list[str] = []

        def noting(original: Any) -> Any:
            def pages(path: str, **more: Any) -> Any:
                asked.append(path)
                assert "secrets" not in path or more["metadata"]
                return original(path, **more)

            return pages

        client.pages = noting(client.pages)  # type: ignore[method-assign]
        client.cached = noting(client.cached)  # type: ignore[method-assign]
        async with watching(client, namespace) as seen:
            await started(seen)
            gc.collect()
            held = repr([*seen.mirror.secrets])
        assert len(asked) >= 4
        assert "c4n4ry" not in held

    async def test_names_that_rbac_refuses(self, control_plane: Cluster, namespace: str) -> None:
        """A name of Secrets that may not be listed is not waited for, and begins by itself once it is allowed."""
        await control_plane.kubectl("create", "serviceaccount", "op", f"--namespace={namespace}")
        rules = [
            {"apiGroups": [""], "resources": ["namespaces", "serviceaccounts"], "verbs": ["list", "watch"]},
            {
                "apiGroups": [""],
                "resources": ["secrets"],
                "resourceNames": ["regcred"],
                "verbs": ["list", "watch"],
            },
        ]
        role: dict[str, Any] = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": namespace},
            "rules": rules,
        }
        subject = {"kind": "ServiceAccount", "name": "op", "namespace": namespace}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": namespace}
        binding = role | {"kind": "ClusterRoleBinding", "roleRef": reference, "subjects": [subject]}
        del binding["rules"]
        own = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "own", "namespace": namespace},
            "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"]}],
        }
        own_binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "own", "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "own"},
            "subjects": [subject],
        }
        await control_plane.apply(role, binding, own, own_binding)
        try:
            path = await control_plane.kubeconfig_for_service_account(namespace, "op")
            async with client_of(path) as client, watching(client, namespace) as seen:
                await started(seen, "regcred", "other-name")
                assert seen.watches.synced("regcred")
                assert not seen.watches.refused("regcred")
                assert not seen.watches.synced("other-name")
                assert seen.watches.refused("other-name")
                before = seen.states
                rules[1]["resourceNames"] = ["regcred", "other-name"]
                await control_plane.apply(role)

                async def allowed() -> bool:
                    return seen.watches.synced("other-name") and not seen.watches.refused("other-name")

                await eventually(allowed, "the name to be allowed", every=0.05)
                assert seen.states > before
        finally:
            await control_plane.kubectl("delete", "clusterrole,clusterrolebinding", namespace)

    async def test_a_watch_that_ends(self, client: api.Client, namespace: str) -> None:
        """A reflector that breaks ends the first listing with its error, and is told by `failed` later."""
        async with watching(client, namespace) as seen:

            def breaks(_: Any) -> None:
                raise RuntimeError("broken store")

            seen.mirror.namespaces.upsert = breaks  # type: ignore[method-assign]
            with pytest.raises(RuntimeError, match="broken store"):
                await started(seen)
            assert seen.watches.failed.done()


class TestNeed:
    """What is watched follows what is needed."""

    async def test_names_come_and_go(self, client: api.Client, namespace: str) -> None:
        """A new Secret name is watched from then on; one that is not needed any more is not."""
        async with watching(client, namespace) as seen:
            await started(seen)
            await put(client, namespace, "second")
            seen.watches.need(frozenset({"regcred", "second"}), [])

            async def known() -> bool:
                return seen.mirror.secrets.get(namespace, "second") is not None and seen.watches.synced("second")

            await eventually(known, "the second name", every=0.02)
            states = seen.states
            seen.watches.need(frozenset({"regcred"}), [])
            assert not seen.watches.synced("second")
            await asyncio.sleep(0)
            assert (
                len([task for task in asyncio.all_tasks() if task.get_name() == "reflector secrets second"]) == 0
            )
            seen.watches.need(frozenset({"regcred"}), [])
            assert seen.states == states

    async def test_the_operators_own_sources(self, client: api.Client, namespace: str) -> None:
        """A change, a deletion and a return of a source in the operator's namespace are told."""
        async with watching(client, namespace) as seen:
            await put(client, namespace, "source")
            seen.watches.need(frozenset({"regcred"}), [(namespace, "source")])
            await started(seen)
            version = await put(client, namespace, "source", "w")
            await seen.told(namespace, "source", lambda told: told == version)
            await client.request("DELETE", f"/api/v1/namespaces/{namespace}/secrets/source")
            await seen.told(namespace, "source", lambda told: told is None)
            version = await put(client, namespace, "source", "x")
            await seen.told(namespace, "source", lambda told: told == version)

    async def test_a_source_that_was_deleted_while_we_did_not_run(
        self, client: api.Client, namespace: str
    ) -> None:
        """A source that somebody reads and that is not there is told as gone, at the start and later."""
        async with watching(client, namespace) as seen:
            seen.watches.need(frozenset({"regcred"}), [(namespace, "missing")])
            await started(seen)
            assert seen.sources.count((namespace, "missing", None)) == 1
            seen.watches.need(frozenset({"regcred"}), [(namespace, "missing"), (namespace, "other")])
            assert seen.sources.count((namespace, "missing", None)) == 1
            assert seen.sources.count((namespace, "other", None)) == 1

    async def test_sources_of_tenants(self, client: api.Client, namespace: str, control_plane: Cluster) -> None:
        """A tenant's source is watched by its name alone, from when it is needed until it is not."""
        tenant = f"{namespace}-tenant"
        await control_plane.kubectl("create", "namespace", tenant)
        try:
            await put(client, tenant, "theirs")
            async with watching(client, namespace) as seen:
                await started(seen)
                seen.watches.need(frozenset({"regcred"}), [(tenant, "theirs"), (tenant, "missing")])
                await seen.told(tenant, "theirs", lambda told: told is not None)
                await seen.told(tenant, "missing", lambda told: told is None)
                await put(client, tenant, "unrelated")
                version = await put(client, tenant, "theirs", "w")
                await seen.told(tenant, "theirs", lambda told: told == version)
                assert not any(name == "unrelated" for _, name, _ in seen.sources)
                params = {watched.collection.title: watched.collection.params for watched in seen.watches}
                assert params[f"source {tenant}/theirs"] == {"fieldSelector": "metadata.name=theirs"}
                seen.watches.need(frozenset({"regcred"}), [])
                assert not any(watched.collection.title.startswith("source ") for watched in seen.watches)
        finally:
            await control_plane.kubectl("delete", "namespace", tenant, "--wait=false")

    async def test_more_sources_than_are_watched(
        self, client: api.Client, namespace: str, control_plane: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Beyond a number of tenants' sources the rest is asked for now and then, and changes arrive all the same."""
        monkeypatch.setattr(watches, "WATCHED", 1)
        monkeypatch.setattr(polling, "_FIRST", 0.1)
        monkeypatch.setattr(polling, "_EVERY", 0.2)
        tenant = f"{namespace}-tenant"
        await control_plane.kubectl("create", "namespace", tenant)
        try:
            for name in ("a", "b", "c"):
                await put(client, tenant, name)
            async with watching(client, namespace) as seen:
                await started(seen)
                wanted = [(tenant, name) for name in ("a", "b", "c", "missing")]
                seen.watches.need(frozenset({"regcred"}), wanted)
                for name in ("a", "b", "c"):
                    await seen.told(tenant, name, lambda told: told is not None)
                await seen.told(tenant, "missing", lambda told: told is None)
                watched = {each.collection.title for each in seen.watches}
                assert {f"source {tenant}/{name}" for name in "abc"} & watched == {f"source {tenant}/a"}
                for name in ("a", "b", "c"):
                    version = await put(client, tenant, name, "w")
                    await seen.told(tenant, name, lambda told, version=version: told == version)
                await client.request("DELETE", f"/api/v1/namespaces/{tenant}/secrets/c")
                await seen.told(tenant, "c", lambda told: told is None)
                # What is watched already stays so; what is needed no more is not asked for.
                seen.watches.need(frozenset({"regcred"}), [(tenant, "a")])
                version = await put(client, tenant, "b", "x")
                await seen.told(tenant, "a", lambda told: told is not None)
                assert (tenant, "b", version) not in seen.sources
        finally:
            await control_plane.kubectl("delete", "namespace", tenant, "--wait=false")

    async def test_a_tenant_that_has_not_allowed_it(self, control_plane: Cluster, namespace: str) -> None:
        """A tenant's source that may not be read holds up nobody, and is followed once it is allowed."""
        await control_plane.kubectl("create", "serviceaccount", "op", f"--namespace={namespace}")
        binding = ("--clusterrole=view", f"--serviceaccount={namespace}:op")
        await control_plane.kubectl("create", "clusterrolebinding", namespace, *binding)
        tenant = f"{namespace}-tenant"
        await control_plane.kubectl("create", "namespace", tenant)
        try:
            path = await control_plane.kubeconfig_for_service_account(namespace, "op")
            async with client_of(path) as client, client_of(control_plane.admin_kubeconfig) as admin:
                version = await put(admin, tenant, "theirs")
                async with watching(client, namespace) as seen:
                    seen.watches.need(frozenset(), [(tenant, "theirs")])
                    (watched,) = seen.watches

                    async def refused() -> bool:
                        return isinstance(watched.error, errors.Forbidden)

                    await eventually(refused, "the refusal", every=0.02)
                    # Just as the resource's own message says it (credentials/federation.py).
                    role = ("--verb=get,list,watch", "--resource=secrets", "--resource-name=theirs")
                    await control_plane.kubectl("-n", tenant, "create", "role", "theirs", *role)
                    await control_plane.kubectl(
                        *("-n", tenant, "create", "rolebinding", "theirs", "--role=theirs"),
                        f"--serviceaccount={namespace}:op",
                    )
                    await seen.told(tenant, "theirs", lambda told: told == version)
        finally:
            await control_plane.kubectl("delete", "clusterrolebinding", namespace)
            await control_plane.kubectl("delete", "namespace", tenant, "--wait=false")


class TestSources:
    """`watches.Sources` by itself."""

    @staticmethod
    def made(*expected: str) -> tuple[watches.Sources, list[tuple[str, str | None]]]:
        told: list[tuple[str, str | None]] = []
        sources = watches.Sources("home", lambda _, name, version: told.append((name, version)), expected)
        return sources, told

    @staticmethod
    def body(name: str, version: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "namespace": "home", "resourceVersion": version}}

    def test_only_changes_are_told(self) -> None:
        """The same version twice, as a new list brings it, is no news."""
        sources, told = self.made()
        sources.upsert(self.body("a", "1"))
        sources.upsert(self.body("a", "1"))
        sources.replace([("home", "a")], "5")
        sources.upsert(self.body("a", "2"))
        assert told == [("a", "1"), ("a", "2")]

    def test_what_a_list_lacks_is_gone(self) -> None:
        """A deletion that no stream told of is noticed by the next list."""
        sources, told = self.made()
        sources.upsert(self.body("a", "1"))
        sources.upsert(self.body("b", "2"))
        sources.replace([("home", "b")], "5")
        sources.remove(self.body("b", "9"))
        sources.remove(self.body("b", "9"))
        assert told == [("a", "1"), ("b", "2"), ("a", None), ("b", None)]

    def test_nothing_is_missing_before_the_first_list(self) -> None:
        """What has not been listed yet is not called missing."""
        sources, told = self.made("a", "b")
        sources.expect(["a", "b", "c"])
        sources.upsert(self.body("a", "1"))
        assert told == [("a", "1")]
        sources.replace([("home", "a")], "5")
        assert sorted(told[1:]) == [("b", None), ("c", None)]


async def test_with_the_operators_own_permissions(control_plane: Cluster, namespace: str) -> None:
    """Everything is watched with what the manifests allow, and they reach no Secret of another name."""
    text = Path("manifests/base/rbac.yaml").read_text().replace("regcred-system", namespace)
    manifests = [body for body in yaml.safe_load_all(text) if body]
    # Under names of this test's own: the manifests themselves may be at work elsewhere.
    for body in manifests:
        if body["kind"].startswith("ClusterRole"):
            body["metadata"]["name"] = f"{namespace}-{body['metadata']['name']}"
        if body.get("roleRef", {}).get("kind") == "ClusterRole":
            body["roleRef"]["name"] = f"{namespace}-{body['roleRef']['name']}"
    await control_plane.apply(*manifests)
    try:
        path = await control_plane.kubeconfig_for_service_account(namespace, "regcred")
        async with client_of(path) as client, watching(client, namespace) as seen:
            await started(seen)
            assert seen.watches.synced("regcred")
            with pytest.raises(errors.Forbidden):
                await client.get("/api/v1/namespaces/default/secrets/other")
            with pytest.raises(errors.Forbidden):
                _ = [page async for page in client.pages("/api/v1/secrets")]
    finally:
        for body in manifests:
            if body["kind"].startswith("ClusterRole"):
                await control_plane.kubectl("delete", body["kind"], body["metadata"]["name"])
