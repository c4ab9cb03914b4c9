"""The medical knowledge behind the embedded benchmark: findings, diseases and ICD-10-CM codes.

The first call reads the packages' files (about 4 s) and keeps what is needed in the cache; later calls
read that. Everything is in a fixed order, the same on every machine.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from medcare.benchmark import ontology_sources
from medcare.foundation.errors import DataError
from medcare.foundation.storage import cache_dir, read_json, write_text

_LONGEST_NAME = 60
_FORBIDDEN = re.compile(r"[;|\n\"\[\]{}<>]")


@dataclass(frozen=True, slots=True)
class Finding:
    """A phenotypic abnormality of the Human Phenotype Ontology.

    Attributes:
        id: for example `HP:0001250`.
        name: the preferred name.
        definition: the full text, empty where there is none.
        synonyms: exact ones that are neither lay terms nor abbreviations.
        lay_terms: exact ones in words of patients.
        abbreviations: exact ones such as `VSD`.
        parents: ids one level up (is-a), without the root.
        children: ids one level down.
        systems: ids of the organ systems (the root's children) that it belongs to.
    """

    id: str
    name: str
    definition: str
    synonyms: tuple[str, ...]
    lay_terms: tuple[str, ...]
    abbreviations: tuple[str, ...]
    parents: tuple[str, ...]
    children: tuple[str, ...]
    systems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Disease:
    """A disease of OMIM as the HPO annotates it.

    Attributes:
        id: for example `OMIM:619340`.
        name: OMIM's title.
        findings: ids of the findings that are noted for it in at least one patient.
        expected: of these, the ones that 30 % of the patients or more have by each report, or of which no
            report says how many.
        genes: symbols of the genes linked to it.
    """

    id: str
    name: str
    findings: tuple[str, ...]
    expected: tuple[str, ...]
    genes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """A category or subcategory of ICD-10-CM.

    Attributes:
        code: with its dot, for example `J45.20`.
        name: the description.
        chapter: its number, a key of `Ontology.chapters`.
        block: the name of its block.
        parent: the code above, empty for a category of three characters.
        children: the codes below.
        inclusion_terms: other conditions that are coded here.
        excludes1: notes "not coded here", often with a code in brackets.
        excludes2: notes "not included here".
        excludes_above: both kinds of notes of the block and the chapter, for a category of three characters.
        billable: whether it can be given as it is: no code lies below it and no seventh character is due.
    """

    code: str
    name: str
    chapter: str
    block: str
    parent: str
    children: tuple[str, ...]
    inclusion_terms: tuple[str, ...]
    excludes1: tuple[str, ...]
    excludes2: tuple[str, ...]
    excludes_above: tuple[str, ...]
    billable: bool


@dataclass(frozen=True, eq=False)  # compared, and cached by, identity
class Ontology:
    """All of it, in a fixed order.

    Attributes:
        findings: by id, in the order of ids.
        diseases: by id, in the order of ids.
        codes: by code, in the order of the tabular list.
        chapters: names of ICD-10-CM's chapters by number.
        versions: releases, keys `hpo` and `icd10cm`.
    """

    findings: dict[str, Finding]
    diseases: dict[str, Disease]
    codes: dict[str, Code]
    chapters: dict[str, str]
    versions: dict[str, str] = field(default_factory=dict)

    @cached_property
    def finding_by_name(self) -> dict[str, Finding]:
        """Findings by every exact name, in lower case; a preferred name wins over a synonym."""
        names: dict[str, Finding] = {}
        for finding in self.findings.values():
            for name in (*finding.synonyms, *finding.lay_terms, *finding.abbreviations):
                names.setdefault(name.lower(), finding)
        names.update({finding.name.lower(): finding for finding in self.findings.values()})
        return names

    @cached_property
    def _ancestors(self) -> dict[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}

        def climb(key: str) -> frozenset[str]:
            if key not in found:
                above = self.findings[key].parents
                found[key] = frozenset(above).union(*(climb(parent) for parent in above))
            return found[key]

        for key in self.findings:
            climb(key)
        return found

    def ancestors(self, finding: str) -> frozenset[str]:
        """Ids of all findings above one, itself not included."""
        return self._ancestors[finding]

    def siblings(self, finding: str) -> tuple[str, ...]:
        """Ids of the findings that share a parent with one, itself not included, in order of ids."""
        return tuple(
            sorted(
                {
                    child
                    for parent in self.findings[finding].parents
                    for child in self.findings[parent].children
                    if child != finding
                }
            )
        )

    def related(self, one: str, other: str) -> bool:
        """Whether one finding is the other or lies above or below it."""
        return one == other or one in self._ancestors[other] or other in self._ancestors[one]


def is_plain(name: str) -> bool:
    """Whether a name can be used in prompts and in answers of a strict form.

    No separator of the answer forms, at most 60 characters, at least one word of four letters in lower
    case (so that lists of abbreviations are left out), and not marked obsolete.
    """
    return (
        len(name) <= _LONGEST_NAME
        and not _FORBIDDEN.search(name)
        and re.search(r"[a-z]{4}", name) is not None
        and "obsolete" not in name.lower()
    )


@cache
def load_ontology() -> Ontology:
    """The ontology, from the cache if it is there.

    Raises:
        DataError: the packages are not installed.
        StorageError: the cache can't be written.
    """
    path = _cache_path()
    if path.is_file():
        try:
            return _build(read_json(path))
        except (
            DataError,
            KeyError,
            TypeError,
            AttributeError,
        ):  # damaged from outside: read the packages again
            pass
    tree = ontology_sources.read_sources()
    write_text(path, json.dumps(tree, ensure_ascii=False, separators=(",", ":")))
    return _build(tree)


def _cache_path() -> Path:
    """A name that changes with the packages and with the code that reads them."""
    versions = "-".join(f"{name}-{version}" for name, version in ontology_sources.package_versions().items())
    source = Path(ontology_sources.__file__).read_bytes()
    return cache_dir() / f"ontology-{versions}-{hashlib.sha256(source).hexdigest()[:8]}.json"


def _build(tree: dict[str, Any]) -> Ontology:
    def records(kind: type[Any], rows: list[dict[str, Any]]) -> list[Any]:
        return [
            kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in row.items()})
            for row in rows
        ]

    return Ontology(
        findings={row.id: row for row in records(Finding, tree["findings"])},
        diseases={row.id: row for row in records(Disease, tree["diseases"])},
        codes={row.code: row for row in records(Code, tree["codes"])},
        chapters=dict(tree["chapters"]),
        versions=dict(tree["versions"]),
    )
