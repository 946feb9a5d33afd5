"""The built-in readers: jsonl, json, csv, text, parquet, arrow."""

from graftkit import Provider, hookimpl

_ARROW = "pip install 'graftkit[arrow]'"


@hookimpl
def graftkit_readers() -> list[Provider]:
    """Offers what reads records out of a file."""
    return [
        Provider(
            name="jsonl",
            target="graftkit_readers.json_lines:JsonLines",
            summary="a JSON object a line: .jsonl, .ndjson, .json",
            contract="graftkit_readers.contracts:JsonLinesContract",
        ),
        Provider(
            name="json",
            target="graftkit_readers.json_array:JsonArray",
            summary="a JSON array of objects, read piece by piece: .json",
            contract="graftkit_readers.contracts:JsonArrayContract",
        ),
        Provider(
            name="csv",
            target="graftkit_readers.delimited:Delimited",
            config="graftkit_readers.config:DelimitedConfig",
            summary="a table with its columns' names in the first line: .csv, .tsv",
            contract="graftkit_readers.contracts:DelimitedContract",
        ),
        Provider(
            name="text",
            target="graftkit_readers.text_file:TextFile",
            summary="a file that is one text: .txt, .md",
            contract="graftkit_readers.contracts:TextFileContract",
        ),
        Provider(
            name="parquet",
            target="graftkit_readers.columnar:Parquet",
            summary="a Parquet file, read a group of rows at a time",
            requires=("pyarrow",),
            install_hint=_ARROW,
            contract="graftkit_readers.contracts:ParquetContract",
        ),
        Provider(
            name="arrow",
            target="graftkit_readers.columnar:Arrow",
            summary="an Arrow file or stream, as datasets.save_to_disk writes it",
            requires=("pyarrow",),
            install_hint=_ARROW,
            contract="graftkit_readers.contracts:ArrowContract",
        ),
    ]
