"""What can be scored on the embedded benchmark without knowledge: what a good score must clearly beat.

Exams: every way in which an option can be chosen by its looks. Forms: answers made by matching strings, by
shortcuts that know every term of the vocabulary and the form that is asked for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from medcare.benchmark.exams.shortcuts import (
    SHORTCUTS,
    accuracy,
    answer_texts,
    credit,
    majority_accuracy,
    similarity,
    trigrams,
)
from medcare.benchmark.forms.label_shortcuts import by_value, fit, won
from medcare.benchmark.forms.sentences import RELATIVES
from medcare.benchmark.forms.vocabulary import DRUGS, Vocabulary
from medcare.benchmark.task_data import TaskData
from medcare.text.records import Conversation, Item

_TOKEN = re.compile(r"[A-Za-z0-9-]+")
_DOSE = re.compile(r"\d+ mg")
_WORDS_IN_TERM = 4

Hit = tuple[int, str]  # where it starts, and the term


def position_accuracy(items: Sequence[Item]) -> dict[int, float]:
    """Accuracy of always choosing one position."""
    counts = Counter(item.answers[0] for item in items)
    return {place: counts[place] / len(items) for place in range(max(len(item.options) for item in items))}


def all_accuracies(items: Sequence[Item], training: Iterable[Conversation]) -> dict[str, float]:
    """Every shortcut's expected accuracy on one task's items."""
    table = {name: accuracy(shortcut, items) for name, shortcut in SHORTCUTS.items()}
    for place, value in position_accuracy(items).items():
        table[f"always option {place + 1}"] = value
    offered = [option for item in items for option in item.options]
    table["most common training answer"] = majority_accuracy(items, answer_texts(training))
    table["most common option"] = majority_accuracy(items, offered)
    table["most common answer of other items"] = _majority_of_others(items)
    return table


def _majority_of_others(items: Sequence[Item]) -> float:
    """Accuracy of the option that is most often the answer of the task's other test items."""
    counts = Counter(item.target for item in items)
    total = 0.0
    for item in items:
        others = counts - Counter((item.target,))
        total += credit([others[option] for option in item.options], item.answers[0])
    return total / len(items)


def label_accuracies(task: TaskData) -> dict[str, float]:
    """Every shortcut's expected accuracy on a task's test items, and that of the most common label."""
    labels = [talk.messages[-1].content for talk in task.training]
    table = fit([text_of(talk.messages[0].content) for talk in task.training], labels)
    table["most common training answer"] = by_value(lambda _: 0, labels, labels)
    return {
        name: sum(won(guess, text_of(item.prompt), item.target) for item in task.items) / len(task.items)
        for name, guess in table.items()
    }


def text_of(prompt: str) -> str:
    """The text that the instruction in the first line is about."""
    return prompt.partition("\n")[2]


@dataclass(frozen=True)
class Spotter:
    """Finds terms in texts.

    Attributes:
        words: the terms.
    """

    words: Vocabulary

    @cached_property
    def kinds(self) -> dict[str, str]:
        """The kind of each term, by the term in lower case; genes as they are, for some spell words."""
        table = {
            "drug": DRUGS,
            "phrase": [phrase for entry in self.words.categories.values() for phrase in entry.phrases],
            "wording": [text for wordings in self.words.wordings.values() for text in wordings],
            "relative": RELATIVES,
            "disease": self.words.diseases,
            "finding": self.words.by_name,
        }
        kinds = {name.lower(): kind for kind, names in table.items() for name in names}
        return kinds | dict.fromkeys(self.words.gene_of.values(), "gene")

    def spot(self, text: str, *kinds: str) -> list[Hit]:
        """Terms of these kinds from left to right, the longest where several begin."""
        tokens = list(_TOKEN.finditer(text))
        hits, at = [], 0
        while at < len(tokens):
            for end in range(min(at + _WORDS_IN_TERM + 1, len(tokens)), at, -1):
                term = text[tokens[at].start() : tokens[end - 1].end()]
                if (self.kinds.get(term) or self.kinds.get(term.lower())) in kinds:
                    hits.append((tokens[at].start(), term))
                    at = end - 1
                    break
            at += 1
        return hits


def answers(task: str, item: Item, spotter: Spotter) -> list[str]:
    """What the shortcuts of a task answer; empty for a task that has none.

    Args:
        task: name of an alignment task.
        item: one of its items.
        spotter: finds terms.
    """
    text = text_of(item.prompt)
    return [shortcut(text, spotter) or "none" for shortcut in READERS.get(task, ())]


def _names(hits: Sequence[Hit]) -> list[str]:
    return list(dict.fromkeys(term for _, term in hits))


def _all_by_type(text: str, spotter: Spotter) -> str:
    groups = {kind: _names(spotter.spot(text, kind)) for kind in ("finding", "disease", "gene", "drug")}
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in groups.items() if names)


def _all_findings(text: str, spotter: Spotter) -> str:
    return "; ".join(_names(spotter.spot(text, "finding")))


def _nearest_relative(text: str, spotter: Spotter) -> str:
    relatives = spotter.spot(text, "relative")
    if not relatives:
        return ""
    return "; ".join(
        f"({min(relatives, key=lambda hit: abs(hit[0] - at))[1]} | {term})"
        for at, term in spotter.spot(text, "finding")
    )


def _all_present(text: str, spotter: Spotter) -> str:
    return "; ".join(f"({term} | present | none)" for term in _names(spotter.spot(text, "finding")))


def _next_dose(text: str, spotter: Spotter) -> str:
    found = []
    for at, term in spotter.spot(text, "drug"):
        dose = _DOSE.search(text, at)
        if dose:
            found.append(f"({term} | {dose[0]} | started)")
    return "; ".join(found)


def _first_disease(text: str, spotter: Spotter) -> str:
    diseases = _names(spotter.spot(text, "disease"))
    if not diseases:
        return ""
    shown = [f"({diseases[0]} | shows | {term})" for term in _names(spotter.spot(text, "finding"))]
    genes = [f"({term} | causes | {diseases[0]})" for term in _names(spotter.spot(text, "gene"))]
    return "; ".join((*genes, *shown))


def _neighbours_cause(text: str, spotter: Spotter) -> str:
    names = _names(spotter.spot(text, "finding"))
    return "; ".join(f"({a} | causes | {b})" for a, b in zip(names[::2], names[1::2], strict=False))


def _first_drug_if_present(text: str, spotter: Spotter) -> str:
    findings, drugs = _names(spotter.spot(text, "finding")), _names(spotter.spot(text, "drug"))
    if not findings or len(drugs) < 2:
        return ""
    return f"({findings[-1]} | yes | {drugs[0]}); ({findings[-1]} | no | {drugs[1]})"


def _every_candidate(text: str, _: Spotter) -> str:
    return text.rpartition("Terms: ")[2]


def _candidate_like_text(text: str, _: Spotter) -> str:
    said, listed = text.split(" Terms: ")
    return max(listed.split("; "), key=lambda name: similarity(trigrams(name), trigrams(said)))


def _title_like_phrase(text: str, spotter: Spotter) -> str:
    said, listed = text.split(" Codes: ")
    titles = dict(entry.split(" ", 1) for entry in listed.split(", "))
    found = []
    for _, phrase in spotter.spot(said, "phrase", "finding"):
        code = max(titles, key=lambda code: similarity(trigrams(titles[code]), trigrams(phrase)))
        found.append(f"({phrase} | {code})")
    return "; ".join(found)


def _every_symptom_present(text: str, spotter: Spotter) -> str:
    names = _names(spotter.spot(text, "finding"))
    return f"present: {', '.join(names)}" if names else ""


def _copy(text: str, _: Spotter) -> str:
    return text


def _fill_in_order(text: str, spotter: Spotter) -> str:
    names = [*_names(spotter.spot(text, "finding")), "none", "none", "none"]
    drugs = [*_names(spotter.spot(text, "drug")), "none"]
    return f"Complaint: {names[0]}. Asked: {names[1]} present. Past: {names[2]}. Plan: {drugs[0]}."


READERS: dict[str, tuple[Callable[[str, Spotter], str], ...]] = {
    "typed_entities": (_all_by_type,),
    "negated_findings": (_all_findings,),
    "family_history": (_nearest_relative,),
    "finding_events": (_all_present,),
    "drug_courses": (_next_dose,),
    "disease_relations": (_first_disease,),
    "causal_relations": (_neighbours_cause,),
    "treatment_rules": (_first_drug_if_present,),
    "term_normalisation": (_every_candidate, _candidate_like_text),
    "icd_coding": (_title_like_phrase,),
    "symptom_status": (_every_symptom_present,),
    "dialogue_report": (_copy, _fill_in_order),
}
