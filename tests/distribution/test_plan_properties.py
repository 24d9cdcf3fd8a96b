"""Whatever resources, strangers, clocks and crashes do to a namespace, the operator comes to rest, and rightly so."""

from __future__ import annotations

import datetime
import os

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from regcred.api import names
from regcred.cluster import errors, views
from tests.distribution import simulated_api
from tests.distribution.distribution_support import GHCR, HOUR, HUB, NOW, QUAY
from tests.distribution.simulated_world import ACCOUNTS, SECRETS, Crash, Resource, World, login

SECRET_NAMES = st.sampled_from(["regcred", "other"])
ACCOUNT_NAMES = st.sampled_from(["default", "ci"])
GLOBS = st.sampled_from([(), ("default",), ("ci",), ("ci", "default")])
SERVERS = st.sampled_from([QUAY, GHCR, HUB])
PASSWORDS = st.sampled_from(["p", "q", "r"])
LIVES = st.sampled_from([None, None, -HOUR, 2 * HOUR, 5 * HOUR])
FAULTS = [
    errors.Unavailable(503, "Down"),
    errors.Forbidden(403, "Forbidden"),
    errors.Invalid(422, "Invalid"),
    Crash(),
]


def annotate(key, value):
    def change(body):
        body["metadata"].setdefault("annotations", {})[key] = value

    return change


def without(part, key):
    def change(body):
        body["metadata"].setdefault(part, {}).pop(key, None)

    return change


def overwrite(content):
    def change(body):
        body["data"] = {names.SECRET_KEY: simulated_api.encoded(content)}

    return change


def owned_by_another(body):
    owners = body["metadata"].setdefault("ownerReferences", [])
    if all(owner["uid"] != "uid-stranger" for owner in owners):
        owners.append({"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "uid-stranger"})


#: What strangers do to a Secret of our name.
TAMPERING = {
    "data": overwrite(b'{"auths":{"quay.io":{"auth":"Zm9vOmJhcg=="}}}'),
    "broken data": overwrite(b"not json"),
    "revision": annotate(names.REVISION, "tampered"),
    "contributors": annotate(names.CONTRIBUTORS, "[["),
    "servers": annotate(names.SERVERS, "{}"),
    "annotation of theirs": annotate("example.com/theirs", "x"),
    "label": without("labels", names.MANAGED_BY_LABEL),
    "adopt": annotate(names.ADOPT, "true"),
    "owner": owned_by_another,
    "owners": lambda body: body["metadata"].update(ownerReferences=[]),
    "finalizer": lambda body: body["metadata"].update(finalizers=["example.com/hold"]),
}


def relist(*entries):
    def change(body):
        body["imagePullSecrets"] = [{"name": name} for name in entries]

    return change


class Namespace(RuleBasedStateMachine):
    """A namespace in which anything may happen between, and within, two passes of the operator."""

    def __init__(self):
        super().__init__()
        self.world = World()
        self.number = 0
        for name in ("default", "ci"):
            self.world.account(name, "theirs", "regcred-like")

    # Resources.

    @initialize(retain=st.booleans(), globs=GLOBS, password=PASSWORDS, life=LIVES)
    def it_begins_well(self, retain, globs, password, life):
        self.resource_appears("a", True, "regcred", globs, retain, {QUAY: (password, life)})
        self.world.settle()

    @rule(
        name=st.sampled_from("abc"),
        cluster=st.booleans(),
        secret_name=SECRET_NAMES,
        globs=GLOBS,
        retain=st.booleans(),
        logins=st.dictionaries(SERVERS, st.tuples(PASSWORDS, LIVES), min_size=1, max_size=2),
    )
    def resource_appears(self, name, cluster, secret_name, globs, retain, logins):
        for uid, old in list(self.world.resources.items()):
            if (old.name, old.cluster) == (name, cluster):
                del self.world.resources[uid]
        self.number += 1
        created = NOW - datetime.timedelta(minutes=self.number % 3)
        made = Resource(name, f"uid-{name}-{self.number}", cluster, secret_name, globs, retain, created)
        made.logins = {server: self.login(*each) for server, each in logins.items()}
        self.world.add(made)

    def login(self, password, life):
        return login(password, None if life is None else self.world.now + life)

    def some(self, data):
        return self.world.resources[data.draw(st.sampled_from(sorted(self.world.resources)))]

    @precondition(lambda self: self.world.resources)
    @rule(data=st.data())
    def resource_is_deleted(self, data):
        del self.world.resources[self.some(data).uid]

    @precondition(lambda self: self.world.resources)
    @rule(data=st.data(), change=st.sampled_from(["applies", "suspended", "retain"]))
    def resource_is_switched(self, data, change):
        resource = self.some(data)
        setattr(resource, change, not getattr(resource, change))

    @precondition(lambda self: self.world.resources)
    @rule(data=st.data(), secret_name=SECRET_NAMES, globs=GLOBS)
    def resource_is_edited(self, data, secret_name, globs):
        resource = self.some(data)
        resource.secret_name, resource.accounts = secret_name, globs
        self.world.secret_names.add(secret_name)

    @precondition(lambda self: self.world.resources)
    @rule(data=st.data(), server=SERVERS, password=PASSWORDS, life=LIVES)
    def login_arrives(self, data, server, password, life):
        resource = self.some(data)
        if not resource.suspended:
            resource.logins[server] = self.login(password, life)

    @precondition(lambda self: self.world.resources)
    @rule(data=st.data(), server=SERVERS)
    def server_is_removed(self, data, server):
        self.some(data).logins.pop(server, None)

    @rule(hours=st.integers(1, 3))
    def time_passes(self, hours):
        self.world.now += hours * HOUR

    # Strangers.

    @rule(name=SECRET_NAMES, adopt=st.booleans())
    def stranger_creates(self, name, adopt):
        if SECRETS + name not in self.world.api.objects:
            self.world.foreign_secret(name, adopt=adopt)

    @rule(name=SECRET_NAMES)
    def stranger_deletes(self, name):
        if SECRETS + name in self.world.api.objects:
            self.world.api.remove(SECRETS + name)

    @rule(name=SECRET_NAMES, how=st.sampled_from(sorted(TAMPERING)))
    def stranger_tampers(self, name, how):
        if SECRETS + name in self.world.api.objects:
            self.world.api.update(SECRETS + name, "kubectl-edit", TAMPERING[how])

    @rule(name=SECRET_NAMES)
    def finalizer_goes(self, name):
        stored = self.world.api.objects.get(SECRETS + name)
        if stored is not None and stored.meta.pop("finalizers", None) and "deletionTimestamp" in stored.meta:
            self.world.api.remove(SECRETS + name)

    @rule(name=SECRET_NAMES)
    def garbage_is_collected(self, name):
        stored = self.world.api.objects.get(SECRETS + name)
        owners = [owner["uid"] for owner in stored.meta.get("ownerReferences") or []] if stored is not None else []
        if owners and not set(owners) & set(self.world.resources):
            if "uid-stranger" not in owners:
                self.world.judge_end_of(views.secret(stored.rendered()))
            self.world.api.remove(SECRETS + name)

    # Accounts.

    @rule(name=ACCOUNT_NAMES, entries=st.lists(st.sampled_from(["x", "y", "regcred", "other"]), max_size=4))
    def account_is_written(self, name, entries):
        if ACCOUNTS + name in self.world.api.objects:
            self.world.api.update(ACCOUNTS + name, "argocd", relist(*entries))
        else:
            self.world.account(name, *entries)

    @rule(name=ACCOUNT_NAMES)
    def account_is_deleted(self, name):
        if ACCOUNTS + name in self.world.api.objects:
            self.world.api.remove(ACCOUNTS + name)

    @rule(name=ACCOUNT_NAMES, value=st.sampled_from(["true", "false"]))
    def account_opts_out(self, name, value):
        if ACCOUNTS + name in self.world.api.objects:
            self.world.api.update(ACCOUNTS + name, "kubectl-edit", annotate(names.IGNORE, value))

    @rule(name=ACCOUNT_NAMES, secret=SECRET_NAMES)
    def account_is_contended(self, name, secret):
        if stored := self.world.api.objects.get(ACCOUNTS + name):
            self.world.contended ^= {(stored.meta["uid"], secret)}

    # The operator.

    @rule()
    def operator_sees(self):
        self.world.watch()

    @rule()
    def operator_restarts(self):
        self.world.restart()

    @rule()
    def operator_passes(self):
        self.world.reconcile()

    @rule()
    def operator_persists(self):
        self.world.persist()

    @rule()
    def operator_rests(self):
        self.world.settle()
        self.world.check_rest()

    @rule(data=st.data(), at=st.integers(0, 4), fault=st.sampled_from([*FAULTS, None, None, None]))
    def operator_is_disturbed(self, data, at, fault):
        count = iter(range(100))

        def disturb(_method, _path):
            if next(count) != at:
                return
            if fault is not None:
                raise fault
            self.stranger_meddles(data)

        self.world.api.before_request = disturb
        try:
            self.world.reconcile()
        except Crash:
            self.world.restart()
        finally:
            self.world.api.before_request = lambda _method, _path: None

    def stranger_meddles(self, data):
        name = data.draw(SECRET_NAMES)
        doings = {
            "create": lambda: self.stranger_creates(name, False),
            "delete": lambda: self.stranger_deletes(name),
            "tamper": lambda: self.stranger_tampers(name, data.draw(st.sampled_from(["label", "data"]))),
            "relist": lambda: self.account_is_written("default", ["z", "regcred"]),
            "reborn": lambda: (self.account_is_deleted("default"), self.world.account("default", "new")),
        }
        doings[data.draw(st.sampled_from(sorted(doings)))]()

    @invariant()
    def judged(self):
        self.world.judge()

    def teardown(self):
        self.world.settle()
        self.world.check_rest()


TestNamespace = Namespace.TestCase
TestNamespace.settings = settings(
    max_examples=int(os.environ.get("REGCRED_EXAMPLES", "60")), stateful_step_count=30, deadline=None
)


STEPS = st.one_of(
    st.tuples(
        st.just("appears"),
        st.sampled_from("abc"),
        st.booleans(),
        SECRET_NAMES,
        GLOBS,
        st.dictionaries(SERVERS, PASSWORDS, min_size=1),
    ),
    st.tuples(st.just("goes"), st.sampled_from("abc")),
    st.tuples(st.just("moves"), st.sampled_from("abc"), SECRET_NAMES, GLOBS),
    st.tuples(st.just("is deselected or selected"), st.sampled_from("abc")),
    st.tuples(st.just("renews"), st.sampled_from("abc"), SERVERS, PASSWORDS),
    st.tuples(st.just("is born"), st.just("ci")),
)


def follow(world, number, step):
    """Let one thing happen to the resources, in the same way in every world."""
    what, name, *rest = step
    uid = f"uid-{name}"
    if what == "is born" and ACCOUNTS + name not in world.api.objects:
        world.account(name, "theirs")
    elif what == "appears":
        cluster, secret_name, globs, logins = rest
        made = Resource(name, uid, cluster, secret_name, globs, False, NOW - datetime.timedelta(minutes=number))
        made.logins = {server: login(password) for server, password in logins.items()}
        world.add(made)
    elif what == "goes":
        world.resources.pop(uid, None)
    elif resource := world.resources.get(uid):
        if what == "moves":
            resource.secret_name, resource.accounts = rest
            world.secret_names.add(resource.secret_name)
        elif what == "renews":
            resource.logins[rest[0]] = login(rest[1])
        else:
            resource.applies = not resource.applies


def _owners(meta):
    return [owner["uid"] for owner in meta.get("ownerReferences") or ()]


def end_of(world):
    """Return what can be told apart of a namespace: the Secrets' content, and who lists what."""
    world.settle()
    world.check_rest()
    secrets = {
        # The server keeps owners in the order in which they came.
        path: (stored.body["data"], stored.meta["annotations"], sorted(_owners(stored.meta)))
        for path, stored in world.api.objects.items()
        if path.startswith(SECRETS)
    }
    return secrets, {account.name: sorted(account.pull_secrets) for account in world.accounts()}


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(STEPS, st.sampled_from(["", "pass", "settle", "restart"])), max_size=12))
def test_the_way_does_not_matter(steps):
    """What the operator comes to follows from what is there, not from what it saw on the way, nor in which order."""
    attentive, absent = World(), World()
    for world in (attentive, absent):
        world.account("default", "theirs")
    for number, (step, then) in enumerate(steps):
        follow(attentive, number, step)
        follow(absent, number, step)
        attentive.watch()
        if then == "pass":
            attentive.reconcile()
        elif then == "settle":
            attentive.settle()
        elif then == "restart":
            attentive.restart()
    assert end_of(attentive) == end_of(absent)
