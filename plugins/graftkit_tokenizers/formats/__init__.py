"""Files of other libraries that a tokenizer.json can hold: GPT-2's, tiktoken's, Mistral's, BERT's; read and written."""
