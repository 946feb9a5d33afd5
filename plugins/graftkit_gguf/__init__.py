"""GGUF, the files of llama.cpp: base models are read from them, and trained models and adapters are written as such."""

from graftkit import Provider, hookimpl


@hookimpl
def graftkit_model_sources() -> list[Provider]:
    """Offers base models in GGUF files."""
    return [
        Provider(
            name="gguf",
            target="graftkit_gguf.source:GgufSource",
            summary="a .gguf file of the llama family, its tokenizer included",
        ),
    ]
