"""Microsoft Entra tokens: from an identity in Azure to an access token.

azure-identity is used through its asyncio twins: one POST per token (the synchronous classes for secrets and
certificates first ask for instance discovery and OpenID configuration), no threads, and errors that keep the
response with its status and headers.  They get an HTTP session of ours, so that time, body and trust are
bounded as for every other credential (`regcred.credentials.exchange`).

The SDK and msal are imported with the first token.  Their loggers are cut off from ours: they log what a server
says, and a server may repeat what it was sent.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
import time
from typing import Any

from regcred.credentials import exchange, provider
from regcred.credentials.providers.acr import errors as acr_errors
from regcred.credentials.providers.acr import identity as acr_identity

#: Seconds for a token, with one retry of a failed connection.
TIMEOUT = 30.0
_READ_TIMEOUT = 10.0
#: Seconds for which an access token serves other registries of the same identity.
_SHARED = 300.0
#: Seconds before its end in which an access token is not shared any more.
_SPARE = 60.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """An access token of Microsoft Entra.

    Attributes:
        value: the token; never shown.
        client: client id that Azure put into it, or the object id; "" when nobody says.
        tenant: directory it was issued in, or "".
        expires_on: when it ends, seconds since the epoch.
    """

    value: str = dataclasses.field(repr=False)
    client: str
    tenant: str
    expires_on: float


class Tokens:
    """Access tokens that registries of one identity share for some minutes, each fetched once at a time."""

    def __init__(self) -> None:
        #: Until when (monotonic) a token is shared, and the task that fetches it or has done so.
        self._tasks: dict[str, tuple[float, asyncio.Task[Token]]] = {}

    async def get(self, principal: acr_identity.Principal, audience: str) -> Token:
        """Return an access token of `principal` for `audience`, fetched now or some minutes ago.

        Raises:
            ProviderError: as `fetch`.
        """
        now = time.monotonic()
        self._tasks = {key: held for key, held in self._tasks.items() if now < held[0]}
        key = f"{principal.fingerprint()} {audience}"
        if key not in self._tasks:
            task = asyncio.create_task(fetch(principal, audience))
            self._tasks[key] = (now + _SHARED, task)
            task.add_done_callback(lambda done: self._settle(key, done))
        # Shielded: one waiter that gives up does not fail the others.
        return await asyncio.shield(self._tasks[key][1])

    def forget(self, principal: acr_identity.Principal, audience: str) -> None:
        """Fetch anew next time: the registry did not like the token."""
        self._tasks.pop(f"{principal.fingerprint()} {audience}", None)

    def _settle(self, key: str, task: asyncio.Task[Token]) -> None:
        failed = task.cancelled() or task.exception() is not None
        if self._tasks.get(key, (0.0, None))[1] is not task:
            return
        if failed:
            del self._tasks[key]
            return
        # The metadata service hands out tokens from its cache, which may be about to end.
        left = task.result().expires_on - time.time() - _SPARE
        self._tasks[key] = (time.monotonic() + min(_SHARED, left), task)


async def fetch(principal: acr_identity.Principal, audience: str) -> Token:
    """Ask Azure for an access token.

    Args:
        principal: whose.
        audience: resource that the token is for, without `/.default`.

    Raises:
        InvalidSpec: the certificate cannot be used.
        Denied: Azure refuses this identity.
        Retryable: anything else.
    """
    aio, transports = await asyncio.to_thread(_import)
    failure: provider.ProviderError
    seen: list[Any] = []
    async with await exchange.open_session() as session:
        try:
            async with asyncio.timeout(TIMEOUT):
                transport = transports.AioHttpTransport(session=session, session_owner=False)
                credential = _credential(aio, principal, transport=transport, raw_response_hook=seen.append)
                info = await credential.get_token_info(f"{audience.rstrip('/')}/.default")
                return _token(info.token, info.expires_on, principal)
        except provider.ProviderError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - the SDK lets through whatever went wrong below it
            # The SDK's own error has lost status and headers where the body was not JSON.
            last = seen[-1].http_response if seen else None
            answer = exchange.Answer(last.status_code, last.headers, b"") if last is not None else None
            failure = acr_errors.judge(error, answer, principal, audience)
    raise failure  # outside the handler: the foreign exception is no part of ours


def _token(value: str, expires_on: float, principal: acr_identity.Principal) -> Token:
    claims = {name: text for name, text in exchange.jwt_claims(value).items() if _is_name(text)}
    return Token(
        value=value,
        client=claims.get("appid") or claims.get("azp") or claims.get("oid") or principal.client,
        tenant=claims.get("tid") or principal.tenant,
        expires_on=expires_on,
    )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _credential(aio: Any, principal: acr_identity.Principal, **options: Any) -> Any:
    """Return the SDK's credential for a principal; every value it would fill in from the environment is given."""
    options |= {
        # One retry of a failed connection; the keeper repeats the rest.  Statuses are never retried here: the SDK
        # would sleep for as long as Retry-After says.
        "retry_total": 1,
        "retry_status": 0,
        "connection_timeout": exchange.CONNECT_TIMEOUT,
        "read_timeout": _READ_TIMEOUT,
    }
    if principal.mode is acr_identity.Mode.MANAGED:
        # The parameter that the metadata service knows (the asyncio twin passes it on as it is).
        config = {"msi_res_id": principal.resource_id} if principal.resource_id else None
        return aio.ManagedIdentityCredential(
            client_id=principal.client or None,
            identity_config=config,
            _exclude_workload_identity_credential=True,  # or it would ignore the resource id
            **options,
        )
    options["authority"] = principal.authority
    if proxy := exchange.proxy_of(principal.authority):
        options["proxies"] = {"https": proxy}
    tenant, client, proof = principal.tenant, principal.client, principal.proof
    if principal.mode is acr_identity.Mode.WORKLOAD:
        return aio.WorkloadIdentityCredential(
            tenant_id=tenant, client_id=client, token_file_path=principal.token_file, **options
        )
    if principal.mode is acr_identity.Mode.FEDERATED:
        return aio.ClientAssertionCredential(tenant, client, proof.decode, **options)
    if not principal.certificate:
        return aio.ClientSecretCredential(tenant, client, proof.decode(), **options)
    try:
        return aio.CertificateCredential(
            tenant, client, certificate_data=proof, password=principal.password or None, **options
        )
    except Exception:  # noqa: BLE001 - cryptography raises many kinds for a bad file or password
        raise acr_identity.bad_certificate(principal.origin) from None


def _import() -> tuple[Any, Any]:
    """Import the SDK and cut its loggers off from ours."""
    import azure.core.pipeline.transport  # noqa: PLC0415 - 30 MB, for those who use it
    import azure.identity.aio  # noqa: PLC0415

    for name in ("azure", "msal"):
        logger = logging.getLogger(name)
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
    return azure.identity.aio, azure.core.pipeline.transport
