"""From facts to a cause: what cannot be prepared on a cluster without kubelets, clouds and time, and every cause has a row."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcred import kubelet
from regcred.api import names, resource
from regcred.cluster import views
from regcred.credentials.verification import Outcome, Verdict
from regcred.diagnosis import Cause, diagnose
from regcred.diagnosis.causes import Result
from regcred.diagnosis.facts import Account, Choice, Facts, Proof, PullSecret, Target

NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
DENIED = "pull access denied, repository does not exist or may require authorization: insufficient_scope"


def made(name: str = "platform", *servers: str, namespace: str = "", **more: Any) -> resource.Resource:
    """A resource with a login for each server; `status` and the rest of the spec by name."""
    status = {"observedGeneration": 1, **more.pop("status", {})}
    entries = [
        {"server": server, "login": {"secretRef": {"name": f"source-{name}"}}} for server in servers or ("r.io",)
    ]
    spec: dict[str, Any] = {"registries": entries, **({} if namespace else {"namespaces": {}}), **more}
    meta = {"name": name, "uid": name, "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return resource.parse(
        {
            "kind": names.NAMESPACED_KIND if namespace else names.CLUSTER_KIND,
            "metadata": {**meta, **({"namespace": namespace} if namespace else {})},
            "spec": spec,
            "status": status,
        }
    )


def row(server: str, reason: str, **more: str) -> dict[str, Any]:
    return {"registries": [{"server": server, "reason": reason, **more}]}


def standing(*rows: views.Standing, name: str = "regcred", written: dt.datetime | None = None) -> PullSecret:
    """Our Secret with these logins."""
    contributors = tuple(
        views.Contributor(uid, f"ClusterRegistryCredential/{uid}", False)
        for uid in sorted({each.uid for each in rows})
    )
    view = views.SecretView("team-a", name, "s", "1", ours=True, contributors=contributors, servers=rows)
    return PullSecret(
        name, names.SECRET_TYPE, view, keys=tuple(each.server for each in rows), written=written or NOW - HOUR
    )


def foreign(*keys: str, name: str = "mine", **more: Any) -> PullSecret:
    view = views.SecretView("team-a", name, "f", "1")
    return PullSecret(name, names.SECRET_TYPE, view, keys=keys, **more)


GOOD = standing(views.Standing("r.io", "platform"))


def case(
    image: str = "r.io/app:1", says: str | None = None, reason: str = "ImagePullBackOff", **more: Any
) -> Facts:
    """A new pod of an account that lists the Secret, in a namespace that is served; changed by name."""
    listed = more.pop("listed", ("regcred",))
    container = kubelet.Container("app", image, reason if says is not None else "", says or "")
    pod = kubelet.Pod(
        "team-a", "web-0", "p", "1", NOW, "Pending", "default", listed, ("ReplicaSet", "web-1"), (container,)
    )
    facts = Facts(
        now=NOW,
        target=Target("Pod", "web-0", ("Deployment", "web")),
        namespace="team-a",
        labels={},
        pod=pod,
        container=container,
        account=Account("default", ("regcred",), since=NOW - HOUR),
        secrets={"regcred": GOOD},
        resources=(made(),),
    )
    return dataclasses.replace(facts, **more)


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": status, "reason": reason, "message": message}]}


def proof(outcome: Outcome) -> tuple[Proof, ...]:
    return (
        Proof(
            Choice("regcred", "r.io", views.Standing("r.io", "platform")),
            Verdict(outcome, f"It said {outcome.reason}."),
        ),
    )


LACKS = {"secrets": {"regcred": standing(views.Standing("other.io", "platform"))}}
UNLISTED = {"account": Account("default", ()), "listed": ()}
STATUS_OLD = {"observedGeneration": 0}
ENDED = standing(views.Standing("r.io", "platform", "2026-06-01T11:00:00Z"))

#: What is so, the cause, and a part of the command or of the step that it leads to.
CASES: dict[str, tuple[Facts, Cause, str]] = {
    "all is well": (case(), Cause.WORKS, ""),
    "it runs": (
        case(container=kubelet.Container("app", "r.io/app", started=True)),
        Cause.PULLED,
        "",
    ),
    "mended since": (
        case(says="401 Unauthorized", failed_at=NOW - 2 * HOUR),
        Cause.RECOVERS,
        "delete pod web-0",
    ),
    "the kubelet says nothing more": (case(says="Back-off pulling image"), Cause.RECOVERS, "delete pod web-0"),
    "the registry accepts it": (case(says="401", proofs=proof(Outcome.OK)), Cause.RECOVERS, "delete pod web-0"),
    "refused after it was written": (
        case(says="401 Unauthorized", failed_at=NOW),
        Cause.REFUSED,
        "source-platform",
    ),
    "refused, and denied": (case(says=DENIED, failed_at=NOW), Cause.NO_RIGHT, "right to pull"),
    "refused, and wrong": (
        case(says="incorrect username or password", failed_at=NOW),
        Cause.BAD_CREDENTIALS,
        "source-platform",
    ),
    "proven wrong": (case(proofs=proof(Outcome.BAD_CREDENTIALS)), Cause.BAD_CREDENTIALS, "source-platform"),
    "proven without a right": (case(proofs=proof(Outcome.DENIED)), Cause.NO_RIGHT, "right to pull"),
    "proven to be missing": (case(proofs=proof(Outcome.NOT_FOUND)), Cause.IMAGE_NOT_FOUND, "Correct the image"),
    "a login of nobody's any more": (
        case(says="401", failed_at=NOW, resources=()),
        Cause.REFUSED,
        "declare the registry",
    ),
    "somebody's own login": (
        case(says="401", failed_at=NOW, listed=("mine",), secrets={"mine": foreign("r.io"), "regcred": GOOD}),
        Cause.REFUSED,
        "Secret mine",
    ),
    "ended, and the last try failed": (
        case(
            secrets={"regcred": ENDED},
            resources=(made(status=row("r.io", "AccessDenied", message="not allowed to")),),
        ),
        Cause.EXPIRED,
        "kubectl regcred refresh platform --wait",
    ),
    "ended while suspended": (
        case(secrets={"regcred": ENDED}, resources=(made(suspend=True),)),
        Cause.SUSPENDED,
        '"suspend":false',
    ),
    "the tenant's wins and is refused": (
        case(
            proofs=(
                Proof(
                    Choice("regcred", "r.io", views.Standing("r.io", "own"), "RegistryCredential/team-a/own"),
                    Verdict(Outcome.BAD_CREDENTIALS, "Wrong."),
                ),
            ),
            secrets={"regcred": standing(views.Standing("r.io", "own"))},
            resources=(made(), made("own", "r.io", "q.io", namespace="team-a")),
        ),
        Cause.SHADOWED,
        "kubectl patch -n team-a rcred own --type=json",
    ),
    "an old pod": (
        case(listed=(), account=Account("default", ("regcred",), since=NOW)),
        Cause.POD_OLDER,
        "delete pod web-0",
    ),
    "an old pod with an inherited list": (
        case(listed=("old",), account=Account("default", ("old", "regcred"), since=NOW + HOUR)),
        Cause.POD_OLDER,
        "delete pod web-0",
    ),
    "a young pod with an account's name": (
        case(listed=("old",), account=Account("default", ("old", "regcred"), since=NOW - HOUR)),
        Cause.OWN_LIST,
        "patch deployment web",
    ),
    "a list of its own": (case(listed=("own",)), Cause.OWN_LIST, "patch deployment web"),
    "an account that is gone": (
        case(listed=(), account=None),
        Cause.ACCOUNT_MISSING,
        "create serviceaccount default",
    ),
    "an account that nobody chose": (
        case(**UNLISTED, resources=(made(serviceAccounts=[]),)),
        Cause.ACCOUNT_NOT_CHOSEN,
        '"path": "/spec/serviceAccounts"',
    ),
    "an account to be left alone": (
        case(listed=(), account=Account("default", ignored=True)),
        Cause.ACCOUNT_OPTED_OUT,
        "annotate serviceaccount default regcred.io/ignore-",
    ),
    "an account that is fought over": (
        case(**UNLISTED, resources=(made(status=condition("Distributed", "False", "Contended")),)),
        Cause.CONTENDED,
        "--show-managed-fields",
    ),
    "an account that is not attached yet": (case(**UNLISTED), Cause.PROGRESSING, "kubectl wait crcred platform"),
    "an account, and no operator": (
        case(**UNLISTED, resources=(made(status=STATUS_OLD),)),
        Cause.OPERATOR_SILENT,
        "kubectl -n regcred-system get pods",
    ),
    "no namespace": (
        case(labels=None, listed=(), account=None),
        Cause.NAMESPACE_MISSING,
        "create namespace team-a",
    ),
    "a namespace with another label": (
        case(**LACKS, resources=(made(namespaces={"selector": {"matchLabels": {"team": "a"}}}),)),
        Cause.NAMESPACE_NOT_SELECTED,
        "kubectl label namespace team-a team=a --overwrite",
    ),
    "a namespace that is not named": (
        case(**LACKS, resources=(made(namespaces={"names": ["team-b"]}),)),
        Cause.NAMESPACE_NOT_SELECTED,
        '"path": "/spec/namespaces/names/-"',
    ),
    "a namespace that is excluded": (
        case(**LACKS, resources=(made(namespaces={"exclude": ["team-*"]}),)),
        Cause.NAMESPACE_NOT_SELECTED,
        "kubectl edit crcred platform",
    ),
    "a namespace to be left alone": (
        case(**LACKS, labels={"regcred.io/ignore": "true"}),
        Cause.NAMESPACE_OPTED_OUT,
        "regcred.io/ignore-",
    ),
    "a protected namespace": (
        case(**LACKS, protected=("team-*",)),
        Cause.NAMESPACE_PROTECTED,
        "RegistryCredential",
    ),
    "a Secret that is not ours": (
        case(secrets={"regcred": foreign("q.io", name="regcred")}),
        Cause.CONFLICT,
        "annotate secret regcred regcred.io/adopt=true",
    ),
    "a suspended resource": (case(**LACKS, resources=(made(suspend=True),)), Cause.SUSPENDED, '"suspend":false'),
    "a source that is missing": (
        case(**LACKS, resources=(made(status=row("r.io", "SourceMissing", message="is missing")),)),
        Cause.LOGIN_MISSING,
        "kubectl -n regcred-system create secret generic source-platform",
    ),
    "a cloud that says no": (
        case(**LACKS, resources=(made(status=row("r.io", "AccessDenied", message="says no")),)),
        Cause.LOGIN_MISSING,
        "kubectl regcred refresh platform",
    ),
    "a Secret that could not be written": (
        case(
            secrets={"regcred": None},
            resources=(
                made(
                    status={
                        **row("r.io", "Issued"),
                        "failures": [{"namespace": "team-a", "reason": "Forbidden", "message": "may not"}],
                    }
                ),
            ),
        ),
        Cause.WRITE_FAILED,
        "kubectl describe crcred platform",
    ),
    "a Secret that is not there yet": (
        case(secrets={"regcred": None}, resources=(made(status=row("r.io", "Progressing")),)),
        Cause.PROGRESSING,
        "kubectl wait",
    ),
    "a resource that nobody looks at": (
        case(secrets={"regcred": None}, resources=(made(status=STATUS_OLD),)),
        Cause.OPERATOR_SILENT,
        "get pods",
    ),
    "an invalid resource": (
        case(**LACKS, resources=(made(namespaces=None),), spelled={"platform": ("not a host", "r.io")}),
        Cause.INVALID_RESOURCE,
        "kubectl edit crcred platform",
    ),
    "another port": (
        case("r.io:5000/app", **LACKS),
        Cause.HOST_MISMATCH,
        '"value": ["r.io:5000"]',
    ),
    "another name of an ECR registry": (
        case(
            "123456789012.dkr-ecr.eu-west-1.on.aws/app:1",
            secrets={"regcred": standing(views.Standing(ECR, "platform"))},
            resources=(made("platform", ECR),),
        ),
        Cause.HOST_MISMATCH,
        '"value": ["123456789012.dkr-ecr.eu-west-1.on.aws"]',
    ),
    "another account of ECR": (
        case(
            ECR.replace("123", "999") + "/app:1",
            secrets={"regcred": standing(views.Standing(ECR, "platform"))},
            resources=(made("platform", ECR),),
        ),
        Cause.NOT_DECLARED,
        "/spec/registries/-",
    ),
    "another repository prefix": (
        case("r.io/other/app", **LACKS, resources=(made("platform", "r.io/team/"),)),
        Cause.HOST_MISMATCH,
        "without the path",
    ),
    "nobody's registry": (case("q.io/app", resources=()), Cause.NOT_DECLARED, '"server": "q.io"'),
    "a key that nobody finds": (
        case("r.io/app", listed=("mine",), resources=(), secrets={"mine": foreign("https://R.io/v2")}),
        Cause.WRONG_KEY,
        "--docker-server=r.io ",
    ),
    "a Secret that breaks all": (
        case(listed=("regcred", "mine"), secrets={"regcred": GOOD, "mine": foreign(broken="it is broken.")}),
        Cause.POISONED,
        "create secret docker-registry mine",
    ),
    "a narrower entry": (
        case(
            "org/app",
            says=DENIED,
            failed_at=NOW,
            listed=("regcred", "mine"),
            resources=(made("platform", "docker.io"),),
            secrets={
                "regcred": standing(views.Standing("https://index.docker.io/v1/", "platform")),
                "mine": foreign("docker.io/org"),
            },
        ),
        Cause.HUB_HIDDEN,
        "end its key with a slash",
    ),
    "a Secret that may not be read": (
        case(secrets={"regcred": PullSecret("regcred", forbidden=True)}),
        Cause.BLIND,
        "kubectl auth can-i get secret/regcred -n team-a",
    ),
    "a limit with a login": (case(says="toomanyrequests"), Cause.RATE_LIMITED, "mirror"),
    "a limit without a login": (
        case("q.io/app", says="toomanyrequests", resources=()),
        Cause.RATE_LIMITED,
        "Declare the registry",
    ),
    "a limit that our login would lift": (
        case(
            says="unauthenticated pull rate limit",
            listed=(),
            account=Account("default", ("regcred",), since=NOW),
        ),
        Cause.POD_OLDER,
        "delete pod web-0",
    ),
    "no such image": (case(says="manifest unknown"), Cause.IMAGE_NOT_FOUND, "Correct the image's name and tag"),
    "no image name": (case("r.io/App", says="", reason="InvalidImageName"), Cause.INVALID_NAME, "Correct"),
    "never pull": (case(says="", reason="ErrImageNeverPull"), Cause.NEVER_PULL, "IfNotPresent"),
    "an imported login": (
        case(
            secrets={"regcred": standing(views.Standing("r.io", "import"))},
            listed=(),
            account=Account("default", ("regcred",), since=NOW),
            resources=(made("import", "*"),),
        ),
        Cause.POD_OLDER,
        "delete pod",
    ),
    **{
        said: (case(says=said), cause, "")
        for said, cause in {
            "no match for platform in manifest": Cause.PLATFORM,
            "no such host": Cause.NO_SUCH_HOST,
            "x509: certificate signed by unknown authority": Cause.CERTIFICATE,
            "server gave HTTP response to HTTPS client": Cause.PLAIN_HTTP,
            "i/o timeout": Cause.UNREACHABLE,
            "503 Service Unavailable": Cause.REGISTRY_FAULT,
            "pull QPS exceeded": Cause.NODE_LIMIT,
            "no space left on device": Cause.DISK_FULL,
            "rejected by policy": Cause.SIGNATURE,
        }.items()
    },
}


@pytest.mark.parametrize("name", CASES)
def test_cause_and_step(name: str) -> None:
    """What is so has this cause, and this next step."""
    facts, cause, step = CASES[name]
    found = diagnose(facts)
    assert found.cause is cause
    told = f"{found.step.text} {found.step.command}" if found.step else ""
    assert step in told
    assert found.explanation
    if cause.result is Result.CAUSE:
        assert found.step is not None


def test_every_cause_has_a_case() -> None:
    """No cause is left that nothing leads to."""
    assert {cause for _, cause, _ in CASES.values()} == set(Cause)


@given(st.data())
def test_every_mixture_has_an_answer(data: st.DataObject) -> None:
    """Facts of one case with those of another: there is always one cause, and no exception."""
    fields = [field.name for field in dataclasses.fields(Facts)]
    mixed = {name: getattr(CASES[data.draw(st.sampled_from(sorted(CASES)))][0], name) for name in fields}
    assert diagnose(Facts(**mixed)).cause in Cause
