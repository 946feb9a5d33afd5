"""The flow: recipe, tokenizer, corpus, base model, adapter, training, evaluation, exports, report."""
