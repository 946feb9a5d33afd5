"""A module a parser; `hostile.parsers` says what each has."""
