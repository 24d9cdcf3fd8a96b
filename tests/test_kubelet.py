"""What the kubelet and the container runtimes say about a pull that fails, and what it means."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcred import kubelet
from regcred.kubelet import Symptom

PULL = 'failed to pull and unpack image "{0}": failed to resolve reference "{0}": '


@pytest.mark.parametrize(
    ("message", "symptom"),
    [
        # containerd
        (PULL + "{0}: not found", Symptom.NOT_FOUND),
        (
            PULL + "pull access denied, repository does not exist or may require authorization: server message: "
            "insufficient_scope: authorization failed",
            Symptom.DENIED,
        ),
        (
            PULL + "failed to authorize: failed to fetch oauth token: unexpected status from GET request to "
            "https://auth.docker.io/token?scope=repository: 401 Unauthorized",
            Symptom.UNAUTHORISED,
        ),
        (
            PULL + "failed to authorize: failed to fetch anonymous token: unexpected status: 403 Forbidden",
            Symptom.DENIED,
        ),
        (
            PULL + "unexpected status from HEAD request to https://r.io/v2/app/manifests/1: 401",
            Symptom.UNAUTHORISED,
        ),
        (PULL + "no basic auth credentials", Symptom.UNAUTHORISED),
        (
            PULL
            + "unexpected status from HEAD request to https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/v2/a: "
            "403 Forbidden: Your authorization token has expired. Reauthenticate and try again.",
            Symptom.BAD_LOGIN,
        ),
        (PULL + "dial tcp: lookup r.invalid on 10.0.0.10:53: no such host", Symptom.NO_SUCH_HOST),
        (PULL + "dial tcp: lookup r.io: Temporary failure in name resolution", Symptom.NO_SUCH_HOST),
        (PULL + "dial tcp 10.0.0.1:443: connect: connection refused", Symptom.UNREACHABLE),
        (PULL + "dial tcp 10.0.0.1:443: i/o timeout", Symptom.UNREACHABLE),
        (PULL + "net/http: TLS handshake timeout", Symptom.UNREACHABLE),
        (
            PULL + "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            Symptom.CERTIFICATE,
        ),
        (PULL + "http: server gave HTTP response to HTTPS client", Symptom.PLAIN_HTTP),
        ("no match for platform in manifest sha256:00aa: not found", Symptom.PLATFORM),
        ("write /var/lib/containerd/x: no space left on device", Symptom.DISK_FULL),
        (
            PULL + "unexpected status from HEAD request to https://r.io/v2/: 502 Bad Gateway",
            Symptom.REGISTRY_FAULT,
        ),
        (
            (
                "429 Too Many Requests - Server message: toomanyrequests: You have reached your unauthenticated pull "
                "rate limit. https://www.docker.com/increase-rate-limit"
            ),
            Symptom.ANONYMOUS_LIMIT,
        ),
        (
            (
                "toomanyrequests: You have reached your pull rate limit. You may increase the limit by authenticating "
                "and upgrading"
            ),
            Symptom.ANONYMOUS_LIMIT,
        ),
        ("toomanyrequests: Rate exceeded", Symptom.RATE_LIMITED),
        # CRI-O
        (
            "initializing source docker://{0}: unable to retrieve auth token: invalid username/password: unauthorized",
            Symptom.BAD_LOGIN,
        ),
        ("reading manifest 1 in r.io/team/app: manifest unknown", Symptom.NOT_FOUND),
        (
            "choosing an image from manifest list: no image found in manifest list for architecture arm64",
            Symptom.PLATFORM,
        ),
        ("reading manifest 1 in {0}: denied: requested access to the resource is denied", Symptom.DENIED),
        ("Source image rejected: rejected by policy", Symptom.SIGNATURE),
        # cri-dockerd
        (
            "Error response from daemon: Get https://r.io/v2/: unauthorized: incorrect username or password",
            Symptom.BAD_LOGIN,
        ),
        ("Error response from daemon: manifest for {0} not found: manifest unknown", Symptom.NOT_FOUND),
        # the kubelet itself
        ("pull QPS exceeded", Symptom.NODE_LIMIT),
        ('Back-off pulling image "{0}"', Symptom.UNKNOWN),
        ('Back-off pulling image "{0}": ErrImagePull: ' + PULL + "401 Unauthorized", Symptom.UNAUTHORISED),
        ("", Symptom.UNKNOWN),
    ],
)
def test_meaning(message: str, symptom: Symptom) -> None:
    """Each text of a runtime means what its authors mean by it."""
    image = "registry.example.com/team/app:1"
    assert kubelet.symptom("ImagePullBackOff", message.format(image), image) is symptom


@pytest.mark.parametrize("name", ["unauthorized", "403", "forbidden/not-found", "x509", "404", "500"])
def test_a_repositorys_name_means_nothing(name: str) -> None:
    """Words of an error in the image's name are not taken for one."""
    for image in (f"r.example.com/{name}/app:1", f"{name}/app", f"r.example.com/app:{name.partition('/')[0]}"):
        assert kubelet.symptom("ImagePullBackOff", f'Back-off pulling image "{image}"', image) is Symptom.UNKNOWN
        assert kubelet.symptom("ErrImagePull", f"reading {image}: no such host", image) is Symptom.NO_SUCH_HOST


@given(st.text(), st.text(), st.text())
def test_any_text_has_a_meaning(reason: str, message: str, image: str) -> None:
    """Whatever a status holds leads to a symptom and to no exception."""
    assert kubelet.symptom(reason, message, image) in Symptom


def body(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "team-a",
            "name": "web-0",
            "uid": "u",
            "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [
                {"kind": "Thing", "name": "t"},
                {"kind": "ReplicaSet", "name": "web", "controller": True},
            ],
        },
        "spec": {
            "imagePullSecrets": [{"name": "one"}, {"name": "two"}],
            "initContainers": [{"name": "setup", "image": "r.io/setup"}],
            "containers": [{"name": "app", "image": "r.io/app"}, {"name": "side", "image": "r.io/side"}],
            "ephemeralContainers": [{"name": "debug", "image": "r.io/debug"}],
        },
        "status": {"phase": "Pending", **status},
    }


def test_containers_of_every_sort() -> None:
    """Init, plain and ephemeral containers are seen, each with its own state."""
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "401 Unauthorized"}}
    pod = kubelet.pod(
        body(
            initContainerStatuses=[{"name": "setup", "state": {"terminated": {"exitCode": 0}}}],
            containerStatuses=[{"name": "side", "state": {"running": {}}}, {"name": "app", "state": waiting}],
            ephemeralContainerStatuses=[{"name": "debug", "state": {"waiting": {"reason": "ImagePullBackOff"}}}],
        )
    )
    seen = [(row.name, row.image, row.pulling, row.started) for row in pod.containers]
    assert seen == [
        ("setup", "r.io/setup", False, True),
        ("app", "r.io/app", True, False),
        ("side", "r.io/side", False, True),
        ("debug", "r.io/debug", True, False),
    ]
    assert pod.controller == ("ReplicaSet", "web")
    assert pod.pull_secrets == ("one", "two")
    assert pod.created == dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert pod.account == "default"


def test_template_is_a_pod_that_is_not_there() -> None:
    """A pod template has neither a creation time nor a status."""
    pod = kubelet.pod({"spec": {"serviceAccountName": "web", "containers": [{"name": "a", "image": "b"}]}})
    assert (pod.created, pod.account, pod.phase, pod.controller) == (None, "web", "", None)


def test_when_a_list_was_written() -> None:
    """The newest writer of imagePullSecrets counts, and writers of other fields do not."""

    def entry(time: str, *fields: str) -> dict[str, Any]:
        return {"time": time, "fieldsV1": {field: {} for field in fields}}

    managed = [
        entry("2026-01-01T00:00:00Z", "f:imagePullSecrets"),
        entry("2026-01-03T00:00:00Z", "f:imagePullSecrets", "f:secrets"),
        entry("2026-01-05T00:00:00Z", "f:secrets"),
        {"time": None, "fieldsV1": {"f:imagePullSecrets": {}}},
    ]
    assert kubelet.list_since({"metadata": {"managedFields": managed}}) == dt.datetime(2026, 1, 3, tzinfo=dt.UTC)
    assert kubelet.list_since({"metadata": {}}) is None
