"""One entry of `spec.registries`: which registry, how its login is had, proven and published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import pydantic

from regcred.api import hosts, model, providers, texts
from regcred.api.model import Model, Rule, when

#: The blocks of a registry entry that choose its provider, as attribute and field (both spelled alike).
PROVIDER_BLOCKS = ("ecr", "gcr", "acr", "login", "plugin")

_LISTED = ", ".join(f"has(self.{name})" for name in PROVIDER_BLOCKS)
_COUNT = f"[{_LISTED}].filter(given, given).size()"
_KNOWN_HOST = " || ".join(
    f"self.server.matches(r'{pattern}')"
    for pattern in (hosts.ECR_PRIVATE, hosts.ECR_PUBLIC, hosts.GOOGLE, *hosts.AZURE.values())
)
_ECR_PRIVATE = f"self.server.matches(r'{hosts.ECR_PRIVATE}')"
_ECR_PUBLIC = f"self.server.matches(r'{hosts.ECR_PUBLIC}')"
_CLOUD = " && ".join(
    f"(self.acr.cloud == '{cloud}' || !self.server.matches(r'{pattern}'))"
    for cloud, pattern in hosts.AZURE.items()
)


_SECRETS_ELSEWHERE = (
    "secrets never stand in a resource; put the login into a Secret and name it by login.secretRef"
)


class Verify(Model):
    """How a login is proven before it is published."""

    hints: ClassVar[Mapping[str, str]] = {
        "tag": "write reference: <tag or digest>",
        "image": "write repository, and reference for the tag",
    }

    repository: texts.Repository = pydantic.Field(examples=["myorg/private"])
    """Repository that the login must be able to pull, without host and tag, such as myorg/private; an official
    image of Docker Hub is library/nginx. A private one proves more: a public one says little about rights."""
    reference: texts.Reference = "latest"
    """Tag or digest in the repository. Only its manifest's head is asked for; nothing is downloaded and no pull
    is counted. Default latest."""
    timeout_seconds: Annotated[int, pydantic.Strict(), pydantic.Field(ge=1, le=60)] = 10
    """How long the registry may take to answer, in seconds, 1 to 60. Default 10."""


class Tls(Model):
    """How the registry's certificate is checked."""

    # Rules of the object, not of the text: an API server repeats a text that breaks a rule, and here that may be a key.
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            texts.PEM_SAYS,
            lambda tls: when("-----BEGIN CERTIFICATE-----" not in tls.ca_bundle, "caBundle"),
            "self.caBundle.contains('-----BEGIN CERTIFICATE-----')",
        ),
        Rule(
            texts.PEM_KEY,
            lambda tls: when("PRIVATE KEY-----" in tls.ca_bundle, "caBundle"),
            "!self.caBundle.contains('PRIVATE KEY-----')",
        ),
    )
    hints: ClassVar[Mapping[str, str]] = {
        "insecure": "regcred always checks certificates; give the registry's CA in caBundle",
        "insecureSkipVerify": "regcred always checks certificates; give the registry's CA in caBundle",
    }

    ca_bundle: texts.CaBundle
    """Certificates in PEM of the private CA that signed the registry's certificate. They are trusted for this
    registry only, in place of the system's. This is for regcred's own requests; container runtimes on the
    nodes have their own configuration."""


class Registry(Model):
    """One registry, and how its login is had."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "names more than one provider; keep exactly one of ecr, gcr, acr, login and plugin",
            lambda entry: when(len(entry.blocks) > 1),
            f"{_COUNT} <= 1",
        ),
        Rule(
            "names no provider, and the host does not tell one; add login: {secretRef: {name: ...}}, "
            "or ecr, gcr, acr or plugin",
            lambda entry: when(not entry.blocks and not hosts.provider_of(entry.server)),
            f"{_COUNT} > 0 || {_KNOWN_HOST}",
        ),
        Rule(
            'server "*" takes over every entry of an existing docker config; '
            "it needs login or plugin, or write the host in place of *",
            lambda entry: when(entry.server == "*" and (entry.ecr or entry.gcr or entry.acr), "server"),
            "self.server != '*' || !(has(self.ecr) || has(self.gcr) || has(self.acr))",
        ),
        Rule(
            'server "*" stands for every host of a docker config, so it has no aliases; remove aliases',
            lambda entry: when(entry.server == "*" and entry.aliases, "aliases"),
            "self.server != '*' || !has(self.aliases) || self.aliases.size() == 0",
        ),
        Rule(
            'server "*" is no single registry to verify against; remove verify, '
            "or declare the registry to verify as an entry of its own",
            lambda entry: when(entry.server == "*" and entry.verify, "verify"),
            "self.server != '*' || !has(self.verify)",
        ),
        Rule(
            "gcr serves hosts of Google alone (*-docker.pkg.dev, gcr.io), and no other gets Google's tokens; "
            "correct the server, or use another provider",
            lambda entry: when(
                entry.gcr and entry.server != "*" and hosts.provider_of(entry.server) != "gcr", "gcr"
            ),
            f"!has(self.gcr) || self.server == '*' || self.server.matches(r'{hosts.GOOGLE}')",
        ),
        Rule(
            "the host of a private ECR registry names its region already; remove ecr.region",
            lambda entry: when(entry.ecr and entry.ecr.region and hosts.names_region(entry.server), "ecr.region"),
            f"!has(self.ecr) || !has(self.ecr.region) || !{_ECR_PRIVATE}",
        ),
        Rule(
            "the host does not name an AWS region; set ecr.region, or write the host as "
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            lambda entry: when(
                entry.ecr
                and not entry.ecr.region
                and entry.server != "*"
                and hosts.provider_of(entry.server) != "ecr",
                "ecr.region",
            ),
            f"!has(self.ecr) || has(self.ecr.region) || self.server == '*' || {_ECR_PRIVATE} || {_ECR_PUBLIC}",
        ),
        Rule(
            "acr.cloud is not the cloud of this host (azurecr.io is Public, azurecr.cn is China, azurecr.us is "
            "USGovernment); remove acr.cloud, which the host tells",
            lambda entry: when(
                entry.acr
                and entry.acr.cloud
                and hosts.azure_cloud_of(entry.server) not in {None, entry.acr.cloud},
                "acr.cloud",
            ),
            f"!has(self.acr) || !has(self.acr.cloud) || {_CLOUD}",
        ),
        Rule(
            "verify.repository begins with the host; write the repository alone, such as myorg/private",
            lambda entry: when(
                entry.verify and entry.verify.repository.startswith(entry.server.partition("/")[0] + "/"),
                "verify.repository",
            ),
            "!has(self.verify) || !self.verify.repository.startsWith(self.server.split('/')[0] + '/')",
        ),
        Rule(
            "verify.repository lies outside the server's own path, so its pulls use another login; "
            "choose one below that path, and write it in full",
            lambda entry: when(
                entry.verify and not _below(entry.server, entry.verify.repository), "verify.repository"
            ),
            "!has(self.verify) || "
            "(self.server.split('/')[0] + '/' + self.verify.repository).startsWith(self.server)",
        ),
    )
    hints: ClassVar[Mapping[str, str]] = {
        "host": "the registry's host is called server",
        "url": "the registry's host is called server",
        "secretRef": "a Secret that holds the login is named by login: {secretRef: {name: ...}}",
        "username": _SECRETS_ELSEWHERE,
        "password": _SECRETS_ELSEWHERE,
        "caBundle": "it belongs below tls",
        "aws": "the block for Amazon is called ecr",
        "gar": "the block for Google is called gcr",
        "google": "the block for Google is called gcr",
        "azure": "the block for Azure is called acr",
    }

    server: texts.Server = pydantic.Field(examples=["quay.io"])
    """Registry as image names have it: a host in lower case, with its port and a repository prefix where it has
    them, without https://. Examples: docker.io, quay.io, registry.example.com:5000, docker.io/myorg,
    123456789012.dkr.ecr.eu-west-1.amazonaws.com. Or "*" with login: every entry of an existing docker config."""
    aliases: Annotated[
        tuple[texts.Alias, ...], pydantic.Field(max_length=16, json_schema_extra=model.listed_as_set())
    ] = ()
    """Further hosts of the same registry, at most 16. The same login is published under each, since a kubelet
    finds a login by the host alone. Example: 123456789012.dkr-ecr.eu-west-1.on.aws."""
    ecr: providers.EcrBlock | None = None
    """Amazon ECR, private or public. May be left out where the host is one of ECR and the operator's own identity
    is used."""
    gcr: providers.GcrBlock | None = None
    """Google Artifact Registry (*-docker.pkg.dev) and gcr.io. May be left out where the host is one of Google's
    and the operator's own identity is used."""
    acr: providers.AcrBlock | None = None
    """Azure Container Registry. May be left out where the host is one of ACR and the operator's own identity
    is used."""
    login: providers.LoginBlock | None = None
    """A user name and password from a Secret, for any registry; or a whole docker config."""
    plugin: providers.PluginBlock | None = None
    """A provider that was installed beside the operator."""
    verify: Verify | None = None
    """Prove each new login by the registry's own pull handshake before it is published. A login that fails is not
    published while the last good one still lives. Left out: logins are published unproven."""
    tls: Tls | None = None
    """How the registry's certificate is checked. Left out: by the CAs of the operator's image."""

    @property
    def blocks(self) -> tuple[str, ...]:
        """Return which provider blocks are given; at most one in a valid entry."""
        return tuple(name for name in PROVIDER_BLOCKS if getattr(self, name) is not None)

    @property
    def provider_name(self) -> str | None:
        """Return the provider the entry names: a block's name or the plugin's; None where the host tells it."""
        if self.plugin is not None:
            return self.plugin.name
        return next(iter(self.blocks), None)

    @property
    def provider_config(self) -> Model | Mapping[str, Any] | None:
        """Return what that provider is told: its block, or a plugin's config; None where no block is given."""
        if self.plugin is not None:
            return self.plugin.config
        block = next(iter(self.blocks), None)
        return None if block is None else getattr(self, block)


def _below(server: str, repository: str) -> bool:
    return repository.startswith(server.partition("/")[2])
