"""The built-in model sources: huggingface (a folder, a hub id) and gguf (a file)."""

from graftkit import Provider, hookimpl


@hookimpl
def graftkit_model_sources() -> list[Provider]:
    """Offers where base models come from."""
    return [
        Provider(
            name="huggingface",
            target="graftkit_models.huggingface:HuggingFaceSource",
            summary="a folder with config.json, safetensors and tokenizer.json, or a hub id",
        ),
        Provider(
            name="gguf",
            target="graftkit_models.gguf_source:GgufSource",
            summary="a .gguf file of the llama family, its tokenizer included",
        ),
    ]
