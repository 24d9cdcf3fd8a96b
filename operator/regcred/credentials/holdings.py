"""What each resource holds: its registry entries, the last good login of each, and how they stand.

A login goes through three stations here: a provider has brought it and, where the entry asks for that, it was proven
(`accepted`); it is kept in the cache (`offered`); only then is it handed out.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import secrets
from collections.abc import Mapping
from typing import Any

from regcred import dockerconfig
from regcred.api.conditions import Reason, RegistryReason
from regcred.credentials import asks, provider, verification
from regcred.credentials.cache import Accepted, Record

#: Where a Secret is composed: its name, and its namespace, or "" where it is in many.
Place = tuple[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """How one registry entry of a resource stands.

    Attributes:
        server: as the resource spells it.
        servers: the server and its aliases, canonical, or those an import brought.
        provider: its name, or "".
        identity: who we are there.
        issued_at: of the login in use.
        expires_at: of the login in use.
        next_at: the next try, where one is planned.
        reason: CamelCase word; one of `RegistryReason`, or a provider's own.
        message: one sentence for people, or "".
        usable: a login is there to hand out, and has not ended.
        settled: the last try succeeded.
        stalled: a human must act.
        pending: the first answer to the entry as it is now is still awaited.
        verified: True or False as proven, None where nothing is known, or nothing was asked.
        wants_proof: the entry asks for a handshake.
    """

    server: str
    servers: tuple[str, ...] = ()
    provider: str = ""
    identity: str = ""
    issued_at: datetime.datetime | None = None
    expires_at: datetime.datetime | None = None
    next_at: datetime.datetime | None = None
    reason: str = ""
    message: str = ""
    usable: bool = False
    settled: bool = False
    stalled: bool = False
    pending: bool = False
    verified: bool | None = None
    wants_proof: bool = False


@dataclasses.dataclass(eq=False, slots=True)
class Slot:
    """One registry entry of one resource.

    Attributes:
        holding: of the resource.
        server: as the resource spells it.
        entry: as the resource declares it; None where that is not known since the start.
        error: why what was fetched is of no use to this entry.
        accepted: the last good login.
        offered: what is handed out: `accepted` as soon as it is kept.
        verdict: of the last handshake.
        attempt: handshakes in a row that did not prove what was fetched.
        unproven: the login that they were about last, and how many of them were about that very one.
        answered: the entry as it is now was tried, or has its login from before.
        refresh_from: number of the fetch that a requested refresh waits for; 0 where none is.
        proving: the handshake under way.
    """

    holding: Holding
    server: str
    entry: asks.Entry | None = None
    error: provider.ProviderError | None = None
    accepted: Accepted | None = None
    offered: Accepted | None = None
    verdict: verification.Verdict | None = None
    attempt: int = 0
    unproven: tuple[dockerconfig.Login | None, int] = (None, 0)
    answered: bool = False
    refresh_from: int = 0
    proving: asyncio.Task[None] | None = None

    @property
    def key(self) -> str:
        """Key of its fetch; "" where there is nothing to fetch."""
        return self.entry.key if self.entry is not None and self.entry.error is None else ""

    @property
    def good(self) -> bool:
        """Whether the last good login is what the entry, as it is now, asks for."""
        return (
            self.entry is not None
            and self.accepted is not None
            and self.accepted.key == self.entry.key
            and self.accepted.proof == self.entry.proof
            and self.entry.covered(self.accepted.grant)
        )

    def take(
        self,
        whole: provider.Grant,
        now: datetime.datetime,
        *,
        sources: Mapping[str, str | None],
        proven: bool,
    ) -> bool:
        """Take the part of a grant that is for this entry as its last good one; `error` says why not.

        It must have a login for every server of the entry, and one that has ended already never displaces one that
        lives.  A login that is the same keeps its version.

        Args:
            whole: as it was fetched.
            now: UTC.
            sources: name to resource version of the Secrets it was made from.
            proven: a handshake has shown that it pulls.

        Returns:
            Whether it was taken.
        """
        assert self.entry is not None  # noqa: S101 - only entries that fetch get here
        grant, before = self.entry.narrow(whole), self.accepted
        if not grant.logins or not self.entry.covered(grant):
            missing = ", ".join(sorted(set(self.entry.servers) - set(grant.logins))[:3])
            self.error = provider.InvalidSpec("SourceInvalid", f"there is no login in it for {missing}")
            return False
        if before is not None and _ended(grant, now) and not _ended(before.grant, now):
            self.error = provider.Retryable(
                "Expired",
                f"{self.entry.provider_name} handed out a login that had ended already; compare the clocks",
            )
            return False
        self.error = None
        known = before.grant.logins if before is not None else {}
        versions = {
            server: before.versions[server]
            if before is not None and known.get(server) == login
            else secrets.token_hex(8)
            for server, login in grant.logins.items()
        }
        self.accepted = Accepted(
            provider_name=self.entry.provider_name,
            key=self.entry.key,
            grant=grant,
            versions=versions,
            sources={name: version for name, version in sources.items() if version is not None},
            proof=self.entry.proof if proven else "",
        )
        return True

    def serves(self, server: str) -> bool:
        """Whether the entry, as it is now, still names `server`; an alias that was removed is not handed out."""
        return not self.key or self.server == provider.ANY_SERVER or server in self.entry.servers  # type: ignore[union-attr]

    def stop(self) -> None:
        """End the handshake under way."""
        if self.proving is not None:
            self.proving.cancel()
            self.proving = None

    def row(
        self, now: datetime.datetime, error: provider.ProviderError | None, next_at: datetime.datetime | None
    ) -> Row:
        """Return how it stands.

        Args:
            now: UTC.
            error: of the last fetch.
            next_at: the next fetch, where one is planned.
        """
        entry, offered = self.entry, self.offered
        grant = offered.grant if offered is not None else None
        wants_proof = entry is not None and bool(entry.proof)
        verified = self.verdict.outcome.accepts if self.verdict is not None else None
        if self.verdict is None and wants_proof and offered is not None and offered.proof:
            verified = True
        base = Row(
            server=self.server,
            servers=tuple(grant.logins) if grant is not None else (),
            provider=entry.provider_name if entry is not None else (offered.provider_name if offered else ""),
            identity=grant.identity if grant is not None else "",
            issued_at=grant.issued_at if grant is not None else None,
            expires_at=grant.expires_at if grant is not None else None,
            next_at=next_at,
            usable=grant is not None and not _ended(grant, now),
            verified=verified,
            wants_proof=wants_proof,
        )
        if self.holding.suspended:
            return dataclasses.replace(
                base,
                reason=Reason.SUSPENDED,
                message="suspended: what is there stays and is not renewed",
                next_at=None,
                settled=grant is not None,
            )
        error = (entry.error if entry is not None else None) or self.error or error
        if error is not None:
            field = f"{error.field}: " if error.field else ""
            return dataclasses.replace(
                base, reason=error.reason, message=field + error.message, stalled=error.stalled
            )
        if self.verdict is not None and self.verdict.outcome.accepts is not True:
            refused = self.verdict.outcome.accepts is False
            return dataclasses.replace(
                base,
                reason=self.verdict.outcome.reason if refused else RegistryReason.UNVERIFIED,
                message=self.verdict.message,
                stalled=refused,
                settled=not refused and base.usable,
            )
        if not self.answered or grant is None:
            return dataclasses.replace(
                base, reason=RegistryReason.PROGRESSING, message="the login is being fetched", pending=True
            )
        if not base.usable:
            return dataclasses.replace(
                base, reason=RegistryReason.EXPIRED, message="the login has ended and was not renewed"
            )
        return dataclasses.replace(
            base, reason=RegistryReason.ISSUED, message="; ".join(grant.notes), settled=True
        )


@dataclasses.dataclass(eq=False, slots=True)
class Holding:
    """One resource.

    Attributes:
        uid: of the resource.
        key: of the resource, for people.
        namespace: of the resource; "" for the cluster kind.
        secret_name: as the spec has it now.
        secret_names: every name it has had, since something may be left under each.
        namespaces: which it is for, as `spec.namespaces` says it; None where that is not known.
        slots: its registry entries, by server.
        refresh_wanted: the last refresh request that was begun.
        refresh_handled: the last one that was carried out.
        suspended: `spec.suspend` is true.
        gone: it is deleted, or was not seen yet since the start.
    """

    uid: str
    key: str
    namespace: str = ""
    secret_name: str = ""
    secret_names: tuple[str, ...] = ()
    namespaces: Mapping[str, Any] | None = None
    slots: dict[str, Slot] = dataclasses.field(default_factory=dict)
    refresh_wanted: str = ""
    refresh_handled: str = ""
    suspended: bool = False
    gone: bool = False

    @property
    def place(self) -> Place:
        """Where its Secret is composed."""
        return (self.secret_name, self.namespace)

    def restore(self, record: Record) -> None:
        """Take over what was kept."""
        self.secret_names = record.secret_names
        self.namespaces = record.namespaces
        self.slots = {
            server: Slot(self, server, accepted=accepted, offered=accepted)
            for server, accepted in record.entries.items()
        }

    def record(self) -> Record:
        """Return what is to be kept."""
        entries = {slot.server: slot.accepted for slot in self.slots.values() if slot.accepted is not None}
        return Record(self.uid, self.key, self.secret_names, entries, self.namespaces)

    def offer(self, record: Record) -> None:
        """Hand out what `record` has kept."""
        for server, accepted in record.entries.items():
            if server in self.slots:
                self.slots[server].offered = accepted
        self.refreshed()

    def logins(self) -> dict[str, tuple[dockerconfig.Login, str, datetime.datetime | None]]:
        """Return what is handed out: server to login, its version, and its end (UTC)."""
        found: dict[str, tuple[dockerconfig.Login, str, datetime.datetime | None]] = {}
        # What an import brings stands back behind an entry that names the server.
        for slot in sorted(self.slots.values(), key=lambda slot: slot.server != provider.ANY_SERVER):
            if slot.offered is not None:
                grant = slot.offered.grant
                for server, login in grant.logins.items():
                    if slot.serves(server):
                        found[server] = (login, slot.offered.versions[server], grant.expires_at)
        return found

    def refreshed(self) -> None:
        """Take in that an entry was tried again, or need not be, or that what was brought is handed out.

        The request is carried out with the last of them: whoever waited for it finds the new login.
        """
        if not self.refresh_wanted:
            return
        if not any(slot.refresh_from or slot.offered is not slot.accepted for slot in self.slots.values()):
            self.refresh_handled = self.refresh_wanted


def _ended(grant: provider.Grant, now: datetime.datetime) -> bool:
    return grant.expires_at is not None and grant.expires_at <= now
