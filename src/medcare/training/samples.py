"""What the model answers to a few validation rows at each measurement, for whoever watches a run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from medcare.generation.greedy import generate
from medcare.text.chat_template import Rendered
from medcare.text.corpus import as_corpus

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

_ROLES = ("", "system", "user", "assistant", "model")
_LONGEST_PROMPT, _LONGEST_ANSWER = 1024, 64  # tokens


class Samples:
    """The rows, one of each source and then the next: how each begins, and what it answers itself.

    Args:
        examples: the validation rows; documents and rows with long questions are passed over.
        tokenizer: of the model.
        count: how many, at most.
    """

    def __init__(self, examples: Sequence[Rendered], tokenizer: PreTrainedTokenizerBase, count: int) -> None:
        self._tokenizer = tokenizer
        self._rows: list[tuple[str, list[int], list[int]]] = []
        corpus = as_corpus(examples)
        sources, names = corpus.sources()
        by_source = [np.flatnonzero(sources == number).tolist() for number in range(len(names))]
        for turn in zip_longest(*by_source):
            for place in turn:
                if len(self._rows) == count:
                    return
                if place is not None:
                    self._take(corpus[place])

    def _take(self, row: Rendered) -> None:
        last = len(row.mask)
        while last and not row.mask[last - 1]:
            last -= 1
        first = last
        while first and row.mask[first - 1]:
            first -= 1
        if not row.document and 0 < first <= _LONGEST_PROMPT and first < last:
            self._rows.append((row.id, row.ids[:first], row.ids[first:last]))

    def answered(self, model: nn.Module, step: int) -> list[dict[str, Any]]:
        """The rows of samples.jsonl after so many steps: `id`, `prompt`, its `right` answer, the `answer`.

        Args:
            model: in evaluation mode.
            step: steps done.
        """
        if not self._rows:
            return []
        prompts = [prompt for _, prompt, _ in self._rows]
        answers = generate(model, self._tokenizer, prompts, max_new_tokens=_LONGEST_ANSWER)
        return [
            {
                "step": step,
                "id": name,
                "prompt": _without_roles(self._text(prompt)),
                "right": self._text(right),
                "answer": self._text(answer),
            }
            for (name, prompt, right), answer in zip(self._rows, answers, strict=True)
        ]

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()


def _without_roles(prompt: str) -> str:
    """A prompt without the role names around it, which templates write beside their control tokens."""
    lines = prompt.split("\n")
    while len(lines) > 1 and lines[0].strip() in _ROLES:
        lines = lines[1:]
    while len(lines) > 1 and lines[-1].strip() in _ROLES:
        lines = lines[:-1]
    return "\n".join(lines).strip()
