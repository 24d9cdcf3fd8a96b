"""Running the commands of the documentation as somebody would who reads a page from top to bottom.

A block of commands is run by bash, each command as it is written, and what one sets is there for the blocks below. Above
a block may stand why not:

    <!-- not run: it takes an hour -->                              no command of the block is run
    <!-- not run: before Kubernetes 1.36, which first serves it --> only where the server is that new
    <!-- not run: `az`, `kubectl logs`: an account of Azure, a kubelet -->    these programs are stood in for, all else is run
"""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from dev.cluster import Cluster
from dev.processes import run
from tests.docs.docs_support import PAGES, ROOT, Block, blocks

LANGUAGES = ("sh", "bash", "console")
SHELL = [
    block
    for page in (*PAGES, ROOT / "manifests/helm/regcred/README.md", *sorted((ROOT / "examples").rglob("*.md")))
    for block in blocks(page)
    if block.language in LANGUAGES
]

_PROGRAMS = re.compile(r"((?:`[^`]+`(?:, )?)+): \S")
_VERSION = re.compile(r"before Kubernetes (\d+)\.(\d+)\b")

#: What a program answers that is stood in for: a document where one is asked for, the file that it would write, or a word.
_STAND_IN = """#!/bin/sh
case "$*" in
  *"--output json"*) echo '{"appId": "a", "tenant": "t", "password": "p", "fileWithCertAndPrivateKey": "pair.pem"}' ;;
  *"keys create key.json"*) echo '{}' > key.json ;;
  *) echo stood-in-for ;;
esac
"""
_KUBECTL = """#!/bin/sh
for word in "$@"; do case "$word" in %s) exit 0 ;; esac; done
exec %s "$@"
"""


@dataclass(frozen=True)
class Ran:
    """A command that was run."""

    command: str
    shown: str
    code: int
    stdout: str
    stderr: str


def stood_in_for(block: Block) -> tuple[str, ...]:
    """The programs of a block that are not run though the others are."""
    found = _PROGRAMS.match(block.remark)
    return tuple(re.findall(r"`([^`]+)`", found[1])) if found else ()


def newer(block: Block) -> tuple[int, int]:
    """The first version of the API server that a block can be run on."""
    found = _VERSION.match(block.remark)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def left_out(block: Block) -> bool:
    """Whether no command of a block is run on any server."""
    return bool(block.remark) and not stood_in_for(block) and newer(block) == (0, 0)


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a block, each with what the page shows as its output."""
    if block.language != "console":
        return [(command, "") for command in _split(block.body.splitlines())]
    found: list[tuple[str, str]] = []
    for part in re.split(r"^\$ ", block.body, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        command = _split(lines)[0]
        found.append((command, "\n".join(lines[command.count("\n") + 1 :])))
    return found


def _split(lines: list[str]) -> list[str]:
    """Put lines together until each command is whole, as bash reads it."""
    found = []
    waiting: list[str] = []
    for line in lines:
        if not waiting and (not line.strip() or line.lstrip().startswith("#")):
            continue
        waiting.append(line)
        if line.endswith("\\") or not is_shell("\n".join(waiting)):
            continue
        found.append("\n".join(waiting))
        waiting = []
    return [*found, "\n".join(waiting)] if waiting else found


def is_shell(text: str) -> bool:
    """Whether bash can read a text."""
    done = subprocess.run(["bash", "-n", "-c", text], capture_output=True, check=False)
    return done.returncode == 0 and not done.stderr


@dataclass
class Reader:
    """Somebody who types the commands of pages, in a folder like a checkout, as the administrator of a cluster."""

    folder: Path
    kubectl: Path
    environment: dict[str, str]
    version: tuple[int, int]
    _count: int = field(default=0, init=False)

    @classmethod
    def of(cls, cluster: Cluster, folder: Path, home: Path) -> Reader:
        """A reader of pages with kubectl, its plugin, and what every Linux has in its PATH."""
        programs = home / "bin"
        programs.mkdir(parents=True)
        for name in ("regcred", "kubectl-regcred"):
            (programs / name).symlink_to(cluster.kubectl_program.parent / name)
        environment = {
            "KUBECONFIG": str(cluster.admin_kubeconfig),
            "HOME": str(home),
            "PATH": f"{programs}:{cluster.kubectl_program.parent}:/usr/bin:/bin",
            "LANG": "C.UTF-8",
        }
        return cls(folder, cluster.kubectl_program, environment, cluster.version)

    def turn_the_page(self) -> None:
        """Forget the variables that a page has set."""
        (Path(self.environment["HOME"]) / "variables").unlink(missing_ok=True)

    async def type(self, block: Block, *, answer: str = "") -> list[Ran]:
        """Run the commands of a block up to the first that fails; none where a remark says so.

        Args:
            block: of a page.
            answer: what is typed when a command asks.
        """
        if left_out(block) or self.version < newer(block):
            return []
        self._count += 1
        own = Path(self.environment["HOME"]) / f"block-{self._count}"
        own.mkdir()
        (own / "answer").write_text(answer)
        self._stand_in(own, stood_in_for(block))
        asked = commands(block)
        done = await run(
            "bash", "-c", self._script(own, asked), cwd=self.folder, env=self._with(own), seconds=240, check=False
        )
        codes = (own / "codes").read_text().split() if (own / "codes").exists() else []
        assert codes, done.stderr
        return [
            Ran(command, shown, int(code), (own / f"{index}.out").read_text(), (own / f"{index}.err").read_text())
            for index, ((command, shown), code) in enumerate(zip(asked, codes, strict=False))
        ]

    def _script(self, own: Path, asked: list[tuple[str, str]]) -> str:
        """One shell for all commands of a block; variables are kept for the blocks that follow."""
        kept = Path(self.environment["HOME"]) / "variables"
        lines = ["set -a -o pipefail", f"test ! -e {kept} || . {kept}"]
        for index, (command, _) in enumerate(asked):
            lines += [
                f"{{ {command}\n}} <{own}/answer >{own}/{index}.out 2>{own}/{index}.err",
                f"code=$?; echo $code >>{own}/codes; case $code in {_accepted(command)}) ;; *) exit 0 ;; esac",
            ]
        return "\n".join([*lines, f"unset PATH code; export -p >{kept}"])

    def _with(self, own: Path) -> dict[str, str]:
        return {**self.environment, "PATH": f"{own}:{self.environment['PATH']}"}

    def _stand_in(self, own: Path, programs: tuple[str, ...]) -> None:
        words = "|".join(name.removeprefix("kubectl ") for name in programs if name.startswith("kubectl "))
        scripts = {name: _STAND_IN for name in programs if " " not in name}
        if words:
            scripts["kubectl"] = _KUBECTL % (words, shlex.quote(str(self.kubectl)))
        for name, text in scripts.items():
            (own / name).write_text(text)
            (own / name).chmod(0o755)


def _accepted(command: str) -> str:
    """The exit codes of success: `explain` tells by 1 that it found a cause."""
    return "0|1" if command.startswith("kubectl regcred explain ") else "0"


def failed(done: Ran) -> bool:
    """Whether a command did not do what its page says it does."""
    return str(done.code) not in _accepted(done.command).split("|")


def alike(shown: str, told: str) -> bool:
    """Whether a command told what a page shows: word by word, where times, ages and what is random may differ."""
    pairs = list(zip(shown.split(), told.split(), strict=False))
    return len(pairs) == len(shown.split()) and all(_same(*pair) for pair in pairs)


def _same(shown: str, told: str) -> bool:
    pattern = r"\d+[smhd]|\d{4}-\d\d-\d\dT\S+|[0-9a-f]{32}"
    if re.fullmatch(pattern, shown):
        return re.fullmatch(pattern, told) is not None
    known = re.split(r"[0-9a-f]{8}-…|…", shown)
    return re.fullmatch(".*".join(map(re.escape, known)), told) is not None
