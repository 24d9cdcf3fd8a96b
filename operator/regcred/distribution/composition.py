"""What stands in a composed Secret: the union of the logins of every resource that applies.  Pure.

For one server a namespaced resource beats a cluster one, then the older, then the lower name.  Equal input gives
equal bytes, and a revision that tells without reading any login whether a Secret is up to date.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from regcred import dockerconfig
from regcred.api import names
from regcred.cluster import views
from regcred.distribution import model

#: All annotations of an object together may hold 256 KiB; ours leave room for others.
_ANNOTATION_LIMIT = 128 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Orphan:
    """What a deleted resource of `deletionPolicy: Retain` has left in a Secret.

    Attributes:
        contributor: the resource as the Secret remembers it.
        servers: the servers it served there.
    """

    contributor: views.Contributor
    servers: frozenset[str]


@dataclasses.dataclass(frozen=True, slots=True)
class Composition:
    """A Secret as it should be.

    Attributes:
        data: the docker config.
        revision: equal revisions mean equal data and annotations.
        annotations: contributors, servers, revision.
        owners: owner references, one a contributing resource that is not to be retained.
        servers: every server in `data`.
        carried: servers that are not in `data`: their entries are kept from the Secret as it stands.
        shadowed: UID of a resource to the servers it does not serve, each with the key of the winner.
    """

    data: bytes = dataclasses.field(repr=False)
    revision: str
    annotations: Mapping[str, str]
    owners: tuple[Mapping[str, str], ...]
    servers: frozenset[str]
    carried: frozenset[str]
    shadowed: Mapping[str, tuple[tuple[str, str], ...]]

    @property
    def owner_uids(self) -> tuple[str, ...]:
        """UIDs of the owner references, in order."""
        return tuple(owner["uid"] for owner in self.owners)


def compose(
    contributions: Iterable[model.Contribution],
    now: datetime.datetime,
    *,
    standing: frozenset[str] = frozenset(),
    orphans: Sequence[Orphan] = (),
) -> Composition | None:
    """Return the Secret that `contributions` make together.

    An expired login is not handed out, but it is not taken away either: where it stands already it stays until
    a better one comes, since our clock may be the one that is wrong.

    Args:
        contributions: of the resources that apply, all of one Secret name.
        now: UTC.
        standing: the servers that the Secret holds already.
        orphans: what deleted resources of deletionPolicy Retain have left in the Secret.

    Returns:
        None where there is no login to hand out: nothing empty is ever written.

    Raises:
        dockerconfig.TooLarge: together they are larger than a Secret may be.
    """
    ranked = tuple(sorted(contributions, key=lambda contribution: contribution.rank))
    withheld = frozenset(
        (contribution.uid, server)
        for contribution in ranked
        for server, published in contribution.logins.items()
        if published.expired(now) and server not in standing
    )
    return _compose(ranked, withheld, tuple(orphans))


# Thousands of namespaces hold the same Secret: its bytes are made once.
@functools.lru_cache(maxsize=64)
def _compose(
    ranked: tuple[model.Contribution, ...], withheld: frozenset[tuple[str, str]], orphans: tuple[Orphan, ...]
) -> Composition | None:
    winners: dict[str, tuple[model.Contribution, model.Published]] = {}
    shadowed: dict[str, list[tuple[str, str]]] = {}
    for contribution in ranked:
        for server, published in sorted(contribution.logins.items()):
            if (contribution.uid, server) in withheld:
                continue
            if server in winners:
                shadowed.setdefault(contribution.uid, []).append((server, winners[server][0].key))
            else:
                winners[server] = (contribution, published)
    if not winners:
        return None
    data = dockerconfig.serialise({server: published.login for server, (_, published) in winners.items()})
    carried = {
        server: orphan.contributor
        for orphan in orphans
        for server in sorted(orphan.servers)
        if server not in winners
    }
    # A shadowed resource stays a contributor: it applies here, and steps in when the winner goes.
    contributors = {
        contribution.uid: _contributor(contribution.key, retain=contribution.retain) for contribution in ranked
    } | {orphan.contributor.uid: _contributor(orphan.contributor.key, retain=True) for orphan in orphans}
    annotations = {names.CONTRIBUTORS: _compact(contributors), names.SERVERS: _servers(winners, carried)}
    versions = sorted((server, published.version) for server, (_, published) in winners.items())
    revision = hashlib.sha256(_compact([annotations, versions]).encode()).hexdigest()[:32]
    return Composition(
        data=data,
        revision=revision,
        annotations={**annotations, names.REVISION: revision},
        owners=tuple(_owner(contribution) for contribution in _by_uid(ranked) if not contribution.retain),
        servers=frozenset(winners),
        carried=frozenset(carried),
        shadowed={uid: tuple(rows) for uid, rows in shadowed.items()},
    )


def _contributor(key: str, *, retain: bool) -> dict[str, str]:
    return {"from": key, "deletionPolicy": "Retain" if retain else "Delete"}


def _by_uid(contributions: Sequence[model.Contribution]) -> list[model.Contribution]:
    return sorted(contributions, key=lambda contribution: contribution.uid)


def _owner(contribution: model.Contribution) -> Mapping[str, str]:
    return {
        "apiVersion": contribution.api_version,
        "kind": contribution.kind,
        "name": contribution.name,
        "uid": contribution.uid,
    }


def _servers(
    winners: Mapping[str, tuple[model.Contribution, model.Published]],
    carried: Mapping[str, views.Contributor],
) -> str:
    rows = {server: {"from": orphan.key, "uid": orphan.uid} for server, orphan in carried.items()}
    for server, (contribution, published) in winners.items():
        rows[server] = {"from": contribution.key, "uid": contribution.uid}
        if published.expires_at is not None:
            rows[server]["expires"] = published.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    size = 2
    shown: dict[str, dict[str, str]] = {}
    for server, row in sorted(rows.items()):
        size += len(server) + len(_compact(row)) + 8
        if size > _ANNOTATION_LIMIT:
            break
        shown[server] = row
    return _compact(shown)


def _compact(document: object) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
