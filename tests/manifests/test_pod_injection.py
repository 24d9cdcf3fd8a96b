"""The policy that puts the entry into new pods: its CEL, evaluated by the CEL project's own library, pod by pod.

Its objects go to the real API server, too, where that has the kind (Kubernetes 1.36): see test_manifests_applied.py.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
from cel_expr_python import cel
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, struct_pb2

from regcred.distribution import selection
from regcred.eviction import stuck
from tests.manifests.manifests_support import one, render

Json = dict[str, Any]
OBJECTS = render("manifests/overlays/pod-injection")
POLICY = one(OBJECTS, "MutatingAdmissionPolicy", "regcred-pod-injection")
BINDING = one(OBJECTS, "MutatingAdmissionPolicyBinding", "regcred-pod-injection")


def environment() -> cel.Env:
    """CEL with the one type that the policy builds: source: kubernetes `admission/plugin/policy/mutating/patch`."""
    file = descriptor_pb2.FileDescriptorProto(
        name="policy.proto", syntax="proto3", dependency=["google/protobuf/struct.proto"]
    )
    message = file.message_type.add(name="JSONPatch")
    for number, name in enumerate(("op", "path"), 1):
        message.field.add(name=name, number=number, type=9, label=1)
    message.field.add(name="value", number=3, type=11, type_name=".google.protobuf.Value", label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return cel.NewEnv(descriptor_pool=pool, variables={"object": cel.Type.DYN})


ENVIRONMENT = environment()


def evaluate(expression: str, pod: Json) -> Any:
    return ENVIRONMENT.compile(expression).eval(data={"object": pod}).value()


def admitted(pod: Json) -> Json:
    """The pod as it is stored: each condition must hold, then each operation is carried out."""
    if not all(evaluate(row["expression"], pod) for row in POLICY["spec"]["matchConditions"]):
        return pod
    done = copy.deepcopy(pod)
    for mutation in POLICY["spec"]["mutations"]:
        for item in evaluate(mutation["jsonPatch"]["expression"], pod):
            operation = json_format.MessageToDict(item.value())
            assert operation["op"] == "add"
            if operation["path"] == "/spec/imagePullSecrets/-":
                done["spec"]["imagePullSecrets"].append(operation["value"])
            else:
                assert operation["path"] == "/spec/imagePullSecrets"
                done["spec"]["imagePullSecrets"] = operation["value"]
    return done


def pod(*lists: str, **annotations: str) -> Json:
    spec: Json = {"containers": [{"name": "app", "image": "r.io/app"}]}
    if lists:
        spec["imagePullSecrets"] = [{"name": name} for name in lists]
    metadata: Json = {"name": "web-0", "namespace": "team-a"}
    if annotations:
        metadata["annotations"] = {
            name.replace("__", "/").replace("_", "."): text for name, text in annotations.items()
        }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (pod(), ["regcred"]),
        (pod("own"), ["own", "regcred"]),
        (pod("own", "other"), ["own", "other", "regcred"]),
        (pod("regcred"), ["regcred"]),
        (pod("own", "regcred"), ["own", "regcred"]),
        (pod(regcred_io__ignore="false"), ["regcred"]),
        (pod(example_com__note="x"), ["regcred"]),
    ],
)
def test_the_entry_is_there_once(before: Json, after: list[str]) -> None:
    """Every new pod lists the Secret once, behind what it lists already."""
    found = admitted(before)
    assert [row["name"] for row in found["spec"]["imagePullSecrets"]] == after
    assert admitted(found) == found
    assert {**found, "spec": {**found["spec"], "imagePullSecrets": None}} == {
        **before,
        "spec": {**before["spec"], "imagePullSecrets": None},
    }


@pytest.mark.parametrize("before", [pod(regcred_io__ignore="true"), pod(kubernetes_io__config_mirror="abc")])
def test_pods_that_are_left_as_they_are(before: Json) -> None:
    """A pod that has opted out, and the mirror of a static pod, which must refer to no Secret."""
    assert admitted(before) == before


@pytest.mark.parametrize(
    ("name", "labels", "chosen"),
    [
        ("team-a", {}, True),
        ("team-a", {"regcred.io/ignore": "false"}, True),
        ("team-a", {"regcred.io/ignore": "true"}, False),
        ("kube-system", {}, False),
        ("kube-public", {}, False),
        ("kube-node-lease", {}, False),
        ("regcred-system", {}, False),
    ],
)
def test_namespaces(name: str, labels: dict[str, str], chosen: bool) -> None:
    """Namespaces that no resource may serve are left out, and those with the label to be left alone."""
    expressions = BINDING["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
    selector = stuck._Selector(
        {}, [stuck._Requirement(row["key"], row["operator"], row["values"]) for row in expressions]
    )
    assert selection.matches_labels(selector, {"kubernetes.io/metadata.name": name, **labels}) is chosen
    if not chosen:
        assert selection.protected(name, ("regcred-system",)) or selection.opted_out(labels)


def test_it_is_bound_and_cannot_stop_a_pod() -> None:
    """The binding names the policy, only new pods are matched, and a failure of the policy lets the pod through."""
    assert BINDING["spec"]["policyName"] == POLICY["metadata"]["name"]
    assert POLICY["spec"]["failurePolicy"] == "Ignore"
    (rule,) = POLICY["spec"]["matchConstraints"]["resourceRules"]
    assert (rule["operations"], rule["resources"]) == (["CREATE"], ["pods"])
