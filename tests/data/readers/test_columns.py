"""Columns that people have: chats as prompts, exchanges, thoughts, keys of every kind, folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medcare.data.readers import Bad, conversations, items, open_data
from medcare.text.records import Message
from tests.data.readers.samples import write

USER, ANSWER = {"role": "user", "content": "Asthma?"}, {"role": "assistant", "content": "A disease."}
ASKED = (Message("user", "Asthma?"), Message("assistant", "A disease."))


@pytest.mark.parametrize(
    ("format", "row"),
    [
        (None, {"prompt": [USER], "completion": [ANSWER]}),
        (None, {"prompt": [USER], "completion": "A disease."}),
        (None, {"conversation": [USER, ANSWER]}),
        (
            None,
            {"conversation": [{"from": "human", "value": "Asthma?"}, {"from": "gpt", "value": "A disease."}]},
        ),
        (None, {"conversation": [{"human": "Asthma?", "assistant": "A disease."}]}),
        (None, {"conversation": [{"input": "Asthma?", "output": "A disease."}]}),
        ("chosen", {"prompt": "Asthma?", "chosen": [ANSWER], "rejected": [ANSWER]}),
        ("chosen", {"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}),
    ],
)
def test_chats_in_all_their_columns(format: str | None, row: dict[str, Any], tmp_path: Path) -> None:
    (example,) = conversations(str(write(tmp_path / "a.jsonl", [row])), format)
    assert example.messages == ASKED


def test_thoughts_are_kept_or_dropped(tmp_path: Path) -> None:
    path = str(
        write(tmp_path / "a.jsonl", [{"Question": "Asthma?", "Complex_CoT": "Hm.", "Response": "A disease."}])
    )
    (kept,), (dropped,) = conversations(path), conversations(path, thoughts="drop")
    assert kept.messages[1] == Message("assistant", "A disease.", reasoning_content="Hm.")
    assert dropped.messages == ASKED


def answers(options: Any, *given: Any, tmp_path: Path) -> list[tuple[int, ...] | str]:
    """Indices of the right options, or what is wrong with the row."""
    rows = [{"question": "Which?", "options": options, "answer": answer} for answer in given]
    reading = open_data(str(write(tmp_path / "a.jsonl", rows)))
    return [record.kind if isinstance(record, Bad) else record.answers for _, record in reading.items()]


FOUR = ["lungs", "liver", "skin", "heart"]


@pytest.mark.parametrize(
    "given", ["A. C. D.", "A.C.D", "ACD", "A, C, D", "A\u3001C\u3001D", ["A", "C", "D"], "a c d"]
)
def test_several_letters(given: Any, tmp_path: Path) -> None:
    assert answers(FOUR, given, tmp_path=tmp_path) == [(0, 2, 3)]


@pytest.mark.parametrize("given", ["B", "B.", "(B)".strip("()"), "liver", "B. liver", "B) liver"])
def test_one_answer_in_its_spellings(given: str, tmp_path: Path) -> None:
    assert answers(FOUR, given, tmp_path=tmp_path) == [(1,)]


def test_integer_negative_and_missing_keys(tmp_path: Path) -> None:
    found = answers(FOUR, 0, 3, 2.0, -1, None, -2, 4, "", tmp_path=tmp_path)
    assert found == [
        (0,),
        (3,),
        (2,),
        "no answer",
        "no answer",
        "no such option",
        "no such option",
        "no answer",
    ]
    assert answers(FOUR, 1, 4, tmp_path=tmp_path) == [(0,), (3,)], "a 4 among four options counts from 1"


def test_numbers_count_options_that_are_left_empty(tmp_path: Path) -> None:
    """Without B, the number of C is still the third."""
    row = {"question": "Which?", "opa": "lungs", "opb": "", "opc": "skin", "opd": "heart"}
    path = write(tmp_path / "a.jsonl", [{**row, "cop": cop} for cop in (0, 2, 3, 1)])
    found = [record for _, record in open_data(str(path), "medmcqa").items()]
    assert [record.target for record in found[:3]] == ["A. lungs", "C. skin", "D. heart"]
    assert isinstance(found[3], Bad)
    assert found[1].prompt.splitlines()[1:] == ["A. lungs", "C. skin", "D. heart"]


def test_a_ceval_test_file_gives_no_false_row(tmp_path: Path) -> None:
    path = tmp_path / "physician_test.csv"
    path.write_text(
        "id,question,A,B,C,D\n0,Which?,one,two,three,A\n1,What?,one,two,three,B\n", encoding="utf-8"
    )
    with pytest.raises(Exception, match="an exam without right answers"):
        list(conversations(str(path)))


@pytest.mark.parametrize("source", ["", "/*.jsonl"])
def test_folders_and_patterns_train_and_test(source: str, tmp_path: Path) -> None:
    rows = [{"question": "Which?", "options": FOUR, "answer": "B"}]
    for name in ("one", "two"):
        write(tmp_path / f"{name}.jsonl", rows)
    assert len(list(conversations(f"{tmp_path}{source}"))) == 2
    assert [item.task for item in items(f"{tmp_path}{source}")] == ["one", "two"]


def test_rows_in_lists_of_an_object(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    path.write_text(
        '{"train": [{"prompt": "a", "completion": "b"}],\n "test": [{"prompt": "c", "completion": "d"}]}'
    )
    assert [example.messages[0].content for example in conversations(str(path))] == ["a", "c"]


def test_how_a_file_is_read_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"Instruction": "Asthma?", "Output": "A disease."}]
    for name in ("a.jsonl", "b.jsonl", "a.jsonl"):
        assert len(list(conversations(str(write(tmp_path / name, rows))))) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if "read as" in line]
    assert [line.split(":")[0] for line in told] == [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]


@pytest.mark.parametrize(
    ("header", "row", "columns", "options"),
    [
        ("question,A,B,C,D,E,answer", "Which?,a1,b1,c1,d1,e1,E", {}, ("a1", "b1", "c1", "d1", "e1")),
        ("question,A,B,C,answer", "Which?,a1,b1,c1,C", {}, ("a1", "b1", "c1")),
        ("Question,A,B,Answer", "Which?,a1,b1,B", {}, ("a1", "b1")),
        ("question,A,B,C,D,E,answer", "Which?,a1,b1,,,,B", {}, ("a1", "b1")),
        (
            "Frage,O1,O2,O3,Richtig",
            "Which?,a1,b1,c1,c1",
            {"question": "Frage", "A": "O1", "B": "O2", "C": "O3", "answer": "Richtig"},
            ("a1", "b1", "c1"),
        ),
    ],
)
def test_as_many_columns_of_options_as_there_are(header, row, columns, options, tmp_path: Path) -> None:
    """The last option is the right one: an option that is left out would make it another one."""
    (tmp_path / "exam.csv").write_text(f"{header}\n{row}\n", encoding="utf-8")
    (item,) = items(str(tmp_path / "exam.csv"), columns=columns)
    assert (item.options, item.answers) == (options, (len(options) - 1,))
