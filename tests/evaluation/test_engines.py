"""Servers, our own and one that misbehaves, against the local engine; and files that are continued."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from medcare.evaluation.engines import LocalEngine, open_engine
from medcare.evaluation.examples import Examples
from medcare.evaluation.predictions import predict, unanswered
from medcare.evaluation.prompts import build_prompts
from medcare.foundation.errors import ConfigError, EvaluationError, FolderError
from medcare.foundation.storage import read_json, read_jsonl
from medcare.serving.service import Limits
from medcare.settings.config import EvaluationConfig, ModelConfig, RunConfig
from medcare.text.records import Conversation, Item, Message
from tests.conftest import tiny_model
from tests.fake_server import Action, content, failure, fake_server, send
from tests.serving.conftest import running, served
from tests.text.tokenizers_by_family import tokenizer_of

pytestmark = pytest.mark.usefixtures("soon")

ITEMS = [
    Item(
        f"i{n}", f"t{n % 2}", "knowledge", "taught", f"f{n}", f"What causes fever {n}?",
        ("arachnodactyly", "Marfan", "long fingers") if n % 2 else (), (1,) if n % 2 else (), "Marfan",
    )
    for n in range(8)
]  # fmt: skip
SHORT = EvaluationConfig(max_new_tokens=6, retries=2)


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    tokenizer = tokenizer_of("chatml")
    return tiny_model("llama", vocab=len(tokenizer)), tokenizer


def local(tiny: tuple[Any, Any]) -> LocalEngine:
    return LocalEngine(*tiny, EvaluationConfig(max_new_tokens=6))


def rows(engine: Any, path: Path, config: EvaluationConfig, **options: Any) -> dict[str, dict[str, Any]]:
    predict(engine, build_prompts(ITEMS, config, **options), path, name="tiny")
    return {row["id"]: row for row in read_jsonl(path)}


def same(ours: dict[str, dict[str, Any]], theirs: dict[str, dict[str, Any]]) -> bool:
    assert ours.keys() == theirs.keys()
    for name, row in ours.items():
        assert row.keys() == theirs[name].keys()
        assert row.get("text") == theirs[name].get("text")
        assert row.get("log_likelihoods", []) == pytest.approx(
            theirs[name].get("log_likelihoods", []), abs=2e-4
        )
    return True


def test_a_file_is_continued_and_not_with_other_prompts(tiny, tmp_path):
    path = tmp_path / "whole" / "predictions.jsonl"
    whole = rows(local(tiny), path, SHORT)
    assert all(("text" in row) == (not row.get("bytes")) for row in whole.values())
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + lines[3][:9])  # killed while it wrote
    assert len(unanswered(ITEMS, path)) == 5
    assert same(whole, rows(local(tiny), path, SHORT))
    with pytest.raises(FolderError, match=r"other prompts \(they differ in exams\)"):
        rows(local(tiny), path, EvaluationConfig(max_new_tokens=6, exams="generation"))
    assert read_json(path.parent / "prompts.json")["settings"]["max_new_tokens"] == 6


def test_files_from_before_settings_were_stored_hold_plain_prompts(tiny, tmp_path):
    path = tmp_path / "predictions.jsonl"
    rows(local(tiny), path, SHORT)
    (tmp_path / "prompts.json").unlink()
    with pytest.raises(FolderError, match="shuffle_options"):
        rows(local(tiny), path, EvaluationConfig(max_new_tokens=6, shuffle_options=True))
    rows(local(tiny), path, SHORT)


def test_examples_change_no_answer_by_being_computed_once(tiny, tmp_path):
    """A task's prompts share their examples' cache; each alone has none to share."""
    turns = (Message("user", "What is seen?"), Message("assistant", "Long fingers"))
    pool = [Conversation(f"{task}/x/{n}", task, turns) for task in ("t0", "t1") for n in range(3)]
    examples = Examples(pool, ITEMS, seed=0)
    config = EvaluationConfig(max_new_tokens=6, shots=2)
    prompts = build_prompts(ITEMS, config, examples=examples).all
    engine = local(tiny)
    ranked = [prompt for prompt in prompts if prompt.options]
    together = dict(pair for batch in engine.rank(ranked) for pair in batch)
    for index, prompt in enumerate(ranked):
        ((_, alone),) = next(iter(engine.rank([prompt])))
        assert together[index] == pytest.approx(alone, abs=1e-4)


def test_our_own_server_gives_the_local_answers(tiny, tmp_path):
    config = EvaluationConfig(max_new_tokens=6, exams="generation", shuffle_options=True, concurrency=3)
    ours = rows(local(tiny), tmp_path / "a" / "p.jsonl", config, seed=2)
    with running(served()) as server:
        run = RunConfig(evaluation=config)
        with open_engine(f"{server.url}/v1#tiny", run) as engine:
            theirs = rows(engine, tmp_path / "b" / "p.jsonl", config, seed=2)
        with open_engine(f"{server.url}/v1", run) as engine:  # its only model needs no name
            assert same(ours, rows(engine, tmp_path / "c" / "p.jsonl", config, seed=2))
        with (
            pytest.raises(EvaluationError, match=r"no model 'other'.*\(tiny\)"),
            open_engine(f"{server.url}/v1#other", run),
        ):
            pass
    assert same(ours, theirs)
    assert [ours[item.id].get("order") for item in ITEMS if item.options] == [
        theirs[item.id]["order"] for item in ITEMS if item.options
    ]


def test_our_own_server_gives_the_local_log_likelihoods(tiny, tmp_path, tokenizer_folder):
    config = EvaluationConfig(tokenizer=tokenizer_folder, max_new_tokens=6, retries=0, concurrency=3)
    with (
        running(served()) as server,
        open_engine(f"{server.url}/v1", RunConfig(evaluation=config)) as engine,
    ):
        theirs = rows(engine, tmp_path / "p.jsonl", config)
    assert same(rows(local(tiny), tmp_path / "q" / "p.jsonl", config), theirs)
    assert all("log_likelihoods" in theirs[item.id] for item in ITEMS if item.options)


def test_what_our_own_server_can_not_score_is_said(tmp_path, tokenizer_folder):
    config = EvaluationConfig(tokenizer=tokenizer_folder, retries=0)
    with (
        running(served(), limits=Limits(log_probabilities=10)) as server,
        open_engine(f"{server.url}/v1", RunConfig(evaluation=config)) as engine,
        pytest.raises(EvaluationError, match=r"at most 10 log-prob.*evaluation\.exams=generation"),
    ):
        rows(engine, tmp_path / "p.jsonl", config)


def test_ranking_on_a_server_needs_a_tokenizer(tmp_path):
    with (
        running(served()) as server,
        open_engine(f"{server.url}/v1", RunConfig()) as engine,
        pytest.raises(ConfigError, match=r"evaluation\.tokenizer"),
    ):
        rows(engine, tmp_path / "p.jsonl", SHORT)


class Echoing:
    """Acts as vLLM: echoes log-probabilities and answers chats, and fails first as it is told to."""

    def __init__(self, tiny: tuple[Any, Any]) -> None:
        self.model = tiny[0]
        self.failures: list[Action | None] = []
        self.lock = threading.Lock()

    def __call__(self, _number: int, body: dict[str, Any]) -> Action:
        with self.lock:
            failure = self.failures.pop(0) if self.failures else None
            if failure is not None:
                return failure
            if "messages" in body:
                return content(" " + body["messages"][-1]["content"][::-1])
            choices = [self.echo(index, ids) for index, ids in enumerate(body["prompt"])]
            return as_json({"id": "1", "choices": choices[::-1]})

    def echo(self, index: int, ids: list[int]) -> dict[str, Any]:
        with torch.no_grad():
            scores = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        values = [
            None,
            *(float(scores[n, token]) for n, token in enumerate(ids[1:])),
            float(scores[-1].max()),
        ]
        tokens = [str(token) for token in (*ids, 0)]
        return {"index": index, "text": "", "logprobs": {"token_logprobs": values, "tokens": tokens}}


def as_json(tree: Any) -> Action:
    return send(json.dumps(tree).encode())


@pytest.fixture
def tokenizer_folder(tiny: tuple[Any, Any], tmp_path: Path) -> str:
    tiny[1].save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


def test_a_server_with_echo_gives_the_local_log_likelihoods(tiny, tmp_path, tokenizer_folder, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    config = EvaluationConfig(tokenizer=tokenizer_folder, api_key_env="MY_KEY", retries=3)
    act = Echoing(tiny)
    with fake_server(act) as server, open_engine(server.url, RunConfig(evaluation=config)) as engine:
        garbled = send(b'{"choices": [{"index"')
        act.failures = [failure(429), failure(500), as_json({"choices": []}), garbled, failure(503)]
        theirs = rows(engine, tmp_path / "p.jsonl", config)
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer secret"}
    ours = rows(local(tiny), tmp_path / "q" / "p.jsonl", config)
    ranked = [item.id for item in ITEMS if item.options]
    assert same({name: ours[name] for name in ranked}, {name: theirs[name] for name in ranked})
    assert theirs["i0"]["text"] == ITEMS[0].prompt[::-1]


def test_a_server_that_ignores_echo_is_found_out(tiny, tmp_path, tokenizer_folder):
    config = EvaluationConfig(tokenizer=tokenizer_folder)
    lone = {"logprobs": {"token_logprobs": [-1.0], "tokens": ["a"]}, "text": "a"}
    act = Echoing(tiny)
    with fake_server(act) as server, open_engine(server.url, RunConfig(evaluation=config)) as engine:
        act.failures = [as_json({"id": "1", "choices": [{**lone, "index": n} for n in range(3)]})] * 4
        with pytest.raises(EvaluationError, match=r"'echo' .* evaluation\.exams=generation"):
            rows(engine, tmp_path / "p.jsonl", config)


def test_what_a_server_can_not_do_is_said_and_what_was_answered_stays(tiny, tmp_path):
    config = EvaluationConfig(exams="generation", retries=1, concurrency=1)
    path = tmp_path / "p.jsonl"
    act = Echoing(tiny)
    with fake_server(act) as server:
        with open_engine(f"{server.url}#m", RunConfig(evaluation=config)) as engine:
            act.failures = [None, None, failure(401, "not now")]
            with pytest.raises(EvaluationError, match=r"not now\. .*evaluation\.api_key_env"):
                rows(engine, path, config)
        assert len(list(read_jsonl(path))) == 2
        with open_engine(f"{server.url}#m", RunConfig(evaluation=config)) as engine:
            act.failures = [as_json({"choices": []})] * 2
            with pytest.raises(EvaluationError, match=r"something else than OpenAI's .* command continues"):
                rows(engine, path, config)
            assert len(rows(engine, path, config)) == len(ITEMS)
    with (
        pytest.raises(EvaluationError, match="can't be reached"),
        open_engine(f"{server.url}#m", RunConfig(evaluation=config)),
    ):
        pass


def test_a_key_that_is_not_set_is_missed(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    config = RunConfig(evaluation=EvaluationConfig(api_key_env="MY_KEY"))
    with pytest.raises(ConfigError, match="MY_KEY"), open_engine("http://127.0.0.1:9/v1", config):
        pass


def test_a_folder_is_opened_here(tiny_base, tmp_path):
    config = RunConfig(model=ModelConfig(device="cpu", dtype="float32"), evaluation=SHORT)
    with open_engine(str(tiny_base), config) as engine:
        assert len(rows(engine, tmp_path / "p.jsonl", SHORT)) == len(ITEMS)
