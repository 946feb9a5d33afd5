"""The base model: which layers are adapted, how weights are streamed in, how it computes."""
