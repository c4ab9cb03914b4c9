"""A conversation in the terminal, or over a pipe."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.markup import escape

from medcare.foundation.errors import MedCareError
from medcare.foundation.paths import expanded
from medcare.foundation.storage import write_jsonl
from medcare.generation.requests import Event, Finished, Token
from medcare.generation.sampling import Sampling
from medcare.generation.text_stream import TextStream
from medcare.serving import NOTICE
from medcare.serving.served_model import ServedModel
from medcare.text.records import Message

HELP = """\
/reset         forget the conversation; the system message stays
/system TEXT   set the system message and forget the conversation; without TEXT, remove it
/save FILE     write the conversation as a line of JSONL, the form that `medcare train --data` reads
/help          show this
/quit          leave, as Ctrl-D does
A line that ends with \\ goes on in the next; so does everything between two lines of \"\"\".
Ctrl-C stops an answer; what is there of it stays in the conversation."""


class Terminal(Protocol):
    """Where lines come from and text goes to."""

    def lines(self) -> Iterator[str]:
        """Yield what is typed, line by line."""

    def show(self, text: str) -> None:
        """Show a piece of an answer."""

    def end(self) -> None:
        """End an answer."""

    def note(self, text: str) -> None:
        """Say something that is no part of an answer."""

    def ask(self, text: str) -> str:
        """Ask the person something; empty where there is none."""


class RichTerminal:
    """A person at a terminal: prompts, colours, and line editing with a history."""

    def __init__(self) -> None:
        """Turn line editing on where the system has it."""
        self._console = Console(highlight=False, emoji=False)
        with contextlib.suppress(ImportError):  # a Python built without it
            import readline  # noqa: F401  # importing it is what gives input() its history

    def lines(self) -> Iterator[str]:
        """Yield typed lines until Ctrl-D, or a second Ctrl-C; the first clears the line."""
        again = False
        while True:
            try:
                line = input("> ")  # a coloured prompt would confuse line editing
            except EOFError:
                self._console.print()
                return
            except KeyboardInterrupt:
                self._console.print()
                if again:
                    return
                self.note("Ctrl-C again, or Ctrl-D, leaves.")
                again = True
                continue
            again = False
            yield line

    def show(self, text: str) -> None:
        """Show a piece of an answer at once."""
        self._console.print(_printable(text), end="", markup=False, soft_wrap=True)

    def end(self) -> None:
        """End the line, and leave one free."""
        self._console.print("\n")

    def note(self, text: str) -> None:
        """Say something in grey."""
        self._console.print(f"[dim]{escape(text)}[/]")

    def ask(self, text: str) -> str:
        """Ask at the prompt; Ctrl-C and Ctrl-D answer nothing."""
        try:
            return input(text).strip()
        except (EOFError, KeyboardInterrupt):
            self._console.print()
            return ""


class PipedTerminal:
    """A file or another program: nothing but answers on standard output."""

    def lines(self) -> Iterator[str]:
        """Yield the lines of standard input."""
        for line in sys.stdin:
            yield line.rstrip("\n")

    def show(self, text: str) -> None:
        """Write a piece of an answer."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def end(self) -> None:
        """End the line."""
        self.show("\n")

    def note(self, text: str) -> None:
        """Say something on standard error."""
        print(text, file=sys.stderr)

    def ask(self, text: str) -> str:
        """Nobody is there to answer."""
        return ""


class QuietTerminal(PipedTerminal):
    """A Python program, which takes an answer from what `Chat.answer` returns."""

    def show(self, text: str) -> None:
        """Show nothing."""


@dataclass
class Chat:
    """One conversation.

    Attributes:
        model: who answers.
        sampling: how.
        terminal: with whom.
        system: the system message; empty for none.
        turns: what was said so far.
    """

    model: ServedModel
    sampling: Sampling
    terminal: Terminal
    system: str = ""
    turns: list[Message] = field(default_factory=list)
    _saved: Path | None = None
    _unsaved: bool = False

    def run(self) -> None:
        """Talk until the other side ends it, and offer to save the conversation if it wasn't."""
        self.terminal.note(f"{NOTICE}\nModel: {self.model.name}. /help lists the commands.")
        for text in messages(self.terminal.lines()):
            if text.startswith("/") and "\n" not in text:
                if not self._command(text):
                    break
                continue
            try:
                self.answer(text)
            except MedCareError as error:
                self.terminal.note(f"error: {error}")
        if self._unsaved and (name := self.terminal.ask("Save the conversation to (Enter: not at all): ")):
            self._save(name)

    def answer(self, text: str) -> str:
        """Answer a message, showing the answer while it is written.

        Returns:
            The answer, also kept in `turns`. A note says if Ctrl-C or the limit on its length cut it short.

        Raises:
            DataError: the message is longer than the model's context, or the template refuses it.
        """
        prompt = self._prompt(Message("user", text))
        answer = ""
        events: list[Event] = []
        stream = TextStream(self.model.tokenizer)
        room = self.model.engine.longest - len(prompt)
        sampling = replace(
            self.sampling,
            max_new_tokens=min(self.sampling.max_new_tokens, room),
            stop_ids=self.model.stop_ids,
        )
        cut = ""
        request = self.model.engine.add(prompt, sampling, events.append)
        try:
            while self.model.engine.busy:
                self.model.engine.step()
                for event in events:
                    piece = stream.push(event.id) if isinstance(event, Token) else stream.close()
                    piece = piece if answer else piece.lstrip()
                    answer += piece
                    self.terminal.show(piece)
                    if isinstance(event, Finished) and event.reason == "length":
                        cut = f"its limit of {sampling.max_new_tokens} tokens; max_new_tokens sets another"
                events.clear()
        except KeyboardInterrupt:
            request.cancelled = True
            self.model.engine.drop_active()
            cut = "Ctrl-C"
        self.terminal.end()
        if cut:
            self.terminal.note(f"(The answer was cut by {cut}.)")
        answer = answer.strip()
        self.turns += [Message("user", text), Message("assistant", answer)]
        self._unsaved = True
        return answer

    def _prompt(self, message: Message) -> list[int]:
        """The token ids of the conversation with a new message; the oldest turns go if it is too long."""
        limit = self.model.engine.longest
        answer = min(self.sampling.max_new_tokens, limit // 2)  # longer ones may not push out all turns
        while True:
            prompt = self.model.chat_prompt([*self._opening(), *self.turns, message])
            if len(prompt) + answer <= limit:
                return prompt
            if not self.turns:
                if len(prompt) < limit:
                    return prompt
                raise MedCareError(
                    f"The message has {len(prompt)} tokens, the model's context {limit}. Shorten it."
                )
            self.turns = self.turns[2:]
            self.terminal.note("(The conversation is too long for the model; its oldest turn is left out.)")

    def _opening(self) -> list[Message]:
        return [Message("system", self.system)] if self.system else []

    def _command(self, line: str) -> bool:
        """Carry out a command; returns whether the conversation goes on."""
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        if name in ("/quit", "/exit"):
            return False
        if name == "/help":
            self.terminal.note(HELP)
        elif name == "/reset":
            self.turns, self._unsaved = [], False
            self.terminal.note("The conversation is forgotten.")
        elif name == "/system":
            self.system, self.turns, self._unsaved = rest, [], False
            self.terminal.note("The system message is set." if rest else "There is no system message.")
        elif name == "/save":
            self._save(rest)
        else:
            self.terminal.note(f"There is no command {name}. /help lists them.")
        return True

    def _save(self, name: str) -> None:
        path = expanded(name)
        if not name or not self.turns:
            self.terminal.note("Give a file: /save FILE" if not name else "There is nothing to save yet.")
        elif path != self._saved and os.path.exists(path):  # noqa: PTH110  # no error for a name too long
            self.terminal.note(f"{path} exists already. Choose another name.")
        else:
            rows = [{"role": turn.role, "content": turn.content} for turn in [*self._opening(), *self.turns]]
            try:
                write_jsonl(path, [{"id": path.stem, "source": "chat", "messages": rows}])
            except (MedCareError, ValueError) as error:  # ValueError: a name with a null byte
                self.terminal.note(f"error: {error}")
                return
            self._saved, self._unsaved = path, False
            self.terminal.note(f"Wrote {path}.")


def messages(lines: Iterator[str]) -> Iterator[str]:
    r"""Join lines to messages: those that end in `\`, and those between two lines of `\"\"\"`."""
    parts: list[str] = []
    block = False
    for line in lines:
        if line.strip() == '"""':
            block = not block
        elif block:
            parts.append(line)
            continue
        elif line.endswith("\\"):
            parts.append(line[:-1])
            continue
        else:
            parts.append(line)
        text = "\n".join(parts).strip()
        if not block:
            parts = []
            if text:
                yield text
    if text := "\n".join(parts).strip():
        yield text


def _printable(text: str) -> str:
    """Without control characters, with which a text could take over the terminal."""
    return "".join(character for character in text if character in "\n\t" or character.isprintable())
