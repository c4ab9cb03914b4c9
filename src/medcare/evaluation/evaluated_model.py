"""One model's predictions as a comparison takes them: which ones a name stands for, and how they were made.

A name is a folder that `medcare run` or `medcare evaluate` wrote, with `:NAME` behind it for one of its
models (else its last one), or a predictions.jsonl inside of one. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from medcare.evaluation.evaluation_folder import (
    PREDICTIONS,
    Cards,
    Predictions,
    model_names,
    read_predictions,
    read_prompt_settings,
    read_tests,
)
from medcare.foundation.commands import command
from medcare.foundation.contents import MANIFEST, manifest_of
from medcare.foundation.errors import ConfigError, EvaluationError
from medcare.foundation.outside import Outside, held_to
from medcare.foundation.storage import file_hash
from medcare.settings.config import RunConfig
from medcare.settings.files import read_yaml
from medcare.settings.run_folder import check
from medcare.text.records import Item

UNKNOWN = "not recorded"


class _Settings(Outside):
    """config.yaml, as far as it says how answers were made."""

    model: str | dict[str, Any] = Field({})
    evaluation: dict[str, Any] = Field({})


@dataclass(frozen=True)
class EvaluatedModel:
    """One model's answers to a test set, and how they were made.

    Attributes:
        name: as it was given, with the model's name.
        folder: the run or evaluation folder.
        model: the model's name in the folder.
        items: the test items.
        cards: the card of each task.
        predictions: the answers.
        seed: of the run.
        facts: how the answers were made, as label and value.
    """

    name: str
    folder: Path
    model: str
    items: tuple[Item, ...]
    cards: Cards
    predictions: Predictions
    seed: int | None
    facts: dict[str, str]


def read_evaluated_model(given: str) -> EvaluatedModel:
    """The answers behind a name.

    Raises:
        EvaluationError: it stands for none, or they are not complete.
        DataError: a file is malformed.
        ConfigError: config.yaml is no settings.
        FolderError: a file of a finished folder is missing or has changed.
    """
    folder, model = find_answers(given)
    check(folder)
    items, cards = read_tests(folder)
    path = folder / "evaluation" / model / PREDICTIONS
    config = _config(folder / "config.yaml")
    name = given if given.endswith(f":{model}") or folder != Path(given) else f"{given}:{model}"
    seed = config.get("seed")
    return EvaluatedModel(
        name,
        folder,
        model,
        tuple(items),
        cards,
        read_predictions(path, items),
        seed if isinstance(seed, int) else None,
        _facts(folder, path, config),
    )


def check_same_items(first: EvaluatedModel, second: EvaluatedModel) -> tuple[str, int]:
    """Make sure that both models answered the same items, whatever the prompts were.

    Returns:
        A SHA-256 over what the items are, and how many of them were put in other words.

    Raises:
        EvaluationError: they did not; the message says how many they share.
    """
    one, other = _contents(first.items), _contents(second.items)
    if one != other:
        shared = sum(other.get(name) == content for name, content in one.items())
        renamed = len(one.keys() & other.keys()) - shared
        changed = f", {renamed} have one name and two contents" if renamed else ""
        raise EvaluationError(
            f"Models are compared on the same items. {first.name} answered {len(one)} (SHA-256 "
            f"{_digest(one)[:12]}…) and {second.name} {len(other)} ({_digest(other)[:12]}…): "
            f"{shared} are the same{changed}. Test both models on one set: "
            + command("evaluate", "MODEL", "--items", first.folder / "data" / "items.jsonl", "--out", "DIR")
        )
    prompts = {item.id: item.prompt for item in second.items}
    return _digest(one), sum(prompts[item.id] != item.prompt for item in first.items)


def check_same_cards(first: EvaluatedModel, second: EvaluatedModel) -> None:
    """Make sure that both models' answers are read and scored alike; raises EvaluationError."""
    for name in dict.fromkeys(item.task for item in first.items):
        one, other = first.cards[name], second.cards[name]
        differing = [key for key in ("form", "metric", "labels") if getattr(one, key) != getattr(other, key)]
        if differing:
            raise EvaluationError(
                f"The task '{name}' is scored in two ways: its card differs in {', '.join(differing)} "
                f"between {first.folder} and {second.folder}. Correct one data/benchmark.json."
            )


def find_answers(given: str) -> tuple[Path, str]:
    """The folder that a name stands for, and which of its models; raises EvaluationError."""
    path = Path(given)
    if path.is_file() and path.name == PREDICTIONS:
        path = path.parent
    if (path / PREDICTIONS).is_file() and (path.parents[1] / "data").is_dir():
        return path.parents[1], path.name
    if path.is_dir():
        return path, model_names(path)[-1]
    before, colon, model = given.rpartition(":")
    if colon and Path(before).is_dir():
        names = model_names(Path(before))
        if model not in names:
            raise EvaluationError(f"{before} has no answers of '{model}'. It has: {', '.join(names)}.")
        return Path(before), model
    raise EvaluationError(
        f"{given} is no folder of 'medcare run' or 'medcare evaluate', and no {PREDICTIONS} in one. Give "
        "such a folder; of one with several models, choose one as in runs/demo:base."
    )


def _facts(folder: Path, predictions: Path, config: dict[str, Any]) -> dict[str, str]:
    """How the answers were made: settings as `evaluation.KEY`, versions as `version of KEY`."""
    manifest = manifest_of(folder) if (folder / MANIFEST).is_file() else {}
    prompts = dict(read_prompt_settings(predictions) or {})
    prompts.pop("items", None)  # a hash of the items, which are compared themselves
    model = config.get("model", {})
    # A folder that is older than a setting was made as its default says now.
    settings = {**RunConfig().to_dict()["evaluation"], **config.get("evaluation", {}), **prompts}
    places = {} if isinstance(model, str) else {key: model.get(key) for key in ("dtype", "device")}
    facts: dict[str, Any] = {
        "model": config.get("tested") or f"{predictions.parent.name} of {manifest.get('base', UNKNOWN)}",
        "seed": config.get("seed"),
        **{f"model.{key}": value for key, value in places.items()},
        **{f"evaluation.{key}": value for key, value in settings.items()},
        **{f"version of {key}": value for key, value in manifest.get("versions", {}).items()},
        "commit": manifest.get("git_commit"),
        "items.jsonl": file_hash(folder / "data" / "items.jsonl"),
        "predictions.jsonl": file_hash(predictions),
    }
    return {key: UNKNOWN if value is None else _as_text(value) for key, value in facts.items()}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _contents(items: Sequence[Item]) -> dict[str, str]:
    """What each item asks for, whatever the words."""
    found = {}
    for item in items:
        content = {key: value for key, value in asdict(item).items() if key not in ("prompt", "subject")}
        found[item.id] = json.dumps(content, ensure_ascii=False, sort_keys=True)
    return found


def _digest(contents: dict[str, str]) -> str:
    return hashlib.sha256("\n".join(sorted(contents.values())).encode()).hexdigest()


def _config(path: Path) -> dict[str, Any]:
    config = read_yaml(path) if path.is_file() else {}
    held_to(config, _Settings, str(path), ConfigError)
    return config
