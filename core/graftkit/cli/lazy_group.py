"""A group of commands that imports a command only when it is typed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import click

__all__ = ["LazyGroup"]


class LazyGroup(click.Group):
    """Lists built-in commands by name and one-line help, so that showing them imports none.

    Args:
        built_in: Each command's help by its name.
        prefix: What a command's module is called, before the command's name; it holds `command`.
        other_programs: What does here what another program's command does, by that command's name.
    """

    def __init__(
        self,
        *args: Any,
        built_in: Mapping[str, str],
        prefix: str,
        other_programs: Mapping[str, str] = MappingProxyType({}),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._built_in = built_in
        self._prefix = prefix
        self._other_programs = other_programs

    def more_commands(self) -> Mapping[str, click.Command]:
        """Returns commands that are not built in, asked for only when a name is typed that no built-in one has.

        Neither help nor the completion of what is being typed asks for them: finding them may import anything.
        """
        return {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of the built-in commands."""
        return list(self._built_in)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command, or returns None where there is none of that name."""
        if cmd_name in self._built_in:
            command: click.Command = importlib.import_module(self._prefix + cmd_name).command
            command.context_settings.setdefault("color", True)  # click would drop, unseen, what the guard writes out
            return command
        return None if ctx.resilient_parsing else self.more_commands().get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the table of commands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._built_in.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command; an unknown name is answered with what other programs mean by it, or the nearest one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from graftkit.suggest import nearest

            meant = self._other_programs.get(args[0])
            hint = f"Use: {meant}" if meant else nearest(args[0], [*self._built_in, *self.more_commands()])
            raise click.UsageError(f"{error.message} {hint}".strip(), ctx) from None
