"""What happens to resources while the operator starts is not lost."""

from __future__ import annotations

from pathlib import Path

from dev.cluster import Cluster
from dev.faults import Delay, fault_proxy
from dev.operator_process import OperatorProcess
from dev.waiting import eventually
from regcred.api import names
from tests.e2e.conftest import Entry, World


async def test_a_resource_deleted_between_two_first_lists_is_cleaned_up_soon(
    installed: Cluster, shared_operator: OperatorProcess, entry: Entry, tmp_path: Path
) -> None:
    """A resource that goes after our first list and before that of kopf, which then never tells of it."""
    await shared_operator.stop()
    async with fault_proxy(installed.url, ca_file=installed.ca_file) as proxy:
        operator = OperatorProcess(proxy.cluster(installed, "start-gap"), tmp_path / "regcred.log", identity="gap")
        world = World(installed, operator)
        try:
            await operator.start()
            (namespace,) = await world.namespaces("a")
            await world.declare(entry(await world.login("alice", "s3cret")))
            await world.served(namespace)
            await operator.stop()
            rule = proxy.add(Delay(4.0), verb="list", resource=names.CLUSTER_PLURAL)
            await operator.start(ready=False)

            async def kopf_lists() -> bool:
                return rule.hits >= 2

            await eventually(kopf_lists, "the second list", seconds=60, every=0.01)
            await world.api.request("DELETE", f"/apis/{names.API_VERSION}/{names.CLUSTER_PLURAL}/{world.id}")

            async def noticed() -> bool:
                return any("Deleted ClusterRegistryCredential" in line["msg"] for line in operator.lines())

            # The next comparison but one would come after a minute.
            await eventually(noticed, "the deletion to be noticed", seconds=40)
        finally:
            await world.clean()
            await operator.stop()
