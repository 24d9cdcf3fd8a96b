"""The demonstration: from nothing to the operator at work, told step by step, and cleaned up at the end.

Everything shown is real: an API server with RBAC, a registry that refuses strangers, the operator with the permissions
of its own manifests, and skopeo as the client that pulls.  Whatever does not hold ends the demonstration with an error.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from dev.binaries import control_plane_binaries, registry_tools
from dev.cluster import Cluster
from dev.controlplane import start_control_plane
from dev.operator_process import NAMESPACE, OperatorProcess, install
from dev.processes import CommandError
from dev.registry import Registry, start_registry
from dev.scratch import scratch_folder
from dev.token_server import PULL, User
from dev.waiting import eventually

USERS = {"puller": User("correct-horse", {"private/*": PULL})}
IMAGE = "private/app:1"


class Story:
    """Tells what happens, on a terminal or in a log."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._began = time.monotonic()
        self._number = 0

    def step(self, text: str) -> None:
        """Begin a chapter."""
        self._number += 1
        self._console.print(f"\n[bold cyan]{self._number}. {escape(text)}[/]")

    def say(self, text: str) -> None:
        """Say something."""
        self._console.print(f"   {escape(text)}")

    def good(self, text: str) -> None:
        """Say that something held."""
        self._console.print(f"   [green]✓[/] {escape(text)}")

    def shell(self, command: str, output: str) -> None:
        """Show a command and what it printed."""
        self._console.print(f"   [dim]$ {escape(command)}[/]")
        for line in output.rstrip().splitlines():
            self._console.print(f"     {escape(line)}")

    def end(self) -> None:
        """Close."""
        took = time.monotonic() - self._began
        self._console.print(
            f"\n[bold green]Everything held.[/] It took {took:.0f} s. Play with it yourself: make up"
        )


class Stage:
    """The parts on stage."""

    def __init__(self, cluster: Cluster, registry: Registry, operator: OperatorProcess, folder: Path) -> None:
        self.cluster = cluster
        self.registry = registry
        self.operator = operator
        self.folder = folder

    async def kubectl(self, story: Story, *words: str) -> str:
        """Run kubectl in front of everybody."""
        output = await self.cluster.kubectl(*words)
        story.shell(f"kubectl {' '.join(words)}", output)
        return output

    async def config(self, namespace: str) -> Path:
        """Write the bytes of a synced Secret to a file, exactly as they are."""
        body = await self.cluster.get("secret", "regcred", "-n", namespace)
        path = self.folder / f"{namespace}.json"
        path.write_bytes(base64.b64decode(body["data"][".dockerconfigjson"]))
        return path

    async def holds(self, namespace: str) -> bool:
        """Whether the namespace has its Secret and its default account lists it."""
        try:
            await self.cluster.kubectl("get", "secret", "regcred", "-n", namespace)
            account = await self.cluster.get("serviceaccount", "default", "-n", namespace)
        except CommandError:
            return False
        return {"name": "regcred"} in (account.get("imagePullSecrets") or [])


def resource(registry: Registry) -> dict[str, object]:
    """The resource that the demonstration applies."""
    return {
        "apiVersion": "regcred.io/v1alpha1",
        "kind": "ClusterRegistryCredential",
        "metadata": {"name": "platform"},
        "spec": {
            "registries": [
                {
                    "server": registry.host,
                    "login": {"secretRef": {"name": "private-login"}},
                    "verify": {"repository": "private/app", "reference": "1"},
                }
            ],
            "namespaces": {"names": ["team-*"]},
        },
    }


def login(password: str) -> dict[str, object]:
    """The Secret that the resource reads its login from."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/basic-auth",
        "metadata": {"name": "private-login", "namespace": NAMESPACE},
        "stringData": {"username": "puller", "password": password},
    }


def namespace(name: str) -> dict[str, object]:
    """A namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


@contextlib.asynccontextmanager
async def stage(say: Story) -> AsyncIterator[Stage]:
    """Everything that is real here, started, and stopped at the end."""
    say.say("looking for etcd, kube-apiserver and docker-registry (built once and kept, if they are missing)")
    await control_plane_binaries()
    await registry_tools()
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(scratch_folder("demo"))
        cluster = await stack.enter_async_context(start_control_plane())
        say.good(f"an API server of Kubernetes {cluster.git_version} with RBAC at {cluster.url}")
        registry = await stack.enter_async_context(start_registry(USERS))
        await registry.push("private/app", "1")
        say.good(f"a private registry at {registry.host} that holds {IMAGE} and wants a password")
        await install(cluster)
        say.good("the manifests of regcred: namespace, CRDs, RBAC")
        operator = OperatorProcess(cluster, folder / "regcred.log")
        await operator.start()
        stack.push_async_callback(operator.stop)
        say.good("the operator, with the permissions of its own manifests")
        yield Stage(cluster, registry, operator, folder)


async def play(story: Story, on: Stage) -> None:
    """Show what regcred does."""
    story.step("A platform engineer declares the registry, once")
    await on.cluster.apply(login("correct-horse"), namespace("team-a"), namespace("team-b"))
    document = resource(on.registry)
    await on.cluster.apply(document)
    story.shell("kubectl apply -f platform.yaml", json.dumps(document["spec"], indent=1))
    await on.cluster.kubectl("wait", "crcred/platform", "--for=condition=Ready", "--timeout=60s")
    await on.kubectl(story, "get", "crcred", "platform", "-o", "wide")

    story.step("Every chosen namespace holds the Secret, and its account lists it")
    await on.kubectl(story, "get", "secret", "regcred", "-n", "team-a")
    await on.kubectl(
        story, "get", "serviceaccount", "default", "-n", "team-a", "-o", "jsonpath={.imagePullSecrets}"
    )

    story.step("The bytes of the Secret pull; without them the registry refuses")
    code, told = await on.registry.skopeo_inspect(IMAGE, await on.config("team-a"))
    check(code == 0, f"skopeo could not read the image: {told}")
    story.good(f"skopeo inspect docker://{on.registry.host}/{IMAGE} --authfile <the Secret's bytes>")
    code, told = await on.registry.skopeo_inspect(IMAGE, None)
    check(code != 0, "the registry let a stranger in")
    refusal = told.strip().splitlines()[-1].rpartition(": reading ")[2].strip('"')
    story.good(f"without: {refusal[-110:]}")

    story.step("A namespace is born")
    began = time.monotonic()
    await on.cluster.apply(namespace("team-new"))
    await eventually(lambda: on.holds("team-new"), "team-new to be served", every=0.02)
    story.good(f"served {1000 * (time.monotonic() - began):.0f} ms after kubectl was called to create it")
    code, told = await on.registry.skopeo_inspect(IMAGE, await on.config("team-new"))
    check(code == 0, f"skopeo could not read the image: {told}")
    story.good("and its pods can pull")

    story.step("Somebody saves a wrong password: it is refused, and the good one stays")
    await on.cluster.apply(login("wrong-password"))
    await on.cluster.kubectl("wait", "crcred/platform", "--for=condition=Verified=false", "--timeout=60s")
    await on.kubectl(
        story,
        "get",
        "crcred",
        "platform",
        "-o",
        "jsonpath={.status.registries[0].reason}: {.status.registries[0].message}",
    )
    code, told = await on.registry.skopeo_inspect(IMAGE, await on.config("team-a"))
    check(code == 0, f"the good login was lost: {told}")
    story.good("team-a still pulls with the last good login")
    await on.cluster.apply(login("correct-horse"))
    await on.cluster.kubectl("wait", "crcred/platform", "--for=condition=Ready", "--timeout=60s")
    story.good("the right password is back, and the resource is Ready")
    await on.kubectl(story, "get", "events", "-n", "default", "--field-selector=involvedObject.name=platform")

    story.step("The resource is deleted: nothing is left behind")
    await on.cluster.kubectl("delete", "crcred", "platform")

    async def nothing_left() -> bool:
        secrets = await on.cluster.get("secrets", "-A", "--field-selector", "metadata.name=regcred")
        accounts = await on.cluster.get("serviceaccounts", "-A")
        cached = await on.cluster.get(
            "secrets", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=credential-cache"
        )
        listed = [
            body for body in accounts["items"] if {"name": "regcred"} in (body.get("imagePullSecrets") or [])
        ]
        return not (secrets["items"] or listed or cached["items"])

    await eventually(nothing_left, "everything to be cleaned up", every=0.2)
    story.good("no Secret, no entry in any account, no cached login")


def check(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads like assert, and stays on with -O
    """End the demonstration unless it holds."""
    if not holds:
        raise SystemExit(f"The demonstration failed: {otherwise}")


async def main() -> None:
    """Play it once."""
    story = Story()
    story.step("The stage: all parts are real, and all are on this machine")
    async with stage(story) as on:
        await play(story, on)
    story.end()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (CommandError, AssertionError) as failure:
        sys.exit(f"The demonstration failed: {failure}")
