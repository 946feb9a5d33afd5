"""What a provider must offer: one Protocol a file; `kinds` lists the kinds.

Nothing here loads torch but `frozen_weight`, `adapted_weight` and `checks`, which the classes of quantizers and
adapters are built with.
"""
