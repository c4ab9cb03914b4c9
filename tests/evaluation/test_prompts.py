from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcare.evaluation.examples import Examples
from medcare.evaluation.multiple_choice.extraction import extract_letters
from medcare.evaluation.multiple_choice.question import ask
from medcare.evaluation.prompts import build_prompts
from medcare.foundation.errors import EvaluationError
from medcare.settings.config import EvaluationConfig
from medcare.text.records import Conversation, Item, Message

OPTIONS = ("aspirin", "ibuprofen (oral)", "none. Of these", "heparin")
LISTED = "Which thins?\nA. aspirin\nB. ibuprofen (oral)\nC. none. Of these\nD. heparin"


def question(prompt: str = "Which thins?", options: tuple[str, ...] = OPTIONS, number: int = 0) -> Item:
    return Item(f"e/{number}", "e", "knowledge", "held_out", f"f{number}", prompt, options, (3,), "heparin")


FORM = Item("t/0", "t", "alignment", "taught", "g", "Name the drug.", target="heparin")


def test_a_question_is_put_as_it_is_where_options_are_ranked():
    assert ask(question(), generate=False) == ("Which thins?", ())
    assert ask(question(LISTED), generate=False) == (LISTED, (0, 1, 2, 3))
    assert ask(FORM, generate=True, seed=1) == ("Name the drug.", ())


def test_a_question_shows_its_options_where_letters_are_to_be_generated():
    assert ask(question(), generate=True) == (LISTED, (0, 1, 2, 3))
    assert ask(question(LISTED), generate=True) == (LISTED, (0, 1, 2, 3))


def test_letters_keep_the_gap_that_an_exam_left():
    gap = question("Which?\nA. aspirin\nC. heparin", ("aspirin", "heparin"))
    assert ask(gap, generate=False)[0] == gap.prompt
    assert ask(gap, generate=True) == (gap.prompt, (0, 1))


@given(st.integers(0, 10_000), st.sampled_from(["Which thins?", LISTED]))
def test_a_letter_means_the_option_that_stood_there(seed, prompt):
    text, order = ask(question(prompt), generate=True, seed=seed)
    lines = text.split("\n")
    assert lines[0] == "Which thins?"
    assert sorted(order) == [0, 1, 2, 3]
    assert lines[1:] == [f"{letter}. {OPTIONS[index]}" for letter, index in zip("ABCD", order, strict=True)]
    letter = "ABCD"[order.index(3)]
    chosen = extract_letters(f"The answer is {letter}.", [OPTIONS[index] for index in order])
    assert {order["ABCD".index(one)] for one in chosen or ()} == {3}


def test_orders_differ_from_item_to_item_and_are_drawn_again_alike():
    orders = [ask(question(number=number), generate=True, seed=5)[1] for number in range(20)]
    assert len(set(orders)) > 5
    assert orders == [ask(question(number=number), generate=True, seed=5)[1] for number in range(20)]


def test_options_that_are_not_shown_are_not_shuffled():
    (prompt,) = build_prompts([question()], EvaluationConfig(shuffle_options=True), seed=3).all
    assert prompt.messages == (Message("user", "Which thins?"),)
    assert prompt.options == OPTIONS
    assert prompt.order == ()


def talk(number: int, source: str = "e", text: str | None = None, fact: str = "other") -> Conversation:
    turns = (Message("user", text or f"Lesson {number}?"), Message("assistant", f"answer {number}"))
    return Conversation(f"{source}/{fact}/{number}", source, turns)


def test_examples_stand_before_the_question_and_are_the_same_for_a_task():
    items = [question(number=number) for number in range(3)]
    examples = Examples([talk(number) for number in range(9)], items, seed=1)
    prompts = build_prompts(items, EvaluationConfig(shots=2), examples=examples).all
    assert [turn.role for turn in prompts[0].messages] == ["user", "assistant"] * 2 + ["user"]
    assert len({prompt.messages[:-1] for prompt in prompts}) == 1
    assert prompts[0].messages[-1].content == "Which thins?"
    other = Examples([talk(number) for number in range(9)], items, seed=2)
    assert build_prompts(items, EvaluationConfig(shots=2), examples=other).all != prompts


def test_system_turns_of_examples_are_left_out():
    chat = Conversation("c", "e", (Message("system", "Be brief."), *talk(0).messages))
    turns = Examples([chat], [question()], seed=0).draw("e", 1, generate=True)
    assert [turn.role for turn in turns] == ["user", "assistant"]


def test_examples_that_tell_of_a_test_item_are_left_out():
    long = "one two three four five six seven eight nine ten eleven twelve thirteen"
    items = [question(), question(f"Say {long}.", number=1)]
    pool = [
        talk(0, text="which thins"),  # the same question
        talk(1, text=f"And {long}, perhaps?"),  # thirteen words of it
        talk(2, fact="f1"),  # the fact behind it
        question("Another wording?", number=1),  # likewise
        talk(3),
    ]
    examples = Examples(pool, items, seed=0)
    assert examples.refused == 4
    assert examples.draw("e", 1, generate=False)[0].content == "Lesson 3?"
    with pytest.raises(EvaluationError, match=r"2 examples were to stand .* only 1 tell nothing .*\(4 do"):
        build_prompts(items, EvaluationConfig(shots=2), examples=examples)


def test_solved_questions_are_shown_as_the_test_puts_its_own():
    dev = question("And which not?", number=7)
    examples = Examples([dev], [question()], seed=0)
    asked, answered = examples.draw("e", 1, generate=False)
    assert (asked.content, answered.content) == ("And which not?", "heparin")
    asked, answered = examples.draw("e", 1, generate=True)
    assert asked.content.endswith("\nD. heparin")
    assert answered.content == "D. heparin"


def test_settings_tell_what_changes_a_prompt():
    items = [question(LISTED), FORM]
    plain = build_prompts(items, EvaluationConfig()).settings
    assert plain == build_prompts(items, EvaluationConfig(tokens_per_batch=1), seed=9).settings
    pool = [talk(number) for number in range(9)]
    for config, seed in (
        (EvaluationConfig(exams="generation"), 0),
        (EvaluationConfig(shuffle_options=True), 0),
        (EvaluationConfig(shuffle_options=True), 1),
        (EvaluationConfig(max_new_tokens=3), 0),
        (EvaluationConfig(shots=1), 0),
        (EvaluationConfig(shots=1), 4),
    ):
        examples = Examples(pool, items, seed=seed)
        assert build_prompts(items, config, seed=seed, examples=examples).settings != plain
    assert build_prompts([question(), FORM], EvaluationConfig()).settings != plain
