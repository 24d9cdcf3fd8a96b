"""The Pod Security Standard "restricted", as a table.  Source: kubernetes.io, Pod Security Standards, v1.36.

The API server that the tests start is older than the admission plugin, so the standard is restated here: what is wrong
with a pod's spec, in the words of the plugin.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"),
    "image",
}
_CAPABILITIES = {"NET_BIND_SERVICE"}
_SYSCTLS = {
    *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start"),
    *("net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports"),
    *("net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"),
    *("net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
}
_PROFILES = {"RuntimeDefault", "Localhost"}


def violations(pod: dict[str, Any]) -> list[str]:
    """What the standard "restricted" finds wrong with a pod's spec; [] where it accepts it."""
    return [*_of_pod(pod), *(found for container in _containers(pod) for found in _of_container(pod, container))]


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        container
        for kind in ("initContainers", "containers", "ephemeralContainers")
        for container in pod.get(kind) or ()
    ]


def _of_pod(pod: dict[str, Any]) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"{field}=true"
    for volume in pod.get("volumes") or ():
        for kind in set(volume) - {"name"} - _VOLUMES:
            yield f"restricted volume type {kind}"
    context = pod.get("securityContext") or {}
    for sysctl in context.get("sysctls") or ():
        if sysctl["name"] not in _SYSCTLS:
            yield f"forbidden sysctl {sysctl['name']}"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield "hostProcess"


def _of_container(pod: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
    name = container["name"]
    own, shared = container.get("securityContext") or {}, pod.get("securityContext") or {}

    def effective(field: str) -> Any:
        return own.get(field) if own.get(field) is not None else shared.get(field)

    if own.get("privileged"):
        yield f"{name}: privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation != false"
    if effective("runAsNonRoot") is not True:
        yield f"{name}: runAsNonRoot != true"
    if effective("runAsUser") == 0:
        yield f"{name}: runAsUser=0"
    if (effective("seccompProfile") or {}).get("type") not in _PROFILES:
        yield f"{name}: seccompProfile"
    capabilities = own.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or ()):
        yield f"{name}: unrestricted capabilities"
    if added := set(capabilities.get("add") or ()) - _CAPABILITIES:
        yield f"{name}: capabilities {sorted(added)}"
    if (own.get("procMount") or "Default") != "Default":
        yield f"{name}: procMount"
    if any(port.get("hostPort") for port in container.get("ports") or ()):
        yield f"{name}: hostPort"
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        for action in ("httpGet", "tcpSocket"):
            if ((container.get(probe) or {}).get(action) or {}).get("host"):
                yield f"{name}: probe host"
    if (effective("appArmorProfile") or {}).get("type") not in (None, *_PROFILES):
        yield f"{name}: appArmorProfile"
    if (effective("seLinuxOptions") or {}).get("type") not in (None, "", "container_t", "container_init_t"):
        yield f"{name}: seLinuxOptions"
