"""The document itself: read entry by entry, and written so that nothing is wrong with it.

Reading follows the kubelet's own rules (kubernetes `pkg/credentialprovider/config.go`), since one entry that
it cannot decode breaks every pull of a pod.
"""

from __future__ import annotations

import base64
import codecs
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from regcred.dockerconfig.errors import BadConfig, BadServer, DockerConfigError, Poison, TooLarge
from regcred.dockerconfig.login import Login
from regcred.dockerconfig.servers import canonical_server

#: What the API server stores in one Secret at most.
MAX_BYTES = 1_048_576
#: Servers in one document, read or written; what fits into a Secret without being an attack on its reader.
MAX_ENTRIES = 2000

_BASE64 = re.compile(r"[A-Za-z0-9+/]*")
#: Keys of a config.json that are no servers where the document has no `auths`.
_CONFIG_KEYS = frozenset(
    {"aliases", "auths", "credhelpers", "credsstore", "currentcontext", "detachkeys", "experimental"}
    | {"features", "httpheaders", "plugins", "proxies", "psformat"}
)


@dataclasses.dataclass(frozen=True, slots=True)
class Parsed:
    """What a docker config holds.

    Attributes:
        logins: canonical server to login.
        problems: (server, what is wrong with this entry and what to do); the entry is not in `logins`.
        notes: (server, what was mended); the entry is in `logins`.
        poisons: servers whose entry makes the kubelet fail every pull of a pod that lists the document.
    """

    logins: Mapping[str, Login]
    problems: tuple[tuple[str, str], ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    poisons: tuple[str, ...] = ()


def parse(data: bytes, *, legacy: bool | None = None) -> Parsed:
    """Read a docker config: `.dockerconfigjson` or the legacy `.dockercfg`, as the kubelet reads them.

    Args:
        data: the bytes of the document, 1 MiB at most.
        legacy: True takes the document for the bare map of a `.dockercfg`, False for one with `auths`; None
            tells by the shape, since either is found under either key.

    Raises:
        BadConfig: the document as a whole cannot be read.  A bad entry is one of `Parsed.problems` instead.
    """
    document = _document(data)
    folded = {key.lower(): value for key, value in document.items()}
    if legacy is None:
        legacy = "auths" not in folded
    entries: Any = folded.get("auths")
    if legacy:
        entries = {key: value for key, value in document.items() if key.lower() not in _CONFIG_KEYS}
    elif entries is None:
        entries = {}
    if not isinstance(entries, dict):
        raise BadConfig("The `auths` of the docker config is not an object of servers; write it again.")
    if len(entries) > MAX_ENTRIES:
        raise BadConfig(f"The docker config has over {MAX_ENTRIES} servers; split it into several.")
    # The canonical spelling of a server comes last and so wins over another spelling of the same.
    logins: dict[str, Login] = {}
    problems: list[tuple[str, str]] = []
    notes: list[tuple[str, str]] = []
    poisons: list[str] = []
    for key in sorted(entries, key=lambda key: (_is_canonical(key), key)):
        server = _shown(key)
        try:
            username, password = check_entry(entries[key])
            server = canonical_server(key)
            stripped = username.rstrip("\r\n"), password.rstrip("\r\n")
            login = Login(*stripped)
        except DockerConfigError as error:
            problems.append((server, str(error)))
            if isinstance(error, Poison):
                poisons.append(server)
            continue
        if stripped != (username, password):
            notes.append((server, "a newline at the end of the login was removed"))
        if server in logins and logins[server] != login:
            notes.append((server, "another entry means the same server with another login; this one is used"))
        logins[server] = login
    problems += _helper_problems(folded, logins)
    return Parsed(logins, tuple(problems), tuple(notes), tuple(poisons))


def _is_canonical(server: str) -> bool:
    try:
        return canonical_server(server) == server
    except BadServer:
        return False


def _shown(key: str) -> str:
    """Return a key that is no server, in a form that can stand in a status."""
    shown = key.strip().rpartition("@")[2]
    return shown if re.fullmatch(r"[A-Za-z0-9.:/_*\[\]-]{1,253}", shown) else "(unreadable server)"


def _helper_problems(folded: Mapping[str, Any], logins: Mapping[str, Login]) -> Iterator[tuple[str, str]]:
    """Report logins that the document leaves to a program of the machine it was written on."""
    remedy = "which a node does not have; write the user name and password into the config."
    helpers = folded.get("credhelpers")
    for key in sorted(helpers) if isinstance(helpers, dict) else ():
        server = canonical_server(key) if _is_canonical(key) else _shown(key)
        if server not in logins:
            yield server, f"The login is left to a credential helper (credHelpers), {remedy}"
    if folded.get("credsstore") and not logins:
        yield "", f"The logins are left to a credential store (credsStore), {remedy}"


def _document(data: bytes) -> dict[str, Any]:
    """Decode the JSON object.  Errors are raised outside `except`: the foreign ones carry the document."""
    if len(data) > MAX_BYTES:
        raise BadConfig("The docker config is over 1 MiB; the API server stores none of that size.")
    if data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BadConfig("The docker config begins with a byte order mark; store it as UTF-8 without one.")
    try:
        document = json.loads(data.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):
        return document
    if is_base64_of(data, rb"\s*\{"):
        raise BadConfig("The value is base64 inside base64: the docker config was encoded twice; store it once.")
    raise BadConfig('The docker config is not a JSON object; write {"auths": {"SERVER": {"auth": …}}}.')


def _no_constant(_name: str) -> NoReturn:
    raise ValueError


def is_base64_of(data: bytes, pattern: bytes) -> bool:
    """Say whether `data` is base64 text whose content begins with the regular expression `pattern`."""
    content = _decode_base64(data.decode("latin-1").strip())
    return content is not None and re.match(pattern, content) is not None


def _decode_base64(text: str) -> bytes | None:
    """Decode as Go does: line breaks are skipped and the padding is all there or not at all."""
    text = text.replace("\r", "").replace("\n", "")
    bare = text.rstrip("=")
    padded = bare + "=" * (-len(bare) % 4)
    if text not in {bare, padded} or len(bare) % 4 == 1 or not _BASE64.fullmatch(bare):
        return None
    return base64.b64decode(padded)


def check_entry(entry: object) -> tuple[str, str]:
    """Return the user name and password that the kubelet takes from an entry of `auths`.

    `auth` beats `username` and `password`; names of fields are read in any case; other fields are ignored
    (kubernetes `pkg/credentialprovider/config.go`).

    Raises:
        Poison: the kubelet fails all pulls of a pod over this entry.
        BadConfig: the kubelet takes it for an anonymous pull.
    """
    if not isinstance(entry, dict | None):
        raise Poison("The entry is not an object, which breaks every pull of a pod; write user and password.")
    fields = {key.lower(): value for key, value in (entry or {}).items() if value is not None}
    username, password, auth = (fields.get(name, "") for name in ("username", "password", "auth"))
    if not all(isinstance(value, str) for value in (username, password, auth, fields.get("email", ""))):
        raise Poison("A field of the entry is not a string, which breaks every pull of a pod; quote it.")
    if auth:
        decoded = _decode_base64(auth)
        if decoded is None:
            raise Poison("The `auth` is not base64, which breaks every pull of a pod; encode user:password.")
        if b":" not in decoded:
            if is_base64_of(decoded, rb"[^:\0]+:"):
                raise Poison("The `auth` is base64 inside base64: user:password was encoded twice.")
            raise Poison("The `auth` holds no colon, which breaks every pull of a pod; encode user:password.")
        username, _, password = decoded.decode("utf-8", "surrogateescape").partition(":")
    if not username and not password:
        if fields.get("identitytoken") or fields.get("registrytoken"):
            raise BadConfig("The entry holds only an identity token, which the kubelet ignores; use a password.")
        raise BadConfig("The entry is empty, as a credsStore leaves it; use a user name and password.")
    return username, password


def serialise(logins: Mapping[str, Login]) -> bytes:
    """Write the `.dockerconfigjson` of these logins: compact, sorted, the same bytes for the same logins.

    Args:
        logins: canonical server to login.

    Raises:
        BadServer: a server is not in its canonical form.
        TooLarge: over what the API server stores.
    """
    for server in logins:
        if canonical_server(server) != server:
            raise BadServer("A server is not in its canonical form; pass it through canonical_server.")
    auths = {
        server: {"username": login.username, "password": login.password, "auth": login.auth}
        for server, login in logins.items()
    }
    text = json.dumps({"auths": auths}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    data = text.encode()
    if len(data) > MAX_BYTES or len(logins) > MAX_ENTRIES:
        raise TooLarge(
            f"{len(logins)} logins take {len(data)} bytes; a Secret holds 1048576. Use several secretName."
        )
    # One bad entry breaks every pull of a pod, so what was written is read back by the kubelet's rules.
    for server, entry in json.loads(data)["auths"].items():
        if check_entry(entry) != (logins[server].username, logins[server].password):
            raise Poison("An entry does not read back as it was written.")
    return data
