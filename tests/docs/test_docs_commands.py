"""Every command of the documentation is run as it is written, on a real control plane, or the page says why not."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev import leavings
from dev.controlplane import GIVEN, ControlPlane, start_control_plane
from dev.operator_process import NAMESPACE, OperatorProcess
from dev.processes import tail
from dev.registry import Registry
from dev.waiting import eventually
from dev.world import World
from regcred.api import names
from regcred.cluster import client as api
from regcred.cluster import errors
from regcred.commands import migrate
from tests.docs.docs_shell import SHELL, Ran, Reader, alike, commands, failed, is_shell, left_out, stood_in_for
from tests.docs.docs_support import DOCS, PAGES, ROOT, Block, blocks
from tests.e2e.commands_support import Stage

QUICKSTART = DOCS / "quickstart.md"
UNINSTALL = DOCS / "how-to" / "uninstall.md"


# What can be said without a cluster.


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_a_block_holds_commands(block: Block) -> None:
    """Every block of commands is shell, and a remark above it that stands in for programs names such as it calls."""
    found = commands(block)
    assert found, "a console has a prompt before each command"
    for command, _ in found:
        assert is_shell(command), command
    for program in stood_in_for(block):
        called = r"\b.*? ".join(program.split())
        assert re.search(rf"\b{called}\b", block.body), f"{program} is not called"
    assert not block.remark or len(block.remark.split()) > 2, "a remark says why"


def test_every_target_of_make_exists() -> None:
    """Every `make` that is written anywhere is a target, with the variables that it knows."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    programs = "".join(path.read_text() for path in (ROOT / "dev").rglob("*.py"))
    known = set(re.findall(r"\$\(([A-Z]+)\)", makefile)) | set(re.findall(r'environ\.get\("([A-Z]+)"\)', programs))
    text = "\n".join(page.read_text() for page in PAGES)
    written = re.findall(r"(?:`|^|^\$ )make ((?:[a-z-]+ ?)+)((?: ?[A-Z]+=\S+)*)", text, re.MULTILINE)
    assert len(written) > 20
    assert {target for words, _ in written for target in words.split()} - targets == set()
    assert {name for _, given in written for name in re.findall(r"([A-Z]+)=", given)} - known == set()


def test_most_commands_are_run() -> None:
    """What is left out is the exception."""
    run = [command for block in SHELL if not left_out(block) for command, _ in commands(block)]
    every = [command for block in SHELL for command, _ in commands(block)]
    assert len(run) > 0.75 * len(every)


async def test_a_command_that_cannot_be_run_needs_a_remark(tmp_path: Path) -> None:
    """A block that calls what is not there, or that fails, is noticed, unless a remark says why it is not run."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\necho kubectl $*\ntest $1 != fail\n")
    kubectl.chmod(0o755)
    environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    reader = Reader(tmp_path, kubectl, environment, (1, 20))

    async def typed(body: str, remark: str = "", language: str = "sh") -> list[Ran]:
        return await reader.type(Block(tmp_path, 1, language, body, remark))

    missing = "NAME=$(no-such-program show)\nkubectl get \\\n  $NAME\n"
    (first,) = await typed(missing)
    assert failed(first)
    assert [failed(done) for done in await typed("kubectl get\nkubectl fail\nkubectl get")] == [False, True]
    assert [failed(done) for done in await typed(missing, "`no-such-program`: it needs an account")] == [False] * 2
    assert (await typed("echo $NAME"))[0].stdout == "stood-in-for\n"
    assert (await typed("kubectl fail", "`kubectl fail`: it needs a kubelet"))[0].code == 0
    assert await typed(missing, "it needs an account") == []
    assert await typed(missing, "before Kubernetes 1.36, which first serves it") == []
    (shown,) = await typed("$ kubectl get\nNAME  AGE\nx     3s\n", language="console")
    assert (shown.shown, shown.stdout) == ("NAME  AGE\nx     3s", "kubectl get\n")
    assert alike("NAME AGE x 3s {…:1}", "NAME AGE x 12m {a:1} more")
    assert not alike("NAME AGE x 3s", "NAME AGE y 3s")


# The real thing.


@dataclass
class Desk:
    """Where somebody reads the pages: a cluster of their own, and what it is to have besides."""

    cluster: ControlPlane
    reader: Reader
    operator: OperatorProcess
    world: World

    async def kubelet(self) -> None:
        """Do what a cluster with nodes does about the Deployment of the operator: run it, and say so."""
        path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/regcred"

        async def deployed() -> Any:
            with contextlib.suppress(errors.NotFound):
                return await self.world.api.get(path)
            return None

        body = await eventually(deployed, "the Deployment", seconds=60)
        self.operator.forget_login()
        await self.operator.start()
        count = body["spec"]["replicas"]
        told = {"observedGeneration": body["metadata"]["generation"], "replicas": count}
        told |= {f"{word}Replicas": count for word in ("updated", "ready", "available")}
        await self.world.api.request("PATCH", f"{path}/status", body={"status": told}, content_type=api.MERGE)

    async def undo(self, done: list[Ran]) -> None:
        """Delete what the commands have created, so that the next page finds the cluster as it was."""
        kinds = r"(?:-n (\S+) )?create (secret|serviceaccount|role|rolebinding)(?: generic)? (\S+)"
        made = [found.groups() for ran in done if (found := re.match(rf"kubectl {kinds}", ran.command))]
        for where in {where for where, *_ in made}:
            own = [f"{kind}/{name}" for place, kind, name in made if place == where]
            await self.cluster.kubectl("delete", "--wait=false", "--ignore-not-found", "-n", where, *own)

    async def sees(self, ran: Ran) -> None:
        """Look again and again until a command tells what the page shows."""
        last = ran.stdout

        async def told() -> bool:
            nonlocal last
            if not alike(ran.shown, last):
                last = await self.cluster.kubectl(*shlex.split(ran.command)[1:])
            return alike(ran.shown, last)

        try:
            await eventually(told, ran.command, seconds=60)
        except AssertionError:
            raise AssertionError(
                f"{ran.command}\nshould tell\n{ran.shown}\ntold\n{last}\n{tail(self.operator.log)}"
            ) from None

    async def follow(self, page: Path) -> list[Ran]:
        """Run the commands of a page from top to bottom; the quickstart's until they tell what it shows."""
        self.reader.turn_the_page()
        for block in blocks(page, "yaml"):
            for name in re.findall(r"`([\w-]+\.yaml)`", block.lead):
                (self.reader.folder / name).write_text(block.body)
        everything = []
        for block in SHELL:
            if block.page != page:
                continue
            done = await self.reader.type(block, answer="y\n")
            assert not done or len(done) == len(commands(block)) or failed(done[-1])
            for ran in done:
                assert not failed(ran), f"{block}: {ran.command}\nended with {ran.code}\n{ran.stdout}{ran.stderr}"
                if ran.shown and page == QUICKSTART:
                    await self.sees(ran)
            if page != QUICKSTART:
                await self.undo(done)
            everything += done
        return everything


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """A cluster that nothing was installed in, and a checkout to read in."""
    async with start_control_plane() as cluster:
        if not isinstance(cluster, ControlPlane):
            pytest.skip(f"the cluster of {GIVEN} is not ours to install in")
        folder, home = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("home")
        for name in ("crds", "manifests"):
            shutil.copytree(ROOT / name, folder / name)
        (home / ".docker").mkdir()
        (home / ".docker" / "config.json").write_text('{"auths": {"r.example.com": {"auth": "dTpw"}}}')
        # What the tools of clouds would have written.
        (folder / "pair.pem").write_text("a certificate and its key\n")
        operator = OperatorProcess(cluster, home / "regcred.log")
        made = Desk(cluster, Reader.of(cluster, folder, home), operator, World(cluster, operator))
        await cluster.apply(*(leavings.namespace(name) for name in ("shop", "team-b", "team-c")))
        yield made
        await operator.stop()
        await made.world.api.close()


@pytest.fixture(scope="module")
async def newcomer(desk: Desk) -> list[Ran]:
    """What the commands of the quickstart told, in order, in a cluster that has never seen regcred."""
    kubelet = asyncio.create_task(desk.kubelet())
    try:
        return await desk.follow(QUICKSTART)
    finally:
        await kubelet


@pytest.mark.cluster
async def test_a_newcomer_gets_a_synced_secret(desk: Desk, newcomer: list[Ran]) -> None:
    """The quickstart's own commands, in order and with nothing added, lead to what it shows, and to a synced Secret."""
    assert len([ran for ran in newcomer if ran.shown]) >= 4
    logins = await desk.world.auths("team-a")
    assert logins == {"https://index.docker.io/v1/": ("myorg", "dckr_pat_...")}
    template = (await desk.cluster.get("deployment", "web", "-n", "team-a"))["spec"]["template"]
    assert "kubectl.kubernetes.io/restartedAt" in template["metadata"]["annotations"]


@pytest.fixture(scope="module")
async def office(desk: Desk, newcomer: list[Ran], registry: Registry) -> Desk:
    """What the other pages take for granted: `platform`, a workload in `team-a` that lost the race, a foreign Secret."""
    world = desk.world
    await desk.cluster.kubectl("delete", "crcred/docker-hub")
    await desk.cluster.kubectl("delete", "-n", NAMESPACE, "secret/dockerhub")
    await desk.cluster.kubectl("delete", "-n", "team-a", "deployment/web")
    await world.bare("team-a", "team-b", "team-c", "shop")
    await desk.cluster.apply(
        leavings.namespace("foreign"),
        leavings.pull_secret("foreign", "regcred", "r.example.com"),
        leavings.made("v1", "ServiceAccount", "build", "team-a"),
    )
    stage = Stage(world)
    image = f"{registry.host}/private/app:1"
    await stage.workload("team-a", "web", image)
    await stage.pod("team-a", "web-0", image, workload="web")
    source = await world.login("alice", "s3cret", name="logins-of-the-platform")
    await world.declare(
        *({"server": server, "login": {"secretRef": {"name": source}}} for server in (registry.host, "quay.io")),
        name="platform",
        namespaces={"names": ["team-*"]},
        serviceAccounts=["default", "build"],
    )
    await world.ready("platform")
    await world.served("team-a", "team-b", "team-c")
    return desk


async def declared(desk: Desk, page: Path) -> list[tuple[str, ...]]:
    """Apply the resources that a page shows, and wait until the operator has looked at them."""
    shown = [item for block in blocks(page, "yaml") for item in yaml.safe_load_all(block.body)]
    bodies = [item for item in shown if item.get("apiVersion") == names.API_VERSION]
    await desk.cluster.apply(*bodies)
    made = []
    for body in bodies:
        name, where = body["metadata"]["name"], body["metadata"].get("namespace", "")
        await desk.world.ready(name, where, status="False")
        kind = "crcred" if body["kind"] == names.CLUSTER_KIND else "rcred"
        made.append((f"{kind}/{name}", *(("-n", where) if where else ())))
    return made


def definitions(bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Definitions, without a schema, of the kinds that other tools have brought."""
    found = {}
    for kind, paths in migrate._PATHS.items():
        parts = [path.split("/") for path in paths]
        versions = sorted({body["apiVersion"].rpartition("/")[2] for body in bodies if body["kind"] == kind})
        if not versions or "." not in parts[0][2]:
            continue
        scoped = any("namespace" in body["metadata"] for body in bodies if body["kind"] == kind)
        group, plural = parts[0][2], parts[0][4]
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        found[kind] = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{group}"},
            "spec": {
                "group": group,
                "names": {"kind": kind, "plural": plural},
                "scope": "Namespaced" if scoped else "Cluster",
                "versions": [
                    {"name": version, "served": True, "storage": version == versions[-1], "schema": schema}
                    for version in versions
                ],
            },
        }
    return list(found.values())


@pytest.fixture(scope="module")
async def moving(office: Desk) -> None:
    """What all other tools together would have left in the cluster."""
    keyed = {}
    for body in (body for tool in leavings.ALL.values() for body in tool):
        metadata = {
            key: value for key, value in body["metadata"].items() if key in ("name", "namespace", "labels")
        }
        metadata["annotations"] = body["metadata"].get("annotations", {})
        old = body["kind"] == "CronJob" and office.cluster.version < (1, 21)
        version = "batch/v1beta1" if old else body["apiVersion"]
        keyed[body["kind"], metadata.get("namespace"), metadata["name"]] = {
            **body,
            "apiVersion": version,
            "metadata": metadata,
        }
    bodies = list(keyed.values())
    spaces = {body["metadata"]["namespace"] for body in bodies if "namespace" in body["metadata"]}
    known = {name for kind, _, name in keyed if kind == "Namespace"}
    made = definitions(bodies)
    await office.cluster.apply(*made, *(leavings.namespace(name) for name in sorted(spaces - known)))
    crds = (f"crd/{item['metadata']['name']}" for item in made)
    await office.cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", *crds)
    await office.cluster.apply(*bodies)


RUN = sorted({block.page for block in SHELL if not left_out(block)} - {QUICKSTART, UNINSTALL})
EACH = {"ids": lambda page: str(page.relative_to(ROOT))}


async def read(desk: Desk, page: Path) -> None:
    """Follow a page, and compare what `explain` tells with what the page shows."""
    if shutil.which("jq", path=desk.reader.environment["PATH"]) is None and "jq " in page.read_text():
        pytest.skip("jq is not installed")
    made: list[tuple[str, ...]] = []
    if page.stem in ("several-resources", "tenants"):
        made = await declared(desk, page)
    done = await desk.follow(page)
    assert done
    for ran in done:
        if ran.shown and " explain " in ran.command:
            told = " ".join(ran.stdout.split())
            for line in ran.shown.splitlines():
                assert line == "..." or " ".join(line.split()) in told, ran.stdout
    for words in made:
        await desk.cluster.kubectl("delete", *words)


@pytest.mark.cluster
@pytest.mark.parametrize("page", [page for page in RUN if page.parent.name != "moving"], **EACH)
async def test_the_commands_of_a_page_work(office: Desk, page: Path) -> None:
    """Typed from top to bottom as they are written, the commands of a page do what they should."""
    await read(office, page)


@pytest.mark.cluster
@pytest.mark.usefixtures("moving")
@pytest.mark.parametrize("page", [page for page in RUN if page.parent.name == "moving"], **EACH)
async def test_the_commands_of_moving_in_work(office: Desk, page: Path) -> None:
    """In a cluster with what the other tools have left, the command of each tool's page writes what replaces it."""
    await read(office, page)
    made = list(yaml.safe_load_all((office.reader.folder / "move.yaml").read_text()))
    assert made
    assert all(body["apiVersion"] == names.API_VERSION for body in made)
    assert leavings.CANARY not in (office.reader.folder / "move.yaml").read_text()


@pytest.mark.cluster
async def test_the_commands_of_uninstalling_work(office: Desk) -> None:
    """All that regcred has made goes, with the plugin and without; the script takes out regcred's entries and no others."""
    plugin, deletes, removes, script = (block for block in SHELL if block.page == UNINSTALL)
    world = office.world

    async def typed(block: Block) -> None:
        done = await office.reader.type(block, answer="y\n")
        for ran in done:
            assert not failed(ran), f"{block}: {ran.command}\nended with {ran.code}\n{ran.stdout}{ran.stderr}"
        assert len(done) == len(commands(block))

    await typed(plugin)
    await world.bare("team-a", "team-b", "team-c")
    await office.operator.stop()
    everything = "deployments,services,roles,rolebindings,networkpolicies,serviceaccounts"
    assert "regcred" not in await office.cluster.kubectl("get", everything, "-n", NAMESPACE, "-o", "name")

    # Again, as if the operator had gone first; then the namespace goes, too.
    await office.cluster.kubectl("apply", "-k", ROOT / "manifests")
    await office.cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    source = {"secretRef": {"name": "logins-of-the-platform"}}
    await world.declare({"server": "quay.io", "login": source}, name="platform", namespaces={})
    await typed(deletes)
    await typed(removes)
    assert "regcred" not in await office.cluster.kubectl("get", "namespaces,clusterroles,crds", "-o", "name")
    if shutil.which("jq", path=office.reader.environment["PATH"]) is None:
        pytest.skip("jq is not installed")
    lists = [{"name": name} for name in ("first", "regcred", "last")]
    await office.cluster.apply(leavings.made("v1", "ServiceAccount", "web", "team-b", imagePullSecrets=lists))
    await typed(script)
    assert await world.pull_secrets("team-b", "web") == ["first", "last"]
