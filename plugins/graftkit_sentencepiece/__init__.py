"""The built-in backend of SentencePiece models."""

from graftkit import Provider, hookimpl


@hookimpl
def graftkit_tokenizers() -> list[Provider]:
    """Offers the backend that reads, trains and extends `.model` files."""
    return [
        Provider(
            name="sentencepiece",
            target="graftkit_sentencepiece.backend:SentencePieceBackend",
            config="graftkit_sentencepiece.config:SentencePieceConfig",
            summary="SentencePiece models (*.model), unigram and BPE, through the sentencepiece library",
            requires=("sentencepiece",),
            install_hint="pip install 'graftkit[sentencepiece]'",
        ),
    ]
