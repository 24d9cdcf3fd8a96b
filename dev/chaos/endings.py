"""Resources, kinds and the operator itself go, in any order; the last experiments of a run."""

from __future__ import annotations

import asyncio
import os

from dev.chaos.arena import THEIRS, Arena, timed
from dev.chaos.book import Finding, experiment
from dev.operator_process import ROOT, install
from dev.processes import run
from regcred.cluster import errors


@experiment(
    17,
    "deleted-while-away",
    title="A resource is deleted while the operator is down, and another while it cannot reach the API server",
    expected="The cluster's garbage collector removes the Secrets, the next start the entries; nothing is stuck",
)
async def deleted_while_away(arena: Arena) -> Finding:
    """Delete behind the operator's back, twice."""
    async with arena.work() as (corner, operator):
        down, cut = await corner.settle("down", "cut")
        await corner.source()
        for name in (down, cut):
            await corner.declare(corner.entry(), name=name, namespaces={"names": [name]})
        await corner.all_served([down, cut])
        await operator.stop()
        await corner.cluster.kubectl("delete", "crcred", down)

        async def collected() -> bool:
            return await corner.secret(down) is None

        seconds = await timed(collected, "the garbage collector", seconds=120)
        await operator.start()
        # Servers that do not track who wrote an account's list leave the operator without a proof: the page says how.
        dangling = "regcred" in (await corner.pull_secrets(down) or [])
        if dangling:
            await _documented_sweep(arena)
        await corner.bare(down)
        with arena.proxy.partition():
            await corner.cluster.kubectl("delete", "crcred", cut)
            await asyncio.sleep(2 if arena.quick else 10)
        await corner.bare(cut)
        kept = [await corner.pull_secrets(name) for name in (down, cut)] == [[THEIRS]] * 2
        return Finding(
            kept and operator.running,
            "Secrets and entries of both are gone, the entries of others stay"
            + ("; one entry by the script of how-to/uninstall.md" if dangling else ""),
            f"collected {seconds:.1f} s after the deletion, without the operator",
        )


async def _documented_sweep(arena: Arena) -> None:
    """Run the script that the page on uninstalling has for entries that were left behind."""
    page = (ROOT / "docs" / "how-to" / "uninstall.md").read_text(encoding="utf-8")
    script = page.rsplit("```sh\n", 1)[1].split("```", 1)[0]
    path = os.pathsep.join((str(arena.cluster.kubectl_program.parent), os.environ.get("PATH", os.defpath)))
    environment = {**os.environ, "PATH": path, "KUBECONFIG": str(arena.cluster.admin_kubeconfig)}
    await run("bash", "-euc", script, env=environment)


@experiment(
    17,
    "kinds-deleted",
    title="The definitions are deleted first (a wrong uninstall), and come back later",
    expected="The process lives on; Secrets are collected; entries are swept; it goes on when the kinds are back",
)
async def kinds_deleted(arena: Arena) -> Finding:
    """Delete both definitions while the operator works, and install them again."""
    async with arena.work("--watch-silence=6") as (corner, operator):
        pid = operator.pid
        names = await corner.serve("a", "b")
        await corner.cluster.kubectl(
            "delete",
            "crd",
            "clusterregistrycredentials.regcred.io",
            "registrycredentials.regcred.io",
            "--timeout=90s",
        )
        await corner.bare(*names)
        await install(arena.cluster)

        async def declared() -> bool:
            try:
                await corner.declare(corner.entry())
            except (errors.ApiError, RuntimeError):
                return False
            return True

        await timed(declared, "the kinds to be back", seconds=60)
        seconds = await corner.all_served(names, seconds=150)
        alive = operator.running and operator.pid == pid
        return Finding(
            alive,
            "nothing is left while the kinds are gone; served again afterwards",
            f"served {seconds:.1f} s after",
        )
