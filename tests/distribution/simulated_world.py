"""One namespace of a simulated cluster, the resources that want something of it, and the operator at work on it.

Every request of the operator is judged as it happens: whatever its plan, a foreign object is never touched, a foreign
entry never lost, and a living login never given up for nothing.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterator, Mapping
from typing import Any

from regcred import dockerconfig
from regcred.api import names, times
from regcred.cluster import mirror, views
from regcred.distribution import model, writer
from regcred.distribution import plan as planning
from tests.distribution import simulated_api
from tests.distribution.distribution_support import NAMESPACE, NOW, logins_of, published

SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets/"
ACCOUNTS = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/"
#: Passes within which the operator has to come to rest: create, detach and delete, and one for what it lost.
ROUNDS = 5


class Crash(BaseException):
    """The operator is killed."""


@dataclasses.dataclass
class Resource:
    """A resource as its author has it, and the logins it has had."""

    name: str
    uid: str
    cluster: bool
    secret_name: str
    accounts: tuple[str, ...]
    retain: bool
    created: datetime.datetime
    applies: bool = True
    suspended: bool = False
    logins: dict[str, model.Published] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> str:
        """How people name it."""
        return (
            f"ClusterRegistryCredential/{self.name}" if self.cluster else f"RegistryCredential/team-a/{self.name}"
        )

    def contribution(self) -> model.Contribution:
        """Return what it brings."""
        return model.Contribution(
            uid=self.uid,
            key=self.key,
            api_version=names.API_VERSION,
            kind=self.key.partition("/")[0],
            name=self.name,
            cluster=self.cluster,
            created=self.created,
            secret_name=self.secret_name,
            accounts=self.accounts,
            retain=self.retain,
            logins=dict(self.logins),
            frozen=self.suspended,
        )


class World:
    """The cluster, the operator and the judge."""

    def __init__(self) -> None:
        self.api = simulated_api.SimulatedApi()
        self.now = NOW
        self.resources: dict[str, Resource] = {}
        self.secret_names = {names.DEFAULT_SECRET_NAME}
        self.contended: set[tuple[str, str]] = set()
        #: What the operator saw when it planned last.
        self.believed: dict[str, views.SecretView] = {}
        self.believed_accounts: list[views.AccountView] = []
        #: Namespaces that the operator was told to look at again.
        self.told: list[str] = []
        self._judged = 0
        self.restart()

    # The operator.

    def restart(self) -> None:
        """Start the operator anew: it knows what it lists, and nothing else."""
        self.seen = mirror.Mirror(lambda namespace, _urgent: self.told.append(namespace))
        self.seen.namespaces.upsert(
            {"metadata": {"name": NAMESPACE, "uid": "uid-namespace", "resourceVersion": "0"}}
        )
        self.hand = writer.Writer(self.api, self.seen)  # type: ignore[arg-type]
        self.watch()

    def watch(self) -> None:
        """Let the watches deliver everything that has happened."""
        for table, prefix in ((self.seen.secrets, SECRETS), (self.seen.accounts, ACCOUNTS)):
            found = {path: stored for path, stored in self.api.objects.items() if path.startswith(prefix)}
            for stored in found.values():
                table.upsert(stored.rendered())
            table.replace([(NAMESPACE, path.removeprefix(prefix)) for path in found], str(self.api.revision))

    def contributions(self) -> dict[str, model.Contribution]:
        """Return what the living resources bring."""
        return {uid: resource.contribution() for uid, resource in self.resources.items()}

    def plan(self) -> model.Plan:
        """Plan as the engine does."""
        contributions = self.contributions()
        observed = planning.Observed(
            namespace=self.seen.namespaces.get("", NAMESPACE),
            secrets=dict(self.seen.secrets.within(NAMESPACE)),
            departed={
                name: view
                for name in self.secret_names
                if (view := self.seen.secrets.departed(NAMESPACE, name)) is not None
            },
            accounts=tuple(self.seen.accounts.within(NAMESPACE).values()),
            contended=frozenset(self.contended),
        )
        desired = planning.Desired(
            applying=[
                contributions[uid]
                for uid, resource in self.resources.items()
                if resource.applies and not resource.suspended
            ],
            frozen={uid: contributions[uid] for uid, resource in self.resources.items() if resource.suspended},
            live=frozenset(self.resources),
            secret_names=sorted(self.secret_names),
        )
        return planning.plan(observed, desired, self.now)

    def reconcile(self) -> bool:
        """Do one pass; return whether there was nothing to do."""
        self.believed = dict(self.seen.secrets.within(NAMESPACE))
        self.believed_accounts = list(self.seen.accounts)
        planned = self.plan()
        if planned.idle:
            return True
        self.told.clear()
        try:
            result = simulated_api.run(self.hand.execute(planned))
        finally:
            self.judge()
        if not (result.failures or result.stale or planned.more or self.told):
            assert self.plan().idle, "nobody is told of what was done, so nothing may be left to do"
        return False

    def settle(self) -> None:
        """Let the operator work until it rests, which it has to do soon."""
        for _ in range(ROUNDS):
            self.watch()
            if self.reconcile():
                break
        assert self.plan().idle, f"no rest after {ROUNDS} passes"

    def persist(self) -> None:
        """Let the operator try again and again while its watches sleep: what it runs into it has to find out itself."""
        for _ in range(2 * ROUNDS):
            if self.reconcile():
                return
        raise AssertionError("it runs into the same again and again")

    # The judge.

    def judge(self) -> None:
        """Judge every change the operator has made since the last time."""
        for method, path, before, after in self.api.log[self._judged :]:
            if path.startswith(SECRETS):
                assert method in ("PATCH", "DELETE")
                self._judge_secret(before, after)
            else:
                assert method == "PATCH"
                self._judge_account(before, after)
        self._judged = len(self.api.log)

    def _judge_secret(self, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> None:
        if before is None:
            assert after is not None
            assert logins_of(simulated_api.content_of(dict(after))), "nothing empty is created"
            return
        view = views.secret(before)
        assert view.ours or view.adopt, "a foreign Secret is never touched"
        assert after is None or after["metadata"]["uid"] == before["metadata"]["uid"]
        if after is None:
            self._judge_deletion(view.name)
        if not view.ours:
            return
        try:
            had = dockerconfig.parse(simulated_api.content_of(dict(before))).logins
        except dockerconfig.BadConfig:
            return
        has = dockerconfig.parse(simulated_api.content_of(dict(after))).logins if after is not None else {}
        for row in view.servers:
            owner = self.resources.get(row.uid)
            retained = any(each.uid == row.uid and each.retain for each in view.contributors)
            kept = (owner is None and retained) or (
                owner is not None and (owner.suspended or (owner.applies and row.server in owner.logins))
            )
            if row.server not in had or not kept or self._moved(owner, view.name):
                continue
            assert row.server in has, f"{row.server} of {row.uid} had a login and has none"
            told = {each.server: each for each in views.secret(after).servers} if after is not None else {}
            assert self._ended(row) or not self._ended(told[row.server]), "a living login gave way to an ended one"

    def judge_end_of(self, secret: views.SecretView) -> None:
        """Judge that the garbage collector deletes a Secret because all of its owners are gone."""
        retained = {each.uid for each in secret.contributors if each.retain}
        for row in secret.servers if secret.ours else ():
            assert row.uid not in retained, f"{row.server} was to be retained and is collected"
            assert row.uid not in self.resources, f"{row.server} has a living resource and is collected"

    def _ended(self, row: views.Standing) -> bool:
        return bool(row.expires) and times.parse_time(row.expires) <= self.now

    def _moved(self, owner: Resource | None, name: str) -> bool:
        """Whether the resource has its logins under another name now, where they stand."""
        if owner is None or owner.suspended or owner.secret_name == name:
            return False
        view = self.believed.get(owner.secret_name)
        return view is not None and view.ours and any(row.uid == owner.uid for row in view.contributors)

    def _judge_account(self, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> None:
        assert before is not None, "an account is never created"
        assert after is not None, "an account is never deleted"
        had, has = views.account(before), views.account(after)
        added = [name for name in has.pull_secrets if name not in had.pull_secrets]
        stayed = [name for name in had.pull_secrets if name in has.pull_secrets]
        assert list(has.pull_secrets) == stayed + added, "what stays keeps its order, and what is new comes last"
        gone = set(had.pull_secrets) - set(has.pull_secrets)
        assert gone <= self.secret_names, "foreign entries stay"
        for name in added:
            assert (has.uid, name) not in self.contended, "nobody fights"
            assert self._stands(name), "the Secret comes before the entry, and it is ours"

    def _stands(self, name: str) -> bool:
        """Whether our Secret stands, or stood when the operator last looked."""
        stored = self.api.objects.get(SECRETS + name)
        view = views.secret(stored.rendered()) if stored is not None else None
        known = self.believed.get(name)
        written = any(path == SECRETS + name for _, path, _, _ in self.api.log[self._judged :])
        return written or (view is not None and view.ours) or (known is not None and known.ours)

    def _judge_deletion(self, name: str) -> None:
        """Judge the deletion of a Secret: no account that the operator knew of lists it still."""
        known = {(view.uid, view.version) for view in self.believed_accounts}
        for account in self.accounts():
            assert (account.uid, account.version) not in known or name not in account.pull_secrets

    # What should be.

    def expected(self, name: str) -> dict[str, str]:
        """Return server to password of the living logins that belong into the Secret of this name, and win there."""
        found: dict[str, str] = {}
        applying = [each for each in self.resources.values() if each.applies and not each.suspended]
        for resource in sorted(applying, key=lambda each: each.contribution().rank, reverse=True):
            if resource.secret_name == name:
                found |= {
                    server: login.login.password
                    for server, login in resource.logins.items()
                    if not login.expired(self.now)
                }
        return found

    def check_rest(self) -> None:
        """Check what has to hold when the operator rests."""
        for name in self.secret_names:
            stored = self.api.objects.get(SECRETS + name)
            body = stored.rendered() if stored is not None else None
            view = views.secret(body) if body is not None else None
            expected = self.expected(name)
            if view is not None and (view.terminating or not (view.ours or view.adopt)):
                continue
            if expected:
                assert body is not None, "a login that lives is handed out"
                assert view is not None
                held = {row.server for row in view.servers if self._holds(row.uid, name)}
                if ours := {server: expected[server] for server in expected if server not in held}:
                    has = logins_of(simulated_api.content_of(body))
                    assert {server: has.get(server) for server in ours} == ours
                    assert {row.server for row in view.servers} == set(has), "the annotation is true"
            for account in self.accounts():
                self._check_entry(account, name, wanted=bool(expected))
        revision = self.api.revision
        assert self.reconcile(), "at rest there is nothing to do"
        self.restart()
        assert self.reconcile(), "a restart finds nothing to do"
        assert self.api.revision == revision

    def _holds(self, uid: str, name: str) -> bool:
        """Whether the resource may keep a place that others would have: suspended, or still under its old name."""
        owner = self.resources.get(uid)
        return owner is not None and (owner.suspended or owner.secret_name != name)

    def _check_entry(self, account: views.AccountView, name: str, *, wanted: bool) -> None:
        asked = any(
            resource.applies
            and not resource.suspended
            and resource.secret_name == name
            and account.name in resource.accounts
            for resource in self.resources.values()
        )
        if asked and wanted and not account.ignored and (account.uid, name) not in self.contended:
            assert name in account.pull_secrets, f"{account.name} lists {name}"

    def accounts(self) -> Iterator[views.AccountView]:
        """Return the service accounts as they are."""
        for path, stored in self.api.objects.items():
            if path.startswith(ACCOUNTS):
                yield views.account(stored.rendered())

    # What others do.

    def add(self, resource: Resource) -> None:
        """Create a resource."""
        self.resources[resource.uid] = resource
        self.secret_names.add(resource.secret_name)

    def foreign_secret(self, name: str, *, adopt: bool = False) -> None:
        """Create a Secret as somebody else."""
        content = json.dumps({"auths": {"foreign.example.com": {"auth": "Zm9vOmJhcg=="}}}).encode()
        self.api.create(
            SECRETS + name,
            {
                "type": names.SECRET_TYPE,
                "data": {names.SECRET_KEY: simulated_api.encoded(content)},
                "metadata": {"annotations": {names.ADOPT: "true"} if adopt else {}, "labels": {"app": "theirs"}},
            },
            "kubectl-create",
        )

    def account(self, name: str, *listed: str) -> None:
        """Create a service account."""
        body = {"imagePullSecrets": [{"name": each} for each in listed], "metadata": {"annotations": {}}}
        self.api.create(ACCOUNTS + name, body, "helm")


def login(password: str, expires: datetime.datetime | None = None) -> model.Published:
    """Return a login."""
    return published(password, expires=expires)
