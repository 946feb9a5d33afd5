"""`toolkit plugins`: what is installed, from whom, and how it stands."""

from __future__ import annotations

from typing import Any

import click

from graftkit.cli.options import disable_option, json_option, open_host
from graftkit.cli.terminal import Styled, ending_with, json_line, say
from graftkit.host.discovery import strict_by_environment
from graftkit.host.host import PluginHost
from graftkit.host.records import RegisteredProvider
from graftkit.visible import one_line

__all__ = ["command"]

_WIDEST = 60
"""Characters of a column at most; what is longer stands further to the right."""


@click.command("plugins")
@disable_option
@json_option
def command(disable: tuple[str, ...], as_json: bool) -> None:
    """List the plugins that are installed and what each provides. Works whatever is broken."""
    host = open_host(disable, strict=False)
    facts = describe(host)
    failed = strict_by_environment() and any(record.status == "failed" for record in host.records)
    with ending_with(1 if failed else 0):
        if as_json:
            click.echo(json_line({"plugins": facts}))
        else:
            header, *lines = _table(facts)
            say([Styled(header, "bold"), *(f"\n{line}" for line in lines)])


def describe(host: PluginHost) -> list[dict[str, Any]]:
    """Returns a dictionary a plugin, each with its providers."""
    providers = host.registry.providers()
    return [
        {
            "plugin": record.name,
            "distribution": record.distribution,
            "version": record.version,
            "status": record.status,
            "reason": record.reason,
            "file": record.file,
            "import_seconds": round(record.import_seconds, 4),
            "notices": list(record.notices),
            "commands": [str(command.name) for command in host.commands(record)],
            "providers": [_provider(host, registered) for registered in providers if registered.plugin is record],
        }
        for record in host.records
    ]


def _provider(host: PluginHost, registered: RegisteredProvider) -> dict[str, Any]:
    missing = host.registry.missing_requirements(registered.provider)
    return {
        "kind": registered.kind,
        "name": registered.provider.name,
        "summary": registered.provider.summary,
        "target": registered.provider.target,
        "status": "missing requirement" if missing else "ready",
        "missing": missing,
        "install_hint": registered.provider.install_hint if missing else "",
    }


def _table(facts: list[dict[str, Any]]) -> list[str]:
    """Lays the facts out, a line each, the header first; plain text, so that nothing heavy is imported for it."""
    rows = [("KIND", "NAME", "FROM", "STATUS", "SUMMARY")]
    for plugin in facts:
        origin = f"{plugin['distribution'] or plugin['plugin']} {plugin['version']}".strip()
        rows += [("command", name, origin, plugin["status"], "") for name in plugin["commands"]]
        if not plugin["providers"] and not plugin["commands"]:
            rows.append(("plugin", plugin["plugin"], origin, plugin["status"], plugin["reason"]))
        for provider in plugin["providers"]:
            status = provider["status"]
            if provider["missing"]:
                status = f"needs {', '.join(provider['missing'])}"
            rows.append((provider["kind"], provider["name"], origin, status, provider["summary"]))
    lines = [[one_line(cell) for cell in row] for row in rows]
    widths = [min(_WIDEST, max(len(row[column]) for row in lines)) for column in range(4)]
    return ["  ".join([*(f"{row[c]:{widths[c]}}" for c in range(4)), row[4]]).rstrip() for row in lines]
