"""The shape of a model by name: a well-known one, a local folder, a hub id or the embedded model."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

import yaml

from medcare.base_model import load_config
from medcare.errors import ModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


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
    shape = shapes.get(name.lower().rpartition("/")[2].removesuffix("-chat").removesuffix("-instruct"))
    if shape is not None:
        known: PretrainedConfig = AutoConfig.for_model(**shape)
        return known
    try:
        return load_config(name)
    except ModelError as error:
        raise ModelError(f"{error} Shapes known by name: {', '.join(shapes)}.") from error
