"""The plugin host: what plugins may say, how they are found, and how a name becomes a class."""
