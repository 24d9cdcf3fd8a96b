"""Every rule by which a kubelet finds a login, one after the other, in tables and properties.

The answers of the kubelet's own code stand in tests/dockerconfig; here each rule of it is said on its own: the key, the match,
spelling, order, Docker Hub, and what breaks a pull.
"""

from __future__ import annotations

import base64
import fnmatch
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from regcred import dockerconfig
from regcred.diagnosis import keyring
from regcred.diagnosis.facts import PullSecret

LABEL = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)
HOST = st.lists(LABEL, min_size=2, max_size=4).map(".".join)
PORT = st.sampled_from(["", ":443", ":5000", ":80"])
PATH = st.lists(LABEL, min_size=1, max_size=3).map("/".join)


def found(image: str, *keys: str) -> list[str]:
    return dockerconfig.lookup(keys, image)


@pytest.mark.parametrize("key", ["r.io", "https://r.io", "http://r.io", "r.io/", "https://r.io/v1/", "r.io/v2/"])
def test_rule_1_scheme_and_api_path_are_no_part_of_the_key(key: str) -> None:
    """A scheme, and a path /v1/ or /v2/ that ends in a slash, are taken off."""
    assert found("r.io/team/app", key) == [key]


@pytest.mark.parametrize("key", ["r.io/v2", "https://r.io/v2", "https://r.io/v1", "r.io/v3/", "ftp://r.io"])
def test_rule_1_other_paths_and_schemes_stay(key: str) -> None:
    """Without its last slash, or as another version, an API path is a repository prefix that no image has."""
    assert found("r.io/team/app", key) == []


@given(HOST, PORT, PORT, PATH)
@example("r.io", "", ":443", "app")
def test_rule_2_ports_are_compared_as_text(host: str, declared: str, asked: str, path: str) -> None:
    """A missing port is not 443: only the very same port matches."""
    assert bool(found(f"{host}{asked}/{path}", host + declared)) is (declared == asked)


@pytest.mark.parametrize(
    ("key", "image", "matches"),
    [
        ("*.io", "r.io/app", True),
        ("r*.io", "r.io/app", True),
        ("1*.dkr.ecr.*.amazonaws.com", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/app", True),
        ("*", "r.io/app", False),
        ("*.r.io", "r.io/app", False),
        ("*.r.io", "a.b.r.io/app", False),
        ("*.r.io", "a.r.io/app", True),
        ("r.io:*", "r.io:5000/app", False),
        ("r.io/*", "r.io/app", False),
        ("r.*.io", "r.x.y.io/app", False),
    ],
)
def test_rule_2_a_star_stands_for_a_part_of_one_label(key: str, image: str, matches: bool) -> None:
    """Stars work within a label of the host, never across a dot, in a port, or in a path."""
    assert bool(found(image, key)) is matches


@given(st.lists(st.from_regex(r"[a-z*]{1,5}", fullmatch=True), min_size=2, max_size=4), HOST, PATH)
def test_rule_2_labels_match_one_by_one(pattern: list[str], host: str, path: str) -> None:
    """As many labels, and each one matches its own, as a shell would say it."""
    labels = host.split(".")
    expected = len(labels) == len(pattern) and all(map(fnmatch.fnmatchcase, labels, pattern))
    assert bool(found(f"{host}/{path}", ".".join(pattern))) is expected


@given(HOST, PATH, PATH)
@example("r.io", "ab/c", "a")
@example("r.io", "a", "a/")
def test_rule_2_a_path_is_a_prefix_of_text(host: str, path: str, prefix: str) -> None:
    """A key's path matches whatever begins with its letters, within a name, too; a last slash stops that."""
    assert bool(found(f"{host}/{path}", f"{host}/{prefix}")) is path.startswith(prefix)
    below = prefix if prefix.endswith("/") else prefix + "/"
    assert bool(found(f"{host}/{path}", f"{host}/{below}")) is path.startswith(below)


@pytest.mark.parametrize("key", ["R.IO", " r.io", "r.io ", "r.io\n", "r\u200b.io"])
def test_rule_3_nothing_is_mended(key: str) -> None:
    """Upper case and spaces make a key that no image finds."""
    assert found("r.io/app", key) == []


@given(st.permutations(["r.io", "r.io/team", "r.io/team/app", "*.io", "r.io/te"]))
def test_rule_4_longest_first_and_globs_last(keys: list[str]) -> None:
    """All that match are tried: in reverse order of their text, whatever order they stand in."""
    assert found("r.io/team/app", *keys) == ["r.io/team/app", "r.io/team", "r.io/te", "r.io", "*.io"]


def secret(name: str, *keys: str, **more: Any) -> PullSecret:
    return PullSecret(name, "kubernetes.io/dockerconfigjson", keys=keys, **more)


@given(st.permutations(["one", "two", "three"]))
def test_rule_4_one_key_in_several_secrets(listed: list[str]) -> None:
    """The same key is tried from each Secret, in the order of the pod's list; Secrets that are missing are skipped."""
    secrets = {name: secret(name, "other.io", "r.io") for name in listed}
    chosen = keyring.choices("r.io/app", [*listed, "missing", listed[0]], {**secrets, "missing": None})
    assert [choice.secret for choice in chosen] == listed


@pytest.mark.parametrize(
    "key",
    [
        "https://index.docker.io/v1/",
        "https://index.docker.io/v2/",
        "index.docker.io",
        "docker.io",
        "https://docker.io",
    ],
)
@pytest.mark.parametrize("image", ["nginx", "library/nginx", "docker.io/nginx", "index.docker.io/library/nginx"])
def test_rule_5_docker_hubs_names(key: str, image: str) -> None:
    """Every name of an image on Docker Hub finds every usual key of it."""
    assert found(image, key) == [key]


@pytest.mark.parametrize(
    "key", ["registry-1.docker.io", "https://index.docker.io/v1/access-token", "hub.docker.com"]
)
def test_rule_5_names_that_do_not_work(key: str) -> None:
    """The host that images are loaded from, and Docker Desktop's own entries, are found by no image."""
    assert found("org/app", key) == []


def test_rule_5_the_hubs_key_is_a_last_resort() -> None:
    """index.docker.io is used where nothing else matches: an entry for the organisation hides it, in any Secret."""
    hub = "https://index.docker.io/v1/"
    assert found("org/app", hub, "docker.io/org") == ["docker.io/org"]
    assert found("other/app", hub, "docker.io/org/") == [hub]
    assert found("orgs/app", hub, "docker.io/org") == ["docker.io/org"]
    assert found("orgs/app", hub, "docker.io/org/") == [hub]


def body(
    document: object, kind: str = "kubernetes.io/dockerconfigjson", key: str = ".dockerconfigjson"
) -> dict[str, Any]:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return {"type": kind, "data": {key: base64.b64encode(data).decode()}}


GOOD = {"auth": base64.b64encode(b"me:pw").decode()}


@pytest.mark.parametrize(
    "document",
    [
        b"{",
        b"[]",
        {"auths": []},
        {"auths": {"r.io": GOOD, "other.io": {"auth": "not base64!"}}},
        {"auths": {"r.io": GOOD, "other.io": {"auth": base64.b64encode(b"nocolon").decode()}}},
        {"auths": {"r.io": GOOD, "other.io": "text"}},
        {"auths": {"r.io": GOOD, "other.io": {"username": 1}}},
    ],
)
def test_rule_6_one_bad_entry_breaks_the_secret(document: object) -> None:
    """What the kubelet cannot decode leaves nothing of the Secret, and is said without what stands in it."""
    keys, broken, logins = keyring.read(body(document))
    assert (keys, logins) == ((), {})
    assert broken
    assert "not base64!" not in broken


@pytest.mark.parametrize(
    ("document", "kind", "key"),
    [
        ({"auths": {"r.io": GOOD}}, "Opaque", ".dockerconfigjson"),
        ({"auths": {"r.io": GOOD}}, "kubernetes.io/dockerconfigjson", "config.json"),
        (b"{", "Opaque", ".dockerconfigjson"),
    ],
)
def test_rule_6_secrets_of_another_type_are_ignored(document: object, kind: str, key: str) -> None:
    """A Secret of another type or key is neither read nor does it break anything."""
    assert keyring.read(body(document, kind, key)) == ((), "", {})


def test_rule_6_the_legacy_type_is_a_bare_map() -> None:
    """A dockercfg has its servers at the top."""
    keys, broken, logins = keyring.read(
        body({"R.io": GOOD, "r.io": GOOD}, "kubernetes.io/dockercfg", ".dockercfg")
    )
    assert (keys, broken) == (("R.io", "r.io"), "")
    assert logins["r.io"] == dockerconfig.Login("me", "pw")


def test_keys_are_taken_as_they_are_spelled() -> None:
    """What reads a Secret for a diagnosis mends no spelling, since no kubelet does."""
    keys, _, _ = keyring.read(body({"auths": {"https://R.io/v2": GOOD, "empty.io": {}}}))
    assert keys == ("https://R.io/v2", "empty.io")


@given(
    st.binary(max_size=60) | st.text(max_size=60).map(lambda text: json.dumps({"auths": {text: GOOD}}).encode())
)
def test_any_bytes_are_read(data: bytes) -> None:
    """Whatever stands in a Secret is read or called broken."""
    keys, broken, _ = keyring.read(body(data))
    assert not (keys and broken)
