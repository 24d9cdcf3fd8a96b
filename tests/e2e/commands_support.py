"""What the tests of the commands share: running one, and playing the kubelet and the controllers, which are not here."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import click.testing
import yaml

from dev.processes import Completed, run
from regcred import cli
from regcred.cluster import client as api
from regcred.cluster import errors
from tests.e2e.conftest import World

Json = dict[str, Any]


async def regcred(world: World, *words: str, kubeconfig: Path | None = None, stdin: str = "") -> tuple[int, str]:
    """Run a command as `kubectl regcred` would; its exit code, and what it printed."""
    told = [*words, f"--kubeconfig={kubeconfig or world.cluster.admin_kubeconfig}"]
    runner = click.testing.CliRunner()
    done = await asyncio.to_thread(runner.invoke, cli.main, told, input=stdin, env={"COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


async def explain(world: World, *words: str, **options: Any) -> Json:
    """Run `explain`, and return its first finding, with the exit code."""
    code, told = await regcred(world, "explain", *words, "-o", "json", **options)
    assert code in (0, 1, 3), told
    document = json.loads(told)
    finding: Json = document["findings"][0]
    assert document["works"] is (code == 0)
    return {**finding, "code": code, "lists": document["pullSecrets"]}


async def paste(world: World, command: str) -> Completed:
    """Run a command that somebody was told to paste."""
    folders = (world.cluster.kubectl_program.parent, Path(sys.executable).parent)
    path = os.pathsep.join((*map(str, folders), world.cluster.environment["PATH"]))
    environment = world.cluster.environment | {"PATH": path, "KUBECONFIG": str(world.cluster.admin_kubeconfig)}
    return await run("/bin/sh", "-ec", command, env=environment, seconds=120)


def filled(command: str, **words: str) -> str:
    """A command with its words in angle brackets replaced."""
    for name, value in words.items():
        command = command.replace(f"<{name}>", shlex.quote(value))
    assert not re.search(r"<\w+>", command), command
    return command


class Stage:
    """Objects that a cluster with kubelets would have: pods that wait, and their owners."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.api: api.Client = world.api

    async def create(self, path: str, body: Json) -> Json:
        made: Json = await self.api.request("POST", path, body=body)
        return made

    async def workload(self, namespace: str, name: str, image: str, **pod: Any) -> None:
        """A Deployment and its ReplicaSet; no controller acts on them here."""
        template = {"metadata": {"labels": {"app": name}}, "spec": _spec(image, **pod)}
        spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
        top = await self.create(
            f"/apis/apps/v1/namespaces/{namespace}/deployments",
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec},
        )
        await self.create(
            f"/apis/apps/v1/namespaces/{namespace}/replicasets",
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {"name": f"{name}-1", "ownerReferences": [_owner(top)]},
                "spec": spec,
            },
        )

    async def pod(self, namespace: str, name: str, image: str, *, workload: str = "", **pod: Any) -> Json:
        """A pod, as the controller of a workload makes it, or one that nobody controls."""
        metadata: Json = {"name": name, "labels": {"app": workload or name}}
        if workload:
            above = await self.api.get(f"/apis/apps/v1/namespaces/{namespace}/replicasets/{workload}-1")
            metadata["ownerReferences"] = [_owner(above)]
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": _spec(image, **pod)}
        return await self.create(f"/api/v1/namespaces/{namespace}/pods", body)

    async def waits(
        self, namespace: str, name: str, message: str, *, reason: str = "ImagePullBackOff", sort: str = "container"
    ) -> Json:
        """Write what a kubelet writes about a pod that cannot pull."""
        body = await self.api.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
        listed = {"container": "containers", "initContainer": "initContainers"}[sort]
        container = body["spec"][listed][0]
        state = {"waiting": {"reason": reason, "message": message}}
        row = {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": state,
        }
        status = {"phase": "Pending", f"{sort}Statuses": [row]}
        told: Json = await self.api.request(
            "PATCH",
            f"/api/v1/namespaces/{namespace}/pods/{name}/status",
            body={"status": status},
            content_type=api.MERGE,
        )
        return told

    async def event(
        self, namespace: str, name: str, message: str, *, reason: str = "Failed", at: str = ""
    ) -> None:
        """Write what a kubelet tells in an event; since 1.32 it stands in the status, too."""
        pod = await self.api.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
        container = pod["spec"]["containers"][0]["name"]
        await self.create(
            f"/api/v1/namespaces/{namespace}/events",
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"generateName": f"{name}."},
                "involvedObject": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": name,
                    "namespace": namespace,
                    "uid": pod["metadata"]["uid"],
                    "fieldPath": f"spec.containers{{{container}}}",
                },
                "type": "Warning",
                "reason": reason,
                "message": message,
                "lastTimestamp": at or pod["metadata"]["creationTimestamp"],
                "source": {"component": "kubelet"},
            },
        )

    async def succeed(self, namespace: str, name: str, successor: str) -> None:
        """Do what a controller does: make a new pod of the template in place of the old one."""
        with_status = await self.api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
        with contextlib.suppress(errors.NotFound):
            await self.api.request(
                "DELETE",
                f"/api/v1/namespaces/{namespace}/pods/{successor}",
                body={"gracePeriodSeconds": 0, "kind": "DeleteOptions", "apiVersion": "v1"},
            )
        above = await self.api.get(f"/apis/apps/v1/namespaces/{namespace}/replicasets/{name}-1")
        template = with_status["spec"]["template"]
        metadata = {"name": successor, "labels": {"app": name}, "ownerReferences": [_owner(above)]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        await self.create(f"/api/v1/namespaces/{namespace}/pods", body)

    async def pull_secret(self, namespace: str, name: str, content: object) -> None:
        """A pull Secret that is not regcred's; `content` is the docker config, or bytes that are none."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        await self.create(
            f"/api/v1/namespaces/{namespace}/secrets",
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "kubernetes.io/dockerconfigjson",
                "metadata": {"name": name},
                "data": {".dockerconfigjson": base64.b64encode(data).decode()},
            },
        )


def login(server: str, user: str, word: str) -> Json:
    """A docker config with one login."""
    return {"auths": {server: {"auth": base64.b64encode(f"{user}:{word}".encode()).decode()}}}


def _owner(body: Json) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": body["kind"] if body.get("kind") else "ReplicaSet",
        "name": body["metadata"]["name"],
        "uid": body["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _spec(image: str, *, account: str = "default", lists: tuple[str, ...] = (), init: str = "") -> Json:
    return {
        "serviceAccountName": account,
        "containers": [{"name": "app", "image": image}],
        **({"imagePullSecrets": [{"name": name} for name in lists]} if lists else {}),
        **({"initContainers": [{"name": "setup", "image": init}]} if init else {}),
        "terminationGracePeriodSeconds": 0,
    }


def dump(*bodies: Json) -> str:
    """Objects as a file of YAML."""
    return yaml.safe_dump_all(bodies)
