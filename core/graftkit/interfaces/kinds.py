"""The kinds of plugin, each described in one place.

To add a kind: its name in `Kind` and an entry in `KINDS`; a Protocol in a file beside this one; a contract in
`graftkit.testing`; templates in `graftkit/scaffold/templates`; a page in `docs/plugins`; and, where a recipe chooses
providers of it, a field of `graftkit.recipe.schema.recipe.Recipe`. The hook, the registry, the scaffold, the contract
runner, the binding of recipes, their JSON Schema and the key reference read the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["KINDS", "Kind", "KindSpec", "Section"]

Kind = Literal[
    "tokenizer",
    "initializer",
    "quantizer",
    "adapter",
    "model-source",
    "exporter",
    "reader",
    "format",
    "objective",
    "metric",
    "callback",
]


@dataclass(frozen=True, slots=True)
class Section:
    """A place of a recipe that chooses a provider.

    Attributes:
        path: Its keys, from the recipe's top.
        short_form: The key that a single word stands for: "use", the provider's name; "path", a reference, whose
            provider is found by asking each; or "" where a mapping is required.
        default: The provider that is chosen where the recipe and its presets are silent, or "" for none. Defaults
            that the recipe's schema has itself are not repeated here.
        recorded: Whether a run's manifest lists what was chosen here. A tokenizer that is trained is listed as the
            backend that reads it again.
    """

    path: tuple[str, ...]
    short_form: Literal["use", "path", ""] = "use"
    default: str = ""
    recorded: bool = True


@dataclass(frozen=True, slots=True)
class KindSpec:
    """A kind of plugin.

    Attributes:
        plural: Its name in the plural, for messages.
        hook: The hook that registers its providers.
        summary: What an implementation of the hook does, in one line.
        protocol: The Protocol that its providers' classes keep, as "package.module:Class".
        contract: The tests that each of its providers passes, as "package.module:Class".
        sections: Where a recipe chooses one. A callback is chosen by being installed; its settings stand in
            `plugins`, under its name.
        scaffold: The modules that `toolkit plugin new` writes beside the provider's own: "config" for fields of the
            recipe, "contract" for a contract with a sample filled in.
        config: What a provider's config model derives from, and is where it has none, as "package.module:Class".
    """

    plural: str
    hook: str
    summary: str
    protocol: str
    contract: str
    sections: tuple[Section, ...]
    scaffold: tuple[Literal["config", "contract"], ...] = ()
    config: str = "graftkit.interfaces.config:ProviderConfig"


KINDS: dict[Kind, KindSpec] = {
    "tokenizer": KindSpec(
        plural="tokenizers",
        hook="graftkit_tokenizers",
        summary="Offer tokenizer backends.",
        protocol="graftkit.interfaces.tokenizer:TokenizerBackend",
        contract="graftkit.testing.contracts.tokenizer:TokenizerContract",
        sections=(
            Section(("tokenizer", "train"), short_form="", recorded=False),
            Section(("tokenizer", "replace"), short_form="path"),
        ),
        scaffold=("contract",),
    ),
    "initializer": KindSpec(
        plural="initializers",
        hook="graftkit_initializers",
        summary="Offer initializers: what a new token's embedding starts as.",
        protocol="graftkit.interfaces.initializer:Initializer",
        contract="graftkit.testing.contracts.initializer:InitializerContract",
        sections=(Section(("tokenizer", "embedding_init")),),
        scaffold=("config",),
    ),
    "quantizer": KindSpec(
        plural="quantizers",
        hook="graftkit_quantizers",
        summary="Offer quantizers.",
        protocol="graftkit.interfaces.quantizer:Quantizer",
        contract="graftkit.testing.contracts.quantizer:QuantizerContract",
        sections=(Section(("quantizer",), default="none"),),
        scaffold=("config",),
    ),
    "adapter": KindSpec(
        plural="adapters",
        hook="graftkit_adapters",
        summary="Offer adapters.",
        protocol="graftkit.interfaces.adapter:Adapter",
        contract="graftkit.testing.contracts.adapter:AdapterContract",
        sections=(Section(("adapter",)),),
        scaffold=("config",),
    ),
    "model-source": KindSpec(
        plural="model sources",
        hook="graftkit_model_sources",
        summary="Offer model sources.",
        protocol="graftkit.interfaces.model_source:ModelSource",
        contract="graftkit.testing.contracts.model_source:ModelSourceContract",
        sections=(Section(("model",), short_form="path"),),
        scaffold=("contract",),
    ),
    "exporter": KindSpec(
        plural="exporters",
        hook="graftkit_exporters",
        summary="Offer exporters.",
        protocol="graftkit.interfaces.exporter:Exporter",
        contract="graftkit.testing.contracts.exporter:ExporterContract",
        sections=(Section(("export",)),),
    ),
    "reader": KindSpec(
        plural="readers",
        hook="graftkit_readers",
        summary="Offer readers: what reads records out of a file.",
        protocol="graftkit.interfaces.reader:Reader",
        contract="graftkit.testing.contracts.reader:ReaderContract",
        sections=(Section(("data", "train", "reader")), Section(("data", "holdout", "reader"))),
        scaffold=("contract",),
    ),
    "format": KindSpec(
        plural="formats",
        hook="graftkit_formats",
        summary="Offer formats: what records mean.",
        protocol="graftkit.interfaces.record_format:RecordFormat",
        contract="graftkit.testing.contracts.record_format:FormatContract",
        sections=(Section(("data", "train", "format")), Section(("data", "holdout", "format"))),
        scaffold=("contract",),
    ),
    "objective": KindSpec(
        plural="objectives",
        hook="graftkit_objectives",
        summary="Offer objectives: what training minimizes.",
        protocol="graftkit.interfaces.objective:Objective",
        contract="graftkit.testing.contracts.objective:ObjectiveContract",
        sections=(Section(("objective",)),),
        scaffold=("config",),
        config="graftkit.interfaces.objective_config:AnyObjectiveConfig",
    ),
    "metric": KindSpec(
        plural="metrics",
        hook="graftkit_metrics",
        summary="Offer metrics: what an answer is worth.",
        protocol="graftkit.interfaces.metric:Metric",
        contract="graftkit.testing.contracts.metric:MetricContract",
        sections=(Section(("evaluation", "metrics")),),
        scaffold=("config",),
    ),
    "callback": KindSpec(
        plural="callbacks",
        hook="graftkit_callbacks",
        summary="Offer callbacks: objects that follow a run, one for each run.",
        protocol="graftkit.interfaces.callback:Callback",
        contract="graftkit.testing.contracts.callback:CallbackContract",
        sections=(),
        scaffold=("config",),
    ),
}
"""Every kind, by its name."""
