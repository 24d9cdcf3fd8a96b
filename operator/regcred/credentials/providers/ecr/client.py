"""The blocking half of the ECR provider: Amazon's SDK, kept on a short lead.

A session of botocore costs 200 ms and 9 MB, a client of an existing session 4 ms; sessions are not
thread-safe, clients are.  So there is one session for the process, behind a lock, and a client per fetch.
That session has *no credential chain*: each client gets explicit keys or signs nothing, so that no mistake
here can reach the operator's own identity.  That identity lives in a session of its own, asked in one place.

The SDK is imported when the first login is asked for.  It logs bodies, signatures and tokens at DEBUG, so
none of its log records leaves this process.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import datetime as dt
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from regcred import dockerconfig
from regcred.credentials import provider
from regcred.credentials.providers.ecr import errors as ecr_errors

if TYPE_CHECKING:
    import botocore.config
    import botocore.session

#: Seconds of one connection and one answer, and tries: the operator itself tries again later.
_PATIENT: Mapping[str, Any] = {
    "connect_timeout": 5,
    "read_timeout": 10,
    "retries": {"mode": "standard", "total_max_attempts": 2},
}
#: The same for what is nice to know, and not worth a wait.
_QUICK: Mapping[str, Any] = {
    "connect_timeout": 2,
    "read_timeout": 3,
    "retries": {"mode": "standard", "total_max_attempts": 1},
}
_SESSION_SECONDS = 900
_ARN = re.compile(r"arn:aws[a-z-]{0,16}:(?:iam|sts)::[0-9]{12}:[A-Za-z0-9+=,.@_/-]{1,512}")

_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True, slots=True)
class Keys:
    """Credentials for signing; only the access key's id is fit to be compared, and nothing to be shown."""

    access_key_id: str = dataclasses.field(repr=False)
    secret_access_key: str = dataclasses.field(repr=False)
    session_token: str | None = dataclasses.field(default=None, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Which of Amazon's endpoints: nothing but a region's name and two switches select one."""

    region: str
    fips: bool
    public: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Role:
    """A role to take on, and the name that the session has in the account's audit log."""

    arn: str
    session_name: str
    external_id: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """What ECR hands out."""

    login: dockerconfig.Login
    expires_at: dt.datetime


class Aws:
    """Amazon's API, as far as a registry login needs it.  Every method blocks; every one may run in any thread.

    Raises:
        ProviderError: each method, judged by `ecr_errors.verdict`, without the SDK's exception attached.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._session: botocore.session.Session | None = None
        self._own_lock = threading.Lock()
        self._own: botocore.session.Session | None = None

    def own_keys(self, region: str, step: ecr_errors.Step) -> Keys:
        """The operator's own credentials, by Amazon's chain: environment, IRSA, Pod Identity, instance role."""

        def load() -> Keys:
            import botocore.exceptions  # noqa: PLC0415 - heavy

            with self._own_lock:
                if self._own is None:
                    self._own = _new_session(_home_region() or region)
                _silence()
                found = self._own.get_credentials()
                if found is None:
                    raise botocore.exceptions.NoCredentialsError
                frozen = found.get_frozen_credentials()
            # An empty value must not travel on: the SDK would take it for none given and look elsewhere.
            if not frozen.access_key or not frozen.secret_key:
                raise botocore.exceptions.NoCredentialsError
            return Keys(frozen.access_key, frozen.secret_key, frozen.token or None)

        return _judged(load, step)

    def forget_own_keys(self) -> None:
        """Let the next `own_keys` read the chain anew."""
        with self._own_lock:
            self._own = None

    def assume(self, keys: Keys, role: Role, place: Place, step: ecr_errors.Step) -> tuple[Keys, str]:
        """Exchange credentials for those of a role; also returns the ARN of the role's session."""
        asked = {"RoleArn": role.arn, "RoleSessionName": role.session_name, "DurationSeconds": _SESSION_SECONDS}
        if role.external_id:
            asked["ExternalId"] = role.external_id

        def call() -> Mapping[str, Any]:
            with self._client("sts", place, keys) as client:
                return client.assume_role(**asked)  # type: ignore[no-any-return]

        return _session_of(_judged(call, step), step)

    def assume_with_token(self, token: str, role: Role, place: Place, step: ecr_errors.Step) -> tuple[Keys, str]:
        """Exchange a service account's token for credentials of a role; nothing is signed."""

        def call() -> Mapping[str, Any]:
            with self._client("sts", place, None) as client:
                return client.assume_role_with_web_identity(  # type: ignore[no-any-return]
                    RoleArn=role.arn,
                    RoleSessionName=role.session_name,
                    WebIdentityToken=token,
                    DurationSeconds=_SESSION_SECONDS,
                )

        return _session_of(_judged(call, step), step)

    def registry_token(self, keys: Keys, place: Place, step: ecr_errors.Step) -> Token:
        """Ask the registry of `place` for a login."""

        def call() -> Mapping[str, Any]:
            with self._client("ecr-public" if place.public else "ecr", place, keys) as client:
                return client.get_authorization_token()  # type: ignore[no-any-return]

        return _token_of(_judged(call, step), step)

    def caller_arn(self, keys: Keys, place: Place) -> str:
        """Who these credentials are, or "": nothing depends on it, so no error comes of it."""
        try:
            with self._client("sts", place, keys, quick=True) as client:
                return _checked_arn(client.get_caller_identity().get("Arn"))
        except Exception:  # noqa: BLE001 - whatever it is, the login does not hang on it
            return ""

    @contextlib.contextmanager
    def _client(self, service: str, place: Place, keys: Keys | None, *, quick: bool = False) -> Iterator[Any]:
        """A client with these keys, or one that signs nothing; closed at the end."""
        import botocore  # noqa: PLC0415 - heavy
        import botocore.config  # noqa: PLC0415

        # What is not named here comes from the session; FIPS False would overrule the administrator's environment.
        options: dict[str, Any] = dict(_QUICK) if quick else {}
        if place.fips and not _has_endpoint_of_its_own(service):
            options["use_fips_endpoint"] = True
        if keys is None:
            options["signature_version"] = botocore.UNSIGNED
        with self._lock:
            if self._session is None:
                self._session = _new_session(None)
                _remove_chain(self._session)
            _silence()
            client = self._session.create_client(
                service,
                region_name=place.region,
                aws_access_key_id=keys.access_key_id if keys else None,
                aws_secret_access_key=keys.secret_access_key if keys else None,
                aws_session_token=keys.session_token if keys else None,
                config=botocore.config.Config(**options),
            )
        try:
            yield client
        finally:
            client.close()


def _new_session(region: str | None) -> botocore.session.Session:
    import botocore.config  # noqa: PLC0415 - heavy
    import botocore.session  # noqa: PLC0415

    session = botocore.session.Session()
    _silence()
    session.user_agent_extra = "regcred"
    if region:
        session.set_config_variable("region", region)
    # This reaches the clients that the credential chain makes for itself, too.
    session.set_default_client_config(botocore.config.Config(**_PATIENT))
    return session


def _remove_chain(session: botocore.session.Session) -> None:
    import botocore.credentials  # noqa: PLC0415 - heavy

    session.register_component("credential_provider", botocore.credentials.CredentialResolver(providers=[]))


def _has_endpoint_of_its_own(service: str) -> bool:
    """Whether the administrator's environment names the endpoint; the SDK refuses FIPS on top of that."""
    return any(map(os.environ.get, ("AWS_ENDPOINT_URL", f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_')}")))


def _home_region() -> str:
    """The operator's own region; botocore by itself reads only the second of the two names."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""


def _silence() -> None:
    """Let the SDK make no log record at all, whatever level or handler its loggers were given.

    Repeated for each client: a module loaded since has a logger of its own, and a logging configuration that was
    loaded since switches loggers on again.
    """
    logging.getLogger("botocore").setLevel(logging.CRITICAL + 1)
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "botocore":
            logging.getLogger(name).disabled = True


def _judged(call: Callable[[], _Result], step: ecr_errors.Step) -> _Result:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - the SDK raises KeyError for a proxy's page
        failure = ecr_errors.verdict(error, step)
    # Outside of the handler, so that the foreign exception and its text are not attached as the context.
    raise failure


def _session_of(answer: Mapping[str, Any], step: ecr_errors.Step) -> tuple[Keys, str]:
    given = answer.get("Credentials") or {}
    keys = Keys(*(str(given.get(part) or "") for part in ("AccessKeyId", "SecretAccessKey", "SessionToken")))
    if not (keys.access_key_id and keys.secret_access_key and keys.session_token):
        raise ecr_errors.unexpected(step)
    return keys, _checked_arn((answer.get("AssumedRoleUser") or {}).get("Arn"))


def _token_of(answer: Mapping[str, Any], step: ecr_errors.Step) -> Token:
    """Read an answer of either API: the private one has a list, the public one an object."""
    data = answer.get("authorizationData")
    if isinstance(data, list):
        data = data[0] if data else None
    if not isinstance(data, Mapping):
        raise ecr_errors.unexpected(step)
    expires_at = data.get("expiresAt")
    login = _login_of(data.get("authorizationToken"))
    if login is None or not isinstance(expires_at, dt.datetime):
        raise ecr_errors.unexpected(step)
    expires_at = expires_at.astimezone(dt.UTC)
    if expires_at <= dt.datetime.now(dt.UTC):
        raise provider.Retryable(
            "ExpiredOnArrival",
            f"The login that AWS gave in {step.region} has expired already; compare the clock of the operator's "
            "node with true time.",
        )
    return Token(login, expires_at)


def _login_of(token: object) -> dockerconfig.Login | None:
    """The login in `base64(user:password)`; the password may hold colons."""
    try:
        user, _, password = base64.b64decode(str(token or ""), validate=True).decode("ascii").partition(":")
        return dockerconfig.Login(user, password)
    except (binascii.Error, UnicodeDecodeError, dockerconfig.BadLogin):
        return None


def _checked_arn(arn: object) -> str:
    return arn if isinstance(arn, str) and _ARN.fullmatch(arn) else ""
