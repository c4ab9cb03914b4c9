"""The classes behind the YAML files: the harness's own task with this package's rendering and scores.

Only lm-evaluation-harness imports this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from medcare.data.task import Task
from medcare.evaluation.answer_formats import metric_of
from medcare.evaluation.scoring import score_answers
from medcare.text.records import Item

_MARK = "\uf8ff"
Document = dict[str, Any]


class _Configured(ConfigurableTask):  # type: ignore[misc]
    """The harness's task without the key that names its class, which its own configuration doesn't know."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config={key: value for key, value in config.items() if key != "class"})


class HarnessExam(_Configured):
    """Options ranked by their log-likelihood as the assistant's answer.

    The harness moves white space at the end of a prompt, such as the line break after a template's
    `assistant`, into the option, and so scores it too. That would add the same number of nats to options of
    different lengths and change their order by nats per byte. Therefore the white space is scored alone as
    one more request, and taken off each option.
    """

    def construct_requests(self, doc: Document, ctx: str, **kwargs: Any) -> list[Instance]:
        """The requests for the options, and one for the white space if the prompt ends in any."""
        template = kwargs.get("chat_template") if kwargs.get("apply_chat_template") else None
        requests: list[Instance] = super().construct_requests(doc, ctx, **dict(kwargs))
        if template is None:
            return requests
        glue = _glue(template)
        options = self.doc_to_choice(doc)
        arguments = [(ctx, f"{glue}{option}") for option in options]
        if ctx[-1:].isspace():
            arguments.append((ctx, ""))
        shared = {key: kwargs[key] for key in ("metadata",) if key in kwargs}
        return [
            Instance(request_type="loglikelihood", doc=doc, arguments=pair, idx=index, **shared)
            for index, pair in enumerate(arguments)
        ]

    def process_results(self, doc: Document, results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
        """The harness's scores, of the options without the white space before them."""
        found: dict[str, Any] = super().process_results(doc, option_results(doc["options"], results))
        return found


class HarnessForm(_Configured):
    """Text in a strict form, scored by the task's own metric over all items together."""

    def aggregation(self) -> dict[str, Callable[[Any], float]]:
        """How the answers make a score."""
        return {"score": self._score}

    def _score(self, answered: Sequence[tuple[Document, str]]) -> float:
        card = Task.from_dict(self.config.metadata["card"])
        items = [_item(doc) for doc, _ in answered]
        answers = [{"id": doc["id"], "text": text} for doc, text in answered]
        rows, _ = score_answers(card, items, {"model": answers})
        return float(metric_of(card)(rows["model"].sum(0)[None])[0])


def written(doc: Document, results: Sequence[str]) -> dict[str, Any]:
    """What `HarnessForm.aggregation` needs: the item and the answer."""
    return {"score": (doc, results[0].strip())}


def option_results(options: Sequence[str], results: Sequence[tuple[float, bool]]) -> list[tuple[float, bool]]:
    """The log-likelihood of each option, without that of the white space, which is scored last if at all."""
    before = results[len(options)][0] if len(results) > len(options) else 0.0
    return [(value - before, greedy) for value, greedy in results[: len(options)]]


def _glue(template: Callable[..., str]) -> str:
    """What a chat template writes between its call for an answer and the answer, such as Llama 2's space."""
    question = {"role": "user", "content": "a"}
    head = template([question], add_generation_prompt=True)
    whole = template([question, {"role": "assistant", "content": _MARK}], add_generation_prompt=False)
    return whole[len(head) : whole.index(_MARK)] if whole.startswith(head) else ""


def _item(doc: Document) -> Item:
    """The item that a row of the task's file was."""
    fields: dict[str, Any] = {key: doc[key] for key in Item.__dataclass_fields__ if key in doc}
    lists = {key: tuple(value or ()) for key, value in fields.items() if isinstance(value, list | None)}
    return Item(**{**fields, **lists})
