"""What `regcred migrate` prints for each tool, from the leavings that its tests are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dev import leavings
from regcred import migration


def _printed(tool: str) -> str:
    moves = migration.plan(migration.Snapshot(leavings.ALL[tool]), [tool])
    return f"```yaml\n{migration.render(moves)}```\n"


BLOCKS: Mapping[str, Callable[[], str]] = {
    f"move-{tool}": lambda tool=tool: _printed(tool)  # type: ignore[misc]
    for tool in migration.TOOLS
}
