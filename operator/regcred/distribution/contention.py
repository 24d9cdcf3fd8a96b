"""Notices a rival that keeps undoing what we do, so that nobody fights for ever.  Pure.

A rival may remove our entry from a service account, put back one that we removed, or change or delete our Secret.
"""

from __future__ import annotations

import collections
import dataclasses

from regcred.cluster import views
from regcred.distribution import model

#: So many times within the window may we put an entry back.
FLIPS = 3
WINDOW = 600.0
#: Seconds we then keep still; about a Secret less long, since every pod of the namespace needs it.
TRUCE = 3600.0
SECRET_TRUCE = 300.0


class Contention:
    """Remembers when something was done again and again.  Times are monotonic seconds.

    What is remembered are pairs: the UID of an account (or of a namespace) and the name of a Secret.

    Args:
        truce: seconds to keep still after a fight.
    """

    def __init__(self, truce: float = TRUCE) -> None:
        self._pause = truce
        self._added: collections.OrderedDict[tuple[str, str], collections.deque[float]] = collections.OrderedDict()
        self._truce: dict[tuple[str, str], float] = {}
        self._taken: dict[tuple[str, str], float] = {}

    def __len__(self) -> int:
        """How many entries are remembered."""
        return len(self._added.keys() | self._truce.keys() | self._taken.keys())

    def added(self, account: str, secret: str, now: float) -> None:
        """Note that the entry `secret` was put into the account of this UID."""
        self._forget(now)
        times = self._added.setdefault((account, secret), collections.deque(maxlen=FLIPS))
        self._added.move_to_end((account, secret))
        times.append(now)
        if len(times) == FLIPS and now - times[0] <= WINDOW:
            self._truce[account, secret] = now + self._pause

    def removed(self, account: str, secret: str, now: float) -> None:
        """Note that we took the entry out ourselves: that is no fight."""
        self._taken.pop((account, secret), None)
        self._taken[account, secret] = now
        self._added.pop((account, secret), None)
        self._truce.pop((account, secret), None)

    def contended(self, account: str, secret: str, now: float) -> bool:
        """Whether the entry is better left alone for now."""
        until = self._truce.get((account, secret))
        if until is not None and until <= now:
            # One try an hour: the next removal within the window ends in a truce again.
            del self._truce[account, secret]
            self._added[account, secret] = collections.deque([now] * (FLIPS - 1), maxlen=FLIPS)
            self._added.move_to_end((account, secret))
            return False
        return until is not None

    def taken(self, account: str, secret: str, now: float) -> bool:
        """Whether we took the entry out lately: if it stands there again, somebody wants it."""
        since = self._taken.get((account, secret))
        return since is not None and now - since <= WINDOW

    def forget(self, accounts: set[str]) -> None:
        """Forget accounts that are gone."""
        for table in (self._added, self._truce, self._taken):
            for key in [key for key in table if key[0] in accounts]:
                del table[key]

    def _forget(self, now: float) -> None:
        """Forget what no longer counts, so that accounts that come and go leave nothing behind."""
        while self._added:
            key, times = next(iter(self._added.items()))
            if now - times[-1] <= WINDOW:
                break
            del self._added[key]
        for key in [key for key, until in self._truce.items() if until + WINDOW < now]:
            del self._truce[key]
        # In the order of time, as the additions are.
        while self._taken:
            key, since = next(iter(self._taken.items()))
            if now - since <= WINDOW:
                break
            del self._taken[key]


class Repairs:
    """Notices a rival that keeps changing or deleting our Secret: the same content is written again and again.

    A renewed login is always written: it is other content, and pods need it.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, dict[str, int]]] = {}
        self._fights = Contention(SECRET_TRUCE)

    def __len__(self) -> int:
        """How many namespaces are remembered."""
        return len(self._last)

    def spare(self, plan: model.Plan, namespace: str, uid: str, now: float) -> model.Plan:
        """Return a plan without the repairs that a truce forbids, and with outcomes that say so.

        Args:
            plan: what would be done.
            namespace: where.
            uid: of the namespace; "" where it is gone.
            now: monotonic seconds.
        """
        if self._last.get(namespace, (uid,))[0] != uid:
            del self._last[namespace]
        idle = {
            write.name
            for write in plan.writes
            if self._again(write) and self._fights.contended(uid, write.name, now)
        }
        if not idle:
            return plan
        missing = {
            write.name for write in plan.writes if write.name in idle and not (write.before and write.before.ours)
        }
        edits = (
            dataclasses.replace(edit, add=tuple(n for n in edit.add if n not in missing)) for edit in plan.edits
        )
        return dataclasses.replace(
            plan,
            writes=tuple(write for write in plan.writes if write.name not in idle),
            edits=tuple(edit for edit in edits if edit.add or edit.remove),
            outcomes={
                uid: _contended(outcome, name) if (name := plan.secrets_of.get(uid, "")) in idle else outcome
                for uid, outcome in plan.outcomes.items()
            },
        )

    def wrote(self, write: model.WriteSecret, uid: str, now: float) -> bool:
        """Note a write that succeeded in the namespace of this UID, and return whether a truce begins."""
        again = self._again(write)
        self._last.setdefault(write.namespace, (uid, {}))[1][write.name] = _fingerprint(write)
        if not again:
            return False
        self._fights.added(uid, write.name, now)
        return self._fights.contended(uid, write.name, now)

    def deleted(self, secret: views.SecretView) -> None:
        """Note that we deleted the Secret ourselves: to make it again is no repair."""
        if secret.namespace in self._last:
            self._last[secret.namespace][1].pop(secret.name, None)

    def _again(self, write: model.WriteSecret) -> bool:
        last = self._last.get(write.namespace)
        return last is not None and last[1].get(write.name) == _fingerprint(write)


def _fingerprint(write: model.WriteSecret) -> int:
    owners = tuple(str(owner.get("uid")) for owner in write.owners)
    return hash((write.data, tuple(sorted(write.annotations.items())), owners))


def _contended(outcome: model.Outcome, name: str) -> model.Outcome:
    return dataclasses.replace(
        outcome,
        state=model.State.FAILED,
        reason="Contended",
        message=f"another writer keeps changing or deleting the Secret {name}; repaired every five minutes only. Find "
        f"it in the Secret's managedFields or in the audit log, and let it leave the Secret alone",
    )
