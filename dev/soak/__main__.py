"""`make soak`: run it, print the table, leave `build/soak.json`, end with 1 if anything was violated."""

from __future__ import annotations

import argparse
import asyncio
import collections
import dataclasses
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dev.audit import AuditLog
from dev.operator_process import ROOT
from dev.processes import tail
from dev.replicas import OPERATOR_USER, double_writes
from dev.soak import samples, verdict
from dev.soak import world as stage
from dev.soak.churn import Churn
from dev.soak.reader import Ledger, Reader, Violation
from dev.soak.trouble import Trouble
from dev.waiting import eventually
from regcred.cluster import errors

#: We make room for whoever else works on this machine.
_NICE = 3
#: An exit by a signal of ours, by SIGTERM, and by a lost Lease.
_EXPECTED = {-9, 0, 1}
#: Everything that is counted as a violation.
_KINDS = (
    "expired login in a Secret",
    "login that the registry refuses",
    "foreign entry changed",
    "entry twice in an account",
    "double write",
    "wrong write",
    "orphan",
    "canary",
    "not converged",
    "growth",
    "defect in the log",
    "exit code",
)
_UNEXPECTED = ("Failed unexpectedly", "Traceback", "Unclosed", "never retrieved", "never awaited")


async def soak(minutes: float, seed: int) -> dict[str, Any]:
    """Run it, and return the result."""
    chance = random.Random(seed)
    began = time.time()
    print(f"SEED={seed}, {minutes:g} minutes", flush=True)
    async with stage.world() as world:
        assert world.cluster.audit_log is not None  # noqa: S101 - it is ours
        audit = AuditLog(world.cluster.audit_log)
        ledger = Ledger()
        reader = Reader(world, ledger, random.Random(chance.random()))
        churn = Churn(world, reader, ledger, random.Random(chance.random()))
        sampler = samples.Sampler(world)
        await world.cluster.apply(stage.login_secret(0), *stage.resources(world.registry))
        await churn.populate()
        for each in world.replicas:
            each.start()
        trouble = Trouble(world, minutes * 60, random.Random(chance.random()))
        reading = [asyncio.create_task(reader.run()), asyncio.create_task(sampler.run())]
        await eventually(lambda: _leader(world), f"a leader\n{tail(world.replicas[0].process.log)}", seconds=300)
        found = await verdict.converged(world)
        print(f"{time.strftime('%H:%M:%S')} everything is served; {time.time() - began:.0f} s", flush=True)
        making = [asyncio.create_task(churn.run()), asyncio.create_task(trouble.run())]
        try:
            await _wait([*reading, *making], minutes * 60, reader, sampler)
        finally:
            for task in making:
                task.cancel()
            await asyncio.gather(*making, return_exceptions=True)
        await eventually(lambda: _leader(world), "a leader", seconds=300)
        await _unsuspend(world)
        await eventually(lambda: _caught_up(world), "the API server to answer", seconds=300)
        found += await verdict.converged(world)
        reader.judge_changes()
        print(f"{time.strftime('%H:%M:%S')} deleting everything", flush=True)
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        found += await verdict.orphans(world)
        logs = [each.process.log for each in world.replicas]
        texts = await verdict.texts(world, logs)
        codes = [await each.stop() for each in world.replicas]
        found += [Violation("exit code", "SIGTERM at the end", str(code)) for code in codes if code != 0]
        found += verdict.canaries(world.secrets(), texts)
        requests = list(audit.requests(OPERATOR_USER))
        found += [
            Violation(
                "double write", f"{row.write.pod} while {row.leader} led", f"{row.write.verb} {row.write.name}"
            )
            for row in double_writes(requests)
        ]
        found += verdict.wrong_writes(requests)
        found += _log_violations(logs)
        found += _exits(world)
        growths = samples.growths(sampler.samples)
        found += [
            Violation("growth", f"{row.replica} {row.measure}", f"{row.first:.1f} to {row.last:.1f}")
            for row in growths
            if row.grows
        ]
        found += reader.violations
        writes = collections.Counter(
            f"{row.resource}{'/' + row.subresource if row.subresource else ''}"
            for row in requests
            if row.is_write and row.code < 400
        )
        _keep(logs)
        return {
            "seed": seed,
            "minutes": minutes,
            "violations": [dataclasses.asdict(row) for row in found],
            "troubles": dict(trouble.counts),
            "churn": churn.counts,
            "reader": dict(reader.counts),
            "least life left": {"seconds": round(reader.least_left, 1), "where": reader.least_where},
            "writes": dict(writes),
            "logins handed out": len(world.aws.ends) + len(world.google.tokens()),
            "starts": {each.name: each.starts for each in world.replicas},
            "exits": {each.name: dict(collections.Counter(map(str, each.exits))) for each in world.replicas},
            "growth": [dataclasses.asdict(row) for row in growths],
            "processor": round(samples.processor_share(sampler.samples), 3),
            "samples": [dataclasses.asdict(row) for row in sampler.samples],
        }


async def _wait(
    tasks: Sequence[asyncio.Task[None]], seconds: float, reader: Reader, sampler: samples.Sampler
) -> None:
    """Wait, and say now and then how it goes; whatever of ours ends before its time is a defect of ours."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        done, _ = await asyncio.wait(tasks, timeout=min(left, 60), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
            raise RuntimeError(f"{task.get_name()} ended")
        last = sampler.samples[-1] if sampler.samples else None
        told = f"{last.replica} {last.memory:.0f} MiB, {last.tasks:.0f} tasks, " if last else ""
        print(
            f"{time.strftime('%H:%M:%S')} {left / 60:.0f} min left, {len(reader.violations)} violations, {told}"
            f"{len(reader.secrets)} Secrets, least life left {reader.least_left:.0f} s",
            flush=True,
        )


async def _leader(world: stage.World) -> bool:
    return any([await each.leads() for each in world.replicas])


async def _caught_up(world: stage.World) -> bool:
    try:
        await world.client.get("/api/v1/namespaces/default")
    except errors.ApiError:
        return False
    return True


async def _unsuspend(world: stage.World) -> None:
    """Resume what was being suspended when the churn ended."""
    for name in ("edited", "private"):
        await world.cluster.kubectl("patch", "crcred", name, "--type=merge", '--patch={"spec":{"suspend":false}}')


def _log_violations(logs: Sequence[Path]) -> list[Violation]:
    found = []
    for log in logs:
        with log.open(encoding="utf-8", errors="replace") as lines:
            found += [
                Violation("defect in the log", log.name, line.strip()[:2000])
                for line in lines
                if any(mark in line for mark in _UNEXPECTED)
            ]
    return found


def _exits(world: stage.World) -> list[Violation]:
    """An operator may end by our signals and when it has lost its Lease, and for no other reason."""
    return [
        Violation("exit code", each.name, str(code))
        for each in world.replicas
        for code in each.exits
        if code not in _EXPECTED
    ]


def _keep(logs: Sequence[Path]) -> None:
    """Keep the operators' logs of the last run."""
    (ROOT / "build").mkdir(exist_ok=True)
    for log in logs:
        (ROOT / "build" / f"soak-{log.name}").write_bytes(log.read_bytes())


def report(result: dict[str, Any]) -> str:
    """Return the table."""
    rows = [
        ("duration", f"{result['minutes']:g} min, SEED={result['seed']}"),
        ("pull Secrets read", f"{result['reader'].get('Secrets read', 0):,}"),
        ("looks at a login's end", f"{result['reader'].get('looks at a login', 0):,}"),
        ("logins tried at the registry", f"{result['reader'].get('logins tried at the registry', 0):,}"),
        (
            "changes of foreign entries",
            f"{result['reader'].get('changes of foreign entries, all by their owners', 0):,}",
        ),
        (
            "ended with the API server away shortly before",
            str(result["reader"].get("logins that ended with the API server away shortly before", 0)),
        ),
        ("least life left in any Secret", f"{result['least life left']['seconds']} s"),
        ("logins handed out (AWS, Google)", f"{result['logins handed out']:,}"),
        *((f"writes to {name}", f"{number:,}") for name, number in sorted(result["writes"].items())),
        *((f"trouble: {name}", str(number)) for name, number in sorted(result["troubles"].items())),
        *((f"churn: {name}", str(number)) for name, number in sorted(result["churn"].items())),
        *((f"starts of {name}", str(number)) for name, number in result["starts"].items()),
        *((f"exit codes of {name}", str(codes)) for name, codes in result["exits"].items()),
        ("processor, both replicas", f"{result['processor'] * 100:.0f} % of a core"),
        *(
            (
                f"{row['measure']} of a leader, {row['minutes']:.0f} min",
                f"{row['first']:.1f} -> {row['last']:.1f} ({row['hourly']:+.2f} an hour)",
            )
            for row in result["growth"]
        ),
    ]
    kinds = collections.Counter(row["kind"] for row in result["violations"])
    rows += [(f"violations: {kind}", str(kinds[kind])) for kind in _KINDS]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def main() -> int:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="python -m dev.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default: 60)")
    options = parser.parse_args()
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(2**31))
    os.nice(_NICE)
    result = asyncio.run(soak(options.minutes, seed))
    (ROOT / "build").mkdir(exist_ok=True)
    path = ROOT / "build" / "soak.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(report(result))
    for row in result["violations"][:50]:
        print(f"VIOLATION {row['kind']}: {row['where']}: {row['what']}")
    print(f"{len(result['violations'])} violations; the whole result: {path.relative_to(ROOT)}")
    return 1 if result["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
