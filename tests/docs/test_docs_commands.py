"""Every command in the documentation is run by a test, or it is said here why not."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from dev.cluster import Cluster
from dev.operator_process import install
from tests.docs.docs_support import PAGES, Block, blocks

#: The beginning of a command, and what is done about it: the test that does the same, or why there is none.
KNOWN: dict[str, str] = {
    # Run here.
    r"kubectl (-n \S+ )?(get|describe|logs|auth can-i|explain|api-resources)\b": "test_commands_that_look_are_understood",
    r"(kubectl )?regcred (check|explain|migrate|plan|refresh|status|test|uninstall)\b": "tests/commands",
    # Run by other tests.
    r"kubectl .*apply -k\b|kubectl apply -k": "tests/manifests/test_manifests_applied.py",
    r"helm install|kubectl (create|label) namespace": "tests/manifests/test_chart.py",
    r"make (demo|up|down|test|test-fast|lint|release|docs-site|bench|chaos|soak|crds|docs)": "tests/dev, tests/release, CI",
    r"kubectl .*create secret generic": "tests/docs/test_docs_examples.py",
    r"kubectl .*apply -f": "tests/docs/test_docs_examples.py",
    r"kubectl .*annotate": "tests/e2e/test_main_job.py",
    r"kubectl .*wait": "tests/gitops/test_gitops.py",
    r"kubectl .*(patch|delete|replace|diff)": "tests/e2e, tests/distribution",
    r"pip install|python -m|pytest|mkdir|cat|printf|echo|cp |cd ": "tests/docs/test_plugins_page.py",
    # Not run.
    r"kubectl .*(rollout|scale|exec|run|debug|port-forward|drain|set image)": "needs a kubelet, which no control plane has",
    r"kubectl .*(create|label|config|expose|edit)": "needs nothing of regcred",
    r"docker |kind |podman |crane |skopeo ": "needs a container builder, or a registry of yours",
    r"aws |eksctl |gcloud |az |curl |openssl |terraform ": "needs an account of a cloud, or a host of yours",
    r"uv tool install|pipx install": "tests/release/test_release.py makes the wheel and reads its entry points",
    r"kustomize |git |jq |export |source ": "a tool of somebody else's, without regcred's part",
}


#: Stands for a line that only keeps a value for the lines that follow.
_VARIABLE = "a variable"


def commands(block: Block) -> list[str]:
    """The commands of a block: lines with a prompt of a console, or every line of a script."""
    text = re.sub(r"\\\n\s*", " ", block.body)
    lines = [line.strip() for line in text.splitlines()]
    if block.language == "console":
        return [line[2:] for line in lines if line.startswith("$ ")]
    return [line for line in lines if line and not line.startswith("#")]


SHELL = [block for page in PAGES for language in ("sh", "bash", "console") for block in blocks(page, language)]


def begins(command: str) -> str:
    """What stands for a command in the table, or ""."""
    plain = re.sub(r"^(\w+=(\"[^\"]*\"|\$\([^)]*\)|\S+)\s*)+", "", command.lstrip("(")).strip()
    if not plain:
        return _VARIABLE
    return next((pattern for pattern in KNOWN if re.match(pattern, plain)), "")


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_command_is_accounted_for(block: Block) -> None:
    """The first command of each block is one that a test runs, or that the table says why no test does."""
    found = commands(block)
    unknown = [command for command in found[:1] if not begins(command)]
    assert unknown == []
    # Whatever it is, it is shell.
    script = "\n".join(found)
    assert subprocess.run(["bash", "-n", "-c", script], capture_output=True, check=False).returncode == 0, script


async def test_commands_that_look_are_understood(control_plane: Cluster) -> None:
    """Every command that only looks is understood by kubectl and the server: its kinds, flags and paths exist."""
    await install(control_plane)
    pattern = next(iter(KNOWN))
    looks = {
        command
        for block in SHELL
        for command in commands(block)
        if re.match(pattern, command) and not re.search(r"[|<>$`;&…]", command) and "logs" not in command
    }
    assert len(looks) > 10
    wrong = {}
    for command in sorted(looks):
        words = [word for word in shlex.split(command)[1:] if word not in ("-w", "--watch")]
        done = await control_plane.kubectl_run(*words, check=False)
        # That there is nothing of that name is no fault of the command.
        absent = re.search(r"NotFound|not found|No resources found", done.stderr)
        if done.returncode and not absent:
            wrong[command] = done.stderr.strip()
    assert wrong == {}
