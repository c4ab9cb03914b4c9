"""No answer crashes the evaluator and none takes it long: 10,000 damaged ones a task, and enormous ones."""

from __future__ import annotations

import random
import time

import pytest

from medcare.evaluation.cblue.tasks import TASKS
from medcare.evaluation.score_files import score
from tests.evaluation.cblue.goldens import read_golden

ANSWERS = 10_000
MEGABYTE = 1_000_000
MARKS = [
    *"：，；。、\n\r\t[](){}\"'\\#=*_ \0\u2028\u3000",
    "\ud800",
    "\U0001f600",
    "e\u0301",
    "实体",
    "头实体：",
    "；尾实体：",
]
# What an answer of a megabyte repeats, by grammar.
ENORMOUS = {
    "entities": ("实体\n", "药物实体：", "，", "疾病实体：a，"),
    "relations": ("，尾实体为", "。", "具有病因关系的头尾实体对如下：", "\n"),
    "causal": ("头实体：a；尾实体：b\n", "；尾实体：", "条件关系三元组\n", "头实体："),
    "choices": ("，", "肺，", "\n"),
    "events": ("主体词：a；", "；", "\n", "描述词：a，"),
    "attributes": ("：\n", "：", "a：b\n"),
    "label": ("肺", "\0", " "),
    "sections": ("主诉：", "\n主诉：a", "肺"),
    "text": ("肺", "a ", "。"),
    "tree": (
        "节点1：role=C；logical_rel=null；triples=[]\n",
        "节点1：role=D；logical_rel=null；triples=[['a', 'b', 'c']]\n",
        "：role=",
    ),
}
NESTED = tuple(
    f"节点1：role=D；logical_rel=null；triples={text}"
    for text in (
        "[" * 500_000,
        "[" * 500_000 + "]" * 500_000,
        "[" + "-" * 500_000 + "1]",
        "[" + "not " * 250_000 + "1]",
        "[1" + "+1" * 500_000 + "]",
        "['" + "\\" * 999_999 + "']",
        "['a'" + " 'a'" * 250_000 + "]",
        "{1:" * 300_000,
        "[9" + "9" * 999_999 + "]",
        '["a", "b"' + ', "c"' * 150_000 + "]",
        "__import__('os').abort()",
    )
)


def damage(text: str, others: list[str], draw: random.Random) -> str:
    """A few random changes: cuts, swaps, insertions, repetitions, parts of other answers."""
    for _ in range(draw.randint(1, 4)):
        start, end = sorted(draw.choices(range(len(text) + 1), k=2))
        change = draw.randrange(5)
        if change == 0:
            text = text[:start] + text[end:]
        elif change == 1:
            text = text[:end] + text[start:end] * draw.randint(1, 3) + text[end:]
        elif change == 2:
            text = text[:start] + draw.choice(MARKS) + text[start:]
        elif change == 3:
            other = draw.choice(others)
            text = text[:start] + other[draw.randrange(len(other) + 1) :]
        else:
            text = text.replace(draw.choice(MARKS), draw.choice(MARKS))
        text = text[:600]
    return text


@pytest.mark.parametrize("name", TASKS)
def test_ten_thousand_damaged_answers(name):
    task, rows = TASKS[name], read_golden(name).rows
    draw = random.Random(name)
    others = [row.target for row in rows] + [row.target for row in read_golden(draw.choice(list(TASKS))).rows]
    items = [rows[number % len(rows)].item for number in range(ANSWERS)]
    answers = [damage(item.target, others, draw) for item in items]
    total = score(task, items, answers)
    assert 0 <= total.unparsable <= ANSWERS
    assert -1 <= total.value <= 1


@pytest.mark.parametrize("name", TASKS)
def test_enormous_answers(name):
    task, item = TASKS[name], read_golden(name).rows[0].item
    for unit in ENORMOUS[task.form.removeprefix("cblue_")] + (NESTED if task.form == "cblue_tree" else ()):
        answer = unit * max(1, MEGABYTE // len(unit))
        start = time.process_time()
        score(task, [item], [answer])
        assert time.process_time() - start < 20, unit[:40]


@pytest.mark.parametrize("name", TASKS)
def test_not_being_asked_is_never_right(name):
    task, rows = TASKS[name], read_golden(name).rows
    items = [row.item for row in rows]
    right = score(task, items, [item.target for item in items]).value
    silent = score(task, items, [None] * len(items))
    assert silent.unparsable == len(items)
    assert silent.value < right
    assert silent.value == 0 or task.form == "cblue_tree"
    assert len(silent.rows) == len(items)
