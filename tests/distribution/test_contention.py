"""Nobody fights for ever over an entry, and nobody gives up for good."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from regcred.distribution.contention import FLIPS, TRUCE, WINDOW, Contention

PAIR = ("uid-default", "regcred")


def fight(contention, begin=0.0, every=10.0, times=FLIPS):
    for number in range(times):
        contention.added(*PAIR, begin + number * every)
    return begin + (times - 1) * every


def test_first_additions_are_no_fight():
    """An entry that was put in fewer times than that is not contended."""
    contention = Contention()
    assert not contention.contended(*PAIR, 0.0)
    end = fight(contention, times=FLIPS - 1)
    assert not contention.contended(*PAIR, end)


def test_truce():
    """An entry that had to be put in three times within ten minutes is left alone for an hour."""
    contention = Contention()
    end = fight(contention)
    assert contention.contended(*PAIR, end)
    assert contention.contended(*PAIR, end + TRUCE - 1)
    assert not contention.contended(*PAIR, end + TRUCE)


def test_slow_rival_is_no_fight():
    """Additions that lie further apart than ten minutes do not add up."""
    contention = Contention()
    end = fight(contention, every=WINDOW / 2 + 1, times=20)
    assert not contention.contended(*PAIR, end)


def test_one_try_an_hour():
    """After the truce one more addition is tried, and the next truce follows at once if it does not last."""
    contention = Contention()
    end = fight(contention) + TRUCE
    assert not contention.contended(*PAIR, end)
    contention.added(*PAIR, end)
    assert contention.contended(*PAIR, end + 1)
    assert not contention.contended(*PAIR, end + TRUCE)


def test_peace_after_the_truce():
    """Where the entry lasts after the truce, everything begins anew."""
    contention = Contention()
    end = fight(contention) + TRUCE
    assert not contention.contended(*PAIR, end)
    contention.added(*PAIR, end + 2 * WINDOW)
    assert not contention.contended(*PAIR, end + 2 * WINDOW)


def test_our_own_removal_is_no_fight():
    """What we take out ourselves is forgotten."""
    contention = Contention()
    end = fight(contention)
    contention.removed(*PAIR)
    assert not contention.contended(*PAIR, end)
    contention.added(*PAIR, end)
    assert not contention.contended(*PAIR, end)


def test_pairs_apart():
    """Another account or another Secret is another matter."""
    contention = Contention()
    end = fight(contention)
    assert not contention.contended("uid-other", PAIR[1], end)
    assert not contention.contended(PAIR[0], "other", end)


def test_forget():
    """Accounts that are gone are forgotten."""
    contention = Contention()
    end = fight(contention)
    contention.added("uid-other", "regcred", end)
    contention.forget({PAIR[0]})
    assert not contention.contended(*PAIR, end)
    assert len(contention) == 1


@given(accounts=st.integers(1, 200), pause=st.floats(1.0, 2 * WINDOW))
def test_nothing_is_kept_for_ever(accounts, pause):
    """However many accounts come and go, only those of the last ten minutes are remembered."""
    contention = Contention()
    for number in range(accounts):
        contention.added(f"uid-{number}", "regcred", number * pause)
    assert len(contention) <= WINDOW / pause + 1


def test_truces_are_not_kept_for_ever():
    """A truce that nobody asks about any more is forgotten."""
    contention = Contention()
    end = fight(contention)
    contention.added("uid-other", "regcred", end + TRUCE + 2 * WINDOW)
    assert len(contention) == 1
