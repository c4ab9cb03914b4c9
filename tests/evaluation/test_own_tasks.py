"""Tasks of one's own: what a YAML or the rows of a file say is what is asked, read and scored."""

from __future__ import annotations

import json
import re
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medcare.cli import app
from medcare.evaluation import reading
from medcare.evaluation.answer_formats import ANSWER_FORMATS
from medcare.evaluation.identity import identities
from medcare.evaluation.own_tasks import read_own
from medcare.evaluation.prompts import build_prompts
from medcare.evaluation.results import write_results
from medcare.evaluation.score_files import score
from medcare.evaluation.test_set import adopt
from medcare.foundation.errors import ConfigError, DataError, EvaluationError
from medcare.foundation.storage import read_json, write_jsonl
from medcare.reports import write_report
from medcare.settings.config import EvaluationConfig

DOCS = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
SECTION = DOCS.partition("## A task of your own")[2].partition("\n## ")[0]


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", SECTION, flags=re.MULTILINE | re.DOTALL)


def declared(folder: Path, yaml: str, rows: list[dict]):
    write_jsonl(folder / "rows.jsonl", rows)
    (folder / "mine.yaml").write_text(f"data: rows.jsonl\n{yaml}", encoding="utf-8")
    found = read_own(str(folder / "mine.yaml"))
    assert found is not None
    items, (task,) = found
    return task, items


def asked(target, **further) -> list[dict]:
    return [{"id": "1", "prompt": "?", "target": target, **further}]


def test_the_page_s_example_is_scored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("diseases.yaml").write_text(blocks("yaml")[0])
    Path("diseases.jsonl").write_text(blocks("json")[0])
    items, (task,) = read_own("diseases.yaml")
    assert task.name == "diseases"
    assert items[0].prompt == "List the diseases and chemicals, one type a line.\nWarfarin after a stroke."
    assert items[1].target == "Disease: asthma"
    answers = [
        {"id": items[0].id, "text": "Chemical: warfarin, heparin\nDisease: stroke"},
        {"id": items[1].id, "text": "She has asthma."},
    ]
    write_jsonl(Path("runs/diseases-answers/predictions.jsonl"), answers)
    line = blocks("sh")[0].splitlines()[2]
    result = CliRunner().invoke(app, line.split()[1:])
    assert result.exit_code == 0, result.exception
    found = json.loads(result.stdout)
    assert found["counts"] == {"n": 2, "tp": 2, "fp": 1, "fn": 1}
    assert (found["unparsable"], found["metric"]) == (1, "micro_f1")


OPTIONS = {"A": "Collagen", "B": "Integrins", "C": "Elastin"}
YES_NO = {"A": "yes", "B": "no", "C": "maybe"}
ENTITIES = {"instruction": "List the diseases and chemicals.", "input": "Warfarin after a stroke ."}
# Rows as those of the sets that the page names, with an answer that is right, and one that is not.
PUBLIC = {
    "ncbi": ({**ENTITIES, "output": "Disease: stroke"}, "Disease: stroke", "Disease: warfarin"),
    "bc5cdr": (
        {**ENTITIES, "output": "Chemical: Warfarin\nDisease: none"},
        "chemical: warfarin",
        "Chemical: none\nDisease: stroke",
    ),
    "pubmedqa": (
        {"question": "Is it?", "options": YES_NO, "answer_idx": "C"},
        "Maybe, because the study is small.",
        "No, it is not.",
    ),
    "headqa": ({"question": "Which?", "options": OPTIONS, "answer_idx": "A"}, "Collagen", "Elastin"),
    "medquad": (
        {"instruction": "What helps?", "output": "Rest and fluids."},
        "rest, and fluids",
        "Surgery",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_the_public_sets_of_the_page_are_scored(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    row, right, wrong = PUBLIC[name]
    write_jsonl(Path(f"{name}.jsonl"), [{"id": str(n), **row} for n in range(3)])
    Path(f"{name}.yaml").write_text(titled(name), encoding="utf-8")
    items, (task,) = read_own(f"{name}.yaml")
    gold = [item.target for item in items]
    assert [score(task, items, texts).value for texts in (gold, [right] * 3, [wrong] * 3)] == [1, 1, 0]


@pytest.mark.parametrize("name", ["medquad_judged", "healthbench"])
def test_the_judged_sets_of_the_page_are_read(tmp_path, monkeypatch, name):
    """How they are graded is tested in tests/judging/test_grading.py."""
    monkeypatch.chdir(tmp_path)
    rubrics = [{"criterion": "Names rest", "points": 5, "tags": ["level:example"]}]
    turns = [{"role": "user", "content": "What helps?"}]
    write_jsonl(Path("healthbench.jsonl"), [{"prompt_id": "x", "prompt": turns, "rubrics": rubrics}])
    write_jsonl(Path("medquad.jsonl"), [PUBLIC["medquad"][0]])
    Path(f"{name}.yaml").write_text(titled(name), encoding="utf-8")
    ((item,), (task,)) = read_own(f"{name}.yaml")
    assert (task.form, item.prompt) == ("judged", "What helps?")
    assert item.choices == (("+5 Names rest",) if name == "healthbench" else ())


def titled(name: str) -> str:
    return re.findall(rf'^```yaml title="{name}.yaml"\n(.*?)^```$', SECTION, re.MULTILINE | re.DOTALL)[0]


def test_every_form_that_the_page_names_exists_with_its_metrics():
    for name, metrics in re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", SECTION, flags=re.MULTILINE)[1:]:
        named = re.findall(r"`(\w+)`", metrics)
        assert named
        assert list(ANSWER_FORMATS[name].metrics) == named


@pytest.mark.parametrize(
    ("yaml", "target", "answer", "value"),
    [
        ("form: label", "Type 2 diabetes", "type 2  diabetes.", 1),
        ("form: label\nlabels: [yes, no, maybe]", "no", "No.", 1),
        ("form: label\nlabels: [yes, no, maybe]", "no", "No, it is not.", 0),
        ("form: lines", ["fever", "cough"], "- Cough\n- rash\n", 0.5),
        ("form: lines\nnothing: no finding", [], "No finding.", 1),
        ("form: typed_lines", "Drug: a, b\nDisease: none", "drug: a", 2 / 3),
        ("form: typed_lines", "Drug: none", "Drug: none", 1),
        ("form: typed_lines\nlabels: [Drug]", "Drug: a", "Disease: a", 0),
        ("form: triples", [["a", "treats", "b"], ["c", "causes", "d"]], "(a | treats | b)", 2 / 3),
        ("form: triples", "none", "none", 1),
        ("form: labels\nlabels: [renal, cardiac, none at all]", "renal, cardiac", "cardiac; renal", 1),
        ("form: labels\nlabels: [renal, cardiac]", "renal", "renal, hepatic", 0),
        ("form: number", 1250, "That gives 3 x 400 + 50 = 1,250 mg", 1),
        ("form: number", "-0.5", "0.5", 0),
        ("form: number\nmetric: within_5_percent", 100, "about 104.9", 1),
        ("form: number\nmetric: within_5_percent", 100, "about 105.1", 0),
        ("form: text", "the patient has fever", "the patient has cough", 0.75),
        ("form: text\nmetric: exact_match", "No  fever\nseen", "no fever seen", 1),
        ("form: cblue_text", "您好", "您好", pytest.approx(1, abs=1e-7)),
    ],
)
def test_each_form_is_read_and_scored(tmp_path, yaml, target, answer, value):
    templates = 'prompt: "{prompt}"\ntarget: "{target}"'
    task, items = declared(tmp_path, f"{yaml}\n{templates}", asked(target))
    assert score(task, items, [items[0].target]).value == pytest.approx(1, abs=1e-7)
    assert score(task, items, [answer]).value == value


def test_one_number_out_of_many_is_the_last_one():
    assert reading._NUMBER.findall("HbA1c 7.5 %, 1,250.5 mg, -2e-3, v1.2.3") == ["7.5", "1,250.5", "-2e-3"]


@pytest.mark.parametrize("answered", ["likelihood", "words"])
def test_a_task_says_how_its_questions_are_answered(tmp_path, answered):
    rows = [{"question": "Is it?", "answer": "maybe"}, {"question": "Was it?", "answer": "yes"}]
    yaml = f'form: options\noptions: [yes, no, maybe]\nanswered: {answered}\nprompt: "{{question}}"'
    task, items = declared(tmp_path, f'{yaml}\ntarget: "{{answer}}"', rows)
    assert [item.answers for item in items] == [(2,), (0,)]
    assert task.chance == pytest.approx(1 / 3)
    for exams in ("likelihood", "generation"):
        config = EvaluationConfig(exams=exams)
        first = build_prompts(items, config, tasks={task.name: task}).all[0]
        assert first.options == (("yes", "no", "maybe") if answered == "likelihood" else ())
        assert ("A. yes" in first.messages[-1].content) == (answered == "words")


def test_rows_that_say_how_they_are_scored_are_a_test_set(tmp_path):
    rows = [
        {"prompt": "How much?", "target": "5", "form": "number", "task": "dose"},
        {"prompt": "Which?", "target": "a, b", "form": "labels", "labels": ["a", "b"], "task": "organs"},
    ]
    write_jsonl(tmp_path / "mixed.jsonl", rows)
    adopt(str(tmp_path / "mixed.jsonl"), tmp_path / "run/data")
    cards = read_json(tmp_path / "run/data/benchmark.json")["cards"]
    assert [(card["name"], card["metric"]) for card in cards] == [
        ("dose", "accuracy"),
        ("organs", "micro_f1"),
    ]
    answers = [{"id": "mixed/1", "text": "5 mg"}, {"id": "mixed/2", "text": "a"}]
    for model in ("base", "align"):
        write_jsonl(tmp_path / f"run/evaluation/{model}/predictions.jsonl", answers)
    results = read_json(write_results(tmp_path / "run", resamples=50))
    assert results["tasks"]["dose"]["scores"]["align"]["value"] == 1
    assert results["tasks"]["organs"]["scores"]["align"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert results["tasks"]["dose"]["splits"] == {}
    assert "eld-out" not in write_report(tmp_path / "run").read_text()
    for family in ("knowledge", "alignment"):  # of one task each: the text and the table say the same p
        (task,) = (entry for entry in results["tasks"].values() if entry["family"] == family)
        assert task["comparisons"] == results["summary"][family]["all"]["comparisons"]


def test_an_exam_is_called_as_its_file(tmp_path):
    (tmp_path / "ward_exam.csv").write_text("id,question,A,B,C,D,answer\n1,Which?,a,b,c,d,B\n")
    adopt(str(tmp_path / "ward_exam.csv"), tmp_path / "data")
    assert [card["name"] for card in read_json(tmp_path / "data/benchmark.json")["cards"]] == ["ward_exam"]


def long_enough(text, item):
    return None if text == "?" else min(len(text) / len(item.target), 1.0)


def test_a_function_of_one_s_own_scores(tmp_path, monkeypatch):
    entries = EntryPoints([EntryPoint("long", f"{__name__}:long_enough", "medcare.tasks")])
    monkeypatch.setattr(reading, "entry_points", lambda group: entries)
    reading._function.cache_clear()
    rows = [{"id": name, "prompt": "?", "target": "abcd"} for name in "123"]
    yaml = 'prompt: "{prompt}"\ntarget: "{target}"\nform: function\nfunction: '
    task, items = declared(tmp_path, f"{yaml}long", rows)
    found = score(task, items, ["ab", "abcd", "?"])
    assert (found.value, found.unparsable) == (0.5, 1)
    task, items = declared(tmp_path, f"{yaml}missing", rows)
    with pytest.raises(EvaluationError, match=r"no function 'missing'.*medcare.tasks. It has: long"):
        score(task, items, ["a", "b", "c"])
    monkeypatch.setattr(reading, "_function", lambda _: lambda text, item: 2)
    with pytest.raises(EvaluationError, match="a number from 0 to 1 or None, and gave 2"):
        score(task, items, ["a", "b", "c"])
    monkeypatch.setattr(reading, "_function", lambda _: lambda text, item: 1 / 0)
    with pytest.raises(EvaluationError, match=r"failed on the answer to 'rows/1' \(ZeroDivisionError"):
        score(task, items, ["a", "b", "c"])


@pytest.mark.parametrize(
    ("yaml", "error", "message"),
    [
        ("form: essay", EvaluationError, "no form 'essay'; choose one of options, label"),
        (
            "form: number\nmetric: rouge_l",
            EvaluationError,
            "'number' takes the metrics accuracy, within_5_percent",
        ),
        ("form: number", EvaluationError, "must have a target in the form 'number'"),
        ("form: text\nlables: [a]", ConfigError, "Did you mean 'labels'"),
        ("metric: accuracy", ConfigError, "how answers look as 'form'"),
        ('form: text\nprompt: "{nothing}"', DataError, "no column 'nothing'"),
        ("form: options\noptions: [a, b]", DataError, "'word', is none of: a, b"),
    ],
)
def test_what_could_not_be_scored_is_refused_at_once(tmp_path, yaml, error, message):
    templates = "" if "prompt:" in yaml else '\nprompt: "{prompt}"\ntarget: "{target}"'
    with pytest.raises(error, match=message):
        declared(tmp_path, yaml + templates, asked("word"))


def test_rows_of_one_task_say_one_thing(tmp_path):
    rows = [{"prompt": "?", "target": "1", "form": form} for form in ("number", "text")]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match="line 2: the rows of 'rows' say different things"):
        read_own(str(tmp_path / "rows.jsonl"))


def test_a_changed_file_of_rows_is_another_test_set(tmp_path):
    declared(tmp_path, 'form: text\nprompt: "{prompt}"\ntarget: "{target}"', asked("a"))
    source = str(tmp_path / "mine.yaml")
    before = identities(items=source)
    assert identities(items=source) == before
    write_jsonl(tmp_path / "rows.jsonl", asked("b"))
    assert identities(items=source) != before


def test_other_test_sets_are_not_taken_for_tasks_of_one_s_own(tmp_path):
    write_jsonl(tmp_path / "exam.jsonl", [{"question": "?", "options": ["a", "b"], "answer": "A"}])
    assert read_own(str(tmp_path / "exam.jsonl")) is None
    assert read_own("hf:owner/name") is None


def test_of_rows_with_a_form_only_those_that_are_wanted_are_read_and_nothing_is_run(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "read_by_function", lambda *_: pytest.fail("it was run"))
    question = {"task": "q", "form": "options", "prompt": "?", "options": ["x", "y"], "target": "y"}
    write_jsonl(tmp_path / "good.jsonl", [question])
    assert read_own(str(tmp_path / "good.jsonl"), forms=("options",)) is not None
    for form in ("function", "judged"):
        other = {"task": "t", "form": form, "prompt": "?", "target": "y", "function": "any"}
        write_jsonl(tmp_path / "bad.jsonl", [question, other])
        with pytest.raises(DataError, match=f"line 2: the form '{form}' is not taken here"):
            read_own(str(tmp_path / "bad.jsonl"), forms=("options",))


def test_ids_that_count_from_zero_stay_apart(tmp_path):
    rows = [{"id": number, "prompt": "?", "target": "1", "form": "number"} for number in range(3)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    items, _ = read_own(str(tmp_path / "rows.jsonl"))
    assert [item.id for item in items] == ["rows/0", "rows/1", "rows/2"]


def test_two_rows_with_one_id_are_refused(tmp_path):
    with pytest.raises(DataError, match="1 ids occur more than once, 'rows/1' for one"):
        declared(tmp_path, 'form: text\nprompt: "{prompt}"\ntarget: "{target}"', asked("a") + asked("c"))


def test_rows_that_say_they_are_judged_bring_their_criteria_and_tags(tmp_path):
    row = {"prompt": "?", "form": "judged", "judge": "http://localhost/v1#m", "example_tags": ["theme:a"]}
    row["rubrics"] = [{"criterion": "Names the dose", "points": 5, "tags": ["axis:b"]}]
    write_jsonl(tmp_path / "rows.jsonl", [row])
    (item,), _ = read_own(str(tmp_path / "rows.jsonl"))
    assert item.choices == ("+5 Names the dose",)
    assert dict(item.tags) == {"theme:a": (), "axis:b": (0,)}


@pytest.mark.parametrize(
    "rubrics", [5, "x", {"criterion": "a", "points": 1}, [{"criterion": "a", "points": "5"}]]
)
def test_criteria_that_are_no_list_of_points_are_refused(tmp_path, rubrics):
    with pytest.raises(DataError, match="The criteria of 'rows/1' must be a list"):
        declared(tmp_path, 'form: judged\nprompt: "{prompt}"', asked("", rubrics=rubrics))


@pytest.mark.parametrize("options", ["yes", {"A": "yes"}, 3])
def test_options_that_are_no_list_are_refused(tmp_path, options):
    row = {"prompt": "?", "form": "options", "options": options, "target": "y"}
    write_jsonl(tmp_path / "rows.jsonl", [row])
    with pytest.raises(DataError, match="line 1: 'options' must be a list of texts"):
        read_own(str(tmp_path / "rows.jsonl"))
