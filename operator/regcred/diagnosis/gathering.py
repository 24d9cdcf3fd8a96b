"""Reads from the cluster what a diagnosis works on; logins are read, tried where asked for, and never kept.

Whoever asks may see less than an administrator: what may not be read is a gap that the diagnosis can name, and only
where the pod itself is out of reach there is nothing to say.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from regcred import dockerconfig, kubelet
from regcred.api import names, times
from regcred.api import resource as api_resource
from regcred.cluster import client as api
from regcred.cluster import errors, views
from regcred.credentials import verification
from regcred.diagnosis import facts, keyring

#: Kinds with a pod template, by how people name them.
WORKLOADS: Mapping[str, tuple[str, str, str]] = {
    kind.lower(): (kind, group, f"{kind.lower()}s")
    for kind, group in (
        ("Deployment", "apis/apps/v1"),
        ("StatefulSet", "apis/apps/v1"),
        ("DaemonSet", "apis/apps/v1"),
        ("ReplicaSet", "apis/apps/v1"),
        ("Job", "apis/batch/v1"),
        ("CronJob", "apis/batch/v1"),
        ("ReplicationController", "api/v1"),
    )
}
#: Logins that are tried against the registry at most.
_PROOFS = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """How to look.

    Attributes:
        operator_namespace: where the operator runs.
        protected: globs of namespaces that no cluster resource serves.
        verify: whether to try logins against the registry.
        ca_bundle: PEM of CAs to trust for that, in place of the system's; "" for the resource's own.
    """

    operator_namespace: str = "regcred-system"
    protected: tuple[str, ...] = ()
    verify: bool = False
    ca_bundle: str = ""


class Gatherer:
    """Reads one namespace.

    Args:
        client: the API client, logged in as whoever asks.
        namespace: the pod's.
        options: how to look.
    """

    def __init__(self, client: api.Client, namespace: str, options: Options) -> None:
        self._client = client
        self._namespace = namespace
        self._options = options
        self._gaps: list[str] = []
        self._logins: dict[tuple[str, str], dockerconfig.Login] = {}

    async def of_pod(self, name: str) -> list[facts.Facts]:
        """Return the facts of each container of a pod.

        Raises:
            errors.ApiError: the pod cannot be read.
        """
        body = await self._client.get(f"/api/v1/namespaces/{self._namespace}/pods/{name}")
        return await self._of_body(body, "Pod")

    async def of_workload(self, word: str, name: str) -> list[facts.Facts]:
        """Return the facts of each container of the pods of a workload: of one that is stuck, if there is one.

        Where it has no pod, its template tells what one would be like.

        Args:
            word: key of `WORKLOADS`.
            name: of the object.

        Raises:
            errors.ApiError: it cannot be read.
        """
        kind, group, plural = WORKLOADS[word]
        try:
            body = await self._client.get(f"/{group}/namespaces/{self._namespace}/{plural}/{name}")
        except errors.NotFound:
            if kind != "CronJob":
                raise
            # Before Kubernetes 1.21.
            body = await self._client.get(f"/apis/batch/v1beta1/namespaces/{self._namespace}/{plural}/{name}")
        owners = {str(body["metadata"]["uid"])}
        if kind in {"Deployment", "CronJob"}:
            below = "/apis/batch/v1", "jobs"
            below = below if kind == "CronJob" else ("/apis/apps/v1", "replicasets")
            owners |= await self._owned(f"{below[0]}/namespaces/{self._namespace}/{below[1]}", owners)
        pods = [
            pod
            for pod in await self._list(f"/api/v1/namespaces/{self._namespace}/pods")
            if any(owner.get("uid") in owners for owner in pod["metadata"].get("ownerReferences") or ())
            and "deletionTimestamp" not in pod["metadata"]
        ]
        if pods:
            # The newest of those that are stuck says how it stands now.
            pods.sort(key=lambda pod: (_stuck(pod), pod["metadata"]["creationTimestamp"]))
            found = await self._of_body(pods[-1], kind, workload=(kind, name))
            return [dataclasses.replace(each, target=facts.Target(kind, name, (kind, name))) for each in found]
        spec = body.get("spec") or {}
        template = ((spec.get("jobTemplate") or {}).get("spec") or spec).get("template") or {}
        return await self._facts(kubelet.pod(template), facts.Target(kind, name, (kind, name)), {})

    async def of_image(self, image: str, account: str) -> list[facts.Facts]:
        """Return the facts of a new pod of a service account with an image."""
        pod = kubelet.pod(
            {"spec": {"serviceAccountName": account, "containers": [{"name": "image", "image": image}]}}
        )
        return await self._facts(pod, facts.Target("Image", image), {})

    async def _of_body(
        self, body: Mapping[str, Any], kind: str, workload: tuple[str, str] | None = None
    ) -> list[facts.Facts]:
        pod = kubelet.pod(body)
        owner = workload or await self._workload(pod)
        return await self._facts(pod, facts.Target(kind, pod.name, owner), await self._events(pod))

    async def _workload(self, pod: kubelet.Pod) -> tuple[str, str] | None:
        """Return kind and name of the object whose template makes such pods: that above a ReplicaSet or a Job."""
        if pod.controller is None:
            return None
        kind, name = pod.controller
        if kind.lower() not in WORKLOADS or kind not in {"ReplicaSet", "Job"}:
            return pod.controller
        _, group, plural = WORKLOADS[kind.lower()]
        try:
            body = await self._client.get(f"/{group}/namespaces/{self._namespace}/{plural}/{name}")
        except errors.ApiError:
            return pod.controller
        above = [owner for owner in body["metadata"].get("ownerReferences") or () if owner.get("controller")]
        return (above[0]["kind"], above[0]["name"]) if above else pod.controller

    async def _facts(
        self, pod: kubelet.Pod, target: facts.Target, told: Mapping[str, tuple[str, dt.datetime | None]]
    ) -> list[facts.Facts]:
        resources, spelled = await self._resources()
        account = await self._account(pod.account)
        wanted = {*pod.pull_secrets, *(account.pull_secrets if account else ()), names.DEFAULT_SECRET_NAME}
        wanted |= {resource.spec.secret_name for resource in resources if resource.spec is not None}
        secrets = {name: await self._secret(name) for name in sorted(wanted) if name}
        labels = await self._labels()
        found = []
        for container in pod.containers:
            message, failed_at = told.get(container.name) or told.get(container.image) or ("", None)
            seen = container
            if container.pulling and container.symptom is kubelet.Symptom.UNKNOWN and message:
                # Kubelets before 1.32 tell the cause in an event only.
                seen = dataclasses.replace(container, message=message)
            each = facts.Facts(
                now=dt.datetime.now(dt.UTC),
                target=target,
                namespace=self._namespace,
                labels=labels,
                pod=pod,
                container=seen,
                account=account,
                secrets=secrets,
                resources=resources,
                spelled=spelled,
                failed_at=failed_at,
                operator_namespace=self._options.operator_namespace,
                protected=self._options.protected,
                gaps=tuple(self._gaps),
            )
            if self._options.verify:
                each = dataclasses.replace(each, proofs=tuple(await self._prove(each)))
            found.append(each)
        return found

    async def _prove(self, asked: facts.Facts) -> Sequence[facts.Proof]:
        """Try the logins that the kubelet would send, in its order, until one is accepted."""
        try:
            image = dockerconfig.normalise_image(asked.image)
            choices = keyring.choices(asked.image, asked.listed, asked.secrets)
        except dockerconfig.BadImage:
            return ()
        server = dockerconfig.DOCKER_HUB if image.host == "docker.io" else image.host
        found: list[facts.Proof] = []
        for choice in choices[:_PROOFS]:
            login = self._logins.get((choice.secret, choice.server))
            if login is None:
                continue
            verdict = await verification.verify(
                None,
                server,
                image.repository,
                image.reference,
                login,
                ca_bundle=self._options.ca_bundle or _authority(asked, choice),
            )
            found.append(facts.Proof(choice, verdict))
            if verdict.outcome.accepts:
                break
        return found

    async def _labels(self) -> Mapping[str, str] | None:
        try:
            body = await self._client.get(f"/api/v1/namespaces/{self._namespace}")
        except errors.NotFound:
            return None
        except errors.Forbidden:
            self._gap(f"the namespace {self._namespace}, whose labels decide")
            return {}
        return None if "deletionTimestamp" in body["metadata"] else body["metadata"].get("labels") or {}

    async def _account(self, name: str) -> facts.Account | None:
        try:
            body = await self._client.get(f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{name}")
        except errors.NotFound:
            return None
        except errors.Forbidden:
            self._gap(f"the service account {name}")
            return facts.Account(name)
        view = views.account(body)
        return facts.Account(name, view.pull_secrets, view.ignored, kubelet.list_since(body))

    async def _secret(self, name: str) -> facts.PullSecret | None:
        try:
            body = await self._client.get(f"/api/v1/namespaces/{self._namespace}/secrets/{name}")
        except errors.NotFound:
            return None
        except errors.Forbidden:
            self._gap(f"the Secret {name}")
            return facts.PullSecret(name, forbidden=True)
        keys, broken, logins = keyring.read(body)
        self._logins |= {(name, key): login for key, login in logins.items()}
        return facts.PullSecret(
            name=name,
            type=str(body.get("type", "")),
            view=views.secret(body),
            keys=keys,
            broken=broken,
            written=_written(body),
        )

    async def _resources(self) -> tuple[tuple[api_resource.Resource, ...], Mapping[str, tuple[str, ...]]]:
        found: list[api_resource.Resource] = []
        spelled: dict[str, tuple[str, ...]] = {}
        for kind, path in (
            (names.CLUSTER_KIND, names.CLUSTER_PLURAL),
            (names.NAMESPACED_KIND, f"namespaces/{self._namespace}/{names.NAMESPACED_PLURAL}"),
        ):
            try:
                bodies = await self._list(f"/apis/{names.API_VERSION}/{path}")
            except errors.Forbidden:
                self._gap(f"resources of the kind {kind}")
                continue
            except errors.NotFound:
                self._gap(f"resources of the kind {kind}, which is not installed")
                continue
            for body in bodies:
                parsed = api_resource.parse({**body, "kind": kind})
                found.append(parsed)
                spelled[parsed.uid] = tuple(_spelled(body))
        return tuple(found), spelled

    async def _events(self, pod: kubelet.Pod) -> Mapping[str, tuple[str, dt.datetime | None]]:
        """Return the newest message about a failed pull, and when it came, by container and by image."""
        try:
            bodies = await self._list(
                f"/api/v1/namespaces/{self._namespace}/events",
                {"fieldSelector": f"involvedObject.name={pod.name},involvedObject.kind=Pod"},
            )
        except errors.ApiError:
            self._gap(f"events of the pod {pod.name}")
            return {}
        found: dict[str, tuple[str, dt.datetime | None]] = {}
        for body in sorted(bodies, key=_when):
            message = str(body.get("message") or "")
            if body.get("reason") != "Failed" or kubelet.symptom("", message) is kubelet.Symptom.UNKNOWN:
                continue
            where = str((body.get("involvedObject") or {}).get("fieldPath") or "")
            told = (message, _time(_when(body)))
            if "{" in where:
                found[where.partition("{")[2].rstrip("}")] = told
            for container in pod.containers:
                if f'"{container.image}"' in message:
                    found[container.image] = told
        return found

    async def _owned(self, path: str, owners: Iterable[str]) -> set[str]:
        wanted = set(owners)
        return {
            str(body["metadata"]["uid"])
            for body in await self._list(path)
            if any(owner.get("uid") in wanted for owner in body["metadata"].get("ownerReferences") or ())
        }

    async def _list(self, path: str, params: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async for items, _ in self._client.pages(path, params=params):
            found += items
        return found

    def _gap(self, what: str) -> None:
        if what not in self._gaps:
            self._gaps.append(what)


def _stuck(pod: Mapping[str, Any]) -> bool:
    return any(container.stuck for container in kubelet.pod(pod).containers)


def _authority(asked: facts.Facts, choice: facts.Choice) -> str:
    """Return the CAs that the resource of a login names for its registry, or ""."""
    uid = choice.standing.uid if choice.standing is not None else ""
    resource = next((resource for resource in asked.resources if resource.uid == uid), None)
    for entry in resource.spec.registries if resource is not None and resource.spec is not None else ():
        spelled = [server for server in (entry.server, *entry.aliases) if server != "*"]
        if entry.tls and choice.server in map(dockerconfig.canonical_server, spelled):
            return entry.tls.ca_bundle
    return ""


def _spelled(body: Mapping[str, Any]) -> Iterable[str]:
    """Yield the servers and aliases of a resource, whatever else is wrong with it."""
    spec = body.get("spec")
    listed = spec.get("registries") if isinstance(spec, dict) else None
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict):
            aliases = entry.get("aliases")
            yield from (
                server
                for server in (entry.get("server"), *(aliases if isinstance(aliases, list) else ()))
                if isinstance(server, str)
            )


def _written(body: Mapping[str, Any]) -> dt.datetime | None:
    found = [
        time
        for entry in body["metadata"].get("managedFields") or ()
        if "f:data" in (entry.get("fieldsV1") or {}) and (time := _time(entry.get("time")))
    ]
    return max(found, default=None)


def _when(event: Mapping[str, Any]) -> str:
    """Return when an event came last; the API has three fields for it."""
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or (event.get("metadata") or {}).get("creationTimestamp")
        or ""
    )


def _time(text: object) -> dt.datetime | None:
    try:
        return times.parse_time(text) if isinstance(text, str) else None
    except ValueError:
        return None
