"""What can go wrong on the way to an ACR login: each failure has its class, its reason, and words that help."""

from __future__ import annotations

import dataclasses
import datetime as dt
import email.utils
import json
import logging
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.certificates import private_pem, rsa_key, self_signed
from dev.clouds.azure import TENANT, Application, AzureCloud, Federation, aadsts_body
from dev.clouds.local import Fault
from regcred.credentials import exchange, provider
from regcred.credentials.providers.acr import entra as acr_entra
from regcred.credentials.providers.acr import errors as acr_errors
from regcred.credentials.providers.acr import identity as acr_identity
from regcred.credentials.providers.acr import provider as acr
from tests.credentials.acr_support import (
    CLIENT,
    HOST,
    ISSUER,
    OTHER,
    RESOURCE_ID,
    SECRET,
    Namespace,
    ask,
    azure,
    by_account,
    by_secret,
    cloud,
    cluster_key,
    namespace,
    pair,
)

__all__ = ["azure", "cloud", "cluster_key", "namespace", "pair"]

DENIED, RETRYABLE, THROTTLED, INVALID = (
    provider.Denied,
    provider.Retryable,
    provider.Throttled,
    provider.InvalidSpec,
)
PORTAL = Fault(200, "<html>Please log in. canary access_token refresh_token</html>")
ECHO = "canary-echoed-secret"


async def failure(entry: provider.Ask) -> provider.ProviderError:
    """Fetch, and return the error after a look at what every error must keep to."""
    with pytest.raises(provider.ProviderError) as caught:
        await acr.AcrProvider().fetch(entry)
    error = caught.value
    shown = "".join(traceback.format_exception(error)) + repr(error) + error.field
    assert "canary" not in shown
    assert "Trace ID" not in shown
    assert error.__cause__ is None
    assert error.__context__ is None
    assert re.fullmatch("[A-Z][A-Za-z]+", error.reason)
    assert error.message.endswith(".")
    assert len(error.message) < 500
    return error


def outcome(error: provider.ProviderError) -> tuple[type[provider.ProviderError], str]:
    """The two things that decide what happens next, and what a person sees first."""
    return type(error), error.reason


class TestEntra:
    @pytest.mark.parametrize("number", acr_errors.REFUSALS)
    async def test_number(self, number: int, azure: AzureCloud, namespace: Namespace) -> None:
        """Each refusal that Microsoft has a number for becomes its class and names the number, and nothing else."""
        row = acr_errors.REFUSALS[number]
        azure.fail("entra", Fault(400, aadsts_body(number, text=f"canary {ECHO}")))
        error = await failure(by_secret(namespace))
        assert outcome(error) == (row.error, row.reason)
        assert f"(AADSTS{number})" in error.message
        assert "{" not in error.message
        assert error.stalled == issubclass(row.error, DENIED)

    async def test_unknown_number(self, azure: AzureCloud, namespace: Namespace) -> None:
        """A number that is not known is retried, and the message says where it is explained."""
        azure.fail("entra", Fault(400, aadsts_body(7654321)))
        error = await failure(by_secret(namespace))
        assert outcome(error) == (RETRYABLE, "Refused")
        assert "AADSTS7654321" in error.message
        assert "login.microsoftonline.com/error" in error.message

    @pytest.mark.parametrize(
        ("fault", "expected"),
        [
            (Fault(429, aadsts_body(90033), {"Retry-After": "17"}), (THROTTLED, 17)),
            (Fault(429, "slow down"), (THROTTLED, exchange.PATIENCE)),
            (Fault(503, aadsts_body(90033), {"Retry-After": "7"}), (THROTTLED, 7)),
            (Fault(503, "", {"Retry-After": "999999"}), (THROTTLED, exchange.MAX_PATIENCE)),
            (Fault(400, aadsts_body(50196)), (THROTTLED, 300)),
            (Fault(500, aadsts_body(50196)), (THROTTLED, 300)),
        ],
    )
    async def test_patience(
        self, fault: Fault, expected: tuple[type, float], azure: AzureCloud, namespace: Namespace
    ) -> None:
        """A request for patience is honoured as asked, within reason, and never slept through inside."""
        azure.fail("entra", fault, times=2)
        error = await failure(by_secret(namespace))
        assert isinstance(error, THROTTLED)
        assert (type(error), error.after) == expected
        assert azure.calls["entra"] == 1

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            (Fault(500, aadsts_body(7654321)), "ProviderUnavailable"),
            (Fault(502, "<html>canary</html>"), "ProviderUnavailable"),
            (Fault(504), "ProviderUnavailable"),
            (PORTAL, "UnexpectedAnswer"),
            (Fault(200, {"canary": ECHO}), "UnexpectedAnswer"),
            (Fault(200, {"access_token": ECHO}), "UnexpectedAnswer"),
            (Fault(200, "[]", content_type="application/json"), "UnexpectedAnswer"),
            (Fault(200, "{", content_type="application/json"), "UnexpectedAnswer"),
            (Fault(200, ""), "UnexpectedAnswer"),
            (Fault(403, "<html>canary proxy</html>"), "UnexpectedAnswer"),
            (Fault(407), "Unreachable"),
            (Fault(400, {"error": "invalid_request", "error_description": "canary"}), "UnexpectedAnswer"),
            (Fault(cut=True), "Unreachable"),
            (Fault(200, "x" * (exchange.MAX_BODY + 1)), "Unreachable"),
        ],
        ids=range(14),
    )
    async def test_passing(self, fault: Fault, reason: str, azure: AzureCloud, namespace: Namespace) -> None:
        """Whatever a proxy, a portal or a fault of Azure's answers is retried, since it says nothing about us."""
        azure.fail("entra", fault, times=2)
        assert outcome(await failure(by_secret(namespace))) == (RETRYABLE, reason)

    async def test_redirect(self, azure: AzureCloud, namespace: Namespace) -> None:
        """A client secret is not carried along a redirect."""
        azure.fail("entra", Fault(307, "", {"Location": f"{azure.origin}/stolen"}), times=2)
        assert outcome(await failure(by_secret(namespace))) == (RETRYABLE, "Redirected")
        assert azure.stolen == []

    async def test_hang(self, azure: AzureCloud, namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
        """An Entra that never answers is given up."""
        monkeypatch.setattr(acr_entra, "TIMEOUT", 0.3)
        azure.fail("entra", Fault(hang=True), times=2)
        assert outcome(await failure(by_secret(namespace))) == (RETRYABLE, "Unreachable")

    async def test_lost_connection_is_tried_again(self, azure: AzureCloud, namespace: Namespace) -> None:
        """One lost connection is no failure yet."""
        azure.fail("entra", Fault(cut=True))
        assert (await acr.AcrProvider().fetch(by_secret(namespace))).identity == CLIENT

    @pytest.mark.parametrize(
        ("address", "text"),
        [
            ("https://127.0.0.1:1", "refused or broke off"),
            ("https://login.example.invalid", "does not resolve"),
        ],
    )
    @pytest.mark.usefixtures("azure")
    async def test_unreachable(
        self, address: str, text: str, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An Entra that cannot be reached is named with the cause in our words."""
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", address)
        error = await failure(by_secret(namespace))
        assert outcome(error) == (RETRYABLE, "Unreachable")
        assert text in error.message

    @pytest.mark.usefixtures("azure")
    async def test_proxy(self, namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
        """Entra is asked through the environment's proxy, which is named when it is the culprit."""
        monkeypatch.setenv("https_proxy", "127.0.0.1:1")
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("NO_PROXY", "")
        error = await failure(by_secret(namespace))
        assert outcome(error) == (RETRYABLE, "Unreachable")
        assert "proxy" in error.message

    @pytest.mark.usefixtures("azure")
    async def test_untrusted(self, namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
        """A certificate of an unknown CA gets no secret, and the message says where a private CA goes."""
        monkeypatch.delenv("SSL_CERT_FILE")
        error = await failure(by_secret(namespace))
        assert outcome(error) == (RETRYABLE, "Unreachable")
        assert "SSL_CERT_FILE" in error.message

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"secret": "another"}, (DENIED, "SecretWrong")),
            ({"secret": ""}, (DENIED, "SecretWrong")),
            ({"secret_expired": True}, (DENIED, "SecretExpired")),
            ({"client": OTHER}, (DENIED, "ClientUnknown")),
        ],
    )
    async def test_secret(
        self, change: dict[str, Any], expected: tuple[type, str], azure: AzureCloud, namespace: Namespace
    ) -> None:
        """A secret that does not fit is refused, and the Secret that holds it or the field is named."""
        changed = dataclasses.replace(azure.applications.pop(CLIENT), **change)
        azure.register(changed)
        error = await failure(by_secret(namespace))
        assert outcome(error) == expected
        assert "team-a/sp" in error.message or "acr.clientId" in error.message

    @pytest.mark.usefixtures("azure")
    async def test_tenant(self, namespace: Namespace) -> None:
        """A tenant that this cloud does not know is named."""
        entry = ask(namespace, secretRef={"name": "sp"}, tenantId="fabrikam.example", clientId=CLIENT)
        error = await failure(entry)
        assert outcome(error) == (DENIED, "TenantUnknown")
        assert "fabrikam.example" in error.message

    @pytest.mark.usefixtures("azure")
    async def test_audience(self, namespace: Namespace) -> None:
        """An audience that the tenant does not know is named."""
        error = await failure(by_secret(namespace, audience="https://containerregistry.example.net"))
        assert outcome(error) == (DENIED, "AudienceUnknown")
        assert "https://containerregistry.example.net" in error.message

    @pytest.mark.usefixtures("azure")
    async def test_certificate(self, namespace: Namespace) -> None:
        """A certificate that is not registered with the application is refused as such."""
        key = rsa_key()
        pem = self_signed(key, "another")
        namespace.secrets["sp"] = {"tls.crt": pem.encode(), "tls.key": private_pem(key).encode()}
        assert outcome(await failure(by_secret(namespace))) == (DENIED, "CertificateUnknown")

    @pytest.mark.parametrize(
        ("claims", "expected"),
        [
            ({"iss": "https://unknown.test"}, (DENIED, "FederationMismatch")),
            ({"aud": ["sts.amazonaws.com"]}, (DENIED, "FederationMismatch")),
            ({"sub": "system:serviceaccount:team-b:puller"}, (DENIED, "FederationMismatch")),
            ({"sub": "system:serviceaccount:team-a:PULLER"}, (DENIED, "FederationMismatch")),
            ({"exp": 1_000_000_000}, (RETRYABLE, "ClockSkew")),
            ({"nbf": 4_000_000_000}, (RETRYABLE, "ClockSkew")),
        ],
    )
    @pytest.mark.usefixtures("azure")
    async def test_federation(
        self, claims: dict[str, Any], expected: tuple[type, str], namespace: Namespace
    ) -> None:
        """A Kubernetes token that does not fit is refused with the subject that Azure should know."""
        namespace.token = claims
        error = await failure(by_account(namespace))
        assert outcome(error) == expected
        assert "system:serviceaccount:team-a:puller" in error.message or error.reason == "ClockSkew"

    async def test_issuer_unreachable(self, azure: AzureCloud, namespace: Namespace) -> None:
        """An issuer whose keys Azure cannot fetch is retried, and named as the cause."""
        azure.issuers.clear()
        azure.register(Application(CLIENT, federations=[Federation(ISSUER, "x")]))
        assert outcome(await failure(by_account(namespace))) == (RETRYABLE, "IssuerUnreachable")

    async def test_clock(self, azure: AzureCloud, namespace: Namespace) -> None:
        """Where Azure's clock and ours differ, the error says by how much and in which direction."""
        past = email.utils.format_datetime(dt.datetime.now(dt.UTC) - dt.timedelta(minutes=42), usegmt=True)
        azure.fail("entra", Fault(401, aadsts_body(700024), {"Date": past}))
        error = await failure(by_account(namespace))
        assert outcome(error) == (RETRYABLE, "ClockSkew")
        assert "42 minutes ahead" in error.message

    async def test_token_file(
        self, azure: AzureCloud, namespace: Namespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """A missing token file of the operator's own is named by its variable, not by its path."""
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "canary"))
        monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
        monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT)
        error = await failure(ask(namespace))
        assert outcome(error) == (RETRYABLE, "IdentityMissing")
        assert "AZURE_FEDERATED_TOKEN_FILE" in error.message
        assert not azure.calls


class TestMetadataService:
    @pytest.mark.parametrize(
        ("block", "text"),
        [
            ({}, "no system-assigned managed identity"),
            ({"clientId": OTHER}, OTHER),
            ({"resourceId": RESOURCE_ID.replace("puller", "nobody")}, "/nobody'"),
        ],
        ids=["system", "client", "resource"],
    )
    async def test_unknown_identity(self, block: dict[str, str], text: str, azure: AzureCloud) -> None:
        """An identity that the node does not have is named."""
        azure.register(Application(CLIENT, resource_id=RESOURCE_ID, assigned=True))
        error = await failure(ask(**block))
        assert outcome(error) == (DENIED, "IdentityMissing")
        assert text in error.message

    @pytest.mark.parametrize(
        ("fault", "expected"),
        [
            (Fault(429, "", {"Retry-After": "5"}), (THROTTLED, "Throttled")),
            (Fault(429, {"error": "canary"}), (THROTTLED, "Throttled")),
            (Fault(500, {"error": "canary"}), (RETRYABLE, "ProviderUnavailable")),
            (Fault(404, "canary"), (RETRYABLE, "UnexpectedAnswer")),
            (Fault(410, "canary"), (RETRYABLE, "UnexpectedAnswer")),
            (Fault(403, "canary unreachable"), (RETRYABLE, "UnexpectedAnswer")),
            (Fault(400, {"error": "canary"}), (RETRYABLE, "UnexpectedAnswer")),
            (PORTAL, (RETRYABLE, "UnexpectedAnswer")),
            (Fault(400, aadsts_body(700016)), (DENIED, "ClientUnknown")),
            (Fault(cut=True), (RETRYABLE, "Unreachable")),
        ],
        ids=range(10),
    )
    async def test_fault(self, fault: Fault, expected: tuple[type, str], azure: AzureCloud) -> None:
        """Every other answer of the metadata service is retried: the node may be young, or the proxy in the way."""
        azure.imds.fail("imds", fault, times=9)
        assert outcome(await failure(ask(clientId=CLIENT))) == expected

    @pytest.mark.usefixtures("azure")
    async def test_absent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Outside Azure the error says what to use in place of a managed identity."""
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")
        error = await failure(ask())
        assert outcome(error) == (RETRYABLE, "Unreachable")
        assert "acr.serviceAccountRef" in error.message

    async def test_no_proxy(self, azure: AzureCloud, monkeypatch: pytest.MonkeyPatch) -> None:
        """The metadata service is asked directly, whatever proxy the environment names."""
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        assert (await acr.AcrProvider().fetch(ask())).identity == CLIENT
        assert azure.imds.calls["imds"] == 1


class TestRegistry:
    async def test_no_role(self, azure: AzureCloud, namespace: Namespace) -> None:
        """An identity without a role is told which role it needs, and where."""
        azure.registries.by_host[HOST].pullers.clear()
        error = await failure(by_secret(namespace))
        assert outcome(error) == (DENIED, "AccessDenied")
        assert all(word in error.message for word in (HOST, CLIENT, "AcrPull"))

    async def test_firewall(self, azure: AzureCloud, namespace: Namespace) -> None:
        """A firewall is told from a missing role."""
        azure.registries.by_host[HOST].firewalled = True
        assert outcome(await failure(by_secret(namespace))) == (DENIED, "FirewallDenied")

    @pytest.mark.usefixtures("azure")
    async def test_unknown(self, namespace: Namespace) -> None:
        """A host that is no registry is refused with the field."""
        error = await failure(by_secret(namespace, server="nobody.azurecr.io"))
        assert outcome(error) == (DENIED, "RegistryMissing")
        assert error.field == "server"

    @pytest.mark.parametrize(
        ("fault", "expected"),
        [
            (Fault(429, {"errors": [{"code": "TOOMANYREQUESTS", "message": "canary"}]}), (THROTTLED, "Throttled")),
            (Fault(503, "", {"Retry-After": "9"}), (THROTTLED, "Throttled")),
            (Fault(500, "canary"), (RETRYABLE, "ProviderUnavailable")),
            (Fault(502, "<html>canary</html>"), (RETRYABLE, "ProviderUnavailable")),
            (Fault(400, "canary"), (RETRYABLE, "UnexpectedAnswer")),
            (PORTAL, (RETRYABLE, "UnexpectedAnswer")),
            (Fault(200, {"access_token": ECHO}), (RETRYABLE, "UnexpectedAnswer")),
            (Fault(200, {"refresh_token": ["canary"]}), (RETRYABLE, "UnexpectedAnswer")),
            (Fault(200, {"refresh_token": "canary with spaces"}), (RETRYABLE, "UnexpectedAnswer")),
            (Fault(200, {"refresh_token": "canary.no.jwt"}), (RETRYABLE, "UnexpectedAnswer")),
            (Fault(200, {"refresh_token": ""}), (RETRYABLE, "UnexpectedAnswer")),
            (Fault(200, "x" * (exchange.MAX_BODY + 1)), (RETRYABLE, "Unreachable")),
            (Fault(cut=True), (RETRYABLE, "Unreachable")),
        ],
        ids=range(13),
    )
    async def test_fault(
        self, fault: Fault, expected: tuple[type, str], azure: AzureCloud, namespace: Namespace
    ) -> None:
        """Whatever else a registry answers, or something before it, is retried."""
        azure.fail("exchange", fault)
        assert outcome(await failure(by_secret(namespace))) == expected

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    async def test_redirect(self, status: int, azure: AzureCloud, namespace: Namespace) -> None:
        """A token of Entra is not carried along a redirect, by the exchange as by the narrowing."""
        for endpoint in ("exchange", "token"):
            azure.fail(endpoint, Fault(status, "", {"Location": f"{azure.origin}/stolen"}))
            error = await failure(by_secret(namespace, scopes=["team/app"]))
            assert outcome(error) == (RETRYABLE, "Redirected")
        assert azure.stolen == []

    async def test_hang(self, azure: AzureCloud, namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
        """A registry that never answers is given up."""
        monkeypatch.setattr(exchange, "TIMEOUT", 0.5)
        azure.fail("exchange", Fault(hang=True))
        assert outcome(await failure(by_secret(namespace))) == (RETRYABLE, "Unreachable")

    async def test_ended_on_arrival(self, azure: AzureCloud, namespace: Namespace) -> None:
        """A token that has ended by our clock is not published; the clock is named."""
        azure.lives["refresh"] = -3600
        error = await failure(by_secret(namespace))
        assert outcome(error) == (RETRYABLE, "ClockSkew")
        assert "clock" in error.message

    @pytest.mark.parametrize("granted", [{}, {"team/app": {CLIENT}}], ids=["nothing", "less"])
    async def test_scope_refused(
        self, granted: dict[str, set[str]], azure: AzureCloud, namespace: Namespace
    ) -> None:
        """A token for fewer repositories than were asked is refused with their names, though the answer was 200."""
        registry = azure.create_registry(HOST)
        registry.repositories = {"other": {CLIENT}, **granted}
        error = await failure(by_secret(namespace, scopes=["team/app", "team/base"]))
        assert outcome(error) == (DENIED, "ScopeDenied")
        assert "team/base" in error.message
        assert ("team/app" in error.message) == (not granted)

    @pytest.mark.parametrize("status", [401, 403])
    async def test_scope_endpoint(self, status: int, azure: AzureCloud, namespace: Namespace) -> None:
        """A registry that refuses to narrow the login is told from one that lets nobody in."""
        azure.fail("token", Fault(status, {"errors": [{"code": "DENIED", "message": "canary"}]}))
        assert outcome(await failure(by_secret(namespace, scopes=["team/app"]))) == (DENIED, "ScopeDenied")


class Recorder(logging.Handler):
    """Keeps every record as text, with its arguments and traceback."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name} {self.format(record)} {record.args!r}")


@pytest.fixture
def log() -> Iterator[Recorder]:
    """Everything that anybody logs at DEBUG, what Azure's SDK and msal keep to themselves too."""
    recorder, names = Recorder(), ("", "azure", "msal", "aiohttp", "asyncio", "urllib3")
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).addHandler(recorder)
        logging.getLogger(name).setLevel(logging.DEBUG)
    yield recorder
    for name, level in before.items():
        logging.getLogger(name).removeHandler(recorder)
        logging.getLogger(name).setLevel(level)


class TestSecrecy:
    @pytest.mark.parametrize("mode", ["secret", "certificate", "account", "managed", "scopes"])
    @pytest.mark.usefixtures("azure")
    async def test_success(self, mode: str, namespace: Namespace, pair: Any, log: Recorder) -> None:
        """No secret, key, Kubernetes token, Entra token or login stands in a log at DEBUG, a key or a repr."""
        if mode == "certificate":
            namespace.secrets["sp"] = {"certificate": pair.bundle, "certificatePassword": b"canary-password"}
        entry = {
            "secret": by_secret(namespace),
            "certificate": by_secret(namespace),
            "account": by_account(namespace),
            "managed": ask(namespace),
            "scopes": by_secret(namespace, scopes=["team/app"]),
        }[mode]
        tested = acr.AcrProvider()
        grant = await tested.fetch(entry)
        login = grant.logins[provider.ANY_SERVER]
        shown = "\n".join([*log.lines, repr(grant), repr(tested), tested.key(entry), repr(tested.__dict__)])
        assert log.lines, "the recorder sees the SDK's own lines"
        for secret in (SECRET, "canary", login.password, login.auth, namespace.key):
            assert secret not in shown
        # Tokens are JWTs: their second part begins with {" in base64.
        assert "eyJ" not in shown

    async def test_principal(self) -> None:
        """What carries a proof or a token does not show it."""
        principal = acr_identity.Principal(
            acr_identity.Mode.PRINCIPAL, "https://a", proof=b"canary", password=b"canary"
        )
        token = acr_entra.Token("canary", CLIENT, TENANT, 0)
        answer = exchange.Answer(200, {"X": "canary"}, b"canary")
        assert "canary" not in f"{principal!r} {principal} {token!r} {answer!r} {principal.fingerprint()}"

    @pytest.mark.parametrize("status", [400, 401, 500])
    async def test_echo(self, status: int, azure: AzureCloud, namespace: Namespace) -> None:
        """A server that repeats what it was sent gets none of it into our logs: the SDK's loggers are cut off."""
        root = Recorder()
        logging.getLogger().addHandler(root)
        level = logging.getLogger().level
        logging.getLogger().setLevel(logging.DEBUG)
        try:
            for endpoint in ("entra", "exchange"):
                azure.fail(endpoint, Fault(status, aadsts_body(7000215, text=f"you sent {ECHO} {SECRET}")))
                error = await failure(by_secret(namespace))
                assert ECHO not in str(error)
        finally:
            logging.getLogger().removeHandler(root)
            logging.getLogger().setLevel(level)
        assert "canary" not in json.dumps(root.lines)
