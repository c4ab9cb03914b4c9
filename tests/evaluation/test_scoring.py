"""Written answers to exams, and PromptCBLUE's tasks, marked as part of a test set."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from medcare.data.task import Task
from medcare.evaluation.answer_formats import metric_of
from medcare.evaluation.cblue.tasks import TASKS
from medcare.evaluation.score_files import score
from medcare.evaluation.scoring import score_answers
from medcare.foundation.errors import EvaluationError
from medcare.text.records import Item
from tests.evaluation.cblue.goldens import read_golden

EXAM = Task("exam", "knowledge", "options", "accuracy", "", "")
OPTIONS = ("Aspirin", "Ibuprofen", "Warfarin", "Heparin")


def exam_item(*answers):
    return Item("q", "exam", "knowledge", "held_out", "q", "Which?", OPTIONS, answers)


def marked(item, **row):
    rows, outcomes = score_answers(EXAM, [item], {"model": [{"id": "q", **row}]})
    assert rows["model"].tolist() == [[outcomes["model"][0].score, 1]]
    return outcomes["model"][0]


@pytest.mark.parametrize(
    ("answers", "text", "order", "right", "parsable"),
    [
        ((1,), "The answer is B.", None, True, True),
        ((1,), "The answer is B.", [1, 0, 2, 3], False, True),
        ((1,), "The answer is A.", [1, 0, 2, 3], True, True),
        ((1,), "ibuprofen", [3, 2, 1, 0], True, True),
        ((1,), "B. Warfarin", [1, 2, 0, 3], False, True),
        ((0, 2), "答案为AC", None, True, True),
        ((0, 2), "答案为A", None, False, True),
        ((0, 2), "答案为ABC", None, False, True),
        ((0, 2), "答案为CD", [1, 3, 0, 2], True, True),
        ((1,), "I cannot answer that.", None, False, False),
        ((1,), "", None, False, False),
    ],
)
def test_a_written_answer_is_right_with_all_right_options_and_no_other(answers, text, order, right, parsable):
    outcome = marked(exam_item(*answers), text=text, **({} if order is None else {"order": order}))
    assert (outcome.score, outcome.parsable, outcome.text) == (float(right), parsable, text)
    assert outcome.choice is None
    assert outcome.shares == ()


def test_letters_with_a_gap_are_read_as_the_prompt_shows_them():
    item = replace(
        exam_item(2), prompt="Which?\nA. cough\nC. rash\nD. pain", options=("cough", "rash", "pain")
    )
    for text, order, right in (
        ("D", None, True),
        ("C", None, False),
        ("A", [2, 0, 1], True),
        ("B", None, False),
    ):
        outcome = marked(item, text=text, **({} if order is None else {"order": order}))
        assert (outcome.score, outcome.parsable) == (float(right), text != "B")


def test_of_several_answers_the_first_of_those_that_most_agree_on_counts():
    texts = ["D", "the answer is B", "I cannot say.", "I cannot say.", "C", "B. Ibuprofen", "A"]
    item = exam_item(1)
    samples = [{"text": text, "thought": f"thought {n}"} for n, text in enumerate(texts)]
    outcome = marked(item, text="D", samples=samples)
    assert (outcome.score, outcome.text, outcome.thought) == (1.0, "the answer is B", "thought 1")
    assert outcome.drawn == (0, 1, 0, 0, 0, 1, 0)  # c of n: pass@1 is 2/7
    tied = marked(item, text="C", samples=[{"text": "C"}, {"text": "B"}, {"text": "B or C"}])
    assert (tied.score, tied.text, tied.drawn) == (0.0, "C", (0, 1, 0))
    none = marked(item, text="?", samples=[{"text": "?"}, {"text": "Sorry."}])
    assert (none.parsable, none.text) == (False, "?")


@pytest.mark.parametrize("task", ["CMeEE-V2", "Text2DT", "IMCS-V2-MRG", "CHIP-CTC"])
def test_answers_of_any_form_are_voted_on(task):
    for row in read_golden(task).rows[:20]:
        right, other = {"text": row.item.target}, {"text": row.prediction}
        alone = score_answers(TASKS[task], [row.item], {"m": [right]})[0]["m"].tolist()
        answers = [{**other, "samples": [other, right, right]}]
        assert score_answers(TASKS[task], [row.item], {"m": answers})[0]["m"].tolist() == alone


def test_a_thought_is_left_out_and_one_without_an_answer_is_no_answer():
    assert marked(exam_item(1), text="<think>A or C?</think>B").score == 1
    inline = score_answers(TASKS["KUAKE-IR"], [relevant()], {"m": [{"text": "<think>嗯</think>\n相关"}]})[1][
        "m"
    ][0]
    assert (inline.score, inline.text, inline.thought) == (1.0, "相关", "嗯")
    # An empty answer is the first label to the official evaluator; a thought that was cut off is none at all.
    for row in ({"text": "<think>嗯"}, {"text": "", "thought": "嗯"}):
        cut = score_answers(TASKS["KUAKE-IR"], [relevant()], {"m": [row]})[1]["m"][0]
        assert (cut.score, cut.parsable, cut.thought) == (0.0, False, "嗯")
    assert score_answers(TASKS["KUAKE-IR"], [relevant()], {"m": [{"text": ""}]})[1]["m"][0].score == 1


def relevant():
    choices = ("相关", "不相关")
    return Item("q", "KUAKE-IR", "alignment", "held_out", "q", "?", target="相关", choices=choices)


def ranked(*options, log_likelihoods, right=0):
    """The outcomes of two items, each with these options and its own log-likelihoods."""
    items = [replace(exam_item(right), id=name, options=options) for name in "ab"]
    rows = [
        {"id": item.id, "log_likelihoods": values, "bytes": [len(option) for option in options]}
        for item, values in zip(items, log_likelihoods, strict=True)
    ]
    return score_answers(EXAM, items, {"model": rows})[1]["model"]


def test_options_that_all_items_share_are_not_divided_by_their_length():
    # Per byte, the longer word has the better number in both: -1/4 against -1.1/5, and -1/4 against -0.9/5.
    outcomes = ranked("true", "false", log_likelihoods=[[-1.0, -1.1], [-1.0, -0.9]])
    assert [outcome.choice for outcome in outcomes] == [0, 1]
    assert [outcome.score for outcome in outcomes] == [1, 0]


def test_options_of_one_item_are_divided_by_their_length():
    row = {"log_likelihoods": [-4.0, -6.0, -30.0, -30.0], "bytes": [4, 12, 3, 3]}
    outcome = marked(replace(exam_item(1), options=("gout", "osteoporosis", "flu", "fit")), **row)
    assert (outcome.choice, outcome.score) == (1, 1)
    assert (outcome.plain_choice, outcome.plain_right) == (0, False)


def test_probabilities_are_the_models_own():
    odds = [math.log(0.6), math.log(0.3)]
    for outcome in ranked("true", "false", log_likelihoods=[odds, [value - 9 for value in odds]]):
        assert outcome.shares == pytest.approx((2 / 3, 1 / 3))
        assert outcome.plain_right


def test_ranked_and_written_answers_are_not_mixed():
    ranked = {"log_likelihoods": [-1.0, -2.0, -3.0, -4.0], "bytes": [7, 9, 8, 7]}
    with pytest.raises(EvaluationError, match=r"texts were generated for base 0, align 1.*evaluation\.exams"):
        score_answers(EXAM, [exam_item(1)], {"base": [ranked], "align": [{"text": "B"}]})


@pytest.mark.parametrize("name", TASKS)
def test_cblue_tasks_are_scored_as_medcare_score_does(name):
    golden = read_golden(name).rows
    items = [
        Item(gold.id, name, "alignment", "held_out", gold.id, "?", target=gold.target, choices=gold.choices)
        for gold in (row.item for row in golden)
    ]
    card = TASKS[name]
    rows, outcomes = score_answers(card, items, {"model": [{"text": row.prediction} for row in golden]})
    whole = score(TASKS[name], [row.item for row in golden], [row.prediction for row in golden])
    value = metric_of(card)(rows["model"].sum(0, keepdims=True))[0]
    assert value == pytest.approx(whole.value, abs=1e-12)
    assert sum(not outcome.parsable for outcome in outcomes["model"]) == whole.unparsable
    assert all(0 <= outcome.score <= 1 for outcome in outcomes["model"])


def test_finding_nothing_where_there_is_nothing_is_right():
    task = "CMeEE-V2"
    nothing = "上述句子中的实体包含：\n"
    item = Item("1", task, "alignment", "held_out", "1", "?", target=nothing, choices=("疾病",))
    _, outcomes = score_answers(TASKS[task], [item], {"model": [{"text": nothing}]})
    assert outcomes["model"][0].score == 1
