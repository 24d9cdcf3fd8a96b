"""Carries out a plan: the only place that writes Secrets and service accounts.

Every write of an object that exists is guarded by its uid and resourceVersion: whoever was faster wins, and the
namespace is planned again.  A Secret that does not exist is created by an apply-patch without force, so that one
that appeared meanwhile is a conflict and never overwritten.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from regcred import dockerconfig
from regcred.api import names
from regcred.cluster import client as api
from regcred.cluster import errors, mirror, views
from regcred.distribution import model


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What came of a plan.

    Attributes:
        failures: name of a Secret to the reason and message of what failed about it.
        stale: something had changed meanwhile: plan again at once.
        retry_after: seconds the API server asked to wait, or None.
        writes: Secrets written.
        attached: (account, names added) of every account that got an entry.
        detached: (account, names removed) of every account that lost one.
        deleted: Secrets deleted.
    """

    failures: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    stale: bool = False
    retry_after: float | None = None
    writes: int = 0
    attached: tuple[tuple[views.AccountView, tuple[str, ...]], ...] = ()
    detached: tuple[tuple[views.AccountView, tuple[str, ...]], ...] = ()
    deleted: int = 0


class Writer:
    """Carries out plans.

    Args:
        client: the API client.
        seen: the mirror, which takes in the answers, so that the next plan knows them before the watch does.
    """

    def __init__(self, client: api.Client, seen: mirror.Mirror) -> None:
        self._client = client
        self._seen = seen

    async def execute(self, plan: model.Plan) -> Result:
        """Carry out `plan`, one action after the other; a failure holds back only what depends on it."""
        run = _Run(self._client, self._seen)
        for write in plan.writes:
            await run.guard([write.name], run.write(write))
        for edit in plan.edits:
            await run.guard([*edit.add, *edit.remove], run.edit(edit))
        for deletion in plan.deletions:
            if deletion.before.name not in run.failures:
                await run.guard([deletion.before.name], run.delete(deletion))
        return run.result()


class _Run:
    """One plan on its way."""

    def __init__(self, client: api.Client, seen: mirror.Mirror) -> None:
        self._client = client
        self._seen = seen
        self.failures: dict[str, tuple[str, str]] = {}
        self._stale = False
        self._retry_after: float | None = None
        self._writes = 0
        self._attached: list[tuple[views.AccountView, tuple[str, ...]]] = []
        self._detached: list[tuple[views.AccountView, tuple[str, ...]]] = []
        self._deleted = 0

    def result(self) -> Result:
        return Result(
            failures=self.failures,
            stale=self._stale,
            retry_after=self._retry_after,
            writes=self._writes,
            attached=tuple(self._attached),
            detached=tuple(self._detached),
            deleted=self._deleted,
        )

    async def guard(self, secrets: list[str], action: Any) -> None:
        """Await one action and turn its failure into a value."""
        try:
            await action
            return
        except errors.Conflict:
            self._stale = True
            failure = ("Stale", "it changed meanwhile; planned again")
        except errors.NotFound:
            self._stale = True
            failure = ("Stale", "it is gone; planned again")
        except errors.Forbidden as error:
            if error.terminating:
                failure = ("Terminating", "the namespace is being deleted")
            else:
                failure = ("Forbidden", _forbidden(secrets[0]))
        except errors.Invalid:
            failure = (
                "Invalid",
                f"the API server refused the Secret {secrets[0]}: it is immutable or of another type; delete it",
            )
        except dockerconfig.DockerConfigError as error:
            failure = ("Invalid", f"the Secret {secrets[0]} cannot be carried over: {error}")
        except errors.ApiError as error:
            self._retry_after = error.retry_after
            failure = ("Unavailable", str(error))
        for name in secrets:
            self.failures.setdefault(name, failure)

    async def write(self, write: model.WriteSecret) -> None:
        path = f"/api/v1/namespaces/{write.namespace}/secrets/{write.name}"
        data = write.data
        if write.carried and write.before is not None:
            data = await self._carry(path, write)
        metadata: dict[str, Any] = {
            "name": write.name,
            "labels": {names.MANAGED_BY_LABEL: names.MANAGED_BY},
            "annotations": dict(write.annotations),
            "ownerReferences": [dict(owner) for owner in write.owners],
        }
        if write.before is not None:
            metadata |= {"uid": write.before.uid, "resourceVersion": write.before.version}
        try:
            answer = await self._client.request(
                "PATCH",
                path,
                params={
                    "fieldManager": names.MANAGER,
                    # Only what is ours, and is guarded, is ever forced.
                    "force": "true" if write.before is not None else "false",
                },
                body={
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "type": names.SECRET_TYPE,
                    "metadata": metadata,
                    "data": {names.SECRET_KEY: base64.b64encode(data).decode()},
                },
                content_type=api.APPLY,
                accept=api.METADATA,
            )
        except (errors.Conflict, errors.NotFound):
            await self._refresh_secret(write.namespace, write.name)
            raise
        self._seen.secrets.put(write.namespace, views.secret(answer))
        self._writes += 1

    async def _carry(self, path: str, write: model.WriteSecret) -> bytes:
        """Return the new data plus the entries that a deleted resource left to stay."""
        standing = await self._client.get(path)
        if standing["metadata"]["resourceVersion"] != (write.before.version if write.before else ""):
            raise errors.Conflict(409, "Stale")
        content = base64.b64decode((standing.get("data") or {}).get(names.SECRET_KEY, ""))
        kept = {
            server: login
            for server, login in dockerconfig.parse(content).logins.items()
            if server in write.carried
        }
        return dockerconfig.serialise({**dockerconfig.parse(write.data).logins, **kept})

    async def _refresh_secret(self, namespace: str, name: str) -> None:
        """Take in the Secret as it is now: the watch may be slow, and a stale view would plan the same again."""
        try:
            body = await self._client.get(f"/api/v1/namespaces/{namespace}/secrets/{name}", accept=api.METADATA)
        except errors.NotFound:
            self._seen.secrets.drop(namespace, name)
        except errors.ApiError:
            pass
        else:
            self._seen.secrets.put(namespace, views.secret(body))

    async def edit(self, edit: model.EditAccount) -> None:
        account = edit.account
        wanted = edit.result(frozenset(self.failures))
        if wanted == account.pull_secrets:
            return
        path = f"/api/v1/namespaces/{account.namespace}/serviceaccounts/{account.name}"
        try:
            answer = await self._client.request(
                "PATCH",
                path,
                params={"fieldManager": names.MANAGER},
                # The list is atomic: every kind of patch replaces it whole, so the guard is what keeps the
                # entries of others.  The uid keeps an account from being written that was born again.
                body=json.dumps(
                    {
                        "metadata": {"uid": account.uid, "resourceVersion": account.version},
                        "imagePullSecrets": [{"name": name} for name in wanted],
                    },
                    separators=(",", ":"),
                ).encode(),
                content_type=api.MERGE,
            )
        except (errors.Conflict, errors.NotFound):
            await self._refresh_account(account)
            raise
        self._seen.accounts.put(account.namespace, views.account(answer))
        added = tuple(name for name in wanted if name not in account.pull_secrets)
        if added:
            self._attached.append((account, added))
        removed = tuple(name for name in account.pull_secrets if name not in wanted)
        if removed:
            self._detached.append((account, removed))

    async def _refresh_account(self, account: views.AccountView) -> None:
        try:
            body = await self._client.get(f"/api/v1/namespaces/{account.namespace}/serviceaccounts/{account.name}")
        except errors.NotFound:
            self._seen.accounts.drop(account.namespace, account.name)
        except errors.ApiError:
            pass
        else:
            self._seen.accounts.put(account.namespace, views.account(body))

    async def delete(self, deletion: model.DeleteSecret) -> None:
        before = deletion.before
        try:
            await self._client.request(
                "DELETE",
                f"/api/v1/namespaces/{before.namespace}/secrets/{before.name}",
                body={
                    "apiVersion": "v1",
                    "kind": "DeleteOptions",
                    "preconditions": {"uid": before.uid, "resourceVersion": before.version},
                },
                accept=api.METADATA,
            )
        except errors.NotFound:
            self._seen.secrets.drop(before.namespace, before.name)
            return
        except errors.Conflict:
            await self._refresh_secret(before.namespace, before.name)
            raise
        self._deleted += 1
        self._seen.secrets.drop(before.namespace, before.name)


def _forbidden(secret: str) -> str:
    return (
        f"the operator may not write the Secret {secret} or the service accounts there; add the name to resourceNames "
        f"of the ClusterRole regcred-secrets (see manifests/overlays/secret-name), or use secretName regcred"
    )
