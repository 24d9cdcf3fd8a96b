"""What can be wrong with a docker config.

    DockerConfigError
    |-- BadServer   a server that no image name can match, or that must not be contacted
    |-- BadLogin    a user name or password that cannot be sent to a registry
    |-- BadConfig   a document or an entry that the kubelet would not read as its author meant
    |   `-- Poison  an entry over which the kubelet fails every pull of a pod
    |-- BadImage    an image name that no container runtime accepts
    `-- TooLarge    a document over the size that the API server stores

Their text is fixed: it says what to do and never repeats a value.
"""

from __future__ import annotations


class DockerConfigError(ValueError):
    """Something about the docker config format is wrong; the text says what, and what to do."""


class BadServer(DockerConfigError):
    """The text does not name a registry that a container runtime would find a login for."""


class BadLogin(DockerConfigError):
    """The user name or password cannot be sent to a registry."""


class BadConfig(DockerConfigError):
    """The kubelet would not read the document or the entry, or not as its author meant."""


class Poison(BadConfig):
    """The kubelet fails on this entry, and with it every pull of a pod that lists the document."""


class BadImage(DockerConfigError):
    """The text is no image name."""


class TooLarge(DockerConfigError):
    """The logins take more room than one Secret has."""
