"""The two stages and the merge, as runs that meet only through folders."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from medcare.adapters.input_directions import leading, load_directions, save_directions
from medcare.adapters.loading import load_model
from medcare.adapters.tuner import adapted_layers
from medcare.export.lora import export_lora
from medcare.export.merged import merge
from medcare.foundation.contents import seal
from medcare.foundation.errors import (
    AdapterError,
    ConfigError,
    DataError,
    FolderError,
    ModelError,
    StorageError,
)
from medcare.foundation.storage import write_folder
from medcare.models.base_model import load_tokenizer
from medcare.settings.config import AdapterConfig, ModelConfig, RunConfig, StageConfig
from medcare.settings.run_folder import read_manifest
from medcare.text.chat_template import render_all
from medcare.text.records import Conversation, Message
from medcare.training import refusals, stages
from tests.conftest import tiny_model

IDS = torch.arange(3, 27).reshape(2, 12)
TALKS = [
    Conversation(
        str(index), "test", (Message("user", f"Code {index}?"), Message("assistant", f"J{index} fever."))
    )
    for index in range(12)
]


def config(base, **changes):
    stage = StageConfig(learning_rate=1e-2, tokens_per_batch=128, log_every=1, epochs=2)
    made = RunConfig(
        model=ModelConfig(base=str(base), dtype="float32", device="cpu"),
        adapters=AdapterConfig(rank=2, alpha=4, experts=4, top_k=2),
        aggregate=replace(stage, orthogonality="none"),
        align=stage,
    )
    return replace(made, **changes)


@pytest.fixture(scope="module")
def both(tiny_base, tmp_path_factory):
    """A finished stage 1, a finished stage 2 and the merged model."""
    folder = tmp_path_factory.mktemp("run")
    stages.train("aggregate", config(tiny_base), TALKS, folder / "one", data_hash="x")
    stages.train("align", config(tiny_base), TALKS, folder / "two", data_hash="x", start=folder / "one")
    merge(folder / "two", folder / "plain")
    return folder


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def test_stage_folders_hold_what_the_readme_says(both):
    one = {path.name for path in (both / "one").iterdir()}
    assert one >= {
        "knowledge",
        "attention",
        "noise.safetensors",
        "config.yaml",
        "metrics.jsonl",
        "manifest.json",
    }
    assert "checkpoints" not in one
    two = {path.name for path in (both / "two").iterdir()}
    assert two >= {"knowledge", "attention", "alignment", "config.yaml", "metrics.jsonl", "manifest.json"}
    assert "noise.safetensors" not in two
    manifest = json.loads((both / "two" / "manifest.json").read_text())
    assert manifest["stage"] == "align"
    assert manifest["seed"] == 17
    assert manifest["data"] == "x"
    assert {"torch", "transformers", "python"} <= manifest["versions"].keys()


def test_noise_is_stored_under_each_module_with_the_published_shapes(both):
    tensors = load_file(both / "one" / "noise.safetensors")
    name = "model.layers.1.mlp.down_proj"
    shapes = {
        key.removeprefix(f"{name}."): tuple(t.shape) for key, t in tensors.items() if key.startswith(name)
    }
    assert shapes == {
        "router.weight": (4, 64), "router.bias": (4,), "lora_A": (4, 2, 64), "lora_B": (4, 32, 2),
    }  # fmt: skip
    assert len(tensors) == 2 * 3 * 4


def test_the_merged_folder_needs_nothing_of_this_package(both):
    script = (
        "import sys, torch; from transformers import AutoModelForCausalLM as A\n"
        "m = A.from_pretrained(sys.argv[1]); assert not any('medcare' in k for k in sys.modules)\n"
        "torch.save(m(torch.arange(3, 27).reshape(2, 12)).logits.detach(), sys.argv[2])"
    )
    out = both / "logits.pt"
    subprocess.run([sys.executable, "-c", script, both / "plain", out], check=True, capture_output=True)
    plain = torch.load(out, weights_only=True)
    torch.testing.assert_close(plain, logits(load_model(both / "two", dtype="float32")), rtol=0, atol=1e-4)


def test_the_stages_taught_something(both, tiny_base):
    base = logits(load_model(tiny_base, dtype="float32"))
    one = logits(load_model(both / "one", dtype="float32"))
    two = logits(load_model(both / "two", dtype="float32"))
    assert (one - base).abs().max() > 1e-2
    assert (two - one).abs().max() > 1e-2


def test_peft_composes_attention_and_knowledge_to_what_stage_two_starts_from(both, tiny_base):
    peft = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_base), both / "one" / "attention"
    )
    peft = PeftModel.from_pretrained(peft.merge_and_unload(), both / "one" / "knowledge")
    expected = logits(load_model(both / "one", dtype="float32", noise=False))
    torch.testing.assert_close(logits(peft), expected, rtol=0, atol=1e-5)


def test_load_model_gives_each_folder_its_branches(both, tiny_base):
    def branches(folder, **options):
        model = load_model(folder, dtype="float32", **options)
        return {name for linear in adapted_layers(model).values() for name in linear.branches}

    assert branches(both / "one") == {"knowledge", "noise", "attention"}
    assert branches(both / "one", merge=True) == {"noise"}
    assert branches(both / "two", merge=True) == set()
    assert branches(both / "one", noise=False) == {"knowledge"}
    assert branches(both / "two") == {"knowledge", "alignment"}
    assert branches(both / "plain") == branches(tiny_base) == set()
    assert branches(both / "two" / "alignment") == {"knowledge"}  # a PEFT folder is one branch on its base


def branch_tensors(folder):
    """All tensors of a stage folder's branches by file and name."""
    return {
        f"{path.relative_to(folder)}: {name}": tensor
        for path in folder.rglob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_seed_alone_decides_whatever_was_drawn_before(both, tiny_base, tmp_path):
    torch.manual_seed(99)
    stages.train("aggregate", config(tiny_base), TALKS, tmp_path / "again", data_hash="x")
    stages.train("aggregate", config(tiny_base, seed=5), TALKS, tmp_path / "other", data_hash="x")
    assert same(branch_tensors(both / "one"), branch_tensors(tmp_path / "again"))
    stages.train("align", config(tiny_base), TALKS, tmp_path / "two", data_hash="x", start=both / "one")
    assert same(branch_tensors(both / "two"), branch_tensors(tmp_path / "two"))
    one, other = branch_tensors(both / "one"), branch_tensors(tmp_path / "other")
    first = [next(tensors[name] for name in one if "lora_A" in name) for tensors in (one, other)]
    assert (first[0] - first[1]).abs().mean() > 0.05, "another seed starts from other A"


def test_knowledge_learns_in_stage_two_unless_it_is_frozen(both, tiny_base, tmp_path):
    settings = config(tiny_base)
    frozen = replace(settings, align=replace(settings.align, train_knowledge=False))
    stages.train("align", frozen, TALKS, tmp_path / "two", data_hash="x", start=both / "one")
    before = branch_tensors(both / "one" / "knowledge")
    assert same(before, branch_tensors(tmp_path / "two" / "knowledge"))
    learned = branch_tensors(both / "two" / "knowledge")
    assert all((before[name] != learned[name]).any() for name in before)
    for folder in (tmp_path / "two", both / "two"):
        assert same(branch_tensors(both / "one" / "attention"), branch_tensors(folder / "attention"))
        alignment = branch_tensors(folder / "alignment")
        assert all(tensor.any() for tensor in alignment.values()), "alignment has learned"


def test_only_branches_train_in_training_mode_with_the_dropout_of_their_stage(
    both, tiny_base, tmp_path, monkeypatch
):
    """Stage 2 once kept stage 1's dropout, whatever it was set to."""
    seen = []

    class Watched(stages.Loop):
        def _step(self, step, meter):
            before = {name: parameter.clone() for name, parameter in self.model.named_parameters()}
            loss = super()._step(step, meter)
            changed = {n for n, p in self.model.named_parameters() if not torch.equal(p, before[n])}
            branches = {name.split(".branches.")[-1].split(".")[0] for name in changed}
            training = {module.training for module in self.model.modules()}
            dropped = {linear.shared.zeroed for linear in adapted_layers(self.model).values()}
            seen.append((branches, training, dropped))
            return loss

    monkeypatch.setattr(stages, "Loop", Watched)
    settings = config(tiny_base)
    for stage, start, dropout in (("aggregate", None, 0.5), ("align", tmp_path / "aggregate", 0.25)):
        made = replace(settings, adapters=replace(settings.adapters, dropout=dropout))
        stages.train(stage, made, TALKS, tmp_path / stage, data_hash="x", start=start)
        trained = {"knowledge", "noise", "attention"} if stage == "aggregate" else {"knowledge", "alignment"}
        assert set().union(*(branches for branches, _, _ in seen)) == trained
        assert all(training == {True} for _, training, _ in seen)
        assert all(dropped == {round(256 * dropout)} for _, _, dropped in seen)
        assert len(seen) > 2
        seen.clear()


@pytest.mark.parametrize("stage", ["aggregate", "align"])
def test_the_settings_of_a_stage_arrive_in_its_loop(both, tiny_base, tmp_path, monkeypatch, stage):
    pytest.importorskip("bitsandbytes")

    class Arrived(Exception):
        pass

    def caught(model, parameters, examples, settings, **options):
        raise Arrived(model, settings, options)

    monkeypatch.setattr(stages, "Loop", caught)
    made = config(tiny_base, seed=23)
    own = replace(made.stage(stage), gradient_checkpointing=True, learning_rate=0.5)
    made = replace(
        made,
        **{stage: own},
        model=replace(made.model, quantization="int8"),
        adapters=replace(made.adapters, noise_drop=0.25),
    )
    start = both / "one" if stage == "align" else None
    with pytest.raises(Arrived) as arrived:
        stages.train(stage, made, TALKS, tmp_path, data_hash="x", start=start)
    model, settings, options = arrived.value.args
    assert settings == own
    assert (options["seed"], options["folder"]) == (23, tmp_path)
    assert options["noise_drop"] == (0.25 if stage == "aggregate" else 0.0)
    assert model.is_gradient_checkpointing
    assert {linear.weight.dtype for linear in adapted_layers(model).values()} == {torch.int8}


def test_a_loaded_model_answers_without_dropout_and_trains_on_with_that_of_its_stage(tiny_base, tmp_path):
    settings = config(tiny_base)
    settings = replace(settings, adapters=replace(settings.adapters, dropout=0.5))
    stages.train("aggregate", settings, TALKS, tmp_path, data_hash="x")
    model = load_model(tmp_path, dtype="float32")
    assert {module.training for module in model.modules()} == {False}
    assert torch.equal(logits(model), logits(model))
    model.train()
    assert {linear.shared.zeroed for linear in adapted_layers(model).values()} == {128}
    assert not torch.equal(logits(model), logits(model))


def test_merging_a_stage_with_its_noise_aggregator_is_refused(both, tmp_path):
    with pytest.raises(AdapterError, match="router weighs the experts anew for every token"):
        merge(both / "one", tmp_path / "out")
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_finished_folder_is_left_as_it_is(both, tiny_base):
    before = {path: path.stat().st_mtime_ns for path in (both / "one").rglob("*")}
    assert stages.train("aggregate", config(tiny_base), TALKS, both / "one", data_hash="x") == {}
    assert before == {path: path.stat().st_mtime_ns for path in (both / "one").rglob("*")}


@pytest.mark.parametrize(
    ("changes", "data", "told"), [({"seed": 5}, "x", "seed"), ({}, "y", "data")], ids=["settings", "data"]
)
def test_a_folder_of_another_run_is_refused(both, tiny_base, changes, data, told):
    with pytest.raises(FolderError, match=rf"holds another run \(it differs in {told}\)"):
        stages.train("aggregate", config(tiny_base, **changes), TALKS, both / "one", data_hash=data)


def test_a_folder_of_somebody_else_is_refused(tiny_base, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FolderError, match="not empty"):
        stages.train("aggregate", config(tiny_base), TALKS, tmp_path, data_hash="x")
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_stage_two_says_what_it_starts_from(both, tiny_base, tmp_path):
    with pytest.raises(FolderError, match="--from DIR"):
        stages.train("align", config(tiny_base), TALKS, tmp_path / "a", data_hash="x")
    with pytest.raises(FolderError, match="holds stage 'align'"):
        stages.train("aggregate", config(tiny_base), TALKS, tmp_path / "b", data_hash="x", start=both / "two")


def test_stage_two_of_other_shapes_is_refused_with_what_to_set(both, tiny_base, tmp_path):
    other = config(tiny_base, adapters=AdapterConfig(rank=4, alpha=4, feed_forward=("up_proj",)))
    with pytest.raises(FolderError, match=r"rank, feed_forward.*--set adapters.rank=2 --set adapters.feed_f"):
        stages.train("align", other, TALKS, tmp_path / "a", data_hash="x", start=both / "one")


def test_an_adapter_of_another_base_is_refused(both, tmp_path):
    other = tmp_path / "other"
    tiny_model("llama", hidden=48).save_pretrained(other)
    manifest = json.loads((both / "two" / "manifest.json").read_text())
    moved = tmp_path / "two"
    subprocess.run(["cp", "-r", both / "two", moved], check=True)
    (moved / "manifest.json").write_text(json.dumps(seal({**manifest, "base": str(other)})))
    with pytest.raises(AdapterError, match=r"hidden_size 32 \(this model: 48\)"):
        load_model(moved)
    config_file = moved / "knowledge" / "adapter_config.json"
    config_file.write_text(config_file.read_text().replace(str(manifest["base"]), str(other)))
    with pytest.raises(AdapterError, match="made for another base"):
        load_model(moved / "knowledge")


@pytest.mark.parametrize("missing", ["knowledge/adapter_model.safetensors", "manifest.json"])
def test_an_incomplete_folder_is_told(both, tmp_path, missing):
    subprocess.run(["cp", "-r", both / "two", tmp_path / "two"], check=True)
    (tmp_path / "two" / missing).unlink()
    with pytest.raises(FolderError, match=missing.rpartition("/")[2]):
        load_model(tmp_path / "two")


@pytest.mark.parametrize(
    ("stage", "lost"),
    [("one", "knowledge"), ("two", "knowledge"), ("two", "alignment"), ("one", "noise.safetensors")],
)
def test_a_folder_that_has_lost_a_branch_is_told_and_never_loaded_without(both, tmp_path, stage, lost):
    subprocess.run(["cp", "-r", both / stage, tmp_path], check=True)
    place = tmp_path / stage / lost
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(FolderError, match=f"is not complete: {lost}"):
        load_model(tmp_path / stage)
    with pytest.raises(FolderError, match=f"is not complete: {lost}"):
        export_lora(tmp_path / stage, tmp_path / "lora")


def test_what_is_not_a_causal_language_model_is_told(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ModelError, match="not a causal language model"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match="no model folder"):
        load_model("./nowhere/at/all")


def test_too_long_examples_are_left_out_and_none_left_is_an_error(tiny_base, tmp_path, capsys):
    long = Conversation("long", "test", (Message("user", "x" * 900), Message("assistant", "y")))
    stages.train("aggregate", config(tiny_base), [*TALKS, long], tmp_path / "a", data_hash="x")
    short = replace(config(tiny_base).aggregate, max_length=3)
    with pytest.raises(DataError, match="none of at most 3 tokens"):
        stages.train("aggregate", config(tiny_base, aggregate=short), TALKS, tmp_path / "b", data_hash="x")


@pytest.mark.parametrize("room", [100, 4096])
def test_a_full_disk_ends_in_one_sentence_and_leaves_what_was_there(both, tmp_path, room):
    with limited(room), pytest.raises(StorageError, match=r"(?i)too large"):
        merge(both / "two", tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()
    merge(both / "two", tmp_path / "out")  # the same call again, with room
    assert (tmp_path / "out" / "manifest.json").exists()
    assert not [path for path in (tmp_path / "out").iterdir() if "part" in path.name]


def test_a_tokenizer_that_finds_no_room_ends_in_one_sentence(tiny_base, tmp_path):
    tokenizer = load_tokenizer(str(tiny_base))
    with limited(1000), pytest.raises(StorageError, match=r"(?i)too large"):
        write_folder(tmp_path, lambda part: tokenizer.save_pretrained(part))
    assert not list(tmp_path.iterdir())


@contextmanager
def limited(size):
    """Files no larger than this many bytes; Python ignores the signal that comes with the error."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def test_both_stages_beside_a_quantised_base_merge_into_the_full_one(both, tiny_base, tmp_path):
    pytest.importorskip("bitsandbytes")
    made = config(tiny_base)
    made = replace(made, model=replace(made.model, quantization="int8"))
    stages.train("aggregate", made, TALKS, tmp_path / "one", data_hash="x")
    stages.train("align", made, TALKS, tmp_path / "two", data_hash="x", start=tmp_path / "one")
    merge(tmp_path / "two", tmp_path / "plain")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert {weight.dtype for weight in merged.parameters()} == {torch.float32}
    last = [
        json.loads((folder / "two" / "metrics.jsonl").read_text().splitlines()[-1])["loss"]
        for folder in (tmp_path, both)
    ]
    assert last[0] == pytest.approx(last[1], rel=0.03)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("int8", r"int8 can't be cut into shards .*quantization=nf4 and launch with configs/fsdp2\.yaml"),
        ("nf4", r"nf4 was not tried with ZeRO-3\. Launch with configs/fsdp2\.yaml"),
    ],
)
def test_what_can_not_be_cut_into_shards_is_told(tiny_base, tmp_path, monkeypatch, kind, told):
    for module in (stages, refusals):
        monkeypatch.setattr(module, "is_sharded", lambda *by: True)
    made = config(tiny_base, model=ModelConfig(base=str(tiny_base), quantization=kind))
    with pytest.raises(ConfigError, match=told):
        stages.train("aggregate", made, TALKS, tmp_path / "one", data_hash="x")


def test_what_trains_is_told_in_numbers_that_say_something(tiny_base, tmp_path, capsys):
    stages.train("aggregate", config(tiny_base), TALKS, tmp_path, data_hash="x")
    assert re.search(
        r"12 examples, trainable 8\.9k \(attention 896, knowledge 2\.3k, noise 5\.7k\)",
        capsys.readouterr().err,
    )


def test_too_few_steps_are_told_before_they_are_made_with_settings_that_make_more(
    tiny_base, tmp_path, capsys
):
    large = replace(config(tiny_base).aggregate, tokens_per_batch=8192, epochs=1)
    stages.train("aggregate", config(tiny_base, aggregate=large), TALKS, tmp_path / "one", data_hash="x")
    told = capsys.readouterr().err
    assert told.index("aggregate: 1 step in all, of 12 examples with") < told.index("1/1")
    changes = dict(re.findall(r"--set aggregate\.(\w+)=(\d+)", told))
    assert changes
    better = replace(large, **{name: int(value) for name, value in changes.items()})
    stages.train("aggregate", config(tiny_base, aggregate=better), TALKS, tmp_path / "two", data_hash="x")
    steps = read_manifest(tmp_path / "two")["result"]["steps"]
    assert int(re.search(r"About (\d+) come of", told)[1]) == pytest.approx(steps, rel=0.5)
    assert steps > 1


@pytest.mark.parametrize("kind", ["inputs", "contrast"])
def test_stage_two_keeps_out_of_what_stage_one_reads(both, tiny_base, tmp_path, kind):
    align = replace(config(tiny_base).align, orthogonality=kind, input_energy=0.8)
    stages.train(
        "align", config(tiny_base, align=align), TALKS, tmp_path / "two", data_hash="x", start=both / "one"
    )
    stored = load_directions(both / "one" / "inputs.safetensors")
    model, free = load_model(tmp_path / "two"), load_model(both / "two")
    told = json.loads((tmp_path / "two" / "manifest.json").read_text())["heard"]
    for name, linear in adapted_layers(model, "alignment").items():
        rows, entry = linear.branch("alignment").down.detach(), stored[name]
        assert entry.basis.shape[0] > 8
        heard = told["knowledge"][name]
        assert heard < 0.45 < share_heard(adapted_layers(free)[name].branch("alignment").down.detach(), entry)
        assert float(linear.branch("alignment").up.detach().abs().max()) > 0  # it learned all the same
        if kind == "inputs":
            assert float((rows @ leading(entry, 0.8).T).abs().max()) < 1e-5
    merge(tmp_path / "two", tmp_path / "plain")
    torch.testing.assert_close(logits(load_model(tmp_path / "plain")), logits(model), rtol=1e-4, atol=1e-4)


def share_heard(rows, entry):
    """The energy of the inputs that goes through rows, against that through rows drawn at random."""
    through = ((rows @ entry.basis.T).square() * entry.energy).sum()
    return float(through / (rows.square().sum() * entry.total / rows.shape[1]))


@pytest.mark.parametrize("lacks", ["all", "one"])
def test_a_stage_one_without_directions_is_told(both, tiny_base, tmp_path, lacks):
    older = tmp_path / "one"
    shutil.copytree(both / "one", older)
    path = older / "inputs.safetensors"
    [_, *others] = load_directions(path).items()
    path.unlink()
    if lacks == "one":
        save_directions(path, dict(others))
    manifest = json.loads((older / "manifest.json").read_text())
    del manifest["files"]["inputs.safetensors"]
    (older / "manifest.json").write_text(json.dumps(seal(manifest)))
    align = replace(config(tiny_base).align, orthogonality="inputs")
    with pytest.raises(AdapterError, match="Train stage 1 again"):
        stages.train(
            "align", config(tiny_base, align=align), TALKS, tmp_path / "two", data_hash="x", start=older
        )


def test_a_share_that_leaves_no_room_is_told(both, tiny_base, tmp_path):
    align = replace(config(tiny_base).align, orthogonality="inputs", input_energy=0.999999)
    changed = config(tiny_base, align=align)
    with pytest.raises(AdapterError, match=r"Lower align\.input_energy"):
        stages.train("align", changed, TALKS, tmp_path / "two", data_hash="x", start=both / "one")


def test_distilling_keeps_stage_ones_answers_to_its_own_rows(both, tiny_base, tmp_path, monkeypatch):
    """Labels that stage 1 never saw pull replayed rows away from its answers; its own answers do not."""

    def trained(name, distill, data=TALKS):
        changed = replace(
            config(tiny_base),
            align=replace(
                config(tiny_base).align, replay=0.5, distill=distill, epochs=3, checkpoint_seconds=0.0
            ),
        )
        out = tmp_path / name
        stages.train("align", changed, data, out, data_hash="x", start=both / "one", replayed=others)
        return out

    others = [
        Conversation(talk.id, "test", (talk.messages[0], Message("assistant", "Something else.")))
        for talk in TALKS
    ]
    ids = torch.tensor([list(next(iter(render_all(load_tokenizer(str(tiny_base)), others))).ids)])

    def distance(folder):
        models = [load_model(path, dtype="float32", noise=False) for path in (both / "one", folder)]
        with torch.no_grad():
            before, after = (model(ids).logits.log_softmax(-1) for model in models)
        return float((before.exp() * (before - after)).sum(-1).mean())

    assert distance(taught := trained("taught", 1.0)) < 0.5 * distance(trained("labelled", 0.0))
    plain_step = stages.Loop._step

    def killed(self, step, meter):
        if step == 3:
            raise KeyboardInterrupt
        return plain_step(self, step, meter)

    with monkeypatch.context() as patch:
        patch.setattr(stages.Loop, "_step", killed)
        with pytest.raises(KeyboardInterrupt):
            trained("again", 1.0)
    assert same(branch_tensors(taught), branch_tensors(trained("again", 1.0))), "continued bit for bit"


def test_replay_mixes_stage_ones_rows_in_and_needs_them(both, tiny_base, tmp_path, capsys):
    align = replace(config(tiny_base).align, replay=0.25)
    changed = config(tiny_base, align=align)
    with pytest.raises(DataError, match=r"aggregate\.data"):
        stages.train("align", changed, TALKS, tmp_path / "none", data_hash="x", start=both / "one")
    stages.train(
        "align", changed, TALKS, tmp_path / "two", data_hash="x", start=both / "one", replayed=TALKS[:4]
    )
    tokens = [
        json.loads((folder / "manifest.json").read_text())["result"]["tokens"]
        for folder in (both / "two", tmp_path / "two")
    ]
    assert tokens[1] > 1.2 * tokens[0]


def test_a_checkpoint_is_no_part_of_a_finished_folder(tiny_base, tmp_path):
    often = replace(config(tiny_base), aggregate=replace(config(tiny_base).aggregate, checkpoint_seconds=0.0))
    stages.train("aggregate", often, TALKS, tmp_path / "one", data_hash="x")
    assert not [name for name in read_manifest(tmp_path / "one")["files"] if "checkpoints" in name]
    left = tmp_path / "one" / "checkpoints" / "3.safetensors"
    left.parent.mkdir()
    left.write_bytes(b"left by a kill")
    assert stages.train("aggregate", often, TALKS, tmp_path / "one", data_hash="x") == {}
    assert not left.parent.exists()


def change_weights(folder):
    weights = load_file(folder / "model.safetensors")
    save_file(
        {key: value * 1.01 for key, value in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )


def test_a_base_whose_weights_have_changed_is_not_gone_on_from(tiny_base, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    made = config(base)
    stages.train("aggregate", made, TALKS, tmp_path / "one", data_hash="x")
    begun = replace(made, aggregate=replace(made.aggregate, checkpoint_seconds=0.0))

    class Stopped(Exception):
        pass

    def stop(*_, **__):
        raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "gather", stop)
        with pytest.raises(Stopped):
            stages.train("aggregate", begun, TALKS, tmp_path / "begun", data_hash="x")
    former = (base / "model.safetensors").read_bytes()
    change_weights(base)
    with pytest.raises(FolderError, match="differs in base_sha256"):
        stages.train("aggregate", begun, TALKS, tmp_path / "begun", data_hash="x")
    with pytest.raises(FolderError, match="trained on other weights"):
        stages.train("align", made, TALKS, tmp_path / "two", data_hash="x", start=tmp_path / "one")
    for read in (load_model, lambda folder: merge(folder, tmp_path / "plain")):
        with pytest.raises(AdapterError, match=r"trained on other weights.*--base PATH"):
            read(tmp_path / "one")
    load_model(tmp_path / "one", base=str(base))
    (base / "model.safetensors").write_bytes(former)
    moved = shutil.copytree(base, tmp_path / "moved", copy_function=shutil.copy)
    shutil.rmtree(base)
    load_model(tmp_path / "one", base=str(moved))


def test_a_base_named_anew_is_told_apart(tiny_base, tmp_path, capsys):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    stages.train("aggregate", config(base), TALKS, tmp_path / "one", data_hash="x")
    capsys.readouterr()
    load_model(tmp_path / "one", base=str(base))
    assert "other weights" not in capsys.readouterr().err
    change_weights(base)
    load_model(tmp_path / "one", base=str(base))
    assert "was trained on other weights than" in capsys.readouterr().err


def test_plain_text_trains_beside_conversations_in_stage_1_alone(tiny_base, tmp_path):
    text = Conversation.of_text("book", "book", "Marfan syndrome has long, slender fingers. " * 12)
    made = config(tiny_base, aggregate=StageConfig(tokens_per_batch=64, max_length=32, orthogonality="none"))
    result = stages.train("aggregate", made, [*TALKS, text], tmp_path / "one", data_hash="x")
    alone = stages.train("aggregate", made, TALKS, tmp_path / "other", data_hash="x")
    assert result["tokens"] > alone["tokens"] + 32  # in pieces, not left out
    with pytest.raises(DataError, match="plain text"):
        stages.train("align", made, [text], tmp_path / "two", data_hash="x", start=tmp_path / "one")
