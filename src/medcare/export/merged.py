"""A stage folder as a plain Hugging Face folder: the branches folded into the weights."""

from __future__ import annotations

from pathlib import Path

from medcare.adapters.loading import load_model, tokenizer_of
from medcare.adapters.merge import merge_all
from medcare.export.card import write_card
from medcare.export.model_folder import to_dtype, write_model
from medcare.models.base_model import as_dtype, base_dtype, describe
from medcare.settings.run_folder import claim, last_stage, origin, read_manifest, write_manifest


def merge(folder: Path, out: Path, *, base: str | None = None, dtype: str | None = None) -> None:
    """Fold the branches of a stage folder into the weights and write a plain Hugging Face folder with a card.

    Args:
        folder: a stage folder, or a run folder, whose last stage counts.
        out: the folder to write.
        base: where the base is now; by default where it was.
        dtype: of the weights; by default the base's own.

    Raises:
        AdapterError: the folder has a noise aggregator, which can't be merged.
        MedCareError: the folder is not complete, `out` is in use, or the disk is full.
    """
    folder = last_stage(folder)
    manifest = read_manifest(folder)
    settings = {"stage": "merged", **origin(folder, out), "source": manifest.get("result")}
    if dtype is not None:
        settings["dtype"] = str(as_dtype(dtype)).removeprefix("torch.")
    if claim(out, manifest["config"], settings):
        return
    named = base or manifest["base"]
    # In float32 whatever the training dtype was: rounding each merge to bfloat16 would lose the update.
    model = load_model(folder, device="cpu", dtype="float32", base=base)
    merge_all(model)
    to_dtype(model, base_dtype(named) if dtype is None else as_dtype(dtype))
    write_model(model, tokenizer_of(folder, base=base), out)
    write_manifest(out, manifest["config"], {**settings, "base": named, "base_facts": describe(model)})
    write_card(out)
