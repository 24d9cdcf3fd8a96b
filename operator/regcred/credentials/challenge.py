"""What a registry asks for when it answers 401: reading `WWW-Authenticate`, and where a login may go for it.

The header comes several times or joined by commas, with quoted strings that hold commas, from servers that
take the grammar lightly.  Reading it never fails: what cannot be understood is no challenge.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

#: Longest header that is read; real ones take some hundred bytes.
_MAX_HEADER = 8192
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - the grammar's name for a word
_PARAMETER = re.compile(
    rf'(?P<name>{_TOKEN})[ \t]*=[ \t]*(?:"(?P<quoted>(?:[^"\\]|\\.)*+)(?:"|\\?$)|(?P<bare>{_TOKEN}))'
)
_SCHEME = re.compile(rf"(?P<name>{_TOKEN})(?:[ \t]+[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$)))?(?=[ \t,]|$)")
_JUNK = re.compile(r"[ \t,]+|[^ \t,]+")

#: Hosts under these belong to different people, so none of them speaks for another.
_SHARED = frozenset(
    {
        "amazonaws.com",
        "amazonaws.com.cn",
        "amazonaws.eu",
        "appspot.com",
        "azure.com",
        "azurecr.cn",
        "azurecr.io",
        "azurecr.us",
        "azurewebsites.net",
        "cloudapp.azure.com",
        "cloudfront.net",
        "cloudsmith.io",
        "cluster.local",
        "duckdns.org",
        "fly.dev",
        "gcr.io",
        "github.io",
        "githubusercontent.com",
        "gitlab.io",
        "herokuapp.com",
        "jfrog.io",
        "netlify.app",
        "ngrok-free.app",
        "ngrok.app",
        "ngrok.io",
        "nip.io",
        "on.aws",
        "ondigitalocean.app",
        "onrender.com",
        "pages.dev",
        "pkg.dev",
        "run.app",
        "sslip.io",
        "svc.cluster.local",
        "vercel.app",
        "web.app",
        "windows.net",
        "workers.dev",
    }
)
#: A registry and the host of its token endpoint, where the two have no domain in common.
_PAIRS = {"scw.cloud": "api.scaleway.com", "nvcr.io": "authn.nvidia.com", "registry.redhat.io": "sso.redhat.com"}
#: Second-level names under which two-letter country domains sell names.
_SECOND_LEVEL = frozenset({"ac", "co", "com", "edu", "gob", "gouv", "gov", "ne", "net", "or", "org"})


@dataclasses.dataclass(frozen=True, slots=True)
class Challenge:
    """One way of logging in that a server offers.

    Attributes:
        scheme: lower case: `bearer`, `basic`.
        parameters: lower-case name to value, such as `realm`, `service`, `scope`, `error`.
    """

    scheme: str
    parameters: Mapping[str, str]


def parse(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """Return the challenges in the values of all `WWW-Authenticate` headers, in order (RFC 9110, 11.6.1)."""
    challenges: list[Challenge] = []
    for header in headers:
        parameters: dict[str, str] | None = None
        position, text = 0, header[:_MAX_HEADER]
        while position < len(text):
            parameter = _PARAMETER.match(text, position)
            if parameter:
                if parameters is not None:
                    quoted = parameter["quoted"]
                    value = parameter["bare"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                    parameters.setdefault(parameter["name"].lower(), value)
                position = parameter.end()
                continue
            scheme = _SCHEME.match(text, position)
            if scheme:
                parameters = {}
                challenges.append(Challenge(scheme["name"].lower(), parameters))
                position = scheme.end()
                continue
            junk = _JUNK.match(text, position)
            position = junk.end() if junk else len(text)
    return tuple(challenges)


def speaks_for(realm_host: str, registry_host: str) -> bool:
    """Say whether a login for one host may be sent to another that it names as its token endpoint.

    A host speaks for itself, on any port.  So does one of the same registrable domain (`auth.docker.io` for
    `registry-1.docker.io`), unless different people have names in that domain (`_SHARED`) or it is an IP
    address; and so do a few known pairs (`_PAIRS`).

    Args:
        realm_host: lower case, without port.
        registry_host: likewise.
    """
    if realm_host == registry_host:
        return True
    for registry, realm in _PAIRS.items():
        if realm_host == realm and (registry_host == registry or registry_host.endswith(f".{registry}")):
            return True
    domain = _registrable(registry_host)
    return domain is not None and domain == _registrable(realm_host)


def _registrable(host: str) -> str | None:
    """Return the domain that one owner holds, by rule of thumb; None where that cannot be told."""
    labels = host.split(".")
    if "" in labels or ":" in host or labels[-1].isdecimal():
        return None
    count = 3 if len(labels[-1]) == 2 and len(labels) > 2 and labels[-2] in _SECOND_LEVEL else 2
    domain = ".".join(labels[-count:])
    shared = any(".".join(labels[start:]) in _SHARED for start in range(len(labels)))
    return None if len(labels) < count or shared or (count == 2 and labels[0] in _SECOND_LEVEL) else domain
