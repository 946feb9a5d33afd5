"""The built-in exporters: peft (the adapter alone), merged (the whole model), extended-base (both apart)."""

from graftkit import Provider, hookimpl


@hookimpl
def graftkit_exporters() -> list[Provider]:
    """Offers the formats that other programs load."""
    return [
        Provider(
            name="peft",
            target="graftkit_exporters.peft_folder:PeftExporter",
            summary="the adapter alone, as peft loads it",
        ),
        Provider(
            name="merged",
            target="graftkit_exporters.merged:MergedExporter",
            config="graftkit_exporters.config:MergedConfig",
            summary="the whole model with the adapter merged in, as transformers loads it",
        ),
        Provider(
            name="extended-base",
            target="graftkit_exporters.extended_base:ExtendedBaseExporter",
            config="graftkit.exporting.config:FolderConfig",
            summary="the base with the new vocabulary, and a plain adapter for servers that take no embedding rows",
        ),
    ]
