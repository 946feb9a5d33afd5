"""Finds the plugins that installed distributions announce, without importing any."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, EntryPoint, PackageMetadata, distributions, entry_points

from graftkit._version import ENTRY_POINT_GROUP, PLUGIN_API
from graftkit.errors import PluginError
from graftkit.host.records import PluginRecord

__all__ = [
    "IMPORT_SECONDS",
    "disabled_by_environment",
    "discover",
    "enabled_by_environment",
    "import_seconds_by_environment",
    "strict_by_environment",
]

IMPORT_SECONDS = 10.0
"""How long importing a plugin may take, unless `GRAFTKIT_PLUGIN_IMPORT_SECONDS` says otherwise."""

_ANY_API = re.compile(r"graftkit\.plugins\.v(\d+)")


def discover() -> list[tuple[PluginRecord, EntryPoint]]:
    """Returns every announced plugin with its entry point, sorted by distribution and name.

    A plugin of another API major is among them, marked as incompatible. A second announcement of the same name by
    the same distribution is marked as failed.

    Raises:
        PluginError: What a distribution announces can't be read.
    """
    found = sorted(_announcements(), key=lambda pair: (pair[0].distribution, pair[0].name, pair[0].value))
    return list(_mark_repeats(found))


def _announcements() -> Iterator[tuple[PluginRecord, EntryPoint]]:
    try:
        announced = entry_points()
    except Exception as error:  # one damaged file of one distribution, whatever it announces
        raise _unreadable() from error
    known = dict[int, PackageMetadata]()
    for group in announced.groups:
        match = _ANY_API.fullmatch(group)
        for entry in announced.select(group=group) if match else ():
            yield _record(entry, int(match[1]) if match else 0, known), entry


def _unreadable() -> PluginError:
    """Returns the error of distributions whose announcements can't be read; pydantic and torch read all, too."""
    found = []
    for distribution in distributions():
        try:
            _ = distribution.entry_points
        except Exception:
            found.append(f"{_name_of(distribution) or 'a distribution'} in {distribution.locate_file('')}")
    return PluginError(
        "its entry_points.txt is damaged, which no Python program can read",
        where=", ".join(found),
        hint="Install it again.",
    )


def _name_of(distribution: Distribution) -> str:
    try:
        return str(distribution.metadata["Name"] or "")
    except Exception:  # it has no METADATA, or a damaged one
        return ""


def _record(entry: EntryPoint, api: int, known: dict[int, PackageMetadata]) -> PluginRecord:
    """Returns a plugin's record; the METADATA of a distribution is parsed once for all its plugins."""
    record = PluginRecord(entry.name, "", "", entry.value)
    try:
        if entry.dist:
            if id(entry.dist) not in known:
                known[id(entry.dist)] = entry.dist.metadata
            said = known[id(entry.dist)]
            record.distribution, record.version = str(said["Name"]), said["Version"]
    except Exception:  # what an interrupted removal leaves: a folder without METADATA
        record.status, record.reason = "failed", "its distribution's METADATA can't be read: install it again"
    if entry.group != ENTRY_POINT_GROUP:
        record.status = "incompatible"
        record.reason = f"made for plugin API {api}; this graftkit has {PLUGIN_API}"
    return record


def _mark_repeats(
    found: list[tuple[PluginRecord, EntryPoint]],
) -> Iterable[tuple[PluginRecord, EntryPoint]]:
    seen: set[tuple[str, str, str]] = set()
    for record, entry in found:
        key = (record.distribution, record.name, entry.group)
        if key in seen:
            record.status = "failed"
            record.reason = f"{record.distribution} announces the name {record.name!r} more than once"
        seen.add(key)
        yield record, entry


def disabled_by_environment() -> set[str]:
    """Returns the plugin and distribution names in `GRAFTKIT_DISABLE_PLUGINS`, separated by commas."""
    return {name.strip() for name in os.environ.get("GRAFTKIT_DISABLE_PLUGINS", "").split(",") if name.strip()}


def enabled_by_environment() -> bool:
    """Tells whether discovery is on: `GRAFTKIT_PLUGIN_AUTOLOAD=0` turns it off."""
    return os.environ.get("GRAFTKIT_PLUGIN_AUTOLOAD", "1") != "0"


def strict_by_environment() -> bool:
    """Tells whether every plugin's failure is fatal: `GRAFTKIT_STRICT_PLUGINS=1`."""
    return os.environ.get("GRAFTKIT_STRICT_PLUGINS", "0") == "1"


def import_seconds_by_environment() -> float:
    """Returns how long importing a plugin may take: `GRAFTKIT_PLUGIN_IMPORT_SECONDS`; 0 for as long as it likes.

    Raises:
        PluginError: The variable holds no such number.
    """
    said = os.environ.get("GRAFTKIT_PLUGIN_IMPORT_SECONDS", "")
    try:
        seconds = float(said) if said else IMPORT_SECONDS
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise PluginError(
            "is no number of seconds", where="GRAFTKIT_PLUGIN_IMPORT_SECONDS", hint="Say 60, or 0 for no limit."
        )
    return seconds
