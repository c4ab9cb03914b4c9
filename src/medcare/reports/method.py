"""The report's section on how scores, intervals and tests were made."""

from __future__ import annotations

from typing import Any

_OPTIONS = (
    "Questions with options: the option with the highest log-likelihood per UTF-8 byte is the answer "
    "(lm-evaluation-harness calls this acc_bytes); where all items of a task share one set of options, such "
    "as true and false, that with the highest log-likelihood (acc). results.json says which as ranked_by, "
    "and has accuracy without the division by length as plain_accuracy. Calibration and the percentages "
    "beside options are the model's own probabilities: the softmax of log-likelihoods over the options, "
    "without that division."
)
_TEXTS = (
    "Other tasks: greedy decoding, then a strict reader for the task's form. An answer that is not in the "
    "form scores 0."
)
_INTERVALS = (
    "Intervals are 95 % percentile intervals of {resamples:,} bootstrap draws over the facts behind the "
    "items, within each task (seed {seed}), widened by sqrt(n / (n - 1)) for n facts, because draws from few "
    "facts spread too little. They say nothing about other seeds of training, and tasks count "
    "as independent although some ask for related facts. Where all facts of a task are alike, such as all "
    "right, draws say nothing, and the exact interval of a proportion (Clopper and Pearson), or its like for "
    "a mean, stands in. In a mean, tasks with one fact each are drawn together."
)
_TESTS = (
    "Differences are paired, on the same items. p-values: McNemar's exact test for accuracy with one item a "
    "fact, else a permutation test; corrected by Holm's method over the tasks of a family for each pair of "
    "models, and over all comparisons of the summary."
)
_VERDICTS = (
    "A difference counts as shown only if its corrected p-value is below 0.05 and its interval leaves out 0."
)


def lines(results: dict[str, Any]) -> list[str]:
    """How the scores, intervals and tests of results.json were made, a paragraph each."""
    modes = {task["mode"] for task in results["tasks"].values()}
    scoring = [text for mode, text in (("log_likelihood", _OPTIONS), ("generation", _TEXTS)) if mode in modes]
    return [*scoring, _INTERVALS.format(**results["statistics"]), _TESTS, _VERDICTS]
