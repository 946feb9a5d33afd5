"""An OpenAI-compatible endpoint for a model that answers: an ASGI application, and what runs it.

`create_app` makes the application of an `AnswerQueue`; both import starlette, from the extra `graftkit[serve]`.

Source: the OpenAI API's chat completions, completions and models, as the package `openai` reads and writes them.
"""
