"""The few facts regcred keeps of each namespace, service account and Secret: small values, never bodies.

5,000 namespaces with three accounts each are held in a few megabytes because of it, and no login is ever in
memory here: of Secrets only the metadata is read.  Decoding is pure.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from regcred.api import names


@dataclasses.dataclass(frozen=True, slots=True)
class NamespaceView:
    """A namespace.

    Attributes:
        labels: all of them, for selectors.
        terminating: it is on its way out: nothing is written there any more.
    """

    name: str
    uid: str
    version: str
    labels: Mapping[str, str]
    terminating: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class AccountView:
    """A service account.

    Attributes:
        pull_secrets: the names in `imagePullSecrets`, in order.
        ignored: it carries the opt-out annotation.
        managed: our field manager owns the list, so an entry of our name there was written by us.
    """

    namespace: str
    name: str
    uid: str
    version: str
    pull_secrets: tuple[str, ...] = ()
    ignored: bool = False
    managed: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Contributor:
    """A resource that contributed to a Secret, as the Secret's annotation remembers it."""

    uid: str
    key: str
    retain: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """A login that stands in a Secret, as the Secret's annotation remembers it.

    Attributes:
        server: canonical.
        uid: of the resource it comes from.
        expires: when it ends, RFC 3339 in UTC; "" where it does not, or where that is not known.
        version: changes exactly when the login does.
    """

    server: str
    uid: str
    expires: str = ""
    version: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class SecretView:
    """A Secret of one of our names.

    Attributes:
        ours: it carries our label and our contributors annotation.
        adopt: its owner asks us to take it over.
        contributors: the resources whose logins it holds.
        servers: every login in it, by server.
        revision: what its data was composed of.
        data_owned: our field manager owns the data; a foreign change takes that away.
        owners: UIDs of the owner references that our field manager set; those of others are theirs.
        terminating: it waits for somebody's finalizer.
    """

    namespace: str
    name: str
    uid: str
    version: str
    ours: bool = False
    adopt: bool = False
    contributors: tuple[Contributor, ...] = ()
    servers: tuple[Standing, ...] = ()
    revision: str = ""
    data_owned: bool = False
    owners: tuple[str, ...] = ()
    terminating: bool = False


def newer(version: str, than: str) -> bool:
    """Whether resource version `version` is at least as new as `than`.

    They are decimal numbers of one sequence on every API server (and by contract from Kubernetes 1.35 on);
    where one is not, the latest arrival counts.
    """
    if version.isdigit() and than.isdigit():
        return int(version) >= int(than)
    return True


def namespace(body: Mapping[str, Any]) -> NamespaceView:
    """Return the view of a Namespace or of its metadata."""
    meta = body["metadata"]
    return NamespaceView(
        name=meta["name"],
        uid=meta["uid"],
        version=meta["resourceVersion"],
        labels={sys.intern(key): sys.intern(value) for key, value in (meta.get("labels") or {}).items()},
        terminating="deletionTimestamp" in meta,
    )


def account(body: Mapping[str, Any]) -> AccountView:
    """Return the view of a ServiceAccount."""
    meta = body["metadata"]
    listed = tuple(str(entry.get("name", "")) for entry in body.get("imagePullSecrets") or ())
    return AccountView(
        namespace=sys.intern(meta["namespace"]),
        name=sys.intern(meta["name"]),
        uid=meta["uid"],
        version=meta["resourceVersion"],
        pull_secrets=_shared(listed),
        ignored=(meta.get("annotations") or {}).get(names.IGNORE) == "true",
        managed=any("f:imagePullSecrets" in fields for fields in _our_fields(meta)),
    )


def secret(body: Mapping[str, Any]) -> SecretView:
    """Return the view of a Secret's metadata."""
    meta = body["metadata"]
    annotations = meta.get("annotations") or {}
    labelled = (meta.get("labels") or {}).get(names.MANAGED_BY_LABEL) == names.MANAGED_BY
    contributors = _contributors(annotations.get(names.CONTRIBUTORS, ""))
    return SecretView(
        namespace=sys.intern(meta["namespace"]),
        name=sys.intern(meta["name"]),
        uid=meta["uid"],
        version=meta["resourceVersion"],
        ours=labelled and contributors is not None,
        adopt=annotations.get(names.ADOPT) == "true",
        contributors=contributors or (),
        servers=_servers(annotations.get(names.SERVERS, "")),
        revision=sys.intern(annotations.get(names.REVISION, "")),
        data_owned=any(f"f:{names.SECRET_KEY}" in (fields.get("f:data") or ()) for fields in _our_fields(meta)),
        owners=_shared(_owners(meta)),
        terminating="deletionTimestamp" in meta,
    )


def _our_fields(meta: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [
        entry.get("fieldsV1") or {}
        for entry in meta.get("managedFields") or ()
        if entry.get("manager") == names.MANAGER and not entry.get("subresource")
    ]


def _owners(meta: Mapping[str, Any]) -> tuple[str, ...]:
    references = [(fields.get("f:metadata") or {}).get("f:ownerReferences") or {} for fields in _our_fields(meta)]
    return tuple(
        owner["uid"]
        for owner in meta.get("ownerReferences") or ()
        if any(f'k:{{"uid":"{owner["uid"]}"}}' in keys for keys in references)
    )


@functools.lru_cache(maxsize=4096)
def _shared(value: tuple[str, ...]) -> tuple[str, ...]:
    """Return one object for equal values: thousands of accounts list the same names."""
    return value


#: What UIDs, keys of resources and servers are made of.  Whoever may write Secrets may write our annotations too.
_PLAIN = re.compile(r"[\w.:/*\[\]-]+", re.ASCII)


def _plain(value: object) -> str:
    """Return a text that can be written and shown again as it is.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str) or not _PLAIN.fullmatch(value):
        raise ValueError("neither a UID, nor a key, nor a server")
    return value


# Every renewal makes a new text: few are alive at a time, and what is remembered of the others is only memory.
@functools.lru_cache(maxsize=256)
def _contributors(text: str) -> tuple[Contributor, ...] | None:
    """Decode the annotation; None where it is missing or not ours."""
    try:
        document = json.loads(text)
        return tuple(
            Contributor(uid=_plain(uid), key=_plain(row["from"]), retain=row.get("deletionPolicy") == "Retain")
            for uid, row in sorted(document.items())
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


@functools.lru_cache(maxsize=256)
def _servers(text: str) -> tuple[Standing, ...]:
    try:
        document = json.loads(text)
        return tuple(
            Standing(
                server=_plain(server),
                uid=_plain(row["uid"]),
                expires=_plain(row["expires"]) if "expires" in row else "",
                version=_plain(row["version"]) if "version" in row else "",
            )
            for server, row in sorted(document.items())
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()
