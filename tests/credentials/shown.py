"""Everything that the credentials side shows of itself while secrets go through it: its log at DEBUG, statuses, events.

The scene is played in virtual time with known secrets; whoever plays it looks for them in the text that comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
from collections.abc import Iterator

from dev.canaries import Search
from regcred import logs, reporting
from regcred.api import resource
from regcred.credentials import verification
from regcred.distribution import tally
from tests.credentials.keeper_support import LIFE, World, entry, play, spec

LOGIN = "c4n4ry-0f-a-login-5Hq2vX8rT1"
RENEWED = "c4n4ry-0f-a-renewed-login-7Jw4"
FOREIGN = "c4n4ry-in-somebody-elses-text-9"
SEARCH = Search({"login": [LOGIN, RENEWED], "foreign text": [FOREIGN]})


@contextlib.contextmanager
def log_at_debug() -> Iterator[io.StringIO]:
    """Collect what the operator's own handler writes at DEBUG."""
    stream = io.StringIO()
    handler = logs.Handler()
    handler.setStream(stream)
    handler.setFormatter(logs.Json())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def shown() -> str:
    """Play a first login, its renewal, a proof, a refusal, a plugin's surprise and a restart; return what is shown."""
    texts: list[str] = []
    body = spec("r", entry("one.example", "one", verify="org/app"), entry("two.example", "two"))
    status: dict[str, object] = {}

    def look(world: World) -> None:
        nonlocal status
        rows = world.keeper.rows("uid-r")
        facts = reporting.Facts(resource.parse({**body, "status": status}), rows, tally.Tally().count())
        before, status = status, reporting.build(facts, world.clock.now())
        texts.append(json.dumps([status, repr(reporting.transitions(before, status)), repr(rows), repr(facts)]))

    async def scene(world: World) -> None:
        world.provider.fixed |= {"one": LOGIN, "two": LOGIN}
        await world.start(body)
        for password, fault in ((LOGIN, None), (RENEWED, None), (RENEWED, ValueError(FOREIGN))):
            world.provider.fixed |= {"one": password, "two": password}
            world.provider.faults = {"two": fault} if fault is not None else {}
            await asyncio.sleep(LIFE / 2)
            look(world)
        world.verdicts["one.example"] = verification.Outcome.BAD_CREDENTIALS
        world.provider.fixed["one"] = LOGIN
        await asyncio.sleep(LIFE / 2)
        look(world)
        await world.restart(body)
        await asyncio.sleep(60)
        look(world)
        assert set(world.passwords("uid-r").values()) <= {LOGIN, RENEWED}

    with log_at_debug() as log:
        play(scene)
    return "\n".join([log.getvalue(), *texts])
