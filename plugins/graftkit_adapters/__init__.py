"""The built-in adapters: lora, qlora, which is lora on NF4 unless a recipe says otherwise, full fine-tuning, bitfit."""

from graftkit import Provider, hookimpl


@hookimpl
def graftkit_adapters() -> list[Provider]:
    """Offers what can be trained on frozen weights."""
    return [
        Provider(
            name="lora",
            target="graftkit_adapters.lora:Lora",
            config="graftkit_adapters.config:LoraConfig",
            summary="low-rank adaptation: W + (alpha / rank) B A",
        ),
        Provider(
            name="qlora",
            target="graftkit_adapters.lora:Lora",
            config="graftkit_adapters.config:QloraConfig",
            summary="lora on NF4 weights with double quantization, unless the recipe names a quantizer",
        ),
        Provider(
            name="full",
            target="graftkit_adapters.full:Full",
            config="graftkit_adapters.config:FullConfig",
            summary="full fine-tuning: the layers' weights themselves are trained, in float32",
        ),
        Provider(
            name="bitfit",
            target="graftkit_adapters.bitfit:BitFit",
            config="graftkit_adapters.config:BitFitConfig",
            summary="the layers' biases alone are trained, of those that have one",
        ),
    ]
