import dataclasses
import hashlib
import random
import re
from collections import Counter

import pytest

from benchmarks.shortcuts import text_of
from medcare.benchmark.forms.build import RECIPES, build_forms
from medcare.benchmark.forms.recipe import Draw, Example, NoDrawError
from medcare.benchmark.forms.vocabulary import DRUGS, KINDS, alike
from medcare.benchmark.forms.writer import build_task
from medcare.benchmark.task_data import TaskData
from medcare.data.overlap import Index, units
from medcare.evaluation.answer_formats import ANSWER_FORMATS, read_gold
from medcare.evaluation.metrics import METRICS
from medcare.foundation.errors import DataError
from medcare.text.records import Conversation, Item

SEPARATORS = set(";|,:()\n")
NAMES = [recipe.name for recipe in RECIPES]
LABELLED = [recipe.name for recipe in RECIPES if recipe.form == "label"]
STRUCTURED = [recipe.name for recipe in RECIPES if recipe.form not in ("label", "text")]


def prompt_and_target(talk: Conversation) -> tuple[str, str]:
    user, assistant = talk.messages
    return user.content, assistant.content


def terms(item: Item) -> list[str]:
    return item.fact.partition(": ")[2].split(" + ")


def test_there_are_many_tasks_of_every_form(tasks):
    assert len(tasks) >= 13
    assert Counter(task.card.form for task in tasks.values()).keys() == {
        "label",
        "list",
        "typed_list",
        "tuples",
        "text",
    }
    for task in tasks.values():
        assert task.card.family == "alignment"
        assert task.card.metric in METRICS
        assert "{" not in task.card.source
        assert (task.card.chance is None) == (task.card.form != "label")


@pytest.mark.parametrize("name", NAMES)
def test_sizes_and_ids(tasks, name):
    task = tasks[name]
    assert len(task.training) == 400
    assert Counter(item.split for item in task.items) == {"taught": 200, "held_out": 200}
    assert len({talk.id for talk in task.training}) == 400
    assert len({item.id for item in task.items}) == 400
    assert {talk.source for talk in task.training} == {item.task for item in task.items} == {name}


@pytest.mark.parametrize("name", NAMES)
def test_every_answer_is_in_the_form_and_few_are_none(tasks, name):
    task = tasks[name]
    targets = [*(item.target for item in task.items), *(prompt_and_target(t)[1] for t in task.training)]
    for target in targets:
        answer = ANSWER_FORMATS[task.card.form].read(task.card, target, task.items[0])
        assert answer.parsable, target
        assert answer.content or target == "none"
        if task.card.form == "tuples":
            assert len(answer.content) == target.count("(")  # none twice
    assert sum(target == "none" for target in targets) <= 0.15 * len(targets)


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_short(tasks, name):
    lengths = [len(item.prompt) + len(item.target) for item in tasks[name].items]
    assert max(lengths) < 600
    assert sum(lengths) / len(lengths) < 420


@pytest.mark.parametrize("name", NAMES)
def test_no_text_and_no_instruction_of_a_test_is_in_training(tasks, name):
    task = tasks[name]
    trained = [prompt_and_target(talk)[0] for talk in task.training]
    tested = [item.prompt for item in task.items]
    assert len({" ".join(units(text_of(prompt))) for prompt in (*trained, *tested)}) == len(trained) + len(
        tested
    )
    trained_lines = {prompt.partition("\n")[0] for prompt in trained}
    tested_lines = {prompt.partition("\n")[0] for prompt in tested}
    assert len(trained_lines) >= 3
    assert len(tested_lines) >= 2
    assert trained_lines.isdisjoint(tested_lines)


def test_no_thirteen_words_in_a_row_are_in_training(tasks):
    trained = [prompt_and_target(talk)[0] for task in tasks.values() for talk in task.training]
    tested = [item.prompt for task in tasks.values() for item in task.items]
    assert Index(tested).compare(trained).to_dict()["train_hits"] == {
        "exact": 0,
        "normalised": 0,
        "ngram": 0,
        "near": 0,
    }


@pytest.mark.parametrize("name", NAMES)
def test_splits_mean_what_they_say(tasks, spotter, name):
    """Taught terms occur in training texts; held-out ones in none of them, neither do they as distractors."""
    task = tasks[name]
    every_kind = sorted(set(spotter.kinds.values()) - {"phrase", "relative"})
    seen: set[str] = set()
    for talk in task.training:
        line = text_of(prompt_and_target(talk)[0])
        seen.update(term.lower() for _, term in spotter.spot(line, *every_kind))
        seen.update(entry.split(" ")[0].lower() for entry in line.partition("Codes: ")[2].split(", "))
    joined = " ".join(text_of(prompt_and_target(talk)[0]).lower() for talk in task.training)
    for item in task.items:
        for term in terms(item):
            if item.split == "taught":
                assert term.lower() in joined
            else:
                assert term.lower() not in seen


def test_training_takes_three_wordings_and_tests_two_others():
    for recipe in RECIPES:
        assert len(recipe.training) >= 3
        assert len(recipe.testing) >= 2
        assert set(recipe.training).isdisjoint(recipe.testing)


def test_terms_hold_no_separator(words):
    names = [*words.by_name, *words.diseases, *words.gene_of.values(), *DRUGS, *words.categories]
    names += [phrase for category in words.categories.values() for phrase in category.phrases]
    names += [wording for wordings in words.wordings.values() for wording in wordings]
    assert not [name for name in names if SEPARATORS & set(name)]
    assert len(set(DRUGS)) == len(DRUGS)


def test_the_two_pools_share_no_term(words):
    taught, held_out = words.split(random.Random(3))
    for kind in KINDS:
        one, other = set(getattr(taught, kind)), set(getattr(held_out, kind))
        assert one
        assert other
        assert not one & other
    assert not taught.held_out
    assert held_out.held_out
    part = taught.only(taught.findings[:5])
    assert part.findings == taught.findings[:5]
    assert part.drugs == ()
    assert part.only(()).whole == taught


# Meaning: gold answers agree with the text and with the ontology.


@pytest.mark.parametrize(
    "name", ["typed_entities", "negated_findings", "family_history", "causal_relations", "disease_relations"]
)
def test_answers_are_copied_from_the_text(tasks, name):
    words_of_form = {"finding", "disease", "gene", "drug", "causes", "precedes", "worsens", "shows", "lacks"}
    for item in tasks[name].items:
        for part in read_gold(tasks[name].card, [item])[0].content:
            for element in part:
                assert element in words_of_form or element in text_of(item.prompt).lower()


def test_relations_are_the_ontology_s(tasks, words):
    diseases = {name.lower(): name for name in words.diseases}
    counts = Counter()
    for item in tasks["disease_relations"].items:
        for subject, relation, object_ in read_gold(tasks["disease_relations"].card, [item])[0].content:
            counts[relation] += 1
            if relation == "causes":
                assert words.gene_of[diseases[object_]].lower() == subject
            else:
                disease = diseases[subject]
                assert (object_ in words.symptoms[disease]) == (relation == "shows")
                assert words.may_have(disease, object_) == (relation == "shows")
    assert min(counts[relation] for relation in ("causes", "shows", "lacks")) > 40


def test_normalised_terms_are_meant_by_words_unlike_them(tasks, words):
    for item in tasks["term_normalisation"].items:
        said, _, listed = text_of(item.prompt).rpartition("Terms: ")
        candidates = listed.split("; ")
        assert len(set(candidates)) == 3
        for name in terms(item):
            assert name in candidates
            wordings = [wording for wording in words.wordings[name] if wording in said.lower()]
            assert wordings
            assert not any(alike(wording, name) for wording in wordings)
        assert set(item.target.split("; ")) <= set(terms(item))


def test_codes_are_those_of_the_diagnoses(tasks, words):
    for item in tasks["icd_coding"].items:
        for phrase, code in read_gold(tasks["icd_coding"].card, [item])[0].content:
            category = words.categories[code.upper()]
            assert phrase in category.phrases
            assert f"{category.code} {category.title}" in text_of(item.prompt)
            assert not alike(phrase, category.title)


def test_the_report_and_the_status_list_hold_every_symptom(tasks):
    for item in tasks["symptom_status"].items:
        (answer,) = read_gold(tasks["symptom_status"].card, [item])
        assert {value for _, value in answer.content} == set(terms(item))
    for item in tasks["dialogue_report"].items:
        assert all(term in item.target for term in terms(item))


# Determinism, sizes and errors.


def digest(data: list[TaskData]) -> str:
    return hashlib.sha256(repr([dataclasses.asdict(task) for task in data]).encode()).hexdigest()


def test_another_seed_gives_other_bytes(ontology):
    """That the same gives the same, in any process, is tested of the whole benchmark."""
    assert digest(build_forms(ontology, 8, 12, 6)) != digest(build_forms(ontology, 7, 12, 6))


def test_tasks_do_not_depend_on_one_another(ontology, words):
    here = build_forms(ontology, 7, 12, 6)
    alone = [build_task(recipe, words, 7, 12, 6) for recipe in reversed(RECIPES)]
    assert alone[::-1] == here


def test_small_sizes_work(ontology):
    for task in build_forms(ontology, 0, 6, 2):
        assert (len(task.training), len(task.items)) == (6, 4)


def test_asking_for_too_much_is_explained(words):
    same = dataclasses.replace(RECIPES[0], make=lambda draw: Example("always this", "none", ("cough",)))
    with pytest.raises(DataError, match=r"typed_entities.*can't give 2 different examples"):
        build_task(same, words, 0, 2, 1)


def test_a_pool_that_is_too_small_gives_no_draw(words):
    taught, _ = words.split(random.Random(0))
    draw = Draw(random.Random(0), words, taught.only(taught.findings[:1]), 0)
    assert draw.findings(1) == [taught.findings[0]]
    for kind, count in (("findings", 2), ("drugs", 1)):
        with pytest.raises(NoDrawError):
            draw.terms(kind, count)


def test_names_fit_a_verb_in_the_singular_and_either_sex(words):
    assert "ptosis" in words.by_name
    assert not {"shallow orbits", "low-set ears", "tube feeding", "hydrocele testis", "wormian bones"} & set(
        words.by_name
    )
    names = [*words.by_name, *(text for texts in words.wordings.values() for text in texts)]
    assert not [name for name in names if re.search(r"[^suia]s$|testis|testes|testic|feeding$", name)]
