"""The command line as a whole: what it loads, what it is called, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click.testing
import pytest

from regcred import cli
from regcred.commands import common, lazy

ROOT = Path(__file__).resolve().parents[2]
NOTHING = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(ROOT / "operator")}


def python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=NOTHING, check=True)
    return done.stdout.strip()


def test_the_operator_loads_nothing_for_people() -> None:
    """What runs the operator has neither tables nor any other command in its memory."""
    told = python(
        "import sys, regcred.cli, regcred.runtime, regcred.logs; "
        "print([name for name in sys.modules if name.split('.')[0] in ('rich', 'pygments', 'markdown_it') "
        "or name.startswith(('regcred.commands.', 'regcred.diagnosis')) and name != 'regcred.commands.lazy'])"
    )
    assert told == "[]"


def test_help_loads_no_client() -> None:
    """The program itself starts without kopf, a cluster's client, or tables."""
    told = python(
        "import sys, regcred.cli; "
        "print([name for name in ('kopf', 'kubernetes', 'aiohttp', 'rich', 'pydantic') if name in sys.modules])"
    )
    assert told == "[]"


def test_it_is_a_plugin_of_kubectl() -> None:
    """The script that kubectl finds says how it is called."""
    program = Path(sys.executable).parent / "kubectl-regcred"
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: kubectl regcred [OPTIONS] COMMAND")


@pytest.mark.parametrize("name", [*lazy.COMMANDS, "run"])
def test_every_command_tells_its_use(name: str) -> None:
    """Each command is listed, and has a help text that says how it ends or what it does."""
    runner = click.testing.CliRunner()
    assert f"  {name} " in runner.invoke(cli.main, ["--help"]).output
    shown = runner.invoke(cli.main, [name, "--help"])
    assert shown.exit_code == 0
    assert "Usage: " in shown.output


@pytest.mark.parametrize("words", [["status"], ["explain", "pod", "a"], ["refresh", "a"], ["uninstall", "--yes"]])
def test_without_a_cluster(words: list[str], tmp_path: Path) -> None:
    """Where there is no kubeconfig it could not be looked: exit code 3, and what to do."""
    empty = tmp_path / "none"
    done = click.testing.CliRunner().invoke(cli.main, [*words, f"--kubeconfig={empty}"])
    assert done.exit_code == 3
    assert "There is no usable kubeconfig" in done.output


@pytest.mark.parametrize("words", [["explain"], ["explain", "pod"], ["explain", "node", "a"], ["no-such-command"]])
def test_usage(words: list[str]) -> None:
    """A command line that is wrong ends with 2."""
    assert click.testing.CliRunner().invoke(cli.main, words).exit_code == 2


def test_texts_cannot_steer_a_terminal() -> None:
    """What comes from a cluster is printed without control characters."""
    assert common.plain("a\x1b[31mb\nc\rd\u202ee") == "a?[31mb\nc?d?e"
