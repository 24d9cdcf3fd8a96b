"""Why the kubelet has nothing to send: where on its way to the pod a login stays.  Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping

from regcred import dockerconfig
from regcred.api import conditions, hosts, names
from regcred.api import resource as api_resource
from regcred.diagnosis import keyring, steps
from regcred.diagnosis.case import Case
from regcred.diagnosis.causes import Cause
from regcred.diagnosis.facts import Finding, Step
from regcred.distribution import selection
from regcred.eviction import stuck

#: A status that is younger is still on its way.
_SOON = dt.timedelta(seconds=60)


def unsent(case: Case) -> Finding:
    """Return why no login reaches the pod."""
    facts = case.facts
    if facts.labels is None:
        return case.finding(
            Cause.NAMESPACE_MISSING,
            f"The namespace {facts.namespace} does not exist, or is being deleted.",
            Step("Create it.", f"kubectl create namespace {facts.namespace}"),
        )
    if case.applying:
        return _undelivered(case, *case.applying[0])
    invalid = next((row for row in facts.resources if row.spec is None and case.means(row)), None)
    if invalid is not None:
        wrong = invalid.problems[0]
        return case.finding(
            Cause.INVALID_RESOURCE,
            f"{invalid.key} declares {case.host} and is not valid. {wrong}",
            Step("Correct it.", f"kubectl edit {steps.of(invalid)}"),
        )
    if case.serving:
        return _unselected(case, case.serving[0][0])
    return _misspelled(case) or _near(case) or _undeclared(case)


def _undelivered(case: Case, resource: api_resource.Resource, index: int) -> Finding:
    """Say why a login that is meant for this pod does not reach it."""
    assert resource.spec is not None  # noqa: S101 - it applies here
    facts, name = case.facts, resource.spec.secret_name
    secret = facts.secrets.get(name)
    if secret is not None and secret.forbidden:
        return case.finding(
            Cause.BLIND, f"The Secret {name} in {facts.namespace} may not be read with this login."
        )
    if secret is not None and not secret.ours:
        return case.finding(
            Cause.CONFLICT,
            f"{resource.key} would write the Secret {name}, but one that is not regcred's stands in {facts.namespace}.",
            Step(
                "Hand it over, if nothing else needs it: what is in it is replaced.",
                f"kubectl -n {facts.namespace} annotate secret {name} {names.ADOPT}=true",
            ),
        )
    holds = secret is not None and bool(keyring.matches(secret.keys, facts.image))
    if holds and name not in facts.listed:
        return _unlisted(case, resource, name)
    if facts.account is None:
        return _no_account(case)
    return _unwritten(case, resource, index, name)


def _unlisted(case: Case, resource: api_resource.Resource, name: str) -> Finding:
    """Say why the pod's list lacks a Secret that has the login."""
    facts, account = case.facts, case.facts.account
    if account is None:
        return _no_account(case)
    own = facts.pod.pull_secrets and (
        not facts.real or not set(facts.pod.pull_secrets) <= set(account.pull_secrets)
    )
    where = f"The Secret {name} in {facts.namespace} has the login (from {resource.key})"
    if own:
        listed = ", ".join(facts.pod.pull_secrets)
        return case.finding(
            Cause.OWN_LIST,
            f"{where}, but the pod has imagePullSecrets of its own ({listed}) without {name}, so it does not get "
            f"those of its service account.",
            steps.list_secret(facts, name),
        )
    if name not in account.pull_secrets:
        return _unattached(case, resource, name)
    if facts.pod.pull_secrets and not stuck.older(facts.pod, account.since):
        return case.finding(
            Cause.OWN_LIST,
            f"{where}, but the pod was created with a list of its own, without {name}.",
            steps.list_secret(facts, name),
        )
    return case.finding(
        Cause.POD_OLDER,
        f"{where}, and the service account {account.name} lists it, but the pod was created before that. The list "
        f"is copied once, when a pod is created.",
        steps.restart(facts, "Make the pod anew."),
    )


def _no_account(case: Case) -> Finding:
    facts = case.facts
    return case.finding(
        Cause.ACCOUNT_MISSING,
        f"The service account {facts.pod.account} does not exist in {facts.namespace}.",
        Step("Create it.", f"kubectl -n {facts.namespace} create serviceaccount {facts.pod.account}"),
    )


def _unattached(case: Case, resource: api_resource.Resource, name: str) -> Finding:
    """Say why the account does not list a Secret that stands."""
    facts, account = case.facts, case.facts.account
    assert account is not None  # noqa: S101 - the callers have looked
    assert resource.spec is not None  # noqa: S101 - it applies here
    if account.ignored:
        return case.finding(
            Cause.ACCOUNT_OPTED_OUT,
            f"The service account {account.name} carries the annotation {names.IGNORE}, so regcred leaves it alone.",
            Step(
                "Remove the annotation.",
                f"kubectl -n {facts.namespace} annotate serviceaccount {account.name} {names.IGNORE}-",
            ),
        )
    if not selection.matches_globs(resource.spec.service_accounts, account.name):
        chosen = ", ".join(resource.spec.service_accounts) or "none"
        return case.finding(
            Cause.ACCOUNT_NOT_CHOSEN,
            f"{resource.key} serves the service accounts {chosen}, and the pod's is {account.name}.",
            steps.choose_account(facts, resource),
        )
    told = case.condition(resource, conditions.DISTRIBUTED)
    if told.get("reason") == conditions.Reason.CONTENDED or case.failure(resource, "Contended"):
        return case.finding(
            Cause.CONTENDED,
            f"Somebody keeps taking {name} out of the service account {account.name}; regcred tries again hourly.",
            Step(
                "See who writes the list.",
                f"kubectl -n {facts.namespace} get serviceaccount {account.name} -o yaml --show-managed-fields",
            ),
        )
    return _waiting(case, resource, f"the service account {account.name} does not list {name} yet")


def _unwritten(case: Case, resource: api_resource.Resource, index: int, name: str) -> Finding:
    """Say why the Secret is not there, or lacks the login."""
    assert resource.spec is not None  # noqa: S101 - it applies here
    server = resource.spec.registries[index].server
    row = case.row(resource, server)
    told = case.condition(resource, conditions.DISTRIBUTED)
    usable = row.get("expiresAt") or row.get("reason") in {"Issued", "Verified", "Shadowed"}
    if not resource.spec.suspend and row and not usable and row.get("reason") != "Progressing":
        return case.finding(
            Cause.LOGIN_MISSING,
            f"{resource.key} has no login for {server} ({row['reason']}): {row.get('message', '')}",
            _mend(case, resource, server, str(row["reason"])),
        )
    if resource.spec.suspend:
        return case.finding(
            Cause.SUSPENDED, f"{resource.key} is suspended, and brings nothing new.", steps.resume(resource)
        )
    failure = case.failure(resource)
    if failure or (told.get("status") == "False" and told.get("reason") == "Forbidden"):
        return case.finding(
            Cause.WRITE_FAILED,
            f"{resource.key} could not write the Secret {name}: {failure or told.get('message', '')}",
            Step("See all of its status.", f"kubectl describe {steps.of(resource)}"),
        )
    return _waiting(case, resource, f"the Secret {name} does not have the login yet")


def _mend(case: Case, resource: api_resource.Resource, server: str, reason: str) -> Step:
    if reason in {"SourceMissing", "SourceInvalid", "BadCredentials"}:
        return steps.source(case.facts, resource, server, "Store the login where the resource reads it.")
    return steps.refresh(resource, "Do what the message says, then have it fetched now.")


def _waiting(case: Case, resource: api_resource.Resource, what: str) -> Finding:
    assert resource.spec is not None  # noqa: S101 - it applies here
    if resource.spec.suspend:
        return case.finding(Cause.SUSPENDED, f"{resource.key} is suspended, and {what}.", steps.resume(resource))
    seen = resource.status.get("observedGeneration") == resource.generation
    if not seen and case.facts.now - resource.creation_timestamp > _SOON:
        where = case.facts.operator_namespace
        return case.finding(
            Cause.OPERATOR_SILENT,
            f"No operator has looked at {resource.key}, so {what}.",
            Step("See whether it runs.", f"kubectl -n {where} get pods -l app.kubernetes.io/name=regcred"),
        )
    return case.finding(
        Cause.PROGRESSING,
        f"The operator is at work on {resource.key}: {what}.",
        Step("Wait for it.", f"kubectl wait {steps.of(resource)} --for=condition=Ready --timeout=60s"),
    )


def _unselected(case: Case, resource: api_resource.Resource) -> Finding:
    """Say why a resource that has the login is not for this namespace."""
    facts = case.facts
    assert facts.labels is not None  # noqa: S101 - the caller has looked
    assert resource.spec is not None  # noqa: S101 - it serves the image
    what = f"{resource.key} has a login for {case.host}"
    if selection.opted_out(facts.labels):
        return case.finding(
            Cause.NAMESPACE_OPTED_OUT,
            f"{what}, but the namespace carries the label {names.IGNORE}=true.",
            Step("Remove the label.", f"kubectl label namespace {facts.namespace} {names.IGNORE}-"),
        )
    if selection.protected(facts.namespace, (facts.operator_namespace, *facts.protected)):
        return case.finding(
            Cause.NAMESPACE_PROTECTED,
            f"{what}, but no cluster resource serves the protected namespace {facts.namespace}.",
            Step("Declare a RegistryCredential there, if it is to have a login."),
        )
    excluded = resource.spec.namespaces.exclude  # type: ignore[attr-defined]
    if selection.matches_globs(excluded, facts.namespace):
        return case.finding(
            Cause.NAMESPACE_NOT_SELECTED,
            f"{what}, but excludes the namespace: spec.namespaces.exclude has {', '.join(excluded)}.",
            Step("Take the pattern out of exclude.", f"kubectl edit {steps.of(resource)}"),
        )
    return case.finding(
        Cause.NAMESPACE_NOT_SELECTED,
        f"{what}, but does not select the namespace {facts.namespace}, whose labels are {_shown(facts.labels)}.",
        steps.select(facts, resource),
    )


def _misspelled(case: Case) -> Finding | None:
    """Find a Secret of the pod's list whose key means the registry and is found by no kubelet."""
    for name in case.facts.listed:
        secret = case.facts.secrets.get(name)
        for key in secret.keys if secret is not None else ():
            try:
                canonical = dockerconfig.canonical_server(key)
            except dockerconfig.BadServer:
                continue
            if keyring.matches([canonical], case.facts.image):
                return case.finding(
                    Cause.WRONG_KEY,
                    f"The Secret {name} has a login under {key!r}, where no kubelet finds it for {case.host}; the "
                    f"key must be {canonical}.",
                    Step(
                        "Write it again under that key.",
                        f"kubectl -n {case.facts.namespace} create secret docker-registry {name} "
                        f"--docker-server={canonical} --docker-username=<user> --docker-password=<password> "
                        "--dry-run=client -o yaml | kubectl replace --force -f -",
                        fill_in=True,
                    ),
                )
    return None


def _near(case: Case) -> Finding | None:
    """Find a login that is meant for this registry and stands under another of its hosts, or below another path."""
    for resource in case.facts.resources:
        for index, entry in enumerate(resource.spec.registries if resource.spec is not None else ()):
            for server in (entry.server, *entry.aliases):
                host, slash, path = server.partition("/")
                if host == case.host and slash:
                    return case.finding(
                        Cause.HOST_MISMATCH,
                        f"{resource.key} has a login for {server} only, and the image lies outside of {path}.",
                        Step(f"Declare {host} without the path, or with this one."),
                    )
                if _same_registry(host, case.host):
                    return case.finding(
                        Cause.HOST_MISMATCH,
                        f"{resource.key} has a login for {host}, and the image is on {case.host}: a kubelet compares "
                        f"hosts letter by letter, with their port.",
                        steps.add_alias(resource, index, case.host),
                    )
    return None


def _undeclared(case: Case) -> Finding:
    listed = [name for name in case.facts.listed if case.facts.secrets.get(name) is not None]
    told = f"; of the pod's pull Secrets ({', '.join(listed)}) none has one" if listed else ""
    return case.finding(
        Cause.NOT_DECLARED,
        f"No resource declares {case.host} for {case.facts.namespace}{told}. A public image needs no login.",
        steps.declare(case.facts, case.host),
    )


_LOOPBACK = {"localhost", "127.0.0.1"}
_ECR = re.compile(r"(?P<account>[0-9]{12})\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.")


def _same_registry(declared: str, asked: str) -> bool:
    """Whether two hosts differ in their port, or are two names of one ECR registry."""
    if declared == asked or "*" in declared:
        return False
    if declared.rpartition(":")[0] == asked or asked.rpartition(":")[0] == declared:
        return True
    (name, _, port), (other, _, its) = declared.partition(":"), asked.partition(":")
    if {name, other} <= _LOOPBACK:
        return port == its
    if name == other and port and its:
        return True
    ours, theirs = _ECR.match(declared), _ECR.match(asked)
    if ours and theirs and hosts.provider_of(asked) == "ecr":
        return ours.groups() == theirs.groups()
    return declared.lower() == asked.lower()


def _shown(labels: Mapping[str, str]) -> str:
    shown = [f"{key}={value}" for key, value in sorted(labels.items()) if key != "kubernetes.io/metadata.name"]
    return ", ".join(shown[:6]) or "none"
