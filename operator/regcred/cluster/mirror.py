"""What the operator sees of the cluster, kept current by reflectors and by the answers to its own writes.

One table a kind, of small frozen views.  A table takes whichever state is newer, so the echo of our own write, or
a watch event that was overtaken by it, changes nothing and wakes nobody.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

from regcred.cluster import views


class View(Protocol):
    """What every view has."""

    @property
    def name(self) -> str:
        """The object's name."""

    @property
    def uid(self) -> str:
        """The object's UID."""

    @property
    def version(self) -> str:
        """The object's resource version."""


V = TypeVar("V", bound=View)

#: Called with the namespace, the view before (None: new) and after (None: gone).
OnChange = Callable[[str, V | None, V | None], None]

#: How long a table remembers what was deleted, in seconds: longer than a write and its late echo can take.
_MEMORY = 600.0


class Table(Generic[V]):
    """The objects of one kind, by namespace and name; the `Store` of a reflector.

    Args:
        decode: turns a body into a view.
        on_change: told about every change that is more than a new resource version.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        decode: Callable[[Mapping[str, Any]], V],
        on_change: OnChange[V],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._decode = decode
        self._on_change = on_change
        self._clock = clock
        self._rows: dict[str, dict[str, V]] = {}
        #: What was deleted: from which resource version on it is known to be gone, its last state, and when.
        self._gone: dict[tuple[str, str], tuple[str, V | None, float]] = {}

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows.values())

    def __iter__(self) -> Iterator[V]:
        for rows in self._rows.values():
            yield from rows.values()

    def get(self, namespace: str, name: str) -> V | None:
        """Return the view, or None."""
        return self._rows.get(namespace, {}).get(name)

    def within(self, namespace: str) -> Mapping[str, V]:
        """Return the views of one namespace by name; not to be kept."""
        return self._rows.get(namespace, {})

    def departed(self, namespace: str, name: str) -> V | None:
        """Return the last state of what others deleted in the last ten minutes and did not come back, or None."""
        self._forget()
        gone = self._gone.get((namespace, name))
        return gone[1] if gone else None

    def upsert(self, body: Mapping[str, Any]) -> bool:
        """Take in an object as it is now, and return whether that is news."""
        meta = body["metadata"]
        namespace = meta.get("namespace", "")
        known = self.get(namespace, meta["name"])
        if known is not None and known.version == meta["resourceVersion"]:
            return False  # the echo of our own write, most often: not worth the decoding
        return self.put(namespace, self._decode(body))

    def put(self, namespace: str, view: V, *, quiet: bool = False) -> bool:
        """Take in a view, such as the answer to a write, unless something newer is known; return whether it is news.

        Args:
            namespace: where.
            view: the object as it is now.
            quiet: tell nobody: whoever wrote this knows, and expected nothing else.
        """
        gone = self._gone.get((namespace, view.name))
        if gone is not None and (view.version == gone[0] or not views.newer(view.version, gone[0])):
            return False
        rows = self._rows.setdefault(namespace, {})
        before = rows.get(view.name)
        if before is not None and not views.newer(view.version, before.version):
            return False
        rows[view.name] = view
        self._gone.pop((namespace, view.name), None)
        if not quiet and (before is None or not _same(before, view)):
            self._on_change(namespace, before, view)
        return True

    def remove(self, body: Mapping[str, Any]) -> None:
        """Forget an object: a watch says that it is gone."""
        meta = body["metadata"]
        self.drop(meta.get("namespace", ""), meta["name"], self._decode(body))

    def drop(self, namespace: str, name: str, last: V | None = None, *, since: str = "") -> None:
        """Forget an object, because a watch, a whole list or a 404 says so.

        Args:
            namespace: where.
            name: which.
            last: its last state where known; a row that is newer than it stays.
            since: the resource version from which on it is known to be gone, where a list tells it.
        """
        rows = self._rows.get(namespace, {})
        before = rows.get(name)
        if before is None or (last is not None and not views.newer(last.version, before.version)):
            return
        del rows[name]
        if not rows:
            del self._rows[namespace]
        self._forget()
        # Whatever arrives late from before its end would make a ghost of it.
        gone = last or before
        self._gone[namespace, name] = (since or gone.version, gone, self._clock())
        self._on_change(namespace, before, None)

    def deleted(self, namespace: str, name: str, last: V) -> None:
        """Forget an object that we deleted ourselves, with everything that hung on it: it has not `departed`."""
        self.drop(namespace, name, last)
        if gone := self._gone.get((namespace, name)):
            self._gone[namespace, name] = (gone[0], None, gone[2])

    def replace(self, seen: Iterable[tuple[str, str]], version: str) -> bool:
        """Forget what a whole list of resource version `version` did not hold, and return whether there was such."""
        known = set(seen)
        missing = [
            (namespace, name)
            for namespace, rows in self._rows.items()
            for name, view in rows.items()
            if (namespace, name) not in known and views.newer(version, view.version)
        ]
        for namespace, name in missing:
            self.drop(namespace, name, since=version)
        return bool(missing)

    def _forget(self) -> None:
        deadline = self._clock() - _MEMORY
        # Insertion order is time order, so the old ones stand first.
        for key in list(self._gone):
            if self._gone[key][2] > deadline:
                return
            del self._gone[key]


class Named:
    """The store of a reflector that sees only the objects of one name, as part of a larger table.

    A whole list of one name says nothing about the others, so `replace` is kept to that name.

    Args:
        table: the table of all names.
        name: the one name.
    """

    def __init__(self, table: Table[views.SecretView], name: str) -> None:
        self._table = table
        self._name = name

    def upsert(self, body: Mapping[str, Any]) -> bool:
        """Take in an object as it is now, and return whether that is news."""
        return self._table.upsert(body)

    def remove(self, body: Mapping[str, Any]) -> None:
        """Forget an object."""
        self._table.remove(body)

    def replace(self, seen: Iterable[tuple[str, str]], version: str) -> bool:
        """Forget the objects of this name that a whole list did not hold, and return whether there was such."""
        others = [(view.namespace, view.name) for view in self._table if view.name != self._name]
        return self._table.replace([*seen, *others], version)


class Mirror:
    """Namespaces, service accounts and Secrets of our names.

    Args:
        touch: called with a namespace in which something changed, and whether it waits for its first service.
    """

    def __init__(self, touch: Callable[[str, bool], None]) -> None:
        self._touch = touch
        self.namespaces: Table[views.NamespaceView] = Table(views.namespace, self._namespace_changed)
        self.accounts: Table[views.AccountView] = Table(views.account, self._member_changed)
        self.secrets: Table[views.SecretView] = Table(views.secret, self._secret_changed)

    def _namespace_changed(
        self, _: str, before: views.NamespaceView | None, after: views.NamespaceView | None
    ) -> None:
        changed = after or before
        if changed is not None:
            self._touch(changed.name, _born(before, after))

    def _member_changed(
        self, namespace: str, before: views.AccountView | None, after: views.AccountView | None
    ) -> None:
        # An account's birth is urgent: pods copy its list when they are created, and never again.
        self._touch(namespace, _born(before, after))

    def _secret_changed(self, namespace: str, _: views.SecretView | None, __: views.SecretView | None) -> None:
        self._touch(namespace, False)


def _born(before: View | None, after: View | None) -> bool:
    """Whether this is a new object, which may have taken the place of another of its name unseen."""
    return after is not None and (before is None or before.uid != after.uid)


def _same(before: View, after: View) -> bool:
    """Whether two views differ in nothing but the resource version."""
    return dataclasses.replace(before, version=after.version) == after  # type: ignore[type-var]
