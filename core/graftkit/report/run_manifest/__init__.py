"""What a run says of itself, part by part."""

from __future__ import annotations

from graftkit.report.run_manifest.exported import ExportFacts, MergeFacts, MergeScore
from graftkit.report.run_manifest.facts import Facts, FileFacts
from graftkit.report.run_manifest.manifest import FORMAT, MANIFEST, RunManifest, required
from graftkit.report.run_manifest.memory import MemoryFacts, MemoryForecast, MemoryMeasured, StageMemory
from graftkit.report.run_manifest.prepared import (
    AdapterSource,
    BaseFacts,
    ChatFacts,
    DataFacts,
    HeadFacts,
    ParameterFacts,
    SequenceFacts,
    SettledKey,
    TokenizerFacts,
)
from graftkit.report.run_manifest.trained import ExportedStep, Measurement, StageFacts, StepFailure

__all__ = [
    "FORMAT",
    "MANIFEST",
    "AdapterSource",
    "BaseFacts",
    "ChatFacts",
    "DataFacts",
    "ExportFacts",
    "ExportedStep",
    "Facts",
    "FileFacts",
    "HeadFacts",
    "Measurement",
    "MemoryFacts",
    "MemoryForecast",
    "MemoryMeasured",
    "MergeFacts",
    "MergeScore",
    "ParameterFacts",
    "RunManifest",
    "SequenceFacts",
    "SettledKey",
    "StageFacts",
    "StageMemory",
    "StepFailure",
    "TokenizerFacts",
    "required",
]
