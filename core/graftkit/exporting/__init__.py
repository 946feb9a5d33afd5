"""What exporters write and load with: a model's folder as transformers loads it, an adapter's as PEFT does, cards.

The built-in exporters use it, and so may those of other packages. Each part is a module: `model_folder`, `shards`,
`peft_folder`, `cards`, and `config`, which imports no torch.
"""
