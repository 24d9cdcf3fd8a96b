"""What a provider may ask of the cluster, on the real API server: one namespace, and tokens for one audience."""

from __future__ import annotations

import base64
import functools
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dev.waiting import eventually
from regcred.cluster import client as api
from regcred.cluster import errors
from regcred.credentials import federation, provider
from tests.cluster.fake_api import client_of, fake_api, kubeconfig, refuses, says

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from dev.cluster import Cluster
    from dev.controlplane import ControlPlane

OPERATOR = "regcred-system/regcred"
AUDIENCE = "sts.amazonaws.com"
#: Names that lead elsewhere if they get into a path.
TRAPS = (
    "..",
    ".",
    "",
    "../../other/secrets/x",
    "../../../../api/v1/namespaces/kube-system/secrets/x",
    "x/../y",
    "x/y",
    "x%2f..%2fy",
    "%2e%2e",
    "x?watch=true",
    "x#y",
    "x y",
    "x\ny",
    "X",
    "x\u0000",
    "\uff0e\uff0e",
    "a..b",
    "-x",
    "x-",
    ".x",
    "x.",
    "x" * 254,
    "x;y",
    "x\\..\\y",
)


def claims(token: str) -> dict[str, Any]:
    """What a token says of itself."""
    middle = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    return found


@pytest.fixture
async def admin(control_plane: Cluster) -> AsyncIterator[api.Client]:
    """A client of the real API server, as administrator: nothing but the reader itself holds it back."""
    async with client_of(control_plane.admin_kubeconfig) as made:
        yield made


@pytest.fixture
async def reader(admin: api.Client, control_plane: Cluster, namespace: str) -> federation.NamespaceReader:
    """A reader of the test's namespace, where the Secret `source` and the account `puller` are."""
    await control_plane.kubectl(
        "create", "secret", "generic", "source", "--from-literal=password=p", f"--namespace={namespace}"
    )
    await control_plane.kubectl("create", "serviceaccount", "puller", f"--namespace={namespace}")
    await control_plane.kubectl(
        "annotate", "serviceaccount", "puller", "a.example/role=r", f"--namespace={namespace}"
    )
    return federation.NamespaceReader(admin, namespace, operator_account=OPERATOR, block="login")


class TestSecrets:
    """Reading Secrets."""

    async def test_is_decoded(self, reader: federation.NamespaceReader, admin: api.Client, namespace: str) -> None:
        """A Secret comes decoded, with its type, and its version is remembered."""
        assert dict(await reader.read_secret("source")) == {"password": b"p", "": b"Opaque"}
        body = await admin.get(f"/api/v1/namespaces/{namespace}/secrets/source")
        assert reader.versions == {"source": body["metadata"]["resourceVersion"]}

    @pytest.mark.parametrize(
        ("block", "field"),
        [("gcr", "gcr.secretRef.name"), ("plugin.config", "plugin.config"), ("", "secretRef.name")],
    )
    async def test_the_field(self, admin: api.Client, namespace: str, block: str, field: str) -> None:
        """An error names the field below the registry entry; how a plugin names its own is not guessed."""
        reader = federation.NamespaceReader(admin, namespace, operator_account=OPERATOR, block=block)
        with pytest.raises(provider.InvalidSpec) as caught:
            await reader.read_secret("missing")
        assert caught.value.field == field

    async def test_an_empty_one(
        self, reader: federation.NamespaceReader, control_plane: Cluster, namespace: str
    ) -> None:
        """A Secret without data has its type only."""
        await control_plane.kubectl("create", "secret", "generic", "empty", f"--namespace={namespace}")
        assert dict(await reader.read_secret("empty")) == {"": b"Opaque"}

    async def test_a_missing_one(self, reader: federation.NamespaceReader, namespace: str) -> None:
        """What is missing is told with name, namespace and field, and remembered as missing."""
        with pytest.raises(provider.InvalidSpec) as caught:
            await reader.read_secret("missing")
        error = caught.value
        assert (error.reason, error.field, error.stalled) == ("SourceMissing", "login.secretRef.name", True)
        assert error.message == f"the Secret missing does not exist in the namespace {namespace}; create it there"
        assert reader.versions == {"missing": None}

    @pytest.mark.parametrize("name", TRAPS)
    async def test_another_namespace_is_out_of_reach(
        self, reader: federation.NamespaceReader, control_plane: Cluster, name: str
    ) -> None:
        """No name, however written, leads out of the namespace: it is refused before anything is sent."""
        for call in (reader.read_secret, reader.read_service_account):
            with pytest.raises(provider.InvalidSpec) as caught:
                await call(name)
            assert caught.value.reason == "SourceInvalid"
        with pytest.raises(provider.InvalidSpec) as caught:
            await reader.request_token(name, AUDIENCE)
        assert caught.value.reason == "SourceInvalid"


class TestAccounts:
    """Service accounts and their tokens."""

    async def test_an_account(self, reader: federation.NamespaceReader, namespace: str) -> None:
        """An account comes with its UID and its annotations."""
        found = await reader.read_service_account("puller")
        assert (found.namespace, found.name) == (namespace, "puller")
        assert found.uid
        assert found.annotations["a.example/role"] == "r"

    async def test_a_missing_account(self, reader: federation.NamespaceReader) -> None:
        """A missing account is told for reading it as for its token."""
        with pytest.raises(provider.InvalidSpec, match="ServiceAccount missing does not exist") as caught:
            await reader.read_service_account("missing")
        assert caught.value.field == "login.serviceAccountRef.name"
        with pytest.raises(provider.InvalidSpec, match="ServiceAccount missing does not exist"):
            await reader.request_token("missing", AUDIENCE)
        assert reader.versions == {}

    async def test_a_token(self, reader: federation.NamespaceReader, namespace: str) -> None:
        """A token is for one audience, one account, and ten minutes."""
        found = claims(await reader.request_token("puller", AUDIENCE))
        assert found["aud"] == [AUDIENCE]
        assert found["sub"] == f"system:serviceaccount:{namespace}:puller"
        assert found["exp"] - found["iat"] == 600

    async def test_a_shorter_one_is_not_to_be_had(self, reader: federation.NamespaceReader) -> None:
        """The API server gives ten minutes at least, so no less is asked for."""
        found = claims(await reader.request_token("puller", AUDIENCE, 60))
        assert found["exp"] - found["iat"] == 600

    async def test_it_does_not_log_in_here(
        self, reader: federation.NamespaceReader, control_plane: Cluster, tmp_path: Path
    ) -> None:
        """A token for a provider is worth nothing at the API server itself."""
        token = await reader.request_token("puller", AUDIENCE)
        path = tmp_path / "kubeconfig"
        text = (await control_plane.kubeconfig_for_service_account("default", "default")).read_text()
        own = next(line.split()[1] for line in text.splitlines() if "token:" in line)
        path.write_text(text.replace(own, token))
        async with client_of(path) as client:
            with pytest.raises(errors.ApiError, match="401"):
                await client.get("/api/v1/namespaces/default")

    @pytest.mark.parametrize(
        "audience",
        [
            "",
            " ",
            "https://kubernetes.default.svc",
            "https://kubernetes.default.svc/",
            " https://kubernetes.default.svc",
            "https://kubernetes.default.svc.cluster.local",
            "kubernetes",
        ],
    )
    async def test_audiences_of_the_api_server(self, reader: federation.NamespaceReader, audience: str) -> None:
        """An empty audience, or one that the API server takes for itself, is refused."""
        with pytest.raises(provider.InvalidSpec, match="must be the provider's own") as caught:
            await reader.request_token("puller", audience)
        assert caught.value.reason == "SourceInvalid"

    async def test_the_audience_of_this_very_server(
        self, reader: federation.NamespaceReader, control_plane: Cluster, namespace: str
    ) -> None:
        """Whatever this API server calls itself: the operator's own token tells, and that audience is refused."""
        for audience in (control_plane.url, f"{control_plane.url}/"):
            with pytest.raises(provider.InvalidSpec, match="must be the provider's own"):
                await reader.request_token("puller", audience)
        path = await control_plane.kubeconfig_for_service_account(namespace, "puller")
        async with client_of(path) as client:
            own = federation.NamespaceReader(client, namespace, operator_account=OPERATOR)
            own._api_audiences = frozenset()
            for audience in (control_plane.issuer, f"{control_plane.issuer}/"):
                with pytest.raises(provider.InvalidSpec, match="must be the provider's own"):
                    await own.request_token("puller", audience)

    async def test_given_audiences(self, admin: api.Client, namespace: str) -> None:
        """Further audiences of the API server can be named."""
        strict = federation.NamespaceReader(
            admin, namespace, operator_account=OPERATOR, api_audiences=("https://cluster.example",)
        )
        with pytest.raises(provider.InvalidSpec, match="must be the provider's own"):
            await strict.request_token("puller", "https://cluster.example")


async def unless_forbidden(call: Callable[[], Awaitable[Any]]) -> Any:
    """Return what a call returns, or None where it is refused for want of a right."""
    try:
        return await call()
    except provider.InvalidSpec as error:
        if error.reason != "Forbidden":
            raise
        return None


class TestRights:
    """Without permission."""

    async def test_the_advice_works(self, control_plane: Cluster, namespace: str) -> None:
        """The message of a refusal holds commands that, pasted as they are, allow just that."""
        tenant = f"{namespace}-tenant"
        await control_plane.kubectl("create", "namespace", tenant)
        try:
            await control_plane.kubectl("create", "serviceaccount", "op", f"--namespace={namespace}")
            await control_plane.kubectl("create", "serviceaccount", "puller", f"--namespace={tenant}")
            literal = "--from-literal=password=p"
            for name in ("source", "other"):
                await control_plane.kubectl("create", "secret", "generic", name, literal, f"--namespace={tenant}")
            path = await control_plane.kubeconfig_for_service_account(namespace, "op")
            async with client_of(path) as client:
                reader = federation.NamespaceReader(
                    client, tenant, operator_account=f"{namespace}/op", block="ecr"
                )
                for call, field in (
                    (lambda: reader.read_secret("source"), "ecr.secretRef.name"),
                    (lambda: reader.read_service_account("puller"), "ecr.serviceAccountRef.name"),
                    (lambda: reader.request_token("puller", AUDIENCE), "ecr.serviceAccountRef.name"),
                ):
                    with pytest.raises(provider.InvalidSpec) as caught:
                        await call()  # type: ignore[no-untyped-call]
                    assert (caught.value.reason, caught.value.field) == ("Forbidden", field)
                    advice = caught.value.message.partition("with: ")[2]
                    for command in advice.split(" && "):
                        program, *arguments = command.split()
                        assert program == "kubectl"
                        await control_plane.kubectl(*arguments)
                    # The API server learns of a binding by a watch of its own, a moment after it has stored it.
                    allowed = functools.partial(unless_forbidden, call)
                    await eventually(allowed, "the right that was granted", seconds=60)
                with pytest.raises(provider.InvalidSpec):
                    await reader.read_secret("other")

                async def may_watch() -> bool:
                    said = await control_plane.kubectl_run(
                        *("auth", "can-i", "watch", "secrets/source", f"--namespace={tenant}"),
                        kubeconfig=path,
                        check=False,
                    )
                    return bool(said.stdout.strip() == "yes")

                await eventually(may_watch, "the right to watch the source", seconds=60)
        finally:
            await control_plane.kubectl("delete", "namespace", tenant, "--wait=false")

    async def test_an_outage(self, owned_control_plane: ControlPlane, namespace: str) -> None:
        """An API server that is away is no fault of the resource: it is tried again soon."""
        async with client_of(owned_control_plane.admin_kubeconfig) as client:
            reader = federation.NamespaceReader(client, namespace, operator_account=OPERATOR)
            await owned_control_plane.stop_apiserver()
            try:
                for call in (reader.read_secret("x"), reader.request_token("x", AUDIENCE)):
                    with pytest.raises(provider.Retryable) as caught:
                        await call
                    assert caught.value.reason == "ClusterUnavailable"
                    assert not caught.value.stalled
            finally:
                await owned_control_plane.start_apiserver()


def jwt(**said: Any) -> str:
    middle = base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode()
    return f"e30.{middle}.c2ln"


class TestStrangeServers:
    """API servers that do not do what they were asked."""

    @pytest.mark.parametrize(
        "token",
        [
            jwt(aud=["https://kubernetes.default.svc"]),
            jwt(aud=[AUDIENCE, "https://kubernetes.default.svc"]),
            jwt(aud=[]),
            jwt(sub="x"),
            "opaque",
            "",
        ],
    )
    async def test_a_token_for_somebody_else(self, tmp_path: Path, token: str) -> None:
        """A token for other audiences than the one asked for is not handed on, and not shown."""
        async with fake_api() as fake:
            fake.then(says({"metadata": {}, "status": {"token": token}}, status=201))
            async with client_of(kubeconfig(tmp_path / "k", fake.url, {"token": "t"})) as client:
                reader = federation.NamespaceReader(client, "team-a", operator_account=OPERATOR)
                with pytest.raises(provider.InvalidSpec, match="another audience") as caught:
                    await reader.request_token("puller", AUDIENCE)
                assert not token or token not in caught.value.message

    async def test_what_is_sent(self, tmp_path: Path) -> None:
        """Exactly one audience is asked for, in exactly one namespace."""
        async with fake_api() as fake:
            fake.then(says({"metadata": {}, "status": {"token": jwt(aud=[AUDIENCE])}}, status=201))
            async with client_of(kubeconfig(tmp_path / "k", fake.url, {"token": "t"})) as client:
                reader = federation.NamespaceReader(client, "team-a", operator_account=OPERATOR)
                assert await reader.request_token("puller", AUDIENCE) == jwt(aud=[AUDIENCE])
        assert fake.requests[0][:2] == ("POST", "/api/v1/namespaces/team-a/serviceaccounts/puller/token")

    @pytest.mark.parametrize("status", [400, 422, 500])
    async def test_refusals(self, tmp_path: Path, status: int) -> None:
        """Any other refusal is tried again, without the server's words."""
        async with fake_api() as fake:
            fake.then(refuses(status, "Strange", message="c4n4ry"))
            async with client_of(kubeconfig(tmp_path / "k", fake.url, {"token": "t"})) as client:
                reader = federation.NamespaceReader(client, "team-a", operator_account=OPERATOR)
                with pytest.raises(provider.Retryable) as caught:
                    await reader.request_token("puller", AUDIENCE)
                assert "c4n4ry" not in caught.value.message


@settings(max_examples=300)
@given(st.text(max_size=300))
def test_whatever_name(name: str) -> None:
    """A name gets into a path only if it is one path segment that nothing reads as anything else."""
    reader = object.__new__(federation.NamespaceReader)
    reader._namespace, reader._block = "team-a", "login"
    try:
        path = reader._path("secrets", "Secret", name)
    except provider.InvalidSpec:
        return
    assert path == f"/api/v1/namespaces/team-a/secrets/{name}"
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
    assert ".." not in name
