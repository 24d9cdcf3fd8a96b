"""Reading and writing the docker config by the kubelet's rules."""

import base64
import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regcred import dockerconfig
from regcred.dockerconfig import Login

SECRET = "hunter2-very-secret"


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def config(*entries: tuple[str, object], **more: object) -> bytes:
    return json.dumps({"auths": dict(entries), **more}).encode()


U_P = Login("u", "p")


@pytest.mark.parametrize(
    "entry",
    [
        {"username": "u", "password": "p"},
        {"username": "u", "password": "p", "email": "", "auth": b64("u:p")},
        {"auth": b64("u:p")},
        {"auth": b64("u:p").rstrip("=")},
        {"auth": b64("u:p")[:2] + "\n" + b64("u:p")[2:]},
        {"auth": b64("u:p") + "\r\n"},
        {"username": "other", "password": "other", "auth": b64("u:p")},
        {"USERNAME": "u", "Password": "p"},
        {"Auth": b64("u:p"), "identitytoken": "t"},
        {"username": "u", "password": "p", "auth": None, "email": None},
        {"username": "u", "password": "p", "auth": ""},
        {"username": "u", "password": "p", "unknown": {"deep": [1]}},
    ],
)
def test_entry_is_read(entry: object) -> None:
    """Each spelling of an entry that the kubelet reads gives the login it reads."""
    assert dockerconfig.check_entry(entry) == ("u", "p")
    assert dockerconfig.parse(config(("r.io", entry))) == dockerconfig.Parsed({"r.io": U_P})


@pytest.mark.parametrize(
    ("entry", "says", "poisons"),
    [
        ([], "not an object", True),
        ("u:p", "not an object", True),
        (True, "not an object", True),
        ({"username": 5, "password": "p"}, "not a string", True),
        ({"username": "u", "password": "p", "email": 5}, "not a string", True),
        ({"auth": {"a": 1}}, "not a string", True),
        ({"auth": "%%%"}, "not base64", True),
        ({"auth": b64("u:p") + " "}, "not base64", True),
        ({"auth": b64("us:p")[:-1]}, "not base64", True),
        ({"auth": "A"}, "not base64", True),
        ({"auth": b64("no colon here")}, "no colon", True),
        ({"auth": b64(b64(f"u:{SECRET}"))}, "base64 inside base64", True),
        ({"auth": b64(b64(f"u:{SECRET}") + "\n")}, "base64 inside base64", True),
        ({}, "entry is empty", False),
        (None, "entry is empty", False),
        ({"auth": b64(":")}, "entry is empty", False),
        ({"identitytoken": SECRET}, "identity token", False),
        (
            {"auth": b64("00000000-0000-0000-0000-000000000000:"), "identitytoken": SECRET},
            "password is empty",
            False,
        ),
        ({"registrytoken": SECRET}, "identity token", False),
        ({"username": "u"}, "password is empty", False),
        ({"password": SECRET}, "user name is empty", False),
        ({"auth": b64(b"u:\xff\xfe")}, "not valid Unicode", False),
        ({"username": "u", "password": f"{SECRET}\nx"}, "control character", False),
        ({"username": "a:b", "password": SECRET}, "colon", False),
    ],
)
def test_bad_entry_is_a_problem(entry: object, says: str, *, poisons: bool) -> None:
    """A bad entry is reported with its server and reason, and the others stay usable."""
    parsed = dockerconfig.parse(config(("bad.io", entry), ("r.io", {"auth": b64("u:p")})))
    assert parsed.logins == {"r.io": U_P}
    ((server, message),) = parsed.problems
    assert server == "bad.io"
    assert says in message
    assert parsed.poisons == (("bad.io",) if poisons else ())
    assert SECRET not in repr(parsed)


@pytest.mark.parametrize(
    ("server", "shown"),
    [
        ("http://r.io", "http://r.io"),
        (f"https://user:{SECRET}@r.io", "r.io"),
        ("spaced r.io", "(unreadable server)"),
        ("registry", "registry"),
        ("https://index.docker.io/v1/access-token", "https://index.docker.io/v1/access-token"),
    ],
)
def test_bad_server_is_a_problem(server: str, shown: str) -> None:
    """A server that no image can match is reported in a form fit for a status, without a login in it."""
    parsed = dockerconfig.parse(config((server, {"auth": b64("u:p")})))
    assert not parsed.logins
    assert [problem[0] for problem in parsed.problems] == [shown]
    assert SECRET not in repr(parsed)


@pytest.mark.parametrize("legacy", [None, True])
def test_legacy_is_read_by_shape(legacy) -> None:
    """A `.dockercfg` is a bare map of servers, and is read as one whichever key it stands under."""
    data = json.dumps({"https://R.io/v1/": {"auth": b64("u:p"), "email": "x"}}).encode()
    assert dockerconfig.parse(data, legacy=legacy).logins == {"r.io": U_P}
    assert not dockerconfig.parse(data, legacy=False).logins


@pytest.mark.parametrize("legacy", [None, False])
def test_modern_is_read_by_shape(legacy) -> None:
    """A document with `auths`, in any case, is a config.json; all its other keys are dropped."""
    data = json.dumps(
        {
            "Auths": {"r.io": {"auth": b64("u:p")}},
            "HttpHeaders": {"X": "y"},
            "credsStore": "desktop",
            "plugins": {},
        }
    ).encode()
    assert dockerconfig.parse(data, legacy=legacy) == dockerconfig.Parsed({"r.io": U_P})
    assert not dockerconfig.parse(data, legacy=True).logins


def test_helpers_are_problems() -> None:
    """Logins left to a credential helper are reported, unless the document has them as well."""
    helpers = {"quay.io": "secretservice", "r.io": "ecr-login", "": "x"}
    parsed = dockerconfig.parse(config(("r.io", {"auth": b64("u:p")}), credHelpers=helpers))
    assert [server for server, _ in parsed.problems] == ["(unreadable server)", "quay.io"]
    assert all("credHelpers" in message for _, message in parsed.problems)


@pytest.mark.parametrize("data", [b'{"credsStore":"desktop"}', b'{"auths":{},"credsStore":"desktop"}'])
def test_store_is_a_problem(data: bytes) -> None:
    """A document whose logins are all in a credential store says so."""
    ((server, message),) = dockerconfig.parse(data).problems
    assert server == ""
    assert "credsStore" in message


def test_store_leaves_empty_entries() -> None:
    """The empty entries that a credential store leaves are each reported."""
    parsed = dockerconfig.parse(config(("r.io", {}), ("q.io", {}), credsStore="desktop"))
    assert [server for server, _ in parsed.problems] == ["q.io", "r.io", ""]


def test_newline_is_removed_with_a_note() -> None:
    """A newline at the end of a password, as `echo` leaves it, is removed and noted."""
    parsed = dockerconfig.parse(
        config(("r.io", {"auth": b64("u:p\n")}), ("q.io", {"username": "u", "password": "p\r\n"}))
    )
    assert parsed.logins == {"q.io": U_P, "r.io": U_P}
    assert [server for server, _ in parsed.notes] == ["q.io", "r.io"]
    assert not parsed.problems


def test_same_server_twice() -> None:
    """Of two spellings of one server the canonical one is used, which is noted when the logins differ."""
    hub = dockerconfig.DOCKER_HUB
    entries = [("docker.io", {"auth": b64("u:old")}), (hub, {"auth": b64("u:p")}), ("index.docker.io", {})]
    for order in (entries, entries[::-1]):
        parsed = dockerconfig.parse(config(*order))
        assert parsed.logins == {hub: U_P}
        assert [server for server, _ in parsed.notes] == [hub]
    same = dockerconfig.parse(config(("docker.io", {"auth": b64("u:p")}), (hub, {"auth": b64("u:p")})))
    assert same == dockerconfig.Parsed({hub: U_P})


BOMBS = [b"[" * 500_000, b'{"auths":' * 100_000, b'{"auths":' + b"9" * 100_000 + b"}"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b'"x"', "not a JSON object"),
        (b"{", "not a JSON object"),
        (b'{"auths":{}} x', "not a JSON object"),
        (b'{"auths":NaN}', "not a JSON object"),
        (f"alice:{SECRET}".encode(), "not a JSON object"),
        (b'{"auths":{"r.io":{"auth":"\xff"}}}', "not a JSON object"),
        (b'{"auths":[]}', "not an object of servers"),
        (b'{"auths":"x"}', "not an object of servers"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ('{"auths":{}}'.encode("utf-16"), "byte order mark"),
        (b64(b'{"auths":{}}').encode(), "base64 inside base64"),
        (b64(b'{"auths":{}}\n').encode() + b"\n", "base64 inside base64"),
        (b" " * 1_048_577, "over 1 MiB"),
        (config(*((f"r{number}.io", {}) for number in range(2001))), "over 2000 servers"),
        *((bomb, "docker config") for bomb in BOMBS),
    ],
)
def test_bad_document(data: bytes, says: str) -> None:
    """A document that cannot be read as a whole is refused with its reason, and not repeated."""
    with pytest.raises(dockerconfig.BadConfig) as caught:
        dockerconfig.parse(data)
    assert says in str(caught.value)
    assert caught.value.__context__ is None
    assert SECRET not in repr(caught.value)


def test_serialised_bytes() -> None:
    """The bytes are compact, sorted, and hold username, password and auth only."""
    data = dockerconfig.serialise({"r.io": Login("u", "pä<"), "q.io": U_P})
    assert (
        data
        == (
            '{"auths":{"q.io":{"auth":"dTpw","password":"p","username":"u"},'
            '"r.io":{"auth":"dTpww6Q8","password":"pä<","username":"u"}}}'
        ).encode()
    )
    assert dockerconfig.serialise({}) == b'{"auths":{}}'


@pytest.mark.parametrize("server", ["R.io", "https://r.io", "docker.io", "r.io/", "*"])
def test_serialise_wants_canonical_servers(server: str) -> None:
    """A server that is not in its canonical form is never written."""
    with pytest.raises(dockerconfig.BadServer):
        dockerconfig.serialise({server: U_P})


def test_serialise_refuses_too_much() -> None:
    """Logins that the API server would not store are refused with their number and size."""
    fitting = {f"r{number}.io": Login("AWS", "x" * 2800) for number in range(150)}
    assert len(dockerconfig.serialise(fitting)) <= dockerconfig.MAX_BYTES
    with pytest.raises(dockerconfig.TooLarge, match="170 logins take"):
        dockerconfig.serialise({f"r{number}.io": Login("AWS", "x" * 2800) for number in range(170)})
    with pytest.raises(dockerconfig.TooLarge, match="2001 logins take"):
        dockerconfig.serialise({f"r{number}.io": U_P for number in range(2001)})


PART = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=12)
USER = st.text(st.characters(exclude_categories=["C"], exclude_characters=":"), min_size=1, max_size=12)
LOGINS = st.builds(Login, USER, PART)
SERVERS = st.builds(
    "{}.{}{}{}".format,
    st.sampled_from(["a", "b-c", "*"]),
    st.sampled_from(["io", "r.io", "example.com"]),
    st.sampled_from(["", ":443", ":5000"]),
    st.sampled_from(["", "/team", "/team/", "/a/b/"]),
) | st.sampled_from([dockerconfig.DOCKER_HUB, "docker.io/org/", "localhost:5000"])


@given(st.dictionaries(SERVERS, LOGINS, max_size=6))
def test_parse_reads_what_serialise_wrote(logins: dict[str, Login]) -> None:
    """Whatever is written is read back as it was, without a problem."""
    assert dockerconfig.parse(dockerconfig.serialise(logins)) == dockerconfig.Parsed(logins)


@given(st.dictionaries(SERVERS, LOGINS, min_size=2, max_size=6), st.randoms())
def test_bytes_do_not_depend_on_order(logins: dict[str, Login], random) -> None:
    """Equal logins give equal bytes, in whatever order they come."""
    items = list(logins.items())
    random.shuffle(items)
    assert dockerconfig.serialise(dict(items)) == dockerconfig.serialise(logins)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["username", "password", "auth", "email", "identitytoken", "Auth", "PASSWORD"])
VALUES = JSON | PART | PART.map(lambda text: b64(f"u:{text}")) | PART.map(b64)
ENTRIES = st.dictionaries(FIELDS, VALUES, max_size=4) | JSON
DOCUMENTS = st.dictionaries(
    st.sampled_from(["auths", "AUTHS", "credHelpers", "credsStore", "r.io"]),
    st.dictionaries(SERVERS | st.text(max_size=9), ENTRIES, max_size=4) | JSON,
    max_size=3,
).map(lambda document: json.dumps(document).encode())


@settings(max_examples=300)
@given(st.binary(max_size=200) | DOCUMENTS, st.sampled_from([None, True, False]))
def test_parse_raises_only_its_own(data: bytes, legacy) -> None:
    """Whatever bytes come, the answer is a docker config or our own error; what is usable can be written."""
    with contextlib.suppress(dockerconfig.BadConfig):
        parsed = dockerconfig.parse(data, legacy=legacy)
        assert dockerconfig.parse(dockerconfig.serialise(parsed.logins)).logins == parsed.logins


@given(st.sampled_from(["", "\n", "\0", ":", "\ud800", "\ufeff"]), st.sampled_from(["", "\n", "x\0", "\ud800"]))
def test_errors_hold_no_password(before: str, after: str) -> None:
    """No problem, note or representation repeats a password."""
    password = f"{before}{SECRET}{after}"
    entries = [("plain.io", {"username": f"u{before}", "password": password})]
    if "\ud800" not in password:
        entries += [("auth.io", {"auth": b64(f"u:{password}")}), ("twice.io", {"auth": b64(b64(f"u:{password}"))})]
    assert SECRET not in repr(dockerconfig.parse(config(*entries)))
