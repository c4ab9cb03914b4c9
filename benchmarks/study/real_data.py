"""The real world's training mixes and its test set, out of public files.

    python benchmarks/study/real_data.py FOLDER data/real [--rows N] [--items N]

For a smaller study, --rows says how many rows each source gives at most, --items how many items each task
has, and --sources which sources and tasks there are.
FOLDER holds the files that `TRAINED` and `TESTED` name. They are public sets in formats of docs/data.md:
HEAD-QA in MedQA's columns, MMLU's CSV by subject, PubMedQA's questions, MedQuAD's answers, and the sentences
of NCBI-disease and BC5CDR as an instruction with an answer in `Type: a, b` lines. What is written is for
`medcare study benchmarks/study/real.yaml`.
"""

from __future__ import annotations

import argparse
import random
import re
from pathlib import Path
from typing import Any

import yaml

from medcare.data.mix import build
from medcare.data.readers import Bad, open_data
from medcare.foundation.storage import read_jsonl, write_jsonl, write_text
from medcare.text.records import Item

TRAINED = {
    "knowledge": {
        "medquad": ("text/medquad_train.alpaca.jsonl", 1200),
        "headqa": ("exams/headqa_en_train.medqa.jsonl", 2400),
        "pubmedqa_reasons": ("text/pubmedqa_train500_reasons.alpaca.jsonl", 450),
    },
    "forms": {
        "ncbi_disease": ("forms/ncbi_disease_train.alpaca.jsonl", 1200),
        "bc5cdr": ("forms/bc5cdr_train.alpaca.jsonl", 1200),
        "pubmedqa": ("exams/pubmedqa_train450.jsonl", 450),
    },
}
"""By mix and source: a file and the most rows that are used of it."""

TESTED = {
    "headqa": ("exams/headqa_en_test.medqa.jsonl", "options"),
    "mmlu_medical": ("exams/mmlu/*_test.csv", "options"),
    "mmlu_other": ("exams/mmlu_other/*_test.csv", "options"),
    "ncbi_disease": ("forms/ncbi_disease_test.alpaca.jsonl", "typed_lines"),
    "bc5cdr": ("forms/bc5cdr_test.alpaca.jsonl", "typed_lines"),
    "pubmedqa": ("exams/pubmedqa_test500.jsonl", "options"),
}
"""By task: files and how answers are written. `mmlu_other` is what no stage trains and none should lose."""

FORMS = ("ncbi_disease", "bc5cdr", "pubmedqa")
LABELS = {"ncbi_disease": ["Disease"], "bc5cdr": ["Chemical", "Disease"]}
ITEMS = 400  # of a task
_OPTION = re.compile(r"[A-Z]\. ")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--rows", type=int, default=10**9)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument(
        "--sources", nargs="*", default=[*TESTED, *(name for mix in TRAINED.values() for name in mix)]
    )
    options = parser.parse_args()
    source, target = options.source, options.target
    for name, sources in TRAINED.items():
        recipe = [
            {"name": part, "data": str((source / file).resolve()), "cap": min(cap, options.rows)}
            for part, (file, cap) in sources.items()
            if part in options.sources
        ]
        write_text(target / f"{name}.yaml", yaml.safe_dump({"seed": 0, "sources": recipe}))
        print(f"{name}: {build(target / f'{name}.yaml', target / f'{name}.jsonl')['rows']} rows")
    rows = []
    for task, (pattern, form) in TESTED.items():
        if task in options.sources:
            rows += tested(source, task, pattern, form)[: options.items]
    rows += taught(list(read_jsonl(target / "knowledge.jsonl")))[: 2 * options.items]
    write_jsonl(target / "test.jsonl", rows)
    print(f"test: {len(rows)} items")


def taught(rows: list[dict[str, Any]]) -> list[dict[str, object]]:
    """Trained rows, asked for again: HEAD-QA's as they were, MedQuAD's for the first sentence of the answer.

    MedQuAD's other options are the first sentences of three other answers.
    """
    talks = [(row, *(message["content"] for message in row["messages"])) for row in rows]
    exams = [
        {**_asked(row, "headqa_taught"), "prompt": question, "options": options, "target": answer[3:]}
        for row, question, answer in talks
        if row["source"] == "headqa"
        if answer[3:] in (options := [line[3:] for line in question.splitlines() if _OPTION.match(line)])
    ]
    told = [
        (row, question, answer.split(". ")[0])
        for row, question, answer in talks
        if row["source"] == "medquad"
    ]
    sentences = list(dict.fromkeys(sentence for *_, sentence in told))
    for row, question, sentence in told:
        at = sentences.index(sentence)
        options = [sentence, *[*sentences[at + 1 :], *sentences[:at]][:3]]
        random.Random(question).shuffle(options)
        exams.append(
            {**_asked(row, "medquad_taught"), "prompt": question, "options": options, "target": sentence}
        )
    random.Random(0).shuffle(exams)
    return exams


def _asked(row: dict[str, Any], task: str) -> dict[str, object]:
    return {
        "id": f"{task}-{row['id']}",
        "task": task,
        "form": "options",
        "family": "knowledge",
        "answered": "likelihood",
    }


def tested(source: Path, task: str, pattern: str, form: str) -> list[dict[str, object]]:
    """Rows that say how they are scored, drawn out of all files of a pattern."""
    files = sorted(source.glob(pattern))
    if not files:
        raise SystemExit(f"{source / pattern} is missing.")
    found = [row for file in files for row in asked(file, task, form)]
    random.Random(task).shuffle(found)
    return found[:ITEMS]


def asked(file: Path, task: str, form: str) -> list[dict[str, object]]:
    """The good rows of one file."""
    opened = open_data(str(file))
    rows: list[dict[str, object]] = []
    for number, record in opened.items() if form == "options" else opened.conversations():
        if isinstance(record, Bad):
            continue
        row: dict[str, object] = {"id": f"{task}-{file.stem}-{number}", "task": task, "form": form}
        row["family"] = "alignment" if task in FORMS else "knowledge"
        if isinstance(record, Item):
            row |= {"answered": "likelihood", "prompt": record.prompt, "options": list(record.options)}
            row["target"] = record.options[record.answers[0]]
        else:
            *prompt, answer = record.messages
            row |= {"labels": LABELS[task], "prompt": "\n\n".join(part.content for part in prompt)}
            row["target"] = answer.content
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
