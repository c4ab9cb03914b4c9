"""The two stages of the method: separate runs that meet only through folders (paper section 3).

    1  aggregate   the base, frozen, with the branches knowledge, noise and attention, which all train:
                   noise takes up what is bound to single tasks, so that knowledge need not
       in between  noise is dropped, attention is merged into the weights, knowledge is kept
    2  align       alignment is added beside knowledge and trains on the form of answers, kept orthogonal to
                   knowledge (adapters/orthogonality.py); knowledge trains on, unless `train_knowledge` is off

Afterwards both branches are folded into the weights (export/merged.py). The table in adapters/branches.py
says which branch stands where, when it trains and what becomes of it; loop.py makes the steps, losses.py
their loss; rows.py says which rows train, refusals.py what can't. What the method is compared with (`method`,
adapters/methods.py) goes the same way: of those with one stage that is `aggregate`, on the rows of both.
"""

from __future__ import annotations

import functools
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from medcare.adapters.branches import stored_in, trained_in
from medcare.adapters.input_directions import FILE as INPUTS
from medcare.adapters.input_directions import save_directions
from medcare.adapters.loading import load_model, template_file
from medcare.adapters.methods import METHODS
from medcare.adapters.shards import gather_branches
from medcare.adapters.targets import Role, adapted_share
from medcare.adapters.tuner import adapted_layers, branch_parameters, set_dropout, trainable
from medcare.adapters.written_weights import written_in
from medcare.foundation.contents import CHECKPOINTS
from medcare.foundation.counted import counted
from medcare.foundation.errors import FolderError
from medcare.foundation.processes import is_main, main_first, wait
from medcare.foundation.progress import say
from medcare.foundation.storage import write_atomic, write_folder
from medcare.models.base_model import TEMPLATE, choose_dtype, describe, load_base, load_tokenizer
from medcare.models.identity import base_digest
from medcare.models.quantized import quantize
from medcare.settings.config import AUTO, RunConfig, Stage
from medcare.settings.fitting import FEW_STEPS, count_steps, fitting
from medcare.settings.run_folder import claim, origin, write_manifest
from medcare.training.devices import is_sharded, training_device
from medcare.training.input_pass import gather, has_single_layers, heard_of, keep_out
from medcare.training.lineage import goes_on, lineage, steps_before
from medcare.training.loop import Loop
from medcare.training.refusals import check_method, check_shardable, check_stage, check_start
from medcare.training.rows import Data, StageRows, Test
from medcare.training.tracking import tracked

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def train(
    stage: Stage,
    config: RunConfig,
    conversations: Data,
    out: Path,
    *,
    data_hash: str,
    start: Path | None = None,
    replayed: Data = (),
    validation: Data = (),
    test: Test | None = None,
) -> dict[str, float]:
    """Run one stage and write its folder.

    A finished folder of the same settings is left as it is; an interrupted one is continued.

    Args:
        stage: `aggregate` starts from the base model, `align` from a stage-1 folder.
        config: all settings.
        conversations: the training data, in files or in memory.
        out: the folder to write.
        data_hash: identifies the data in the manifest.
        start: the stage-1 folder, required for `align`; or one of the same stage, whose branches train on.
        replayed: stage 1's data, where `RunConfig.goes_back`.
        validation: the conversations that `validation.data` names.
        test: answers the items that `validation.items` names and gives each task's score; every process calls
            it.

    Returns:
        What `Loop.run` returns; empty if the folder was finished already.

    Raises:
        MedCareError: bad settings, data, base or folders, or a full disk; see `errors`.
    """
    check_stage(stage, config)
    with main_first():
        base = base_digest(config.model.base)
        settings = {"stage": stage, "data": data_hash, **origin(start, out), "base_sha256": base}
        finished = claim(out, config, settings)
    if finished:
        if is_main():  # left by a kill between the manifest and the removal below
            shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
        return {}
    if start is not None:
        check_start(stage, start, config)
    elif stage == "align":
        raise FolderError("Stage 'align' starts from a stage-1 folder: give it with --from DIR.")
    tokenizer = load_tokenizer(config.model.base, _template(config, start))
    rows = StageRows.prepare(
        stage,
        config,
        tokenizer,
        conversations,
        start=start,
        replayed=replayed,
        validation=validation,
        test=test,
    )
    model = _starting_model(config, start, goes_on=goes_on(stage, start))  # after the rows, which may be bad
    parameters = _parameters(stage, config, model, rows, start)
    _say_what_trains(stage, config, model, parameters, rows)
    loop = _loop(stage, config, model, parameters, rows, out, pad_id=_pad_id(tokenizer), start=start)
    _warn_of_few_steps(stage, loop)
    if stage == "align" and start is not None and config.method == "medcare":
        keep_out(loop, rows.examples, start, config.adapters.wide_rank)
    with tracked(loop.accelerator, stage, config, out):
        result = loop.run(stage)
    trained = sum(math.prod(shape) for shape in loop.shapes.values())
    facts: dict[str, Any] = {**settings, "base": config.model.base, "result": result}
    facts |= {"trained_parameters": trained, "lineage": lineage(start)}
    if stage == "align" and start is not None:
        facts |= heard_of(loop, rows.examples, start)
    directions = gather(loop, rows.examples) if stage == "aggregate" and has_single_layers(loop) else None
    gather_branches(model)
    if is_main():
        if directions is not None:
            save_directions(out / INPUTS, directions)
        rows.apart.write(out)
        save(model, out, config, facts, start=start)
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    wait()
    return result


def _starting_model(config: RunConfig, start: Path | None, *, goes_on: bool) -> PreTrainedModel:
    """The model that a stage starts from.

    Between the stages noise is dropped, attention merged and knowledge kept; a stage that goes on with a
    folder of its own kind keeps all of them.
    """
    device = training_device(config.model.device)
    asked, method = config.model.dtype, METHODS[config.method]
    dtype = choose_dtype("float32" if method.in_float32 and asked == AUTO else asked, device)
    kind = config.model.quantization
    check_method(config)
    if is_sharded():
        check_shardable(config, dtype)
        device = torch.device("cpu")  # no single device need hold the whole model: FSDP moves shard by shard
    # Nor does it when layers come to it quantised, one by one.
    loading = device if kind == "none" else torch.device("cpu")
    torch.manual_seed(config.seed)
    if start is None:
        model = load_base(config.model.base, device=loading, dtype=dtype)
    else:
        named = str(dtype).removeprefix("torch.")
        model = load_model(start, device=str(loading), dtype=named, noise=goes_on)
        set_dropout(model, config.adapters.dropout)
    quantize(model, kind, device, for_shards=is_sharded())
    return model


def _parameters(
    stage: Stage, config: RunConfig, model: PreTrainedModel, rows: StageRows, start: Path | None
) -> dict[str, nn.Parameter]:
    """What trains in a stage, by name; attached now, unless the stage goes on with what is there."""
    if goes_on(stage, start):
        return trainable(model, trained_in(stage, train_knowledge=config.align.train_knowledge))
    sample = rows.sample(config.seed, model.device)
    return METHODS[config.method].attach(model, stage, config, sample)


def _say_what_trains(
    stage: Stage,
    config: RunConfig,
    model: PreTrainedModel,
    parameters: dict[str, nn.Parameter],
    rows: StageRows,
) -> None:
    total = _short(sum(parameter.numel() for parameter in parameters.values()))
    sizes = ", ".join(f"{name} {_short(size)}" for name, size in branch_parameters(model).items())
    named = f"{config.method}, " * (config.method != "medcare")
    say(f"{stage}: {named}{len(rows.examples)} examples, trainable {total}{f' ({sizes})' if sizes else ''}")
    if adapted_layers(model):
        say(f"{stage}: adapted are {_shares(model)} weights")
    if (factor := METHODS[config.method].rate) != 1:
        rate = factor * config.stage(stage).learning_rate
        say(f"{stage}: {config.method} trains at {factor:g} times the learning rate, {rate:g}")


def _loop(
    stage: Stage,
    config: RunConfig,
    model: PreTrainedModel,
    parameters: dict[str, nn.Parameter],
    rows: StageRows,
    out: Path,
    *,
    pad_id: int,
    start: Path | None,
) -> Loop:
    """The loop of a stage."""
    settings = METHODS[config.method].at_own_rates(config.stage(stage))
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    before = steps_before(stage, start)
    return Loop(
        model,
        parameters,
        rows.examples,
        settings,
        seed=config.seed + before,  # whoever goes on sees the rows in another order than before
        folder=out,
        pad_id=pad_id,
        noise_drop=config.adapters.noise_drop if stage == "aggregate" and config.method == "medcare" else 0.0,
        replayed=rows.stage_one if config.align.replay else (),
        validation=rows.validation,
        steps_before=before if settings.tail else 0,
    )


def _warn_of_few_steps(stage: Stage, loop: Loop) -> None:
    """Warn that a handful of steps teaches nothing, and say which settings make more of them."""
    steps = len(loop.steps)
    if steps >= FEW_STEPS:
        return
    rows, tokens = len(loop.examples), int(loop.examples.lengths.sum())
    processes = loop.accelerator.num_processes
    changes = fitting(rows, tokens, loop.stage, processes=processes)
    better = count_steps(tokens, replace(loop.stage, **changes), processes=processes)
    settings = " ".join(f"--set {stage}.{name}={value}" for name, value in changes.items())
    advice = f"About {better} come of: {settings}" if changes else "More data is needed."
    say(
        f"{stage}: {counted(steps, 'step')} in all, of {rows} examples with {tokens:,} "
        f"tokens: too little for anything to be learned. {advice}"
    )


def save(
    model: PreTrainedModel, out: Path, config: RunConfig, facts: dict[str, Any], *, start: Path | None = None
) -> None:
    """Write the branches and the manifest of a claimed stage folder, which is finished then.

    Args:
        model: the trained model with its branches.
        out: the folder, claimed by `claim`.
        config: the settings.
        facts: for the manifest; at least `stage`, `base` and `result`.
        start: the stage-1 folder that stage 2 started from.

    Raises:
        StorageError: the disk is full.
    """
    METHODS[config.method].save(model, out, facts["stage"], facts["base"])
    if template := _template(config, start):  # what was trained with is used with the folder, too
        write_atomic(out / TEMPLATE, functools.partial(shutil.copyfile, template))
    if start is not None and facts["stage"] == "align":
        # A copy of what stage 2 merged into the base, so that this folder can be loaded without stage 1's.
        for spec in stored_in(start):
            if spec.in_align == "merged":
                copy = functools.partial(shutil.copytree, start / spec.path, dirs_exist_ok=True)
                write_folder(out / spec.path, copy)
        for path in written_in(start):
            if path.is_dir():
                write_folder(out / path.name, functools.partial(shutil.copytree, path, dirs_exist_ok=True))
    write_manifest(out, config, {**facts, "base_facts": describe(model)})


def _template(config: RunConfig, start: Path | None) -> str:
    """The file with the chat template that a stage trains with; empty for the base's own."""
    return config.model.chat_template or (template_file(start) if start else "")


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    candidates: list[Any] = [tokenizer.pad_token_id, tokenizer.eos_token_id, 0]
    return next(int(token) for token in candidates if token is not None)


def _shares(model: PreTrainedModel) -> str:
    """How much of the weights is adapted, of feed-forward and, where any is, of attention."""
    parts = []
    roles: tuple[Role, ...] = ("feed_forward", "attention")
    for role in roles:
        adapted, total, _ = adapted_share(model, role)
        if adapted:
            parts.append(f"{adapted / total:.0%} of the {role.replace('_', '-')}")
    return " and ".join(parts)


def _short(count: int) -> str:
    """A count of parameters with a decimal: 812, 12.3k, 4.9M."""
    for size, letter in ((10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f}{letter}"
    return str(count)
