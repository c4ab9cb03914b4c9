import random
import re
from collections import Counter, defaultdict
from string import Formatter

import pytest

from medcare.benchmark.exams import build as module
from medcare.benchmark.exams.build import EXAMS, WORDINGS_PER_FACT, build_exams
from medcare.benchmark.exams.bundles import BundledQuestion
from medcare.benchmark.exams.exclusions import condition, covers
from medcare.benchmark.exams.shortcuts import stems
from medcare.benchmark.mentions import Mentions, runs
from medcare.data.overlap import Index
from medcare.foundation.errors import DataError
from medcare.text.records import Conversation, Message

NAMES = [exam.name for exam in EXAMS]


@pytest.fixture
def only(monkeypatch):
    """Leaves only the named exams to build."""

    def choose(*names):
        monkeypatch.setattr(module, "EXAMS", tuple(exam for exam in EXAMS if exam.name in names))
        return module.EXAMS

    return choose


def talk(question, answer):
    return Conversation("c", "t", (Message("user", question), Message("assistant", answer)))


def slots(exam, prompt):
    """What fills the test wording that a prompt was made with."""
    for wording in exam.tests:
        parts, order = [], []
        for text, field, _, _ in Formatter().parse(wording):
            parts.append(re.escape(text))
            if field is not None:
                order.append(int(field) if field else len(order))
                parts.append("(.+)")
        match = re.fullmatch("".join(parts), prompt)
        if match:
            return [match[order.index(place) + 1] for place in range(len(order))]
    raise AssertionError(f"{prompt} is in no test wording of {exam.name}")


@pytest.mark.parametrize("exam", EXAMS, ids=NAMES)
def test_lessons_and_tests_use_different_wordings(exam):
    assert len(exam.lessons) >= WORDINGS_PER_FACT
    assert len(exam.tests) >= 2
    assert not set(exam.lessons) & set(exam.tests)


@pytest.mark.parametrize("name", NAMES)
def test_items_are_well_formed(exams, name):
    for task in exams[name]:
        assert Counter(item.split for item in task.items) == {"taught": 150, "held_out": 150}
        assert len({item.id for item in task.items}) == len(task.items)
        for item in task.items:
            (answer,) = item.answers
            assert item.target == item.options[answer]
            assert len(set(item.options)) == len(item.options) == round(1 / task.card.chance)
            assert not re.search(r"[;|\n]", " ".join(item.options))
            assert len(item.prompt.split()) <= 40


@pytest.mark.parametrize("exam", EXAMS, ids=NAMES)
def test_taught_facts_are_taught_in_other_words(exams, exam):
    for task in exams[exam.name]:
        lessons = defaultdict(list)
        for lesson in task.training:
            fact = lesson.id.split("/", 1)[1].rsplit("/", 1)[0]
            lessons[fact, lesson.messages[1].content].append(lesson.messages[0].content)
        for item in task.items:
            prompts = lessons[item.fact, item.target]
            assert item.prompt not in prompts
            if item.split == "taught":
                assert len(set(prompts)) >= WORDINGS_PER_FACT
                if exam.name != "odd_one_out":  # its question lists the options
                    assert all(slot in prompts[0] for slot in slots(exam, item.prompt))


def test_no_held_out_fact_is_taught_by_any_task(exams):
    for build in range(2):
        tasks = [pair[build] for pair in exams.values()]
        taught = {
            fact
            for task in tasks
            for lesson in task.training
            for fact in lesson.id.split("/", 1)[1].rsplit("/", 1)[0].split("+")
        }
        held_out = {
            fact
            for task in tasks
            for item in task.items
            if item.split == "held_out"
            for fact in item.fact.split("+")
        }
        assert len(held_out) > 1000
        assert not taught & held_out


@pytest.mark.parametrize("seed", [2, 3])
def test_no_thirteen_words_in_a_row_are_in_a_lesson(ontology, only, seed):
    """Names are long, so the few words around them must differ between lessons and tests."""
    only("true_or_false", "condition_to_exclusion")
    tasks = build_exams(ontology, seed, 200, 200)
    lessons = [lesson.messages[0].content for task in tasks for lesson in task.training]
    prompts = [item.prompt for task in tasks for item in task.items]
    assert len(prompts) == 800
    assert Index(prompts).compare(lessons).to_dict()["test_hits"]["ngram"] == 0


def test_a_prompt_that_would_repeat_a_lesson_is_not_used():
    exam = next(exam for exam in EXAMS if exam.name == "true_or_false")
    name = " ".join(f"word{number}" for number in range(9))
    question = BundledQuestion(("f",), (name, "other"), "true", ("true", "false"))
    prompts = {module._prompt(exam, question, (), random.Random(seed)) for seed in range(9)}
    assert len(prompts) == 2
    for prompt in prompts:
        known = (runs((prompt,)),)
        rest = {module._prompt(exam, question, known, random.Random(seed)) for seed in range(9)}
        assert rest == prompts - {prompt}
    assert not module._prompt(exam, question, (runs(prompts),), random.Random(0))


def test_no_text_teaches_a_held_out_answer(exams):
    """Read back from the prompts alone: subject and answer occur together in no training text of any task."""
    tasks = [pair[0] for pair in exams.values()]
    mentions = Mentions(lesson for task in tasks for lesson in task.training)
    checked = 0
    for exam, task in zip(EXAMS, tasks, strict=True):
        for item in task.items:
            if item.split == "held_out" and exam.name != "odd_one_out":
                subject, *objects = slots(exam, item.prompt)
                assert not any(mentions.together(subject, text) for text in objects or [item.target])
                checked += 1
    assert checked > 2000


def test_other_tasks_lessons_are_respected(ontology, only):
    (exam,) = only("disease_to_gene")
    (task,) = build_exams(ontology, 0, 4, 4)
    item = next(item for item in task.items if item.split == "held_out")
    told = [talk(f"Tell me about {slots(exam, item.prompt)[0]}", f"It is due to {item.target}")]
    (again,) = build_exams(ontology, 0, 4, 4, beside=told)
    assert item.fact not in {other.fact for other in again.items}
    assert task.training == again.training


def test_mentions_need_both_in_one_text():
    mentions = Mentions([talk("What is a renal cyst?", "A sac"), talk("Kidney stone?", "Renal colic")])
    assert mentions.together("Renal cyst", "sac")
    assert not mentions.together("renal cyst", "colic")
    assert not mentions.together("cyst renal", "sac")  # its words, but not itself
    assert not mentions.together("renal cyst", "unheard-of")


def test_whole_bundles_are_taught(ontology, only):
    only("gene_to_disease", "true_or_false")
    for task in build_exams(ontology, 3, 5, 2):
        assert len(task.training) == 8 * WORDINGS_PER_FACT
        assert Counter(item.split for item in task.items) == {"taught": 2, "held_out": 2}


def test_too_many_facts_are_refused(ontology, only):
    only("disease_to_gene")
    with pytest.raises(DataError, match=r"disease_to_gene has \d+ facts for its 'taught' split, not 5000"):
        build_exams(ontology, 0, 5000, 1)


def asked(exams, name):
    return [item for task in exams[name] for item in task.items]


def others(item):
    return [option for option in item.options if option != item.target]


def test_a_finding_that_is_asked_for_is_expected_and_the_others_are_never_noted(exams, ontology):
    by_name = {finding.name: finding.id for finding in ontology.findings.values()}
    for item in asked(exams, "disease_to_finding"):
        disease = next(ontology.diseases[key] for key in item.fact.split(">") if key in ontology.diseases)
        assert by_name[item.target] in disease.expected
        assert not {by_name[option] for option in others(item)} & set(disease.findings)
    for item in asked(exams, "disease_to_two_findings"):
        key = next(key for key in re.split(r"[>+]", item.fact) if key in ontology.diseases)
        disease = ontology.diseases[key]
        pair = {by_name[name] for name in item.target.split(" and ")}
        assert pair <= set(disease.expected)
        for option in others(item):
            assert not {by_name[name] for name in option.split(" and ")} <= set(disease.findings)


def test_codes_to_bill_are_billable(exams, ontology):
    for item in asked(exams, "description_to_code"):
        assert all(ontology.codes[option].billable for option in item.options)


def test_only_the_right_option_is_in_an_excludes_note(exams, ontology):
    """Nor is another one covered by the codes of any note that holds for the entry."""
    notes = {}
    for code in ontology.codes.values():
        for note in (*code.excludes1, *code.excludes2):
            notes.setdefault(condition(note), []).append(note)
    exam = next(exam for exam in EXAMS if exam.name == "condition_to_exclusion")
    by_name = {code.name: code for code in ontology.codes.values()}
    assert all("excludes note" in wording.lower() for wording in (*exam.lessons, *exam.tests))
    for item in asked(exams, exam.name):
        code = by_name[slots(exam, item.prompt)[0]]
        assert item.target in {condition(note) for note in (*code.excludes1, *code.excludes2)}
        for option in others(item):
            assert not all(covers(ontology, code.code, note) for note in notes[option])


@pytest.mark.parametrize("part", ["Eye", "Ear", "Respiratory system", "Nervous system", "Voice"])
def test_no_system_is_wrong_that_holds_the_right_one(exams, part):
    for item in asked(exams, "finding_to_system"):
        assert not {part, "Head or neck"} <= set(item.options)
        assert not {"Neoplasm", "Cellular phenotype"} & set(item.options)


def test_definitions_in_the_same_words_are_not_opposed(exams):
    for name in ("definition_to_finding", "finding_to_definition"):
        for item in asked(exams, name):
            for option in others(item):
                assert not stems(option) <= stems(item.target)
                assert not stems(item.target) <= stems(option)
