"""The keeper and proofs: a login that the registry refuses never displaces one that works."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from regcred.credentials.verification import Outcome
from tests.credentials.keeper_support import LIFE, World, entry, play, spec

if TYPE_CHECKING:
    from regcred import dockerconfig

HOST = "one.example"
REFUSALS = (Outcome.DENIED, Outcome.BAD_CREDENTIALS)
SILENCES = (Outcome.ANONYMOUS_OK, Outcome.NOT_FOUND, Outcome.UNREACHABLE, Outcome.UNKNOWN)
PROVEN = entry(HOST, "me", verify="org/app")


class TestRefused:
    """Logins that a handshake shows to be bad."""

    @pytest.mark.parametrize("outcome", REFUSALS)
    def test_never_displaces_a_living_one(self, outcome: Outcome) -> None:
        """A renewed login that the registry refuses is not handed out while the last good one lives, nor after."""

        async def scene(world: World) -> None:
            await world.start(spec("r", PROVEN))
            await asyncio.sleep(10)
            assert world.row("uid-r").verified is True
            world.verdicts[HOST] = outcome
            await asyncio.sleep(LIFE * 0.6)
            row = world.row("uid-r")
            assert world.passwords("uid-r") == {HOST: "token-1"}
            assert (row.reason, row.stalled, row.verified, row.usable) == (outcome.reason, True, False, True)
            assert row.message
            await asyncio.sleep(LIFE)
            assert world.passwords("uid-r") == {HOST: "token-1"}
            assert len(world.changes("uid-r")) == 1
            world.verdicts[HOST] = Outcome.OK
            await asyncio.sleep(2 * 1800)
            assert world.row("uid-r").verified is True
            assert world.passwords("uid-r") != {HOST: "token-1"}

        play(scene)

    @pytest.mark.parametrize("outcome", REFUSALS)
    def test_is_not_handed_out_at_first(self, outcome: Outcome) -> None:
        """A first login that is refused is handed out to nobody, and is not kept."""

        async def scene(world: World) -> None:
            world.verdicts[HOST] = outcome
            await world.start(spec("r", PROVEN))
            await asyncio.sleep(3600)
            assert world.passwords("uid-r") == {}
            assert not world.secrets.bodies
            row = world.row("uid-r")
            assert (row.reason, row.stalled, row.usable, row.pending) == (outcome.reason, True, False, False)

        play(scene)

    def test_a_bad_password_and_then_the_right_one(self) -> None:
        """A mistyped password never arrives anywhere; the corrected one does within a second."""

        def knows(login: dockerconfig.Login) -> Outcome:
            return Outcome.BAD_CREDENTIALS if login.password == "typo" else Outcome.OK

        async def scene(world: World) -> None:
            world.provider.life["me"] = None
            world.verdicts[HOST] = knows
            world.put_source("source", "1", "right", tell=False)
            await world.start(spec("r", entry(HOST, "me", secret="source", verify="org/app")))
            await asyncio.sleep(60)
            world.put_source("source", "2", "typo")
            await asyncio.sleep(1)
            assert world.passwords("uid-r") == {HOST: "right"}
            assert world.row("uid-r").reason == "BadCredentials"
            world.put_source("source", "3", "corrected")
            await asyncio.sleep(1)
            assert world.passwords("uid-r") == {HOST: "corrected"}
            world.put_source("source", "4", "typo")
            await asyncio.sleep(1)
            world.put_source("source", "5", "corrected")
            await asyncio.sleep(1)
            assert world.row("uid-r").verified is True
            assert world.passwords("uid-r") == {HOST: "corrected"}

        play(scene)

    def test_is_asked_about_rarely(self) -> None:
        """A refused login costs at most two fetches and handshakes an hour."""

        async def scene(world: World) -> None:
            world.verdicts[HOST] = Outcome.DENIED
            await world.start(spec("r", PROVEN))
            await asyncio.sleep(86400)

        world = play(scene)
        assert len(world.proofs) < 56
        assert len(world.provider.asked) < 56


class TestUnproven:
    """Logins that a handshake shows nothing about."""

    @pytest.mark.parametrize("outcome", SILENCES)
    def test_is_better_than_nothing(self, outcome: Outcome) -> None:
        """Where there is no login yet, an unproven one is handed out at once, and the row says so."""

        async def scene(world: World) -> None:
            world.verdicts[HOST] = outcome
            await world.start(spec("r", PROVEN))
            await asyncio.sleep(1)
            assert world.passwords("uid-r") == {HOST: "token-1"}
            row = world.row("uid-r")
            assert (row.reason, row.stalled, row.verified, row.usable) == ("Unverified", False, None, True)
            assert row.settled

        play(scene)

    def test_is_looked_at_again(self) -> None:
        """A login without an end that was handed out unproven is proven as soon as the registry answers."""

        async def scene(world: World) -> None:
            world.provider.life["me"] = None
            world.provider.fixed["me"] = "always"
            world.verdicts[HOST] = Outcome.UNREACHABLE
            await world.start(spec("r", PROVEN))
            await asyncio.sleep(1200)
            version = world.versions("uid-r")
            world.verdicts[HOST] = Outcome.OK
            await asyncio.sleep(361)
            assert world.row("uid-r").verified is True
            assert world.row("uid-r").reason == "Issued"
            assert world.versions("uid-r") == version
            assert len(world.changes("uid-r")) == 1
            proofs = len(world.proofs)
            await asyncio.sleep(86400)
            assert len(world.proofs) == proofs

        play(scene)

    def test_costs_little(self) -> None:
        """A repository that proves nothing is asked about at most twice an hour for ever."""

        async def scene(world: World) -> None:
            world.verdicts[HOST] = Outcome.ANONYMOUS_OK
            await world.start(spec("r", PROVEN))
            await asyncio.sleep(86400)

        assert len(play(scene).proofs) < 56

    def test_gives_way_to_a_living_one(self) -> None:
        """A renewed login that cannot be proven waits until the last good one has ten minutes left."""

        async def scene(world: World) -> None:
            await world.start(spec("r", PROVEN))
            await asyncio.sleep(10)
            world.verdicts[HOST] = Outcome.UNREACHABLE
            await asyncio.sleep(LIFE - 600 - 20)
            assert world.passwords("uid-r") == {HOST: "token-1"}
            await asyncio.sleep(400)
            assert world.passwords("uid-r") != {HOST: "token-1"}
            assert world.row("uid-r").usable
            assert world.row("uid-r").reason == "Unverified"

        play(scene)

    def test_a_changed_password_that_cannot_be_proven(self) -> None:
        """A new password from the source is handed out after a few vain handshakes: its owner wants it."""

        async def scene(world: World) -> None:
            world.provider.life["me"] = None
            world.put_source("source", "1", "old", tell=False)
            await world.start(spec("r", entry(HOST, "me", secret="source", verify="org/app")))
            await asyncio.sleep(60)
            world.verdicts[HOST] = Outcome.UNREACHABLE
            world.put_source("source", "2", "new")
            await asyncio.sleep(20)
            assert world.passwords("uid-r") == {HOST: "old"}
            await asyncio.sleep(300)
            assert world.passwords("uid-r") == {HOST: "new"}

        play(scene)

    def test_each_password_has_its_own_patience(self) -> None:
        """What became of the handshakes about one password does not help the next to displace a proven one."""

        async def scene(world: World) -> None:
            world.provider.life["me"] = None
            world.put_source("source", "1", "proven", tell=False)
            await world.start(spec("r", entry(HOST, "me", secret="source", verify="org/app")))
            await asyncio.sleep(60)
            world.verdicts[HOST] = Outcome.UNREACHABLE
            for version in range(2, 8):
                world.put_source("source", str(version), f"unproven-{version}")
                await asyncio.sleep(0.5)
            assert len(world.proofs) > 3
            assert world.passwords("uid-r") == {HOST: "proven"}

        play(scene)

    def test_a_handshake_that_breaks(self) -> None:
        """An exception in the handshake is an unknown outcome, without its text, and ends nothing."""

        async def scene(world: World) -> None:
            world.verdicts[HOST] = RuntimeError("c4n4ry")
            await world.start(spec("r", PROVEN, entry("two.example", "other")))
            await asyncio.sleep(10)
            row = world.row("uid-r", HOST)
            assert row.reason == "Unverified"
            assert "RuntimeError" in row.message
            assert "c4n4ry" not in row.message
            assert set(world.passwords("uid-r")) == {HOST, "two.example"}

        play(scene)


class TestSharedKey:
    """Several entries of one key, with different proofs."""

    def test_each_is_judged_by_itself(self) -> None:
        """Of two resources with one key, the one whose proof fails gets nothing; the other is served."""

        async def scene(world: World) -> None:
            world.verdicts["two.example"] = Outcome.DENIED
            await world.start(
                spec("a", entry(HOST, "same", verify="org/app")),
                spec("b", entry("two.example", "same", verify="org/secret")),
                spec("c", entry("three.example", "same")),
            )
            await asyncio.sleep(10)
            assert world.passwords("uid-a") == {HOST: "token-1"}
            assert world.passwords("uid-b") == {}
            assert world.passwords("uid-c") == {"three.example": "token-1"}
            assert world.row("uid-a").verified is True
            assert world.row("uid-b").reason == "AccessDenied"
            assert world.row("uid-c").verified is None

        play(scene)

    def test_none_waits_for_the_handshake_of_another(self) -> None:
        """A resource that asks for no proof has its login at once, however long another's handshake takes."""

        async def scene(world: World) -> None:
            world.proof_latency = 50.0
            await world.start(spec("a", entry(HOST, "same", verify="org/app")), spec("b", entry(HOST, "same")))
            await asyncio.sleep(0.15)
            assert world.passwords("uid-b") == {HOST: "token-1"}
            assert world.passwords("uid-a") == {}
            assert world.row("uid-a").pending
            await asyncio.sleep(51)
            assert world.passwords("uid-a") == {HOST: "token-1"}

        play(scene)

    def test_a_new_grant_under_a_handshake(self) -> None:
        """A grant that arrives while an older one is being proven is proven next, and the older one not taken."""

        async def scene(world: World) -> None:
            world.proof_latency = 40.0
            world.put_source("source", "1", "old", tell=False)
            await world.start(spec("r", entry(HOST, "me", secret="source", verify="org/app")))
            await asyncio.sleep(10)
            world.put_source("source", "2", "new")
            await asyncio.sleep(35)
            assert world.passwords("uid-r") == {}
            await asyncio.sleep(40)
            assert world.passwords("uid-r") == {HOST: "new"}
            assert [password for _, _, password in world.proofs] == ["old", "new"]

        play(scene)


class TestWhatIsAsked:
    """Which handshakes are made."""

    def test_the_same_login_is_proven_once(self) -> None:
        """Renewals that bring the same login again need no handshake."""

        async def scene(world: World) -> None:
            world.provider.fixed["me"] = "always"
            await world.start(spec("r", PROVEN))
            await asyncio.sleep(3 * LIFE)
            assert len(world.provider.asked) > 5
            assert len(world.proofs) == 1
            assert world.row("uid-r").verified is True

        play(scene)

    def test_each_new_login_is_proven(self) -> None:
        """Renewals that bring another login are proven before they are handed out."""

        async def scene(world: World) -> None:
            await world.start(spec("r", PROVEN))
            await asyncio.sleep(3 * LIFE)
            assert [password for _, _, password in world.proofs] == [
                f"token-{number + 1}" for number in range(len(world.provider.asked))
            ]

        play(scene)

    def test_after_a_restart_the_same_content_stays_proven(self) -> None:
        """A source that was written anew with the same content needs no handshake, and stays verified."""

        async def scene(world: World) -> None:
            world.provider.life["me"] = None
            world.put_source("source", "1", "same", tell=False)
            body = spec("r", entry(HOST, "me", secret="source", verify="org/app"))
            await world.start(body)
            await asyncio.sleep(60)
            await world.restart(body)
            world.put_source("source", "2", "same")
            await asyncio.sleep(1)
            assert world.row("uid-r").verified is True
            await world.restart(body)
            await asyncio.sleep(1)
            assert world.row("uid-r").verified is True
            assert len(world.proofs) == 1

        play(scene)

    @pytest.mark.parametrize(
        "changed", [{"verify": "org/other"}, {"verify": {"repository": "org/app", "reference": "v2"}}]
    )
    def test_another_proof_needs_no_fetch(self, changed: dict[str, object]) -> None:
        """Where only `verify` changes, the login that is held is proven anew, and nobody else is asked."""

        async def scene(world: World) -> None:
            await world.start(spec("r", PROVEN))
            await asyncio.sleep(60)
            world.update(spec("r", entry(HOST, "me", **changed)))
            assert world.row("uid-r").pending
            await asyncio.sleep(1)
            assert world.row("uid-r").verified is True
            assert (len(world.provider.asked), len(world.proofs)) == (1, 2)

        play(scene)

    def test_verify_removed(self) -> None:
        """Without `verify` the row says nothing of a proof, and a login refused before is handed out."""

        async def scene(world: World) -> None:
            world.verdicts[HOST] = Outcome.DENIED
            await world.start(spec("r", PROVEN))
            await asyncio.sleep(60)
            world.update(spec("r", entry(HOST, "me")))
            await asyncio.sleep(1)
            row = world.row("uid-r")
            assert (row.reason, row.verified, row.wants_proof) == ("Issued", None, False)
            assert world.passwords("uid-r") == {HOST: "token-1"}
            assert len(world.provider.asked) == 1

        play(scene)

    def test_is_proven_at_the_first_server(self) -> None:
        """Of a grant with one login a server, the one of the entry's first server is proven."""

        async def scene(world: World) -> None:
            from tests.credentials.test_keeper import grant  # noqa: PLC0415

            world.provider.granted["me"] = lambda _: grant(world, alias_example="wrong", one_example="right")
            await world.start(spec("r", entry(HOST, "me", aliases=["alias.example"], verify="org/app")))
            await asyncio.sleep(1)
            assert [(server, password) for _, server, password in world.proofs] == [(HOST, "right")]

        play(scene)
