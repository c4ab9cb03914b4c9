"""Answers as models write them: what is read, and whether anything in the task's form was found."""

from __future__ import annotations

import pytest

from medcare.evaluation.answer_formats import ANSWER_FORMATS
from medcare.evaluation.cblue.answers import read_label, read_sections, read_text
from medcare.evaluation.cblue.tasks import TASKS
from tests.evaluation.cblue.goldens import cblue_item

STATUS = ("患有该症状", "没有患有该症状", "无法根据上下文确定病人是否患有该症状")
UNKNOWN = STATUS[2]


@pytest.mark.parametrize(
    ("task", "choices", "text", "elements", "parsable"),
    [
        # Entities.
        (
            "CMeEE-V2",
            ("疾病", "药物"),
            "上述句子中的实体包含：\n疾病实体：肺炎，支气管炎\n药物实体：",
            {("肺炎", "疾病"), ("支气管炎", "疾病")},
            True,
        ),
        ("CMeEE-V2", ("疾病", "药物"), "疾病实体：\n药物实体：", set(), True),
        ("CMeEE-V2", ("疾病",), "疾病实体：肺炎，肺炎， 肺炎 ，", {("肺炎", "疾病")}, True),
        ("CMeEE-V2", ("疾病",), "身体部位实体：肺", set(), False),
        ("CMeEE-V2", ("疾病",), " 疾病实体：肺炎", set(), False),
        ("CMeEE-V2", ("疾病",), "疾病实体:肺炎", {("疾病实体:肺炎", "疾病")}, False),
        ("IMCS-V2-NER", ("症状", "药物类别"), "症状实体：咳嗽\n希望对您有帮助！", {("咳嗽", "症状")}, True),
        ("IMCS-V2-NER", ("症状",), "没有。", set(), False),
        # Relations.
        (
            "CMeIE",
            (),
            "具有病因关系的头尾实体对如下：头实体为肺炎，尾实体为细菌。头实体为咳嗽，尾实体为肺炎。\n具有预防关系的头尾实体对如下：",
            {("病因", "肺炎", "细菌"), ("病因", "咳嗽", "肺炎")},
            True,
        ),
        ("CMeIE", (), "具有病因关系的头尾实体对如下：", set(), True),
        ("CMeIE", (), "头实体为肺炎，尾实体为细菌。", {("体为肺炎，尾实体为细菌。", "肺炎", "细菌")}, False),
        ("CMeIE", (), "肺炎由细菌引起。", set(), False),
        # Triples of causes and conditions.
        (
            "CMedCausal",
            (),
            "因果关系三元组如下：\n头实体：吸烟；尾实体：肺癌\n条件关系三元组如下：\n"
            "头实体：长期；尾三元组：头实体：吸烟；尾实体：肺癌；关系：因果关系",
            {
                ("因果关系", "吸烟", "肺癌"),
                ("条件关系", "长期；尾三元组：", ("因果关系", "吸烟", "肺癌")),
            },
            True,
        ),
        ("CMedCausal", (), "给定的文本没有指定关系的三元组", set(), True),
        ("CMedCausal", (), "头实体：a；尾实体：b", {(None, "a", "b")}, True),
        ("CMedCausal", (), "我不确定。", set(), False),
        # Terms of a list.
        ("CHIP-CDN", ("咳嗽", "发热"), "咳嗽，头痛", {("咳嗽",)}, True),
        ("CHIP-CDN", ("咳嗽", "发热"), "标准词为：\n发热，咳嗽，发热", {("咳嗽",), ("发热",)}, True),
        ("CHIP-CDN", ("咳嗽", "发热"), "没有对应的标准化实体", set(), True),
        ("CHIP-CDN", ("咳嗽", "发热"), "咳嗽、发热", set(), False),
        ("CHIP-CDN", ("咳嗽", "发热"), "咳嗽，发热\n", set(), False),
        # Events.
        (
            "CHIP-CDEE",
            (),
            "上述句子中的临床发现事件如下：\n主体词：疼痛；发生状态：否定；描述词：反复，轻度；解剖部位：左肾",
            {("疼痛", "否定", ("反复", "轻度"), ("左肾",))},
            True,
        ),
        ("CHIP-CDEE", (), "上述句子中的临床发现事件如下：", set(), True),
        ("CHIP-CDEE", (), "事件如下：\n解剖部位：肺；主体词：疼痛", {("疼痛", "", (), ("肺",))}, True),
        ("CHIP-CDEE", (), "事件如下：\n无", {("", "", (), ())}, False),
        ("CHIP-CDEE", (), "主体词：疼痛；发生状态：", set(), False),
        # Findings with a status.
        (
            "IMCS-V2-SR",
            STATUS,
            "判断为：\n咳嗽：患有该症状\n发热：没有患有该症状",
            {("咳嗽", STATUS[0]), ("发热", STATUS[1])},
            True,
        ),
        ("IMCS-V2-SR", STATUS, "判断为：", set(), True),
        ("IMCS-V2-SR", STATUS, "判断为：\n咳嗽：可能有", {("咳嗽", UNKNOWN)}, True),
        ("IMCS-V2-SR", STATUS, "判断为：\n咳嗽：患有该症状 ", {("咳嗽", UNKNOWN)}, True),
        ("IMCS-V2-SR", STATUS, "咳嗽：患有该症状", set(), False),
        ("IMCS-V2-SR", STATUS, "判断为：\n咳嗽：早：患有该症状", set(), False),
        ("CHIP-MDCFNPC", ("未患有症状疾病",), "如下：\n咳嗽：阳性", {("咳嗽", "不标注")}, True),
    ],
)  # fmt: skip
def test_sets(task, choices, text, elements, parsable):
    answer = ANSWER_FORMATS[TASKS[task].form].read(TASKS[task], text, cblue_item("1", "", choices))
    assert answer.content == elements
    assert answer.parsable is parsable


@pytest.mark.parametrize(
    ("task", "choices", "text", "label", "parsable"),
    [
        ("KUAKE-QIC", ("病情诊断",), "病情诊断", "病情诊断", True),
        ("KUAKE-QIC", ("病情诊断",), " 病情诊断\n", "病情诊断", True),
        ("KUAKE-QIC", ("病情诊断",), "非上述类型", "非上述类型", True),
        ("KUAKE-QIC", ("病情诊断",), "答案：病情诊断", "答案：病情诊断", False),
        ("KUAKE-QIC", ("病情诊断",), "  ", "非上述类型", False),
        ("CHIP-STS", ("相同", "不同"), "相同", "是的", True),
        ("CHIP-STS", ("相同", "不同"), "不同", "不是", True),
        ("CHIP-STS", ("是的", "不是"), "是的", "是的", True),
        ("CHIP-STS", ("是的", "不是"), "是", "是", False),
        ("KUAKE-QQR", ("语义毫无关联",), "语义毫无关联", "语义毫无关联", True),
    ],
)
def test_labels(task, choices, text, label, parsable):
    answer = read_label(TASKS[task], text, choices)
    assert (answer.content, answer.parsable) == (label, parsable)


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("报告如下：\n主诉：咳嗽。\n诊断：肺炎。", {"主诉": "咳嗽。", "诊断": "肺炎。"}),
        ("报告如下：\n主诉：咳嗽。\n主诉：发热。", {"主诉": "发热。"}),
        ("报告如下：\n主诉：", {"主诉": ""}),
        ("主诉：咳嗽。\n诊断：肺炎。", {"诊断": "肺炎。"}),
        ("报告如下：\n患者咳嗽。\n体格检查：无。", {}),
        ("", {}),
    ],
)
def test_sections(text, sections):
    answer = read_sections(TASKS["IMCS-V2-MRG"], text, ())
    assert answer.content == sections
    assert answer.parsable is bool(sections)


def test_texts():
    assert read_text(TASKS["MedDG"], " 您好！\n", ()).content == "您好！"
    assert read_text(TASKS["MedDG"], "您好", ()).parsable
    assert not read_text(TASKS["MedDG"], " \n", ()).parsable
