"""What a recipe may say. Each provider's own fields are judged by its own config model, in `bind`."""
