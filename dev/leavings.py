"""What the other tools leave in a cluster, in the shapes that their sources and pages show: for tests and pages."""

from __future__ import annotations

import base64
import json
from typing import Any

Json = dict[str, Any]
CANARY = "c4n4ry-0f-a-secret"


def encoded(text: str) -> str:
    """Encode as the data of a Secret is."""
    return base64.b64encode(text.encode()).decode()


def made(api: str, kind: str, name: str, namespace: str = "", **more: Any) -> Json:
    """Make an object of any kind."""
    metadata: Json = {"name": name, **({"namespace": namespace} if namespace else {}), **more.pop("metadata", {})}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **more}


def namespace(name: str, **annotations: str) -> Json:
    """Make a namespace."""
    return made("v1", "Namespace", name, metadata={"annotations": annotations})


def pull_secret(where: str, name: str, *servers: str, **metadata: Any) -> Json:
    """A pull Secret with a login for each server."""
    auths = {server: {"auth": encoded(f"u:{CANARY}")} for server in servers}
    data = {".dockerconfigjson": encoded(json.dumps({"auths": auths}))}
    return made("v1", "Secret", name, where, type="kubernetes.io/dockerconfigjson", data=data, metadata=metadata)


def opaque(where: str, name: str, **values: str) -> Json:
    """Make a Secret of these values."""
    data = {key: encoded(text) for key, text in values.items()}
    return made("v1", "Secret", name, where, type="Opaque", data=data)


def deployment(where: str, name: str, image: str, **more: Any) -> Json:
    """Make a Deployment of one container."""
    volumes = more.pop("volumes", [])
    pod = {"containers": [{"name": name, "image": image, **more}], "volumes": volumes}
    labels = {"app": name}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    return made("apps/v1", "Deployment", name, where, spec=spec)


def variable(name: str, value: str) -> Json:
    """Make a variable of a container."""
    return {"name": name, "value": value}


def variable_of(name: str, secret: str, key: str) -> Json:
    """Make a variable that takes its value from a Secret."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


TEAMS = [namespace("team-a"), namespace("team-b"), namespace("kube-system")]

IMAGEPULLSECRET_PATCHER = [
    *TEAMS,
    namespace("infra", **{"k8s.titansoft.com/imagepullsecret-patcher-exclude": "true"}),
    deployment(
        "imagepullsecret-patcher",
        "imagepullsecret-patcher",
        "quay.io/titansoft/imagepullsecret-patcher:v0.14",
        env=[
            variable("CONFIG_FORCE", "true"),
            variable("CONFIG_ALLSERVICEACCOUNT", "true"),
            variable("CONFIG_EXCLUDED_NAMESPACES", "legacy"),
            variable("CONFIG_DOCKERCONFIGJSONPATH", "/app/secrets/.dockerconfigjson"),
        ],
        volumeMounts=[{"name": "src-dockerconfigjson", "mountPath": "/app/secrets", "readOnly": True}],
        volumes=[{"name": "src-dockerconfigjson", "secret": {"secretName": "image-pull-secret-src"}}],
    ),
    pull_secret("imagepullsecret-patcher", "image-pull-secret-src", "gcr.io"),
    *(
        pull_secret(
            where,
            "image-pull-secret",
            "gcr.io",
            annotations={"app.kubernetes.io/managed-by": "imagepullsecret-patcher"},
        )
        for where in ("team-a", "team-b", "kube-system", "legacy")
    ),
]

REGISTRY_CREDS_ALEXELLIS = [
    *TEAMS,
    namespace("openfaas", **{"alexellis.io/registry-creds.ignore": "1"}),
    deployment("registry-creds-system", "registry-creds-controller", "ghcr.io/alexellis/registry-creds:0.3.2"),
    made(
        "ops.alexellis.io/v1",
        "ClusterPullSecret",
        "dockerhub",
        spec={"secretRef": {"name": "init-registrycreds", "namespace": "kube-system"}},
    ),
    pull_secret("kube-system", "init-registrycreds", "https://index.docker.io/v1/"),
    *(
        pull_secret(where, "dockerhub-registrycreds", "https://index.docker.io/v1/")
        for where in ("team-a", "team-b", "openfaas")
    ),
]

REGISTRY_CREDS_UPMC = [
    *TEAMS,
    deployment(
        "kube-system",
        "registry-creds",
        "upmcenterprises/registry-creds:1.10",
        args=["--exclude-namespaces=legacy"],
    ),
    opaque(
        "kube-system",
        "registry-creds-ecr",
        AWS_ACCESS_KEY_ID="AKIAXXXXXXXXXXXXXXXX",
        AWS_SECRET_ACCESS_KEY=CANARY,
        **{"aws-account": "123456789012,210987654321", "aws-region": "eu-west-1", "aws_assume_role": "changeme"},
    ),
    opaque(
        "kube-system",
        "registry-creds-dpr",
        DOCKER_PRIVATE_REGISTRY_SERVER="https://registry.example.com",
        DOCKER_PRIVATE_REGISTRY_USER="ci",
        DOCKER_PRIVATE_REGISTRY_PASSWORD=CANARY,
    ),
    opaque(
        "kube-system",
        "registry-creds-gcr",
        **{"application_default_credentials.json": "changeme", "gcrurl": "https://gcr.io"},
    ),
    opaque(
        "kube-system",
        "registry-creds-acr",
        ACR_URL="changeme",
        ACR_CLIENT_ID="changeme",
        ACR_PASSWORD="changeme",  # noqa: S106 - nobody has filled it in
    ),
    *(
        pull_secret(
            where,
            "awsecr-cred",
            *(f"https://{a}.dkr.ecr.eu-west-1.amazonaws.com" for a in ("123456789012", "210987654321")),
        )
        for where in ("team-a", "team-b")
    ),
    pull_secret("team-a", "dpr-secret", "https://registry.example.com"),
    made(
        "v1", "Secret", "gcr-secret", "team-a", type="kubernetes.io/dockercfg", data={".dockercfg": encoded("{}")}
    ),
]

CLUSTERSECRET = [
    *TEAMS,
    namespace("shop"),
    deployment("clustersecret", "cluster-secret", "quay.io/clustersecret/clustersecret:0.0.14"),
    made(
        "clustersecret.io/v1",
        "ClusterSecret",
        "regcred-hub",
        metadata={"finalizers": ["kopf.zalando.org/KopfFinalizerMarker"]},
        type="kubernetes.io/dockerconfigjson",
        matchNamespace=["team-.*", "shop$"],
        avoidNamespaces=["team-x"],
        data={
            ".dockerconfigjson": encoded(json.dumps({"auths": {"docker.io": {"auth": encoded(f"u:{CANARY}")}}}))
        },
    ),
    made(
        "clustersecret.io/v1", "ClusterSecret", "certificate", type="kubernetes.io/tls", data={"tls.crt": "eA=="}
    ),
    *(
        pull_secret(where, "regcred-hub", "docker.io", annotations={"clustersecret.io/created-by": "regcred-hub"})
        for where in ("team-a", "team-b", "shop")
    ),
]

MSI_ACRPULL = [
    *TEAMS,
    deployment("acrpull-system", "acrpull-controller-manager", "mcr.microsoft.com/aks/msi-acrpull:v0.1.15"),
    made(
        "acrpull.microsoft.com/v1beta1",
        "AcrPullBinding",
        "old",
        "team-a",
        spec={
            "acrServer": "contoso.azurecr.io",
            "managedIdentityClientID": "11111111-2222-3333-4444-555555555555",
        },
    ),
    made(
        "acrpull.microsoft.com/v1beta2",
        "AcrPullBinding",
        "new",
        "team-b",
        spec={
            "acr": {
                "server": "contoso.azurecr.io",
                "environment": "PublicCloud",
                "scope": "repository:shop/web:pull repository:shop/api:pull,push",
            },
            "auth": {
                "workloadIdentity": {
                    "serviceAccountName": "puller",
                    "clientID": "11111111-2222-3333-4444-555555555555",
                    "tenantID": "66666666-7777-8888-9999-000000000000",
                }
            },
            "serviceAccountName": "web",
        },
    ),
    pull_secret("team-a", "old-msi-acrpull-secret", "contoso.azurecr.io"),
    pull_secret(
        "team-b", "acr-pull-new-1x2y3z", "contoso.azurecr.io", labels={"acr.microsoft.com/binding": "new"}
    ),
]

ECR_LOGIN_RENEW = [
    *TEAMS,
    made(
        "batch/v1",
        "CronJob",
        "ecr-renew",
        "ns-ecr-renew",
        spec={
            "schedule": "0 */6 * * *",
            "jobTemplate": {
                "spec": {
                    "template": {
                        "spec": {
                            "restartPolicy": "OnFailure",
                            "containers": [
                                {
                                    "name": "ecr-renew",
                                    "image": "nabsul/k8s-ecr-login-renew:v1.7.1",
                                    "env": [
                                        variable("DOCKER_SECRET_NAME", "ecr-docker-login"),
                                        variable("TARGET_NAMESPACE", "team-*,shop"),
                                        variable("AWS_REGION", "us-west-2"),
                                        variable_of("AWS_ACCESS_KEY_ID", "ecr-renew-cred", "ID"),
                                        variable_of("AWS_SECRET_ACCESS_KEY", "ecr-renew-cred", "SECRET"),
                                    ],
                                }
                            ],
                        }
                    }
                }
            },
        },
    ),
    opaque("ns-ecr-renew", "ecr-renew-cred", ID="AKIAXXXXXXXXXXXXXXXX", SECRET=CANARY, REGION="us-west-2"),
    *(
        pull_secret(where, "ecr-docker-login", "https://123456789012.dkr.ecr.us-west-2.amazonaws.com")
        for where in ("team-a", "team-b", "other")
    ),
]

_ES, _GEN = "external-secrets.io/v1", "generators.external-secrets.io/v1alpha1"


def _from(kind: str, name: str, target: str) -> Json:
    return {
        "refreshInterval": "1h",
        "target": {"name": target, "template": {"type": "kubernetes.io/dockerconfigjson"}},
        "dataFrom": [{"sourceRef": {"generatorRef": {"apiVersion": _GEN, "kind": kind, "name": name}}}],
    }


EXTERNAL_SECRETS = [
    *TEAMS,
    made(
        _GEN,
        "ECRAuthorizationToken",
        "ecr",
        "team-a",
        spec={
            "region": "eu-west-1",
            "role": "arn:aws:iam::123456789012:role/puller",
            "auth": {"jwt": {"serviceAccountRef": {"name": "ecr-puller"}}},
        },
    ),
    made(_ES, "ExternalSecret", "ecr", "team-a", spec=_from("ECRAuthorizationToken", "ecr", "ecr-login")),
    pull_secret("team-a", "ecr-login", "123456789012.dkr.ecr.eu-west-1.amazonaws.com"),
    made(
        _GEN,
        "GCRAccessToken",
        "gar",
        "team-b",
        spec={
            "projectID": "p",
            "auth": {"secretRef": {"secretAccessKeySecretRef": {"name": "gcp", "key": "sa.json"}}},
        },
    ),
    made(_ES, "ExternalSecret", "gar", "team-b", spec=_from("GCRAccessToken", "gar", "gar-login")),
    pull_secret("team-b", "gar-login", "europe-docker.pkg.dev"),
    made(
        _GEN,
        "ACRAccessToken",
        "acr",
        "team-b",
        spec={
            "tenantId": "66666666-7777-8888-9999-000000000000",
            "registry": "contoso.azurecr.io",
            "auth": {"workloadIdentity": {"serviceAccountRef": {"name": "acr-puller"}}},
        },
    ),
    made(_ES, "ExternalSecret", "acr", "team-b", spec=_from("ACRAccessToken", "acr", "acr-login")),
    made(
        _GEN,
        "ClusterGenerator",
        "shared",
        spec={
            "kind": "ECRAuthorizationToken",
            "generator": {"ecrAuthorizationTokenSpec": {"region": "eu-west-1"}},
        },
    ),
    made(
        _ES,
        "ClusterExternalSecret",
        "everywhere",
        spec={
            "externalSecretName": "ecr-everywhere",
            "namespaceSelectors": [{"matchLabels": {"pull": "ecr"}}],
            "externalSecretSpec": _from("ClusterGenerator", "shared", "ecr-shared"),
        },
        status={"provisionedNamespaces": ["team-a", "team-b"]},
    ),
    made(
        _ES,
        "ExternalSecret",
        "ecr-everywhere",
        "team-a",
        spec=_from("ClusterGenerator", "shared", "ecr-shared"),
        metadata={"ownerReferences": [{"kind": "ClusterExternalSecret", "name": "everywhere"}]},
    ),
    *(
        pull_secret(where, "ecr-shared", "123456789012.dkr.ecr.eu-west-1.amazonaws.com")
        for where in ("team-a", "team-b")
    ),
    # Not about registries.
    made(_ES, "ExternalSecret", "database", "team-a", spec={"data": [{"secretKey": "x"}]}),
]

ALL = {
    "imagepullsecret-patcher": IMAGEPULLSECRET_PATCHER,
    "registry-creds-alexellis": REGISTRY_CREDS_ALEXELLIS,
    "registry-creds-upmc": REGISTRY_CREDS_UPMC,
    "clustersecret": CLUSTERSECRET,
    "msi-acrpull": MSI_ACRPULL,
    "ecr-login-renew": ECR_LOGIN_RENEW,
    "external-secrets": EXTERNAL_SECRETS,
}
