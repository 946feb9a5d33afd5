"""The built-in quantizers: none, nf4, int8, stored."""

from graftkit import Provider, hookimpl


@hookimpl
def graftkit_quantizers() -> list[Provider]:
    """Offers what frozen weights can be stored in."""
    return [
        Provider(
            name="none",
            target="graftkit_quantizers.dense:Dense",
            config="graftkit_quantizers.config:DenseConfig",
            summary="weights as they are, in the dtype of the computation",
        ),
        Provider(
            name="nf4",
            target="graftkit_quantizers.nf4:Nf4",
            config="graftkit_quantizers.config:Nf4Config",
            summary="4-bit NormalFloat in blocks, as QLoRA stores them (bitsandbytes)",
            requires=("bitsandbytes",),
        ),
        Provider(
            name="int8",
            target="graftkit_quantizers.int8:Int8",
            config="graftkit_quantizers.config:Int8Config",
            summary="8-bit integers with one scale a row (bitsandbytes)",
            requires=("bitsandbytes",),
        ),
        Provider(
            name="stored",
            target="graftkit_quantizers.stored:Stored",
            config="graftkit_quantizers.config:StoredConfig",
            summary="weights exactly as the model's file holds them, quantized or not",
        ),
    ]
