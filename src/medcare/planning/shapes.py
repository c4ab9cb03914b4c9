"""The shape of a model by name: a well-known one, a local folder, a hub id or the embedded model."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from medcare.foundation.errors import ModelError
from medcare.models.base_model import load_config

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_TUNED = ("-Chat", "-Instruct")  # of the same shape as the model without


def known_shapes() -> dict[str, dict[str, Any]]:
    """The settings of well-known models by lower-case name."""
    text = resources.files("medcare.planning").joinpath("shapes.yaml").read_text(encoding="utf-8")
    shapes: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return shapes


def shape_of(name: str) -> PretrainedConfig:
    """The configuration behind a name out of `known_shapes`, or a base name as in `ModelConfig.base`.

    Raises:
        ModelError: there is no such model.
    """
    from transformers import AutoConfig

    shapes = known_shapes()
    shape = shapes.get(_known_name(name))
    if shape is not None and not Path(name).is_dir():
        known: PretrainedConfig = AutoConfig.for_model(**{k: v for k, v in shape.items() if k != "hub"})
        return known
    try:
        return load_config(name)
    except ModelError as error:
        raise ModelError(f"{error} Shapes known by name: {', '.join(shapes)}.") from error


def base_of(name: str) -> str:
    """The `model.base` behind a name that `shape_of` takes: a hub id for one out of `known_shapes`."""
    shape = known_shapes().get(_known_name(name))
    if shape is None or "/" in name or Path(name).is_dir():
        return name
    tuned = next((end for end in _TUNED if name.lower().endswith(end.lower())), "")
    return str(shape["hub"]).format(tuned)


def _known_name(name: str) -> str:
    short = name.lower().rpartition("/")[2]
    for end in _TUNED:
        short = short.removesuffix(end.lower())
    return short
