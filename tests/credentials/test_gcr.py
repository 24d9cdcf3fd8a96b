"""Google's provider: which hosts it serves, and how each proof of identity becomes a login.

Everything is asked of a Google of our own, which verifies signatures, audiences, scopes and roles, by the real
google-auth; the last test has a real API server sign the token.
"""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev.clouds.google import CLOUD_PLATFORM, READ_ONLY, GoogleCloud, WorkloadProvider
from dev.clouds.google_faults import IAM, METADATA, OAUTH, STS
from dev.clouds.issuers import Issuer
from dev.cluster import Cluster
from regcred.cluster import client
from regcred.credentials import federation, provider, schedule
from regcred.credentials.providers.gcr import GcrProvider
from tests.credentials import gcr_support as support
from tests.credentials.gcr_support import AUDIENCE, GKE, GKE_MEMBER, MEMBER, OTHER, POOL, PULLER, OneNamespace, ask

SERVED = [
    "gcr.io",
    "us.gcr.io",
    "eu.gcr.io",
    "asia.gcr.io",
    "gcr.io/my-project/",
    "europe-docker.pkg.dev",
    "us-central1-docker.pkg.dev",
    "europe-west10-docker.pkg.dev/my-project/images/",
    "docker.s3nsregistry.fr",
    "u-france-east1-docker.s3nsregistry.fr",
]
LOOKALIKES = [
    "*",
    "docker.pkg.dev",
    "-docker.pkg.dev.evil.com",
    "europe-docker.pkg.dev.evil.com",
    "evil.com/europe-docker.pkg.dev",
    "europe-docker.pkg.dev:443",
    "europe-docker-pkg.dev",
    "europe-docker.pkgxdev",
    "europe.docker.pkg.dev",
    "europe-npm.pkg.dev",
    "gcr.io.evil.com",
    "evilgcr.io",
    "a.b.gcr.io",
    "gcr.io:5000",
    "xgcr-io",
    "ghcr.io",
    "s3nsregistry.fr",
    "docker.s3nsregistry.fr.evil.com",
    "u-france-east1-docker.s3nsregistry.fr.evil.com",
    "u.docker.s3nsregistry.fr",
    "https://index.docker.io/v1/",
    "europe-docker.pkg.dev@evil.com",
    "127.0.0.1:5000",
]


@pytest.fixture
async def cloud() -> AsyncIterator[GoogleCloud]:
    """A Google with nothing in it."""
    async with GoogleCloud() as running:
        yield running


@pytest.fixture
def gcr(cloud: GoogleCloud) -> GcrProvider:
    """The provider, sent to that Google by the operator's environment."""
    return GcrProvider(cloud.environment())


@pytest.fixture
def cluster() -> OneNamespace:
    """A namespace with the account gar-puller."""
    return OneNamespace()


def password(grant: provider.Grant) -> str:
    return grant.logins[provider.ANY_SERVER].password


class TestHosts:
    @pytest.mark.parametrize("server", SERVED)
    def test_registries_of_google_are_served(self, server: str) -> None:
        """A host of Artifact Registry or gcr.io selects the provider without a block."""
        assert GcrProvider({}).serves(server)

    @pytest.mark.parametrize("server", LOOKALIKES)
    async def test_lookalikes_get_nothing(self, cloud: GoogleCloud, gcr: GcrProvider, server: str) -> None:
        """A host that only looks like Google's is refused by name before anything is read or sent."""
        cluster = OneNamespace()
        cluster.store("key", cloud.create_key(PULLER, support.signing_key()))
        entry = ask(cluster, support.key_block(), server=server)
        assert not gcr.serves(server)
        for call in (gcr.key, gcr.sources):
            with pytest.raises(provider.InvalidSpec, match="no registry host of Google's"):
                call(entry)
        with pytest.raises(provider.InvalidSpec) as refusal:
            await gcr.fetch(entry)
        assert (refusal.value.reason, refusal.value.field) == ("NotAGoogleHost", "server")
        assert not cluster.reads
        assert not cloud.calls

    def test_an_alias_is_checked_like_the_server(self, gcr: GcrProvider, cluster: OneNamespace) -> None:
        """A login of Google's is not published under an alias that is somebody else's."""
        with pytest.raises(provider.InvalidSpec) as refusal:
            gcr.key(ask(cluster, support.key_block(), aliases=("gcr.io", "mirror.evil.com")))
        assert (refusal.value.reason, refusal.value.field) == ("NotAGoogleHost", "aliases")

    def test_a_sovereign_alias_is_another_cloud(self, gcr: GcrProvider, cluster: OneNamespace) -> None:
        """A login of one cloud is not published under a host of the other."""
        with pytest.raises(provider.InvalidSpec) as refusal:
            gcr.key(ask(cluster, support.key_block(), aliases=("docker.s3nsregistry.fr",)))
        assert (refusal.value.reason, refusal.value.field) == ("UniverseMismatch", "aliases")

    @given(st.text(alphabet="abcz09-.:/@*gcriopkdev", max_size=40))
    def test_only_whole_host_names_match(self, server: str) -> None:
        """Whatever is served is one label before gcr.io or pkg.dev, or gcr.io itself, with nothing after the host."""
        if GcrProvider({}).serves(server):
            host = server.partition("/")[0]
            assert re.fullmatch(r"([a-z0-9-]+\.)?gcr\.io|[a-z0-9-]+-docker\.pkg\.dev", host)


class TestPlan:
    """What an entry says is checked before anything is read or sent."""

    @pytest.mark.parametrize(
        ("block", "tenant", "key"),
        [
            (None, False, f"gcr|googleapis.com|own|{READ_ONLY}"),
            ({}, False, f"gcr|googleapis.com|own|{READ_ONLY}"),
            ({"impersonate": PULLER}, False, f"gcr|googleapis.com|own|{PULLER}|{READ_ONLY}"),
            ({"scopes": [CLOUD_PLATFORM]}, False, f"gcr|googleapis.com|own|{CLOUD_PLATFORM}"),
            (support.key_block(), True, f"gcr|googleapis.com|key|team-a/key|{READ_ONLY}"),
            (support.key_block(keyMode="JsonKey"), True, "gcr|googleapis.com|key|team-a/key|JsonKey"),
            (
                support.account_block(),
                True,
                f"gcr|googleapis.com|account|team-a/gar-puller|{AUDIENCE}|{READ_ONLY}",
            ),
            (
                support.account_block(impersonate=PULLER, audience=GKE),
                True,
                f"gcr|googleapis.com|account|team-a/gar-puller|{GKE}|{PULLER}|{READ_ONLY}",
            ),
        ],
    )
    def test_key_names_identity_audience_and_scopes(
        self, gcr: GcrProvider, cluster: OneNamespace, block: Mapping[str, Any] | None, *, tenant: bool, key: str
    ) -> None:
        """Asks share a fetch when identity, audience and scopes are the same, and the namespace where one is used."""
        assert gcr.key(ask(cluster, block, tenant=tenant)) == key

    def test_one_token_serves_every_host(self, gcr: GcrProvider, cluster: OneNamespace) -> None:
        """The key says nothing of the servers, so that all registries of Google's share a token."""
        keys = {gcr.key(ask(cluster, support.key_block(), server=server)) for server in SERVED[:8]}
        assert len(keys) == 1

    def test_order_of_scopes_does_not_matter(self, gcr: GcrProvider, cluster: OneNamespace) -> None:
        """The same scopes in another order are the same fetch."""
        first = gcr.key(ask(cluster, support.key_block(scopes=[READ_ONLY, CLOUD_PLATFORM])))
        assert first == gcr.key(ask(cluster, support.key_block(scopes=[CLOUD_PLATFORM, READ_ONLY])))

    def test_sources_is_the_secret_with_the_key(self, gcr: GcrProvider, cluster: OneNamespace) -> None:
        """Only a key in a Secret makes the entry depend on a Secret."""
        assert gcr.sources(ask(cluster, support.key_block())) == [provider.SourceRef("team-a", "key")]
        assert gcr.sources(ask(cluster, support.account_block())) == []
        assert gcr.sources(ask(cluster, {}, tenant=False)) == []

    @pytest.mark.parametrize(
        ("block", "reason", "field"),
        [
            ({"secretRef": {"name": "a"}, "serviceAccountRef": {"name": "b"}}, "TwoIdentities", "gcr.secretRef"),
            ({"audience": AUDIENCE}, "AudienceInvalid", "gcr.audience"),
            (support.account_block(audience="https://evil.com"), "AudienceInvalid", "gcr.audience"),
            (support.account_block(audience=AUDIENCE + "\n"), "AudienceInvalid", "gcr.audience"),
            (support.account_block(audience=f"{AUDIENCE}/../x"), "AudienceInvalid", "gcr.audience"),
            (
                support.account_block(audience=AUDIENCE.replace("123456", "my-project")),
                "AudienceInvalid",
                "gcr.audience",
            ),
            (
                support.account_block(audience=GKE.replace("container.googleapis.com", "evil.com")),
                "AudienceInvalid",
                "gcr.audience",
            ),
            ({"keyMode": "JsonKey"}, "KeyModeInvalid", "gcr.keyMode"),
            (support.key_block(keyMode="JsonKey", impersonate=PULLER), "KeyModeInvalid", "gcr.keyMode"),
            (support.key_block(impersonate="puller@example.com"), "ImpersonateInvalid", "gcr.impersonate"),
            (support.key_block(impersonate=f"{PULLER}:x/../../evil"), "ImpersonateInvalid", "gcr.impersonate"),
            (support.key_block(impersonate=f"a/{PULLER}"), "ImpersonateInvalid", "gcr.impersonate"),
            (support.key_block(scopes=["https://evil.com/auth/x"]), "ScopeInvalid", "gcr.scopes"),
            (support.key_block(scopes=[f"{READ_ONLY} openid"]), "ScopeInvalid", "gcr.scopes"),
            ({"secretRef": {"name": ""}}, "SourceInvalid", "gcr.secretRef.name"),
            ({"serviceAccountRef": {"name": ""}}, "SourceInvalid", "gcr.serviceAccountRef.name"),
        ],
    )
    async def test_what_cannot_work_is_refused(
        self, gcr: GcrProvider, cloud: GoogleCloud, block: dict[str, Any], reason: str, field: str
    ) -> None:
        """An entry that an old API server let through is refused with its field, and nothing is sent."""
        cluster = OneNamespace()
        entry = ask(cluster, {}, ambient=True)
        for name, value in block.items():
            snake = re.sub("[A-Z]", lambda match: "_" + match.group().lower(), name)
            entry = _with(entry, snake, value)
        with pytest.raises(provider.InvalidSpec) as refusal:
            gcr.key(entry)
        assert (refusal.value.reason, refusal.value.field) == (reason, field)
        with pytest.raises(provider.InvalidSpec):
            await gcr.fetch(entry)
        assert not cluster.reads
        assert not cloud.calls


def _with(entry: provider.Ask, name: str, value: Any) -> provider.Ask:
    """Set a field of the block past all checks of the models."""
    if name.endswith("_ref"):
        value = type("Ref", (), {"name": value["name"]})()
    object.__setattr__(entry.config, name, value)
    return entry


class TestTenants:
    """A tenant never reaches the operator's own identity."""

    @pytest.mark.parametrize("block", [None, {}, {"impersonate": PULLER}, {"scopes": [CLOUD_PLATFORM]}])
    async def test_ambient_identity_is_refused(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace, block: Mapping[str, Any] | None
    ) -> None:
        """A tenant's entry without identity is refused, and the metadata server is not asked."""
        cloud.attached = OTHER
        cloud.allow(OTHER, PULLER)
        for call in (gcr.key, gcr.sources):
            with pytest.raises(provider.InvalidSpec, match="ambient credentials are not available"):
                call(ask(cluster, block))
        with pytest.raises(provider.InvalidSpec) as refusal:
            await gcr.fetch(ask(cluster, block))
        assert refusal.value.reason == "AmbientRefused"
        assert "--ambient-credentials" in str(refusal.value)
        assert not cloud.calls

    async def test_the_platform_can_be_refused_too(self, gcr: GcrProvider, cluster: OneNamespace) -> None:
        """With --cluster-ambient-credentials=false a cluster resource needs an identity of its own as well."""
        with pytest.raises(provider.InvalidSpec, match="--cluster-ambient-credentials"):
            await gcr.fetch(ask(cluster, {}, tenant=False, ambient=False))

    async def test_a_tenant_may_where_the_administrator_allows_it(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """With --ambient-credentials a tenant gets the operator's identity."""
        cloud.attached = PULLER
        grant = await gcr.fetch(ask(cluster, {}, ambient=True))
        assert cloud.puller("oauth2accesstoken", password(grant)) == PULLER

    async def test_the_operators_key_file_is_not_a_tenants(
        self, cloud: GoogleCloud, cluster: OneNamespace, tmp_path: Path
    ) -> None:
        """GOOGLE_APPLICATION_CREDENTIALS is not touched for a tenant's own key or account."""
        file = tmp_path / "operator.json"
        file.write_text(json.dumps(cloud.create_key(OTHER, support.other_key())))
        gcr = GcrProvider({**cloud.environment(), "GOOGLE_APPLICATION_CREDENTIALS": str(file)})
        cluster.store("key", cloud.create_key(PULLER, support.signing_key()))
        support.trust(cloud)
        mine = await gcr.fetch(ask(cluster, support.key_block()))
        federated = await gcr.fetch(ask(cluster, support.account_block()))
        assert cloud.puller("oauth2accesstoken", password(mine)) == PULLER
        assert cloud.puller("oauth2accesstoken", password(federated)) == MEMBER


class TestKey:
    async def test_a_key_becomes_a_token(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """A key is exchanged for a read-only token of its account, with the end that Google tells."""
        cloud.lifetime = 1200
        cluster.store("key", cloud.create_key(PULLER, support.signing_key()))
        before = datetime.datetime.now(datetime.UTC)
        grant = await gcr.fetch(ask(cluster, support.key_block()))
        login = grant.logins[provider.ANY_SERVER]
        assert login.username == "oauth2accesstoken"
        assert grant.identity == PULLER
        assert cloud.issued(login.password).principal == PULLER
        assert cloud.issued(login.password).scopes == {READ_ONLY}
        assert grant.issued_at.utcoffset() == datetime.timedelta(0)
        assert before <= grant.issued_at
        assert grant.expires_at is not None
        assert grant.expires_at.timestamp() == pytest.approx(cloud.issued(login.password).expires_at, abs=5)
        assert cloud.calls == {OAUTH: 1}

    async def test_scopes_are_the_entrys(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """Scopes of the entry take the place of the default."""
        cluster.store("key", cloud.create_key(PULLER, support.signing_key()))
        grant = await gcr.fetch(ask(cluster, support.key_block(scopes=[CLOUD_PLATFORM])))
        assert cloud.issued(password(grant)).scopes == {CLOUD_PLATFORM}

    async def test_a_key_acts_as_another_account(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """With `impersonate` the key's account asks only for the right to act as the other, which gets the scopes."""
        cluster.store("key", cloud.create_key(OTHER, support.signing_key()))
        cloud.allow(OTHER, PULLER)
        grant = await gcr.fetch(ask(cluster, support.key_block(impersonate=PULLER)))
        assert grant.identity == PULLER
        assert cloud.issued(password(grant)).principal == PULLER
        assert cloud.issued(password(grant)).scopes == {READ_ONLY}
        assert cloud.seen[OAUTH]["scopes"] == {"https://www.googleapis.com/auth/iam"}
        assert cloud.calls == {OAUTH: 1, IAM: 1}

    async def test_a_key_is_published_as_it_is(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """JsonKey publishes the key, on one line, without an end and without asking Google."""
        key = cloud.create_key(PULLER, support.signing_key())
        cluster.store("key", key)
        grant = await gcr.fetch(ask(cluster, support.key_block(keyMode="JsonKey")))
        login = grant.logins[provider.ANY_SERVER]
        assert login.username == "_json_key"
        assert json.loads(login.password) == key
        assert "\n" not in login.password
        assert cloud.puller(login.username, login.password) == PULLER
        assert (grant.identity, grant.expires_at) == (PULLER, None)
        assert not cloud.calls

    @pytest.mark.parametrize("mode", ["Token", "JsonKey"])
    async def test_line_breaks_escaped_twice_are_mended(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace, mode: str
    ) -> None:
        """A private key whose line breaks were escaped once too often works, and a note says so."""
        key = cloud.create_key(PULLER, support.signing_key())
        key["private_key"] = key["private_key"].replace("\n", "\\n")
        cluster.store("key", key)
        grant = await gcr.fetch(ask(cluster, support.key_block(keyMode=mode)))
        login = grant.logins[provider.ANY_SERVER]
        assert cloud.puller(login.username, login.password) == PULLER
        assert "escaped twice" in grant.notes[0]

    @pytest.mark.parametrize("entry", ["key.json", "whatever.json", "credentials"])
    async def test_the_only_value_is_the_key(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace, entry: str
    ) -> None:
        """The key is found under key.json, or as the only value of the Secret, with a byte order mark too."""
        document = "\ufeff" + json.dumps(cloud.create_key(PULLER, support.signing_key())) + "\n"
        cluster.store("key", document, entry)
        grant = await gcr.fetch(ask(cluster, support.key_block()))
        assert grant.identity == PULLER

    @pytest.mark.parametrize(
        "token_uri",
        ["https://accounts.google.com/o/oauth2/token", "https://www.googleapis.com/oauth2/v4/token", "", None],
    )
    async def test_a_key_of_any_age_works(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace, token_uri: str | None
    ) -> None:
        """An address that Google once wrote into keys is accepted, and the present one is asked."""
        key: dict[str, Any] = cloud.create_key(PULLER, support.signing_key())
        cluster.store("key", {**key, "token_uri": token_uri})
        grant = await gcr.fetch(ask(cluster, support.key_block()))
        assert cloud.puller("oauth2accesstoken", password(grant)) == PULLER


class TestFederation:
    async def test_a_service_account_becomes_a_principal(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """A token of the account for the provider's audience only is exchanged for one of the federated principal."""
        support.trust(cloud)
        grant = await gcr.fetch(ask(cluster, support.account_block()))
        assert grant.identity == MEMBER
        assert cloud.issued(password(grant)).principal == MEMBER
        assert cloud.issued(password(grant)).scopes == {READ_ONLY}
        assert cluster.reads == ["account gar-puller", f"token gar-puller {AUDIENCE} 600"]
        assert cloud.seen[STS]["subject_token"] == cluster.tokens[0]
        assert cloud.calls == {STS: 1}

    async def test_it_acts_as_the_named_account(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """With `impersonate` the account need not be read, so no permission for that is needed."""
        support.trust(cloud)
        cloud.allow(MEMBER, PULLER)
        grant = await gcr.fetch(ask(cluster, support.account_block(impersonate=PULLER)))
        assert grant.identity == PULLER
        assert cloud.seen[IAM]["caller"] == MEMBER
        assert cloud.issued(password(grant)).scopes == {READ_ONLY}
        assert cluster.reads == [f"token gar-puller {AUDIENCE} 600"]

    async def test_it_acts_as_the_annotated_account(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """The annotation of the service account names whom to act as; the entry's own field beats it."""
        support.trust(cloud)
        cloud.allow(MEMBER, PULLER)
        cloud.allow(MEMBER, OTHER)
        cluster.accounts["gar-puller"] = {"iam.gke.io/gcp-service-account": OTHER}
        assert (await gcr.fetch(ask(cluster, support.account_block()))).identity == OTHER
        assert (await gcr.fetch(ask(cluster, support.account_block(impersonate=PULLER)))).identity == PULLER

    async def test_a_bad_annotation_is_named(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """An annotation that is no account's address is refused before a token is minted."""
        cluster.accounts["gar-puller"] = {"iam.gke.io/gcp-service-account": "x/../../evil"}
        with pytest.raises(provider.InvalidSpec, match=r"annotation iam.gke.io/gcp-service-account") as refusal:
            await gcr.fetch(ask(cluster, support.account_block()))
        assert "evil" not in str(refusal.value)
        assert not cluster.tokens
        assert not cloud.calls

    async def test_gke_by_its_full_name(self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace) -> None:
        """GKE's own pool: the token is for the pool, the exchange for the cluster in it."""
        support.trust(cloud, GKE)
        grant = await gcr.fetch(ask(cluster, support.account_block(audience=GKE)))
        assert grant.identity == GKE_MEMBER
        assert cluster.reads[-1] == "token gar-puller my-project.svc.id.goog 600"
        assert cloud.seen[STS]["audience"] == GKE

    async def test_gke_finds_its_own_name(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """On GKE the audience may be left out: the metadata server tells project, location and cluster."""
        cloud.cluster = ("my-project", "europe-west1", "prod")
        support.trust(cloud, GKE)
        grant = await gcr.fetch(ask(cluster, {"serviceAccountRef": {"name": "gar-puller"}}))
        assert cloud.puller("oauth2accesstoken", password(grant)) == GKE_MEMBER
        assert cloud.calls == {METADATA: 3, STS: 1}

    async def test_elsewhere_the_audience_is_missed(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """On Compute Engine without GKE a missing audience is named, and no token is minted."""
        cloud.attached = PULLER
        with pytest.raises(provider.InvalidSpec) as refusal:
            await gcr.fetch(ask(cluster, {"serviceAccountRef": {"name": "gar-puller"}}))
        assert (refusal.value.reason, refusal.value.field) == ("AudienceMissing", "gcr.audience")
        assert not cluster.tokens

    async def test_off_google_cloud_the_audience_is_missed_for_now(self, cluster: OneNamespace) -> None:
        """Without any metadata server a missing audience is named too, but tried again: on GKE it may come back."""
        gcr = GcrProvider({"REGCRED_GOOGLE_METADATA_URL": "http://127.0.0.1:9"})
        with pytest.raises(provider.Retryable, match=r"gcr\.audience is left out") as refusal:
            await gcr.fetch(ask(cluster, {"serviceAccountRef": {"name": "gar-puller"}}))
        assert refusal.value.field == "gcr.audience"

    async def test_a_metadata_server_that_lies_is_not_believed(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """A cluster name that is none of GKE's does not get into an audience."""
        cloud.cluster = ("my-project", "europe-west1", "prod/../../evil")
        with pytest.raises(provider.InvalidSpec, match="does not name this cluster"):
            await gcr.fetch(ask(cluster, {"serviceAccountRef": {"name": "gar-puller"}}))

    async def test_another_namespace_is_another_principal(self, gcr: GcrProvider, cloud: GoogleCloud) -> None:
        """The same account name in another namespace has another key and another principal."""
        support.trust(cloud)
        other = OneNamespace("team-b")
        mine, theirs = ask(OneNamespace(), support.account_block()), ask(other, support.account_block())
        assert gcr.key(mine) != gcr.key(theirs)
        assert "team-b" in (await gcr.fetch(theirs)).identity


class TestOwnIdentity:
    async def test_the_metadata_servers_token(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """The platform's entry without a block of its own uses the identity of node or workload."""
        cloud.attached = PULLER
        grant = await gcr.fetch(ask(cluster, None, tenant=False))
        assert grant.identity == PULLER
        assert cloud.puller("oauth2accesstoken", password(grant)) == PULLER
        assert cloud.calls == {METADATA: 2}

    async def test_workload_identity_of_gke_without_an_account_of_googles(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """Where the metadata server names only a pool, that is the identity."""
        cloud.attached = "my-project.svc.id.goog"
        assert (await gcr.fetch(ask(cluster, {}, tenant=False))).identity == "my-project.svc.id.goog"

    async def test_an_odd_name_is_not_shown(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """An identity that is no name of Google's does not reach the status."""
        cloud.attached = "<b>evil</b>"
        assert (await gcr.fetch(ask(cluster, {}, tenant=False))).identity == "the operator's own identity"

    async def test_it_acts_as_another_account(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """The operator's identity may act as the account that the entry names: its tokens are always new."""
        cloud.attached = OTHER
        cloud.allow(OTHER, PULLER)
        entry = ask(cluster, {"impersonate": PULLER}, tenant=False)
        first, second = await gcr.fetch(entry), await gcr.fetch(entry)
        assert first.identity == PULLER
        assert cloud.issued(password(first)).scopes == {READ_ONLY}
        assert password(first) != password(second)

    async def test_the_same_token_has_the_same_end(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """A token that is handed out again ends when it was first said to end, so that nothing is written for it."""
        cloud.attached = PULLER
        first = await gcr.fetch(ask(cluster, {}, tenant=False))
        cloud.ahead = -1.5
        second = await gcr.fetch(ask(cluster, {}, tenant=False))
        assert password(first) == password(second)
        assert first.expires_at == second.expires_at
        assert second.issued_at > first.issued_at

    async def test_the_metadata_servers_cache_makes_no_loop(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """Renewed by the schedule, a token of an hour is asked for a few times, and replaced before it ends."""
        cloud.attached = PULLER
        entry = ask(cluster, {}, tenant=False)
        first = await gcr.fetch(entry)
        grant, fetches = first, 1
        while password(grant) == password(first):
            pause = schedule.renew_after("key", grant.issued_at, grant.issued_at, grant.expires_at)
            assert pause is not None
            cloud.ahead += pause
            grant = await gcr.fetch(entry)
            fetches += 1
        assert fetches <= 7
        assert cloud.ahead < 3600 - 60

    async def test_a_key_file(self, cloud: GoogleCloud, cluster: OneNamespace, tmp_path: Path) -> None:
        """GOOGLE_APPLICATION_CREDENTIALS may name the operator's own key; the metadata server is not asked then."""
        file = tmp_path / "key.json"
        file.write_text(json.dumps(cloud.create_key(OTHER, support.signing_key())))
        cloud.allow(OTHER, PULLER)
        gcr = GcrProvider({**cloud.environment(), "GOOGLE_APPLICATION_CREDENTIALS": str(file)})
        assert (await gcr.fetch(ask(cluster, {}, tenant=False))).identity == OTHER
        assert (await gcr.fetch(ask(cluster, {"impersonate": PULLER}, tenant=False))).identity == PULLER
        assert cloud.calls[METADATA] == 0

    @pytest.mark.parametrize("form", [{}, {"type": "text"}, {"type": "json", "subject_token_field_name": "token"}])
    async def test_a_federation_file(
        self, cloud: GoogleCloud, cluster: OneNamespace, tmp_path: Path, form: dict[str, str]
    ) -> None:
        """It may name a federation configuration with a mounted token, whose last line break is no part of it."""
        support.trust(cloud)
        token = await cluster.request_token("gar-puller", AUDIENCE)
        mounted = tmp_path / "token"
        mounted.write_text(json.dumps({"token": token}) if form.get("type") == "json" else f"{token}\n")
        file = _federation_file(tmp_path, {"file": str(mounted), **({"format": form} if form else {})})
        gcr = GcrProvider({**cloud.environment(), "GOOGLE_APPLICATION_CREDENTIALS": str(file)})
        grant = await gcr.fetch(ask(cluster, {}, tenant=False))
        assert grant.identity == MEMBER
        assert cloud.puller("oauth2accesstoken", password(grant)) == MEMBER

    async def test_a_federation_file_that_acts_as_another(
        self, cloud: GoogleCloud, cluster: OneNamespace, tmp_path: Path
    ) -> None:
        """Its impersonation is followed, and the entry's own comes on top of it."""
        support.trust(cloud)
        cloud.allow(MEMBER, OTHER)
        cloud.allow(OTHER, PULLER)
        mounted = tmp_path / "token"
        mounted.write_text(await cluster.request_token("gar-puller", AUDIENCE))
        url = f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{OTHER}:generateAccessToken"
        file = _federation_file(tmp_path, {"file": str(mounted)}, service_account_impersonation_url=url)
        gcr = GcrProvider({**cloud.environment(), "GOOGLE_APPLICATION_CREDENTIALS": str(file)})
        assert (await gcr.fetch(ask(cluster, {}, tenant=False))).identity == OTHER
        assert (await gcr.fetch(ask(cluster, {"impersonate": PULLER}, tenant=False))).identity == PULLER
        assert cloud.seen[IAM]["caller"] == OTHER

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (None, "cannot be read"),
            ("", "is empty"),
            ("{", "is not a JSON document"),
            ({"type": "authorized_user", "refresh_token": "s3cret"}, "a person's own credentials"),
            ({"type": "external_account", "credential_source": {"url": "http://127.0.0.1:9"}}, "from a file"),
            ({"type": "external_account", "credential_source": {"executable": {"command": "id"}}}, "from a file"),
            ({"type": "external_account", "credential_source": {"file": "/nonexistent"}}, "token_url"),
            (
                {
                    "type": "external_account",
                    "credential_source": {"file": "/nonexistent"},
                    "token_url": "https://sts.googleapis.com/v1/token",
                },
                "cannot be read",
            ),
        ],
    )
    async def test_a_useless_file_is_named(
        self, cloud: GoogleCloud, cluster: OneNamespace, tmp_path: Path, content: Any, says: str
    ) -> None:
        """A file that cannot be used is refused in words, tried again later, and never replaced by another identity."""
        cloud.attached = PULLER
        file = tmp_path / "credentials.json"
        if content is not None:
            file.write_text(content if isinstance(content, str) else json.dumps(content))
        gcr = GcrProvider({**cloud.environment(), "GOOGLE_APPLICATION_CREDENTIALS": str(file)})
        with pytest.raises(provider.Denied, match=says) as refusal:
            await gcr.fetch(ask(cluster, {}, tenant=False))
        assert refusal.value.reason == "OperatorMisconfigured"
        assert "s3cret" not in str(refusal.value)
        assert not cloud.calls


def _federation_file(folder: Path, source: dict[str, Any], **more: str) -> Path:
    file = folder / "federation.json"
    document = {
        "type": "external_account",
        "audience": AUDIENCE,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": source,
        **more,
    }
    file.write_text(json.dumps(document))
    return file


class TestSovereign:
    async def test_a_token_stays_in_its_cloud(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace
    ) -> None:
        """For a sovereign registry the endpoints of its own cloud are asked, and it has a key of its own."""
        support.trust(cloud)
        cloud.allow(MEMBER, PULLER)
        entry = ask(cluster, support.account_block(impersonate=PULLER), server="docker.s3nsregistry.fr")
        grant = await gcr.fetch(entry)
        assert cloud.puller("oauth2accesstoken", password(grant)) == PULLER
        assert gcr.key(entry) != gcr.key(ask(cluster, support.account_block(impersonate=PULLER)))

    @pytest.mark.parametrize(
        ("server", "universe"),
        [
            (support.SERVER, "s3nsapis.fr"),
            ("docker.s3nsregistry.fr", "googleapis.com"),
            ("u-france-east1-docker.s3nsregistry.fr", "googleapis.com"),
        ],
    )
    async def test_a_key_of_another_cloud_is_refused(
        self, gcr: GcrProvider, cloud: GoogleCloud, cluster: OneNamespace, server: str, universe: str
    ) -> None:
        """A key works for the registries of its own cloud only, and which that is follows from the host."""
        key = {**cloud.create_key(PULLER, support.signing_key()), "universe_domain": universe}
        cluster.store("key", key)
        with pytest.raises(provider.InvalidSpec, match="belongs to another cloud"):
            await gcr.fetch(ask(cluster, support.key_block(), server=server))
        assert not cloud.calls


def test_the_sdk_is_imported_when_it_is_needed() -> None:
    """Loading the provider loads neither google-auth nor requests."""
    program = (
        "import sys, regcred.credentials.providers.gcr as gcr; gcr.GcrProvider().serves('gcr.io'); "
        "print([name for name in sys.modules if name.split('.')[0] in ('google', 'requests', 'cryptography')])"
    )
    folder = Path(__file__).parents[2] / "operator"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


class TestRealCluster:
    async def test_a_token_of_a_real_api_server_is_exchanged(
        self, cloud: GoogleCloud, gcr: GcrProvider, control_plane: Cluster, namespace: str
    ) -> None:
        """The API server signs the account's token, and the exchange verifies it by that server's public key."""
        if control_plane.public_key is None:
            pytest.skip("this cluster does not show the key of its tokens")
        member = f"principal:{POOL}/subject/system:serviceaccount:{namespace}:gar-puller"
        issuer = Issuer.of(control_plane.issuer, control_plane.public_key)
        cloud.create_provider(AUDIENCE, WorkloadProvider(issuer, (AUDIENCE,)))
        cloud.allow(member, PULLER)
        await control_plane.kubectl("create", "serviceaccount", "gar-puller", f"--namespace={namespace}")
        annotation = f"iam.gke.io/gcp-service-account={PULLER}"
        api = client.Client(client.login(str(control_plane.admin_kubeconfig)))
        try:
            reader = federation.NamespaceReader(api, namespace, operator_account="regcred-system/regcred")
            entry = provider.Ask(
                support.SERVER,
                (support.SERVER,),
                ask(OneNamespace(), support.account_block()).config,
                tenant=True,
                ambient=False,
                namespace=namespace,
                ca_bundle="",
                cluster=reader,
            )
            direct = await gcr.fetch(entry)
            await control_plane.kubectl(
                "annotate", "serviceaccount", "gar-puller", annotation, f"--namespace={namespace}"
            )
            acting = await gcr.fetch(entry)
        finally:
            await api.close()
        assert cloud.puller("oauth2accesstoken", password(direct)) == member == direct.identity
        assert cloud.puller("oauth2accesstoken", password(acting)) == PULLER == acting.identity
