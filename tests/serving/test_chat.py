from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from medcare.generation import generate
from medcare.generation.sampling import Sampling
from medcare.serving.chat import Chat, PipedTerminal, RichTerminal, _printable, messages
from medcare.serving.served_model import ServedModel
from medcare.text.records import Message
from tests.serving.conftest import served


class Script:
    """A terminal at which lines are typed by a test."""

    def __init__(self, *lines: str) -> None:
        self._lines = lines
        self.answers = [""]
        self.notes: list[str] = []
        self.asked, self.file = False, ""

    def lines(self) -> Iterator[str]:
        yield from self._lines

    def show(self, text: str) -> None:
        self.answers[-1] += text

    def end(self) -> None:
        self.answers.append("")

    def note(self, text: str) -> None:
        self.notes.append(text)

    def ask(self, text: str) -> str:
        self.asked = True
        return self.file


@pytest.fixture(scope="module")
def model() -> ServedModel:
    return served()


def talk(model: ServedModel, *lines: str, limit: int = 8, system: str = "") -> tuple[Chat, Script]:
    script = Script(*lines)
    chat = Chat(model, Sampling(max_new_tokens=limit), script, system)
    chat.run()
    return chat, script


def expected(model: ServedModel, turns: list[Message], limit: int = 8) -> str:
    prompt = model.chat_prompt(turns)
    tokens = generate(model.model, model.tokenizer, [prompt], max_new_tokens=limit, stop_ids=model.stop_ids)[
        0
    ]
    text = str(model.tokenizer.decode(tokens, skip_special_tokens=True))
    return text.rstrip("\ufffd").lstrip()  # half a character at the end is no text


def test_answers_are_those_of_generate_and_remember_the_conversation(model: ServedModel) -> None:
    chat, script = talk(model, "What is fever?", "", "And pain?")
    first = expected(model, [Message("user", "What is fever?")])
    assert script.answers[0] == first
    turns = [
        Message("user", "What is fever?"),
        Message("assistant", first.strip()),
        Message("user", "And pain?"),
    ]
    assert script.answers[1] == expected(model, turns)
    assert [turn.role for turn in chat.turns] == ["user", "assistant"] * 2
    assert "research only" in script.notes[0]


def test_commands(model: ServedModel, tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    (tmp_path / "there").write_text("mine")
    chat, script = talk(
        model, "/save x", "fever?", f"/save {file}", "pain?", f"/save {file}", f"/save {tmp_path}/there",
        "/save", "/help", "/nonsense", "/reset", "/system Be brief.", "cough?", "/quit", "never asked",
    )  # fmt: skip
    assert len(script.answers) == 4
    text = "\n".join(script.notes)
    for part in (
        "nothing to save",
        "Wrote",
        "exists already",
        "Give a file",
        "/system TEXT",
        "no command /nonsense",
    ):
        assert part in text
    assert (tmp_path / "there").read_text() == "mine"
    # Not read as data, which refuses control characters: a model of random weights may have said some.
    saved = [json.loads(line) for line in file.read_text().splitlines()]
    assert [turn["content"] for turn in saved[0]["messages"] if turn["role"] == "user"] == ["fever?", "pain?"]
    assert [turn.content for turn in chat.turns if turn.role == "user"] == ["cough?"]
    assert chat.system == "Be brief."
    assert script.answers[2] == expected(model, [Message("system", "Be brief."), Message("user", "cough?")])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * 300, "error: "),
        ("/dev/null/x", "error: "),
        ("a\0b", "error: "),
        ("~nobody-here/x", "Wrote ~nobody-here/x"),
    ],
)
def test_whatever_the_file_is_called_the_chat_goes_on(
    model: ServedModel, name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chat, script = talk(model, "fever?", f"/save {name}", "pain?")
    assert any(note.startswith(said) for note in script.notes), script.notes
    assert len(chat.turns) == 4


def test_a_long_answer_that_is_allowed_does_not_cost_the_conversation(model: ServedModel) -> None:
    chat = Chat(model, Sampling(max_new_tokens=10 * model.engine.longest), Script())
    chat.turns = [Message("user", "fever?"), Message("assistant", "A sign.")]
    before, question = list(chat.turns), Message("user", "pain?")
    assert chat._prompt(question) == model.chat_prompt([*before, question])
    assert chat.turns == before


def test_a_cut_answer_is_told(model: ServedModel) -> None:
    _, script = talk(model, "What is fever?", limit=3)
    assert "cut by its limit of 3 tokens" in script.notes[-1]
    prompt = model.chat_prompt([Message("user", "What is fever?")])
    first = generate(model.model, model.tokenizer, [prompt], max_new_tokens=1, stop_ids=())[0][0]
    ends, model.stop_ids = model.stop_ids, (first,)
    _, script = talk(model, "What is fever?", limit=3)
    model.stop_ids = ends
    assert not any("cut by" in note for note in script.notes)


def test_a_conversation_that_was_not_saved_is_offered_to_be(model: ServedModel, tmp_path: Path) -> None:
    script = Script("fever?")
    script.file = str(tmp_path / "chat.jsonl")
    Chat(model, Sampling(max_new_tokens=4), script).run()
    assert len((tmp_path / "chat.jsonl").read_text().splitlines()) == 1
    for lines in [(), ("fever?", f"/save {tmp_path}/two.jsonl"), ("fever?", "/reset")]:
        script = Script(*lines)
        Chat(model, Sampling(max_new_tokens=4), script).run()
        assert not script.asked


def test_control_c_clears_the_line_and_leaves_when_pressed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["one", KeyboardInterrupt, "two", KeyboardInterrupt, KeyboardInterrupt, "three"])

    def line(_: str) -> str:
        value = next(typed)
        if isinstance(value, str):
            return value
        raise value

    monkeypatch.setattr("builtins.input", line)
    terminal = RichTerminal()
    terminal._console = Console(file=io.StringIO())
    assert list(terminal.lines()) == ["one", "two"]


def test_the_oldest_turns_go_when_the_context_is_full(model: ServedModel) -> None:
    chat, script = talk(
        model, *[f"{number} fever and pain, high blood pressure?" for number in range(9)], limit=30
    )
    assert any("oldest turn is left out" in note for note in script.notes)
    assert len(chat.turns) < 18
    assert len(script.answers) == 10
    _, script = talk(model, "fever and pain " * 90)
    assert "the model's context 256" in script.notes[-1]


def test_control_c_stops_an_answer_and_keeps_it(model: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    step, calls = model.engine.step, []

    def interrupted() -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        step()

    monkeypatch.setattr(model.engine, "step", interrupted)
    chat, script = talk(model, "fever?", "pain?", limit=20)
    whole = expected(model, [Message("user", "fever?")], 20)
    assert whole.startswith(script.answers[0])
    assert len(script.answers[0]) < len(whole)
    assert chat.turns[1].content == script.answers[0].strip()
    assert len(chat.turns) == 4


def test_lines_go_on_after_a_backslash_and_in_a_block() -> None:
    lines = ["one", "two \\", "three", '"""', "four", "/reset", "", "five\\", '"""', "", "six\\"]
    assert list(messages(iter(lines))) == ["one", "two \nthree", "four\n/reset\n\nfive\\", "six"]
    assert list(messages(iter(['"""', "open"]))) == ["open"]


@given(st.lists(st.text(st.characters(blacklist_characters='\\"\n\r'), max_size=9)))
def test_plain_lines_are_messages(lines: list[str]) -> None:
    assert list(messages(iter(lines))) == [line.strip() for line in lines if line.strip()]


def test_a_pipe_gets_answers_and_nothing_else(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("fever?\n\npain?"))
    chat = Chat(model, Sampling(max_new_tokens=5), PipedTerminal())
    chat.run()
    captured = capsys.readouterr()
    first = expected(model, [Message("user", "fever?")], 5)
    assert captured.out.startswith(first + "\n")
    assert "research only" in captured.err
    assert len(chat.turns) == 4


def test_a_text_can_not_take_over_the_terminal() -> None:
    terminal = RichTerminal()
    terminal._console = Console(file=io.StringIO(), highlight=False, emoji=False, force_terminal=True)
    terminal.show("a\x1b]0;owned\x07b\x9b31m [red]:smile:[/]\n")
    terminal.note("[bold]plain")
    text = terminal._console.file.getvalue()
    assert "\x1b]0" not in text
    assert "\x9b" not in text
    assert "[red]:smile:[/]" in text
    assert "[bold]plain" in text
    assert _printable("患者\tok\n") == "患者\tok\n"
