"""Answers of one model to test items: an append-only JSONL that survives a kill and is continued.

One row an item. Options: `{"id", "log_likelihoods": [nats for each option], "bytes": [UTF-8 length of each
option]}`. Free text: `{"id", "text"}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcare.config import EvaluationConfig
from medcare.data.chat_template import render_answer, render_prompt, stop_ids
from medcare.data.records import Item, Message
from medcare.progress import Task, track
from medcare.storage import append_jsonl, read_jsonl, write_jsonl

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def predict(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Item],
    path: Path,
    config: EvaluationConfig,
    *,
    name: str,
) -> None:
    """Answer every item that `path` has no answer to yet, appending to it batch by batch.

    Items with options have each option's log-likelihood taken as the assistant's answer; the others are
    answered by greedy decoding.

    Args:
        model: the model, in evaluation mode.
        tokenizer: its tokenizer, with a chat template.
        items: the test items.
        path: the predictions file.
        config: batch size and longest answer.
        name: shown beside the progress bar.

    Raises:
        StorageError: the disk is full; what was written stays.
        DataError: the file holds something else.
    """
    done = _answered(path)
    missing = [item for item in items if item.id not in done]
    with track(f"answers of {name}", len(items)) as task:
        task.start_at(len(items) - len(missing))
        _rank([item for item in missing if item.options], model, tokenizer, path, config, task)
        _write([item for item in missing if not item.options], model, tokenizer, path, config, task)


def unanswered(items: Sequence[Item], path: Path) -> int:
    """How many of the items have no answer in the predictions file yet."""
    done = _answered(path)
    return sum(item.id not in done for item in items)


def _answered(path: Path) -> set[str]:
    """Ids of the answers there are; a last line torn by a kill is cut off."""
    if not path.exists():
        return set()
    rows = list(read_jsonl(path, torn_tail=True))
    if not path.read_bytes().endswith(b"\n"):
        write_jsonl(path, rows)
    return {str(row.get("id")) for row in rows}


def _rank(
    items: Sequence[Item],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    path: Path,
    config: EvaluationConfig,
    task: Task,
) -> None:
    from medcare.generation.options import stream_option_scores

    rendered = [
        [render_answer(tokenizer, _messages(item), option) for option in item.options] for item in items
    ]
    stream = stream_option_scores(
        model,
        [pairs[0][0] for pairs in rendered],
        [[answer for _, answer in pairs] for pairs in rendered],
        tokens_per_batch=config.tokens_per_batch,
    )
    for batch in stream:
        for index, values in batch:
            _append(path, items[index], log_likelihoods=[round(value, 5) for value in values])
        task.advance(len(batch))


def _write(
    items: Sequence[Item],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    path: Path,
    config: EvaluationConfig,
    task: Task,
) -> None:
    from medcare.generation.greedy import stream_generate

    stream = stream_generate(
        model,
        [render_prompt(tokenizer, _messages(item)) for item in items],
        max_new_tokens=config.max_new_tokens,
        stop_ids=stop_ids(tokenizer),
        tokens_per_batch=config.tokens_per_batch,
    )
    for batch in stream:
        for index, tokens in batch:
            text = str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()
            _append(path, items[index], text=text)
        task.advance(len(batch))


def _messages(item: Item) -> list[Message]:
    return [Message("user", item.prompt)]


def _append(path: Path, item: Item, **answer: Any) -> None:
    row = {"id": item.id, **answer}
    if item.options:
        row["bytes"] = [len(option.encode()) for option in item.options]
    append_jsonl(path, row)
