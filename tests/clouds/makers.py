"""Makes what a mode needs at its cloud (users, roles, keys, registries), and the mode itself."""

from __future__ import annotations

import json
import uuid
from typing import Any

from dev.clouds.aws_checks import Keys, Trust
from dev.clouds.azure import Application, Federation
from dev.clouds.quay import Federation as RobotFederation
from tests.clouds import cloud_names
from tests.clouds.local_clouds import Clouds, pulls
from tests.clouds.mode import Json, Mode

_AZURE_USER = "00000000-0000-0000-0000-000000000000"


def ecr(
    name: str, identity: str, block: Json | None = None, *, server: str = cloud_names.ECR, **more: Any
) -> Mode:
    """Return a mode of `ecr`."""
    registry = {"server": server, **({"ecr": block} if block is not None else {})}
    registry |= {"aliases": more.pop("aliases")} if "aliases" in more else {}
    return Mode(name, registry, identity, "AWS", "ecr", ("ecr", identity), **more)


def key_pair(keys: Keys) -> dict[str, str]:
    """Return the data of a Secret with an access key."""
    session = {"sessionToken": keys.session_token} if keys.session_token else {}
    return {"accessKeyId": keys.access_key_id, "secretAccessKey": keys.secret_access_key, **session}


def federated_role(clouds: Clouds, name: str, subject_: str) -> str:
    """Make a role that trusts one service account, and return its ARN."""
    clouds.aws.roles[cloud_names.role(name)] = Trust(subjects=frozenset({subject_}))
    return cloud_names.role(name)


def gcr(name: str, identity: str, block: Json | None = None, **more: Any) -> Mode:
    """Return a mode of `gcr`."""

    async def proof(clouds: Clouds, username: str, password: str) -> bool:
        return clouds.google.puller(username, password) == identity

    registry = {"server": cloud_names.GAR, **({"gcr": block} if block is not None else {})}
    return Mode(name, registry, identity, "oauth2accesstoken", "gcr", ("gcr", identity), proof=proof, **more)


def google_key(clouds: Clouds, name: str) -> dict[str, str]:
    """Create an account with a key, and return the data of a Secret that holds it."""
    return {"key.json": json.dumps(clouds.google.create_key(cloud_names.google_account(name)), indent=2)}


def acr(clouds: Clouds, name: str, block: Json | None = None, *, owner: str = "", **more: Any) -> Mode:
    """Return a mode of `acr`; its registry lets nobody but its client in."""
    host, id_ = cloud_names.azure_host(name), cloud_names.client(owner or name)
    scopes = (block or {}).get("scopes")
    registry = clouds.azure.create_registry(host, pullers=() if scopes else {id_})
    registry.repositories.update({scope: {id_} for scope in scopes or ()})
    kind = "access_token" if scopes else "refresh_token"

    async def proof(clouds: Clouds, username: str, password: str) -> bool:
        told = (username, password)
        mine = await pulls(clouds.azure, clouds.azure.ca, host, "team/app", told)
        others = await pulls(clouds.azure, clouds.azure.ca, host, "other/app", told)
        return mine and others == (not scopes)

    entry = {"server": host, **({"acr": block} if block is not None else {})}
    return Mode(name, entry, id_, _AZURE_USER, "acr", (f"acr {kind}", f"{id_}@{host}"), proof=proof, **more)


def azure_federation(clouds: Clouds, name: str, subject_: str) -> dict[str, str]:
    """Make an application that trusts one service account, and return the annotations that name it."""
    clouds.azure.register(
        Application(cloud_names.client(name), federations=[Federation(clouds.issuer.name, subject_)])
    )
    return {
        "azure.workload.identity/client-id": cloud_names.client(name),
        "azure.workload.identity/tenant-id": clouds.azure.tenant,
    }


def azure_secret(clouds: Clouds, name: str) -> dict[str, str]:
    """Make an application with a client secret, and return the data of a Secret that holds it."""
    secret = f"client-secret-{uuid.uuid4().hex}~{name}"
    clouds.azure.register(Application(cloud_names.client(name), secret=secret))
    return {"clientSecret": secret}


def quay(clouds: Clouds, name: str, *, tenant: bool = False) -> Mode:
    """Return a mode of the plugin `quay-federation`."""
    server = clouds.quay
    robot = f"shop+{name.replace('-', '_')}"
    federation = RobotFederation(
        clouds.issuer.name, cloud_names.subject(name, tenant=tenant), (f"https://{server.host}",)
    )
    server.federate(robot, federation)

    async def proof(clouds: Clouds, username: str, password: str) -> bool:
        return await pulls(clouds.quay, clouds.quay.ca, clouds.quay.host, "shop/app", (username, password))

    entry = {
        "server": server.host,
        "tls": {"caBundle": server.ca},
        "plugin": {"name": "quay-federation", "config": {"robot": robot, "serviceAccountRef": {"name": name}}},
    }
    known_as = ("quay-federation", robot)
    accounts = {name: {}}
    return Mode(
        name, entry, robot, robot, "quay-federation", known_as, tenant=tenant, accounts=accounts, proof=proof
    )
