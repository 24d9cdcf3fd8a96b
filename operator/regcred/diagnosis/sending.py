"""What the kubelet says, and what it would send.  Pure."""

from __future__ import annotations

from regcred import dockerconfig
from regcred.credentials.verification import Outcome
from regcred.diagnosis import steps
from regcred.diagnosis.case import Case
from regcred.diagnosis.causes import Cause
from regcred.diagnosis.facts import Choice, Finding, Step
from regcred.kubelet import Symptom

_AGAIN = "The kubelet tries again within five minutes, or at once with a new pod."

#: What is no matter of logins: what is so, and what to do.
_ELSEWHERE = {
    Symptom.INVALID_NAME: (Cause.INVALID_NAME, "Correct the image's name in the pod."),
    Symptom.NEVER_PULL: (Cause.NEVER_PULL, "Set imagePullPolicy to IfNotPresent, or bring the image to the node."),
    Symptom.PLATFORM: (
        Cause.PLATFORM,
        "Build the image for the node's platform, or choose nodes by kubernetes.io/arch.",
    ),
    Symptom.NO_SUCH_HOST: (Cause.NO_SUCH_HOST, "Correct the host in the image's name, or the DNS of the node."),
    Symptom.CERTIFICATE: (
        Cause.CERTIFICATE,
        "Have the container runtime of the nodes trust the registry's CA; tls.caBundle is for regcred's own requests.",
    ),
    Symptom.PLAIN_HTTP: (Cause.PLAIN_HTTP, "Give the registry a certificate, or allow it without in the runtime."),
    Symptom.UNREACHABLE: (
        Cause.UNREACHABLE,
        "Look for a firewall, a proxy or an outage between node and registry.",
    ),
    Symptom.REGISTRY_FAULT: (Cause.REGISTRY_FAULT, "Ask whoever runs the registry; the kubelet goes on trying."),
    Symptom.NODE_LIMIT: (Cause.NODE_LIMIT, "Wait, or raise registryPullQPS of the kubelet."),
    Symptom.DISK_FULL: (Cause.DISK_FULL, "Make room on the node."),
    Symptom.SIGNATURE: (Cause.SIGNATURE, "Sign the image, or correct the policy of the node."),
}


def told(case: Case) -> Finding | None:
    """Return what the kubelet says, where that is definite."""
    container, symptom = case.facts.container, case.symptom
    if not case.host or symptom is Symptom.INVALID_NAME:
        told = "a container runtime takes host/repository:tag, the repository in lower case"
        return case.finding(
            Cause.INVALID_NAME,
            f"{case.facts.image!r} is no image name: {told}.",
            Step(_ELSEWHERE[Symptom.INVALID_NAME][1]),
        )
    if container.started:
        return case.finding(Cause.PULLED, f"The image of the container {container.name} was pulled.")
    if symptom in _ELSEWHERE:
        cause, remedy = _ELSEWHERE[symptom]
        return case.finding(
            cause, f"The kubelet says that {symptom.value}. This is no matter of logins.", Step(remedy)
        )
    if symptom is Symptom.NOT_FOUND and case.accepted is None:
        return _not_found(case)
    limited = symptom is Symptom.RATE_LIMITED or (symptom is Symptom.ANONYMOUS_LIMIT and not case.applying)
    if limited and (case.choices or not case.applying):
        with_login = f" for the login of {case.source(case.choices[0])}" if case.choices else " without a login"
        remedy = (
            "Wait, or pull through a mirror."
            if case.choices
            else "Declare the registry: a login has a higher limit."
        )
        return case.finding(Cause.RATE_LIMITED, f"The limit of {case.host}{with_login} is reached.", Step(remedy))
    return None


def _not_found(case: Case) -> Finding:
    sent = (
        f"It was asked with the login of {case.source(case.choices[0])}."
        if case.choices
        else ("It was asked without a login; a few registries say so to hide what is private.")
    )
    image = dockerconfig.normalise_image(case.facts.image)
    return case.finding(
        Cause.IMAGE_NOT_FOUND,
        f"{image.host} has no {image.repository} with the tag or digest {image.reference}. {sent}",
        Step("Correct the image's name and tag, or push the image."),
    )


def unreadable(case: Case) -> Finding | None:
    """Whether a Secret that counts may not be read."""
    hidden = [name for name in case.facts.listed if (found := case.facts.secrets.get(name)) and found.forbidden]
    if not hidden or case.choices:
        return None
    may = f"kubectl auth can-i get secret/{hidden[0]} -n {case.facts.namespace}"
    return case.finding(
        Cause.BLIND,
        f"The Secret {hidden[0]} in {case.facts.namespace} may not be read with this login.",
        Step("Ask somebody who may.", may),
    )


def poisoned(case: Case) -> Finding | None:
    """Whether one of the Secrets breaks all of them: the kubelet then sends nothing at all."""
    for name in case.facts.listed:
        secret = case.facts.secrets.get(name)
        if secret is not None and secret.broken:
            return case.finding(
                Cause.POISONED,
                f"No kubelet can read the Secret {name}, which breaks every pull of the pod: {secret.broken}",
                Step(
                    f"Write {name} again.",
                    f"kubectl -n {case.facts.namespace} create secret docker-registry {name} "
                    "--docker-server=<host> --docker-username=<user> --docker-password=<password> "
                    "--dry-run=client -o yaml | kubectl replace --force -f -",
                    fill_in=True,
                ),
            )
    return None


def sent(case: Case) -> Finding | None:
    """Return what becomes of the login that is sent; None where there is none."""
    if not case.choices:
        return None
    if case.accepted is not None:
        return _fine(case, f"The registry accepts it: {case.accepted.verdict.message}")
    for proof in case.facts.proofs:
        if proof.verdict.outcome is Outcome.NOT_FOUND:
            return _not_found(case)
        if proof.verdict.outcome.accepts is False:
            return _refused(
                case,
                proof.choice,
                Cause.BAD_CREDENTIALS if proof.verdict.outcome is Outcome.BAD_CREDENTIALS else Cause.NO_RIGHT,
                proof.verdict.message,
            )
    first = case.choices[0]
    if all(case.ended(choice) for choice in case.choices):
        return _expired(case, first)
    if case.symptom is Symptom.UNKNOWN or not case.symptom.of_login:
        return _fine(case, "")
    written = case.written(first)
    if written is not None and case.facts.failed_at is not None and written > case.facts.failed_at:
        return _fine(case, "It was written after the last failure.")
    cause = {Symptom.BAD_LOGIN: Cause.BAD_CREDENTIALS, Symptom.DENIED: Cause.NO_RIGHT}.get(
        case.symptom, Cause.REFUSED
    )
    return _refused(case, first, cause, f"By what the kubelet says, {case.symptom.value}.")


def _fine(case: Case, more: str) -> Finding:
    told = " ".join(part for part in (f"{case.described(case.choices[0])}.", more) if part)
    if case.facts.container.stuck:
        return case.finding(
            Cause.RECOVERS, f"{told} {_AGAIN}", steps.restart(case.facts, "Wait, or have it tried at once.")
        )
    return case.finding(Cause.WORKS, told)


def _expired(case: Case, choice: Choice) -> Finding:
    told = f"{case.described(choice)}: it has ended."
    resource = case.resource_of(choice)
    if resource is None:
        return case.finding(Cause.EXPIRED, told, Step("Nothing renews it: declare the registry."))
    if resource.spec is not None and resource.spec.suspend:
        return case.finding(
            Cause.SUSPENDED, f"{told} {resource.key} is suspended and renews nothing.", steps.resume(resource)
        )
    row = case.row(resource, choice.server)
    said = f" The last try: {row['message']}" if row.get("message") else ""
    return case.finding(Cause.EXPIRED, told + said, steps.refresh(resource))


def _refused(case: Case, choice: Choice, cause: Cause, said: str) -> Finding:
    """Say what to do about a login that the registry refuses."""
    hidden = _hidden_hub(case, choice)
    if hidden is not None:
        return hidden
    resource = case.resource_of(choice)
    told = f"{case.described(choice)}. {said}"
    if resource is None or resource.spec is None:
        if choice.standing is not None:
            return case.finding(
                cause, told, Step("The resource it came from is gone; declare the registry again.")
            )
        step = Step(
            f"Renew the login in the Secret {choice.secret}, which is not regcred's, or take {choice.secret} out of "
            "the pod's list."
        )
        return case.finding(cause, told, step)
    server = case.spelled(resource, choice.server)
    rivals = [row for row in case.applying if row[0].uid != resource.uid]
    if rivals:
        other = rivals[0][0]
        return case.finding(
            Cause.SHADOWED,
            f"{told} {other.key} has a login for this registry, too, which gives way to it.",
            Step(
                f"Renew the login of {resource.key}, or let that of {other.key} take over.",
                steps.drop_registry(resource, server),
            ),
        )
    if cause is Cause.NO_RIGHT:
        return case.finding(cause, told, Step("Give this user the right to pull the repository, in the registry."))
    return case.finding(
        cause, told, steps.source(case.facts, resource, server, "Store a login that the registry accepts.")
    )


def _hidden_hub(case: Case, choice: Choice) -> Finding | None:
    if case.host != "docker.io" or choice.server == dockerconfig.DOCKER_HUB:
        return None
    for name in case.facts.listed:
        secret = case.facts.secrets.get(name)
        if secret is not None and dockerconfig.DOCKER_HUB in secret.keys:
            return case.finding(
                Cause.HUB_HIDDEN,
                f"{case.described(choice)}, and it is refused. {name} has a login for all of Docker Hub, which the "
                f"kubelet uses only where no other entry matches.",
                Step(
                    f"Take the entry {choice.server} out of the Secret {choice.secret}, or end its key with a slash "
                    "where it is for one organisation only."
                ),
            )
    return None
