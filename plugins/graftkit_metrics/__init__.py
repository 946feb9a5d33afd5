"""The built-in metrics: exact-match, contains, regex, json-valid, json-equal."""

from graftkit import Provider, hookimpl


@hookimpl
def graftkit_metrics() -> list[Provider]:
    """Offers what answers can be scored by."""
    return [
        Provider(
            name="exact-match",
            target="graftkit_metrics.text:ExactMatch",
            config="graftkit_metrics.config:TextConfig",
            summary="whether the answer is the expected one, but for white space around it",
        ),
        Provider(
            name="contains",
            target="graftkit_metrics.text:Contains",
            config="graftkit_metrics.config:ContainsConfig",
            summary="whether the answer contains the expected one, or a text",
        ),
        Provider(
            name="regex",
            target="graftkit_metrics.text:Regex",
            config="graftkit_metrics.config:RegexConfig",
            contract="graftkit_metrics.contracts:RegexContract",
            summary="whether a regular expression matches the answer, or finds the same in both",
        ),
        Provider(
            name="json-valid",
            target="graftkit_metrics.json_values:JsonValid",
            config="graftkit_metrics.config:JsonValidConfig",
            summary="whether the answer is JSON",
        ),
        Provider(
            name="json-equal",
            target="graftkit_metrics.json_values:JsonEqual",
            contract="graftkit_metrics.contracts:JsonEqualContract",
            summary="whether the answer is the same JSON value as the expected one",
        ),
    ]
