"""Validation: what is held out, what is told, when training stops, and that all of it survives a kill."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from medcare.adapters.loading import load_model
from medcare.benchmark.build import write_records
from medcare.evaluation.spot_check import SpotCheck
from medcare.foundation.errors import ConfigError, TrainingError
from medcare.foundation.storage import read_jsonl
from medcare.models.base_model import load_tokenizer
from medcare.settings.config import EvaluationConfig, ValidationConfig
from medcare.settings.run_folder import read_manifest
from medcare.text.records import Conversation, Message
from medcare.training import stages
from medcare.training.loop import Loop
from medcare.training.samples import Samples
from medcare.training.state import last_checkpoint
from medcare.training.tracking import scalars
from medcare.training.validation import Validation
from tests.training.test_loop import STAGE, assert_same, examples, interrupted_at, rows, stage_one
from tests.training.test_stages import TALKS, config, logits

OTHERS = [
    Conversation(f"other-{n}", "test", (Message("user", f"Sign {n}?"), Message("assistant", f"R{n}.")))
    for n in range(3)
]
EVERY_TWO = ValidationConfig(rows=1, every=2)


def sourced(count=16):
    return [replace(e, id=f"row-{n}", source="ab"[n % 2]) for n, e in enumerate(examples(count))]


def validated(folder, settings, stage=STAGE, data=None, apart=None, dropout=0.1, **options):
    model, parameters = stage_one(dropout=dropout)
    return Loop(
        model,
        parameters,
        data or sourced()[:12],
        replace(stage, validation=settings),
        seed=3,
        folder=folder,
        pad_id=0,
        validation=Validation(apart or sourced()[12:], **options),
    )


def measured(folder):
    return [row for row in rows(folder) if "validation_loss" in row]


def test_the_loss_is_that_of_the_rows_by_source_without_noise_and_dropout(tmp_path):
    made = validated(tmp_path, EVERY_TWO, dropout=0.5)
    made.run("test")
    last = measured(tmp_path)[-1]
    model = made.model.eval()
    for layer in model.modules():
        if hasattr(layer, "disabled"):
            layer.disabled = frozenset({"noise"})
    sums = {"a": [0.0, 0], "b": [0.0, 0]}
    for example in sourced()[12:]:
        ids = torch.tensor([example.ids])
        with torch.no_grad():
            logs = model(ids).logits[0, :-1].log_softmax(-1)
        kept = torch.tensor(example.mask)[1:]
        sums[example.source][0] -= float(logs.gather(1, ids[0, 1:, None])[kept, 0].sum())
        sums[example.source][1] += int(kept.sum())
    means = {source: total / count for source, (total, count) in sums.items()}
    # The last parameters are not the best ones unless the last measurement is.
    if last["step"] == made.validator.best_step:
        assert last["validation_losses"] == pytest.approx(means, rel=1e-4)
    total = sum(t for t, _ in sums.values()) / sum(n for _, n in sums.values())
    assert total == pytest.approx(made.validator.best, rel=1e-4)


def test_measuring_changes_nothing_that_trains(tmp_path):
    with_it = validated(tmp_path / "with", replace(EVERY_TWO, use="last"))
    with_it.run("with")
    model, parameters = stage_one(dropout=0.1)
    without = Loop(model, parameters, sourced()[:12], STAGE, seed=3, folder=tmp_path / "without", pad_id=0)
    without.run("without")
    assert_same(dict(with_it.parameters), dict(without.parameters))
    assert [row["step"] for row in measured(tmp_path / "with")] == [2, 4, 6]
    assert scalars(measured(tmp_path / "with")[0]).keys() >= {"validation_loss", "validation_losses/a"}


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_validation_loss_that_is_not_finite_ends_training(tmp_path, value):
    made = validated(tmp_path, EVERY_TWO)
    nll = made.nll
    made.nll = lambda batch: nll(batch) * (1 if made.wrapped.training else value)
    with pytest.raises(TrainingError, match=f"validation loss after step 2 is {value}"):
        made.run("test")
    assert not measured(tmp_path)


def overfitting(folder, **changes):
    """Rates at which the held-out loss soon gets worse."""
    stage = replace(STAGE, learning_rate=0.1, epochs=8, checkpoint_seconds=0.0)
    return validated(folder, replace(EVERY_TWO, **changes), stage)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    made = overfitting(folder, patience=2)
    return made, made.run("test"), folder


def test_training_stops_when_patience_ends_and_the_best_parameters_are_used(stopped, tmp_path):
    made, result, folder = stopped
    losses = [row["validation_loss"] for row in measured(folder)]
    steps = len(made.steps)
    best = losses.index(min(losses))
    assert result["steps"] == 2 * (best + 1 + 2) < steps
    assert (result["best_step"], result["validation_loss"]) == (2 * (best + 1), min(losses))
    assert len(losses) == best + 3
    # They are those of a training whose last step was the best one.
    until = overfitting(tmp_path, use="last")
    step = until._step

    def only(number, meter):
        if number == result["best_step"]:
            raise StopIteration
        return step(number, meter)

    until._step = only
    with pytest.raises(StopIteration):
        until.run("until")
    assert_same(dict(made.parameters), dict(until.parameters))


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_stopped_run_takes_the_same_turns_when_it_is_continued(stopped, tmp_path, stop):
    made, result, folder = stopped
    broken = overfitting(tmp_path, patience=2)
    interrupted_at(broken, stop)
    resumed = overfitting(tmp_path, patience=2)
    again = resumed.run("resumed")
    assert_same(dict(made.parameters), dict(resumed.parameters))
    assert {k: again[k] for k in ("steps", "best_step", "validation_loss")} == {
        k: result[k] for k in ("steps", "best_step", "validation_loss")
    }
    for one, other in zip(measured(folder), measured(tmp_path), strict=True):
        assert one["validation_losses"] == other["validation_losses"]


def test_a_killed_run_is_continued_bit_for_bit_patience_included(stopped, tmp_path):
    """Cut off in the middle of a step, one measurement before patience ends; with a torn row of metrics."""
    made, result, _ = stopped
    broken = overfitting(tmp_path, patience=2)
    nll = broken.nll

    def killed(batch):
        if last_checkpoint(tmp_path) and last_checkpoint(tmp_path).facts.step == result["steps"] - 1:
            raise SystemExit
        return nll(batch)

    broken.nll = killed
    with pytest.raises(SystemExit):
        broken.run("killed")
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 6, "validation_lo')
    assert last_checkpoint(tmp_path).facts.validation.without == 1
    resumed = overfitting(tmp_path, patience=2)
    assert resumed.run("resumed")["steps"] == result["steps"]
    assert_same(dict(made.parameters), dict(resumed.parameters))


def test_so_many_checkpoints_are_kept(tmp_path):
    stage = replace(STAGE, checkpoint_seconds=0.0, keep=3)
    made = validated(tmp_path, EVERY_TWO, stage)
    made.run("test")
    steps = len(made.steps)
    names = {path.stem for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {str(step) for step in range(steps - 2, steps + 1)}


def test_a_score_decides_where_it_is_the_measure(tmp_path):
    scores = iter([0.2, 0.9, 0.4, 0.3, 0.1])
    stage = replace(STAGE, epochs=8)
    settings = ValidationConfig(rows=1, items="x", every=2, measure="score", patience=2)
    made = validated(tmp_path, settings, stage, test=lambda model: {"one": next(scores), "two": 0.0})
    result = made.run("test")
    assert (result["steps"], result["best_step"], result["validation_score"]) == (8, 4, 0.45)
    assert rows(tmp_path)[3]["validation_scores"] == {"one": 0.9, "two": 0.0}


def test_every_token_of_an_answer_is_a_sign_of_life(tmp_path, tiny_base, exam):
    check = SpotCheck(exam, 4, EvaluationConfig(exams="generation", max_new_tokens=3), seed=1)
    tokenizer = load_tokenizer(str(tiny_base))
    signs = []

    def answered(model):
        made.watchdog.alive = lambda: signs.append(0)
        scores = check(load, tokenizer)
        del made.watchdog.alive
        return scores

    settings = ValidationConfig(rows=1, items="x", every=100, measure="score")
    made = validated(tmp_path, settings, replace(STAGE, epochs=1), test=answered)
    made.model = load = load_model(tiny_base, dtype="float32", device="cpu")
    made.validator.validation = replace(made.validator.validation, examples=())
    made.validator.measure(made, 1)
    assert len(signs) >= 3
    former = len(signs)
    answered(None)
    assert len(signs) == former, "nothing is left in the model"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": "x", "rows": 2}, "one of data, share and rows"),
        ({"share": 0.6}, "from 0 to 0.5"),
        ({"measure": "score", "rows": 1}, "a test set where measure is score"),
        ({"items": "x"}, "score where there are items and no rows"),
    ],
)
def test_settings_that_measure_nothing_are_refused(changes, told):
    with pytest.raises(ConfigError, match=told):
        ValidationConfig(**changes)


EXAM = [
    {"question": f"Which code has disease {n}?", "options": {"A": "J1", "B": "J2"}, "answer": "AB"[n % 2]}
    for n in range(12)
]


@pytest.fixture
def exam(tmp_path):
    path = tmp_path / "exam.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in EXAM))
    return str(path)


@pytest.mark.parametrize("exams", ["likelihood", "generation"])
def test_a_few_items_are_answered_and_scored_in_memory(exam, tiny_base, exams):
    settings = EvaluationConfig(exams=exams, max_new_tokens=2)
    check = SpotCheck(exam, 4, settings, seed=1)
    assert [len(items) for items in check.items.values()] == [4]
    model = load_model(tiny_base, dtype="float32", device="cpu")
    [score] = check(model, load_tokenizer(str(tiny_base))).values()
    assert score in (0, 0.25, 0.5, 0.75, 1)
    again = SpotCheck(exam, 4, settings, seed=1)
    assert again.items == check.items


def test_a_stage_is_measured_as_its_settings_say(tiny_base, tmp_path, exam, capsys):
    from medcare.pipeline import validation_of

    made = config(tiny_base)
    measuring = ValidationConfig(share=0.25, items=exam, most_items=4, every=2)
    made = replace(made, aggregate=replace(made.aggregate, validation=measuring))
    test = validation_of(made.aggregate, made)
    stages.train("aggregate", made, TALKS, tmp_path / "one", data_hash="x", **test)
    assert "3 rows are for validation, 9 train" in capsys.readouterr().err
    found = measured(tmp_path / "one")
    assert found[0]["step"] == 2
    assert found[0].keys() >= {
        "validation_loss",
        "validation_losses",
        "validation_score",
        "validation_scores",
    }
    result = read_manifest(tmp_path / "one")["result"]
    assert result["validation_loss"] == min(row["validation_loss"] for row in found)
    assert not (tmp_path / "one" / "checkpoints").exists()


def test_a_few_rows_are_answered_for_a_reader_and_again_by_a_run_that_goes_on(tmp_path, tiny_base):
    """Of each source one, at every measurement; after a stop there is each of them once."""
    tokenizer = load_tokenizer(str(tiny_base))
    document = replace(sourced()[15], document=True, source="text")
    apart = [*sourced()[12:15], document]

    def made(name):
        return validated(tmp_path / name, EVERY_TWO, apart=apart, samples=Samples(apart, tokenizer, 2))

    made("whole").run("whole")
    interrupted_at(made("stopped"), 3)
    with (tmp_path / "stopped" / "samples.jsonl").open("a") as stream:
        stream.write('{"step": 6, "id": "row-12"}\n{"step": 8, "an')  # what a kill later than that leaves
    made("stopped").run("resumed")
    whole, stopped = (list(read_jsonl(tmp_path / n / "samples.jsonl")) for n in ("whole", "stopped"))
    assert whole == stopped
    steps = [row["step"] for row in measured(tmp_path / "whole")]
    assert [(row["step"], row["id"]) for row in whole] == [
        (s, i) for s in steps for i in ("row-12", "row-13")
    ]
    right = apart[0].ids[apart[0].mask.index(True) :]
    assert whole[0]["right"] == tokenizer.decode(right, skip_special_tokens=True).strip()


def test_validation_rows_of_a_file_leave_the_training_rows_alone(tiny_base, tmp_path):
    from medcare.pipeline import validation_of

    path = tmp_path / "apart.jsonl"
    write_records(path, OTHERS)
    made = config(tiny_base)
    measuring = ValidationConfig(data=str(path), use="last")
    given = replace(made, aggregate=replace(made.aggregate, validation=measuring))
    measured_with = validation_of(given.aggregate, given)
    stages.train("aggregate", given, TALKS, tmp_path / "with", data_hash="x", **measured_with)
    stages.train("aggregate", made, TALKS, tmp_path / "without", data_hash="x")
    one, other = (logits(load_model(tmp_path / name, dtype="float32")) for name in ("with", "without"))
    assert torch.equal(one, other)
