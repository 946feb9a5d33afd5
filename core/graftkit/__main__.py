"""`python -m graftkit` is the command `toolkit`."""

from graftkit.cli.main import main

if __name__ == "__main__":
    main()
