"""What the tests do in two processes that talk over gloo, on processors alone."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from medcare.adapters.input_directions import leading
from medcare.adapters.shards import gather_branches
from medcare.adapters.tuner import add_branches, remove_branch, trainable
from medcare.foundation.errors import ConfigError
from medcare.models.placement import Placement
from medcare.models.quantized import quantize
from medcare.models.tensor_files import save_tensors
from medcare.settings.config import (
    AdapterConfig,
    EvaluationConfig,
    ModelConfig,
    Orthogonality,
    RunConfig,
    StageConfig,
    ValidationConfig,
)
from medcare.text.chat_template import Rendered
from medcare.text.records import Conversation, Item, Message
from medcare.training.input_pass import gather
from medcare.training.loop import Loop
from medcare.training.validation import Validation
from tests.conftest import tiny_model
from tests.models.families import tiny_family

ADAPTERS = AdapterConfig(rank=2, alpha=4, experts=4, top_k=2, dropout=0.0)
# Four micro-batches a step, on one process as on two.
STAGE = StageConfig(
    epochs=2,
    learning_rate=1e-2,
    tokens_per_batch=48,
    accumulation=4,
    log_every=1,
    orthogonality="none",
    orthogonality_weight=0.1,
    checkpoint_seconds=1e9,
)
STOP = 3
CASES = (
    "aggregate",
    "aggregate_checkpointing",
    "aggregate_drop",
    "l1",
    "projection",
    "inputs",
    "frozen_knowledge",
)
# Stage 1 of other bases: experts in one tensor, and a tower for images that text never reaches.
FAMILIES = {"experts": "mixtral", "images": "gemma3"}
CASES += tuple(FAMILIES)
if find_spec("bitsandbytes"):
    CASES += ("nf4",)
# With validation, so that the best parameters are those that are saved.
MEASURED = ("aggregate", "l1")


def examples() -> list[Rendered]:
    """Unequal lengths, of which unequal shares are supervised; 9 micro-batches, so that one step has one."""
    draw = torch.Generator().manual_seed(4)
    made = []
    for index in range(28):
        length = 6 + (5 * index) % 13
        ids = torch.randint(3, 90, (length,), generator=draw).tolist()
        made.append(Rendered(ids, [position > 2 + index % 3 for position in range(length)]))
    return made


def sourced(rows: list[Rendered]) -> list[Rendered]:
    """Of three sources, one with a single row: the processes have unequal shares."""
    return [replace(row, source="abb"[number % 3] if number else "c") for number, row in enumerate(rows)]


def make(case: str, folder: Path, *, processes: int) -> Loop:
    """The loop of one case."""
    stage = replace(STAGE, accumulation=STAGE.accumulation // processes)
    torch.manual_seed(11)  # branches are initialised alike on every process
    model = tiny_family(FAMILIES[case]) if case in FAMILIES else tiny_model("llama")
    add_branches(model, "aggregate", ADAPTERS)
    branches = ["knowledge", "noise", "attention"]
    if not case.startswith("aggregate") and case not in (*FAMILIES, "nf4"):
        remove_branch(model, "noise")
        remove_branch(model, "attention")
        add_branches(model, "align", ADAPTERS)
        kind: Orthogonality = case if case in ("projection", "inputs") else "l1"
        stage = replace(stage, orthogonality=kind)
        branches = ["alignment"] if case == "frozen_knowledge" else ["knowledge", "alignment"]
    if case == "nf4":
        quantize(model, "nf4", for_shards=True)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.05)
    if case == "aggregate_checkpointing":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    drop = 0.5 if case == "aggregate_drop" else 0.0
    parameters = trainable(model, branches)
    rows, validation = examples(), None
    if case in MEASURED:
        settings = ValidationConfig(rows=1, every=2, patience=2)
        stage, validation = replace(stage, validation=settings), Validation(sourced(rows[:7]))
    loop = Loop(
        model,
        parameters,
        rows,
        stage,
        seed=3,
        folder=folder,
        pad_id=0,
        noise_drop=drop,
        validation=validation,
    )
    if case == "inputs":
        loop.keep_out({name: leading(entry, 0.6) for name, entry in gather(loop, examples()).items()})
    return loop


def finish(loop: Loop) -> None:
    """Train to the end and save what came out, whole."""
    loop.run("test")
    gather_branches(loop.model)
    if loop.accelerator.is_main_process:
        made = {name: entry for name, entry in loop.model.named_parameters() if ".branches." in name}
        save_tensors(loop.folder / "result.safetensors", made)


def stop_early(loop: Loop, *, signalled: bool, number: int = signal.SIGINT) -> None:
    """Stop after STOP + 1 steps by a signal, which only one of the processes need get."""
    step = loop._step

    def interrupted(done, meter):
        if done == STOP and signalled:
            os.kill(os.getpid(), number)
        return step(done, meter)

    loop._step = interrupted
    try:
        loop.run("stopped")
    except KeyboardInterrupt:
        return
    raise AssertionError("the signal did not stop the run")


def both_stages(folder: Path, base: Path, *, processes: int) -> None:
    """Stage folders as `medcare train` writes them."""
    from medcare.training import stages

    stage = replace(STAGE, epochs=1, accumulation=STAGE.accumulation // processes)
    config = RunConfig(
        model=ModelConfig(base=str(base), dtype="float32", device="cpu"),
        adapters=ADAPTERS,
        aggregate=stage,
        align=replace(stage, orthogonality="l1"),
    )
    talks = [
        Conversation(
            str(index), "test", (Message("user", f"Code {index}?"), Message("assistant", "J4 fever."))
        )
        for index in range(12)
    ]
    stages.train("aggregate", config, talks, folder / "one", data_hash="x")
    stages.train("align", config, talks, folder / "two", data_hash="x", start=folder / "one")


def answers(folder: Path, base: Path, placement: Placement | None = None) -> None:
    """Predictions of the base model, as the evaluation writes them."""
    from medcare.evaluation.engines import LocalEngine
    from medcare.evaluation.predictions import predict
    from medcare.evaluation.prompts import build_prompts
    from medcare.models.base_model import load_base, load_tokenizer

    items = [
        Item(
            f"i{number}",
            "t",
            "knowledge",
            "taught",
            "f",
            f"Question {number}?",
            ("Yes", "No") if number % 2 else (),
        )
        for number in range(9)
    ]
    where = {"device": torch.device("cpu"), "placement": placement}
    model = load_base(str(base), dtype=torch.float32, **where).eval()
    engine = LocalEngine(model, load_tokenizer(str(base)), EvaluationConfig(max_new_tokens=4))
    predict(engine, build_prompts(items, EvaluationConfig()), folder / "predictions.jsonl", name="base")


def shard_on_processors() -> None:
    """Let accelerate choose FSDP2 without a GPU; it offers that on GPUs only, but torch on processors too."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    original = AcceleratorState.__init__

    def patched(self, *args, fsdp_plugin=None, **options):
        original(self, *args, **options)
        if fsdp_plugin is not None and self.distributed_type is DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = patched


def every_case(folder: Path, base: Path, wrapper: type[nn.Module]) -> None:
    """Every case under one way of sharing the work; `folder` holds runs that one process has begun."""
    assert isinstance(make("l1", folder / "kind", processes=2).wrapped, wrapper)
    for case in CASES:
        if case == "nf4" and "ACCELERATE_USE_DEEPSPEED" in os.environ:
            continue  # the stages refuse it
        try:
            finish(make(case, folder / case, processes=2))
        except ConfigError as error:
            (folder / case).mkdir(parents=True, exist_ok=True)
            (folder / case / "refused").write_text(str(error))
    for case in ("aggregate", "l1"):
        rank = int(os.environ["RANK"])
        begun = make(case, folder / f"{case}_from_two", processes=2)
        stop_early(begun, signalled=rank == 1, number=signal.SIGTERM if case == "l1" else signal.SIGINT)
        finish(make(case, folder / f"{case}_from_one", processes=2))
    both_stages(folder / "stages", base, processes=2)
    answers(folder, base)


def ddp_and_fsdp2_cases(folder: Path, base: Path, fsdp2: dict[str, str]) -> None:
    """Every case under DDP, answers of a model cut in two, and every case under FSDP2.

    accelerate is told of FSDP2 by these environment variables.
    """
    from accelerate.state import AcceleratorState
    from torch.distributed.fsdp import FSDPModule

    torch.set_num_threads(1)
    shard_on_processors()
    every_case(folder / "ddp", base, nn.parallel.DistributedDataParallel)
    answers(folder / "split", base, "split")
    os.environ.update(fsdp2)
    AcceleratorState._reset_state()
    every_case(folder / "fsdp2", base, FSDPModule)


def zero3_cases(folder: Path, base: Path, zero3: dict[str, str]) -> None:
    """Every case under DeepSpeed's ZeRO-3; accelerate does not offer it on processors, but deepspeed does."""
    torch.set_num_threads(1)
    os.environ.update(zero3)
    from accelerate import PartialState
    from deepspeed import DeepSpeedEngine

    PartialState(cpu=False, backend="gloo")
    every_case(folder / "zero3", base, DeepSpeedEngine)


def launch(*arguments: str) -> None:
    """As `accelerate launch` with these arguments."""
    from accelerate.commands.launch import main

    sys.argv = ["accelerate", *arguments]
    main()
