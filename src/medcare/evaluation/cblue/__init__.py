"""The 18 tasks of PromptCBLUE: what an answer looks like, how it is read, and how it is scored.

`tasks` is the registry; `answers` reads one answer; `text2dt` reads and compares decision trees; `rouge`
compares texts; `metrics` are functions of sums over items; `families` are the four ways to score, and
`score` applies them to files.
"""
