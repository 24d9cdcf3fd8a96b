"""The keeper in virtual time: fetches, failures, restarts, changes and refreshes, with a provider in memory."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pytest

from regcred import dockerconfig
from regcred.cluster import errors
from regcred.credentials import asks, provider, schedule
from tests.credentials.keeper_support import HOME, LIFE, FakeProvider, World, entry, play, spec

if TYPE_CHECKING:
    from collections.abc import Callable

CANARY = "c4n4ry-0f-a-secret"
HOST = "one.example"

FAULTS: dict[str, Callable[[], BaseException]] = {
    "retryable": lambda: provider.Retryable("Unreachable", "the provider does not answer"),
    "throttled": lambda: provider.Throttled("Throttled", "the provider asks for patience", after=120.0),
    "denied": lambda: provider.Denied("AccessDenied", "the provider refuses the identity; allow it"),
    "invalid": lambda: provider.InvalidSpec("SourceInvalid", "the source holds no login", field="plugin.config"),
    "unexpected": lambda: KeyError(CANARY),
    "timeout": lambda: TimeoutError(CANARY),
    "cancelled": lambda: asyncio.CancelledError(CANARY),
    "system": lambda: OSError(CANARY),
}


def grant(world: World, *, life: float | None = LIFE, age: float = 0.0, **logins: str) -> provider.Grant:
    """A grant that was issued `age` seconds ago; `any` stands for every server, a dot for an underscore."""
    issued = world.clock.true() - dt.timedelta(seconds=age)
    named = {
        provider.ANY_SERVER if name == "any" else name.replace("_", "."): dockerconfig.Login("user", password)
        for name, password in logins.items()
    }
    ends = issued + dt.timedelta(seconds=life) if life is not None else None
    return provider.Grant(named, "me", issued, ends)


class TestSingleFlight:
    """One fetch a key, whoever asks."""

    def test_many_resources_share_one_fetch(self) -> None:
        """Fifty resources that ask for the same thing cost one fetch, now and at each renewal."""

        async def scene(world: World) -> None:
            await world.start(*(spec(f"r{number}", entry(HOST, "same")) for number in range(50)))
            await asyncio.sleep(10)
            assert len(world.provider.asked) == 1
            assert {world.passwords(f"uid-r{number}")[HOST] for number in range(50)} == {"token-1"}
            await asyncio.sleep(LIFE / 2 + 10)
            assert len(world.provider.asked) == 2
            assert {world.passwords(f"uid-r{number}")[HOST] for number in range(50)} == {"token-2"}

        play(scene)

    def test_a_newcomer_gets_what_is_held(self) -> None:
        """A resource that joins a key is served at once, for its own servers, and the provider is not asked."""

        async def scene(world: World) -> None:
            await world.start(spec("old", entry(HOST, "same")))
            await asyncio.sleep(3600)
            uid = world.update(spec("new", entry("two.example", "same", aliases=["three.example"])))
            await asyncio.sleep(0.01)
            assert world.passwords(uid) == {"two.example": "token-1", "three.example": "token-1"}
            assert world.row(uid).reason == "Issued"
            assert len(world.provider.asked) == 1

        play(scene)

    def test_newcomers_during_the_fetch_share_it(self) -> None:
        """Resources that arrive while a fetch is under way wait for its answer."""

        async def scene(world: World) -> None:
            world.provider.latency["same"] = 5.0
            await world.start(spec("a", entry(HOST, "same")))
            await asyncio.sleep(1)
            world.update(spec("b", entry(HOST, "same")))
            world.update(spec("a", entry(HOST, "same"), serviceAccounts=["*"]))
            await asyncio.sleep(5)
            assert world.passwords("uid-a") == world.passwords("uid-b") == {HOST: "token-1"}
            await asyncio.sleep(60)
            assert len(world.provider.asked) == 1

        play(scene)

    def test_tenants_share_with_nobody(self) -> None:
        """Whatever key a provider makes, no tenant gets what the platform or another tenant has fetched."""

        async def scene(world: World) -> None:
            world.provider.single = False
            await world.start(
                spec("platform", entry(HOST, "same")),
                spec("a", entry(HOST, "same"), namespace="team-a"),
                spec("b", entry(HOST, "same"), namespace="team-b"),
            )
            await asyncio.sleep(60)
            assert len(world.provider.asked) == 3
            assert len({world.passwords(f"uid-{name}")[HOST] for name in ("platform", "a", "b")}) == 3

        play(scene)

    def test_tenants_with_the_operators_identity_share_it(self) -> None:
        """Where tenants may use the operator's identity, they share its fetch, though not with the platform."""

        async def scene(world: World) -> None:
            world.policy = asks.Policy(HOME, tenant_ambient=True)
            await world.start(
                spec("a", entry(HOST, "same"), namespace="team-a"),
                spec("b", entry(HOST, "same"), namespace="team-b"),
            )
            await asyncio.sleep(60)
            assert len(world.provider.asked) == 1

        play(scene)

    def test_two_providers_may_make_the_same_key(self) -> None:
        """Keys of different providers are different, whatever they say."""

        async def scene(world: World) -> None:
            other = FakeProvider(world)
            other.name = "other"
            other.fixed["same"] = "others"
            await world.start(
                spec("r", entry(HOST, "same"), entry("two.example", "same", plugin="other")),
                others={"other": lambda: other},
            )
            await asyncio.sleep(10)
            assert world.passwords("uid-r") == {HOST: "token-1", "two.example": "others"}

        play(scene)


class TestFailures:
    """Whatever goes wrong, the last good login stays, and its renewal goes on."""

    @pytest.mark.parametrize("kind", FAULTS)
    def test_the_last_good_login_stays(self, kind: str) -> None:
        """A renewal that fails changes nothing that is handed out, says so, and is tried until it works."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(10)
            handed, version = world.passwords("uid-r"), world.versions("uid-r")
            world.provider.faults["me"] = FAULTS[kind]()
            await asyncio.sleep(LIFE * 0.7)
            row = world.row("uid-r")
            assert row.usable
            assert not row.settled
            assert row.stalled is (kind in ("denied", "invalid"))
            assert row.next_at is not None
            assert row.next_at > world.clock.now() - dt.timedelta(seconds=1)
            assert row.reason[0].isupper()
            assert CANARY not in f"{row}"
            assert (world.passwords("uid-r"), world.versions("uid-r")) == (handed, version)
            assert len(world.changes("uid-r")) == 1
            del world.provider.faults["me"]
            await asyncio.sleep(1.2 * schedule.DENIED_CEILING)
            assert world.row("uid-r").settled
            assert world.passwords("uid-r") != handed

        play(scene)

    @pytest.mark.parametrize("kind", FAULTS)
    def test_from_the_beginning(self, kind: str) -> None:
        """A first fetch that fails hands out nothing, says why, and touches no other entry."""

        async def scene(world: World) -> None:
            world.provider.faults["bad"] = FAULTS[kind]()
            await world.start(spec("r", entry(HOST, "bad"), entry("two.example", "good")))
            await asyncio.sleep(10)
            assert set(world.passwords("uid-r")) == {"two.example"}
            row = world.row("uid-r", HOST)
            assert not row.usable
            assert not row.pending
            assert row.message
            assert world.row("uid-r", "two.example").reason == "Issued"

        play(scene)

    def test_a_provider_that_never_answers(self) -> None:
        """It is given up after 90 s, tried again, and nobody else waits for it."""

        async def scene(world: World) -> None:
            world.provider.latency["hung"] = 1e6
            await world.start(spec("r", entry(HOST, "hung"), entry("two.example", "good")))
            await asyncio.sleep(5)
            assert set(world.passwords("uid-r")) == {"two.example"}
            await asyncio.sleep(90)
            assert world.row("uid-r", HOST).reason == "Unreachable"
            await asyncio.sleep(300)
            assert len(world.provider.times("hung")) >= 3

        play(scene)

    @pytest.mark.parametrize(
        "answer",
        [
            lambda world: None,
            lambda world: {"user": "password"},
            lambda world: provider.Grant({provider.ANY_SERVER: ("user", "password")}, "me", world.clock.true()),  # type: ignore[dict-item]
            lambda world: provider.Grant({}, "me", world.clock.true().replace(tzinfo=None)),
            lambda world: provider.Grant(None, "me", world.clock.true()),  # type: ignore[arg-type]
            lambda world: provider.Grant({3: dockerconfig.Login("u", "p")}, "me", world.clock.true()),  # type: ignore[dict-item]
            lambda world: provider.Grant({}, "me", None),  # type: ignore[arg-type]
            lambda world: provider.Grant({}, "me", world.clock.true(), "tomorrow"),  # type: ignore[arg-type]
        ],
    )
    def test_a_plugin_that_hands_out_nonsense(self, answer: Callable[[World], Any]) -> None:
        """What is no grant is refused where it comes in, and the keeper goes on."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(10)
            handed = world.passwords("uid-r")
            world.provider.granted["me"] = lambda _: answer(world)
            await asyncio.sleep(LIFE * 0.6)
            assert world.passwords("uid-r") == handed
            assert world.row("uid-r").reason == "ProviderBroken"

        play(scene)

    def test_a_grant_that_lacks_a_server(self) -> None:
        """A grant without a login for one of the entry's servers is no progress: the last good one stays."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me", aliases=["two.example"])))
            await asyncio.sleep(10)
            handed = world.passwords("uid-r")
            world.provider.granted["me"] = lambda _: grant(world, one_example="x", other_example="y")
            await asyncio.sleep(LIFE * 0.6)
            assert world.passwords("uid-r") == handed
            row = world.row("uid-r")
            assert (row.reason, row.message) == ("SourceInvalid", "there is no login in it for two.example")
            assert row.usable

        play(scene)

    def test_what_is_wrong_now_is_told(self) -> None:
        """A row tells of the last failure, and not of another one before it."""

        async def scene(world: World) -> None:
            world.provider.granted["me"] = lambda _: grant(world, other_example="y")
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(10)
            assert world.row("uid-r").reason == "SourceInvalid"
            world.provider.faults["me"] = FAULTS["denied"]()
            await asyncio.sleep(LIFE)
            assert world.row("uid-r").reason == "AccessDenied"

        play(scene)

    def test_a_grant_with_more_servers(self) -> None:
        """Logins for servers that the entry does not name are not handed out."""

        async def scene(world: World) -> None:
            world.provider.granted["me"] = lambda _: grant(world, one_example="x", evil_example="y")
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(10)
            assert world.passwords("uid-r") == {HOST: "x"}

        play(scene)

    def test_an_import_takes_named_servers_only(self) -> None:
        """The server `*` hands out every server a grant names, and a login for "any server" under no name."""

        async def scene(world: World) -> None:
            world.provider.granted["me"] = lambda _: grant(world, one_example="x", any="y", two_example="z")
            await world.start(spec("r", entry("*", "me"), entry("two.example", "other")))
            await asyncio.sleep(10)
            assert world.passwords("uid-r") == {HOST: "x", "two.example": "token-2"}

        play(scene)

    def test_an_entry_that_cannot_work(self) -> None:
        """An entry whose key cannot be made says so with its field; nobody is asked for it."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me", bad=True), entry("two.example", "good")))
            await asyncio.sleep(3600)
            row = world.row("uid-r", HOST)
            assert (row.reason, row.stalled, row.pending) == ("InvalidSpec", True, False)
            assert row.message.startswith("plugin.config.bad: ")
            assert not world.provider.times("me")
            assert set(world.passwords("uid-r")) == {"two.example"}

        play(scene)


class TestPace:
    """How often a provider is asked."""

    def test_failures_are_tried_later_and_later(self) -> None:
        """A provider that fails for a day is asked every five minutes in the end, and never twice in 30 s."""

        async def scene(world: World) -> None:
            world.provider.faults["me"] = FAULTS["retryable"]()
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(86400)

        times = play(scene).provider.times("me")
        gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
        assert min(gaps) >= 30.0
        assert 300.0 <= gaps[-1] <= 362.0
        assert len(times) < 300

    def test_refusals_are_tried_slowly(self) -> None:
        """A provider that refuses us is asked after five minutes at first, and then twice an hour."""

        async def scene(world: World) -> None:
            world.provider.faults["me"] = FAULTS["denied"]()
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(86400)

        times = play(scene).provider.times("me")
        assert 300.0 <= times[1] - times[0] <= 361.0
        assert len(times) < 56

    def test_a_missing_source_is_looked_for_sooner(self) -> None:
        """Our own API server is asked for a source that is missing within minutes, and not in half an hour."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me", secret="source")))
            await asyncio.sleep(3600)
            assert world.row("uid-r").reason == "SourceMissing"
            assert world.row("uid-r").stalled
            world.put_source("source", "5", "password", tell=False)
            await asyncio.sleep(1.2 * schedule.RETRY_CEILING + 1)
            assert world.passwords("uid-r") == {HOST: "password"}

        play(scene)

    def test_patience_is_kept_in_spite_of_news(self) -> None:
        """A provider that asked for patience is left in peace even when its source changes."""

        async def scene(world: World) -> None:
            world.put_source("source", "1", "old", tell=False)
            world.provider.faults["me"] = [provider.Throttled("Throttled", "not so fast", after=600.0)]
            await world.start(spec("r", entry(HOST, "me", secret="source")))
            await asyncio.sleep(10)
            world.put_source("source", "2", "new")
            await asyncio.sleep(580)
            assert len(world.provider.asked) == 1
            await asyncio.sleep(200)
            assert len(world.provider.asked) == 2
            assert world.passwords("uid-r") == {HOST: "new"}

        play(scene)

    def test_a_source_that_never_rests(self) -> None:
        """A source that changes every second is read at once a few times, and then twice a minute."""

        async def scene(world: World) -> None:
            world.put_source("source", "1", "p1", tell=False)
            await world.start(spec("r", entry(HOST, "me", secret="source")))
            for number in range(2, 602):
                await asyncio.sleep(1)
                world.put_source("source", str(number), f"p{number}")
            assert len(world.provider.asked) <= 10 * 2 + 8
            await asyncio.sleep(40)
            assert world.passwords("uid-r") == {HOST: "p601"}

        play(scene)

    def test_a_provider_with_a_cache_of_its_own(self) -> None:
        """One that hands out the same token until its last minutes is asked for it a few times an hour."""

        async def scene(world: World) -> None:
            world.provider.granted["me"] = lambda _: grant(
                world, life=3600.0, age=world.clock.monotonic() % 3300.0, any=f"t{world.clock.monotonic() // 3300}"
            )
            await world.start(spec("r", entry(HOST, "me")))
            for _ in range(24 * 60):
                await asyncio.sleep(60)
                assert world.row("uid-r").usable

        assert len(play(scene).provider.asked) <= 24 * 8


class TestVersions:
    """A version changes exactly when a login does."""

    def test_the_same_content_keeps_its_version(self) -> None:
        """A renewal that brings the same login changes nothing that is handed out."""

        async def scene(world: World) -> None:
            world.provider.fixed["me"] = "always"
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(10)
            version = world.versions("uid-r")
            await asyncio.sleep(2 * LIFE)
            assert len(world.provider.asked) > 3
            assert world.versions("uid-r") == version
            assert len(world.changes("uid-r")) == 1

        play(scene)

    def test_each_server_has_its_own(self) -> None:
        """Of two servers of one grant only the one whose login changed gets a new version."""

        async def scene(world: World) -> None:
            world.provider.granted["me"] = lambda _: grant(
                world, one_example="fixed", two_example=f"t{world.clock.monotonic()}"
            )
            await world.start(spec("r", entry("*", "me")))
            await asyncio.sleep(10)
            before = world.versions("uid-r")
            await asyncio.sleep(LIFE * 0.6)
            after = world.versions("uid-r")
            assert before[HOST] == after[HOST]
            assert before["two.example"] != after["two.example"]

        play(scene)

    def test_it_says_nothing_about_the_password(self) -> None:
        """Two resources with the same login have different versions: they are random."""

        async def scene(world: World) -> None:
            await world.start(spec("a", entry(HOST, "same")), spec("b", entry(HOST, "same")))
            await asyncio.sleep(10)
            assert world.versions("uid-a") != world.versions("uid-b")

        play(scene)


class TestSources:
    """A changed source leads to a fetch at once."""

    def test_a_change_is_fetched_at_once(self) -> None:
        """A new password in the source is handed out within a second, by one fetch."""

        async def scene(world: World) -> None:
            world.provider.life["me"] = None
            world.put_source("source", "1", "old", tell=False)
            await world.start(spec("r", entry(HOST, "me", secret="source")))
            world.keeper.source_changed(provider.SourceRef(HOME, "source"), "1")
            await asyncio.sleep(3600)
            assert world.passwords("uid-r") == {HOST: "old"}
            assert len(world.provider.asked) == 1
            world.put_source("source", "2", "new")
            await asyncio.sleep(1)
            assert world.passwords("uid-r") == {HOST: "new"}
            await asyncio.sleep(3600)
            assert len(world.provider.asked) == 2

        play(scene)

    def test_a_watch_that_lags_behind(self) -> None:
        """Events about versions older than what was read lead to nothing."""

        async def scene(world: World) -> None:
            world.put_source("source", "107", "newest", tell=False)
            await world.start(spec("r", entry(HOST, "me", secret="source")))
            await asyncio.sleep(40)
            for version in ("103", "105", "107"):
                world.keeper.source_changed(provider.SourceRef(HOME, "source"), version)
                await asyncio.sleep(40)
            assert len(world.provider.asked) == 1

        play(scene)

    def test_a_change_under_a_fetch(self) -> None:
        """A source that changes while it is being read is read again right after."""

        async def scene(world: World) -> None:
            world.provider.latency["me"] = 5.0
            world.put_source("source", "1", "old", tell=False)
            await world.start(spec("r", entry(HOST, "me", secret="source")))
            await asyncio.sleep(1)
            world.put_source("source", "2", "new")
            await asyncio.sleep(12)
            assert world.passwords("uid-r") == {HOST: "new"}
            await asyncio.sleep(60)
            assert len(world.provider.asked) == 2

        play(scene)

    def test_a_source_that_goes_and_comes_back(self) -> None:
        """Without its source the last good login stays and the row says so; with it, it is fetched at once."""

        async def scene(world: World) -> None:
            world.provider.life["me"] = None
            world.put_source("source", "1", "old", tell=False)
            await world.start(spec("r", entry(HOST, "me", secret="source")))
            await asyncio.sleep(60)
            del world.sources[HOME, "source"]
            world.keeper.source_changed(provider.SourceRef(HOME, "source"), None)
            await asyncio.sleep(1)
            assert world.row("uid-r").reason == "SourceMissing"
            assert world.passwords("uid-r") == {HOST: "old"}
            await asyncio.sleep(1000)
            world.put_source("source", "9", "new")
            await asyncio.sleep(1)
            assert world.row("uid-r").reason == "Issued"
            assert world.passwords("uid-r") == {HOST: "new"}

        play(scene)

    def test_only_readers_care(self) -> None:
        """A Secret of that name in another namespace, or of another name, leads to nothing."""

        async def scene(world: World) -> None:
            world.put_source("source", "1", "p", namespace="team-a", tell=False)
            await world.start(spec("r", entry(HOST, "me", secret="source"), namespace="team-a"))
            await asyncio.sleep(60)
            assert world.keeper.sources() == {provider.SourceRef("team-a", "source")}
            for namespace, name in ((HOME, "source"), ("team-b", "source"), ("team-a", "other")):
                world.keeper.source_changed(provider.SourceRef(namespace, name), "77")
                world.keeper.source_changed(provider.SourceRef(namespace, name), None)
            await asyncio.sleep(60)
            assert len(world.provider.asked) == 1

        play(scene)

    def test_a_watch_that_sees_what_may_not_be_read(self) -> None:
        """A source whose version is known but whose reading fails is retried with backoff, not in a loop."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me")))
            world.provider.faults["other"] = provider.InvalidSpec("Forbidden", "may not be read; allow it")
            world.keeper.source_changed(provider.SourceRef(HOME, "source"), "7")
            world.put_source("source", "7", "p", tell=False)
            world.update(spec("r", entry(HOST, "other", secret="source")))
            await asyncio.sleep(3600)
            assert 10 <= len(world.provider.times("other")) <= 20

        play(scene)


class TestRestart:
    """A restart from the cache."""

    def test_nothing_is_asked_and_nothing_written(self) -> None:
        """Where nothing is due, no provider is asked, nothing is kept anew, and the same versions are handed out."""

        async def scene(world: World) -> None:
            world.provider.life["static"] = None
            world.put_source("source", "1", "p", tell=False)
            body = spec("r", entry(HOST, "me", verify="org/app"), entry("two.example", "static", secret="source"))
            await world.start(body)
            world.keeper.source_changed(provider.SourceRef(HOME, "source"), "1")
            await asyncio.sleep(3600)
            handed, versions = world.passwords("uid-r"), world.versions("uid-r")
            asked, written, proofs = len(world.provider.asked), world.secrets.written, len(world.proofs)
            await world.restart(body)
            assert (world.passwords("uid-r"), world.versions("uid-r")) == (handed, versions)
            world.keeper.source_changed(provider.SourceRef(HOME, "source"), "1")
            await asyncio.sleep(3600)
            assert (world.passwords("uid-r"), world.versions("uid-r")) == (handed, versions)
            assert (len(world.provider.asked), world.secrets.written, len(world.proofs)) == (
                asked,
                written,
                proofs,
            )
            assert world.row("uid-r", HOST).verified is True
            assert not any(row.pending for row in world.keeper.rows("uid-r"))

        play(scene)

    def test_the_renewal_comes_when_it_would_have_come(self) -> None:
        """A restart moves no renewal."""

        async def scene(world: World) -> None:
            body = spec("r", entry(HOST, "me"))
            await world.start(body)
            await asyncio.sleep(10)
            planned = world.row("uid-r").next_at
            await world.restart(body)
            await asyncio.sleep(10)
            after = world.row("uid-r").next_at
            assert planned is not None
            assert after is not None
            assert abs(after - planned) < dt.timedelta(seconds=1)

        play(scene)

    @pytest.mark.parametrize(("away", "within"), [(LIFE * 0.6, 31.0), (LIFE * 3, 1.0)])
    def test_the_overdue_are_fetched(self, away: float, within: float) -> None:
        """What fell due meanwhile is fetched within half a minute; what has ended, at once."""

        async def scene(world: World) -> None:
            body = spec("r", entry(HOST, "me"))
            await world.start(body)
            await asyncio.sleep(10)
            await world.stop()
            await asyncio.sleep(away)
            await world.start(body)
            assert world.passwords("uid-r") == {HOST: "token-1"}
            await asyncio.sleep(within)
            assert world.passwords("uid-r") == {HOST: "token-2"}

        play(scene)

    def test_a_source_that_changed_meanwhile(self) -> None:
        """It is fetched again as soon as the watch tells; until then the last good login is handed out."""

        async def scene(world: World) -> None:
            world.provider.life["me"] = None
            world.put_source("source", "1", "old", tell=False)
            body = spec("r", entry(HOST, "me", secret="source"))
            await world.start(body)
            await asyncio.sleep(10)
            await world.stop()
            world.sources[HOME, "source"] = ("8", "new")
            await world.start(body)
            assert world.passwords("uid-r") == {HOST: "old"}
            world.keeper.source_changed(provider.SourceRef(HOME, "source"), "8")
            await asyncio.sleep(1)
            assert world.passwords("uid-r") == {HOST: "new"}

        play(scene)

    def test_a_source_that_was_deleted_meanwhile(self) -> None:
        """The row says so, and the last good login stays."""

        async def scene(world: World) -> None:
            world.provider.life["me"] = None
            world.put_source("source", "1", "old", tell=False)
            body = spec("r", entry(HOST, "me", secret="source"))
            await world.start(body)
            await asyncio.sleep(10)
            await world.stop()
            del world.sources[HOME, "source"]
            await world.start(body)
            world.keeper.source_changed(provider.SourceRef(HOME, "source"), None)
            await asyncio.sleep(1)
            assert world.row("uid-r").reason == "SourceMissing"
            assert world.passwords("uid-r") == {HOST: "old"}

        play(scene)

    def test_in_an_outage(self) -> None:
        """While the provider is down, a restarted operator hands out the last good login to new namespaces."""

        async def scene(world: World) -> None:
            body = spec("r", entry(HOST, "me"))
            await world.start(body)
            await asyncio.sleep(10)
            world.provider.faults["me"] = FAULTS["retryable"]()
            await asyncio.sleep(LIFE * 0.6)
            await world.restart(body)
            await asyncio.sleep(600)
            assert world.passwords("uid-r") == {HOST: "token-1"}
            assert world.row("uid-r").usable
            assert world.row("uid-r").reason == "Unreachable"

        play(scene)

    def test_a_key_that_changed_meanwhile(self) -> None:
        """The login of the old identity stays until that of the new one is there."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "old")))
            await asyncio.sleep(10)
            world.provider.latency["new"] = 20.0
            await world.restart(spec("r", entry(HOST, "new")))
            await asyncio.sleep(10)
            assert world.passwords("uid-r") == {HOST: "token-1"}
            assert world.row("uid-r").pending
            await asyncio.sleep(15)
            assert world.passwords("uid-r") == {HOST: "token-2"}

        play(scene)

    def test_what_is_gone_is_remembered(self) -> None:
        """A resource that was deleted meanwhile is known by its record, with every name its Secret had."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me"), secretName="first"))
            await asyncio.sleep(10)
            world.update(spec("r", entry(HOST, "me"), secretName="second"))
            await asyncio.sleep(1)
            await world.restart()
            assert world.keeper.gone() == {"uid-r"}
            assert world.keeper.secret_names() == {"first", "second"}
            assert world.keeper.logins("uid-r") == {}
            await world.keeper.forget("uid-r")
            assert world.keeper.gone() == frozenset()
            assert world.keeper.secret_names() == frozenset()
            assert not world.secrets.bodies

        play(scene)

    @pytest.mark.parametrize(
        ("kept", "known"), [({"names": ["team-*"]}, [("team-*",)]), ({"nonsense": 1}, []), ({"names": 7}, [])]
    )
    def test_where_what_is_gone_stood(self, kept: Any, known: list[tuple[str, ...]]) -> None:
        """The record of a resource that is gone tells its namespaces; what cannot be read tells of none."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me"), namespaces={"names": ["team-*"]}))
            await asyncio.sleep(10)
            body = world.secrets.bodies["regcred-cache-uid-r"]
            (key,) = body["data"]
            record = json.loads(base64.b64decode(body["data"][key]))
            assert record["namespaces"] == {"names": ["team-*"]}
            body["data"][key] = base64.b64encode(json.dumps(record | {"namespaces": kept}).encode()).decode()
            await world.restart()
            left = world.keeper.left()
            assert [scope.names for scopes in left.values() for scope in scopes] == known

        play(scene)

    def test_a_new_alias(self) -> None:
        """The record holds nothing for an alias that was added meanwhile, so it is fetched at once."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(10)
            await world.restart(spec("r", entry(HOST, "me", aliases=["two.example"])))
            await asyncio.sleep(1)
            assert set(world.passwords("uid-r")) == {HOST, "two.example"}

        play(scene)

    def test_the_earliest_end_decides(self) -> None:
        """Of two records of one key the older one says when to renew."""

        async def scene(world: World) -> None:
            one, two = spec("a", entry(HOST, "same")), spec("b", entry(HOST, "same"))
            await world.start(one, two)
            await asyncio.sleep(10)
            old = dict(world.secrets.bodies)
            await asyncio.sleep(LIFE * 0.55)
            world.secrets.bodies["regcred-cache-uid-b"] = old["regcred-cache-uid-b"]
            await world.restart(one, two)
            await asyncio.sleep(31)
            assert world.passwords("uid-a") == world.passwords("uid-b") == {HOST: "token-3"}

        play(scene)


class TestChanges:
    """Changes of a resource."""

    def test_another_identity(self) -> None:
        """A changed key keeps the last good login until the new one is there, and for good where it fails."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "old")))
            await asyncio.sleep(10)
            world.provider.latency["new"] = 20.0
            world.provider.faults["bad"] = FAULTS["denied"]()
            world.update(spec("r", entry(HOST, "new")))
            assert world.passwords("uid-r") == {HOST: "token-1"}
            await asyncio.sleep(10)
            assert world.passwords("uid-r") == {HOST: "token-1"}
            assert world.row("uid-r").pending
            await asyncio.sleep(11)
            assert world.passwords("uid-r") == {HOST: "token-2"}
            world.update(spec("r", entry(HOST, "bad")))
            await asyncio.sleep(60)
            assert world.passwords("uid-r") == {HOST: "token-2"}
            assert world.row("uid-r").reason == "AccessDenied"
            await asyncio.sleep(LIFE)
            # Nobody renews the old identity: it is not asked for any more.
            assert len(world.provider.times("old")) == len(world.provider.times("new")) == 1

        play(scene)

    def test_a_removed_entry(self) -> None:
        """It is dropped at once from what is handed out, then from what is kept, and never fetched again."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me"), entry("two.example", "other")))
            await asyncio.sleep(10)
            world.update(spec("r", entry(HOST, "me")))
            assert set(world.passwords("uid-r")) == {HOST}
            await asyncio.sleep(1)
            assert set(world.secrets.record("uid-r")["entries"]) == {HOST}
            await asyncio.sleep(LIFE)
            assert len(world.provider.times("other")) == 1
            assert [row.server for row in world.keeper.rows("uid-r")] == [HOST]

        play(scene)

    def test_a_fetch_that_nobody_wants_any_more(self) -> None:
        """A fetch under way for a removed entry is ended."""

        async def scene(world: World) -> None:
            world.provider.latency["slow"] = 50.0
            await world.start(spec("r", entry(HOST, "slow")))
            await asyncio.sleep(1)
            world.update(spec("r", entry(HOST, "quick")))
            await asyncio.sleep(1)
            assert world.provider.asked[0].until == pytest.approx(1.0, abs=0.1)
            assert world.passwords("uid-r") == {HOST: "token-2"}

        play(scene)

    def test_aliases(self) -> None:
        """A removed alias goes at once; an added one comes at once from the login that is held."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me", aliases=["two.example"])))
            await asyncio.sleep(10)
            world.update(spec("r", entry(HOST, "me", aliases=["three.example"])))
            assert set(world.passwords("uid-r")) == {HOST}
            await asyncio.sleep(0.1)
            assert world.passwords("uid-r") == {HOST: "token-1", "three.example": "token-1"}
            assert len(world.provider.asked) == 1

        play(scene)

    @pytest.mark.parametrize("frozen", [{"suspend": True}, {"serviceAccounts": "wrong"}])
    def test_frozen(self, frozen: dict[str, Any]) -> None:
        """While suspended, or invalid, nobody is asked and what is there stays; afterwards it goes on."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me"), refresh="one"))
            await asyncio.sleep(10)
            world.update(spec("r", entry(HOST, "me"), refresh="two", **frozen))
            await asyncio.sleep(LIFE * 1.5)
            assert world.passwords("uid-r") == {HOST: "token-1"}
            assert len(world.provider.asked) == 1
            row = world.row("uid-r")
            assert row.reason == ("Suspended" if "suspend" in frozen else "Expired")
            assert not row.usable
            assert row.next_at is None
            assert world.keeper.refresh_handled("uid-r") == "one"
            world.update(spec("r", entry(HOST, "me"), refresh="two"))
            await asyncio.sleep(1)
            assert world.passwords("uid-r") == {HOST: "token-2"}
            assert world.keeper.refresh_handled("uid-r") == "two"

        play(scene)

    def test_frozen_across_a_restart(self) -> None:
        """A suspended resource keeps across a restart what it hands out."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me", aliases=["two.example"])))
            await asyncio.sleep(10)
            await world.restart(spec("r", entry(HOST, "me"), suspend=True))
            await asyncio.sleep(10)
            assert world.passwords("uid-r") == {HOST: "token-1", "two.example": "token-1"}
            assert world.row("uid-r").reason == "Suspended"
            assert world.row("uid-r").usable
            assert len(world.provider.asked) == 1

        play(scene)

    def test_suspended_during_a_fetch(self) -> None:
        """A fetch under way is ended, and its answer is not taken."""

        async def scene(world: World) -> None:
            world.provider.latency["me"] = 50.0
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(1)
            world.update(spec("r", entry(HOST, "me"), suspend=True))
            await asyncio.sleep(100)
            assert world.passwords("uid-r") == {}

        play(scene)

    def test_a_shared_login_after_a_suspension(self) -> None:
        """A resumed resource takes over what others of its key were given meanwhile."""

        async def scene(world: World) -> None:
            await world.start(spec("a", entry(HOST, "same")), spec("b", entry(HOST, "same"), suspend=False))
            await asyncio.sleep(10)
            world.update(spec("b", entry(HOST, "same"), suspend=True))
            await asyncio.sleep(LIFE * 0.6)
            assert world.passwords("uid-b") == {HOST: "token-1"}
            world.update(spec("b", entry(HOST, "same")))
            await asyncio.sleep(1)
            assert world.passwords("uid-b") == {HOST: "token-2"}
            assert len(world.provider.asked) == 2

        play(scene)

    def test_a_removed_resource(self) -> None:
        """Its logins and its renewals go at once; its record stays until it is forgotten."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(10)
            world.keeper.remove("uid-r")
            assert world.keeper.logins("uid-r") == {}
            assert world.keeper.rows("uid-r") == []
            assert world.keeper.gone() == {"uid-r"}
            await asyncio.sleep(LIFE)
            assert len(world.provider.asked) == 1
            assert set(world.secrets.bodies) == {"regcred-cache-uid-r"}
            await world.keeper.forget("uid-r")
            assert world.keeper.gone() == frozenset()
            assert not world.secrets.bodies

        play(scene)

    def test_a_removal_while_its_login_is_being_kept(self) -> None:
        """A record that is being written when its resource is forgotten does not come back."""

        async def scene(world: World) -> None:
            world.secrets.delay = 5.0
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(2)
            world.keeper.remove("uid-r")
            await world.keeper.forget("uid-r")
            await asyncio.sleep(30)
            assert not world.secrets.bodies
            assert world.keeper.gone() == frozenset()

        play(scene)

    def test_forgetting_in_an_outage(self) -> None:
        """A record that cannot be deleted leaves its resource among the gone, and ends nothing."""

        async def scene(world: World) -> None:
            from regcred.cluster import errors  # noqa: PLC0415

            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(10)
            world.keeper.remove("uid-r")
            world.secrets.fault = errors.Unavailable(503, "ServiceUnavailable")
            await world.keeper.forget("uid-r")
            assert world.keeper.gone() == {"uid-r"}
            world.secrets.fault = None
            await world.keeper.forget("uid-r")
            assert world.keeper.gone() == frozenset()

        play(scene)

    def test_forgetting_one_that_lives(self) -> None:
        """A resource that is there is not forgotten, whoever asks."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(10)
            await world.keeper.forget("uid-r")
            await world.keeper.forget("uid-of-nobody")
            assert world.passwords("uid-r") == {HOST: "token-1"}
            assert set(world.secrets.bodies) == {"regcred-cache-uid-r"}

        play(scene)

    def test_names_of_secrets(self) -> None:
        """Every name a resource has had is remembered, at once and in its record."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(10)
            for name in ("a", "b", "a"):
                world.update(spec("r", entry(HOST, "me"), secretName=name))
                await asyncio.sleep(1)
            assert world.keeper.secret_names() == {"regcred", "a", "b"}
            assert world.secrets.record("uid-r")["secretNames"] == ["regcred", "a", "b"]
            world.keeper.remove("uid-r")
            world.update(spec("r", entry(HOST, "me"), secretName="c"))
            assert world.keeper.secret_names() == {"regcred", "a", "b", "c"}

        play(scene)


class TestRefresh:
    """The annotation that asks for a refresh."""

    def test_is_carried_out_once(self) -> None:
        """Every entry is fetched and proven once, though nothing is due; then it counts as handled."""

        async def scene(world: World) -> None:
            world.provider.fixed["me"] = "always"
            body = spec("r", entry(HOST, "me", verify="org/app"), entry("two.example", "other"))
            await world.start(body)
            await asyncio.sleep(60)
            asked, proofs = len(world.provider.asked), len(world.proofs)
            again = spec("r", *body["spec"]["registries"], refresh="now")
            world.update(again)
            assert world.keeper.refresh_handled("uid-r") == ""
            await asyncio.sleep(1)
            assert world.keeper.refresh_handled("uid-r") == "now"
            world.update(again)
            await asyncio.sleep(3600)
            assert len(world.provider.asked) == asked + 2
            assert len(world.proofs) == proofs + 1

        play(scene)

    def test_is_echoed_after_the_attempt(self) -> None:
        """It counts as handled when the last of its fetches has ended, be it with a failure."""

        async def scene(world: World) -> None:
            world.provider.latency["slow"] = 20.0
            await world.start(spec("r", entry(HOST, "quick"), entry("two.example", "slow")))
            await asyncio.sleep(60)
            world.provider.faults["slow"] = FAULTS["denied"]()
            world.update(spec("r", entry(HOST, "quick"), entry("two.example", "slow"), refresh="now"))
            await asyncio.sleep(19)
            assert world.keeper.refresh_handled("uid-r") == ""
            await asyncio.sleep(2)
            assert world.keeper.refresh_handled("uid-r") == "now"
            assert world.row("uid-r", "two.example").reason == "AccessDenied"

        play(scene)

    @pytest.mark.parametrize("known", [False, True])
    @pytest.mark.parametrize("fault", [None, errors.Unavailable(503, "ServiceUnavailable")])
    def test_is_echoed_with_what_it_brought(self, known: bool, fault: Exception | None) -> None:
        """It counts as handled once what it brought is handed out, not while that is still being kept."""

        async def scene(world: World) -> None:
            world.secrets.delay = 5.0
            await world.start(spec("r", entry(HOST, "me"), refresh="" if known else "now"))
            await asyncio.sleep(60 if known else 0)
            world.secrets.fault = fault
            if known:
                world.update(spec("r", entry(HOST, "me"), refresh="now"))
            while world.keeper.refresh_handled("uid-r") != "now":
                await asyncio.sleep(0.01)
            assert world.passwords("uid-r") == {HOST: "token-2" if known else "token-1"}
            assert world.row("uid-r").reason == "Issued"

        play(scene)

    def test_does_not_count_what_was_under_way(self) -> None:
        """A fetch that was begun before the request does not fulfil it."""

        async def scene(world: World) -> None:
            world.provider.latency["me"] = 10.0
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(5)
            world.update(spec("r", entry(HOST, "me"), refresh="now"))
            await asyncio.sleep(6)
            assert len(world.provider.asked) == 2
            assert world.keeper.refresh_handled("uid-r") == ""
            await asyncio.sleep(10)
            assert world.keeper.refresh_handled("uid-r") == "now"
            assert world.passwords("uid-r") == {HOST: "token-2"}

        play(scene)

    def test_does_not_count_what_was_being_proven(self) -> None:
        """Nor does a handshake of before, though the fetch that was asked for is under way when it ends."""

        async def scene(world: World) -> None:
            world.proof_latency = 40.0
            await world.start(spec("r", entry(HOST, "me", verify="org/app")))
            await asyncio.sleep(25)
            world.provider.latency["me"] = 30.0
            world.update(spec("r", entry(HOST, "me", verify="org/app"), refresh="now"))
            await asyncio.sleep(20)
            assert world.passwords("uid-r") == {HOST: "token-1"}
            assert world.keeper.refresh_handled("uid-r") == ""
            await asyncio.sleep(60)
            assert world.passwords("uid-r") == {HOST: "token-2"}
            assert world.keeper.refresh_handled("uid-r") == "now"

        play(scene)

    def test_is_known_after_a_restart(self) -> None:
        """A request that the status calls handled is not carried out again; one that was not, is."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me")))
            await asyncio.sleep(60)
            handled = {"lastHandledRefreshAt": "now"}
            await world.restart(spec("r", entry(HOST, "me"), refresh="now", status=handled))
            await asyncio.sleep(60)
            assert len(world.provider.asked) == 1
            assert world.keeper.refresh_handled("uid-r") == "now"
            await world.restart(spec("r", entry(HOST, "me"), refresh="later", status=handled))
            await asyncio.sleep(60)
            assert len(world.provider.asked) == 2
            assert world.keeper.refresh_handled("uid-r") == "later"

        play(scene)

    def test_with_nothing_to_fetch(self) -> None:
        """Where no entry can be fetched, the request is handled by saying so."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me", bad=True), refresh="now"))
            await asyncio.sleep(1)
            assert world.keeper.refresh_handled("uid-r") == "now"

        play(scene)

    def test_an_entry_that_changes_meanwhile(self) -> None:
        """An entry that is replaced or removed under a request does not keep it open for ever."""

        async def scene(world: World) -> None:
            world.provider.latency["slow"] = 50.0
            await world.start(spec("r", entry(HOST, "slow"), entry("two.example", "slow2"), refresh="now"))
            await asyncio.sleep(1)
            world.update(spec("r", entry(HOST, "quick"), refresh="now"))
            await asyncio.sleep(1)
            assert world.keeper.refresh_handled("uid-r") == "now"

        play(scene)

    def test_removing_the_annotation(self) -> None:
        """It asks for nothing, and what was handled stays handled."""

        async def scene(world: World) -> None:
            await world.start(spec("r", entry(HOST, "me"), refresh="now"))
            await asyncio.sleep(60)
            world.update(spec("r", entry(HOST, "me")))
            await asyncio.sleep(60)
            assert len(world.provider.asked) == 1
            assert world.keeper.refresh_handled("uid-r") == "now"

        play(scene)

    def test_of_one_resource_that_shares_its_key(self) -> None:
        """It fetches for all who share the key; only the resource that asked proves a known login anew."""

        async def scene(world: World) -> None:
            world.provider.fixed["same"] = "always"
            one = spec("a", entry(HOST, "same", verify="org/app"))
            await world.start(one, spec("b", entry(HOST, "same", verify="org/other")))
            await asyncio.sleep(60)
            world.update(spec("a", *one["spec"]["registries"], refresh="now"))
            await asyncio.sleep(1)
            assert len(world.provider.asked) == 2
            assert len(world.proofs) == 3

        play(scene)
