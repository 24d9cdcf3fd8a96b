"""What a pod and its kubelet say about pulling images.  Pure.

The kubelet passes the container runtime's own words on, so what they mean is told by their text.  The texts are those
of containerd, CRI-O and cri-dockerd; since kubelet 1.32 the first error stays in the container's status while it backs
off (kubernetes #127918), before that it is in the pod's events.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import re
from collections.abc import Iterator, Mapping
from typing import Any

from regcred import dockerconfig
from regcred.api import times

#: Reasons of a waiting container whose image is being pulled again and again.
PULLING = frozenset({"ErrImagePull", "ImagePullBackOff"})
#: Further reasons of a waiting container that are about its image.
OTHER = frozenset(
    {
        "InvalidImageName",
        "ErrImageNeverPull",
        "RegistryUnavailable",
        "SignatureValidationFailed",
        "ImageInspectError",
    }
)


class Symptom(enum.Enum):
    """What the text of a failed pull means."""

    UNKNOWN = "nothing is said of the cause"
    UNAUTHORISED = "the registry wants a login, or does not accept the one it was sent"
    DENIED = "the registry gives no right to this repository"
    BAD_LOGIN = "the registry says that the login itself is wrong or has ended"
    RATE_LIMITED = "the registry's limit of pulls is reached"
    ANONYMOUS_LIMIT = "the registry's limit of pulls without a login is reached"
    NODE_LIMIT = "the kubelet's own limit of pulls is reached"
    NOT_FOUND = "the registry has no such image"
    PLATFORM = "the image is not built for the node's platform"
    NO_SUCH_HOST = "the registry's name is not known to DNS"
    CERTIFICATE = "the node does not trust the registry's certificate"
    PLAIN_HTTP = "the registry speaks no TLS"
    UNREACHABLE = "the registry does not answer"
    REGISTRY_FAULT = "the registry has a fault of its own"
    DISK_FULL = "the node's disk is full"
    INVALID_NAME = "the image's name is not one"
    NEVER_PULL = "the pod forbids to pull, and the node has no such image"
    SIGNATURE = "the node's policy refuses the image's signature"

    @property
    def of_login(self) -> bool:
        """Whether a login, or another one, may be the remedy."""
        return self in _OF_LOGIN


_OF_LOGIN = frozenset({Symptom.UNAUTHORISED, Symptom.DENIED, Symptom.BAD_LOGIN, Symptom.ANONYMOUS_LIMIT})

_REASONS: Mapping[str, Symptom] = {
    "InvalidImageName": Symptom.INVALID_NAME,
    "ErrImageNeverPull": Symptom.NEVER_PULL,
    "RegistryUnavailable": Symptom.UNREACHABLE,
    "SignatureValidationFailed": Symptom.SIGNATURE,
}

#: The first pattern that is found decides; so what is special stands before what is general.
_TEXTS: tuple[tuple[Symptom, re.Pattern[str]], ...] = tuple(
    (symptom, re.compile(pattern, re.IGNORECASE))
    for symptom, pattern in (
        (Symptom.NODE_LIMIT, r"pull QPS exceeded"),
        (Symptom.ANONYMOUS_LIMIT, r"unauthenticated pull rate limit|increase the limit by authenticating"),
        (Symptom.RATE_LIMITED, r"toomanyrequests|too many requests|pull rate limit|\b429\b"),
        (Symptom.PLAIN_HTTP, r"server gave HTTP response to HTTPS client"),
        (Symptom.CERTIFICATE, r"x509:|failed to verify certificate|certificate signed by unknown authority"),
        (Symptom.NO_SUCH_HOST, r"no such host|name resolution|name or service not known|server misbehaving"),
        (Symptom.DISK_FULL, r"no space left on device"),
        (
            Symptom.PLATFORM,
            r"no match for platform|no matching manifest for|no image found in (?:manifest list|image index)",
        ),
        (
            Symptom.BAD_LOGIN,
            (
                r"incorrect (?:username|user name)|invalid username/password|token has expired|reauthenticate"
                r"|HTTP Basic: Access denied|bad credentials"
            ),
        ),
        (Symptom.SIGNATURE, r"signature (?:validation|required)|rejected by policy"),
        (
            Symptom.UNREACHABLE,
            (
                r"i/o timeout|connection refused|deadline exceeded|network is unreachable|handshake timeout"
                r"|connection reset|no route to host|request canceled while waiting|unexpected EOF|RegistryUnavailable"
            ),
        ),
        (
            Symptom.DENIED,
            r"\b403\b|forbidden|insufficient_scope|pull access denied|access to the resource is denied|denied:",
        ),
        (
            Symptom.UNAUTHORISED,
            (
                r"\b401\b|unauthori[sz]ed|authentication required|no basic auth credentials|failed to authori[sz]e"
                r"|failed to fetch (?:oauth|anonymous) token"
            ),
        ),
        (Symptom.REGISTRY_FAULT, r"\b50[0234]\b|internal server error|bad gateway|service unavailable"),
        (Symptom.NOT_FOUND, r"manifest unknown|name unknown|not known to registry|\b404\b|not found"),
    )
)
#: Digests and quoted names say nothing, and a repository may be called "unauthorized".
_QUOTED = re.compile(r'"[^"]*"')
_DIGEST = re.compile(r"sha(?:256|512):[0-9a-f]+")


def symptom(reason: str, message: str, image: str = "") -> Symptom:
    """Return what a failed pull means.

    Args:
        reason: of the waiting container, or "".
        message: of the waiting container, or of an event.
        image: its name, which is left out of the text.
    """
    if reason in _REASONS:
        return _REASONS[reason]
    text = _DIGEST.sub("", message)
    for name in _spellings(image):
        text = text.replace(name, "")
    text = _QUOTED.sub("", text)
    return next((found for found, pattern in _TEXTS if pattern.search(text)), Symptom.UNKNOWN)


def _spellings(image: str) -> Iterator[str]:
    if not image:
        return
    yield image
    try:
        whole = dockerconfig.normalise_image(image)
    except dockerconfig.BadImage:
        return
    for separator in (":", "@"):
        yield f"{whole.host}/{whole.repository}{separator}{whole.reference}"
        yield f"{whole.repository}/manifests/{whole.reference}"
    yield f"{whole.host}/{whole.repository}"
    yield whole.repository


@dataclasses.dataclass(frozen=True, slots=True)
class Container:
    """A container of a pod, of any sort.

    Attributes:
        name: of the container.
        image: as the pod's spec has it.
        reason: why it waits, or "".
        message: what the kubelet says about that, or "".
        started: whether its image was pulled: it runs or has run.
    """

    name: str
    image: str
    reason: str = ""
    message: str = ""
    started: bool = False

    @property
    def pulling(self) -> bool:
        """Whether it waits for an image that cannot be pulled."""
        return self.reason in PULLING

    @property
    def stuck(self) -> bool:
        """Whether it waits for a reason that has to do with its image."""
        return self.reason in PULLING or self.reason in OTHER

    @property
    def symptom(self) -> Symptom:
        """What its message means."""
        return symptom(self.reason, self.message, self.image)


@dataclasses.dataclass(frozen=True, slots=True)
class Pod:
    """A pod as far as pulling goes.

    Attributes:
        created: UTC; None where it is only the template of one.
        phase: Pending, Running and so on.
        account: its service account.
        pull_secrets: names in its own `imagePullSecrets`, in order.
        controller: kind and name of the owner that would replace it, or None.
        containers: init containers, containers and ephemeral containers.
        terminating: it is on its way out.
        labels: of the pod.
    """

    namespace: str
    name: str
    uid: str
    version: str
    created: dt.datetime | None
    phase: str
    account: str
    pull_secrets: tuple[str, ...]
    controller: tuple[str, str] | None
    containers: tuple[Container, ...]
    terminating: bool = False
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)


def pod(body: Mapping[str, Any]) -> Pod:
    """Return the view of a Pod; of a pod template, too, which has no status and no creation time."""
    meta = body.get("metadata") or {}
    spec, status = body.get("spec") or {}, body.get("status") or {}
    owner = next((owner for owner in meta.get("ownerReferences") or () if owner.get("controller")), None)
    return Pod(
        namespace=meta.get("namespace") or "",
        name=meta.get("name") or "",
        uid=meta.get("uid") or "",
        version=meta.get("resourceVersion") or "",
        created=_time(meta.get("creationTimestamp")),
        phase=status.get("phase") or "",
        account=spec.get("serviceAccountName") or "default",
        pull_secrets=tuple(entry.get("name") or "" for entry in spec.get("imagePullSecrets") or ()),
        controller=(owner["kind"], owner["name"]) if owner else None,
        containers=tuple(_containers(spec, status)),
        terminating="deletionTimestamp" in meta,
        labels=dict(meta.get("labels") or {}),
    )


def _containers(spec: Mapping[str, Any], status: Mapping[str, Any]) -> Iterator[Container]:
    for listed, told in (
        ("initContainers", "initContainerStatuses"),
        ("containers", "containerStatuses"),
        ("ephemeralContainers", "ephemeralContainerStatuses"),
    ):
        states = {row.get("name"): row for row in status.get(told) or ()}
        for container in spec.get(listed) or ():
            row = states.get(container.get("name")) or {}
            state = row.get("state") or {}
            waiting = state.get("waiting") or {}
            yield Container(
                name=container.get("name") or "",
                image=container.get("image") or "",
                reason=waiting.get("reason") or "",
                message=waiting.get("message") or "",
                started="running" in state or "terminated" in state or bool(row.get("lastState")),
            )


def _time(text: object) -> dt.datetime | None:
    try:
        return times.parse_time(text) if isinstance(text, str) else None
    except ValueError:
        return None


def list_since(body: Mapping[str, Any]) -> dt.datetime | None:
    """Return when the `imagePullSecrets` of a ServiceAccount were last written, by its managedFields; None if unknown.

    A pod copies the list when it is created, and never again.
    """
    found = [
        time
        for entry in (body.get("metadata") or {}).get("managedFields") or ()
        if "f:imagePullSecrets" in (entry.get("fieldsV1") or {}) and (time := _time(entry.get("time")))
    ]
    return max(found, default=None)
