"""The mirror holds the newest state of everything, and wakes whom a change concerns, and nobody else."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from regcred.cluster import mirror, views


def account(version, *listed, name="default", uid="u", namespace="n"):
    return {
        "metadata": {"namespace": namespace, "name": name, "uid": uid, "resourceVersion": str(version)},
        "imagePullSecrets": [{"name": each} for each in listed],
    }


def secret(version, name="regcred", namespace="n", **meta):
    return {"metadata": {"namespace": namespace, "name": name, "uid": "u", "resourceVersion": str(version)} | meta}


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def told():
    return []


@pytest.fixture
def table(clock, told):
    return mirror.Table(
        views.account, lambda namespace, before, after: told.append((namespace, before, after)), clock=clock
    )


def listed(table):
    return {view.name: view.pull_secrets for view in table}


def test_life_of_an_object(table, told):
    """Birth, change and end are told, each once, with the states before and after."""
    table.upsert(account(1))
    table.upsert(account(2, "a"))
    table.remove(account(3, "a"))
    first, second = views.account(account(1)), views.account(account(2, "a"))
    assert told == [("n", None, first), ("n", first, second), ("n", second, None)]
    assert (len(table), listed(table)) == (0, {})
    assert table.get("n", "default") is None


def test_echo_wakes_nobody(table, told):
    """The answer to our own write is taken in at once, and its echo by the watch tells nothing."""
    table.upsert(account(1))
    table.put("n", views.account(account(2, "ours")))
    told.clear()
    table.upsert(account(2, "ours"))
    table.upsert(account(3, "ours"))
    assert told == []
    assert table.get("n", "default").version == "3"


def test_quiet(table, told):
    """What its writer expected tells nobody, and its echo does not either; what follows does."""
    table.upsert(account(1))
    told.clear()
    table.put("n", views.account(account(2, "regcred")), quiet=True)
    table.upsert(account(2, "regcred"))
    assert told == []
    assert listed(table) == {"default": ("regcred",)}
    table.upsert(account(3))
    assert len(told) == 1


def test_overtaken_event(table, told):
    """An event that is older than what is known changes nothing."""
    table.upsert(account(5, "new"))
    told.clear()
    table.upsert(account(4, "old"))
    table.remove(account(4, "old"))
    assert told == []
    assert listed(table) == {"default": ("new",)}


@pytest.mark.parametrize("version", [1, 2, 3])
def test_no_ghosts(table, version):
    """What was deleted does not come back by an echo from before its end."""
    table.upsert(account(2))
    table.remove(account(3))
    table.put("n", views.account(account(version)))
    assert listed(table) == {}


def test_no_ghosts_after_a_list(table):
    """What a whole list lacked does not come back by the late answer to a write from before that list."""
    table.upsert(account(2))
    table.replace([], "20")
    for version in (2, 15, 20):
        table.put("n", views.account(account(version)))
    assert listed(table) == {}
    table.upsert(account(21, "again"))
    assert listed(table) == {"default": ("again",)}


def test_no_ghosts_after_a_404(table):
    """What is gone by the answer to a request does not come back by the echo of its last state."""
    table.upsert(account(2))
    table.drop("n", "default")
    table.upsert(account(2))
    assert listed(table) == {}


def test_return_of_a_name(table, told):
    """A new object of the name of a deleted one is seen, and its predecessor forgotten."""
    table.upsert(account(2))
    table.remove(account(3))
    table.upsert(account(4, uid="second"))
    assert table.get("n", "default").uid == "second"
    assert table.departed("n", "default") is None
    assert told[-1][1] is None


def test_404_that_was_overtaken(table):
    """A 404 about a state that we knew does not remove a newer one."""
    known = views.account(account(2))
    table.upsert(account(2))
    table.upsert(account(5, uid="second"))
    table.drop("n", "default", known)
    assert table.get("n", "default").uid == "second"


def test_whole_list(table, told):
    """A whole list removes what it did not hold, but for what is newer than the list."""
    for number, name in enumerate("abc", 1):
        table.upsert(account(number, name=name))
    table.upsert(account(30, name="born-meanwhile"))
    told.clear()
    table.replace([("n", "a")], "20")
    assert set(listed(table)) == {"a", "born-meanwhile"}
    assert sorted(before.name for _, before, after in told if after is None) == ["b", "c"]


def test_list_of_many_namespaces(table):
    """Names are told apart by their namespace."""
    table.upsert(account(1, namespace="n"))
    table.upsert(account(2, namespace="m"))
    table.replace([("m", "default")], "9")
    assert [view.namespace for view in table] == ["m"]
    assert dict(table.within("n")) == {}
    assert set(table.within("m")) == {"default"}


def test_departed(table, clock):
    """What others deleted is remembered as it last was, for ten minutes."""
    table.upsert(account(1, "a"))
    table.remove(account(2, "b"))
    assert table.departed("n", "default").pull_secrets == ("b",)
    clock.now += 599
    assert table.departed("n", "default") is not None
    clock.now += 2
    assert table.departed("n", "default") is None
    assert table.departed("n", "never-was") is None


@pytest.mark.parametrize("watch_first", [True, False])
def test_what_we_deleted_ourselves_has_not_departed(table, watch_first):
    """What we deleted with everything that hung on it needs no cleaning up after it, whoever tells of it first."""
    table.upsert(account(1))
    last = table.get("n", "default")
    if watch_first:
        table.remove(account(2))
    table.deleted("n", "default", last)
    if not watch_first:
        table.remove(account(2))
    table.upsert(account(1))
    assert listed(table) == {}
    assert table.departed("n", "default") is None


def test_our_deletion_of_a_predecessor(table):
    """The answer to our deletion comes too late to remove the successor."""
    table.upsert(account(1))
    last = table.get("n", "default")
    table.remove(account(2))
    table.upsert(account(3, uid="second"))
    table.deleted("n", "default", last)
    assert table.get("n", "default").uid == "second"


def test_versions_that_are_no_numbers(table):
    """Where resource versions cannot be compared the latest arrival counts."""
    table.upsert(account("x1", "a"))
    table.upsert(account("b2", "b"))
    assert listed(table) == {"default": ("b",)}
    table.remove(account("a3"))
    assert listed(table) == {}
    table.upsert(account("q4", "c"))
    assert listed(table) == {"default": ("c",)}


class TestNamed:
    """The store of the Secrets of one name."""

    @pytest.fixture
    def secrets(self):
        table = mirror.Table(views.secret, lambda *_: None)
        for number, (namespace, name) in enumerate([("n", "regcred"), ("m", "regcred"), ("n", "other")], 1):
            table.upsert(secret(number, name, namespace))
        return table

    def test_a_list_of_one_name_says_nothing_of_others(self, secrets):
        """A whole list of one name removes only Secrets of that name."""
        mirror.Named(secrets, "regcred").replace([("n", "regcred")], "9")
        assert sorted((view.namespace, view.name) for view in secrets) == [("n", "other"), ("n", "regcred")]
        mirror.Named(secrets, "regcred").replace([], "10")
        assert [(view.namespace, view.name) for view in secrets] == [("n", "other")]

    def test_events(self, secrets):
        """Its events go into the one table."""
        store = mirror.Named(secrets, "regcred")
        store.upsert(secret(20, "regcred", "o"))
        assert secrets.get("o", "regcred") is not None
        store.remove(secret(21, "regcred", "o"))
        assert secrets.get("o", "regcred") is None


class TestTouch:
    """Which namespace is woken by what."""

    @pytest.fixture
    def touched(self):
        return []

    @pytest.fixture
    def seen(self, touched):
        return mirror.Mirror(lambda namespace, urgent: touched.append((namespace, urgent)))

    def test_births_are_urgent(self, seen, touched):
        """A new namespace and a new account go first: pods copy the list when they are born, and never again."""
        seen.namespaces.upsert({"metadata": {"name": "n", "uid": "u", "resourceVersion": "1"}})
        seen.accounts.upsert(account(2))
        seen.secrets.upsert(secret(3))
        assert touched == [("n", True), ("n", True), ("n", False)]

    def test_changes_are_not(self, seen, touched):
        """Changes and ends wait their turn."""
        seen.namespaces.upsert({"metadata": {"name": "n", "uid": "u", "resourceVersion": "1"}})
        seen.accounts.upsert(account(2))
        touched.clear()
        seen.namespaces.upsert(
            {"metadata": {"name": "n", "uid": "u", "resourceVersion": "3", "labels": {"a": "b"}}}
        )
        seen.accounts.upsert(account(4, "a"))
        seen.accounts.remove(account(5))
        seen.namespaces.remove({"metadata": {"name": "n", "uid": "u", "resourceVersion": "6"}})
        assert touched == [("n", False)] * 4

    def test_unseen_rebirth_is_urgent(self, seen, touched):
        """An object that took the place of another while nobody looked is a new one."""
        seen.accounts.upsert(account(2))
        touched.clear()
        seen.accounts.upsert(account(4, uid="second"))
        assert touched == [("n", True)]


def end_of(body, version):
    return body | {"metadata": body["metadata"] | {"resourceVersion": str(version)}}


class Watching(RuleBasedStateMachine):
    """One name through any life: the watch is in order but late, answers to writes and 404s come at any time."""

    def __init__(self):
        super().__init__()
        self.changes = []
        self.table = mirror.Table(views.account, lambda _, before, after: self.changes.append((before, after)))
        self.version = 0
        self.history = []  # (type, body) as the API server had it
        self.watched = 0
        self.answers = []
        self.now = None

    def happen(self, type_, body):
        self.history.append((type_, body))
        self.now = None if type_ == "DELETED" else body

    @rule(entry=st.sampled_from("abc"), ours=st.booleans())
    def write(self, entry, ours):
        self.version += 1
        uid = self.now["metadata"]["uid"] if self.now else f"u{self.version}"
        self.happen("WRITTEN", account(self.version, entry, uid=uid))
        if ours:
            self.answers.append(self.now)

    @precondition(lambda self: self.now)
    @rule()
    def delete(self):
        self.version += 1
        self.happen("DELETED", end_of(self.now, self.version))

    @precondition(lambda self: self.watched < len(self.history))
    @rule()
    def watch(self):
        type_, body = self.history[self.watched]
        self.watched += 1
        if type_ == "DELETED":
            self.table.remove(body)
        else:
            self.table.upsert(body)

    @precondition(lambda self: self.answers)
    @rule()
    def answer(self):
        self.table.upsert(self.answers.pop(0))

    @precondition(lambda self: not self.now)
    @rule()
    def not_found(self):
        self.table.drop("n", "default", self.table.get("n", "default"))

    # A write is answered within seconds, and a list made every few hours: no answer is older than a list.
    @precondition(lambda self: not self.answers)
    @rule()
    def relist(self):
        if self.now:
            self.table.upsert(self.now)
        self.table.replace([("n", "default")] if self.now else [], str(self.version))
        self.watched = len(self.history)

    @invariant()
    def changes_follow_each_other(self):
        for (_, after), (before, _) in zip(self.changes, self.changes[1:], strict=False):
            assert after == before or (
                after is not None and before == dataclasses.replace(after, version=before.version)
            )

    def teardown(self):
        while self.watched < len(self.history):
            self.watch()
        while self.answers:
            self.answer()
        expected = views.account(self.now) if self.now else None
        assert self.table.get("n", "default") == expected


TestWatching = Watching.TestCase
TestWatching.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
