"""Short ways to write down what a namespace holds and what resources want of it."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Mapping

from regcred import dockerconfig
from regcred.api import names
from regcred.cluster import views
from regcred.distribution import composition, model
from regcred.distribution import plan as planning

NOW = datetime.datetime(2026, 3, 1, 12, 0, 0, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)
NAME = names.DEFAULT_SECRET_NAME
NAMESPACE = "team-a"
QUAY, GHCR, HUB = "quay.io", "ghcr.io", dockerconfig.DOCKER_HUB


def published(
    password: str = "pw", *, expires: datetime.datetime | None = None, version: str = ""
) -> model.Published:
    """Return a login whose version follows from its password."""
    return model.Published(dockerconfig.Login("user", password), version or f"v-{password}", expires)


def contribution(
    name: str = "platform",
    logins: Mapping[str, model.Published | str] | Iterable[str] = (QUAY,),
    *,
    cluster: bool = True,
    age: int = 0,
    secret_name: str = NAME,
    accounts: tuple[str, ...] = ("default",),
    retain: bool = False,
    frozen: bool = False,
    uid: str = "",
) -> model.Contribution:
    """Return what a resource brings; `logins` are servers, or server to password, or server to login.

    `age` is in hours: the higher, the older the resource.
    """
    if not isinstance(logins, Mapping):
        logins = {server: f"{name}-{server.partition('.')[0]}" for server in logins}
    kind = names.CLUSTER_KIND if cluster else names.NAMESPACED_KIND
    return model.Contribution(
        uid=uid or f"uid-{name}",
        key=f"{kind}/{name}" if cluster else f"{kind}/{NAMESPACE}/{name}",
        api_version=names.API_VERSION,
        kind=kind,
        name=name,
        cluster=cluster,
        created=NOW - (100 + age) * HOUR,
        secret_name=secret_name,
        accounts=accounts,
        retain=retain,
        logins={
            server: login if isinstance(login, model.Published) else published(login)
            for server, login in logins.items()
        },
        frozen=frozen,
    )


def secret_of(
    composed: composition.Composition | None, *, name: str = NAME, version: str = "10"
) -> views.SecretView:
    """Return the Secret that stands after `composed` was written."""
    assert composed is not None
    return views.SecretView(
        namespace=NAMESPACE,
        name=name,
        uid="uid-secret",
        version=version,
        ours=True,
        contributors=composed.contributors,
        servers=composed.standing,
        revision=composed.revision,
        data_owned=True,
        owners=composed.owner_uids,
    )


def stands(*contributions: model.Contribution, **changes: object) -> views.SecretView:
    """Return the Secret as the contributions have made it, but for `changes`."""
    name = contributions[0].secret_name
    return dataclasses.replace(
        secret_of(composition.compose(contributions, NOW), name=name),
        **changes,  # type: ignore[arg-type]
    )


def foreign(name: str = NAME, *, adopt: bool = False) -> views.SecretView:
    """Return somebody else's Secret."""
    return views.SecretView(NAMESPACE, name, "uid-foreign", "7", adopt=adopt)


def account(
    name: str = "default", *listed: str, managed: bool = False, ignored: bool = False
) -> views.AccountView:
    """Return a service account that lists these Secrets."""
    return views.AccountView(NAMESPACE, name, f"uid-{name}", "20", listed, ignored, managed)


def observed(
    *what: views.SecretView | views.AccountView,
    departed: Iterable[views.SecretView] = (),
    contended: Iterable[tuple[str, str]] = (),
    taken: Iterable[tuple[str, str]] = (),
    terminating: bool = False,
) -> planning.Observed:
    """Return the namespace with these Secrets and accounts in it."""
    return planning.Observed(
        namespace=views.NamespaceView(NAMESPACE, "uid-namespace", "5", {}, terminating),
        secrets={view.name: view for view in what if isinstance(view, views.SecretView)},
        departed={view.name: view for view in departed},
        accounts=[view for view in what if isinstance(view, views.AccountView)],
        contended=frozenset(contended),
        taken=frozenset(taken),
    )


def desired(
    *contributions: model.Contribution,
    elsewhere: Iterable[model.Contribution] = (),
    secret_names: Iterable[str] = (NAME,),
) -> planning.Desired:
    """Return what these resources want; those `elsewhere` exist and do not apply here."""
    everywhere = [*contributions, *elsewhere]
    return planning.Desired(
        applying=[each for each in contributions if not each.frozen],
        frozen={each.uid: each for each in everywhere if each.frozen},
        live=frozenset(each.uid for each in everywhere),
        secret_names=sorted({*secret_names, *(each.secret_name for each in contributions)}),
    )


def plan(seen: planning.Observed, wanted: planning.Desired, now: datetime.datetime = NOW) -> model.Plan:
    """Plan, and check what holds of every plan."""
    made = planning.plan(seen, wanted, now)
    assert {write.name for write in made.writes}.isdisjoint(deletion.before.name for deletion in made.deletions)
    for write in made.writes:
        assert write.data not in (b"", b'{"auths":{}}') or write.carried, "nothing empty is written"
    for edit in made.edits:
        assert edit.result() != edit.account.pull_secrets, "an edit changes something"
    return made


def actions(made: model.Plan) -> list[str]:
    """Return what a plan does, in words and in its order."""
    done = [f"{'create' if write.before is None else 'update'} {write.name}" for write in made.writes]
    for edit in made.edits:
        done += [f"attach {edit.account.name} {name}" for name in edit.add]
        done += [f"detach {edit.account.name} {name}" for name in edit.remove]
    return done + [f"delete {deletion.before.name}" for deletion in made.deletions]


def logins_of(data: bytes) -> dict[str, str]:
    """Return server to password of a docker config."""
    return {server: login.password for server, login in dockerconfig.parse(data).logins.items()}
