"""What the method is compared with: the same loop, folders and merge."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from medcare.adapters.loading import load_model
from medcare.adapters.methods import METHODS
from medcare.export.merged import merge
from medcare.foundation.errors import ConfigError, DataError, FolderError
from medcare.training import stages
from tests.training.test_stages import TALKS, branch_tensors, logits, same
from tests.training.test_stages import config as two_epochs

TALKS = TALKS[:8]

KINDS = [name for name in METHODS if name != "medcare" and not name.endswith("_two_stage")]


def config(base):
    settings = two_epochs(base)
    stage = replace(settings.align, epochs=1, tokens_per_batch=64)
    return replace(settings, aggregate=replace(stage, orthogonality="none"), align=stage)


def trained(name, base, folder, *, stages_of=2):
    """The last stage's folder of a method, trained there."""
    settings = replace(config(base), method=name)
    one = folder / "aggregate"
    stages.train("aggregate", settings, TALKS, one, data_hash="x")
    if settings.mixes_stages or stages_of == 1:
        return one
    stages.train("align", settings, TALKS, folder / "align", data_hash="x", start=one)
    return folder / "align"


@pytest.fixture(scope="module")
def folders(tiny_base, tmp_path_factory):
    """The last stage of every kind, with one stage, by name."""
    return {name: trained(name, tiny_base, tmp_path_factory.mktemp(name)) for name in KINDS}


@pytest.mark.parametrize("name", KINDS)
def test_it_learns_and_its_merged_folder_answers_like_its_stage(name, folders, tiny_base, tmp_path):
    merge(folders[name], tmp_path / "plain")
    stage, plain = (logits(load_model(path, dtype="float32")) for path in (folders[name], tmp_path / "plain"))
    torch.testing.assert_close(plain, stage, rtol=0, atol=1e-5)
    assert (stage - logits(load_model(tiny_base, dtype="float32"))).abs().max() > 1e-2


@pytest.mark.parametrize("name", KINDS)
def test_the_manifest_says_how_many_parameters_trained(name, folders):
    manifest = json.loads((folders[name] / "manifest.json").read_text())
    total = sum(entry.numel() for entry in load_model(folders[name], dtype="float32").parameters())
    assert 0 < manifest["trained_parameters"] <= total


@pytest.mark.parametrize("name", KINDS)
def test_a_killed_stage_ends_bit_for_bit_like_one_that_ran_through(
    name, folders, tiny_base, tmp_path, monkeypatch
):
    settings = replace(config(tiny_base), method=name)
    settings = replace(settings, aggregate=replace(settings.aggregate, checkpoint_seconds=0.0))
    plain_step = stages.Loop._step

    def killed(self, step, meter):
        if step == 2:
            raise RuntimeError("killed")
        return plain_step(self, step, meter)

    with monkeypatch.context() as patch:
        patch.setattr(stages.Loop, "_step", killed)
        with pytest.raises(RuntimeError, match="killed"):
            stages.train("aggregate", settings, TALKS, tmp_path / "one", data_hash="x")
    stages.train("aggregate", settings, TALKS, tmp_path / "one", data_hash="x")
    assert same(branch_tensors(folders[name]), branch_tensors(tmp_path / "one"))


@pytest.mark.parametrize("name", ["lora_two_stage", "dora_two_stage", "full_two_stage"])
def test_two_stages_one_after_the_other(name, tiny_base, tmp_path):
    align = trained(name, tiny_base, tmp_path)
    one, two = (logits(load_model(path, dtype="float32")) for path in (tmp_path / "aggregate", align))
    assert (two - one).abs().max() > 1e-2, "the second learns"
    zero = replace(config(tiny_base), method=name)
    zero = replace(zero, align=replace(zero.align, learning_rate=1e-30))
    stages.train("align", zero, TALKS, tmp_path / "still", data_hash="x", start=tmp_path / "aggregate")
    still = logits(load_model(tmp_path / "still", dtype="float32"))
    torch.testing.assert_close(still, one, rtol=0, atol=1e-5)  # it begins where the first ended
    merge(align, tmp_path / "plain")
    torch.testing.assert_close(
        logits(load_model(tmp_path / "plain", dtype="float32")), two, rtol=0, atol=1e-5
    )


def test_loraplus_has_b_learn_sixteen_times_as_fast_as_a(tiny_base):
    stage = METHODS["loraplus"].at_own_rates(replace(config(tiny_base).aggregate, rates={"lora_B": 0.5}))
    assert stage.rates == {"lora_A": 0.25, "lora_B": 2.0}
    assert stage.learning_rate == config(tiny_base).aggregate.learning_rate


def test_what_can_not_be_is_refused_with_what_to_do(tiny_base, folders, tmp_path):
    settings = config(tiny_base)

    def refused(error, match, stage="aggregate", start=None, **changes):
        with pytest.raises(error, match=match):
            stages.train(
                stage, replace(settings, **changes), TALKS, tmp_path / match, data_hash="x", start=start
            )

    refused(ConfigError, "one stage", "align", method="lora", start=folders["lora"])
    refused(FolderError, "method=lora,", "align", method="rslora_two_stage", start=folders["lora"])
    refused(ConfigError, "float32", method="full", model=replace(settings.model, dtype="bfloat16"))
    for name in ("full", "dora", "pissa", "olora", "corda", "miss", "osf"):
        quantised = replace(settings.model, quantization="int8")
        refused(ConfigError, "quantization=none, or method=lora", method=name, model=quantised)
    distilling = replace(settings.align, replay=0.1, distill=0.5)
    refused(ConfigError, "lora_two_stage", method="dora_two_stage", align=distilling)
    corda = trained("corda_two_stage", tiny_base, tmp_path, stages_of=1)
    refused(DataError, "conversations of stage 1", "align", method="corda_two_stage", start=corda)
