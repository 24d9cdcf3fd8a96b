"""The provider `quay-federation` against a local Quay that checks the Kubernetes token it is sent."""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib.metadata
import logging
import re
import ssl
import time
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
import yaml
from regcred_quay_federation import QuayFederation
from regcred_quay_federation.provider import _checked, _refusal

from dev.certificates import Authority, private_pem, public_pem, rsa_key
from dev.clouds.issuers import Issuer
from dev.clouds.local import Fault
from dev.clouds.quay import Federation, Quay
from dev.controlplane import start_control_plane
from regcred.api import spec
from regcred.cluster import client as api
from regcred.credentials import exchange, federation, provider, testing

ROBOT = "shop+puller"
ISSUER = "https://issuer.example.test"
SUBJECT = "system:serviceaccount:shop:puller"


class Namespace:
    """Stands in for the cluster: hands out tokens of the account `puller`, signed by a key of the test's own."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.claims: dict[str, Any] = {}
        self.audiences: list[str] = []

    async def read_secret(self, name: str) -> dict[str, bytes]:
        raise AssertionError(f"no Secret is read, {name} neither")

    async def read_service_account(self, name: str) -> provider.ServiceAccount:
        raise AssertionError(f"no account is read, {name} neither")

    async def request_token(self, service_account: str, audience: str, seconds: int = 600) -> str:
        self.audiences.append(audience)
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": f"system:serviceaccount:shop:{service_account}", "aud": [audience]}
        return jwt.encode({**claims, "iat": now, "exp": now + seconds, **self.claims}, self.key, algorithm="RS256")


@pytest.fixture(scope="module")
def key() -> Any:
    """The key of the stand-in cluster's issuer."""
    return rsa_key()


@pytest.fixture
async def quay(key: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Quay]:
    """A Quay whose robot `shop+puller` trusts the service account `shop/puller`, allowed by the administrator."""
    async with Quay(Authority("a private CA")) as running:
        running.trust(Issuer(ISSUER, public_pem(key)))
        running.federate(ROBOT, Federation(ISSUER, SUBJECT, (f"https://{running.host}",)))
        monkeypatch.setenv("REGCRED_QUAY_HOSTS", f"quay.example.com, {running.host}")
        yield running


@pytest.fixture
def namespace(key: Any) -> Namespace:
    """The namespace `shop`."""
    return Namespace(private_pem(key))


def ask(quay: Quay, cluster: Any, **config: Any) -> provider.Ask:
    """An entry as the operator hands it over."""
    return provider.Ask(
        server=quay.host,
        servers=(quay.host,),
        config={"robot": ROBOT, "serviceAccountRef": {"name": "puller"}, **config},
        tenant=True,
        ambient=False,
        namespace="shop",
        ca_bundle=quay.ca,
        cluster=cluster,
    )


async def pull(quay: Quay, grant: provider.Grant, repository: str) -> int:
    """Pull a manifest as docker does, and return the status."""
    login = grant.logins[provider.ANY_SERVER]
    context = ssl.create_default_context(cadata=quay.ca)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        async with session.get(
            f"{quay.origin}/v2/auth",
            params={"scope": f"repository:{repository}:pull"},
            headers={"Authorization": f"Basic {login.auth}"},
        ) as token:
            bearer = (await token.json())["token"]
        manifest = f"{quay.origin}/v2/{repository}/manifests/latest"
        async with session.head(manifest, headers={"Authorization": f"Bearer {bearer}"}) as answer:
            return answer.status


async def failure(entry: provider.Ask) -> provider.ProviderError:
    """The error that a fetch ends in."""
    with pytest.raises(provider.ProviderError) as caught:
        await QuayFederation().fetch(entry)
    assert caught.value.message.endswith(".")
    return caught.value


class TestLogin:
    async def test_pull(self, quay: Quay, namespace: Namespace) -> None:
        """The account's token becomes a login that pulls as the robot, for as long as Quay says."""
        grant = await QuayFederation().fetch(ask(quay, namespace))
        assert grant.identity == grant.logins[provider.ANY_SERVER].username == ROBOT
        assert grant.expires_at is not None
        assert abs(grant.expires_at - grant.issued_at - dt.timedelta(hours=1)) < dt.timedelta(minutes=1)
        assert await pull(quay, grant, "shop/web") == 200
        assert await pull(quay, grant, "other/web") == 401

    async def test_audience(self, quay: Quay, namespace: Namespace) -> None:
        """The token is for this Quay alone, or for the audience that the entry names."""
        await QuayFederation().fetch(ask(quay, namespace))
        quay.robots[ROBOT] = [Federation(ISSUER, SUBJECT, ("quay",))]
        await QuayFederation().fetch(ask(quay, namespace, audience="quay"))
        assert namespace.audiences == [f"https://{quay.host}", "quay"]

    async def test_short_life(self, quay: Quay, namespace: Namespace) -> None:
        """No life is assumed."""
        quay.life = 60
        grant = await QuayFederation().fetch(ask(quay, namespace))
        assert grant.expires_at is not None
        assert grant.expires_at - grant.issued_at < dt.timedelta(minutes=2)


class TestConfig:
    @pytest.mark.parametrize(
        ("config", "field"),
        [
            (None, "plugin.config"),
            ([], "plugin.config"),
            ({}, "plugin.config.serviceAccountRef"),
            ({"serviceAccountRef": {"name": "puller"}}, "plugin.config.robot"),
            ({"robot": ROBOT}, "plugin.config.serviceAccountRef"),
            ({"robot": ROBOT, "serviceAccountRef": "puller"}, "plugin.config.serviceAccountRef"),
            ({"robot": ROBOT, "serviceAccountRef": {}}, "plugin.config.serviceAccountRef.name"),
            ({"robot": ROBOT, "serviceAccountRef": {"name": ""}}, "plugin.config.serviceAccountRef.name"),
            ({"robot": ROBOT, "serviceAccountRef": {"name": "a/b"}}, "plugin.config.serviceAccountRef.name"),
            (
                {"robot": ROBOT, "serviceAccountRef": {"name": "a", "namespace": "kube-system"}},
                "plugin.config.serviceAccountRef.namespace",
            ),
            ({"robot": "puller", "serviceAccountRef": {"name": "a"}}, "plugin.config.robot"),
            ({"robot": "shop+a:b", "serviceAccountRef": {"name": "a"}}, "plugin.config.robot"),
            ({"robot": 7, "serviceAccountRef": {"name": "a"}}, "plugin.config.robot"),
            ({"robot": ROBOT, "serviceAccountRef": {"name": "a"}, "audience": ""}, "plugin.config.audience"),
            ({"robot": ROBOT, "serviceAccountRef": {"name": "a"}, "audience": 1}, "plugin.config.audience"),
            ({"robot": ROBOT, "serviceAccountRef": {"name": "a"}, "robots": "x"}, "plugin.config.robots"),
        ],
        ids=str,
    )
    async def test_path(self, config: Any, field: str, quay: Quay, namespace: Namespace) -> None:
        """A field that is wrong, missing or unknown is named by its path before anything is sent."""
        entry = dataclasses.replace(ask(quay, namespace), config=config)
        error = await failure(entry)
        assert isinstance(error, provider.InvalidSpec)
        assert error.field == field
        assert error.message.startswith(field)
        assert not quay.calls
        with pytest.raises(provider.InvalidSpec):
            QuayFederation().key(entry)

    @pytest.mark.parametrize(
        "server",
        ["evil.example.com", "quay.io.evil.example", "quay.io:8443", "127.0.0.1", "169.254.169.254", "", "*"],
    )
    async def test_host(self, server: str, quay: Quay, namespace: Namespace) -> None:
        """A host that the administrator does not name never gets a token, as server or as alias."""
        plain = ask(quay, namespace)
        error = await failure(dataclasses.replace(plain, server=server, servers=(server,)))
        assert (error.reason, error.field) == ("HostNotAllowed", "server")
        error = await failure(dataclasses.replace(plain, servers=(plain.server, server)))
        assert (error.reason, error.field) == ("HostNotAllowed", "aliases")
        assert namespace.audiences == []

    def test_known_hosts(self, quay: Quay, namespace: Namespace) -> None:
        """quay.io is always allowed, with a prefix too; the administrator's hosts besides."""
        for server in ("quay.io", "quay.io/shop/", "quay.example.com"):
            entry = dataclasses.replace(ask(quay, namespace), server=server, servers=(server,))
            assert QuayFederation().key(entry)

    def test_key(self, quay: Quay, namespace: Namespace) -> None:
        """Robot, account, namespace, audience and trust each make a fetch of its own; a prefix does not."""
        plain, tested = ask(quay, namespace), QuayFederation()
        others = [
            ask(quay, namespace, robot="shop+other"),
            ask(quay, namespace, serviceAccountRef={"name": "other"}),
            ask(quay, namespace, audience="quay"),
            dataclasses.replace(plain, namespace="team"),
            dataclasses.replace(plain, ca_bundle=""),
        ]
        assert len({tested.key(entry) for entry in (plain, *others)}) == 6
        prefixed = dataclasses.replace(plain, server=f"{quay.host}/shop/", servers=(f"{quay.host}/shop/",))
        assert tested.key(prefixed) == tested.key(plain)
        assert tested.sources(plain) == []


class TestErrors:
    @pytest.mark.parametrize(
        "claims",
        [
            {"iss": "https://other.test"},
            {"sub": "system:serviceaccount:shop:other"},
            {"aud": "x"},
            {"exp": 1_000_000},
        ],
        ids=str,
    )
    async def test_refused(self, claims: dict[str, Any], quay: Quay, namespace: Namespace) -> None:
        """A token that the robot does not trust is refused with what its federation must name."""
        namespace.claims = claims
        error = await failure(ask(quay, namespace))
        assert (type(error), error.reason) == (provider.Denied, "RobotDenied")
        assert SUBJECT in error.message

    @pytest.mark.parametrize(
        ("fault", "kind", "reason"),
        [
            (Fault(404), provider.Denied, "FederationMissing"),
            (Fault(403, "canary"), provider.Denied, "RobotDenied"),
            (Fault(400, {"error": "canary"}), provider.Retryable, "UnexpectedAnswer"),
            (Fault(429, "", {"Retry-After": "8"}), provider.Throttled, "Throttled"),
            (Fault(500, "canary"), provider.Retryable, "ProviderUnavailable"),
            (Fault(302, "", {"Location": "/stolen"}), provider.Retryable, "Redirected"),
            (Fault(200, "<html>canary</html>"), provider.Retryable, "UnexpectedAnswer"),
            (Fault(200, {"token": "canary"}), provider.Retryable, "UnexpectedAnswer"),
            (Fault(200, {"token": ["canary"]}), provider.Retryable, "UnexpectedAnswer"),
            (Fault(cut=True), provider.Retryable, "Unreachable"),
        ],
        ids=range(10),
    )
    async def test_fault(self, fault: Fault, kind: type, reason: str, quay: Quay, namespace: Namespace) -> None:
        """Each failure has its class and reason, and none of the foreign text; no redirect gets the token."""
        quay.fail("federation", fault, times=3)
        error = await failure(ask(quay, namespace))
        assert (type(error), error.reason) == (kind, reason)
        assert "canary" not in str(error)
        assert quay.calls["stolen"] == 0

    async def test_ended(self, quay: Quay, namespace: Namespace) -> None:
        """A login that has ended already is not handed on."""
        quay.life = -60
        assert (await failure(ask(quay, namespace))).reason == "ClockSkew"

    async def test_untrusted(self, quay: Quay, namespace: Namespace) -> None:
        """A Quay with an unknown CA gets no token."""
        error = await failure(dataclasses.replace(ask(quay, namespace), ca_bundle=""))
        assert "tls.caBundle" in error.message
        assert not quay.calls

    async def test_secrecy(self, quay: Quay, namespace: Namespace, caplog: pytest.LogCaptureFixture) -> None:
        """Neither the Kubernetes token nor the login stands in a log, a key or a repr."""
        caplog.set_level(logging.DEBUG)
        entry = ask(quay, namespace)
        grant = await QuayFederation().fetch(entry)
        shown = f"{caplog.text} {grant!r} {QuayFederation().key(entry)}"
        assert "eyJ" not in shown
        assert grant.logins[provider.ANY_SERVER].auth not in shown


class TestReadme:
    TEXT = (Path(__file__).parents[1] / "README.md").read_text()

    def entry(self, **changes: Any) -> provider.Ask:
        """The entry of the README."""
        [block] = re.findall(r"```yaml\n(.*?)```", self.TEXT, re.DOTALL)
        document = next(iter(yaml.safe_load_all(block)))
        [registry] = spec.RegistryCredentialSpec.model_validate(document["spec"]).registries
        plain = testing.ask(registry.server, registry.provider_config, testing.Namespace())
        return dataclasses.replace(plain, **changes)

    def test_resource(self) -> None:
        """The resource in the README is accepted by the API and by the provider."""
        assert QuayFederation().key(self.entry()) == "quay-federation|quay.io|shop+puller|team-a/puller|"

    def test_messages(self) -> None:
        """The messages in the README are the ones that people see."""
        config, host = _checked(self.entry())
        seen = [
            _refusal(exchange.Answer(status, {}, b""), host, config, "team-a").message for status in (401, 404)
        ]
        for entry in (
            self.entry(server="quay.example.com", servers=("quay.example.com",)),
            self.entry(config={"serviceAccountRef": {"name": "puller"}}),
        ):
            with pytest.raises(provider.InvalidSpec) as error:
                QuayFederation().key(entry)
            seen.append(error.value.message)
        [table] = re.findall(r"\| Missing \| Message \|\n\|---\|---\|\n((?:\|.*\n)+)", self.TEXT)
        assert {row.rstrip(" |").rpartition(" | ")[2] for row in table.splitlines()} == set(seen)


class TestPackage:
    def test_entry_point(self) -> None:
        """The package's entry point leads to a class that follows the protocol, under the name it is known by."""
        project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
        [(name, value)] = project["entry-points"]["regcred.providers"].items()
        made = importlib.metadata.EntryPoint(name, value, "regcred.providers").load()()
        assert isinstance(made, provider.Provider)
        assert made.name == name
        assert not made.serves("quay.io")


class TestRealCluster:
    @pytest.fixture
    async def reader(self, quay: Quay) -> AsyncIterator[Any]:
        """The operator's reader of a namespace on a real control plane, whose issuer Quay trusts."""
        async with start_control_plane() as cluster:
            if cluster.public_key is None:
                pytest.skip("the public key of this cluster's token issuer is not known")
            quay.trust(Issuer.of(cluster.issuer, cluster.public_key))
            quay.robots[ROBOT] = [Federation(cluster.issuer, SUBJECT, (f"https://{quay.host}",))]
            await cluster.apply(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
                {
                    "apiVersion": "v1",
                    "kind": "ServiceAccount",
                    "metadata": {"name": "puller", "namespace": "shop"},
                },
                {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "other", "namespace": "shop"}},
            )
            client = api.Client(api.login(str(cluster.admin_kubeconfig)))
            yield federation.NamespaceReader(client, "shop", operator_account="regcred-system/regcred")
            await client.close()

    async def test_federation(self, quay: Quay, reader: Any) -> None:
        """A real service account pulls, another one does not, and nothing is stored anywhere."""
        grant = await QuayFederation().fetch(ask(quay, reader))
        assert await pull(quay, grant, "shop/web") == 200
        error = await failure(ask(quay, reader, serviceAccountRef={"name": "other"}))
        assert error.reason == "RobotDenied"
