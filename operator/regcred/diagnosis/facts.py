"""What a diagnosis works on, and what it comes to: plain values without any login."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping

from regcred import kubelet
from regcred.api import resource as api_resource
from regcred.cluster import views
from regcred.credentials import verification
from regcred.diagnosis.causes import Cause


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """A service account.

    Attributes:
        since: when its list was written last; None where that is not known.
    """

    name: str
    pull_secrets: tuple[str, ...] = ()
    ignored: bool = False
    since: dt.datetime | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class PullSecret:
    """A Secret that a pod, an account or a resource names, and that exists.

    Attributes:
        name: of the Secret.
        type: its type; kubelets read two of them and ignore all others.
        view: its metadata.
        keys: its servers in their own spelling, in order; entries that hold no login are among them.
        broken: why no kubelet can read it, or "".
        written: when its data was written last, or None.
        forbidden: it exists as far as is known, but may not be read.
    """

    name: str
    type: str = ""
    view: views.SecretView | None = None
    keys: tuple[str, ...] = ()
    broken: str = ""
    written: dt.datetime | None = None
    forbidden: bool = False

    @property
    def ours(self) -> bool:
        """Whether regcred made it."""
        return self.view is not None and self.view.ours


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """A login that the kubelet would send.

    Attributes:
        secret: name of the Secret.
        server: key of the entry, in its own spelling.
        standing: what regcred says of it; None where it is not regcred's.
        source: the resource it comes from, as people name it, or "".
    """

    secret: str
    server: str
    standing: views.Standing | None = None
    source: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Proof:
    """What the registry said to one login."""

    choice: Choice
    verdict: verification.Verdict


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """What was asked about: a pod, a workload or an image.

    Attributes:
        kind: `Pod`, `Deployment` and so on; `Image`.
        name: of the object, or the image.
        workload: kind and name of the object whose template makes such pods, or None.
    """

    kind: str
    name: str
    workload: tuple[str, str] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """Everything about one image of one pod.

    Attributes:
        now: UTC.
        target: what was asked about.
        namespace: the pod's.
        labels: of the namespace; None where there is none, or where it is being deleted.
        pod: the pod, or what one would be like.
        container: the one whose image this is.
        account: None where it does not exist.
        secrets: name to Secret; None where it does not exist.
        resources: those of the cluster kind and those of this namespace.
        spelled: UID of a resource to the servers in it, as written, with their aliases; of invalid ones, too.
        failed_at: when the kubelet last failed to pull the image, or None.
        proofs: what the registry said, in the order in which it was asked.
        operator_namespace: where the operator runs, and sources of the cluster kind are.
        protected: globs of namespaces that no cluster resource serves.
        gaps: what could not be read.
    """

    now: dt.datetime
    target: Target
    namespace: str
    labels: Mapping[str, str] | None
    pod: kubelet.Pod
    container: kubelet.Container
    account: Account | None
    secrets: Mapping[str, PullSecret | None]
    resources: tuple[api_resource.Resource, ...] = ()
    spelled: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    failed_at: dt.datetime | None = None
    proofs: tuple[Proof, ...] = ()
    operator_namespace: str = "regcred-system"
    protected: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()

    @property
    def image(self) -> str:
        """The image's name."""
        return self.container.image

    @property
    def real(self) -> bool:
        """Whether the pod exists."""
        return self.pod.created is not None

    @property
    def listed(self) -> tuple[str, ...]:
        """The names in the pod's list: its own, or what it would get from its account."""
        if self.real or self.pod.pull_secrets:
            return self.pod.pull_secrets
        return self.account.pull_secrets if self.account is not None else ()


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """What to do next.

    Attributes:
        text: one sentence.
        command: to paste, or "".
        fill_in: whether words in angle brackets have to be replaced first.
    """

    text: str
    command: str = ""
    fill_in: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What a diagnosis comes to.

    Attributes:
        cause: the one cause.
        explanation: what is so, in this case.
        step: what to do next; None where nothing is to be done.
        choices: the logins that the kubelet would send, in order.
    """

    facts: Facts
    cause: Cause
    explanation: str
    step: Step | None = None
    choices: tuple[Choice, ...] = ()
