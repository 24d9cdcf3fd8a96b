"""Random histories of resources, namespaces, accounts, Secrets, tokens and errors: the operator always comes to rest.

The planner and the writer alone have theirs in `tests/distribution/test_plan_properties.py`.  Here the engine, its queue
and the keeper are in it too, in virtual time: what is retried, renewed, gathered and forgotten is part of the history.
"""

from __future__ import annotations

import asyncio
import copy
import os

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from regcred.api import names
from regcred.cluster import errors
from regcred.credentials import provider
from tests.credentials import keeper_support
from tests.credentials.virtual_time import VirtualLoop
from tests.distribution import simulated_api
from tests.histories.operator_in_memory import Operator, account_path, secret_path, virtual_modules

NAMESPACES = st.sampled_from(["shop", "team-a", "team-b", "kube-system"])
NAMES = st.sampled_from("abc")
LABELS = st.sampled_from([{}, {"team": "a"}, {"team": "b"}, {"team": "a", names.IGNORE: "true"}])
SELECTIONS = st.sampled_from(
    [
        {"selector": {}},
        {"selector": {"matchLabels": {"team": "a"}}},
        {"names": ["shop", "kube-system"]},
        {"names": ["nowhere"]},
    ]
)
SERVERS = st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=2, unique=True)
SECRET_NAMES = st.sampled_from(["regcred", "regcred", "other"])
#: What the API server may answer in place of what it should.
ERRORS = {
    "409": errors.Conflict(409, "Conflict"),
    "410": errors.Gone(410, "Expired"),
    "422": errors.Invalid(422, "Invalid"),
    "429": errors.Unavailable(429, "TooManyRequests", retry_after=7.0),
    "500": errors.Unavailable(500, "InternalError"),
    "403": errors.Forbidden(403, "Forbidden"),
    "cut": errors.Unavailable(0, "no answer"),
}
REFUSALS = {
    "retryable": provider.Retryable("ProviderError", "it is down"),
    "throttled": provider.Throttled("Throttled", "slower", after=20.0),
    "denied": provider.Denied("Denied", "no"),
    "unknown": RuntimeError("boom"),
}
#: Longer than any retry, a refusal's included, and shorter than the life of a login that is to be found.
CALM = 2700.0


class Histories(RuleBasedStateMachine):
    """Several namespaces, resources of both kinds, and whatever may happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        self.modules = virtual_modules(self.loop, self.patch.setattr)
        self.modules.__enter__()
        self.world = Operator(self.loop)
        self.generation = 0
        self.uids: dict[tuple[str, str], str] = {}
        self.rivals: dict[tuple[str, str], list[str]] = {}
        for name in ("shop", "team-a", "kube-system"):
            self.world.make_namespace(name, {"team": "a"} if name == "team-a" else {})
        self.world.start()

    def teardown(self) -> None:
        try:
            self.rests()
        finally:
            self.world.kill()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.modules.__exit__(None, None, None)
            self.patch.undo()
            asyncio.set_event_loop(None)
            self.loop.close()

    # Resources.

    @initialize(servers=SERVERS)
    def it_begins(self, servers: list[str]) -> None:
        self.declare("a", "", servers, {"selector": {}}, "regcred", ["default"], False)
        self.passes(1.0)

    @rule(
        name=NAMES,
        namespace=st.sampled_from(["", "", "team-a", "shop"]),
        servers=SERVERS,
        selection=SELECTIONS,
        secret=SECRET_NAMES,
        accounts=st.sampled_from([["default"], ["*"], []]),
        retain=st.sampled_from([False, False, False, True]),
    )
    def declare(
        self,
        name: str,
        namespace: str,
        servers: list[str],
        selection: dict,
        secret: str,
        accounts: list[str],
        retain: bool,
    ) -> None:
        """A resource is created, or changed where it stands."""
        self.generation += 1
        # What is deleted and made anew has another UID.
        uid = self.uids.setdefault((name, namespace), f"uid-{name}-{namespace}-{self.generation}")
        entries = [
            keeper_support.entry(f"{server}.fake.example", f"{name}-{namespace}-{server}") for server in servers
        ]
        more = {} if namespace else {"namespaces": copy.deepcopy(selection)}
        if retain:
            more["deletionPolicy"] = "Retain"
        body = keeper_support.spec(
            name, *entries, namespace=namespace, secretName=secret, serviceAccounts=accounts, **more
        )
        body["metadata"] |= {"uid": uid, "generation": self.generation}
        self.world.apply(body)

    @precondition(lambda self: self.world.bodies)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """A resource that retains nothing is deleted."""
        uid = data.draw(st.sampled_from(sorted(self.world.bodies)))
        if self.world.bodies[uid]["spec"].get("deletionPolicy") != "Retain":
            self.world.delete(uid)
            self.uids = {key: value for key, value in self.uids.items() if value != uid}

    @precondition(lambda self: self.world.bodies)
    @rule(data=st.data(), how=st.sampled_from(["suspend", "resume", "refresh"]))
    def switch(self, data: st.DataObject, how: str) -> None:
        """A resource is suspended, resumed, or asked for fresh logins."""
        body = copy.deepcopy(self.world.bodies[data.draw(st.sampled_from(sorted(self.world.bodies)))])
        self.generation += 1
        if how == "refresh":
            body["metadata"]["annotations"][names.REFRESH] = str(self.generation)
        else:
            body["spec"]["suspend"] = how == "suspend"
            body["metadata"]["generation"] = self.generation
        self.world.apply(body)

    # Namespaces and what is in them.

    @rule(name=NAMESPACES, labels=LABELS)
    def namespace_is_made_or_labelled(self, name: str, labels: dict) -> None:
        """A namespace comes, or has other labels from now on."""
        if name in self.world.namespaces:
            self.world.label(name, labels)
        else:
            self.world.make_namespace(name, labels)

    @rule(name=NAMESPACES)
    def namespace_ends(self, name: str) -> None:
        """A namespace goes, with all that is in it."""
        if name in self.world.namespaces and len(self.world.namespaces) > 1:
            self.world.end_namespace(name)
            self.rivals = {key: value for key, value in self.rivals.items() if key[0] != name}

    @rule(name=NAMESPACES, entries=st.lists(st.sampled_from(["p", "q", "regcred-like"]), max_size=2, unique=True))
    def rival_writes_account(self, name: str, entries: list[str]) -> None:
        """A rival changes its own entries of an account, and keeps what else is there."""
        path = account_path(name)
        if path not in self.world.api.objects:
            return

        def change(body: dict) -> None:
            ours = [row for row in body.get("imagePullSecrets") or [] if row["name"] in ("regcred", "other")]
            body["imagePullSecrets"] = [*({"name": entry} for entry in entries), *ours]

        self.world.api.update(path, "rival", change)
        self.rivals[name, "default"] = entries

    @rule(name=NAMESPACES)
    def account_is_made_anew(self, name: str) -> None:
        """An account goes and comes, as another one of the same name."""
        if account_path(name) in self.world.api.objects:
            self.world.api.remove(account_path(name))
            self.world.api.create(account_path(name), {"metadata": {}}, "kube-controller-manager")
            self.rivals.pop((name, "default"), None)

    @rule(name=NAMESPACES, secret=SECRET_NAMES, how=st.sampled_from(["spoil", "delete", "foreign", "unlabel"]))
    def stranger_meddles(self, name: str, secret: str, how: str) -> None:
        """Somebody spoils or deletes our Secret, or has one of that name himself for a while."""
        path = secret_path(name, secret)
        stored = self.world.api.objects.get(path)
        if how == "foreign" and stored is None and name in self.world.namespaces:
            self.world.api.create(
                path, {"type": "Opaque", "data": {"theirs": "eA=="}, "metadata": {}}, "kubectl-create"
            )
        elif how == "delete" and stored is not None:
            self.world.api.remove(path)
        elif how == "spoil" and stored is not None and names.CONTRIBUTORS in stored.meta.get("annotations", {}):
            rubbish = {names.SECRET_KEY: simulated_api.encoded(b"not json")}
            self.world.api.update(path, "kubectl-edit", lambda body: body.update(data=rubbish))
        elif how == "unlabel" and stored is not None and names.CONTRIBUTORS in stored.meta.get("annotations", {}):
            self.world.api.update(path, "kubectl-label", lambda body: body["metadata"]["labels"].clear())

    # Logins and errors.

    @rule(life=st.sampled_from([40.0, 300.0, 12 * 3600.0, None]))
    def logins_live(self, life: float | None) -> None:
        """Logins that are handed out from now on live so long."""
        self.world.provider.life["*"] = life

    @rule(
        who=st.sampled_from(["a--x", "a--y", "b--x", "a-team-a-x"]),
        how=st.sampled_from(sorted(REFUSALS)),
    )
    def provider_fails(self, who: str, how: str) -> None:
        """The provider refuses an identity, until it is healed."""
        self.world.provider.faults[who] = REFUSALS[how]

    @rule()
    def provider_heals(self) -> None:
        """The provider works."""
        self.world.provider.faults.clear()

    @rule(
        data=st.data(), share=st.sampled_from([1.0, 0.5]), kind=st.sampled_from(["", "secrets", "serviceaccounts"])
    )
    def server_fails(self, data: st.DataObject, share: float, kind: str) -> None:
        """The API server answers some requests with an error, until it is healed."""
        which = data.draw(st.sampled_from(sorted(ERRORS)))
        turn = iter(range(10**9))

        def fail(method: str, path: str) -> None:
            if kind in path and (share == 1.0 or next(turn) % 2):
                raise ERRORS[which]

        self.world.api.before_request = fail
        self.world.kept.fault = ERRORS[which] if not kind else None  # type: ignore[assignment]

    @rule()
    def server_heals(self) -> None:
        """The API server works."""
        self.world.api.before_request = lambda _method, _path: None
        self.world.kept.fault = None

    # The operator.

    @rule(seconds=st.sampled_from([0.0, 0.6, 5.0, 45.0, 400.0, 4 * 3600.0]))
    def passes(self, seconds: float) -> None:
        """Time passes, and the watches deliver before and after it."""
        self.world.watch()
        self.world.do(seconds)
        self.world.watch()
        self.world.do(0.6)

    @rule(seconds=st.sampled_from([0.0, 5.0, 100.0]))
    def passes_unseen(self, seconds: float) -> None:
        """Time passes while the watches are slow."""
        self.world.do(seconds)

    @rule()
    def is_killed(self) -> None:
        """The operator is killed and starts anew."""
        self.world.kill()
        self.world.start()

    @rule()
    def rests(self) -> None:
        """Left alone, it comes to rest, rightly, and does nothing more, nor after a new start."""
        self.provider_heals()
        self.server_heals()
        self.world.provider.life["*"] = 12 * 3600.0
        for name in list(self.world.namespaces):
            for secret in ("regcred", "other"):
                stored = self.world.api.objects.get(secret_path(name, secret))
                if stored is not None and not stored.meta.get("labels"):
                    # Foreign, or no longer ours: whoever it belongs to takes it away.
                    self.world.api.remove(secret_path(name, secret))
        # A rival that went on too long is left alone for an hour.
        for _ in range(3):
            self.passes(CALM)
        self.passes(5.0)
        self.check()
        before, asked = len(self.world.api.log), len(self.world.provider.asked)
        self.passes(30.0)
        self.world.kill()
        self.world.start()
        self.passes(25.0)
        # A renewal that happens to be due is no unrest.
        if len(self.world.provider.asked) == asked:
            assert [row[:2] for row in self.world.api.log[before:]] == [], (
                "it writes at rest, or after a new start"
            )

    def check(self) -> None:
        """Every Secret and every account is as the resources want it."""
        for name in self.world.namespaces:
            if name == "kube-system":
                assert secret_path(name) not in self.world.api.objects
                continue
            for secret in ("regcred", "other"):
                wanted = self.world.wanted(name, secret)
                held = self.world.held(name, secret)
                suspended = self._suspended(name, secret)
                assert set(wanted) <= set(held), f"{name}/{secret}: {sorted(held)} instead of {sorted(wanted)}"
                assert set(held) <= set(wanted) | suspended, f"{name}/{secret} holds too much: {sorted(held)}"
                for server, bodies in wanted.items():
                    assert self.world.ends[held[server]] > self.world.now(), f"{server} has ended"
                    if server not in suspended:
                        self._is_the_winners(server, bodies[0], held[server])
                listed = self.world.entries(name)
                assert [entry for entry in listed if entry not in ("regcred", "other")] == self.rivals.get(
                    (name, "default"), []
                )
                assert listed.count(secret) <= 1
                if any(body["spec"]["serviceAccounts"] for bodies in wanted.values() for body in bodies):
                    assert secret in listed, f"{name} does not list {secret}"

    def _suspended(self, namespace: str, secret: str) -> set[str]:
        """Servers of suspended resources: what they have stays as it stands, or is not there."""
        return {
            row["server"]
            for body in self.world.bodies.values()
            if body["spec"].get("suspend") and body["spec"].get("secretName", "regcred") == secret
            for row in body["spec"]["registries"]
        }

    def _is_the_winners(self, server: str, body: dict, password: str) -> None:
        """A Secret holds the last login that was handed out to the winner."""
        logins = self.world.logins.logins(body["metadata"]["uid"])
        assert logins[server][0].password == password, f"{server} is not {body['metadata']['name']}'s"

    @invariant()
    def judged(self) -> None:
        """Whatever was done was allowed."""
        self.world.judge()


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=int(os.environ.get("REGCRED_EXAMPLES", "25")), stateful_step_count=18, deadline=None
)
