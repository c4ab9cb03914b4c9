"""What the ratings show: by hand on small sets, and what must never be said."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcare.foundation.errors import EvaluationError
from medcare.foundation.storage import write_jsonl
from medcare.judging.cases import Case, read_answers, read_cases
from medcare.judging.reference_scores import read_reference_scores
from medcare.judging.rubric import DIMENSIONS
from medcare.judging.summary import MEASURES, Ratings, summary
from medcare.judging.tables import markdown, tables
from medcare.judging.verdict import Verdict
from tests.judging.made_up import CASES, answers, grades, wanted

REPORT, LETTER = Case("r", "q", kind="report"), Case("l", "q", kind="letter")


def rated(cases, given, repeats=1):
    """Ratings in which `given[file][case]` lists the grade of each repeat, None for unjudged."""
    files = [answers(name, cases=cases) for name in given]
    requests = wanted(cases, files, repeats)
    verdicts = {}
    for request in requests:
        value = given[request.source][request.case.id][request.repeat]
        scores = None if value is None else grades(value)
        verdicts[request.key] = Verdict(request.key, scores, "" if scores else "malformed: it was empty")
    return Ratings(cases, files, requests, verdicts)


def tree_of(ratings, **options):
    found = summary(ratings, seed=0, resamples=500, **options)
    rest = {"judge": {"model": "strict"}, "settings": {"repeats": 1}, "rubric": {"version": "v"}}
    return {**rest, **found}


def test_a_score_is_the_mean_over_types_of_the_mean_over_answers():
    cases = [REPORT, LETTER, Case("l2", "q", kind="letter"), Case("l3", "q", kind="letter")]
    tree = tree_of(rated(cases, {"base": {"r": [5], "l": [1], "l2": [2], "l3": [3]}}))
    base = tree["files"]["base"]
    assert base["scores"]["fluency"]["value"] == pytest.approx((5 + 2) / 2)
    assert base["types"]["letter"]["n"] == 3
    assert base["types"]["letter"]["scores"]["overall"]["value"] == pytest.approx(2)
    assert base["scores"]["overall"]["low"] < base["scores"]["overall"]["value"]


def test_an_answers_score_is_the_mean_of_its_repeats_and_overall_that_of_the_dimensions():
    given = {"base": {"r": [{"fluency": 5}, {"fluency": 4}]}}
    scores = tree_of(rated([REPORT], given, repeats=2))["files"]["base"]["scores"]
    assert scores["fluency"]["value"] == 4.5
    counted = tree_of(rated([REPORT], given, repeats=2))["files"]["base"]["grades"]["fluency"]
    assert counted == {"1": 0, "2": 0, "3": 0, "4": 1, "5": 1}
    assert scores["relevance"]["value"] == 3
    assert scores["overall"]["value"] == pytest.approx((4.5 + 9) / 4)


def test_the_unjudged_are_counted_and_never_scored():
    given = {"base": {"r": [None, 5], "l": [None, None]}}
    base = tree_of(rated([REPORT, LETTER], given, repeats=2))["files"]["base"]
    assert base["scores"]["overall"]["value"] == 5
    assert (base["judged"], base["ratings"], base["unjudged"]) == (1, 1, 3)
    assert base["reasons"] == {"malformed: it was empty": 3}
    assert base["types"]["letter"] == {"n": 0, "scores": dict.fromkeys(MEASURES)}


def test_nothing_judged_is_no_number():
    tree = tree_of(rated([REPORT], {"base": {"r": [None]}, "tuned": {"r": [3]}}))
    assert tree["files"]["base"]["scores"] == dict.fromkeys(MEASURES)
    assert tree["comparisons"] == {"base->tuned": {}}
    assert "| base | 0 | 1 | - | - |" in markdown(tables(tree), title="t")


def test_rows_keep_every_rating():
    rows = rated([REPORT], {"base": {"r": [None, 5]}}, repeats=2).rows()
    assert rows[0]["scores"] is None
    assert rows[0]["reason"] == "malformed: it was empty"
    assert rows[1] == {"id": "r", "file": "base", "type": "report", "repeat": 1, "scores": grades(5)}


def test_a_clear_difference_is_shown_and_noise_is_not():
    base = {case.id: [2 + number % 2] for number, case in enumerate(CASES)}
    better = {name: [value + 2] for name, (value,) in base.items()}
    noise = {
        name: [value if number % 2 else 5 - value] for number, (name, (value,)) in enumerate(base.items())
    }
    tree = tree_of(rated(CASES, {"base": base, "better": better, "noise": noise}))
    shown = tree["comparisons"]["base->better"]["overall"]
    assert (shown["value"], shown["verdict"], shown["n"]) == (2, "better", 12)
    assert 0 < shown["low"] < shown["high"]
    assert tree["comparisons"]["better->noise"]["overall"]["verdict"] == "worse"
    assert tree["comparisons"]["base->noise"]["overall"]["verdict"] == "no difference shown"
    assert all(row["p_holm"] >= row["p"] for pair in tree["comparisons"].values() for row in pair.values())


def test_models_are_compared_on_what_both_have():
    cases = [Case(str(number), "q") for number in range(3)]
    given = {"base": {"0": [1], "1": [3], "2": [None]}, "tuned": {"0": [None], "1": [4], "2": [1]}}
    found = tree_of(rated(cases, given))["comparisons"]["base->tuned"]["fluency"]
    assert (found["n"], found["value"]) == (1, 1)


def test_where_a_type_has_one_case_only_the_interval_says_so():
    """Drawing one case again and again has no spread, which must not pass for certainty."""
    one = tree_of(rated([REPORT], {"base": {"r": [4]}}))["files"]["base"]["scores"]["fluency"]
    assert one == pytest.approx({"value": 4, "low": 1 + 0.025 * 3, "high": 5 - 0.025})
    cases = [LETTER, *(Case(f"r{number}", "q", kind="report") for number in range(6))]
    values = {"l": [3], **{f"r{number}": [3 + number % 2] for number in range(6)}}
    mixed = tree_of(rated(cases, {"base": values}))["files"]["base"]["scores"]["fluency"]
    assert mixed["value"] == pytest.approx((3 + 3.5) / 2)
    assert mixed["low"] <= (1 + 3.2) / 2
    assert mixed["high"] >= (5 + 3.8) / 2
    better = {name: [value + 1] for name, (value,) in values.items()}
    found = tree_of(rated(cases, {"base": values, "tuned": better}))["comparisons"]["base->tuned"]["fluency"]
    assert found["low"] <= -1.5 < found["value"] == 1 < 2.5 <= found["high"]
    assert found["verdict"] == "no difference shown"


def test_types_with_one_case_each_are_drawn_together():
    cases = [Case(str(number), "q", kind=str(number)) for number in range(8)]
    values = {case.id: [2 + number % 3] for number, case in enumerate(cases)}
    found = tree_of(rated(cases, {"base": values}))["files"]["base"]["scores"]["fluency"]
    assert found["value"] == pytest.approx(sum(value for (value,) in values.values()) / 8)
    assert 2 <= found["low"] < found["value"] < found["high"] <= 4


def test_all_at_an_end_of_the_scale_is_no_certainty_either():
    values = {"base": {case.id: [5] for case in CASES}, "worst": {case.id: [1] for case in CASES}}
    files = tree_of(rated(CASES, values))["files"]
    best, worst = files["base"]["scores"]["overall"], files["worst"]["scores"]["overall"]
    assert (best["value"], best["high"], worst["value"], worst["low"]) == (5, 5, 1, 1)
    assert 3 < best["low"] < 5
    assert worst["high"] == pytest.approx(6 - best["low"])


def test_agreement_over_repeats():
    given = {"base": {"r": [{"fluency": 5}, {"fluency": 5}], "l": [{"fluency": 1}, None]}}
    tree = tree_of(rated([REPORT, LETTER], given, repeats=2))
    assert tree["files"]["base"]["agreement"]["fluency"] == {
        "units": 1,
        "exact": 1,
        "distance": 0,
        "alpha": None,
    }
    assert "agreement" not in tree_of(rated([REPORT], {"base": {"r": [3]}}))["files"]["base"]


def test_reference_scores_and_length():
    cases = [Case(f"c{'x' * number}", "q") for number in range(5)]  # answers name their case
    given = {"base": {case.id: [1 + number] for number, case in enumerate(cases)}}
    reference = {"base": {case.id: {"fluency": -number} for number, case in enumerate(cases[:4])}}
    base = tree_of(rated(cases, given), reference=reference)["files"]["base"]
    assert set(base["reference"]) == {"fluency"}
    assert base["reference"]["fluency"]["n"] == 4
    assert base["reference"]["fluency"]["spearman"]["value"] == -1
    assert base["length"] == {"n": 5, "spearman": {"value": 1, "low": 1, "high": 1}}


def test_tables_survive_any_name():
    tree = tree_of(rated([REPORT], {"a|b\n<script>": {"r": [3]}}))
    page = markdown(tables(tree), title="t")
    assert "a\\|b &lt;script>" in page
    assert all(line.count("| ") >= 3 for line in page.splitlines() if line.startswith("|"))


@pytest.mark.parametrize(
    ("row", "case"),
    [
        (
            {"sample_id": 3, "input": "q", "target": "r", "task_dataset": "MedDG"},
            Case("3", "q", "r", kind="MedDG"),
        ),
        (
            {"id": "a", "description": "d", "question": "q", "solution": "s", "type": "t"},
            Case("a", "q", "s", "d", "t"),
        ),
        ({"id": "a", "prompt": "q", "task": "letter", "options": []}, Case("a", "q", kind="letter")),
    ],
)
def test_tasks_are_read_in_several_formats(tmp_path: Path, row, case):
    write_jsonl(tmp_path / "gold.jsonl", [row])
    assert read_cases(tmp_path / "gold.jsonl") == [case]


@pytest.mark.parametrize("rows", [[], [{"id": "a"}], [{"id": "a", "question": " "}], [{"question": "q"}]])
def test_tasks_without_a_question_are_refused(tmp_path: Path, rows):
    write_jsonl(tmp_path / "gold.jsonl", rows)
    with pytest.raises(EvaluationError):
        read_cases(tmp_path / "gold.jsonl")


def test_files_are_named_by_what_tells_them_apart(tmp_path: Path):
    paths = [tmp_path / "base" / "p.jsonl", tmp_path / "tuned" / "p.jsonl"]
    for path in paths:
        write_jsonl(path, [{"id": "r", "prediction": "x"}])
    assert [file.name for file in read_answers(paths[:1], [REPORT])] == ["p"]
    assert [file.name for file in read_answers(paths, [REPORT])] == ["base/p", "tuned/p"]
    with pytest.raises(EvaluationError, match="twice"):
        read_answers([paths[0], paths[0]], [REPORT])


def test_reference_scores_belong_to_an_answer(tmp_path: Path):
    path = tmp_path / "scores.jsonl"
    write_jsonl(path, [{"id": "r", "fluency": 4, "overall": 3.5, "note": "x", "relevance": True}])
    assert read_reference_scores(path, ["base"], {"r"}) == {"base": {"r": {"fluency": 4, "overall": 3.5}}}
    with pytest.raises(EvaluationError, match="'file' one of base, tuned"):
        read_reference_scores(path, ["base", "tuned"], {"r"})
    for rows in ([{"id": "other", "fluency": 4}], [{"id": "r"}], [{"id": "r", "fluency": 4}] * 2):
        write_jsonl(path, rows)
        with pytest.raises(EvaluationError):
            read_reference_scores(path, ["base"], {"r"})
    assert set(MEASURES) == {*DIMENSIONS, "overall"}
