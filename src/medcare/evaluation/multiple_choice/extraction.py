"""Which options an answer to a multiple-choice question chooses, in Chinese and English. Imports no torch.

The answer is first laid bare: without thoughts, end tokens, Markdown and LaTeX, without the question where
it is repeated, and without a further question. Then the first of these rules to find something decides:

    1. statements: what stands where an answer belongs (an `answer` key, a box, an <answer> tag, a last line
       that is only an answer), and letters or texts of options that are announced ("the answer is", "故选",
       "this corresponds to option") or then called the answer ("B is the correct answer"). The last counts
    2. the opening: first lines that are an answer, which the rest explains
    3. verdicts on one option after another: those called right or, where the wrong one is asked for, wrong
    4. a conclusion ("Therefore, ...") that names one option
    5. the only option that is mentioned
    6. a number with its unit, written in another way

A letter counts only where nothing makes it a part of something else: "B cells", "C反应蛋白", "E. coli",
"A patient", "vitamin B". What is denied ("not B"), supposed ("if the answer is B") or left open ("A or B")
is no statement. Every repetition in a pattern is bounded or possessive, so that no text takes long.

`answer_text` lays the answer bare, `statements` holds rule 1, `fallbacks` the others, and `options` finds
letters and texts of options in a text.
"""

from __future__ import annotations

from collections.abc import Sequence

from medcare.evaluation.multiple_choice.answer_text import (
    laid_bare,
    without_list,
    without_markup,
    without_question,
)
from medcare.evaluation.multiple_choice.asked import Asked, is_negative
from medcare.evaluation.multiple_choice.fallbacks import amount, conclusion, only_mention, opening, verdicts
from medcare.evaluation.multiple_choice.options import Letters, Options
from medcare.evaluation.multiple_choice.statements import statements


def extract_letters(
    text: str,
    options: Sequence[str],
    *,
    letters: Sequence[str] | None = None,
    question: str = "",
    several: bool | None = None,
) -> Letters | None:
    """The options that an answer chooses.

    Args:
        text: what a model wrote; reasoning before the answer, Markdown, LaTeX and JSON are fine.
        options: the texts of the options, at most 26.
        letters: of the options, for example "ACD"; None for A, B, C and so on.
        question: what was asked, with its options or without. It tells an echo from an answer, and whether
            the wrong statement is asked for. Empty where it isn't known.
        several: whether more than one option may be right in this exam; None where that isn't known.

    Returns:
        Their letters, at least one; None if the text chooses none (refusal, hedging, nothing readable).
    """
    if not options:
        return None
    question = without_markup(question)
    asked = Asked(
        Options([without_markup(option) for option in options], letters), is_negative(question), several
    )
    text = without_list(without_question(laid_bare(text), question), asked)
    for rule in (statements, opening, verdicts, conclusion, only_mention, amount):
        chosen = rule(text, asked)
        if chosen is None:
            return None
        if chosen:
            return asked.options.resolve(chosen)
    return None
