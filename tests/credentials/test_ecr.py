"""ECR logins: whose identity asks, which hosts count as Amazon's, and what each of Amazon's errors becomes.

Botocore is the real one and speaks to `dev.clouds.aws`, which verifies signatures, service account tokens and
trust policies.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import datetime as dt
import io
import json
import logging
import os
import re
import subprocess
import sys
import traceback
import types
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import hypothesis
import jwt
import kubernetes
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import strategies

from dev.clouds import aws as local
from dev.clouds.aws_checks import Fault, Issuer, Keys, Trust
from dev.cluster import Cluster
from dev.ports import free_port
from dev.waiting import eventually
from regcred import dockerconfig
from regcred.api import hosts as api_hosts
from regcred.api import providers, spec
from regcred.cluster import client as cluster_client
from regcred.credentials import federation, provider
from regcred.credentials.providers.ecr import client as ecr_client
from regcred.credentials.providers.ecr import hosts as ecr_hosts
from regcred.credentials.providers.ecr import plan as ecr_plan
from regcred.credentials.providers.ecr import provider as ecr

ACCOUNT = "123456789012"
HOST = f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com"
ROLE = "arn:aws:iam::333333333333:role/puller"
NODE_ROLE = "arn:aws:iam::444444444444:role/node"
ISSUER = "https://oidc.example.com/cluster"
#: Stands in every foreign text of this file; must never come out.
CANARY = "AKIACANARYCANARYCANA request id 7f1c-canary"

HOSTS = [
    (HOST, "aws", "eu-west-1", False),
    (f"{ACCOUNT}.dkr-ecr.eu-west-1.on.aws", "aws", "eu-west-1", False),
    (f"{ACCOUNT}.dkr.ecr-fips.us-east-1.amazonaws.com", "aws", "us-east-1", True),
    (f"{ACCOUNT}.dkr-ecr-fips.us-west-2.on.aws", "aws", "us-west-2", True),
    (f"{ACCOUNT}.dkr.ecr.ap-southeast-5.amazonaws.com", "aws", "ap-southeast-5", False),
    (f"{ACCOUNT}.dkr.ecr.il-central-1.amazonaws.com", "aws", "il-central-1", False),
    (f"{ACCOUNT}.dkr.ecr.cn-north-1.amazonaws.com.cn", "aws-cn", "cn-north-1", False),
    (f"{ACCOUNT}.dkr-ecr.cn-northwest-1.on.amazonwebservices.com.cn", "aws-cn", "cn-northwest-1", False),
    (f"{ACCOUNT}.dkr.ecr.us-gov-west-1.amazonaws.com", "aws-us-gov", "us-gov-west-1", False),
    (f"{ACCOUNT}.dkr.ecr-fips.us-gov-east-1.amazonaws.com", "aws-us-gov", "us-gov-east-1", True),
    (f"{ACCOUNT}.dkr-ecr-fips.us-gov-west-1.on.aws", "aws-us-gov", "us-gov-west-1", True),
    (f"{ACCOUNT}.dkr.ecr.us-iso-east-1.c2s.ic.gov", "aws-iso", "us-iso-east-1", False),
    (f"{ACCOUNT}.dkr.ecr.us-isob-east-1.sc2s.sgov.gov", "aws-iso-b", "us-isob-east-1", False),
    (f"{ACCOUNT}.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk", "aws-iso-e", "eu-isoe-west-1", False),
    (f"{ACCOUNT}.dkr.ecr.us-isof-south-1.csp.hci.ic.gov", "aws-iso-f", "us-isof-south-1", False),
    (f"{ACCOUNT}.dkr.ecr.eusc-de-east-1.amazonaws.eu", "aws-eusc", "eusc-de-east-1", False),
    (f"{HOST}/team/", "aws", "eu-west-1", False),
]
LOOK_ALIKES = [
    f"{HOST}.evil.example",
    f"evil.example/{HOST}",
    f"evil-{HOST}",
    f"x.{HOST}",
    f"{HOST}:5000",
    f"{HOST}@evil.example",
    f"{HOST}\n",
    f"\n{HOST}",
    f"{HOST} ",
    f"{HOST}.",
    f"https://{HOST}",
    f"1{HOST}",
    HOST[1:],
    HOST.replace("1", "١"),  # noqa: RUF001 - an Arabic digit
    HOST.replace("a", "а"),  # noqa: RUF001 - a Cyrillic letter
    HOST.replace(".", "。"),
    HOST.replace("amazonaws.com", "amazonaws.co"),
    HOST.replace("amazonaws.com", "amazonawsxcom"),
    HOST.replace("amazonaws.com", "evil-amazonaws.com"),
    HOST.replace("eu-west-1", "eu-west-1.evil"),
    HOST.replace("eu-west-1", "evil"),
    HOST.replace("eu-west-1", "eu_west_1"),
    HOST.replace("eu-west-1", "cn-north-1"),
    HOST.replace("amazonaws.com", "amazonaws.com.cn"),
    HOST.replace("amazonaws.com", "amazonaws.eu"),
    f"{ACCOUNT}.dkr.ecr.us-gov-west-1.c2s.ic.gov",
    "public.ecr.aws.evil.example",
    "xpublic.ecr.aws",
    "ecr-public.aws.com.evil.example",
    "*",
    "",
    "docker.io",
]


class Source:
    """The cluster of one namespace, as a provider sees it: one Secret, one account, and who minted what."""

    def __init__(
        self, secret: Mapping[str, str] | None = None, annotations: Mapping[str, str] | None = None
    ) -> None:
        self.secret = secret or {}
        self.annotations = annotations or {}
        self.minted: list[str] = []
        self.lives = [600]
        self.key = SIGNING

    async def read_secret(self, _name: str) -> Mapping[str, bytes]:
        return {"": b"Opaque"} | {key: value.encode() for key, value in self.secret.items()}

    async def read_service_account(self, name: str) -> provider.ServiceAccount:
        return provider.ServiceAccount("team-a", name, "uid", self.annotations)

    async def request_token(self, service_account: str, audience: str, seconds: int = 600) -> str:
        assert seconds == 600
        life = self.lives.pop(0) if len(self.lives) > 1 else self.lives[0]
        now = dt.datetime.now(dt.UTC)
        claims = {
            "iss": ISSUER,
            "aud": [audience],
            "sub": f"system:serviceaccount:team-a:{service_account}",
            "iat": now - dt.timedelta(seconds=1200),
            "exp": now + dt.timedelta(seconds=life),
        }
        token = jwt.encode(claims, self.key, algorithm="RS256")
        self.minted.append(token)
        return token


def _private_key() -> str:
    key = rsa.generate_private_key(65537, 2048)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


SIGNING, STRANGER = _private_key(), _private_key()


def public_of(private: str) -> str:
    key = serialization.load_pem_private_key(private.encode(), None).public_key()
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(encoding, form).decode()


def ask(
    server: str = HOST,
    *aliases: str,
    tenant: bool = True,
    ambient: bool = False,
    namespace: str = "team-a",
    source: provider.Cluster | None = None,
    **block: Any,
) -> provider.Ask:
    """An ask with the block as users write it: `secretRef="aws"` stands for `{name: aws}`."""
    written = {key: {"name": value} if key.endswith("Ref") else value for key, value in block.items()}
    config = providers.EcrBlock.model_validate(written)
    return provider.Ask(server, (server, *aliases), config, tenant, ambient, namespace, "", source or Source())


def secret_of(keys: Keys) -> dict[str, str]:
    return {"accessKeyId": keys.access_key_id, "secretAccessKey": keys.secret_access_key} | (
        {"sessionToken": keys.session_token} if keys.session_token else {}
    )


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[local.Aws]:
    async with local.start_aws() as running:
        yield running


@pytest.fixture(scope="module")
async def user(server: local.Aws) -> Keys:
    return await server.create_user("ci")


@pytest.fixture
def aws(server: local.Aws, user: Keys, clean: pytest.MonkeyPatch) -> Iterator[local.Aws]:
    """The server, freshly forgetful, and an environment that points to it and holds no identity."""
    server.recover()
    server.issuer = Issuer(ISSUER, public_of(SIGNING))
    server.roles = {
        ROLE: Trust(
            subjects=frozenset(
                {"system:serviceaccount:team-a:puller", "system:serviceaccount:regcred-system:regcred"}
            ),
            principals=frozenset({user.arn, "arn:aws:sts::444444444444:assumed-role/node/"}),
        )
    }
    server.life = 43200
    for name, value in server.environment().items():
        clean.setenv(name, value)
    yield server
    server.release()


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No word of Amazon in the environment."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


@pytest.fixture
def ecr_provider() -> ecr.EcrProvider:
    return ecr.EcrProvider()


async def failure(asked: provider.Ask, of: ecr.EcrProvider) -> provider.ProviderError:
    """The error a fetch ends in, after a look that nothing foreign hangs on it."""
    with pytest.raises(provider.ProviderError) as caught:
        await of.fetch(asked)
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    assert "canary" not in f"{error.message} {error!r} {error.field}".lower()
    return error


class TestHosts:
    """Which servers are Amazon's."""

    @pytest.mark.parametrize(("host", "partition", "region", "fips"), HOSTS)
    def test_every_form(self, host: str, partition: str, region: str, fips: bool) -> None:
        """Every private host of every partition tells its partition, region and whether it is a FIPS one."""
        assert ecr_hosts.parse(host) == ecr_hosts.EcrHost(partition, region, fips=fips, public=False)
        assert dockerconfig.canonical_server(host) == host
        assert api_hosts.provider_of(host) == "ecr"

    @pytest.mark.parametrize("host", ["public.ecr.aws", "ecr-public.aws.com", "public.ecr.aws/docker/"])
    def test_public(self, host: str) -> None:
        """Both names of the public gallery are served from us-east-1."""
        assert ecr_hosts.parse(host) == ecr_hosts.EcrHost("aws", "us-east-1", fips=False, public=True)

    @pytest.mark.parametrize("host", LOOK_ALIKES)
    def test_look_alikes(self, host: str, ecr_provider: ecr.EcrProvider) -> None:
        """What only looks like a host of Amazon's is neither served nor given a login."""
        assert not ecr_provider.serves(host)
        with pytest.raises(provider.InvalidSpec) as caught:
            ecr_provider.key(ask(host, tenant=False, ambient=True))
        assert (caught.value.reason, caught.value.field) == ("NotAnEcrHost", "server")

    @hypothesis.given(
        strategies.sampled_from(HOSTS), strategies.text(min_size=1, max_size=8), strategies.booleans()
    )
    def test_anchored(self, known: tuple[str, str, str, bool], text: str, before: bool) -> None:
        """No text before or after a host is taken for a part of it, but a repository prefix."""
        host = known[0]
        changed = text + host if before else host + text
        assert ecr_hosts.parse(changed) is None or (not before and ("/" in host or text.startswith("/")))

    @pytest.mark.parametrize(
        ("host", "registry", "sts"),
        [
            (HOST, "api.ecr.eu-west-1.amazonaws.com", "sts.eu-west-1.amazonaws.com"),
            (HOSTS[1][0], "api.ecr.eu-west-1.amazonaws.com", "sts.eu-west-1.amazonaws.com"),
            (HOSTS[2][0], "api.ecr-fips.us-east-1.amazonaws.com", "sts-fips.us-east-1.amazonaws.com"),
            (HOSTS[6][0], "api.ecr.cn-north-1.amazonaws.com.cn", "sts.cn-north-1.amazonaws.com.cn"),
            (HOSTS[9][0], "api.ecr-fips.us-gov-east-1.amazonaws.com", "sts.us-gov-east-1.amazonaws.com"),
            (HOSTS[11][0], "api.ecr.us-iso-east-1.c2s.ic.gov", "sts.us-iso-east-1.c2s.ic.gov"),
            (HOSTS[12][0], "api.ecr.us-isob-east-1.sc2s.sgov.gov", "sts.us-isob-east-1.sc2s.sgov.gov"),
            (HOSTS[13][0], "api.ecr.eu-isoe-west-1.cloud.adc-e.uk", "sts.eu-isoe-west-1.cloud.adc-e.uk"),
            (HOSTS[14][0], "api.ecr.us-isof-south-1.csp.hci.ic.gov", "sts.us-isof-south-1.csp.hci.ic.gov"),
            (HOSTS[15][0], "api.ecr.eusc-de-east-1.amazonaws.eu", "sts.eusc-de-east-1.amazonaws.eu"),
            ("public.ecr.aws", "api.ecr-public.us-east-1.amazonaws.com", "sts.us-east-1.amazonaws.com"),
        ],
    )
    @pytest.mark.usefixtures("clean")
    def test_endpoints(self, host: str, registry: str, sts: str) -> None:
        """The host alone selects the endpoint: of its own region and partition, FIPS for FIPS."""
        place = ecr_plan.plan_for(ask(host, tenant=False, ambient=True)).place
        sdk = ecr_client.Aws()
        keys = ecr_client.Keys("AKIA" + "A" * 16, "s" * 40)
        sent = []
        for service in ("ecr-public" if place.public else "ecr", "sts"):
            with sdk._client(service, place, keys) as client:
                client.meta.events.register("before-send", _stop_before_sending)
                with pytest.raises(_Stopped) as stopped:
                    client.get_caller_identity() if service == "sts" else client.get_authorization_token()
            sent.append(str(stopped.value))
        assert sent == [f"https://{registry}/", f"https://{sts}/"]


class _Stopped(BaseException):
    """The address of a request that was not sent."""


def _stop_before_sending(request: Any, **_: object) -> None:
    raise _Stopped(request.url)


class TestKey:
    """What shares one fetch."""

    def test_shared(self, ecr_provider: ecr.EcrProvider) -> None:
        """Hosts, aliases, accounts and resources of one identity and region share one login."""
        other = HOST.replace("1234", "9999")
        keys = {
            ecr_provider.key(ask(*servers, secretRef="aws"))
            for servers in ((HOST,), (HOSTS[1][0],), (other,), (HOST, HOSTS[1][0], other), (f"{HOST}/team/",))
        }
        assert len(keys) == 1

    def test_operator_shared_by_all(self, ecr_provider: ecr.EcrProvider) -> None:
        """The operator's own identity is one, whichever namespace may use it."""
        keys = {ecr_provider.key(ask(namespace=name, ambient=True, tenant=name == "a")) for name in ("a", "b")}
        assert len(keys) == 1

    def test_distinct(self, ecr_provider: ecr.EcrProvider) -> None:
        """Another namespace, source, role, external id, region, partition, API or FIPS endpoint is another fetch."""
        asks = [
            ask(secretRef="aws"),
            ask(secretRef="aws", namespace="team-b"),
            ask(secretRef="other"),
            ask(serviceAccountRef="aws"),
            ask(secretRef="aws", roleArn=ROLE),
            ask(secretRef="aws", roleArn=ROLE, externalId="one"),
            ask(secretRef="aws", roleArn=ROLE, externalId="two"),
            ask(HOST.replace("eu-west-1", "us-east-1"), secretRef="aws"),
            ask(HOSTS[2][0], secretRef="aws"),
            ask(HOSTS[6][0], secretRef="aws"),
            ask("public.ecr.aws", secretRef="aws"),
            ask(ambient=True),
            ask(ambient=True, roleArn=ROLE),
        ]
        assert len({ecr_provider.key(asked) for asked in asks}) == len(asks)

    def test_no_external_id(self, ecr_provider: ecr.EcrProvider) -> None:
        """An external id is told apart in the key without standing in it."""
        assert "contract-4711" not in ecr_provider.key(
            ask(secretRef="aws", roleArn=ROLE, externalId="contract-4711")
        )

    def test_sources(self, ecr_provider: ecr.EcrProvider) -> None:
        """Only a Secret that is read is a source."""
        assert ecr_provider.sources(ask(secretRef="aws")) == [provider.SourceRef("team-a", "aws")]
        assert ecr_provider.sources(ask(serviceAccountRef="puller")) == []

    @pytest.mark.parametrize(
        ("asked", "reason", "field"),
        [
            (lambda: ask(HOST, HOST.replace("eu-", "us-"), secretRef="aws"), "RegionMismatch", "aliases"),
            (lambda: ask(HOST, "public.ecr.aws", secretRef="aws"), "RegionMismatch", "aliases"),
            (lambda: ask(HOST, "r.example.com", secretRef="aws"), "NotAnEcrHost", "aliases"),
            (lambda: ask(HOST, secretRef="aws", region="us-east-1"), "RegionMismatch", "ecr.region"),
            (lambda: ask(HOSTS[6][0], secretRef="aws", roleArn=ROLE), "PartitionMismatch", "ecr.roleArn"),
            (
                lambda: ask(serviceAccountRef="p", roleArn=ROLE, externalId="x1"),
                "InvalidExternalId",
                "ecr.externalId",
            ),
            (lambda: ask(), "AmbientRefused", "ecr"),
            (lambda: ask(roleArn=ROLE), "AmbientRefused", "ecr"),
            (lambda: ask(tenant=False), "AmbientRefused", "ecr"),
        ],
    )
    def test_refused(
        self, ecr_provider: ecr.EcrProvider, asked: Callable[[], provider.Ask], reason: str, field: str
    ) -> None:
        """What cannot work is refused with its field before anything is sent."""
        with pytest.raises(provider.InvalidSpec) as caught:
            ecr_provider.key(asked())
        assert (caught.value.reason, caught.value.field) == (reason, field)

    @pytest.mark.parametrize(
        ("block", "reason"),
        [
            ({"region": "eu-west-1.evil.example/"}, "InvalidRegion"),
            ({"service_account_ref": types.SimpleNamespace(name="p")}, "TwoIdentities"),
            ({"external_id": "x1"}, "InvalidExternalId"),
            ({"external_id": "x y", "role_arn": ROLE}, "InvalidExternalId"),
            ({"role_arn": f"{ROLE}\n"}, "InvalidRoleArn"),
        ],
    )
    def test_unchecked_block(self, ecr_provider: ecr.EcrProvider, block: dict[str, Any], reason: str) -> None:
        """What the schema refuses is refused here too: no check rests on another having run."""
        config = types.SimpleNamespace(secret_ref=types.SimpleNamespace(name="aws"), **block)
        with pytest.raises(provider.InvalidSpec) as caught:
            ecr_provider.key(dataclasses.replace(ask(secretRef="aws"), config=config))
        assert caught.value.reason == reason

    def test_ambient_text(self, ecr_provider: ecr.EcrProvider) -> None:
        """A tenant without an identity of its own reads what to do."""
        with pytest.raises(provider.InvalidSpec, match="ambient credentials are not available to a namespaced"):
            ecr_provider.key(ask())

    def test_host_in_front(self, ecr_provider: ecr.EcrProvider) -> None:
        """A host of one's own in front of ECR is taken where the region says what it fronts."""
        key = ecr_provider.key(ask("ecr.example.com", secretRef="aws", region="cn-north-1"))
        assert key == ecr_provider.key(ask(HOSTS[6][0], secretRef="aws"))

    def test_no_block(self, ecr_provider: ecr.EcrProvider) -> None:
        """An entry without a block, where the host tells the provider, means the operator's own identity."""
        asked = dataclasses.replace(ask(tenant=False, ambient=True), config=None)
        assert ecr_provider.key(asked) == "ecr|aws|eu-west-1|own"


@pytest.mark.usefixtures("aws")
class TestKeysInSecret:
    """Static keys."""

    async def test_login(self, aws: local.Aws, user: Keys, ecr_provider: ecr.EcrProvider) -> None:
        """Keys in a Secret get a login that lives as long as AWS says and is good for every server."""
        before = dt.datetime.now(dt.UTC)
        grant = await ecr_provider.fetch(ask(secretRef="aws", source=Source(secret_of(user))))
        login = grant.logins[provider.ANY_SERVER]
        assert login.username == "AWS"
        assert login.password.startswith(f"{ACCOUNT}-login-")
        assert grant.identity == user.arn
        assert before <= grant.issued_at <= dt.datetime.now(dt.UTC)
        assert grant.expires_at is not None
        assert grant.expires_at.tzinfo is dt.UTC
        assert abs(grant.expires_at - before - dt.timedelta(hours=12)) < dt.timedelta(minutes=1)
        assert [call.region for call in aws.calls] == ["eu-west-1", "eu-west-1"]

    async def test_short_life(self, aws: local.Aws, user: Keys, ecr_provider: ecr.EcrProvider) -> None:
        """The expiry is the one in the answer, however soon."""
        aws.life = 30
        grant = await ecr_provider.fetch(ask(secretRef="aws", source=Source(secret_of(user))))
        assert grant.expires_at is not None
        assert grant.expires_at - grant.issued_at < dt.timedelta(minutes=1)

    async def test_public(self, aws: local.Aws, user: Keys, ecr_provider: ecr.EcrProvider) -> None:
        """The public gallery has its own API, asked in us-east-1."""
        asked = ask("public.ecr.aws", "ecr-public.aws.com", secretRef="aws", source=Source(secret_of(user)))
        grant = await ecr_provider.fetch(asked)
        assert grant.logins["*"].password.startswith("public-login-")
        assert aws.count(local.PUBLIC) == 1
        assert aws.calls[0].region == "us-east-1"

    async def test_fips(self, user: Keys, ecr_provider: ecr.EcrProvider) -> None:
        """A FIPS host gets its login where the administrator's environment names the endpoint."""
        asked = ask(HOSTS[2][0], secretRef="aws", source=Source(secret_of(user)))
        assert (await ecr_provider.fetch(asked)).identity == user.arn

    async def test_identity_once(self, aws: local.Aws, user: Keys, ecr_provider: ecr.EcrProvider) -> None:
        """Who the keys are is asked once; each fetch gets a new login."""
        asked = ask(secretRef="aws", source=Source(secret_of(user)))
        grants = [await ecr_provider.fetch(asked) for _ in range(3)]
        assert len({grant.logins["*"].password for grant in grants}) == 3
        assert (aws.count(local.ECR), aws.count(local.WHO)) == (3, 1)

    async def test_identity_forgotten(
        self, aws: local.Aws, user: Keys, clean: pytest.MonkeyPatch, ecr_provider: ecr.EcrProvider
    ) -> None:
        """What is remembered of identities has a bound, beyond which it is asked again."""
        clean.setattr(ecr, "_REMEMBERED_IDENTITIES", 1)
        for namespace in ("a", "b", "a"):
            asked = ask(secretRef="aws", namespace=namespace, source=Source(secret_of(user)))
            assert (await ecr_provider.fetch(asked)).identity == user.arn
        assert aws.count(local.WHO) == 3

    async def test_identity_unknown(self, aws: local.Aws, user: Keys, ecr_provider: ecr.EcrProvider) -> None:
        """A failing GetCallerIdentity does not fail the login; the identity says what is known."""
        aws.fail(local.WHO, Fault(500, "ServerException", CANARY))
        grant = await ecr_provider.fetch(ask(secretRef="aws", source=Source(secret_of(user))))
        assert grant.identity == "the access key in Secret team-a/aws"

    async def test_refused_unknown(self, aws: local.Aws, user: Keys, ecr_provider: ecr.EcrProvider) -> None:
        """A refusal is told as one where nobody says who was refused."""
        aws.fail(local.WHO, Fault(500, "ServerException", CANARY))
        aws.denied.add(local.ECR)
        error = await failure(ask(secretRef="aws", source=Source(secret_of(user))), ecr_provider)
        assert (type(error), error.reason) == (provider.Denied, "AccessDenied")
        assert "to the access key in Secret team-a/aws. Allow" in error.message

    async def test_role(self, aws: local.Aws, user: Keys, ecr_provider: ecr.EcrProvider) -> None:
        """With a role the login is the role's, and the external id is sent."""
        aws.roles[ROLE] = dataclasses.replace(aws.roles[ROLE], external_id="contract-4711")
        source = Source(secret_of(user))
        grant = await ecr_provider.fetch(
            ask(secretRef="aws", roleArn=ROLE, externalId="contract-4711", source=source)
        )
        assert grant.identity == "arn:aws:sts::333333333333:assumed-role/puller/regcred.team-a.aws"
        assert grant.logins["*"].password.startswith("333333333333-")
        assert [call.action for call in aws.calls] == [local.ASSUME, local.ECR]

    @pytest.mark.parametrize("external_id", [None, "contract-0815"])
    async def test_role_refused(
        self, aws: local.Aws, user: Keys, ecr_provider: ecr.EcrProvider, external_id: str | None
    ) -> None:
        """A missing or wrong external id is a refusal that names the policies to look at."""
        aws.roles[ROLE] = dataclasses.replace(aws.roles[ROLE], external_id="contract-4711")
        block = {"externalId": external_id} if external_id else {}
        asked = ask(secretRef="aws", roleArn=ROLE, source=Source(secret_of(user)), **block)
        error = await failure(asked, ecr_provider)
        assert isinstance(error, provider.Denied)
        assert error.reason == "AccessDenied"
        assert ROLE in error.message
        assert "sts:ExternalId" in error.message
        assert aws.count(local.ECR) == 0

    @pytest.mark.parametrize(
        ("key_id", "secret"),
        [
            ("accessKeyId", "secretAccessKey"),
            ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
            ("access-key-id", "secret-access-key"),
            ("aws_access_key_id", "aws_secret_access_key"),
        ],
    )
    async def test_spellings(self, user: Keys, ecr_provider: ecr.EcrProvider, key_id: str, secret: str) -> None:
        """The usual spellings of the keys are read, with or without a line break at the end."""
        source = Source({key_id: user.access_key_id + "\n", secret: user.secret_access_key + "\n"})
        assert (await ecr_provider.fetch(ask(secretRef="aws", source=source))).identity == user.arn

    async def test_session_token(self, aws: local.Aws, ecr_provider: ecr.EcrProvider) -> None:
        """Temporary keys work with their session token, and once expired only a person can renew them."""
        keys = await aws.create_session(NODE_ROLE, "ci")
        asked = ask(secretRef="aws", source=Source(secret_of(keys)))
        assert (await ecr_provider.fetch(asked)).identity == keys.arn
        aws.expire_sessions()
        error = await failure(asked, ecr_provider)
        assert isinstance(error, provider.InvalidSpec)
        assert (error.reason, error.field) == ("ExpiredToken", "ecr.secretRef.name")
        assert aws.calls[-1].outcome == "ExpiredTokenException"

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"accessKeyId": ""}, "accessKeyId of Secret team-a/aws is empty"),
            ({"secretAccessKey": ""}, "secretAccessKey of Secret team-a/aws is empty"),
            ({"secretAccessKey": "\n"}, "is empty"),
            ({"accessKeyId": None}, "accessKeyId of Secret team-a/aws is missing"),
            ({"accessKeyId": None, "secretAccessKey": None}, "is missing"),
            ({"accessKeyId": "AKIA CANARY KEY ID"}, "is not what AWS hands out"),
            ({"secretAccessKey": "canary\r\nX-Injected: 1 canary canary"}, "is not what AWS hands out"),
            ({"secretAccessKey": "Schlüssel-canary-canary-canary"}, "is not what AWS hands out"),
            ({"sessionToken": "canary canary canary canary"}, "is not what AWS hands out"),
            ({"AWS_ACCESS_KEY_ID": "AKIACANARYCANARYCANA"}, "twice under two spellings"),
            ({"accessKeyId": "ASIACANARYCANARYCANA"}, "without its sessionToken"),
        ],
    )
    async def test_bad_keys(
        self, aws: local.Aws, user: Keys, clean: pytest.MonkeyPatch, change: dict[str, str | None], words: str
    ) -> None:
        """Empty or odd keys are refused before a client is built: the operator's own are never used instead."""
        clean.setenv("AWS_ACCESS_KEY_ID", user.access_key_id)
        clean.setenv("AWS_SECRET_ACCESS_KEY", user.secret_access_key)
        written = {"accessKeyId": "AKIA" + "A" * 16, "secretAccessKey": "s" * 40} | change
        source = Source({key: value for key, value in written.items() if value is not None})
        asked = ask(secretRef="aws", source=source)
        error = await failure(asked, ecr.EcrProvider())
        assert isinstance(error, provider.InvalidSpec)
        assert (error.reason, error.field) == ("BadSource", "ecr.secretRef.name")
        assert words in error.message
        assert aws.calls == []

    async def test_empty_session_token(self, user: Keys, ecr_provider: ecr.EcrProvider) -> None:
        """An empty session token is none."""
        source = Source(secret_of(user) | {"sessionToken": ""})
        assert (await ecr_provider.fetch(ask(secretRef="aws", source=source))).identity == user.arn

    async def test_wrong_secret(self, user: Keys, ecr_provider: ecr.EcrProvider) -> None:
        """A secret key of another access key is refused by its signature."""
        source = Source(secret_of(user) | {"secretAccessKey": "s" * 40})
        error = await failure(ask(secretRef="aws", source=source), ecr_provider)
        assert (type(error), error.reason) == (provider.Denied, "BadSignature")

    async def test_deleted_key(self, ecr_provider: ecr.EcrProvider) -> None:
        """An access key that AWS does not know is refused as such."""
        source = Source({"accessKeyId": "AKIA" + "A" * 16, "secretAccessKey": "s" * 40})
        error = await failure(ask(secretRef="aws", source=source), ecr_provider)
        assert (type(error), error.reason) == (provider.Denied, "UnknownIdentity")


@pytest.mark.usefixtures("aws")
class TestOwnIdentity:
    """The operator's own identity, each way that Amazon has to give one to a pod."""

    async def test_environment(self, user: Keys, clean: pytest.MonkeyPatch, ecr_provider: ecr.EcrProvider) -> None:
        """Keys in the operator's environment serve the platform."""
        clean.setenv("AWS_ACCESS_KEY_ID", user.access_key_id)
        clean.setenv("AWS_SECRET_ACCESS_KEY", user.secret_access_key)
        grant = await ecr_provider.fetch(ask(tenant=False, ambient=True))
        assert grant.identity == user.arn

    async def test_irsa(
        self, aws: local.Aws, clean: pytest.MonkeyPatch, tmp_path: Path, ecr_provider: ecr.EcrProvider
    ) -> None:
        """With IRSA the operator's own account token is exchanged, in the operator's own region."""
        clean.setenv("AWS_REGION", "eu-central-1")
        _irsa(clean, tmp_path, "regcred-system", "regcred")
        grant = await ecr_provider.fetch(ask(tenant=False, ambient=True))
        assert grant.identity.startswith("arn:aws:sts::333333333333:assumed-role/puller/")
        assert [call.action for call in aws.calls] == [local.FEDERATE, local.ECR, local.WHO]
        assert aws.calls[0].caller == "system:serviceaccount:regcred-system:regcred"

    async def test_irsa_refused(
        self, clean: pytest.MonkeyPatch, tmp_path: Path, ecr_provider: ecr.EcrProvider
    ) -> None:
        """An operator whose role does not trust it is told so; the entry is not at fault."""
        _irsa(clean, tmp_path, "other", "account")
        error = await failure(ask(tenant=False, ambient=True), ecr_provider)
        assert (type(error), error.reason, error.field) == (provider.Denied, "AccessDenied", "")
        assert error.message in TestGuide.TEXT

    async def test_pod_identity(
        self, aws: local.Aws, clean: pytest.MonkeyPatch, tmp_path: Path, ecr_provider: ecr.EcrProvider
    ) -> None:
        """With EKS Pod Identity the agent hands out the role for the pod's token."""
        keys = await aws.create_session(NODE_ROLE, "pod")
        (tmp_path / "token").write_text("pod-token")
        clean.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", aws.set_pod_role("pod-token", keys))
        clean.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
        assert (await ecr_provider.fetch(ask(tenant=False, ambient=True))).identity == keys.arn

    async def test_empty_keys(
        self, aws: local.Aws, clean: pytest.MonkeyPatch, tmp_path: Path, ecr_provider: ecr.EcrProvider
    ) -> None:
        """Empty keys from the agent are no identity, and nothing is sent with them."""
        (tmp_path / "token").write_text("pod-token")
        clean.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", aws.set_pod_role("pod-token", Keys("", "", "token")))
        clean.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
        error = await failure(ask(tenant=False, ambient=True), ecr_provider)
        assert (type(error), error.reason) == (provider.Denied, "NoCredentials")
        assert [call.action for call in aws.calls] == [local.POD_IDENTITY]

    async def test_metadata(
        self, aws: local.Aws, clean: pytest.MonkeyPatch, ecr_provider: ecr.EcrProvider
    ) -> None:
        """Without anything else the node's role is used, and the status names it."""
        keys = await aws.create_session(NODE_ROLE, "i-0123456789")
        aws.set_node_role(keys)
        for name, value in aws.metadata_environment().items():
            clean.setenv(name, value)
        assert (await ecr_provider.fetch(ask(tenant=False, ambient=True))).identity == keys.arn
        aws.denied.add(local.ECR)
        error = await failure(ask(tenant=False, ambient=True), ecr_provider)
        assert "(arn:aws:sts::444444444444:assumed-role/node)" in error.message
        assert error.message in TestGuide.TEXT

    async def test_none(self, ecr_provider: ecr.EcrProvider) -> None:
        """An operator without an identity is told what to give it, and tries again slowly."""
        error = await failure(ask(tenant=False, ambient=True), ecr_provider)
        assert (type(error), error.reason, error.field) == (provider.Denied, "NoCredentials", "")

    async def test_role_on_top(self, user: Keys, clean: pytest.MonkeyPatch, ecr_provider: ecr.EcrProvider) -> None:
        """The operator's own identity may take on a role of another account."""
        clean.setenv("AWS_ACCESS_KEY_ID", user.access_key_id)
        clean.setenv("AWS_SECRET_ACCESS_KEY", user.secret_access_key)
        grant = await ecr_provider.fetch(ask(tenant=False, ambient=True, roleArn=ROLE))
        assert grant.identity == "arn:aws:sts::333333333333:assumed-role/puller/regcred"

    async def test_expired_once(
        self, aws: local.Aws, clean: pytest.MonkeyPatch, tmp_path: Path, ecr_provider: ecr.EcrProvider
    ) -> None:
        """Credentials that AWS calls expired are had anew, once, without an error."""
        _irsa(clean, tmp_path, "regcred-system", "regcred")
        await ecr_provider.fetch(ask(tenant=False, ambient=True))
        aws.expire_sessions()
        aws.calls.clear()
        await ecr_provider.fetch(ask(tenant=False, ambient=True))
        assert [call.outcome for call in aws.calls if call.action == local.ECR] == ["ExpiredTokenException", "ok"]
        assert aws.count(local.FEDERATE) == 1

    async def test_never_for_tenants(
        self, aws: local.Aws, user: Keys, clean: pytest.MonkeyPatch, ecr_provider: ecr.EcrProvider
    ) -> None:
        """A tenant without own identity is refused although the operator has one, and nothing is sent."""
        clean.setenv("AWS_ACCESS_KEY_ID", user.access_key_id)
        clean.setenv("AWS_SECRET_ACCESS_KEY", user.secret_access_key)
        error = await failure(ask(), ecr_provider)
        assert (type(error), error.reason) == (provider.InvalidSpec, "AmbientRefused")
        assert aws.calls == []

    def test_no_chain(self, clean: pytest.MonkeyPatch) -> None:
        """The session that makes tenants' clients cannot see the operator's credentials at all."""
        clean.setenv("AWS_ACCESS_KEY_ID", "AKIA" + "A" * 16)
        clean.setenv("AWS_SECRET_ACCESS_KEY", "s" * 40)
        sdk = ecr_client.Aws()
        with sdk._client("sts", ecr_client.Place("eu-west-1", fips=False, public=False), None):
            assert sdk._session is not None
            assert sdk._session.get_credentials() is None


def _irsa(clean: pytest.MonkeyPatch, folder: Path, namespace: str, name: str) -> None:
    """What EKS's webhook gives a pod of that account."""
    now = dt.datetime.now(dt.UTC)
    claims = {
        "iss": ISSUER,
        "aud": ["sts.amazonaws.com"],
        "sub": f"system:serviceaccount:{namespace}:{name}",
        "iat": now,
        "exp": now + dt.timedelta(hours=1),
    }
    (folder / "token").write_text(jwt.encode(claims, SIGNING, algorithm="RS256"))
    clean.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(folder / "token"))
    clean.setenv("AWS_ROLE_ARN", ROLE)


@pytest.mark.usefixtures("aws")
class TestFederation:
    """A service account's token for a role."""

    async def test_role_of_account(self, aws: local.Aws, ecr_provider: ecr.EcrProvider) -> None:
        """The account's annotation names the role, and no keys sign the exchange."""
        source = Source(annotations={ecr.ROLE_ANNOTATION: ROLE})
        grant = await ecr_provider.fetch(ask(serviceAccountRef="puller", source=source))
        assert grant.identity == "arn:aws:sts::333333333333:assumed-role/puller/regcred.team-a.puller"
        assert [(call.action, call.region) for call in aws.calls] == [
            (local.FEDERATE, ""),
            (local.ECR, "eu-west-1"),
        ]
        assert jwt.decode(source.minted[0], options={"verify_signature": False})["aud"] == ["sts.amazonaws.com"]

    async def test_role_of_entry(self, ecr_provider: ecr.EcrProvider) -> None:
        """A role in the entry takes the place of the account's."""
        source = Source(annotations={ecr.ROLE_ANNOTATION: NODE_ROLE})
        grant = await ecr_provider.fetch(ask(serviceAccountRef="puller", roleArn=ROLE, source=source))
        assert ":assumed-role/puller/" in grant.identity

    async def test_audience(self, aws: local.Aws, ecr_provider: ecr.EcrProvider) -> None:
        """The account's annotation may name another audience."""
        aws.issuer = Issuer(ISSUER, public_of(SIGNING), frozenset({"sts.amazonaws.com.cn"}))
        aws.roles[ROLE] = dataclasses.replace(aws.roles[ROLE], audience="sts.amazonaws.com.cn")
        annotations = {ecr.ROLE_ANNOTATION: ROLE, ecr.AUDIENCE_ANNOTATION: "sts.amazonaws.com.cn"}
        await ecr_provider.fetch(ask(serviceAccountRef="puller", source=Source(annotations=annotations)))
        assert aws.count(local.ECR) == 1

    async def test_other_account_refused(self, ecr_provider: ecr.EcrProvider) -> None:
        """A role that does not trust this account refuses it, and the message spells the trust condition out."""
        source = Source(annotations={ecr.ROLE_ANNOTATION: ROLE})
        error = await failure(ask(serviceAccountRef="stranger", source=source), ecr_provider)
        assert (type(error), error.reason) == (provider.Denied, "AccessDenied")
        assert ROLE in error.message
        assert "system:serviceaccount:team-a:stranger with aud sts.amazonaws.com" in error.message

    @pytest.mark.parametrize(
        ("change", "kind", "reason"),
        [
            ("issuer", provider.Denied, "NoOidcProvider"),
            ("audiences", provider.Denied, "AudienceRefused"),
            ("key", provider.Retryable, "IdentityTokenRefused"),
            ("expired", provider.Retryable, "ExpiredToken"),
        ],
    )
    async def test_refused_tokens(
        self, aws: local.Aws, ecr_provider: ecr.EcrProvider, change: str, kind: type, reason: str
    ) -> None:
        """Each fault of a token or of the IAM OIDC provider is told apart."""
        source = Source(annotations={ecr.ROLE_ANNOTATION: ROLE})
        if change == "issuer":
            aws.issuer = Issuer("https://other.example.com", public_of(SIGNING))
        elif change == "audiences":
            aws.issuer = Issuer(ISSUER, public_of(SIGNING), frozenset({"another"}))
        elif change == "key":
            source.key = STRANGER
        else:
            source.lives = [-60]
        error = await failure(ask(serviceAccountRef="puller", source=source), ecr_provider)
        assert (type(error), error.reason) == (kind, reason)

    async def test_expired_once(self, ecr_provider: ecr.EcrProvider) -> None:
        """A token that AWS calls expired is minted anew, once."""
        source = Source(annotations={ecr.ROLE_ANNOTATION: ROLE})
        source.lives = [-60, 600]
        await ecr_provider.fetch(ask(serviceAccountRef="puller", source=source))
        assert len(source.minted) == 2
        source.lives = [-60]
        await failure(ask(serviceAccountRef="puller", source=source), ecr_provider)
        assert len(source.minted) == 4

    @pytest.mark.parametrize(
        ("annotations", "reason"),
        [
            ({}, "RoleMissing"),
            ({ecr.ROLE_ANNOTATION: " "}, "RoleMissing"),
            ({ecr.ROLE_ANNOTATION: "puller"}, "InvalidRoleArn"),
            ({ecr.ROLE_ANNOTATION: f"{ROLE}\nx"}, "InvalidRoleArn"),
            ({ecr.ROLE_ANNOTATION: "arn:aws:iam::333333333333:user/puller"}, "InvalidRoleArn"),
            ({ecr.ROLE_ANNOTATION: ROLE.replace("arn:aws:", "arn:aws-cn:")}, "PartitionMismatch"),
            ({ecr.ROLE_ANNOTATION: ROLE, ecr.AUDIENCE_ANNOTATION: "a b"}, "InvalidAudience"),
        ],
    )
    async def test_bad_annotations(
        self, ecr_provider: ecr.EcrProvider, annotations: dict[str, str], reason: str
    ) -> None:
        """What an annotation says is checked before a token is minted."""
        source = Source(annotations=annotations)
        error = await failure(ask(serviceAccountRef="puller", source=source), ecr_provider)
        assert (type(error), error.reason) == (provider.InvalidSpec, reason)
        assert source.minted == []

    def test_session_name(self) -> None:
        """The session's name fits Amazon's 64 characters whatever the namespace and account are called."""
        plan = ecr_plan.plan_for(ask(serviceAccountRef="p" * 200, namespace="n" * 63))
        assert len(ecr._session_name(plan)) == 64


@pytest.mark.usefixtures("aws")
class TestRealCluster:
    """Federation with tokens that a real API server signs."""

    @pytest.fixture
    async def source(self, control_plane: Cluster, namespace: str) -> AsyncIterator[federation.NamespaceReader]:
        configuration = kubernetes.client.Configuration()
        kubernetes.config.load_kube_config(str(control_plane.admin_kubeconfig), client_configuration=configuration)
        client = cluster_client.Client(cluster_client.Login(configuration))
        yield federation.NamespaceReader(client, namespace, operator_account="regcred-system/regcred")
        await client.close()

    async def test_federation(
        self,
        aws: local.Aws,
        control_plane: Cluster,
        namespace: str,
        source: federation.NamespaceReader,
        ecr_provider: ecr.EcrProvider,
    ) -> None:
        """A real account's token gets its role's login; another account of the namespace does not."""
        if control_plane.public_key is None:
            pytest.skip("the issuer's public key of a given cluster is not known")
        aws.issuer = Issuer(control_plane.issuer, control_plane.public_key.read_text())
        aws.roles[ROLE] = Trust(subjects=frozenset({f"system:serviceaccount:{namespace}:puller"}))
        for name in ("puller", "stranger"):
            await control_plane.kubectl("create", "serviceaccount", name, f"--namespace={namespace}")
            annotation = f"{ecr.ROLE_ANNOTATION}={ROLE}"
            await control_plane.kubectl("annotate", "serviceaccount", name, annotation, f"--namespace={namespace}")
        grant = await ecr_provider.fetch(ask(serviceAccountRef="puller", namespace=namespace, source=source))
        assert grant.identity.startswith("arn:aws:sts::333333333333:assumed-role/puller/regcred.")
        error = await failure(ask(serviceAccountRef="stranger", namespace=namespace, source=source), ecr_provider)
        assert error.reason == "AccessDenied"

    async def test_keys(
        self,
        user: Keys,
        control_plane: Cluster,
        namespace: str,
        source: federation.NamespaceReader,
        ecr_provider: ecr.EcrProvider,
    ) -> None:
        """Keys are read from a real Secret of the namespace."""
        literals = [f"--from-literal={key}={value}" for key, value in secret_of(user).items()]
        await control_plane.kubectl("create", "secret", "generic", "aws", *literals, f"--namespace={namespace}")
        grant = await ecr_provider.fetch(ask(secretRef="aws", namespace=namespace, source=source))
        assert grant.identity == user.arn


def html(status: int) -> Fault:
    return Fault(status, "", f"<html>{CANARY}</html>")


R, T, D, S = provider.Retryable, provider.Throttled, provider.Denied, provider.InvalidSpec
ERRORS: list[tuple[str, Fault, type, str]] = [
    (local.ECR, Fault(400, "AccessDeniedException", CANARY), D, "AccessDenied"),
    (local.ASSUME, Fault(403, "AccessDenied", CANARY), D, "AccessDenied"),
    (local.FEDERATE, Fault(403, "AccessDenied", CANARY), D, "AccessDenied"),
    *((local.ECR, Fault(400, code, CANARY), D, reason) for code, reason in [
        ("UnrecognizedClientException", "UnknownIdentity"),
        ("InvalidClientTokenId", "UnknownIdentity"),
        ("MissingAuthenticationToken", "UnknownIdentity"),
        ("IncompleteSignature", "UnknownIdentity"),
        ("InvalidSignatureException", "BadSignature"),
        ("SignatureDoesNotMatch", "BadSignature"),
    ]),
    (local.ASSUME, Fault(403, "InvalidClientTokenId", CANARY), D, "UnknownIdentity"),
    (local.ASSUME, Fault(403, "SignatureDoesNotMatch", CANARY), D, "BadSignature"),
    (local.ECR, Fault(400, "RequestExpired", CANARY), R, "ClockSkew"),
    (local.ECR, Fault(403, "RequestTimeTooSkewed", CANARY), R, "ClockSkew"),
    (local.ASSUME, Fault(403, "ExpiredToken", CANARY), S, "ExpiredToken"),
    (local.ECR, Fault(400, "ExpiredTokenException", CANARY), S, "ExpiredToken"),
    (local.FEDERATE, Fault(400, "ExpiredTokenException", CANARY), R, "ExpiredToken"),
    (local.FEDERATE, Fault(400, "InvalidIdentityToken", f"Couldn't retrieve verification key from your identity "
                           f"provider, {CANARY}"), R, "IdentityTokenRefused"),
    (local.FEDERATE, Fault(400, "InvalidIdentityTokenException", CANARY), R, "IdentityTokenRefused"),
    (local.FEDERATE, Fault(400, "InvalidIdentityToken", f"No OpenIDConnect provider found in your account for "
                           f"{CANARY}"), D, "NoOidcProvider"),
    (local.FEDERATE, Fault(400, "InvalidIdentityToken", f"Incorrect token audience {CANARY}"), D, "AudienceRefused"),
    (local.FEDERATE, Fault(400, "IDPCommunicationError", CANARY), R, "IssuerUnreachable"),
    (local.FEDERATE, Fault(403, "IDPRejectedClaim", CANARY), D, "ClaimRejected"),
    (local.ASSUME, Fault(403, "RegionDisabledException", CANARY), D, "RegionDisabled"),
    (local.ASSUME, Fault(400, "MalformedPolicyDocument", CANARY), D, "PolicyRefused"),
    (local.ASSUME, Fault(400, "PackedPolicyTooLarge", CANARY), D, "PolicyRefused"),
    (local.ASSUME, Fault(400, "ValidationError", CANARY), S, "InvalidRequest"),
    (local.ECR, Fault(400, "InvalidParameterException", CANARY), S, "InvalidRequest"),
    (local.PUBLIC, Fault(400, "UnsupportedCommandException", CANARY), S, "UnsupportedRegion"),
    (local.PUBLIC, Fault(400, "AccessDeniedException", CANARY), D, "AccessDenied"),
    (local.ECR, Fault(400, "ThrottlingException", CANARY), T, "Throttled"),
    (local.ASSUME, Fault(400, "Throttling", CANARY), T, "Throttled"),
    (local.ECR, Fault(400, "TooManyRequestsException", CANARY), T, "Throttled"),
    (local.ASSUME, Fault(503, "RequestLimitExceeded", CANARY), T, "Throttled"),
    (local.ECR, Fault(400, "LimitExceededException", CANARY), T, "Throttled"),
    (local.ECR, Fault(429, "", CANARY), T, "Throttled"),
    (local.ECR, Fault(500, "ServerException", CANARY), R, "ProviderFailed"),
    *((local.ECR, html(status), R, "ProviderFailed") for status in (500, 502, 503, 504)),
    (local.ASSUME, Fault(500, "InternalFailure", CANARY), R, "ProviderFailed"),
    *((local.ECR, html(status), R, "UnexpectedAnswer") for status in (403, 407, 400, 200)),
    *((local.ASSUME, html(status), R, "UnexpectedAnswer") for status in (403, 407, 200)),
    (local.FEDERATE, html(200), R, "UnexpectedAnswer"),
    (local.ASSUME, Fault(200, "", f"no xml {CANARY}", {"Content-Type": "text/xml"}), R, "UnexpectedAnswer"),
    (local.FEDERATE, Fault(200, "", "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult/>"
                           "</AssumeRoleWithWebIdentityResponse>"), R, "UnexpectedAnswer"),
    (local.ECR, Fault(418, "BrandNewException", CANARY), R, "UnexpectedAnswer"),
    (local.ECR, Fault(behaviour="close"), R, "Unreachable"),
    (local.ECR, Fault(behaviour="hang"), R, "Unreachable"),
    (local.FEDERATE, Fault(behaviour="close"), R, "Unreachable"),
]  # fmt: skip


QUICK = {"connect_timeout": 1, "read_timeout": 0.3, "retries": {"total_max_attempts": 1}}


def answer(data: object) -> Fault:
    """A 200 of ECR with this as `authorizationData`."""
    return Fault(200, "", json.dumps({"authorizationData": data}), {"Content-Type": "application/x-amz-json-1.1"})


def token(text: str, expires_at: float | None = 4102444800) -> dict[str, object]:
    encoded = base64.b64encode(text.encode()).decode()
    return {"authorizationToken": encoded} | ({} if expires_at is None else {"expiresAt": expires_at})


@pytest.fixture(scope="module")
def shared() -> ecr.EcrProvider:
    """One provider for the whole table, made impatient by its first row: it remembers nothing of a failure."""
    return ecr.EcrProvider()


@pytest.mark.usefixtures("aws")
class TestErrors:
    """What each of Amazon's errors becomes."""

    @pytest.fixture
    def quick(self, clean: pytest.MonkeyPatch) -> None:
        """A short patience with hanging servers, and one try."""
        clean.setattr(ecr_client, "_PATIENT", QUICK)

    @pytest.mark.usefixtures("quick")
    @pytest.mark.parametrize("row", ERRORS, ids=lambda row: f"{row[0]}-{row[1].code or row[1].status}-{row[3]}")
    async def test_table(
        self, aws: local.Aws, user: Keys, shared: ecr.EcrProvider, row: tuple[str, Fault, type, str]
    ) -> None:
        """Every error ends in the class that says who must act, in words of ours that tell what to do."""
        action, fault, kind, reason = row
        source = Source(secret_of(user), {ecr.ROLE_ANNOTATION: ROLE})
        asked = {
            local.ECR: ask(secretRef="aws", source=source),
            local.PUBLIC: ask("public.ecr.aws", secretRef="aws", source=source),
            local.ASSUME: ask(secretRef="aws", roleArn=ROLE, source=source),
            local.FEDERATE: ask(serviceAccountRef="puller", source=source),
        }[action]
        aws.fail(action, fault)
        error = await failure(asked, shared)
        assert (type(error), error.reason) == (kind, reason)
        assert len(error.message) > 40
        assert error.message.endswith(".")
        assert "{" not in error.message

    @pytest.mark.parametrize(("header", "after"), [("7", 7.0), ("999999", 3600.0), ("soon", 60.0), (None, 60.0)])
    async def test_patience(
        self, aws: local.Aws, user: Keys, ecr_provider: ecr.EcrProvider, header: str | None, after: float
    ) -> None:
        """A throttled fetch says how long to wait: as AWS says, within reason."""
        headers = {"Retry-After": header} if header else {}
        aws.fail(local.ECR, Fault(400, "ThrottlingException", CANARY, headers))
        error = await failure(ask(secretRef="aws", source=Source(secret_of(user))), ecr_provider)
        assert isinstance(error, provider.Throttled)
        assert error.after == after

    async def test_clock(self, aws: local.Aws, user: Keys, ecr_provider: ecr.EcrProvider) -> None:
        """A refused signature with a Date far from ours is a matter of the clock, and passes when it is set."""
        headers = {"Date": "Tue, 10 Nov 2026 10:00:00 GMT"}
        aws.fail(local.ECR, Fault(403, "InvalidSignatureException", CANARY, headers))
        error = await failure(ask(secretRef="aws", source=Source(secret_of(user))), ecr_provider)
        assert (type(error), error.reason) == (provider.Retryable, "ClockSkew")
        assert "clock of the operator's node" in error.message

    async def test_few_tries(self, aws: local.Aws, user: Keys, ecr_provider: ecr.EcrProvider) -> None:
        """The SDK tries twice at most: trying again is the operator's business."""
        aws.fail(local.ECR, Fault(500, "ServerException", CANARY))
        await failure(ask(secretRef="aws", source=Source(secret_of(user))), ecr_provider)
        assert aws.count(local.ECR) == 2

    @pytest.mark.parametrize(
        ("environment", "reason"),
        [
            ({"AWS_ENDPOINT_URL": "http://127.0.0.1:{nobody}"}, "Unreachable"),
            ({"AWS_ENDPOINT_URL": "http://no-such-host.invalid"}, "Unreachable"),
            ({"AWS_ENDPOINT_URL": "https://127.0.0.1:{server}"}, "TlsFailed"),
            ({"AWS_ENDPOINT_URL": "https://127.0.0.1:{server}", "AWS_CA_BUNDLE": "/no/such/ca.pem"}, "TlsFailed"),
            ({"HTTP_PROXY": "http://127.0.0.1:{nobody}"}, "Unreachable"),
        ],
    )
    @pytest.mark.usefixtures("quick")
    async def test_network(
        self, aws: local.Aws, user: Keys, clean: pytest.MonkeyPatch, environment: dict[str, str], reason: str
    ) -> None:
        """What is between the operator and AWS is tried again, and named."""
        clean.delenv("NO_PROXY")
        for name, value in environment.items():
            clean.setenv(name, value.format(nobody=free_port(), server=aws.url.rpartition(":")[2]))
        error = await failure(ask(secretRef="aws", source=Source(secret_of(user))), ecr.EcrProvider())
        assert (type(error), error.reason) == (provider.Retryable, reason)

    @pytest.mark.parametrize(
        ("variable", "value"),
        [("AWS_PROFILE", "absent"), ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://evil.example/credentials")],
    )
    async def test_configuration(
        self, aws: local.Aws, clean: pytest.MonkeyPatch, variable: str, value: str
    ) -> None:
        """A wrong configuration of the operator's own is no fault of the resource."""
        clean.setenv(variable, value)
        error = await failure(ask(tenant=False, ambient=True), ecr.EcrProvider())
        assert isinstance(error, provider.Denied | provider.Retryable)
        assert error.field == ""
        assert aws.calls == []

    async def test_metadata_down(self, aws: local.Aws, clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """An agent that does not know the pod is tried again."""
        (tmp_path / "token").write_text("unknown-token")
        clean.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{aws.url}/v1/credentials")
        clean.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
        error = await failure(ask(tenant=False, ambient=True), ecr.EcrProvider())
        assert (type(error), error.reason) == (provider.Retryable, "NoCredentials")
        assert error.message in TestGuide.TEXT

    @pytest.mark.parametrize(
        "data",
        [
            [],
            None,
            {},
            [{}],
            [token("AWS:password", None)],
            [token("AWS")],
            [token("AWS:")],
            [token(":password")],
            [token("AWS:pass\nword")],
            [{"authorizationToken": "no base64!", "expiresAt": 4102444800}],
        ],
    )
    async def test_odd_answers(
        self, aws: local.Aws, user: Keys, ecr_provider: ecr.EcrProvider, data: object
    ) -> None:
        """An answer without a usable login is tried again, never published."""
        aws.fail(local.ECR, answer(data))
        error = await failure(ask(secretRef="aws", source=Source(secret_of(user))), ecr_provider)
        assert (type(error), error.reason) == (provider.Retryable, "UnexpectedAnswer")

    async def test_first_colon(self, aws: local.Aws, user: Keys, ecr_provider: ecr.EcrProvider) -> None:
        """A password may hold colons."""
        aws.fail(local.ECR, answer([token("AWS:pass:word:")]))
        grant = await ecr_provider.fetch(ask(secretRef="aws", source=Source(secret_of(user))))
        assert grant.logins["*"].password == "pass:word:"

    async def test_expired_on_arrival(self, aws: local.Aws, user: Keys, ecr_provider: ecr.EcrProvider) -> None:
        """A login that has expired by our clock is not published."""
        aws.fail(local.ECR, answer([token("AWS:password", 1420070400)]))
        error = await failure(ask(secretRef="aws", source=Source(secret_of(user))), ecr_provider)
        assert (type(error), error.reason) == (provider.Retryable, "ExpiredOnArrival")

    async def test_deadline(
        self, aws: local.Aws, user: Keys, clean: pytest.MonkeyPatch, ecr_provider: ecr.EcrProvider
    ) -> None:
        """A fetch ends by its own deadline even where the SDK would wait longer."""
        clean.setattr(ecr, "_DEADLINE_SECONDS", 0.2)
        aws.fail(local.ECR, Fault(behaviour="hang"))
        error = await failure(ask(secretRef="aws", source=Source(secret_of(user))), ecr_provider)
        assert (type(error), error.reason) == (provider.Retryable, "TimedOut")

    async def test_tenants_wait_alone(
        self, aws: local.Aws, user: Keys, clean: pytest.MonkeyPatch, ecr_provider: ecr.EcrProvider
    ) -> None:
        """Tenants whose fetches hang do not keep the platform waiting."""
        clean.setenv("AWS_ACCESS_KEY_ID", user.access_key_id)
        clean.setenv("AWS_SECRET_ACCESS_KEY", user.secret_access_key)
        source = Source(annotations={ecr.ROLE_ANNOTATION: ROLE})
        aws.fail(local.FEDERATE, Fault(behaviour="hang"), times=ecr._THREADS)
        stuck = [
            asyncio.create_task(ecr_provider.fetch(ask(serviceAccountRef="puller", source=source)))
            for _ in range(8)
        ]

        async def all_stuck() -> bool:
            return aws.count(local.FEDERATE) >= ecr._THREADS

        await eventually(all_stuck, "the tenants' threads hang", seconds=20)
        grant = await ecr_provider.fetch(ask(tenant=False, ambient=True))
        assert grant.identity == user.arn
        assert not any(task.done() for task in stuck)
        aws.release()
        assert len(await asyncio.gather(*stuck)) == 8

    async def test_all_at_once(self, user: Keys, ecr_provider: ecr.EcrProvider) -> None:
        """Fetches of many identities at once each get the login of their own."""
        source = Source(secret_of(user), {ecr.ROLE_ANNOTATION: ROLE})
        own, role = ask(secretRef="aws", source=source), ask(serviceAccountRef="puller", source=source)
        grants = await asyncio.gather(*(ecr_provider.fetch(asked) for asked in [own, role] * 10))
        assert {grant.identity for grant in grants[::2]} == {user.arn}
        assert {grant.logins["*"].password.partition("-")[0] for grant in grants[1::2]} == {"333333333333"}


class TestSecrecy:
    """No secret comes out."""

    async def test_logs(
        self, aws: local.Aws, user: Keys, caplog: pytest.LogCaptureFixture, ecr_provider: ecr.EcrProvider
    ) -> None:
        """At DEBUG, whatever level the SDK's loggers are given, no key, token or password is logged."""
        caplog.set_level(logging.DEBUG)
        for name in ("botocore", "botocore.parsers", "botocore.endpoint", "botocore.auth", "urllib3"):
            caplog.set_level(logging.DEBUG, logger=name)
        session = await aws.create_session(NODE_ROLE, "ci")
        aws.roles[ROLE] = dataclasses.replace(aws.roles[ROLE], external_id="")
        source = Source(secret_of(user), {ecr.ROLE_ANNOTATION: ROLE})
        asks = [
            ask(secretRef="aws", source=source),
            ask(secretRef="aws", roleArn=ROLE, source=source),
            ask(serviceAccountRef="puller", source=source),
            ask(secretRef="aws", source=Source(secret_of(session))),
        ]
        grants = [await ecr_provider.fetch(asked) for asked in asks]
        aws.denied |= {local.ECR}
        errors = [await failure(asked, ecr_provider) for asked in asks]
        written = (
            caplog.text + repr(grants) + "".join("".join(traceback.format_exception(error)) for error in errors)
        )
        secrets = [user.secret_access_key, session.secret_access_key, session.session_token, *source.minted]
        secrets += [grant.logins["*"].password for grant in grants] + [grant.logins["*"].auth for grant in grants]
        assert all(len(secret) > 16 for secret in secrets)
        assert [secret for secret in secrets if secret in written] == []
        assert "urllib3" in caplog.text

    async def test_sdk_silent(self, aws: local.Aws, user: Keys, ecr_provider: ecr.EcrProvider) -> None:
        """The SDK makes no record at all, even for handlers that are attached to its own loggers."""
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.addFilter(lambda record: record.name.startswith("botocore"))
        loggers = [logging.getLogger(name) for name in (None, "botocore", "botocore.parsers", "botocore.endpoint")]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.addHandler(handler)
            logger.setLevel(logging.DEBUG)
            logger.disabled = False
        try:
            aws.fail(local.ECR, Fault(500, "ServerException", CANARY), times=1)
            await ecr_provider.fetch(ask(secretRef="aws", source=Source(secret_of(user))))
            await failure(ask(tenant=False, ambient=True), ecr_provider)
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.removeHandler(handler)
                logger.setLevel(level)
        assert aws.count(local.ECR) == 2
        assert stream.getvalue() == ""

    def test_representations(self) -> None:
        """What holds a key or a token does not show it."""
        shown = repr(ecr_client.Keys("canary-id", "canary-key", "canary-token"))
        shown += repr(ecr._Federated("canary-jwt", ROLE, "sts.amazonaws.com"))
        assert "canary" not in shown

    def test_lazy(self) -> None:
        """The SDK is not loaded before the first login is asked for."""
        code = (
            "import sys; from regcred.credentials.providers import ecr; p = ecr.EcrProvider(); "
            f"assert p.serves({HOST!r}); sys.exit(any(name.startswith('boto') for name in sys.modules))"
        )
        search = os.pathsep.join(path for path in sys.path if path)
        done = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": search})
        assert done.returncode == 0


class TestGuide:
    """docs/how-to/ecr.md says what is so."""

    TEXT = (Path(__file__).parents[2] / "docs/how-to/ecr.md").read_text()

    def test_examples(self) -> None:
        """Every resource in the guide is valid, and every policy is JSON."""
        blocks = re.findall(r"^ *```(yaml|json)\n(.*?)^ *```", self.TEXT, re.MULTILINE | re.DOTALL)
        kinds = []
        for language, text in blocks:
            body = yaml.safe_load(text) if language == "yaml" else json.loads(text)
            if language == "yaml":
                model = {
                    "RegistryCredential": spec.RegistryCredentialSpec,
                    "ClusterRegistryCredential": spec.ClusterRegistryCredentialSpec,
                }[body["kind"]]
                model.model_validate(body["spec"])
            kinds.append(body.get("kind", "policy"))
        assert {"RegistryCredential", "ClusterRegistryCredential", "policy"} <= set(kinds)

    @pytest.mark.parametrize(
        "case",
        [
            (local.ECR, Fault(400, "AccessDeniedException"), {"secretRef": "aws"}),
            (local.PUBLIC, Fault(400, "AccessDeniedException"), {"secretRef": "aws"}),
            (local.ECR, Fault(400, "InvalidSignatureException"), {"secretRef": "aws"}),
            (local.ECR, Fault(400, "UnrecognizedClientException"), {"secretRef": "aws"}),
            (local.ECR, Fault(400, "ExpiredTokenException"), {"secretRef": "aws"}),
            (local.ECR, Fault(400, "ThrottlingException"), {"secretRef": "aws"}),
            (local.ECR, Fault(403), {"secretRef": "aws"}),
            (local.ECR, Fault(behaviour="close"), {"secretRef": "aws"}),
            (local.FEDERATE, Fault(403, "AccessDenied"), {"serviceAccountRef": "puller"}),
            (local.FEDERATE, Fault(400, "InvalidIdentityToken", "No OpenIDConnect provider found"),
             {"serviceAccountRef": "puller"}),
            (local.FEDERATE, Fault(400, "InvalidIdentityToken", "Incorrect token audience"),
             {"serviceAccountRef": "puller"}),
            (local.FEDERATE, Fault(400, "InvalidIdentityToken", "Couldn't retrieve"), {"serviceAccountRef": "puller"}),
            (local.ASSUME, Fault(403, "AccessDenied"), {"roleArn": ROLE}),
            (local.ASSUME, Fault(403, "AccessDenied"), {"roleArn": ROLE, "externalId": "contract-4711"}),
            (local.ASSUME, Fault(403, "RegionDisabledException"), {"roleArn": ROLE}),
        ],
    )  # fmt: skip
    async def test_answers(
        self, aws: local.Aws, user: Keys, clean: pytest.MonkeyPatch, case: tuple[str, Fault, dict[str, str]]
    ) -> None:
        """The guide quotes what the status says when AWS refuses or is not there."""
        action, fault, block = case
        if "roleArn" in block:
            clean.setenv("AWS_ACCESS_KEY_ID", user.access_key_id)
            clean.setenv("AWS_SECRET_ACCESS_KEY", user.secret_access_key)
        aws.fail(action, fault)
        server = "public.ecr.aws" if action == local.PUBLIC else HOST
        source = Source(secret_of(user), {ecr.ROLE_ANNOTATION: ROLE})
        error = await failure(ask(server, tenant=False, ambient=True, source=source, **block), ecr.EcrProvider())
        assert error.message in self.TEXT

    @pytest.mark.parametrize(
        "asked",
        [
            lambda: ask(),
            lambda: ask(HOSTS[6][0], secretRef="aws", roleArn=ROLE),
            lambda: ask(serviceAccountRef="puller"),
            lambda: ask(secretRef="aws", source=Source({"accessKeyId": "AKIA" + "A" * 16, "secretAccessKey": ""})),
            lambda: ask(tenant=False, ambient=True),
        ],
    )
    @pytest.mark.usefixtures("aws")
    async def test_own_refusals(self, asked: Callable[[], provider.Ask], ecr_provider: ecr.EcrProvider) -> None:
        """The guide quotes what the status says when a step is missing before AWS is asked."""
        assert (await failure(asked(), ecr_provider)).message in self.TEXT
