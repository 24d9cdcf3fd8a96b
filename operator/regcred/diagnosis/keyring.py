"""Which entries of which pull Secrets the kubelet would use for an image.  Pure.

Servers are taken as they are spelled in the Secret, since the kubelet compares them byte by byte.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from typing import Any

from regcred import dockerconfig
from regcred.api import names
from regcred.cluster import views
from regcred.diagnosis import facts


def read(body: Mapping[str, Any]) -> tuple[tuple[str, ...], str, Mapping[str, dockerconfig.Login]]:
    """Return what the kubelet reads in a Secret: its keys as spelled, why it cannot be read (or ""), and its logins.

    A Secret of another type is ignored by the kubelet, and has no keys.  Source: kubernetes
    `pkg/credentialprovider/secrets/secrets.go`.
    """
    kind = body.get("type")
    field = {names.SECRET_TYPE: names.SECRET_KEY, names.LEGACY_SECRET_TYPE: names.LEGACY_SECRET_KEY}.get(str(kind))
    data = body.get("data") or {}
    if field is None or field not in data:
        return (), "", {}
    try:
        document = json.loads(base64.b64decode(data[field]))
    except (binascii.Error, ValueError, RecursionError):
        return (), "its data is not JSON", {}
    if not isinstance(document, dict):
        return (), "its data is not a JSON object", {}
    entries: Any = document
    if kind == names.SECRET_TYPE:
        entries = next((value for key, value in document.items() if key.lower() == "auths"), None)
        entries = {} if entries is None else entries
    if not isinstance(entries, dict):
        return (), "its auths is not an object", {}
    keys: list[str] = []
    logins: dict[str, dockerconfig.Login] = {}
    for key, entry in entries.items():
        try:
            username, password = dockerconfig.check_entry(entry)
            logins[key] = dockerconfig.Login(username, password)
        except dockerconfig.Poison as error:
            text = str(error)
            return (), f"its entry {_plain(key)} is unreadable: {text[:1].lower()}{text[1:]}", {}
        except dockerconfig.DockerConfigError:
            pass  # an entry without a login, or one that no registry would take
        keys.append(key)
    return tuple(keys), "", logins


def _plain(key: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in key[:80])


def choices(
    image: str, listed: Iterable[str], secrets: Mapping[str, facts.PullSecret | None]
) -> tuple[facts.Choice, ...]:
    """Return the logins that the kubelet tries for an image, in its order; one that is refused leads to the next.

    Args:
        image: its name.
        listed: names of pull Secrets, in the order of the pod's list.
        secrets: what stands under the names.

    Raises:
        dockerconfig.BadImage: the image's name is none.
    """
    pairs = [
        (key, secret)
        for name in dict.fromkeys(listed)
        if (secret := secrets.get(name)) is not None and not secret.broken
        for key in secret.keys
    ]
    found = []
    for server in dockerconfig.lookup([key for key, _ in pairs], image):
        # One key in two Secrets is tried from both, in the order of the list.
        position = next(index for index, (key, _) in enumerate(pairs) if key == server)
        found.append(_choice(*pairs.pop(position)))
    return tuple(found)


def _choice(server: str, secret: facts.PullSecret) -> facts.Choice:
    if not secret.ours or secret.view is None:
        return facts.Choice(secret.name, server)
    standing = next((row for row in secret.view.servers if row.server == server), None)
    return facts.Choice(secret.name, server, standing, source_of(secret.view, standing))


def source_of(view: views.SecretView, standing: views.Standing | None) -> str:
    """Return the resource that a login in our Secret comes from, as people name it, or ""."""
    uid = standing.uid if standing is not None else ""
    return next((row.key for row in view.contributors if row.uid == uid), "")


def matches(servers: Iterable[str], image: str) -> list[str]:
    """Return which of these servers serve an image; none where its name is none."""
    try:
        return dockerconfig.lookup(servers, image)
    except dockerconfig.BadImage:
        return []
