"""Namespaces that come and go, clusters full of other things, pods that are faster, people who relabel."""

from __future__ import annotations

import asyncio
import time

from dev.chaos.arena import Arena, Corner, series, timed
from dev.chaos.book import Finding, experiment
from dev.waiting import eventually
from regcred.cluster import errors


async def _create(corner: Corner, name: str) -> None:
    """Create a namespace of this very name, which may be on its way out still."""

    async def created() -> bool:
        try:
            await corner.api.request(
                "POST", "/api/v1/namespaces", body={"metadata": {"name": name, "labels": {"test": corner.id}}}
            )
        except errors.Conflict:
            return False
        return True

    await eventually(created, f"the namespace {name} to be free", seconds=120, every=0.2)


@experiment(
    12,
    "namespace-churn",
    title="100 namespaces are created, deleted amid the distribution, and created again under their names",
    expected="A namespace that ends is passed over and never held up; its successor is served",
)
async def namespace_churn(arena: Arena) -> Finding:
    """Delete namespaces as soon as they are there, and begin again."""
    number = 5 if arena.quick else 50
    async with arena.work() as (corner, operator):
        await corner.offer()
        await corner.ready()
        names = [f"{corner.id}-churn-{each}" for each in range(number)]
        for name in names:
            corner.take("Namespace", name)
        times: list[float] = []

        async def gone(name: str) -> bool:
            try:
                await corner.api.get(f"/api/v1/namespaces/{name}")
            except errors.NotFound:
                return True
            return False

        for _ in range(2):
            await asyncio.gather(*(_create(corner, name) for name in names))
            # Some are served by now, some are not, and some have no account yet.
            await asyncio.gather(*(corner.api.request("DELETE", f"/api/v1/namespaces/{name}") for name in names))
            times += await asyncio.gather(
                *(timed(lambda name=name: gone(name), f"{name} to be gone", seconds=180) for name in names)  # type: ignore[misc]
            )
        await asyncio.gather(*(_create(corner, name) for name in names))
        served = await corner.all_served(names, seconds=150)
        complaints = [
            line
            for line in operator.lines()
            if line.get("level") in ("warning", "error") and "erminat" in line["msg"]
        ]
        held = [body for body in await _secrets(corner, names) if body["metadata"].get("finalizers")]
        return Finding(
            not complaints and not held and operator.running,
            f"{2 * number} deletions, 0 stuck, {len(held)} finalizers, {len(complaints)} complaints in the log",
            f"gone: {series(times)}; {number} successors served in {served:.1f} s",
        )


async def _secrets(corner: Corner, names: list[str]) -> list[dict[str, dict[str, object]]]:
    return [body for name in names if (body := await corner.secret(name)) is not None]


@experiment(
    19,
    "memory-trap",
    title="The cluster is full of large Secrets of others",
    expected="They are not listed, so memory does not grow",
)
async def memory_trap(arena: Arena) -> Finding:
    """Fill a namespace with Secrets of almost a megabyte, and start the operator before and after."""
    number = 5 if arena.quick else 80
    async with arena.work() as (corner, operator):
        names = await corner.serve("full", "other")
        empty = operator.memory()
        await operator.stop()
        large = "x" * 1_000_000
        for each in range(number):
            await corner.api.request(
                "POST",
                f"/api/v1/namespaces/{names[0]}/secrets",
                body={"metadata": {"name": f"large-{each}"}, "stringData": {"value": large}},
            )
        await operator.start()
        await corner.all_served(names)
        full = operator.memory()
        return Finding(
            full - empty < 10,
            f"{number} MB of foreign Secrets make no difference",
            f"{empty:.0f} MiB before, {full:.0f} MiB with them",
        )


@experiment(
    26,
    "relabelled",
    title="A tenant labels his own namespace so that a selector matches it",
    expected="As documented: labels are only as strong as who may set them; names and exclude are not moved by it",
)
async def relabelled(arena: Arena) -> Finding:
    """Relabel a namespace that one resource selects by label, and another excludes."""
    async with arena.work() as (corner, operator):
        (tenant,) = await corner.namespaces("tenant")
        selector = {"matchLabels": {"tier": corner.id}}
        await corner.offer(namespaces={"selector": selector})
        fenced = f"{corner.id}-fenced"
        await corner.declare(
            corner.entry("fenced.example.com"),
            name=fenced,
            namespaces={"selector": selector, "exclude": [tenant]},
        )
        await corner.ready()
        await corner.cluster.kubectl("label", "namespace", tenant, f"tier={corner.id}")
        seconds = await corner.all_served([tenant])
        reached = "fenced.example.com" in await corner.auths(tenant)
        await corner.cluster.kubectl("label", "namespace", tenant, "tier-")
        await corner.bare(tenant)
        return Finding(
            not reached and operator.running,
            "the label alone lets it in, `exclude` keeps it out, and without the label it loses both Secret and entry",
            f"served {seconds:.1f} s after the label",
        )


@experiment(
    28,
    "pod-race",
    title="A pod is created in the moment its namespace is",
    expected="None is lost where the pod names the Secret; where only the account does, the share is told",
)
async def pod_race(arena: Arena) -> Finding:
    """Create namespace and pods as fast as admission lets us, and read what the pods got."""
    number = 10 if arena.quick else 100
    async with arena.work() as (corner, operator):
        await corner.offer()
        await corner.ready()
        names = [f"{corner.id}-race-{each}" for each in range(number)]
        for name in names:
            corner.take("Namespace", name)
        waits: list[float] = []

        async def race(name: str) -> tuple[bool, bool]:
            await _create(corner, name)
            plain = await _pod(corner, name, "plain", None)
            named = await _pod(corner, name, "named", [{"name": "regcred"}])
            began = time.monotonic()
            await timed(lambda: _stands(corner, name), f"the Secret of {name}", seconds=120)
            waits.append(time.monotonic() - began)
            return "regcred" in plain, "regcred" in named

        # Ten at a time, as a busy cluster might; one alone would always win.
        found: list[tuple[bool, bool]] = []
        for start in range(0, number, 10):
            found += await asyncio.gather(*(race(name) for name in names[start : start + 10]))
        plain = sum(each[0] for each in found)
        named = sum(each[1] for each in found)
        return Finding(
            named == number and operator.running,
            f"{named} of {number} pods that name the Secret have it, and it stands before any kubelet could pull; "
            f"of those that leave it to the account {plain}",
            f"{100 * (number - plain) / number:.0f} % of the plain pods were faster; Secret {series(waits)} later",
        )


async def _stands(corner: Corner, name: str) -> bool:
    return await corner.secret(name) is not None


async def _pod(corner: Corner, namespace: str, name: str, named: list[dict[str, str]] | None) -> list[str]:
    """Create a pod as soon as its account is there, and return the pull Secrets it got."""
    spec: dict[str, object] = {"containers": [{"name": "app", "image": "registry.example.com/app"}]}
    if named:
        spec["imagePullSecrets"] = named
    got: list[str] = []

    async def made() -> bool:
        try:
            body = await corner.api.request(
                "POST",
                f"/api/v1/namespaces/{namespace}/pods",
                body={"metadata": {"name": name}, "spec": spec},
                tries=1,
            )
        except (errors.Forbidden, errors.Unavailable):
            return False  # its account is not there yet, or has no token yet
        got.extend(row["name"] for row in body["spec"].get("imagePullSecrets") or [])
        return True

    await eventually(made, f"a pod in {namespace}", seconds=90, every=0.01)
    return got
