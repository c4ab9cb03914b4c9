"""Finding medical terms in text: names of the Human Phenotype Ontology and ICD-10-CM, and lists of one's own.

The longest name wins (`chest pain`, not `pain`). Names of one thing count as one: `seizure`, `seizures` and
`epileptic seizure` are HP:0001250. Both ontologies are English; for Chinese there is a short list of common
findings, and `--terms` adds more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from medcare.foundation.errors import DataError

# A word, or one Chinese character.
_PIECE = re.compile(r"[a-z0-9]+|[\u3400-\u9fff]", re.IGNORECASE)
_UNSPECIFIED = re.compile(r"(?:, (?:unspecified|NOS)| NOS|,? not elsewhere classified)$", re.IGNORECASE)
# Longer names are definitions rather than what anybody writes.
_LONGEST_NAME = 8
_SHORTEST = 4
# Findings that any Chinese note may mention, so that negation is looked at without a list of one's own.
_CHINESE = (
    *("发热", "寒战", "咳嗽", "咳痰", "咯血", "胸痛", "胸闷", "气促", "呼吸困难", "心悸"),
    *("头痛", "头晕", "眩晕", "晕厥", "抽搐", "意识障碍", "恶心", "呕吐", "呕血", "黑便"),
    *("腹痛", "腹胀", "腹泻", "便秘", "便血", "黄疸", "皮疹", "瘙痒", "水肿", "乏力", "消瘦"),
    *("盗汗", "纳差", "失眠", "尿频", "尿急", "尿痛", "血尿", "少尿", "关节痛", "腰痛", "背痛"),
    *("咽痛", "鼻塞", "流涕", "高血压", "糖尿病", "冠心病", "脑梗死", "脑出血", "肺炎"),
    *("肺结核", "哮喘", "肝炎", "肝硬化", "肾炎", "贫血", "肿瘤", "骨折", "湿啰音", "干啰音"),
    *("压痛", "反跳痛", "肌紧张"),
)


@dataclass(frozen=True)
class TermMention:
    """A term in a text.

    Attributes:
        concept: what is named: `HP:0001250`, an ICD-10-CM code, or the term itself where it is from a list.
        start: its first character.
        end: behind its last character.
    """

    concept: str
    start: int
    end: int


class Terms:
    """Names that are looked for.

    Attributes:
        sources: where they are from, with versions.
        names: one name of each concept.
    """

    def __init__(self, names: Iterable[tuple[str, str]], sources: Mapping[str, str]) -> None:
        """Take pairs of a name and its concept; the first concept keeps a name that comes twice."""
        self.sources = dict(sources)
        self.names: dict[str, str] = {}
        self._concepts: dict[tuple[str, ...], str] = {}
        self._longest: dict[str, int] = {}
        for name, concept in names:
            pieces = _pieces(name)
            if pieces and pieces not in self._concepts and not _is_short(pieces):
                self._add(pieces, name, concept)

    def with_own(self, names: Iterable[tuple[str, str]], source: str) -> Terms:
        """These terms and others, short ones too, which win where they have the same name."""
        found = Terms((), {**self.sources, "own": source})
        found.names, found._concepts, found._longest = (
            dict(self.names),
            dict(self._concepts),
            dict(self._longest),
        )
        for name, concept in names:
            if pieces := _pieces(name):
                found._add(pieces, name, concept)
        return found

    def _add(self, pieces: tuple[str, ...], name: str, concept: str) -> None:
        self._concepts[pieces] = concept
        self._longest[pieces[0]] = max(self._longest.get(pieces[0], 0), len(pieces))
        self.names.setdefault(concept, name)

    def find(self, text: str) -> list[TermMention]:
        """The terms of a text, from left to right, none inside another."""
        found = list(_PIECE.finditer(text))
        pieces = [_singular(piece[0]) for piece in found]
        mentions = []
        at = 0
        while at < len(pieces):
            longest = min(self._longest.get(pieces[at], 0), len(pieces) - at)
            for length in range(longest, 0, -1):
                concept = self._concepts.get(tuple(pieces[at : at + length]))
                if concept is not None:
                    mentions.append(TermMention(concept, found[at].start(), found[at + length - 1].end()))
                    at += length
                    break
            else:
                at += 1
        return mentions


def load_terms(extra: Path | None = None) -> Terms:
    """The terms of the ontologies, the short Chinese list, and those of a file.

    Args:
        extra: a text file with a term a line; several names of one thing are separated by tabs.

    Raises:
        DataError: the ontologies are not installed, or the file can't be read.
        StorageError: the cache of the ontologies can't be written.
    """
    if extra is None:
        return _known()
    own = _read(extra)
    return _known().with_own(own, f"{extra.name}, {len(own)} names")


@cache
def _known() -> Terms:
    from medcare.benchmark.ontology import load_ontology

    ontology = load_ontology()
    names = [(name, name) for name in _CHINESE]
    names += [(finding.name, finding.id) for finding in ontology.findings.values()]
    for finding in ontology.findings.values():
        names += [(name, finding.id) for name in (*finding.synonyms, *finding.lay_terms)]
    for code in ontology.codes.values():
        known = [code.name, _UNSPECIFIED.sub("", code.name), *code.inclusion_terms]
        names += [(name, code.code) for name in known if len(name.split()) <= _LONGEST_NAME]
    return Terms(names, {**ontology.versions, "Chinese": f"{len(_CHINESE)} common findings"})


def _read(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} should be a text file with a term a line and can't be read: {error}."
        ) from error
    rows = [[name.strip() for name in line.split("\t") if name.strip()] for line in lines]
    return [(name, row[0]) for row in rows for name in row]


def _pieces(name: str) -> tuple[str, ...]:
    return tuple(_singular(found[0]) for found in _PIECE.finditer(name))


def _is_short(pieces: tuple[str, ...]) -> bool:
    """ALL, AS, MI: as often a word as a name."""
    return len(pieces) == 1 and len(pieces[0]) < _SHORTEST and pieces[0].isascii()


def _singular(piece: str) -> str:
    """The piece in lower case, without the s of a plural: both sides are treated alike."""
    piece = piece.lower()
    if len(piece) > 4 and piece[-1] == "s" and piece[-2] not in "siu":
        return piece[:-1]
    return piece
