"""Which logins would the kubelet try for an image?

A port of the kubelet's keyring (kubernetes `pkg/credentialprovider/keyring.go`) and of the defaults that
container runtimes fill into an image name (distribution `reference.ParseNormalizedNamed`).
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable
from typing import NamedTuple

from regcred.dockerconfig.errors import BadImage

_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_IMAGE_PATH = re.compile(
    rf"(?P<name>{_COMPONENT}(?:/{_COMPONENT})*)(?::(?P<tag>\w[\w.-]{{0,127}}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}))?",
    re.ASCII,
)
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")
_DOMAIN_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_IMAGE_HOST = re.compile(rf"(?:{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?|{_COMPONENT}")
#: Users and hosts that Go's url.Parse lets through.  Since Go 1.25 brackets hold IPv6 addresses only, so `[a-z]`
#: globs, which older kubelets match, are dropped here as by new ones.  An address without port never matches.
_URL_AUTHORITY = re.compile(
    r"(?:[\w.:~!$&'()*+,;=%@-]*@)?(?P<host>\[[0-9A-Fa-f:]+\]:[0-9]*|[^\s\[\]\\^`{|}%@]*?(?::[0-9]*)?)", re.ASCII
)
_HOST_PORT = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*):(?P<port>[^:]*)")


class Image(NamedTuple):
    """An image name with its defaults filled in.

    Attributes:
        host: registry, with its port if one was written; `docker.io` by default.
        repository: path below the host; `library/x` for an official image.
        reference: digest if there is one, else the tag, `latest` by default.
    """

    host: str
    repository: str
    reference: str


def normalise_image(name: str) -> Image:
    """Fill in an image name's defaults, as container runtimes do.

    Raises:
        BadImage: no container runtime accepts it.
    """
    host, slash, path = name.partition("/")
    is_host = host == "localhost" or host != host.lower() or any(character in host for character in ".:")
    if not slash or not is_host:
        host, path = "docker.io", name
    elif host == "index.docker.io":
        host = "docker.io"
    match = _IMAGE_PATH.fullmatch(path) if _IMAGE_HOST.fullmatch(host) and len(name) < 1024 else None
    if not match or len(match["name"]) > 255 or _IMAGE_ID.fullmatch(name):
        raise BadImage("This is not an image name; write host/repository:tag, the repository in lower case.")
    repository = match["name"]
    if host == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    return Image(host, repository, match["digest"] or match["tag"] or "latest")


def lookup(servers: Iterable[str], image: str) -> list[str]:
    """Return the servers whose login the kubelet tries for an image, in the order it tries them.

    A port of the kubelet's keyring (`BasicDockerKeyring.Add` and `Lookup`, `URLsMatch`), for servers in any
    spelling.  Servers of the same key stay in the given order.

    Raises:
        BadImage: the image name is none.
    """
    host, repository, _ = normalise_image(image)
    keyed = [(key, server) for server in servers if (key := _keyring_key(server))]
    keyed.sort(key=lambda pair: "".join(pair[0]), reverse=True)
    found = [server for key, server in keyed if _matches(key, (host, f"/{repository}"))]
    if not found and (host == "docker.io" or not any(character in host for character in ".:")):
        found = [server for key, server in keyed if key == ("index.docker.io", "")]
    return found


def _keyring_key(server: str) -> tuple[str, str] | None:
    """Return host and path of the key the kubelet keeps a server under, None where it drops the entry."""
    url = _split_url(re.sub(r"^https?://", "", server))
    if url is None:
        return None
    host, path = url
    if path.startswith(("/v1/", "/v2/")):
        path = path[3:]
    return _split_url(host + (path if path != "/" else ""))


def _split_url(text: str) -> tuple[str, str] | None:
    """Return host (with port) and path of a URL without scheme, as Go's `url.Parse` sees them."""
    text = re.split(r"[#?]", text, maxsplit=1)[0]
    authority, slash, path = text.partition("/")
    match = _URL_AUTHORITY.fullmatch(authority)
    if not match or re.search(r"[\x00-\x1f\x7f]|%(?![0-9A-Fa-f]{2})", text):
        return None
    return match["host"], urllib.parse.unquote(slash + path)


def _matches(key: tuple[str, str], target: tuple[str, str]) -> bool:
    (key_labels, key_port), (labels, port) = _labels(key[0]), _labels(target[0])
    return (
        key_port == port
        and len(key_labels) == len(labels)
        and target[1].startswith(key[1])
        and all(map(_glob, key_labels, labels))
    )


def _labels(host: str) -> tuple[list[str], str]:
    match = _HOST_PORT.fullmatch(host)
    return (match["host"].strip("[]").split("."), match["port"]) if match else (host.split("."), "")


def _glob(pattern: str, label: str) -> bool:
    """Match a label against a pattern whose only special character is `*`, in linear time."""
    head, *rest = pattern.split("*")
    if not rest:
        return pattern == label
    if not label.startswith(head):
        return False
    position = len(head)
    for part in rest[:-1]:
        found = label.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    return len(label) - position >= len(rest[-1]) and label.endswith(rest[-1])
