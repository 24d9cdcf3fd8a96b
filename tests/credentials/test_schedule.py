"""When logins are renewed and failures retried: the rules of `schedule`, alone and over simulated weeks."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from regcred.credentials import schedule

NOW = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
LIVES = (900.0, 1800.0, 3600.0, 3 * 3600.0, 12 * 3600.0, 24 * 3600.0)

keys = st.text(min_size=1, max_size=40)
lives = st.floats(min_value=60.0, max_value=30 * 86400.0)
attempts = st.integers(min_value=1, max_value=10_000)


def later(seconds: float) -> dt.datetime:
    return NOW + dt.timedelta(seconds=seconds)


class TestSpread:
    """`spread`."""

    @given(keys, keys)
    def test_is_a_share(self, key: str, salt: str) -> None:
        """It lies between 0 and 1."""
        assert 0.0 <= schedule.spread(key, salt) < 1.0

    def test_is_the_same_for_ever(self) -> None:
        """Neither a restart nor another version moves the renewals of a fleet."""
        assert schedule.spread("ecr|aws|eu-west-1|own") == pytest.approx(0.30219020677161096)

    def test_is_even(self) -> None:
        """A thousand keys fill every tenth."""
        tenths = [int(schedule.spread(f"key {number}") * 10) for number in range(1000)]
        assert min(tenths.count(tenth) for tenth in range(10)) > 60


class TestRenewAfter:
    """`renew_after`."""

    @given(keys, lives)
    def test_before_half_of_the_life(self, key: str, life: float) -> None:
        """A fresh login is renewed between 40 % and 50 % of its life, but never sooner than half a minute."""
        pause = schedule.renew_after(key, NOW, NOW, later(life))
        assert pause is not None
        assert max(life * 0.4, 30.0) - 1e-6 <= pause <= max(life * 0.5, 30.0)

    @given(keys, lives, st.floats(min_value=0.0, max_value=0.4))
    def test_time_on_the_way_is_no_excuse(self, key: str, life: float, age: float) -> None:
        """A login that arrives some time after its issue is due at half of its life all the same, or after the floor."""
        pause = schedule.renew_after(key, later(life * age), NOW, later(life))
        assert pause is not None
        assert life * age + pause <= max(life * 0.5, life * age + schedule.FLOOR) + 1e-3

    @given(keys, lives, st.floats(min_value=0.0, max_value=0.4))
    def test_the_floor_counts_from_the_beginning_of_a_try(self, key: str, life: float, age: float) -> None:
        """What was issued as a try began, and took long to arrive, is due at half of its life, or after the floor."""
        pause = schedule.renew_after(key, later(life * age), NOW, later(life), taken=life * age)
        assert pause is not None
        assert schedule.FLOOR - 1e-3 <= life * age + pause <= max(life * 0.5, schedule.FLOOR) + 1e-3

    @given(keys)
    def test_what_does_not_end_is_not_renewed(self, key: str) -> None:
        """A password without an end is left alone."""
        assert schedule.renew_after(key, NOW, NOW, None) is None

    @given(keys, st.floats(min_value=-1e8, max_value=1e8), st.floats(min_value=-1e8, max_value=1e8))
    def test_is_never_hasty(self, key: str, issued: float, ends: float) -> None:
        """Whatever times a provider states, half a minute passes."""
        pause = schedule.renew_after(key, NOW, later(issued), later(ends))
        assert pause is not None
        assert pause >= schedule.FLOOR

    @given(keys, st.floats(min_value=-1e8, max_value=1e8), st.floats(min_value=61.0, max_value=1e8))
    def test_comes_before_the_end(self, key: str, issued: float, left: float) -> None:
        """Whatever time of issue a provider states, at least half of what is left remains for retries."""
        assume(issued < left)
        pause = schedule.renew_after(key, NOW, later(issued), later(left))
        assert pause is not None
        assert pause <= max(left / 2, schedule.FLOOR) + 1e-6

    def test_a_clock_behind_does_not_stretch_a_life(self) -> None:
        """A login of 12 h that seems to be issued tomorrow is renewed within 6 h."""
        pause = schedule.renew_after("key", NOW, later(86400), later(86400 + 12 * 3600))
        assert pause is not None
        assert pause <= 6 * 3600

    def test_ended_on_arrival(self) -> None:
        """A login that has ended already is asked for again in five minutes, and not in a loop."""
        assert schedule.renew_after("key", NOW, later(-7200), later(-1)) == schedule.RETRY_CEILING
        assert schedule.renew_after("key", NOW, NOW, NOW) == schedule.RETRY_CEILING

    def test_an_old_one_from_a_cache(self) -> None:
        """A token of an hour that is handed out again until its last minutes is asked for a few times only."""
        at, tries = 0.0, 0
        while at < 3300:
            pause = schedule.renew_after("key", later(at), NOW, later(3600))
            assert pause is not None
            at, tries = at + pause, tries + 1
        assert tries <= 6


class TestResumeAfter:
    """`resume_after`."""

    @given(keys, lives, st.floats(min_value=0.0, max_value=0.39))
    def test_nothing_is_due_after_a_restart(self, key: str, life: float, age: float) -> None:
        """A login that was not due before a restart is not due because of it."""
        now = later(life * age)
        pause = schedule.resume_after(key, now, NOW, later(life))
        assert pause is not None
        assert life * 0.4 - 1e-3 <= life * age + pause
        assert life * age + pause <= max(life * 0.5, life * age + schedule.FLOOR) + 1e-3

    @given(keys, lives, st.floats(min_value=0.5, max_value=0.99))
    def test_the_overdue_are_spread(self, key: str, life: float, age: float) -> None:
        """Those that are overdue are renewed within half a minute, and not all in the first second."""
        pause = schedule.resume_after(key, later(life * age), NOW, later(life))
        assert pause is not None
        assert 0.0 <= pause <= schedule.FLOOR

    @given(keys, lives, st.floats(min_value=0.5, max_value=0.99))
    def test_the_less_is_left_the_sooner(self, key: str, life: float, age: float) -> None:
        """An overdue one waits an eighth of what is left at the most: restarts in a row do not let it end."""
        pause = schedule.resume_after(key, later(life * age), NOW, later(life))
        assert pause is not None
        assert pause <= life * (1 - age) / 8 + 1e-3

    def test_the_ended_do_not_wait(self) -> None:
        """One that has ended is renewed at once; one that does not end is not."""
        assert schedule.resume_after("key", NOW, later(-7200), later(-1)) == 0.0
        assert schedule.resume_after("key", NOW, NOW, None) is None


@pytest.mark.parametrize(("age", "joins"), [(0.0, False), (0.39, False), (0.41, True), (0.5, True), (1.5, True)])
def test_may_join(age: float, joins: bool) -> None:
    """A login past 40 % of its life may be renewed early, to be published with another; one without end never."""
    assert schedule.may_join(later(3600 * age), NOW, later(3600)) is joins
    assert not schedule.may_join(later(3600 * age), NOW, None)


class TestRetryAfter:
    """`retry_after`."""

    @given(keys, attempts, st.booleans(), st.floats(min_value=0, max_value=1e9), st.floats(-1e9, 1e9) | st.none())
    def test_is_bounded(self, key: str, attempt: int, denied: bool, wait: float, left: float | None) -> None:
        """No failure leads to a try within half a minute, nor to one that is more than an hour and a bit away."""
        pause = schedule.retry_after(key, attempt, denied=denied, wait=wait, left=left)
        assert schedule.FLOOR <= pause <= schedule.WAIT_CEILING * 1.2

    @given(keys, attempts, st.booleans(), st.floats(-1e9, 1e9) | st.none())
    def test_is_stable(self, key: str, attempt: int, denied: bool, left: float | None) -> None:
        """The jitter of a key is the same each time."""
        assert schedule.retry_after(key, attempt, denied=denied, left=left) == schedule.retry_after(
            key, attempt, denied=denied, left=left
        )

    @pytest.mark.parametrize("denied", [False, True])
    def test_grows_to_a_ceiling(self, denied: bool) -> None:
        """Each failure in a row doubles the pause, up to five minutes, or half an hour where we are refused."""
        pauses = [schedule.retry_after("key", attempt, denied=denied) for attempt in range(1, 12)]
        ceiling = schedule.DENIED_CEILING if denied else schedule.RETRY_CEILING
        assert pauses[0] < ceiling / 2
        assert all(later_ <= 2.5 * before for before, later_ in zip(pauses, pauses[1:], strict=False))
        assert ceiling <= pauses[-1] <= 1.2 * ceiling

    @given(keys, attempts, st.floats(min_value=241.0, max_value=86400.0))
    def test_several_tries_fit_before_the_end(self, key: str, attempt: int, left: float) -> None:
        """However long an outage has been, the next try leaves most of the life."""
        assert schedule.retry_after(key, attempt, left=left) <= max(left / 8, 30.0) * 1.2

    @given(keys, attempts, st.floats(min_value=2401.0, max_value=86400.0))
    def test_a_refusal_too(self, key: str, attempt: int, left: float) -> None:
        """Where we are refused, the next try leaves more than half of what is left."""
        assert schedule.retry_after(key, attempt, denied=True, left=left) <= left / 2

    def test_a_long_death_is_no_emergency(self) -> None:
        """Right after the end tries stay frequent; hours later they are as rare as any."""
        assert schedule.retry_after("key", 20, left=-60.0) <= 36.0
        assert schedule.retry_after("key", 20, left=-4 * 3600.0) >= schedule.RETRY_CEILING

    @pytest.mark.parametrize(
        ("wait", "left", "least", "most"),
        [
            (60.0, None, 60.0, 72.0),
            (600.0, 7200.0, 600.0, 720.0),
            (7 * 86400.0, None, 3600.0, 4320.0),
            (float("inf"), None, 3600.0, 4320.0),
            (float("nan"), None, 30.0, 36.0),
            (-5.0, None, 30.0, 36.0),
            (3600.0, 600.0, 300.0, 360.0),
            (3600.0, -600.0, 3600.0, 4320.0),
        ],
    )
    def test_patience_that_a_provider_asks_for(
        self, wait: float, left: float | None, least: float, most: float
    ) -> None:
        """It is obeyed, up to an hour and up to half of what is left of the last good login."""
        assert least <= schedule.retry_after("key", 1, wait=wait, left=left) <= most


@dataclasses.dataclass
class Trial:
    """What one key went through: when it was tried, with what end of the good login, and how long it was dead."""

    tries: list[float] = dataclasses.field(default_factory=list)
    fetched: list[float] = dataclasses.field(default_factory=list)
    failures_before_end: list[int] = dataclasses.field(default_factory=list)
    recoveries: list[tuple[float, float]] = dataclasses.field(default_factory=list)


def simulate(key: str, life: float, days: float, chance: random.Random) -> Trial:
    """Follow the rules of `schedule` through outages and throttles of all lengths; nothing of the keeper is here."""
    trial = Trial()
    outages: list[tuple[float, float, str]] = []
    at = 0.0
    while at < days * 86400:
        at += chance.expovariate(1 / (2 * life))
        length = chance.choice([5.0, 60.0, 600.0, life / 3, life, 3 * life])
        outages.append((at, at + length, chance.choice(["down", "down", "throttled"])))
        at += length
    now, attempt, ends, current = 0.0, 0, None, 0
    failed_since: float | None = None
    while now < days * 86400:
        trial.tries.append(now)
        while current + 1 < len(outages) and outages[current + 1][0] <= now:
            current += 1
        outage = outages[current] if outages[current][0] <= now < outages[current][1] else None
        if outage is None:
            if failed_since is not None:
                trial.recoveries.append((outages[current][1], now))
                failed_since = None
            attempt, ends = 0, now + life
            trial.fetched.append(now)
            pause = schedule.renew_after(key, later(now), later(now), later(ends))
            assert pause is not None
            trial.failures_before_end.append(0)
        else:
            attempt += 1
            failed_since = now if failed_since is None else failed_since
            if ends is not None and now < ends:
                trial.failures_before_end[-1] += 1
            wait = chance.choice([1.0, 60.0, 300.0]) if outage[2] == "throttled" else 0.0
            pause = schedule.retry_after(key, attempt, wait=wait, left=ends - now if ends is not None else None)
        now += pause
    return trial


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("seed", range(12))
def test_weeks_of_outages(life: float, seed: int) -> None:
    """Over four weeks: never hasty, bounded per hour, several tries before every end, quick recovery."""
    chance = random.Random(f"{life} {seed}")
    trial = simulate(f"key {seed}", life, 28, chance)
    gaps = [after - before for before, after in zip(trial.tries, trial.tries[1:], strict=False)]
    assert min(gaps) >= schedule.FLOOR
    assert max(gaps) <= max(life / 2, 1.2 * schedule.RETRY_CEILING) + 1e-6
    # Even while everything fails around the end of a login.
    hours = collections.Counter(int(at // 3600) for at in trial.tries)
    assert max(hours.values()) <= 3600 / schedule.FLOOR
    # An outage that outlives a login was met with several tries while the login was still good.
    for index, failures in enumerate(trial.failures_before_end[:-1]):
        ended = trial.fetched[index] + life
        if trial.fetched[index + 1] > ended:
            assert failures >= 4
    # Once the provider is back, the next try comes within one step of the backoff.
    assert all(at - over <= 1.2 * schedule.RETRY_CEILING for over, at in trial.recoveries)
    assert trial.fetched


def test_a_week_without_trouble() -> None:
    """A token of 12 h costs no more than three fetches a day, one of 15 min no more than ten an hour."""
    for life, most in ((12 * 3600.0, 7 * 5 + 1), (900.0, 7 * 24 * 10)):
        now, count = 0.0, 0
        while now < 7 * 86400:
            count += 1
            now += schedule.renew_after("key", later(now), later(now), later(now + life)) or 0.0
        assert count <= most
