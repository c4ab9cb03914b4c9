"""How the report names models, writes numbers and says what a comparison shows."""

from __future__ import annotations

import unicodedata
from typing import Any

MODELS = {
    "base": "Base",
    "aggregate_with_noise": "Stage 1 + noise",
    "aggregate": "Stage 1",
    "align": "Stage 2",
}
_KINDS = {
    "lora": "LoRA", "loraplus": "LoRA+", "rslora": "rsLoRA", "dora": "DoRA", "pissa": "PiSSA",
    "olora": "OLoRA", "corda": "CorDA", "miss": "MiSS", "osf": "OSF", "full": "Full fine-tuning",
    "medcare": "MedCare",
}  # fmt: skip
FAMILIES = {"knowledge": "Knowledge", "alignment": "Alignment"}
SPLITS = {"taught": "taught facts", "held_out": "held-out facts", "all": "all items"}
# Alignment teaches forms; of its items those are set apart whose terms training never used.
_OF_FORMS = {"taught": "terms seen in training", "held_out": "terms never seen"}
NONE = "no difference shown"
METRICS = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "micro_f1": "micro-F1",
    "rouge_l": "ROUGE-L",
    "weighted_f1": "weighted F1",
    "tree_edit_ratio": "tree edit ratio",
}
TESTS = {"mcnemar": "McNemar", "permutation": "permutation"}
MODES = {"log_likelihood": "options ranked by log-likelihood", "generation": "read from generated text"}
NOTICE = (
    "For research only. Not a medical device and not for clinical decisions: the answers shown here come "
    "from a language model and are often wrong."
)

_ACRONYMS = ("icd", "hpo", "omim")
_MINUS = "\u2212"
_GAP = "\u00a0"  # keeps a number and its sign on one line
# Format characters reorder or hide text; joiners inside words are harmless.
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def model_name(model: str) -> str:
    """A model's name for readers."""
    kind = model.removesuffix("_two_stage")
    if kind in _KINDS:
        return _KINDS[kind] + ", two stages" * (kind != model)
    return MODELS.get(model, model)


def split_name(family: str, split: str) -> str:
    """What the items of a split have in common."""
    own = _OF_FORMS if family == "alignment" else {}
    return own.get(split) or SPLITS.get(split, split)


def group_name(family: str, split: str) -> str:
    """`Knowledge, held-out facts`."""
    return f"{FAMILIES.get(family, family)}, {split_name(family, split)}"


def task_name(task: str) -> str:
    """`disease_to_gene` -> `Disease to gene`, `icd_coding` -> `ICD coding`."""
    words = " ".join(word.upper() if word in _ACRONYMS else word for word in task.replace("_", " ").split())
    return words[:1].upper() + words[1:]


def metric_name(metric: str) -> str:
    """`macro_f1` -> `macro-F1`, `exact_match` -> `exact match`."""
    return METRICS.get(metric, metric.replace("_", " "))


def percent(value: float) -> str:
    """A share of 1 as a number of percent, `61.3`."""
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference in percentage points with its sign, `+3.2`; a minus is a real minus."""
    rounded = round(100 * value, 1)
    if rounded == 0:
        return "0.0"
    return f"+{rounded:.1f}" if rounded > 0 else f"{_MINUS}{-rounded:.1f}"


def interval(entry: dict[str, float]) -> str:
    """`58.1 to 64.4`."""
    return f"{percent(entry['low'])} to {percent(entry['high'])}"


def points_interval(entry: dict[str, float]) -> str:
    """`+1.2 to +5.0`."""
    return f"{points(entry['low'])} to {points(entry['high'])}"


def p_value(value: float) -> str:
    """`p < 0.001` or `p = 0.012`."""
    shown = "< 0.001" if value < 0.001 else f"= {value:.2f}" if value >= 0.1 else f"= {value:.3f}"
    return f"p {shown}".replace(" ", _GAP)


def evidence(difference: dict[str, Any]) -> str:
    """`95 % interval +1.2 to +5.0; p = 0.012`; where nothing is shown, words instead of p."""
    text = f"95{_GAP}% interval {points_interval(difference)}"
    if difference["verdict"] != NONE:
        return f"{text}; {p_value(difference['p_holm'])}"
    may_be_chance = difference["low"] > 0 or difference["high"] < 0
    return f"{text}, among so many comparisons perhaps by chance" if may_be_chance else text


def sentence(comparison: dict[str, Any], one: str, other: str) -> str:
    """One sentence on what a comparison of two models shows, with its interval."""
    facts = evidence(comparison)
    if comparison["verdict"] == NONE:
        size = points(comparison["value"])
        return f"No difference between {one} and {other} was shown: {size} points ({facts})."
    size = points(abs(comparison["value"])).lstrip("+")
    return f"{other} is {size} points {comparison['verdict']} than {one} ({facts})."


def duration(seconds: float) -> str:
    """`8 s`, `4 min 32 s`, `1 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def visible(text: str, limit: int = 1200) -> str:
    """Text for display, cut to a limit, in which nothing is hidden or reorders its surroundings.

    Control characters and other invisible ones are shown as their code point, `⟨U+202E⟩`.
    """
    cut = text[:limit]
    shown = "".join(map(_visible_character, cut.replace("\r\n", "\n")))
    return shown if len(text) <= limit else f"{shown} … ({len(text) - limit:,} more characters)"


def _visible_character(character: str) -> str:
    if character in "\n\t\u200c\u200d" or unicodedata.category(character) not in _HIDDEN:
        return character
    return f"⟨U+{ord(character):04X}⟩"
