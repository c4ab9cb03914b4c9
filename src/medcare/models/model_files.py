"""A model folder's files, looked at before a library reads them, and its model measured while it is built.

A folder comes from anywhere. Its files have to be real files of a possible size, and the sizes in its JSON
have to be possible for weights. How large the model of a config.json gets is known only to the code of its
family; so it is counted while transformers builds it without memory, and stopped beyond what the files hold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field, field_validator, model_validator
from safetensors import safe_open
from torch import nn
from torch.nn.modules import module as hooks

from medcare.foundation.errors import ModelError
from medcare.foundation.outside import Outside, check_file, held_to, read_as
from medcare.models.tokenizer_file import TokenizerFile

TEXT, _TABLE, _WEIGHTS = 1 << 24, 1 << 29, 1 << 45
"""Most bytes: of settings, of a vocabulary or an index, of weights."""
_SIZES = {".jinja": TEXT, ".safetensors": _WEIGHTS, ".model": _TABLE, ".tiktoken": _TABLE, ".txt": _TABLE}
_TABLES = frozenset({"tokenizer.json", "vocab.json", "model.safetensors.index.json"})
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
"""The file of a model's weights, and the one that says in which files they are where one does not do."""
# Fields that count what is looped over, in any family's words.
_COUNTS = re.compile(r"layer|block|head|expert|stage|group|depth", re.IGNORECASE)
_MOST_COUNTED, _MOST = 1 << 16, 1 << 40
_PACKED = ("U8", "I8", "I32")  # may hold up to eight values each
_SLACK, _SLACK_OF_TENSORS = 1 << 26, 2_000  # of models whose files are small


def _no_huge_numbers(tree: Any, key: str = "") -> Any:
    if isinstance(tree, dict):
        for name, value in tree.items():
            _no_huge_numbers(value, str(name))
    elif isinstance(tree, list):
        for value in tree:
            _no_huge_numbers(value, key)
    elif isinstance(tree, int) and abs(tree) > (most := _MOST_COUNTED if _COUNTS.search(key) else _MOST):
        raise ValueError(f"{key} is at most {most:,}")
    return tree


class ConfigFile(Outside):
    """config.json: what a model is. Its fields are the families' own; transformers checks their types."""

    model_type: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, tree: Any) -> Any:
        return _no_huge_numbers(tree)


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


class GenerationFile(Outside):
    """generation_config.json: how a model's answers are drawn, as far as it is read here."""

    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=1 << 31)] | None = None
    eos_token_id: Annotated[list[Annotated[int, Field(ge=0)]], BeforeValidator(_one_or_more)] | None = None


class IndexFile(Outside):
    """The index of weights in several files, which lie beside it."""

    weight_map: dict[str, str]

    @field_validator("weight_map")
    @classmethod
    def _beside(cls, weight_map: dict[str, str]) -> dict[str, str]:
        for file in set(weight_map.values()):
            if Path(file).name != file or not file.endswith(".safetensors"):
                raise ValueError("names of .safetensors files beside the index are required")
        return weight_map


_SHAPES: dict[str, type[Outside]] = {
    "config.json": ConfigFile,
    "generation_config.json": GenerationFile,
    "tokenizer_config.json": Outside,
    "special_tokens_map.json": Outside,
    "tokenizer.json": TokenizerFile,
    INDEX: IndexFile,
}


def check_files(folder: Path) -> None:
    """Refuse a model folder with what no library should read.

    Raises:
        ModelError: a file is none, is too large, or not of its shape.
    """
    for path in sorted(folder.iterdir()):
        most = _SIZES.get(path.suffix)
        if path.suffix == ".json":
            most = _TABLE if path.name in _TABLES else TEXT
        if most is not None:
            check_file(path, ModelError, most)
        if (shape := _SHAPES.get(path.name)) is not None:
            read_as(path, shape, ModelError, most_bytes=_TABLE)


def check_generation(name: str, config: Any) -> None:
    """Refuse settings of a model's answers that can't be followed, wherever they stood; raises ModelError."""
    if config is not None:
        held_to(config.to_dict(), GenerationFile, f"The generation settings of {name}", ModelError)


def weight_names(folder: Path) -> list[str]:
    """The files that transformers reads a model's weights from; others may lie beside them.

    Raises:
        ModelError: the index is not of its shape.
    """
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return [WEIGHTS]
    return sorted(set(read_as(folder / INDEX, IndexFile, ModelError, most_bytes=_TABLE).weight_map.values()))


def held_by(folder: Path) -> tuple[int, int]:
    """The most values that a folder's weights can hold, and how many tensors.

    Raises:
        ModelError: one that the index names is missing, or no file.
        SafetensorError: one can't be read.
    """
    values = tensors = 0
    for name in weight_names(folder):
        path = folder / name
        if name == WEIGHTS and not path.exists():
            continue  # transformers says in which other files it looked
        check_file(path, ModelError, _WEIGHTS)
        with safe_open(path, "pt") as stream:
            for key in stream.keys():  # noqa: SIM118  # no dictionary
                tensor = stream.get_slice(key)
                packed = 8 if tensor.get_dtype() in _PACKED else 1
                values += packed * math.prod(tensor.get_shape())
                tensors += 1
    return values, tensors


@contextmanager
def measured(name: str, folder: Path) -> Iterator[None]:
    """Within the block, a model is built with no more values than its files can fill, or not at all.

    Args:
        name: of the base.
        folder: its files. A tied output counts twice until it is tied; files may have several tensors in one.

    Raises:
        ModelError: config.json describes a larger one; also as `held_by`.
    """
    values, tensors = held_by(folder)
    counted, most = 0, 2 * values + _SLACK
    parts, most_parts = 0, 16 * tensors + _SLACK_OF_TENSORS

    def count(_: nn.Module, __: str, tensor: torch.Tensor | None) -> None:
        nonlocal counted, parts
        if tensor is not None and tensor.is_meta:  # what is filled is no longer
            counted += tensor.numel()
            parts += 1
        if counted > most or parts > most_parts:
            raise ModelError(
                f"The config.json of {name} describes a model of more than {counted:,} values in {parts:,} "
                f"tensors; its files hold {values:,} in {tensors:,}. The two belong to different models; "
                "download both again."
            )

    registered = [
        hooks.register_module_parameter_registration_hook(count),
        hooks.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in registered:
            hook.remove()
