"""How the operator is set up: every flag, with its default and its environment variable."""

from __future__ import annotations

import dataclasses
import os
import socket


def _own_namespace() -> str:
    """Return the namespace the operator runs in, as the projected service account tells; "" outside a cluster."""
    try:
        with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace", encoding="utf-8") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The operator's settings.

    Attributes:
        namespace: the operator's own, where sources of cluster resources, the cache and the Lease are.
        service_account: the operator's own account there, for the advice in messages.
        kubeconfig: path; None in a cluster.
        context: of the kubeconfig; None for its current one.
        cluster_ambient_credentials: the operator's identity may serve cluster resources.
        ambient_credentials: the operator's identity may serve namespaced resources.
        protected_namespaces: globs of namespaces that no cluster resource serves, besides the built-in ones.
        leader_election: whether to wait for a Lease before working.
        lease_duration: seconds.
        lease_deadline: seconds without renewal after which a leader gives up.
        identity: of this replica in the Lease and in events.
        listen: address of probes and metrics.
        port: of probes and metrics; 0 for any free one.
        concurrency: requests to the API server at once.
        watch_silence: seconds without an event after which a watch counts as dead.
        log_level: DEBUG, INFO, WARNING or ERROR.
        log_format: json or text.
    """

    namespace: str = dataclasses.field(default_factory=lambda: _own_namespace() or "regcred-system")
    service_account: str = "regcred"
    kubeconfig: str | None = None
    context: str | None = None
    cluster_ambient_credentials: bool = True
    ambient_credentials: bool = False
    protected_namespaces: tuple[str, ...] = ()
    leader_election: bool = True
    lease_duration: float = 15.0
    lease_deadline: float = 10.0
    identity: str = dataclasses.field(default_factory=lambda: os.environ.get("POD_NAME") or socket.gethostname())
    listen: str = "0.0.0.0"  # noqa: S104 - the kubelet and Prometheus come from outside
    port: int = 8080
    concurrency: int = 32
    watch_silence: float = 85.0
    log_level: str = "INFO"
    log_format: str = "json"
