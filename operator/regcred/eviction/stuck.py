"""Which pods may be evicted, and which budgets keep one from it.  Pure.

A pod is evicted only where its successor will fare better, and so that no pod is evicted twice for the same cause: a
pod that was created after the entry is never touched, whatever its list says.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from regcred import dockerconfig, kubelet
from regcred.api import resource as api_resource
from regcred.api import times
from regcred.cluster import views
from regcred.distribution import selection


@dataclasses.dataclass(frozen=True, slots=True)
class Stuck:
    """A pod that its successor would be better than.

    Attributes:
        pod: the pod.
        image: the image that it waits for.
        secret: name of the Secret that it lacks and its account lists.
        resource: the resource that asks for the eviction.
    """

    pod: kubelet.Pod
    image: str
    secret: str
    resource: api_resource.Resource


def waits(pod: kubelet.Pod) -> bool:
    """Whether a pod waits for an image, is one to be replaced, and nothing speaks against a login as the remedy.

    A static pod is owned by its node, which would not make another one.
    """
    return (
        pod.phase == "Pending"
        and not pod.terminating
        and pod.controller is not None
        and pod.controller[0] != "Node"
        and any(_lacks_login(container) for container in pod.containers)
    )


def _lacks_login(container: kubelet.Container) -> bool:
    symptom = container.symptom
    # Kubelets before 1.32 say nothing of the cause while they back off.
    return container.pulling and (symptom.of_login or symptom is kubelet.Symptom.UNKNOWN)


def judge(
    pod: kubelet.Pod,
    account: views.AccountView | None,
    secret: views.SecretView | None,
    asking: api_resource.Resource,
    now: dt.datetime,
) -> Stuck | None:
    """Return why a waiting pod may be evicted for a resource, or None.

    Args:
        pod: as it is seen.
        account: its service account.
        secret: the Secret of the resource's name in its namespace.
        asking: a resource with `restartStuck` that applies to its namespace.
        now: UTC.
    """
    spec = asking.spec
    if spec is None or account is None or secret is None or not secret.ours or secret.terminating:
        return None
    if account.ignored or not selection.matches_globs(spec.service_accounts, account.name):
        return None
    if secret.name not in account.pull_secrets or secret.name in pod.pull_secrets:
        return None
    # A name that the account does not list is the pod's own, and so is the list: its successor would have it again.
    if not set(pod.pull_secrets) <= set(account.pull_secrets):
        return None
    servers = [row.server for row in secret.servers if row.uid == asking.uid and not _ended(row, now)]
    for container in pod.containers:
        if _lacks_login(container) and _served(servers, container.image):
            return Stuck(pod, container.image, secret.name, asking)
    return None


def _served(servers: Iterable[str], image: str) -> bool:
    try:
        return bool(dockerconfig.lookup(servers, image))
    except dockerconfig.BadImage:
        return False


def _ended(row: views.Standing, now: dt.datetime) -> bool:
    try:
        return bool(row.expires) and times.parse_time(row.expires) <= now
    except ValueError:
        return False


def older(pod: kubelet.Pod, since: dt.datetime | None) -> bool:
    """Whether a pod was created before its account's list was as it is.

    Args:
        pod: the pod.
        since: when the list was written last; None where that is not known.

    Times are whole seconds; within one, the pod counts as older: its successor is younger in any case.
    """
    if since is None or pod.created is None:
        # The list is copied into every new pod that has none.
        return not pod.pull_secrets
    return pod.created <= since


@dataclasses.dataclass(frozen=True, slots=True)
class _Requirement:
    key: str
    operator: str
    values: Sequence[str]


@dataclasses.dataclass(frozen=True, slots=True)
class _Selector:
    match_labels: Mapping[str, str]
    match_expressions: Sequence[_Requirement]


def holding_budget(budgets: Iterable[Mapping[str, Any]], labels: Mapping[str, str]) -> str:
    """Return the name of a disruption budget that keeps a pod from being evicted, or "".

    API servers let pods that are Pending go whatever the budget says, since a pod that never ran makes nothing less
    available (kubernetes `registry/core/pod/storage/eviction.go`).  A budget that lets no pod go ever, though, is
    somebody's decision that it be left to a person; and one that was not computed yet says nothing.

    Args:
        budgets: PodDisruptionBudgets of the pod's namespace, as decoded JSON.
        labels: of the pod.
    """
    for budget in budgets:
        if _selects(budget, labels) and _forbids(budget):
            return str(budget["metadata"]["name"])
    return ""


def _selects(budget: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    chosen = (budget.get("spec") or {}).get("selector")
    if chosen is None:
        return False
    selector = _Selector(
        chosen.get("matchLabels") or {},
        [
            _Requirement(row["key"], row["operator"], row.get("values") or ())
            for row in chosen.get("matchExpressions") or ()
        ],
    )
    return selection.matches_labels(selector, labels)


def _forbids(budget: Mapping[str, Any]) -> bool:
    if (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return False
    status = budget.get("status") or {}
    if status.get("observedGeneration", 0) < budget["metadata"].get("generation", 0):
        return True
    if status.get("disruptionsAllowed", 0) > 0:
        return False
    return bool(status.get("desiredHealthy", 0) >= status.get("expectedPods", 0))
