"""Clinical writing rated by a language model behind any OpenAI-compatible endpoint. Imports no torch.

`cases` reads what is rated, `rubric` words the request, `client` sends it, `verdict` reads the reply, `cache`
keeps it, `rating` runs them all, `agreement` and `summary` say what the ratings show, `tables` prints it.
"""
