"""Logins for Google's registries: Artifact Registry, and the gcr.io names it took over.

An access token of Google's is good for all of its registries, as the user `oauth2accesstoken`, for an hour at
most.  So what matters is *whose* token it is.  There are three proofs to start from, and no way from one to
another but what the resource says:

    the operator's own   GOOGLE_APPLICATION_CREDENTIALS, GKE or Compute Engine; only where `Ask.ambient`
    a key in a Secret    of the namespace that the resource may read from; exchanged, or published as it is
    a service account    of that namespace: its token is exchanged (workload identity federation)

Each may go on to act as another service account (`impersonate`).  See `gcr_minting` for how, `gcr_verdicts` for
what a refusal means, `gcr_transport` for the addresses that anything is sent to.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import datetime
import hashlib
import importlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from regcred import dockerconfig
from regcred.api import hosts
from regcred.credentials import provider
from regcred.credentials.providers.gcr import keys as gcr_keys
from regcred.credentials.providers.gcr import verdicts as gcr_verdicts

IMPERSONATE_ANNOTATION = "iam.gke.io/gcp-service-account"

#: The least that Artifact Registry takes: such a token pulls, and cannot push even where IAM would let it.
DEFAULT_SCOPES = ("https://www.googleapis.com/auth/cloud-platform.read-only",)

TOKEN_USER = "oauth2accesstoken"  # noqa: S105 - a user name
KEY_USER = "_json_key"

#: Registries of another cloud of the same make, and the domain of that cloud's APIs.
_SOVEREIGN = {"s3nsregistry.fr": "s3nsapis.fr"}
#: Seconds for all requests of a fetch; a thread that is given up ends by the requests' own limits.
_DEADLINE_SECONDS = 40.0
_GRACE_SECONDS = 15.0
_THREADS = 4
_REMEMBERED = 1024

_PROVIDER = re.compile(
    r"//iam\.googleapis\.com/projects/[0-9]{1,20}/locations/global/workloadIdentityPools/[a-z0-9-]{1,64}"
    r"/providers/[a-z0-9-]{1,64}"
)
_GKE_PROVIDER = re.compile(
    r"identitynamespace:(?P<pool>[a-z0-9.:-]{1,100}\.svc\.id\.goog):"
    r"https://(?:container|gkehub)\.googleapis\.com/[A-Za-z0-9/._-]{1,300}"
)
_SCOPE = re.compile(r"https://www\.[a-z0-9.-]{1,64}/auth/[a-z0-9._-]{1,64}")

_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    """An entry, checked: as whom to ask, and for what."""

    identity: Literal["own", "key", "account"]
    source: str
    namespace: str
    audience: str
    impersonate: str
    scopes: tuple[str, ...]
    universe: str
    publish_key: bool = False

    @property
    def key(self) -> str:
        parts = ["gcr", self.universe, self.identity]
        parts += [f"{self.namespace}/{self.source}"] if self.source else []
        parts += ["JsonKey"] if self.publish_key else [self.audience, self.impersonate, " ".join(self.scopes)]
        return "|".join(part for part in parts if part)


class GcrProvider:
    """The provider `gcr`: see the module.

    Args:
        environment: the operator's own; given by tests only.
    """

    name = "gcr"

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        self._seen: dict[str, tuple[bytes, datetime.datetime]] = {}
        # Tenants cannot keep the platform waiting: its fetches have threads of their own.
        self._threads = {
            tenant: concurrent.futures.ThreadPoolExecutor(_THREADS, f"regcred-gcr-{name}")
            for tenant, name in ((False, "platform"), (True, "tenants"))
        }

    def serves(self, server: str) -> bool:
        """Say whether `server` is a registry host of Google's."""
        return hosts.provider_of(server) == self.name

    def key(self, ask: provider.Ask) -> str:
        """Return identity, audience and scopes; a login is good for all of Google's hosts."""
        return _plan(ask).key

    def sources(self, ask: provider.Ask) -> Sequence[provider.SourceRef]:
        """Return the Secret with the key, if the entry names one."""
        plan = _plan(ask)
        return [provider.SourceRef(plan.namespace, plan.source)] if plan.identity == "key" else []

    async def fetch(self, ask: provider.Ask) -> provider.Grant:
        """Get a login as the identity that the entry names.

        Raises:
            ProviderError: see `gcr_verdicts`.
        """
        plan = _plan(ask)
        if plan.identity == "key":
            return await self._with_key(ask, plan)
        if plan.identity == "account":
            return await self._with_account(ask, plan)
        scene = gcr_verdicts.Scene("the operator's own identity", own=True, universe=plan.universe)
        return await self._mint(
            ask,
            plan,
            scene,
            lambda minting, transport: minting.as_operator(_order(minting, plan), self._environment, transport),
        )

    async def _with_key(self, ask: provider.Ask, plan: _Plan) -> provider.Grant:
        data = await ask.cluster.read_secret(plan.source)
        key = gcr_keys.from_secret(data, plan.source, plan.universe)
        if plan.publish_key:
            await self._in_thread(ask, lambda: _minting().check_key(key, plan.universe))
            login = dockerconfig.Login(KEY_USER, key.document)
            return provider.Grant({provider.ANY_SERVER: login}, key.email, _now(), notes=key.notes)
        scene = gcr_verdicts.Scene(key.email, universe=plan.universe)
        grant = await self._mint(
            ask,
            plan,
            scene,
            lambda minting, transport: minting.with_key(key, _order(minting, plan), transport),
        )
        return dataclasses.replace(grant, notes=key.notes)

    async def _with_account(self, ask: provider.Ask, plan: _Plan) -> provider.Grant:
        if not plan.impersonate:
            account = await ask.cluster.read_service_account(plan.source)
            plan = dataclasses.replace(plan, impersonate=_annotated(account))
        if not plan.audience:
            scene = gcr_verdicts.Scene("the operator", own=True)
            audience = await self._in_thread(ask, lambda: _minting().gke_provider(self._transport(scene)))
            plan = dataclasses.replace(plan, audience=audience)
        gke = _GKE_PROVIDER.fullmatch(plan.audience)
        token = await ask.cluster.request_token(plan.source, gke["pool"] if gke else plan.audience)
        who = gcr_verdicts.principal(plan.audience, f"system:serviceaccount:{plan.namespace}:{plan.source}")
        scene = gcr_verdicts.Scene(who, federated=True, universe=plan.universe)
        return await self._mint(
            ask,
            plan,
            scene,
            lambda minting, transport: minting.with_subject_token(
                token, plan.audience, who, _order(minting, plan), transport
            ),
        )

    async def _mint(
        self, ask: provider.Ask, plan: _Plan, scene: gcr_verdicts.Scene, work: Callable[[Any, Any], Any]
    ) -> provider.Grant:
        asked_at = _now()
        token = await self._in_thread(ask, lambda: work(_minting(), self._transport(scene)))
        login = dockerconfig.Login(TOKEN_USER, token.value)
        ends = self._end_of(plan.key, token.value, token.expires_at)
        # `issued_at` is when the token was handed to us.  A metadata server hands out the same one until some four
        # minutes before its end, so asking at half of its life brings it again, with half of the life left.
        # Counted from its first issue, each repeat would be overdue at once and be asked for every 30 seconds;
        # counted from now, the waits halve (30 min, 15, 7, 4), and the fifth answer or so is a new token.
        return provider.Grant({provider.ANY_SERVER: login}, token.identity, asked_at, ends)

    def _end_of(self, key: str, token: str, expires_at: datetime.datetime) -> datetime.datetime:
        """Return the end of a token as first told: told again, in whole seconds from now, it wavers."""
        digest = hashlib.sha256(token.encode()).digest()
        known = self._seen.get(key)
        if known is None or known[0] != digest:
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            known = self._seen[key] = digest, expires_at
        return min(known[1], expires_at + datetime.timedelta(seconds=2))

    def _transport(self, scene: gcr_verdicts.Scene) -> Any:
        transport = importlib.import_module("regcred.credentials.providers.gcr.transport")
        return transport.Transport(scene, self._environment, time.monotonic() + _DEADLINE_SECONDS)

    async def _in_thread(self, ask: provider.Ask, work: Callable[[], _Result]) -> _Result:
        waiting = asyncio.get_running_loop().run_in_executor(self._threads[ask.tenant], work)
        try:
            return await asyncio.wait_for(waiting, _DEADLINE_SECONDS + _GRACE_SECONDS)
        except TimeoutError:
            pass
        raise provider.Retryable(
            "Unreachable",
            "Google's token endpoints did not answer in time; check DNS, egress rules and HTTPS_PROXY.",
        )


def _minting() -> Any:
    """Import google-auth, when the first Google credential is asked for, and in a thread: it takes a while."""
    return importlib.import_module("regcred.credentials.providers.gcr.minting")


def _order(minting: Any, plan: _Plan) -> Any:
    return minting.Order(plan.scopes, plan.impersonate, plan.universe)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _plan(ask: provider.Ask) -> _Plan:
    """Check the entry; nothing is read or sent before this has passed.

    Raises:
        InvalidSpec: with the field.
    """
    config = ask.config
    audience = getattr(config, "audience", None) or ""
    impersonate = getattr(config, "impersonate", None) or ""
    publish_key = getattr(config, "key_mode", None) == "JsonKey"
    scopes = tuple(getattr(config, "scopes", None) or DEFAULT_SCOPES)
    account = getattr(config, "service_account_ref", None)
    secret = getattr(config, "secret_ref", None)
    universe = _universe(ask)
    if account and secret:
        raise _invalid("TwoIdentities", "Both serviceAccountRef and secretRef are given; keep one.", "secretRef")
    if audience and not account:
        raise _invalid(
            "AudienceInvalid",
            "An audience goes with the token of a service account; add serviceAccountRef, or remove audience.",
            "audience",
        )
    if audience and not (_PROVIDER.fullmatch(audience) or _GKE_PROVIDER.fullmatch(audience)):
        raise _invalid(
            "AudienceInvalid",
            "The audience is not the full name of a workload identity provider; write //iam.googleapis.com/"
            "projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER, with the number of "
            "the project.",
            "audience",
        )
    if publish_key and not secret:
        raise _invalid(
            "KeyModeInvalid", "JsonKey publishes the key in secretRef; add it, or remove keyMode.", "keyMode"
        )
    if publish_key and impersonate:
        raise _invalid(
            "KeyModeInvalid", "JsonKey publishes the key itself, which acts as nobody else; remove one.", "keyMode"
        )
    if impersonate and not gcr_keys.EMAIL.fullmatch(impersonate):
        raise _invalid("ImpersonateInvalid", f"This is {_NO_ACCOUNT}", "impersonate")
    if not all(_SCOPE.fullmatch(scope) for scope in scopes):
        raise _invalid(
            "ScopeInvalid", "A scope is none of Google's; write https://www.googleapis.com/auth/NAME.", "scopes"
        )
    checked = (audience, impersonate, tuple(sorted(set(scopes))), universe)
    if account:
        return _Plan("account", _named(account, "serviceAccountRef"), ask.namespace, *checked)
    if secret:
        return _Plan("key", _named(secret, "secretRef"), ask.namespace, *checked, publish_key=publish_key)
    if not ask.ambient:
        raise provider.ambient_refused(ask, "gcr")
    return _Plan("own", "", "", *checked)


_NO_ACCOUNT = (
    "no service account's e-mail address; write NAME@PROJECT.iam.gserviceaccount.com, in lower case and without a "
    "prefix."
)


def _universe(ask: provider.Ask) -> str:
    """Return the domain of the APIs that the entry's registries belong to; it follows from their names alone."""
    found: set[str] = set()
    for server in ask.servers or (ask.server,):
        if hosts.provider_of(server) != GcrProvider.name:
            field = "server" if server == ask.server else "aliases"
            raise provider.InvalidSpec(
                "NotAGoogleHost",
                f"The {'server' if field == 'server' else 'alias'} is no registry host of Google's, so it gets no "
                "login of Google's; write LOCATION-docker.pkg.dev or a gcr.io host, or use login with a Secret.",
                field=field,
            )
        domain = server.partition("/")[0].partition(".")[2]
        found.add(_SOVEREIGN.get(domain, gcr_verdicts.DEFAULT_UNIVERSE))
    if len(found) > 1:
        raise provider.InvalidSpec(
            "UniverseMismatch",
            "An alias belongs to another cloud than the server, where its login is not valid; declare it as a "
            "registry of its own.",
            field="aliases",
        )
    return found.pop()


def _named(ref: Any, field: str) -> str:
    name = str(ref.name)
    if not name:
        raise _invalid(
            "SourceInvalid", f"{field} has an empty name; write one, or remove {field}.", f"{field}.name"
        )
    return name


def _annotated(account: provider.ServiceAccount) -> str:
    """Return the service account of Google's that the account's own annotation names, or ""."""
    email = account.annotations.get(IMPERSONATE_ANNOTATION, "").strip()
    if email and not gcr_keys.EMAIL.fullmatch(email):
        raise _invalid(
            "ImpersonateInvalid",
            f"The annotation {IMPERSONATE_ANNOTATION} of service account {account.namespace}/{account.name} is "
            + _NO_ACCOUNT,
            "serviceAccountRef.name",
        )
    return email


def _invalid(reason: str, text: str, field: str) -> provider.InvalidSpec:
    return provider.InvalidSpec(reason, text, field=f"gcr.{field}")
