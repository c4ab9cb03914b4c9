"""Where scores differ from the official evaluator's, and what looks odd but is kept: docs/evaluation.md."""

from __future__ import annotations

import pytest

from medcare.evaluation.cblue.tasks import TASKS
from medcare.evaluation.cblue.text2dt import read_tree
from medcare.evaluation.score_files import score
from medcare.foundation.errors import EvaluationError
from tests.evaluation.cblue.goldens import cblue_item

LEAF = "节点1：role=D；logical_rel=null；triples=[['患者', '治疗药物', '布洛芬']]"
CAUSE = "因果关系三元组如下：\n头实体：吸烟；尾实体：肺癌"


def total(name: str, *pairs: tuple[str, str], choices: tuple[str, ...] = ()):
    items = [cblue_item(str(number), target, choices) for number, (target, _) in enumerate(pairs)]
    return score(TASKS[name], items, [answer for _, answer in pairs])


# Differences.


@pytest.mark.parametrize("name", ["MedDG", "IMCS-V2-MRG"])
def test_a_text_that_is_the_right_one_scores_one(name):
    right = "报告：\n主诉：咳嗽三天。\n诊断：肺炎。"
    tree = total(name, (right, right)).to_dict()
    assert (tree["value"], tree["rouge_1"], tree["rouge_2"], tree["high"]) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CMeEE-V2", "上述句子没有指定类型实体"),
        ("CMeEE-V2", "上述句子中的实体包含：\n"),
        ("IMCS-V2-NER", "上述句子没有指定类型实体。"),
        ("CMeIE", "没有指定类型的三元组"),
        ("CHIP-CDN", "没有对应的标准化实体"),
        ("CMedCausal", "给定的文本没有指定关系的三元组"),
        ("CHIP-CDEE", "上述句子中的临床发现事件如下："),
        ("CHIP-MDCFNPC", "上述对话中临床发现有："),
    ],
)
def test_nothing_found_is_an_answer_in_the_form_and_needs_no_choices(name, text):
    for choices in (("疾病",), ()):
        found = total(name, (text, text), choices=choices)
        assert (found.unparsable, found.counts) == (0, {"tp": 0, "fp": 0, "fn": 0})
        assert total(name, (text, "我不知道。"), choices=choices).unparsable == 1


def test_one_row_without_choices_does_not_refuse_the_others():
    right = "上述句子中的实体包含：\n疾病实体：肺炎"
    items = [cblue_item("1", right, ("疾病",)), cblue_item("2", right, ())]
    assert score(TASKS["CMeEE-V2"], items, [right, right]).counts == {"tp": 1, "fp": 0, "fn": 0}
    with pytest.raises(EvaluationError, match="needs the answer_choices"):
        score(TASKS["CMeEE-V2"], items[1:], [right])


@pytest.mark.parametrize(
    "line", ["以上为全部三元组。", "头实体：吸烟", "吸烟导致肺癌", "头实体：吸烟；尾三元组：肺癌"]
)
def test_a_line_that_is_no_triple_is_left_out(line):
    found = total("CMedCausal", (CAUSE, f"{CAUSE}\n{line}"))
    assert found.counts == {"tp": 1, "fp": 0, "fn": 0}


def test_a_condition_of_another_relation_is_a_wrong_triple():
    right = "条件关系三元组如下：\n头实体：长期；尾三元组：头实体：吸烟；尾实体：肺癌；关系：因果关系"
    wrong = right.replace("关系：因果关系", "关系：相关")
    assert total("CMedCausal", (right, wrong)).counts == {"tp": 0, "fp": 1, "fn": 1}


@pytest.mark.parametrize("line", ["以上是决策树。", "   ", "节点2：D"])
def test_a_line_that_is_no_node_is_left_out(line):
    assert total("Text2DT", (LEAF, f"{LEAF}\n{line}")).value == 1


@pytest.mark.parametrize(
    "program", ["print(open('/etc/passwd').read())", "[['a', 'b', 'c']] * 10**9", "exit()"]
)
def test_triples_are_never_run_as_a_program(program, capsys):
    (node,) = read_tree(f"节点1：role=D；logical_rel=null；triples={program}").content
    assert node.triples == ()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "entry", ["['a', 'b', 3]", "['a', 'b', ['c']]", "{'a': 1, 'b': 2, 'c': 3}", "{'a', 'b', 'c'}"]
)
def test_entries_that_are_no_triple_of_texts_are_left_out(entry):
    (node,) = read_tree(f"{LEAF[:-1]}, {entry}]").content
    assert node.triples == (("患者", "治疗药物", "布洛芬"),)


def test_trees_without_any_triple_have_a_score():
    empty = "节点1：role=D；logical_rel=null；triples=[]"
    assert total("Text2DT", (empty, empty)).value == 1
    assert total("Text2DT", (empty, empty.replace("null", "and"))).value == 0


def test_a_report_without_sections_is_only_left_out():
    report = "诊疗报告如下：\n主诉：咳嗽。"
    assert total("IMCS-V2-MRG", ("暂无报告。", "暂无报告。"), (report, report)).counts == {"texts": 1}


def test_answers_are_matched_by_id_and_not_by_order():
    items = [cblue_item("1", "部分匹配"), cblue_item("2", "完全匹配")]
    assert score(TASKS["KUAKE-QTR"], items, ["部分匹配", "完全匹配"]).value == 1


# Kept for comparability.


def test_an_empty_answer_is_the_first_label():
    found = total("KUAKE-QIC", ("非上述类型", ""))
    assert (found.value, found.unparsable) == (1, 1)


def test_a_misspelt_label_is_one_more_class():
    right = [("病情诊断", "病情诊断"), ("治疗方案", "治疗方案")]
    assert total("KUAKE-QIC", *right, ("治疗方案", "方案")).value == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_the_order_within_a_field_of_an_event_matters():
    event = "事件如下：\n主体词：疼痛；发生状态：；描述词：{}；解剖部位："
    assert total("CHIP-CDEE", (event.format("反复，轻度"), event.format("轻度，反复"))).counts["tp"] == 0


def test_an_empty_line_is_an_event():
    event = "事件如下：\n主体词：疼痛；发生状态：；描述词：；解剖部位："
    assert total("CHIP-CDEE", (event, f"{event}\n")).counts == {"tp": 1, "fp": 1, "fn": 0}


def test_only_the_last_line_of_normalised_terms_counts():
    assert total("CHIP-CDN", ("咳嗽", "咳嗽\n以上。"), choices=("咳嗽", "发热")).counts["tp"] == 0


def test_nodes_that_hang_on_nothing_cost_nothing():
    more = "\n".join(LEAF.replace("布洛芬", f"药{number}") for number in range(10))
    assert total("Text2DT", (LEAF, f"{LEAF}\n{more}")).value == 1
    assert total("Text2DT", (LEAF, f"{LEAF}\n{more}")).to_dict()["node_f1"] < 0.2


def test_nothing_to_find_and_nothing_found_is_0():
    empty = "上述句子中的实体包含：\n疾病实体："
    assert total("CMeEE-V2", (empty, empty), choices=("疾病",)).value == 0


def test_an_empty_reply_counts_as_none_with_a_full_stop():
    assert total("MedDG", ("无。", "")).value == pytest.approx(1)
