"""The pass that learns in which directions a stage's data speaks to the adapted linears (`input_directions`).

Stage 2 may keep its alignment branch out of these directions (`keep_out`), and is told how much of each
stage's inputs its branch hears in the end (`heard_of`).

A sample is enough: the leading directions of a few thousand tokens hold nearly the same share of other rows'
energy. So the pass takes a share of the tokens that the stage trained on, which keeps it under 3 % of the
stage's time (benchmarks/input_pass.py), and never fewer than a small number of them, if there are so many.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from medcare.adapters.input_directions import FILE as INPUTS
from medcare.adapters.input_directions import (
    Directions,
    check_room,
    contrasting,
    heard,
    leading,
    load_directions,
    sketching,
)
from medcare.adapters.tuner import adapted_layers, without_noise
from medcare.foundation.errors import AdapterError, FolderError
from medcare.settings.run_folder import started_from
from medcare.text.batches import collate, plan, shuffled
from medcare.text.chat_template import Rendered
from medcare.text.corpus import as_corpus
from medcare.training.devices import in_turns

if TYPE_CHECKING:
    from medcare.training.loop import Loop

SHARE = 0.03  # of the tokens trained on; one of these takes half the time of one in training
LEAST = 2048  # tokens, if there are so many


def has_single_layers(loop: Loop) -> bool:
    """Whether all knowledge branches stand beside single linears, so that their inputs can be told."""
    linears = adapted_layers(loop.model, "knowledge").values()
    return bool(linears) and not any(linear.stack for linear in linears)


@torch.no_grad()
def gather(loop: Loop, examples: Sequence[Rendered]) -> dict[str, Directions]:
    """Run the model, without what stage 2 drops, over a sample of examples; every process must call it.

    Args:
        loop: the stage's, whose model, devices and sizes of batches are used.
        examples: to draw from.

    Returns:
        For every linear with a knowledge branch; the same on all processes.

    Raises:
        AdapterError: a layer is many experts in one tensor.
    """
    examples = as_corpus(examples)
    chosen = _sample(examples.lengths, loop)
    budget = loop.stage.tokens_per_batch
    lengths = examples.lengths[chosen]
    batches = plan(lengths, tokens_per_batch=budget, epoch=0, seed=loop.seed, layout=loop.layout)
    training = loop.wrapped.training
    loop.wrapped.eval()
    with without_noise(loop.model), sketching(loop.model) as gathering:
        for numbers, counts in in_turns(batches, loop.accelerator):
            rows = [examples[chosen[number]] for number in numbers]
            batch = collate(rows, pad_id=loop.pad_id, layout=loop.layout)
            gathering.keep = _counted(rows, batch.labels.shape[1]) & counts
            loop.nll(batch)
    loop.wrapped.train(training)
    if loop.accelerator.num_processes > 1:
        for sketch in gathering.sketches.values():
            sketch.product = loop.accelerator.reduce(sketch.product, "sum")
            sketch.sums = loop.accelerator.reduce(sketch.sums, "sum")
    return gathering.directions()


def keep_out(loop: Loop, examples: Sequence[Rendered], start: Path, rank: int) -> None:
    """Keep the alignment branch in the null space of the inputs that stage 1's data gives each layer.

    Nothing happens unless `align.orthogonality` asks for it; every process must call it.

    Args:
        loop: stage 2's, before its first step.
        examples: what it trains on.
        start: the folder that it starts from.
        rank: of the alignment branch.

    Raises:
        AdapterError: stage 1 kept no directions of these layers, or they leave one less room than the branch
            needs.
        FolderError: stage 1's folder is gone.
    """
    kind, share = loop.stage.orthogonality, loop.stage.input_energy
    if kind not in ("inputs", "contrast"):
        return
    knowledge = _stored(loop, _stage_one(start))
    if kind == "inputs":
        kept_out = {name: leading(directions, share) for name, directions in knowledge.items()}
    else:
        forms = gather(loop, examples)  # the model is still stage 1's: the new branch adds nothing yet
        kept_out = {
            name: contrasting(directions, forms[name], share) for name, directions in knowledge.items()
        }
    check_room(kept_out, rank)
    loop.keep_out(kept_out)


def heard_of(loop: Loop, examples: Sequence[Rendered], start: Path) -> dict[str, dict[str, dict[str, float]]]:
    """How much of each stage's inputs passes the alignment branch's A, by layer; empty if it isn't known."""
    if not (start / INPUTS).is_file():
        return {}
    kinds = {"knowledge": _stored(loop, start), "forms": gather(loop, examples)}
    return {"heard": {kind: heard(loop.model, directions) for kind, directions in kinds.items()}}


def _stored(loop: Loop, folder: Path) -> dict[str, Directions]:
    """The directions that a stage-1 folder keeps; raises AdapterError if they aren't those of the model."""
    directions = load_directions(folder / INPUTS)
    for name, layer in adapted_layers(loop.model, "knowledge").items():
        if name not in directions or directions[name].basis.shape[1] != layer.in_features:
            raise AdapterError(
                f"{folder / INPUTS} does not hold the directions of {name}, which has {layer.in_features} "
                "inputs. Train stage 1 again."
            )
    return directions


def _stage_one(start: Path) -> Path:
    """The stage-1 folder behind what stage 2 starts from, which is another one where stage 2 goes on."""
    for folder, manifest in started_from(start):
        if manifest["stage"] == "aggregate":
            return folder
    raise FolderError(f"{start} did not start from a stage 1, as its manifest says. Train it anew.")


def _counted(rows: Sequence[Rendered], width: int) -> torch.Tensor:
    """Which tokens of a batch of this width count: not the first of an example, and no padding."""
    tokens = [torch.arange(len(row.ids)) > 0 for row in rows]
    if len(torch.cat(tokens)) == width:  # one row: packed, or a single example
        return torch.cat(tokens)[None]
    return torch.nn.utils.rnn.pad_sequence([*tokens, torch.zeros(width, dtype=torch.bool)], batch_first=True)[
        :-1
    ]


def _sample(lengths: NDArray[np.int32], loop: Loop) -> NDArray[np.int64]:
    """Numbers of examples, drawn until their tokens are enough."""
    trained = sum(
        int(loop.examples.lengths[list(batch)].sum()) for batches in loop.steps for batch in batches
    )
    order = shuffled(len(lengths), random.Random(f"inputs:{loop.seed}"))
    before = np.cumsum(lengths[order], dtype=np.int64) - lengths[order]
    return order[before < max(LEAST, SHARE * trained)]
