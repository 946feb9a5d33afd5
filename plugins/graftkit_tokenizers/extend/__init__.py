"""Adding tokens to a tokenizer.json whose ids a model already knows."""
