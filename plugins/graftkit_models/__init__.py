"""The built-in model source huggingface: a folder, or a hub id."""

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
    ]
