"""The checks of our tests find what they are there to find: the product is made to misbehave, and they say so.

Each check here is the very one that the other tests use: the search for secrets (`dev/canaries.py`), the redirect
with a thief at its end (`tests/credentials/redirects.py`), and the judge of the simulated namespace.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import logging
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
import yarl

from regcred import dockerconfig
from regcred.credentials import asks, exchange, fetches, guard, holdings, provider
from regcred.distribution import composition
from tests.credentials import redirects, shown
from tests.distribution.distribution_support import HOUR, QUAY
from tests.distribution.simulated_world import NOW, Resource, World, login

LOG = logging.getLogger("regcred.credentials")


def logs_with(patch: pytest.MonkeyPatch, text: Callable[[dockerconfig.Login], str]) -> None:
    """Let every fetch log something of the login that it brought."""
    tell = fetches.Fetch._tell

    def chatty(self: fetches.Fetch, clock: fetches.Clock, seconds: float) -> None:
        tell(self, clock, seconds)
        for granted in self.grant.logins.values() if self.grant is not None else ():
            LOG.debug("Brought %s", text(granted))

    patch.setattr(fetches.Fetch, "_tell", chatty)


def log_plain(patch: pytest.MonkeyPatch) -> None:
    """The password stands in a log line."""
    logs_with(patch, lambda granted: granted.password)


def log_encoded(patch: pytest.MonkeyPatch) -> None:
    """The entry of the docker config stands in a log line."""
    logs_with(patch, lambda granted: granted.auth)


def log_part(patch: pytest.MonkeyPatch) -> None:
    """The password stands in base64 of something larger."""
    logs_with(patch, lambda granted: base64.urlsafe_b64encode(f"x{granted.password}yz".encode()).decode())


def tell_in_status(patch: pytest.MonkeyPatch) -> None:
    """The password stands in a registry's message."""
    row = holdings.Slot.row

    def chatty(self: holdings.Slot, *more: Any) -> holdings.Row:
        handed = self.offered.grant.logins.values() if self.offered is not None else ()
        return dataclasses.replace(row(self, *more), message=f"in use: {[each.password for each in handed]}")

    patch.setattr(holdings.Slot, "row", chatty)


def tell_foreign_text(patch: pytest.MonkeyPatch) -> None:
    """The text of somebody else's exception becomes ours."""
    fetch = asks.Entry.fetch

    async def careless(self: asks.Entry, reader: provider.Cluster) -> provider.Grant:
        try:
            return await fetch(self, reader)
        except ValueError as error:
            raise provider.Retryable("Failed", f"it failed: {error}") from error

    patch.setattr(asks.Entry, "fetch", careless)


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (log_plain, {"login"}),
        (log_encoded, {"login"}),
        (log_part, {"login"}),
        (tell_in_status, {"login"}),
        (tell_foreign_text, {"foreign text"}),
    ],
)
def test_a_secret_that_is_shown(
    plant: Callable[[pytest.MonkeyPatch], None], found: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret that gets into a log line or a status is found there, plain or in base64."""
    plant(monkeypatch)
    assert shown.SEARCH.kinds_in(shown.shown()) == found


async def by_exchange(to: redirects.Redirecting) -> exchange.Answer:
    """Send a login as the providers do."""
    form = [("password", shown.LOGIN)]
    return await exchange.send("POST", to.url, what="It", form=form, ca_bundle=to.ca)


async def by_guard(to: redirects.Redirecting) -> guard.Answer:
    """Send a login as the handshake does."""
    async with guard.open_session() as session:
        return await guard.send(
            session,
            "POST",
            yarl.URL(to.url),
            what="It",
            tls=ssl.create_default_context(cadata=to.ca),
            timeout=30,
            form=[("password", shown.LOGIN)],
        )


@pytest.mark.parametrize("send", [by_exchange, by_guard])
@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_that_is_followed(send: Any, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login that goes along with a redirect is found at the redirect's end."""
    request = aiohttp.ClientSession._request

    async def obedient(self: aiohttp.ClientSession, *more: Any, **options: Any) -> aiohttp.ClientResponse:
        return await request(self, *more, **options | {"allow_redirects": True})

    monkeypatch.setattr(aiohttp.ClientSession, "_request", obedient)
    answer, taken = await redirects.carried_along(status, send)
    assert answer.status == 200
    assert len(taken) == 1
    assert shown.SEARCH.kinds_in(taken[0]) == {"login"}


def erase_ended(patch: pytest.MonkeyPatch) -> None:
    """What has ended is left out of the composition, wherever it stands."""
    compose = composition.compose

    def tidy(contributions: Any, now: datetime.datetime, **options: Any) -> Any:
        living = [
            dataclasses.replace(
                each, logins={name: held for name, held in each.logins.items() if not held.expired(now)}
            )
            for each in contributions
        ]
        return compose(living, now, **options)

    patch.setattr(composition, "compose", tidy)


def world_with(**logins: datetime.timedelta) -> World:
    """A namespace at rest that holds one login for a server, by the name of each of two resources."""
    world = World()
    for number, (name, life) in enumerate(logins.items()):
        made = Resource(
            name, f"uid-{name}", cluster=True, secret_name="regcred", accounts=(), retain=False, created=NOW
        )
        made.logins = {QUAY if number == 0 else "other.example": login(f"pw-{name}", NOW + life)}
        world.add(made)
    world.settle()
    return world


def test_an_ended_login_that_is_erased(monkeypatch: pytest.MonkeyPatch) -> None:
    """A login that is taken away at its end is noticed by the judge, and one that stays passes."""
    world = world_with(a=HOUR, b=9 * HOUR)
    world.now = NOW + 2 * HOUR
    world.settle()
    erase_ended(monkeypatch)
    world.now += HOUR
    for resource in world.resources.values():
        # A renewal of the other makes the Secret be written anew, without what has ended.
        resource.logins |= {name: login("new", NOW + 20 * HOUR) for name in resource.logins if name != QUAY}
    with pytest.raises(AssertionError, match="had a login and has none"):
        world.settle()
