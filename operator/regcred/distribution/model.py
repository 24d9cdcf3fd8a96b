"""The values that composition and plan work on: what a resource contributes, and what may be done about it."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from collections.abc import Mapping

from regcred import dockerconfig
from regcred.cluster import views


@dataclasses.dataclass(frozen=True, slots=True)
class Published:
    """One login that is fit to be handed out.

    Attributes:
        login: user name and password.
        version: changes exactly when the login does; random, so that it says nothing about the password.
        expires_at: when it ends, UTC; None where it does not.
    """

    login: dockerconfig.Login
    version: str
    expires_at: datetime.datetime | None = None

    def expired(self, now: datetime.datetime) -> bool:
        """Whether it has ended at `now` (UTC)."""
        return self.expires_at is not None and self.expires_at <= now


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Contribution:
    """What one resource brings to the namespaces it applies to.

    Compared by identity: one object serves all namespaces until anything about it changes, so that what is made
    of it can be remembered.

    Attributes:
        uid: of the resource.
        key: `Kind/name` or `Kind/namespace/name`, for people.
        api_version: of the resource, for the owner reference.
        kind: of the resource, for the owner reference.
        name: of the resource, for the owner reference.
        cluster: it is of the cluster kind, and gives way to a namespaced one.
        created: creation time, UTC: the older wins.
        secret_name: of the Secret it composes into.
        accounts: globs of the service accounts that list the Secret.
        retain: its logins stay when it is deleted.
        logins: server to login.
        frozen: suspended or invalid: what it has brought somewhere stays as it is, and nothing new is brought.
    """

    uid: str
    key: str
    api_version: str
    kind: str
    name: str
    cluster: bool
    created: datetime.datetime
    secret_name: str
    accounts: tuple[str, ...]
    retain: bool
    logins: Mapping[str, Published]
    frozen: bool = False

    @property
    def rank(self) -> tuple[bool, datetime.datetime, str]:
        """Precedence for one server: the lowest wins."""
        return (self.cluster, self.created, self.key)


@dataclasses.dataclass(frozen=True, slots=True)
class WriteSecret:
    """Create our Secret, or bring it up to date in place.

    Attributes:
        before: the Secret as it was seen; None: to be created.
        data: the docker config.
        annotations: what explains it.
        owners: its owner references.
        carried: servers whose entries are kept from the Secret as it stands.
    """

    namespace: str
    name: str
    before: views.SecretView | None
    data: bytes = dataclasses.field(repr=False)
    annotations: Mapping[str, str]
    owners: tuple[Mapping[str, str], ...]
    carried: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class EditAccount:
    """Change the pull Secrets a service account lists; what is not ours stays, in its order."""

    account: views.AccountView
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()

    def result(self, held_back: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """Return the whole list after the edit; names `held_back` are not added."""
        kept = tuple(name for name in self.account.pull_secrets if name not in self.remove)
        return kept + tuple(name for name in self.add if name not in kept and name not in held_back)


@dataclasses.dataclass(frozen=True, slots=True)
class DeleteSecret:
    """Delete our Secret: nobody asks for it any more."""

    before: views.SecretView


class State(enum.Enum):
    """How a namespace stands for one resource."""

    SYNCED = "Synced"
    WAITING = "Waiting"  # no login yet
    FAILED = "Failed"
    CONFLICT = "Conflict"


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """How one namespace stands for one resource after a pass.

    Attributes:
        state: see `State`.
        reason: CamelCase word, where it is not synced.
        message: one sentence for people, where it is not synced.
        accounts: service accounts its globs match.
        attached: those of them that list the Secret.
        contended: accounts whose entry a rival keeps removing.
        left: entries of our name that could not be proven ours and were left.
        shadowed: servers that another resource serves here, with its key.
    """

    state: State
    reason: str = ""
    message: str = ""
    accounts: int = 0
    attached: int = 0
    contended: tuple[str, ...] = ()
    left: int = 0
    shadowed: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What to do in one namespace, in this order: writes, edits, deletions; and how it stands afterwards.

    Attributes:
        outcomes: UID of a resource to how the namespace stands for it once every action succeeded.
        secrets_of: UID of a resource to the Secret it depends on, so that a failed action finds its resources.
        more: there may be more to do once every action succeeded: plan again then.
    """

    writes: tuple[WriteSecret, ...] = ()
    edits: tuple[EditAccount, ...] = ()
    deletions: tuple[DeleteSecret, ...] = ()
    outcomes: Mapping[str, Outcome] = dataclasses.field(default_factory=dict)
    secrets_of: Mapping[str, str] = dataclasses.field(default_factory=dict)
    more: bool = False

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.actions

    @property
    def actions(self) -> int:
        """How many requests it takes."""
        return len(self.writes) + len(self.edits) + len(self.deletions)
