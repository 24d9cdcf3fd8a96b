"""Experiments that are tests of their own: they are run as such, and their figures are read."""

from __future__ import annotations

import json
import re
import sys

from dev.chaos.arena import Arena
from dev.chaos.book import Finding, experiment
from dev.operator_process import ROOT
from dev.processes import run

_SUMMARY = re.compile(r"(\d+) (passed|failed|error|errors|skipped)")
_FIGURES = ROOT / "build" / "clouds.json"


async def _pytest(*words: str, seconds: float = 540.0) -> tuple[bool, str]:
    """Run tests, and return whether all passed and how many there were."""
    done = await run(
        sys.executable, "-m", "pytest", "-q", "--no-header", *words, cwd=ROOT, check=False, seconds=seconds
    )
    counts = {what: int(number) for number, what in _SUMMARY.findall(done.stdout[-2000:])}
    if done.returncode != 0:
        print(done.stdout[-6000:])
    told = ", ".join(f"{number} {what}" for what, number in counts.items())
    return done.returncode == 0 and counts.get("passed", 0) > 0, f"{told or 'nothing ran'}"


@experiment(
    6,
    "provider-outage",
    title="Every cloud fails for twice the life of a login; the operator starts anew in it",
    expected="Last good logins stay byte for byte and serve new namespaces; told; no hammering; renewed afterwards",
)
async def provider_outage(_: Arena) -> Finding:
    """Run the tests of the local clouds: what the outage is like, and a search for canaries over all that was done."""
    holds, told = await _pytest("tests/clouds", "--ignore=tests/clouds/test_memory.py")
    found = json.loads(_FIGURES.read_text(encoding="utf-8"))["outage"] if holds else {}
    said = (
        f"{found['seconds']} s without any cloud, with logins of {found['life of a login in seconds']} s; "
        f"{found['calls for each resource in an hour']} calls an hour and resource; "
        f"all renewed {found['seconds until all had recovered']} s after"
        if holds
        else ""
    )
    return Finding(holds, f"{told} of the tests of the clouds, with a search for canaries in everything", said)


@experiment(
    7,
    "provider-faults",
    title="Providers answer 401, 403, HTML, broken JSON, tokens with line ends, endless and slow bodies",
    expected="A class of ours with fixed text; Stalled where a person must act; no foreign text anywhere",
)
async def provider_faults(_: Arena) -> Finding:
    """Run the tests of every provider's refusals."""
    holds, told = await _pytest(
        "tests/credentials/test_acr_errors.py",
        "tests/credentials/test_exchange.py",
        "tests/credentials/test_gcr_refusals.py",
        "tests/credentials/test_plugins.py",
        "tests/credentials/test_verification.py",
        "-m",
        "not cluster",
    )
    return Finding(holds, "refusals and nonsense of every provider and of a registry", told)


@experiment(
    8,
    "clock-jumps-simulated",
    title="The wall clock jumps by hours and days, swings, and the machine sleeps (simulated clocks)",
    expected="No login is published that has ended, no storm of renewals",
)
async def simulated_clocks(_: Arena) -> Finding:
    """Run the keeper's tests on simulated clocks."""
    holds, told = await _pytest("tests/credentials/test_keeper_endurance.py", "tests/credentials/test_schedule.py")
    return Finding(holds, "jumps of ±1 h and ±1 d, swings, sleep, weeks of trouble", told)


@experiment(
    21,
    "bad-resources",
    title="Resources with every mistake that we know of",
    expected="Refused by the API server or Stalled with field and remedy; no other resource notices",
)
async def bad_resources(_: Arena) -> Finding:
    """Apply each of tests/bad_resources."""
    holds, told = await _pytest("tests/e2e/test_operations.py", "tests/api/test_bad_resources.py", "-k", "bad")
    return Finding(holds, "each file of tests/bad_resources, by schema, by CEL and by the operator", told)


@experiment(
    22,
    "bad-sources",
    title="Sources with giant keys, wrong types, a byte order mark, line ends, deep and broken JSON",
    expected="A clear reason without an echo; bounded",
)
async def bad_sources(_: Arena) -> Finding:
    """Run the tests of the login provider's sources and of docker configs."""
    holds, told = await _pytest(
        "tests/credentials/test_login.py", "tests/dockerconfig/test_document.py", "tests/credentials/test_cache.py"
    )
    return Finding(holds, "sources of every kind and damage", told)


@experiment(
    29,
    "kstatus",
    title="Suspend, refresh, deletion policies, and what kubectl wait, Flux and Argo CD conclude",
    expected="Each does what its page says, and all three come to the same verdict",
)
async def kstatus(_: Arena) -> Finding:
    """Run the end-to-end tests of these."""
    holds, told = await _pytest(
        "tests/e2e/test_distribution.py",
        "tests/e2e/test_main_job.py",
        "tests/api/test_conditions.py",
        "tests/gitops/test_gitops.py",
        "-k",
        "suspended or deletion_policy or refresh_annotation or kubectl_wait or test_conditions or every_tool "
        "or nobody_has_looked",
    )
    return Finding(
        holds,
        "end to end on the real API server; what the three conclude, by their own rules on real objects",
        told,
    )
