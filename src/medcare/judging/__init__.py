"""Clinical writing rated by a language model behind any OpenAI-compatible endpoint. Imports no torch.

`cases` reads what is rated, `rubric` words the request, `judge` sends it, `verdict` reads the reply, `cache`
keeps it, `rating` runs them all, `agreement` and `summary` say what the ratings show, `tables` prints it;
`judge_files` does all this for files, and `grading` for judged tasks of a test set. `judge_free` and
`judge_free_files` are scores that need no judge.
"""
