"""Reasoning models tested: budgets, drawn answers, through the local engine and through servers."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from medcare import api
from medcare.evaluation.engines import LocalEngine, Written, open_engine
from medcare.evaluation.predictions import predict
from medcare.evaluation.prompts import build_prompts
from medcare.foundation.errors import ConfigError, EvaluationError, FolderError
from medcare.foundation.storage import read_jsonl, write_jsonl
from medcare.settings.config import EvaluationConfig, RunConfig
from medcare.text.records import Item
from medcare.text.thoughts import ENOUGH
from tests.fake_server import FakeServer, content, fake_server, send
from tests.generation.chain_model import chain_model
from tests.text.tokenizers_by_family import tokenizer_of

END = "<|im_end|>"
OPTIONS = ("aspirin", "heparin", "warfarin")
ITEMS = [
    Item(f"i{n}", "exam", "knowledge", "held_out", f"f{n}", f"Which {n}?", OPTIONS, (1,), "B. heparin")
    for n in range(4)
]
THINKS = EvaluationConfig(exams="generation", thinking=6, max_new_tokens=3)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    tokenizer = copy.deepcopy(tokenizer_of("qwen3"))
    tokenizer.add_tokens(["\n\n"])
    return tokenizer


@pytest.fixture(scope="module")
def endless(tokenizer: Any) -> Any:
    """It thinks on and on; asked for the answer, it says B or C."""
    return chain_model(
        tokenizer, {"Ċ": ["<think>"], "<think>": ["a"], "a": ["a"], "\n\n": ["B", "C"]}, otherwise=END
    )


def test_what_is_thought_is_kept_beside_the_answer_that_is_scored(endless, tokenizer, tmp_path):
    write_jsonl(
        tmp_path / "exam.jsonl",
        [{"question": f"Which {n}?", "options": list(OPTIONS), "answer": "B"} for n in range(4)],
    )
    settings = EvaluationConfig(exams="generation", thinking=6, max_new_tokens=3, samples=5, temperature=0.6)
    results = api.evaluate(
        endless, tmp_path / "out", items=tmp_path / "exam.jsonl", tokenizer=tokenizer,
        config=RunConfig(evaluation=settings),
    )  # fmt: skip
    rows = list(read_jsonl(tmp_path / "out/evaluation/model/predictions.jsonl"))
    assert all(len(row["samples"]) == 5 for row in rows)
    drawn = [[sample["text"] for sample in row["samples"]] for row in rows]
    assert {text for texts in drawn for text in texts} == {"B", "C"}
    assert all(s["thought"].startswith("aaaaa\n\nConsidering") for row in rows for s in row["samples"])
    task = results["tasks"]["exam"]
    assert task["samples"] == 5
    assert task["pass@1"]["model"]["value"] == pytest.approx(sum(texts.count("B") for texts in drawn) / 20)
    most = sum(texts.count("B") > 2 for texts in drawn) / 4
    assert task["maj@5"]["model"]["value"] == task["scores"]["model"]["value"] == pytest.approx(most)
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert '<details class="thought"><summary>Thought</summary>' in page
    assert "maj@5" in page
    assert "pass@1" in (tmp_path / "out/results.csv").read_text(encoding="utf-8")


def test_settings_that_do_not_go_together_are_refused(tmp_path, endless, tokenizer):
    with pytest.raises(ConfigError, match=r"evaluation\.temperature must be above 0 .* got 0\.0"):
        EvaluationConfig(samples=3)
    with pytest.raises(EvaluationError, match=r"options of 'exam' are ranked .*evaluation\.exams=generation"):
        build_prompts(ITEMS, EvaluationConfig(thinking=5))
    path = tmp_path / "p.jsonl"
    predict(LocalEngine(endless, tokenizer, THINKS), build_prompts(ITEMS, THINKS), path, name="m")
    with pytest.raises(FolderError, match=r"they differ in thinking"):
        predict(
            LocalEngine(endless, tokenizer),
            build_prompts(ITEMS, EvaluationConfig(exams="generation", max_new_tokens=3)),
            path,
            name="m",
        )


def server(text: str | None, finish: str = "stop", **message: str) -> AbstractContextManager[FakeServer]:
    """A server that answers all chats so, and completions with C."""
    completion = send(b'{"choices": [{"index": 0, "text": " C", "finish_reason": "stop"}]}')
    return fake_server(lambda _, body: content(text, finish, **message) if "messages" in body else completion)


def answers(running: FakeServer, config: EvaluationConfig) -> list[list[Written]]:
    with open_engine(running.url, RunConfig(evaluation=config, seed=3)) as engine:
        found = dict(pair for batch in engine.write(build_prompts(ITEMS, config).all) for pair in batch)
    return [found[n] for n in range(len(ITEMS))]


@pytest.mark.parametrize(
    "chat",
    [
        {"text": "\n\nB", "reasoning_content": "A or B?\n"},
        {"text": "B", "reasoning": "A or B?"},
        {"text": "<think>\nA or B?\n</think>\n\nB"},
        {"text": "A or B?\n</think>\n\nB"},
    ],
)
def test_a_server_s_thought_is_told_from_its_answer_however_it_comes(chat):
    with server(**chat) as running:
        assert answers(running, THINKS) == [[Written("B", "A or B?")]] * 4
    assert all(body["max_tokens"] == 9 for body in running.bodies)
    assert all(body["chat_template_kwargs"]["enable_thinking"] for body in running.bodies)


def test_a_server_s_thought_that_took_both_budgets_is_closed_and_the_answer_asked_for(
    tmp_path: Path, tokenizer, capsys
):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    config = EvaluationConfig(
        exams="generation", thinking=3, max_new_tokens=3, tokenizer=str(tmp_path / "tokenizer")
    )
    cut = {"text": None, "finish": "length", "reasoning_content": "a b c d"}
    with server(**cut) as running:
        found = answers(running, config)
    second = [body for body in running.bodies if "prompt" in body]
    assert [body["max_tokens"] for body in second] == [3] * 4
    text = tokenizer.decode(second[0]["prompt"])
    assert text.endswith("<|im_start|>assistant\n<think>\na b" + ENOUGH)
    assert found == [[Written("C", "a b" + ENOUGH.partition("\n</think>")[0])]] * 4
    with server(**cut) as running:
        assert answers(running, THINKS) == [[Written("", "a b c d")]] * 4
    assert "4 thoughts were cut off" in capsys.readouterr().err


def test_answers_are_drawn_from_a_server_with_seeds_of_their_own():
    config = EvaluationConfig(exams="generation", samples=3, temperature=0.6)
    with server("B") as running:
        assert answers(running, config) == [[Written("B")] * 3] * 4
    assert len({body["seed"] for body in running.bodies}) == 12
    assert {(body["temperature"], body["top_p"]) for body in running.bodies} == {(0.6, 0.95)}
    assert not any("chat_template_kwargs" in body for body in running.bodies)
