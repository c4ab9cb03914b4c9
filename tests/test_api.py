from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

import medcare
from medcare.adapters.orthogonality import penalty
from medcare.adapters.tuner import adapted_layers
from medcare.cli import app
from medcare.foundation.errors import AdapterError, ConfigError, DataError, FolderError
from medcare.models.base_model import load_tokenizer
from medcare.settings.run_folder import read_manifest
from tests.conftest import tiny_model

SHAPES = medcare.AdapterConfig(rank=2, alpha=4, experts=4, dropout=0.0)
ROWS = [
    {"messages": [{"role": "user", "content": f"Sign {i}?"}, {"role": "assistant", "content": f"R{i}"}]}
    for i in range(6)
]


def config(base) -> medcare.RunConfig:
    settings = ["model.dtype=float32", "model.device=cpu", f"model.base={base}", "adapters.rank=2"]
    return medcare.load_config(preset="smoke", settings=settings)


def test_train_merge_evaluate(tiny_base, tmp_path):
    settings = config(tiny_base)
    result = medcare.train("aggregate", tmp_path / "one", data=ROWS, config=settings)
    assert result["steps"] >= 1
    assert medcare.train("aggregate", tmp_path / "one", data=ROWS, config=settings) == {}, "finished already"
    medcare.train("align", tmp_path / "two", data=ROWS[:4], start=tmp_path / "one", config=settings)
    merged = medcare.merge(tmp_path / "two", tmp_path / "model")
    branched = medcare.load_model(tmp_path / "two", device="cpu", dtype="float32")
    plain = medcare.load_model(merged, device="cpu", dtype="float32")
    ids = torch.arange(5, 25)[None]
    torch.testing.assert_close(plain(ids).logits, branched(ids).logits, atol=1e-4, rtol=0)
    exam = tmp_path / "exam.csv"
    exam.write_text(",Question,A,B,C,D,Answer\n0,Which sign?,cough,rash,pain,none,B\n")
    results = medcare.evaluate(merged, tmp_path / "scores", items=exam, config=settings)
    assert [task["n"] for task in results["tasks"].values()] == [1]


def test_a_model_in_memory_is_tested_between_two_steps(tiny_base, tmp_path):
    exam = tmp_path / "exam.csv"
    exam.write_text(",Question,A,B,C,D,Answer\n0,Which sign?,cough,rash,pain,none,B\n")
    settings = config(tiny_base)
    expected = medcare.evaluate(tiny_base, tmp_path / "folder", items=exam, config=settings)
    model = medcare.load_model(tiny_base, device="cpu", dtype="float32").train()
    with pytest.raises(ConfigError, match="tokenizer"):
        medcare.evaluate(model, tmp_path / "memory", items=exam, config=settings)
    tokenizer = load_tokenizer(str(tiny_base))
    arguments = {"items": exam, "tokenizer": tokenizer, "config": settings}
    assert medcare.evaluate(model, tmp_path / "memory", **arguments)["tasks"] == expected["tasks"]
    assert model.training
    with pytest.raises(FolderError, match="may have changed"):
        medcare.evaluate(model, tmp_path / "memory", **arguments)


def test_other_rows_are_another_run(tiny_base, tmp_path):
    medcare.train("aggregate", tmp_path / "one", data=ROWS, config=config(tiny_base))
    with pytest.raises(FolderError, match="another run"):
        medcare.train("aggregate", tmp_path / "one", data=ROWS[1:], config=config(tiny_base))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "no rows"),
        ([{"a": 1}], "no known format"),
        ([*ROWS, {"messages": []}], "What was given, line 7"),
    ],
)
def test_rows_that_are_none(rows, reason, tiny_base, tmp_path):
    with pytest.raises(DataError, match=reason):
        medcare.train("aggregate", tmp_path / "one", data=rows, config=config(tiny_base))


def test_a_loop_of_ones_own_writes_what_train_writes(tiny_base, tmp_path):
    model = medcare.load_model(tiny_base, device="cpu", dtype="float32")
    parameters = medcare.attach(model, "aggregate", SHAPES)
    assert {name.split(".branches.")[1].split(".")[0] for name in parameters} == {
        "knowledge", "noise", "attention",
    }  # fmt: skip
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter += 0.1 * torch.randn_like(parameter)
    one = medcare.save_stage(model, tmp_path / "one", "aggregate", adapters=SHAPES, base=str(tiny_base))
    assert read_manifest(one)["base"] == str(tiny_base)
    again = medcare.load_model(one, device="cpu", dtype="float32")
    ids = torch.arange(5, 25)[None]
    torch.testing.assert_close(again(ids).logits, model.eval()(ids).logits)
    # ... and stage 2 of the command line starts from it.
    shapes = replace(config(tiny_base), adapters=SHAPES)
    assert medcare.train("align", tmp_path / "two", data=ROWS, start=one, config=shapes)["steps"]


def test_save_stage_wants_the_start_of_stage_2_and_of_no_other(llama, tmp_path):
    medcare.attach(llama, "aggregate", SHAPES)
    with pytest.raises(FolderError, match="start"):
        medcare.save_stage(llama, tmp_path / "x", "align", adapters=SHAPES)
    with pytest.raises(FolderError, match="start"):
        medcare.save_stage(llama, tmp_path / "x", "aggregate", adapters=SHAPES, start=tmp_path)


def two_branches():
    model = tiny_model("llama")
    medcare.attach(model, "aggregate", SHAPES)
    for linear in adapted_layers(model).values():
        linear.remove("noise")
    return model, medcare.attach(model, "align", SHAPES)


def test_attach_says_what_trains():
    model, parameters = two_branches()
    names = {name.split(".branches.")[1].split(".")[0] for name in parameters}
    assert names == {"knowledge", "alignment"}
    assert {name for name, entry in model.named_parameters() if entry.requires_grad} == set(parameters)


@pytest.mark.parametrize("kind", ["l1", "frobenius"])
def test_the_callback_adds_the_penalty_once(kind):
    model, parameters = two_branches()
    callback = medcare.KeepOrthogonal(kind, weight=0.5)
    callback.on_pre_optimizer_step(None, None, None, model=model)
    got = {name: entry.grad.clone() for name, entry in parameters.items() if entry.grad is not None}
    model.zero_grad()
    (0.5 * penalty(model, kind)).backward()
    assert got
    for name, gradient in got.items():
        torch.testing.assert_close(gradient, parameters[name].grad)


def test_the_callback_refuses_a_model_without_both_branches(llama):
    medcare.attach(llama, "aggregate", SHAPES)
    with pytest.raises(AdapterError, match="attach"):
        medcare.KeepOrthogonal().on_train_begin(None, None, None, model=llama)


def test_importing_the_package_is_light():
    code = (
        "import sys, medcare; medcare.AdapterConfig; assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_there_are_two_stages(llama, tmp_path):
    for call in (
        lambda: medcare.train("merge", tmp_path / "x", data=ROWS),
        lambda: medcare.attach(llama, "merge"),
        lambda: medcare.save_stage(llama, tmp_path / "x", "merge"),
    ):
        with pytest.raises(ConfigError, match="one of aggregate, align"):
            call()
    assert not (tmp_path / "x").exists()


def test_generate_and_chat_answer_as_the_command_does(tiny_base, capsys):
    settings = {"max_new_tokens": 6}
    talk = medcare.chat(tiny_base, system="Be brief.", settings=settings)
    first = talk.answer("What is fever?")
    assert first == medcare.generate(tiny_base, "What is fever?", system="Be brief.", settings=settings)
    talk.answer("And pain?")
    assert [turn.content for turn in talk.turns[::2]] == ["What is fever?", "And pain?"]
    assert capsys.readouterr().out == ""
    asked = ["ask", str(tiny_base), "What is fever?", "--max-new-tokens", "6"]
    expected = CliRunner().invoke(app, asked).stdout.strip()
    assert medcare.generate(tiny_base, "What is fever?", settings=settings) == expected
    with pytest.raises(ConfigError, match="max_new_tokens"):
        medcare.generate(tiny_base, "What is fever?", settings={"max_new_token": 6})


def test_settings_as_a_dictionary_are_those_of_the_command_line():
    tree = {"align": {"epochs": 2}, "model": {"device": "cpu"}}
    expected = medcare.load_config(settings=["align.epochs=2", "model.device=cpu"])
    assert medcare.load_config(settings=tree) == expected
    with pytest.raises(ConfigError, match=r"align\.epochs"):
        medcare.load_config(settings={"align": {"epoch": 2}})


def test_errors_name_keywords(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/other").write_text("mine")
    with pytest.raises(FolderError, match="another out="):
        medcare.train("aggregate", tmp_path / "full", data=ROWS)
    with pytest.raises(FolderError, match="start=DIR"):
        medcare.train("align", tmp_path / "two", data=ROWS)


def test_every_public_name_is_there():
    assert dir(medcare) == sorted(medcare.__all__)
    for name in medcare.__all__:
        assert getattr(medcare, name).__doc__
    with pytest.raises(AttributeError):
        medcare.nothing  # noqa: B018
