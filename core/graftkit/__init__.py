"""graftkit adapts language models: tokenizer, frozen quantized weights, adapter, verified exports.

Importing it loads neither torch nor transformers, bitsandbytes or tokenizers; each public name is imported when it
is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graftkit._version import __version__

if TYPE_CHECKING:
    from graftkit.errors import GraftkitError as GraftkitError
    from graftkit.flow.another_export import Exported as Exported
    from graftkit.flow.another_export import export as export
    from graftkit.flow.compare import compare as compare
    from graftkit.flow.evaluate import Evaluation as Evaluation
    from graftkit.flow.evaluate import evaluate as evaluate
    from graftkit.flow.generate import Answer as Answer
    from graftkit.flow.generate import generate as generate
    from graftkit.flow.judge import Judged as Judged
    from graftkit.flow.judge import judge as judge
    from graftkit.flow.plan_of_run import plan as plan
    from graftkit.flow.preview import Preview as Preview
    from graftkit.flow.preview import preview as preview
    from graftkit.flow.run import run as run
    from graftkit.flow.run_result import RunResult as RunResult
    from graftkit.flow.state.cancel import CancelToken as CancelToken
    from graftkit.flow.verify import Verified as Verified
    from graftkit.flow.verify import verify as verify
    from graftkit.flow.verify import verify_run as verify_run
    from graftkit.host.hookspecs import hookimpl as hookimpl
    from graftkit.host.host import PluginHost as PluginHost
    from graftkit.host.lifecycle import CheckpointInfo as CheckpointInfo
    from graftkit.host.lifecycle import EvaluationInfo as EvaluationInfo
    from graftkit.host.lifecycle import ExportInfo as ExportInfo
    from graftkit.host.lifecycle import RunInfo as RunInfo
    from graftkit.host.lifecycle import StageInfo as StageInfo
    from graftkit.host.lifecycle import StepInfo as StepInfo
    from graftkit.interfaces.adapted_weight import AdaptedWeight as AdaptedWeight
    from graftkit.interfaces.adapter import Adapter as Adapter
    from graftkit.interfaces.buffered_weight import BufferedWeight as BufferedWeight
    from graftkit.interfaces.callback import Callback as Callback
    from graftkit.interfaces.checks import check_matrix as check_matrix
    from graftkit.interfaces.checks import check_tensors as check_tensors
    from graftkit.interfaces.config import ProviderConfig as ProviderConfig
    from graftkit.interfaces.config import RecipePath as RecipePath
    from graftkit.interfaces.export_card import CardRequest as CardRequest
    from graftkit.interfaces.export_card import ExportCard as ExportCard
    from graftkit.interfaces.export_card import LoadingExample as LoadingExample
    from graftkit.interfaces.exporter import Exporter as Exporter
    from graftkit.interfaces.exporter import ExportReading as ExportReading
    from graftkit.interfaces.exporter import LoadedAssets as LoadedAssets
    from graftkit.interfaces.exporter import NewVocabulary as NewVocabulary
    from graftkit.interfaces.exporter import PlannedModel as PlannedModel
    from graftkit.interfaces.exporter import Probe as Probe
    from graftkit.interfaces.exporter import ProofRequest as ProofRequest
    from graftkit.interfaces.exporter import TrainedModel as TrainedModel
    from graftkit.interfaces.frozen_weight import EmbeddingWeight as EmbeddingWeight
    from graftkit.interfaces.frozen_weight import FrozenWeight as FrozenWeight
    from graftkit.interfaces.frozen_weight import PlainWeight as PlainWeight
    from graftkit.interfaces.initializer import Initializer as Initializer
    from graftkit.interfaces.initializer import NewRows as NewRows
    from graftkit.interfaces.layer import Layer as Layer
    from graftkit.interfaces.layer import LayerInfo as LayerInfo
    from graftkit.interfaces.layer import LayerKind as LayerKind
    from graftkit.interfaces.metric import Answered as Answered
    from graftkit.interfaces.metric import Metric as Metric
    from graftkit.interfaces.metric import MetricConfig as MetricConfig
    from graftkit.interfaces.model_source import BaseModelFiles as BaseModelFiles
    from graftkit.interfaces.model_source import ModelSource as ModelSource
    from graftkit.interfaces.model_source import TensorInfo as TensorInfo
    from graftkit.interfaces.model_source import TokenizerFetcher as TokenizerFetcher
    from graftkit.interfaces.model_source import TokenizerFiles as TokenizerFiles
    from graftkit.interfaces.model_source import TokenizerOpener as TokenizerOpener
    from graftkit.interfaces.model_source import WatchedModel as WatchedModel
    from graftkit.interfaces.objective import EmbeddingObjective as EmbeddingObjective
    from graftkit.interfaces.objective import Objective as Objective
    from graftkit.interfaces.objective import SampledObjective as SampledObjective
    from graftkit.interfaces.objective import SequenceObjective as SequenceObjective
    from graftkit.interfaces.objective import SimilarityObjective as SimilarityObjective
    from graftkit.interfaces.objective import TokenObjective as TokenObjective
    from graftkit.interfaces.objective_config import EmbeddingConfig as EmbeddingConfig
    from graftkit.interfaces.objective_config import MaskedConfig as MaskedConfig
    from graftkit.interfaces.objective_config import ObjectiveConfig as ObjectiveConfig
    from graftkit.interfaces.objective_config import RetrievalConfig as RetrievalConfig
    from graftkit.interfaces.objective_config import SampledConfig as SampledConfig
    from graftkit.interfaces.objective_config import SequenceConfig as SequenceConfig
    from graftkit.interfaces.objective_config import SimilarityConfig as SimilarityConfig
    from graftkit.interfaces.objective_config import TeacherConfig as TeacherConfig
    from graftkit.interfaces.objective_config import TokenConfig as TokenConfig
    from graftkit.interfaces.provider import Provider as Provider
    from graftkit.interfaces.quantizer import AdoptingQuantizer as AdoptingQuantizer
    from graftkit.interfaces.quantizer import Quantizer as Quantizer
    from graftkit.interfaces.reader import Reader as Reader
    from graftkit.interfaces.record_format import Column as Column
    from graftkit.interfaces.record_format import RecordFormat as RecordFormat
    from graftkit.interfaces.record_source import Record as Record
    from graftkit.interfaces.record_source import RecordSource as RecordSource
    from graftkit.interfaces.report_section import ReportChart as ReportChart
    from graftkit.interfaces.report_section import ReportSection as ReportSection
    from graftkit.interfaces.report_section import ReportTable as ReportTable
    from graftkit.interfaces.report_section import ReportText as ReportText
    from graftkit.interfaces.samples import Completion as Completion
    from graftkit.interfaces.samples import Conversation as Conversation
    from graftkit.interfaces.samples import LabelledAnswer as LabelledAnswer
    from graftkit.interfaces.samples import LabelledText as LabelledText
    from graftkit.interfaces.samples import LongText as LongText
    from graftkit.interfaces.samples import Message as Message
    from graftkit.interfaces.samples import PreferencePair as PreferencePair
    from graftkit.interfaces.samples import Prompt as Prompt
    from graftkit.interfaces.samples import ScoredText as ScoredText
    from graftkit.interfaces.samples import SimilarTexts as SimilarTexts
    from graftkit.interfaces.samples import TaggedText as TaggedText
    from graftkit.interfaces.samples import Text as Text
    from graftkit.interfaces.samples import TextPrompt as TextPrompt
    from graftkit.interfaces.samples import TextWithLabels as TextWithLabels
    from graftkit.interfaces.samples import Tokens as Tokens
    from graftkit.interfaces.samples import ToolCall as ToolCall
    from graftkit.interfaces.samples import join_pair as join_pair
    from graftkit.interfaces.samples import tagged_words as tagged_words
    from graftkit.interfaces.scores import Embeddings as Embeddings
    from graftkit.interfaces.scores import Scores as Scores
    from graftkit.interfaces.scores import SequenceScores as SequenceScores
    from graftkit.interfaces.scores import TokenScores as TokenScores
    from graftkit.interfaces.scores import VectorPairs as VectorPairs
    from graftkit.interfaces.stored_weight import StoredWeight as StoredWeight
    from graftkit.interfaces.tokenizer import Encoding as Encoding
    from graftkit.interfaces.tokenizer import PairLayout as PairLayout
    from graftkit.interfaces.tokenizer import Tokenizer as Tokenizer
    from graftkit.interfaces.tokenizer import TokenizerBackend as TokenizerBackend
    from graftkit.interfaces.tokenizer import TokenizerCapabilities as TokenizerCapabilities
    from graftkit.interfaces.vocabulary import ExtensionPlan as ExtensionPlan
    from graftkit.interfaces.vocabulary import ExtensionSpec as ExtensionSpec
    from graftkit.interfaces.vocabulary import NewToken as NewToken
    from graftkit.interfaces.vocabulary import TrainingSpec as TrainingSpec
    from graftkit.interfaces.vocabulary import VocabularyChange as VocabularyChange
    from graftkit.recipe.load import load_recipe as load_recipe
    from graftkit.recipe.schema.recipe import Recipe as Recipe
    from graftkit.report.comparison import Comparison as Comparison

_HOMES = {
    "AdaptedWeight": "graftkit.interfaces.adapted_weight",
    "Adapter": "graftkit.interfaces.adapter",
    "AdoptingQuantizer": "graftkit.interfaces.quantizer",
    "Answer": "graftkit.flow.generate",
    "Answered": "graftkit.interfaces.metric",
    "BaseModelFiles": "graftkit.interfaces.model_source",
    "BufferedWeight": "graftkit.interfaces.buffered_weight",
    "Callback": "graftkit.interfaces.callback",
    "CancelToken": "graftkit.flow.state.cancel",
    "CardRequest": "graftkit.interfaces.export_card",
    "CheckpointInfo": "graftkit.host.lifecycle",
    "Column": "graftkit.interfaces.record_format",
    "Comparison": "graftkit.report.comparison",
    "Completion": "graftkit.interfaces.samples",
    "Conversation": "graftkit.interfaces.samples",
    "EmbeddingConfig": "graftkit.interfaces.objective_config",
    "EmbeddingObjective": "graftkit.interfaces.objective",
    "EmbeddingWeight": "graftkit.interfaces.frozen_weight",
    "Embeddings": "graftkit.interfaces.scores",
    "Encoding": "graftkit.interfaces.tokenizer",
    "Evaluation": "graftkit.flow.evaluate",
    "EvaluationInfo": "graftkit.host.lifecycle",
    "ExportCard": "graftkit.interfaces.export_card",
    "ExportInfo": "graftkit.host.lifecycle",
    "ExportReading": "graftkit.interfaces.exporter",
    "Exported": "graftkit.flow.another_export",
    "Exporter": "graftkit.interfaces.exporter",
    "ExtensionPlan": "graftkit.interfaces.vocabulary",
    "ExtensionSpec": "graftkit.interfaces.vocabulary",
    "FrozenWeight": "graftkit.interfaces.frozen_weight",
    "GraftkitError": "graftkit.errors",
    "Initializer": "graftkit.interfaces.initializer",
    "Judged": "graftkit.flow.judge",
    "LabelledAnswer": "graftkit.interfaces.samples",
    "LabelledText": "graftkit.interfaces.samples",
    "Layer": "graftkit.interfaces.layer",
    "LayerInfo": "graftkit.interfaces.layer",
    "LayerKind": "graftkit.interfaces.layer",
    "LoadedAssets": "graftkit.interfaces.exporter",
    "LoadingExample": "graftkit.interfaces.export_card",
    "LongText": "graftkit.interfaces.samples",
    "MaskedConfig": "graftkit.interfaces.objective_config",
    "Message": "graftkit.interfaces.samples",
    "Metric": "graftkit.interfaces.metric",
    "MetricConfig": "graftkit.interfaces.metric",
    "ModelSource": "graftkit.interfaces.model_source",
    "NewRows": "graftkit.interfaces.initializer",
    "NewToken": "graftkit.interfaces.vocabulary",
    "NewVocabulary": "graftkit.interfaces.exporter",
    "Objective": "graftkit.interfaces.objective",
    "ObjectiveConfig": "graftkit.interfaces.objective_config",
    "PairLayout": "graftkit.interfaces.tokenizer",
    "PlainWeight": "graftkit.interfaces.frozen_weight",
    "PlannedModel": "graftkit.interfaces.exporter",
    "PluginHost": "graftkit.host.host",
    "PreferencePair": "graftkit.interfaces.samples",
    "Preview": "graftkit.flow.preview",
    "Probe": "graftkit.interfaces.exporter",
    "Prompt": "graftkit.interfaces.samples",
    "ProofRequest": "graftkit.interfaces.exporter",
    "Provider": "graftkit.interfaces.provider",
    "ProviderConfig": "graftkit.interfaces.config",
    "Quantizer": "graftkit.interfaces.quantizer",
    "Reader": "graftkit.interfaces.reader",
    "Recipe": "graftkit.recipe.schema.recipe",
    "RecipePath": "graftkit.interfaces.config",
    "Record": "graftkit.interfaces.record_source",
    "RecordFormat": "graftkit.interfaces.record_format",
    "RecordSource": "graftkit.interfaces.record_source",
    "ReportChart": "graftkit.interfaces.report_section",
    "ReportSection": "graftkit.interfaces.report_section",
    "ReportTable": "graftkit.interfaces.report_section",
    "ReportText": "graftkit.interfaces.report_section",
    "RetrievalConfig": "graftkit.interfaces.objective_config",
    "RunInfo": "graftkit.host.lifecycle",
    "RunResult": "graftkit.flow.run_result",
    "SampledConfig": "graftkit.interfaces.objective_config",
    "SampledObjective": "graftkit.interfaces.objective",
    "ScoredText": "graftkit.interfaces.samples",
    "Scores": "graftkit.interfaces.scores",
    "SequenceConfig": "graftkit.interfaces.objective_config",
    "SequenceObjective": "graftkit.interfaces.objective",
    "SequenceScores": "graftkit.interfaces.scores",
    "SimilarTexts": "graftkit.interfaces.samples",
    "SimilarityConfig": "graftkit.interfaces.objective_config",
    "SimilarityObjective": "graftkit.interfaces.objective",
    "StageInfo": "graftkit.host.lifecycle",
    "StepInfo": "graftkit.host.lifecycle",
    "StoredWeight": "graftkit.interfaces.stored_weight",
    "TaggedText": "graftkit.interfaces.samples",
    "TeacherConfig": "graftkit.interfaces.objective_config",
    "TensorInfo": "graftkit.interfaces.model_source",
    "Text": "graftkit.interfaces.samples",
    "TextPrompt": "graftkit.interfaces.samples",
    "TextWithLabels": "graftkit.interfaces.samples",
    "TokenConfig": "graftkit.interfaces.objective_config",
    "TokenObjective": "graftkit.interfaces.objective",
    "TokenScores": "graftkit.interfaces.scores",
    "Tokenizer": "graftkit.interfaces.tokenizer",
    "TokenizerBackend": "graftkit.interfaces.tokenizer",
    "TokenizerCapabilities": "graftkit.interfaces.tokenizer",
    "TokenizerFetcher": "graftkit.interfaces.model_source",
    "TokenizerFiles": "graftkit.interfaces.model_source",
    "TokenizerOpener": "graftkit.interfaces.model_source",
    "Tokens": "graftkit.interfaces.samples",
    "ToolCall": "graftkit.interfaces.samples",
    "TrainedModel": "graftkit.interfaces.exporter",
    "TrainingSpec": "graftkit.interfaces.vocabulary",
    "VectorPairs": "graftkit.interfaces.scores",
    "Verified": "graftkit.flow.verify",
    "VocabularyChange": "graftkit.interfaces.vocabulary",
    "WatchedModel": "graftkit.interfaces.model_source",
    "check_matrix": "graftkit.interfaces.checks",
    "check_tensors": "graftkit.interfaces.checks",
    "compare": "graftkit.flow.compare",
    "evaluate": "graftkit.flow.evaluate",
    "export": "graftkit.flow.another_export",
    "generate": "graftkit.flow.generate",
    "hookimpl": "graftkit.host.hookspecs",
    "join_pair": "graftkit.interfaces.samples",
    "judge": "graftkit.flow.judge",
    "load_recipe": "graftkit.recipe.load",
    "plan": "graftkit.flow.plan_of_run",
    "preview": "graftkit.flow.preview",
    "run": "graftkit.flow.run",
    "tagged_words": "graftkit.interfaces.samples",
    "verify": "graftkit.flow.verify",
    "verify_run": "graftkit.flow.verify",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'graftkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
