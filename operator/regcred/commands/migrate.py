"""`migrate`: what replaces the tool that hands out pull Secrets in this cluster now?"""

from __future__ import annotations

import click

from regcred import migration
from regcred.api import names
from regcred.cluster import client as api
from regcred.cluster import errors
from regcred.commands import common
from regcred.migration.script import copied

#: Collections that tools leave something in, of each version that is about.
_PATHS = {
    "Namespace": ("/api/v1/namespaces",),
    "Deployment": ("/apis/apps/v1/deployments",),
    "CronJob": ("/apis/batch/v1/cronjobs", "/apis/batch/v1beta1/cronjobs"),
    "ClusterPullSecret": ("/apis/ops.alexellis.io/v1/clusterpullsecrets",),
    "ClusterSecret": ("/apis/clustersecret.io/v1/clustersecrets", "/apis/clustersecret.io/v2/clustersecrets"),
    "AcrPullBinding": tuple(
        f"/apis/acrpull.microsoft.com/{version}/acrpullbindings" for version in ("v1beta2", "v1beta1")
    ),
    **{
        kind: tuple(f"/apis/external-secrets.io/{version}/{kind.lower()}s" for version in ("v1", "v1beta1"))
        for kind in ("ExternalSecret", "ClusterExternalSecret")
    },
    **{
        kind: (f"/apis/generators.external-secrets.io/v1alpha1/{kind.lower()}s",)
        for kind in ("ECRAuthorizationToken", "GCRAccessToken", "ACRAccessToken", "ClusterGenerator")
    },
}
_TYPES = (names.SECRET_TYPE, names.LEGACY_SECRET_TYPE)


@click.command()
@click.option(
    "--from",
    "tools",
    multiple=True,
    type=click.Choice(sorted(migration.TOOLS)),
    help="This tool only; all that are found if left out.",
)
@common.operator_namespace
@common.connection
@common.output
@common.asynchronous
async def migrate(
    tools: tuple[str, ...], operator_namespace: str, kubeconfig: str | None, context: str | None, form: str | None
) -> int:
    """Print what replaces the tool that hands out pull Secrets now: resources, and the steps around them.

    It reads what imagepullsecret-patcher, both registry-creds, ClusterSecret, msi-acrpull, k8s-ecr-login-renew and the
    generators of External Secrets have left. It changes nothing and prints no secret. It ends with 1 where it finds
    none of them.
    """
    async with common.connected(kubeconfig, context) as client:
        snapshot = migration.Snapshot(await _read(client), operator_namespace)
    moves = migration.plan(snapshot, tools)
    if not moves:
        click.echo(
            "Nothing was found of " + (", ".join(tools) if tools else "any tool that is known") + ".", err=True
        )
        return common.FOUND
    if form:
        common.emit({"moves": [_document(move) for move in moves]}, form)
    else:
        click.echo(migration.render(moves), nl=False)
    return 0


def _document(move: migration.Move) -> dict[str, object]:
    return {
        "tool": move.tool,
        "subject": move.subject,
        "copy": [copied(copy) for copy in move.copies],
        "secretName": move.secret_name,
        "resources": list(move.resources),
        "stop": list(move.stop),
        "adopt": [{"namespace": namespace, "secret": name} for namespace, name in move.adopt],
        "remove": list(move.remove),
        "remarks": list(move.remarks),
    }


async def _read(client: api.Client) -> list[dict[str, object]]:
    """Return every object that may tell something; of kinds that are not installed there is none."""
    found: list[dict[str, object]] = []
    for kind, paths in _PATHS.items():
        for path in paths:
            try:
                items = await common.listed(client, path)
            except errors.NotFound:
                continue
            group = path.removeprefix("/apis/").removeprefix("/api/")
            version = group.rpartition("/")[0]
            found += [{"apiVersion": version, **item, "kind": kind} for item in items]
            break
    for type_ in _TYPES:
        secrets = await common.listed(client, "/api/v1/secrets", fieldSelector=f"type={type_}")
        found += [{**item, "kind": "Secret"} for item in secrets]
    # The parameters of upmc's registry-creds (a region, a server) stand beside its keys.
    for name in ("ecr", "dpr", "acr", "gcr"):
        selector = f"metadata.name=registry-creds-{name}"
        secrets = await common.listed(client, "/api/v1/secrets", fieldSelector=selector)
        found += [{**item, "kind": "Secret"} for item in secrets]
    return found
