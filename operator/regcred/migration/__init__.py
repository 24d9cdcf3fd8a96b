"""Reads what other tools have left in a cluster, and says what replaces it.  Pure.

Each tool has its own way, but the end is the same everywhere: resources that declare what the tool did, the Secrets
that the tool made handed over in place, so that no pod and no account notices, and the tool stopped between the two.
"""

from regcred.migration.model import Copy, Move, Snapshot
from regcred.migration.moves import TOOLS, plan
from regcred.migration.script import render

__all__ = ["TOOLS", "Copy", "Move", "Snapshot", "plan", "render"]
