"""The fence: what the admission policies let the operator write, and what they refuse even to one gone bad."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.fence_support import Request, policies, refusals
from tests.manifests.manifests_support import NAMESPACE, ROOT, render

Json = dict[str, Any]
MARKS = {
    "labels": {"app.kubernetes.io/managed-by": "regcred"},
    "annotations": {"regcred.io/contributors": '{"u":{"from":"ClusterRegistryCredential/platform"}}'},
}
OWNER = {"apiVersion": "regcred.io/v1alpha1", "kind": "ClusterRegistryCredential", "name": "platform", "uid": "u"}
PULL: Json = {
    "type": "kubernetes.io/dockerconfigjson",
    "metadata": {"name": "regcred", "namespace": "team", **MARKS, "ownerReferences": [OWNER]},
    "data": {".dockerconfigjson": "e30="},
}
FOREIGN: Json = {
    "type": "kubernetes.io/dockerconfigjson",
    "metadata": {"name": "regcred", "namespace": "team"},
    "data": {".dockerconfigjson": "eA=="},
}
CACHE: Json = {
    "type": "regcred.io/cache",
    "metadata": {"name": "regcred-cache-u", "namespace": NAMESPACE, "labels": MARKS["labels"]},
    "data": {"record.json": "e30="},
}
ACCOUNT: Json = {
    "metadata": {"name": "default", "namespace": "team", "labels": {"a": "b"}},
    "secrets": [{"name": "default-token"}],
    "imagePullSecrets": [{"name": "x"}, {}, {"name": "y"}],
}


def changed(body: Json, **changes: Any) -> Json:
    """Return a copy with fields set by a path of `__`, or taken out where the value is None."""
    body = copy.deepcopy(body)
    for path, value in changes.items():
        *way, last = path.split("__")
        inner = body
        for step in way:
            inner = inner.setdefault(step, {})
        if value is None:
            inner.pop(last, None)
        else:
            inner[last] = value
    return body


def secret(operation: str, new: Json | None, old: Json | None = None, **more: Any) -> Request:
    meta = (new or old or {})["metadata"]
    place = {"name": meta["name"], "namespace": meta["namespace"], **more}
    return Request(operation, "secrets", new=new, old=old, **place)


def account(new: Json, old: Json = ACCOUNT) -> Request:
    return Request("UPDATE", "serviceaccounts", name="default", namespace="team", new=new, old=old)


def token(*audiences: str, seconds: int = 600) -> Request:
    spec: Json = {"expirationSeconds": seconds, **({"audiences": list(audiences)} if audiences else {})}
    return Request("CREATE", "serviceaccounts", "puller", "team", subresource="token", new={"spec": spec})


def lease(name: str, namespace: str = NAMESPACE, operation: str = "UPDATE") -> Request:
    return Request(
        operation, "leases", name, namespace, "coordination.k8s.io", new={"metadata": {"name": name}}, old={}
    )


def event(api_version: str, kind: str = "", reason: str = "") -> Request:
    body: Json = {"involvedObject": {"apiVersion": api_version, **({"kind": kind} if kind else {})}}
    return Request("CREATE", "events", "e", "team", new={**body, **({"reason": reason} if reason else {})})


def eviction(**preconditions: str) -> Request:
    body: Json = {"deleteOptions": {"preconditions": preconditions}} if preconditions else {}
    return Request("CREATE", "pods", "web-0", "team", subresource="eviction", new=body)


def listed(*names: str) -> Json:
    return changed(ACCOUNT, imagePullSecrets=[{"name": name} if name else {} for name in names])


MORE = {"name": "x", "uid": "x", "apiVersion": "v1", "kind": "ConfigMap"}
ADOPTED = changed(FOREIGN, metadata__annotations={"regcred.io/adopt": "true"})
KEPT = changed(PULL, data={".dockerconfigjson": "e30=", "more": "eA=="}, metadata__finalizers=["example.com/hold"])
RECORD = '{"u":{"from":"RegistryCredential/kube-system/own"}}'
OF_THE_SYSTEM = changed(
    PULL, metadata__namespace="kube-system", metadata__annotations={"regcred.io/contributors": RECORD}
)

ALLOWED = {
    "create": secret("CREATE", PULL),
    "renew": secret("UPDATE", changed(PULL, data={".dockerconfigjson": "eA=="}), PULL),
    "what others added stays": secret("UPDATE", changed(KEPT, data__x=None), KEPT),
    "adopt": secret("UPDATE", changed(PULL, metadata__annotations__x="y"), ADOPTED),
    "delete": secret("DELETE", None, PULL),
    "a namespace of the system has a resource of its own": secret("CREATE", OF_THE_SYSTEM),
    "cache": secret("CREATE", CACHE),
    "cache again": secret("UPDATE", CACHE, CACHE),
    "cache goes": secret("DELETE", None, CACHE),
    "attach": account(listed("x", "", "y", "regcred")),
    "attach the first": account(listed("regcred"), changed(ACCOUNT, imagePullSecrets=None)),
    "detach": account(ACCOUNT, listed("x", "regcred", "", "y")),
    "detach the last": account(changed(ACCOUNT, imagePullSecrets=None), listed("regcred")),
    "aws": token("sts.amazonaws.com"),
    "azure": token("api://AzureADTokenExchange"),
    "google": token(
        "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/provider"
    ),
    "gke": token("project.svc.id.goog"),
    "lease": lease("regcred"),
    "the first lease": lease("regcred", operation="CREATE"),
    "event": event("regcred.io/v1alpha1"),
    "evict": eviction(uid="u", resourceVersion="1"),
    "event about that": event("v1", "Pod", "EvictedStuckPod"),
    "event about what is in its way": event("v1", "Pod", "EvictionBlocked"),
    "status": Request("UPDATE", "clusterregistrycredentials", "p", group="regcred.io", subresource="status"),
    "somebody else": dataclasses.replace(secret("CREATE", FOREIGN), user="system:admin"),
    "another account of the name": dataclasses.replace(
        secret("DELETE", None, FOREIGN), user="system:serviceaccount:team:regcred"
    ),
}

DENIED = {
    "another name": (secret("CREATE", changed(PULL, metadata__name="dockerhub")), "names"),
    "a name that is made up": (secret("CREATE", PULL, name=""), "names"),
    "another type": (secret("CREATE", changed(PULL, type="Opaque")), "of the type"),
    "a token of an account": (
        secret("CREATE", changed(PULL, type="kubernetes.io/service-account-token")),
        "of the type",
    ),
    "the cache's type": (secret("CREATE", changed(PULL, type="regcred.io/cache")), "of the type"),
    "no label": (secret("CREATE", changed(PULL, metadata__labels=None)), "carries the label"),
    "another's label": (
        secret("CREATE", changed(PULL, metadata__labels={"app.kubernetes.io/managed-by": "Helm"})),
        "carries the label",
    ),
    "no annotation": (secret("CREATE", changed(PULL, metadata__annotations=None)), "carries the label"),
    "overwrite": (secret("UPDATE", PULL, FOREIGN), "is not regcred's"),
    "overwrite what has the label only": (
        secret("UPDATE", PULL, changed(FOREIGN, metadata__labels=MARKS["labels"])),
        "is not regcred's",
    ),
    "refused adoption": (
        secret("UPDATE", PULL, changed(FOREIGN, metadata__annotations={"regcred.io/adopt": "false"})),
        "is not regcred's",
    ),
    "delete a foreign one": (secret("DELETE", None, FOREIGN), "is not regcred's"),
    "delete what is to be adopted": (secret("DELETE", None, ADOPTED), "is not regcred's"),
    "delete a source": (
        secret("DELETE", None, changed(FOREIGN, metadata__name="dockerhub", metadata__namespace=NAMESPACE)),
        "names",
    ),
    "more data": (secret("CREATE", changed(PULL, data__more="eA==")), "no other"),
    "others' data changed": (secret("UPDATE", changed(KEPT, data__more="eQ=="), KEPT), "no other"),
    "another's ownership": (secret("CREATE", changed(PULL, metadata__ownerReferences=[MORE])), "as owners"),
    "finalizer": (secret("CREATE", changed(PULL, metadata__finalizers=["regcred.io/x"])), "no finalizer"),
    "another finalizer": (
        secret("UPDATE", changed(KEPT, metadata__finalizers=["regcred.io/x"]), KEPT),
        "no finalizer",
    ),
    "the system's namespace": (
        secret("CREATE", changed(PULL, metadata__namespace="kube-system")),
        "the namespaces of the system",
    ),
    "its own namespace": (
        secret("CREATE", changed(PULL, metadata__namespace=NAMESPACE)),
        "the namespaces of the system",
    ),
    "a cache elsewhere": (secret("CREATE", changed(CACHE, metadata__namespace="team")), "names"),
    "a cache of another type": (secret("CREATE", changed(CACHE, type="Opaque")), "its cache of regcred.io/cache"),
    "a cache over something else": (
        secret("UPDATE", CACHE, changed(CACHE, metadata__labels=None)),
        "is not regcred's",
    ),
    "lose an entry": (account(listed("x", "", "regcred")), "stay as they are"),
    "lose an empty entry": (account(listed("x", "y", "regcred")), "stay as they are"),
    "lose all": (account(listed()), "stay as they are"),
    "reorder": (account(listed("y", "", "x")), "stay as they are"),
    "add another": (account(listed("x", "", "y", "evil")), "stay as they are"),
    "twice": (account(listed("x", "", "y", "regcred", "regcred")), "lists its Secret once"),
    "mount a token": (account(changed(ACCOUNT, automountServiceAccountToken=True)), "and nothing else"),
    "more secrets": (account(changed(ACCOUNT, secrets=[{"name": "evil"}])), "and nothing else"),
    "fewer secrets": (account(changed(ACCOUNT, secrets=None)), "and nothing else"),
    "annotate": (
        account(changed(ACCOUNT, metadata__annotations={"eks.amazonaws.com/role-arn": "x"})),
        "and nothing else",
    ),
    "label": (account(changed(ACCOUNT, metadata__labels__c="d")), "and nothing else"),
    "own": (account(changed(ACCOUNT, metadata__ownerReferences=[OWNER])), "and nothing else"),
    "hold": (account(changed(ACCOUNT, metadata__finalizers=["regcred.io/x"])), "and nothing else"),
    "no audience": (token(), "names one audience"),
    "two audiences": (token("sts.amazonaws.com", "api://AzureADTokenExchange"), "names one audience"),
    "the API server": (token("https://kubernetes.default.svc"), "none of AWS, Azure or Google"),
    "the issuer": (token("https://kubernetes.default.svc.cluster.local"), "none of AWS, Azure or Google"),
    "vault": (token("vault"), "none of AWS, Azure or Google"),
    "like Google": (token("https://iam.googleapis.com.evil.example/"), "none of AWS, Azure or Google"),
    "like GKE": (token("x/project.svc.id.goog"), "none of AWS, Azure or Google"),
    "a token of a day": (token("sts.amazonaws.com", seconds=86400), "an hour at most"),
    "another lease": (lease("other", operation="CREATE"), "no other"),
    "a lease elsewhere": (lease("regcred", "kube-system"), "no other"),
    "an event on a pod": (event("v1"), "its own resources only"),
    "another event on a pod": (event("v1", "Pod", "Scheduled"), "its own resources only"),
    "an event on a node": (event("v1", "Node", "EvictedStuckPod"), "its own resources only"),
    "evict whatever is there": (eviction(), "by its uid and resourceVersion only"),
    "evict whatever state it is in": (eviction(uid="u"), "by its uid and resourceVersion only"),
    "a resource itself": (
        Request("UPDATE", "clusterregistrycredentials", "p", group="regcred.io"),
        "regcred.io/clusterregistrycredentials UPDATE",
    ),
    "a resource gone": (
        Request("DELETE", "registrycredentials", "p", "team", group="regcred.io"),
        "regcred.io/registrycredentials DELETE",
    ),
    "a status elsewhere": (Request("UPDATE", "pods", "p", "team", subresource="status"), "/pods/status UPDATE"),
    "a pod": (Request("CREATE", "pods", "p", "team"), "/pods CREATE"),
    "a shell": (Request("CONNECT", "pods", "p", "team", subresource="exec"), "/pods/exec CONNECT"),
    "a binding": (
        Request("CREATE", "clusterrolebindings", "x", group="rbac.authorization.k8s.io"),
        "rbac.authorization.k8s.io/clusterrolebindings CREATE",
    ),
    "a webhook": (
        Request("UPDATE", "mutatingwebhookconfigurations", "x", group="admissionregistration.k8s.io"),
        "admissionregistration.k8s.io/mutatingwebhookconfigurations UPDATE",
    ),
    "a namespace": (Request("UPDATE", "namespaces", "team", "team"), "/namespaces UPDATE"),
    "an account": (Request("CREATE", "serviceaccounts", "x", "team"), "/serviceaccounts CREATE"),
    "an account gone": (Request("DELETE", "serviceaccounts", "x", "team", old={}), "/serviceaccounts DELETE"),
    "a lease gone": (
        Request("DELETE", "leases", "regcred", NAMESPACE, "coordination.k8s.io", old={}),
        "coordination.k8s.io/leases DELETE",
    ),
}


@pytest.mark.parametrize("request_", ALLOWED.values(), ids=ALLOWED)
def test_what_the_operator_does_is_allowed(request_: Request) -> None:
    """No policy is in the way of what the operator does, nor of anybody else whatever he does."""
    assert refusals(request_) == []


@pytest.mark.parametrize(("request_", "words"), DENIED.values(), ids=DENIED)
def test_what_it_never_does_is_refused(request_: Request, words: str) -> None:
    """Each thing that the operator never does is refused, with a message that says what it was."""
    assert any(words in message for _, message in refusals(request_)), refusals(request_)


@pytest.mark.parametrize("request_", [request for request, _ in DENIED.values()], ids=DENIED)
def test_the_fence_is_around_the_operator_only(request_: Request) -> None:
    """The same done by anybody else is no business of the policies."""
    for user in (
        "system:admin",
        "system:serviceaccount:regcred-system:other",
        "system:serviceaccount:team:regcred",
    ):
        assert refusals(dataclasses.replace(request_, user=user)) == []


def test_every_validation_refuses_something() -> None:
    """No rule stands there for nothing: each is what refuses one of the requests above."""
    said = {message for request, _ in DENIED.values() for _, message in refusals(request)}
    written = {row["message"] for policy in policies() for row in policy["validations"] if "message" in row}
    assert written <= said


def test_every_policy_is_in_force_and_closed() -> None:
    """Each policy is bound, denies, refuses where it cannot be evaluated, and looks at the operator's account only."""
    shipped = {
        item["metadata"]["name"]
        for item in render("manifests/overlays/admission")
        if item["kind"] == "ValidatingAdmissionPolicy"
    }
    assert {policy["name"] for policy in policies()} == shipped
    account_ = f"request.userInfo.username == 'system:serviceaccount:{NAMESPACE}:regcred'"
    for policy in policies():
        assert policy["failurePolicy"] == "Fail"
        assert [row["expression"] for row in policy["matchConditions"]] == [account_]


def test_the_names_are_those_of_the_role(tmp_path: Path) -> None:
    """With the choice of another Secret name, role and policies name the same Secrets."""
    for folder in ("crds", "manifests"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    own = {
        "resources": ["../manifests"],
        "components": ["../manifests/components/admission", "../manifests/components/secret-name"],
    }
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "kustomization.yaml").write_text(yaml.safe_dump(own))
    for path, allowed in (
        ("manifests/overlays/admission", {"regcred"}),
        (str(tmp_path / "own"), {"regcred", "mine"}),
    ):
        role = next(
            item for item in render(path) if item["metadata"]["name"] == "regcred-secrets" and "rules" in item
        )
        names = {name.replace("registry-login", "mine") for name in role["rules"][0]["resourceNames"]}
        assert names == allowed
        for name in ("regcred", "registry-login", "other"):
            expected = name.replace("registry-login", "mine") in allowed
            written = secret("CREATE", changed(PULL, metadata__name=name))
            attached = account(listed("x", "", "y", name))
            assert [not refusals(request, path) for request in (written, attached)] == [expected, expected]
