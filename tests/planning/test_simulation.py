"""Simulated steps against real ones, and shallow ones against deep ones."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import AutoConfig, AutoModelForCausalLM

from medcare.adapters.branches import trained_in
from medcare.adapters.tuner import add_branches, trainable
from medcare.foundation.errors import PlanError
from medcare.models.quantized import quantize
from medcare.planning.counting import TimeLimit
from medcare.planning.estimate import Estimator
from medcare.planning.simulation import Setup, simulate
from medcare.settings.config import AdapterConfig, ModelConfig, RunConfig, StageConfig
from medcare.text.chat_template import Rendered
from medcare.training.loop import Loop
from medcare.training.meter import Meter

LAYERS = 4  # one more than the deeper of the two from which depths are reckoned
MODEL = AutoConfig.for_model(
    "qwen2", hidden_size=64, intermediate_size=192, num_hidden_layers=LAYERS, num_attention_heads=4,
    num_key_value_heads=2, vocab_size=600,
)  # fmt: skip
LENGTHS = (96, 80, 64)


def settings(stage="aggregate", **changes):
    made = StageConfig(batching="packed", orthogonality="none" if stage == "aggregate" else "l1")
    return replace(RunConfig(adapters=AdapterConfig(rank=4, alpha=8)), **{stage: replace(made, **changes)})


def real_loop(stage, config):
    """A loop of two steps on a real model."""
    model = AutoModelForCausalLM.from_config(MODEL, dtype=torch.float32)
    if stage == "aggregate":
        add_branches(model, "aggregate", config.adapters)
    else:
        add_branches(model, "aggregate", replace(config.adapters, experts=0, attention=()))
        add_branches(model, "align", config.adapters)
    quantize(model, config.model.quantization)
    parameters = trainable(model, trained_in(stage, train_knowledge=config.align.train_knowledge))
    if config.stage(stage).gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    examples = [Rendered([3] * n, [2 * position >= n for position in range(n)]) for n in LENGTHS]
    folder = Path("/nonexistent")
    loop = Loop(model.train(), parameters, examples, config.stage(stage), seed=0, folder=folder, pad_id=0)
    batch = tuple(range(len(examples)))
    loop.steps = ((batch,) * config.stage(stage).accumulation,) * 2
    return loop


def measured(stage, config):
    """The profiler's peak of the second of two real steps, in bytes, with all that was there before.

    Garbage in circles is collected where it is said here, else the peak would hang on what ran before.
    """
    gc.collect()
    gc.disable()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            loop = real_loop(stage, config)
            loop._step(0, Meter())
            gc.collect()
            mark = torch.ones(12_345, dtype=torch.uint8)  # found again among the events
            loop._step(1, Meter())
            del mark
    finally:
        gc.enable()
    alive = peak = 0
    second = False
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        second = second or event.nbytes() == 12_345
        peak = max(peak, alive) if second else peak
    return peak


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("aggregate", {}),
        ("aggregate", {"gradient_checkpointing": True}),
        ("aggregate", {"accumulation": 2}),
        ("align", {}),
        ("align", {"orthogonality": "projection"}),
    ],
)
def test_a_simulated_step_takes_the_memory_of_a_real_one(stage, changes):
    config = settings(stage, **changes)
    accumulation = config.stage(stage).accumulation
    step = simulate(Setup(MODEL, config, stage, torch.float32), LAYERS, (sum(LENGTHS),), accumulation)
    assert step.peak.total() == pytest.approx(measured(stage, config), rel=0.05)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_quantised_step_takes_the_memory_of_a_real_one(kind, checkpointing):
    pytest.importorskip("bitsandbytes")
    config = settings(gradient_checkpointing=checkpointing)
    config = replace(config, model=ModelConfig(quantization=kind))
    setup = Setup(MODEL, config, "aggregate", torch.float32, kernels="processor")
    step = simulate(setup, LAYERS, (sum(LENGTHS),))
    assert step.peak.total() == pytest.approx(measured("aggregate", config), rel=0.05)


@pytest.mark.parametrize("scaling", [1.0, 8.0])
def test_logits_are_made_in_pieces_whatever_scales_them(scaling):
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    shape = {name: getattr(MODEL, name) for name in names}
    model = AutoConfig.for_model("granite", **shape, vocab_size=20_000, logits_scaling=scaling)
    step = simulate(Setup(model, settings(), "aggregate", torch.float32), 2, (4096,))
    assert 0 < step.peak["logits"] < 2.9 * 4 * 2048 * 20_000


@pytest.mark.parametrize(("sharing", "devices"), [("single", 1), ("ddp", 4), ("fsdp2", 4)])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_two_shallow_models_give_the_deep_one(sharing, devices, checkpointing):
    config = settings(gradient_checkpointing=checkpointing)
    setup = Setup(MODEL, config, "aggregate", torch.float32, "packed", 240, 0.5, sharing, devices)
    estimate = Estimator(setup).step(240)
    whole = simulate(setup, LAYERS, (240,))
    assert estimate.peak.total() == pytest.approx(whole.peak.total(), rel=0.03)
    assert (estimate.flops, estimate.frozen, estimate.trained) == (whole.flops, whole.frozen, whole.trained)


def test_shares_of_more_devices_are_smaller():
    def static(devices):
        setup = Setup(MODEL, settings(), "aggregate", torch.float32, sharing="fsdp2", devices=devices)
        peak = simulate(setup, 2, (64,)).peak
        return peak["weights"] + peak["adapters"] + peak["optimizer"]

    whole = static(2)
    assert static(8) == pytest.approx(whole / 4, rel=0.1)


def test_operations_of_a_linear_stack_are_those_on_paper():
    """Stage 2: forward and input gradient of each W, forward and both gradients of the branches."""
    config = settings("align")
    setup = Setup(MODEL, config, "align", torch.float32)
    step, longer = (simulate(setup, 2, (length,)) for length in (128, 256))
    frozen = 2 * (64 * (64 + 2 * 32) + 64 * 64 + 3 * 64 * 192)
    branches = 2 * 2 * 3 * 8 * (64 + 192)
    head = 64 * 600 // 2  # half of the positions
    expected = 128 * (4 * frozen + 6 * branches + 4 * head)
    assert step.flops == pytest.approx(expected, rel=0.12)  # attention, and no gradient below the first layer
    assert longer.flops > 2 * step.flops  # attention grows with the square


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("stage", ["aggregate", "align"])
def test_operations_are_those_that_torch_counts_in_a_real_step(stage, checkpointing):
    """Frozen linears: forward and gradient of the input; branches: those and their own gradients."""
    config, aten = settings(stage, gradient_checkpointing=checkpointing), torch.ops.aten

    # Attention on a processor, which torch's counter does not know.
    def forward(query, key, value, *_, **__):
        return sdpa_flop_count(query, key, value)

    def backward(gradient, query, key, value, *_, **__):
        return sdpa_backward_flop_count(gradient, query, key, value)

    known = {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    loop = real_loop(stage, config)
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        loop._step(0, Meter())
    step = simulate(Setup(MODEL, config, stage, torch.float32), LAYERS, LENGTHS)
    assert step.flops == counter.get_total_flops()


def test_recomputing_costs_about_a_forward_pass_and_saves_activations():
    kept = simulate(Setup(MODEL, settings(), "aggregate", torch.float32), 2, (512,))
    checkpointing = settings(gradient_checkpointing=True)
    again = simulate(Setup(MODEL, checkpointing, "aggregate", torch.float32), 2, (512,))
    assert 1.2 < again.flops / kept.flops < 1.6
    assert again.peak["activations"] < 0.4 * kept.peak["activations"]


def test_of_a_model_for_images_the_language_model_is_simulated():
    text = AutoConfig.for_model("gemma3").get_text_config()
    sizes = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 34, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 600, "layer_types": None,
    }  # fmt: skip
    shrunk = type(text).from_dict({**text.to_dict(), **sizes})
    whole = AutoConfig.for_model("gemma3", text_config=shrunk.to_dict())
    setups = [Setup(model, settings(), "aggregate", torch.float32) for model in (whole, shrunk)]
    step, other = (simulate(setup, 2, (32, 32)) for setup in setups)
    assert step == other
    assert step.frozen < 600 * 64 * 2 + 2 * 64 * 64 * 16  # two layers, not the 34 of the configuration


@pytest.mark.parametrize("kind", ["qwen2", "qwen2_5_vl"])
def test_a_model_that_can_not_be_simulated_is_told_so(kind):
    broken = AutoConfig.for_model(kind)
    broken.get_text_config().num_attention_heads = 0
    with pytest.raises(PlanError, match=rf"{kind} can't be simulated(.|\n)*Plan with a base"):
        simulate(Setup(broken, settings(), "aggregate", torch.float32), 2, (32,))


def test_a_simulation_ends_at_its_limit():
    with TimeLimit(-1), pytest.raises(PlanError, match="still being simulated"):
        torch.zeros(3) + 1
