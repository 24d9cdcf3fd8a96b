"""The rights that manifests give to the operator, and which of them nothing that was done has needed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable

from dev.audit import Request
from tests.manifests.manifests_support import render


@dataclasses.dataclass(frozen=True)
class Right:
    """One verb on one kind of object: of a role, where it holds everywhere ("") or in one namespace."""

    role: str
    namespace: str
    verb: str
    group: str
    resource: str
    name: str

    def allows(self, request: Request, verb: str) -> bool:
        """Whether it is enough for a request.  Source: the rules of RBAC, as the API server applies them."""
        return (
            self.namespace in ("", request.namespace)
            and (self.verb, self.group) == (verb, request.group)
            and self.resource == "/".join(filter(None, (request.resource, request.subresource)))
            and self.name in ("", request.name)
        )


@functools.cache
def granted(folder: str = "manifests") -> frozenset[Right]:
    """What the bound roles of an installation give."""
    objects = render(folder)
    bound = {
        (item["roleRef"]["kind"], item["roleRef"]["name"])
        for item in objects
        if item["kind"] in ("ClusterRoleBinding", "RoleBinding")
    }
    return frozenset(
        Right(
            f"{item['kind']}/{item['metadata']['name']}",
            item["metadata"].get("namespace", ""),
            verb,
            group,
            resource,
            name,
        )
        for item in objects
        if (item["kind"], item["metadata"]["name"]) in bound
        for rule in item["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", ("",))
    )


def added(overlay: str) -> frozenset[Right]:
    """What an overlay gives beyond the base."""
    return granted(f"manifests/overlays/{overlay}") - granted()


def needs(request: Request) -> tuple[str, ...]:
    """The verbs that a request needs: an apply-patch that creates is logged as a patch and needs both."""
    return ("patch", "create") if (request.verb, request.code) == ("patch", 201) else (request.verb,)


def superfluous(rights: Iterable[Right], uses: Iterable[Request]) -> set[Right]:
    """The rights that no use needs: each could be taken away, and all that was done could still be done."""
    every = frozenset(rights)
    left = set(every)
    for use in uses:
        for verb in needs(use):
            enough = [right for right in every if right.allows(use, verb)]
            if len(enough) == 1:
                left.discard(enough[0])
    return left


def unused(overlay: str, uses: Iterable[Request]) -> set[Right]:
    """The rights that an overlay adds and that no successful use needs."""
    done = [use for use in uses if use.code < 400]
    return superfluous(granted(f"manifests/overlays/{overlay}"), done) & added(overlay)
