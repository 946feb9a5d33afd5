"""`toolkit tokenizer`: tokenizers on their own."""

from __future__ import annotations

import importlib

import click

__all__ = ["command"]

_COMMANDS = {
    "train": "Train a tokenizer on texts.",
    "extend": "Add tokens for your texts to a tokenizer that a model knows.",
    "analyze": "Find out whether extending is worth it, and by how many tokens.",
    "compare": "Put tokenizers side by side on one corpus.",
}


class _LazyGroup(click.Group):
    """Imports a command when it is typed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"graftkit.cli.tokenizer_{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from graftkit.suggest import nearest

            raise click.UsageError(f"{error.message} {nearest(args[0], _COMMANDS)}".strip(), ctx) from None


@click.group("tokenizer", cls=_LazyGroup)
def command() -> None:
    """Train, extend, analyze and compare tokenizers.

    A tokenizer is a folder, a file, or a model whose own it is. FILES are UTF-8 text files, folders of them, or
    patterns such as 'src/**/*.py'; of .jsonl files the rows' texts are read.
    """
