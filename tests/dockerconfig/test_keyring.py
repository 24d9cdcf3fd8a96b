"""Which logins the kubelet tries for an image: our port against the answers of the kubelet's own code.

`kubelet/vectors.json` was answered by `kubelet/main.go`, built in a module that requires
k8s.io/kubernetes v1.33.0 with its staging modules (k8s.io/api and so on) replaced by v0.33.0.  The file is its
own list of questions: `go run . <vectors.json >new.json` answers them again.
"""

import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcred import dockerconfig

VECTORS = json.loads((pathlib.Path(__file__).parent / "kubelet" / "vectors.json").read_text())
LOOKUPS = [vector for vector in VECTORS if "servers" in vector]
DOCUMENTS = [vector for vector in VECTORS if "document" in vector]


def named(vector: dict) -> str:
    text = " ".join(vector.get("servers", [])) or vector["document"]
    return f"{text} <- {vector['image']}"


def test_vectors_are_there() -> None:
    """The answers of the kubelet's code cover lookups and documents."""
    assert len(LOOKUPS) > 100
    assert len(DOCUMENTS) > 40


@pytest.mark.parametrize("vector", LOOKUPS, ids=named)
def test_lookup_is_the_kubelets(vector: dict) -> None:
    """For each set of servers and image, the same logins in the same order as the kubelet."""
    if vector["error"]:
        with pytest.raises(dockerconfig.BadImage):
            dockerconfig.lookup(vector["servers"], vector["image"])
        return
    image = dockerconfig.normalise_image(vector["image"])
    repository, tag, digest = vector["repository"].rsplit("|", 2)
    assert (f"{image.host}/{image.repository}", image.reference) == (repository, digest or tag)
    assert dockerconfig.lookup(vector["servers"], vector["image"]) == [user for user, _ in vector["logins"]]


@pytest.mark.parametrize("vector", DOCUMENTS, ids=named)
def test_document_is_the_kubelets(vector: dict) -> None:
    """What breaks the kubelet is refused or reported as poison, and what it reads is what we read."""
    data = vector["document"].encode()
    try:
        parsed = dockerconfig.parse(data, legacy=vector.get("legacy", False))
    except dockerconfig.BadConfig:
        assert vector["error"]
        return
    assert bool(parsed.poisons) == vector["error"]
    if not vector["error"]:
        usable = [(user, word.rstrip("\n")) for user, word in vector["logins"] if user and word]
        assert [(login.username, login.password) for login in parsed.logins.values()] == usable


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("nginx", ("docker.io", "library/nginx", "latest")),
        ("org/app:1", ("docker.io", "org/app", "1")),
        ("docker.io/nginx", ("docker.io", "library/nginx", "latest")),
        ("index.docker.io/org/app", ("docker.io", "org/app", "latest")),
        ("r.io/app", ("r.io", "app", "latest")),
        ("r.io:5000/a/b:1.0_x-y", ("r.io:5000", "a/b", "1.0_x-y")),
        ("localhost/app", ("localhost", "app", "latest")),
        (f"r.io/a:1@sha256:{'a' * 64}", ("r.io", "a", f"sha256:{'a' * 64}")),
    ],
)
def test_image_defaults(name: str, image: tuple[str, str, str]) -> None:
    """Host, repository and tag that were left out are filled in as container runtimes do."""
    assert dockerconfig.normalise_image(name) == image


@pytest.mark.parametrize(
    "name", ["", "r.io/", "/a", "r.io/A", "r.io/a:", "r.io/a@sha256:abc", "r.io/a b", "a" * 2000, "0" * 64, "é"]
)
def test_bad_image(name: str) -> None:
    """What no container runtime accepts is refused without being repeated."""
    with pytest.raises(dockerconfig.BadImage, match="write host/repository:tag"):
        dockerconfig.normalise_image(name)


def test_same_key_keeps_order() -> None:
    """Spellings of one key are tried in the order given."""
    servers = ["https://r.io/v2/", "r.io", "http://r.io"]
    assert dockerconfig.lookup(servers, "r.io/a") == servers
    assert dockerconfig.lookup(servers[::-1], "r.io/a") == servers[::-1]


@given(st.lists(st.text(max_size=30), max_size=5), st.text(max_size=30))
def test_lookup_survives_anything(servers: list[str], image: str) -> None:
    """Foreign keys and image names give an answer or our own error."""
    try:
        found = dockerconfig.lookup(servers, image)
    except dockerconfig.BadImage:
        return
    assert set(found) <= set(servers)


def test_globs_take_linear_time() -> None:
    """A hostile pattern is matched without trying every way to place its stars."""
    pattern = "*a" * 20_000 + "b.io"
    assert dockerconfig.lookup([pattern], f"{'a' * 200}.io/x") == []
    assert dockerconfig.lookup(["a*a.io", "*a*a*a*.io", "a*.io", "*b*.io", "b*.io", "a*aaa.io"], "aaa.io/x") == [
        "a*a.io",
        "a*.io",
        "*a*a*a*.io",
    ]
