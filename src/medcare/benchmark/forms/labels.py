"""Classification: what a query asks for, what a trial criterion is about, where a sentence of a note stands.

In the held-out split both the terms and the sentence frames are new.
"""

from __future__ import annotations

from medcare.benchmark.forms.recipe import Draw, Example, form_task
from medcare.benchmark.forms.sentences import RELATIVES, capital, paragraph
from medcare.benchmark.forms.wordings import ACTS, CRITERIA, INTENTS, SECTIONS
from medcare.benchmark.task_data import texts

_SAID = texts("forms/wordings.yaml")["labels"]


def _query_intent(draw: Draw) -> Example:
    label = draw.label(tuple(INTENTS))
    (finding,) = draw.findings(1)
    return Example(f"{capital(draw.ask(draw.pool.frames(INTENTS[label]), finding))}?", label, (finding,))


def _trial_criteria(draw: Draw) -> Example:
    label = draw.label(tuple(CRITERIA))
    topic, condition = draw.findings(2)
    if draw.rng.random() < 0.5:
        condition = draw.rng.choice(draw.pool.whole.diseases)
    head = draw.wording(_SAID["topics"], x=topic)
    # The end may be added to any criterion, so that its length says little.
    criterion = draw.frame(CRITERIA[label], y=condition, **_details(draw))
    criterion = f"{criterion} {draw.wording(_SAID['when'])}".strip()
    return Example(f"{capital(head)}: {criterion}.", label, (topic,))


def _note_sections(draw: Draw) -> Example:
    label = draw.label(tuple(SECTIONS))
    *terms, other = draw.findings(draw.rng.choice((2, 3)))
    sentences = [draw.frame(SECTIONS[label], x=term, y=other, **_details(draw)) for term in terms]
    return Example(paragraph(sentences), label, tuple(terms))


def _dialogue_acts(draw: Draw) -> Example:
    label = draw.label(tuple(ACTS))
    first, second = draw.findings(2)
    said = draw.wording(_SAID["patient_says"], x=first, y=second, **_details(draw))
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


LABELS = (
    form_task("query_intent", _query_intent),
    form_task("trial_criteria", _trial_criteria),
    form_task("note_sections", _note_sections),
    form_task("dialogue_acts", _dialogue_acts),
)
