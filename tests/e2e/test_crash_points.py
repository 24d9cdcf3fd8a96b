"""SIGKILL at the boundaries of writes, on the real control plane: the next start comes to the same end."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from dev.chaos.crash_points import BOUNDARIES, KINDS, NO_WRITES, CrashPoints
from dev.cluster import Cluster
from dev.faults import fault_proxy
from dev.operator_process import ROOT, OperatorProcess

PACKAGE = ROOT / "operator" / "regcred"
WRITING = {"POST", "PUT", "PATCH", "DELETE"}


def sites() -> set[tuple[str, str]]:
    """Return every place of the source that sends the API server something else than a GET: module and method."""
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                # A provider's or a registry's server is none that regcred leaves anything in.
                ours = node.func.attr in {"request", "_send", "_write", "write_as"}
                words = [word.value for word in node.args if isinstance(word, ast.Constant)]
                # What people run in a terminal is killed by themselves, if at all.
                elsewhere = "providers/" in module or module.startswith("commands/")
                if ours and words and words[0] in WRITING and not elsewhere:
                    found.add((module, words[0]))
    return found - {("credentials/verification.py", "POST")}


def test_every_kind_of_write_is_known() -> None:
    """What the source can write is what the crash points are made of: a new kind of write fails here."""
    assert sites() == {site for kind in KINDS for site in kind.sites} | set(NO_WRITES)
    assert len(BOUNDARIES) == 2 * len(KINDS)


@pytest.mark.slow
async def test_killed_at_a_write_it_comes_to_the_same_end(
    installed: Cluster, shared_operator: OperatorProcess, tmp_path: Path
) -> None:
    """At one boundary of each kind of write; `make chaos ONLY=crash-points` tries both."""
    if installed.audit_log is None:
        pytest.skip("the audit log of a given cluster is not ours to read")
    await shared_operator.stop()
    # Before the first kind, after the second, before the third, and so on.
    chosen = [boundary for boundary in BOUNDARIES if KINDS.index(boundary.kind) % 2 == boundary.done]
    async with fault_proxy(installed.url, ca_file=installed.ca_file) as proxy:
        operator = OperatorProcess(
            proxy.cluster(installed, "crash-points"), tmp_path / "regcred.log", identity="crash"
        )
        try:
            found = await CrashPoints(installed, proxy, operator).run(chosen)
        finally:
            await operator.stop()
    assert {row.boundary.kind for row in found} == set(KINDS)
    assert [f"{row.boundary}: {row.difference}" for row in found if not row.same] == []
