"""Counts how the namespaces stand for each resource, without ever walking all of them again.  Pure."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from regcred.distribution import model

#: So many failures are listed in a status; the rest is a count.
LISTED = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """One namespace that is not as it should be."""

    namespace: str
    reason: str
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Count:
    """How the namespaces stand for one resource.

    Attributes:
        matched: namespaces it applies to.
        synced: those that hold its logins and whose accounts list them.
        failed: those where something went wrong.
        conflicted: those where a Secret that is not ours stands in the way.
        waiting: those that wait for a first login.
        accounts: service accounts it is for.
        attached: those of them that list the Secret.
        contended: accounts whose entry a rival keeps removing.
        left: entries of our name that could not be proven ours.
        failures: the first of the failures, by namespace.
        truncated: there are more of them.
        shadowed: server to (in how many namespaces, one of them, the winner there).
    """

    matched: int = 0
    synced: int = 0
    failed: int = 0
    conflicted: int = 0
    waiting: int = 0
    accounts: int = 0
    attached: int = 0
    contended: int = 0
    left: int = 0
    failures: Sequence[Failure] = ()
    truncated: bool = False
    shadowed: Mapping[str, tuple[int, str, str]] = dataclasses.field(default_factory=dict)


class Tally:
    """How every namespace stands for one resource."""

    def __init__(self) -> None:
        self._outcomes: dict[str, model.Outcome] = {}
        self._states: collections.Counter[model.State] = collections.Counter()
        self._sums: collections.Counter[str] = collections.Counter()
        self._troubled: dict[str, model.Outcome] = {}
        self._shadowed: dict[str, dict[str, str]] = {}

    @property
    def namespaces(self) -> set[str]:
        """Every namespace it applies to."""
        return set(self._outcomes)

    def put(self, namespace: str, outcome: model.Outcome | None) -> bool:
        """Take in how a namespace stands now (None: it does not apply any more); return whether that is news."""
        before = self._outcomes.get(namespace)
        if before is outcome or before == outcome:
            return False
        if before is not None:
            self._add(before, -1)
            self._troubled.pop(namespace, None)
            for server, _ in before.shadowed:
                del self._shadowed[server][namespace]
                if not self._shadowed[server]:
                    del self._shadowed[server]
            del self._outcomes[namespace]
        if outcome is not None:
            self._outcomes[namespace] = outcome
            self._add(outcome, 1)
            if outcome.state in (model.State.FAILED, model.State.CONFLICT) or outcome.contended:
                self._troubled[namespace] = outcome
            for server, winner in outcome.shadowed:
                self._shadowed.setdefault(server, {})[namespace] = winner
        return True

    def _add(self, outcome: model.Outcome, sign: int) -> None:
        self._states[outcome.state] += sign
        self._sums["accounts"] += sign * outcome.accounts
        self._sums["attached"] += sign * outcome.attached
        self._sums["contended"] += sign * len(outcome.contended)
        self._sums["left"] += sign * outcome.left

    def count(self) -> Count:
        """Return how the namespaces stand now."""
        troubled = sorted(self._troubled.items())
        return Count(
            matched=len(self._outcomes),
            synced=self._states[model.State.SYNCED],
            failed=self._states[model.State.FAILED],
            conflicted=self._states[model.State.CONFLICT],
            waiting=self._states[model.State.WAITING],
            accounts=self._sums["accounts"],
            attached=self._sums["attached"],
            contended=self._sums["contended"],
            left=self._sums["left"],
            failures=[_failure(namespace, outcome) for namespace, outcome in troubled[:LISTED]],
            truncated=len(troubled) > LISTED,
            shadowed={
                server: (len(where), min(where), where[min(where)])
                for server, where in sorted(self._shadowed.items())
            },
        )


def _failure(namespace: str, outcome: model.Outcome) -> Failure:
    if outcome.state in (model.State.FAILED, model.State.CONFLICT):
        return Failure(namespace, outcome.reason, outcome.message)
    listed = ", ".join(outcome.contended[:3])
    return Failure(
        namespace,
        "Contended",
        f"another writer keeps removing the entry from the service accounts {listed}; tried again hourly. Leave "
        f"imagePullSecrets out of what manages them, or list our Secret there",
    )
