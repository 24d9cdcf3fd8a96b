"""Carries out a plan: the only place that writes Secrets and service accounts.

Every write of an object that exists is guarded by its uid and resourceVersion: whoever was faster wins, and the
namespace is planned again.  A Secret that does not exist is created by an apply-patch without force, so that one
that appeared meanwhile is a conflict and never overwritten.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from regcred import dockerconfig
from regcred.api import names
from regcred.cluster import client as api
from regcred.cluster import errors, mirror, views
from regcred.distribution import model

_log = logging.getLogger(__name__)


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
        doubts: whether a Secret of this name may stand that is not seen yet: looked for before it is created.
    """

    def __init__(
        self, client: api.Client, seen: mirror.Mirror, doubts: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._client = client
        self._seen = seen
        self._doubts = doubts
        self._bodies = _Bodies()

    async def execute(self, plan: model.Plan, moved: Callable[[], None] = lambda: None) -> Result:
        """Carry out `plan`, one action after the other; a failure holds back only what depends on it.

        Args:
            plan: what to do.
            moved: called after each action, however it ended.
        """
        run = _Run(self._client, self._seen, self._doubts, self._bodies)
        for write in plan.writes:
            await run.write_secret(write)
            moved()
        for edit in plan.edits:
            await run.edit_account(edit)
            moved()
        for deletion in plan.deletions:
            await run.delete_secret(deletion)
            moved()
        return run.result()


class _Run:
    """One plan on its way."""

    def __init__(
        self, client: api.Client, seen: mirror.Mirror, doubts: Callable[[str], bool], bodies: _Bodies
    ) -> None:
        self._client = client
        self._seen = seen
        self._doubts = doubts
        self._bodies = bodies
        self._failures: dict[str, tuple[str, str]] = {}
        #: Secrets that do not stand, so no account may list them; those that an account still lists, so they stay.
        self._missing: set[str] = set()
        self._listed: set[str] = set()
        self._stale = False
        self._retry_after: float | None = None
        self._writes = 0
        self._attached: list[tuple[views.AccountView, tuple[str, ...]]] = []
        self._detached: list[tuple[views.AccountView, tuple[str, ...]]] = []
        self._deleted = 0

    def result(self) -> Result:
        return Result(
            failures=self._failures,
            stale=self._stale,
            retry_after=self._retry_after,
            writes=self._writes,
            attached=tuple(self._attached),
            detached=tuple(self._detached),
            deleted=self._deleted,
        )

    async def write_secret(self, write: model.WriteSecret) -> None:
        failure = await self._guard(self._write(write), write.namespace, f"the Secret {write.name}")
        kind = "new" if write.before is None else "in place" if write.before.ours else "adopted"
        _tell(write.namespace, f"write of the Secret {write.name} ({kind}, {len(write.data)} bytes)", failure)
        if failure is not None:
            self._failures.setdefault(write.name, failure)
            # One that is only out of date is still good for those that do not list it yet.
            if write.before is None or not write.before.ours:
                self._missing.add(write.name)

    async def edit_account(self, edit: model.EditAccount) -> None:
        account = edit.account
        failure = await self._guard(self._edit(edit), account.namespace, f"the service account {account.name}")
        change = [f"+{name}" for name in edit.add if name not in self._missing] + [
            f"-{name}" for name in edit.remove
        ]
        told = f"edit of the service account {account.name} ({' '.join(change) or 'nothing left to do'})"
        _tell(account.namespace, told, failure)
        if failure is not None:
            for name in (*edit.add, *edit.remove):
                self._failures.setdefault(name, failure)
            self._listed.update(edit.remove)

    async def delete_secret(self, deletion: model.DeleteSecret) -> None:
        before = deletion.before
        if before.name in self._listed:
            return
        failure = await self._guard(self._delete(before), before.namespace, f"the Secret {before.name}")
        _tell(before.namespace, f"deletion of the Secret {before.name}", failure)
        if failure is not None:
            self._failures.setdefault(before.name, failure)

    async def _guard(self, action: Coroutine[Any, Any, None], namespace: str, what: str) -> tuple[str, str] | None:
        """Await one action and return the reason and message of its failure, or None."""
        try:
            await action
        except errors.Conflict:
            self._stale = True
            return "Stale", f"{what} changed meanwhile; planned again"
        except errors.NotFound:
            self._stale = True
            return "Stale", f"{what} is gone; planned again"
        except errors.Forbidden as error:
            if error.terminating:
                # Its watch will say so too; known at once, it is passed over and no failure.
                self._terminating(namespace)
                return "Terminating", "the namespace is being deleted"
            return "Forbidden", _forbidden(what)
        except errors.Invalid:
            return "Invalid", _invalid(what)
        except dockerconfig.TooLarge as error:
            return "TooLarge", str(error)
        except dockerconfig.DockerConfigError as error:
            return "Invalid", f"{what} cannot be carried over: {error}"
        except errors.ApiError as error:
            self._retry_after = max(error.retry_after or 0.0, self._retry_after or 0.0) or None
            return "Unavailable", str(error)
        return None

    def _terminating(self, name: str) -> None:
        view = self._seen.namespaces.get("", name)
        if view is not None:
            self._seen.namespaces.put("", dataclasses.replace(view, terminating=True))
        self._stale = True

    async def _write(self, write: model.WriteSecret) -> None:
        path = _secret_path(write.namespace, write.name)
        if write.before is None and self._doubts(write.name):
            await self._refresh_secret(write.namespace, write.name, None)
            if self._seen.secrets.get(write.namespace, write.name) is not None:
                raise errors.Conflict(409, "AlreadyExists")
        try:
            answer = await self._apply(path, write)
        except (errors.Conflict, errors.NotFound):
            await self._refresh_secret(write.namespace, write.name, write.before)
            raise
        view = views.secret(answer)
        self._seen.secrets.put(write.namespace, view, quiet=_as_written(view, write))
        self._writes += 1

    async def _apply(self, path: str, write: model.WriteSecret) -> dict[str, Any]:
        if write.carried and write.before is not None:
            data, lost = await self._carry(path, write)
            write = dataclasses.replace(write, data=data, annotations=_without(write.annotations, lost))
        answer: dict[str, Any] = await self._client.request(
            "PATCH",
            path,
            params={
                "fieldManager": names.MANAGER,
                # Only what is ours, and is guarded, is ever forced.
                "force": "true" if write.before is not None else "false",
            },
            body=self._bodies.of(write),
            content_type=api.APPLY,
            accept=api.METADATA,
        )
        return answer

    async def _carry(self, path: str, write: model.WriteSecret) -> tuple[bytes, frozenset[str]]:
        """Return the new data plus the entries that stay as they stand, and which of those are not there."""
        # Should it be another one than was planned for, the guard of the write finds out.
        standing = await self._client.get(path)
        content = base64.b64decode((standing.get("data") or {}).get(names.SECRET_KEY, ""))
        try:
            logins = dockerconfig.parse(content).logins
        except dockerconfig.BadConfig:
            # No kubelet reads it either, so nothing is lost that works.
            logins = {}
        kept = {server: login for server, login in logins.items() if server in write.carried}
        data = dockerconfig.serialise({**dockerconfig.parse(write.data).logins, **kept})
        return data, write.carried - frozenset(kept)

    async def _edit(self, edit: model.EditAccount) -> None:
        account = edit.account
        wanted = edit.result(frozenset(self._missing))
        if wanted == account.pull_secrets:
            return
        try:
            answer = await self._client.request(
                "PATCH",
                _account_path(account),
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
        view = views.account(answer)
        expected = dataclasses.replace(account, version=view.version, pull_secrets=wanted, managed=view.managed)
        self._seen.accounts.put(account.namespace, view, quiet=view == expected)
        added = tuple(name for name in wanted if name not in account.pull_secrets)
        if added:
            self._attached.append((account, added))
        removed = tuple(name for name in account.pull_secrets if name not in wanted)
        if removed:
            self._detached.append((account, removed))

    async def _delete(self, before: views.SecretView) -> None:
        try:
            answer = await self._client.request(
                "DELETE",
                _secret_path(before.namespace, before.name),
                body={
                    "apiVersion": "v1",
                    "kind": "DeleteOptions",
                    "preconditions": {"uid": before.uid, "resourceVersion": before.version},
                },
                accept=api.METADATA,
            )
        except errors.NotFound:
            self._seen.secrets.drop(before.namespace, before.name, before)
            return
        except errors.Conflict:
            await self._refresh_secret(before.namespace, before.name, before)
            raise
        self._deleted += 1
        if answer.get("kind") != "Status":
            # It waits for somebody's finalizer: the answer is the Secret as it is now.
            self._seen.secrets.put(before.namespace, views.secret(answer))
        else:
            self._seen.secrets.deleted(before.namespace, before.name, before)

    async def _refresh_secret(self, namespace: str, name: str, known: views.SecretView | None) -> None:
        """Take in the Secret as it is now: the watch may be slow, and a stale view would plan the same again."""
        try:
            body = await self._client.get(_secret_path(namespace, name), accept=api.METADATA)
        except errors.NotFound:
            self._seen.secrets.drop(namespace, name, known)
        except errors.ApiError:
            pass
        else:
            self._seen.secrets.put(namespace, views.secret(body))

    async def _refresh_account(self, known: views.AccountView) -> None:
        try:
            body = await self._client.get(_account_path(known))
        except errors.NotFound:
            self._seen.accounts.drop(known.namespace, known.name, known)
        except errors.ApiError:
            pass
        else:
            self._seen.accounts.put(known.namespace, views.account(body))


class _Bodies:
    """Apply-patches as they are sent.  Thousands of namespaces get the same Secret, so its text is made once.

    What differs is the guard alone, which is put in at the end.
    """

    def __init__(self) -> None:
        #: Name of a Secret to what its last text was made of, and the text without its last two braces.
        self._made: dict[str, tuple[bytes, Mapping[str, str], tuple[Mapping[str, str], ...], bytes]] = {}

    def of(self, write: model.WriteSecret) -> bytes:
        """Return the body of an apply-patch."""
        data, annotations, owners, text = self._made.get(write.name, (b"", {}, (), b""))
        if data is not write.data or annotations is not write.annotations or owners is not write.owners:
            text = self._text(write)
            self._made[write.name] = (write.data, write.annotations, write.owners, text)
        if write.before is None:
            return text + b"}}"
        guard = {"uid": write.before.uid, "resourceVersion": write.before.version}
        return text + b"," + json.dumps(guard, separators=(",", ":")).encode()[1:] + b"}"

    @staticmethod
    def _text(write: model.WriteSecret) -> bytes:
        document = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": names.SECRET_TYPE,
            "data": {names.SECRET_KEY: base64.b64encode(write.data).decode()},
            "metadata": {
                "name": write.name,
                "labels": {names.MANAGED_BY_LABEL: names.MANAGED_BY},
                "annotations": dict(write.annotations),
                "ownerReferences": [dict(owner) for owner in write.owners],
            },
        }
        return json.dumps(document, separators=(",", ":")).encode()[:-2]


def _tell(namespace: str, what: str, failure: tuple[str, str] | None) -> None:
    """Log how one action ended, where somebody listens: there are thousands of them in a fan-out."""
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug("In %s: %s: %s", namespace, what, "done" if failure is None else ": ".join(failure))


def _secret_path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace}/secrets/{name}"


def _account_path(account: views.AccountView) -> str:
    return f"/api/v1/namespaces/{account.namespace}/serviceaccounts/{account.name}"


def _as_written(view: views.SecretView, write: model.WriteSecret) -> bool:
    """Whether a Secret stands as it was planned: admission may have changed it, and what was to be kept be gone."""
    return (
        view.ours
        and view.data_owned
        and not view.terminating
        and not write.carried
        and view.revision == write.annotations[names.REVISION]
        and sorted(view.owners) == sorted(owner["uid"] for owner in write.owners)
    )


def _without(annotations: Mapping[str, str], lost: frozenset[str]) -> Mapping[str, str]:
    """Return the annotations without the servers whose entries are not there to be kept."""
    if not lost:
        return annotations
    rows = json.loads(annotations[names.SERVERS])
    kept = {server: row for server, row in rows.items() if server not in lost}
    return {**annotations, names.SERVERS: json.dumps(kept, sort_keys=True, separators=(",", ":"))}


def _forbidden(what: str) -> str:
    return (
        f"the operator may not write {what}; for a Secret of another name than regcred, add it to resourceNames of the "
        f"ClusterRole regcred-secrets (see manifests/overlays/secret-name); else an admission policy may be in the way"
    )


def _invalid(what: str) -> str:
    return f"the API server refused {what} as invalid; a Secret that is immutable or of another type has to be deleted"
