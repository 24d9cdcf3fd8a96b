"""Specs for hypothesis: good ones, ones whose fields are right but do not go together, and broken ones."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
GLOBS = st.one_of(
    NAMES, NAMES.map(lambda name: f"{name}*"), st.sampled_from(["*", "team-?", "build-[a-c]*", "[!x]"])
)
LABELS = st.dictionaries(st.sampled_from(["team", "example.com/team", "a.b-c/D_e.f"]), NAMES, max_size=3)
REPOSITORIES = st.sampled_from(["app", "myorg/private", "a/b/c", "library/nginx", "myorg/x__y-z.0"])

ECR_HOSTS = ["123456789012.dkr.ecr.eu-west-1.amazonaws.com", "123456789012.dkr-ecr.cn-north-1.on.aws"]
ECR_PUBLIC_HOSTS = ["public.ecr.aws", "ecr-public.aws.com"]
GOOGLE_HOSTS = [
    "europe-docker.pkg.dev",
    "gcr.io",
    "eu.gcr.io",
    "docker.s3nsregistry.fr",
    "u-france-east1-docker.s3nsregistry.fr",
]
AZURE_HOSTS = [
    "contoso.azurecr.io",
    "contoso.westeurope.geo.azurecr.io",
    "contoso.azurecr.cn",
    "contoso.azurecr.us",
]
HUB_HOSTS = ["docker.io", "index.docker.io", "registry-1.docker.io"]
OTHER_HOSTS = ["quay.io", "registry.example.com:5000", "localhost:5000", "10.0.0.1:443", "ghcr.io", "r:80"]
ALL_HOSTS = ECR_HOSTS + ECR_PUBLIC_HOSTS + GOOGLE_HOSTS + AZURE_HOSTS + HUB_HOSTS + OTHER_HOSTS

REFERENCES = st.fixed_dictionaries({"name": NAMES.map(lambda name: f"source-{name}")})
ROLES = st.just("arn:aws:iam::123456789012:role/path/puller")
AUDIENCES = st.just("//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/c")
ACCOUNTS = st.just("puller@my-project.iam.gserviceaccount.com")
SCOPES = st.just(["https://www.googleapis.com/auth/cloud-platform.read-only"])
GUIDS = st.just("6b1f2a0e-8c1d-4e55-9a36-0d5a1f7c9b42")
IDENTITIES = st.just(
    "/subscriptions/6b1f2a0e-8c1d-4e55-9a36-0d5a1f7c9b42/resourcegroups/g/providers/"
    "Microsoft.ManagedIdentity/userAssignedIdentities/puller"
)


def _block(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


ECR_IDENTITIES = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"serviceAccountRef": REFERENCES}, optional={"roleArn": ROLES}),
    st.fixed_dictionaries({"secretRef": REFERENCES}, optional={"roleArn": ROLES}),
    st.fixed_dictionaries({"roleArn": ROLES, "externalId": st.just("our-cluster")}),
)
GCR = st.one_of(
    st.fixed_dictionaries(
        {"serviceAccountRef": REFERENCES},
        optional={"audience": AUDIENCES, "impersonate": ACCOUNTS, "scopes": SCOPES},
    ),
    st.fixed_dictionaries({"secretRef": REFERENCES}, optional={"impersonate": ACCOUNTS, "scopes": SCOPES}),
    st.fixed_dictionaries({"secretRef": REFERENCES, "keyMode": st.just("JsonKey")}),
    _block(impersonate=ACCOUNTS),
)
ACR = st.one_of(
    st.fixed_dictionaries({"clientId": GUIDS, "tenantId": GUIDS, "secretRef": REFERENCES}),
    st.fixed_dictionaries({"serviceAccountRef": REFERENCES}, optional={"clientId": GUIDS, "tenantId": GUIDS}),
    st.fixed_dictionaries({"resourceId": IDENTITIES}, optional={"scopes": st.just(["shop/web"])}),
)
LOGIN = st.fixed_dictionaries({"secretRef": REFERENCES})
PLUGIN = st.fixed_dictionaries(
    {"name": st.just("quay-federation")},
    optional={
        "config": st.dictionaries(NAMES, st.one_of(NAMES, st.integers(-(2**63), 2**63 - 1), st.none()), max_size=3)
    },
)
VERIFY = st.fixed_dictionaries(
    {"repository": REPOSITORIES},
    optional={"reference": st.sampled_from(["v1", "sha256:" + "a" * 64]), "timeoutSeconds": st.integers(1, 60)},
)


def _entry(host: str) -> st.SearchStrategy[dict[str, Any]]:
    providers = [LOGIN.map(lambda block: {"login": block}), PLUGIN.map(lambda block: {"plugin": block})]
    if host in ECR_HOSTS:
        providers += [st.just({}), ECR_IDENTITIES.map(lambda block: {"ecr": block})]
    if host in ECR_PUBLIC_HOSTS:
        providers += [st.just({}), ECR_IDENTITIES.map(lambda block: {"ecr": block | {"region": "us-east-1"}})]
    if host in GOOGLE_HOSTS:
        providers += [st.just({}), GCR.map(lambda block: {"gcr": block})]
    if host in AZURE_HOSTS:
        providers += [st.just({}), ACR.map(lambda block: {"acr": block})]
    if host == "ghcr.io":
        providers += [ECR_IDENTITIES.map(lambda block: {"ecr": block | {"region": "eu-west-1"}})]
    return st.builds(
        lambda server, provider, more: {"server": server, **provider, **more},
        st.sampled_from([host, f"{host}/my", f"{host}/myorg/"]),
        st.one_of(providers),
        _block(aliases=st.just([f"mirror-{index}.{host.partition(':')[0]}:5000" for index in range(2)])),
    )


@st.composite
def _registries(draw: st.DrawFn) -> list[dict[str, Any]]:
    hosts = draw(st.lists(st.sampled_from(ALL_HOSTS), min_size=1, max_size=5, unique=True))
    hub = [host for host in hosts if host in HUB_HOSTS]
    entries = [draw(_entry(host)) for host in hosts if host not in hub[1:]]
    for entry in entries:
        if draw(st.booleans()):
            prefix = entry["server"].partition("/")[2]
            repository = (
                draw(REPOSITORIES) if not prefix else f"{prefix.rstrip('/')}{'/' * prefix.endswith('/')}app"
            )
            entry["verify"] = {"repository": repository}
    if draw(st.booleans()):
        entries.append({"server": "*", "login": draw(LOGIN)})
    return entries


SELECTORS = _block(
    matchLabels=LABELS,
    matchExpressions=st.lists(
        st.one_of(
            st.fixed_dictionaries(
                {
                    "key": st.just("team"),
                    "operator": st.sampled_from(["In", "NotIn"]),
                    "values": st.lists(NAMES, min_size=1, max_size=3),
                }
            ),
            st.fixed_dictionaries(
                {"key": st.just("team"), "operator": st.sampled_from(["Exists", "DoesNotExist"])},
                optional={"values": st.just([])},
            ),
        ),
        max_size=2,
    ),
)
NAMESPACES = _block(
    selector=SELECTORS,
    names=st.lists(GLOBS, min_size=1, max_size=3, unique=True),
    exclude=st.lists(GLOBS, max_size=3, unique=True),
)
REST: dict[str, st.SearchStrategy[Any]] = {
    "secretName": st.sampled_from(["regcred", "pulls", "team.pulls"]),
    "serviceAccounts": st.lists(GLOBS, max_size=3, unique=True),
    "pods": _block(restartStuck=st.booleans()),
    "suspend": st.booleans(),
    "deletionPolicy": st.sampled_from(["Delete", "Retain"]),
}


def _resources(
    registries: st.SearchStrategy[Any], namespaces: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    metadata = {"name": "sample", "uid": "u", "generation": 1, "creationTimestamp": "2026-01-02T03:04:05Z"}
    cluster = st.fixed_dictionaries({"registries": registries, "namespaces": namespaces}, optional=REST)
    tenant = st.fixed_dictionaries({"registries": registries}, optional=REST)
    return st.one_of(
        cluster.map(
            lambda spec: {
                "apiVersion": "regcred.io/v1alpha1",
                "kind": "ClusterRegistryCredential",
                "metadata": metadata,
                "spec": spec,
            }
        ),
        tenant.map(
            lambda spec: {
                "apiVersion": "regcred.io/v1alpha1",
                "kind": "RegistryCredential",
                "metadata": {**metadata, "namespace": "team-a"},
                "spec": spec,
            }
        ),
    )


#: Resources in which nothing is wrong.
GOOD = _resources(_registries(), NAMESPACES)

_OWN = st.one_of(REFERENCES, st.just({"name": "regcred"}))
#: Resources in which each field by itself is right.
LOOSE = _resources(
    st.lists(
        st.fixed_dictionaries(
            {"server": st.sampled_from([*ALL_HOSTS, "*", "quay.io/my", "quay.io/my/", "contoso.azurecr.cn/x"])},
            optional={
                "aliases": st.lists(st.sampled_from(ALL_HOSTS), max_size=3, unique=True),
                "ecr": _block(
                    roleArn=ROLES,
                    externalId=st.just("our-cluster"),
                    region=st.just("eu-west-1"),
                    serviceAccountRef=REFERENCES,
                    secretRef=_OWN,
                ),
                "gcr": _block(
                    serviceAccountRef=REFERENCES,
                    audience=AUDIENCES,
                    impersonate=ACCOUNTS,
                    secretRef=_OWN,
                    keyMode=st.sampled_from(["Token", "JsonKey"]),
                    scopes=st.one_of(st.just([]), SCOPES),
                ),
                "acr": _block(
                    tenantId=GUIDS,
                    clientId=GUIDS,
                    resourceId=IDENTITIES,
                    serviceAccountRef=REFERENCES,
                    secretRef=_OWN,
                    cloud=st.sampled_from(["Public", "China", "USGovernment"]),
                ),
                "login": st.fixed_dictionaries({"secretRef": _OWN}),
                "plugin": st.fixed_dictionaries({"name": st.sampled_from(["ecr", "login", "quay-federation"])}),
                "verify": st.fixed_dictionaries(
                    {
                        "repository": st.sampled_from(
                            ["my/app", "mine/app", "quay.io/my/app", "contoso.azurecr.cn/x/y"]
                        )
                    }
                ),
            },
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda entry: entry["server"],
    ),
    _block(
        selector=_block(
            matchLabels=st.dictionaries(st.sampled_from(["team", "a b", "/x", "X" * 64]), NAMES, max_size=2),
            matchExpressions=st.lists(
                st.fixed_dictionaries(
                    {"key": NAMES, "operator": st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"])},
                    optional={"values": st.lists(NAMES, max_size=2)},
                ),
                max_size=2,
            ),
        )
    ),
)

#: Any decoded JSON, with integers as Kubernetes has them: 64 bits.
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False),
        st.text(max_size=10),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=5), st.sampled_from(["spec", "registries", "server"])), inner),
    ),
    max_leaves=12,
)


#: What could stand in many a field, rightly or not.
PLAUSIBLE = st.one_of(
    st.sampled_from(
        ["", "*", "quay.io", "Quay.io", "quay.io/", "quay.io\n", "a.b", "-a", "In", "Token", "[a", "[z-a]"]
    ),
    st.sampled_from(["a" * 63, "a" * 64, "a" * 254, 0, 1, 60, 61, 1.0, True, False, None]),
    st.sampled_from([[], {}, ["a"], ["a", "a"], {"name": "a"}, {"name": "regcred"}]),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of everything within a decoded JSON value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path] if path else []
    for key, item in children:
        found += places(item, (*path, key))
    return found


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a copy of a value with something else at `path`."""
    result = copy.deepcopy(value)
    at = result
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = new
    return result


@st.composite
def broken(draw: st.DrawFn) -> dict[str, Any]:
    """A resource with anything at all in the place of one of its parts, or beside them."""
    resource = draw(st.one_of(GOOD, LOOSE))
    path = draw(st.sampled_from(places(resource["spec"])))
    if draw(st.booleans()):
        path = (*path[:-1], draw(st.text(max_size=6))) if isinstance(path[-1], str) else path
    return {**resource, "spec": replaced(resource["spec"], path, draw(st.one_of(PLAUSIBLE, JSON)))}
