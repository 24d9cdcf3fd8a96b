"""Which namespaces and service accounts a resource applies to.  Pure.

Protected namespaces are refused here, after the selectors and whatever their labels say: a label is only as strong
as the rule of who may set it.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from regcred.api import names

#: Namespaces that no cluster resource ever serves, besides the operator's own.
PROTECTED = ("kube-system", "kube-public", "kube-node-lease")


class Requirement(Protocol):
    """One row of `matchExpressions`."""

    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def operator(self) -> str: ...  # noqa: D102
    @property
    def values(self) -> Sequence[str]: ...  # noqa: D102


class LabelSelector(Protocol):
    """A Kubernetes label selector."""

    @property
    def match_labels(self) -> Mapping[str, str]: ...  # noqa: D102
    @property
    def match_expressions(self) -> Sequence[Requirement]: ...  # noqa: D102


class NamespaceSelector(Protocol):
    """`spec.namespaces` of the cluster kind."""

    @property
    def selector(self) -> LabelSelector | None: ...  # noqa: D102
    @property
    def names(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def exclude(self) -> Sequence[str]: ...  # noqa: D102


@functools.lru_cache(maxsize=4096)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns))


def matches_globs(patterns: Iterable[str], name: str) -> bool:
    """Whether `name` matches one of the shell globs (`*`, `?`, `[...]`); no pattern matches nothing."""
    patterns = tuple(patterns)
    return bool(patterns) and _compiled(patterns).match(name) is not None


def matches_labels(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether `labels` satisfy every requirement, as Kubernetes defines it; an empty selector matches all.

    Source: `metav1.LabelSelector`.  `NotIn` is satisfied by a label that is missing.
    """
    if any(labels.get(key) != value for key, value in selector.match_labels.items()):
        return False
    for requirement in selector.match_expressions:
        present = requirement.key in labels
        listed = present and labels[requirement.key] in requirement.values
        satisfied = {
            "In": listed,
            "NotIn": not listed,
            "Exists": present,
            "DoesNotExist": not present,
        }[requirement.operator]
        if not satisfied:
            return False
    return True


def selects(selector: NamespaceSelector, name: str, labels: Mapping[str, str]) -> bool:
    """Whether `spec.namespaces` selects the namespace: selector or names, without the excluded.

    With neither `selector` nor `names` every namespace is selected.
    """
    if matches_globs(selector.exclude, name):
        return False
    if selector.selector is None and not selector.names:
        return True
    return matches_globs(selector.names, name) or (
        selector.selector is not None and matches_labels(selector.selector, labels)
    )


def opted_out(labels: Mapping[str, str]) -> bool:
    """Whether a namespace carries the opt-out label."""
    return labels.get(names.IGNORE) == "true"


def protected(name: str, extra: Iterable[str]) -> bool:
    """Whether no cluster resource may serve the namespace; `extra` are globs of the operator's settings."""
    return name in PROTECTED or matches_globs(extra, name)


class Scoped(Protocol):
    """A resource, as far as it says what it applies to: `api.resource.Resource`."""

    @property
    def cluster(self) -> bool: ...  # noqa: D102
    @property
    def namespace(self) -> str: ...  # noqa: D102
    @property
    def deleting(self) -> bool: ...  # noqa: D102
    @property
    def spec(self) -> Any: ...  # noqa: D102


def applies(resource: Scoped, name: str, labels: Mapping[str, str], extra: Iterable[str]) -> bool:
    """Whether a resource applies to a namespace.

    Args:
        resource: whose `spec` is None where it is invalid; it then applies nowhere.
        name: of the namespace.
        labels: of the namespace.
        extra: globs of further namespaces that no cluster resource serves.
    """
    if resource.deleting or resource.spec is None or opted_out(labels):
        return False
    if not resource.cluster:
        return name == resource.namespace
    return not protected(name, extra) and selects(resource.spec.namespaces, name, labels)
