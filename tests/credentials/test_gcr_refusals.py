"""Google's provider when things go wrong: every refusal in the right class and words, nothing sent astray, no leak."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
import logging
import pickle
import re
import traceback
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from dev.certificates import Authority
from dev.clouds.google import GoogleCloud
from dev.clouds.google_faults import CANARY, FAULTS, IAM, METADATA, OAUTH, STS
from dev.clouds.local import Fault, LocalServer
from regcred.credentials import exchange, provider
from regcred.credentials.providers.gcr import GcrProvider
from regcred.credentials.providers.gcr import keys as gcr_keys
from regcred.credentials.providers.gcr import transport as gcr_transport
from regcred.credentials.providers.gcr import verdicts as gcr_verdicts
from tests.credentials import gcr_support as support
from tests.credentials.gcr_support import AUDIENCE, MEMBER, OTHER, PULLER, OneNamespace, ask

Expected = tuple[type[provider.ProviderError], str, str]

#: What each of Google's own refusals is for us: class, reason, and the words that help.
REFUSALS: Mapping[tuple[str, str], Expected] = {
    (OAUTH, "key deleted"): (provider.Denied, "KeyRejected", "Create a new key"),
    (OAUTH, "account deleted"): (provider.Denied, "AccountNotFound", f"no service account {PULLER}"),
    (OAUTH, "account disabled"): (provider.Denied, "KeyRejected", PULLER),
    (OAUTH, "unauthorized"): (provider.Denied, "KeyRejected", PULLER),
    (OAUTH, "clock"): (provider.Retryable, "ClockSkew", "set the clock"),
    (OAUTH, "scope"): (provider.InvalidSpec, "ScopeRefused", "gcr.scopes"),
    (STS, "wrong issuer or keys"): (provider.Denied, "FederationDenied", "issuer URI"),
    (STS, "issuer unreachable"): (provider.Retryable, "IssuerUnreachable", "--jwk-json-path"),
    (STS, "audience not allowed"): (provider.Denied, "AudienceRefused", "--allowed-audiences"),
    (STS, "stale"): (provider.Retryable, "ClockSkew", "control plane"),
    (STS, "no such pool"): (provider.Denied, "PoolNotFound", "gcr.audience"),
    (STS, "condition"): (provider.Denied, "ConditionRefused", MEMBER),
    (STS, "malformed audience"): (provider.InvalidSpec, "AudienceInvalid", "gcr.audience"),
    (STS, "scope"): (provider.InvalidSpec, "ScopeRefused", "gcr.scopes"),
    (STS, "API off"): (provider.Denied, "ApiDisabled", "gcloud services enable sts.googleapis.com"),
    (IAM, "no role"): (provider.Denied, "ImpersonationDenied", f"roles/iam.workloadIdentityUser on {PULLER}"),
    (IAM, "no account"): (provider.Denied, "AccountNotFound", f"no service account {PULLER}"),
    (IAM, "API off"): (provider.Denied, "ApiDisabled", "gcloud services enable iamcredentials.googleapis.com"),
    (IAM, "node scope"): (provider.Denied, "ScopeInsufficient", "cloud-platform"),
    (IAM, "scope"): (provider.InvalidSpec, "ScopeRefused", "gcr.scopes"),
    (IAM, "quota"): (provider.Throttled, "Throttled", "asks for patience"),
    (METADATA, "no identity"): (provider.Denied, "NoIdentity", "Workload Identity Federation for GKE"),
    (METADATA, "no role"): (provider.Denied, "ImpersonationDenied", "roles/iam.workloadIdentityUser"),
    (METADATA, "somebody else"): (provider.Retryable, "UnexpectedAnswer", "did not answer as Google does"),
    (METADATA, "hidden"): (provider.Retryable, "UnexpectedAnswer", "The metadata server"),
}

#: What says nothing about the identity, wherever it comes from.
PASSING: Mapping[str, Expected] = {
    "throttled": (provider.Throttled, "Throttled", "asks for patience"),
    "busy": (provider.Throttled, "Throttled", "asks for patience"),
    "timeout": (provider.Retryable, "ProviderUnavailable", "HTTP 408"),
    "broken": (provider.Retryable, "ProviderUnavailable", "HTTP 500"),
    "unavailable": (provider.Retryable, "ProviderUnavailable", "HTTP 503"),
    "bad gateway": (provider.Retryable, "ProviderUnavailable", "HTTP 502"),
    "redirect": (provider.Retryable, "Redirected", "redirect"),
    "proxy login": (provider.Retryable, "Unreachable", "wants a login"),
    "portal": (provider.Retryable, "UnexpectedAnswer", "portal"),
    "empty object": (provider.Retryable, "UnexpectedAnswer", "portal"),
    "odd token": (provider.Retryable, "UnexpectedAnswer", "portal"),
    "not an object": (provider.Retryable, "UnexpectedAnswer", "portal"),
    "token without end": (provider.Retryable, "UnexpectedAnswer", "portal"),
    "flood": (provider.Retryable, "UnexpectedAnswer", "portal"),
    "blocked": (provider.Retryable, "UnexpectedAnswer", "HTTP 403"),
}


@pytest.fixture
async def cloud() -> AsyncIterator[GoogleCloud]:
    """A Google where every proof of identity works: a key, an account, the machine."""
    async with GoogleCloud() as running:
        support.trust(running)
        running.allow(MEMBER, PULLER)
        running.attached = OTHER
        yield running


@pytest.fixture
def gcr(cloud: GoogleCloud) -> GcrProvider:
    """The provider, sent to that Google."""
    return GcrProvider(cloud.environment())


@pytest.fixture
def cluster(cloud: GoogleCloud) -> OneNamespace:
    """A namespace with a key and an account."""
    made = OneNamespace()
    made.store("key", cloud.create_key(PULLER, support.signing_key()))
    return made


@pytest.fixture
async def attacker() -> AsyncIterator[LocalServer]:
    """A server that counts whatever reaches it."""
    server = LocalServer()

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"access_token": "evil", "expires_in": 3600, "token_type": "Bearer"})

    server.route("*", "/{path:.*}", "anything", answer)
    async with server:
        yield server


def entry_for(endpoint: str, cluster: OneNamespace) -> provider.Ask:
    """Return an ask that comes to an endpoint."""
    return {
        OAUTH: lambda: ask(cluster, support.key_block()),
        STS: lambda: ask(cluster, support.account_block()),
        IAM: lambda: ask(cluster, support.account_block(impersonate=PULLER)),
        METADATA: lambda: ask(cluster, {}, tenant=False),
    }[endpoint]()


def assert_safe(error: provider.ProviderError, *secrets: str) -> None:
    """Check that an error is a sentence of ours, and that nothing foreign hangs on it."""
    shown = "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))
    for secret in (CANARY, "BEGIN PRIVATE", "eyJ", "ya29.", *secrets):
        assert secret not in shown
    assert error.__cause__ is None
    assert error.__context__ is None
    assert re.fullmatch(r"[ -~]{20,420}\.?", error.message)
    assert not {"None", "{", "}"} & set(re.findall(r"None|[{}]", error.message))
    assert re.fullmatch("[A-Z][A-Za-z]+", error.reason)
    assert error.field == "" or error.field.startswith("gcr.")


@pytest.mark.parametrize(("endpoint", "case"), FAULTS)
async def test_every_refusal_has_its_class_and_words(
    gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace, endpoint: str, case: str
) -> None:
    """Each answer of the table ends in its class with fixed words, after one call, and passes when it is healed."""
    kind, reason, words = REFUSALS.get((endpoint, case)) or PASSING[case]
    entry = entry_for(endpoint, cluster)
    cloud.fail(endpoint, FAULTS[endpoint, case], times=9)
    with pytest.raises(provider.ProviderError) as refusal:
        await gcr.fetch(entry)
    error = refusal.value
    assert (type(error), error.reason) == (kind, reason)
    assert words in error.message
    assert_safe(error, *cluster.tokens)
    metadata_asks_twice = endpoint == METADATA and case in {"odd token", "token without end"}
    assert cloud.calls[endpoint] <= (2 if metadata_asks_twice else 1)
    cloud.heal()
    assert (await gcr.fetch(entry)).logins


def test_the_table_is_whole() -> None:
    """Every answer that the local Google knows has its row here, and the other way round."""
    assert set(FAULTS) == set(REFUSALS) | {key for key in FAULTS if key[1] in PASSING}


@pytest.mark.parametrize(("case", "seconds"), [("throttled", 17.0), ("busy", 9.0)])
async def test_patience_is_what_google_asks_for(
    gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace, case: str, seconds: float
) -> None:
    """A Retry-After becomes the wait."""
    cloud.fail(STS, FAULTS[STS, case])
    with pytest.raises(provider.Throttled) as refusal:
        await gcr.fetch(entry_for(STS, cluster))
    assert refusal.value.after == seconds


class TestReal:
    """Refusals that the local Google comes to by itself, by checking what it is sent."""

    async def test_a_deleted_key(self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace) -> None:
        """A key that was deleted at Google is denied, and named."""
        cloud.delete_keys(PULLER)
        with pytest.raises(provider.Denied, match=f"key of {PULLER}") as refusal:
            await gcr.fetch(entry_for(OAUTH, cluster))
        assert refusal.value.field == "gcr.secretRef.name"

    @pytest.mark.parametrize(("ahead", "side"), [(900.0, "behind"), (-900.0, "ahead of")])
    async def test_a_clock_that_is_off_is_named(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace, ahead: float, side: str
    ) -> None:
        """An assertion that Google takes for one of another time is tried again, and says which clock is where."""
        cloud.delete_keys(PULLER)
        cloud.ahead = ahead
        with pytest.raises(provider.Retryable, match=f"15 minutes {side} the provider's") as refusal:
            await gcr.fetch(entry_for(OAUTH, cluster))
        assert refusal.value.reason == "ClockSkew"

    async def test_a_token_that_ended_before_it_came(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """A token that has ended by our clock is not published."""
        cloud.lifetime = -600
        with pytest.raises(provider.Retryable) as refusal:
            await gcr.fetch(entry_for(OAUTH, cluster))
        assert refusal.value.reason == "ClockSkew"

    async def test_a_cluster_that_nobody_trusts(self, gcr: GcrProvider, cluster: OneNamespace) -> None:
        """A token signed by another cluster's key is denied."""
        cluster.key = support.other_key()
        with pytest.raises(provider.Denied, match="issuer URI") as refusal:
            await gcr.fetch(entry_for(STS, cluster))
        assert refusal.value.field == "gcr.audience"

    async def test_a_token_of_another_time(self, gcr: GcrProvider, cluster: OneNamespace) -> None:
        """A token of a control plane whose clock is off is named as that."""
        cluster.issued_at_offset = -7200
        with pytest.raises(provider.Retryable, match="control plane"):
            await gcr.fetch(entry_for(STS, cluster))

    async def test_an_attribute_condition(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """A principal that the provider's condition rejects is denied by name."""
        support.trust(cloud, condition="system:serviceaccount:team-b:.*")
        with pytest.raises(provider.Denied, match=re.escape(MEMBER)) as refusal:
            await gcr.fetch(entry_for(STS, cluster))
        assert refusal.value.reason == "ConditionRefused"

    async def test_another_audience(self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace) -> None:
        """A provider with allowed audiences of its own refuses its name as audience."""
        support.trust(cloud, allowed="https://elsewhere.example.com")
        with pytest.raises(provider.Denied, match="--allowed-audiences"):
            await gcr.fetch(entry_for(STS, cluster))

    @pytest.mark.parametrize(
        ("block", "tenant", "who", "role"),
        [
            (support.account_block(impersonate=OTHER), True, MEMBER, "roles/iam.workloadIdentityUser"),
            (support.key_block(impersonate=OTHER), True, PULLER, "roles/iam.serviceAccountTokenCreator"),
            (
                {"impersonate": PULLER},
                False,
                "the operator's own identity",
                "roles/iam.serviceAccountTokenCreator",
            ),
        ],
    )
    async def test_a_missing_role_is_spelled_out(
        self,
        gcr: GcrProvider,
        cloud: GoogleCloud,
        cluster: OneNamespace,
        *,
        block: dict[str, Any],
        tenant: bool,
        who: str,
        role: str,
    ) -> None:
        """Who lacks which role on whom stands in the message, by the kind of identity."""
        cloud.create_account(OTHER)
        with pytest.raises(provider.Denied) as refusal:
            await gcr.fetch(ask(cluster, block, tenant=tenant))
        target = block["impersonate"]
        assert refusal.value.message.startswith(f"{who} may not act as {target}")
        assert f"Grant it {role} on {target}" in refusal.value.message
        assert_safe(refusal.value)

    async def test_no_identity_on_the_machine(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """A machine without a service account is named, and no field of the resource is blamed."""
        cloud.attached = ""
        with pytest.raises(provider.Denied) as refusal:
            await gcr.fetch(entry_for(METADATA, cluster))
        assert (refusal.value.reason, refusal.value.field) == ("NoIdentity", "")

    async def test_the_operators_own_key_blames_no_field(
        self, cloud: GoogleCloud, cluster: OneNamespace, tmp_path: Path
    ) -> None:
        """When the operator's own key is refused, the resource has no field to correct."""
        file = tmp_path / "key.json"
        file.write_text(json.dumps(cloud.create_key(OTHER, support.other_key())))
        cloud.delete_keys(OTHER)
        gcr = GcrProvider({**cloud.environment(), "GOOGLE_APPLICATION_CREDENTIALS": str(file)})
        with pytest.raises(provider.Denied, match="the key of the operator's own identity") as refusal:
            await gcr.fetch(entry_for(METADATA, cluster))
        assert refusal.value.field == ""


class TestNetwork:
    @pytest.mark.parametrize("endpoint", [OAUTH, STS, IAM, METADATA])
    async def test_nobody_there(self, cloud: GoogleCloud, cluster: OneNamespace, endpoint: str) -> None:
        """An endpoint that refuses connections is tried again, and named."""
        names = dict(
            zip((OAUTH, STS, IAM, METADATA), ("OAUTH2", "STS", "IAMCREDENTIALS", "METADATA"), strict=True)
        )
        environment = {**cloud.environment(), f"REGCRED_GOOGLE_{names[endpoint]}_URL": "http://127.0.0.1:9"}
        with pytest.raises(provider.Retryable) as refusal:
            await GcrProvider(environment).fetch(entry_for(endpoint, cluster))
        assert refusal.value.reason == "Unreachable"
        assert_safe(refusal.value)

    @pytest.mark.parametrize("endpoint", [OAUTH, STS, IAM, METADATA])
    @pytest.mark.parametrize("fault", [Fault(cut=True), Fault(hang=True)], ids=["cut", "hang"])
    async def test_no_answer(
        self,
        gcr: GcrProvider,
        cloud: GoogleCloud,
        cluster: OneNamespace,
        *,
        endpoint: str,
        fault: Fault,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A connection that breaks off or stays silent ends in time, and is tried again by the keeper only."""
        monkeypatch.setattr(gcr_transport, "_READ_SECONDS", 0.3)
        monkeypatch.setattr(gcr_transport, "_METADATA_SECONDS", 0.3)
        cloud.fail(endpoint, fault)
        with pytest.raises(provider.Retryable) as refusal:
            await gcr.fetch(entry_for(endpoint, cluster))
        assert refusal.value.reason == "Unreachable"
        assert cloud.calls[endpoint] == 1
        assert_safe(refusal.value)

    async def test_a_trickle_ends_at_the_deadline(
        self, cloud: GoogleCloud, cluster: OneNamespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An answer that comes byte by byte does not hold the thread."""
        server, ended = LocalServer(), asyncio.Event()

        async def trickle(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            with contextlib.suppress(ConnectionError):
                while not ended.is_set():
                    await response.write(b" ")
                    await asyncio.sleep(0.02)
            return response

        server.route("POST", "/token", OAUTH, trickle)
        monkeypatch.setattr("regcred.credentials.providers.gcr.provider._DEADLINE_SECONDS", 0.5)
        async with server:
            gcr = GcrProvider({**cloud.environment(), "REGCRED_GOOGLE_OAUTH2_URL": server.origin})
            with pytest.raises(provider.Retryable) as refusal:
                await gcr.fetch(entry_for(OAUTH, cluster))
            ended.set()
        assert refusal.value.reason == "UnexpectedAnswer"

    async def test_a_private_authority(self, cluster: OneNamespace, tmp_path: Path) -> None:
        """A certificate that is not trusted is named; with REQUESTS_CA_BUNDLE, or SSL_CERT_FILE, it is trusted."""
        authority = Authority("inspecting proxy")
        bundle = tmp_path / "ca.pem"
        bundle.write_text(authority.certificate)
        async with GoogleCloud(authority) as cloud:
            cluster.store("key", cloud.create_key(PULLER, support.signing_key()))
            environment = {
                name: url.replace("127.0.0.1", "localhost") for name, url in cloud.environment().items()
            }
            with pytest.raises(provider.Retryable, match="TLS certificate is not trusted") as refusal:
                await GcrProvider(environment).fetch(entry_for(OAUTH, cluster))
            assert_safe(refusal.value)
            for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
                grant = await GcrProvider({**environment, name: str(bundle)}).fetch(entry_for(OAUTH, cluster))
                assert grant.identity == PULLER
            with pytest.raises(provider.Retryable, match="no existing file"):
                await GcrProvider({**environment, "REQUESTS_CA_BUNDLE": "/none"}).fetch(entry_for(OAUTH, cluster))

    async def test_netrc_does_not_speak_for_us(
        self,
        gcr: GcrProvider,
        cluster: OneNamespace,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A login in ~/.netrc does not take the place of the token that is sent."""
        netrc = tmp_path / "netrc"
        netrc.write_text("default login somebody password else\n")
        monkeypatch.setenv("NETRC", str(netrc))
        assert (await gcr.fetch(entry_for(IAM, cluster))).identity == PULLER

    async def test_proxies_of_the_environment_are_used_but_not_for_metadata(
        self, cloud: GoogleCloud, cluster: OneNamespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """HTTPS_PROXY is honoured for Google's public endpoints, never for the metadata server."""
        for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        environment = {"REGCRED_GOOGLE_METADATA_URL": cloud.origin}
        with pytest.raises(provider.Retryable, match="the proxy of the operator's environment") as refusal:
            await GcrProvider(environment).fetch(entry_for(OAUTH, cluster))
        assert_safe(refusal.value)
        assert (await GcrProvider(environment).fetch(entry_for(METADATA, cluster))).identity == OTHER

    @pytest.mark.parametrize("url", ["http://sts.example.com", "ftp://127.0.0.1", "nonsense", "https://"])
    async def test_a_bad_endpoint_of_the_administrators(
        self, cloud: GoogleCloud, cluster: OneNamespace, url: str
    ) -> None:
        """An endpoint without TLS, or none at all, is refused by the name of the variable."""
        environment = {**cloud.environment(), "REGCRED_GOOGLE_STS_URL": url}
        with pytest.raises(provider.InvalidSpec, match="REGCRED_GOOGLE_STS_URL") as refusal:
            await GcrProvider(environment).fetch(entry_for(STS, cluster))
        assert refusal.value.reason == "OperatorMisconfigured"


class TestAddresses:
    """Nothing in the hands of a tenant decides where something is sent."""

    @pytest.mark.parametrize(
        "token_uri",
        [
            "{attacker}/token",
            "https://oauth2.googleapis.com.evil.com/token",
            "https://oauth2.googleapis.com@127.0.0.1/token",
            "https://oauth2.googleapis.com/token?x={attacker}",
            "http://169.254.169.254/computeMetadata/v1/",
            "http://oauth2.googleapis.com/token",
            "https://oauth2.googleapis.com/token\n",
            ["https://oauth2.googleapis.com/token"],
        ],
    )
    @pytest.mark.parametrize("mode", ["Token", "JsonKey"])
    async def test_a_keys_token_uri(
        self,
        gcr: GcrProvider,
        cloud: GoogleCloud,
        cluster: OneNamespace,
        attacker: LocalServer,
        *,
        token_uri: Any,
        mode: str,
    ) -> None:
        """A key that names another address is refused, and neither that address nor Google sees a request."""
        if isinstance(token_uri, str):
            token_uri = token_uri.replace("{attacker}", attacker.origin)
        cluster.store("key", {**cloud.create_key(PULLER, support.signing_key()), "token_uri": token_uri})
        with pytest.raises(provider.InvalidSpec) as refusal:
            await gcr.fetch(ask(cluster, support.key_block(keyMode=mode)))
        assert (refusal.value.reason, refusal.value.field) == ("AddressRefused", "gcr.secretRef.name")
        assert "127.0.0.1" not in refusal.value.message
        assert_safe(refusal.value)
        assert not attacker.calls
        assert not cloud.calls

    async def test_a_keys_universe(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace, attacker: LocalServer
    ) -> None:
        """A key whose universe_domain is somebody's own is refused."""
        domain = attacker.origin.removeprefix("http://")
        cluster.store("key", {**cloud.create_key(PULLER, support.signing_key()), "universe_domain": domain})
        with pytest.raises(provider.InvalidSpec, match="universe_domain") as refusal:
            await gcr.fetch(ask(cluster, support.key_block(impersonate=OTHER)))
        assert domain not in refusal.value.message
        assert not attacker.calls
        assert not cloud.calls

    @pytest.mark.parametrize(
        "source",
        [
            {"url": "{attacker}/token"},
            {"file": "/var/run/secrets/kubernetes.io/serviceaccount/token"},
            {"executable": {"command": "/usr/bin/touch /tmp/executed", "timeout_millis": 5000}},
            {"environment_id": "aws1", "url": "{attacker}", "regional_cred_verification_url": "{attacker}"},
            {"certificate": {"use_default_certificate_config": True}},
        ],
    )
    async def test_a_federation_configuration_in_a_secret(
        self,
        gcr: GcrProvider,
        cloud: GoogleCloud,
        cluster: OneNamespace,
        attacker: LocalServer,
        source: dict[str, Any],
    ) -> None:
        """A tenant's external_account reads no file, starts no program and asks no address; the better way is named."""
        document = json.dumps(
            {
                "type": "external_account",
                "audience": AUDIENCE,
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                "token_url": f"{attacker.origin}/v1/token",
                "credential_source": source,
            }
        )
        cluster.store("key", document.replace("{attacker}", attacker.origin))
        with pytest.raises(provider.InvalidSpec, match="workload identity federation configuration") as refusal:
            await gcr.fetch(ask(cluster, support.key_block()))
        assert "serviceAccountRef with an audience" in refusal.value.message
        assert not attacker.calls
        assert not cloud.calls

    @pytest.mark.parametrize("endpoint", [OAUTH, STS, IAM, METADATA])
    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    async def test_a_redirect_is_not_followed(
        self,
        gcr: GcrProvider,
        cloud: GoogleCloud,
        cluster: OneNamespace,
        attacker: LocalServer,
        *,
        endpoint: str,
        status: int,
    ) -> None:
        """No credential follows a redirect, of whatever kind."""
        cloud.fail(endpoint, Fault(status, "", {"Location": f"{attacker.origin}/token"}))
        with pytest.raises(provider.Retryable) as refusal:
            await gcr.fetch(entry_for(endpoint, cluster))
        assert refusal.value.reason == "Redirected"
        assert not attacker.calls

    @pytest.mark.parametrize(
        "url",
        [
            "{attacker}/token",
            "{attacker}/computeMetadata/v1/instance/",
            "https://oauth2.googleapis.com:444/token",
            "https://user@oauth2.googleapis.com/token",
            "http://oauth2.googleapis.com/token",
            "https://sts.googleapis.com/token",
            "https://sts.googleapis.com/v1/token/..",
            "https://sts.s3nsapis.fr/v1/token",
            "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@b:signBlob",
            "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/../x:generateAccessToken",
            "https://cloudresourcemanager.googleapis.com/v1/projects/1",
            "http://169.254.169.254/latest/meta-data/",
            "file:///etc/passwd",
            "",
        ],
    )
    def test_the_transport_knows_four_addresses(self, cloud: GoogleCloud, attacker: LocalServer, url: str) -> None:
        """Whatever google-auth might want to ask, nothing but Google's token endpoints is."""
        scene = gcr_verdicts.Scene("somebody")
        transport = gcr_transport.Transport(scene, cloud.environment(), deadline=float("inf"))
        with pytest.raises(provider.InvalidSpec, match="not Google's"):
            transport(url.replace("{attacker}", attacker.origin), "POST", b"secret", {"Authorization": "Bearer x"})
        assert not attacker.calls
        assert not cloud.calls

    async def test_the_metadata_host_of_the_environment(self, cloud: GoogleCloud) -> None:
        """GCE_METADATA_HOST, as other programs of Google's know it, names the metadata server."""
        host = cloud.origin.removeprefix("http://")
        transport = gcr_transport.Transport(
            gcr_verdicts.Scene("somebody"), {"GCE_METADATA_HOST": host}, deadline=float("inf")
        )
        url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/?recursive=true"
        answer = await asyncio.to_thread(transport, url, headers={"Metadata-Flavor": "Google"})
        assert json.loads(answer.data)["email"] == OTHER


KEY: Mapping[str, Any] = {
    "type": "service_account",
    "client_email": PULLER,
    "private_key_id": "abc",
    "private_key": "-----BEGIN PRIVATE KEY-----\nS3CRET\n-----END PRIVATE KEY-----\n",
    "token_uri": "https://oauth2.googleapis.com/token",
}

#: Documents of every shape, with the names of fields that matter.
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*KEY, "universe_domain", "x"]), inner, max_size=8)
    ),
)


def _pem_of_another_kind() -> str:
    return (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode()
    )


class TestKeys:
    """A key that is none is named by what it is, and nothing of it is shown."""

    @pytest.mark.parametrize(
        ("raw", "says"),
        [
            (b"", "is empty"),
            (b" \n", "is empty"),
            (b"S3CRET", "is not a JSON document"),
            (b"[]", "is not a JSON document"),
            (b'"S3CRET"', "is not a JSON document"),
            (b"\xff\xfe\x00S3CRET", "is not a JSON document"),
            (b'{"private_key": "S3CRET"', "is not a JSON document"),
            (b"[" * 30000, "is not a JSON document"),
            (b"x" * 40000, "longer than"),
            (base64.b64encode(json.dumps(dict(KEY)).encode()), "base64 twice"),
            (base64.b64encode(b'{"a":1}') + b"\n", "base64 twice"),
            (KEY["private_key"].encode(), "bare private key"),
            (b"{}", "no key of a service account"),
            (b'{"type": ["S3CRET"]}', "no key of a service account"),
            (b'{"type": "S3CRET"}', "no key of a service account"),
            (b'{"type": "authorized_user", "refresh_token": "S3CRET"}', "a person's own credentials"),
            (b'{"type": "external_account"}', "federation configuration"),
            (b'{"type": "impersonated_service_account"}', "impersonation configuration"),
            (json.dumps({**KEY, "client_email": ""}).encode(), "has no client_email"),
            (json.dumps({**KEY, "client_email": 7}).encode(), "has no client_email"),
            (json.dumps({**KEY, "client_email": "S3CRET"}).encode(), "no service account's"),
            (
                json.dumps({**KEY, "client_email": "a/../b@p.iam.gserviceaccount.com"}).encode(),
                "no service account's",
            ),
            (json.dumps({**KEY, "private_key": None}).encode(), "has no private_key"),
            (json.dumps({**KEY, "private_key": " "}).encode(), "has no private_key"),
        ],
    )
    def test_what_is_no_key(self, raw: bytes, says: str) -> None:
        """Each way to store something else is told from the others, without a word of the content."""
        with pytest.raises(provider.InvalidSpec, match=says) as refusal:
            gcr_keys.from_secret({"": b"Opaque", "key.json": raw}, "key", "googleapis.com")
        assert (refusal.value.reason, refusal.value.field) == ("SourceInvalid", "gcr.secretRef.name")
        assert "S3CRET" not in "".join(traceback.format_exception(refusal.value))

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            ({"": b"Opaque"}, "no value key.json and 0 others"),
            ({"": b"Opaque", "a": b"S3CRET", "b": b"S3CRET"}, "no value key.json and 2 others"),
            ({"": b"kubernetes.io/dockerconfigjson", ".dockerconfigjson": b"{}"}, "login.secretRef"),
        ],
    )
    def test_a_secret_without_a_key(self, data: Mapping[str, bytes], says: str) -> None:
        """A Secret in which no key can be told says what to store where."""
        with pytest.raises(provider.InvalidSpec, match=re.escape(says)) as refusal:
            gcr_keys.from_secret(data, "key", "googleapis.com")
        assert "S3CRET" not in str(refusal.value)

    @pytest.mark.parametrize("mode", ["Token", "JsonKey"])
    @pytest.mark.parametrize(
        "pem",
        [KEY["private_key"], "S3CRET", "-----BEGIN PRIVATE KEY-----", _pem_of_another_kind()],
        ids=["garbage", "no PEM", "cut off", "elliptic"],
    )
    async def test_a_private_key_that_is_none(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace, mode: str, pem: str
    ) -> None:
        """A private key that cannot sign is refused in both modes, before it is sent or published."""
        cluster.store("key", {**KEY, "private_key": pem})
        with pytest.raises(provider.InvalidSpec, match="no RSA key in PEM") as refusal:
            await gcr.fetch(ask(cluster, support.key_block(keyMode=mode)))
        assert_safe(refusal.value, "S3CRET", pem)
        assert not cloud.calls

    @given(st.binary(max_size=200) | DOCUMENTS.map(lambda document: json.dumps(document).encode()))
    def test_nothing_else_comes_of_anything(self, raw: bytes) -> None:
        """Whatever stands in a Secret is either a checked key or refused with its field."""
        with contextlib.suppress(provider.InvalidSpec):
            key = gcr_keys.from_secret({"": b"Opaque", "key.json": raw}, "key", "googleapis.com")
            assert gcr_keys.EMAIL.fullmatch(key.email)


class TestSecrecy:
    async def test_no_secret_is_logged_or_shown(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace, caplog: pytest.LogCaptureFixture
    ) -> None:
        """With every logger at DEBUG, no token, assertion or key is written, in no mode, in good and in bad times."""
        caplog.set_level(logging.DEBUG)
        loggers = ("google", "google.auth", "google.auth.transport", "urllib3", "requests", "regcred", "asyncio")
        for name in loggers:
            logging.getLogger(name).addHandler(caplog.handler)
            caplog.set_level(logging.DEBUG, name)
        shown = []
        cluster.store("json", cloud.create_key(PULLER, support.signing_key()))
        try:
            for endpoint in (OAUTH, STS, IAM, METADATA):
                entry = entry_for(endpoint, cluster)
                shown += [repr(await gcr.fetch(entry)), repr(entry), gcr.key(entry)]
                cloud.fail(endpoint, FAULTS[endpoint, "broken"])
                with pytest.raises(provider.Retryable) as refusal:
                    await gcr.fetch(entry)
                shown += traceback.format_exception(refusal.value)
            published = ask(cluster, {"secretRef": {"name": "json"}, "keyMode": "JsonKey"})
            shown += [repr(await gcr.fetch(published)), repr(vars(gcr))]
        finally:
            for name in loggers:
                logging.getLogger(name).removeHandler(caplog.handler)
        shown += [f"{record.getMessage()} {vars(record)}" for record in caplog.records]
        assert any("urllib3" in record.name for record in caplog.records)
        secrets = {*cloud.tokens(), *cluster.tokens, cloud.seen[OAUTH]["assertion"]}
        assert len(secrets) >= 7
        text = "\n".join(shown)
        for secret in secrets:
            assert secret not in text
            assert secret[-40:] not in text
        assert "PRIVATE KEY" not in text

    def test_values_that_hold_secrets_do_not_show_them(self) -> None:
        """Keys, tokens, answers and responses have representations without their content."""
        from regcred.credentials.providers.gcr import minting as gcr_minting  # noqa: PLC0415

        held = [
            gcr_keys.Key(PULLER, "S3CRET", "S3CRET", "S3CRET"),
            gcr_minting.Token("S3CRET", PULLER, dataclasses.MISSING),  # type: ignore[arg-type]
            gcr_transport.Response(200, {"X": "S3CRET"}, b"S3CRET"),
            exchange.Answer(200, {"X": "S3CRET"}, b"S3CRET"),
        ]
        assert "S3CRET" not in repr(held)

    async def test_a_login_is_not_pickled(self, gcr: GcrProvider, cluster: OneNamespace) -> None:
        """What the provider hands out cannot be copied to somewhere by accident."""
        grant = await gcr.fetch(entry_for(OAUTH, cluster))
        with pytest.raises(TypeError):
            pickle.dumps(grant)
