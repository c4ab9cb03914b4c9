"""What a training mix is made of: its sources, and how many rows each of them gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medcare.data.readers import FORMATS
from medcare.foundation.errors import ConfigError
from medcare.settings.files import build, read_yaml

_MOST_ROWS = 10**9  # of a mix; each takes 16 bytes of memory
_MOST_WEIGHT = 1e9


@dataclass(frozen=True)
class Source:
    """One source of a mix.

    Attributes:
        name: unique in the recipe; the `source` of its conversations.
        data: a path or glob pattern, from the recipe's folder, or `hf:owner/name[:config][:split]`.
        format: a format's name; None recognises it.
        map: for a table of one's own, its columns by what they are called in a format: `{question: Frage}`.
        encoding: of a text file; None recognises it.
        weight: multiplies its share of the mix.
        cap: most of its rows that are used, drawn at random; None uses all.
    """

    name: str = ""
    data: str = ""
    format: str | None = None
    map: dict[str, str] = field(default_factory=dict)
    encoding: str | None = None
    weight: float = 1.0
    cap: int | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("name must be given for every source.")
        if not self.data:
            raise ConfigError(f"data must be given for every source; {self.name} has none.")
        if self.format is not None and self.format not in FORMATS:
            raise ConfigError(
                f"format must be one of {', '.join(FORMATS)}, got '{self.format}' for {self.name}."
            )
        if not 0 < self.weight <= _MOST_WEIGHT:
            raise ConfigError(
                f"weight must be above 0 and at most {_MOST_WEIGHT:g}, got {self.weight} for {self.name}. "
                "Leave a source out instead of giving it the weight 0."
            )
        if self.cap is not None and self.cap < 1:
            raise ConfigError(f"cap must be at least 1, got {self.cap} for {self.name}.")


@dataclass(frozen=True)
class Recipe:
    """A mix.

    Attributes:
        sources: at least one.
        seed: of all random choices.
        temperature: T in the share of a source with n rows, weight * n^(1/T): 1 keeps the sizes' proportions,
            more brings them closer to one another.
        total: rows of the mix; None takes as many as the sources have under their caps.
    """

    sources: tuple[Source, ...] = ()
    seed: int = 0
    temperature: float = 1.0
    total: int | None = None

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("sources must list at least one source with name and data.")
        names = [source.name for source in self.sources]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigError(f"sources: each name must be there once, got '{min(twice)}' again.")
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"temperature must be above 0, got {self.temperature}.")
        if self.total is not None and not 1 <= self.total <= _MOST_ROWS:
            raise ConfigError(f"total must be from 1 to {_MOST_ROWS:,}, got {self.total}.")


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        ConfigError: it can't be read, has an unknown key, or a value of the wrong type or out of range.
    """
    return build(Recipe, read_yaml(path))


def shares(
    sizes: Sequence[int], weights: Sequence[float], temperature: float, total: int | None = None
) -> list[int]:
    """Rows of each source in the mix, by largest remainder.

    Args:
        sizes: rows that each source has.
        weights: their weights.
        temperature: T in weight * size^(1/T).
        total: rows of the mix; None is the sum of the sizes.

    Returns:
        One number a source; their sum is `total`.
    """
    whole = sum(sizes) if total is None else total
    # Relative to the largest, so that a low temperature overflows nothing.
    parts = [
        weight * (size / max(sizes)) ** (1 / temperature) for size, weight in zip(sizes, weights, strict=True)
    ]
    exact = [whole * part / sum(parts) for part in parts]
    rows = [int(share) for share in exact]
    by_remainder = sorted(range(len(rows)), key=lambda index: (rows[index] - exact[index], index))
    for index in by_remainder[: whole - sum(rows)]:
        rows[index] += 1
    return rows
