"""Rows in memory are data wherever a path is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import datasets
import pandas as pd
import pytest

import medcare
from medcare.data.in_memory import source_of
from medcare.data.readers import conversations, items
from medcare.foundation.errors import ConfigError, DataError

ROWS = [{"question": f"What is {number}?", "answer": f"It is {number}."} for number in range(4)]
EXAM = {"Question": ["Which?", "What?"], **{letter: ["x", "y"] for letter in "ABCD"}, "Answer": ["B", "A"]}
FORMS = {
    "list": list,
    "generator": iter,
    "pandas": pd.DataFrame,
    "filtered": lambda rows: pd.DataFrame([*rows, {}]).dropna(),
    "indexed": lambda rows: pd.DataFrame(rows, index=list("abcd")),
    "datasets": datasets.Dataset.from_list,
    "numpy": lambda rows: datasets.Dataset.from_list(rows).with_format("numpy"),
    "stream": lambda rows: datasets.Dataset.from_list(rows).to_iterable_dataset(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_rows_of_the_file(form, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    expected = [example.messages for example in conversations(str(file))]
    source = source_of(FORMS[form](ROWS))
    assert [example.messages for example in conversations(source)] == expected
    assert source == source_of(list(ROWS)), "the same rows are the same file"
    assert source_of(file) == str(file)


def test_a_missing_cell_is_none_and_a_bad_row_is_bad_as_in_a_file():
    table = pd.DataFrame([*ROWS, {"question": "And?", "answer": float("nan")}])
    assert Path(source_of(table)).read_text().splitlines()[-1] == '{"question": "And?", "answer": null}'
    report = medcare.check(table)
    assert (report["rows"], report["good"]) == (5, 4)
    assert report["bad_examples"][0][0] == 5


def test_an_exam_in_a_table_tests():
    found = list(items(source_of(pd.DataFrame(EXAM))))
    assert [item.answers for item in found] == [(1,), (0,)]
    assert {item.task for item in found} == {"given"}


def test_lists_and_turns_survive():
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    for made in (pd.DataFrame(rows), datasets.Dataset.from_list(rows)):
        [example] = conversations(source_of(made))
        assert [turn.content for turn in example.messages] == ["a", "b"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)), "several splits, one"),
        ({"question": ["a"]}, "must be a mapping of columns, got a str"),
        (7, "Rows are required, or a path, got int"),
        (b"x", "got bytes"),
        (pd.DataFrame({"question": ["a", 1]}), "Make its columns texts"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Duplicate column names .* each with a name of its own"),
        ([{"a": 1}, {("a", 1): 2}], "Row 2 of the given data can't be written as JSON: keys must be str"),
    ],
)
def test_what_is_no_data_is_told(data, reason):
    with pytest.raises(DataError, match=reason):
        source_of(data)


def test_settings_take_rows_wherever_they_take_a_path():
    table = pd.DataFrame(ROWS)
    config = medcare.load_config(
        settings={
            "aggregate": {"data": table, "validation": {"data": ROWS[:1]}},
            "evaluation": {"items": pd.DataFrame(EXAM)},
        }
    )
    assert config.aggregate.data == source_of(table)
    assert config.aggregate.validation.data == source_of(ROWS[:1])
    assert config.evaluation.items == source_of(pd.DataFrame(EXAM))
    with pytest.raises(ConfigError, match="Put it into a list"):
        medcare.load_config(settings="align.epochs=2")


def test_what_nobody_used_for_long_is_removed_and_so_is_what_a_kill_left(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDCARE_CACHE", str(tmp_path))
    former = Path(source_of([{"question": "Former?", "answer": "Yes."}]))
    left, fresh = tmp_path / "given" / ".x.jsonl.1234.part", tmp_path / "given" / "y.jsonl"
    left.write_text('{"question": "Ha')
    fresh.write_text("{}")
    for path in (former.parent, left):
        os.utime(path, (0, 0))
    now = source_of(ROWS)
    assert sorted((tmp_path / "given").iterdir()) == sorted([Path(now).parent, fresh])
