"""What a provider must offer: one Protocol a file, five kinds.

Nothing here loads torch but `frozen_weight` and `adapted_weight`, the two module classes that quantizers and
adapters derive from.
"""
