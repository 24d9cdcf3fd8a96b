"""What stands in a composed Secret: the union of the logins of every resource that applies.  Pure.

For one server a login that lives beats one that has ended, then a namespaced resource a cluster one, then the older,
then the lower name.  Equal input gives equal bytes, and a revision that tells without reading any login whether a
Secret is up to date.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from regcred import dockerconfig
from regcred.api import names, times
from regcred.cluster import views
from regcred.distribution import model

#: All annotations of an object together may hold 256 KiB; ours leave room for others.
_ANNOTATION_LIMIT = 128 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """What a resource has in a Secret and may not change now: it stays there as it stands.

    It is taken from the Secret and never from memory, since whoever may write a Secret may write its annotations, and
    would else be given logins that are meant for other namespaces.

    Attributes:
        contribution: of the resource.
        servers: what it has in the Secret.
    """

    contribution: model.Contribution
    servers: tuple[views.Standing, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Orphan:
    """What a deleted resource of `deletionPolicy: Retain` has left in a Secret.

    Attributes:
        contributor: the resource as the Secret remembers it.
        servers: what it has left there.
    """

    contributor: views.Contributor
    servers: tuple[views.Standing, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Composition:
    """A Secret as it should be.

    Attributes:
        data: the docker config, without the carried entries.
        revision: equal revisions mean equal data and annotations.
        annotations: contributors, servers, revision.
        contributors: what the annotation says of them, by UID.
        standing: what the annotation says of the servers.
        owners: owner references, one a contributing resource, by UID; none where a login is to be retained.
        servers: every server in `data`.
        carried: servers that are not in `data`: their entries are kept from the Secret as it stands.
        shadowed: UID of a resource to the servers it does not serve, each with the key of the winner.
    """

    data: bytes = dataclasses.field(repr=False)
    revision: str
    annotations: Mapping[str, str]
    contributors: tuple[views.Contributor, ...]
    standing: tuple[views.Standing, ...]
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
    standing: Iterable[views.Standing] = (),
    held: Iterable[Held] = (),
    orphans: Iterable[Orphan] = (),
) -> Composition | None:
    """Return the Secret that `contributions` make together.

    An expired login is not handed out, but it is not taken away either: where it stands already it stays until
    a better one comes, since our clock may be the one that is wrong.

    Args:
        contributions: of the resources that apply, all of one Secret name.
        now: UTC.
        standing: the logins that the Secret holds already.
        held: those of them that belong to resources which may not change now.
        orphans: those of them that deleted resources of deletionPolicy Retain have left.

    Returns:
        None where there is no login to hand out or to keep: nothing empty is ever written.

    Raises:
        dockerconfig.TooLarge: together they are larger than a Secret may be.
        dockerconfig.DockerConfigError: a login is not fit for a docker config.
    """
    ranked = tuple(sorted(contributions, key=lambda contribution: contribution.rank))
    there = {(row.uid, row.server): row for row in standing}
    ended: set[tuple[str, str]] = set()
    withheld: set[tuple[str, str]] = set()
    kept = list(held)
    for contribution in ranked:
        for server, published in contribution.logins.items():
            if not published.expired(now):
                continue
            ended.add((contribution.uid, server))
            row = there.get((contribution.uid, server))
            if row is None or not _ended(row.expires, now):
                withheld.add((contribution.uid, server))
            if row is not None and not _ended(row.expires, now):
                kept.append(Held(contribution, (row,)))
                ended.discard((contribution.uid, server))
    ended |= {
        (each.contribution.uid, row.server) for each in kept for row in each.servers if _ended(row.expires, now)
    }
    return _compose(
        ranked,
        tuple(sorted(kept, key=lambda each: each.contribution.rank)),
        tuple(sorted(orphans, key=lambda orphan: orphan.contributor.uid)),
        frozenset(withheld),
        frozenset(ended),
    )


def _ended(expires: str, now: datetime.datetime) -> bool:
    try:
        return times.parse_time(expires) <= now
    except ValueError:
        return False


@dataclasses.dataclass(frozen=True, slots=True)
class _Claim:
    """A resource that has a login for a server: a new one to publish, or one that stands and stays."""

    contribution: model.Contribution
    standing: views.Standing
    published: model.Published | None = None


# Thousands of namespaces hold the same Secret: its bytes are made once.
@functools.lru_cache(maxsize=32)
def _compose(
    ranked: tuple[model.Contribution, ...],
    held: tuple[Held, ...],
    orphans: tuple[Orphan, ...],
    withheld: frozenset[tuple[str, str]],
    ended: frozenset[tuple[str, str]],
) -> Composition | None:
    claims = _claims(ranked, held, withheld)
    winners = {
        server: min(rivals, key=lambda claim: ((claim.contribution.uid, server) in ended, claim.contribution.rank))
        for server, rivals in claims.items()
    }
    # What only stood there, or has ended, and has to give way is gone with this write, so nobody remembers it.
    claims = {
        server: [
            claim
            for claim in rivals
            if claim is winners[server]
            or (claim.published is not None and (claim.contribution.uid, server) not in ended)
        ]
        for server, rivals in claims.items()
    }
    left = {
        row.server: (orphan.contributor, row)
        for orphan in orphans
        for row in orphan.servers
        if row.server not in winners
    }
    if not winners and not left:
        return None
    published = {server: claim.published for server, claim in winners.items() if claim.published is not None}
    shadowed: dict[str, list[tuple[str, str]]] = {}
    for server, rivals in sorted(claims.items()):
        for claim in rivals:
            if claim is not winners[server]:
                shadowed.setdefault(claim.contribution.uid, []).append((server, winners[server].contribution.key))
    # A shadowed resource is a contributor too: it applies here, and steps in when the winner goes.
    contributing = {claim.contribution.uid: claim.contribution for rivals in claims.values() for claim in rivals}
    contributors = {
        uid: _contributor(contribution.key, retain=contribution.retain)
        for uid, contribution in contributing.items()
    } | {orphan.uid: _contributor(orphan.key, retain=True) for orphan, _ in left.values()}
    rows = {server: _row(orphan.key, row) for server, (orphan, row) in left.items()}
    rows |= {server: _row(claim.contribution.key, claim.standing) for server, claim in winners.items()}
    carried = frozenset(rows) - frozenset(published)
    shown = _within_limit(rows, carried)
    annotations = {names.CONTRIBUTORS: _compact(contributors), names.SERVERS: _compact(shown)}
    revision = hashlib.sha256(_compact([contributors, rows]).encode()).hexdigest()[:32]
    # The garbage collector knows no Retain: it would delete the whole Secret with the last owner.
    retained = any(row["deletionPolicy"] == "Retain" for row in contributors.values())
    return Composition(
        data=dockerconfig.serialise({server: login.login for server, login in published.items()}),
        revision=revision,
        annotations={**annotations, names.REVISION: revision},
        contributors=tuple(
            views.Contributor(uid, row["from"], row["deletionPolicy"] == "Retain")
            for uid, row in sorted(contributors.items())
        ),
        standing=tuple(
            views.Standing(server, row["uid"], row.get("expires", ""), row.get("version", ""))
            for server, row in sorted(shown.items())
        ),
        owners=() if retained else tuple(_owner(contributing[uid]) for uid in sorted(contributing)),
        servers=frozenset(published),
        carried=carried,
        shadowed={uid: tuple(servers) for uid, servers in shadowed.items()},
    )


def _claims(
    ranked: Sequence[model.Contribution], held: Sequence[Held], withheld: frozenset[tuple[str, str]]
) -> dict[str, list[_Claim]]:
    claims: dict[str, list[_Claim]] = {}
    for contribution in ranked:
        for server, published in contribution.logins.items():
            if (contribution.uid, server) not in withheld:
                expires = times.format_time(published.expires_at) if published.expires_at is not None else ""
                row = views.Standing(server, contribution.uid, expires, published.version)
                claims.setdefault(server, []).append(_Claim(contribution, row, published))
    for each in held:
        for row in each.servers:
            claims.setdefault(row.server, []).append(_Claim(each.contribution, row))
    return claims


def _contributor(key: str, *, retain: bool) -> dict[str, str]:
    return {"from": key, "deletionPolicy": "Retain" if retain else "Delete"}


def _row(key: str, row: views.Standing) -> dict[str, str]:
    told = {"from": key, "uid": row.uid, "expires": row.expires, "version": row.version}
    return {name: value for name, value in told.items() if value}


def _owner(contribution: model.Contribution) -> Mapping[str, str]:
    return {
        "apiVersion": contribution.api_version,
        "kind": contribution.kind,
        "name": contribution.name,
        "uid": contribution.uid,
    }


def _within_limit(rows: Mapping[str, dict[str, str]], first: frozenset[str]) -> dict[str, dict[str, str]]:
    """Return the rows that fit into the annotation: the `first` before all, for nothing else remembers them."""
    size = 2
    shown: dict[str, dict[str, str]] = {}
    for server in sorted(rows, key=lambda server: (server not in first, server)):
        size += len(server) + len(_compact(rows[server])) + 8
        if size > _ANNOTATION_LIMIT:
            break
        shown[server] = rows[server]
    return shown


def _compact(document: object) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
