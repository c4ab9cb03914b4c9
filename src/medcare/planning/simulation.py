"""A training step without its numbers: the loop's own code on fake tensors, for any model and any devices.

A fake tensor has shape, dtype and device but no memory, so that a step of a 14B model runs on a laptop.
What the step makes, frees and computes is counted as it happens: nothing here knows how much memory an
attention layer needs. FSDP2 and DDP run on torch's fake process group, as process 0 of any number.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medcare.adapters.branches import trained_in
from medcare.adapters.tuner import add_branches, trainable, trained_parameters
from medcare.foundation.errors import MedCareError, PlanError, first_line
from medcare.models.traits import Head, LogitRule, Traits
from medcare.planning.counting import Flops, KnownCounts, TimeLimit
from medcare.planning.fake_devices import FakeAccelerator, Sharing, layers_of, process_group
from medcare.planning.ledger import Ledger
from medcare.planning.quantized import Kernels, stand_in
from medcare.settings.config import Layout, RunConfig, Stage
from medcare.text.chat_template import Rendered
from medcare.training.loop import Loop
from medcare.training.meter import Meter

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


_SECONDS = 120  # for one step; those of known families take a few


@dataclass(frozen=True)
class Setup:
    """All that a step depends on besides depth and batch.

    Attributes:
        model: the base model's configuration, as transformers reads it.
        config: the settings.
        stage: which stage.
        dtype: of the frozen weights.
        layout: `grouped` rows of `length` tokens, or one `packed` row.
        length: tokens of a grouped row.
        supervised: share of the tokens that the loss covers.
        sharing: how the devices share the work.
        devices: how many.
        kernels: whose code a quantised base runs; that for processors differs, and can be measured anywhere.
    """

    model: PretrainedConfig
    config: RunConfig
    stage: Stage
    dtype: torch.dtype
    layout: Layout = "packed"
    length: int = 3072
    supervised: float = 0.5
    sharing: Sharing = "single"
    devices: int = 1
    kernels: Kernels = "gpu"


@dataclass(frozen=True)
class Step:
    """What one step of one device takes.

    Attributes:
        parts: bytes by kind at the fullest moment of each part of the step.
        flops: floating-point operations.
        frozen: parameters that don't train, of the whole model.
        trained: parameters that train, of the whole model.
    """

    parts: dict[str, Counter[str]]
    flops: int
    frozen: int
    trained: int

    @property
    def peak(self) -> Counter[str]:
        """Bytes by kind at the fullest moment."""
        return max(self.parts.values(), key=lambda part: part.total())


def simulate(setup: Setup, layers: int, rows: tuple[int, ...], micro_batches: int = 1) -> Step:
    """Run one step of a stage on fake tensors.

    Args:
        setup: the model and how it trains; its accumulation and batches are those of the other arguments.
        layers: the depth, in the place of the model's own.
        rows: the lengths of the examples in each micro-batch.
        micro_batches: of the step, on each device.

    Raises:
        PlanError: the model can't be built or run on fake tensors, or takes too long.
    """
    try:
        return _simulate(setup, layers, rows, micro_batches)
    except MedCareError:
        raise
    except Exception as error:  # whatever the model's own code raises when it meets a tensor without numbers
        raise PlanError(
            f"A step of {setup.model.model_type} can't be simulated without its weights: "
            f"{first_line(error)}. "
            "Plan with a base of a like shape out of the list (medcare plan --help)."
        ) from error


def _simulate(setup: Setup, layers: int, rows: tuple[int, ...], micro_batches: int) -> Step:
    from torch._subclasses.fake_tensor import FakeTensorMode

    ledger, flops = Ledger(), Flops()
    examples = [Rendered([0] * length, _mask(length, setup.supervised)) for length in rows]
    with ExitStack() as stack:
        mesh = stack.enter_context(process_group(setup.devices))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(TimeLimit(_SECONDS))
        stack.enter_context(KnownCounts(sum(sum(example.mask[1:]) for example in examples)))
        model = _model(setup, layers)
        sizes = Counter({True: 0, False: 0})
        for parameter in model.parameters():
            sizes[parameter.requires_grad] += parameter.numel()
        stand_in(model, setup.config.model.quantization, setup.kernels)
        loop = _loop(model, setup, examples, FakeAccelerator(mesh, setup.sharing, ledger))
        loop.steps = ((tuple(range(len(rows))),) * (micro_batches * setup.devices),)
        _watch(loop, ledger)
        stack.enter_context(ledger)
        stack.enter_context(flops)
        loop._step(0, Meter())
    return Step(ledger.parts, flops.total, sizes[False], sizes[True])


def _model(setup: Setup, layers: int) -> PreTrainedModel:
    """The model of a stage with its branches, as `stages` prepares it."""
    from transformers import AutoModelForCausalLM

    config, stage = setup.config, setup.stage
    text = setup.model.get_text_config()  # of a model for images too, what trains is its language model
    changed = type(text).from_dict({**text.to_dict(), **_depth(text, layers)})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(changed, dtype=setup.dtype)
    if stage == "align":
        add_branches(model, "aggregate", replace(config.adapters, experts=0, attention=()))
    add_branches(model, stage, config.adapters)
    trainable(model, trained_in(stage, train_knowledge=config.align.train_knowledge))
    if config.stage(stage).gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    return model


def _mask(length: int, supervised: float) -> list[bool]:
    """The end of an example is supervised: the answer."""
    return [position >= length * (1 - supervised) for position in range(length)]


def _depth(model_config: PretrainedConfig, layers: int) -> dict[str, Any]:
    """The depth, and every list with an entry for each layer, such as `layer_types`, cut to it."""
    former = model_config.num_hidden_layers
    lists = {
        name: (list(value) * layers)[:layers]
        for name, value in model_config.to_dict().items()
        if isinstance(value, list) and len(value) == former
    }
    return {**lists, "num_hidden_layers": layers}


class _Assumed(Traits):
    """What can't be tried without numbers: that the loss is made in pieces, whatever they are scaled with."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        cap = getattr(model.config, "final_logit_softcapping", None)
        self.head = Head(model.base_model, LogitRule(cap=cap))
        self.separates_padded_rows = self.separates_packed_rows = True


def _loop(model: PreTrainedModel, setup: Setup, examples: list[Rendered], devices: FakeAccelerator) -> Loop:
    return Loop(
        model,
        trained_parameters(model),
        examples,
        setup.config.stage(setup.stage),
        seed=0,
        folder=Path("/nonexistent"),
        pad_id=0,
        traits=_Assumed(model),
        accelerator=devices,  # what the loop needs of accelerate's
    )


def _watch(loop: Loop, ledger: Ledger) -> None:
    """Tell the kinds of bytes apart, and the parts of the step."""
    ledger.count(loop.model.buffers(), "weights")
    for parameter in loop.model.parameters():
        ledger.count([parameter], "adapters" if parameter.requires_grad else "weights")
    for parameter in loop.parameters.values():
        # A run's later steps begin with the moments in place.
        zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        loop.optimizer.state[parameter] = {"step": torch.ones(()), **zeros}
        ledger.count(zeros.values(), "optimizer")
        parameter.register_post_accumulate_grad_hook(lambda p: ledger.count([p.grad], "gradients"))
    body = loop.model.base_model
    body.register_forward_pre_hook(lambda *_: ledger.part("forward"))
    ledger.watch(body, "activations")
    for name, module in loop.model.named_modules():
        if name.rpartition(".")[2] in ("self_attn", "attn", "attention"):
            ledger.watch(module, "attention")
    body.register_forward_hook(lambda *_: setattr(ledger, "kind", "logits"))
    body.register_forward_hook(lambda *_: ledger.part("loss"))
    layers = layers_of(loop.model)
    for number, layer in enumerate(layers):
        layer.register_forward_hook(_marks(ledger, number, len(layers)))


def _marks(ledger: Ledger, number: int, layers: int) -> Any:
    """Mark where the backward pass enters a layer: when the gradient of its output is there."""
    name = {layers - 1: "backward, last layer", 0: "backward, first layer"}.get(number, "backward")

    def enter(_: Tensor) -> None:
        ledger.kind = "temporary"
        ledger.part(name)

    def mark(_module: nn.Module, _inputs: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.requires_grad:
            hidden.register_hook(enter)

    return mark
