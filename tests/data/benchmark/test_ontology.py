import json
from importlib import metadata

import pytest

from medcare.data.benchmark import ontology as module
from medcare.data.benchmark import ontology_sources
from medcare.data.benchmark.ontology import is_plain, load_ontology
from medcare.errors import DataError


def test_findings_have_names_definitions_and_places(ontology):
    defect = ontology.findings["HP:0001629"]
    assert defect.name == "Ventricular septal defect"
    assert defect.definition.startswith("A hole between the two bottom chambers")
    assert defect.abbreviations == ("VSD",)
    assert "Hole in heart wall separating two lower heart chambers" in defect.lay_terms
    assert [ontology.findings[key].name for key in defect.systems] == [
        "Abnormality of the cardiovascular system"
    ]
    assert ontology.finding_by_name["vsd"] is defect


def test_only_abnormalities_are_findings(ontology):
    assert len(ontology.findings) > 15_000
    assert "HP:0000001" not in ontology.findings  # the root
    assert "HP:0000007" not in ontology.findings  # autosomal recessive inheritance
    for finding in ontology.findings.values():
        assert not finding.name.startswith("obsolete")
        assert all(finding.id in ontology.findings[child].parents for child in finding.children)
        assert {*finding.parents, *finding.children, *finding.systems} <= ontology.findings.keys()


def test_relations_follow_the_hierarchy(ontology):
    cyst, kidney = "HP:0000107", "HP:0000077"
    assert kidney in ontology.ancestors(cyst)
    assert cyst not in ontology.ancestors(kidney)
    assert ontology.related(cyst, kidney)
    assert ontology.related(kidney, cyst)
    assert ontology.related(cyst, cyst)
    assert not ontology.related(cyst, "HP:0001629")
    assert cyst not in ontology.siblings(cyst)
    assert all(
        set(ontology.findings[key].parents) & set(ontology.findings[cyst].parents)
        for key in ontology.siblings(cyst)
    )


def test_diseases_have_findings_and_genes(ontology):
    fibrosis = ontology.diseases["OMIM:219700"]
    assert fibrosis.name == "Cystic fibrosis"
    assert "CFTR" in fibrosis.genes
    assert all(disease.findings for disease in ontology.diseases.values())
    linked = {key for disease in ontology.diseases.values() for key in disease.findings}
    assert linked <= ontology.findings.keys()


def test_findings_that_a_disease_lacks_are_left_out(ontology, tmp_path):
    """The annotation files mark them NOT."""
    rows = [
        ("database_id", "disease_name", "qualifier", "hpo_id"),
        ("OMIM:1", "One", "", "HP:0000107"),
        ("OMIM:1", "One", "NOT", "HP:0001629"),
        ("ORPHA:1", "Other", "", "HP:0000107"),
    ]
    text = "".join("\t".join(row) + "\n" for row in rows)
    (tmp_path / "phenotype.hpoa").write_text(f"#version: x\n{text}")
    (tmp_path / "genes_to_phenotype.txt").write_text(
        "ncbi_gene_id\tgene_symbol\tdisease_id\n1\tABC1\tOMIM:1\n"
    )
    assert ontology_sources._diseases(tmp_path, set(ontology.findings)) == [
        {"id": "OMIM:1", "name": "One", "findings": ["HP:0000107"], "genes": ["ABC1"]}
    ]


def test_codes_have_descriptions_and_places(ontology):
    code = ontology.codes["K25"]
    assert (code.name, code.chapter, code.parent) == ("Gastric ulcer", "11", "")
    assert code.block == "Diseases of esophagus, stomach and duodenum"
    assert ontology.chapters["11"] == "Diseases of the digestive system"
    assert "acute gastritis (K29.0-)" in code.excludes1
    assert ontology.codes["J45.20"].inclusion_terms == ("Mild intermittent asthma NOS",)
    for code in ontology.codes.values():
        assert code.chapter in ontology.chapters
        assert all(ontology.codes[child].parent == code.code for child in code.children)


def test_order_and_releases_are_fixed(ontology):
    assert list(ontology.findings) == sorted(ontology.findings)
    assert list(ontology.diseases) == sorted(ontology.diseases)
    assert next(iter(ontology.codes)) == "A00"
    assert ontology.versions == {"hpo": "2025-01-16", "icd10cm": "April 1 2026"}


def test_names_that_suit_prompts_and_answers():
    assert is_plain("Ventricular septal defect")
    bad = [
        "A; b long",
        "one | other",
        "x" * 61,
        "VSD/ASD/PDA",
        "obsolete Renal cyst",
        "Cyst\nof kidney",
        'A "cyst"',
    ]
    assert not any(is_plain(name) for name in bad)


def test_the_cache_is_used_and_a_damaged_one_replaced(tmp_path, monkeypatch, ontology):
    monkeypatch.setenv("MEDCARE_CACHE", str(tmp_path))
    tree = {"versions": {}, "findings": [], "diseases": [], "chapters": {}, "codes": []}
    sources = iter([tree])
    monkeypatch.setattr(ontology_sources, "read_sources", lambda: next(sources))
    load = load_ontology.__wrapped__
    module._cache_path().write_text("{")
    assert load().findings == {}
    assert json.loads(module._cache_path().read_text()) == tree
    assert load().findings == {}  # the sources would now fail


def test_a_missing_package_says_what_to_install(tmp_path, monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setenv("MEDCARE_CACHE", str(tmp_path))
    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(DataError, match=r"pip install 'medcare\[embedded\]'"):
        load_ontology.__wrapped__()
