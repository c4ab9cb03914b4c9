"""What a new user does wrong, of docs/first_hour.md: each ends in one sentence with what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from medcare.foundation.errors import MedCareError
from tests.cli.test_second_try import command

QUESTIONS = 'question,answer\n"What is asthma?","A disease."\n"What is fever?","A sign."\n'
EXAM = {"question": "Which sign?", "options": {"A": "cough", "B": "rash"}}
FILES = {
    "train.csv": QUESTIONS,
    "german.csv": "Frage;Antwort\nWas ist Asthma?;Eine Krankheit.\n",
    "options.csv": "Frage,Option1,Option2,Option3,Richtig\nWas?,Husten,Fieber,Schmerz,Fieber\n",
    "titled.csv": f"Data of 2024,\n{QUESTIONS}",
    "unclosed.csv": 'question,answer\nWhat?,"never closed\nWho?,me\n',
    "curly.jsonl": "{“question”: “What?”, “answer”: “Flu”}\n",
    "single.jsonl": "{'question': 'What?', 'answer': 'Flu'}\n",
    "comma.jsonl": '{"question": "What?", "answer": "Flu",}\n',
    "unanswered.jsonl": json.dumps(EXAM) + "\n",
    "empty.csv": "",
    "header.csv": "question,answer\n",
    "tabs.yaml": "model:\n\tbase: x\n",
    "misspelt.yaml": "aggregate: {epoch: 2}\n",
    "settings.yaml": "align: {epochs: 1}\n",
    "folder/one.csv": QUESTIONS,
    "model/config.json": "{}",
}
PAGE = Path("docs/first_hour.md").read_text(encoding="utf-8")
# A command line, and what it is answered with.
MISTAKES = dict(re.findall(r"^\| [^|]+ \| `([^`|]+)` \| ([^|]+) \|$", PAGE, flags=re.MULTILINE))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_page_has_all_of_its_rows():
    assert len(MISTAKES) >= 40
    assert len(MISTAKES) == PAGE.count("\n| ") - 1, "but the heading"


@pytest.mark.parametrize(("line", "said"), list(MISTAKES.items()), ids=list(MISTAKES))
def test_a_mistake_is_answered_with_what_to_do(line, said, here):
    before = {path for path in here.rglob("*") if path.name != ".lock"}
    with pytest.raises(MedCareError) as told:
        command(here, line, settings=())
    assert said in str(told.value)
    assert "\n" not in str(told.value)
    left = {path.relative_to(here).parts[0] for path in here.rglob("*") if path.name != ".lock"} - {
        path.relative_to(here).parts[0] for path in before
    }
    assert left <= {"o"}, "nothing is written beside what was asked for"
