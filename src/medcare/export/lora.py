"""A stage folder as one ordinary LoRA adapter for the base model as it came.

A stage-2 folder's knowledge and alignment branches were trained beside attention that had been merged. The
adapter's base is the unmerged one, so attention's factors go with the knowledge that they were learned with:

    knowledge   attention + knowledge: the model after stage 1, without its noise aggregator
    alignment   what stage 2 added; on top of `knowledge`, never alone, it gives the whole model
    both        attention + knowledge + alignment in one adapter: the whole model
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Literal

from medcare.adapters.branches import stored_in
from medcare.adapters.low_rank import Factors
from medcare.adapters.merge import join, pad
from medcare.adapters.peft_files import read_lora, save_lora
from medcare.export.card import write_card
from medcare.foundation.errors import AdapterError
from medcare.settings.config import Stage
from medcare.settings.run_folder import claim, last_stage, origin, read_manifest, write_manifest

Parts = Literal["knowledge", "alignment", "both"]
_STAGES: dict[Parts, tuple[Stage, ...]] = {
    "knowledge": ("aggregate",),
    "alignment": ("align",),
    "both": ("aggregate", "align"),
}
PARTS = tuple(_STAGES)


def export_lora(
    folder: Path, out: Path, *, parts: Parts = "both", uniform: bool = False, base: str | None = None
) -> int:
    """Write branches of a stage folder as one PEFT LoRA folder with a card.

    Every module's branches are concatenated along the rank; each branch's scale is folded into its B.

    Args:
        folder: a stage folder, or a run folder, whose last stage counts. From stage 1, `both` is the same as
            `knowledge`.
        out: the folder to write.
        parts: which branches.
        uniform: give every module the same rank, filled up with zeros, for programs that read a single rank.
        base: where the base is now; by default where it was.

    Returns:
        The largest rank in the adapter.

    Raises:
        AdapterError: the folder has none of these branches.
        MedCareError: it is no finished stage, `out` is in use, or the disk is full.
    """
    folder = last_stage(folder)
    manifest = read_manifest(folder)
    there = [spec for spec in stored_in(folder) if spec.is_lora and spec.added_in in _STAGES[parts]]
    if manifest.get("stage") not in ("aggregate", "align") or not there:
        raise AdapterError(
            f"{folder} holds stage '{manifest.get('stage')}' without the branch '{parts}': a LoRA is made of "
            "a stage folder's branches. Give the folder that medcare train or the run's align/ wrote."
        )
    settings = {"stage": "lora", **origin(folder, out), "parts": parts, "uniform": uniform}
    updates: dict[str, list[Factors]] = defaultdict(list)
    for spec in there:
        for name, update in read_lora(folder / spec.path).items():
            updates[name].append(update)
    joined = {name: join(of_module) for name, of_module in updates.items()}
    rank = max(part.down.shape[-2] for part in joined.values())
    if claim(out, manifest["config"], settings):
        return rank
    if uniform:
        joined = {name: pad(part, rank) for name, part in joined.items()}
    named = base or manifest["base"]
    save_lora(out, joined, base=named)
    facts = {"base": named, "base_facts": manifest.get("base_facts")}
    facts["branches"] = [spec.name for spec in there]
    write_manifest(out, manifest["config"], {**settings, **facts, "rank": rank})
    write_card(out, source=folder)
    return rank
