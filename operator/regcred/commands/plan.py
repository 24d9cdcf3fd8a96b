"""`plan`: what would applying these resources change?  The operator's own planner, before and after."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from regcred import demand, dockerconfig
from regcred.api import names, spec, times
from regcred.api import resource as api_resource
from regcred.cluster import client as api
from regcred.cluster import views
from regcred.commands import common, documents, resources, told
from regcred.distribution import model
from regcred.distribution import plan as planning

#: Stands for a login that is not known here: what it is makes no difference to a plan.
_UNKNOWN = dockerconfig.Login("planned", "planned")
_PLANNED = "planned"
#: Reasons of a row in the status that do not speak against a login.
_HOPEFUL = frozenset({"Issued", "Verified", "Shadowed", "Progressing", "Suspended"})


@click.command()
@click.option("-f", "--filename", "paths", multiple=True, required=True, metavar="FILE", help="File, folder or -.")
@click.option("-R", "--recursive", is_flag=True, help="Folders below, too.")
@click.option("--delete", is_flag=True, help="Plan that the resources of the files are deleted, not applied.")
@common.protected
@common.operator_namespace
@common.connection
@common.output
@common.asynchronous
async def plan(paths: Sequence[str], recursive: bool, **options: Any) -> int:  # noqa: FBT001 - click's
    """Say what applying, editing or deleting these resources would change: namespaces, Secrets, service accounts.

    The operator's own planner is asked with the cluster as it is now, once without and once with the resources of the
    files. Every login is taken to be available; of an import (server "*"), those that its Secret holds, where you may
    read it. Nothing is changed. It ends with 1 where a file is not valid, or a namespace would be in conflict.
    """
    found: list[documents.Document] = []
    faults: list[documents.Fault] = []
    for name, text in documents.read(paths, recursive=recursive):
        loaded, wrong = documents.load(name, text)
        found += loaded
        faults += wrong
    for fault in faults:
        click.echo(common.plain(fault), err=True)
    if faults:
        return common.FOUND
    if not found:
        raise click.UsageError("there is no resource of regcred in the files")
    kubeconfig, context = options["kubeconfig"], options["context"]
    default = common.default_namespace(kubeconfig, context)
    asked = [
        each.parsed
        if each.parsed.cluster or each.parsed.namespace
        else dataclasses.replace(each.parsed, namespace=default)
        for each in found
    ]
    where = options["operator_namespace"]
    async with common.connected(kubeconfig, context) as client:
        globs = await told.protected_namespaces(client, where, options["protected_namespaces"])
        before = await resources.everything(client)
        after = _without(before, asked) if options["delete"] else _merged(before, asked, dt.datetime.now(dt.UTC))
        imports, gaps = await _imports(client, where, (*before, *after))
        changes = await _changes(client, before, after, (where, *globs), imports)
    conflicts = [change for change in changes if change["secret"] == "conflict"]  # noqa: S105 - a verb
    if options["form"]:
        document = {"changes": changes, "summary": _summary(changes), "couldNotRead": gaps}
        common.emit(document, options["form"])
    else:
        for gap in gaps:
            common.say(f"Not in this plan: {gap}", "yellow")
        _show(changes)
    return common.FOUND if conflicts else 0


#: The servers in the docker configs of imports, by namespace and name of the Secret.
_Imports = Mapping[tuple[str, str], frozenset[str]]


async def _imports(
    client: api.Client, where: str, found: Sequence[api_resource.Resource]
) -> tuple[_Imports, list[str]]:
    if not any(entry.server == "*" for each in found if each.spec is not None for entry in each.spec.registries):
        return {}, []
    from regcred.commands import sources  # noqa: PLC0415 - providers take a moment, which few plans need

    return await sources.imported(client, where, found)


async def _changes(
    client: api.Client,
    before: Sequence[api_resource.Resource],
    after: Sequence[api_resource.Resource],
    protected: tuple[str, ...],
    imports: _Imports,
) -> list[dict[str, Any]]:
    now = dt.datetime.now(dt.UTC)
    wanted = {each.spec.secret_name for each in (*before, *after) if each.spec is not None}
    wanted |= {names.DEFAULT_SECRET_NAME}
    seen = await _Seen.read(client, sorted(wanted))
    found = []
    for namespace in sorted(seen.namespaces, key=lambda view: view.name):
        observed = seen.observed(namespace)
        old = _plan(observed, before, protected, sorted(wanted), now=now, imports=imports)
        new = _plan(observed, after, protected, sorted(wanted), now=now, imports=imports)
        found += _difference(observed, old, new)
    return found


def _without(
    before: Sequence[api_resource.Resource], asked: Sequence[api_resource.Resource]
) -> list[api_resource.Resource]:
    gone = {resource.key for resource in asked}
    return [resource for resource in before if resource.key not in gone]


def _merged(
    before: Sequence[api_resource.Resource], asked: Sequence[api_resource.Resource], now: dt.datetime
) -> list[api_resource.Resource]:
    """Return the resources as they would be."""
    merged = {resource.key: resource for resource in before}
    for resource in asked:
        known = merged.get(resource.key)
        merged[resource.key] = dataclasses.replace(
            resource,
            uid=known.uid if known is not None else f"planned-{resource.key.replace('/', '-')}",
            creation_timestamp=known.creation_timestamp if known is not None else now,
            deleting=known.deleting if known is not None else False,
            status=known.status if known is not None else {},
        )
    return list(merged.values())


@dataclasses.dataclass(frozen=True, slots=True)
class _Seen:
    """The cluster as it is: the views that the operator has of it."""

    namespaces: Sequence[views.NamespaceView]
    accounts: Mapping[str, Sequence[views.AccountView]]
    secrets: Mapping[str, Mapping[str, views.SecretView]]

    @classmethod
    async def read(cls, client: api.Client, secret_names: Iterable[str]) -> _Seen:
        namespaces = [views.namespace(body) for body in await common.listed(client, "/api/v1/namespaces")]
        accounts: dict[str, list[views.AccountView]] = {}
        for body in await common.listed(client, "/api/v1/serviceaccounts"):
            accounts.setdefault(body["metadata"]["namespace"], []).append(views.account(body))
        secrets: dict[str, dict[str, views.SecretView]] = {}
        for name in secret_names:
            pages = client.pages(
                "/api/v1/secrets", params={"fieldSelector": f"metadata.name={name}"}, metadata=True
            )
            async for items, _ in pages:
                for body in items:
                    secrets.setdefault(body["metadata"]["namespace"], {})[name] = views.secret(body)
        return cls(namespaces, accounts, secrets)

    def observed(self, namespace: views.NamespaceView) -> planning.Observed:
        return planning.Observed(
            namespace=namespace,
            secrets=self.secrets.get(namespace.name, {}),
            departed={},
            accounts=self.accounts.get(namespace.name, ()),
        )


def _plan(
    observed: planning.Observed,
    all_resources: Sequence[api_resource.Resource],
    protected: tuple[str, ...],
    secret_names: Sequence[str],
    *,
    now: dt.datetime,
    imports: _Imports,
) -> model.Plan:
    assert observed.namespace is not None  # noqa: S101 - it was listed
    namespace = observed.namespace
    near = [
        resource
        for resource in all_resources
        if not resource.deleting and (resource.cluster or resource.namespace == namespace.name)
    ]
    desired = demand.desired(
        near,
        {resource.uid: _contribution(resource, observed, imports, protected[0]) for resource in near},
        namespace,
        live=frozenset(resource.uid for resource in all_resources if not resource.deleting),
        secret_names=secret_names,
        protected=protected,
    )
    return planning.plan(observed, desired, now)


def _contribution(
    resource: api_resource.Resource, observed: planning.Observed, imports: _Imports, where: str
) -> model.Contribution:
    """Return what a resource brings; what stands already is taken as it stands, so that it makes no difference."""
    spec = resource.spec
    standing = {
        row.server: row
        for secret in observed.secrets.values()
        for row in secret.servers
        if row.uid == resource.uid
    }
    logins: dict[str, model.Published] = {}
    for entry in spec.registries if spec is not None else ():
        if entry.server == "*":
            held = imports.get((resource.namespace or where, _source(entry)), frozenset(standing))
            servers = [server for server in sorted(held) if not _declared(resource, server)]
        else:
            servers = [dockerconfig.canonical_server(server) for server in (entry.server, *entry.aliases)]
        if not _available(resource, entry.server):
            servers = [server for server in servers if server in standing]
        for server in servers:
            row = standing.get(server)
            logins[server] = model.Published(
                _UNKNOWN, row.version if row else _PLANNED, _time(row.expires) if row else None
            )
    return demand.contributed(resource, logins)


def _source(entry: spec.Registry) -> str:
    return entry.login.secret_ref.name if entry.login is not None else ""


def _declared(resource: api_resource.Resource, server: str) -> bool:
    assert resource.spec is not None  # noqa: S101 - the caller has looked
    return any(
        server in map(dockerconfig.canonical_server, (entry.server, *entry.aliases))
        for entry in resource.spec.registries
        if entry.server != "*"
    )


def _available(resource: api_resource.Resource, server: str) -> bool:
    """Whether a login is there or can be hoped for: not where the operator has tried in vain."""
    rows = resource.status.get("registries") or ()
    row = next((row for row in rows if row.get("server") == server), None)
    return row is None or bool(row.get("expiresAt")) or row.get("reason") in _HOPEFUL


def _time(text: str) -> dt.datetime | None:
    return times.parse_time(text) if text else None


def _difference(observed: planning.Observed, old: model.Plan, new: model.Plan) -> list[dict[str, Any]]:
    """Return what the second plan does to a namespace and the first one does not."""
    assert observed.namespace is not None  # noqa: S101 - it was listed
    secrets = sorted({write.name for write in (*old.writes, *new.writes)} | set(observed.secrets))
    conflicts = {
        new.secrets_of[uid]
        for uid, outcome in new.outcomes.items()
        if outcome.state is model.State.CONFLICT and not _same_outcome(old, uid)
    }
    found = []
    for name in sorted({*secrets, *conflicts}):
        standing = observed.secrets.get(name)
        was, will = _servers(standing, old, name), _servers(standing, new, name)
        attached = _accounts(new, name, added=True) - _accounts(old, name, added=True)
        detached = _accounts(new, name, added=False) - _accounts(old, name, added=False)
        if name in conflicts:
            verb = "conflict"
        elif will == was and will is not None:
            verb = "keep"
        elif will is None:
            verb = "delete" if was is not None else "keep"
        else:
            verb = "update" if standing is not None and was is not None else "create"
        if verb == "keep" and not attached and not detached:
            continue
        found.append(
            {
                "namespace": observed.namespace.name,
                "name": name,
                "secret": verb,
                "serversAdded": sorted((will or frozenset()) - (was or frozenset())),
                "serversRemoved": sorted((was or frozenset()) - (will or frozenset())),
                "accountsAttached": sorted(attached),
                "accountsDetached": sorted(detached),
            }
        )
    return found


def _same_outcome(old: model.Plan, uid: str) -> bool:
    outcome = old.outcomes.get(uid)
    return outcome is not None and outcome.state is model.State.CONFLICT


def _servers(standing: views.SecretView | None, planned: model.Plan, name: str) -> frozenset[str] | None:
    """Return the servers of a Secret after a plan; None where it does not stand then, or is not ours."""
    write = next((write for write in planned.writes if write.name == name), None)
    if write is not None:
        return frozenset(dockerconfig.parse(write.data).logins) | write.carried
    if any(deletion.before.name == name for deletion in planned.deletions):
        return None
    return frozenset(row.server for row in standing.servers) if standing is not None and standing.ours else None


def _accounts(planned: model.Plan, name: str, *, added: bool) -> frozenset[str]:
    return frozenset(edit.account.name for edit in planned.edits if name in (edit.add if added else edit.remove))


def _summary(changes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    counted = {verb: sum(change["secret"] == verb for change in changes) for verb in _VERBS}
    return {
        "namespaces": len({change["namespace"] for change in changes}),
        **{f"secrets{verb.capitalize()}": count for verb, count in counted.items()},
        "accountsAttached": sum(len(change["accountsAttached"]) for change in changes),
        "accountsDetached": sum(len(change["accountsDetached"]) for change in changes),
    }


_VERBS = ("create", "update", "delete", "conflict")
_STYLES = {"create": "green", "update": "yellow", "delete": "red", "conflict": "bold red"}


def _show(changes: Sequence[Mapping[str, Any]]) -> None:
    if not changes:
        common.say("Nothing would change.")
        return
    rows = [
        (
            change["namespace"],
            f"{change['secret']} {change['name']}",
            _signed(change["serversAdded"], change["serversRemoved"]),
            _signed(change["accountsAttached"], change["accountsDetached"]),
        )
        for change in changes
    ]
    styles = [_STYLES.get(change["secret"], "") for change in changes]
    common.console().print(
        common.table(("NAMESPACE", "SECRET", "LOGINS", "SERVICE ACCOUNTS"), rows, styles=styles)
    )
    told = _summary(changes)
    common.say(
        f"{told['namespaces']} namespaces: {told['secretsCreate']} Secrets created, {told['secretsUpdate']} updated, "
        f"{told['secretsDelete']} deleted, {told['secretsConflict']} in conflict; {told['accountsAttached']} service "
        f"accounts attached, {told['accountsDetached']} detached. Nothing was changed."
    )


def _signed(added: Sequence[str], removed: Sequence[str]) -> str:
    return "\n".join([*(f"+ {name}" for name in added), *(f"- {name}" for name in removed)])
