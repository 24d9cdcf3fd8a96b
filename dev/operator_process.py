"""The operator at work on a cluster: installed from its own manifests, run as a process of this machine.

It runs with the permissions of its own manifests, never as the administrator: what RBAC lacks shows here first.
There is no kubelet on a local control plane, so the Deployment is left out and its process is started here instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from dev.cluster import Cluster
from dev.processes import Child, tail
from dev.waiting import eventually

ROOT = Path(__file__).resolve().parent.parent
NAMESPACE = "regcred-system"
ACCOUNT = "regcred"


async def install(cluster: Cluster, overlay: Path = ROOT / "manifests") -> None:
    """Apply everything of an overlay but what needs a kubelet or an API that the server lacks.

    The kinds of regcred are established when this returns.
    """
    rendered = await cluster.kubectl("kustomize", overlay)
    documents = [document for document in yaml.safe_load_all(rendered) if document]
    first = [document for document in documents if document["kind"] in ("Namespace", "CustomResourceDefinition")]
    rest = [
        document
        for document in documents
        if document not in first
        and document["kind"] not in ("Deployment", "PodDisruptionBudget", "ServiceMonitor")
    ]
    await cluster.apply(*first)
    kinds = [document["metadata"]["name"] for document in first if document["kind"] == "CustomResourceDefinition"]
    await cluster.kubectl(
        "wait", "--for=condition=Established", "--timeout=30s", *(f"crd/{name}" for name in kinds)
    )
    await cluster.apply(*rest)
    await eventually(lambda: _known(cluster), "the roles to be known to the API server", seconds=60)


async def _known(cluster: Cluster) -> bool:
    """Whether the operator's account has its rights: the API server learns of roles by watches of its own."""
    for right in (
        ("watch", "secrets/regcred", "-A"),
        ("patch", "clusterregistrycredentials.regcred.io/x", "--subresource=status"),
        ("update", "leases.coordination.k8s.io/regcred", "-n", NAMESPACE),
    ):
        account = f"--as=system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
        if (await cluster.kubectl_run("auth", "can-i", "-q", *right, account, check=False)).returncode:
            return False
    return True


class OperatorProcess:
    """One replica as a process; started and ended any number of times.

    Args:
        cluster: where it works; `install` was called on it.
        log: file its output is appended to.
        flags: further flags of `regcred run`.
        environment: further environment variables.
        identity: name of the replica.
        pod: name of a pod of the operator's account, for the audit log to tell replicas apart.
        program: what runs it, in place of this Python's `-m regcred`.
    """

    def __init__(
        self,
        cluster: Cluster,
        log: Path,
        *flags: str,
        environment: Mapping[str, str] | None = None,
        identity: str = "replica-a",
        pod: str = "",
        program: tuple[str, ...] = (sys.executable, "-m", "regcred"),
    ) -> None:
        self.cluster = cluster
        self.log = log
        self.flags = flags
        self.environment = dict(environment or {})
        self.identity = identity
        self.pod = pod
        self.program = program
        #: How often it was started again by `kept`.
        self.restarts = 0
        self._child: Child | None = None
        self._kubeconfig: Path | None = None
        self._offset = 0

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self._child is not None, "it was not started"  # noqa: S101
        return self._child.process.pid

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._child is not None and self._child.process.returncode is None

    def forget_login(self) -> None:
        """Ask for a new token at the next start: its service account was deleted, and is there again."""
        self._kubeconfig = None

    async def start(self, *, ready: bool = True) -> None:
        """Start it, and wait until its first pass is done."""
        kubeconfig = self._kubeconfig or await self.cluster.kubeconfig_for_service_account(
            NAMESPACE, ACCOUNT, pod=self.pod
        )
        self._kubeconfig = kubeconfig
        self._offset = self.log.stat().st_size if self.log.exists() else 0
        self._child = await Child.start(
            "regcred",
            *self.program,
            "run",
            f"--kubeconfig={kubeconfig}",
            f"--namespace={NAMESPACE}",
            f"--identity={self.identity}",
            "--listen=127.0.0.1",
            "--port=0",
            "--log-format=json",
            *self.flags,
            log=self.log,
            # The operator's environment is its own: no cloud login of whoever runs this reaches it.
            env={
                **{
                    key: value
                    for key, value in os.environ.items()
                    if not key.startswith(("AWS_", "AZURE_", "GOOGLE_"))
                },
                "PYTHONPATH": os.pathsep.join((str(ROOT / "operator"), str(ROOT))),
                **self.environment,
            },
        )
        if ready:
            await eventually(self.ready, f"the operator to be ready\n{tail(self.log)}", seconds=60)

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Start it again whenever it ends within a block, as the kubelet does."""

        async def keep() -> None:
            while True:
                await self.ended()
                self.restarts += 1
                await asyncio.sleep(1)
                await self.start(ready=False)

        keeping = asyncio.create_task(keep())
        try:
            yield
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping

    async def alive(self) -> bool:
        """Whether `/healthz` says so."""
        return (await self._http(self.port(), "healthz"))[0] == 200

    async def ready(self) -> bool:
        """Whether `/readyz` says so.

        Raises:
            AssertionError: the process has ended.
        """
        assert self.running, f"the operator ended:\n{tail(self.log)}"  # noqa: S101
        port = self.port()
        return bool(port) and (await self._http(port, "readyz"))[0] == 200

    def port(self) -> int:
        """The port of probes and metrics, or 0 while it is not open."""
        for line in reversed(self.lines()):
            if line["msg"].startswith("Serving probes and metrics on port"):
                return int(line["msg"].rsplit(" ", 1)[1])
        return 0

    async def metrics(self) -> str:
        """What `/metrics` answers."""
        return (await self._http(self.port(), "metrics"))[1]

    @staticmethod
    async def _http(port: int, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session:
            try:
                async with session.get(f"http://127.0.0.1:{port}/{path}") as response:
                    return response.status, await response.text()
            except aiohttp.ClientError:
                return 0, ""

    def lines(self) -> list[dict[str, Any]]:
        """The log of the present run, decoded; what is no JSON comes as a message."""
        found = []
        with self.log.open(encoding="utf-8", errors="replace") as file:
            file.seek(self._offset)
            for text in file:
                try:
                    line = json.loads(text)
                except ValueError:
                    line = {"msg": text.rstrip(), "level": "unknown"}
                found.append(line)
        return found

    def kill(self) -> None:
        """SIGKILL: no clean-up of any kind."""
        os.kill(self.pid, signal.SIGKILL)

    async def ended(self) -> int:
        """Wait for its end and return the exit code."""
        assert self._child is not None, "it was not started"  # noqa: S101
        return await self._child.process.wait()

    async def stop(self) -> int | None:
        """SIGTERM and wait; None where it was not running."""
        if not self.running:
            return None
        os.kill(self.pid, signal.SIGTERM)
        return await self.ended()

    def memory(self) -> float:
        """Resident memory in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def cpu(self) -> float:
        """CPU time used so far, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
