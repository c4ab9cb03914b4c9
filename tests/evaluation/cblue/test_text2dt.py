"""Trees: which lines are nodes, what a list of triples may be, how trees are compared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcare.evaluation.cblue.text2dt import Node, compare, read_tree, read_triples

FEVER, COUGH, DRUG = (
    ("患者", "临床表现", "发热"),
    ("患者", "临床表现", "咳嗽"),
    ("患者", "治疗药物", "布洛芬"),
)
TREE = (Node("C", "null", (FEVER,)), Node("D", "null", (DRUG,)), Node("D", "null", (COUGH,)))


def test_a_tree_is_read():
    text = (
        "根据给定的指南文本抽取的诊疗决策树如下：\n"
        '节点1：role=C；logical_rel=or；triples=[["患者", "临床表现", "COPD"], ["a", "b", "c"]]\n'
        "\n节点2：role=D；logical_rel=null；triples=[]\n以上。\n节点3：role=D"
    )
    answer = read_tree(text)
    assert answer.parsable
    assert answer.content == (
        Node("C", "or", (("患者", "临床表现", "copd"), ("a", "b", "c"))),
        Node("D", "null"),
        Node("D", "null"),
    )


@pytest.mark.parametrize("text", ["", "没有决策树。", "根据给定的指南文本抽取的诊疗决策树：role=C"])
def test_an_answer_without_nodes_is_a_lone_decision(text):
    assert read_tree(text).content == (Node("D", "null"),)
    assert not read_tree(text).parsable


@pytest.mark.parametrize(
    ("text", "triples"),
    [
        ("[['a', 'b', 'c']]", [("a", "b", "c")]),
        ('[("A", u"B", r"C"), ["d", "e", "f"],]  # 注', [("a", "b", "c"), ("d", "e", "f")]),
        ("[['a', 'b'], ['d', 'e', 'f'], ['g', 'h', 'i', 'j']]", [("d", "e", "f")]),
        ("['abc']", [("a", "b", "c")]),
        ("[['a', 'b', 3], ['d', 'e', 'f']]", [("d", "e", "f")]),
        ("[{'a': 1}, ['d', 'e', 'f']]", [("d", "e", "f")]),
        (r"[['\d', 'b', 'c']]", [(r"\d", "b", "c")]),
        ("[]", []),
        ("", []),
        ("[3, ['d', 'e', 'f']]", []),
        ("(('a', 'b', 'c'),)", []),
        ("['a', 'b', 'c'], ['d', 'e', 'f']", []),
        ("[['a', 'b', 'c']", []),
        ("[['a', 'b', 'c']]；", []),
        ("[[“a”, “b”, “c”]]", []),
        ("null", []),
        ("[['a', 'b', 'c']][0:1]", []),
        ("[['a', 'b', 'c']] * 2", []),
        ("[x for x in [['a', 'b', 'c']]]", []),
        ("__import__('os').listdir()", []),
        ("[" * 21 + "]" * 21, []),
        ("[['a', 'b', 'c', \0]]", []),
        ("[['\ud800', 'b', 'c']]", []),
    ],
)
def test_lists_of_triples(text, triples):
    assert list(read_triples(text)) == triples


def test_equal_trees_have_no_edits():
    same = compare(TREE, TREE)
    assert (same.edits, same.nodes, same.paths) == (0, (3, 3, 3), (2, 2, 2))
    assert same.most_edits == 2 * (3 + 2 * 3)


def test_edits_count_roles_logic_and_triples():
    other = (Node("C", "and", (FEVER, COUGH)), *TREE[1:])
    assert compare(other, TREE).edits == 2
    # A lone decision in place of the tree: another role, one triple less, and two nodes to add.
    assert compare((Node("D", "null"),), TREE).edits == 2 + 2 * 2
    assert compare(TREE, (Node("D", "null"),)).edits == 2 + 2 * 2


def test_one_wrong_leaf_costs_its_path():
    other = (*TREE[:2], Node("D", "null", (FEVER,)))
    assert compare(other, TREE).paths == (1, 2, 2)
    assert compare(other, TREE).nodes == (2, 3, 3)


def test_roles_other_than_c_and_d_take_no_part():
    assert compare((TREE[0], Node("X", "null"), *TREE[1:]), TREE).edits == 0


def test_a_chain_of_many_conditions_takes_little_time():
    chain = [Node("C", "null")] * 20_000 + [Node("D", "null")] * 20_001
    assert compare(chain, chain).edits == 0


@st.composite
def trees(draw, depth=4):
    triples = st.lists(st.sampled_from([FEVER, COUGH, DRUG]), max_size=2).map(tuple)
    logic = st.sampled_from(["null", "and", "or"])
    if depth and draw(st.booleans()):
        below = draw(trees(depth - 1)), draw(trees(depth - 1))
        return (Node("C", draw(logic), draw(triples)), *below[0], *below[1])
    return (Node("D", draw(logic), draw(triples)),)


@given(trees(), trees())
def test_comparing_is_symmetric(first, second):
    there, back = compare(first, second), compare(second, first)
    assert there.edits == back.edits
    assert there.most_edits == back.most_edits
    assert there.nodes == (back.nodes[0], back.nodes[2], back.nodes[1])
    assert (there.edits == 0) == ([node.key for node in first] == [node.key for node in second])


@given(st.lists(st.builds(Node, st.sampled_from("CDX"), st.just("null")), min_size=1, max_size=30))
def test_any_order_of_roles_is_compared(nodes):
    found = compare(nodes, TREE)
    assert found.edits >= 0
    assert found.paths[1] <= len(nodes)
