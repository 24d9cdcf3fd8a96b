"""A login does not leak by accident."""

import copy
import dataclasses
import json
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcred import dockerconfig

LOGIN = dockerconfig.Login("alice", "s3cret")


@pytest.mark.parametrize(
    "show", [repr, str, "{}".format, "{!r:>30}".format, lambda login: f"{[login]} {(login,)}"]
)
def test_redacted(show) -> None:
    """No way of printing a login shows its user name or password."""
    assert "redacted" in show(LOGIN)
    assert "alice" not in show(LOGIN)
    assert "s3cret" not in show(LOGIN)


@dataclasses.dataclass
class Holder:
    login: dockerconfig.Login


@pytest.mark.parametrize(
    "leak",
    [
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        json.dumps,
        vars,
        lambda login: dataclasses.asdict(Holder(login)),
    ],
)
def test_not_copied_out(leak) -> None:
    """Pickling, copying and serialising a login fail instead of carrying the password away."""
    with pytest.raises(TypeError) as caught:
        leak(LOGIN)
    assert "s3cret" not in str(caught.value)


def test_does_not_change() -> None:
    """A login cannot be changed after it was checked."""
    with pytest.raises(AttributeError):
        LOGIN.password = "other"
    with pytest.raises(AttributeError):
        del LOGIN.username
    with pytest.raises(AttributeError):
        LOGIN.more = 1


def test_equality() -> None:
    """Logins are equal when both parts are, whatever else is compared with them is not."""
    assert dockerconfig.Login("alice", "s3cret") == LOGIN
    assert hash(dockerconfig.Login("alice", "s3cret")) == hash(LOGIN)
    assert dockerconfig.Login("alice", "other") != LOGIN
    assert dockerconfig.Login("bob", "s3cret") != LOGIN
    assert LOGIN != ("alice", "s3cret")


def test_auth() -> None:
    """`auth` is base64 of user:password in UTF-8, padded, and may hold further colons in the password."""
    assert dockerconfig.Login("u", "p:q").auth == "dTpwOnE="
    assert dockerconfig.Login("u", "pä").auth == "dTpww6Q="


@pytest.mark.parametrize(
    ("username", "password", "says"),
    [
        ("", "x", "user name is empty"),
        ("x", "", "password is empty"),
        ("a:b", "x", "colon"),
        ("a\n", "hunter2", "control character"),
        ("a", "hunter2\n", "control character"),
        ("a", "hun\tter2", "control character"),
        ("a", "hunter2\x7f", "control character"),
        ("a", "hunter2\x85", "control character"),
        ("a\0", "hunter2", "control character"),
        ("\ufeffa", "hunter2", "byte order mark"),
        ("a", "\ufeffhunter2", "byte order mark"),
        ("a", "hunter2\ud800", "not valid Unicode"),
    ],
)
def test_refused(username: str, password: str, says: str) -> None:
    """What cannot be sent to a registry is refused, naming the part and not its value."""
    with pytest.raises(dockerconfig.BadLogin, match=says) as caught:
        dockerconfig.Login(username, password)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value)).split("BadLogin", 1)[1]


@given(st.text(), st.text())
def test_every_login_can_be_sent(username: str, password: str) -> None:
    """Whatever is accepted makes an ASCII header value that gives both parts back."""
    try:
        login = dockerconfig.Login(username, password)
    except dockerconfig.BadLogin:
        return
    assert login.auth.isascii()
    assert dockerconfig.check_entry({"auth": login.auth}) == (username, password)
