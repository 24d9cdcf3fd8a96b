"""Logins that somebody keeps in a Secret: a user name and password, or a whole docker config.

What people put there went through editors, `echo` and `base64` before.  What can be mended without guessing is
mended and said (a newline at the end); what cannot be a login is refused with what to do about it, since a bad
login that is handed out breaks pulls in every namespace at once.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence

from regcred import dockerconfig
from regcred.api import names
from regcred.credentials import exchange, provider

_CONFIG_KEYS = (names.SECRET_KEY, names.LEGACY_SECRET_KEY, "config.json")
_PLAIN_TYPES = frozenset({"", "Opaque", "kubernetes.io/basic-auth"})
_CONFIG_TYPES = frozenset({names.SECRET_TYPE, names.LEGACY_SECRET_TYPE})
#: A repository that nobody has an entry for: stands for every image of a server.
_ANY_IMAGE = "regcred-any/image"


class LoginProvider:
    """Reads logins from a Secret of type basic-auth, Opaque, dockerconfigjson or dockercfg."""

    name = "login"

    def serves(self, server: str) -> bool:  # noqa: ARG002 - the protocol's argument
        """Return False: which Secret to read cannot be told by a host name."""
        return False

    def key(self, ask: provider.Ask) -> str:
        """Return `login:NAMESPACE/SECRET:SERVER`."""
        return f"login:{ask.namespace}/{ask.config.secret_ref.name}:{ask.server}"

    def sources(self, ask: provider.Ask) -> Sequence[provider.SourceRef]:
        """Return the one Secret."""
        return (provider.SourceRef(ask.namespace, ask.config.secret_ref.name),)

    async def fetch(self, ask: provider.Ask) -> provider.Grant:
        """Read the Secret and pick what the entry asks for.

        For the server `*` these are all usable entries of a docker config, with the others in the notes; for
        a named server its login, for all servers of the entry.

        Raises:
            InvalidSpec: reason `SourceInvalid`, when the Secret holds no such login, or one that cannot work.
        """
        data = await ask.cluster.read_secret(ask.config.secret_ref.name)
        source = _Source(f"Secret {ask.namespace}/{ask.config.secret_ref.name}", data)
        config = source.config()
        if config is None:
            if ask.server == provider.ANY_SERVER:
                raise source.invalid(
                    'holds one login, and the server "*" takes those of a docker config; name the server.'
                )
            login = source.login()
            notes = source.notes
        elif ask.server == provider.ANY_SERVER:
            return _all_entries(source, config)
        else:
            server, login = _entry(source, config, ask.servers)
            notes = [text for noted, text in config.notes if noted == server]
        return provider.Grant(
            logins={provider.ANY_SERVER: login},
            identity=login.username,
            issued_at=_now(),
            notes=(*notes, *_expiry_note(login)),
        )


class _Source:
    """One Secret, with the words to complain about it.

    Args:
        what: how a message calls it.
        data: its decoded data, with its type under `""`.
    """

    def __init__(self, what: str, data: Mapping[str, bytes]) -> None:
        self._what = what
        self._data = data
        self._type = data.get("", b"").decode("utf-8", "replace")
        self.notes: list[str] = []
        if self._type not in _PLAIN_TYPES | _CONFIG_TYPES:
            raise self.invalid(
                "is of a type that holds no login; use kubernetes.io/basic-auth, "
                "kubernetes.io/dockerconfigjson or Opaque."
            )

    def invalid(self, text: str) -> provider.InvalidSpec:
        """Return the error about this Secret; `text` follows its name."""
        return provider.InvalidSpec("SourceInvalid", f"{self._what} {text}", field="login.secretRef.name")

    def config(self) -> dockerconfig.Parsed | None:
        """Return the docker config of the Secret, None when it holds a user name and password instead."""
        if self._type not in _CONFIG_TYPES and ("username" in self._data or "password" in self._data):
            return None
        key = next((key for key in _CONFIG_KEYS if key in self._data), None)
        if key is None:
            wanted = (
                "docker config; add the key .dockerconfigjson."
                if self._type in _CONFIG_TYPES
                else "login; add the keys username and password, or .dockerconfigjson."
            )
            raise self.invalid(f"holds no {wanted}")
        try:
            return dockerconfig.parse(self._data[key])
        except dockerconfig.BadConfig as error:
            problem = str(error)
        raise self.invalid(f"cannot be used: key {key}: {_fragment(problem)}.")

    def login(self) -> dockerconfig.Login:
        """Return the login in the keys `username` and `password`."""
        username, password = self._text("username"), self._text("password")
        if _encoded_twice(username, password):
            raise self.invalid(
                "cannot be used: the value is base64 inside base64: user name and password were encoded before "
                "they were stored; put plain text into stringData, or base64 once into data."
            )
        try:
            return dockerconfig.Login(username, password)
        except dockerconfig.BadLogin as error:
            problem = str(error)
        raise self.invalid(f"cannot be used: {_fragment(problem)}.")

    def _text(self, key: str) -> str:
        if key not in self._data:
            raise self.invalid(f"has no key {key}; add it beside the other one of username and password.")
        try:
            text = self._data[key].decode()
        except UnicodeDecodeError:
            text = None
        if text is None:
            raise self.invalid(f"cannot be used: the value of {key} is not UTF-8 text; store it again as UTF-8.")
        stripped = text.rstrip("\r\n")
        if stripped != text:
            self.notes.append(f"a newline at the end of {key} was removed")
        return stripped


def _encoded_twice(username: str, password: str) -> bool:
    """Say whether both are base64 of printable text.

    A password alone may well be base64 of something, and a short name by chance; both of them, decoding to a
    plausible name and to printable text, are not by chance.
    """
    return dockerconfig.is_base64_of(username.encode(), rb"[\w.+@$|/-]{2,}\n?$") and dockerconfig.is_base64_of(
        password.encode(), rb"[\x20-\x7e]{3,}\n?$"
    )


def _all_entries(source: _Source, config: dockerconfig.Parsed) -> provider.Grant:
    problems = [f"{server or 'the docker config'}: {_fragment(text)}" for server, text in config.problems]
    if not config.logins:
        raise source.invalid(f"holds no usable login; {'; '.join(problems[:3]) or 'it has no entry: add one'}.")
    notes = (*problems, *(f"{server}: {text}" for server, text in config.notes))
    count = len(config.logins)
    return provider.Grant(
        logins=config.logins,
        identity="1 login" if count == 1 else f"{count} logins",
        issued_at=_now(),
        notes=notes,
    )


def _fragment(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].rstrip(".")


def _entry(source: _Source, config: dockerconfig.Parsed, servers: Sequence[str]) -> tuple[str, dockerconfig.Login]:
    """Return the entry that stands for the first of `servers` that has one, by name or by the kubelet's rules."""
    for server in servers:
        if server in config.logins:
            return server, config.logins[server]
    for server in servers:
        for found in _kubelet_choice(config.logins, server):
            return found, config.logins[found]
    problems = [text for server, text in config.problems if server in {"", *servers}]
    if problems:
        raise source.invalid(f"cannot be used for {servers[0]}: {_fragment(problems[0])}.")
    held = ", ".join(sorted(config.logins)[:5]) or "none"
    raise source.invalid(f"holds no login for {servers[0]}, only for: {held}; add an entry or name one of these.")


def _kubelet_choice(logins: Iterable[str], server: str) -> list[str]:
    prefix = "docker.io" if server == dockerconfig.DOCKER_HUB else server.removesuffix("/")
    try:
        return dockerconfig.lookup(logins, f"{prefix}/{_ANY_IMAGE}")
    except dockerconfig.BadImage:
        return []


def _expiry_note(login: dockerconfig.Login) -> Iterable[str]:
    """Say so when the password tells itself when it ends; the registry may think otherwise, so it is no expiry."""
    expiry = exchange.jwt_claims(login.password).get("exp")
    if isinstance(expiry, int) and re.fullmatch(r"[0-9]{9,11}", str(expiry)):
        ends = dt.datetime.fromtimestamp(expiry, dt.UTC)
        yield f"the password is a token that says it ends at {ends:%Y-%m-%dT%H:%M:%SZ}; replace it before"


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
