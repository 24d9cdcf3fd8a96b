"""One spelling per registry, and a refusal with a remedy for what no image name can match."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from regcred import dockerconfig

HUB = "https://index.docker.io/v1/"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("r.io", "r.io"),
        (" R.IO \n", "r.io"),
        ("https://r.io", "r.io"),
        ("HTTPS://R.io/", "r.io"),
        ("https://r.io/v1/", "r.io"),
        ("https://r.io/v2/", "r.io"),
        ("r.io/v2", "r.io"),
        ("r.io/v1", "r.io"),
        ("r.io:443", "r.io:443"),
        ("r.io:5000/", "r.io:5000"),
        ("localhost", "localhost"),
        ("registry:5000", "registry:5000"),
        ("127.0.0.1:5000", "127.0.0.1:5000"),
        ("[FD00::1]:5000", "[fd00::1]:5000"),
        ("r.io/team", "r.io/team"),
        ("r.io/team/", "r.io/team/"),
        ("r.io/team-/", "r.io/team-/"),
        ("R.io/Team/App", "r.io/team/app"),
        ("r.io/v2/team/", "r.io/team/"),
        ("r.io/v2/v1/", "r.io"),
        ("r.io/v2x/", "r.io/v2x/"),
        ("my_registry.corp", "my_registry.corp"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("*.azurecr.io", "*.azurecr.io"),
        ("1*.dkr.ecr.*.amazonaws.com", "1*.dkr.ecr.*.amazonaws.com"),
        ("docker.io", HUB),
        ("https://docker.io", HUB),
        ("index.docker.io", HUB),
        ("https://index.docker.io/v1/", HUB),
        ("https://index.docker.io/v2/", HUB),
        ("https://index.docker.io/v1", HUB),
        ("registry-1.docker.io", HUB),
        ("https://registry-1.docker.io/v2/", HUB),
        ("Docker.IO", HUB),
        ("docker.io/org/", "docker.io/org/"),
        ("docker.io/org", "docker.io/org"),
        ("index.docker.io/org/", "docker.io/org/"),
        ("https://registry-1.docker.io/v2/org/", "docker.io/org/"),
        ("docker.io:443", "docker.io:443"),
    ],
)
def test_canonical_spelling(text: str, canonical: str) -> None:
    """Each way to write a server has the one spelling under which the kubelet finds its login."""
    assert dockerconfig.canonical_server(text) == canonical


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("", "write the registry's host name"),
        ("   ", "write the registry's host name"),
        ("https://", "write the registry's host name"),
        ("http://r.io", "write the host without scheme"),
        ("oci://r.io", "write the host without scheme"),
        ("user:hunter2@r.io", "the login in the Secret"),
        ("https://user:hunter2@r.io/v1/", "the login in the Secret"),
        ("r io", "write one host name"),
        ("r.io, q.io", "write one host name"),
        ("r..io", "remove the extra or trailing dot"),
        (".r.io", "remove the extra or trailing dot"),
        ("r.io.", "remove the extra or trailing dot"),
        ("bücher.example", "xn--"),
        ("\u212a8s.io", "xn--"),
        ("-r.io", "write letters, digits"),
        ("r-.io", "write letters, digits"),
        ("r?.io", "write letters, digits"),
        ("r[a-z].io", "write letters, digits"),
        ("a" * 64 + ".io", "write letters, digits"),
        (".".join(["a" * 60] * 5), "write letters, digits"),
        ("r\0.io", "write letters, digits"),
        ("r.io:", "from 1 to 65535"),
        ("r.io:0", "from 1 to 65535"),
        ("r.io:65536", "from 1 to 65535"),
        ("r.io:0443", "from 1 to 65535"),
        ("r.io:*", "from 1 to 65535"),
        ("r.io:https", "from 1 to 65535"),
        ("https://https://r.io", "from 1 to 65535"),
        ("registry", "write the full host name, or host:port"),
        ("*", "write the full host name, or host:port"),
        ("[fd00::1]", "written with its port"),
        ("[nonsense]:5000", "written with its port"),
        ("[fe80::1%eth0]:5000", "written with its port"),
        ("r.io/a//b", "not a repository prefix"),
        ("r.io/..", "not a repository prefix"),
        ("r.io/a/./b", "not a repository prefix"),
        ("r.io/a:1", "not a repository prefix"),
        ("r.io/a?x=1", "not a repository prefix"),
        ("https://index.docker.io/v1/access-token", "use an access token"),
        ("https://index.docker.io/v1/refresh-token", "use an access token"),
    ],
)
def test_refused_server(text: str, remedy: str) -> None:
    """What no image name can match is refused, with what to do and without repeating what was written."""
    with pytest.raises(dockerconfig.BadServer) as caught:
        dockerconfig.canonical_server(text)
    assert remedy in str(caught.value)
    assert "hunter2" not in str(caught.value)


SERVERISH = st.text(alphabet="rRv12.io:/*-_@[]% \n?#ü", max_size=30) | st.text(max_size=30)
HUBBISH = st.tuples(
    st.sampled_from(["", "https://", "HTTPS://"]),
    st.sampled_from(["docker.io", "index.docker.io", "registry-1.docker.io", "r.io", "r.io:5000"]),
    st.text(alphabet="/v12ao-._", max_size=12),
).map("".join)
REPOSITORY = st.sampled_from(["", "team/", "a/b/", "v2x/"])


@given(SERVERISH | HUBBISH)
@example("docker.io/v1/v2/")
def test_canonical_is_idempotent(text: str) -> None:
    """The canonical spelling of a canonical spelling is itself, and refusals are always our own."""
    try:
        canonical = dockerconfig.canonical_server(text)
    except dockerconfig.BadServer:
        return
    assert dockerconfig.canonical_server(canonical) == canonical
    assert dockerconfig.canonical_server(f" {canonical.upper().replace('HTTPS', 'https')}\n") == canonical


@given(st.sampled_from(["r.io", "r.io:5000", "*.r.io", "docker.io", "localhost", "[fd00::1]:5000"]), REPOSITORY)
def test_canonical_is_found(host: str, prefix: str) -> None:
    """The kubelet finds the login of every canonical server for an image below it."""
    canonical = dockerconfig.canonical_server(f"https://{host}/{prefix}")
    assert dockerconfig.lookup([canonical], f"{host.replace('*', 'x')}/{prefix}app/x") == [canonical]
