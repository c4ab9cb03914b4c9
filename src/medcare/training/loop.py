"""The optimisation loop that both stages share."""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medcare.adapters.orthogonality import branch_pairs, measure, penalty, project
from medcare.adapters.shards import gathered, whole
from medcare.adapters.teacher import Teacher
from medcare.adapters.tuner import router_load, set_noise
from medcare.foundation import processes
from medcare.foundation.contents import METRICS, SAMPLES
from medcare.foundation.errors import FolderError, TrainingError
from medcare.foundation.progress import delayed_interrupt, say, track
from medcare.foundation.storage import append_jsonl, read_jsonl, write_jsonl
from medcare.models.quantized import place_scales
from medcare.models.traits import Traits
from medcare.settings.config import StageConfig
from medcare.text.batches import IGNORED, Batch, collate, spread
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
from medcare.training.embedding_noise import embedding_noise
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
from medcare.training.steps import StepBatches, choose_layout, plan_steps
from medcare.training.tracking import scalars
from medcare.training.validation import Validation, Validator
from medcare.training.watchdog import Watchdog

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

_MOST_SKIPPED = 10  # in a row: more are no single rows' fault
_MOST_NAMED = 5  # row ids in a message
# Settings of a stage with which a checkpoint may be continued whatever they were.
_NOT_IN_KEY = {
    "checkpoint_seconds", "stall_seconds", "foreseen_rate", "keep", "log_every", "data", "accumulation",
    "batching",
}  # fmt: skip


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
        self.stage = stage
        self.seed = seed
        self.folder = folder
        self.pad_id = pad_id
        self.noise_drop = noise_drop
        self.steps_before = steps_before
        self.kept_out: Mapping[str, Tensor] | None = None
        self.watchdog = Watchdog(stage.stall_seconds)
        self.examples = as_corpus(examples)
        if len(replayed):
            self.examples += as_corpus(replayed)
        self.weights = _example_weights(self.examples, stage.source_weights)
        # Of each example's loss, the share that is the distance to the model after stage 1.
        self.shares = np.zeros(len(self.examples))
        self.shares[len(examples) :] = stage.distill
        # A continued run keeps its steps as they were, on whatever devices it goes on.
        self.checkpoint = last_checkpoint(folder)
        before = self.checkpoint.facts if self.checkpoint else None
        self.batches = (before and before.batches) or stage.accumulation * self.accelerator.num_processes
        traits = traits or Traits.of(model)
        asked = (before and before.layout) or stage.batching
        self.layout = choose_layout(asked, traits, self.accelerator.device)
        lengths = self.examples.lengths
        self.steps = plan_steps(lengths, stage, seed, self.batches, self.layout, len(examples))
        self.validator = None if validation is None else Validator(validation, stage, len(self.steps))
        check_rates(parameters, stage.rates)
        optimizer = make_optimizer(parameters, stage, sharded=is_sharded())
        # float16 holds nothing below 6e-8: gradients are scaled up, and a step in which they overflow then
        # is left out. For every other dtype this does nothing.
        is_half = model.get_input_embeddings().weight.dtype is torch.float16
        self.scaler = torch.amp.GradScaler(self.accelerator.device.type, enabled=is_half)
        self.shapes = {name: list(parameter.shape) for name, parameter in parameters.items()}
        tell_layers(self.accelerator, model)
        teacher = Teacher(model, parameters) if self.shares.any() else None
        set_attention(model, self.layout)
        self.fused = FusedLoss(before.fused if before else None)
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
        steps = len(self.steps)
        key = self._key()
        done = self._restore(key)
        forget_peak(self.accelerator.device)
        meter = self._meter()
        self._trim_metrics(done)
        self._train_mode(True)
        noise = embedding_noise(self.model.get_input_embeddings(), self.stage.neftune)
        saved_at = time.monotonic()
        with noise, delayed_interrupt() as interrupt, track(name, steps) as task, self.watchdog:
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
        say(self.validator.in_words(row, done))
        return row

    def _restore(self, key: str) -> int:
        """Go back to the checkpoint, if there is one; returns the steps done, the same on all processes."""
        optimizer, world = self._plain_optimizer(), self.accelerator.num_processes
        done = 0
        if self.checkpoint:
            load_state(self.checkpoint, self.parameters, optimizer, key)
            done = self.checkpoint.facts.step
            if self.validator and self.checkpoint.facts.validation:
                self.validator.restore(self.checkpoint.facts.validation, best_parameters(self.checkpoint))
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
        """One optimizer step; returns the mean loss of its supervised tokens."""
        # Each step seeds its own random numbers, so a resumed run draws the same ones without saving any.
        torch.manual_seed(_mix(self.seed, step, self.accelerator.process_index))
        if self.noise_drop:
            # Drawn from the step alone: all devices must drop the branch together.
            drawn = random.Random(_mix(self.seed, step, -1)).random()
            set_noise(self.model, enabled=drawn >= self.noise_drop)
        numbers = self._numbers(step)
        # The number of supervised tokens, weighted as in the loss.
        supervised = float((self.weights[numbers] * self.examples.supervised[numbers]).sum())
        total = self._token_gradients(self.steps[step], supervised)
        self._penalty_gradients()
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
        gradient = 0.0 if overflow else float(whole(norm))  # ZeRO-3 knows it only now
        if not math.isfinite(gradient):
            raise self._diverged(step, loss, gradient, [])
        if meter.is_spike(loss):
            meter.spikes.append(step + 1)
            say(f"Step {step + 1}: loss {loss:.3g}, far above those before ({fmean(meter.recent):.3g}).")
        meter.add(loss, gradient, int(self.examples.lengths[numbers].sum()), supervised)
        return loss

    def _token_gradients(self, batches: StepBatches, supervised: float) -> Tensor:
        """Add the gradients of the step's mean loss; returns the summed loss of this device's tokens."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        mine = [self._batch(numbers) for numbers in batches[rank::world]]
        if not mine:
            # Every device must take part in the step: one without a batch runs one without labels.
            idle = self._batch(batches[0])
            mine = [replace(idle, labels=torch.full_like(idle.labels, IGNORED))]
        total = torch.zeros((), device=self.accelerator.device)
        for number, batch in enumerate(mine, start=1):
            # Devices average their gradients after the last one.
            with nullcontext() if number == len(mine) else self.accelerator.no_sync(self.wrapped):
                total += self._backward(batch, world / supervised)
        return total

    def _backward(self, batch: Batch, factor: float) -> Tensor:
        nll = self.nll(batch)
        self.accelerator.backward(self.scaler.scale(nll * factor))
        return nll.detach()

    def _penalty_gradients(self) -> None:
        """Added after the devices have averaged their gradients: each adds the same whole penalty."""
        with gathered(factor for pair in branch_pairs(self.model) for factor in pair):
            extra = penalty(self.model, self.stage.orthogonality)
            if extra is not None:
                self.accelerator.backward(self.scaler.scale(self.stage.orthogonality_weight * extra))

    def _numbers(self, step: int) -> list[int]:
        """The examples of a step."""
        return [number for batch in self.steps[step] for number in batch]

    def _rate(self, step: int) -> float:
        return learning_rate(step, len(self.steps), self.stage, before=self.steps_before)

    def _leave_out(self, step: int, loss: float, gradient: float, meter: Meter) -> None:
        """Go on without a step whose loss or gradient is no finite number, or stop; alike on all devices."""
        numbers = self._numbers(step)
        # If no row gives such a loss by itself, all of the step's rows are named.
        blamed = [self.examples[number].id for number in self._unfit(numbers) or numbers]
        meter.left_out += 1
        if self.stage.nonfinite == "stop" or meter.left_out > _MOST_SKIPPED:
            raise self._diverged(step, loss, gradient, blamed)
        if self.scaler.is_enabled():
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        meter.skipped += blamed
        meter.pace.restart()
        say(f"Step {step + 1} is left out: loss {loss}, gradient norm {gradient}, {_named(blamed)}.")

    @torch.no_grad()
    def _unfit(self, numbers: Sequence[int]) -> list[int]:
        """The examples whose own loss is no finite number."""
        self.wrapped.eval()
        losses = {number: float(self.nll(self._batch([number]))) for number in numbers}
        self.wrapped.train()
        return [number for number, loss in losses.items() if not math.isfinite(loss)]

    def _diverged(self, step: int, loss: float, gradient: float, rows: Sequence[str]) -> TrainingError:
        at = f"step {step + 1} of {len(self.steps)}"
        where = f", {_named(rows)}" if rows else ""
        return TrainingError(
            f"Training diverged in {at}: loss {loss}, gradient norm {gradient}{where}. Lower learning_rate "
            f"(now {self.stage.learning_rate:g}), set model.dtype=float32, or, if few rows are at fault, "
            "nonfinite=skip, and choose another --out. What was saved before is unchanged."
        )

    def nll(self, batch: Batch) -> Tensor:
        """The summed loss of a batch's supervised tokens."""
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

    def _batch(self, numbers: Sequence[int]) -> Batch:
        chosen = [self.examples[number] for number in numbers]
        batch = collate(chosen, pad_id=self.pad_id, layout=self.layout)
        weights, shares = self.weights[list(numbers)], self.shares[list(numbers)]
        if (weights != 1).any():
            batch = replace(batch, weights=spread(batch, chosen, weights))
        return replace(batch, shares=spread(batch, chosen, shares)) if shares.any() else batch

    def _log(self, done: int, meter: Meter, measured: dict[str, Any]) -> None:
        noise = None
        if meter.steps:
            noise = gradient_noise(self._plain_optimizer(), meter.supervised / meter.steps)
        row: dict[str, Any] = {"step": done, "steps": len(self.steps), **meter.take()}
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
        meter = Meter(self.stage.foreseen_rate)
        if self.checkpoint is not None:
            facts = self.checkpoint.facts
            meter.restore(facts.meter)
            if facts.scaler is not None:
                self.scaler.load_state_dict(facts.scaler)
            if self.accelerator.is_main_process:
                for load, count in zip(expert_loads(self.model), facts.loads, strict=False):
                    load.copy_(torch.tensor(count))
        return meter

    def _save(self, done: int, key: str, meter: Meter) -> None:
        sum_loads(self.model, self.accelerator)
        facts = {
            "step": done,
            "key": key,
            "batches": self.batches,
            "layout": self.layout,
            "fused": self.fused.used,
            "meter": meter.state(),
            "loads": [load.tolist() for load in expert_loads(self.model)],
            "scaler": self.scaler.state_dict() if self.scaler.is_enabled() else None,
            "validation": self.validator.state() if self.validator else None,
        }
        save_state(
            self.folder,
            self.parameters,
            self._plain_optimizer(),
            facts,
            best=self.validator.parameters if self.validator else None,
            keep=self.stage.keep,
            write=self.accelerator.is_main_process,
        )
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
        settings = {name: value for name, value in asdict(self.stage).items() if name not in _NOT_IN_KEY}
        for name in ("data", "samples"):  # the rows themselves count
            settings["validation"].pop(name)
        weights = hashlib.sha256(self.weights.tobytes()).hexdigest()
        data = [self.examples.digest, len(self.examples), weights, self.steps_before]
        if self.validator is not None:
            data.append(as_corpus(self.validator.validation.examples).digest)
        facts = [settings, self.batches, self.layout, self.seed, self.noise_drop, self.shapes, data]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _example_weights(examples: Corpus, factors: Mapping[str, float]) -> NDArray[np.float64]:
    """By which the loss of each example is multiplied, [n]."""
    if not factors:
        return np.ones(len(examples))
    numbers, names = examples.sources()
    return np.array([factors.get(name, 1.0) for name in names])[numbers]


def _named(ids: Sequence[str]) -> str:
    """As `rows a, b and 7 more`."""
    named, more = ", ".join(ids[:_MOST_NAMED]), len(ids) - _MOST_NAMED
    return f"{'row' if len(ids) == 1 else 'rows'} {named}" + (f" and {more} more" if more > 0 else "")


def _mix(seed: int, step: int, rank: int) -> int:
    """A seed for one step on one device."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{step}:{rank}".encode()).digest()[:7], "big")
