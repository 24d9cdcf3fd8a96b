"""What the demo, tests and benchmarks may ask of a cluster, whether we started it or were given it."""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dev.processes import Completed, run

Json = dict[str, Any]

_VERSION = re.compile(r"^v(\d+)\.(\d+)")


@dataclass(kw_only=True)
class Cluster:
    """A cluster in which we are the administrator.

    `folder` is a scratch folder of our own. `audit_log` (JSON lines) and `public_key` (PEM, of the service
    account tokens) are None on a cluster that we were given. Where `controllers` is False there is no
    controller manager: no namespace ends, no default service account appears, nothing is collected.
    """

    folder: Path
    admin_kubeconfig: Path
    kubectl_program: Path
    url: str
    ca_file: Path | None = None
    controllers: bool = True
    audit_log: Path | None = None
    public_key: Path | None = None
    issuer: str = ""
    git_version: str = ""
    version: tuple[int, int] = (0, 0)
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    async def kubectl_run(
        self, *args: str | Path, stdin: str | None = None, kubeconfig: Path | None = None, check: bool = True
    ) -> Completed:
        """Run kubectl, as the administrator or with another kubeconfig, and return all it left."""
        return await run(
            self.kubectl_program,
            f"--kubeconfig={kubeconfig or self.admin_kubeconfig}",
            f"--cache-dir={self.folder / 'kubectl-cache'}",
            *args,
            stdin=stdin,
            env=self.environment,
            check=check,
        )

    async def kubectl(
        self,
        *args: str | Path,
        input: str | None = None,  # noqa: A002 - the name subprocess uses
        kubeconfig: Path | None = None,
    ) -> str:
        """Run kubectl and return its standard output.

        Raises:
            dev.processes.CommandError: kubectl failed; the message holds what it said.
        """
        return (await self.kubectl_run(*args, stdin=input, kubeconfig=kubeconfig)).stdout

    async def get(self, *args: str) -> Json:
        """`kubectl get … -o json`, decoded."""
        answer: Json = json.loads(await self.kubectl("get", *args, "-o", "json"))
        return answer

    async def apply(self, *objects: Json) -> None:
        """`kubectl apply` these objects."""
        await self.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(objects))

    async def kubeconfig_for_service_account(
        self, namespace: str, name: str, *, seconds: int = 86400, pod: str = ""
    ) -> Path:
        """A kubeconfig that logs in as this service account, by a token of the TokenRequest API.

        Where `pod` names a pod of the account, the token is bound to it, and the audit log tells the pod's name.
        """
        words = ["create", "token", name, f"--namespace={namespace}", f"--duration={seconds}s"]
        if pod:
            words += ["--bound-object-kind=Pod", f"--bound-object-name={pod}"]
        token = await self.kubectl(*words)
        path = self.folder / "-".join(filter(None, ("kubeconfig", namespace, name, pod)))
        authority = self.ca_file.read_text() if self.ca_file else None
        write_kubeconfig(path, self.url, authority, {"token": token.strip()}, namespace)
        return path

    async def discover(self) -> None:
        """Fill in what the server says of itself: its version and the issuer of its tokens."""
        said = json.loads(await self.kubectl("get", "--raw", "/version"))
        self.git_version = str(said["gitVersion"])
        major, minor = _VERSION.findall(self.git_version)[0]
        self.version = (int(major), int(minor))
        document = await self.kubectl_run("get", "--raw", "/.well-known/openid-configuration", check=False)
        if not self.issuer and document.returncode == 0:
            self.issuer = str(json.loads(document.stdout)["issuer"])


async def given_cluster(kubeconfig: Path, folder: Path, kubectl_program: Path) -> Cluster:
    """The cluster of an existing kubeconfig, which has to be a throw-away one: we change it at will."""
    shown = await run(
        *(kubectl_program, f"--kubeconfig={kubeconfig}", "config", "view"),
        *("--raw", "--minify", "--flatten", "-o", "json"),
    )
    entry = json.loads(shown.stdout)["clusters"][0]["cluster"]
    ca_file = None
    if authority := entry.get("certificate-authority-data"):
        ca_file = folder / "ca.crt"
        ca_file.write_bytes(base64.b64decode(authority))
    cluster = Cluster(
        folder=folder,
        admin_kubeconfig=kubeconfig,
        kubectl_program=kubectl_program,
        url=entry["server"],
        ca_file=ca_file,
    )
    await cluster.discover()
    return cluster


def write_kubeconfig(
    path: Path, url: str, authority: str | None, user: dict[str, str], namespace: str = "default"
) -> None:
    """Write a kubeconfig with everything inside; `user` holds what the user entry shall hold."""
    cluster = {"server": url}
    if authority is not None:
        cluster["certificate-authority-data"] = base64.b64encode(authority.encode()).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "dev", "cluster": cluster}],
        "users": [{"name": "dev", "user": user}],
        "contexts": [{"name": "dev", "context": {"cluster": "dev", "user": "dev", "namespace": namespace}}],
        "current-context": "dev",
    }
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document))
