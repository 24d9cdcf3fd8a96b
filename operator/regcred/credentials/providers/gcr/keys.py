"""A Google service account's key, as people store it, made safe to use.

A key is a JSON document that says, among other things, where to send what it signs (`token_uri`).  From a tenant
that is an invitation to attack, so a key is taken apart here before any library sees it: only the account, the
private key and its id are used, and whatever points elsewhere than to Google is refused.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from regcred import dockerconfig
from regcred.credentials import provider

#: A service account's e-mail address; it cannot change the path of a URL that it is put into.
EMAIL = re.compile(r"[a-z0-9][a-z0-9-]{0,99}@(?:[a-z0-9-]{1,63}\.){1,8}gserviceaccount\.com")

FIELD = "gcr.secretRef.name"
_KEY_NAME = "key.json"
_MAX_BYTES = 32 * 1024
#: What keys of all ages name; the assertion goes to Google's present address whichever it is.
_TOKEN_URIS = re.compile(
    r"https://(oauth2\.googleapis\.com/token|accounts\.google\.com/o/oauth2/token"
    r"|www\.googleapis\.com/oauth2/v[34]/token|oauth2\.s3nsapis\.fr/token)"
)
_ELSE = {
    "authorized_user": "a person's own credentials (gcloud auth application-default login)",
    "external_account": "a workload identity federation configuration",
    "external_account_authorized_user": "a person's federated credentials",
    "impersonated_service_account": "an impersonation configuration",
    "gdch_service_account": "a key of Google Distributed Cloud",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """A checked key.

    Attributes:
        email: of the service account.
        key_id: Google's id of the key, or "".
        private_key: PEM.
        document: the whole key as compact JSON, the password of `_json_key`.
        notes: what was mended.
    """

    email: str
    key_id: str = dataclasses.field(repr=False)
    private_key: str = dataclasses.field(repr=False)
    document: str = dataclasses.field(repr=False)
    notes: tuple[str, ...] = ()


def from_secret(data: Mapping[str, bytes], name: str, universe: str) -> Key:
    """Return the key in a Secret: under `key.json`, or under its only name.

    Args:
        data: of the Secret, decoded; its type under `""`.
        name: of the Secret, for the texts.
        universe: the domain of Google's APIs that the key must belong to.

    Raises:
        InvalidSpec: there is none, or it is not usable (reason `SourceInvalid`), or it points elsewhere than to
            Google (reason `AddressRefused`).
    """
    values = {key: value for key, value in data.items() if key}
    if data.get("", b"") in {b"kubernetes.io/dockerconfigjson", b"kubernetes.io/dockercfg"}:
        raise _bad(f"The Secret {name} is a docker config; name it in login.secretRef, not in gcr.secretRef.")
    if _KEY_NAME in values:
        return parse(values[_KEY_NAME], f"The value {_KEY_NAME} of the Secret {name}", universe)
    if len(values) != 1:
        raise _bad(
            f"The Secret {name} has no value {_KEY_NAME} and {len(values)} others; store the key as {_KEY_NAME}."
        )
    return parse(next(iter(values.values())), f"The only value of the Secret {name}", universe)


def parse(raw: bytes, what: str, universe: str) -> Key:
    """Check a key and return it.

    Args:
        raw: the file as Google handed it out.
        what: how the texts call it, such as `The value key.json of the Secret puller`.
        universe: the domain of Google's APIs that the key must belong to.

    Raises:
        InvalidSpec: as `from_secret`.
    """
    info = _document(raw, what)
    kind = info.get("type")
    if kind != "service_account":
        found = _ELSE.get(kind, "") if isinstance(kind, str) else ""
        raise _bad(
            f"{what} is {found or 'no key of a service account'}. Store the JSON key of a service account, or "
            "better use serviceAccountRef with an audience and no key at all."
        )
    for field in ("client_email", "private_key"):
        if not isinstance(info.get(field), str) or not info[field].strip():
            raise _bad(f"{what} has no {field}; store the key file again, whole and unchanged.")
    if not EMAIL.fullmatch(info["client_email"]):
        raise _bad(f"{what} has a client_email that is no service account's; store the key file again, unchanged.")
    if not _TOKEN_URIS.fullmatch(str(info.get("token_uri") or "https://oauth2.googleapis.com/token")):
        raise provider.InvalidSpec(
            "AddressRefused",
            f"{what} has a token_uri that is not Google's; nothing was sent there. Store the key file unchanged.",
            field=FIELD,
        )
    if (info.get("universe_domain") or "googleapis.com") != universe:
        raise provider.InvalidSpec(
            "AddressRefused",
            f"{what} belongs to another cloud than the registry, whose universe_domain is {universe}; use a key "
            "of that cloud.",
            field=FIELD,
        )
    return _mended(info)


def _document(raw: bytes, what: str) -> dict[str, Any]:
    if not raw.strip():
        raise _bad(f"{what} is empty; store the JSON key of a service account.")
    if len(raw) > _MAX_BYTES:
        raise _bad(f"{what} is longer than {_MAX_BYTES} bytes, so it is no key; store the JSON key only.")
    try:
        info = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        info = None
    if isinstance(info, dict):
        return info
    if dockerconfig.is_base64_of(raw, b"{"):
        raise _bad(f"{what} was encoded with base64 twice; put the plain file into stringData, or encode it once.")
    if b"PRIVATE KEY-----" in raw:
        raise _bad(f"{what} is a bare private key; store the whole JSON key file that holds it.")
    raise _bad(f"{what} is not a JSON document; store the key file as Google handed it out.")


def _mended(info: dict[str, Any]) -> Key:
    notes: tuple[str, ...] = ()
    pem = info["private_key"].replace("\r\n", "\n")
    if "\\n" in pem:
        # YAML with quotes inside quotes turns each line break into a backslash and an n.
        pem = pem.replace("\\r", "").replace("\\n", "\n")
        notes = ("The line breaks of the private key had been escaped twice and were mended.",)
    info = {**info, "private_key": pem}
    key_id = info.get("private_key_id")
    document = json.dumps(info, separators=(",", ":"))
    return Key(info["client_email"], key_id if isinstance(key_id, str) else "", pem, document, notes)


def _bad(text: str) -> provider.InvalidSpec:
    return provider.InvalidSpec("SourceInvalid", text, field=FIELD)
