"""Classification: what a query asks for, what a trial criterion is about, where a sentence of a note stands.

In the held-out split both the terms and the sentence frames are new.
"""

from __future__ import annotations

from collections.abc import Iterable

from medcare.data.benchmark.forms_frames import ACTS, CRITERIA, SECTIONS
from medcare.data.benchmark.forms_queries import INTENTS
from medcare.data.benchmark.forms_recipe import Draw, Example, Recipe
from medcare.data.benchmark.sentences import RELATIVES, capital, paragraph

_TOPICS = (
    "{x} study, [inclusion|exclusion]",
    "{x} trial, [eligible|not eligible] if",
    "{x} trial, [include|exclude]",
)
_PATIENT_SAYS = (
    "[I have|I've got|it's about] {x} [and {y}|]",
    "my {r} [has|gets] {x}",
    "still {x}, [doctor|no change|as before]",
    "{x} again [and {y} too|]",
)


def _query_intent(draw: Draw) -> Example:
    label = draw.label(tuple(INTENTS))
    (finding,) = draw.findings(1)
    return Example(f"{capital(draw.ask(draw.pool.frames(INTENTS[label]), finding))}?", label, (finding,))


def _trial_criteria(draw: Draw) -> Example:
    label = draw.label(tuple(CRITERIA))
    topic, condition = draw.findings(2)
    if draw.rng.random() < 0.5:
        condition = draw.rng.choice(draw.pool.whole.diseases)
    head = draw.wording(_TOPICS, x=topic)
    criterion = draw.frame(CRITERIA[label], y=condition, **_details(draw))
    return Example(f"{capital(head)}: {criterion}.", label, (topic,))


def _note_sections(draw: Draw) -> Example:
    label = draw.label(tuple(SECTIONS))
    *terms, other = draw.findings(draw.rng.choice((2, 3)))
    sentences = [draw.frame(SECTIONS[label], x=term, y=other, **_details(draw)) for term in terms]
    return Example(paragraph(sentences), label, tuple(terms))


def _dialogue_acts(draw: Draw) -> Example:
    label = draw.label(tuple(ACTS))
    first, second = draw.findings(2)
    said = draw.wording(_PATIENT_SAYS, x=first, y=second, **_details(draw))
    reply = draw.frame(ACTS[label], x=first, **_details(draw))
    return Example(f"Patient: {capital(said)}. Doctor: {capital(reply)}.", label, (first,))


def _details(draw: Draw) -> dict[str, str]:
    rng = draw.rng
    return {
        "d": rng.choice(draw.pool.whole.drugs),
        "r": rng.choice(RELATIVES),
        "n": str(rng.randint(2, 9)),
        "m": str(rng.randint(40, 95)),
        "year": str(rng.randint(1995, 2024)),
    }


def _either(labels: Iterable[str]) -> str:
    *first, last = labels
    return f"{', '.join(first)} or {last}"


def _backwards(labels: Iterable[str]) -> str:
    return _either(reversed(list(labels)))


def _shuffled(labels: Iterable[str]) -> str:
    """In an order that training does not use: every other one first."""
    names = list(labels)
    return _either(names[1::2] + names[::2])


LABELS = (
    Recipe(
        name="query_intent",
        form="label",
        metric="macro_f1",
        measures="Tells what a patient's query asks for.",
        labels=tuple(INTENTS),
        training=(
            f"What does the query ask for: {_either(INTENTS)}?",
            f"Classify the query as {_either(INTENTS)}.",
            f"Intent of the query ({_backwards(INTENTS)}):",
        ),
        testing=(
            f"The person wants to know about {_shuffled(INTENTS)}? One word.",
            f"Choose the topic of this question: {_shuffled(INTENTS)}.",
        ),
        make=_query_intent,
    ),
    Recipe(
        name="trial_criteria",
        form="label",
        metric="macro_f1",
        measures="Tells what a criterion of a clinical trial is about.",
        labels=tuple(CRITERIA),
        sources=("hpo", "drugs"),
        training=(
            f"Is the trial criterion about {_either(CRITERIA)}?",
            f"Classify the criterion: {_either(CRITERIA)}.",
            f"Category of the criterion ({_backwards(CRITERIA)}):",
        ),
        testing=(
            f"This eligibility rule concerns {_shuffled(CRITERIA)}? One word.",
            f"Pick the kind of eligibility rule: {_shuffled(CRITERIA)}.",
        ),
        make=_trial_criteria,
    ),
    Recipe(
        name="note_sections",
        form="label",
        metric="macro_f1",
        measures="Tells which section of a clinical note a sentence comes from.",
        labels=tuple(SECTIONS),
        sources=("hpo", "drugs"),
        training=(
            f"Which section of the note is this: {_either(SECTIONS)}?",
            f"Sort the text into {_either(SECTIONS)}.",
            f"Section of the note ({_backwards(SECTIONS)}):",
        ),
        testing=(
            f"Where in a record would this stand: {_shuffled(SECTIONS)}?",
            f"Heading for these lines: {_shuffled(SECTIONS)}.",
        ),
        make=_note_sections,
    ),
    Recipe(
        name="dialogue_acts",
        form="label",
        metric="macro_f1",
        measures="Tells what the doctor does with a reply.",
        labels=tuple(ACTS),
        sources=("hpo", "drugs"),
        training=(
            f"What is the doctor's reply: {_either(ACTS)}?",
            f"Classify the doctor's line as {_either(ACTS)}.",
            f"Act of the doctor ({_backwards(ACTS)}):",
        ),
        testing=(
            f"The doctor is giving which of these: {_shuffled(ACTS)}?",
            f"Function of the last line: {_shuffled(ACTS)}.",
        ),
        make=_dialogue_acts,
    ),
)
