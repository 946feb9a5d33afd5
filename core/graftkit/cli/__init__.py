"""The command `toolkit`: one file a command, each imported when it is typed."""
