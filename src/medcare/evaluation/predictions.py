"""Answers of one model to test items: an append-only JSONL that survives a kill and is continued.

One row an item.

- Options scored by likelihood: `{"id", "log_likelihoods": [nats for each option], "bytes": [UTF-8 length of
  each option]}`, both in the item's order of options, however they were shown.
- Generated text: `{"id", "text"}`, as the model wrote it, and the `"thought"` before it, if there was one.
  Where several answers were drawn, `"samples"` holds the text and the thought of each, and `text` is that of
  the first. For a question with options there is also
  `"order"`: the index of the item's option that stood at each letter, so letter `"ABCD…"[i]` in the text
  means the item's option `order[i]`.

Beside it, prompts.json holds the settings that made the prompts, with their hash: a file is continued with
the same ones only.

Several processes share the items; each appends to a file of its own, NAME.NUMBER.jsonl, which the main one
joins to NAME.jsonl at the end, or at the next start if they were killed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from medcare.evaluation.engines import Engine, Written
from medcare.evaluation.evaluation_folder import PROMPTS, read_prompt_settings
from medcare.evaluation.prompts import Prompt, Prompts
from medcare.foundation import processes
from medcare.foundation.errors import FolderError
from medcare.foundation.progress import track
from medcare.foundation.storage import append_jsonl, json_hash, read_jsonl, write_json, write_jsonl
from medcare.text.records import Item

# Files from before there were settings hold answers to prompts of this kind.
_PLAIN = {"exams": "likelihood", "shots": 0, "shuffle_options": False}


def predict(engine: Engine, prompts: Prompts, path: Path, *, name: str) -> None:
    """Answer every item that `path` has no answer to yet, appending to it batch by batch.

    Of several processes, each answers its share, or all answer all together; all must call this.

    Args:
        engine: the model.
        prompts: what to put to it.
        path: the predictions file.
        name: shown beside the progress bar.

    Raises:
        StorageError: the disk is full; what was written stays.
        DataError: the file holds something else.
        FolderError: it holds answers to other prompts.
        EvaluationError: a server can't be reached or doesn't answer; what was written stays.
    """
    check_settings(prompts, path)
    left = {item.id for item in unanswered([prompt.item for prompt in prompts.all], path)}
    missing = [prompt for prompt in prompts.all if prompt.item.id in left]
    number, count = (0, 1) if engine.together else (processes.number(), processes.count())
    mine = missing[number::count]
    part = path if count == 1 else _part(path, number)
    total = (len(prompts.all) - len(missing)) // count + len(mine)
    with track(f"answers of {name}", total) as task:
        task.start_at(task.total - len(mine))
        for rows in answer(engine, mine):
            if not engine.together or processes.is_main():
                for row in rows:
                    append_jsonl(part, row)
            task.advance(len(rows))
    processes.wait()
    _join(path)


def answer(engine: Engine, prompts: Sequence[Prompt]) -> Iterator[list[dict[str, Any]]]:
    """The rows of a predictions file that answer the prompts, batch by batch; raises as `predict`."""
    ranked = [prompt for prompt in prompts if prompt.options]
    for scores in engine.rank(ranked):
        yield [
            _answered(ranked[index], log_likelihoods=[round(value, 5) for value in values])
            for index, values in scores
        ]
    written = [prompt for prompt in prompts if not prompt.options]
    for texts in engine.write(written):
        yield [_answered(written[index], **_row(answers)) for index, answers in texts]


def unanswered(items: Sequence[Item], path: Path) -> list[Item]:
    """The items that have no answer in the predictions file yet; every process must call this."""
    _join(path)
    done = {str(row.get("id")) for row in read_jsonl(path)} if path.exists() else set()
    return [item for item in items if item.id not in done]


def check_settings(prompts: Prompts, path: Path) -> None:
    """Write down the settings of a new predictions file, or compare them with those of an old one.

    Every process must call this.

    Raises:
        FolderError: the file holds answers to other prompts.
    """
    record = path.with_name(PROMPTS)
    if (known := read_prompt_settings(path)) is not None:
        former = known
    elif path.exists():
        former = {**prompts.settings, **_PLAIN}
    else:
        former = prompts.settings
    differing = sorted(
        key for key in {**former, **prompts.settings} if former.get(key) != prompts.settings.get(key)
    )
    if differing:
        raise FolderError(
            f"{path} holds answers to other prompts (they differ in {', '.join(differing)}). Choose another "
            "--out, or repeat the former settings to continue."
        )
    processes.wait()
    if processes.is_main() and not record.is_file():
        write_json(record, {"settings": prompts.settings, "hash": json_hash(prompts.settings)})


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


def _row(answers: Sequence[Written]) -> dict[str, Any]:
    first, *others = [
        {"text": answer.text, **({"thought": answer.thought} if answer.thought else {})} for answer in answers
    ]
    return {**first, **({"samples": [first, *others]} if others else {})}


def _answered(prompt: Prompt, **answer: Any) -> dict[str, Any]:
    row = {"id": prompt.item.id, **answer}
    if prompt.options:
        row["bytes"] = [len(option.encode()) for option in prompt.options]
    if prompt.order:
        row["order"] = list(prompt.order)
    return row
