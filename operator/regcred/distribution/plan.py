"""What to do in one namespace: `plan(observed, desired, now) -> Plan`.  Pure.

Desired state is a function of what is observed and nothing else, so a restart at any point comes to the same end.
Order is part of the plan: a Secret is written before an account lists it, and no account lists it any more when it
is deleted.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections.abc import Iterable, Mapping, Sequence

from regcred import dockerconfig
from regcred.cluster import views
from regcred.distribution import composition, model, selection


@dataclasses.dataclass(frozen=True, slots=True)
class Observed:
    """One namespace as it is seen.

    Attributes:
        namespace: None where it is gone.
        secrets: Secrets of our names, by name.
        departed: our Secrets that stood a moment ago, by name.
        accounts: every service account.
        contended: (UID of an account, name of a Secret) that a rival keeps removing.
        taken: (UID of an account, name of a Secret) that we took out lately.
    """

    namespace: views.NamespaceView | None
    secrets: Mapping[str, views.SecretView]
    departed: Mapping[str, views.SecretView]
    accounts: Sequence[views.AccountView]
    contended: frozenset[tuple[str, str]] = frozenset()
    taken: frozenset[tuple[str, str]] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Desired:
    """What the resources want of one namespace.

    Attributes:
        applying: contributions of the resources that apply here and are not frozen.
        frozen: UID to contribution of every frozen resource, whether it applies here or not.
        live: UIDs of all resources that exist and are not being deleted.
        secret_names: the names that may be acted on: every one that is or was in use and is watched.
    """

    applying: Sequence[model.Contribution]
    frozen: Mapping[str, model.Contribution]
    live: frozenset[str]
    secret_names: Sequence[str]


def plan(observed: Observed, desired: Desired, now: datetime.datetime) -> model.Plan:
    """Return the actions that bring the namespace to what is desired, and how it then stands for each resource.

    Args:
        observed: the namespace as it is seen.
        desired: what the resources want.
        now: UTC.
    """
    if observed.namespace is None or observed.namespace.terminating:
        return model.Plan()
    parts = [_Part(observed, desired, name, now) for name in desired.secret_names]
    edits = []
    for account in observed.accounts:
        add = tuple(part.name for part in parts if part.adds(account))
        remove = tuple(part.name for part in parts if part.removes(account))
        if add or remove:
            edits.append(model.EditAccount(account, add, remove))
    return model.Plan(
        writes=tuple(part.write for part in parts if part.write is not None),
        edits=tuple(edits),
        deletions=tuple(
            model.DeleteSecret(part.secret)
            for part in parts
            if part.obsolete and part.secret is not None and not part.secret.terminating
        ),
        outcomes={uid: outcome for part in parts for uid, outcome in part.outcomes()},
        secrets_of={uid: part.name for part in parts for uid in part.uids},
        # What is written under a new name lets go of the old one, and what is let go of may free an entry; and a list
        # that becomes ours by an edit may hold entries that are ours to remove then.
        more=any(part.awaits or (edits and part.left) for part in parts),
    )


class _Part:
    """The plan for one Secret name in one namespace."""

    def __init__(self, observed: Observed, desired: Desired, name: str, now: datetime.datetime) -> None:
        self.name = name
        self.observed = observed
        self.secret = observed.secrets.get(name)
        self.write: model.WriteSecret | None = None
        self.obsolete = False
        self.composed: composition.Composition | None = None
        self.state, self.reason, self.message = model.State.SYNCED, "", ""
        ours = self.secret is not None and self.secret.ours
        contributors = self.secret.contributors if self.secret is not None and ours else ()
        standing = self.secret.servers if self.secret is not None and ours else ()
        self.applying = [contribution for contribution in desired.applying if contribution.secret_name == name]
        moving = self._moving(desired)
        unchanging = {**moving, **desired.frozen}
        # Frozen resources keep what they have brought; they bring nothing to a Secret that lacks them.
        self.held = [
            composition.Held(unchanging[row.uid], rows)
            for row in contributors
            if row.uid in unchanging and (rows := _of(standing, row.uid))
        ]
        self.orphans = [
            composition.Orphan(row, rows)
            for row in contributors
            if row.retain and row.uid not in desired.live and (rows := _of(standing, row.uid))
        ]
        self.reported = [
            *self.applying,
            *(each.contribution for each in self.held if each.contribution.uid in desired.frozen),
        ]
        self.uids = [contribution.uid for contribution in self.reported]
        self.globs = tuple(sorted({glob for contribution in self.applying for glob in contribution.accounts}))
        if self.applying or self.held or self.orphans:
            self._decide(standing, now)
        else:
            self.obsolete = ours
        self.awaits = any(each.contribution.uid in moving for each in self.held) or self._lets_go()

    def _lets_go(self) -> bool:
        """Whether what is kept in the Secret for somebody's sake goes with this write."""
        if self.composed is None:
            return False
        kept = {each.contribution.uid for each in self.held} | {each.contributor.uid for each in self.orphans}
        return not kept <= {row.uid for row in self.composed.contributors}

    def _moving(self, desired: Desired) -> Mapping[str, model.Contribution]:
        """Return the resources that compose into a Secret of another name where what they bring does not stand yet.

        Until it does they keep what they have here: a new name may be refused, or taken by somebody else.
        """
        return {
            contribution.uid: contribution
            for contribution in desired.applying
            if contribution.secret_name != self.name
            and not _brought(contribution.uid, self.observed.secrets.get(contribution.secret_name))
        }

    def _decide(self, standing: Sequence[views.Standing], now: datetime.datetime) -> None:
        """Fill `write` and `state`."""
        secret = self.secret
        if secret is not None and not secret.ours and not secret.adopt:
            self._fail(
                model.State.CONFLICT,
                "Conflict",
                f"a Secret {self.name} that is not ours stands there and was left alone; delete it, or annotate it "
                f"with regcred.io/adopt=true to hand it over, or choose another spec.secretName",
            )
            return
        if secret is not None and secret.terminating:
            self._fail(model.State.WAITING, "Terminating", f"the Secret {self.name} is being deleted")
            return
        try:
            self.composed = composition.compose(
                self.applying, now, standing=standing, held=self.held, orphans=self.orphans
            )
        except dockerconfig.TooLarge as error:
            self._fail(model.State.FAILED, "TooLarge", str(error))
            return
        except dockerconfig.DockerConfigError as error:
            self._fail(model.State.FAILED, "Invalid", str(error))
            return
        composed = self.composed
        if composed is not None and (secret is None or _differs(secret, composed)):
            assert self.observed.namespace is not None  # noqa: S101 - plan() made sure
            self.write = model.WriteSecret(
                namespace=self.observed.namespace.name,
                name=self.name,
                before=secret,
                data=composed.data,
                annotations=composed.annotations,
                owners=composed.owners,
                carried=composed.carried,
            )

    def _fail(self, state: model.State, reason: str, message: str) -> None:
        self.state, self.reason, self.message = state, reason, message

    def wants(self, account: views.AccountView, globs: Iterable[str]) -> bool:
        """Whether the account is among `globs` and has not opted out."""
        return not account.ignored and selection.matches_globs(globs, account.name)

    def adds(self, account: views.AccountView) -> bool:
        """Whether the account shall list the Secret and does not."""
        return (
            (self.composed is not None or _usable(self.secret))
            and self.name not in account.pull_secrets
            and self.wants(account, self.globs)
            and (account.uid, self.name) not in self.observed.contended
        )

    def removes(self, account: views.AccountView) -> bool:
        """Whether the account lists the Secret, nobody asks for that, and the entry is ours to remove."""
        if self.name not in account.pull_secrets or self.wants(account, self.globs):
            return False
        if self.held or self.orphans:
            return False
        if self.obsolete:
            # The Secret goes: whoever wrote the entry, it would dangle.
            return True
        if self.secret is not None:
            # The Secret stays, so the entry may be somebody's own wish: only one that we wrote is removed.
            return self.secret.ours and account.managed
        departed = self.observed.departed.get(self.name)
        # Once: where it stands there again, somebody has it written down, and a dangling name harms no pod.
        again = (account.uid, self.name) in self.observed.taken
        return account.managed or (departed is not None and departed.ours and not again)

    @functools.cached_property
    def left(self) -> int:
        """Count the entries of our name that nobody asks for and that are not provably ours."""
        if self.held or self.orphans:
            return 0
        return sum(
            1
            for account in self.observed.accounts
            if self.name in account.pull_secrets
            and not self.wants(account, self.globs)
            and not self.removes(account)
        )

    def outcomes(self) -> Iterable[tuple[str, model.Outcome]]:
        """Return how the namespace stands for each resource once every action succeeded."""
        contributing = {row.uid for row in self.composed.contributors} if self.composed is not None else set()
        # Many resources are for the same accounts.
        counts: dict[tuple[tuple[str, ...], bool], tuple[int, int, tuple[str, ...]]] = {}
        for contribution in self.reported:
            kind = (contribution.accounts, contribution.frozen)
            if kind not in counts:
                counts[kind] = self._count(*kind)
            accounts, attached, contended = counts[kind]
            state, reason, message = self.state, self.reason, self.message
            if state is model.State.SYNCED and contribution.uid not in contributing:
                state, reason, message = model.State.WAITING, "Waiting", "there is no login to hand out yet"
            shadowed = self.composed.shadowed.get(contribution.uid, ()) if self.composed else ()
            yield (
                contribution.uid,
                _outcome(state, reason, message, accounts, attached, contended, self.left, shadowed),
            )

    def _count(self, globs: Sequence[str], frozen: bool) -> tuple[int, int, tuple[str, ...]]:  # noqa: FBT001
        """Return how many accounts are matched, how many of them list the Secret then, and which are contended."""
        matched = [account for account in self.observed.accounts if self.wants(account, globs)]
        contended = tuple(
            account.name
            for account in matched
            if (account.uid, self.name) in self.observed.contended and self.name not in account.pull_secrets
        )
        attached = sum(
            1 for account in matched if self.name in account.pull_secrets or (not frozen and self.adds(account))
        )
        return len(matched), attached, contended


#: One object for equal outcomes: thousands of namespaces stand alike for each of many resources.
_outcome = functools.lru_cache(maxsize=4096)(model.Outcome)


def _of(standing: Iterable[views.Standing], uid: str) -> tuple[views.Standing, ...]:
    return tuple(row for row in standing if row.uid == uid)


def _brought(uid: str, secret: views.SecretView | None) -> bool:
    """Whether the resource contributes to the Secret as it stands."""
    return _usable(secret) and secret is not None and any(row.uid == uid for row in secret.contributors)


def _usable(secret: views.SecretView | None) -> bool:
    """Whether our Secret stands, and will."""
    return secret is not None and secret.ours and not secret.terminating


def _differs(secret: views.SecretView, composed: composition.Composition) -> bool:
    """Whether the Secret has to be written."""
    if (
        not secret.ours
        or (secret.contributors, secret.servers) != (composed.contributors, composed.standing)
        or (tuple(sorted(secret.owners)) != composed.owner_uids)
    ):
        return True
    # What stands and is only kept has nothing to be compared with.
    return bool(composed.servers) and (secret.revision != composed.revision or not secret.data_owned)
