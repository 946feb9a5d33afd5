"""From rows of text to rows of tokens. Nothing here loads torch."""
