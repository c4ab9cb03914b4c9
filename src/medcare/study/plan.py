"""A study's settings and the cells that come of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from medcare.foundation.errors import ConfigError
from medcare.foundation.outside import Outside, held_to
from medcare.foundation.storage import json_hash
from medcare.settings.config import RunConfig
from medcare.settings.files import build, read_yaml
from medcare.study.small_world import SmallWorldConfig

WORLD = "world"


@dataclass(frozen=True)
class Figure:
    """A frontier: one measure against another, a line for each arm.

    Attributes:
        name: of the file.
        title: above it.
        x: a measure.
        y: another.
        arms: by name, as in the plan; those with several values of a setting make one line.
    """

    name: str
    title: str
    x: str
    y: str
    arms: tuple[str, ...]


@dataclass(frozen=True)
class Arm:
    """Settings that are tried with every seed.

    Attributes:
        name: as in the plan, and which of its values where it has several.
        family: the name in the plan.
        settings: over the plan's, by dotted key.
    """

    name: str
    family: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One arm with one seed.

    Attributes:
        arm: which.
        config: all settings of the run, with the seed.
        world: the small world's, or None.
        given: the settings that the plan gives, which make the key. What it leaves at a default is not among
            them: settings that later versions add must not make them run the cells again.
        text: the plan's.
    """

    arm: Arm
    config: RunConfig
    world: SmallWorldConfig | None
    given: dict[str, Any]
    text: str = ""

    @property
    def key(self) -> str:
        """Identifies the cell among those of any plan."""
        return json_hash(self.given)[:16]


@dataclass(frozen=True)
class Study:
    """A plan: `medcare study PLAN --out DIR`.

    Attributes:
        world: `small` trains the model of `small_world`, `run` does whole runs, of the embedded benchmark or
            of data that the settings name; `aggregate` and `align` train up to that stage, for `sweep`.
        seeds: each arm is tried with each.
        settings: of all arms, as in a run's YAML; `world` in it are the small world's.
        arms: for each name dotted settings over those. A list of values makes an arm for each of them.
        control: the arm that the others are compared with; by default the first.
        figures: frontiers to draw.
        text: with whole runs, a file of plain text: how likely each model finds it tells what general ability
            is lost.
    """

    world: Literal["small", "run", "aggregate", "align"]
    seeds: tuple[int, ...]
    arms: dict[str, dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    control: str = ""
    figures: tuple[Figure, ...] = ()
    text: str = ""

    def expanded(self) -> list[Arm]:
        """The arms, one for each value of a list."""
        return [arm for name, settings in self.arms.items() for arm in _expand(name, settings)]

    def cells(self) -> list[Cell]:
        """All cells, arm by arm, so that what comes first in the plan is complete first."""
        return [self._cell(arm, seed) for arm in self.expanded() for seed in self.seeds]

    def _cell(self, arm: Arm, seed: int) -> Cell:
        tree = json.loads(json.dumps(self.settings))
        for key, value in {**arm.settings, "seed": seed}.items():
            *parents, leaf = key.split(".")
            group = tree
            for parent in parents:
                group = group.setdefault(parent, {})
                if not isinstance(group, dict):
                    raise ConfigError(f"{key}: '{parent}' is a value, not a group of settings.")
            group[leaf] = value
        # What YAML knows and JSON does not, such as a date, is no setting: `build` says so.
        given = {"kind": self.world, **json.loads(json.dumps(tree, default=str))}
        sizes = tree.pop(WORLD, {})
        if sizes and self.world != "small":
            raise ConfigError(f"The settings of '{WORLD}' belong to world: small, got {self.world}.")
        world = build(SmallWorldConfig, sizes, f"{WORLD}.") if self.world == "small" else None
        config = build(RunConfig, tree)
        two_loras = world and world.method == "lora_two_stage" and not config.mixes_stages
        if world and config.method != "medcare" and not two_loras:
            raise ConfigError(
                f"method={config.method} trains the small world's stage 2 after a plain LoRA: give a method "
                f"with two stages, and world.method: lora_two_stage, got {world.method}."
            )
        return Cell(arm, config, world, given, self.text)


class PlanFile(Outside):
    """The values of a plan's file; its settings are checked as those of its cells."""

    world: Literal["small", "run"]
    seeds: list[int] = Field(min_length=1)
    arms: dict[str, dict[str, Any] | None] = Field(min_length=1)
    settings: dict[str, Any] | None = None
    control: str = ""
    figures: list[Any] | None = None
    text: str = ""


def load_study(path: Path) -> Study:
    """Read a plan.

    Raises:
        ConfigError: it can't be read, or a setting in it is unknown or wrong; all cells are checked.
    """
    optional = ("settings", "control", "figures", "text")
    tree = read_plan(path, required=("world", "seeds", "arms"), optional=optional)
    plan = held_to(tree, PlanFile, str(path), ConfigError)
    study = Study(
        plan.world,
        tuple(plan.seeds),
        {name: settings or {} for name, settings in plan.arms.items()},
        plan.settings or {},
        plan.control,
        tuple(build(Figure, figure, "figures.") for figure in plan.figures or ()),
        plan.text,
    )
    names = [arm.name for arm in study.expanded()]
    if study.control and study.control not in names:
        raise ConfigError(f"control must be an arm, got {study.control!r}. Arms: {', '.join(names)}.")
    for figure in study.figures:
        if unknown := [name for name in figure.arms if name not in study.arms]:
            raise ConfigError(
                f"The figure '{figure.name}' shows {unknown[0]!r}, which is no arm. "
                f"Arms: {', '.join(study.arms)}."
            )
    study.cells()
    return study


def read_plan(path: Path, *, required: Sequence[str], optional: Sequence[str]) -> dict[str, Any]:
    """The values of a YAML file that holds these and no others; raises ConfigError."""
    tree = read_yaml(path)
    lacking = [name for name in required if name not in tree]
    unknown = [str(name) for name in tree if name not in (*required, *optional)]
    if lacking or unknown:
        what = f"it lacks {', '.join(lacking)}" if lacking else f"unknown: {', '.join(sorted(unknown))}"
        raise ConfigError(f"{path} must hold {_listed(required)}, and may hold {_listed(optional)}; {what}.")
    return tree


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _expand(name: str, settings: dict[str, Any]) -> list[Arm]:
    """The arm of a plan, or one for each combination of the values of its lists."""
    lists = [value if isinstance(value, list) else [value] for value in settings.values()]
    if not all(lists):
        raise ConfigError(f"The arm '{name}' has a list without values. Give each setting one at least.")
    arms = []
    for values in itertools.product(*lists):
        chosen = dict(zip(settings, values, strict=True))
        varied = [key for key, several in zip(settings, lists, strict=True) if len(several) > 1]
        suffix = "".join(f", {key.rpartition('.')[2]} {chosen[key]}" for key in varied)
        arms.append(Arm(name + suffix, name, chosen))
    return arms
