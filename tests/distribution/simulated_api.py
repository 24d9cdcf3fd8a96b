"""A small API server in memory: Secrets and service accounts with owned fields, guards, and conflicts.

It takes the requests that the writer sends, so that the real writer works against it, one atomic request at a time.
`test_simulated_api.py` holds it against the real one.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable, Coroutine
from typing import Any

from regcred.api import names
from regcred.cluster import client as api
from regcred.cluster import errors

Body = dict[str, Any]
Field = tuple[str, ...]


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never has to wait."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the simulated API never makes anybody wait")


class Stored:
    """One object, and who owns which of its fields."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.owned: dict[tuple[str, str], set[Field]] = {}
        self.tracked = True

    @property
    def meta(self) -> Body:
        return self.body["metadata"]

    def fields(self) -> dict[Field, Any]:
        return _fields(self.body)

    def state(self) -> tuple[Any, Any]:
        body = copy.deepcopy(self.body)
        del body["metadata"]["resourceVersion"]
        if not body.get("imagePullSecrets"):
            # An empty list is stored as none.
            body.pop("imagePullSecrets", None)
        owned = {who: set(fields) for who, fields in self.owned.items() if fields}
        return body, owned if self._telling else {}

    @property
    def _telling(self) -> bool:
        """Whether it says who owns what."""
        return self.tracked or any(operation == "Apply" for _, operation in self.owned)

    def rendered(self) -> Body:
        body = copy.deepcopy(self.body)
        if not self._telling:
            return body
        body["metadata"]["managedFields"] = [
            {"manager": manager, "operation": operation, "fieldsV1": _fields_v1(fields)}
            for (manager, operation), fields in self.owned.items()
            if fields
        ]
        return body


class SimulatedApi:
    """Takes the place of `regcred.cluster.client.Client`.

    Attributes:
        objects: path to object.
        log: (method, path, state before, state after) of every request that changed something.
        before_request: called before each request; may change the objects, or raise.
        tracks: whether it tells who wrote what of an account; servers of 1.20 do not.
    """

    tracks = True

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self.log: list[tuple[str, str, Body | None, Body | None]] = []
        self.before_request: Callable[[str, str], None] = lambda _method, _path: None
        self.revision = 0

    async def get(self, path: str, *, accept: str = api.JSON) -> Body:
        """Return an object."""
        return await self.request("GET", path, accept=accept)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Any = None,
        body: Any = None,
        content_type: str = api.JSON,
        accept: str = api.JSON,
    ) -> Any:
        """Answer one request."""
        self.before_request(method, path)
        if method == "GET":
            return self._get(path).rendered()
        document = json.loads(body) if isinstance(body, bytes) else copy.deepcopy(body)
        stored = self.objects.get(path)
        before = stored.rendered() if stored is not None else None
        revision = self.revision
        if (method, content_type) == ("PATCH", api.APPLY):
            assert "/secrets/" in path
            answer = self._apply(path, document, params["fieldManager"], force=params["force"] == "true")
        elif (method, content_type) == ("PATCH", api.MERGE):
            assert "/serviceaccounts/" in path
            answer = self._merge(path, document, params["fieldManager"])
        else:
            assert method == "DELETE"
            answer = self._delete(path, document)
        if self.revision != revision:
            stored = self.objects.get(path)
            self.log.append((method, path, before, stored.rendered() if stored is not None else None))
        return answer

    # What anybody may do.

    def create(self, path: str, body: Body, manager: str) -> Stored:
        """Create an object as `manager`."""
        assert path not in self.objects
        stored = self.objects[path] = Stored(body)
        stored.tracked = self.tracks or "/serviceaccounts/" not in path
        namespace, name = path.split("/")[4], path.split("/")[6]
        self.revision += 1
        body.setdefault("metadata", {}).update(
            {"namespace": namespace, "name": name, "uid": f"{name}-{self.revision}"}
        )
        stored.owned[manager, "Update"] = set(stored.fields())
        self._touch(stored)
        return stored

    def update(self, path: str, manager: str, change: Callable[[Body], None]) -> None:
        """Change an object as `manager`, who takes the ownership of what he changes."""
        stored = self.objects[path]
        before, state = stored.fields(), stored.state()
        change(stored.body)
        self._own_changes(stored, manager, before)
        if stored.state() != state:
            self._touch(stored)

    def remove(self, path: str) -> None:
        """Delete an object, or mark it where somebody's finalizer holds it."""
        stored = self.objects[path]
        if stored.meta.get("finalizers"):
            if "deletionTimestamp" not in stored.meta:
                stored.meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
                self._touch(stored)
        else:
            del self.objects[path]
            self.revision += 1

    # The verbs.

    def _get(self, path: str) -> Stored:
        if path not in self.objects:
            raise errors.NotFound(404, "NotFound")
        return self.objects[path]

    def _touch(self, stored: Stored) -> None:
        self.revision += 1
        stored.meta["resourceVersion"] = str(self.revision)

    def _own_changes(self, stored: Stored, manager: str, before: dict[Field, Any]) -> None:
        after = stored.fields()
        changed = {field for field, value in after.items() if before.get(field) != value}
        for fields in stored.owned.values():
            fields -= changed
            fields &= set(after)
        stored.owned.setdefault((manager, "Update"), set()).update(changed)

    @staticmethod
    def _guard(stored: Stored | None, meta: Body) -> None:
        for key in ("uid", "resourceVersion"):
            if key in meta and (stored is None or stored.meta[key] != meta[key]):
                raise errors.Conflict(409, "Conflict")

    def _apply(self, path: str, document: Body, manager: str, *, force: bool) -> Body:
        stored = self.objects.get(path)
        self._guard(stored, document["metadata"])
        wanted = _fields(document)
        if stored is None:
            meta = {key: document["metadata"].get(key) or {} for key in ("labels", "annotations")}
            meta["ownerReferences"] = document["metadata"].get("ownerReferences") or []
            stored = self.create(
                path, {"type": document["type"], "data": document["data"], "metadata": meta}, manager
            )
            stored.owned = {(manager, "Apply"): set(wanted)}
            return stored.rendered()
        state, live = stored.state(), stored.fields()
        others = {who: fields for who, fields in stored.owned.items() if who != (manager, "Apply")}
        differing = {field for field, value in wanted.items() if live.get(field) != value}
        rivals = [who for who, fields in others.items() if fields & differing]
        if rivals and not force:
            raise errors.Conflict(409, "Conflict")
        if document["type"] != stored.body["type"] or (
            stored.body.get("immutable") and ("data",) in _heads(differing)
        ):
            raise errors.Invalid(422, "Invalid")
        for fields in others.values():
            fields -= differing
        kept = set().union(*others.values()) if others else set()
        for field in stored.owned.get((manager, "Apply"), set()) - set(wanted) - kept:
            _unset(stored.body, field)
        for field in differing:
            _set(stored.body, field, wanted[field])
        stored.owned[manager, "Apply"] = set(wanted)
        if stored.state() != state:
            self._touch(stored)
        return stored.rendered()

    def _merge(self, path: str, document: Body, manager: str) -> Body:
        stored = self._get(path)
        meta = document["metadata"]
        assert {"uid", "resourceVersion"} <= set(meta), "an account is never written without its guard"
        self._guard(stored, meta)

        def change(body: Body) -> None:
            body["imagePullSecrets"] = document["imagePullSecrets"]

        self.update(path, manager, change)
        return stored.rendered()

    def _delete(self, path: str, document: Body) -> Body:
        stored = self._get(path)
        assert {"uid", "resourceVersion"} <= set(document["preconditions"]), "nothing is deleted without a guard"
        self._guard(stored, document["preconditions"])
        self.remove(path)
        return stored.rendered() if path in self.objects else {"kind": "Status"}


def _fields(body: Body) -> dict[Field, Any]:
    meta = body.get("metadata") or {}
    found: dict[Field, Any] = {("data", key): value for key, value in (body.get("data") or {}).items()}
    if "type" in body:
        found["type",] = body["type"]
    for part in ("labels", "annotations"):
        found |= {("metadata", part, key): value for key, value in (meta.get(part) or {}).items()}
    for owner in meta.get("ownerReferences") or []:
        found["metadata", "ownerReferences", owner["uid"]] = owner
    if body.get("imagePullSecrets"):
        found["imagePullSecrets",] = body["imagePullSecrets"]
    return found


def _heads(fields: set[Field]) -> set[Field]:
    return {field[:1] for field in fields}


def _set(body: Body, field: Field, value: Any) -> None:
    if field[:2] == ("metadata", "ownerReferences"):
        _unset(body, field)
        body["metadata"].setdefault("ownerReferences", []).append(value)
        return
    for key in field[:-1]:
        body = body.setdefault(key, {})
    body[field[-1]] = value


def _unset(body: Body, field: Field) -> None:
    if field[:2] == ("metadata", "ownerReferences"):
        owners = body["metadata"].get("ownerReferences") or []
        body["metadata"]["ownerReferences"] = [owner for owner in owners if owner["uid"] != field[2]]
        return
    for key in field[:-1]:
        body = body.get(key) or {}
    body.pop(field[-1], None)


def _fields_v1(fields: set[Field]) -> Body:
    document: Body = {}
    for field in fields:
        place = document
        for key in field[:-1]:
            place = place.setdefault(f"f:{key}", {})
        last = f'k:{{"uid":"{field[-1]}"}}' if field[:2] == ("metadata", "ownerReferences") else f"f:{field[-1]}"
        place[last] = {}
    return document


def encoded(content: bytes) -> str:
    """Return the data of a Secret as it travels."""
    return base64.b64encode(content).decode()


def content_of(body: Body | None) -> bytes:
    """Return the docker config of a Secret."""
    return base64.b64decode(((body or {}).get("data") or {}).get(names.SECRET_KEY, ""))
