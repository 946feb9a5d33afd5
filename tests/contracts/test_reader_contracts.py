"""The built-in readers and formats keep the contracts of their kinds."""

from __future__ import annotations

from graftkit_formats import contracts as formats
from graftkit_readers import contracts as readers


class TestJsonLines(readers.JsonLinesContract):
    provider = "jsonl"


class TestJsonArray(readers.JsonArrayContract):
    provider = "json"


class TestDelimited(readers.DelimitedContract):
    provider = "csv"


class TestListsInText(readers.ListsInTextContract):
    provider = "csv"


class TestTextFile(readers.TextFileContract):
    provider = "text"


class TestParquet(readers.ParquetContract):
    provider = "parquet"


class TestArrow(readers.ArrowContract):
    provider = "arrow"


class TestMessages(formats.MessagesContract):
    provider = "messages"


class TestShareGpt(formats.ShareGptContract):
    provider = "sharegpt"


class TestMessageTree(formats.MessageTreeContract):
    provider = "message-tree"


class TestAlpaca(formats.AlpacaContract):
    provider = "alpaca"


class TestPromptCompletion(formats.PromptCompletionContract):
    provider = "prompt-completion"


class TestPrompts(formats.PromptsContract):
    provider = "prompt"


class TestQuestionAnswer(formats.QuestionAnswerContract):
    provider = "question-answer"


class TestPlainText(formats.PlainTextContract):
    provider = "text"


class TestPreference(formats.PreferenceContract):
    provider = "preference"


class TestTokenIds(formats.TokenIdsContract):
    provider = "tokens"


class TestTags(formats.TagsContract):
    provider = "tags"


class TestTranslation(formats.TranslationContract):
    provider = "translation"


class TestRetrieval(formats.RetrievalContract):
    provider = "retrieval"


class TestLabels(formats.LabelsContract):
    provider = "labels"


class TestScore(formats.ScoreContract):
    provider = "score"


class TestLabel(formats.LabelContract):
    provider = "label"
