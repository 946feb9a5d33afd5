"""The built-in tokenizer backends."""

from graftkit import Provider, hookimpl


@hookimpl
def graftkit_tokenizers() -> list[Provider]:
    """Offers what turns text into ids."""
    return [
        Provider(
            name="huggingface",
            target="graftkit_tokenizers.huggingface:HuggingFaceBackend",
            summary="any tokenizer.json, through the tokenizers library",
            requires=("tokenizers",),
        ),
        Provider(
            name="byte-level",
            target="graftkit_tokenizers.train.byte_level:ByteLevelBackend",
            config="graftkit_tokenizers.config:ByteLevelConfig",
            summary="BPE over bytes, trained here or read from GPT-2's, tiktoken's or Mistral's files",
            requires=("tokenizers",),
        ),
        Provider(
            name="bpe",
            target="graftkit_tokenizers.train.bpe:BpeBackend",
            config="graftkit_tokenizers.config:BpeConfig",
            summary="BPE over characters: spaces as ▁, bytes for rare characters",
            requires=("tokenizers",),
        ),
        Provider(
            name="wordpiece",
            target="graftkit_tokenizers.train.wordpiece:WordPieceBackend",
            config="graftkit_tokenizers.config:WordPieceConfig",
            summary="WordPiece as in BERT, trained here or read from a vocab.txt",
            requires=("tokenizers",),
        ),
        Provider(
            name="word",
            target="graftkit_tokenizers.train.word:WordBackend",
            config="graftkit_tokenizers.config:WordConfig",
            summary="a token a word; the others are unknown",
            requires=("tokenizers",),
        ),
        Provider(
            name="character",
            target="graftkit_tokenizers.train.character:CharacterBackend",
            config="graftkit_tokenizers.config:CharacterConfig",
            summary="a token a character; the others are bytes",
            requires=("tokenizers",),
        ),
    ]
