"""Every optimizer by name learns and is continued bit for bit; the learning rate goes as it should."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import nn

from medcare.foundation.errors import ConfigError
from medcare.settings.config import Optimizer, RateSchedule, StageConfig
from medcare.text.chat_template import Rendered
from medcare.training.embedding_noise import embedding_noise
from medcare.training.loop import Loop
from medcare.training.optimizers import (
    check_rates,
    gradient_noise,
    learning_rate,
    make_optimizer,
    set_rate,
)
from tests.training.test_loop import STAGE, examples, interrupted_at, loop, rows, stage_one

NAMES = get_args(Optimizer)
NEEDS = {"adamw_8bit": "bitsandbytes", "schedule_free": "schedulefree"}


def settings(name, **changes):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    schedule = "constant" if name == "schedule_free" else "cosine"
    return replace(STAGE, optimizer=name, schedule=schedule, weight_decay=0.01, **changes)


def finished(made):
    made.run("test")
    return {name: parameter.detach().clone() for name, parameter in made.parameters.items()}


@pytest.mark.parametrize("name", NAMES)
def test_each_is_continued_bit_for_bit_and_has_learned(name, tmp_path, monkeypatch):
    if name == "adamw_8bit":  # also for matrices as small as these
        bitsandbytes = pytest.importorskip("bitsandbytes")
        small = functools.partial(bitsandbytes.optim.AdamW8bit, min_8bit_size=1)
        monkeypatch.setattr(bitsandbytes.optim, "AdamW8bit", small)
    stage = settings(name, rates={"lora_B": 4.0}, epochs=3)
    easy = [Rendered(e.ids[:5] + [7] * 4, [False] * 5 + [True] * 4) for e in examples()]
    whole = finished(loop(stage_one(dropout=0.1), stage, tmp_path / "whole", data=easy))
    interrupted_at(loop(stage_one(dropout=0.1), stage, tmp_path / "broken", data=easy), 3)
    resumed = finished(loop(stage_one(dropout=0.1), stage, tmp_path / "broken", data=easy))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    first, *_, last = rows(tmp_path / "whole")
    assert last["loss"] < first["loss"] - 0.1
    for one, other in zip(rows(tmp_path / "whole"), rows(tmp_path / "broken"), strict=True):
        assert one["loss"] == other["loss"]


def test_eight_bits_hold_the_moments_of_large_matrices(tmp_path):
    pytest.importorskip("bitsandbytes")
    wide = {"lora_A": nn.Parameter(torch.randn(64, 64)), "lora_B": nn.Parameter(torch.randn(8, 8))}
    optimizer = make_optimizer(wide, settings("adamw_8bit"))
    for parameter in wide.values():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    kinds = {name: optimizer.state[parameter]["state1"].dtype for name, parameter in wide.items()}
    assert kinds == {"lora_A": torch.uint8, "lora_B": torch.float32}


def test_muon_takes_matrices_and_leaves_the_rest_to_adamw():
    made = {"router": nn.Parameter(torch.randn(4)), "lora_A": nn.Parameter(torch.randn(2, 8))}
    optimizer = make_optimizer(made, settings("muon"))
    for parameter in made.values():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    assert set(optimizer.state[made["lora_A"]]) == {"momentum_buffer"}
    assert set(optimizer.state[made["router"]]) == {"step", "exp_avg", "exp_avg_sq"}


def test_rates_multiply_by_branch_and_by_matrix():
    names = ["layer.branches.noise.lora_A", "layer.branches.noise.lora_B", "layer.branches.knowledge.lora_B"]
    made = {name: nn.Parameter(torch.zeros(1)) for name in names}
    stage = replace(STAGE, rates={"lora_B": 16.0, "noise": 0.5})
    optimizer = make_optimizer(made, stage)
    set_rate(optimizer, 0.01)
    found = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert [found[id(made[name])] for name in names] == pytest.approx([0.005, 0.08, 0.16])
    with pytest.raises(ConfigError, match=r"got lora_C, noisy\. There are: knowledge, lora_A, lora_B, noise"):
        check_rates(names, {"lora_C": 1.0, "noisy": 1.0})


def test_what_needs_whole_matrices_is_not_cut_into_shards():
    with pytest.raises(ConfigError, match="optimizer=muon works on whole matrices"):
        make_optimizer({"a": nn.Parameter(torch.zeros(2, 2))}, settings("muon"), sharded=True)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("medcare.training.optimizers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"schedulefree: pip install 'medcare\[schedule-free\]'"):
        make_optimizer(
            {"a": nn.Parameter(torch.zeros(2))},
            replace(STAGE, optimizer="schedule_free", schedule="constant"),
        )


@pytest.mark.parametrize(
    "changes", [{"schedule": "cosine"}, {"schedule": "constant", "orthogonality": "projection"}]
)
def test_schedule_free_refuses_what_would_act_behind_its_average(changes):
    with pytest.raises(ConfigError, match="schedule_free"):
        StageConfig(optimizer="schedule_free", **changes)


@pytest.mark.parametrize("schedule", get_args(RateSchedule))
def test_every_schedule_warms_up_and_ends_where_it_says(schedule):
    stage = replace(STAGE, learning_rate=1.0, warmup=0.1, schedule=schedule)
    rates = [learning_rate(step, 100, stage) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    falling = [a > b for a, b in itertools.pairwise(rates[10:])]
    stays = {"constant": 89, "wsd": 70}.get(schedule, 0)
    assert [place for place, falls in enumerate(falling) if falls] == list(range(stays, 89))
    assert rates[-1] == 1.0 if schedule == "constant" else rates[-1] < 0.02


@pytest.mark.parametrize("schedule", get_args(RateSchedule))
def test_a_tail_goes_on_where_the_former_steps_ended(schedule):
    stage = replace(STAGE, schedule=schedule)
    whole = [learning_rate(step, 100, stage) for step in range(100)]
    assert [learning_rate(step, 40, stage, before=60) for step in range(40)] == whole[60:]


def test_the_gradients_noise_is_found_in_adamws_moments():
    """Gradients of a known mean and variance."""
    draw = torch.Generator().manual_seed(0)
    parameter = nn.Parameter(torch.zeros(4000))
    optimizer = torch.optim.AdamW([parameter], lr=0.0)
    for _ in range(300):
        parameter.grad = 0.5 + 2.0 * torch.randn(4000, generator=draw)
        optimizer.step()
    # A step of 100 tokens has noise of variance 4 beside a gradient of 0.25: equal at 1,600 tokens.
    assert gradient_noise(optimizer, 100) == pytest.approx(1600, rel=0.1)
    assert gradient_noise(torch.optim.SGD([parameter]), 100) is None


def test_embedding_noise_is_there_in_training_and_gone_afterwards(tmp_path):
    stage = replace(STAGE, neftune=20.0, learning_rate=1e-30)
    made = loop(stage_one(), stage, tmp_path / "noisy", data=examples(2))
    made.steps = (((0, 1),),) * 4
    made.run("noisy")
    assert len({row["loss"] for row in rows(tmp_path / "noisy")}) == 4
    assert not made.model.get_input_embeddings()._forward_hooks
    embeddings = made.model.get_input_embeddings()
    ids = torch.tensor([[3, 4, 5]])
    with embedding_noise(embeddings.train(), 6.0):
        moved = embeddings(ids) - embeddings.weight[ids]
    most = 6.0 / math.sqrt(3 * embeddings.weight.shape[1])
    assert 0.9 * most < moved.abs().max() <= most


@pytest.mark.parametrize("layout", ["grouped", "packed"])
def test_a_weight_of_two_is_the_row_twice(tmp_path, layout):
    """Loss and gradient of a step are those of data in which the heavy source's rows stand twice."""
    data = [replace(e, source="heavy" if n % 2 else "light") for n, e in enumerate(examples(6))]
    doubled = [*data, *(example for example in data if example.source == "heavy")]
    stage = replace(STAGE, batching=layout, tokens_per_batch=1000, clip=1e9, learning_rate=1e-3)
    results = {}
    for name, given, weights in (("weighed", data, {"heavy": 2.0}), ("twice", doubled, {})):
        made = loop(stage_one(), replace(stage, source_weights=weights), tmp_path / name, data=given)
        made.steps = ((tuple(range(len(given))),),)
        made.run("test")
        [row] = rows(tmp_path / name)
        results[name] = row["loss"], row["grad_norm"]
    assert results["weighed"] == pytest.approx(results["twice"], rel=1e-5)


def with_a_broken_row(stage, folder):
    """A loop over rows of which the fifth's loss is no number, whatever it is batched with."""
    data = named()
    data[5] = replace(data[5], ids=[95, *data[5].ids[1:]])
    made = loop(stage_one(), stage, folder, data=data)
    nll = made.nll

    def broken(batch):
        loss = nll(batch)
        hit = (batch.inputs["input_ids"] == 95).any()
        return loss * float("nan") if hit else loss

    made.nll = broken
    return made


def named(count=16):
    return [replace(example, id=f"row-{n}") for n, example in enumerate(examples(count))]


def test_a_batch_without_a_finite_loss_stops_with_the_row_at_fault(tmp_path):
    made = with_a_broken_row(STAGE, tmp_path)
    with pytest.raises(Exception, match=r"diverged in step \d+ .*, row row-5\. .*nonfinite=skip"):
        made.run("test")


def test_or_is_left_out_with_the_row_at_fault(tmp_path, capsys):
    made = with_a_broken_row(replace(STAGE, nonfinite="skip"), tmp_path)
    made.run("test")
    found = rows(tmp_path)
    assert [row["skipped"] for row in found if "skipped" in row] == [["row-5"]] * 2  # once an epoch
    assert capsys.readouterr().err.count("row row-5.") == 2
    assert all(torch.isfinite(parameter).all() for parameter in made.parameters.values())
    assert all(("loss" in row) != ("skipped" in row) for row in found)
    assert all(math.isfinite(row["loss"]) for row in found if "loss" in row)


def test_a_model_that_is_broken_is_not_skipped_for_ever(tmp_path):
    made = loop(stage_one(), replace(STAGE, nonfinite="skip", epochs=20), tmp_path, data=named())
    next(iter(made.parameters.values())).data.fill_(float("inf"))
    with pytest.raises(Exception, match="diverged in step 11 of"):
        made.run("test")


def test_a_spike_is_told_with_its_step(tmp_path, capsys):
    made: Loop = loop(stage_one(), replace(STAGE, learning_rate=1e-30), tmp_path, data=named(2))
    made.steps = (((0, 1),),) * 40
    nll = made.nll
    made.nll = lambda batch: nll(batch) * (3 if len(made_steps) == 37 else 1)
    made_steps = []
    step = made._step
    made._step = lambda number, meter: (made_steps.append(number), step(number, meter))[1]
    made.run("test")
    assert [row["step"] for row in rows(tmp_path) if "spikes" in row] == [37]
    assert "Step 37: loss" in capsys.readouterr().err
