"""Writes generated blocks into the pages below docs/, or says which of them are out of date.

A page is written by people; where it restates the code it holds a block:

    <!-- generated: NAME -->
    ...
    <!-- end of NAME -->

What stands between is replaced by what the code says now.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dev.chaos import record
from dev.docs import api, commands, moves, reasons, tables

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
_BLOCK = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[\w-]+) -->\n)(?P<body>.*?)(?P<end><!-- end of (?P=name) -->)", re.DOTALL
)

BLOCKS: Mapping[str, Callable[[], str]] = {
    "cluster-kind": api.cluster_kind,
    "namespaced-kind": api.namespaced_kind,
    "condition-reasons": reasons.of_conditions,
    "registry-reasons": reasons.of_registries,
    "provider-messages": reasons.of_providers,
    "settings": tables.settings,
    "metrics": tables.metrics,
    "alerts": tables.alerts,
    "permissions": tables.permissions,
    "commands": commands.commands,
    "causes": commands.causes,
    "chaos": record.text,
    **moves.BLOCKS,
}


def render(text: str) -> str:
    """Return a page with its blocks as the code makes them.

    Raises:
        KeyError: it has a block that nobody makes.
    """
    return _BLOCK.sub(lambda found: f"{found['begin']}\n{BLOCKS[found['name']]()}\n{found['end']}", text)


def pages() -> list[Path]:
    """Return every page that has a block, by path."""
    return [page for page in sorted(DOCS.rglob("*.md")) if _BLOCK.search(page.read_text())]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the blocks, or check them; return 1 if `--check` found one that is out of date."""
    parser = argparse.ArgumentParser(prog="python -m dev.docs", description="Make the generated parts of docs/.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="bring them up to date")
    what.add_argument("--check", action="store_true", help="fail if one is out of date")
    options = parser.parse_args(arguments)
    stale = [page for page in pages() if render(page.read_text()) != page.read_text()]
    for page in stale:
        if options.write:
            page.write_text(render(page.read_text()))
        else:
            print(f"{page.relative_to(ROOT)} is out of date; run `python -m dev.docs --write`", file=sys.stderr)
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
