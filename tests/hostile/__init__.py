"""A campaign of malformed inputs against every parser: `python -m hostile`, or `make fuzz N=20000`."""
