"""What the resources want: what each of them brings, and of which namespaces it wants something.

Thousands of tenants have a resource each, and thousands of namespaces are looked at: one namespace must not cost a
walk over all resources, nor one login a walk over all namespaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from regcred.api import names
from regcred.api import resource as api_resource
from regcred.cluster import mirror, views
from regcred.credentials import keeper
from regcred.distribution import model, plan, selection


class Demand:
    """Every resource, and what it brings.

    Attributes:
        resources: by UID; to be read only.
        contributions: by UID, of those that are not being deleted; to be read only.
        platform: UIDs of the resources of the cluster kind; to be read only.

    Args:
        logins: every login.
        protected: globs of namespaces that no cluster resource serves.
    """

    def __init__(self, logins: keeper.Keeper, protected: tuple[str, ...]) -> None:
        self.resources: dict[str, api_resource.Resource] = {}
        self.contributions: dict[str, model.Contribution] = {}
        self.platform: set[str] = set()
        self._tenants: dict[str, set[str]] = {}
        self._live: frozenset[str] = frozenset()
        self._logins = logins
        self._protected = protected

    def put(self, resource: api_resource.Resource) -> None:
        """Take in a resource as it is now; what it brings is made anew by `contribute`."""
        uid = resource.uid
        self.resources[uid] = resource
        (self.platform if resource.cluster else self._tenants.setdefault(resource.namespace, set())).add(uid)
        if resource.deleting:
            self._live -= {uid}
            self.contributions.pop(uid, None)
        elif uid not in self._live:
            self._live |= {uid}

    def pop(self, uid: str) -> api_resource.Resource | None:
        """Forget a resource, and return it; None where it was not known."""
        resource = self.resources.pop(uid, None)
        if resource is None:
            return None
        self.contributions.pop(uid, None)
        self._live -= {uid}
        if resource.cluster:
            self.platform.discard(uid)
        else:
            self._tenants[resource.namespace].discard(uid)
            if not self._tenants[resource.namespace]:
                del self._tenants[resource.namespace]
        return resource

    def contribute(self, resource: api_resource.Resource) -> model.Contribution:
        """Make what a resource brings anew, and return it.  What an invalid one has brought stays as it is."""
        contribution = contributed(
            resource,
            {
                server: model.Published(login, version, expires_at)
                for server, (login, version, expires_at) in self._logins.logins(resource.uid).items()
            },
            self.contributions.get(resource.uid),
        )
        self.contributions[resource.uid] = contribution
        return contribution

    def near(self, namespace: str) -> Sequence[str]:
        """Return the UIDs of the resources that can be about a namespace."""
        return [*self.platform, *self._tenants.get(namespace, ())]

    def of(self, name: str, namespace: views.NamespaceView | None, secret_names: Sequence[str]) -> plan.Desired:
        """Return what is desired of one namespace.

        Args:
            name: of the namespace.
            namespace: as it is seen; None where it is gone.
            secret_names: the names that may be acted on.
        """
        return desired(
            [self.resources[uid] for uid in self.near(name)],
            self.contributions,
            namespace,
            live=self._live,
            secret_names=secret_names,
            protected=self._protected,
        )

    def affects(self, resource: api_resource.Resource, seen: mirror.Mirror) -> set[str]:
        """Return the namespaces that a resource is for, or has something in."""
        if not resource.cluster:
            return {resource.namespace}
        applies = {
            namespace.name
            for namespace in seen.namespaces
            if not namespace.terminating and self._applies(resource, namespace)
        }
        # Thousands of Secrets hold one and the same list of contributors.
        lists = {id(secret.contributors): secret.contributors for secret in seen.secrets}
        ours = {key for key, rows in lists.items() if any(row.uid == resource.uid for row in rows)}
        return applies | {secret.namespace for secret in seen.secrets if id(secret.contributors) in ours}

    def _applies(self, resource: api_resource.Resource, namespace: views.NamespaceView) -> bool:
        return selection.applies(resource, namespace.name, namespace.labels, self._protected)


def contributed(
    resource: api_resource.Resource,
    logins: Mapping[str, model.Published],
    before: model.Contribution | None = None,
) -> model.Contribution:
    """Return what a resource brings.

    Args:
        resource: as it is now.
        logins: canonical server to what is handed out for it.
        before: what it has brought, which stays where it is invalid now.
    """
    spec = resource.spec
    return model.Contribution(
        uid=resource.uid,
        key=resource.key,
        api_version=names.API_VERSION,
        kind=resource.kind,
        name=resource.name,
        cluster=resource.cluster,
        created=resource.creation_timestamp,
        secret_name=spec.secret_name if spec else (before.secret_name if before else ""),
        accounts=tuple(spec.service_accounts) if spec else (before.accounts if before else ()),
        retain=spec.deletion_policy == "Retain" if spec else bool(before and before.retain),
        logins=logins,
        frozen=spec is None or spec.suspend,
    )


def desired(
    resources: Iterable[api_resource.Resource],
    contributions: Mapping[str, model.Contribution],
    namespace: views.NamespaceView | None,
    *,
    live: frozenset[str],
    secret_names: Sequence[str],
    protected: tuple[str, ...],
) -> plan.Desired:
    """Return what is desired of one namespace.

    Args:
        resources: those that can be about it.
        contributions: what they bring, by UID; one that is being deleted brings nothing.
        namespace: as it is seen; None where it is gone.
        live: UIDs of all resources that are not being deleted.
        secret_names: the names that may be acted on.
        protected: globs of namespaces that no cluster resource serves.
    """
    near = [(each, contributions[each.uid]) for each in resources if each.uid in contributions]
    return plan.Desired(
        applying=[
            contribution
            for resource, contribution in near
            if namespace is not None
            and not contribution.frozen
            and selection.applies(resource, namespace.name, namespace.labels, protected)
        ],
        frozen={resource.uid: contribution for resource, contribution in near if contribution.frozen},
        live=live,
        secret_names=secret_names,
    )
