"""The built-in formats: messages, sharegpt, alpaca, prompt-completion, question-answer, text, preference, trees, ..."""

from graftkit import Provider, hookimpl


def _provider(name: str, target: str, summary: str, config: str = "") -> Provider:
    contract = f"graftkit_formats.contracts:{target.rpartition(':')[2]}Contract"
    return Provider(name=name, target=target, summary=summary, config=config, contract=contract)


@hookimpl
def graftkit_formats() -> list[Provider]:
    """Offers what records may mean."""
    roles = "graftkit_formats.config:RolesConfig"
    return [
        _provider(
            "messages",
            "graftkit_formats.messages:Messages",
            "a list of messages with role and content, as chat APIs take it",
            roles,
        ),
        _provider(
            "sharegpt",
            "graftkit_formats.messages:ShareGpt",
            "a list of turns with from and value, and a system prompt",
            roles,
        ),
        _provider(
            "message-tree",
            "graftkit_formats.message_tree:MessageTree",
            "a tree of messages and replies, of which the best-ranked path is a conversation",
            roles,
        ),
        _provider(
            "alpaca", "graftkit_formats.alpaca:Alpaca", "instruction, input and output, as a question and its answer"
        ),
        _provider(
            "prompt-completion",
            "graftkit_formats.prompt_completion:PromptCompletion",
            "prompt and completion, as texts or as lists of messages",
            roles,
        ),
        _provider(
            "prompt",
            "graftkit_formats.prompt:Prompts",
            "a prompt without an answer, as a text or as a list of messages, which the model answers itself",
            roles,
        ),
        _provider(
            "question-answer",
            "graftkit_formats.question_answer:QuestionAnswer",
            "a question and its answer, in two columns",
        ),
        _provider("text", "graftkit_formats.plain_text:PlainText", "a text, all of which is learnt"),
        _provider(
            "tokens",
            "graftkit_formats.tokens:TokenIds",
            "token ids of the base model's tokenizer, with labels or a loss mask",
        ),
        _provider(
            "label",
            "graftkit_formats.label:Label",
            "a text and its label, as a question and its answer",
            "graftkit_formats.config:LabelConfig",
        ),
        _provider(
            "labels",
            "graftkit_formats.labels:Labels",
            "a text and a list of the labels that it has, which may be empty",
            "graftkit_formats.config:LabelConfig",
        ),
        _provider(
            "score", "graftkit_formats.score:Score", "a text and a number", "graftkit_formats.config:ScoreConfig"
        ),
        _provider(
            "tags",
            "graftkit_formats.tags:Tags",
            "words with a tag each, or a text with the places of entities",
            "graftkit_formats.config:TagConfig",
        ),
        _provider(
            "translation",
            "graftkit_formats.translation:Translation",
            "a text in several languages, of which one is translated into another",
            "graftkit_formats.config:TranslationConfig",
        ),
        _provider(
            "retrieval",
            "graftkit_formats.retrieval:Retrieval",
            "a text, another that is to be found by it, and perhaps some that are not",
        ),
        _provider(
            "preference",
            "graftkit_formats.preference:Preference",
            "a chosen and a rejected answer to a prompt, or an answer that is wanted or not",
            "graftkit_formats.config:PreferenceConfig",
        ),
    ]
