"""Test sets of one's own: what is taken, what is refused before anything is predicted, and the scores."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from medcare.data.record_files import read_items
from medcare.evaluation.cblue.tasks import TASKS
from medcare.evaluation.results import write_results
from medcare.evaluation.score_files import score
from medcare.evaluation.test_set import adopt, adopted
from medcare.foundation.errors import DataError, EvaluationError
from medcare.foundation.storage import read_json, write_jsonl
from medcare.reports import write_report
from tests.evaluation.cblue.goldens import read_golden


def cblue_rows(*names: str) -> list[dict]:
    return [
        {
            "sample_id": f"{name}-{row.item.id}",
            "input": "问",
            "target": row.target,
            "answer_choices": list(row.item.choices) or None,
            "task_type": "x",
            "task_dataset": name,
        }
        for name in names
        for row in read_golden(name).rows
    ]


def cmexam(folder: Path, *answers: str) -> str:
    options = [{"key": letter, "value": f"{letter}药"} for letter in "ABCDE"]
    shared = {"Options": options, "Explanation": "", "Medical Discipline": "药学"}
    rows = [
        {"Question": f"问题{number}？", "Answer": answer, **shared} for number, answer in enumerate(answers)
    ]
    write_jsonl(folder / "exam.jsonl", rows)
    return str(folder / "exam.jsonl")


def test_every_cblue_task_is_taken_and_scored_by_its_own_reader(tmp_path):
    write_jsonl(tmp_path / "dev.jsonl", cblue_rows(*TASKS))
    adopt(str(tmp_path / "dev.jsonl"), tmp_path / "run/data")
    assert adopted(tmp_path / "run/data")
    cards = {card["name"]: card for card in read_json(tmp_path / "run/data/benchmark.json")["cards"]}
    assert {name: card["metric"] for name, card in cards.items()} == {
        name: task.metric for name, task in TASKS.items()
    }
    said = {f"{name}-{row.item.id}": row.prediction for name in TASKS for row in read_golden(name).rows}
    items = read_items(tmp_path / "run/data/items.jsonl")
    answers = [{"id": item.id, "text": said[item.id]} for item in items]
    write_jsonl(tmp_path / "run/evaluation/model/predictions.jsonl", answers)
    results = read_json(write_results(tmp_path / "run", resamples=50))
    for name, task in TASKS.items():
        rows = read_golden(name).rows
        wanted = score(task, [row.item for row in rows], [row.prediction for row in rows])
        found = results["tasks"][name]["scores"]["model"]
        assert found["value"] == pytest.approx(wanted.value, abs=1e-6)
        assert found["low"] < found["value"] < found["high"]
        assert results["tasks"][name]["unparsable"]["model"] == wanted.unparsable
    page = write_report(tmp_path / "run").read_text()
    assert all(word in page for word in ("weighted F1", "tree edit ratio", "诊疗决策树"))


def test_a_part_of_it_is_drawn_evenly_and_always_the_same(tmp_path):
    write_jsonl(tmp_path / "dev.jsonl", cblue_rows(*TASKS))
    for run in ("one", "two"):
        adopt(str(tmp_path / "dev.jsonl"), tmp_path / run, most=2 * len(TASKS), seed=3)
    drawn = read_items(tmp_path / "one/items.jsonl")
    assert drawn == read_items(tmp_path / "two/items.jsonl")
    assert {item.task for item in drawn} == set(TASKS)
    assert max(Counter(item.task for item in drawn).values()) <= 2
    adopt(str(tmp_path / "dev.jsonl"), tmp_path / "few", most=1)
    [item] = read_items(tmp_path / "few/items.jsonl")
    assert [card["name"] for card in read_json(tmp_path / "few/benchmark.json")["cards"]] == [item.task]


def test_an_alias_becomes_the_tasks_name(tmp_path):
    rows = [{**row, "task_dataset": "CMeIE-V2"} for row in cblue_rows("CMeIE")]
    write_jsonl(tmp_path / "dev.jsonl", rows)
    adopt(str(tmp_path / "dev.jsonl"), tmp_path / "data")
    assert {item.task for item in read_items(tmp_path / "data/items.jsonl")} == {"CMeIE"}


def test_several_right_answers_are_for_generation(tmp_path):
    source = cmexam(tmp_path, "A", "BD", "ACE")
    with pytest.raises(DataError, match=r"2 of 3 questions have several right answers.*exams=generation"):
        adopt(source, tmp_path / "data")
    adopt(source, tmp_path / "run/data", exams="generation")
    items = read_items(tmp_path / "run/data/items.jsonl")
    texts = ("答案为A", "答案为BD", "答案为AC")
    answers = [{"id": item.id, "text": text} for item, text in zip(items, texts, strict=True)]
    write_jsonl(tmp_path / "run/evaluation/model/predictions.jsonl", answers)
    results = read_json(write_results(tmp_path / "run", resamples=50))
    (task,) = results["tasks"].values()
    assert task["mode"] == "generation"
    assert task["scores"]["model"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert task["subjects"]["药学"]["n"] == 3
    assert "plain_accuracy" not in task
    assert results["calibration"] == {}
    assert "答案为AC" in write_report(tmp_path / "run").read_text()


def test_guessing_among_options_is_told(tmp_path):
    adopt(cmexam(tmp_path, "A", "B"), tmp_path / "data")
    (card,) = read_json(tmp_path / "data/benchmark.json")["cards"]
    assert card["chance"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([{"task_dataset": "Poems"}], EvaluationError, "'Poems' is neither 'exam' nor a PromptCBLUE task"),
        ([{"answer_choices": None}], EvaluationError, "needs the answer_choices"),
        ([{}, {}], DataError, "1 ids occur more than once"),
        ([{"answer_choices": "a"}], DataError, "the choices must be a list"),
    ],
)
def test_what_could_not_be_scored_is_refused_at_once(tmp_path, rows, error, message):
    first = cblue_rows("CMeEE-V2")[0]
    write_jsonl(tmp_path / "dev.jsonl", [{**first, **row} for row in rows])
    with pytest.raises(error, match=message):
        adopt(str(tmp_path / "dev.jsonl"), tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_chat_is_no_test_set(tmp_path):
    talk = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    (tmp_path / "chat.jsonl").write_text(json.dumps(talk) + "\n")
    with pytest.raises(DataError, match="trains but does not test"):
        adopt(str(tmp_path / "chat.jsonl"), tmp_path / "data")


def test_bad_rows_are_set_aside_and_listed_in_the_report(tmp_path):
    source = cmexam(tmp_path, "A", "B", "Z", "C")
    with pytest.raises(DataError, match="no such option: answer 'Z'"):
        adopt(source, tmp_path / "strict/data", strict=True)
    adopt(source, tmp_path / "run/data")
    assert len(read_items(tmp_path / "run/data/items.jsonl")) == 3
    (aside,) = read_json(tmp_path / "run/data/benchmark.json")["set_aside"]
    assert aside["row"] == 3
    assert aside["reason"].startswith("no such option: answer 'Z'")
    items = read_items(tmp_path / "run/data/items.jsonl")
    answers = [
        {"id": item.id, "log_likelihoods": [-1.0] * 5, "bytes": [len(one.encode()) for one in item.options]}
        for item in items
    ]
    write_jsonl(tmp_path / "run/evaluation/model/predictions.jsonl", answers)
    write_results(tmp_path / "run", resamples=50)
    assert "Rows set aside" in write_report(tmp_path / "run").read_text()


def test_a_file_without_a_good_row_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no good row\. The first one, 1: no such option"):
        adopt(cmexam(tmp_path, "Z", "Y"), tmp_path / "data")
