"""A real Kubernetes control plane on loopback: etcd, kube-apiserver and kube-controller-manager.

    async with start_control_plane() as cluster:
        print(await cluster.kubectl("get", "namespaces"))

A fake API server would agree with what we believe; this one knows better: admission, RBAC, conflicts,
garbage collection, token requests and watches are the real thing. Run `python -m dev.controlplane` to start
one and keep it until Ctrl-C.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import yaml

from dev.binaries import Binaries, control_plane_binaries, kubectl_binary
from dev.certificates import LOOPBACK, Authority, Pair, private_pem, public_pem, rsa_key
from dev.cluster import Cluster, given_cluster, write_kubeconfig
from dev.ports import free_port
from dev.processes import Child, run
from dev.scratch import scratch_folder
from dev.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GIVEN = "KUBECONFIG_UNDER_TEST"
ISSUER = "https://kubernetes.default.svc.cluster.local"
CONTROLLERS = (
    "namespace",
    "serviceaccount",
    "serviceaccount-token",
    "root-ca-cert-publisher",
    "garbagecollector",
    "clusterrole-aggregation",
)

_SERVICE_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "10.0.0.1")
_READY_SECONDS = 60.0
_POLL_SECONDS = 0.05
_WRITES = ["create", "update", "patch", "delete"]


class NotOursError(RuntimeError):
    """The server of a given cluster is not ours to stop."""


@dataclass(kw_only=True)
class ControlPlane(Cluster):
    """A cluster whose processes are ours; made by `start_control_plane`."""

    binaries: Binaries
    port: int
    etcd_port: int
    _children: dict[str, Child] = field(default_factory=dict, init=False)

    def log(self, name: str) -> Path:
        """The log of `etcd`, `kube-apiserver` or `kube-controller-manager`."""
        return self.folder / f"{name}.log"

    async def start_apiserver(self) -> None:
        """Start the API server, on the same port and data as before, and wait until it is ready."""
        await self._start("kube-apiserver", self.binaries.apiserver, *self._apiserver_flags())
        await self._wait_ready()

    async def stop_apiserver(self, *, kill: bool = True) -> None:
        """Stop the API server: at once, or with `kill=False` as an orderly roll-out would. etcd lives on."""
        await self._stop("kube-apiserver", kill=kill)

    async def start_controller_manager(self) -> None:
        """Start the controllers and wait until the first of their work is seen."""
        if self.binaries.controller_manager is None:
            return
        await self._start("kube-controller-manager", self.binaries.controller_manager, *self._manager_flags())

        async def default_account() -> bool:
            self._children["kube-controller-manager"].require_alive()
            wanted = ("get", "serviceaccount", "default", "--namespace=default")
            return (await self.kubectl_run(*wanted, check=False)).returncode == 0

        await eventually(default_account, "the controllers at work", seconds=_READY_SECONDS, every=_POLL_SECONDS)

    async def restart_controller_manager(self) -> None:
        """Start the controllers anew: the garbage collector then knows kinds added since, 30 s sooner."""
        await self._stop("kube-controller-manager", kill=True)
        await self.start_controller_manager()

    async def start(self) -> None:
        """Start everything, in order."""
        data = self.folder / "etcd"
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{free_port()}"
        await self._start(
            "etcd",
            self.binaries.etcd,
            *("--name=dev", f"--data-dir={data}", f"--initial-cluster=dev={peer}"),
            *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
            *("--quota-backend-bytes=4294967296", "--snapshot-count=100000", "--logger=zap"),
            *await self._etcd_extras(),
        )
        await self.start_apiserver()
        await self.discover()
        await self.start_controller_manager()

    async def stop(self) -> None:
        """Kill everything: what they hold is thrown away."""
        for name in reversed(list(self._children)):
            await self._stop(name, kill=True)

    async def _start(self, name: str, *argv: str | Path) -> None:
        child = await Child.start(name, *argv, log=self.log(name), env=self.binaries.environment)
        self._children[name] = child

    async def _stop(self, name: str, *, kill: bool) -> None:
        child = self._children.pop(name, None)
        if child is not None:
            await child.stop(kill=kill)

    async def _etcd_extras(self) -> list[str]:
        said = await run(self.binaries.etcd, "--help", check=False, env=self.binaries.environment)
        return ["--unsafe-no-fsync"] if "--unsafe-no-fsync" in said.stdout + said.stderr else []

    def _apiserver_flags(self) -> list[str]:
        flags = {
            "etcd-servers": f"http://127.0.0.1:{self.etcd_port}",
            "bind-address": "127.0.0.1",
            "secure-port": self.port,
            "endpoint-reconciler-type": "none",
            "service-cluster-ip-range": "10.0.0.0/24",
            "tls-cert-file": self.folder / "apiserver.crt",
            "tls-private-key-file": self.folder / "apiserver.key",
            "client-ca-file": self.ca_file,
            "authorization-mode": "RBAC",
            "service-account-issuer": self.issuer,
            "service-account-signing-key-file": self.folder / "service-accounts.key",
            "service-account-key-file": self.public_key,
            "audit-policy-file": self.folder / "audit-policy.yaml",
            "audit-log-path": self.audit_log,
            "audit-log-format": "json",
            "audit-log-maxsize": 4096,
            "max-requests-inflight": 3000,
            "max-mutating-requests-inflight": 1500,
            "shutdown-delay-duration": "0s",
        }
        return [f"--{name}={value}" for name, value in flags.items()]

    def _manager_flags(self) -> list[str]:
        flags = {
            "kubeconfig": self.folder / "kubeconfig-controller-manager",
            "controllers": ",".join(CONTROLLERS),
            "use-service-account-credentials": "true",
            "service-account-private-key-file": self.folder / "service-accounts.key",
            "root-ca-file": self.ca_file,
            "leader-elect": "false",
            "kube-api-qps": 1000,
            "kube-api-burst": 2000,
            "concurrent-gc-syncs": 20,
            "concurrent-namespace-syncs": 50,
            "concurrent-serviceaccount-token-syncs": 20,
            "secure-port": 0,
        }
        if self.version < (1, 24):
            flags["port"] = 0  # an unprotected second port, on by default in old versions, unknown in new ones
        return [f"--{name}={value}" for name, value in flags.items()]

    async def _wait_ready(self) -> None:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.load_cert_chain(self.folder / "admin.crt", self.folder / "admin.key")
        connector = aiohttp.TCPConnector(ssl=context, force_close=True)
        async with asyncio.timeout(_READY_SECONDS), aiohttp.ClientSession(connector=connector) as session:
            while True:
                for child in self._children.values():
                    child.require_alive()
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{self.url}/readyz") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(_POLL_SECONDS)


@contextlib.asynccontextmanager
async def start_control_plane(audited: str = "") -> AsyncIterator[Cluster]:
    """A running control plane, gone at the end; or the cluster that KUBECONFIG_UNDER_TEST names, as it is.

    Args:
        audited: a user whose writes stand in the audit log with what was sent and answered.
    """
    given = os.environ.get(GIVEN)
    if given:
        with scratch_folder("cluster") as folder:
            yield await given_cluster(Path(given), folder, kubectl_binary())
        return
    binaries = await control_plane_binaries()
    with scratch_folder("cluster", in_memory=True) as folder:
        plane = _prepared(folder, binaries, audited)
        try:
            await plane.start()
            yield plane
        finally:
            await plane.stop()


def owned(cluster: Cluster) -> ControlPlane:
    """The cluster as one whose processes may be stopped.

    Raises:
        NotOursError: it was given to us by KUBECONFIG_UNDER_TEST.
    """
    if not isinstance(cluster, ControlPlane):
        raise NotOursError(f"the cluster of {GIVEN} is not ours to stop")
    return cluster


def _prepared(folder: Path, binaries: Binaries, audited: str) -> ControlPlane:
    authority = Authority("regcred-dev")
    port, etcd_port = free_port(), free_port()
    url = f"https://127.0.0.1:{port}"
    ca_file = folder / "ca.crt"
    ca_file.write_text(authority.certificate)
    authority.server("kube-apiserver", (*LOOPBACK, *_SERVICE_NAMES)).write(folder, "apiserver")
    admin = authority.client("dev-admin", ["system:masters"])
    admin.write(folder, "admin")
    manager = authority.client("system:kube-controller-manager")
    for name, pair in (("admin", admin), ("controller-manager", manager)):
        write_kubeconfig(folder / f"kubeconfig-{name}", url, authority.certificate, _user(pair))
    signing = rsa_key()
    Pair(public_pem(signing), private_pem(signing)).write(folder, "service-accounts")
    (folder / "audit-policy.yaml").write_text(yaml.safe_dump(_audit_policy(audited)))
    return ControlPlane(
        folder=folder,
        binaries=binaries,
        port=port,
        etcd_port=etcd_port,
        url=url,
        ca_file=ca_file,
        admin_kubeconfig=folder / "kubeconfig-admin",
        kubectl_program=binaries.kubectl,
        controllers=binaries.controller_manager is not None,
        audit_log=folder / "audit.log",
        public_key=folder / "service-accounts.crt",
        issuer=ISSUER,
        environment=binaries.environment,
    )


def _audit_policy(audited: str) -> dict[str, object]:
    whole = {"level": "RequestResponse", "users": [audited], "verbs": _WRITES}
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [*([whole] if audited else []), {"level": "Metadata"}],
    }


def _user(pair: Pair) -> dict[str, str]:
    return {
        "client-certificate-data": pair.certificate_base64(),
        "client-key-data": pair.key_base64(),
    }


async def _main() -> int:
    begun = time.monotonic()
    try:
        async with start_control_plane() as cluster:
            print(f"Kubernetes {cluster.git_version} ready after {time.monotonic() - begun:.1f} s")
            print(f"export KUBECONFIG={cluster.admin_kubeconfig}", flush=True)
            await asyncio.Event().wait()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(asyncio.run(_main()))
