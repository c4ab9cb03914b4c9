"""vLLM and SGLang, played by a small model that takes and gives what theirs take and give.

Signatures and answers are those of vLLM 0.33.0 and SGLang 0.5.23.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from medcare.adapters.loading import load_model
from medcare.evaluation import offline_engine
from medcare.evaluation.engines import LocalEngine, open_engine
from medcare.evaluation.predictions import answer
from medcare.evaluation.prompts import build_prompts
from medcare.foundation import processes
from medcare.foundation.errors import ConfigError, ModelError
from medcare.generation.sampling import Sampling, choose
from medcare.models.base_model import load_tokenizer
from medcare.pipeline import run_pipeline
from medcare.settings.config import EvaluationConfig, ModelConfig, RunConfig
from medcare.text.records import Item
from tests.export.stage_folders import stage_folders

ITEMS = [
    Item(f"i{n}", "t", "knowledge", "taught", "f", f"What causes <|im_end|> fever {n}?", options)
    for n, options in enumerate([(), ("Yes", "No"), (), ("arachnodactyly", "Marfan", "long fingers"), ()])
]
SETTINGS = EvaluationConfig(max_new_tokens=6)


class Played:
    """What both engines do with token ids; `seen` is what they were made with."""

    seen: dict[str, Any]

    def begin(self, source: str, **options: Any) -> None:
        type(self).seen = options
        self.model = load_model(source, device="cpu", dtype="float32")

    def follow(self, ids: list[int], most: int, ends: list[int], temperature: float, seed: int) -> list[int]:
        """As both: the token that ends an answer is the last of it."""
        sampling, made = Sampling(most, temperature, seed=seed), []
        draw = torch.Generator().manual_seed(seed)
        while len(made) < most and not set(made[-1:]) & set(ends):
            with torch.no_grad():
                logits = self.model(torch.tensor([ids + made])).logits[:, -1]
            made.append(int(choose(logits, [sampling], [torch.rand((), generator=draw).item()])))
        return made

    def told(self, ids: list[int]) -> list[float]:
        with torch.no_grad():
            logs = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return [float(logs[place, token]) for place, token in enumerate(ids[1:])]


@dataclass(kw_only=True)
class SamplingParams:
    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    detokenize: bool = True
    prompt_logprobs: int | None = None


class LLM(Played):
    def __init__(
        self,
        model: str,
        *,
        skip_tokenizer_init: bool = False,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        assert kwargs == {"max_model_len": -1}
        self.begin(model, skip=skip_tokenizer_init, trust=trust_remote_code, dtype=dtype)

    def generate(self, prompts: Any, sampling_params: Any = None, *, use_tqdm: bool = True) -> list[Any]:
        made = sampling_params if isinstance(sampling_params, list) else [sampling_params] * len(prompts)
        return [
            self.output(prompt["prompt_token_ids"], one) for prompt, one in zip(prompts, made, strict=True)
        ]

    def output(self, ids: list[int], one: SamplingParams) -> Any:
        new = self.follow(ids, one.max_tokens, one.stop_token_ids or [], one.temperature, one.seed or 0)
        told = None
        if one.prompt_logprobs is not None:
            values = zip(ids[1:], self.told(ids), strict=True)
            told = [None, *({token: SimpleNamespace(logprob=value)} for token, value in values)]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=new)], prompt_logprobs=told)


class Engine(Played):
    def __init__(self, **kwargs: Any) -> None:
        assert kwargs.keys() >= {"tp_size", "random_seed"}
        skip, trust = kwargs["skip_tokenizer_init"], kwargs["trust_remote_code"]
        self.begin(kwargs["model_path"], skip=skip, trust=trust, dtype=kwargs["dtype"])

    def generate(self, *, input_ids: Any, sampling_params: Any, return_logprob: bool = False,
                 logprob_start_len: int | None = None) -> list[dict[str, Any]]:  # fmt: skip
        made = sampling_params if isinstance(sampling_params, list) else [sampling_params] * len(input_ids)
        return [self.output(ids, one, logprob_start_len if return_logprob else None)
                for ids, one in zip(input_ids, made, strict=True)]  # fmt: skip

    def output(self, ids: list[int], one: dict[str, Any], start: int | None) -> dict[str, Any]:
        drawn = one.get("stop_token_ids", []), one["temperature"], one.get("sampling_seed", 0)
        facts = {}
        if start is not None:
            values = [None, *self.told(ids)]
            facts["input_token_logprobs"] = [
                (value, token, None) for value, token in zip(values, ids, strict=True)
            ][start:]
        return {"output_ids": self.follow(ids, one["max_new_tokens"], *drawn), "meta_info": facts}

    def shutdown(self) -> None:
        type(self).seen["closed"] = True


@pytest.fixture(params=["vllm", "sglang"])
def name(request, monkeypatch):
    """An engine that is installed."""
    for module, parts in {
        "vllm": {"LLM": LLM, "SamplingParams": SamplingParams},
        "sglang": {"Engine": Engine},
    }.items():
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
        vars(sys.modules[module]).update(parts)
    monkeypatch.setattr(offline_engine, "find_spec", lambda _: True)
    return request.param


def answers(engine, settings=SETTINGS):
    prompts = build_prompts(ITEMS, settings).all
    return {row["id"]: row for rows in answer(engine, prompts) for row in rows}


def run_with(engine, **settings):
    return RunConfig(
        model=ModelConfig(dtype="float32"),
        evaluation=EvaluationConfig(engine=engine, max_new_tokens=6, **settings),
    )


def test_they_are_asked_and_answer_as_our_own_engine(name, tiny_base):
    own = answers(
        LocalEngine(
            load_model(str(tiny_base), device="cpu", dtype="float32"),
            load_tokenizer(str(tiny_base)),
            SETTINGS,
        )
    )
    with open_engine(str(tiny_base), run_with(name)) as engine:
        theirs = answers(engine)
    assert own.keys() == theirs.keys()
    for key, row in own.items():
        assert row.get("text") == theirs[key].get("text")
        assert row.get("log_likelihoods", []) == pytest.approx(
            theirs[key].get("log_likelihoods", []), abs=1e-4
        )
    seen = (LLM if name == "vllm" else Engine).seen
    assert (seen["skip"], seen["trust"], seen["dtype"]) == (True, False, "float32")
    assert seen.get("closed", name == "vllm")


def test_answers_are_drawn_each_with_a_seed_of_its_own(name, tiny_base):
    config = run_with(name, exams="generation", samples=3, temperature=1.5)
    with open_engine(str(tiny_base), config) as engine:
        first = answers(engine, config.evaluation)
        assert answers(engine, config.evaluation) == first
    drawn = {sample["text"] for row in first.values() for sample in row.get("samples", [])}
    assert len(drawn) > 3


def test_what_they_cannot_do_is_said_before_anything_is_loaded(name, tiny_base, tmp_path, monkeypatch):
    stage_folders(tiny_base, tmp_path)

    def opened(model, **settings):
        return open_engine(str(model), run_with(name, **settings)).__enter__()

    with pytest.raises(ModelError, match=r"medcare merge .*align --out MODEL"):
        opened(tmp_path / "align")
    with pytest.raises(ConfigError, match="closes no thought"):
        opened(tiny_base, thinking=8)
    with pytest.raises(ConfigError, match="its own server"):
        opened("http://127.0.0.1:1/v1")

    def broken(source, **options):
        raise RuntimeError("CUDA out of memory.\nTried to allocate 20 GiB.")

    with monkeypatch.context() as patch:
        patch.setitem(offline_engine.BACKENDS, name, broken)
        with pytest.raises(ModelError, match=rf"{name} can't load .* here: CUDA out of memory\. Without"):
            opened(tiny_base)
    with pytest.raises(ConfigError, match=rf"medcare evaluate DIR --engine {name}"):
        run_pipeline(run_with(name), tmp_path / "run")
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(ConfigError, match="without a launcher"):
        opened(tiny_base)


def test_one_that_is_not_installed_is_said(tiny_base):
    with (
        pytest.raises(ConfigError, match="pip install sglang"),
        open_engine(str(tiny_base), run_with("sglang")),
    ):
        pass
