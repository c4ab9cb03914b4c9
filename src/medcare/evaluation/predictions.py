"""Answers of one model to test items: an append-only JSONL that survives a kill and is continued.

One row an item. Options: `{"id", "log_likelihoods": [nats for each option], "bytes": [UTF-8 length of each
option]}`. Free text: `{"id", "text"}`.

Several processes share the items; each appends to a file of its own, NAME.NUMBER.jsonl, which the main one
joins to NAME.jsonl at the end, or at the next start if they were killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcare import processes
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

    Of several processes, each answers its share; all must call this.

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
    missing = unanswered(items, path)
    mine = missing[processes.number() :: processes.count()]
    part = path if processes.count() == 1 else _part(path, processes.number())
    with track(f"answers of {name}", (len(items) - len(missing)) // processes.count() + len(mine)) as task:
        task.start_at(task.total - len(mine))
        _rank([item for item in mine if item.options], model, tokenizer, part, config, task)
        _write([item for item in mine if not item.options], model, tokenizer, part, config, task)
    processes.wait()
    _join(path)


def unanswered(items: Sequence[Item], path: Path) -> list[Item]:
    """The items that have no answer in the predictions file yet; every process must call this."""
    _join(path)
    done = {str(row.get("id")) for row in read_jsonl(path)} if path.exists() else set()
    return [item for item in items if item.id not in done]


def _part(path: Path, number: int | str) -> Path:
    return path.with_suffix(f".{number}{path.suffix}")


def _join(path: Path) -> None:
    """Make one whole file of what one or several processes have written, killed or not."""
    if processes.is_main():
        parts = sorted(path.parent.glob(_part(path, "*").name))
        whole = not path.exists() or path.read_bytes()[-1:] in (b"\n", b"")
        if parts or not whole:
            files = [path, *parts] if path.exists() else parts
            rows = [row for file in files for row in read_jsonl(file, torn_tail=True)]
            write_jsonl(path, list({str(row.get("id")): row for row in rows}.values()))
            for part in parts:
                part.unlink()
    processes.wait()


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
