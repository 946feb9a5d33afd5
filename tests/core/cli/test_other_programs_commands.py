"""Commands of other programs are answered with what does the same here."""

from __future__ import annotations

import click
import pytest
from graftkit.cli import main


@pytest.mark.parametrize("name", main._OTHER_PROGRAMS)
def test_a_command_of_another_program_names_one_that_there_is(name: str) -> None:
    assert name not in main._COMMANDS
    with pytest.raises(click.UsageError, match=f"No such command '{name}'. Use: toolkit ([a-z]+)") as caught:
        main.cli.main([name], standalone_mode=False)
    assert caught.value.message.partition("toolkit ")[2].split()[0] in main._COMMANDS
