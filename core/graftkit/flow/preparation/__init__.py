"""What a run does before it trains: tokenizer, tokens, the model with its vocabulary and adapter, references."""
