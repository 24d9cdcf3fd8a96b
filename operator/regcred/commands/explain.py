"""`explain`: why a pull fails, or works, and what to do next."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import click

from regcred import dockerconfig
from regcred.cluster import errors
from regcred.commands import common, told
from regcred.diagnosis import diagnose, gathering
from regcred.diagnosis.causes import Result
from regcred.diagnosis.facts import Facts, Finding

_KINDS = {
    **{kind: kind for kind in gathering.WORKLOADS},
    "deploy": "deployment",
    "sts": "statefulset",
    "ds": "daemonset",
    "rs": "replicaset",
    "cj": "cronjob",
    "rc": "replicationcontroller",
    "pod": "pod",
    "po": "pod",
    "image": "image",
}


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="KIND NAME | KIND/NAME")
@common.namespaced
@click.option("--service-account", default="default", show_default=True, help="Of a new pod, for `explain image`.")
@click.option("--verify", is_flag=True, help="Ask the registry, from here, whether it accepts the login.")
@click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False, path_type=pathlib.Path),
    help="CAs to trust for --verify, as PEM; those of the resource if left out.",
)
@common.protected
@common.operator_namespace
@common.connection
@common.output
@common.asynchronous
async def explain(what: Sequence[str], **options: Any) -> int:
    """Say why a pull fails, or works, and what to do next.

    \b
      explain pod web-0 -n team-a
      explain deployment/web -n team-a --verify
      explain image quay.io/org/app:1 -n team-a --service-account build

    It ends with 0 where the pull works or should work, with 1 where a cause was found, and with 3 where that could not
    be looked at. It changes nothing, and shows no login.
    """  # noqa: D301 - click's own mark  # noqa: D301 - the mark of click for lines to keep
    kind, name = _target(what)
    kubeconfig, context = options["kubeconfig"], options["context"]
    namespace = options["namespace"] or common.default_namespace(kubeconfig, context)
    where = options["operator_namespace"]
    async with common.connected(kubeconfig, context) as client:
        how = gathering.Options(
            where,
            await told.protected_namespaces(client, where, options["protected_namespaces"]),
            options["verify"],
            options["ca_file"].read_text(encoding="utf-8") if options["ca_file"] else "",
        )
        gatherer = gathering.Gatherer(client, namespace, how)
        try:
            if kind == "pod":
                facts = await gatherer.of_pod(name)
            elif kind == "image":
                facts = await gatherer.of_image(name, options["service_account"])
            else:
                facts = await gatherer.of_workload(kind, name)
        except errors.NotFound:
            raise common.Failure(f"There is no {kind} {name} in the namespace {namespace}.") from None
    findings = sorted(map(diagnose, facts), key=_rank)
    if options["form"]:
        common.emit(_document(namespace, kind, name, findings), options["form"])
    else:
        _show(findings)
    return _code(findings)


def _target(what: Sequence[str]) -> tuple[str, str]:
    words = list(what)
    if len(words) == 1 and words[0].partition("/")[0].lower().rstrip("s") in _KINDS:
        words = list(words[0].partition("/")[::2])
    kind = _KINDS.get(words[0].lower()) or _KINDS.get(words[0].lower().removesuffix("s"))
    if len(words) != 2 or not words[1] or kind is None:
        known = ", ".join(dict.fromkeys(_KINDS.values()))
        raise click.UsageError(f"write a kind and a name, such as `explain pod web-0`; the kinds are {known}")
    return kind, words[1]


def _rank(finding: Finding) -> int:
    """Order findings: what fails, what could not be looked at, what recovers, what works."""
    result = finding.cause.result
    return {Result.CAUSE: 0, Result.BLIND: 1}.get(result, 2 if finding.step else 3)


def _code(findings: Sequence[Finding]) -> int:
    results = {finding.cause.result for finding in findings}
    return int(next((result for result in (Result.CAUSE, Result.BLIND) if result in results), Result.WORKS))


def _registry(facts: Facts) -> str:
    try:
        return dockerconfig.normalise_image(facts.image).host
    except dockerconfig.BadImage:
        return ""


def _document(namespace: str, kind: str, name: str, findings: Sequence[Finding]) -> dict[str, Any]:
    facts = findings[0].facts
    return {
        "namespace": namespace,
        "target": {"kind": kind, "name": name},
        "serviceAccount": facts.pod.account,
        "pullSecrets": list(facts.listed),
        "works": _code(findings) == 0,
        "findings": [_finding(finding) for finding in findings],
        "couldNotRead": list(facts.gaps),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    facts, step = finding.facts, finding.step
    return {
        "container": facts.container.name,
        "image": facts.image,
        "registry": _registry(facts),
        "cause": str(finding.cause),
        "explanation": finding.explanation,
        "step": {"text": step.text, "command": step.command, "fillIn": step.fill_in} if step else None,
        "kubelet": {"reason": facts.container.reason, "message": facts.container.message},
        "logins": [
            {
                "secret": choice.secret,
                "server": choice.server,
                "from": choice.source,
                "expires": choice.standing.expires if choice.standing else "",
            }
            for choice in finding.choices
        ],
        "registrySays": [
            {
                "secret": proof.choice.secret,
                "outcome": proof.verdict.outcome.reason,
                "message": proof.verdict.message,
            }
            for proof in facts.proofs
        ],
    }


def _show(findings: Sequence[Finding]) -> None:
    first = findings[0]
    _show_one(first)
    others = findings[1:]
    if others:
        rows = [(each.facts.container.name, each.facts.image, str(each.cause)) for each in others]
        common.console().print(common.table(("OTHER CONTAINER", "IMAGE", "FINDING"), rows))
    if first.facts.gaps:
        common.say(f"Could not be read with this login: {'; '.join(first.facts.gaps)}.", "yellow")


def _show_one(finding: Finding) -> None:
    facts, step = finding.facts, finding.step
    good = finding.cause.result is Result.WORKS
    common.say(f"{finding.cause}: {finding.cause.doc}", "bold green" if good else "bold red")
    common.say(finding.explanation)
    pod = f"{facts.pod.name}, container {facts.container.name}" if facts.real else "a new one"
    rows = [
        ("Image", f"{facts.image}  (registry {_registry(facts) or 'none'})"),
        ("Pod", f"{pod}; its list: {', '.join(facts.listed) or 'none'}"),
        ("Service account", _account(facts)),
    ]
    for number, choice in enumerate(finding.choices, 1):
        until = choice.standing.expires if choice.standing and choice.standing.expires else ""
        rows.append(
            (
                f"Login {number}",
                f"{choice.server} of Secret {choice.secret}"
                + (f", from {choice.source}" if choice.source else ", not regcred's")
                + (f", until {until}" if until else ""),
            )
        )
    rows += [("Registry says", proof.verdict.message) for proof in facts.proofs]
    if facts.container.reason:
        rows.append(("Kubelet says", f"{facts.container.reason}: {facts.container.message or 'nothing more'}"))
    common.console().print(common.table(("", ""), rows))
    if step is not None:
        common.say(f"Next: {step.text}", "bold")
        if step.command:
            common.say(f"  {step.command}", "cyan", whole=True)
        if step.fill_in:
            common.say("Replace the words in angle brackets first.")


def _account(facts: Facts) -> str:
    if facts.account is None:
        return f"{facts.pod.account}, which does not exist"
    return f"{facts.account.name}; its list: {', '.join(facts.account.pull_secrets) or 'none'}"
