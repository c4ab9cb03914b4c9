"""Options that say what the settings are: a file, a preset, and single settings over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from medcare.foundation.errors import ConfigError
from medcare.settings.config import RunConfig
from medcare.settings.files import PRESETS, load_config

ConfigPath = Annotated[Path | None, typer.Argument(help="YAML of settings, over the preset.")]
Preset = Annotated[
    str | None,
    typer.Option(
        help=f"Settings to start from: {', '.join(PRESETS)}. Default: demo for the embedded base on its own "
        "data, else the paper's, with steps of 8,192 tokens."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. align.epochs=2."),
]
Template = Annotated[
    str | None,
    typer.Option("--chat-template", metavar="FILE", help="A chat template to use instead of the base's own."),
]


class WithSettings(TyperCommand):
    """A command that explains how to set a setting that was given as an option of its own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer's; raises ConfigError for a setting."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            option = str(getattr(error, "option_name", ""))
            name = option.lstrip("-").replace("-", "_")
            if name == "config":
                raise ConfigError("There is no option --config. Name the file of settings alone.") from error
            if "." in name:
                raise ConfigError(
                    f"There is no option {option}, but a setting: --set {name}=VALUE"
                ) from error
            tree = RunConfig().to_dict()
            groups = [
                group for group, settings in tree.items() if isinstance(settings, dict) and name in settings
            ]
            if not groups:
                raise
            ways = " or ".join(f"--set {group}.{name}=VALUE" for group in groups)
            raise ConfigError(f"There is no option {option}. It is a setting: {ways}.") from error


def config_of(
    path: Path | None,
    preset: str | None,
    settings: list[str] | None,
    named: dict[str, str | bool | None] | None = None,
) -> RunConfig:
    """The settings of a file, a preset and `--set`, with `named`, those of other options, over them."""
    given = [f"{key}={json.dumps(value)}" for key, value in (named or {}).items() if value is not None]
    return load_config(path, preset=preset, settings=[*(settings or ()), *given])
