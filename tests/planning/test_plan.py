from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM
from typer.testing import CliRunner

from medcare.cli import app
from medcare.foundation.errors import ConfigError, ModelError
from medcare.planning.estimate import largest
from medcare.planning.hardware import GPUS, Assumptions, Gpu, message_bytes, step_seconds
from medcare.planning.plan import make_plan, pieces
from medcare.planning.shapes import base_of, known_shapes, shape_of
from medcare.planning.ways import PlanRequest
from medcare.settings.config import ModelConfig, RunConfig, StageConfig
from tests.planning.linear_estimator import LinearEstimator

TINY = AutoConfig.for_model(
    "llama", hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=96
)
STAGE = StageConfig(max_length=64, tokens_per_batch=256)
CONFIG = RunConfig(aggregate=replace(STAGE, orthogonality="none"), align=replace(STAGE, epochs=3))


@pytest.fixture
def linear(monkeypatch):
    monkeypatch.setattr("medcare.planning.ways.Estimator", LinearEstimator)


NOTHING = Assumptions(context=0, communication=0, fragmentation=0, margin=0)


def request(megabytes, **changes):
    gpu = Gpu(memory=megabytes / 1024, tflops=100, link=100)
    return replace(PlanRequest("tiny", TINY, CONFIG, gpu, assumptions=NOTHING), **changes)


@given(
    fixed=st.integers(0, 10**6),
    slope=st.integers(1, 10**4),
    square=st.integers(0, 1),
    room=st.integers(1, 10**8),
    start=st.integers(1, 3000),
    unit=st.sampled_from([1, 256]),
)
def test_the_largest_amount_fits_and_is_nearly_the_largest(fixed, slope, square, room, start, unit):
    def needs(amount):
        return fixed + slope * amount + square * slope * amount * amount // 2**17

    found = largest(needs, room, start=start, unit=unit)
    if needs(start) > room:
        assert found == 0
        return
    assert needs(found) <= room
    more = int(1.5 * found) + 3 * unit
    assert needs(more) > room or more > 2**20


def test_a_single_gpu_sends_nothing_and_ddp_only_gradients():
    assert message_bytes("single", 1, 1000, 100, 4) == (0, 0)
    assert message_bytes("ddp", 2, 1000, 100, 4) == (0, 100)
    assert message_bytes("fsdp2", 4, 1000, 100, 1) == (1650, 75)


def test_slow_links_make_a_step_longer_than_its_computing():
    gpu, assumed = Gpu(80, 100, 10), Assumptions(utilisation=0.5, network=1)
    assert step_seconds(1e14, 0, 0, gpu, assumed, 1) == pytest.approx(2)
    assert step_seconds(1e14, 5 * 10**9, 0, gpu, assumed, 1) == pytest.approx(2)  # hidden
    assert step_seconds(1e14, 5 * 10**9, 0, gpu, assumed, 2) == pytest.approx(5)
    assert step_seconds(1e14, 0, 10**9, gpu, assumed, 2) == pytest.approx(3)


@pytest.mark.parametrize(
    ("name", "billions"), [("qwen1.5-1.8b", 1.837), ("Qwen/Qwen1.5-7B-Chat", 7.721), ("qwen1.5-14b", 14.167)]
)
def test_known_shapes_have_the_published_sizes(name, billions):
    import torch

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape_of(name))
    assert model.num_parameters() / 1e9 == pytest.approx(billions, abs=0.001)


def test_every_known_shape_is_a_model_of_transformers():
    for name in known_shapes():
        assert shape_of(name).num_hidden_layers > 0


def test_an_unknown_model_is_told_with_the_names_there_are():
    with pytest.raises(ModelError, match=r"no model folder \./nothing.*qwen1\.5-7b"):
        shape_of("./nothing")


def test_a_plan_names_the_fastest_way_that_fits(linear):
    asked = request(64, tokens=10_000, price=3.0)
    calls = []
    made = make_plan(asked, lambda: calls.append(1))
    assert len(calls) == pieces(asked)
    assert len(made.options) == 4
    for stage, option in made.chosen.items():
        assert option.possible
        assert not option.checkpointing  # there is room, and recomputing costs time
        assert option.micro_batch == 256
        assert option.total == 30 * 10**6 + 256 * 40_000
        assert option.steps == {"aggregate": 40, "align": 118}[stage]  # three epochs
        assert option.hours == pytest.approx(option.steps * 256 * 1e9 / (100e12 * 0.4) / 3600)
        assert option.cost == pytest.approx(3 * option.hours)
        assert 0.85 * 927 < made.largest[stage] <= 927  # (64 MiB - 30 MB) / 40 kB
    assert made.hours() == sum(option.hours for option in made.chosen.values())


def test_with_less_memory_the_micro_batch_shrinks_then_activations_are_recomputed(linear):
    for megabytes, batch, recomputed in ((38, 64, False), (30, 64, True)):
        option = make_plan(request(megabytes)).chosen["aggregate"]
        assert (option.possible, option.checkpointing) == (True, recomputed)
        assert batch <= option.micro_batch < 256 or recomputed
        assert option.accumulation == round(256 / option.micro_batch)  # a step keeps its size
        assert option.total <= megabytes * 2**20


def test_more_gpus_share_the_weights(linear):
    alone = make_plan(request(64, gpus=1, nodes=2)).options
    assert {option.sharing for option in alone} == {"ddp", "fsdp2"}
    shared = next(option for option in alone if option.sharing == "fsdp2")
    assert dict(shared.peak)["weights"] == 15 * 10**6
    assert make_plan(request(20, gpus=2)).chosen["align"].sharing == "fsdp2"


def test_what_fits_nowhere_is_told_with_what_would(linear):
    with pytest.raises(ConfigError, match=r"tiny does not fit: stage aggregate needs .* 4 GPUs of this size"):
        make_plan(request(10))
    with pytest.raises(ConfigError, match=r"What fits: GPUs of 1 GiB\."):
        make_plan(request(0.1))
    longer = replace(CONFIG, aggregate=replace(CONFIG.aggregate, max_length=2048))
    with pytest.raises(ConfigError, match=r"; a smaller aggregate\.max_length\."):
        make_plan(request(40, config=longer))


def test_a_quantised_base_is_advised_where_it_would_fit(linear):
    with pytest.raises(ConfigError) as told:
        make_plan(request(10))
    assert "--quantization nf4 (one GPU, at least 0.0 GiB on each)" in str(told.value)
    assert "int8" not in str(told.value)  # 15 MB
    with pytest.raises(ConfigError, match=r"gradient checkpointing, int8, .* --quantization nf4"):
        make_plan(quantised(10, "int8"))


def quantised(megabytes, kind, **changes):
    return request(megabytes, config=replace(CONFIG, model=ModelConfig(quantization=kind)), **changes)


def test_4_bits_are_planned_in_shards(linear):
    made = make_plan(quantised(6, "nf4", gpus=2))
    assert {option.sharing for option in made.options} == {"ddp", "fsdp2"}
    assert {option.sharing for option in made.options if option.possible} == {"fsdp2"}


def test_8_bits_are_not_planned_in_shards(linear):
    made = make_plan(quantised(30, "int8", gpus=2, nodes=2))
    assert {option.sharing for option in made.options} == {"ddp"}
    assert len(made.options) == 4
    assert pieces(made.request) == 6
    option = made.chosen["align"]
    assert (option.quantization, dict(option.peak)["weights"]) == ("int8", 15 * 10**6)
    assert option.loading == 30 * 10**6  # bfloat16, whatever comes of it on the GPU


def plan(folder, *options):
    TINY.save_pretrained(folder)
    small = [f"--set={name}.max_length=64" for name in ("aggregate", "align")]
    small += [f"--set={name}.tokens_per_batch=64" for name in ("aggregate", "align")]
    base = ["plan", str(folder), "--gpu-memory", "2", "--tokens", "1000"]
    return CliRunner().invoke(app, [*base, *small, *options])


def shown(*options):
    """What the command prints for a 1.8B model that is planned in no time."""
    done = CliRunner().invoke(app, ["plan", *options])
    assert done.exit_code == 0, done.output
    return " ".join(done.stdout.split())


def test_the_printed_commands_are_those_that_train(linear, tmp_path):
    text = shown("qwen1.5-1.8b", "--gpus", "8", "--nodes", "2", "--quantization", "int8")
    launch = "accelerate launch --config_file configs/ddp.yaml --num_processes 16 --num_machines 2"
    for words in (
        launch,
        "-m medcare train --stage align --from STAGE_1",
        "--set model.base=Qwen/Qwen1.5-1.8B --set model.quantization=int8",
        "frozen weights (int8)",
        "on 2 machines with 8 GPUs each, of 80 GiB",
        "DDP alone is planned",
    ):
        assert words in text
    (tmp_path / "mine.yaml").write_text("model: {base: Qwen/Qwen1.5-1.8B}")
    text = shown("--config", str(tmp_path / "mine.yaml"))
    assert f"OUT {tmp_path}/mine.yaml --set aggregate.tokens_per_batch" in text  # it names the base itself
    assert "model.base" not in text
    assert "accelerate" not in text


def test_a_command_keeps_the_size_of_a_step(linear):
    """There is room for 3,072 tokens of 8,192, or for all of them if activations are recomputed."""
    text = shown("qwen1.5-1.8b", "--gpu-memory", "1", "--set=align.accumulation=2")
    assert "8,192 x 2" in text
    for stage, count in (("aggregate", 3), ("align", 5)):
        words = f"--set {stage}.tokens_per_batch=3072 --set {stage}.gradient_checkpointing=false"
        assert f"{words} --set {stage}.accumulation={count}" in text
    assert "accumulation=" not in shown("qwen1.5-1.8b")


def test_settings_are_printed_as_they_were_given(linear):
    lists = "adapters.attention=[q_proj, v_proj]"
    text = shown("qwen1.5-1.8b", "--set", lists, "--set=align.tokens_per_batch=4096")
    assert f"--set '{lists}'" in text
    assert text.count("align.tokens_per_batch=4096") == 2  # also told to stage 1, once in each command


def test_a_local_folder_goes_before_a_known_shape(tmp_path):
    TINY.save_pretrained(tmp_path / "qwen1.5-7b")
    folder = str(tmp_path / "qwen1.5-7b")
    assert shape_of(folder).hidden_size == 32
    assert base_of(folder) == folder


def test_a_short_name_stands_for_a_hub_id():
    assert base_of("qwen1.5-7b") == "Qwen/Qwen1.5-7B"
    assert base_of("Qwen2.5-7B-Instruct") == "Qwen/Qwen2.5-7B-Instruct"
    assert base_of("mistral-7b-instruct") == "mistralai/Mistral-7B-Instruct-v0.3"
    assert base_of("Qwen/Qwen1.5-7B-Chat") == "Qwen/Qwen1.5-7B-Chat"
    assert base_of("embedded") == "embedded"
    assert base_of("./mine") == "./mine"


def test_without_a_model_one_is_asked_for():
    done = CliRunner().invoke(app, ["plan"])
    assert isinstance(done.exception, ConfigError)
    assert "medcare plan qwen1.5-7b" in str(done.exception)


@pytest.mark.parametrize("odd", ["gpus=0", "gpu-memory=inf", "gpu-memory=nan", "tokens=-5", "price=inf"])
def test_numbers_that_make_no_sense_are_refused(odd):
    done = CliRunner().invoke(app, ["plan", "qwen1.5-1.8b", f"--{odd}"])
    assert done.exit_code == 2
    assert odd.partition("=")[0] in done.output


def test_a_wrong_quantization_is_told():
    done = CliRunner().invoke(app, ["plan", "qwen1.5-1.8b", "--quantization", "int4"])
    assert isinstance(done.exception, ConfigError)
    assert "int8" in str(done.exception)


def test_the_command_plans_a_local_folder_as_json(tmp_path):
    tree = json.loads(plan(tmp_path, "--json").stdout)
    assert tree["gpu"]["memory"] == 2
    assert [option["checkpointing"] for option in tree["options"]] == [False, True] * 2
    chosen = tree["options"][tree["chosen"]["align"]]
    assert (chosen["stage"], chosen["micro_batch"], chosen["steps"]) == ("align", 64, 47)
    rotary = 2 * 4 * 4  # two buffers of four float32
    assert chosen["peak"]["weights"] == 2 * AutoModelForCausalLM.from_config(TINY).num_parameters() + rotary
    assert chosen["total"] == sum(chosen["peak"].values()) + chosen["overhead"]


def test_the_command_prints_tables(tmp_path, linear):
    shown = plan(tmp_path).stdout
    for words in ("frozen weights", "AdamW's moments", "Both stages", "medcare train --stage align"):
        assert words in shown


def test_an_unknown_gpu_is_told():
    done = CliRunner().invoke(app, ["plan", "qwen1.5-7b", "--gpu", "abacus"])
    assert isinstance(done.exception, ConfigError)
    assert "h100" in str(done.exception)
    assert set(GPUS) >= {"a100", "h100"}


def test_another_method_is_not_planned_as_if_it_were_this_one():
    with pytest.raises(ConfigError, match="method=medcare, got full"):
        make_plan(request(64, config=replace(CONFIG, method="full")))
