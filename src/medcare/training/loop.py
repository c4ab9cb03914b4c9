"""The optimisation loop that both stages share."""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from medcare.adapters.orthogonality import branch_pairs, measure, penalty, project
from medcare.adapters.shards import gathered, whole
from medcare.adapters.teacher import Teacher
from medcare.adapters.tuner import router_load, set_noise
from medcare.foundation import processes
from medcare.foundation.contents import METRICS, SAMPLES
from medcare.foundation.errors import ConfigError, FolderError, ModelError, TrainingError
from medcare.foundation.progress import delayed_interrupt, say, track
from medcare.foundation.storage import append_jsonl, read_jsonl, write_jsonl
from medcare.models.quantized import place_scales
from medcare.models.traits import Traits
from medcare.settings.config import Batching, Layout, StageConfig
from medcare.text.batches import IGNORED, Batch, BatchPlan, collate, plan, shuffled, spread
from medcare.text.chat_template import Rendered
from medcare.text.corpus import Corpus, as_corpus
from medcare.training.devices import (
    agree,
    expert_loads,
    is_sharded,
    make_accelerator,
    sum_loads,
    tell_layers,
)
from medcare.training.embedding_noise import add_embedding_noise
from medcare.training.kernels import FusedLoss, set_attention
from medcare.training.losses import TokenLoss
from medcare.training.memory import forget_peak, peak_memory
from medcare.training.meter import Meter
from medcare.training.optimizers import (
    check_rates,
    gradient_noise,
    learning_rate,
    make_optimizer,
    set_rate,
    training_mode,
)
from medcare.training.pace import likely_reason
from medcare.training.state import best_parameters, last_checkpoint, load_state, save_state
from medcare.training.tracking import scalars
from medcare.training.validation import Validation, Validator
from medcare.training.watchdog import Watchdog

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

_MOST_SKIPPED = 10  # in a row: more are no single rows' fault
_NAMED = 5  # row ids in a message


@dataclass(frozen=True)
class Schedule:
    """Which batches each optimizer step takes.

    Attributes:
        steps: for every step, the micro-batches as lists of example numbers.
    """

    steps: Sequence[Sequence[tuple[int, ...]]]

    @classmethod
    def build(
        cls,
        lengths: ArrayLike,
        stage: StageConfig,
        seed: int,
        size: int | None = None,
        layout: Layout = "grouped",
        own: int | None = None,
    ) -> Schedule:
        """Plan all epochs.

        Args:
            lengths: tokens of each example.
            stage: the settings.
            seed: of the order.
            size: micro-batches a step, by default `accumulation`.
            layout: of the batches.
            own: how many of the examples, the first ones, are in every epoch; by default all. Of the others
                each epoch takes `replay` of its examples, in turn, so that all come before one comes again.
        """
        sizes = np.asarray(lengths)
        size = size or stage.accumulation
        own = len(sizes) if own is None else own
        former = own + shuffled(len(sizes) - own, random.Random(f"replay:{seed}"))
        replayed = round(stage.replay / (1 - stage.replay) * own) if len(former) else 0
        epochs = []
        for epoch in range(stage.epochs):
            turn = np.arange(epoch * replayed, (epoch + 1) * replayed)
            chosen = np.concatenate([np.arange(own), former[turn % max(1, len(former))]])
            batches = plan(
                sizes[chosen],
                tokens_per_batch=stage.tokens_per_batch,
                epoch=epoch,
                seed=seed,
                layout=layout,
            )
            epochs.append(BatchPlan(chosen[batches.numbers].astype(np.int32), batches.ends))
        return cls(_Steps(epochs, size))


class _Steps(Sequence[Sequence[tuple[int, ...]]]):
    """The steps of all epochs: of each, so many of its batches at a time."""

    def __init__(self, epochs: Sequence[BatchPlan], size: int) -> None:
        self._epochs, self._size = epochs, size
        self._firsts = np.cumsum([0, *(-(-len(batches) // size) for batches in epochs)])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    @overload
    def __getitem__(self, step: int) -> Sequence[tuple[int, ...]]: ...
    @overload
    def __getitem__(self, step: slice) -> Sequence[Sequence[tuple[int, ...]]]: ...
    def __getitem__(self, step: int | slice) -> Sequence[Any]:
        if isinstance(step, slice):
            return [self[index] for index in range(*step.indices(len(self)))]
        step = range(len(self))[step]
        epoch = int(np.searchsorted(self._firsts, step, side="right")) - 1
        first = (step - int(self._firsts[epoch])) * self._size
        return tuple(self._epochs[epoch][first : first + self._size])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)


class Loop:
    """Trains the trainable parameters of a model on rendered conversations.

    Args:
        model: a causal language model with branches.
        parameters: what trains, by name.
        examples: a corpus, or rows in a list.
        stage: the settings.
        seed: of batch order, dropout and noise drop.
        folder: where metrics.jsonl and the checkpoint go.
        pad_id: token id that fills short rows.
        noise_drop: probability that a step runs without the noise aggregator.
        traits: what the model can do; by default that is tried out now.
        replayed: rendered conversations of stage 1, of which `replay` says how many come among the examples.
        validation: what the model is measured with on the way.
        steps_before: steps of an earlier training, of whose schedule these are the tail.
        accelerator: devices and processes; by default accelerate's own choice.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        parameters: dict[str, nn.Parameter],
        examples: Sequence[Rendered],
        stage: StageConfig,
        *,
        seed: int,
        folder: Path,
        pad_id: int,
        noise_drop: float = 0.0,
        traits: Traits | None = None,
        replayed: Sequence[Rendered] = (),
        validation: Validation | None = None,
        steps_before: int = 0,
        accelerator: Accelerator | None = None,
    ) -> None:
        self.accelerator = accelerator or make_accelerator(
            model.device, clip=stage.clip, skips_branches=noise_drop > 0
        )
        self.model = model
        self.examples = as_corpus(examples)
        if len(replayed):
            self.examples += as_corpus(replayed)
        self.weights = _weights(self.examples, stage.source_weights)
        # Of each example's loss, the share that is the distance to the model after stage 1.
        self.shares = np.zeros(len(self.examples))
        self.shares[len(examples) :] = stage.distill
        self.kept_out: Mapping[str, Tensor] | None = None
        self.stage = stage
        self.steps_before = steps_before
        self.watchdog = Watchdog(stage.stall_seconds)
        self.seed = seed
        self.folder = folder
        self.pad_id = pad_id
        self.noise_drop = noise_drop
        # A continued run keeps its steps as they were, on whatever devices it goes on.
        self.checkpoint = last_checkpoint(folder)
        former = self.checkpoint.facts if self.checkpoint else {}
        self.batches = int(former.get("batches", stage.accumulation * self.accelerator.num_processes))
        traits = traits or Traits.of(model)
        asked = cast(Batching, former.get("layout", stage.batching))
        self.layout = _layout(asked, traits, self.accelerator.device)
        self.schedule = Schedule.build(
            self.examples.lengths, stage, seed, self.batches, self.layout, len(examples)
        )
        self.validator = None
        if validation is not None:
            self.validator = Validator(validation, stage, len(self.schedule.steps))
        check_rates(parameters, stage.rates)
        optimizer = make_optimizer(parameters, stage, sharded=is_sharded())
        # float16 holds nothing below 6e-8: gradients are scaled up, and a step in which they overflow then
        # is left out. For every other dtype this does nothing.
        kind = model.get_input_embeddings().weight.dtype
        self.scaler = torch.amp.GradScaler(self.accelerator.device.type, enabled=kind is torch.float16)
        self.shapes = {name: list(parameter.shape) for name, parameter in parameters.items()}
        tell_layers(self.accelerator, model)
        teacher = Teacher(model, parameters) if self.shares.any() else None
        set_attention(model, self.layout)
        self.fused = FusedLoss(json.loads(former.get("fused", "null")))
        loss = TokenLoss(model, traits, teacher, self.fused)
        self.wrapped, self.optimizer = self.accelerator.prepare(loss, optimizer)
        place_scales(model, self.accelerator.device)
        # FSDP2 puts shards in the place of the parameters, ZeRO-3 empties them.
        self.parameters = {
            name: parameter for name, parameter in model.named_parameters() if name in parameters
        }

    def run(self, name: str) -> dict[str, float]:
        """Train to the end, from the last checkpoint if there is one.

        Ctrl-C finishes the step under way and saves a checkpoint; a second one stops at once. With
        validation, the parameters are those of the best model in the end, if the settings say so.

        Returns:
            `steps`, the `loss` of the last logged steps, `seconds` and `tokens` of all calls that it took;
            with validation its best value and the steps that it took.

        Raises:
            FolderError: the folder holds a checkpoint of other settings or data, or the processes don't share
                it.
            StorageError: the disk is full.
            TrainingError: loss or gradient are not finite; the checkpoint is from before.
        """
        steps = len(self.schedule.steps)
        key = self._key()
        done = self._restore(key)
        forget_peak(self.accelerator.device)
        meter = self._meter()
        self._trim_metrics(done)
        self._train_mode(True)
        embeddings = self.model.get_input_embeddings()
        noise = add_embedding_noise(embeddings, self.stage.neftune) if self.stage.neftune else None
        saved_at = time.monotonic()
        with delayed_interrupt() as interrupt, track(name, steps) as task, self.watchdog:
            task.start_at(done)
            while done < steps and not (self.validator and self.validator.stops):
                loss = self._step(done, meter)
                done += 1
                task.advance(detail=f"loss {loss:.3f}, {meter.rate():.0f} tokens/s")
                self._tell_pace(name, meter)
                measured = self._measure(done, meter)
                if measured or done % self.stage.log_every == 0 or done == steps:
                    self._log(done, meter, measured)
                due = time.monotonic() - saved_at > self.stage.checkpoint_seconds
                stop, due = agree(self.accelerator, interrupt.asked, due)
                if stop or due:
                    with meter.paused():
                        self._save(done, key, meter)
                    saved_at = time.monotonic()
                if stop:
                    raise KeyboardInterrupt
            # A Ctrl-C after the last step was agreed on would be lost when the handler goes.
            if agree(self.accelerator, interrupt.asked, False)[0]:
                self._save(done, key, meter)
                raise KeyboardInterrupt
        self._train_mode(False)
        if noise is not None:
            noise.remove()
        if self.validator is not None:
            self.validator.take_best(self)
        last = {} if meter.last_loss is None else {"loss": meter.last_loss}
        validated = self.validator.result() if self.validator else {}
        spent = {"seconds": meter.seconds(), "tokens": meter.all_tokens}
        return {"steps": done, **last, **spent, **validated}

    def _tell_pace(self, name: str, meter: Meter) -> None:
        """Say so, once, if training is four times slower than foreseen or than before."""
        if expected := meter.pace.slowed():
            why = likely_reason(self.accelerator.device, torch.get_num_threads(), name)
            rate = f"{meter.pace.rate:,.0f} tokens a second"
            say(f"{name}: {rate}, less than a quarter of the {expected}: {why}")

    def _measure(self, done: int, meter: Meter) -> dict[str, Any]:
        """What validation says of the model after so many steps; empty if it is not its turn."""
        if self.validator is None or not self.validator.due(done):
            return {}
        with meter.paused():
            self._train_mode(False)
            row = self.validator.measure(self, done)
            self._train_mode(True)
        say(self.validator.told(row, done))
        return row

    def _restore(self, key: str) -> int:
        """Go back to the checkpoint, if there is one; returns the steps done, the same on all processes."""
        optimizer, world = self._plain_optimizer(), self.accelerator.num_processes
        done = 0
        if self.checkpoint:
            done = load_state(self.checkpoint, self.parameters, optimizer, key)
            if self.validator:
                state = json.loads(self.checkpoint.facts["validation"])
                self.validator.restore(state, best_parameters(self.checkpoint))
        if world > 1:
            steps = torch.tensor([done, done * done], device=self.accelerator.device, dtype=torch.float64)
            total, squares = self.accelerator.reduce(steps, "sum").tolist()
            if squares * world != total * total:
                raise FolderError(
                    f"The processes don't find the same checkpoint in {self.folder} (process "
                    f"{processes.number()}: step {done}). It has to lie on a disk that all of them share."
                )
        return done

    def _step(self, step: int, meter: Meter) -> float:
        """One optimizer step; returns the mean NLL of its supervised tokens."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        # Each step seeds its own random numbers, so a resumed run draws the same ones without saving any.
        torch.manual_seed(_mix(self.seed, step, rank))
        if self.noise_drop:
            # Drawn from the step alone: all devices must drop the branch together.
            set_noise(
                self.model, enabled=random.Random(_mix(self.seed, step, -1)).random() >= self.noise_drop
            )
        batches = self.schedule.steps[step]
        numbers = [number for batch in batches for number in batch]
        # The number of supervised tokens, weighted as in the loss.
        supervised = float((self.weights[numbers] * self.examples.supervised[numbers]).sum())
        mine = [self._batch(numbers) for numbers in batches[rank::world]]
        if not mine:
            # Every device must take part in the step: one without a batch runs one without labels.
            idle = self._batch(batches[0])
            mine = [replace(idle, labels=torch.full_like(idle.labels, IGNORED))]
        total = torch.zeros((), device=self.accelerator.device)
        for batch in mine[:-1]:
            with self.accelerator.no_sync(self.wrapped):
                total += self._backward(batch, world / supervised)
        total += self._backward(mine[-1], world / supervised)
        # Added after the devices have averaged their gradients: each adds the same whole penalty.
        with gathered(factor for pair in branch_pairs(self.model) for factor in pair):
            extra = penalty(self.model, self.stage.orthogonality)
            if extra is not None:
                self.accelerator.backward(self.scaler.scale(self.stage.orthogonality_weight * extra))
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        norm = self.accelerator.clip_grad_norm_(list(self.parameters.values()), self.stage.clip)
        loss, gradient = float(self.accelerator.reduce(total, "sum")) / supervised, float(whole(norm))
        # Overflow of what float16 holds: the scaler leaves this step out, and the next has a smaller scale.
        overflow = self.scaler.is_enabled() and not math.isfinite(gradient) and self.scaler.get_scale() >= 2
        if not overflow and not (math.isfinite(loss) and math.isfinite(gradient)):
            self._leave_out(step, loss, gradient, meter)
            return loss
        set_rate(self._plain_optimizer(), self._rate(step))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._project()
        self.optimizer.zero_grad(set_to_none=True)
        tokens = int(self.examples.lengths[numbers].sum())
        gradient = 0.0 if overflow else float(whole(norm))  # ZeRO-3 knows it only now
        if not math.isfinite(gradient):
            raise self._diverged(step, loss, gradient, [])
        if meter.is_spike(loss):
            meter.spikes.append(step + 1)
            say(f"Step {step + 1}: loss {loss:.3g}, far above those before ({fmean(meter.recent):.3g}).")
        meter.add(loss, gradient, tokens, supervised)
        return loss

    def _rate(self, step: int) -> float:
        return learning_rate(step, len(self.schedule.steps), self.stage, before=self.steps_before)

    def _leave_out(self, step: int, loss: float, gradient: float, meter: Meter) -> None:
        """Go on without a step whose loss or gradient is no finite number, or stop; alike on all devices."""
        numbers = [number for batch in self.schedule.steps[step] for number in batch]
        found = self._unfit(numbers)
        # If no row gives such a loss by itself, all of the step's rows are named.
        blamed = [self.examples[number].id for number in found or numbers]
        meter.left_out += 1
        if self.stage.nonfinite == "stop" or meter.left_out > _MOST_SKIPPED:
            raise self._diverged(step, loss, gradient, blamed)
        if self.scaler.is_enabled():
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        meter.skipped += blamed
        meter.pace.restart()
        say(f"Step {step + 1} is left out: loss {loss}, gradient norm {gradient}, {_rows(blamed)}.")

    @torch.no_grad()
    def _unfit(self, numbers: Sequence[int]) -> list[int]:
        """The examples whose own loss is no finite number."""
        self.wrapped.eval()
        losses = {number: float(self.nll(self._batch([number]))) for number in numbers}
        self.wrapped.train()
        return [number for number, loss in losses.items() if not math.isfinite(loss)]

    def _diverged(self, step: int, loss: float, gradient: float, rows: Sequence[str]) -> TrainingError:
        at = f"step {step + 1} of {len(self.schedule.steps)}"
        where = f", {_rows(rows)}" if rows else ""
        return TrainingError(
            f"Training diverged in {at}: loss {loss}, gradient norm {gradient}{where}. Lower learning_rate "
            f"(now {self.stage.learning_rate:g}), set model.dtype=float32, or, if few rows are at fault, "
            "nonfinite=skip, and choose another --out. What was saved before is unchanged."
        )

    def nll(self, batch: Batch) -> Tensor:
        """The summed NLL of a batch's supervised tokens."""
        self.watchdog.alive()
        batch = batch.to(self.accelerator.device)
        nll: Tensor = self.wrapped(batch.inputs, batch.labels, batch.weights, batch.shares)
        return nll

    def keep_out(self, directions: Mapping[str, Tensor]) -> None:
        """From now on, keep the alignment branch out of these directions [m, i] of each layer's inputs."""
        self.kept_out = {name: basis.to(self.accelerator.device) for name, basis in directions.items()}
        self._project()

    def _project(self) -> None:
        if self.kept_out is not None or self.stage.orthogonality == "projection":
            project(self.model, self.kept_out)

    def _backward(self, batch: Batch, factor: float) -> Tensor:
        nll = self.nll(batch)
        self.accelerator.backward(self.scaler.scale(nll * factor))
        return nll.detach()

    def _batch(self, numbers: Sequence[int]) -> Batch:
        chosen = [self.examples[number] for number in numbers]
        batch = collate(chosen, pad_id=self.pad_id, layout=self.layout)
        weights, shares = self.weights[list(numbers)], self.shares[list(numbers)]
        if (weights != 1).any():
            batch = replace(batch, weights=spread(batch, chosen, weights))
        return replace(batch, shares=spread(batch, chosen, shares)) if shares.any() else batch

    def _log(self, done: int, meter: Meter, measured: dict[str, Any]) -> None:
        noise = gradient_noise(self._plain_optimizer(), meter.supervised / max(1, meter.steps))
        row: dict[str, Any] = {"step": done, "steps": len(self.schedule.steps), **meter.take()}
        row["learning_rate"] = self._rate(done - 1)
        if (memory := peak_memory(self.accelerator.device)) is not None:
            row["memory_gib"] = memory
        if noise is not None:
            row["gradient_noise"] = noise
        row.update(measured)
        row.update(measure(self.model))
        sum_loads(self.model, self.accelerator)
        loads = router_load(self.model)
        if loads:
            row["router_load"] = loads
        if self.accelerator.is_main_process:
            append_jsonl(self.folder / METRICS, row)
        self.accelerator.log(scalars(row), step=done)

    def _meter(self) -> Meter:
        """What was counted since the last row of metrics.jsonl, as of the checkpoint."""
        meter, former = Meter(self.stage.foreseen_rate), self.checkpoint.facts if self.checkpoint else {}
        if "scaler" in former:
            self.scaler.load_state_dict(json.loads(former["scaler"]))
        meter.restore(json.loads(former.get("meter", "{}")))
        if self.accelerator.is_main_process:
            counts = json.loads(former.get("loads", "[]"))
            for load, count in zip(expert_loads(self.model), counts, strict=False):
                load.copy_(torch.tensor(count))
        return meter

    def _save(self, done: int, key: str, meter: Meter) -> None:
        facts = {"step": str(done), "key": key, "batches": str(self.batches), "layout": self.layout}
        facts["fused"] = json.dumps(self.fused.used)
        sum_loads(self.model, self.accelerator)
        loads = [load.tolist() for load in expert_loads(self.model)]
        facts |= {"meter": json.dumps(meter.state()), "loads": json.dumps(loads)}
        if self.scaler.is_enabled():
            facts["scaler"] = json.dumps(self.scaler.state_dict())
        main = self.accelerator.is_main_process
        best = None
        if self.validator is not None:
            facts["validation"] = json.dumps(self.validator.state())
            best = self.validator.parameters
        optimizer, keep = self._plain_optimizer(), self.stage.keep
        save_state(self.folder, self.parameters, optimizer, facts, best=best, keep=keep, write=main)
        self.accelerator.wait_for_everyone()

    def _train_mode(self, on: bool) -> None:
        self.wrapped.train(on)
        training_mode(self._plain_optimizer(), on)

    def _plain_optimizer(self) -> torch.optim.Optimizer:
        plain: torch.optim.Optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        return plain

    def _trim_metrics(self, done: int) -> None:
        """Forget rows of steps after the checkpoint: they will be done, and logged, again."""
        for path in (self.folder / METRICS, self.folder / SAMPLES):
            if path.exists() and self.accelerator.is_main_process:
                rows = [row for row in read_jsonl(path, torn_tail=True) if isinstance(row.get("step"), int)]
                write_jsonl(path, [row for row in rows if row["step"] <= done])

    def _key(self) -> str:
        """Identifies settings and data; how often to save and log, and the number of devices, don't count."""
        settings = asdict(self.stage)
        for name in (
            "checkpoint_seconds",
            "stall_seconds",
            "foreseen_rate",
            "keep",
            "log_every",
            "data",
            "accumulation",
            "batching",
        ):
            settings.pop(name)
        for name in ("data", "samples"):  # the rows themselves count
            settings["validation"].pop(name)
        weights = hashlib.sha256(self.weights.tobytes()).hexdigest()
        data = [self.examples.digest, len(self.examples), weights, self.steps_before]
        if self.validator is not None:
            data.append(as_corpus(self.validator.validation.examples).digest)
        facts = [settings, self.batches, self.layout, self.seed, self.noise_drop, self.shapes, data]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _weights(examples: Corpus, factors: Mapping[str, float]) -> NDArray[np.float64]:
    """By which the loss of each example is multiplied, [n]."""
    if not factors:
        return np.ones(len(examples))
    numbers, names = examples.sources()
    return np.array([factors.get(name, 1.0) for name in names])[numbers]


def _rows(ids: Sequence[str]) -> str:
    """As `rows a, b and 7 more`."""
    named, more = ", ".join(ids[:_NAMED]), len(ids) - _NAMED
    return f"{'row' if len(ids) == 1 else 'rows'} {named}" + (f" and {more} more" if more > 0 else "")


def _layout(asked: Batching, traits: Traits, device: torch.device) -> Layout:
    """The layout to use: one in which no example changes another's loss.

    Raises:
        ConfigError: packed rows are asked for, but examples in them would be mixed.
        ModelError: the model is not causal.
    """
    if not traits.separates_padded_rows:
        raise ModelError(
            "This model can't be trained here: a token sees what comes after it (padding changed the logits "
            "before it), so that it is no causal language model, or was saved with is_decoder=false. Choose "
            "one of the families in docs/models.md."
        )
    if asked == "grouped" or (asked == "auto" and device.type == "cpu"):
        return "grouped"
    if traits.separates_packed_rows:
        return "packed"
    if asked == "auto":
        say("This model mixes examples that are packed into one row: batches are grouped by length instead.")
        return "grouped"
    raise ConfigError(
        "batching=packed would train on mixed examples: with this model, or its attention kernel, an example "
        "in a packed row sees the ones before it. Set batching=grouped, or auto, which finds out by itself."
    )


def _mix(seed: int, step: int, rank: int) -> int:
    """A seed for one step on one device."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{step}:{rank}".encode()).digest()[:7], "big")
