"""Made-up answers to the 18 tasks, and what the official PromptCBLUE evaluator gives for them.

The texts were generated for this purpose: right answers in each task's form, and damaged ones. The numbers
are those of michael-wzhu/PromptCBLUE (src/evaluation, with transformers 4.28.1, rouge_chinese 1.0.3,
scikit-learn 1.9.1), run on each row alone and on all rows that it can score; `null` where it crashes.
`pieces.json` holds texts and what `BasicTokenizer` of the same version makes of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from medcare.text.records import Item

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class GoldenRow:
    """A right answer, a damaged one, and the official measures of the latter, None where there are none."""

    item: Item
    prediction: str
    official: tuple[float, ...] | None

    @property
    def target(self) -> str:
        return self.item.target


@dataclass(frozen=True)
class Golden:
    """One task: the names of the measures, the rows, and the measures on all rows that have some."""

    measures: tuple[str, ...]
    rows: tuple[GoldenRow, ...]
    official: tuple[float, ...]


def cblue_item(name: str, target: str, choices: tuple[str, ...] = ()) -> Item:
    """A test item of a PromptCBLUE task, with what scoring needs of it."""
    return Item(name, "", "alignment", "held_out", name, "", target=target, choices=choices)


@cache
def read_golden(task: str) -> Golden:
    """The goldens of a task."""
    tree = json.loads((_FOLDER / f"{task}.json").read_text(encoding="utf-8"))
    rows = tuple(
        GoldenRow(
            cblue_item(str(number), row["target"], tuple(row["answer_choices"] or ())),
            row["prediction"],
            None if row["official"] is None else tuple(row["official"]),
        )
        for number, row in enumerate(tree["rows"])
    )
    return Golden(tuple(tree["measures"]), rows, tuple(tree["official"]))
