"""Relations between terms: of diseases, of causes and of what to give when."""

from __future__ import annotations

from medcare.benchmark.forms.recipe import Draw, Example, NoDrawError, form_task
from medcare.benchmark.forms.sentences import paragraph
from medcare.benchmark.task_data import texts

# Wordings of relations, of diseases and between two findings, and of rules: {yes} is given where {f} is
# present, {no} where it is not.
_SAID = texts("forms/wordings.yaml")["relations"]


def _disease_relations(draw: Draw) -> Example:
    rng = draw.rng
    disease, other = draw.terms("diseases", 2)
    (gene,) = draw.terms("genes", 1, beside=(disease, other))
    terms = [disease, other, gene]
    sentences, triples = [], []
    for relation in rng.sample(("causes", "shows", "shows", "lacks", "lacks"), 2):
        term = _partner(draw, relation, disease, terms)
        terms.append(term)
        sentences.append(draw.wording(_SAID["disease"][relation], d=disease, f=term, g=term))
        subject, object_ = (term, disease) if relation == "causes" else (disease, term)
        triples.append(f"({subject} | {relation} | {object_})")
    sentences.insert(rng.randint(0, 2), draw.wording(_SAID["no_relation"], e=other, g=gene))
    text = paragraph(sentences)
    written = [term for term in terms if term.lower() in text.lower()]
    return Example(text, "; ".join(triples), tuple(written))


def _partner(draw: Draw, relation: str, disease: str, used: list[str]) -> str:
    """What stands in the relation to the disease, by the ontology's annotations."""
    words = draw.words
    if relation == "lacks":
        (finding,) = draw.findings(1, beside=used)
        if words.may_have(disease, finding):
            raise NoDrawError
        return finding
    noted = words.symptoms[disease] if relation == "shows" else (words.gene_of.get(disease, ""),)
    fitting = [
        term for term in noted if term in draw.pool.known and all(words.apart(term, other) for other in used)
    ]
    if not fitting:
        raise NoDrawError
    return draw.rng.choice(fitting)


def _causal_relations(draw: Draw) -> Example:
    rng = draw.rng
    kinds: list[str] = [] if draw.turn % 12 == 11 else [rng.choice(sorted(_SAID["between"]))]
    kinds.append(rng.choice(("", "", "", *sorted(_SAID["between"]))) if kinds else "")
    rng.shuffle(kinds)
    findings = draw.findings(2 * len(kinds))
    sentences: list[str] = []
    triples = []
    for kind in kinds:
        a, b = findings[2 * len(sentences) : 2 * len(sentences) + 2]
        sentences.append(draw.wording(_SAID["between"][kind] if kind else _SAID["unrelated"], a=a, b=b))
        if kind:
            triples.append(f"({a} | {kind} | {b})")
    return Example(paragraph(sentences), "; ".join(triples) or "none", tuple(findings))


def _treatment_rules(draw: Draw) -> Example:
    rng = draw.rng
    finding, *topic = draw.findings(rng.choice((1, 1, 2)))
    yes, no, aside = draw.terms("drugs", 3)
    rule = ": ".join([*topic, draw.wording(_SAID["rules"], f=finding, yes=yes, no=no)])
    sentences = [rule, draw.wording(_SAID["asides"], x=aside)]
    if rng.random() < 0.3:
        sentences.reverse()
    target = f"({finding} | yes | {yes}); ({finding} | no | {no})"
    return Example(paragraph(sentences), target, (finding, *topic, yes, no, aside))


RELATIONS = (
    form_task("disease_relations", _disease_relations),
    form_task("causal_relations", _causal_relations),
    form_task("treatment_rules", _treatment_rules),
)
