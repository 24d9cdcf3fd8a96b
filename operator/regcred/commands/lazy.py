"""A command group whose commands are loaded when they are called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

#: Name of a command to the module that has it under that name.
COMMANDS: Mapping[str, str] = {
    name: f"regcred.commands.{name}"
    for name in ("check", "explain", "migrate", "plan", "refresh", "status", "test", "uninstall")
}


class Group(click.Group):
    """A group of which `COMMANDS` are loaded late, beside those that are there."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None."""
        known = super().get_command(ctx, cmd_name)
        if known is not None or cmd_name not in COMMANDS:
            return known
        found: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name]), cmd_name)
        return found
