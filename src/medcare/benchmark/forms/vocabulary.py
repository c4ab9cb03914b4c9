"""The terms that alignment tasks are made of, as they are written in sentences, and how they are split.

Every finding, disease, gene and ICD-10-CM category comes from the ontology; only the names of medicines are
a list of their own. All terms are free of the separators of the answer forms.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

from medcare.benchmark.ontology import Disease, Finding, Ontology

_MEDICINES = (
    "acetazolamide acyclovir allopurinol amiodarone amlodipine amoxicillin apixaban aspirin atenolol "
    "atorvastatin azathioprine baclofen bisoprolol budesonide captopril carbamazepine ceftriaxone "
    "cetirizine ciprofloxacin citalopram clobazam clonidine clopidogrel colchicine cyclosporine dapsone "
    "dexamethasone diazepam digoxin diltiazem donepezil doxycycline enalapril ethosuximide ezetimibe "
    "famotidine fluconazole fluoxetine folate furosemide gabapentin haloperidol heparin hydralazine "
    "hydrocortisone ibuprofen infliximab insulin isoniazid ivermectin ketamine labetalol lamotrigine "
    "levetiracetam levodopa levothyroxine lisinopril lithium loperamide loratadine losartan mebendazole "
    "melatonin metformin methotrexate metoprolol midazolam mirtazapine montelukast morphine naproxen "
    "nifedipine nitrofurantoin olanzapine omeprazole ondansetron paracetamol penicillin phenobarbital "
    "phenytoin pramipexole prednisolone primidone propranolol quetiapine ramipril ranolazine rifampicin "
    "risperidone rituximab salbutamol sertraline simvastatin spironolactone sumatriptan tacrolimus "
    "tamoxifen tetrabenazine topiramate tramadol valproate vancomycin verapamil vigabatrin warfarin "
    "zonisamide"
)
DRUGS = tuple(_MEDICINES.split())

_TERM = re.compile(r"[A-Za-z][a-z]+(?:[ -][a-z]+){0,3}")
# Names that tell a disease from a finding.
_DISEASE = re.compile(
    r"[A-Z][a-z]+(?:-[A-Z][a-z]+)?(?: (?!(?:and|or|with|without) )[a-z]+){0,2}"
    r" (?:syndrome|disease|dysplasia|dystrophy|deficiency|cancer|anemia|myopathy|neuropathy)"
)
_GENE = re.compile(r"[A-Z][A-Z0-9]{2,6}")
# Groups rather than findings, names that already hold a negation, and eponyms.
_UNUSABLE = re.compile(
    r"^(abnormal|abnormality|absent|absence|lack|no|non|normal|family|history|inability|undetectable|loss)\b"
    r"|abnormality|anomal|morphology|physiology|phenotype|\b(by|and|or|with|without|due|negative|positive)\b"
    r"|\b(disease|syndrome|sign|phenomenon)$|\b(death|birth|section|feeding)$"
)
# Findings that not every patient of either sex and any age can have.
_PARTICULAR = re.compile(
    r"\b(penis|penil|phall|scrot|testic|test[ei]s|vagin|uter[iu]|ovar|labi[au]|clitor|genital|gonad|sperm|breast|nipple)"
    r"|micropenis|microphall|spadias|chordee|menorr|menstr|prostat|zoosperm|cryptorch|gynecomast|pregnan|virili"
    r"|ovotest|orchi|epididym|impoten|fertil|phimos|balan|prepu|salping|sex reversal"
    r"|fet[au]l|fetus|amnio|placent|neonatal|infantile|juvenile|fetalis|puberty|gonadism|gonado"
)
# Names of several things, for the frames have their verbs in the singular; some others go with them.
_PLURAL = re.compile(r"(?<![suia])s$|\b(teeth|drusen|milia|\w+ae|nevi|ilia|ischia|foramina)$")
# Short and common names: what is tested is reading and form, and a small model must be able to copy them.
_LONGEST = 18
_LONGEST_DISEASE = 19
_LONGEST_WORDING = 24  # of other wordings, diagnoses and titles, which are seldom copied
_FEWEST_DISEASES = 6  # rarer findings have names that few readers know
_CHAPTERS = frozenset(str(number) for number in range(1, 15))  # diseases, without injuries and encounters
_TAUGHT_SHARE = 0.6


_Frame = TypeVar("_Frame")  # a pattern, or patterns that mean the same


@dataclass(frozen=True)
class Pool:
    """Terms that examples are drawn from.

    Attributes:
        findings: names in lower case, in the order of ids.
        diseases: names of diseases.
        genes: gene symbols.
        drugs: names of medicines.
        codes: ICD-10-CM categories.
        held_out: whether these are the terms that training never shows.
        half: the half of the split that this is a part of, None if it is all of it.
    """

    findings: tuple[str, ...]
    diseases: tuple[str, ...]
    genes: tuple[str, ...]
    drugs: tuple[str, ...]
    codes: tuple[str, ...]
    held_out: bool = False
    half: Pool | None = None

    def only(self, terms: Iterable[str]) -> Pool:
        """The part of the pool that is among `terms`."""
        keep = frozenset(terms)
        parts: dict[str, Any] = {kind: tuple(t for t in getattr(self, kind) if t in keep) for kind in KINDS}
        return replace(self, **parts, half=self.whole)

    @property
    def whole(self) -> Pool:
        """The half of the split: distractors may come from all of it."""
        return self.half or self

    @cached_property
    def known(self) -> frozenset[str]:
        """The findings and genes, to look up."""
        return frozenset((*self.findings, *self.genes))

    def frames(self, table: Sequence[_Frame]) -> Sequence[_Frame]:
        """The patterns to use: every fourth is kept for the held-out split."""
        return table[3::4] if self.held_out else [text for at, text in enumerate(table) if at % 4 != 3]


KINDS = ("findings", "diseases", "genes", "drugs", "codes")


@dataclass(frozen=True)
class Category:
    """An ICD-10-CM category with diagnoses that are coded to it but share no word with its title."""

    code: str
    title: str
    chapter: str
    phrases: tuple[str, ...]


@dataclass(frozen=True)
class Vocabulary:
    """Usable terms of an ontology.

    Attributes:
        ontology: where they come from.
        by_name: findings by the name that is used in texts.
    """

    ontology: Ontology
    by_name: dict[str, Finding]

    @classmethod
    def of(cls, ontology: Ontology) -> Vocabulary:
        """The vocabulary of an ontology."""
        counts = Counter(key for disease in ontology.diseases.values() for key in disease.findings)
        named = [
            (_lower(finding.name), finding)
            for finding in ontology.findings.values()
            if counts[finding.id] >= _FEWEST_DISEASES
            and _is_usable(_lower(finding.name))
            and not _PARTICULAR.search(finding.name.lower())
        ]
        return cls(ontology, dict(named))

    @cached_property
    def name_of(self) -> dict[str, str]:
        """The name used in texts, by the finding's id."""
        return {finding.id: name for name, finding in self.by_name.items()}

    @cached_property
    def diseases(self) -> dict[str, Disease]:
        """Diseases with a short name that is not a finding's."""
        return {
            disease.name: disease
            for disease in self.ontology.diseases.values()
            if _DISEASE.fullmatch(disease.name)
            and len(disease.name) <= _LONGEST_DISEASE
            and disease.name.lower() not in self.ontology.finding_by_name
        }

    @cached_property
    def wordings(self) -> dict[str, tuple[str, ...]]:
        """Other ways to say a finding that look nothing like its name, lay terms first."""
        owner = self.ontology.finding_by_name
        found = {}
        for name, finding in self.by_name.items():
            others = [_lower(text) for text in (*finding.lay_terms, *finding.synonyms)]
            kept = [
                text
                for text in others
                if _is_usable(text, _LONGEST_WORDING)
                and not alike(text, name)
                and owner[text.lower()] is finding
            ]
            if kept:
                found[name] = tuple(dict.fromkeys(kept))
        return found

    @cached_property
    def neighbours(self) -> dict[str, tuple[str, ...]]:
        """Findings of the same organ systems that have other wordings, for each that has."""
        groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for name in self.wordings:
            groups[self.by_name[name].systems].append(name)
        return {
            name: tuple(other for other in groups[self.by_name[name].systems] if self.apart(name, other))
            for name in self.wordings
        }

    @cached_property
    def symptoms(self) -> dict[str, tuple[str, ...]]:
        """Findings to be expected in each disease."""
        return {
            name: tuple(self.name_of[key] for key in disease.expected if key in self.name_of)
            for name, disease in self.diseases.items()
        }

    def may_have(self, disease: str, finding: str) -> bool:
        """Whether a disease is noted, however rarely, with a finding, a kind of it or a more general one."""
        key = self.by_name[finding].id
        return any(self.ontology.related(noted, key) for noted in self.diseases[disease].findings)

    @cached_property
    def gene_of(self) -> dict[str, str]:
        """The gene of each disease that has exactly one."""
        return {
            name: disease.genes[0]
            for name, disease in self.diseases.items()
            if len(disease.genes) == 1 and _GENE.fullmatch(disease.genes[0])
        }

    @cached_property
    def categories(self) -> dict[str, Category]:
        """ICD-10-CM categories that have diagnoses in other words than their title."""
        found = {}
        for code in self.ontology.codes.values():
            title = _lower(code.name)
            if code.parent or code.chapter not in _CHAPTERS or not re.fullmatch(r"[a-z -]{4,28}", title):
                continue
            below = [self.ontology.codes[key] for key in code.children]
            names = [*code.inclusion_terms, *(x for c in below for x in (c.name, *c.inclusion_terms))]
            phrases = [_lower(name) for name in names]
            kept = [
                text
                for text in phrases
                if _TERM.fullmatch(text)
                and len(text) <= _LONGEST_WORDING
                and not alike(text, title)
                and not _PARTICULAR.search(f"{title} {text}")
                and not re.search(r"\b(other|unspecified|with|without|not|and|or)\b", text)
            ]
            if kept:
                found[code.code] = Category(code.code, title, code.chapter, tuple(dict.fromkeys(kept)))
        return found

    def apart(self, one: str, other: str) -> bool:
        """Whether two terms can stand in one text: neither holds the other, by letters or by meaning."""
        if one.lower() in other.lower() or other.lower() in one.lower():
            return False
        first, second = self.by_name.get(one), self.by_name.get(other)
        return not (first and second and self.ontology.related(first.id, second.id))

    def split(self, rng: random.Random) -> tuple[Pool, Pool]:
        """Two pools without a common term: one to train on, one held out."""
        terms: dict[str, Any] = {
            "findings": tuple(self.by_name),
            "diseases": tuple(self.diseases),
            "genes": tuple(sorted(set(self.gene_of.values()))),
            "drugs": DRUGS,
            "codes": tuple(self.categories),
        }
        taught: set[str] = set()
        for names in terms.values():
            taught.update(rng.sample(names, round(len(names) * _TAUGHT_SHARE)))
        held_out = {name for names in terms.values() for name in names} - taught
        whole = Pool(**terms)
        return (
            replace(whole.only(taught), half=None),
            replace(whole.only(held_out), half=None, held_out=True),
        )


def alike(one: str, other: str) -> bool:
    """Whether two terms have five letters in a row in common, so that their looks give away the match."""
    return any(one[at : at + 5].lower() in other.lower() for at in range(len(one) - 4))


def _lower(name: str) -> str:
    """As inside a sentence: no capital, unless it starts an abbreviation."""
    return name[:1].lower() + name[1:] if name[1:2].islower() else name


def _is_usable(name: str, longest: int = _LONGEST) -> bool:
    return (
        len(name) <= longest
        and _TERM.fullmatch(name) is not None
        and not _UNUSABLE.search(name)
        and not _PLURAL.search(name)
    )
