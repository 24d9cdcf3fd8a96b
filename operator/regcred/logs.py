"""Log lines of one stable shape, for people or as JSON, that cannot carry a secret by accident.

The text of a foreign exception may quote a header or a body, so of an exception only its type and its frames are
written, and of what a library says the first line, without the text of an exception in it.  What looks like a login
is cut out of every line, should one get there in spite of all that.
"""

from __future__ import annotations

import datetime
import json
import logging
import pathlib
import re
import sys
import traceback
from typing import TextIO

#: Libraries that print requests, answers or tokens below WARNING; held there whatever level is chosen.
CHATTY = ("aiohttp", "asyncio", "boto3", "google", "kopf", "kubernetes", "requests", "urllib3")
#: SDKs that at any level quote what a server says, which may repeat what it was sent.  Never heard: whoever calls them
#: tells of their failures in words of ours.
SILENT = ("azure", "botocore", "msal")

#: Loggers whose texts are ours.
_OURS = "regcred"
_REDACTED = "[redacted]"
#: What looks like a login: a token, an Authorization header, a docker config's `auth`, an access key.
_LOGIN = re.compile(
    r"eyJ[\w-]{8,}(?:\.[\w-]*){0,4}"
    r"|(?<=bearer )\S{8,}|(?<=basic )[A-Za-z0-9+/=]{8,}"
    r"|(?<=\"auth\": \")[^\"]+|(?<=\"auth\":\")[^\"]+|(?<=\"password\": \")[^\"]+|(?<=\"password\":\")[^\"]+"
    r"|\bA[KS]IA[A-Z0-9]{16}\b|\bya29\.[\w-]+",
    re.IGNORECASE,
)
#: An exception with its text, as `repr` writes it.
_EXCEPTION = re.compile(r"\b([A-Za-z_.]+)\((['\"]|<|b['\"]).*")


def setup(level: str, form: str) -> None:
    """Send all logs to standard error.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        form: json or text.
    """
    handler = Handler()
    handler.setFormatter(Json() if form == "json" else Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _heard(record: logging.LogRecord) -> bool:
    """Whether a record may be written, whatever levels a library has given to its loggers since `setup`."""
    library = record.name.partition(".")[0]
    return library not in SILENT and (library not in CHATTY or record.levelno >= logging.WARNING)


class Handler(logging.StreamHandler[TextIO]):
    """Writes to standard error; of a line that cannot be made only where it comes from is told."""

    def __init__(self) -> None:
        """Write what may be heard."""
        super().__init__()
        self.addFilter(_heard)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name in logging
        """Tell that a line is missing.  The usual way shows its arguments."""
        error = sys.exc_info()[0]
        name = error.__name__ if error is not None else "unknown"
        sys.stderr.write(f"A line of {record.name}:{record.lineno} could not be logged ({name})\n")


def _message(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.name.partition(".")[0] != _OURS:
        # Libraries put exceptions into their texts, and those quote what was sent or answered.
        text = _EXCEPTION.sub(r"\1(...)", text.partition("\n")[0])
    return _LOGIN.sub(_REDACTED, text)


def _frames(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    error = record.exc_info[1]
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    where = " > ".join(
        f"{pathlib.PurePath(frame.filename).stem}.{frame.name}:{frame.lineno}" for frame in frames[-6:]
    )
    return f"{type(error).__name__} at {where}"


class Json(logging.Formatter):
    """One JSON object a line: ts, level, logger, msg, and error where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "ts": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": _message(record),
        }
        if frames := _frames(record):
            line["error"] = frames
        return json.dumps(line, ensure_ascii=False)


class Text(logging.Formatter):
    """Time, level, message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC).strftime("%H:%M:%S.%f")[:-3]
        frames = _frames(record)
        # One line each, whatever is in it.
        message = _message(record).replace("\r", " ").replace("\n", " ")
        return f"{at} {record.levelname:<7} {message}" + (f" ({frames})" if frames else "")
