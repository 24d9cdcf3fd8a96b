"""What kopf misses, or ends over, is made good, with the rights of our own manifests."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from dev.attacks import consent
from dev.cluster import Cluster
from dev.faults import Answer, Cut, fault_proxy
from dev.operator_process import ACCOUNT, NAMESPACE, OperatorProcess
from dev.processes import tail
from dev.waiting import eventually
from regcred import comparison
from regcred.api import names, resource
from regcred.cluster import client as api
from regcred.cluster import heartbeat
from tests.e2e.conftest import Entry, World


class Ignorant:
    """An engine that has been told of nothing."""

    def __init__(self) -> None:
        self.resources: dict[str, resource.Resource] = {}

    def lacks(self, uid: str, version: str) -> bool:
        """Whether this version is news."""
        return uid not in self.resources

    def upsert(self, found: resource.Resource) -> bool:
        """Take in a resource."""
        self.resources[found.uid] = found
        return True

    def remove(self, uid: str) -> None:
        """Take in that one is gone."""
        del self.resources[uid]


async def test_missed_resources_are_read_with_the_operators_own_rights(world: World, entry: Entry) -> None:
    """A resource of each kind of which no event came is made good, and nothing is asked for that is forbidden."""
    (namespace,) = await world.namespaces("a")
    await world.declare(entry("none"))
    await world.declare(entry("none"), name="tenant", namespace=namespace)
    kubeconfig = await world.cluster.kubeconfig_for_service_account(NAMESPACE, ACCOUNT)
    client, engine = api.Client(api.login(str(kubeconfig))), Ignorant()
    comparing = asyncio.create_task(
        comparison.run(client, engine, heartbeat.Heartbeat(), 0.3)  # type: ignore[arg-type]
    )

    async def known() -> bool:
        return {world.id, "tenant"} <= {found.name for found in engine.resources.values()}

    try:
        await eventually(known, "both to be made good", seconds=30)
    finally:
        comparing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await comparing
        await client.close()


async def test_kopf_ends_by_itself_and_takes_nobody_along(
    installed: Cluster, shared_operator: OperatorProcess, entry: Entry, tmp_path: Path
) -> None:
    """An answer that ends one watch of kopf while the other waits for the API server: all goes on as before."""
    await shared_operator.stop()
    async with fault_proxy(installed.url, ca_file=installed.ca_file) as proxy:
        operator = OperatorProcess(proxy.cluster(installed, "ends"), tmp_path / "regcred.log", identity="ends")
        world = World(installed, operator)
        try:
            await operator.start()
            (namespace,) = await world.namespaces("a")
            # Its watch begins after kopf has.
            await consent(world, namespace, "mine")
            await world.login("alice", "first", name="mine", namespace=namespace)
            await world.declare(entry("mine"), name="tenant", namespace=namespace)
            await world.served(namespace, login=("alice", "first"))
            # As of an API server that has just started, and does not know of our kinds yet.
            rule = proxy.add(Answer(404), verb="watch", resource=names.NAMESPACED_PLURAL, times=1)
            away = proxy.add(Cut(), verb="watch|list", resource=names.CLUSTER_PLURAL)
            proxy.sever()

            async def ended() -> bool:
                return rule.hits > 0

            await eventually(ended, "the answer", seconds=60)

            async def again() -> bool:
                return any("starting it again" in line["msg"] for line in operator.lines())

            await eventually(again, f"kopf to be started again\n{tail(operator.log)}", seconds=60)
            proxy.remove(away)
            await world.login("alice", "second", name="mine", namespace=namespace)
            await world.served(namespace, login=("alice", "second"))
            (late,) = await world.namespaces("late")
            await world.declare(entry(await world.login("bob", "s3cret")), namespaces={"names": [late]})
            await world.served(late)
        finally:
            await world.clean()
            await operator.stop()
