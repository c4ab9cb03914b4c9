"""Reading the letters of an exam answer from generated text, in Chinese and English. Imports no torch.

Rules, the first that finds something decides; within a rule the last statement does:
    1. statements: "答案为ABD", "故选B", "The answer is (B)", "B为正确答案", a boxed letter, the text of
       an option instead of its letter ("The answer is aspirin"), a first or last line that is only an answer
    2. verdicts: "A对，B错，C正确", "Option B is correct": the letters that are called right
    3. mentions: the text of one option occurs, and that of no other
    4. amounts: a number with or without its unit, "50mg" for "50 mg"
    5. "错误的是B", which answers a question for the wrong statement
A letter counts only where nothing makes it part of something else: "B cells", "C反应蛋白", "E. coli", "A
patient", "vitamin B". What is denied ("not B"), supposed ("if the answer is B") or left open ("A or B") is
no statement.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from medcare.evaluation import exam_patterns as words
from medcare.evaluation.exam_options import (
    CLAUSE_ENDS,
    MARKS,
    NO_LETTERS,
    Letters,
    Question,
    begins_apart,
    ends_apart,
)
from medcare.evaluation.exam_patterns import is_han, plain

# A text with more places where an answer could be stated, none of them one, is no answer.
_MOST_STATEMENTS = 500
# Shorter texts of options are mentioned by chance.
_SHORTEST_HAN, _SHORTEST_LATIN = 2, 4

# A place in the text, and what reads the statement there.
Statement = tuple[int, Callable[[], Letters]]


def extract_letters(text: str, options: Sequence[str]) -> Letters | None:
    """The options that an answer chooses.

    Args:
        text: what a model wrote; reasoning before the answer, Markdown and LaTeX are fine.
        options: the texts of the options, the first one is A; at most 26.

    Returns:
        Their letters, at least one; None if the text chooses none (refusal, hedging, nothing readable).
    """
    if not options:
        return None
    text = plain(text)
    question = Question(options)
    statements = [*_after_cues(text, question), *_named(text, question), *_boxed(text, question)]
    statements += _edges(text, question)
    for _, read in sorted(statements, key=lambda statement: -statement[0])[:_MOST_STATEMENTS]:
        letters = read()
        if letters:
            return letters
    for rule in (_judged, _mentioned, _amount, _wrong_one):
        letters = rule(text, question)
        if letters:
            return letters
    return None


# Statements.


def _after_cues(text: str, question: Question) -> Iterator[Statement]:
    for pattern, strict in ((words.CUE, False), (words.WEAK_CUE, True)):
        for cue in pattern.finditer(text):
            yield cue.start(), partial(_after_cue, text, question, cue, strict=strict)


def _after_cue(text: str, question: Question, cue: re.Match[str], *, strict: bool) -> Letters:
    if words.SUPPOSED.search(text[max(0, cue.start() - 24) : cue.start()]):
        return NO_LETTERS
    place = _skip(text, cue.end())
    denied = words.DENIED_BUT.match(text, place)
    if denied:
        place = _skip(text, denied.end())
    # The text of an option may begin with a letter ("C反应蛋白"), or be letters ("AB" of the blood groups).
    by_text, end = question.texts_at(text, place)
    if by_text and end - place > 1 and text[end : end + 1] in CLAUSE_ENDS:
        return by_text
    if question.listed_at(text, place):
        return NO_LETTERS
    letters, _ = question.letters_at(text, place, strict=strict)
    return letters or (NO_LETTERS if strict else by_text)


def _skip(text: str, place: int) -> int:
    """Where the words end that may stand between an announcement and the answer."""
    filler = words.FILLER.match(text, place)
    return filler.end() if filler else place


def _named(text: str, question: Question) -> Iterator[Statement]:
    for match in question.patterns.named.finditer(text):
        if _free(text, match.start()):
            yield match.start(), partial(_letters, match, question)


def _boxed(text: str, question: Question) -> Iterator[Statement]:
    for box in words.BOXED.finditer(text):
        yield box.start(), partial(question.alone, box[1])


def _edges(text: str, question: Question) -> Iterator[Statement]:
    """The first and the last lines, where they are nothing but an answer; a list of all options is none."""
    lines = [words.LINE_START.sub("", line) for line in text.split("\n") if line.strip()]
    for place, block in ((len(text), lines[::-1]), (-1, lines)):
        answers = []
        for line in block[: len(question.options)]:
            letters = question.alone(line)
            if not letters:
                break
            answers.append(letters)
        listed = len(answers) > 1 and len(answers) == len(question.options)
        if answers and not (listed and any(len(line.strip(MARKS)) > 1 for line in block[: len(answers)])):
            yield place, partial(frozenset, frozenset().union(*answers))
    if lines and not any(question.patterns.marked.match(line) for line in lines[1:2]):
        yield -1, partial(_opening, lines[0], question)


def _opening(line: str, question: Question) -> Letters:
    """The answer that a first line begins with and then explains; a list of options is none."""
    letters, end = question.letters_at(line, 0, strict=True)
    others = set(question.patterns.marked.findall(line)) - letters
    return NO_LETTERS if len(others) > 1 or words.CALLED_WRONG.match(line, end) else letters


# Verdicts, mentions, the wrong one.


def _judged(text: str, question: Question) -> Letters:
    text = question.without_texts(text)
    verdicts: dict[str, bool] = {}
    for match in question.patterns.judged.finditer(text):
        if _free(text, match.start()):
            verdict = match["han"] or match["word"] or match["mark"]
            verdicts.update(dict.fromkeys(_letters(match, question), verdict.lower() in words.RIGHT))
    return frozenset(letter for letter, right in verdicts.items() if right)


def _mentioned(text: str, question: Question) -> Letters:
    """The one option whose text occurs without being denied, inside no other option's."""
    if words.REFUSAL.search(text):
        return NO_LETTERS
    low = text.lower()
    found = set()
    for letter, option in question.longest_first:
        if len(option) < (_SHORTEST_HAN if any(map(is_han, option)) else _SHORTEST_LATIN) or option.isdigit():
            continue
        start = low.find(option)
        while start >= 0:
            end = start + len(option)
            if (
                ends_apart(low, end)
                and begins_apart(low, start)
                and not words.DENIED.search(low[max(0, start - 24) : start])
            ):
                found.add(letter)
            start = low.find(option, end)
        low = low.replace(option, "\n" * len(option))
    return frozenset(found) if len(found) == 1 else NO_LETTERS


def _amount(text: str, question: Question) -> Letters:
    """The answer "50mg" for "50 mg"; a bare number if all options have one unit, a unit if they have none."""
    said = words.AMOUNT.fullmatch(text.lower().strip(MARKS))
    offered = {letter: words.AMOUNT.fullmatch(option) for letter, option in question.options.items()}
    amounts = {letter: (match["number"], match["unit"]) for letter, match in offered.items() if match}
    if said is None or len(amounts) < len(offered):
        return NO_LETTERS
    units = {unit for _, unit in amounts.values()}
    understood = len(units) == 1 and (not said["unit"] or units == {""})
    found = {
        letter
        for letter, (number, unit) in amounts.items()
        if number == said["number"] and (understood or unit == said["unit"])
    }
    return frozenset(found) if len(found) == 1 else NO_LETTERS


def _wrong_one(text: str, question: Question) -> Letters:
    found = NO_LETTERS
    for match in words.WRONG_IS.finditer(text):
        found = question.letters_at(text, match.end())[0] or found
    return found


def _letters(match: re.Match[str], question: Question) -> Letters:
    return frozenset(char for char in match["group"] if char in question.options)


def _free(text: str, start: int) -> bool:
    """Whether letters that start here are not the end of a name ("vitamin B", "维生素B")."""
    before = text[max(0, start - 24) : start].rstrip(" ")
    if not before:
        return True
    if is_han(before[-1]):
        return before[-1] in words.BEFORE_HAN
    word = re.search(r"[A-Za-z]+\Z", before)
    return not word or bool(words.BEFORE_WORD.match(word[0]))
