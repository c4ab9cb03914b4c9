"""The small world's loop against the package's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medcare.adapters.tuner import add_branches, trainable
from medcare.settings.config import AdapterConfig, StageConfig
from medcare.study import small_training
from medcare.study.small_training import Replay, fit, teach
from medcare.study.small_world import PAD, World, build_model
from medcare.text.batches import IGNORED
from medcare.text.chat_template import Rendered
from medcare.training.loop import Loop

SHAPES = AdapterConfig(rank=2, experts=4, dropout=0.0)


def stage_1_model():
    torch.manual_seed(0)
    model = build_model(0, hidden=16)
    add_branches(model, "aggregate", SHAPES)
    return model, trainable(model, ("knowledge", "noise", "attention"))


def stage_2_model():
    torch.manual_seed(0)
    model = build_model(0, hidden=16)
    add_branches(model, "aggregate", AdapterConfig(rank=2, experts=0, dropout=0.0, attention=()))
    add_branches(model, "align", SHAPES)
    with torch.no_grad():  # the penalty has no gradient for B, but the loss has only for B while B is zero
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(std=0.1)
    return model, trainable(model, ("knowledge", "alignment"))


@pytest.mark.parametrize("kind", ["none", "l1", "projection"])
def test_it_trains_as_the_packages_loop_does(kind, tmp_path: Path):
    rows = World(3).stage_2(24)
    lengths = (rows.ids != PAD).sum(1).tolist()
    examples = [
        Rendered(ids[:length], [label != IGNORED for label in labels[:length]])
        for ids, labels, length in zip(rows.ids.tolist(), rows.labels.tolist(), lengths, strict=True)
    ]
    steps = 4
    # All rows in every step, so that the order within makes no difference.
    stage = StageConfig(
        epochs=steps, learning_rate=1e-2, tokens_per_batch=10_000, orthogonality=kind, batching="grouped"
    )
    make = stage_1_model if kind == "none" else stage_2_model
    theirs, parameters = make()
    Loop(theirs, parameters, examples, stage, seed=1, folder=tmp_path, pad_id=PAD).run("align")
    mine, parameters = make()
    fit(mine, parameters, rows, stage, steps=steps, batch=len(rows), seed=1)
    for (name, first), (_, second) in zip(theirs.named_parameters(), mine.named_parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=2e-3, atol=2e-5, msg=name)
    before = dict(make()[0].named_parameters())
    assert any(not torch.equal(before[name], entry) for name, entry in mine.named_parameters())


def test_a_model_that_answers_as_its_teacher_does_is_left_alone_by_distillation_and_not_by_labels():
    model, _ = stage_2_model()
    former = World(3).stage_1("clean", 0.1)
    former = former.some(20 / len(former), 0)
    parameters = list(trainable(model, ("alignment",)).values())
    teacher = teach(model, former)
    norms = []
    for weight in (1.0, 0.0):
        replay = Replay(former, 1.0, teacher, weight)
        none = torch.zeros(0, dtype=torch.int64)
        loss = small_training._nll(model.train(), former, none, replay, torch.arange(20))
        grads = torch.autograd.grad(loss, parameters)
        norms.append(float(torch.stack([grad.norm() for grad in grads]).norm()))
    assert norms[0] < 1e-4 * norms[1]


def test_replay_takes_its_share_of_every_step(monkeypatch):
    seen = []
    real = small_training._nll

    def watched(model, rows, own, replay, former):
        seen.append((len(own), len(former)))
        return real(model, rows, own, replay, former)

    monkeypatch.setattr(small_training, "_nll", watched)
    model, parameters = stage_2_model()
    world = World(3)
    replay = Replay(world.stage_1("clean", 0.0), 0.25)
    stage = StageConfig(learning_rate=1e-3, orthogonality="none")
    fit(model, parameters, world.stage_2(40), stage, steps=5, batch=16, seed=0, replay=replay)
    assert seen == [(12, 4)] * 5
