"""Reading PromptCBLUE answers. No reader raises, whatever the text, and each takes time linear in its length.

The official post-processing (`post_generate_process.py`) decides what a text means, malformed ones
included: what it reads, these readers read. `parsable` is this package's own: whether anything in the
task's form was found.

The forms (`|` is a line break, a guide is a line of free text that ends in `：`):
    entities    guide | TYPE实体：a，b | TYPE实体：
    relations   具有REL关系的头尾实体对如下：头实体为a，尾实体为b。头实体为c，尾实体为d。
    causal      因果关系三元组如下： | 头实体：a；尾实体：b
                条件关系三元组如下： | 头实体：a；尾三元组：头实体：b；尾实体：c；关系：因果关系
    choices     a，b
    events      guide | 主体词：a；发生状态：b；描述词：c，d；解剖部位：e
    attributes  guide | a：VALUE
    label       LABEL
    sections    guide | 主诉：text | 诊断：text
    text        anything
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence

from medcare.data.task import Task
from medcare.evaluation.reading import Answer

Element = tuple[Hashable, ...]
# Takes a task, an answer, and the row's `answer_choices`, which are empty for tasks without.
Reader = Callable[[Task, str, Sequence[str]], Answer]

_SECTIONS = ("主诉", "现病史", "辅助检查", "既往史", "诊断", "建议")
# The fields of an event, and whether each holds a list.
_FIELDS = {"主体词": False, "发生状态": False, "描述词": True, "解剖部位": True}
_NOTHING_NORMALISED = "没有对应的标准化实体"
# How the published rows say that there is nothing to find: 上述句子没有指定类型实体, 没有指定类型的三元组.
_NOTHING = re.compile(
    r"\s*[^\n。：]{0,20}没有(?:指定|对应|任何|相关)[^\n。：]{0,10}(?:实体|三元组|关系|事件)。?\s*"
)
_NO_TRIPLES = "给定的文本没有指定关系的三元组"
_CONDITION = "条件关系"


def read_label(task: Task, text: str, choices: Sequence[str]) -> Answer:
    """Read a class. A text that is no label stands for itself: a class that is never right.

    An empty text becomes the first label, as in the official evaluator, but is not parsable.
    """
    label = text.strip()
    known = label in choices or label in task.labels or label in task.synonyms
    # NumPy, which the official evaluator compares labels with, drops NULs at the end.
    name = task.synonyms.get(label, label).rstrip("\0") if label else task.labels[0]
    return Answer(name, known)


def read_sections(_task: Task, text: str, _choices: Sequence[str]) -> Answer:
    """Read a report: the text of each section after the guide line; of a repeated section the last one."""
    fields: dict[str, str] = {}
    for line in text.strip().split("\n")[1:]:
        title, colon, _ = line.partition("：")
        if colon and title in _SECTIONS:
            fields[title] = line.strip().split(f"{title}：")[-1].strip()
    return Answer(fields, bool(fields))


def read_text(_task: Task, text: str, _choices: Sequence[str]) -> Answer:
    """Read a reply: everything."""
    stripped = text.strip()
    return Answer(stripped, bool(stripped))


def read_entities(_task: Task, text: str, choices: Sequence[str]) -> Answer:
    """Read mentions with their types."""
    elements: set[Element] = set()
    parsable = False
    for line in text.split("\n"):
        if "实体" not in line:
            continue
        for choice in choices:
            if line.startswith(f"{choice}实体"):
                parsable = parsable or line.startswith(f"{choice}实体：")
                elements.update((mention, choice) for mention in _split(line.replace(f"{choice}实体：", "")))
    return Answer(frozenset(elements), parsable or _says_nothing(text))


def read_relations(_task: Task, text: str, _choices: Sequence[str]) -> Answer:
    """Read relations with their heads and tails."""
    elements: set[Element] = set()
    parsable = False
    for line in text.split("\n"):
        # A line without a heading has its own text for a relation: its pairs are counted as wrong ones.
        relation = line.split("关系的头尾实体对", 1)[0][2:].strip()
        heading = f"具有{relation}关系的头尾实体对如下："
        parsable = parsable or heading in line
        for pair in line.replace(heading, "").split("。"):
            head, *tails = pair.split("，尾实体为")
            if tails:
                subject = head.replace("头实体为", "").strip()
                elements.add((relation, subject, tails[0].replace("尾实体为", "").strip()))
    return Answer(frozenset(elements), parsable or _says_nothing(text))


def read_causal(_task: Task, text: str, _choices: Sequence[str]) -> Answer:
    """Read triples; the tail of a condition is a triple itself."""
    elements: set[Element] = set()
    relation: str | None = None
    parsable = False
    for line in map(str.strip, text.split("\n")):
        heading = _causal_heading(line)
        if heading:
            relation, parsable = heading, True
        elif _NO_TRIPLES in line:
            return Answer(frozenset(elements), True)
        else:
            triple = _causal_triple(relation, line)
            if triple:
                elements.add(triple)
                parsable = True
    return Answer(frozenset(elements), parsable)


def _causal_heading(line: str) -> str | None:
    """The relation that a heading announces. Any mention of the second and third makes a heading."""
    if "因果关系三元组如下" in line:
        return "因果关系"
    if "条件关系三元组" in line:
        return _CONDITION
    return "上下位关系" if "上下位关系" in line else None


def _causal_triple(relation: str | None, line: str) -> Element | None:
    """The triple of a line; None if a field is missing, where the official reader crashes."""
    subject = between(line, "头实体：", "；尾实体：")
    if relation != _CONDITION:
        tail = between(line, "；尾实体：", "；尾实体：")
        return None if subject is None or tail is None else (relation, subject, tail)
    inner = between(line, "；尾三元组：", "；尾三元组：") or ""
    cause = between(inner, "头实体：", "；尾实体：")
    effect = between(inner, "；尾实体：", "；关系：")
    kind = between(inner, "；关系：", "；关系：")
    if subject is None or cause is None or effect is None or kind is None:
        return None
    return (relation, subject, (kind, cause, effect))


def read_choices(_task: Task, text: str, choices: Sequence[str]) -> Answer:
    """Read terms of the choices, in the last line."""
    answers = _split(text.split("\n")[-1])
    elements = frozenset((answer,) for answer in answers if answer in choices)
    return Answer(elements, bool(elements) or answers == [_NOTHING_NORMALISED] or _says_nothing(text))


def read_events(_task: Task, text: str, _choices: Sequence[str]) -> Answer:
    """Read findings with status, descriptions and places."""
    _, *lines = text.split("\n")
    events = [_event(line) for line in set(lines)]
    parsable = any(seen for _, seen in events) or _says_nothing(text)
    return Answer(frozenset(event for event, _ in events), parsable)


def _event(line: str) -> tuple[Element, bool]:
    """The fields of an event, and whether the line names any of them. An empty line is an empty event."""
    values: dict[str, str] = {}
    for part in line.split("；"):
        # One field's value may itself begin like the next field; it then counts for both.
        value = part
        for name in _FIELDS:
            if value.startswith(f"{name}："):
                value = value.replace(f"{name}：", "").strip()
                values[name] = value
    fields: Iterable[Hashable] = (
        tuple(_split(values.get(name, ""))) if several else values.get(name, "")
        for name, several in _FIELDS.items()
    )
    return tuple(fields), bool(values)


def read_attributes(task: Task, text: str, choices: Sequence[str]) -> Answer:
    """Read findings with a status, the task's default where it is none of the choices."""
    _, *lines = text.split("\n")
    pairs = [line.split("：") for line in set(lines)]
    elements = frozenset(
        (pair[0].strip(), pair[1] if pair[1] in choices else task.default) for pair in pairs if len(pair) == 2
    )
    return Answer(elements, bool(elements) or _says_nothing(text))


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split("，") if part.strip()]


def _says_nothing(text: str) -> bool:
    """Whether a text says in a sentence that there is nothing, or is a guide line with nothing below it."""
    guide, *lines = text.split("\n")
    announced, colon, rest = guide.partition("：")
    only_guide = bool(announced and colon) and not rest.strip() and not any(line.strip() for line in lines)
    return only_guide or bool(_NOTHING.fullmatch(text))


def between(text: str, start: str, end: str) -> str | None:
    """What follows the first `start`, up to the next `start` or `end`; None if there is no `start`."""
    _, opening, rest = text.partition(start)
    return rest.partition(start)[0].partition(end)[0] if opening else None
