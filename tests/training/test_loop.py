"""However a step is cut, loss and gradient are the same; an interrupted run ends as an uninterrupted one."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from medcare.adapters.tuner import add_branches, remove_branch, trainable
from medcare.foundation.errors import ConfigError, FolderError, TrainingError
from medcare.foundation.storage import read_jsonl
from medcare.models.tensor_files import load_metadata, load_tensors, save_tensors
from medcare.settings.config import AdapterConfig, StageConfig
from medcare.text.chat_template import Rendered
from medcare.training.devices import expert_loads
from medcare.training.loop import Loop
from medcare.training.meter import Meter
from medcare.training.optimizers import learning_rate
from medcare.training.state import _digest, last_checkpoint
from tests.conftest import tiny_model
from tests.forked import started
from tests.models.families import tiny_family

ADAPTERS = AdapterConfig(rank=2, alpha=4, experts=4, top_k=2, dropout=0.0)
STAGE = StageConfig(
    epochs=2,
    learning_rate=1e-2,
    tokens_per_batch=64,
    log_every=1,
    orthogonality="none",
    checkpoint_seconds=1e9,
)


def examples(count=16):
    draw = torch.Generator().manual_seed(4)
    made = []
    for index in range(count):
        length = 6 + (5 * index) % 11
        ids = torch.randint(3, 90, (length,), generator=draw).tolist()
        made.append(Rendered(ids, [position > 2 + index % 3 for position in range(length)]))
    return made


def stage_one(dropout=0.0):
    model = tiny_model("llama")
    add_branches(model, "aggregate", replace(ADAPTERS, dropout=dropout))
    return model, trainable(model, ["knowledge", "noise", "attention"])


def stage_two(train_knowledge=True):
    model, _ = stage_one()
    remove_branch(model, "noise")
    remove_branch(model, "attention")
    add_branches(model, "align", ADAPTERS)
    torch.manual_seed(6)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.05)
    return model, trainable(model, ["knowledge", "alignment"] if train_knowledge else ["alignment"])


def loop(made, stage, folder, data=None, seed=3):
    model, parameters = made
    return Loop(model, parameters, data or examples(), stage, seed=seed, folder=folder, pad_id=0)


def run(made, stage, folder, **options):
    loop(made, stage, folder, **options).run("test")
    return {name: parameter.detach().clone() for name, parameter in made[1].items()}


def rows(folder):
    return list(read_jsonl(folder / "metrics.jsonl"))


def assert_same(first, second, atol=0.0):
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=atol)


@pytest.mark.parametrize("orthogonality", ["l1", "frobenius", "projection", "none"])
def test_four_accumulated_batches_are_one_large_one(tmp_path, orthogonality):
    """The same eight examples of unequal lengths, as one batch of 8 and as 4 of 2: both terms of the loss."""
    stage = replace(
        STAGE, epochs=1, orthogonality=orthogonality, orthogonality_weight=0.5, learning_rate=1e-3
    )
    large = loop(stage_two(), stage, tmp_path / "large", data=examples(8))
    large.steps = ((tuple(range(8)),),) * 3
    small = loop(stage_two(), stage, tmp_path / "small", data=examples(8))
    small.steps = (((0, 1), (2, 3), (4, 5), (6, 7)),) * 3
    large.run("large")
    small.run("small")
    for one, other in zip(rows(tmp_path / "large"), rows(tmp_path / "small"), strict=True):
        for key in ("loss", "grad_norm", "orthogonality", "cosine"):
            assert one[key] == pytest.approx(other[key], rel=1e-5, abs=1e-6), key
    assert_same(dict(large.parameters), dict(small.parameters), atol=2e-6)


def test_the_gradient_of_a_step_is_that_of_the_written_out_loss(tmp_path):
    model, parameters = stage_two()
    stage = replace(STAGE, orthogonality="l1", orthogonality_weight=0.25, clip=1e9)
    made = loop((model, parameters), stage, tmp_path, data=examples(4))
    made.steps = (((0, 1), (2, 3)),)
    gradients = {}
    made.optimizer.step = lambda: gradients.update({n: p.grad.clone() for n, p in parameters.items()})
    made.run("test")
    total, count = 0.0, 0
    for example in examples(4):
        ids = torch.tensor([example.ids])
        kept = torch.tensor(example.mask)[1:]
        logs = model(ids).logits[0, :-1].log_softmax(-1)
        total = total - logs.gather(1, ids[0, 1:, None])[kept, 0].sum()
        count += int(kept.sum())
    penalty = 0.0
    for layer in model.model.layers:
        for linear in (layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj):
            knowledge, alignment = linear.branches["knowledge"].lora_A, linear.branches["alignment"].lora_A
            penalty = penalty + (knowledge @ alignment.T).abs().sum()
    model.zero_grad()
    (total / count + 0.25 * penalty).backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_a_run_is_adamw_with_warm_up_cosine_clipping_and_decay_as_written_out_here(tmp_path):
    model, parameters = stage_two()
    model.double()
    stage = replace(STAGE, epochs=3, learning_rate=0.01, warmup=0.2, weight_decay=0.1, clip=0.05)
    made = loop((model, parameters), stage, tmp_path, data=examples(4))
    steps = 10
    made.steps = (((0, 1), (2, 3)),) * steps
    other, wanted = stage_two()
    other.double()
    for name, parameter in wanted.items():
        assert torch.equal(parameter, parameters[name])
    made.run("test")
    first = {name: torch.zeros_like(parameter) for name, parameter in wanted.items()}
    second = {name: torch.zeros_like(parameter) for name, parameter in wanted.items()}
    clipped = 0
    for step in range(steps):
        other.zero_grad()
        total, count = 0.0, 0
        for example in examples(4):
            ids, kept = torch.tensor([example.ids]), torch.tensor(example.mask)[1:]
            logs = other(ids).logits[0, :-1].log_softmax(-1)
            total = total - logs.gather(1, ids[0, 1:, None])[kept, 0].sum()
            count += int(kept.sum())
        (total / count).backward()
        norm = sum(float(parameter.grad.square().sum()) for parameter in wanted.values()) ** 0.5
        clipped += norm > 0.05
        warm = 2  # a fifth of ten steps
        rate = 0.01 * (
            (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / 8))
        )
        with torch.no_grad():
            for name, parameter in wanted.items():
                gradient = parameter.grad * min(1.0, 0.05 / (norm + 1e-6))
                first[name].mul_(0.9).add_(0.1 * gradient)
                second[name].mul_(0.999).add_(0.001 * gradient.square())
                mean = first[name] / (1 - 0.9 ** (step + 1))
                spread = (second[name] / (1 - 0.999 ** (step + 1))).sqrt()
                parameter.mul_(1 - rate * 0.1)
                parameter.sub_(rate * mean / (spread + 1e-8))
    assert clipped == steps
    for name, parameter in wanted.items():
        torch.testing.assert_close(parameters[name], parameter, rtol=0, atol=1e-8)


def test_each_step_draws_its_own_dropout_and_the_model_answers_without_afterwards(tmp_path):
    """Nothing learns here, and every step sees the same examples: only the draws differ."""
    made = loop(stage_one(dropout=0.5), replace(STAGE, learning_rate=1e-30), tmp_path, data=examples(2))
    for name, parameter in made.model.named_parameters():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.5)
    made.steps = (((0, 1),),) * 4
    made.run("test")
    assert len({row["loss"] for row in rows(tmp_path)}) == 4
    assert not any(module.training for module in made.model.modules())


def test_projection_keeps_the_branches_orthogonal_to_round_off(tmp_path):
    run(stage_two(), replace(STAGE, orthogonality="projection"), tmp_path)
    assert all(row["cosine"] < 1e-6 for row in rows(tmp_path))
    run(stage_two(), STAGE, tmp_path / "free")
    assert rows(tmp_path / "free")[-1]["cosine"] > 1e-2


def test_the_penalty_makes_the_branches_more_orthogonal(tmp_path):
    for kind in ("l1", "frobenius"):
        stage = replace(STAGE, orthogonality=kind, epochs=4)
        run(stage_two(), stage, tmp_path / kind)
        first, *_, last = rows(tmp_path / kind)
        assert last["orthogonality"] < first["orthogonality"]


def interrupted_at(made, stop):
    """Runs until Ctrl-C comes in this step."""
    step = made._step

    def interrupted(number, meter):
        if number == stop:
            os.kill(os.getpid(), signal.SIGINT)
        return step(number, meter)

    made._step = interrupted
    with pytest.raises(KeyboardInterrupt):
        made.run("interrupted")


@pytest.mark.parametrize("stop", [0, 3, 6])
def test_a_run_stopped_and_continued_ends_bit_for_bit_as_one_that_ran_through(tmp_path, stop):
    whole = run(stage_one(dropout=0.1), STAGE, tmp_path / "whole")

    made = stage_one(dropout=0.1)
    broken = loop(made, STAGE, tmp_path / "broken")
    interrupted_at(broken, stop)
    assert len(rows(tmp_path / "broken")) == stop + 1
    resumed = run(stage_one(dropout=0.1), STAGE, tmp_path / "broken")
    assert_same(whole, resumed)
    for one, other in zip(rows(tmp_path / "whole"), rows(tmp_path / "broken"), strict=True):
        assert (one["step"], one["loss"], one["router_load"]) == (
            other["step"],
            other["loss"],
            other["router_load"],
        )


def test_ctrl_c_after_the_last_step_is_not_lost(tmp_path, monkeypatch):
    whole = run(stage_one(), STAGE, tmp_path / "whole")
    made = loop(stage_one(), STAGE, tmp_path / "late")
    steps, asked = len(made.steps), []

    def late(accelerator, stop, save):
        asked.append(stop)
        if len(asked) == steps:  # it comes just after the last step has looked
            os.kill(os.getpid(), signal.SIGINT)
        return stop, save

    monkeypatch.setattr("medcare.training.loop.agree", late)
    with pytest.raises(KeyboardInterrupt):
        made.run("late")
    monkeypatch.undo()
    assert_same(whole, run(stage_one(), STAGE, tmp_path / "late"))


def test_a_resumed_run_logs_what_one_that_ran_through_logs(tmp_path):
    """Also where it was stopped between two rows, and after the last step."""
    stage = replace(STAGE, log_every=3, learning_rate=1e-3)
    steps = len(loop(stage_one(), stage, tmp_path / "none").steps)
    result = loop(stage_one(), stage, tmp_path / "whole").run("whole")
    for stop in (1, 4, steps - 1):
        folder = tmp_path / f"stop{stop}"
        broken = loop(stage_one(), stage, folder)
        interrupted_at(broken, stop)
        resumed = loop(stage_one(), stage, folder).run("resumed")
        assert (resumed["loss"], resumed["tokens"]) == (result["loss"], result["tokens"])
        elapsed = [row["elapsed"] for row in rows(folder)]
        assert elapsed == sorted(elapsed), "the seconds of both calls"
        assert resumed["seconds"] >= elapsed[-1]
        untimed = [
            [
                {k: v for k, v in row.items() if k not in ("elapsed", "tokens_per_second", "memory_gib")}
                for row in rows(path)
            ]
            for path in (tmp_path / "whole", folder)
        ]
        assert untimed[0] == untimed[1]


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_training_that_diverges_stops_and_keeps_the_checkpoint_from_before(tmp_path, what):
    made = loop(stage_one(), replace(STAGE, checkpoint_seconds=0.0), tmp_path)
    step, clip = made._step, made.accelerator.clip_grad_norm_
    seen = []

    def poisoned(number, meter):
        seen.append((tmp_path / "checkpoints").exists())
        if number == 3 and what == "loss":
            next(iter(made.parameters.values())).data.fill_(float("inf"))
        if number == 3 and what == "gradient":
            made.accelerator.clip_grad_norm_ = lambda *args: clip(*args) * float("inf")
        return step(number, meter)

    made._step = poisoned
    try:
        with pytest.raises(TrainingError, match=r"diverged in step 4 of \d+: .*(nan|inf).*learning_rate"):
            made.run("test")
    finally:
        made.accelerator.clip_grad_norm_ = clip
    assert seen == [False, True, True, True]
    kept = last_checkpoint(tmp_path)
    assert kept.facts.step == 3
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3]
    assert all(torch.isfinite(t).all() for t in load_file(kept.path).values())


def wait_in_step_6(folder):
    made = loop(stage_one(dropout=0.1), replace(STAGE, checkpoint_seconds=0.0), folder)
    step = made._step

    def report(number, meter):
        if number == 6:
            print("now", file=sys.stderr)
            time.sleep(60)
        return step(number, meter)

    made._step = report
    made.run("killed")


def test_a_killed_run_is_continued_exactly(tmp_path):
    stage = replace(STAGE, checkpoint_seconds=0.0)
    whole = run(stage_one(dropout=0.1), stage, tmp_path / "whole")
    with started(wait_in_step_6, tmp_path / "killed") as (_, told):
        assert "now\n" in told
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 7, "lo')  # what a kill in the middle of a write leaves
    assert_same(whole, run(stage_one(dropout=0.1), stage, tmp_path / "killed"))
    ours, theirs = ([(row["step"], row["steps"]) for row in rows(tmp_path / n)] for n in ("killed", "whole"))
    assert ours == theirs
    assert {steps for _, steps in ours} == {ours[-1][0]}, "each row says how many steps there will be"


def test_a_checkpoint_of_other_settings_or_data_is_refused(tmp_path):
    made = loop(stage_one(), STAGE, tmp_path)
    made._save(2, made._key(), Meter())
    for other in (
        loop(stage_one(), replace(STAGE, learning_rate=1e-3), tmp_path),
        loop(stage_one(), STAGE, tmp_path, seed=4),
        loop(stage_one(), STAGE, tmp_path, data=examples(12)),
    ):
        with pytest.raises(FolderError, match="other settings or data"):
            other.run("other")


@pytest.mark.parametrize("damaged", [1, 2], ids=["the last", "both"])
def test_a_damaged_checkpoint_is_told_and_passed_over(tmp_path, capsys, damaged):
    whole = run(stage_one(), STAGE, tmp_path / "whole")
    often = replace(STAGE, checkpoint_seconds=0.0)
    broken = loop(stage_one(), often, tmp_path)
    step = broken._step

    def stopped(number, meter):
        if number == 5:
            raise TrainingError("stop")
        return step(number, meter)

    broken._step = stopped
    with pytest.raises(TrainingError):
        broken.run("broken")
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"4.safetensors", "5.safetensors"}
    for path in sorted((tmp_path / "checkpoints").iterdir(), reverse=True)[:damaged]:
        tear(path)
    capsys.readouterr()
    begun = []
    resumed = loop(made := stage_one(), often, tmp_path)
    resumed._step = lambda number, meter: begun.append(number) or Loop._step(resumed, number, meter)
    resumed.run("resumed")
    assert begun[0] == (4 if damaged == 1 else 0)
    assert capsys.readouterr().err.count("is damaged or can't be read") == damaged
    assert_same(whole, {name: parameter.detach() for name, parameter in made[1].items()})


def tear(path):
    """One bit of a tensor, so that the file is read without an error."""
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", "-1"),
        ("step", "\u00b2"),
        ("groups", "[[]]"),
        ("groups", "["),
        ("meter", '{"nll": "x"}'),
        ("meter", "[" * 100_000),
        ("loads", '[["a"]]'),
        ("layout", "sideways"),
        ("fused", "3"),
    ],
)
def test_a_checkpoint_of_someone_elses_that_says_nonsense_is_passed_over(tmp_path, capsys, name, value):
    """Anyone can write a right hash of it."""
    made = loop(stage_one(), STAGE, tmp_path)
    made._save(2, made._key(), Meter())
    checkpoint = last_checkpoint(tmp_path)
    assert checkpoint is not None
    facts, tensors = load_metadata(checkpoint.path), load_tensors(checkpoint.path)
    del facts["sha256"]
    facts[name] = value
    save_tensors(checkpoint.path, tensors, {**facts, "sha256": _digest(tensors, facts)})
    assert last_checkpoint(tmp_path) is None
    assert "is damaged or can't be read" in capsys.readouterr().err


def test_every_bit_of_a_checkpoint_counts(tmp_path):
    """A flipped bit anywhere is noticed, but in the padding of the header's JSON."""
    made = loop(stage_one(), STAGE, tmp_path)
    made._save(2, made._key(), Meter())
    path = last_checkpoint(tmp_path).path
    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    for place in (*range(0, header, 97), *range(header, len(data), 9973), len(data) - 1):
        if data[place : place + 1] != b" ":
            flipped = bytes([data[place] ^ 1])
            path.write_bytes(data[:place] + flipped + data[place + 1 :])
            assert last_checkpoint(tmp_path) is None, place
    path.write_bytes(data[: len(data) // 2])
    assert last_checkpoint(tmp_path) is None
    path.write_bytes(data)
    assert last_checkpoint(tmp_path).facts.step == 2


def test_processes_that_find_different_checkpoints_are_told(tmp_path):
    made = loop(stage_one(), STAGE, tmp_path)

    class Two:
        num_processes, device = 2, torch.device("cpu")

        def reduce(self, own, how):
            return own + torch.tensor([3.0, 9.0])  # the other is at step 3

    made.accelerator = Two()
    with pytest.raises(FolderError, match=r"process 0: step 0.*a disk that all of them share"):
        made._restore("key")


def test_only_the_branches_change(tmp_path):
    model, parameters = stage_one()
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if n not in parameters}
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    run((model, parameters), STAGE, tmp_path)
    assert_same(frozen, {n: p for n, p in model.named_parameters() if n not in parameters})
    assert all((before[name] != parameters[name]).any() for name in parameters if "noise.router" not in name)


def test_noise_drop_trains_some_steps_without_the_noise_aggregator(tmp_path):
    made = stage_one()
    trainer = Loop(made[0], made[1], examples(), STAGE, seed=3, folder=tmp_path, pad_id=0, noise_drop=0.75)
    trainer.steps = (((0,),),) * 40
    trainer.run("test")
    used = [any(sum(load) for load in row["router_load"].values()) for row in rows(tmp_path)]
    assert 3 <= sum(used) <= 17, "a quarter of 40 steps, within 2.5 standard deviations"


@pytest.mark.parametrize("batching", ["grouped", "packed"])
def test_the_loss_falls(tmp_path, batching):
    easy = [Rendered(e.ids[:5] + [7] * 4, [False] * 5 + [True] * 4) for e in examples()]
    run(stage_one(), replace(STAGE, epochs=12, batching=batching), tmp_path, data=easy)
    first, *_, last = rows(tmp_path)
    # The tiny frozen head can say 3.96 nats at best.
    assert first["loss"] > 4.5
    assert last["loss"] < 4.0
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["tokens_per_second"] > 0


def test_learning_rate_warms_up_and_ends_at_zero():
    stage = replace(STAGE, learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(step, 100, stage) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] < 1e-3


def family_loop(family, folder, **changes):
    """A loop over a family's tiny model, with feed-forward branches."""
    model = tiny_family(family)
    names = ("w1", "w2", "w3") if family == "lfm2" else ADAPTERS.feed_forward
    add_branches(model, "aggregate", replace(ADAPTERS, feed_forward=names, attention=()))
    made = (model, trainable(model, ["knowledge", "noise"]))
    return loop(made, replace(STAGE, epochs=1, **changes), folder)


@pytest.mark.parametrize("family", ["lfm2", "bamba", "deepseek_v32"])
def test_packed_rows_that_would_mix_examples_are_refused(family, tmp_path):
    with pytest.raises(ConfigError, match="batching=grouped"):
        family_loop(family, tmp_path, batching="packed")


@pytest.mark.parametrize("family", ["cohere", "granite"])
def test_a_run_with_scaled_logits_is_continued_exactly(family, tmp_path):
    """The loss of these once found out in the first step, by taking it twice, how logits are scaled."""
    whole, begun = (family_loop(family, tmp_path / name) for name in ("whole", "begun"))
    whole.run("test")
    interrupted_at(begun, 2)
    family_loop(family, tmp_path / "begun").run("test")
    ours, theirs = (list(read_jsonl(tmp_path / name / "metrics.jsonl")) for name in ("whole", "begun"))
    for row, other in zip(ours, theirs, strict=True):
        assert {k: row[k] for k in ("loss", "grad_norm", "router_load")} == {
            k: other[k] for k in ("loss", "grad_norm", "router_load")
        }


@pytest.mark.parametrize("family", ["llama", "cohere", "granite", "gemma2"])
def test_each_token_is_counted_once_by_the_routers(family, tmp_path):
    trained = family_loop(family, tmp_path)
    trained.wrapped.train()
    trained._step(0, Meter())
    tokens = sum(trained._batch(numbers).inputs["input_ids"].numel() for numbers in trained.steps[0])
    for load in expert_loads(trained.model):
        assert load.sum() == tokens * ADAPTERS.top_k


def in_float16():
    model = tiny_model("llama").half()
    add_branches(model, "aggregate", ADAPTERS)
    return model, trainable(model, ["knowledge", "noise", "attention"])


def test_float16_trains_as_float32_does(tmp_path):
    run(stage_one(), STAGE, tmp_path / "single")
    trained = run(in_float16(), STAGE, tmp_path / "half")
    assert {parameter.dtype for parameter in trained.values()} == {torch.float32}
    for one, other in zip(rows(tmp_path / "single"), rows(tmp_path / "half"), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=5e-3)
    assert rows(tmp_path / "half")[-1]["loss"] < rows(tmp_path / "half")[0]["loss"]


def test_gradients_too_small_for_float16_arrive(tmp_path):
    """The gradient of the logits is below float16's smallest number: without scaling all would be zeros."""
    model, parameters = in_float16()
    made = loop((model, parameters), replace(STAGE, clip=1e9), tmp_path)
    norms = {}
    for name, scale in (("scaled", 2.0**16), ("plain", 1.0)):
        made.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        made._backward(made._batch(range(4)), 1e-9)
        made.scaler.unscale_(made.optimizer)
        norms[name] = sum(float(p.grad.norm()) for n, p in parameters.items() if n.endswith("lora_B"))
        made.optimizer.zero_grad()
    assert norms["plain"] == 0
    assert norms["scaled"] > 0


def test_a_step_whose_scaled_gradients_overflow_is_left_out(tmp_path):
    model, parameters = in_float16()
    made = loop((model, parameters), STAGE, tmp_path)
    made.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    made._step(0, Meter())
    assert_same(dict(parameters), before)
    assert made.scaler.get_scale() == 2.0**39
    while made.scaler.get_scale() > 2.0**10:
        made._step(0, Meter())
        made.scaler.update(made.scaler.get_scale() / 8)
    made._step(0, Meter())
    assert any(not torch.equal(parameter, before[name]) for name, parameter in parameters.items())


def test_a_continued_run_keeps_the_scale(tmp_path):
    made = loop(in_float16(), STAGE, tmp_path)
    made._step(0, meter := Meter())
    made.scaler.update(1024.0)
    made._save(1, made._key(), meter)
    other = loop(in_float16(), STAGE, tmp_path)
    other._meter()
    assert other.scaler.state_dict() == made.scaler.state_dict()
    assert other.scaler.get_scale() == 1024.0
