"""Tasks of one's own that a judge scores, held against criteria or graded as clinical writing is."""

from __future__ import annotations

import json

import pytest

from medcare.data.record_files import read_items
from medcare.evaluation.results import write_results
from medcare.evaluation.test_set import adopt
from medcare.foundation.errors import ConfigError, DataError, EvaluationError
from medcare.foundation.storage import read_json, read_jsonl, write_jsonl
from medcare.judging.grading import grade
from medcare.reports import write_report
from tests.fake_server import content, fake_server, in_turn, verdict

CRITERIA = [
    {"criterion": "Names paracetamol", "points": 5},
    {"criterion": "Asks for the weight", "points": 3},
    {"criterion": "Advises aspirin", "points": -4},
]
CHILD = {"prompt": [{"role": "user", "content": "My child has fever."}], "rubrics": CRITERIA}


def folder_of(tmp_path, rows, url, *texts, judge="#strict"):
    write_jsonl(tmp_path / "bench.jsonl", rows)
    (tmp_path / "bench.yaml").write_text(
        f'data: bench.jsonl\nform: judged\njudge: {url}{judge}\nprompt: "{{prompt}}"\n'
    )
    run = tmp_path / "run"
    adopt(str(tmp_path / "bench.yaml"), run / "data")
    answers = [{"id": f"bench/{place}", "text": text} for place, text in enumerate(texts, start=1)]
    write_jsonl(run / "evaluation/model/predictions.jsonl", answers)
    return run


def value(run):
    return read_json(write_results(run, resamples=50))["tasks"]["bench"]["scores"]["model"]["value"]


def met(*numbers):
    return content(json.dumps({str(place): int(place in numbers) for place in (1, 2, 3)}))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [((1, 2), 1), ((1,), 5 / 8), ((), 0), ((1, 3), 1 / 8), ((3,), 0), ((1, 2, 3), 4 / 8)],
)
def test_the_grade_is_the_share_of_the_points(tmp_path, reply, expected):
    with fake_server(in_turn(met(*reply))) as judge:
        run = folder_of(tmp_path, [CHILD], judge.url, "Give paracetamol.")
        grade(run, "model")
    (body,) = judge.bodies
    message = body["messages"][0]["content"]
    assert "1. Names paracetamol" in message
    assert "+5" not in message, "the judge need not know what a criterion is worth"
    assert "My child has fever." in message
    assert set(body["response_format"]["json_schema"]["schema"]["properties"]) == {"1", "2", "3"}
    assert value(run) == pytest.approx(expected, abs=1e-6)


def test_the_mean_is_clipped_and_not_each_item_as_healthbench_does(tmp_path):
    with fake_server(in_turn(met(3), met(1, 2))) as judge:
        run = folder_of(tmp_path, [CHILD, CHILD], judge.url, "Give aspirin.", "Paracetamol; the weight?")
        grade(run, "model")
    assert value(run) == pytest.approx((-4 / 8 + 1) / 2, abs=1e-6)


def test_the_thought_before_an_answer_is_not_shown_to_the_judge(tmp_path):
    with fake_server(in_turn(met(1))) as judge:
        run = folder_of(tmp_path, [CHILD], judge.url, "<think>A secret plan.</think>Weigh the child.")
        grade(run, "model")
    (body,) = judge.bodies
    assert "Weigh the child." in body["messages"][0]["content"]
    assert "secret plan" not in body["messages"][0]["content"]


def test_without_criteria_it_is_the_mean_of_the_four_grades(tmp_path):
    with fake_server(in_turn(verdict())) as judge:  # 5, 4, 3, 2
        run = folder_of(tmp_path, [{"prompt": "Write a letter."}], judge.url, "Dear colleague")
        grade(run, "model")
    assert value(run) == pytest.approx(2.5 / 4)


def test_tags_of_items_and_of_criteria_are_scored_as_healthbench_does(tmp_path):
    """A tag of criteria counts their points alone, and nothing where none of these is positive."""
    tags = [["axis:accuracy"], ["axis:context"], ["axis:accuracy", "axis:harm"]]
    tagged = [{**entry, "tags": own} for entry, own in zip(CRITERIA, tags, strict=True)]
    rows = [
        {**CHILD, "rubrics": tagged, "example_tags": ["theme:emergency"]},
        {**CHILD, "rubrics": tagged, "example_tags": ["theme:hedging"]},
        CHILD,
    ]
    replies = {"First answer.": met(1, 3), "Second answer.": content("no idea"), "Third answer.": met(1, 2)}

    def reply(_number, body):
        return next(said for text, said in replies.items() if text in body["messages"][0]["content"])

    with fake_server(reply) as judge:
        run = folder_of(tmp_path, rows, judge.url, *replies)
        grade(run, "model")
    grades = {row["id"]: row for row in read_jsonl(run / "evaluation/model/grades.jsonl")}
    unjudged = [name for name, row in grades.items() if row["grade"] is None]
    written = read_json(write_results(run, resamples=50))["tasks"]["bench"]
    assert unjudged == ["bench/2"]
    assert grades["bench/1"]["tags"] == {
        "axis:accuracy": pytest.approx(1 / 5), "axis:context": 0, "theme:emergency": pytest.approx(1 / 8),
    }  # fmt: skip
    assert set(grades["bench/2"]["tags"].values()) == {0}
    assert "tags" not in grades["bench/3"]
    found = {tag: (part["n"], part["scores"]["model"]["value"]) for tag, part in written["tags"].items()}
    assert found == {
        "axis:accuracy": (2, pytest.approx(0.1)), "axis:context": (2, 0), "theme:emergency": (1, 0.125),
        "theme:hedging": (1, 0),
    }  # fmt: skip
    for part in written["tags"].values():
        assert part["scores"]["model"]["low"] <= part["scores"]["model"]["value"]
    assert "Bench by tag" in write_report(run).read_text()
    assert "axis:accuracy" in (run / "results.csv").read_text()
    assert read_items(run / "data/items.jsonl")[0].tags == (
        ("axis:accuracy", (0, 2)), ("axis:context", (1,)), ("axis:harm", (2,)), ("theme:emergency", ()),
    )  # fmt: skip


def test_odd_tags_are_refused(tmp_path):
    for row in ({**CHILD, "example_tags": "theme:a"}, {**CHILD, "example_tags": [1]}):
        with pytest.raises(DataError, match="The tags of 'bench/1' must be a list of texts"):
            folder_of(tmp_path, [row], "http://x/v1")


def test_what_is_judged_is_not_asked_for_again_and_what_is_not_counts_nothing(tmp_path):
    with fake_server(in_turn(met(1, 2), content("no idea"))) as judge:
        run = folder_of(tmp_path, [CHILD, CHILD], judge.url, "a", "b")
        with pytest.raises(EvaluationError, match="'bench/1' of 'bench' has no grade yet"):
            write_results(run, resamples=50)
        grade(run, "model")
        asked = len(judge.bodies)
        grade(run, "model")
        assert len(judge.bodies) == asked
    grades = list(read_jsonl(run / "evaluation/model/grades.jsonl"))
    assert [row["grade"] for row in grades].count(None) == 1
    assert value(run) == 0.5
    assert read_json(run / "results.json")["tasks"]["bench"]["unparsable"]["model"] == 1


def test_a_task_without_a_judge_or_with_odd_criteria_is_refused(tmp_path):
    run = folder_of(tmp_path, [CHILD], "http://localhost:1/v1", "a", judge="")
    with pytest.raises(ConfigError, match="must name its judge"):
        grade(run, "model")
    with pytest.raises(DataError, match="must be a list of"):
        folder_of(tmp_path, [{"prompt": "?", "rubrics": [{"criterion": "a"}]}], "http://x/v1")
