"""The mean of the parts.

The average for tokens without any is Hewitt's (2021, https://nlp.stanford.edu/~johnhew/vocab-expansion.html): a row
in the midst of all others takes little from any prediction.
"""

from __future__ import annotations

import torch
from graftkit import NewRows

from graftkit_initializers.parts import combine_parts, even_shares

__all__ = ["Mean"]


class Mean:
    """Starts a token as the mean of the rows of the tokens that stood for it.

    Example:
        A token "hello" that the base wrote as "he" and "llo" starts halfway between those two.
    """

    def rows(self, new: NewRows) -> torch.Tensor:
        """Returns the means, `[new, hidden]`; for a token without parts the mean of all rows."""
        return combine_parts(new, even_shares)
