"""What the report says of a run beside its baselines: a verdict in words, its numbers, and what each had."""

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
        text: better, worse, or neither, by family.
        lines: the same for each family and split, with numbers.
        budget: what either trained, and on how many tokens.
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
    """In one sentence, by family: all items of each."""
    found: dict[str, list[str]] = {"better": [], "worse": [], NONE: []}
    for family, splits in summary.items():
        entry = _difference(splits["all"], name)
        found[entry["verdict"]].append(FAMILIES.get(family, family).lower())
    other = model_name(name)
    parts = [f"{word} than {other} on {_and(found[word])}" for word in ("better", "worse") if found[word]]
    if not parts:
        return f"No difference between {own} and {other} is shown."
    shown = f"{own} is {_and(parts)}"
    return shown + (f"; on {_and(found[NONE])} no difference is shown." if found[NONE] else ".")


def _lines(summary: Json, name: str, method: str) -> Iterator[str]:
    for family, splits in summary.items():
        for split, entry in splits.items():
            said = sentence(_difference(entry, name), model_name(name), model_name(method))
            yield f"{group_name(family, split)}: {said}"


def _difference(entry: Json, name: str) -> Json:
    pair = next(pair for pair in entry["comparisons"] if pair.startswith(f"{name}->"))
    found: Json = entry["comparisons"][pair]
    return found


def _budget(out: Path, own: str, name: str) -> str:
    """What both trained, as far as their manifests say it."""
    sides = {own: out, model_name(name): out / "baselines" / name}
    return " ".join(
        f"{side} trained {_and(stages)}." for side, folder in sides.items() if (stages := _stages(folder))
    )


def _stages(folder: Path) -> list[str]:
    found = []
    for stage in STAGES:
        facts = read_manifest(folder / stage)
        if facts.get("trained_parameters") and facts.get("result", {}).get("tokens"):
            tokens = facts["result"]["tokens"]
            found.append(f"{facts['trained_parameters']:,} parameters on {tokens:,} tokens")
    return found


def _and(parts: Sequence[str]) -> str:
    return " and ".join(parts)
