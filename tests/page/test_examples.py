"""The questions that the page offers: facts that were taught, and that a model here states when asked."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from medcare.data.record_files import write_records
from medcare.foundation.storage import write_jsonl
from medcare.page.examples import states
from medcare.serving.served_model import ServedModel
from medcare.text.records import Item
from tests.generation.chain_model import chain_model
from tests.serving.conftest import running, served
from tests.text.tokenizers_by_family import tokenizer_of

RIGHT = {"A": 1.0, "B": 1.0, "C": 0.0}


def item(letter: str, split: str = "taught") -> Item:
    """Its right answer is the letter; a model that says "B" to everything is right in one of them."""
    return Item(
        f"t/{letter}/{split}", "letters", "knowledge", split, letter, f"Say {letter}, {split}.",  # type: ignore[arg-type]
        ("A", "B", "C"), ("ABC".index(letter),),
    )  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    items = [item(letter, split) for letter in RIGHT for split in ("taught", "held_out")]
    run = tmp_path / "runs" / "demo"
    write_records(run / "data" / "items.jsonl", items)
    (run / "report.html").write_text("report")
    for model in ("base", "align"):
        rows = [{"id": one.id, "score": RIGHT[one.fact] if model == "align" else 0.0} for one in items]
        write_jsonl(run / "evaluation" / model / "outcomes.jsonl", rows)
        (run / "evaluation" / model / "predictions.jsonl").write_text("")
    return run.parent


def test_what_is_offered_was_taught_chosen_and_stated(runs: Path) -> None:
    tokenizer = tokenizer_of("qwen3")
    model = chain_model(tokenizer, {"Ċ": ["B"]}, otherwise="<|im_end|>")
    with running(ServedModel("says B", model, tokenizer), reports=runs) as server:
        assert httpx.get(f"{server.url}/api/examples", timeout=20).json() == ["Say B, taught."]


def test_a_server_without_runs_offers_none(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "report.html").write_text("report")
    with running(served(), reports=tmp_path) as server:
        assert httpx.get(f"{server.url}/api/examples", timeout=20).json() == []


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Low fever.", True),
        ("It is low fever", True),
        ("fever", False),
        ("Low fever or pain", False),
        ("", False),
    ],
)
def test_an_answer_states_the_right_option_and_no_other(answer: str, right: bool) -> None:
    question = Item("1", "t", "knowledge", "taught", "f", "?", ("fever", "low fever", "pain"), (1,))
    assert states(answer, question) is right
