"""What is read of a cluster, and what is said about it."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from regcred.api import names

Json = Mapping[str, Any]

#: What tools put where the user is to fill something in.  Source: minikube's addon registry-creds.
PLACEHOLDERS = ("", "changeme", "ChangeMe")


def name_of(document: Json) -> str:
    """Return the name of an object."""
    return str(document["metadata"]["name"])


def namespace_of(document: Json) -> str:
    """Return the namespace of an object, or ""."""
    return str(document["metadata"].get("namespace") or "")


def inner(document: Any, *path: str) -> Any:
    """Return what stands at a path, or None where a step is missing."""
    for step in path:
        document = document.get(step) if isinstance(document, Mapping) else None
    return document


@dataclasses.dataclass(frozen=True, slots=True)
class Copy:
    """A source that has to be in another place, or under other keys, than it is.

    Attributes:
        read: of kubectl: how the object that has it is read, such as `secret/name -n namespace`.
        namespace: where it has to be.
        name: what it is called there.
        keys: key to where the value stands, as a path of `.data`.
        type: of the new Secret.
    """

    read: str
    namespace: str
    name: str
    keys: Mapping[str, str]
    type: str = "Opaque"


@dataclasses.dataclass(frozen=True, slots=True)
class Move:
    """What replaces one set-up of a tool.

    Attributes:
        tool: its name.
        subject: what was found of it.
        resources: to be applied.
        copies: sources to be put where regcred reads them, first of all.
        secret_name: under which the tool's Secrets are handed over.
        adopt: (namespace, name) of each Secret to be handed over.
        stop: commands that stop the tool; before anything is handed over, since it would write again.
        remove: commands that remove what is left of it; last of all.
        remarks: what has to be known or decided.
    """

    tool: str
    subject: str
    resources: Sequence[Json] = ()
    copies: Sequence[Copy] = ()
    secret_name: str = ""
    adopt: Sequence[tuple[str, str]] = ()
    stop: Sequence[str] = ()
    remove: Sequence[str] = ()
    remarks: Sequence[str] = ()


class Snapshot:
    """The objects of a cluster that a move is made from.

    Args:
        objects: of any kind, decoded.
        operator_namespace: regcred's own.
    """

    def __init__(self, objects: Iterable[Json], operator_namespace: str = "regcred-system") -> None:
        self.operator_namespace = operator_namespace
        self._by_kind: dict[str, list[Json]] = {}
        for document in objects:
            self._by_kind.setdefault(str(document.get("kind")), []).append(document)

    def of(self, kind: str, group: str = "") -> list[Json]:
        """Return the objects of a kind, of any version of its API group, by namespace and name."""
        found = [
            document
            for document in self._by_kind.get(kind, ())
            if not group or str(document.get("apiVersion")).partition("/")[0] == group
        ]
        return sorted(found, key=lambda document: (namespace_of(document), name_of(document)))

    def secret(self, namespace: str, name: str) -> Json | None:
        """Return a Secret, or None."""
        return next((found for found in self.secrets(name) if namespace_of(found) == namespace), None)

    def secrets(self, name: str) -> list[Json]:
        """Return every Secret of a name."""
        return [document for document in self.of("Secret") if name_of(document) == name]

    def text(self, namespace: str, name: str, key: str) -> str:
        """Return a value of a Secret that is no secret, such as a region; "" where it is missing or unreadable."""
        return decoded(inner(self.secret(namespace, name), "data", key)).decode("utf-8", "replace").strip()

    def containers(self, *images: str) -> Iterator[tuple[Json, Json]]:
        """Yield (workload, container) for each container whose image has one of these in its name."""
        for kind in ("Deployment", "CronJob"):
            for workload in self.of(kind):
                path = (
                    ("spec", "template") if kind == "Deployment" else ("spec", "jobTemplate", "spec", "template")
                )
                for container in inner(workload, *path, "spec", "containers") or ():
                    if any(image in str(container.get("image")) for image in images):
                        yield workload, container


def decoded(text: Any) -> bytes:
    """Return a value of a Secret, or nothing where it cannot be read."""
    try:
        return base64.b64decode(str(text or ""), validate=True)
    except (binascii.Error, ValueError):
        return b""


def hosts(secret: Json | None) -> list[str]:
    """Return the servers that a pull Secret has logins for, as a resource spells them; never a login."""
    found = (decoded(inner(secret, "data", key)) for key in (names.SECRET_KEY, names.LEGACY_SECRET_KEY))
    raw = next(filter(None, found), b"")
    try:
        document = json.loads(raw or b"{}")
    except ValueError:
        return []
    entries = document.get("auths", document) if isinstance(document, Mapping) else {}
    return sorted({host(str(server)) for server in entries if host(str(server))})


def host(server: str) -> str:
    """Return a server of a docker config as a resource spells it."""
    plain = server.partition("://")[2] or server
    name, _, path = plain.partition("/")
    path = path.removeprefix("v1").removeprefix("v2").strip("/")
    if name.removeprefix("index.").removeprefix("registry-1.") == "docker.io":
        return "docker.io"
    return name.lower() + (f"/{path}" if path else "")


def environment(container: Json) -> dict[str, Json]:
    """Return a container's variables: name to the whole entry, of which `value` or `valueFrom` is set."""
    return {str(entry.get("name")): entry for entry in container.get("env") or () if isinstance(entry, Mapping)}


def value(variables: Mapping[str, Json], name: str, default: str = "") -> str:
    """Return the plain value of a variable."""
    found = variables.get(name, {}).get("value")
    return default if found is None else str(found)


def source(variables: Mapping[str, Json], name: str) -> tuple[str, str] | None:
    """Return (Secret, key) that a variable takes its value from, or None."""
    reference = inner(variables.get(name), "valueFrom", "secretKeyRef")
    return (str(reference["name"]), str(reference["key"])) if reference else None


def flags(container: Json) -> dict[str, str]:
    """Return the flags of a container's command line: name to value; `true` where it has none."""
    words = [str(word) for word in (*(container.get("command") or ()), *(container.get("args") or ()))]
    found: dict[str, str] = {}
    for word, following in zip(words, [*words[1:], "--"], strict=False):
        if word.startswith("-"):
            name, given, text = word.lstrip("-").partition("=")
            found[name] = text if given else ("true" if following.startswith("-") else following)
    return found


def words(text: str) -> list[str]:
    """Return the parts of a comma-separated list."""
    return [word.strip() for word in text.split(",") if word.strip()]


def stopped(workload: Json) -> str:
    """Return the command that stops a workload."""
    where = f"-n {namespace_of(workload)}"
    if workload["kind"] == "CronJob":
        return f'kubectl {where} patch cronjob {name_of(workload)} -p \'{{"spec":{{"suspend":true}}}}\''
    return f"kubectl {where} scale {str(workload['kind']).lower()} {name_of(workload)} --replicas=0"


def annotated(snapshot: Snapshot, annotation: str, *texts: str) -> list[str]:
    """Return the namespaces that have an annotation with one of these values."""
    return [
        name_of(document)
        for document in snapshot.of("Namespace")
        if str((document["metadata"].get("annotations") or {}).get(annotation, "")).lower() in texts
    ]
