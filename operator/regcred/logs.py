"""Log lines of one stable shape, for people or as JSON, that cannot carry a secret by accident.

The text of a foreign exception may quote a header or a body, so of an exception only its type and its frames are
written.
"""

from __future__ import annotations

import datetime
import json
import logging
import traceback

#: SDKs that print requests or tokens at DEBUG; held at INFO whatever level is chosen.
CHATTY = (
    "aiohttp",
    "asyncio",
    "azure",
    "boto3",
    "botocore",
    "google",
    "kubernetes",
    "msal",
    "requests",
    "urllib3",
)


def setup(level: str, form: str) -> None:
    """Send all logs to standard error.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        form: json or text.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if form == "json" else Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(logging.INFO, root.level))
    # kopf tells of every event of every object at DEBUG, and of routine at INFO.
    logging.getLogger("kopf").setLevel(max(logging.WARNING, root.level))


def _frames(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[0] is None:
        return ""
    frames = traceback.extract_tb(record.exc_info[2])
    where = " > ".join(f"{frame.name}:{frame.lineno}" for frame in frames[-6:])
    return f"{record.exc_info[0].__name__} at {where}"


class Json(logging.Formatter):
    """One JSON object a line: ts, level, logger, msg, and error where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "ts": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
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
        return f"{at} {record.levelname:<7} {record.getMessage()}" + (f" ({frames})" if frames else "")
