"""Matching meanings: pairs of queries, queries and titles, other wordings and terms, diagnoses and codes.

Common words never decide: the number of words that two texts share is drawn before, and independently of,
the label.
"""

from __future__ import annotations

from collections.abc import Callable

from medcare.benchmark.forms.recipe import Draw, Example, NoDrawError, form_task
from medcare.benchmark.forms.sentences import RELATIVES, Statement, capital, note
from medcare.benchmark.forms.vocabulary import alike
from medcare.benchmark.forms.wordings import ASIDES, INTENTS, QUESTIONS, TITLES
from medcare.data.overlap import units

_SAME = ("different", "same")
_GRADES = ("0", "1", "2", "3")
_TRIES = 8


def _pair_matching(draw: Draw) -> Example:
    """Half of each label keep the term, half keep the question; 'different' changes the other part."""
    rng = draw.rng
    label = draw.label(_SAME)
    new_term = draw.turn // 2 % 2 == 1
    shared = draw.turn // 4 % 3 + (0 if new_term else 2)
    name = _with_wordings(draw)
    questions = draw.pool.frames(QUESTIONS)

    def pair() -> tuple[str, str]:
        one, other = rng.sample(questions, 2)
        term = name
        if new_term:
            other = one
            term = rng.choice(draw.words.wordings[name if label == "same" else rng.choice(_near(draw, name))])
        elif label == "same":
            first, second = rng.sample(one, 2)  # not twice the same words
            one, other = (first,), (second,)
        texts = [draw.ask(one, name), draw.ask(other, term)]
        rng.shuffle(texts)
        return texts[0], texts[1]

    one, other = _sharing(shared, pair)
    return Example(f"1: {capital(one)}? 2: {capital(other)}?", label, (name,))


def _query_relevance(draw: Draw) -> Example:
    """3: term and topic, 2: term alone, 1: topic alone, 0: neither.

    The query asks about one finding and sets another aside; the title is about one of the two, in half of
    each grade in the query's words and in the other half in other words for it.
    """
    rng = draw.rng
    grade = int(draw.label(_GRADES))
    reworded = draw.turn // 4 % 2 == 1
    shared = draw.turn // 8 % 2 + (0 if reworded else 2)
    asked = _with_wordings(draw)
    aside = rng.choice(_near(draw, asked))
    titled = asked if grade >= 2 else aside
    others = [text for text in draw.words.wordings[titled] if not (alike(text, asked) or alike(text, aside))]
    if aside not in draw.pool.known or alike(asked, aside) or not others:
        raise NoDrawError
    intent = rng.choice(sorted(INTENTS))

    def pair() -> tuple[str, str]:
        other = intent if grade % 2 else rng.choice([key for key in sorted(INTENTS) if key != intent])
        query = draw.frame(INTENTS[intent], x=asked, r=rng.choice(RELATIVES))
        query = draw.wording(ASIDES, q=query, z=aside, s=rng.choice(RELATIVES))
        return query, draw.frame(TITLES[other], x=rng.choice(others) if reworded else titled)

    query, title = _sharing(shared, pair)
    return Example(f"Query: {capital(query)}? Title: {capital(title)}", str(grade), (asked, aside))


def _term_normalisation(draw: Draw) -> Example:
    rng = draw.rng
    names = [_with_wordings(draw), _with_wordings(draw)]
    if not draw.words.apart(*names):
        raise NoDrawError
    said = [rng.choice(draw.words.wordings[name]) for name in names]
    candidates = [*names, rng.choice(_near(draw, rng.choice(names)))]
    if len(set(candidates)) < 3 or any(alike(text, name) for text in said for name in candidates):
        raise NoDrawError
    rng.shuffle(candidates)
    kinds = ["present", rng.choice(("present", "absent", "family", "absent"))]
    statements = [
        Statement(kind, (text,), {"r": rng.choice(RELATIVES)}) for kind, text in zip(kinds, said, strict=True)
    ]
    order = [0, 1] if rng.random() < 0.5 else [1, 0]
    text = f"{note(rng, [statements[at] for at in order])} Terms: {'; '.join(candidates)}"
    target = "; ".join(names[at] for at in order if kinds[at] == "present")
    return Example(text, target, tuple(names))


def _icd_coding(draw: Draw) -> Example:
    rng, categories = draw.rng, draw.words.categories
    codes = draw.terms("codes", 2)
    phrases = [rng.choice(categories[code].phrases) for code in codes]
    near = [
        code
        for code in draw.pool.whole.codes
        if code not in codes and categories[code].chapter == categories[codes[0]].chapter
    ]
    if not near:
        raise NoDrawError
    shown = [*codes, rng.choice(near)]
    if any(alike(text, categories[code].title) for text in phrases for code in shown):
        raise NoDrawError
    rng.shuffle(shown)
    kinds = ["present", rng.choice(("present", "absent", "family", "absent"))]
    pairs = list(zip(codes, phrases, kinds, strict=True))
    rng.shuffle(pairs)
    statements = [Statement(kind, (phrase,), {"r": rng.choice(RELATIVES)}) for _, phrase, kind in pairs]
    table = ", ".join(f"{code} {categories[code].title}" for code in shown)
    target = "; ".join(f"({phrase} | {code})" for code, phrase, kind in pairs if kind == "present")
    return Example(f"{note(rng, statements, opener=False)} Codes: {table}", target, tuple(codes))


def _with_wordings(draw: Draw) -> str:
    """A finding of the pool that can be said in other words."""
    for _ in range(_TRIES):
        (name,) = draw.findings(1)
        if name in draw.words.wordings:
            return name
    raise NoDrawError


def _near(draw: Draw, name: str) -> list[str]:
    """Other findings of this half of the split, of the same organ systems."""
    kept = [other for other in draw.words.neighbours[name] if other in draw.pool.whole.known]
    if not kept:
        raise NoDrawError
    return kept


def _sharing(count: int, pair: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    """Two texts that share exactly so many different words."""
    for _ in range(_TRIES):
        one, other = pair()
        if len(set(units(one)) & set(units(other))) == count:
            return one, other
    raise NoDrawError


MATCHING = (
    form_task("pair_matching", _pair_matching),
    form_task("query_relevance", _query_relevance),
    form_task("term_normalisation", _term_normalisation),
    form_task("icd_coding", _icd_coding),
)
