"""What tokenizer backends, and model sources with a tokenizer of their own, are built with.

Public: two built-in plugins or more use each of these modules, and so may yours. Importing them loads neither
`tokenizers` nor torch.

- `bounds`: what a tokenizer.json may cost, judged before `tokenizers` runs it.
- `byte_alphabet`: how vocabularies write bytes.
- `continued_bpe`: learning merges on top of a vocabulary's own.
- `panics`: the `tokenizers` library's panics as errors.
- `scored_pieces`: merges as scores of pieces, and back.
- `side_files`: tokenizer_config.json and the chat template beside a vocabulary.
- `spooling`: texts that are iterated more than once without being held in memory.
- `splitting`: the patterns by which byte-level tokenizers split text.
- `text_search`: finding added tokens in a text.
- `tokenizer_json`: parts of a tokenizer.json.
- `training_spec`: checks of a `TrainingSpec`.
- `words`: which texts must not become tokens.
"""
