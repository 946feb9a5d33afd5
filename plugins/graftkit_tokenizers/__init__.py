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
            name="sentencepiece",
            target="graftkit_tokenizers.sentencepiece_backend:SentencePieceBackend",
            config="graftkit_tokenizers.sentencepiece_config:SentencePieceConfig",
            summary="SentencePiece models (*.model), unigram and BPE, through the sentencepiece library",
            requires=("sentencepiece",),
            install_hint="pip install 'graftkit[sentencepiece]'",
        ),
        Provider(
            name="byte-level",
            target="graftkit_tokenizers.byte_level:ByteLevelBackend",
            config="graftkit_tokenizers.config:ByteLevelConfig",
            summary="BPE over bytes, trained here or read from GPT-2's, tiktoken's or Mistral's files",
            requires=("tokenizers",),
        ),
    ]
