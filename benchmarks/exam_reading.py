"""How well answers to exams are read: those of real models, and right answers written in many ways.

    python benchmarks/exam_reading.py answers.jsonl [--exams EXAM ...] [--show]

`answers.jsonl` holds `id`, `options`, `text` and the letter that the text states as `stated`; what stands in
the id before the first and after the second slash names the source. `--exams` takes exams in any format of
docs/data.md: each right answer is written in every way of WAYS and read back. `--show` prints what is read
otherwise, to be judged by eye.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from medcare.data.readers import items
from medcare.evaluation.multiple_choice.extraction import extract_letters
from medcare.evaluation.multiple_choice.question import letters_of, listed_answer
from medcare.foundation.storage import read_jsonl
from medcare.text.records import Item

# The right letters, their lines ("B. Asthma") and their texts, in ways that models write them.
WAYS: dict[str, Callable[[str, str, str], str]] = {
    "letter": lambda letters, lines, texts: letters,
    "lines": lambda letters, lines, texts: lines,
    "lines, explained": lambda letters, lines, texts: f"{lines}\n\nOption A is often chosen; B is rare.",
    "The answer is": lambda letters, lines, texts: f"The answer is {', '.join(letters)}.",
    "答案为": lambda letters, lines, texts: f"答案为{letters}",
    "故选": lambda letters, lines, texts: f"根据题意分析，故选{'、'.join(letters)}。",
    "box": lambda letters, lines, texts: f"So it is $\\boxed{{{', '.join(letters)}}}$.",
    "JSON": lambda letters, lines, texts: json.dumps({"reasoning": "See A.", "answer": ", ".join(letters)}),
    "after a thought": lambda letters, lines, texts: f"<think>A or B?</think>\n\n**{', '.join(letters)}**",
    "text": lambda letters, lines, texts: texts,
}


def against_stated(path: Path, *, show: bool) -> None:
    """Print, for each source and each half, how many answers are read as they state."""
    counts: Counter[tuple[str, str]] = Counter()
    for row in read_jsonl(path):
        source = "/".join([*row["id"].split("/")[:1], *row["id"].split("/")[2:]])
        half = ("tune", "check")[hashlib.sha256(row["id"].encode()).digest()[0] % 2]
        read = "".join(sorted(extract_letters(row["text"], row["options"], several=False) or ""))
        verdict = "as stated" if read == row["stated"] else "several" if len(read) > 1 else "none"
        verdict = "another" if len(read) == 1 and verdict != "as stated" else verdict
        for name in (source, "all", half):
            counts[name, verdict] += 1
        if show and verdict != "as stated":
            print(f"{row['id']}: stated {row['stated']}, read {read or 'none'}: …{row['text'][-160:]!r}")
    print("| source | answers | read as stated | several | none | another |\n|---|---|---|---|---|---|")
    for name in sorted({source for source, _ in counts}):
        found = [counts[name, verdict] for verdict in ("as stated", "several", "none", "another")]
        share = f"{found[0]} ({found[0] / sum(found):.1%})"
        print(f"| {' | '.join(map(str, (name, sum(found), share, *found[1:])))} |")


def read_back(exams: list[str], *, show: bool) -> None:
    """Print, for each way of writing right answers, how many are read back."""
    wrong: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for exam in exams:
        questions = [item for item in items(exam) if item.options]
        several = any(len(item.answers) > 1 for item in questions)
        for item in questions:
            for way in WAYS:
                if way == "text" and len(set(map(str.lower, item.options))) < len(item.options):
                    continue  # the same text twice: nobody can tell which
                total[way] += 1
                text, right = _write(way, item)
                read = extract_letters(
                    text, item.options, letters=letters_of(item), question=item.prompt, several=several
                )
                if read != right:
                    wrong[way] += 1
                    if show:
                        print(
                            f"{item.id}, {way}: {text!r} read as {sorted(read or ())}, options {item.options}"
                        )
    print("| right answers written as | answers | read back |\n|---|---|---|")
    for way, count in total.items():
        print(f"| {way} | {count} | {count - wrong[way]} ({(count - wrong[way]) / count:.2%}) |")


def _write(way: str, item: Item) -> tuple[str, frozenset[str]]:
    letters = "".join(letters_of(item)[place] for place in item.answers)
    texts = "\n".join(item.options[place] for place in item.answers)
    return WAYS[way](letters, listed_answer(item), texts), frozenset(letters)


def main() -> None:
    """Parse the command line and print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("answers", type=Path)
    parser.add_argument("--exams", nargs="*", default=[])
    parser.add_argument("--show", action="store_true")
    arguments = parser.parse_args()
    against_stated(arguments.answers, show=arguments.show)
    if arguments.exams:
        print()
        read_back(arguments.exams, show=arguments.show)


if __name__ == "__main__":
    main()
