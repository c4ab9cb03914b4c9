"""The 18 tasks of PromptCBLUE, scored as its evaluator scores them.

`tasks` declares them, `answers` reads their answers, and `text2dt` reads and compares decision trees.
"""
