"""The real harness on the files that the package writes, against the package's own scores."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from medcare.data.task import Task
from medcare.evaluation.answer_formats import metric_of
from medcare.evaluation.engines import LocalEngine
from medcare.evaluation.evaluation_folder import read_scored_tasks
from medcare.evaluation.harness.files import write_tasks
from medcare.evaluation.predictions import predict
from medcare.evaluation.prompts import build_prompts
from medcare.foundation.storage import read_jsonl, write_json, write_jsonl
from medcare.settings.config import EvaluationConfig
from medcare.text.records import Item
from tests.conftest import tiny_model
from tests.text.tokenizers_by_family import tokenizer_of

QUESTIONS = [
    ("Which finding is a seizure?", ("fever", "seizure of Marfan", "Long fingers"), (1,)),
    ("患者无发热?", ("高血压", "答案为B。", "syndrome (J45.909)", "a"), (0, 3)),
    ("What causes arachnodactyly?\nA. Marfan\nB. fever", ("Marfan", "fever"), (0,)),
]
VERDICTS = [
    ("verdict", "Is fever a finding?", ("true", "false"), 0),
    ("verdict", "Is R50?", ("false", "true"), 0),
]
FORMS = [
    ("form", "Name the finding: seizure; fever.", "seizure; fever"),
    ("form", "Name the finding: fever.", "fever"),
    ("label", "Code J45?", "yes"),
]
ITEMS = (
    [
        Item(f"q{n}", "exam", "knowledge", "taught", f"q{n}", prompt, options, answers, options[answers[0]])
        for n, (prompt, options, answers) in enumerate(QUESTIONS)
    ]
    + [
        Item(f"v{n}", task, "knowledge", "taught", f"v{n}", prompt, options, (right,), options[right])
        for n, (task, prompt, options, right) in enumerate(VERDICTS)
    ]
    + [
        Item(f"f{n}", task, "alignment", "taught", f"f{n}", prompt, target=target)
        for n, (task, prompt, target) in enumerate(FORMS)
    ]
)
CARDS = [
    Task("exam", "knowledge", "options", "accuracy", "m", "s"),
    Task("verdict", "knowledge", "options", "accuracy", "m", "s"),
    Task("form", "alignment", "list", "micro_f1", "m", "s"),
    Task("label", "alignment", "label", "macro_f1", "m", "s", labels=("yes", "no")),
]


@pytest.fixture
def test_set(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "data"
    write_jsonl(folder / "items.jsonl", [asdict(item) for item in ITEMS])
    write_json(folder / "benchmark.json", {"cards": [card.to_dict() for card in CARDS]})
    return folder.parent


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def harness(model: Any, tokenizer: Any, tasks: Path, *names: str) -> dict[str, Any]:
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3, max_length=256, enable_thinking=False)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found = lm_eval.simple_evaluate(
        lm,
        tasks=list(names),
        task_manager=manager,
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    assert found is not None
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["chatml", "qwen3", "llama3", "gemma"])
def test_the_harness_gives_the_same_log_likelihoods_and_scores(family, test_set, tmp_path):
    tokenizer = tokenizer_of(family)
    model = tiny_model("llama", vocab=len(tokenizer))
    prompts = build_prompts(ITEMS, EvaluationConfig(max_new_tokens=8))
    path = test_set / "evaluation" / "model" / "predictions.jsonl"
    predict(LocalEngine(model, tokenizer, EvaluationConfig(max_new_tokens=8)), prompts, path, name="tiny")
    names = write_tasks(str(test_set), tmp_path / "tasks", max_new_tokens=8)
    assert names == ["medcare_exam", "medcare_verdict", "medcare_form", "medcare_label"]
    found = harness(model, tokenizer, tmp_path / "tasks", *names)
    ours = {row["id"]: row for row in read_jsonl(path)}
    for sample in found["samples"]["medcare_exam"]:
        values = [value for value, _ in sample["filtered_resps"]]
        options = sample["doc"]["options"]
        before = values[len(options)] if len(values) > len(options) else 0.0
        got = [value - before for value in values[: len(options)]]
        assert got == pytest.approx(ours[sample["doc"]["id"]]["log_likelihoods"], abs=1e-4)
    scores = {task.card.name: task for task in read_scored_tasks(test_set)}
    for name, key in (("exam", "acc_bytes"), ("verdict", "acc")):
        assert found["configs"][f"medcare_{name}"]["metadata"]["ranked_by"] == key == scores[name].ranked_by
    for name, key in (("exam", "acc_bytes"), ("verdict", "acc"), ("form", "score"), ("label", "score")):
        rows = scores[name].rows["model"]
        expected = float(metric_of(scores[name].card)(rows.sum(0)[None])[0])
        assert found["results"][f"medcare_{name}"][f"{key},none"] == pytest.approx(expected)
    for name in ("form", "label"):
        for sample in found["samples"][f"medcare_{name}"]:
            # The harness keeps what it makes of half a character, where an answer is cut.
            text = sample["filtered_resps"][0].rstrip("\ufffd").strip()
            assert text == ours[sample["doc"]["id"]]["text"]
