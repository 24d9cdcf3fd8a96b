"""Logins for Amazon's container registries: private (ECR) in every partition, and the public gallery.

One call, `GetAuthorizationToken`, answers with a login that is good for 12 hours and for every registry that
the calling identity may read.  So what matters here is *whose* identity calls.  There are three to start from,
and no way from one to another but what the resource says:

    the operator's own   environment, IRSA, EKS Pod Identity or instance role; only where `Ask.ambient`
    keys in a Secret     of the namespace that the resource may read from
    a service account    of that namespace: its token is exchanged for the role that it names (federation)

The first two may take on a role (`roleArn`, `externalId`) before they call; the third always does.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from regcred.credentials import provider
from regcred.credentials.providers.ecr import client as ecr_client
from regcred.credentials.providers.ecr import errors as ecr_errors
from regcred.credentials.providers.ecr import hosts as ecr_hosts
from regcred.credentials.providers.ecr import plan as ecr_plan

ROLE_ANNOTATION = "eks.amazonaws.com/role-arn"
AUDIENCE_ANNOTATION = "eks.amazonaws.com/audience"
DEFAULT_AUDIENCE = "sts.amazonaws.com"

#: More than the SDK's own timeouts add up to for one fetch; a thread that is given up ends by those.
_DEADLINE_SECONDS = 110.0
_THREADS = 4
_REMEMBERED_IDENTITIES = 1024

_AUDIENCE = re.compile(r"[A-Za-z0-9_.:/@-]{1,255}")
_KEY_PATTERNS = {
    "accessKeyId": re.compile(r"[A-Za-z0-9_]{16,128}"),
    "secretAccessKey": re.compile(r"[\x21-\x7e]{16,256}"),
    "sessionToken": re.compile(r"[\x21-\x7e]{16,8192}"),
}
_KEY_SPELLINGS = {name.lower(): name for name in _KEY_PATTERNS}

_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True, slots=True)
class _Federated:
    """A service account's token and the role it is for."""

    token: str = dataclasses.field(repr=False)
    role_arn: str
    audience: str


class EcrProvider:
    """The provider `ecr`: see the module."""

    name = "ecr"

    def __init__(self) -> None:
        self._aws = ecr_client.Aws()
        self._identities: dict[str, tuple[str, str]] = {}
        # Tenants cannot keep the platform waiting: its fetches have threads of their own.
        self._threads = {
            tenant: concurrent.futures.ThreadPoolExecutor(_THREADS, f"regcred-ecr-{name}")
            for tenant, name in ((False, "platform"), (True, "tenants"))
        }

    def serves(self, server: str) -> bool:
        """Say whether `server` is a registry host of Amazon's."""
        return ecr_hosts.parse(server) is not None

    def key(self, ask: provider.Ask) -> str:
        """Return identity, partition and region; a login is good for all hosts of these."""
        return ecr_plan.plan_for(ask).key

    def sources(self, ask: provider.Ask) -> Sequence[provider.SourceRef]:
        """Return the Secret with the keys, if the entry names one."""
        plan = ecr_plan.plan_for(ask)
        return [provider.SourceRef(plan.namespace, plan.source)] if plan.identity == "keys" else []

    async def fetch(self, ask: provider.Ask) -> provider.Grant:
        """Get a login as the identity that the entry names.

        Raises:
            ProviderError: see `ecr_errors`; credentials that AWS calls expired are renewed once before.
        """
        plan = ecr_plan.plan_for(ask)
        try:
            return await self._fetch(ask, plan)
        except provider.Retryable as error:
            if error.reason != ecr_errors.EXPIRED:
                raise
        if plan.identity == "own":
            self._aws.forget_own_keys()
        return await self._fetch(ask, plan)

    async def _fetch(self, ask: provider.Ask, plan: ecr_plan.Plan) -> provider.Grant:
        if plan.identity == "keys":
            keys = _keys(await ask.cluster.read_secret(plan.source), plan)
            return await self._in_thread(ask, plan, lambda: self._with_keys(plan, keys))
        if plan.identity == "account":
            federated = await _federate(ask.cluster, plan)
            return await self._in_thread(ask, plan, lambda: self._with_token(plan, federated))
        step = plan.step(
            "sts:AssumeRoleWithWebIdentity",
            "The trust policy of the operator's role must allow the operator's own service account.",
        )
        return await self._in_thread(
            ask, plan, lambda: self._with_keys(plan, self._aws.own_keys(plan.place.region, step))
        )

    async def _in_thread(self, ask: provider.Ask, plan: ecr_plan.Plan, work: Callable[[], _Result]) -> _Result:
        waiting = asyncio.get_running_loop().run_in_executor(self._threads[ask.tenant], work)
        try:
            return await asyncio.wait_for(waiting, _DEADLINE_SECONDS)
        except TimeoutError:
            pass
        raise provider.Retryable(
            "TimedOut",
            f"AWS did not answer in {plan.place.region} within {_DEADLINE_SECONDS:.0f} seconds; check egress "
            "rules, the VPC endpoint and HTTPS_PROXY/NO_PROXY.",
        )

    def _with_keys(self, plan: ecr_plan.Plan, keys: ecr_client.Keys) -> provider.Grant:
        """In a thread: take on the role if one is named, then get the login."""
        static = plan.identity == "keys"
        if not plan.role_arn:
            return self._grant(plan, keys, "", static=static)
        external = (
            "let sts:ExternalId there equal ecr.externalId" if plan.external_id
            else "set ecr.externalId if that policy asks for sts:ExternalId"
        )  # fmt: skip
        step = plan.step(
            "sts:AssumeRole",
            f"Allow sts:AssumeRole on {plan.role_arn} in its policy, name it as Principal in the role's trust "
            f"policy, and {external}.",
            asked="ecr.roleArn",
            static=static,
        )
        role = ecr_client.Role(plan.role_arn, _session_name(plan), plan.external_id)
        keys, arn = self._aws.assume(keys, role, plan.place, step)
        return self._grant(plan, keys, arn)

    def _with_token(self, plan: ecr_plan.Plan, federated: _Federated) -> provider.Grant:
        """In a thread: exchange the service account's token for the role, then get the login."""
        step = plan.step(
            "sts:AssumeRoleWithWebIdentity",
            f"The trust policy of {federated.role_arn} must name this cluster's OIDC provider as Federated "
            f"principal and allow sub system:serviceaccount:{plan.namespace}:{plan.source} "
            f"with aud {federated.audience}.",
        )
        role = ecr_client.Role(federated.role_arn, _session_name(plan))
        keys, arn = self._aws.assume_with_token(federated.token, role, plan.place, step)
        return self._grant(plan, keys, arn)

    def _grant(
        self, plan: ecr_plan.Plan, keys: ecr_client.Keys, arn: str, *, static: bool = False
    ) -> provider.Grant:
        """In a thread: get the login with the credentials that are to pull."""
        actions = (
            "ecr-public:GetAuthorizationToken and sts:GetServiceBearerToken" if plan.place.public
            else "ecr:GetAuthorizationToken"
        )  # fmt: skip
        advice = f'Allow {actions} on Resource "*" in the policy of that identity.'
        step = plan.step(actions, advice, static=static)
        issued_at = dt.datetime.now(dt.UTC)
        try:
            token = self._aws.registry_token(keys, plan.place, step)
        except provider.Denied as error:
            denied = error
        else:
            who = arn or self._caller(plan, keys) or plan.subject
            return provider.Grant({provider.ANY_SERVER: token.login}, who, issued_at, token.expires_at)
        raise self._naming_caller(denied, plan, keys, arn)

    def _naming_caller(
        self, denied: provider.Denied, plan: ecr_plan.Plan, keys: ecr_client.Keys, arn: str
    ) -> provider.Denied:
        """The same refusal, saying who was refused: pods that miss their role fall back to the node's unseen."""
        arn = arn or (self._caller(plan, keys) if denied.reason == "AccessDenied" else "")
        if not arn:
            return denied
        # The session's name differs from one process to the next; the role's does not.
        steady = "/".join(arn.split("/")[:2]) if ":assumed-role/" in arn else arn
        text = denied.message.replace(plan.subject, f"{plan.subject} ({steady})", 1)
        return provider.Denied(denied.reason, text, field=denied.field)

    def _caller(self, plan: ecr_plan.Plan, keys: ecr_client.Keys) -> str:
        """The ARN of these keys, asked once for each key and pair of keys."""
        known = self._identities.get(plan.key)
        if known and known[0] == keys.access_key_id:
            return known[1]
        arn = self._aws.caller_arn(keys, plan.place)
        if arn:
            if len(self._identities) >= _REMEMBERED_IDENTITIES:
                self._identities.clear()
            self._identities[plan.key] = (keys.access_key_id, arn)
        return arn


def _session_name(plan: ecr_plan.Plan) -> str:
    """What the account's audit log (CloudTrail) calls us: 64 characters at most."""
    return ".".join(part for part in ("regcred", plan.namespace, plan.source) if part)[:64]


def _keys(data: Mapping[str, bytes], plan: ecr_plan.Plan) -> ecr_client.Keys:
    """Read the keys from a Secret under the usual spellings; nothing empty or odd ever reaches the SDK."""
    found: dict[str, str] = {}
    secret = f"{plan.namespace}/{plan.source}"
    for spelling, raw in data.items():
        name = _KEY_SPELLINGS.get(re.sub(r"[-_]", "", spelling).lower().removeprefix("aws"))
        if name is None:
            continue
        value = raw.decode("ascii", "replace").strip()
        if name in found and found[name] != value:
            raise _bad_source(f"Secret {secret} holds {name} twice under two spellings; keep one.")
        found[name] = value
    if not found.get("sessionToken", "-"):
        del found["sessionToken"]
    for name in ("accessKeyId", "secretAccessKey"):
        if not found.get(name):
            state = "empty" if name in found else "missing"
            raise _bad_source(f"Key {name} of Secret {secret} is {state}; store accessKeyId and secretAccessKey.")
    for name, value in found.items():
        if not _KEY_PATTERNS[name].fullmatch(value):
            raise _bad_source(
                f"Key {name} of Secret {secret} is not what AWS hands out (length or characters); store it again "
                "as plain text, without quotes and without a second base64."
            )
    if found["accessKeyId"].startswith("ASIA") and "sessionToken" not in found:
        raise _bad_source(f"Secret {secret} holds a temporary key (ASIA…) without its sessionToken; add that.")
    return ecr_client.Keys(found["accessKeyId"], found["secretAccessKey"], found.get("sessionToken"))


def _bad_source(message: str) -> provider.InvalidSpec:
    return provider.InvalidSpec("BadSource", message, field="ecr.secretRef.name")


async def _federate(cluster: provider.Cluster, plan: ecr_plan.Plan) -> _Federated:
    """Mint a token of the service account for AWS, for the role that the entry or the account names."""
    account = await cluster.read_service_account(plan.source)
    field = "ecr.serviceAccountRef.name"
    role_arn = plan.role_arn or account.annotations.get(ROLE_ANNOTATION, "").strip()
    if not role_arn:
        raise provider.InvalidSpec(
            "RoleMissing",
            f"No role is named: set ecr.roleArn, or annotate service account {plan.namespace}/{plan.source} with "
            f"{ROLE_ANNOTATION}=arn:{plan.partition}:iam::ACCOUNT:role/NAME.",
            field=field,
        )
    if not plan.role_arn:
        what = f"Annotation {ROLE_ANNOTATION} of service account {plan.namespace}/{plan.source}"
        ecr_plan.check_role(role_arn, plan.partition, what, field)
    audience = account.annotations.get(AUDIENCE_ANNOTATION, "").strip() or DEFAULT_AUDIENCE
    if not _AUDIENCE.fullmatch(audience):
        raise provider.InvalidSpec(
            "InvalidAudience",
            f"Annotation {AUDIENCE_ANNOTATION} of service account {plan.namespace}/{plan.source} is no audience; "
            f"remove it to use {DEFAULT_AUDIENCE}.",
            field=field,
        )
    return _Federated(await cluster.request_token(plan.source, audience), role_arn, audience)
