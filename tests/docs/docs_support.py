"""What the tests of the documentation share: its pages, their headings, and their blocks of code."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TOP = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")
PAGES = (*(ROOT / name for name in TOP), *sorted(DOCS.rglob("*.md")))

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^`\n]*\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
#: What stands directly above a block of commands that no test runs, or not all of which: and why.
_REMARK = re.compile(r"<!-- not run: ((?:(?!-->).)+?) -->\s*\Z", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    `remark` says why no test runs its commands, or "" where one does; `lead` is the paragraph above it.
    """

    page: Path
    line: int
    language: str
    body: str
    remark: str = ""
    lead: str = ""

    def __str__(self) -> str:
        """Name it for a test's id."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, language: str = "") -> list[Block]:
    """The fenced blocks of a page, of one language or of all."""
    text = page.read_text()
    found = []
    for fence in _FENCE.finditer(text):
        if language and fence["language"] != language:
            continue
        above = text[: fence.start()]
        remark = _REMARK.search(above)
        lead = above[: remark.start() if remark else None].rstrip().rpartition("\n\n")[2]
        found.append(
            Block(
                page,
                above.count("\n") + 1,
                fence["language"],
                textwrap.dedent(fence["body"]),
                " ".join(remark[1].split()) if remark else "",
                lead,
            )
        )
    return found


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def headings(page: Path) -> list[str]:
    """The titles of a page, as they are written."""
    return re.findall(r"^#+ (.+?)\s*$", prose(page), re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings have on the usual hosts."""
    found: set[str] = set()
    for title in headings(page):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = 0
        unique = slug
        while unique in found:
            number += 1
            unique = f"{slug}-{number}"
        found.add(unique)
    return found
