"""The last good logins of each resource, kept in one Secret a resource in the operator's own namespace.

A restart reads them and asks no provider; new namespaces are served from them while a provider is down.  The record
outlives its resource until everything of it is cleaned up: it is how an operator that was down at the deletion
knows which Secrets to look after.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime
import json
import logging
from collections.abc import Mapping
from typing import Any

from regcred import dockerconfig
from regcred.api import names
from regcred.cluster import client as api
from regcred.cluster import errors
from regcred.credentials import provider

_LABEL = "app.kubernetes.io/component"
_COMPONENT = "credential-cache"
_PREFIX = "regcred-cache-"
_KEY = "record.json"
_FORMAT = 1
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Accepted:
    """The last good grant of one registry entry.

    Attributes:
        provider_name: who brought it.
        key: of the fetch that brought it.
        grant: what the provider handed out, narrowed to the servers of the entry.
        versions: server to the version of its login.
        sources: name to resource version of the Secrets it was made from.
        proof: what was proven by a handshake (repository and reference), or "".
    """

    provider_name: str
    key: str
    grant: provider.Grant
    versions: Mapping[str, str]
    sources: Mapping[str, str]
    proof: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """What is kept of one resource.

    Attributes:
        uid: of the resource.
        resource: its key, for people.
        secret_names: every Secret name it has had since it was created.
        entries: server of the registry entry to its last good grant.
        namespaces: which it is for, as `spec.namespaces` says it: when it is gone, that tells where it stood.
    """

    uid: str
    resource: str
    secret_names: tuple[str, ...]
    entries: Mapping[str, Accepted]
    namespaces: Mapping[str, Any] | None = None


class Cache:
    """Reads and writes records.

    Args:
        client: the API client.
        namespace: the operator's own.
    """

    def __init__(self, client: api.Client, namespace: str) -> None:
        self._client = client
        self._path = f"/api/v1/namespaces/{namespace}/secrets"
        self._saved: dict[str, Record] = {}

    async def load(self) -> Mapping[str, Record]:
        """Return every record by the UID of its resource; one that cannot be read is left out and logged."""
        found: dict[str, Record] = {}
        async for items, _ in self._client.pages(self._path, params={"labelSelector": f"{_LABEL}={_COMPONENT}"}):
            for body in items:
                name = body["metadata"]["name"]
                try:
                    record = _decode(json.loads(base64.b64decode(body["data"][_KEY])))
                    if name != _PREFIX + record.uid:
                        raise ValueError("a copy under another name")
                except (ValueError, KeyError, TypeError, AttributeError):
                    _log.warning("Left out the cache Secret %s: it is not readable", name)
                else:
                    found[record.uid] = record
        self._saved = found
        _log.debug("Read the kept logins of %d resources", len(found))
        return dict(found)

    def keeps(self, record: Record) -> bool:
        """Whether there is nothing to save: `record` is kept already, or holds nothing and never did."""
        saved = self._saved.get(record.uid)
        return saved == record if saved is not None else not record.entries

    async def save(self, record: Record) -> None:
        """Keep `record`, unless it is kept already.

        Raises:
            errors.ApiError: it could not be written.
        """
        if self._saved.get(record.uid) == record:
            return
        name = _PREFIX + record.uid
        await self._client.request(
            "PATCH",
            f"{self._path}/{name}",
            params={"fieldManager": names.MANAGER, "force": "true"},
            body={
                "apiVersion": "v1",
                "kind": "Secret",
                "type": f"{names.GROUP}/cache",
                "metadata": {
                    "name": name,
                    "labels": {names.MANAGED_BY_LABEL: names.MANAGED_BY, _LABEL: _COMPONENT},
                    "annotations": {f"{names.GROUP}/resource": record.resource},
                },
                "data": {_KEY: base64.b64encode(json.dumps(_encode(record), sort_keys=True).encode()).decode()},
            },
            content_type=api.APPLY,
            accept=api.METADATA,
        )
        self._saved[record.uid] = record
        _log.debug("Kept the logins of %d entries of %s", len(record.entries), record.resource)

    async def delete(self, uid: str) -> None:
        """Forget a record; one that is gone already is fine."""
        with contextlib.suppress(errors.NotFound):
            await self._client.request("DELETE", f"{self._path}/{_PREFIX}{uid}", accept=api.METADATA)
        self._saved.pop(uid, None)


def _encode(record: Record) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "uid": record.uid,
        "resource": record.resource,
        "secretNames": list(record.secret_names),
        "namespaces": record.namespaces,
        "entries": {
            server: {
                "provider": accepted.provider_name,
                "key": accepted.key,
                "identity": accepted.grant.identity,
                "issuedAt": accepted.grant.issued_at.isoformat(),
                "expiresAt": accepted.grant.expires_at.isoformat() if accepted.grant.expires_at else None,
                "notes": list(accepted.grant.notes),
                "logins": {
                    host: [login.username, login.password] for host, login in accepted.grant.logins.items()
                },
                "versions": dict(accepted.versions),
                "sources": dict(accepted.sources),
                "proof": accepted.proof,
            }
            for server, accepted in record.entries.items()
        },
    }


def _decode(document: Any) -> Record:
    """Return the record; what is not exactly of our making is refused here, and not met later on."""
    if document["format"] != _FORMAT:
        raise ValueError("unknown format")
    return Record(
        uid=_text(document["uid"]),
        resource=_text(document["resource"]),
        secret_names=tuple(_text(name) for name in document["secretNames"]),
        entries={server: _accepted(row) for server, row in document["entries"].items()},
        namespaces=_mapping(document.get("namespaces")),
    )


def _accepted(row: Any) -> Accepted:
    logins = {
        host: dockerconfig.Login(_text(username), _text(password))
        for host, (username, password) in row["logins"].items()
    }
    return Accepted(
        provider_name=_text(row["provider"]),
        key=_text(row["key"]),
        grant=provider.Grant(
            logins=logins,
            identity=_text(row["identity"]),
            issued_at=_time(row["issuedAt"]),
            expires_at=_time(row["expiresAt"]) if row["expiresAt"] is not None else None,
            notes=tuple(_text(note) for note in row["notes"]),
        ),
        versions={host: _text(row["versions"][host]) for host in logins},
        sources={name: _text(version) for name, version in row["sources"].items()},
        proof=_text(row["proof"]),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _mapping(value: Any) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise TypeError("no object")
    return value


def _time(value: Any) -> datetime.datetime:
    at = datetime.datetime.fromisoformat(value)
    if at.utcoffset() is None:
        raise ValueError("a time without its zone")
    return at
