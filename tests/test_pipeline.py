"""The whole run on a tiny random model: it ends, continues, and never overwrites."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time

import pytest

from medcare.foundation.errors import ConfigError, DataError, FolderError
from medcare.foundation.storage import read_json, read_jsonl
from medcare.pipeline import evaluate_model, run_pipeline
from medcare.settings.files import load_config
from medcare.settings.run_folder import read_manifest
from medcare.training import stages
from tests.forked import command_line, started

SETTINGS = (
    "model.dtype=float32", "model.device=cpu", "benchmark.facts_per_task=1", "benchmark.items_per_task=1",
    "benchmark.align_per_task=2", "benchmark.aggregate_forms=1", "evaluation.max_new_tokens=4",
    "adapters.rank=2", "aggregate.epochs=1", "align.epochs=1",
    "evaluation.noise_ablation=true", "aggregate.log_every=1", "align.log_every=1",
)  # fmt: skip


def settings(base, *more):
    return [f"model.base={base}", *SETTINGS, *more]


def command(out, settings):
    return ["run", "--out", str(out), *(part for setting in settings for part in ("--set", setting))]


# For tests to which it doesn't matter: building all tasks of the embedded benchmark takes seconds.
FEW = "benchmark.tasks=[disease_to_gene, code_to_chapter, note_sections, dialogue_report]"


@pytest.fixture(scope="module")
def finished(tiny_base, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tiny"
    report = run_pipeline(load_config(settings=settings(tiny_base)), out)
    assert report == out / "report.html"
    return out


@pytest.fixture(scope="module")
def few(tiny_base, tmp_path_factory):
    """A finished run of a few tasks."""
    out = tmp_path_factory.mktemp("runs") / "few"
    run_pipeline(load_config(settings=settings(tiny_base, FEW)), out)
    return out


def test_results_have_the_published_shape(finished):
    results = json.loads((finished / "results.json").read_text())
    families = [task["family"] for task in results["tasks"].values()]
    assert families.count("knowledge") >= 12
    assert families.count("alignment") >= 12
    for task in results["tasks"].values():
        assert task["n"] >= 1
        assert {"base", "aggregate", "align"} <= task["scores"].keys()
        for score in task["scores"].values():
            assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
    assert results["summary"]


def test_the_report_is_one_file(finished):
    page = (finished / "report.html").read_text()
    assert "not a medical device" in page.lower()
    assert 'src="http' not in page
    assert 'href="http' not in page.replace('href="https://arxiv.org', "")


def test_nothing_of_the_test_is_in_the_training_data(finished):
    trained = {
        message["content"]
        for name in ("aggregate", "align")
        for row in read_jsonl(finished / "data" / f"{name}.jsonl")
        for message in row["messages"]
        if message["role"] == "user"
    }
    prompts = {row["prompt"] for row in read_jsonl(finished / "data" / "items.jsonl")}
    assert prompts
    assert not prompts & trained


def test_a_finished_run_is_not_run_again(finished, tiny_base, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    run_pipeline(load_config(settings=settings(tiny_base)), finished)
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert "finished" in capsys.readouterr().err


def test_a_baseline_is_trained_tested_and_compared_also_of_a_finished_run(
    finished, tiny_base, tmp_path, monkeypatch
):
    config = load_config(settings=settings(tiny_base))
    plain_step = stages.Loop._step

    def killed(self, step, meter):
        if step == 2:
            raise KeyboardInterrupt
        return plain_step(self, step, meter)

    out = tmp_path / "run"
    shutil.copytree(finished, out)
    with monkeypatch.context() as patch:
        patch.setattr(stages.Loop, "_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(config, out, ["lora"])
    assert not (out / "report.html").exists(), "the run is not finished"
    (out / "baselines" / ".DS_Store").touch()  # a file manager's
    run_pipeline(config, out)  # what was begun is gone on with
    assert read_manifest(out)["stage"] == "run", "the folder's files are those of its manifest"
    results = read_json(out / "results.json")
    assert results["models"] == [*read_json(finished / "results.json")["models"], "lora"]
    assert results["baselines"] == ["lora"]
    for family in results["summary"].values():
        assert {"lora->align", "base->align"} <= family["all"]["comparisons"].keys()
        assert not any(pair.endswith("->lora") for pair in family["all"]["comparisons"])
    assert "LoRA" in (out / "report.md").read_text()
    mixed = read_json(out / "baselines" / "lora" / "aggregate" / "manifest.json")
    assert mixed["result"]["tokens"] == sum(
        read_json(out / stage / "manifest.json")["result"]["tokens"] for stage in ("aggregate", "align")
    )
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    run_pipeline(config, out, ["lora"])
    run_pipeline(config, out)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}, "finished"
    with pytest.raises(ConfigError, match="another method"):
        run_pipeline(config, out, ["medcare"])


def test_another_run_is_not_overwritten(finished, tiny_base):
    with pytest.raises(FolderError, match=r"differs in seed"):
        run_pipeline(load_config(settings=settings(tiny_base, "seed=3")), finished)


@pytest.mark.parametrize("phase", ["answers of base", "aggregate:", "align:"])
def test_a_killed_run_ends_with_the_results_of_one_that_was_not(few, tiny_base, tmp_path, phase):
    out = tmp_path / "run"
    with started(command_line, *command(out, settings(tiny_base, FEW))) as (process, told):
        assert any(line.startswith(phase) for line in told)
        process.kill()
        process.join()
    assert not (out / "manifest.json").exists()
    run_pipeline(load_config(settings=settings(tiny_base, FEW)), out)
    assert (out / "data" / "items.jsonl").read_bytes() == (few / "data" / "items.jsonl").read_bytes()
    assert_close(read_json(out / "results.json"), read_json(few / "results.json"))


def assert_close(got, expected):
    """The same tree; log-likelihoods may be rounded otherwise, since they come in batches of other items."""
    if isinstance(expected, dict):
        assert list(got) == list(expected)
        for key, value in expected.items():
            assert_close(got[key], value)
    elif isinstance(expected, list):
        assert len(got) == len(expected)
        for first, second in zip(got, expected, strict=True):
            assert_close(first, second)
    else:
        assert got == (pytest.approx(expected, abs=1e-4) if isinstance(expected, float) else expected)


def test_ctrl_c_says_how_to_go_on(tiny_base, tmp_path):
    long = command(tmp_path / "run", settings(tiny_base, FEW, "aggregate.epochs=500"))
    with started(command_line, *long) as (process, told):
        while not (tmp_path / "run" / "aggregate" / "metrics.jsonl").exists():
            assert process.exitcode is None
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
        said = told.read()
        process.join()
        assert process.exitcode == 130
    assert said.strip().endswith("Stopped. The same command continues where this one stopped.")
    assert "Traceback" not in said
    assert list((tmp_path / "run" / "aggregate" / "checkpoints").glob("*.safetensors"))


def test_one_model_alone(finished, tiny_base, tmp_path):
    config = load_config(
        settings=settings(tiny_base, f"evaluation.items={finished / 'data' / 'items.jsonl'}")
    )
    assert evaluate_model(str(finished / "model"), config, tmp_path / "again").is_file()
    results = json.loads((tmp_path / "again" / "results.json").read_text())
    whole = json.loads((finished / "results.json").read_text())
    for name, task in results["tasks"].items():
        assert list(task["scores"].values()) == [whole["tasks"][name]["scores"]["align"]]


def test_own_conversations_and_an_own_exam(tiny_base, tmp_path):
    talk = '{"messages": [{"role": "user", "content": "Fever?"}, {"role": "assistant", "content": "R50"}]}\n'
    (tmp_path / "mine.jsonl").write_text(talk * 3)
    question = {
        "question": "Which vitamin?",
        "opa": "A",
        "opb": "B",
        "opc": "C",
        "opd": "D",
        "cop": 0,
        "id": "q1",
    }
    (tmp_path / "exam.jsonl").write_text(json.dumps(question) + "\n")
    own = [f"{stage}.data={tmp_path / 'mine.jsonl'}" for stage in ("aggregate", "align")]
    config = load_config(settings=settings(tiny_base, *own, f"evaluation.items={tmp_path / 'exam.jsonl'}"))
    run_pipeline(config, tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [task["n"] for task in results["tasks"].values()] == [1]
    (tmp_path / "mine.jsonl").write_text(talk * 4)
    with pytest.raises(FolderError, match="differs in aggregate_data_sha256, align_data_sha256"):
        run_pipeline(config, tmp_path / "run")


def test_own_data_that_is_empty_is_told(tiny_base, tmp_path):
    (tmp_path / "mine.jsonl").write_text("")
    config = load_config(settings=settings(tiny_base, f"aggregate.data={tmp_path / 'mine.jsonl'}"))
    with pytest.raises(DataError, match="holds no rows"):
        run_pipeline(config, tmp_path / "run")
