"""What users write: the spec of `ClusterRegistryCredential` and of `RegistryCredential`.

Both share one core.  The namespaced kind has no field that could name a namespace, so that there is nothing
to check and nothing to get wrong: its sources, its identity and its targets are its own namespace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

import pydantic

from regcred import dockerconfig
from regcred.api import model, names, texts
from regcred.api.model import Model, Rule, when
from regcred.api.registry import Registry

__all__ = [
    "SPECS",
    "ClusterRegistryCredentialSpec",
    "Core",
    "Namespaces",
    "Pods",
    "Registry",
    "RegistryCredentialSpec",
    "Requirement",
    "Selector",
]


class Pods(Model):
    """What may be done about pods."""

    restart_stuck: Annotated[bool, pydantic.Strict()] = False
    """Whether pods that cannot pull, because they were created before their service account listed the Secret, may be
    evicted, so that their controller makes new ones. Only pods that have a controller and wait for an image of one of
    this resource's registries are, each once. Disruption budgets are respected. The operator needs the permissions of
    manifests/components/restart-stuck. Default false."""


class Requirement(Model):
    """One condition on a label."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "In and NotIn compare with values; add at least one, or use Exists or DoesNotExist",
            lambda row: when(row.operator in {"In", "NotIn"} and not row.values, "values"),
            "!(self.operator in ['In', 'NotIn']) || has(self.values) && self.values.size() > 0",
        ),
        Rule(
            "Exists and DoesNotExist take no values; remove them, or use In or NotIn",
            lambda row: when(row.operator not in {"In", "NotIn"} and row.values, "values"),
            "self.operator in ['In', 'NotIn'] || !has(self.values) || self.values.size() == 0",
        ),
    )

    key: texts.LabelKey = pydantic.Field(examples=["team"])
    """Key of the label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = pydantic.Field(examples=["In"])
    """How the label is compared: In, NotIn, Exists or DoesNotExist."""
    values: Annotated[
        tuple[texts.LabelValue, ...], pydantic.Field(max_length=64, json_schema_extra=model.listed_as_one())
    ] = ()
    """Values for In and NotIn, at most 64; none for Exists and DoesNotExist."""


class Selector(Model):
    """A label selector."""

    atomic: ClassVar[bool] = True
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"has a key that {texts.LABEL_KEY_SAYS.replace('must be', 'is not')}; correct it",
            lambda selector: when(
                any(not texts.is_label_key(key) for key in selector.match_labels), "matchLabels"
            ),
            "!has(self.matchLabels) || self.matchLabels.all(key, key.size() <= 317 && "
            f"key.matches(r'{texts.LABEL_KEY_PATTERN}'))",
        ),
    )
    hints: ClassVar[Mapping[str, str]] = {"team": "labels stand one level deeper, below matchLabels"}

    match_labels: Annotated[Mapping[str, texts.LabelValue], pydantic.Field(max_length=64)] = pydantic.Field(
        default_factory=dict
    )
    """Labels the namespace must have, with exactly these values; at most 64."""
    match_expressions: Annotated[
        tuple[Requirement, ...], pydantic.Field(max_length=64, json_schema_extra=model.listed_as_one())
    ] = ()
    """Conditions on labels, all of which must hold; at most 64."""


class Namespaces(Model):
    """Which namespaces are served."""

    hints: ClassVar[Mapping[str, str]] = {
        "matchLabels": "it belongs below selector",
        "matchExpressions": "it belongs below selector",
        "labelSelector": "it is called selector",
        "include": "it is called names",
    }

    selector: Selector | None = None
    """Serve namespaces whose labels match. An empty selector matches every namespace."""
    names: Annotated[
        tuple[texts.NamespaceGlob, ...],
        pydantic.Field(min_length=1, max_length=256, json_schema_extra=model.listed_as_set()),
    ] = ()
    """Serve namespaces of these names too, whatever their labels: shell globs, 1 to 256, such as team-* or
    shop."""
    exclude: Annotated[
        tuple[texts.NamespaceGlob, ...],
        pydantic.Field(max_length=256, json_schema_extra=model.listed_as_set()),
    ] = ()
    """Never serve namespaces of these names, even if selected above: shell globs, at most 256, such as
    *-sandbox."""


def _repeated_hub(spec: Core) -> Iterator[str]:
    """Find the entries that are Docker Hub once more under another of its names."""
    hub = [
        index
        for index, entry in enumerate(spec.registries)
        if entry.server != "*" and dockerconfig.canonical_server(entry.server) == dockerconfig.DOCKER_HUB
    ]
    yield from (f"registries[{index}].server" for index in hub[1:])


def _repeated(spec: Core) -> Iterator[str]:
    """Find the servers and aliases that an earlier server or alias means too."""
    servers = [(f"registries[{index}].server", entry.server) for index, entry in enumerate(spec.registries)]
    aliases = [
        (f"registries[{index}].aliases[{position}]", alias)
        for index, entry in enumerate(spec.registries)
        for position, alias in enumerate(entry.aliases)
    ]
    hub = set(_repeated_hub(spec))
    seen = set()
    for path, server in servers + aliases:
        canonical = server if server == "*" else dockerconfig.canonical_server(server)
        if canonical in seen and path not in hub:
            yield path
        seen.add(canonical)


class Core(Model):
    """What both kinds declare."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "names Docker Hub twice: docker.io, index.docker.io and registry-1.docker.io are one registry; keep one",
            _repeated_hub,
            "self.registries.filter(entry, entry.server in ['docker.io', 'index.docker.io', "
            "'registry-1.docker.io']).size() <= 1",
            partial=True,
        ),
        Rule(
            "names a registry that another server or alias names already; it has one login, so name it once",
            _repeated,
            "self.registries.all(entry, !has(entry.aliases) || entry.aliases.all(alias, "
            "!self.registries.exists(other, other.server == alias)))",
            partial=True,
        ),
    )
    hints: ClassVar[Mapping[str, str]] = {
        "registry": "it is called registries, a list: a dash before each server",
        "imagePullSecrets": "the Secret's name is called secretName",
        "serviceAccountNames": "it is called serviceAccounts",
        "refreshInterval": "regcred renews by the expiry that the provider states; remove the field",
    }

    registries: Annotated[
        tuple[Registry, ...],
        pydantic.Field(min_length=1, max_length=64, json_schema_extra=model.listed_by("server")),
    ] = pydantic.Field(examples=[[{"server": "quay.io", "login": {"secretRef": {"name": "quay"}}}]])
    """Registries whose logins the Secret holds, 1 to 64, each server once. One that fails does not affect the
    others. Where several resources name one server in a namespace, a RegistryCredential precedes a
    ClusterRegistryCredential, then the older one the younger."""
    secret_name: texts.ObjectName = names.DEFAULT_SECRET_NAME
    """Name of the pull Secret in each served namespace, shared by all resources that name it: it holds the logins
    of all of them. Another name than the default must also be allowed in the operator's permissions. Default
    regcred."""
    service_accounts: Annotated[
        tuple[texts.ServiceAccountGlob, ...],
        pydantic.Field(max_length=64, json_schema_extra=model.listed_as_set()),
    ] = ("default",)
    """Service accounts whose imagePullSecrets get the Secret: names or shell globs, at most 64; ["*"] is every
    account, [] none (pods then name the Secret themselves). An account with the annotation
    regcred.io/ignore: "true" is left alone. Default ["default"]."""
    pods: Pods = pydantic.Field(default_factory=Pods)
    """What may be done about pods that cannot pull. By default nothing."""
    suspend: Annotated[bool, pydantic.Strict()] = False
    """Stop: nothing is fetched and no object is changed for this resource until it is false again; what stands
    stays and may expire. Default false."""
    deletion_policy: Literal["Delete", "Retain"] = "Delete"
    """What becomes of published logins when this resource is deleted: Delete removes them, and the Secret and its
    entries in service accounts with the last one; Retain leaves them as they are. Default Delete."""


_NAMESPACE_HINT = (
    "a RegistryCredential serves its own namespace and no other; remove the field, "
    "or use a ClusterRegistryCredential"
)


def _own_output(spec: Core) -> Iterator[str]:
    """Find the references to the very Secret that is written."""
    for index, entry in enumerate(spec.registries):
        for name in ("ecr", "gcr", "acr", "login"):
            reference = getattr(getattr(entry, name), "secret_ref", None)
            if reference is not None and reference.name == spec.secret_name:
                yield f"registries[{index}].{name}.secretRef.name"


class RegistryCredentialSpec(Core):
    """Logins for the resource's own namespace, had with that namespace's own Secrets and identities."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *Core.rules,
        Rule(
            "a secretRef names the Secret that regcred itself writes, which cannot be its source; "
            "give the source another name, or set secretName",
            _own_output,
            "self.registries.all(entry, "
            + " && ".join(
                f"!(has(entry.{name}) && has(entry.{name}.secretRef) "
                f"&& entry.{name}.secretRef.name == self.secretName)"
                for name in ("ecr", "gcr", "acr", "login")
            )
            + ")",
        ),
    )
    hints: ClassVar[Mapping[str, str]] = {
        **Core.hints,
        "namespaces": _NAMESPACE_HINT,
        "namespace": _NAMESPACE_HINT,
    }


class ClusterRegistryCredentialSpec(Core):
    """Logins for many namespaces, had with the Secrets and identities of the operator's namespace."""

    namespaces: Namespaces = pydantic.Field(examples=[{"names": ["team-*"]}])
    """Namespaces to serve: those that selector or names choose, without those in exclude; {} is every one. Never
    served are kube-system, kube-public, kube-node-lease, the operator's own and those it is told to protect,
    nor a namespace with the label regcred.io/ignore=true."""


#: The spec of each kind.
SPECS: Mapping[str, type[Core]] = {
    names.CLUSTER_KIND: ClusterRegistryCredentialSpec,
    names.NAMESPACED_KIND: RegistryCredentialSpec,
}
