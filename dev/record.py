"""Runs the demonstration and draws what it says as a picture for the README: `python -m dev.record`."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from dev.processes import run

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "demo.svg"
_WIDTH = 118


def draw(said: str) -> str:
    """Return the picture of what a demonstration said."""
    console = Console(record=True, width=_WIDTH, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    console.print(Text("$ make demo", style="bold"))
    for line in said.rstrip().splitlines():
        text = Text(line.rstrip())
        text.highlight_regex(r"✓", "bold green")
        if re.match(r"^\d+\. ", line):
            text.stylize("bold cyan")
        console.print(text)
    # No font from elsewhere; and a name of its own, so that the same words give the same picture.
    form = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return console.export_svg(title="regcred", code_format=form, unique_id="demo")


async def _main() -> int:
    done = await run(sys.executable, "-m", "dev.demo", cwd=ROOT)
    TARGET.write_text(draw(done.stdout), encoding="utf-8")
    print(f"{TARGET.relative_to(ROOT)} is what the demonstration said")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
