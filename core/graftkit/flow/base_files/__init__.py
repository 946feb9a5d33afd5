"""The base model's files before torch is loaded: opened, their tokenizer found, and what manifests say of them."""
