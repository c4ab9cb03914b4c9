"""The files of configs/: settings that load and are the paper's, launchers that accelerate takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from medcare.cli import app
from medcare.planning.shapes import shape_of
from medcare.settings.config import STAGES
from medcare.settings.files import load_config

FOLDER = Path(__file__).parents[1] / "configs"
RUNS = ("1.8b", "7b", "14b")
LAUNCHERS = ("ddp", "fsdp2", "zero3")


def test_every_file_is_tested_here():
    assert {path.stem for path in FOLDER.iterdir()} == {*RUNS, *LAUNCHERS}


@pytest.mark.parametrize("size", RUNS)
def test_run_settings_are_the_papers(size):
    config = load_config(FOLDER / f"{size}.yaml")
    assert config.model.base == f"Qwen/Qwen1.5-{size.upper()}"
    assert shape_of(config.model.base).vocab_size > 150_000  # a shape that `medcare plan` knows
    adapters = config.adapters
    assert (adapters.rank, adapters.alpha, adapters.dropout, adapters.experts, adapters.top_k) == (
        16,
        32,
        0.05,
        8,
        2,
    )
    assert (config.aggregate.epochs, config.align.epochs) == (1, 3)
    assert (config.aggregate.orthogonality, config.align.orthogonality) == ("none", "l1")
    assert config.align.orthogonality_weight == 1
    for stage in map(config.stage, STAGES):
        assert (stage.learning_rate, stage.warmup, stage.weight_decay, stage.max_length) == (
            2e-4,
            0.03,
            0,
            3072,
        )
        assert stage.tokens_per_batch * stage.accumulation * 4 == 2**16  # 128 sequences of 512 tokens


@pytest.mark.parametrize("size", RUNS)
def test_the_commands_in_the_comments_exist(size):
    text = (FOLDER / f"{size}.yaml").read_text()
    commands = re.findall(
        r"accelerate launch --config_file configs/(\w+)\.yaml -m medcare (\w+) .*configs/(\S+)\.yaml", text
    )
    assert len(commands) == 2
    for launcher, command, run in commands:
        assert launcher in LAUNCHERS
        assert run == size
        assert command in get_command(app).commands


@pytest.mark.parametrize("name", LAUNCHERS)
def test_accelerate_takes_the_launchers(name):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    kinds = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero3": "DEEPSPEED"}
    assert config.distributed_type == kinds[name]
    assert config.mixed_precision == "no"
    if name == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2
