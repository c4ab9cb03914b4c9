"""The two stages of the method: separate runs that meet only through folders (paper section 3).

    1  aggregate   the base, frozen, with the branches knowledge, noise and attention, which all train:
                   noise takes up what is bound to single tasks, so that knowledge need not
       in between  noise is dropped, attention is merged into the weights, knowledge is kept
    2  align       alignment is added beside knowledge and trains on the form of answers, kept orthogonal to
                   knowledge (adapters/orthogonality.py); knowledge trains on, unless `train_knowledge` is off

Afterwards both branches are folded into the weights (export/merged.py). The table in adapters/branches.py
says which branch stands where, when it trains and what becomes of it; loop.py makes the steps, losses.py
their loss. What the method is compared with (`method`, adapters/methods.py) goes the same way: of those with
one stage that is `aggregate`, on the rows of both.
"""

from __future__ import annotations

import functools
import math
import operator
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from medcare.adapters.branches import stored_in, trained_in
from medcare.adapters.input_directions import FILE as INPUTS
from medcare.adapters.input_directions import (
    check_room,
    contrasting,
    heard,
    leading,
    load_directions,
    save_directions,
)
from medcare.adapters.loading import load_model, template_file
from medcare.adapters.methods import METHODS
from medcare.adapters.shards import gather_branches
from medcare.adapters.targets import Role, adapted_share
from medcare.adapters.tuner import (
    adapted_layers,
    add_branches,
    branch_parameters,
    set_dropout,
    trainable,
)
from medcare.adapters.written_weights import written_in
from medcare.data.tokenised import TrainingData, tokenised
from medcare.foundation.contents import CHECKPOINTS
from medcare.foundation.errors import ConfigError, DataError, FolderError
from medcare.foundation.processes import is_main, main_first, wait
from medcare.foundation.progress import say
from medcare.foundation.storage import write_atomic, write_folder
from medcare.models.base_model import TEMPLATE, choose_dtype, describe, load_base, load_tokenizer, skeleton
from medcare.models.identity import base_digest
from medcare.models.quantized import check_quantization, quantize
from medcare.settings.config import AUTO, AdapterConfig, Quantization, RunConfig, Stage
from medcare.settings.fitting import FEW_STEPS, count_steps, fitting
from medcare.settings.run_folder import claim, origin, read_manifest, write_manifest
from medcare.text.chat_template import Rendered, render_all
from medcare.text.corpus import Corpus, as_corpus
from medcare.text.records import Conversation
from medcare.training.devices import is_sharded, training_device
from medcare.training.input_pass import gather, has_single_layers
from medcare.training.lineage import goes_on, lineage, steps_before
from medcare.training.loop import Loop
from medcare.training.tracking import check_installed, tracked
from medcare.training.validation import HeldOut, Validation, held_out

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SAMPLED = 256  # rows; as many as CorDA's authors take
Test = Callable[..., dict[str, float]]
"""Called with a model and its `tokenizer`, it gives each task's score, as `evaluation.spot_check` does."""


def train(
    stage: Stage,
    config: RunConfig,
    conversations: Sequence[TrainingData] | Sequence[Conversation],
    out: Path,
    *,
    data_hash: str,
    start: Path | None = None,
    replayed: Sequence[TrainingData] | Sequence[Conversation] = (),
    validation: Sequence[TrainingData] | Sequence[Conversation] = (),
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
    if stage == "align" and config.mixes_stages:
        raise ConfigError(
            f"method={config.method} has one stage, on the rows of both: train --stage aggregate alone, or "
            f"set method={config.method}_two_stage."
        )
    with main_first():
        base = base_digest(config.model.base)
        settings = {"stage": stage, "data": data_hash, **origin(start, out), "base_sha256": base}
        finished = claim(out, config, settings)
    if finished:
        if is_main():  # left by a kill between the manifest and the removal below
            shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
        return {}
    model = _start(stage, config, start)
    tokenizer = load_tokenizer(config.model.base, _template(config, start))
    length = config.stage(stage).max_length
    examples = _render(tokenizer, conversations, length)
    if stage == "align" and examples.documents.any():
        raise DataError(
            "Stage 'align' trains the form of answers, but its data holds plain text. Put the text into "
            "stage 1, mixed with its conversations by a recipe (docs/data.md)."
        )
    former: Sequence[Rendered] = ()
    if stage == "align" and config.goes_back:
        if not replayed:
            raise DataError(
                "align.replay and CorDA's second stage need the conversations of stage 1: set aggregate.data "
                "to them."
            )
        former = _render(tokenizer, replayed, length)
    measured, examples = _validation(config, stage, tokenizer, as_corpus(examples), validation, test)
    apart = HeldOut.before(start)
    if measured is not None and measured.examples:
        apart = apart.and_these(as_corpus(measured.examples))
    examples, former = (_without(apart, rows, stage) for rows in (examples, former))
    if goes_on(stage, start):
        parameters = trainable(model, trained_in(stage, train_knowledge=config.align.train_knowledge))
    else:
        sample = _sample(former or examples, config.seed, model.device)
        parameters = METHODS[config.method].attach(model, stage, config, sample)
    former = former if config.align.replay else ()
    pad_id = _pad_id(tokenizer)
    before = steps_before(stage, start)
    loop = _loop(
        stage,
        config,
        model,
        parameters,
        examples,
        former,
        out,
        pad_id=pad_id,
        validation=measured,
        before=before,
    )
    first = start if stage == "align" else None
    if first is not None and config.method == "medcare":
        _keep_out(loop, examples, first, config.adapters.wide_rank)
    with tracked(loop.accelerator, stage, config, out):
        result = loop.run(stage)
    directions = gather(loop, examples) if stage == "aggregate" and has_single_layers(loop) else None
    energies = _heard(loop, examples, first) if first is not None else {}
    gather_branches(model)
    if is_main():
        if directions is not None:
            save_directions(out / INPUTS, directions)
        trained = sum(math.prod(shape) for shape in loop.shapes.values())
        facts: dict[str, Any] = {**settings, "base": config.model.base, "result": result, **energies}
        facts |= {"trained_parameters": trained, "lineage": lineage(start)}
        apart.write(out)
        save(model, out, config, facts, start=start)
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    wait()
    return result


def foresee(config: RunConfig) -> None:
    """Raise in seconds what stage 1 would raise over its settings, its base, its layers or a missing package.

    Raises:
        ModelError: there is no such base or device, or the package that would quantise it is missing.
        AdapterError: the branches don't fit the base.
        ConfigError: the package of a tracker is missing, or a setting does not go with the method or the
            device.
    """
    check_installed(config.tracking.trackers)
    training_device(config.model.device)
    check_quantization(config.model.quantization)
    if METHODS[config.method].needs_whole_base:
        _check_whole(config)
    _check_distilling(config)
    add_branches(skeleton(config.model.base), "aggregate", config.adapters)


def _start(stage: Stage, config: RunConfig, start: Path | None) -> PreTrainedModel:
    """The model that a stage starts from."""
    device = training_device(config.model.device)
    asked, method = config.model.dtype, METHODS[config.method]
    dtype = choose_dtype("float32" if method.in_float32 and asked == AUTO else asked, device)
    kind = config.model.quantization
    if method.needs_whole_base:
        _check_whole(config)
    _check_distilling(config)
    if is_sharded():
        _check_shardable(kind, dtype)
        device = torch.device("cpu")  # no single device need hold the whole model: FSDP moves shard by shard
    # Nor does it when layers come to it quantised, one by one.
    loading = device if kind == "none" else torch.device("cpu")
    torch.manual_seed(config.seed)
    if start is None:
        if stage == "align":
            raise FolderError("Stage 'align' starts from a stage-1 folder: give it with --from DIR.")
        model = load_base(config.model.base, device=loading, dtype=dtype)
    else:
        _check_start(stage, start, config)
        # In between the stages noise is dropped, attention merged, knowledge kept; a stage that goes on keeps
        # all of them.
        named = str(dtype).removeprefix("torch.")
        model = load_model(start, device=str(loading), dtype=named, noise=goes_on(stage, start))
        set_dropout(model, config.adapters.dropout)
    quantize(model, kind, device, for_shards=is_sharded())
    return model


def _keep_out(loop: Loop, examples: Sequence[Rendered], start: Path, rank: int) -> None:
    """Keep the alignment branch in the null space of the inputs that stage 1's data gives each layer."""
    kind, share = loop.stage.orthogonality, loop.stage.input_energy
    if kind not in ("inputs", "contrast"):
        return
    knowledge = load_directions(_stage_one(start) / INPUTS)
    if kind == "inputs":
        kept_out = {name: leading(directions, share) for name, directions in knowledge.items()}
    else:
        forms = gather(loop, examples)  # the model is still stage 1's: the new branch adds nothing yet
        kept_out = {
            name: contrasting(directions, forms[name], share) for name, directions in knowledge.items()
        }
    check_room(kept_out, rank)
    loop.keep_out(kept_out)


def _stage_one(start: Path) -> Path:
    """The stage-1 folder behind what stage 2 starts from, which is another one where stage 2 goes on."""
    while (manifest := read_manifest(start))["stage"] != "aggregate":
        start = Path(manifest["from"])
    return start


def _heard(loop: Loop, examples: Sequence[Rendered], start: Path) -> dict[str, dict[str, dict[str, float]]]:
    """How much of each stage's inputs passes the alignment branch's A, by layer; empty if it isn't known."""
    if not (start / INPUTS).is_file():
        return {}
    kinds = {"knowledge": load_directions(start / INPUTS), "forms": gather(loop, examples)}
    return {"heard": {kind: heard(loop.model, directions) for kind, directions in kinds.items()}}


def _validation(
    config: RunConfig,
    stage: Stage,
    tokenizer: PreTrainedTokenizerBase,
    examples: Corpus,
    conversations: Sequence[TrainingData] | Sequence[Conversation],
    test: Test | None,
) -> tuple[Validation | None, Corpus]:
    """What the stage is validated with, if the settings ask for it, and the examples that are left."""
    settings = config.stage(stage).validation
    if not settings.asked:
        return None, examples
    if test is not None and is_sharded():
        raise ConfigError(
            "validation.items are answered by a whole model, which FSDP2 and ZeRO-3 cut. Measure the loss "
            "alone, or launch with configs/ddp.yaml."
        )
    apart: Sequence[Rendered] = ()
    if settings.data:
        apart = _render(tokenizer, conversations, config.stage(stage).max_length)
    elif settings.draws:
        examples, apart = held_out(examples, settings, config.seed)
    say(f"{stage}: {len(apart)} rows are for validation, {len(examples)} train")
    answer = None if test is None else functools.partial(test, tokenizer=tokenizer)
    return Validation(apart, answer), examples


def _without(apart: HeldOut, rows: Sequence[Rendered], stage: Stage) -> Corpus:
    """Rows without those that are held out, by what is in them: these are never trained on."""
    rows = as_corpus(rows)
    kept = apart.left_of(rows) if len(rows) else rows
    if left_out := len(rows) - len(kept):
        say(f"{stage}: {left_out} rows are left out, since validation has the same ones")
    return kept


def _loop(
    stage: Stage,
    config: RunConfig,
    model: PreTrainedModel,
    parameters: dict[str, nn.Parameter],
    examples: Sequence[Rendered],
    replayed: Sequence[Rendered],
    out: Path,
    *,
    pad_id: int,
    validation: Validation | None,
    before: int,
) -> Loop:
    """The loop of a stage; says what trains in it."""
    total = _short(sum(parameter.numel() for parameter in parameters.values()))
    sizes = ", ".join(f"{name} {_short(size)}" for name, size in branch_parameters(model).items())
    named = f"{config.method}, " * (config.method != "medcare")
    say(f"{stage}: {named}{len(examples)} examples, trainable {total}{f' ({sizes})' if sizes else ''}")
    if adapted_layers(model):
        say(f"{stage}: adapted are {_shares(model)} weights")
    method = METHODS[config.method]
    settings = method.timed(config.stage(stage))
    if (rate := method.rate) != 1:
        say(
            f"{stage}: {config.method} trains at {rate:g} times the learning rate, {settings.learning_rate:g}"
        )
    if config.stage(stage).gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    loop = Loop(
        model,
        parameters,
        examples,
        settings,
        seed=config.seed + before,  # whoever goes on sees the rows in another order than before
        folder=out,
        pad_id=pad_id,
        noise_drop=config.adapters.noise_drop if stage == "aggregate" and config.method == "medcare" else 0.0,
        replayed=replayed,
        validation=validation,
        steps_before=before if settings.tail else 0,
    )
    _warn_of_few_steps(stage, loop)
    return loop


def _warn_of_few_steps(stage: Stage, loop: Loop) -> None:
    """Warn that a handful of steps teaches nothing, and say which settings make more of them."""
    steps = len(loop.schedule.steps)
    if steps >= FEW_STEPS:
        return
    rows, tokens = len(loop.examples), sum(len(example.ids) for example in loop.examples)
    processes = loop.accelerator.num_processes
    changes = fitting(rows, tokens, loop.stage, processes=processes)
    better = count_steps(tokens, replace(loop.stage, **changes), processes=processes)
    settings = " ".join(f"--set {stage}.{name}={value}" for name, value in changes.items())
    advice = f"About {better} come of: {settings}" if changes else "More data is needed."
    say(
        f"{stage}: {steps} {'step' if steps == 1 else 'steps'} in all, of {rows} examples with {tokens:,} "
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


def _check_start(stage: Stage, start: Path, config: RunConfig) -> None:
    """Refuse a start that is no finished stage 1, or the same stage, with the same base and shapes."""
    manifest = read_manifest(start)
    if manifest.get("stage") not in ("aggregate", stage):
        raise FolderError(
            f"{start} holds stage '{manifest.get('stage')}', but stage '{stage}' starts from stage "
            f"{' or '.join(dict.fromkeys(['aggregate', stage]))}."
        )
    if goes_on(stage, start) and config.method != "medcare":
        raise FolderError(
            f"{start} can't be gone on with: method={config.method} leaves no branches that could train on. "
            "Raise epochs and train it anew."
        )
    if (former := manifest["config"].method) != config.method:
        raise FolderError(
            f"{start} was trained with method={former}, the settings say method={config.method}. Set method "
            "to the same."
        )
    if manifest["base"] != config.model.base:
        raise FolderError(
            f"{start} was trained on the base '{manifest['base']}', the settings say '{config.model.base}'. "
            "Set model.base to the same."
        )
    former = manifest.get("base_sha256")
    if former is not None and former != base_digest(config.model.base):
        raise FolderError(
            f"{start} was trained on other weights than {config.model.base} has now. "
            "Put the former ones back, or train stage 1 again."
        )
    if "converted_from" not in manifest:  # a foreign adapter has a rank of its own
        more = ("experts", "top_k", "attention") if goes_on(stage, start) else ()
        _check_shapes(start, manifest["config"].adapters, config.adapters, more)


def _check_whole(config: RunConfig) -> None:
    """Refuse settings under which a method that needs the base's own weights would not have them whole."""
    if is_sharded():
        raise ConfigError(
            f"method={config.method} can't be cut into shards (FSDP2, ZeRO-3): it needs each weight whole. "
            "Launch with configs/ddp.yaml, or set method=lora."
        )
    if config.model.quantization != "none":
        raise ConfigError(
            f"method={config.method} needs the base's weights as they are, and model.quantization="
            f"{config.model.quantization} rounds them. Set model.quantization=none, or method=lora."
        )


def _check_distilling(config: RunConfig) -> None:
    """Refuse distillation where the model after stage 1 can't be had out of the one that trains."""
    if not config.align.distill or config.mixes_stages:
        return
    if METHODS[config.method].needs_whole_base:
        raise ConfigError(
            "align.distill needs what stage 1 made inside of the model that trains, and "
            f"method={config.method} changes it there. Set align.distill=0, or method to medcare or "
            "lora_two_stage."
        )
    if is_sharded():
        raise ConfigError(
            "align.distill needs the branches whole, and can't be cut into shards (FSDP2, ZeRO-3). Launch "
            "with configs/ddp.yaml, or set align.distill=0."
        )


def _check_shardable(kind: Quantization, dtype: torch.dtype) -> None:
    if dtype is torch.float16:
        raise ConfigError(
            "model.dtype=float16 can't be cut into shards (FSDP2, ZeRO-3): each process would see "
            "overflow in its own shard alone. Launch with configs/ddp.yaml, or set model.dtype=float32."
        )
    if kind == "int8":
        raise ConfigError(
            "model.quantization=int8 can't be cut into shards (FSDP2, ZeRO-3): its layers hold each weight "
            "whole, beside the parameter. Set model.quantization=nf4 and launch with configs/fsdp2.yaml, or "
            "launch with configs/ddp.yaml."
        )
    if kind == "nf4" and is_sharded("DEEPSPEED"):
        raise ConfigError(
            "model.quantization=nf4 was not tried with ZeRO-3. Launch with configs/fsdp2.yaml, or set "
            "model.quantization=none."
        )


def _check_shapes(start: Path, former: AdapterConfig, wanted: AdapterConfig, more: tuple[str, ...]) -> None:
    """Stage 2 puts its branch beside stage 1's: of the same rank and scale, on the same linears."""
    names = tuple(
        name
        for name in ("rank", "alpha", "feed_forward", *more)
        if name not in ("feed_forward", "attention") or getattr(wanted, name) != (AUTO,)
    )
    differing = [name for name in names if getattr(former, name) != getattr(wanted, name)]
    if differing:
        settings = " ".join(f"--set adapters.{name}={_spelt(getattr(former, name))}" for name in differing)
        raise FolderError(
            f"{start} was trained with other adapters ({', '.join(differing)}) than the settings say. "
            f"Start from the same --preset, or add: {settings}"
        )


def _spelt(value: object) -> str:
    return f"'[{', '.join(value)}]'" if isinstance(value, tuple) else f"{value:g}"


def _render(
    tokenizer: PreTrainedTokenizerBase, data: Sequence[TrainingData] | Sequence[Conversation], max_length: int
) -> Corpus:
    """The rows to train on: of files out of the cache, of conversations in memory made on the spot."""
    files = [source for source in data if isinstance(source, TrainingData)]
    if files:
        corpora = {part: tokenised(tokenizer, part) for part in dict.fromkeys(files)}
        rendered = functools.reduce(operator.add, (corpora[part] for part in files))
    else:
        texts = [source for source in data if isinstance(source, Conversation)]
        rendered = Corpus.of(render_all(tokenizer, texts))
    return _within(rendered, max_length)


def _within(rendered: Corpus, max_length: int) -> Corpus:
    """The rows that are short enough, and documents in pieces; raises DataError if there are none."""
    kept = rendered.within(max_length)
    if left_out := int((rendered.lengths[~rendered.documents] > max_length).sum()):
        say(f"{left_out} examples are longer than {max_length} tokens and are left out.")
    if not len(kept):
        raise DataError(
            f"No example to train on: {len(rendered)} were given, none of at most {max_length} tokens. "
            "Raise max_length or check the data with: medcare data check FILE"
        )
    return kept


def _sample(examples: Sequence[Rendered], seed: int, device: torch.device) -> Iterator[torch.Tensor]:
    """Token ids [1, s] of some rows, drawn."""
    order = random.Random(f"sample:{seed}").sample(range(len(examples)), min(len(examples), _SAMPLED))
    return (torch.tensor([list(examples[number].ids)], device=device) for number in order)


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
