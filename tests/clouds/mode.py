"""One provider in one identity mode: what is declared, who it makes us at the cloud, and whether its login pulls.

Each mode has an identity of its own, so that what was asked for it can be told from everything else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dev.operator_process import NAMESPACE
from tests.clouds.local_clouds import Clouds, Login

Json = dict[str, Any]
Proof = Callable[[Clouds, str, str], Awaitable[bool]]


@dataclasses.dataclass(frozen=True)
class Mode:
    """One provider in one identity mode.

    Attributes:
        name: of the mode and the resource; its namespace is `mode-NAME`, and for the cluster kind every `*-of-NAME`.
        registry: the registry entry.
        identity: of the status row, or what it begins with.
        username: of the login.
        provider: name of the provider.
        known_as: where the ledger has it: kind of login, and identity or what that begins with.
        tenant: it is a namespaced resource.
        accounts: service accounts that it uses: name to annotations.
        secrets: Secrets that it reads: name to data.
        proof: whether a login pulls.
        document: the password of a login that does not end: compared as JSON.
    """

    name: str
    registry: Json
    identity: str
    username: str
    provider: str
    known_as: tuple[str, str]
    tenant: bool = False
    accounts: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    proof: Proof | None = None
    document: Json | None = None

    @property
    def namespace(self) -> str:
        """The namespace that it serves."""
        return f"mode-{self.name}"

    @property
    def home(self) -> str:
        """The namespace that its sources are in."""
        return self.namespace if self.tenant else NAMESPACE

    @property
    def servers(self) -> list[str]:
        """The hosts that its login stands under."""
        return [self.registry["server"], *self.registry.get("aliases", [])]

    def issued(self, clouds: Clouds) -> list[Login]:
        """Return the logins that its cloud handed out for it."""
        return clouds.logins(*self.known_as)

    def objects(self) -> list[Json]:
        """Return what is to be applied: namespace and sources, then the resource."""
        meta = {"namespace": self.home}
        kind = "RegistryCredential" if self.tenant else "ClusterRegistryCredential"
        spec: Json = {"registries": [self.registry]}
        if not self.tenant:
            spec["namespaces"] = {"names": [self.namespace, f"*-of-{self.name}"]}
        return [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}},
            *(
                {
                    "apiVersion": "v1",
                    "kind": "ServiceAccount",
                    "metadata": {**meta, "name": name, "annotations": dict(annotations)},
                }
                for name, annotations in self.accounts.items()
            ),
            *(
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {**meta, "name": name},
                    "stringData": dict(data),
                }
                for name, data in self.secrets.items()
            ),
            {
                "apiVersion": "regcred.io/v1alpha1",
                "kind": kind,
                "metadata": {"name": self.name, **(meta if self.tenant else {})},
                "spec": spec,
            },
        ]
