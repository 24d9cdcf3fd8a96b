"""One spelling per registry.

The kubelet compares servers byte by byte, case and port included, while people, `docker login` and its
successors write them in many ways.  What regcred stores and compares is the canonical spelling.
"""

from __future__ import annotations

import ipaddress
import re

from regcred.dockerconfig.errors import BadServer

#: What docker, skopeo, oras and the kubelet all find the Docker Hub login under.
DOCKER_HUB = "https://index.docker.io/v1/"

_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_LABEL = re.compile(r"[a-z0-9*](?:[a-z0-9*_-]{0,61}[a-z0-9*])?")
_PATH_PART = re.compile(r"(?!\.{1,2}$)[a-z0-9._-]+")
_API_PATH = re.compile(r"/v[12](?=/|$)")


def canonical_server(text: str) -> str:
    """Return the one spelling of a server under which the kubelet finds its login.

    Lower case, trimmed, without scheme and without the API's own path (`/v1/`, `/v2/`).  A port stays, `:443`
    too, since the kubelet tells `r.io` from `r.io:443`.  A repository prefix stays (`r.io/team/`).  A `*`
    within a label of the host is the kubelet's glob and stays.  Docker Hub's names become `DOCKER_HUB`, with
    a prefix `docker.io/org/`.  The result is its own canonical form.

    Args:
        text: what a person or a docker config calls a registry: `R.io`, `https://r.io/v2/`, `docker.io/org/`.

    Raises:
        BadServer: no image name could match it.
    """
    server = text.strip()
    if not server.isascii():
        raise BadServer("The server is not plain ASCII; write an international name in its xn-- form.")
    server = server.lower()
    if "@" in server:
        raise BadServer("The server holds a user or an @; write the host only, and the login in the Secret.")
    scheme, separator, rest = server.partition("://")
    if separator and scheme != "https":
        raise BadServer("The server has a scheme other than https; write the host without scheme.")
    host, slash, path = (rest if separator else server).partition("/")
    host = _checked_host(host)
    path = slash + path
    while _API_PATH.match(path) and not (host in _HUB_HOSTS and _is_session_token(path)):
        path = path[3:]
    if path in {"", "/"}:
        return DOCKER_HUB if host in _HUB_HOSTS else host
    if host in _HUB_HOSTS:
        if _is_session_token(path):
            raise BadServer("This entry is Docker Desktop's session, not a login for pulls; use an access token.")
        host = "docker.io"
    if not all(_PATH_PART.fullmatch(part) for part in path[1:].removesuffix("/").split("/")):
        raise BadServer(
            "The path after the host is not a repository prefix; "
            "write letters, digits, '.', '_', '-' and single '/', without tag or digest."
        )
    return host + path


def _is_session_token(path: str) -> bool:
    return path.rstrip("/") in {"/v1/access-token", "/v1/refresh-token"}


def _checked_host(host: str) -> str:
    """Return `host` if an image name can hold it, else raise `BadServer`."""
    if not host:
        raise BadServer("The server is empty; write the registry's host name.")
    if re.search(r"\s", host):
        raise BadServer("The server holds a space; write one host name.")
    if host.startswith("["):
        address, bracket, port = host[1:].rpartition("]:")
        try:
            ipaddress.IPv6Address(address)
        except ValueError:
            bracket = ""
        if not bracket or "%" in address:
            raise BadServer("An IPv6 server is written with its port, as in [fd00::1]:5000.")
        _check_port(port)
        return host
    name, colon, port = host.partition(":")
    if colon:
        _check_port(port)
    labels = name.split(".")
    if "" in labels:
        raise BadServer("The server's host name has an empty part; remove the extra or trailing dot.")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadServer(
            "The server is not a host name; write letters, digits, '-' and '.', 63 at most between dots."
        )
    if len(labels) == 1 and not colon and name != "localhost":
        raise BadServer(
            "The server has neither a dot nor a port, so image names take it for a Docker Hub user; "
            "write the full host name, or host:port."
        )
    return host


def _check_port(port: str) -> None:
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        raise BadServer("The server's port is not a number from 1 to 65535; correct or remove it.")
