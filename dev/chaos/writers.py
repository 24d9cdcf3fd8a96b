"""Others write what the operator writes, too: fairly, carelessly, by rule, and without end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from typing import Any

from dev.chaos.arena import THEIRS, Arena, Corner, series, timed
from dev.chaos.book import Finding, experiment
from dev.faults import Answer
from regcred.cluster import client as api
from regcred.cluster import errors

Json = dict[str, Any]


class Rival:
    """A fair writer: it reads, changes its own entries and writes with the version that it has read."""

    def __init__(self, corner: Corner, namespace: str, name: str) -> None:
        self._corner = corner
        self._path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
        self._name = name
        self.mine: list[str] = []
        self.conflicts = 0

    async def run(self, rounds: int, client: api.Client) -> None:
        """Write so many times."""
        for number in range(rounds):
            entry = f"{self._name}-{number}"
            gone = self.mine[0] if len(self.mine) >= 5 else ""
            while True:
                body = await client.get(self._path)
                listed = [row["name"] for row in body.get("imagePullSecrets") or []]
                body["imagePullSecrets"] = [{"name": name} for name in (*listed, entry) if name != gone]
                try:
                    await client.request("PUT", self._path, body=body, tries=1)
                    break
                except errors.Conflict:
                    self.conflicts += 1
            self.mine = [name for name in self.mine if name != gone] + [entry]


@experiment(
    4,
    "three-writers",
    title="Two rivals and we write one account in 1,000 rounds; 40 % of our patches get a made-up 409 or 422",
    expected="No foreign entry is ever lost, ours stands once at the end",
)
async def three_writers(arena: Arena) -> Finding:
    """Let rivals write as fast as they can, and throw our entry out now and then."""
    rounds = 40 if arena.quick else 500
    async with arena.work() as (corner, operator):
        (namespace,) = await corner.settle("a")
        before = len(arena.evidence.writes())
        # Nineteen more accounts, so that there is something to refuse.
        for number in range(19):
            path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
            await corner.api.request("POST", path, body={"metadata": {"name": f"more-{number}"}})
        rules = [
            arena.proxy.add(Answer(status, reason=reason), verb="patch", resource="serviceaccounts", chance=0.2)
            for status, reason in ((409, "Conflict"), (422, "Invalid"))
        ]
        rivals = [Rival(corner, namespace, name) for name in ("red", "blue")]
        clients = [api.Client(api.login(str(arena.cluster.admin_kubeconfig))) for _ in rivals]

        async def removals() -> None:
            await corner.offer(serviceAccounts=["*"])
            await timed(lambda: _listed(corner, namespace), "our entry", seconds=90)
            # Twice only: what is removed again and again ends in a truce.
            for _ in range(2):
                await asyncio.sleep(2)
                await _remove(corner, namespace)
                await timed(lambda: _listed(corner, namespace), "our entry", seconds=60)

        try:
            await asyncio.gather(
                *(rival.run(rounds, client) for rival, client in zip(rivals, clients, strict=True)), removals()
            )
        finally:
            for client in clients:
                await client.close()
            for rule in rules:
                arena.proxy.remove(rule)
        await corner.ready()
        await corner.all_served([namespace])
        listed = await corner.pull_secrets(namespace) or []
        expected = {THEIRS, *rivals[0].mine, *rivals[1].mine}
        lost = expected - set(listed)
        ours = [row for row in arena.evidence.writes(before) if row.resource == "serviceaccounts"]
        return Finding(
            not lost and sorted(listed) == sorted({*expected, "regcred"}) and operator.running,
            f"{2 * rounds} foreign writes, {sum(rival.conflicts for rival in rivals)} conflicts among them; "
            f"{len(lost)} entries lost, ours stands once",
            f"{len(ours)} patches of ours for 20 accounts and 2 removals; "
            f"{sum(rule.hits for rule in rules)} made-up refusals",
        )


async def _listed(corner: Corner, namespace: str) -> bool:
    return "regcred" in (await corner.pull_secrets(namespace) or [])


async def _remove(corner: Corner, namespace: str) -> None:
    """Take our entry out of the default account, as a careless writer does."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
    while True:
        body = await corner.api.get(path)
        body["imagePullSecrets"] = [row for row in body.get("imagePullSecrets") or [] if row["name"] != "regcred"]
        with contextlib.suppress(errors.Conflict):
            await corner.api.request("PUT", path, body=body, tries=1)
            return


@experiment(
    13,
    "foreign-secrets",
    title="A Secret of our name is there already: Opaque, a docker config, somebody's dependent, immutable",
    expected="Untouched byte for byte; Conflict for these namespaces; all others are served",
)
async def foreign_secrets(arena: Arena) -> Finding:
    """Take our name in four ways."""
    async with arena.work() as (corner, operator):
        kinds: dict[str, Json] = {
            "opaque": {"type": "Opaque", "stringData": {"a": "1"}},
            "docker": {
                "type": "kubernetes.io/dockerconfigjson",
                "stringData": {".dockerconfigjson": '{"auths":{}}'},
            },
            "owned": {"type": "Opaque", "stringData": {"a": "1"}},
            "immutable": {"type": "Opaque", "immutable": True, "stringData": {"a": "1"}},
        }
        taken = await corner.settle(*kinds)
        free = await corner.settle("free-1", "free-2")
        owner = await corner.cluster.get("serviceaccount", "default", "-n", taken[2])
        reference = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "name": "default",
            "uid": owner["metadata"]["uid"],
        }
        for namespace, (kind, body) in zip(taken, kinds.items(), strict=True):
            meta: Json = {"name": "regcred", "namespace": namespace}
            if kind == "owned":
                meta["ownerReferences"] = [reference]
            await corner.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, **body})
        before = [await corner.secret(namespace) for namespace in taken]
        await corner.offer()
        await corner.all_served(free)

        async def counted() -> bool:
            status = (await corner.resource()).get("status") or {}
            return bool(status.get("namespaces") == {"matched": 6, "synced": 2, "failed": 0, "conflicted": 4})

        seconds = await timed(counted, "four conflicts", seconds=90)
        reasons = {row["reason"] for row in (await corner.resource())["status"]["failures"]}
        after = [await corner.secret(namespace) for namespace in taken]
        unlisted = [await corner.pull_secrets(namespace) for namespace in taken] == [[THEIRS]] * 4
        return Finding(
            before == after and reasons == {"Conflict"} and unlisted and operator.running,
            "4 foreign Secrets unchanged to the last byte and version, 4 conflicts in status, 2 namespaces served",
            f"told within {seconds:.1f} s",
        )


@experiment(
    14,
    "drift",
    title="Somebody edits or deletes our Secret, or takes our entry out of an account",
    expected="Restored at once; an account that opts out is left; without end it becomes a truce, event and condition",
)
async def drift(arena: Arena) -> Finding:
    """Undo our work in every way, some of it without end."""
    async with arena.work() as (corner, operator):
        names = await corner.settle("edited", "deleted", "entry", "ignored", "fought")
        edited, deleted, entry, ignored, fought = names
        await corner.cluster.kubectl("annotate", "sa", "default", "-n", ignored, "regcred.io/ignore=true")
        await corner.offer()
        await corner.all_served([edited, deleted, entry, fought])
        times = []
        patch = json.dumps({"stringData": {".dockerconfigjson": '{"auths":{}}'}})
        await corner.cluster.kubectl("patch", "secret", "regcred", "-n", edited, "--type=merge", "-p", patch)
        times.append(await corner.all_served([edited]))
        await corner.cluster.kubectl("delete", "secret", "regcred", "-n", deleted)
        times.append(await corner.all_served([deleted]))
        await _remove(corner, entry)
        times.append(await corner.all_served([entry]))
        left = await corner.pull_secrets(ignored) == [THEIRS]

        before = len(arena.evidence.writes())
        fight = asyncio.create_task(_keep_deleting(corner, fought))
        try:
            told = await corner.ready(status="False", reason="Contended")
            await asyncio.sleep(3)
        finally:
            fight.cancel()
            await asyncio.gather(fight, return_exceptions=True)
        repairs = [row for row in arena.evidence.writes(before, namespace=fought) if row.resource == "secrets"]
        events = {event["reason"] for event in await corner.events()}
        contended = [row["namespace"] for row in told["status"]["failures"]] == [fought]
        return Finding(
            left and contended and "Contended" in events and len(repairs) <= 4 and operator.running,
            f"3 kinds of drift restored; the opted-out account unchanged; {len(repairs)} repairs, then a truce, told",
            f"restored: {series(times)}",
        )


async def _keep_deleting(corner: Corner, namespace: str) -> None:
    """Delete our Secret whenever it is there."""
    while True:
        with contextlib.suppress(errors.ApiError):
            await corner.api.request("DELETE", f"/api/v1/namespaces/{namespace}/secrets/regcred", tries=1)
        await asyncio.sleep(0.2)


@experiment(
    15,
    "gitops",
    title="A GitOps controller applies the accounts every second, without and with imagePullSecrets",
    expected="Without the field all is stable; with it the fight is noticed, told, and not looped",
)
async def gitops(arena: Arena) -> Finding:
    """Apply two accounts by server-side apply, forced, again and again."""
    lasts = 6.0 if arena.quick else 30.0
    async with arena.work() as (corner, operator):
        plain, listing = await corner.serve("plain", "listing")
        # What Git says is what stands from now on: somebody else's entry is no longer ours to count.
        arena.evidence.planted.pop((listing, "default"), None)
        before = len(arena.evidence.writes())
        began = time.monotonic()
        while time.monotonic() - began < lasts:
            for namespace, more in ((plain, {}), (listing, {"imagePullSecrets": [{"name": THEIRS}]})):
                await corner.api.request(
                    "PATCH",
                    f"/api/v1/namespaces/{namespace}/serviceaccounts/default",
                    params={"fieldManager": "argocd-controller", "force": "true"},
                    body={
                        "apiVersion": "v1",
                        "kind": "ServiceAccount",
                        "metadata": {"name": "default", "labels": {"round": str(random.randrange(10**6))}},
                        **more,
                    },
                    content_type=api.APPLY,
                )
            await asyncio.sleep(0.5)
        told = await corner.ready(status="False", reason="Contended")
        stable = await corner.pull_secrets(plain) == [THEIRS, "regcred"]
        patches = {
            name: len(
                [row for row in arena.evidence.writes(before, namespace=name) if row.resource == "serviceaccounts"]
            )
            for name in (plain, listing)
        }
        named = [row["namespace"] for row in told["status"]["failures"]] == [listing]
        return Finding(
            stable and named and patches[plain] == 0 and patches[listing] <= 3 and operator.running,
            f"without the field {patches[plain]} writes of ours, with it {patches[listing]}, then a truce, told",
            f"{patches[listing]} writes in {lasts:.0f} s, then 1 an hour",
        )


@experiment(
    16,
    "second-controller",
    title="Another controller adds its own pull Secret to every new account, as OpenShift does",
    expected="Both entries stand in every account",
)
async def second_controller(arena: Arena) -> Finding:
    """Add an entry to each account at the moment we do."""
    async with arena.work() as (corner, operator):
        await corner.offer()
        await corner.ready()
        names = await corner.settle(*(f"n{number}" for number in range(5 if arena.quick else 40)))
        conflicts = 0

        async def add(namespace: str) -> None:
            nonlocal conflicts
            path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
            while True:
                body = await corner.api.get(path)
                body["imagePullSecrets"] = [*(body.get("imagePullSecrets") or []), {"name": "default-dockercfg"}]
                try:
                    await corner.api.request("PUT", path, body=body, tries=1)
                    return
                except errors.Conflict:
                    conflicts += 1

        await asyncio.gather(*(add(namespace) for namespace in names))
        await corner.all_served(names)
        whole = 0
        for namespace in names:
            listed = await corner.pull_secrets(namespace) or []
            whole += sorted(listed) == sorted([THEIRS, "default-dockercfg", "regcred"])
        return Finding(
            whole == len(names) and operator.running,
            f"{whole} of {len(names)} accounts hold all three entries, each once",
            f"{conflicts} conflicts of the other controller",
        )
