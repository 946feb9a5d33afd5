"""What the host remembers of each plugin, whether it works or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from graftkit.interfaces.kinds import Kind
from graftkit.interfaces.provider import Provider
from graftkit.redact import without_secret_values, without_secrets

__all__ = [
    "BUILT_IN",
    "LONGEST_NOTICE",
    "MOST_NOTICES",
    "PluginRecord",
    "PluginStatus",
    "RegisteredProvider",
    "shortened",
]

BUILT_IN = "graftkit"
"""The distribution whose bare names are reserved."""

LONGEST_NOTICE, MOST_NOTICES = 4000, 100
"""Characters of what a plugin is said to have done, and how often that is told of one plugin."""

PluginStatus = Literal["active", "disabled", "failed", "incompatible"]


@dataclass(slots=True)
class PluginRecord:
    """One plugin: where it comes from and how it stands.

    Attributes:
        name: The entry point's name, or the one it was registered by.
        distribution: The installed distribution; empty for a plugin that a program handed over.
        version: That distribution's version.
        value: What the entry point names.
        status: Whether it is in use.
        reason: Why it isn't.
        file: Where its code lies, once imported.
        import_seconds: How long the import took.
        hook_seconds: How long its lifecycle hooks have taken, all together.
        notices: What it warned of, and what it changed for others, each once.
        warnings: Those of them that are warnings.
        classes: The guarded classes of what it makes, by their own class and what they are called.
    """

    name: str
    distribution: str
    version: str
    value: str
    status: PluginStatus = "active"
    reason: str = ""
    file: str = ""
    import_seconds: float = 0.0
    hook_seconds: float = 0.0
    notices: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    classes: dict[tuple[type, str], type] = field(default_factory=dict, repr=False, compare=False)

    def report(self, message: str, *, warning: bool = False) -> None:
        """Keeps something that the user should know of the plugin, on one line, without secrets and not endless.

        Args:
            message: What it did.
            warning: Whether it is a warning of the plugin's own.
        """
        notice = shortened(without_secrets(f"{self.label}: {message}"))
        if notice in self.notices or len(self.notices) > MOST_NOTICES:
            return
        full = len(self.notices) == MOST_NOTICES
        self.notices.append(f"{self.label}: there was more, which is not kept" if full else notice)
        self.warnings += self.notices[-1:] if warning else []

    @property
    def label(self) -> str:
        """The plugin with its distribution and version, as errors name it."""
        if not self.distribution:
            return f"plugin '{self.name}'"
        return f"plugin '{self.name}' of {self.distribution} {self.version}".rstrip()


def shortened(notice: str) -> str:
    """Returns a notice on one line of at most `LONGEST_NOTICE` characters."""
    line = " ".join(notice.split())
    return line if len(line) <= LONGEST_NOTICE else f"{line[: LONGEST_NOTICE - 3]}..."


@dataclass(frozen=True, slots=True)
class RegisteredProvider:
    """A provider and the plugin that offers it."""

    kind: Kind
    provider: Provider
    plugin: PluginRecord

    @property
    def qualified_name(self) -> str:
        """The name that means this one provider whatever else is installed: `distribution:name`, or its class's."""
        if self.plugin.name == self.provider.target:  # the class was named directly
            return self.provider.target
        return f"{self.plugin.distribution or self.plugin.name}:{self.provider.name}"

    def facts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what a manifest says of the provider, as JSON, secrets hidden.

        Args:
            config: Its own fields; empty where it is used with their defaults.
        """
        return {
            "name": self.provider.name,
            "target": self.provider.target,
            "config_class": self.provider.config,
            "distribution": self.plugin.distribution,
            "version": self.plugin.version,
            "config": without_secret_values(config),
        }
