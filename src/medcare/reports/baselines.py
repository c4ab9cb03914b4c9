"""The run against its baselines: a verdict in words, its numbers, and what each was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medcare.foundation.storage import Json
from medcare.reports.run_files import read_manifest
from medcare.reports.wording import FAMILIES, NONE, group_name, model_name, sentence
from medcare.settings.config import STAGES


@dataclass(frozen=True)
class BaselineVerdict:
    """The run's last model against one baseline.

    Attributes:
        title: which.
        text: better, worse or neither, by family.
        lines: the same for each family and split, with numbers.
        budget: the trained parameters and tokens of both.
    """

    title: str
    text: str
    lines: tuple[str, ...]
    budget: str


def verdicts(out: Path, results: Json, method: str) -> list[BaselineVerdict]:
    """One for each baseline.

    Args:
        out: the run's folder.
        results: its results.json.
        method: the run's own.

    Raises:
        DataError: a manifest can't be read.
    """
    own = model_name(method)
    return [
        BaselineVerdict(
            f"{own} against {model_name(name)}",
            _verdict(results["summary"], name, own),
            tuple(_lines(results["summary"], name, method)),
            _budget(out, own, name),
        )
        for name in results.get("baselines", ())
    ]


def _verdict(summary: Json, name: str, own: str) -> str:
    """In one sentence, by family, over all items of each."""
    families: dict[str, list[str]] = {"better": [], "worse": [], NONE: []}
    for family, splits in summary.items():
        entry = _difference(splits["all"], name)
        families[entry["verdict"]].append(FAMILIES.get(family, family).lower())
    other = model_name(name)
    parts = [
        f"{word} than {other} on {_and(families[word])}" for word in ("better", "worse") if families[word]
    ]
    if not parts:
        return f"No difference between {own} and {other} is shown."
    rest = f"; on {_and(families[NONE])} no difference is shown" if families[NONE] else ""
    return f"{own} is {_and(parts)}{rest}."


def _lines(summary: Json, name: str, method: str) -> Iterator[str]:
    for family, splits in summary.items():
        for split, entry in splits.items():
            said = sentence(_difference(entry, name), model_name(name), model_name(method))
            yield f"{group_name(family, split)}: {said}"


def _difference(entry: Json, name: str) -> Json:
    pair = next(pair for pair in entry["comparisons"] if pair.startswith(f"{name}->"))
    difference: Json = entry["comparisons"][pair]
    return difference


def _budget(out: Path, own: str, name: str) -> str:
    """What both trained, as far as their manifests say."""
    sides = {own: out, model_name(name): out / "baselines" / name}
    return " ".join(
        f"{side} trained {_and(stages)}." for side, folder in sides.items() if (stages := _stages(folder))
    )


def _stages(folder: Path) -> list[str]:
    stages = []
    for stage in STAGES:
        facts = read_manifest(folder / stage)
        if facts.get("trained_parameters") and facts.get("result", {}).get("tokens"):
            tokens = facts["result"]["tokens"]
            stages.append(f"{facts['trained_parameters']:,} parameters on {tokens:,} tokens")
    return stages


def _and(parts: Sequence[str]) -> str:
    return " and ".join(parts)
