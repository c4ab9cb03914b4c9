from __future__ import annotations

import dataclasses

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from medcare.foundation.errors import ConfigError
from medcare.settings.config import AdapterConfig, RunConfig, StageConfig
from medcare.settings.files import PRESETS, build, load_config


def test_defaults_are_the_papers():
    config = RunConfig()
    assert (config.adapters.rank, config.adapters.wide_rank, config.adapters.scale) == (16, 32, 2.0)
    assert (config.adapters.experts, config.adapters.top_k) == (8, 2)
    assert (config.aggregate.epochs, config.align.epochs) == (1, 3)
    assert (config.align.orthogonality, config.align.orthogonality_weight) == ("l1", 1.0)
    assert config.aggregate.learning_rate == 2e-4


def test_the_demos_settings_are_for_the_embedded_base_and_data_alone(tmp_path):
    demo = load_config()
    assert demo == load_config(preset="demo")
    assert load_config(settings=["align.epochs=2"]).adapters == demo.adapters
    for setting in ("model.base=some/model", "aggregate.data=mine.jsonl", "align.data=mine.jsonl"):
        own = load_config(settings=[setting])
        assert own.adapters == AdapterConfig()
        assert own.aggregate.learning_rate == own.align.learning_rate == 2e-4
        assert own.align.orthogonality == "l1"
    path = tmp_path / "c.yaml"
    path.write_text("model: {base: some/model}\n")
    assert load_config(path) == load_config(settings=["model.base=some/model"]), "YAML or --set: the same"


def test_one_setting_of_a_stage_leaves_its_others_as_they_are():
    own = load_config(settings=["model.base=some/model", "align.max_length=64", "aggregate.max_length=64"])
    assert (own.align.epochs, own.align.orthogonality) == (3, "l1")
    assert (own.aggregate.epochs, own.aggregate.orthogonality) == (1, "none")


def test_a_file_is_laid_over_the_preset_that_is_named(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("align: {epochs: 5}\n")
    smoke = load_config(preset="smoke")
    config = load_config(path, preset="smoke", settings=["seed=4"])
    assert config.aggregate == smoke.aggregate
    assert config.align == dataclasses.replace(smoke.align, epochs=5)
    assert config.seed == 4


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_load_and_survive_a_round_trip(preset):
    config = load_config(preset=preset)
    assert build(RunConfig, yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config


def test_file_then_settings(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("seed: 3\nalign: {epochs: 5, learning_rate: 1e-4}\n")
    config = load_config(path, settings=["align.epochs=7", "adapters.feed_forward=[fc1, fc2]"])
    assert (config.seed, config.align.epochs, config.align.learning_rate) == (3, 7, 1e-4)
    assert config.adapters.feed_forward == ("fc1", "fc2")
    assert config.aggregate == load_config().aggregate


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["algn.epochs=2"], "Did you mean 'align'"),
        (["align.epoch=2"], "Did you mean 'align.epochs'"),
        (["align.epochs=two"], "align.epochs must be a whole number"),
        (["align.epochs=0"], "align.epochs must be at least 1"),
        (["align.validation.share=2"], r"^align.validation.share must be from 0 to 0.5, got 2.0"),
        (
            ["align.validation.share=0.1", "align.validation.rows=3"],
            r"^align.validation.rows must be the only one",
        ),
        (["align.epochs=true"], "whole number"),
        (["align.epochs=99999999999999999999"], "align.epochs must be at most"),
        (["seed=99999999999999999999999"], "seed must be from 0"),
        (["seed=-1"], "seed must be from 0"),
        (["align.learning_rate=.inf"], "align.learning_rate must be above 0 and finite"),
        (["align.orthogonality_weight=.nan"], "orthogonality_weight must be at least 0 and finite"),
        (
            ["adapters.feed_forward=[gate_proj]", "adapters.attention=[q_proj, gate_proj]"],
            "other linears than adapters.feed_forward",
        ),
        (["adapters.feed_forward=[auto, fc1]"], "adapters.feed_forward must be names, or auto alone"),
        (["align=3"], "align must be a group"),
        (["adapters.rank=3", "adapters.rank.x=3"], "not a group of settings"),
        (["adapters.rank.x=3"], "must be a whole number"),
        (["adapters.top_k=9"], "adapters.top_k must be from 1 to 8"),
        (["align.orthogonality=l3"], "one of l1, frobenius, projection, inputs, contrast, none"),
        (["adapters.attention=q_proj"], "must be a list"),
        (["align.epochs"], "key=value"),
        (["align.epochs=[1"], "not valid YAML"),
        (["align.learning_rate=fast"], "must be a number"),
    ],
)
def test_bad_settings_are_one_sentence(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_config(settings=settings)


@pytest.mark.parametrize(
    ("text", "message"), [("- 1\n", "mapping"), ("a: [", "not valid YAML"), ("\x00", "YAML")]
)
def test_bad_files_are_one_sentence(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_missing_file_and_preset():
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist"):
        load_config("nowhere.yaml")
    with pytest.raises(ConfigError, match="Choose one of"):
        load_config(preset="huge")


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().seed = 3


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.integers(), min_size=1, max_size=3))
def test_unknown_keys_never_pass(tree):
    known = {field.name for field in dataclasses.fields(RunConfig)}
    if set(tree) <= known:
        return
    with pytest.raises(ConfigError):
        build(RunConfig, tree)


def test_ranges():
    for bad in ({"rank": 0}, {"dropout": 1.0}, {"experts": -1}, {"alpha": 0.0}, {"feed_forward": ()}):
        with pytest.raises(ConfigError):
            AdapterConfig(**bad)
    assert AdapterConfig(experts=0, top_k=2).experts == 0
    for bad in ({"clip": 0.0}, {"warmup": 1.0}, {"weight_decay": -1.0}, {"tokens_per_batch": 0}):
        with pytest.raises(ConfigError):
            StageConfig(**bad)


@pytest.mark.parametrize("text", ["a: [1, 2", "a: b: c", "seed: 2000-13-45", f"seed: {'9' * 5000}"])
def test_what_is_no_yaml_is_told_in_one_line(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="is not valid YAML") as caught:
        load_config(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="is not valid YAML") as caught:
        load_config(settings=[f"align.epochs={text.partition(' ')[2]}: ["])
    assert "\n" not in str(caught.value)
