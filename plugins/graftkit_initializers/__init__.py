"""The built-in initializers: mean, weighted, focus, random."""

from graftkit import Provider, hookimpl


@hookimpl
def graftkit_initializers() -> list[Provider]:
    """Offers what a new token's embedding can start as."""
    return [
        Provider(
            name="mean",
            target="graftkit_initializers.mean:Mean",
            summary="the mean of the rows of the tokens that stood for it",
        ),
        Provider(
            name="weighted",
            target="graftkit_initializers.weighted:Weighted",
            config="graftkit_initializers.config:WeightedConfig",
            summary="their mean with the last one weighing most, or the first where the matrix scores the next token",
        ),
        Provider(
            name="focus",
            target="graftkit_initializers.focus:Focus",
            config="graftkit_initializers.config:FocusConfig",
            summary="the rows of kept tokens that are used alike in the corpus (FOCUS)",
        ),
        Provider(
            name="random",
            target="graftkit_initializers.random_rows:Random",
            config="graftkit_initializers.config:RandomConfig",
            summary="normal noise as wide as the matrix, to compare with",
        ),
    ]
