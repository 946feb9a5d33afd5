"""MLX, the library of Apple's chips: trained models are written as mlx-lm loads them, quantized or not."""

from graftkit import Provider, hookimpl


@hookimpl
def graftkit_exporters() -> list[Provider]:
    """Offers trained models as mlx-lm's folders."""
    return [
        Provider(
            name="mlx",
            target="graftkit_mlx.exporter:MlxExporter",
            config="graftkit_mlx.config:MlxConfig",
            summary="the whole model with the adapter merged in, as mlx-lm and LM Studio load it on a Mac",
        ),
        Provider(
            name="mlx-lora",
            target="graftkit_mlx.lora_exporter:MlxLoraExporter",
            summary="the adapter alone, as mlx-lm puts it on a base model, quantized or not",
        ),
    ]
