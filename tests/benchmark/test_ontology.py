import json
from importlib import metadata

import pytest

from medcare.benchmark import ontology as module
from medcare.benchmark import ontology_sources
from medcare.benchmark.ontology import is_plain, load_ontology
from medcare.foundation.errors import DataError


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


def diseases(folder, *annotations):
    """What is read from annotations of disease, qualifier, finding and frequency."""
    rows = [("database_id", "disease_name", "qualifier", "hpo_id", "frequency")]
    rows += [(key, "One", qualifier, finding, share) for key, qualifier, finding, share in annotations]
    text = "".join("\t".join(row) + "\n" for row in rows)
    (folder / "phenotype.hpoa").write_text(f"#version: x\n{text}")
    (folder / "genes_to_phenotype.txt").write_text("ncbi_gene_id\tgene_symbol\tdisease_id\n1\tABC1\tOMIM:1\n")
    return ontology_sources._diseases(folder, {finding for *_, finding, _ in annotations})


def test_findings_that_a_disease_lacks_are_left_out(tmp_path):
    """The annotation files mark them NOT."""
    assert diseases(
        tmp_path,
        ("OMIM:1", "", "HP:0000107", ""),
        ("OMIM:1", "NOT", "HP:0001629", ""),
        ("ORPHA:1", "", "HP:0000107", ""),
    ) == [
        {
            "id": "OMIM:1",
            "name": "One",
            "findings": ["HP:0000107"],
            "expected": ["HP:0000107"],
            "genes": ["ABC1"],
        }
    ]


@pytest.mark.parametrize(
    ("frequencies", "noted", "expected"),
    [
        (["0/3"], False, False),
        (["0%"], False, False),
        (["HP:0040285"], False, False),  # excluded
        (["1/20"], True, False),
        (["29.9%"], True, False),
        (["HP:0040283"], True, False),  # occasional
        (["HP:0040284"], True, False),  # very rare
        (["3/10"], True, True),
        (["30%"], True, True),
        (["HP:0040282"], True, True),  # frequent
        (["HP:0040281"], True, True),
        (["HP:0040280"], True, True),
        ([""], True, True),
        (["2/2", "1/40"], True, False),  # two reports that differ
        (["2/2", "0/5"], True, False),
        (["2/2", ""], True, True),
    ],
)
def test_how_frequent_a_finding_is_says_whether_it_is_expected(tmp_path, frequencies, noted, expected):
    base = ("OMIM:1", "", "HP:0000107", "")
    (disease,) = diseases(tmp_path, base, *(("OMIM:1", "", "HP:0001629", share) for share in frequencies))
    assert ("HP:0001629" in disease["findings"]) == noted
    assert ("HP:0001629" in disease["expected"]) == expected


def test_a_disease_that_no_patient_shows_a_finding_of_is_left_out(tmp_path):
    assert not diseases(tmp_path, ("OMIM:1", "", "HP:0000107", "0/2"))


def test_an_unknown_frequency_is_an_error(tmp_path):
    with pytest.raises(DataError, match="'often' of an HPO annotation"):
        diseases(tmp_path, ("OMIM:1", "", "HP:0000107", "often"))


def test_a_billable_code_is_complete(ontology):
    assert ontology.codes["K25.0"].billable
    assert not ontology.codes["K25"].billable  # there are codes below
    assert not ontology.codes["M80.00"].billable
    assert not ontology.codes["M80.08"].billable  # a seventh character is due
    for code in ontology.codes.values():
        assert not (code.billable and code.children)


def test_notes_of_block_and_chapter_stand_at_categories(ontology):
    assert "congenital malformations, deformations, and chromosomal abnormalities (Q00-Q99)" in (
        ontology.codes["G80"].excludes_above
    )
    assert ontology.codes["G80.0"].excludes_above == ()


def test_the_cache_goes_by_the_code_that_reads(tmp_path, monkeypatch):
    """A cache written by other code is not used."""
    before = module._cache_path()
    changed = tmp_path / "ontology_sources.py"
    changed.write_text("# other code")
    monkeypatch.setattr(ontology_sources, "__file__", str(changed))
    assert module._cache_path() != before


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
