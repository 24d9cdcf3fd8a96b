"""What a diagnosis can come to.  The troubleshooting reference is made from it."""

from __future__ import annotations

import enum

from regcred.api.conditions import Documented


class Result(enum.IntEnum):
    """Exit codes of `explain`."""

    WORKS = 0
    CAUSE = 1
    BLIND = 3


class Cause(Documented):
    """Why a pull fails, or why it does not."""

    PULLED = "Pulled", "The image was pulled; the container runs or has run."
    WORKS = "Works", "The kubelet has a living login for this image, and nothing speaks against it."
    RECOVERS = "Recovers", "What was wrong is mended; the kubelet tries again within five minutes."

    POD_OLDER = (
        "PodOlder",
        "The pod was created before its service account listed the Secret, and lists are copied once.",
    )
    OWN_LIST = "OwnList", "The pod has a list of its own without the Secret, so it does not get its account's."
    ACCOUNT_MISSING = "AccountMissing", "The service account does not exist."
    ACCOUNT_NOT_CHOSEN = (
        "AccountNotChosen",
        "spec.serviceAccounts of the resource does not name this service account.",
    )
    ACCOUNT_OPTED_OUT = "AccountOptedOut", "The service account carries the annotation regcred.io/ignore."
    CONTENDED = "Contended", "Somebody keeps removing the entry from the service account."
    NAMESPACE_MISSING = "NamespaceMissing", "The namespace does not exist, or is being deleted."
    NAMESPACE_NOT_SELECTED = (
        "NamespaceNotSelected",
        "The resource that has the login does not select this namespace.",
    )
    NAMESPACE_OPTED_OUT = "NamespaceOptedOut", "The namespace carries the label regcred.io/ignore."
    NAMESPACE_PROTECTED = "NamespaceProtected", "No cluster resource serves a protected namespace."
    CONFLICT = "Conflict", "A Secret of that name that is not regcred's stands in the namespace."
    SUSPENDED = "Suspended", "The resource is suspended."
    INVALID_RESOURCE = "InvalidResource", "The resource that declares this registry is not valid."
    LOGIN_MISSING = "LoginMissing", "The resource has no login for this registry yet; its row says why."
    OPERATOR_SILENT = "OperatorSilent", "No operator has looked at the resource."
    PROGRESSING = "Progressing", "The operator is at work on it."
    WRITE_FAILED = "WriteFailed", "The operator could not write the Secret or the account."
    EXPIRED = "Expired", "The login that the kubelet would send has ended."
    BAD_CREDENTIALS = "BadCredentials", "The registry does not accept the login."
    NO_RIGHT = "NoRight", "The registry knows the login and gives it no right to this repository."
    REFUSED = "Refused", "The registry refuses the login that was sent, and does not say why."
    SHADOWED = (
        "Shadowed",
        "The login that is refused comes from a resource of higher precedence; another has one, too.",
    )
    HUB_HIDDEN = "HubHidden", "A narrower entry for docker.io hides the login for all of Docker Hub."
    HOST_MISMATCH = "HostMismatch", "There is a login for this registry, under another spelling of its host."
    WRONG_KEY = "WrongKey", "A pull Secret names the registry in a way that no kubelet finds."
    POISONED = "Poisoned", "A pull Secret that no kubelet can read breaks every pull of the pod."
    NOT_DECLARED = (
        "NotDeclared",
        "No resource declares this registry, and no pull Secret of the pod has a login for it.",
    )

    INVALID_NAME = "InvalidName", "The image's name is not one."
    NEVER_PULL = "NeverPull", "imagePullPolicy is Never, and the node does not have the image."
    IMAGE_NOT_FOUND = "ImageNotFound", "The registry has no such image or tag."
    PLATFORM = "WrongPlatform", "The image is not built for the node's platform."
    NO_SUCH_HOST = "NoSuchHost", "The node cannot resolve the registry's name."
    CERTIFICATE = "UntrustedCertificate", "The node does not trust the registry's certificate."
    PLAIN_HTTP = "PlainHttp", "The registry speaks no TLS, and the node was not told so."
    UNREACHABLE = "Unreachable", "The registry does not answer the node."
    REGISTRY_FAULT = "RegistryFault", "The registry has a fault of its own."
    RATE_LIMITED = "RateLimited", "The registry's limit of pulls is reached."
    NODE_LIMIT = "NodeLimit", "The kubelet's own limit of pulls is reached."
    DISK_FULL = "DiskFull", "The node's disk is full."
    SIGNATURE = "SignatureRefused", "The node's policy refuses the image's signature."

    BLIND = "CouldNotLook", "What would tell the cause may not be read with this login."

    @property
    def result(self) -> Result:
        """The exit code."""
        if self in {Cause.PULLED, Cause.WORKS, Cause.RECOVERS}:
            return Result.WORKS
        return Result.BLIND if self is Cause.BLIND else Result.CAUSE
