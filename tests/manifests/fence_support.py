"""An API server's evaluation of ValidatingAdmissionPolicies, as far as ours use it, by the CEL project's own library.

Policies, their bindings and their variables are read from the rendered manifests, so what is tested is what is shipped.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_strings

from tests.manifests.manifests_support import NAMESPACE, render

Json = dict[str, Any]
OPERATOR = f"system:serviceaccount:{NAMESPACE}:regcred"

_ENVIRONMENT = cel.NewEnv(
    variables=dict.fromkeys(("object", "oldObject", "request"), cel.Type.DYN),
    extensions=[ext_strings.ExtStrings()],
)


@dataclasses.dataclass(frozen=True)
class Request:
    """What admission is asked about."""

    operation: str
    resource: str
    name: str = ""
    namespace: str = ""
    group: str = ""
    subresource: str = ""
    new: Json | None = None
    old: Json | None = None
    user: str = OPERATOR

    def shown(self) -> Json:
        """Return the variable `request`: what is empty is absent, as the server leaves it."""
        optional = {"name": self.name, "namespace": self.namespace, "subResource": self.subresource}
        return {
            "operation": self.operation,
            "userInfo": {"username": self.user},
            "resource": {"group": self.group, "version": "v1", "resource": self.resource},
            **{key: value for key, value in optional.items() if value},
        }


@functools.cache
def _compiled(expression: str) -> Any:
    return _ENVIRONMENT.compile(expression)


def _whole(policy: Json, expression: str) -> str:
    """Return an expression with the policy's variables, which may use those before them, put in."""
    known: dict[str, str] = {}

    def put_in(text: str) -> str:
        return re.sub(r"\bvariables\.(\w+)", lambda found: f"({known[found[1]]})", text)

    for row in policy.get("variables", ()):
        known[row["name"]] = put_in(row["expression"])
    return put_in(expression)


def _holds(policy: Json, expression: str, data: Json) -> bool:
    value = _compiled(_whole(policy, expression)).eval(data=data).value()
    assert isinstance(value, bool), (expression, value)  # an error comes as a text
    return value


def _words(policy: Json, row: Json, data: Json) -> str:
    if "message" in row:
        return str(row["message"])
    return str(_compiled(_whole(policy, row["messageExpression"])).eval(data=data).value())


@functools.cache
def policies(path: str = "manifests/overlays/admission") -> tuple[Json, ...]:
    """Return the specs of the policies that an overlay binds, each with its name."""
    objects = render(path)
    bound = {
        item["spec"]["policyName"]
        for item in objects
        if item["kind"] == "ValidatingAdmissionPolicyBinding" and "Deny" in item["spec"]["validationActions"]
    }
    return tuple(
        {"name": item["metadata"]["name"], **item["spec"]}
        for item in objects
        if item["kind"] == "ValidatingAdmissionPolicy" and item["metadata"]["name"] in bound
    )


def refusals(request: Request, path: str = "manifests/overlays/admission") -> list[tuple[str, str]]:
    """Return policy and message of everything that refuses the request."""
    found = []
    for policy in policies(path):
        data: Json = {"request": request.shown(), "object": request.new, "oldObject": request.old}
        if not any(_matches(rule, request) for rule in policy["matchConstraints"]["resourceRules"]):
            continue
        if not all(_holds(policy, row["expression"], data) for row in policy["matchConditions"]):
            continue
        found += [
            (policy["name"], _words(policy, row, data))
            for row in policy["validations"]
            if not _holds(policy, row["expression"], data)
        ]
    return found


def _matches(rule: Json, request: Request) -> bool:
    asked = "/".join(filter(None, (request.resource, request.subresource)))
    return (
        (rule["apiGroups"] == ["*"] or request.group in rule["apiGroups"])
        and request.operation in rule["operations"]
        and (rule["resources"] == ["*/*"] or asked in rule["resources"])
    )
