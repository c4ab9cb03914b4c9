"""What a reasoning model thinks before it answers, told apart from the answer while both are written."""

from __future__ import annotations

from typing import Literal

from medcare.text.control_tokens import CLOSE, OPEN

ENOUGH = (
    "\n\nConsidering the limited time by the user, I have to give the solution based on the thinking "
    f"directly now.\n{CLOSE}\n\n"
)
"""What closes a thought that has reached its longest length: the sentence of Qwen3's report."""


class Thoughts:
    """Parts the text of an answer into thought and answer.

    A thought stands at the beginning, between `<think>` and `</think>`. Some chat templates write the
    `<think>` themselves, at the end of the prompt. White space between thought and answer belongs to neither.

    Args:
        opened: whether the prompt has opened a thought.
    """

    def __init__(self, *, opened: bool) -> None:
        self._state: Literal["start", "thought", "gap", "answer"] = "thought" if opened else "start"
        self._held = ""

    def push(self, text: str) -> tuple[str, str]:
        """Take more text; returns what is certain of it: some of the thought, some of the answer."""
        held, self._held = self._held + text, ""
        thought = ""
        if self._state == "start":
            start = held.lstrip()
            if len(start) < len(OPEN) and OPEN.startswith(start):
                self._held = held  # it may still become the tag
                return "", ""
            self._state = "answer"
            if start.startswith(OPEN):
                self._state, held = "thought", start.removeprefix(OPEN)
        if self._state == "thought":
            thought, closed, held = held.partition(CLOSE)
            if not closed:
                certain = len(thought) - begun(thought, CLOSE)
                self._held = thought[certain:]
                return thought[:certain], ""
            self._state = "gap"
        if self._state == "gap":
            held = held.lstrip()
            self._state = "answer" if held else "gap"
        return thought, held

    def close(self) -> tuple[str, str]:
        """What was held back, once no more text comes."""
        held, self._held = self._held, ""
        return (held, "") if self._state == "thought" else ("", held)


def parted(text: str) -> tuple[str, str | None]:
    """The thought and the answer of a whole text.

    A thought that is closed without having been opened counts as one: the prompt may have opened it.

    Returns:
        Both without the white space around them, a text without a thought as it is; no answer, None, where
        the thought was never closed.
    """
    start = text.lstrip()
    opened_by_prompt = CLOSE in start and OPEN not in start.partition(CLOSE)[0]
    if not opened_by_prompt and not start.startswith(OPEN):
        return "", text
    thought, closed, answer = start.removeprefix(OPEN).partition(CLOSE)
    return thought.strip(), answer.strip() if closed else None


def begun(text: str, word: str) -> int:
    """Length of the longest end of `text` with which `word` begins; the whole word doesn't count."""
    return next((size for size in range(len(word) - 1, 0, -1) if text.endswith(word[:size])), 0)
