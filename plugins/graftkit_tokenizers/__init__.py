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
    ]
