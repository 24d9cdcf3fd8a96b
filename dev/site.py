"""Hooks of mkdocs: links to files of the repository work on the site as they do in a checkout."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
#: Where files from outside of docs/ are on the site.
_ELSEWHERE = "repository"
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*)\]\((?P<target>[^)\s]+)\)")
_FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)


def slugify(title: str, separator: str = "-") -> str:  # noqa: ARG001 - Markdown's protocol
    """Return the anchor of a heading, as the usual hosts of repositories make it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")


def on_files(files: Any, config: Any) -> Any:
    """Add every file of the repository that a page links to, and those that these link to."""
    waiting = sorted(DOCS.rglob("*.md"))
    seen = set(waiting)
    while waiting:
        page = waiting.pop()
        for target in _targets(page):
            if target in seen or not target.is_file():
                continue
            seen.add(target)
            if not target.is_relative_to(DOCS):
                files.append(File.generated(config, _address(target), abs_src_path=str(target)))
                if target.suffix == ".md":
                    waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links to files into links to where the site has them."""
    source = Path(page.file.abs_src_path)
    here = Path(page.file.src_uri).parent

    def moved(found: re.Match[str]) -> str:
        target, _, anchor = found["target"].partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return found[0]
        file = (source.parent / target).resolve()
        if not file.is_file():
            # A folder has no page of its own.
            return found["text"] if file.is_dir() else found[0]
        address = os.path.relpath(_address(file), here)
        return f"[{found['text']}]({address}{'#' + anchor if anchor else ''})"

    parts, at = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(moved, markdown[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*parts, _LINK.sub(moved, markdown[at:])])


def _targets(page: Path) -> list[Path]:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    links = [found["target"].partition("#")[0] for found in _LINK.finditer(text)]
    return [(page.parent / link).resolve() for link in links if link and "://" not in link]


def _address(file: Path) -> str:
    """Return the address of a file below the site."""
    if file.is_relative_to(DOCS):
        return file.relative_to(DOCS).as_posix()
    return f"{_ELSEWHERE}/{file.relative_to(ROOT).as_posix()}"
