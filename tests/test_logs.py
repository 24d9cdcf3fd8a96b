"""Log lines: one stable shape, and no secret in any."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regcred import logs

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY = "c4n4ry-0f-a-secret"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjNG40cnkifQ.c2lnbmF0dXJl"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged as JSON; the loggers are afterwards as they were before."""
    yield from _captured("json", monkeypatch)


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged as text."""
    yield from _captured("text", monkeypatch)


def _captured(form: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    root = logging.getLogger()
    held = (*logs.CHATTY, *logs.SILENT)
    before = root.handlers[:], root.level, {name: logging.getLogger(name).level for name in held}
    for name in held:
        # A provider that another test has used cuts its SDK off already; here it is seen that nothing depends on it.
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        monkeypatch.setattr(logging.getLogger(name), "disabled", False)
    logs.setup("DEBUG", form)
    try:
        yield stream
    finally:
        root.handlers[:], level, levels = before
        root.setLevel(level)
        for name, old in levels.items():
            logging.getLogger(name).setLevel(old)


def decoded(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class TestShape:
    """What a line looks like."""

    def test_json(self, lines: io.StringIO) -> None:
        """A line is one JSON object with ts, level, logger and msg, in this order, and nothing else."""
        logging.getLogger("regcred.engine").info("Listed %d namespaces", 7)
        (line,) = decoded(lines)
        assert list(line) == ["ts", "level", "logger", "msg"]
        assert (line["level"], line["logger"], line["msg"]) == ("info", "regcred.engine", "Listed 7 namespaces")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["ts"])

    def test_text(self, text: io.StringIO) -> None:
        """A line for people is time, level and message."""
        logging.getLogger("regcred.engine").warning("Waiting")
        assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} WARNING Waiting\n", text.getvalue())

    def test_one_line_each(self, text: io.StringIO) -> None:
        """A line break in a name begins no new line."""
        logging.getLogger("regcred").info("Name %s", "a\n12:00:00.000 ERROR forged\r\nb")
        assert len(text.getvalue().splitlines()) == 1

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.text())
    def test_whatever_the_text(self, lines: io.StringIO, message: str) -> None:
        """Any text at all makes one valid JSON line."""
        lines.truncate(0)
        lines.seek(0)
        logging.getLogger("regcred").info("%s", message)
        (line,) = lines.getvalue().split("\n")[:-1]
        assert isinstance(json.loads(line)["msg"], str)


class TestExceptions:
    """Of an exception only its kind and its place are told."""

    def test_no_text(self, lines: io.StringIO) -> None:
        """The text of an exception, of its cause and of its context stay out of the line."""
        try:
            try:
                raise KeyError(CANARY)
            except KeyError as cause:
                raise ValueError(CANARY) from cause
        except ValueError:
            logging.getLogger("regcred").exception("Failed unexpectedly")
        (line,) = decoded(lines)
        assert list(line) == ["ts", "level", "logger", "msg", "error"]
        assert re.fullmatch(r"ValueError at test_logs\.test_no_text:\d+", line["error"])
        assert CANARY not in lines.getvalue()

    def test_in_text(self, text: io.StringIO) -> None:
        """The same for people."""
        try:
            raise ValueError(CANARY)
        except ValueError:
            logging.getLogger("regcred").exception("Failed")
        assert "(ValueError at " in text.getvalue()
        assert CANARY not in text.getvalue()

    def test_of_a_group(self, lines: io.StringIO) -> None:
        """Of a group of exceptions the first one is told."""
        try:
            raise ExceptionGroup(CANARY, [ExceptionGroup(CANARY, [OSError(CANARY)])])
        except ExceptionGroup:
            logging.getLogger("regcred").exception("Failed")
        (line,) = decoded(lines)
        assert line["error"].startswith("OSError at")
        assert CANARY not in lines.getvalue()

    def test_without_one(self, lines: io.StringIO) -> None:
        """An error that is logged outside of a handler has no `error`."""
        logging.getLogger("regcred").error("Failed", exc_info=True)
        assert "error" not in decoded(lines)[0]

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_of_a_forgotten_task(self, lines: io.StringIO) -> None:
        """What asyncio says of a task whose exception nobody took holds no text of it."""

        async def fails() -> None:
            raise ValueError(CANARY)

        async def forgets() -> None:
            task = asyncio.get_running_loop().create_task(fails())
            await asyncio.wait({task})
            del task

        asyncio.run(forgets())
        told = [line for line in decoded(lines) if line["logger"] == "asyncio"]
        assert told[0]["msg"] == "Task exception was never retrieved"
        assert told[0]["error"].startswith("ValueError at")
        assert CANARY not in lines.getvalue()


class TestSecrets:
    """What looks like a login is cut out."""

    @pytest.mark.parametrize(
        ("message", "secret"),
        [
            (f"Authorization: Bearer {CANARY}", CANARY),
            (f"Authorization: bearer {JWT}", JWT),
            ("Authorization: Basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNzd29yZA"),
            (f"got {JWT} back", JWT),
            (f"half a token {JWT[:40]}", JWT[:40]),
            ('{"auths": {"quay.io": {"auth": "dXNlcjpwYXNz"}}}', "dXNlcjpwYXNz"),
            ('{"username":"a","password":"hunter2"}', "hunter2"),
            ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
            ("ya29.a0AfH6SMBx-canary", "ya29.a0AfH6SMBx"),
        ],
    )
    @pytest.mark.parametrize("logger", ["regcred.engine", "kopf", "plugin"])
    def test_tokens(self, lines: io.StringIO, message: str, secret: str, logger: str) -> None:
        """Tokens, headers, docker configs and access keys never appear, whoever logs them."""
        logging.getLogger(logger).error("%s", message)
        assert secret not in lines.getvalue()
        assert "[redacted]" in lines.getvalue()

    @pytest.mark.parametrize(
        "message",
        [
            "Listed 20000 namespaces, 60000 service accounts and 3 resources in 0.4 s",
            "Waiting for the Lease regcred, held by regcred-6d8f9c7b5-x2x4z",
            "Could not keep the logins of RegistryCredential/team-a/quay, tried again: the API server answered 503",
            "Secret basic-auth-login of team-a is not there",
        ],
    )
    def test_ordinary_lines_stay_whole(self, lines: io.StringIO, message: str) -> None:
        """Nothing is cut out of what we usually say."""
        logging.getLogger("regcred").info("%s", message)
        assert decoded(lines)[0]["msg"] == message


class TestLibraries:
    """What libraries say."""

    @pytest.mark.parametrize("name", logs.CHATTY)
    def test_are_held_at_warning(self, lines: io.StringIO, name: str) -> None:
        """SDKs that print requests and answers are not heard below WARNING, whatever level is chosen."""
        logger = logging.getLogger(f"{name}.some.module")
        logger.debug(CANARY)
        logger.info(CANARY)
        assert lines.getvalue() == ""
        logger.warning("Slow")
        assert decoded(lines)[0]["msg"] == "Slow"

    @pytest.mark.parametrize("name", logs.SILENT)
    def test_are_not_heard_at_all(self, lines: io.StringIO, name: str) -> None:
        """SDKs that quote a server's answer at any level are not heard, at any level."""
        logger = logging.getLogger(f"{name}.some.module")
        for level in (logging.DEBUG, logging.WARNING, logging.CRITICAL):
            logger.log(level, CANARY)
        assert lines.getvalue() == ""

    @pytest.mark.parametrize("name", [*logs.CHATTY, *logs.SILENT])
    @pytest.mark.parametrize("child", ["", ".some.module"])
    def test_cannot_free_themselves(self, lines: io.StringIO, name: str, child: str) -> None:
        """A library that lowers the level of its own loggers after our setup is held all the same."""
        logger = logging.getLogger(f"{name}{child}")
        before = logger.level
        logger.setLevel(logging.DEBUG)
        try:
            logger.debug(CANARY)
            logger.info(CANARY)
        finally:
            logger.setLevel(before)
        assert lines.getvalue() == ""

    @pytest.mark.parametrize(
        ("said", "kept"),
        [
            (f"Request failed: ClientError('{CANARY}') will retry", "Request failed: ClientError(...)"),
            (f'Failed with KeyError("{CANARY}")', "Failed with KeyError(...)"),
            (f"Failed: BadResponse(b'{CANARY}')", "Failed: BadResponse(...)"),
            (f"First line\nsecond {CANARY}", "First line"),
            ("Nothing special (at all)", "Nothing special (at all)"),
        ],
    )
    def test_their_exceptions_are_cut(self, lines: io.StringIO, said: str, kept: str) -> None:
        """Of what they say the first line is kept, without the text of an exception."""
        logging.getLogger("kopf").warning("%s", said)
        assert decoded(lines)[0]["msg"] == kept
        assert CANARY not in lines.getvalue()


def test_a_line_that_cannot_be_made(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake in a call of the logger tells where it is, and shows none of the arguments."""
    handler = logs.Handler()
    handler.setFormatter(logs.Json())
    # Given to the handler by itself: pytest has one of its own that raises.
    handler.handle(logging.LogRecord("regcred.engine", logging.INFO, "x.py", 7, "%d namespaces", (CANARY,), None))
    told = capsys.readouterr().err
    assert told == "A line of regcred.engine:7 could not be logged (TypeError)\n"
