"""Relations between terms: of diseases, of causes and of what to give when."""

from __future__ import annotations

from medcare.benchmark.forms.recipe import Draw, Example, NoDrawError, form_task
from medcare.benchmark.forms.sentences import paragraph

# Relation -> wordings. {d} disease, {f} finding, {g} gene.
_DISEASE = {
    "causes": (
        "{d} is [caused by|due to|the result of] [variants|mutations|defects] in {g}",
        "[variants|mutations] [in|of] {g} [lead to|underlie|result in] {d}",
        "{g} is the [gene behind|gene responsible for] {d}",
        "[people|patients|those] with {d} carry {g} [variants|mutations]",
        "in {d}, {g} is [mutated|defective]",
    ),
    "shows": (
        "{d} [often|typically|sometimes|] [presents with|features|includes|involves] {f}",
        "{f} is [a common|a typical|a known|one] [feature|sign|part] of {d}",
        "[patients|people|children] with {d} [have|may have|develop] {f}",
        "[expect|look for|watch for] {f} in {d}",
        "{f} [belongs to|occurs in|is seen in] {d}",
    ),
    "lacks": (
        "{f} is not [listed|recorded|described] [under|for|in] {d}",
        "{f} [has not been|was never] [reported|described|noted] in {d}",
        "[no reports of|no records of] {f} in {d}",
        "{d} [has been described without|is listed without] {f}",
    ),
}
_NO_RELATION = (
    "[compare|see also] {e}",
    "{e} was considered [too|first]",
    "{e} [is discussed elsewhere|is another matter]",
    "{g} was tested [first|too|in vain]",
)

# Relation -> wordings, {a} being the first and {b} the second of the triple.
_BETWEEN = {
    "causes": (
        "{b} [due to|caused by|secondary to|because of|brought on by] {a}",
        "{a} [led to|caused|gave rise to|brought on|resulted in] {b}",
        "because of {a}, there was {b}",
        "{a} was [the cause of|the reason for|responsible for] {b}",
        "{b} [explained by|blamed on|put down to|from] {a}",
    ),
    "precedes": (
        "{a} [came before|preceded|was followed by] {b}",
        "{b} [followed|came after|appeared after|was seen later than] {a}",
        "first {a}, [later|then|and next] {b}",
        "{b} [weeks|months|years] after {a}",
        "{a} [some time|long] before {b}",
    ),
    "worsens": (
        "{a} [aggravates|exacerbates|intensifies] {b}",
        "{b} [is aggravated by|gets worse with|is made worse by] {a}",
        "{b} flares up [with|during] {a}",
        "with {a}, {b} gets [worse|more severe]",
    ),
}
_UNRELATED = (
    "{b} is not [due to|caused by|explained by] {a}",
    "{a} and {b}, [unrelated|independent of each other]",
    "{a} [as well as|besides|along with] {b}",
    "{a} [has no effect on|did not change|is independent of] {b}",
)

# {yes} is given where {f} is present, {no} where it is not.
_RULES = (
    "[if|when|where] {f} is [present|found|seen], [give|use|start] {yes}; [if not|otherwise|else], {no}",
    "{no} [is enough|will do|is the choice] unless there is {f}, [then|in that case] {yes}",
    "[give|use|start] {no}, but {yes} in [case of|patients with] {f}",
    "[patients|those] without {f} get {no}, [those with it|the others] {yes}",
    "{yes} for [patients|those] with {f}, {no} for [the rest|all others|everyone else]",
    "[check for|look for|ask about] {f}: [if there, {yes}; if not, {no}|if absent, {no}; if present, {yes}]",
    "in the absence of {f} [give|choose] {no}; its presence calls for {yes}",
    "{f}? [yes: {yes}, no: {no}|no: {no}, yes: {yes}]",
)
_ASIDES = (
    "avoid {x} in [any|either] case",
    "{x} [plays no role|is no longer used|is not advised] here",
    "[never|do not] combine with {x}",
    "{x} was tried before",
)


def _disease_relations(draw: Draw) -> Example:
    rng = draw.rng
    disease, other = draw.terms("diseases", 2)
    (gene,) = draw.terms("genes", 1, beside=(disease, other))
    terms = [disease, other, gene]
    sentences, triples = [], []
    for relation in rng.sample(("causes", "shows", "shows", "lacks", "lacks"), 2):
        term = _partner(draw, relation, disease, terms)
        terms.append(term)
        sentences.append(draw.wording(_DISEASE[relation], d=disease, f=term, g=term))
        subject, object_ = (term, disease) if relation == "causes" else (disease, term)
        triples.append(f"({subject} | {relation} | {object_})")
    sentences.insert(rng.randint(0, 2), draw.wording(_NO_RELATION, e=other, g=gene))
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
    kinds: list[str] = [] if draw.turn % 12 == 11 else [rng.choice(sorted(_BETWEEN))]
    kinds.append(rng.choice(("", "", "", *sorted(_BETWEEN))) if kinds else "")
    rng.shuffle(kinds)
    findings = draw.findings(2 * len(kinds))
    sentences: list[str] = []
    triples = []
    for kind in kinds:
        a, b = findings[2 * len(sentences) : 2 * len(sentences) + 2]
        sentences.append(draw.wording(_BETWEEN[kind] if kind else _UNRELATED, a=a, b=b))
        if kind:
            triples.append(f"({a} | {kind} | {b})")
    return Example(paragraph(sentences), "; ".join(triples) or "none", tuple(findings))


def _treatment_rules(draw: Draw) -> Example:
    rng = draw.rng
    finding, *topic = draw.findings(rng.choice((1, 1, 2)))
    yes, no, aside = draw.terms("drugs", 3)
    rule = ": ".join([*topic, draw.wording(_RULES, f=finding, yes=yes, no=no)])
    sentences = [rule, draw.wording(_ASIDES, x=aside)]
    if rng.random() < 0.3:
        sentences.reverse()
    target = f"({finding} | yes | {yes}); ({finding} | no | {no})"
    return Example(paragraph(sentences), target, (finding, *topic, yes, no, aside))


RELATIONS = (
    form_task("disease_relations", _disease_relations),
    form_task("causal_relations", _causal_relations),
    form_task("treatment_rules", _treatment_rules),
)
