"""The docker config format, as the kubelet reads it.

A pull Secret (`kubernetes.io/dockerconfigjson`) is one JSON document: `{"auths": {server: {...}}}`.
The kubelet is stricter and odder than `docker login` about it: one undecodable `auth` breaks every pull of a
pod, keys are matched by its own rules, and most fields are ignored.  Everything regcred knows about the
format stands here, free of input and output.
"""

from regcred.dockerconfig.document import MAX_BYTES, Parsed, check_entry, is_base64_of, parse, serialise
from regcred.dockerconfig.errors import (
    BadConfig,
    BadImage,
    BadLogin,
    BadServer,
    DockerConfigError,
    Poison,
    TooLarge,
)
from regcred.dockerconfig.keyring import Image, lookup, normalise_image
from regcred.dockerconfig.login import Login
from regcred.dockerconfig.servers import DOCKER_HUB, canonical_server

__all__ = [
    "DOCKER_HUB",
    "MAX_BYTES",
    "BadConfig",
    "BadImage",
    "BadLogin",
    "BadServer",
    "DockerConfigError",
    "Image",
    "Login",
    "Parsed",
    "Poison",
    "TooLarge",
    "canonical_server",
    "check_entry",
    "is_base64_of",
    "lookup",
    "normalise_image",
    "parse",
    "serialise",
]
