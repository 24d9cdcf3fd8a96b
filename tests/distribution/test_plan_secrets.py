"""The plan for the Secret: what is created, brought up to date, left alone and deleted, and how that is told."""

from __future__ import annotations

import dataclasses

import pytest

from regcred.api import names
from regcred.cluster import views
from regcred.distribution import composition, model
from regcred.distribution.model import State
from tests.distribution.distribution_support import (
    GHCR,
    HOUR,
    NAME,
    NAMESPACE,
    NOW,
    QUAY,
    account,
    actions,
    contribution,
    desired,
    foreign,
    logins_of,
    observed,
    plan,
    published,
    secret_of,
    stands,
)

A = contribution("a")


def outcome(made, by=A):
    return made.outcomes[by.uid]


def test_create():
    """A Secret that is missing is created, with everything that explains and owns it."""
    made = plan(observed(), desired(A))
    assert actions(made) == ["create regcred"]
    (write,) = made.writes
    composed = composition.compose([A], NOW)
    assert (write.namespace, write.name, write.before) == (NAMESPACE, NAME, None)
    assert (write.data, write.annotations, write.owners) == (composed.data, composed.annotations, composed.owners)
    assert write.carried == frozenset()
    assert outcome(made) == model.Outcome(State.SYNCED)
    assert made.secrets_of == {A.uid: NAME}


def test_nothing_to_do():
    """A Secret that is as it should be is not written."""
    made = plan(observed(stands(A)), desired(A))
    assert made.idle
    assert outcome(made).state is State.SYNCED


@pytest.mark.parametrize(
    "changes",
    [
        {"revision": "another"},
        {"revision": ""},
        {"data_owned": False},
        {"owners": ()},
        {"owners": ("uid-a", "uid-gone")},
        {"contributors": ()},
        {"contributors": (views.Contributor("uid-a", A.key, True),)},
        {"servers": ()},
        {"servers": (views.Standing(QUAY, "uid-other"),)},
        {"servers": (views.Standing(QUAY, "uid-a", "2026-03-01T13:00:00Z", "v-a-quay"),)},
        {"servers": (views.Standing(QUAY, "uid-a", "", "v-older"),)},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_drift(changes):
    """Whatever of ours differs from what should stand there leads to one write in place."""
    secret = stands(A, **changes)
    made = plan(observed(secret), desired(A))
    assert actions(made) == ["update regcred"]
    assert made.writes[0].before is secret
    assert logins_of(made.writes[0].data) == {QUAY: "a-quay"}


def test_renewed_login():
    """A new login is written in place."""
    made = plan(observed(stands(A)), desired(contribution("a", {QUAY: "renewed"})))
    assert actions(made) == ["update regcred"]
    assert logins_of(made.writes[0].data) == {QUAY: "renewed"}


def test_owner_references_of_others():
    """The order of the owner references and what others added to them do not matter."""
    both = [A, contribution("b", [GHCR])]
    secret = stands(*both)
    assert plan(observed(dataclasses.replace(secret, owners=secret.owners[::-1])), desired(*both)).idle


@pytest.mark.parametrize("more", [(), (account("default", NAME, managed=True),)], ids=["alone", "listed"])
def test_conflict(more):
    """A Secret that is not ours is left alone, with whoever lists it, and the status says what to do about it."""
    made = plan(observed(foreign(), account("other"), *more), desired(A))
    assert made.idle
    assert outcome(made).state is State.CONFLICT
    assert outcome(made).reason == "Conflict"
    assert "regcred.io/adopt=true" in outcome(made).message


def test_adoption():
    """A Secret whose owner hands it over is written in place."""
    secret = foreign(adopt=True)
    made = plan(observed(secret, account()), desired(A))
    assert actions(made) == ["update regcred", "attach default regcred"]
    assert made.writes[0].before is secret


def test_adoption_of_what_was_ours():
    """A Secret that lost nothing but our label, and is handed back, gets its label back."""
    lost = stands(A, ours=False, adopt=True)
    assert actions(plan(observed(lost), desired(A))) == ["update regcred"]


def test_adoption_waits_for_a_login():
    """A Secret that is handed over stays as it is until there is a login to put there."""
    made = plan(observed(foreign(adopt=True), account()), desired(contribution("a", {})))
    assert made.idle
    assert outcome(made).state is State.WAITING


@pytest.mark.parametrize(
    "seen",
    [
        observed(stands(A), account(), terminating=True),
        dataclasses.replace(observed(stands(A), account()), namespace=None),
    ],
    ids=["on its way out", "gone"],
)
@pytest.mark.parametrize("wanted", [desired(A), desired()], ids=["wanted", "not wanted"])
def test_namespace_that_ends(seen, wanted):
    """Nothing is done or told about a namespace that is going or gone."""
    assert plan(seen, wanted) == model.Plan()


def test_secret_that_ends():
    """A Secret that waits for somebody's finalizer is neither written, listed nor deleted again."""
    secret = stands(A, terminating=True)
    made = plan(observed(secret, account()), desired(A))
    assert made.idle
    assert (outcome(made).state, outcome(made).reason) == (State.WAITING, "Terminating")
    assert plan(observed(secret), desired()).idle


def test_waiting_for_the_first_login():
    """Without a login there is no Secret, no entry, and no failure."""
    made = plan(observed(account()), desired(contribution("a", {})))
    assert made.idle
    assert (outcome(made).state, outcome(made).reason) == (State.WAITING, "Waiting")


def test_each_waits_for_its_own_login():
    """A resource that has no login yet waits, whatever others have brought to the Secret."""
    b = contribution("b", {}, accounts=("ci",))
    made = plan(observed(stands(A), account("ci")), desired(A, b))
    assert actions(made) == ["attach ci regcred"]
    assert outcome(made, A).state is State.SYNCED
    assert (outcome(made, b).state, outcome(made, b).reason) == (State.WAITING, "Waiting")


def test_resource_that_has_lost_its_login_deletes_nothing():
    """While a changed entry is being fetched, what it had brought before stays."""
    made = plan(observed(stands(A), account("default", NAME, managed=True)), desired(contribution("a", {})))
    assert made.idle
    assert outcome(made).state is State.WAITING


@pytest.mark.parametrize(
    ("logins", "reason"),
    [
        ({f"r{number}.example.com": f"{number}" + "x" * 60_000 for number in range(9)}, "TooLarge"),
        ({"Not.Canonical": "pw"}, "Invalid"),
    ],
)
def test_logins_that_cannot_be_written(logins, reason):
    """Logins that do not make a Secret are told, what stands stays, and new accounts are still given it."""
    secret = stands(A)
    made = plan(observed(secret, account()), desired(contribution("a", logins)))
    assert actions(made) == ["attach default regcred"]
    assert (outcome(made).state, outcome(made).reason) == (State.FAILED, reason)
    assert actions(plan(observed(account()), desired(contribution("a", logins)))) == []


def test_obsolete():
    """What nobody asks for any more is taken out of the accounts and then deleted."""
    seen = observed(stands(A), account("default", "first", NAME, "last", managed=True), account("other", "x"))
    made = plan(seen, desired())
    assert actions(made) == ["detach default regcred", "delete regcred"]
    assert made.edits[0].result() == ("first", "last")
    assert made.deletions[0].before is seen.secrets[NAME]
    assert made.outcomes == {}


@pytest.mark.parametrize("secret", [foreign(), foreign(adopt=True)], ids=["foreign", "handed over"])
def test_foreign_secret_is_never_obsolete(secret):
    """A Secret that is not ours is not deleted, whoever asks for nothing."""
    assert plan(observed(secret, account("default", NAME)), desired()).idle


def test_one_of_two_goes():
    """When one of two resources goes, its logins go and the other's stay, in the same Secret."""
    b = contribution("b", [GHCR])
    seen = observed(stands(A, b), account("default", NAME, managed=True))
    made = plan(seen, desired(A))
    assert actions(made) == ["update regcred"]
    assert logins_of(made.writes[0].data) == {QUAY: "a-quay"}


def test_names_apart():
    """Two names make two Secrets, and one says nothing about the other."""
    b = contribution("b", [GHCR], secret_name="other")
    made = plan(observed(foreign(), account()), desired(A, b))
    assert actions(made) == ["create other", "attach default other"]
    assert outcome(made, A).state is State.CONFLICT
    assert outcome(made, b).state is State.SYNCED
    assert made.secrets_of == {A.uid: NAME, b.uid: "other"}


def test_name_that_is_not_watched():
    """Nothing is done under a name of which nothing is known."""
    wanted = dataclasses.replace(desired(A), secret_names=())
    assert plan(observed(account()), wanted).idle


class TestRetain:
    """A deleted resource of deletionPolicy Retain."""

    KEPT = contribution("a", retain=True)

    def test_leaves_everything(self):
        """Its Secret stands as it is, and so do the entries."""
        made = plan(observed(stands(self.KEPT), account("default", NAME, managed=True)), desired())
        assert made.idle

    def test_nobody_new_is_attached(self):
        """Nothing new is done for it."""
        assert plan(observed(stands(self.KEPT), account("new")), desired()).idle

    def test_drift_of_what_was_left(self):
        """What others do to the Secret that was left is their affair."""
        assert plan(observed(stands(self.KEPT, data_owned=False, revision="x")), desired()).idle

    def test_login_is_carried(self):
        """Another resource that joins the Secret keeps what was left, but for the servers it serves itself."""
        b = contribution("b", [GHCR])
        made = plan(observed(stands(contribution("a", [QUAY, GHCR], retain=True))), desired(b))
        assert actions(made) == ["update regcred"]
        assert logins_of(made.writes[0].data) == {GHCR: "b-ghcr"}
        assert made.writes[0].carried == {QUAY}

    def test_what_others_brought_goes(self):
        """When the resources beside it go, their logins go, and what was left is carried alone."""
        b = contribution("b", [GHCR])
        made = plan(observed(stands(self.KEPT, b)), desired())
        assert actions(made) == ["update regcred"]
        (write,) = made.writes
        assert write.carried == {QUAY}
        assert GHCR not in write.annotations[names.SERVERS]
        assert write.owners == ()

    def test_nothing_left_of_it(self):
        """Where another resource has taken over all of its servers, the Secret goes with that one."""
        successor = contribution("b", [QUAY])
        joined = plan(observed(stands(self.KEPT)), desired(successor))
        composed = composition.compose(
            [successor], NOW, orphans=[composition.Orphan(stands(self.KEPT).contributors[0], ())]
        )
        assert joined.writes[0].annotations == composed.annotations
        assert actions(plan(observed(secret_of(composed)), desired())) == ["delete regcred"]

    def test_only_deletion_retains(self):
        """A namespace that is not selected any more loses the logins, whatever becomes of them on deletion."""
        made = plan(observed(stands(self.KEPT)), desired(elsewhere=[self.KEPT]))
        assert actions(made) == ["delete regcred"]


class TestFrozen:
    """A resource that is suspended, or invalid."""

    FROZEN = contribution("a", frozen=True)

    def test_keeps_what_it_has_brought(self):
        """What it has brought stands, with its entries."""
        made = plan(observed(stands(A), account("default", NAME, managed=True)), desired(self.FROZEN))
        assert made.idle
        assert outcome(made) == model.Outcome(State.SYNCED, accounts=1, attached=1)

    def test_suspending_changes_nothing(self):
        """That a resource is suspended is no reason to write a Secret that it shares."""
        b = contribution("b", [GHCR])
        assert plan(observed(stands(A, b)), desired(self.FROZEN, b)).idle

    def test_brings_nothing_new(self):
        """No Secret is created for it and no account attached."""
        assert plan(observed(account()), desired(self.FROZEN)).idle
        made = plan(observed(stands(A), account()), desired(self.FROZEN))
        assert made.idle
        assert (outcome(made).accounts, outcome(made).attached) == (1, 0)

    def test_where_it_has_brought_nothing_it_is_not_counted(self):
        """A namespace that it has never served has no outcome for it."""
        assert plan(observed(account()), desired(self.FROZEN)).outcomes == {}

    @pytest.mark.parametrize("changes", [{"data_owned": False}, {"revision": "x"}], ids=["data", "revision"])
    def test_nothing_is_changed_for_it(self, changes):
        """A foreign change of a Secret that is only held is left alone."""
        assert plan(observed(stands(A, **changes)), desired(self.FROZEN)).idle

    def test_login_is_carried(self):
        """When others write the Secret, what it has brought is carried over as it stands."""
        b = contribution("b", [GHCR])
        made = plan(observed(stands(A)), desired(self.FROZEN, b))
        assert actions(made) == ["update regcred"]
        assert logins_of(made.writes[0].data) == {GHCR: "b-ghcr"}
        assert made.writes[0].carried == {QUAY}
        assert made.writes[0].owners[0]["uid"] == A.uid

    def test_nothing_leaks_into_other_namespaces(self):
        """Whoever writes its UID onto a Secret of his own is not given its logins."""
        forged = views.SecretView(
            NAMESPACE,
            NAME,
            "uid-forged",
            "1",
            ours=True,
            contributors=(views.Contributor(A.uid, A.key, False),),
            servers=(views.Standing(QUAY, A.uid),),
        )
        for wanted in (
            desired(elsewhere=[self.FROZEN]),
            desired(contribution("b", [GHCR]), elsewhere=[self.FROZEN]),
        ):
            for write in plan(observed(forged), wanted).writes:
                assert QUAY not in logins_of(write.data)

    def test_new_deletion_policy_counts(self):
        """One that is set to Retain while it is suspended owns the Secret no more, so that it survives."""
        kept = contribution("a", retain=True, frozen=True)
        made = plan(observed(stands(A)), desired(kept))
        assert actions(made) == ["update regcred"]
        assert made.writes[0].owners == ()
        assert made.writes[0].carried == {QUAY}

    def test_does_not_wait_with_others(self):
        """Another resource that waits for its login leaves it synced."""
        b = contribution("b", {})
        made = plan(observed(stands(A)), desired(self.FROZEN, b))
        assert made.idle
        assert outcome(made, A).state is State.SYNCED
        assert outcome(made, b).state is State.WAITING

    def test_shadowed_long_ago(self):
        """One whose logins were all served by others keeps nothing alive."""
        winner = contribution("w", cluster=False)
        seen = observed(stands(A, winner))
        assert actions(plan(seen, desired(self.FROZEN))) == ["delete regcred"]

    def test_ended_login_gives_way(self):
        """What it has brought gives way to a living login once it has ended."""
        before = contribution("a", {QUAY: published(expires=NOW + HOUR)}, cluster=False)
        frozen = contribution("a", {}, cluster=False, frozen=True)
        b = contribution("b", {QUAY: "living"})
        seen = observed(stands(before))
        assert plan(seen, desired(frozen, b)).writes[0].carried == {QUAY}
        later = plan(seen, desired(frozen, b), NOW + 2 * HOUR)
        assert logins_of(later.writes[0].data) == {QUAY: "living"}
        assert later.writes[0].carried == frozenset()


class TestNewName:
    """A resource whose secretName has changed."""

    OLD, NEW = A, contribution("a", secret_name="new")
    SEEN = (stands(A), account("default", NAME, managed=True))

    def wanted(self, *more):
        return desired(self.NEW, *more, secret_names=[NAME])

    def test_first_the_new_one(self):
        """The Secret of the new name is written and listed before the old one is touched."""
        assert actions(plan(observed(*self.SEEN), self.wanted())) == ["create new", "attach default new"]

    def test_then_the_old_one_goes(self):
        """Once the new one stands the old one is detached and deleted."""
        seen = observed(stands(A), stands(self.NEW), account("default", NAME, "new", managed=True))
        assert actions(plan(seen, self.wanted())) == ["detach default regcred", "delete regcred"]

    @pytest.mark.parametrize(
        ("there", "wanted"),
        [
            (foreign("new"), [NAME, "new"]),
            (None, [NAME]),
            (stands(contribution("a", secret_name="new"), terminating=True), [NAME, "new"]),
            (stands(contribution("b", secret_name="new")), [NAME]),
        ],
        ids=["taken", "not permitted", "on its way out", "another's"],
    )
    def test_the_old_one_stays_while_the_new_one_fails(self, there, wanted):
        """Where the new name cannot be had the old login stays: pods go on pulling."""
        seen = observed(*self.SEEN, *([there] if there else []))
        asked = dataclasses.replace(self.wanted(), secret_names=wanted)
        assert plan(seen, asked).idle

    def test_the_old_one_stays_while_there_is_no_login(self):
        """A login under the old name is not given up for none under the new."""
        waiting = desired(contribution("a", {}, secret_name="new"), secret_names=[NAME])
        made = plan(observed(*self.SEEN), waiting)
        assert made.idle
        assert outcome(made).state is State.WAITING

    def test_it_leaves_a_shared_secret_last(self):
        """A Secret that others use too holds its login until the new one stands."""
        b = contribution("b", [GHCR])
        shared = stands(A, b)
        first = plan(observed(shared), self.wanted(b))
        assert actions(first) == ["create new"]
        second = plan(observed(shared, stands(self.NEW)), self.wanted(b))
        assert actions(second) == ["update regcred"]
        assert logins_of(second.writes[0].data) == {GHCR: "b-ghcr"}
        assert second.writes[0].carried == frozenset()

    def test_told_under_the_new_name(self):
        """How the namespace stands is told by the new name alone."""
        made = plan(observed(*self.SEEN, foreign("new")), self.wanted())
        assert made.secrets_of == {A.uid: "new"}
        assert outcome(made).state is State.CONFLICT
