from __future__ import annotations

import importlib.machinery
import json
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest

from medcare.foundation.errors import ConfigError
from medcare.settings.config import RunConfig, TrackingConfig
from medcare.settings.files import load_config
from medcare.text.records import Conversation, Message
from medcare.training import stages
from medcare.training.tracking import scalars

TALK = [
    Conversation(str(i), "test", (Message("user", f"Sign {i}?"), Message("assistant", f"R{i}")))
    for i in range(6)
]


def config(base: Path, *trackers: str) -> RunConfig:
    settings = [
        "adapters.rank=2", "aggregate.tokens_per_batch=64", "aggregate.log_every=1",
        "aggregate.orthogonality=none", f"model.base={base}", "model.dtype=float32", "model.device=cpu",
    ]  # fmt: skip
    plain = load_config(preset="smoke", settings=settings)
    return replace(plain, tracking=TrackingConfig(trackers=trackers, project="tests"))


def test_tensorboard_gets_what_metrics_hold(tiny_base, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "one"
    stages.train("aggregate", config(tiny_base, "tensorboard"), TALK, out, data_hash="x")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    for key in ("loss", "grad_norm", "learning_rate", "router_balance"):
        found = [(event.step, event.value) for event in events.Scalars(key)]
        assert [step for step, _ in found] == [row["step"] for row in rows]
        expected = [scalars(row)[key] for row in rows]
        assert [value for _, value in found] == pytest.approx(expected, rel=1e-6)


def test_turning_a_tracker_on_does_not_make_it_another_run(tiny_base, tmp_path):
    out = tmp_path / "one"
    stages.train("aggregate", config(tiny_base), TALK, out, data_hash="x")
    assert stages.train("aggregate", config(tiny_base, "tensorboard"), TALK, out, data_hash="x") == {}


def fake_package(monkeypatch: pytest.MonkeyPatch, name: str, **members: object) -> None:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    for key, value in members.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)


def test_wandb_is_called_as_its_package_asks(tiny_base, tmp_path, monkeypatch):
    """What accelerate's tracker passes on, since the package itself wants a login or its own server."""
    logged: list[tuple[int, dict]] = []
    started: list[dict] = []

    class Run:
        def log(self, values: dict, step: int) -> None:
            logged.append((step, values))

        def finish(self) -> None:
            logged.append((-1, {}))

    def init(**arguments: object) -> Run:
        started.append(arguments)
        return Run()

    settings: dict = {}
    configuration = types.SimpleNamespace(update=lambda values, allow_val_change: settings.update(values))
    fake_package(monkeypatch, "wandb", init=init, config=configuration)
    out = tmp_path / "one"
    stages.train("aggregate", config(tiny_base, "wandb"), TALK, out, data_hash="x")
    assert started == [{"project": "tests", "name": "one-aggregate", "dir": str(out)}]
    assert settings["adapters.rank"] == 2
    steps = [step for step, _ in logged]
    assert steps[-1] == -1
    assert steps[:-1] == list(range(1, len(steps)))
    assert all("loss" in values for _, values in logged[:-1])


def test_a_tracker_that_is_not_there_is_said_before_training(tiny_base, tmp_path, monkeypatch):
    monkeypatch.setattr("medcare.training.tracking.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install mlflow"):
        stages.train("aggregate", config(tiny_base, "mlflow"), TALK, tmp_path / "one", data_hash="x")
    assert not (tmp_path / "one" / "metrics.jsonl").exists()


def test_a_tracker_that_cannot_start_is_one_sentence(tiny_base, tmp_path, monkeypatch):
    def init(**_: object) -> None:
        raise RuntimeError("no API key")

    fake_package(monkeypatch, "wandb", init=init)
    with pytest.raises(ConfigError, match="wandb could not start: no API key"):
        stages.train("aggregate", config(tiny_base, "wandb"), TALK, tmp_path / "one", data_hash="x")


def test_a_tracker_that_runs_ends_when_another_cannot_start(tiny_base, tmp_path, monkeypatch):
    ended: list[bool] = []

    def init(**_: object) -> types.SimpleNamespace:
        return types.SimpleNamespace(log=print, finish=lambda: ended.append(True))

    def start(*_: object) -> None:
        raise RuntimeError("no server")

    configuration = types.SimpleNamespace(update=lambda values, allow_val_change: None)
    fake_package(monkeypatch, "wandb", init=init, config=configuration)
    monkeypatch.setattr("accelerate.tracking.MLflowTracker.start", start)
    monkeypatch.setattr("medcare.training.tracking.find_spec", lambda name: True)
    with pytest.raises(ConfigError, match="mlflow could not start: no server"):
        stages.train("aggregate", config(tiny_base, "wandb", "mlflow"), TALK, tmp_path / "one", data_hash="x")
    assert ended == [True]


def test_an_unknown_tracker_is_a_wrong_setting():
    with pytest.raises(ConfigError, match="tensorboard"):
        load_config(settings=["tracking.trackers=[abacus]"])


def test_balance_of_the_router():
    even = scalars({"step": 3, "steps": 9, "loss": 1.0, "router_load": {"a": [0.25] * 4, "b": [0.25] * 4}})
    assert even == {"loss": 1.0, "router_balance": pytest.approx(1.0), "router_top_share": 0.25}
    one = scalars({"router_load": {"a": [1.0, 0.0, 0.0, 0.0]}})
    assert one == {"router_balance": pytest.approx(0.0), "router_top_share": 1.0}
    assert scalars({"router_load": {"a": [1.0]}}) == {}
