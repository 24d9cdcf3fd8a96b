"""The kinds of text that fields hold: servers, names, globs, labels, certificates.

Each has a pattern for the schema (RE2, since the API server compiles it: no look-around), a length, and a
sentence for whoever gets it wrong.  No sentence repeats the value: somebody may have put a password there.
"""

from __future__ import annotations

import functools
import re
import ssl
from typing import Annotated, Any

import pydantic

from regcred import dockerconfig
from regcred.api import model

_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = rf"(({_LABEL}\.)+{_LABEL}(:[1-9][0-9]{{0,4}})?|{_LABEL}:[1-9][0-9]{{0,4}}|localhost)"
_COMPONENT = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_PATH = f"(/{_COMPONENT})"
_SUBDOMAIN = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"


def _cel(expression: str, message: str) -> dict[str, str]:
    return {"rule": expression, "message": message}


_SCHEME = "write the host alone, without https:// before it, such as quay.io"
_API_PATH = "the API's own path /v1/ or /v2/ is no part of the server; write the host alone, such as docker.io"
_CASE = "write the host in lower case: a kubelet tells Quay.io from quay.io and finds no login"
#: Said by newer API servers beside "should match", which alone helps nobody.
_SERVER_CEL = [
    _cel("!self.contains('://')", _SCHEME),
    _cel("self.lowerAscii() == self", _CASE),
    _cel("!self.matches(r'^[^/]+/v[12](/|$)')", _API_PATH),
]


def _explain_server(value: str) -> str:
    """Say what is wrong with a server, or nothing.  What is right is what an image name can hold."""
    if value == "*":
        return ""
    if "://" in value:
        return _SCHEME
    if value != value.strip():
        return "has a space or a line break before or after the host; remove it"
    if "@" in value.partition("/")[0]:
        return "holds a user or an @; write the host alone and put the login into a Secret"
    if value != value.lower():
        return _CASE
    if re.match(r"[^/]+/v[12](/|$)", value):
        return _API_PATH
    if "*" in value:
        return 'has a wildcard; write each host in full, or "*" alone to import every entry of a docker config'
    try:
        dockerconfig.canonical_server(value)
    except dockerconfig.BadServer as error:
        text = str(error)
        return text[:1].lower() + text[1:].rstrip(".")
    return ""


_SERVER_SAYS = (
    "must be a registry's host in lower case, with its port and a repository prefix where it has them, "
    "such as quay.io, registry.example.com:5000 or docker.io/myorg"
)

Server = Annotated[
    str,
    pydantic.Field(
        min_length=1,
        max_length=255,
        pattern=rf"^(\*|{_HOST}({_PATH}+/?)?)$",
        json_schema_extra={"x-kubernetes-validations": _SERVER_CEL},
    ),
    model.Says(_SERVER_SAYS, _explain_server),
]

Alias = Annotated[
    str,
    pydantic.Field(min_length=1, max_length=255, pattern=rf"^{_HOST}({_PATH}+/?)?$"),
    model.Says(_SERVER_SAYS, _explain_server),
]

ObjectName = Annotated[
    str,
    pydantic.Field(min_length=1, max_length=253, pattern=f"^{_SUBDOMAIN}$"),
    model.Says(
        "must be the name of a Kubernetes object: lower-case letters, digits, '-' and '.', such as my-secret"
    ),
]

_REVERSED = re.compile(r"([a-z0-9])-([a-z0-9])")


def _explain_glob(value: str) -> str:
    for inner in re.findall(r"\[!?([^]]*)\]", value):
        if any(first > last for first, last in _REVERSED.findall(inner)):
            return "has a range that runs backwards and matches nothing; write [a-z], not [z-a]"
    return ""


_GLOB = r"^([a-z0-9.*?-]|\[!?[a-z0-9]+(-[a-z0-9]+)*\])+$"

NamespaceGlob = Annotated[
    str,
    pydantic.Field(min_length=1, max_length=63, pattern=_GLOB),
    model.Says(
        "must be the name of a namespace, or a shell glob of names with *, ? and [a-z], such as team-*",
        _explain_glob,
    ),
]

ServiceAccountGlob = Annotated[
    str,
    pydantic.Field(min_length=1, max_length=253, pattern=_GLOB),
    model.Says(
        "must be the name of a service account, or a shell glob of names with *, ? and [a-z], such as build-*",
        _explain_glob,
    ),
]

#: A label's key: an optional domain, then a name of at most 63 characters.
LABEL_KEY_PATTERN = rf"^({_SUBDOMAIN}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{{0,61}}[A-Za-z0-9])?$"
LABEL_KEY_SAYS = "must be the key of a label, such as team or example.com/team"


def is_label_key(text: str) -> bool:
    """Whether `text` is the key of a label."""
    return len(text) <= 317 and re.fullmatch(LABEL_KEY_PATTERN, text) is not None


LabelKey = Annotated[
    str,
    pydantic.Field(min_length=1, max_length=317, pattern=LABEL_KEY_PATTERN),
    model.Says(LABEL_KEY_SAYS),
]

LabelValue = Annotated[
    str,
    pydantic.Field(max_length=63, pattern="^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$"),
    model.Says(
        "must be the value of a label: at most 63 letters, digits, '-', '_' and '.', "
        "beginning and ending with a letter or digit"
    ),
]

Repository = Annotated[
    str,
    pydantic.Field(min_length=1, max_length=255, pattern=f"^{_COMPONENT}{_PATH}*$"),
    model.Says(
        "must be a repository without host and tag, in lower case, such as myorg/private "
        "(an official image of Docker Hub is library/nginx)"
    ),
]

Reference = Annotated[
    str,
    pydantic.Field(
        min_length=1,
        max_length=256,
        pattern="^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|[a-z0-9]+([.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,128})$",
    ),
    model.Says("must be a tag or a digest, such as latest, v1.2 or sha256:<64 hexadecimal digits>"),
]

_PEM = re.compile(r"-----(BEGIN|END) ([A-Z0-9 ]{1,64})-----")
#: What a CA bundle must be, and what it must not hold.
PEM_SAYS = (
    "caBundle must be one or more certificates in PEM, beginning with -----BEGIN CERTIFICATE-----; "
    "in YAML write caBundle: | and indent the lines below it"
)
PEM_KEY = "caBundle holds a private key; only certificates belong here: remove the key, and consider it leaked"


@functools.lru_cache(maxsize=64)  # a resource is parsed at every event, its own status included
def _explain_pem(value: str) -> str:
    if "PRIVATE KEY-----" in value:
        return PEM_KEY
    kinds = [match.group(2) for match in _PEM.finditer(value)]
    if not kinds:
        return PEM_SAYS
    if set(kinds) != {"CERTIFICATE"}:
        return "holds something else besides certificates; keep the CERTIFICATE blocks only"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=value)
    except (ssl.SSLError, ValueError):
        return "holds a block that is no certificate; copy the file again, whole and unchanged"
    return ""


CaBundle = Annotated[
    str,
    pydantic.Field(
        min_length=1,
        max_length=65536,
    ),
    model.Says(
        "must be at most 65536 characters of PEM; keep only the CAs that this registry needs", _explain_pem
    ),
]

PluginName = Annotated[
    str,
    pydantic.Field(min_length=1, max_length=63, pattern="^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"),
    model.Says("must be the name under which the plugin is installed, such as quay-federation"),
]

#: What a plugin may be told: any JSON object.
PluginConfig = Annotated[
    dict[str, Any],
    pydantic.Field(max_length=64, json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}),
]
