"""What a provider may ask of the cluster: Secrets, accounts and their tokens, in one namespace.

The namespace is the resource's own for a tenant and the operator's own for the platform.  It is fixed here, out of
reach of anything a resource says, which closes the way to another tenant's Secrets (the confused deputy behind most
advisories of this kind of controller).  A token is asked for one audience of a provider, never for the API server's,
and it is looked at before it is handed on.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from regcred.cluster import client as api
from regcred.cluster import errors, tokens
from regcred.credentials import provider

#: Tokens for these would log in to the API server itself.
_API_AUDIENCES = ("https://kubernetes.default.svc", "https://kubernetes.default.svc.cluster.local", "kubernetes")
#: What the API server takes for the name of a Secret or an account; nothing else gets into a path.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


class NamespaceReader:
    """The `provider.Cluster` of one namespace.

    Args:
        client: the API client.
        namespace: the only one it reads.
        operator_account: `namespace/name` of the operator's own account, for the advice in errors.
        block: path below the registry entry of the provider's fields, for errors: `ecr`, or `plugin.config`.
        api_audiences: audiences of this API server, besides the usual ones and those of our own token.
    """

    def __init__(
        self,
        client: api.Client,
        namespace: str,
        *,
        operator_account: str,
        block: str = "",
        api_audiences: tuple[str, ...] = (),
    ) -> None:
        #: Name to resource version of every Secret read so far; None for one that is missing.
        self.versions: dict[str, str | None] = {}
        self._client = client
        self._namespace = namespace
        self._operator_account = operator_account
        self._block = block
        self._api_audiences = frozenset((*_API_AUDIENCES, *api_audiences, client.access.server))

    async def read_secret(self, name: str) -> Mapping[str, bytes]:
        """Return the decoded data of a Secret plus its type under the key `""`."""
        body = await self._read("secrets", "Secret", name)
        self.versions[name] = str(body["metadata"]["resourceVersion"])
        try:
            data = {key: base64.b64decode(value) for key, value in (body.get("data") or {}).items()}
        except (binascii.Error, ValueError):  # pragma: no cover - the API server has checked it
            raise provider.InvalidSpec("SourceInvalid", f"the Secret {name} holds no valid base64") from None
        return {**data, "": str(body.get("type", "")).encode()}

    async def read_service_account(self, name: str) -> provider.ServiceAccount:
        """Return a service account."""
        body = await self._read("serviceaccounts", "ServiceAccount", name)
        meta = body["metadata"]
        return provider.ServiceAccount(self._namespace, name, meta["uid"], dict(meta.get("annotations") or {}))

    async def request_token(self, service_account: str, audience: str, seconds: int = 600) -> str:
        """Return a bound token of `service_account` for one `audience`.  Source: TokenRequest API."""
        path = self._path("serviceaccounts", "ServiceAccount", service_account)
        if not audience.strip() or audience.strip().rstrip("/") in await self._forbidden_audiences():
            raise provider.InvalidSpec(
                "SourceInvalid",
                "the audience of a token must be the provider's own, never empty or the API server's",
                field=self._field("serviceAccountRef"),
            )
        try:
            answer = await self._client.request(
                "POST",
                f"{path}/token",
                body={
                    "apiVersion": "authentication.k8s.io/v1",
                    "kind": "TokenRequest",
                    "spec": {"audiences": [audience], "expirationSeconds": max(seconds, 600)},
                },
            )
        except errors.NotFound:
            raise self._missing("ServiceAccount", service_account) from None
        except errors.Forbidden:
            raise self._forbidden("serviceaccounts/token", service_account, "create") from None
        except errors.ApiError as error:
            raise provider.Retryable("ClusterUnavailable", f"no token for {service_account}: {error}") from None
        token = str(answer["status"]["token"])
        if tokens.audiences(token) != {audience}:
            raise provider.InvalidSpec(
                "SourceInvalid",
                f"the API server gave a token of {service_account} for another audience than the one asked for; it "
                f"is not used",
                field=self._field("serviceAccountRef"),
            )
        return token

    async def _forbidden_audiences(self) -> frozenset[str]:
        """Return what this API server takes for itself; our own token tells, whatever the server is called."""
        try:
            own = await self._client.access.headers()
        except errors.ApiError as error:
            raise provider.Retryable("ClusterUnavailable", f"no token can be asked for: {error}") from None
        known = self._api_audiences | tokens.audiences(own.get("Authorization", ""))
        return frozenset(audience.rstrip("/") for audience in known)

    def _path(self, plural: str, kind: str, name: str) -> str:
        if not _NAME.fullmatch(name) or ".." in name:
            raise provider.InvalidSpec(
                "SourceInvalid", f"{name[:253]!r} is no name of a {kind}", field=self._reference(kind)
            )
        return f"/api/v1/namespaces/{self._namespace}/{plural}/{name}"

    async def _read(self, plural: str, kind: str, name: str) -> dict[str, Any]:
        path = self._path(plural, kind, name)
        try:
            return await self._client.get(path)
        except errors.NotFound:
            if kind == "Secret":
                self.versions[name] = None
            raise self._missing(kind, name) from None
        except errors.Forbidden:
            raise self._forbidden(plural, name, "get,list,watch" if kind == "Secret" else "get") from None
        except errors.ApiError as error:
            raise provider.Retryable("ClusterUnavailable", f"{kind} {name} could not be read: {error}") from None

    def _missing(self, kind: str, name: str) -> provider.InvalidSpec:
        return provider.InvalidSpec(
            "SourceMissing",
            f"the {kind} {name} does not exist in the namespace {self._namespace}; create it there",
            field=self._reference(kind),
        )

    def _forbidden(self, resource: str, name: str, verbs: str) -> provider.InvalidSpec:
        role = f"regcred-{resource.replace('/', '-')}-{name}"[:63].rstrip("-.")
        return provider.InvalidSpec(
            "Forbidden",
            f"the operator may not read {resource} {name} in the namespace {self._namespace}; its owner allows it "
            f"with: kubectl -n {self._namespace} create role {role} --verb={verbs} --resource={resource} "
            f"--resource-name={name} && kubectl -n {self._namespace} create rolebinding {role} --role={role} "
            f"--serviceaccount={self._operator_account.replace('/', ':')}",
            field=self._reference("Secret" if resource == "secrets" else "ServiceAccount"),
        )

    def _reference(self, kind: str) -> str:
        return self._field("secretRef.name" if kind == "Secret" else "serviceAccountRef.name")

    def _field(self, path: str) -> str:
        """Return a field's path below the registry entry; how a plugin names its own is known to the plugin only."""
        if self._block.startswith("plugin."):
            return self._block
        return f"{self._block}.{path}" if self._block else path
