"""Writing a test set as tasks of lm-evaluation-harness. Imports neither torch nor the harness."""

from __future__ import annotations

from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from medcare.data.record_files import read_items
from medcare.data.task import BenchmarkFile, Task
from medcare.evaluation.test_set import adopt
from medcare.foundation.errors import FolderError
from medcare.foundation.storage import write_jsonl, write_text
from medcare.text.records import Item, fixed_options

PREFIX = "medcare"
_EXAM, _FORM = "exam_template", "form_template"


def write_tasks(source: str, out: Path, *, max_new_tokens: int) -> list[str]:
    """Write a test set as tasks that `lm_eval --include_path OUT` finds.

    Every task `NAME` becomes `medcare_NAME`; all bear the tag `medcare`, and that of their family,
    `medcare_knowledge` or `medcare_alignment`.

    Args:
        source: a folder that `medcare run` or `medcare evaluate` wrote, or what `adopt` takes.
        out: the folder to write; a former one of this function is replaced.
        max_new_tokens: longest answer of tasks that are answered in words.

    Returns:
        The names of the tasks.

    Raises:
        DataError: the test set is missing or malformed.
        FolderError: `out` holds something else.
        StorageError: it can't be written.
    """
    if out.exists() and not (out / _EXAM).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise FolderError(f"{out} holds something else than tasks of the harness. Choose another --out.")
    run = Path(source) / "data"
    adopt(str(run) if (run / "items.jsonl").is_file() else source, out / "data")
    for name in (_EXAM, _FORM):
        template = resources.files("medcare.evaluation.harness").joinpath(name)
        write_text(out / name, template.read_text(encoding="utf-8"))
    for former in out.glob(f"{PREFIX}_*.yaml"):
        former.unlink()
    items = read_items(out / "data" / "items.jsonl")
    names = []
    for card in BenchmarkFile.read(out / "data" / "benchmark.json").tasks:
        chosen = [item for item in items if item.task == card.name]
        if chosen:
            _write_task(card, chosen, out, max_new_tokens)
            names.append(f"{PREFIX}_{card.name}")
    return names


def _write_task(card: Task, items: list[Item], out: Path, max_new_tokens: int) -> None:
    data = out / "data" / f"{card.name}.jsonl"
    write_jsonl(data, [asdict(item) for item in items])
    settings: dict[str, Any] = {
        "include": _EXAM if card.form == "options" else _FORM,
        "task": f"{PREFIX}_{card.name}",
        "tag": [PREFIX, f"{PREFIX}_{card.family}"],
        "dataset_kwargs": {"data_files": {"test": str(data.resolve())}},
        "metadata": {"version": 1.0},
    }
    if card.form == "options":
        settings["metadata"]["ranked_by"] = "acc" if fixed_options(items) else "acc_bytes"
    else:
        settings["generation_kwargs"] = {"until": [], "do_sample": False, "max_gen_toks": max_new_tokens}
        tree = card.to_dict()
        settings["metadata"]["card"] = {**tree, "labels": list(card.labels)}
    write_text(
        out / f"{PREFIX}_{card.name}.yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    )
