"""The version of the distribution and of its plugin API."""

__version__ = "0.1.0"

PLUGIN_API = 1
"""Major version of the plugin API; the entry-point group carries it."""

ENTRY_POINT_GROUP = f"graftkit.plugins.v{PLUGIN_API}"
"""Where installed distributions announce their plugins."""
