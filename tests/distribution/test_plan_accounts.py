"""The plan for service accounts: whose lists get the entry, whose lose it, and which entries are not ours to take."""

from __future__ import annotations

import dataclasses

import pytest

from regcred.distribution import model
from tests.distribution.distribution_support import (
    GHCR,
    NAME,
    account,
    actions,
    contribution,
    desired,
    foreign,
    observed,
    plan,
    stands,
)

A = contribution("a")
NARROWED = contribution("a", accounts=("ci",))


@pytest.mark.parametrize(
    ("globs", "attached"),
    [
        (("default",), ["default"]),
        (("*",), ["builder", "ci", "default"]),
        (("ci", "build*"), ["builder", "ci"]),
        ((), []),
        (("absent",), []),
    ],
)
def test_globs_choose_accounts(globs, attached):
    """Every account that a glob covers lists the Secret."""
    seen = observed(account("builder"), account("ci"), account("default"), account("left-alone", ignored=True))
    made = plan(seen, desired(contribution("a", accounts=globs)))
    assert actions(made) == ["create regcred", *(f"attach {name} regcred" for name in attached)]
    assert (made.outcomes["uid-a"].accounts, made.outcomes["uid-a"].attached) == (len(attached), len(attached))


def test_globs_of_all_resources():
    """An account lists the Secret if any of the resources asks for it, and each counts its own."""
    b = contribution("b", [GHCR], accounts=("ci", "x"))
    made = plan(observed(account("default"), account("ci"), account("y")), desired(A, b))
    assert actions(made) == ["create regcred", "attach default regcred", "attach ci regcred"]
    assert [(each.accounts, each.attached) for each in made.outcomes.values()] == [(1, 1), (1, 1)]


def test_entry_is_appended():
    """The list of others stays in its order, doubles included, and ours comes last."""
    made = plan(observed(stands(A), account("default", "z", "a", "z")), desired(A))
    assert made.edits[0].result() == ("z", "a", "z", NAME)


@pytest.mark.parametrize("listed", [(NAME,), ("x", NAME, "y"), (NAME, NAME)])
@pytest.mark.parametrize("managed", [True, False])
def test_entry_that_is_there(listed, managed):
    """An entry that is there already is no reason to write, wherever it stands and whoever wrote it."""
    made = plan(observed(stands(A), account("default", *listed, managed=managed)), desired(A))
    assert made.idle
    assert made.outcomes["uid-a"].attached == 1


def test_secret_before_entry():
    """An account is attached in the pass that creates the Secret, after it, unless that fails."""
    made = plan(observed(account()), desired(A))
    assert actions(made) == ["create regcred", "attach default regcred"]
    (edit,) = made.edits
    assert edit.result(held_back=frozenset({NAME})) == ()


@pytest.mark.parametrize(
    ("there", "wanted", "listed", "managed", "taken"),
    [
        (stands(A), desired(NARROWED), True, True, True),
        (stands(A), desired(NARROWED), True, False, False),
        (stands(A), desired(), True, True, True),
        (stands(A), desired(), True, False, True),
        (foreign(), desired(), True, True, False),
        (foreign(), desired(NARROWED), True, True, False),
        (foreign(), desired(NARROWED), True, False, False),
        (None, desired(), True, True, True),
        (None, desired(), True, False, False),
        (None, desired(NARROWED), True, True, True),
        (None, desired(NARROWED), True, False, False),
        (stands(A), desired(NARROWED), False, True, False),
        (None, desired(), False, True, False),
    ],
    ids=[
        "ours, narrowed",
        "hard-coded, narrowed",
        "ours, obsolete",
        "hard-coded, obsolete",
        "foreign Secret stands, ours",
        "foreign Secret in the way, ours",
        "foreign Secret in the way, hard-coded",
        "no Secret, ours",
        "no Secret, hard-coded",
        "not created yet, ours",
        "not created yet, hard-coded",
        "not listed, narrowed",
        "not listed, nothing there",
    ],
)
def test_whose_entry_it_is(there, wanted, listed, managed, taken):
    """An entry that nobody asks for is taken out where our Secret goes, or where we wrote it, and left elsewhere."""
    entries = ("first", NAME, "last") if listed else ("first", "last")
    seen = observed(*([there] if there else []), account("default", *entries, managed=managed))
    edits = [edit for edit in plan(seen, wanted).edits if edit.account.name == "default"]
    assert [edit.result() for edit in edits] == ([("first", "last")] if taken else [])


@pytest.mark.parametrize("ours", [True, False])
def test_secret_that_has_just_gone(ours):
    """An entry that somebody else's list holds is taken out if our own Secret stood there a moment ago."""
    gone = stands(A) if ours else foreign()
    seen = observed(account("default", NAME, managed=False), departed=[gone])
    assert actions(plan(seen, desired())) == (["detach default regcred"] if ours else [])


def test_entry_that_somebody_has_written_down():
    """An entry that stands again after we took it out is left: who writes it down in Git would put it back for ever."""
    seen = observed(account("default", NAME), departed=[stands(A)], taken=[("uid-default", NAME)])
    assert plan(seen, desired()).idle


def test_secret_that_was_replaced():
    """A foreign Secret that has taken the place of ours keeps the entry: pods pull with it now."""
    seen = observed(foreign(), account("default", NAME, managed=True), departed=[stands(A)])
    assert plan(seen, desired()).idle


def test_entries_that_are_left_are_counted():
    """An entry of our name that is not provably ours is left, and counted for the status."""
    seen = observed(stands(A), account("default", NAME, managed=False), account("ci", managed=False))
    made = plan(seen, desired(NARROWED))
    assert actions(made) == ["attach ci regcred"]
    assert made.outcomes["uid-a"].left == 1


def test_opting_out():
    """An account that opts out loses the entry that we wrote, and keeps one that it had by itself."""
    ours = account("default", NAME, managed=True, ignored=True)
    theirs = account("other", NAME, managed=False, ignored=True)
    wanted = desired(contribution("a", accounts=("*",)))
    made = plan(observed(stands(contribution("a", accounts=("*",))), ours, theirs), wanted)
    assert actions(made) == ["detach default regcred"]
    assert made.outcomes["uid-a"].accounts == 0


def test_two_names_in_one_edit():
    """What is to be added to and taken from one account is done in one write."""
    b = contribution("b", [GHCR], secret_name="other")
    seen = observed(stands(A), account("default", NAME, "x", managed=True))
    made = plan(seen, desired(b))
    (edit,) = made.edits
    assert edit.result() == ("x", "other")
    assert actions(made) == ["create other", "attach default other", "detach default regcred", "delete regcred"]


def test_attached_to_a_standing_secret():
    """An account that is born beside a standing Secret is attached without touching the Secret."""
    assert actions(plan(observed(stands(A), account()), desired(A))) == ["attach default regcred"]


class TestContended:
    """An account whose entry a rival keeps removing."""

    PAIR = ("uid-default", NAME)

    def test_nobody_fights(self):
        """The entry is not put back, and the outcome names the account."""
        seen = observed(stands(A), account("default"), account("ci"), contended=[self.PAIR])
        made = plan(seen, desired(contribution("a", accounts=("*",))))
        assert actions(made) == ["attach ci regcred"]
        assert made.outcomes["uid-a"].contended == ("default",)
        assert (made.outcomes["uid-a"].accounts, made.outcomes["uid-a"].attached) == (2, 1)

    def test_the_secret_is_kept_up_to_date(self):
        """The fight over an entry is no reason to let the Secret grow old."""
        seen = observed(account("default"), contended=[self.PAIR])
        assert actions(plan(seen, desired(A))) == ["create regcred"]

    def test_peace(self):
        """An entry that is there is not contended any more."""
        seen = observed(stands(A), account("default", NAME), contended=[self.PAIR])
        made = plan(seen, desired(A))
        assert made.idle
        assert made.outcomes["uid-a"].contended == ()

    def test_another_account_of_that_name(self):
        """An account that was born again is another one."""
        reborn = dataclasses.replace(account("default"), uid="uid-reborn")
        seen = observed(stands(A), reborn, contended=[self.PAIR])
        assert actions(plan(seen, desired(A))) == ["attach default regcred"]

    def test_our_entry_is_still_taken_back(self):
        """What is contended is adding; an entry that nobody asks for goes."""
        seen = observed(stands(A), account("default", NAME, managed=True), contended=[self.PAIR])
        assert actions(plan(seen, desired())) == ["detach default regcred", "delete regcred"]


@pytest.mark.parametrize(
    ("listed", "add", "remove", "held_back", "expected"),
    [
        ((), ("n",), (), (), ("n",)),
        (("a", "b"), ("n",), (), (), ("a", "b", "n")),
        (("a", "n", "b"), ("n",), (), (), ("a", "n", "b")),
        (("a", "n", "b", "n"), (), ("n",), (), ("a", "b")),
        (("a", "o"), ("n",), ("o",), (), ("a", "n")),
        (("a", "o"), ("n",), ("o",), ("n",), ("a",)),
        (("a",), ("n", "m"), (), ("m",), ("a", "n")),
    ],
)
def test_result_of_an_edit(listed, add, remove, held_back, expected):
    """An edit adds at the end what is not there, takes every double of what goes, and keeps the rest in order."""
    edit = model.EditAccount(account("default", *listed), add, remove)
    assert edit.result(frozenset(held_back)) == expected
