"""Reading what a registry asks for, and where a login may be sent for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcred.credentials import challenge

REALM = "https://auth.docker.io/token"


@pytest.mark.parametrize(
    ("headers", "read"),
    [
        ([], []),
        ([""], []),
        ([" , ,"], []),
        (["Basic"], [("basic", {})]),
        (['Basic realm="r"'], [("basic", {"realm": "r"})]),
        (["BASIC REALM=r"], [("basic", {"realm": "r"})]),
        (
            [f'Bearer realm="{REALM}",service="registry.docker.io",scope="repository:a/b:pull"'],
            [("bearer", {"realm": REALM, "service": "registry.docker.io", "scope": "repository:a/b:pull"})],
        ),
        (
            ['Bearer realm="r",scope="repository:a:pull,push",error="insufficient_scope"'],
            [("bearer", {"realm": "r", "scope": "repository:a:pull,push", "error": "insufficient_scope"})],
        ),
        (
            ['Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com"'],
            [("basic", {"realm": "https://1.dkr.ecr.eu-west-1.amazonaws.com/", "service": "ecr.amazonaws.com"})],
        ),
        (['Basic realm="a"', 'Bearer realm="b"'], [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})]),
        (['Basic realm="a", Bearer realm="b"'], [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})]),
        (
            ['Bearer realm="b", service="s", Basic realm="a"'],
            [("bearer", {"realm": "b", "service": "s"}), ("basic", {"realm": "a"})],
        ),
        (["Negotiate, Basic realm=x"], [("negotiate", {}), ("basic", {"realm": "x"})]),
        (["Negotiate YWJj==, Basic realm=x"], [("negotiate", {}), ("basic", {"realm": "x"})]),
        (["NTLM, Bearer realm=x"], [("ntlm", {}), ("bearer", {"realm": "x"})]),
        ([r'Basic realm="say \"hi\", \\ Bearer x=y"'], [("basic", {"realm": r'say "hi", \ Bearer x=y'})]),
        (['Bearer realm = "r" ,\tservice\t=\ts'], [("bearer", {"realm": "r", "service": "s"})]),
        (['Bearer realm="r" service="s"'], [("bearer", {"realm": "r", "service": "s"})]),
        (['Bearer realm="first",realm="second"'], [("bearer", {"realm": "first"})]),
        (['Bearer realm=""'], [("bearer", {"realm": ""})]),
        (['Bearer realm="never closed'], [("bearer", {"realm": "never closed"})]),
        (["Bearer realm=https://r.io/token,service=s"], [("bearer", {"realm": "https", "service": "s"})]),
        (['realm="no scheme", Basic realm="a"'], [("basic", {"realm": "a"})]),
        (["Bearer =x, Basic realm=a"], [("basic", {"realm": "a"})]),
    ],
)
def test_challenges(headers, read) -> None:
    """Each way to write challenges, also the careless ones, is read as browsers and container runtimes do."""
    assert [(one.scheme, dict(one.parameters)) for one in challenge.parse(headers)] == read


TOKENS = st.text("abcXYZ019-._~!", min_size=1, max_size=8)
VALUES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=12)


@given(
    st.lists(st.tuples(TOKENS, st.dictionaries(TOKENS.map(str.lower), VALUES, min_size=1, max_size=3)), max_size=3)
)
def test_what_is_written_is_read(offers) -> None:
    """Any well-formed challenges, joined by commas, come out as they went in."""
    header = ", ".join(
        f"{scheme} "
        + ", ".join(
            '{}="{}"'.format(k, v.replace("\\", "\\\\").replace('"', '\\"')) for k, v in parameters.items()
        )
        for scheme, parameters in offers
    )
    assert [(one.scheme, dict(one.parameters)) for one in challenge.parse([header])] == [
        (scheme.lower(), parameters) for scheme, parameters in offers
    ]


@given(st.lists(st.text(max_size=60) | st.text('Basic Bearer realm="\\,= \t', max_size=60), max_size=3))
def test_any_header(headers) -> None:
    """Whatever the header holds, reading it gives challenges with lower-case names and no error."""
    for one in challenge.parse(headers):
        assert one.scheme == one.scheme.lower()
        assert all(name == name.lower() for name in one.parameters)


@pytest.mark.parametrize(
    "hostile", ['Bearer realm="' + "\\" * 100_000, "a " * 50_000, 'a="' * 30_000, "=" * 100_000]
)
def test_hostile_header_is_cut(hostile: str) -> None:
    """A header of any length is read in bounded work."""
    assert sum(len(one.parameters) for one in challenge.parse([hostile])) < 5000


@pytest.mark.parametrize(
    ("realm", "registry", "allowed"),
    [
        ("r.io", "r.io", True),
        ("auth.docker.io", "registry-1.docker.io", True),
        ("gitlab.com", "registry.gitlab.com", True),
        ("gitlab.corp.example.com", "registry.corp.example.com", True),
        ("auth.example.co.uk", "registry.example.co.uk", True),
        ("api.scaleway.com", "rg.fr-par.scw.cloud", True),
        ("authn.nvidia.com", "nvcr.io", True),
        ("sso.redhat.com", "registry.redhat.io", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("fd00::1", "fd00::1", True),
        ("localhost", "localhost", True),
        ("evil.example", "r.io", False),
        ("docker.io.evil.example", "registry-1.docker.io", False),
        ("evildocker.io", "registry-1.docker.io", False),
        ("evil.co.uk", "registry.co.uk", False),
        ("co.uk", "registry.co.uk", False),
        ("evil.azurecr.io", "contoso.azurecr.io", False),
        ("evil.s3.amazonaws.com", "1.dkr.ecr.eu-west-1.amazonaws.com", False),
        ("evil.github.io", "r.github.io", False),
        ("10.0.0.2", "10.0.0.1", False),
        ("10.0.0.1", "r.io", False),
        ("r.io", "10.0.0.1", False),
        ("fd00::2", "fd00::1", False),
        ("localhost", "r.io", False),
        ("io", "r.io", False),
        ("api.scaleway.com", "scw.cloud.evil.example", False),
        ("other.svc.cluster.local", "registry.svc.cluster.local", False),
        ("", "r.io", False),
        (".", "r.io", False),
    ],
)
def test_who_speaks_for_whom(realm: str, registry: str, *, allowed: bool) -> None:
    """A login goes to the registry's own domain and to known pairs, and nowhere else."""
    assert challenge.speaks_for(realm, registry) is allowed
