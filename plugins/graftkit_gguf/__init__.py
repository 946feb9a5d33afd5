"""GGUF, the files of llama.cpp: base models are read from them, and trained models and adapters are written as such."""

from graftkit import Provider, hookimpl


@hookimpl
def graftkit_model_sources() -> list[Provider]:
    """Offers base models in GGUF files."""
    return [
        Provider(
            name="gguf",
            target="graftkit_gguf.source:GgufSource",
            summary="a .gguf file, its tokenizer included",
        ),
    ]


@hookimpl
def graftkit_exporters() -> list[Provider]:
    """Offers trained models, and adapters alone, as GGUF files."""
    return [
        Provider(
            name="gguf",
            target="graftkit_gguf.model_exporter:GgufExporter",
            config="graftkit_gguf.config:GgufConfig",
            summary="the whole model with the adapter merged in, as llama.cpp and Ollama load it",
        ),
        Provider(
            name="gguf-lora",
            target="graftkit_gguf.lora_exporter:GgufLoraExporter",
            config="graftkit_gguf.config:GgufLoraConfig",
            summary="the adapter alone, as llama.cpp and Ollama load it onto a base model in GGUF",
        ),
    ]
