"""Classification: what a query asks for, what a trial criterion is about, where a sentence of a note stands.

In the held-out split both the terms and the sentence frames are new.
"""

from __future__ import annotations

from collections.abc import Iterable

from medcare.benchmark.forms.frames import ACTS, CRITERIA, SECTIONS
from medcare.benchmark.forms.queries import INTENTS
from medcare.benchmark.forms.recipe import Draw, Example, FormTask
from medcare.benchmark.forms.sentences import RELATIVES, capital, paragraph

_TOPICS = (
    "{x} study, [inclusion|exclusion]",
    "{x} trial, [eligible|not eligible] if",
    "{x} trial, [include|exclude]",
)
# Added to any criterion, so that its length says little.
_WHEN = (
    "",
    "",
    "at entry",
    "at screening",
    "as judged by the [doctor|investigator]",
    "before the first visit",
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
    criterion = f"{draw.frame(CRITERIA[label], y=condition, **_details(draw))} {draw.wording(_WHEN)}".strip()
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


def _listed(labels: Iterable[str]) -> str:
    *first, last = labels
    return capital(f"{', '.join(first)} or {last}")


LABELS = (
    FormTask(
        name="query_intent",
        form="label",
        metric="macro_f1",
        measures="Tells what a patient's query asks for.",
        labels=tuple(INTENTS),
        training=(
            f"{_listed(INTENTS)}: what does the query ask for?",
            f"{_listed(INTENTS)}: the intent of the query is",
            f"{_listed(INTENTS)}? Classify the query.",
            f"{_listed(INTENTS)}: what does the person want to know?",
        ),
        testing=(
            f"{_listed(INTENTS)}: which intent has this query?",
            f"{_listed(INTENTS)}? Say what is asked for.",
        ),
        make=_query_intent,
    ),
    FormTask(
        name="trial_criteria",
        form="label",
        metric="macro_f1",
        measures="Tells what a criterion of a clinical trial is about.",
        labels=tuple(CRITERIA),
        sources=("hpo", "drugs"),
        training=(
            f"{_listed(CRITERIA)}: what is the criterion about?",
            f"{_listed(CRITERIA)}: the category of the criterion is",
            f"{_listed(CRITERIA)}? Classify the criterion.",
            f"{_listed(CRITERIA)}: what does the trial ask of its patients?",
        ),
        testing=(
            f"{_listed(CRITERIA)}: which category has this criterion?",
            f"{_listed(CRITERIA)}? Say what the criterion concerns.",
        ),
        make=_trial_criteria,
    ),
    FormTask(
        name="note_sections",
        form="label",
        metric="macro_f1",
        measures="Tells which section of a clinical note a sentence comes from.",
        labels=tuple(SECTIONS),
        sources=("hpo", "drugs"),
        training=(
            f"{_listed(SECTIONS)}: which section of the note is this?",
            f"{_listed(SECTIONS)}: the section of the note is",
            f"{_listed(SECTIONS)}? Classify the text.",
            f"{_listed(SECTIONS)}: where in a record does this belong?",
        ),
        testing=(
            f"{_listed(SECTIONS)}: from which section does this come?",
            f"{_listed(SECTIONS)}? Say where in the note this stands.",
        ),
        make=_note_sections,
    ),
    FormTask(
        name="dialogue_acts",
        form="label",
        metric="macro_f1",
        measures="Tells what the doctor does with a reply.",
        labels=tuple(ACTS),
        sources=("hpo", "drugs"),
        training=(
            f"{_listed(ACTS)}: what is the doctor's reply?",
            f"{_listed(ACTS)}: the act of the doctor is",
            f"{_listed(ACTS)}? Classify the doctor's line.",
            f"{_listed(ACTS)}: what does the doctor do?",
        ),
        testing=(
            f"{_listed(ACTS)}: which act is the doctor's line?",
            f"{_listed(ACTS)}? Say what the doctor's reply does.",
        ),
        make=_dialogue_acts,
    ),
)
