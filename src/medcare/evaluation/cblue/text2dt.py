"""Text2DT: reading and comparing trees of clinical decisions.

A tree is a list of nodes in pre-order, one a line:

    节点1：role=C；logical_rel=null；triples=[["患者", "临床表现", "发热"]]

A condition (role C) has two children, a decision (role D) none; nothing else marks the structure. The
measures are those of the official evaluator: the edit ratio, and F1 of nodes and of paths from the root to a
leaf.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medcare.evaluation.cblue.answers import between
from medcare.evaluation.metrics import Content, Floats
from medcare.evaluation.reading import Answer

Triple = tuple[str, str, str]
Children = Mapping[int, tuple[int, int]]

_GUIDE = "根据给定的指南文本抽取的诊疗决策树"
_NO_LOGIC = "null"
# The official evaluator gives up on a tree after this many conditions.
_MOST_CONDITIONS = 101
_DEEPEST = 20

# Python's literals, as far as a list of triples needs them. All quantifiers are possessive: no backtracking.
_STRING = r"""[rRuU]?(?:"(?:[^"\\]|\\.)*+"|'(?:[^'\\]|\\.)*+')"""
_LITERAL = re.compile(rf"(?:[\s\[\](){{}},:]|{_STRING}|\d++(?:\.\d++)?+|None|True|False|\#.*+)*+", re.DOTALL)
_BRACKETS = re.compile(rf"{_STRING}|[\[({{]|[\])}}]", re.DOTALL)


@dataclass(frozen=True)
class Node:
    """A condition or a decision.

    Attributes:
        role: `C`, `D`, or whatever the text says.
        logic: how the triples are joined: and, or, null.
        triples: in lower case.
    """

    role: str
    logic: str
    triples: tuple[Triple, ...] = ()

    @property
    def key(self) -> Hashable:
        """Equal for nodes that say the same."""
        return self.role, self.logic, frozenset(self.triples)


_NOTHING = Node("", _NO_LOGIC)
# What an answer without any node stands for.
_LONE_DECISION = (Node("D", _NO_LOGIC),)


@dataclass(frozen=True)
class Comparison:
    """Counts of one predicted tree against the right one; a test set's measures are functions of their sums.

    Attributes:
        edits: cost of turning one tree into the other.
        most_edits: the cost that the official evaluator takes for the largest.
        nodes: pairs of equal nodes, predicted nodes, right nodes; only nodes with triples count.
        paths: predicted paths that are right, predicted paths, right paths.
    """

    edits: int
    most_edits: int
    nodes: tuple[int, int, int]
    paths: tuple[int, int, int]


def read_tree(text: str) -> Answer:
    """Read the nodes; lines that are no node are left out. Never raises."""
    nodes = []
    for line in text.split("\n"):
        if "：role=" not in line or _GUIDE in line:
            continue
        role = between(line, "：role=", "；logical_rel=") or ""
        logic = between(line, "；logical_rel=", "；triples=")
        triples = read_triples(between(line, "；triples=", "；triples=") or "")
        nodes.append(Node(role, _NO_LOGIC if logic is None else logic, triples))
    return Answer(tuple(nodes) or _LONE_DECISION, bool(nodes))


def read_triples(text: str) -> tuple[Triple, ...]:
    """The triples of a Python list of three strings each; empty if the text is no such list.

    The official evaluator runs the text as a program (`eval`). Here it has to be a literal, and is at most 20
    brackets deep.
    """
    if not _LITERAL.fullmatch(text) or _depth(text) > _DEEPEST:
        return ()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a string warns
            entries = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ()
    if not isinstance(entries, list) or not all(hasattr(entry, "__len__") for entry in entries):
        return ()
    return tuple(triple for entry in entries for triple in _triple(entry))


def compare(predicted: Sequence[Node], right: Sequence[Node]) -> Comparison:
    """Compare two trees, each of at least one node."""
    first, second = _children(predicted), _children(right)
    triples = sum(len({t for node in tree for t in node.triples}) for tree in (predicted, right))
    nodes = _equal_nodes(predicted, right)
    return Comparison(
        edits=_edits(predicted, right, first, second),
        most_edits=triples + 2 * (nodes[1] + nodes[2]),
        nodes=nodes,
        paths=_equal_paths(predicted, right, first, second),
    )


class TreeEdits:
    """The edit ratio of trees, pooled over items, with F1 of nodes and of paths.

    Rows are edits and most edits, and the three counts of nodes and of paths (see `Comparison`).
    """

    # The official evaluator starts each count of nodes and paths here, which spares it a division by zero.
    _EPSILON = 1e-6

    def rows(self, gold: Sequence[Content], answers: Sequence[Content], labels: Sequence[str]) -> Floats:
        """As `Metric.rows`: [n, 8]."""
        compared = [
            compare(_LONE_DECISION if answer is None else answer, right)
            for right, answer in zip(gold, answers, strict=True)
        ]
        rows = [(tree.edits, tree.most_edits, *tree.nodes, *tree.paths) for tree in compared]
        return np.array(rows, dtype=np.float64)

    def __call__(self, sums: Floats) -> Floats:
        """1 - edits / most edits, [R]; if no node has triples, 1 for equal trees else 0."""
        edits, most = sums[:, 0], sums[:, 1]
        ratio: Floats = np.where(most > 0, 1 - edits / np.where(most > 0, most, 1), edits == 0)
        return ratio

    def rates(self, sums: Floats) -> dict[str, float]:
        """F1 of nodes and of paths."""
        return {"node_f1": self._f1(*sums[2:5]), "path_f1": self._f1(*sums[5:8])}

    def counts(self, sums: Floats) -> dict[str, int]:
        """Of edits."""
        return {"edits": round(sums[0]), "most_edits": round(sums[1])}

    def _f1(self, pairs: float, predicted: float, right: float) -> float:
        precision = (pairs + self._EPSILON) / (predicted + self._EPSILON)
        recall = (pairs + self._EPSILON) / (right + self._EPSILON)
        return float(2 * precision * recall / (precision + recall))


def _triple(entry: object) -> Iterator[Triple]:
    """The triple that an entry is, if it is one; for the official reader three characters are one."""
    if isinstance(entry, list | tuple | str) and len(entry) == 3 and all(isinstance(p, str) for p in entry):
        subject, relation, value = (part.lower() for part in entry)
        yield subject, relation, value


def _depth(text: str) -> int:
    depth = deepest = 0
    for mark in _BRACKETS.finditer(text):
        if mark[0] in "[({":
            depth += 1
            deepest = max(deepest, depth)
        elif mark[0] in "])}":
            depth -= 1
    return deepest


def _children(nodes: Sequence[Node]) -> Children:
    """The two children of each condition whose subtree is complete, until the first node's is.

    Roles other than C and D don't take part.
    """
    children: dict[int, tuple[int, int]] = {}
    waiting: list[tuple[int, bool]] = []  # index, whether its subtree is complete
    for index, node in enumerate(nodes):
        if node.role in ("C", "D"):
            waiting.append((index, node.role == "D"))
        while [complete for _, complete in waiting[-3:]] == [False, True, True]:
            if 0 in children or len(children) == _MOST_CONDITIONS or nodes[0].role == "D":
                return children
            (parent, _), (left, _), (right, _) = waiting[-3:]
            children[parent] = (left, right)
            waiting[-3:] = [(parent, True)]
    return children


def _edits(first: Sequence[Node], second: Sequence[Node], of_first: Children, of_second: Children) -> int:
    """The cost of the differences between nodes at the same place, and of those on one side only.

    Nodes that hang on nothing cost nothing, as in the official evaluator.
    """
    cost = 0
    places = [(0, 0)]
    while places:
        here, there = places.pop()
        cost += _distance(first[here], second[there])
        if here in of_first and there in of_second:
            places += zip(of_first[here], of_second[there], strict=True)
        else:
            cost += sum(_distance(first[node], _NOTHING) for node in _below(here, of_first))
            cost += sum(_distance(second[node], _NOTHING) for node in _below(there, of_second))
    return cost


def _distance(first: Node, second: Node) -> int:
    triples = len(set(first.triples) ^ set(second.triples))
    return (first.role != second.role) + (first.logic != second.logic) + triples


def _below(node: int, children: Children) -> Iterator[int]:
    waiting = [*children.get(node, ())]
    while waiting:
        found = waiting.pop()
        yield found
        waiting += children.get(found, ())


def _equal_nodes(predicted: Sequence[Node], right: Sequence[Node]) -> tuple[int, int, int]:
    answered, wanted = (Counter(n.key for n in tree if n.triples) for tree in (predicted, right))
    pairs = sum(count * wanted[key] for key, count in answered.items())
    return pairs, answered.total(), wanted.total()


def _equal_paths(
    predicted: Sequence[Node], right: Sequence[Node], of_predicted: Children, of_right: Children
) -> tuple[int, int, int]:
    """A node that hangs on nothing ends the counting, as it does in the official evaluator."""
    answered, whole = _paths(predicted, of_predicted)
    if not whole:
        return 0, len(answered), 0
    wanted, whole = _paths(right, of_right)
    known = set(wanted) if whole else set()
    return sum(path in known for path in answered), len(answered), len(wanted)


def _paths(nodes: Sequence[Node], children: Children) -> tuple[list[Hashable], bool]:
    """The paths from leaves to the first node, up to the first leaf without one, and whether all have one."""
    parents = {child: (parent, side) for parent, pair in children.items() for side, child in enumerate(pair)}
    paths: list[Hashable] = []
    for leaf in range(len(nodes)):
        if leaf in children:
            continue
        path: list[Hashable] = [nodes[leaf].key]
        place = leaf
        while place != 0:
            if place not in parents:
                return paths, False
            place, side = parents[place]
            path += [side, nodes[place].key]
        paths.append(tuple(path))
    return paths, True
