"""`python -m graftkit` is the command `toolkit`.

Python puts the current folder before all others on the path of modules then. It may hold anybody's files, such as a
`yaml.py` beside data, and is taken away again unless graftkit itself lies there.
"""

import os
import sys

import graftkit


def _forget_current_folder() -> None:
    """Takes the current folder off the path; pathlib would import modules from there first."""
    home = os.path.dirname(os.path.abspath(graftkit.__path__[0]))  # noqa: PTH100, PTH120
    try:
        here = os.getcwd()  # noqa: PTH109
    except FileNotFoundError:  # it was removed, and the command says so
        return
    if not sys.flags.safe_path and sys.path[0] == here != home:
        del sys.path[0]


if __name__ == "__main__":
    _forget_current_folder()
    from graftkit.cli.main import main

    main()
