"""Nobody fights for ever over an entry, and nobody gives up for good."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from regcred.distribution import model
from regcred.distribution.contention import FLIPS, SECRET_TRUCE, TRUCE, WINDOW, Contention, Repairs
from tests.distribution import distribution_support as support

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
    contention.removed(*PAIR, end)
    assert not contention.contended(*PAIR, end)
    contention.added(*PAIR, end)
    assert not contention.contended(*PAIR, end)


def test_what_we_took_out_is_remembered_for_a_while():
    """An entry that we removed and that stands there again is known for ten minutes to be wanted by somebody."""
    contention = Contention()
    contention.removed(*PAIR, 0.0)
    assert contention.taken(*PAIR, WINDOW)
    assert not contention.taken(*PAIR, WINDOW + 1)
    assert not contention.taken("uid-other", PAIR[1], 0.0)
    contention.added("uid-other", PAIR[1], WINDOW + 1)
    assert len(contention) == 1


def repair(repairs, what, now):
    """Plan the Secret of one resource that somebody has deleted, carry the plan out, and return it."""
    seen = support.observed(support.account())
    made = repairs.spare(support.plan(seen, support.desired(what)), support.NAMESPACE, "uid-namespace", now)
    for write in made.writes:
        repairs.wrote(write, "uid-namespace", now)
    return made


def test_a_secret_that_a_rival_keeps_deleting():
    """The same Secret is made again three times in ten minutes, then once in five, and the outcome says why."""
    repairs, what = Repairs(), support.contribution()
    done = [support.actions(repair(repairs, what, now)) for now in range(0, 2400, 10)]
    written = [now * 10 for now, actions in enumerate(done) if actions]
    assert written[: FLIPS + 1] == [0, 10, 20, 30]
    pauses = [after - before for before, after in zip(written[FLIPS:], written[FLIPS + 1 :], strict=False)]
    assert pauses
    assert min(pauses) >= SECRET_TRUCE
    kept = repair(repairs, what, 2400.0)
    assert kept.idle
    assert (kept.outcomes[what.uid].state, kept.outcomes[what.uid].reason) == (model.State.FAILED, "Contended")


def test_a_renewed_login_is_no_repair():
    """Other content is always written, even amid a truce; and so is a Secret that we have deleted ourselves."""
    repairs = Repairs()
    for now in range(20):
        assert repair(repairs, support.contribution(logins={support.QUAY: f"pw-{now}"}), now).writes
    what = support.contribution()
    for now in range(20, 40):
        assert repair(repairs, what, now).writes
        repairs.deleted(support.stands(what))
    for now in range(40, 50):
        repair(repairs, what, now)
    assert not repair(repairs, what, 50).writes
    assert repair(repairs, support.contribution(logins={support.QUAY: "renewed"}), 51).writes


def test_a_namespace_born_again_is_no_repair():
    """The Secret of a namespace that was deleted and made again under its name is written at once, every time."""
    repairs, what = Repairs(), support.contribution()
    for number in range(20):
        made = support.plan(support.observed(support.account()), support.desired(what))
        made = repairs.spare(made, support.NAMESPACE, f"uid-{number}", number)
        assert made.writes
        assert not repairs.wrote(made.writes[0], f"uid-{number}", number)
        repairs.spare(model.Plan(), support.NAMESPACE, "", number)
        assert len(repairs) == 0


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
