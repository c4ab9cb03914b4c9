from __future__ import annotations

import pytest

from medcare import pipeline
from medcare.data.in_memory import source_of
from medcare.data.readers import conversations
from medcare.data.thoughts import summary, with_thoughts
from medcare.foundation.errors import DataError
from medcare.foundation.storage import write_jsonl
from medcare.settings.files import load_config
from medcare.text.records import Message

LAST = "This points to asthma, to be treated with a steroid."
THOUGHT = (
    "The child wheezes at night. Night cough may be reflux, too. It gets better with salbutamol. "
    f"So the wheeze is reversible. {LAST}"
)
ANSWER = "Asthma: treat it with an inhaled steroid."
IN_A_FIELD = {"role": "assistant", "content": ANSWER, "reasoning_content": THOUGHT}
INLINE = {"role": "assistant", "content": f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"}
OPENED = {"role": "assistant", "content": f"{THOUGHT}\n</think>\n\n{ANSWER}"}


def rows(turn: dict[str, str]) -> str:
    return source_of([{"messages": [{"role": "user", "content": "Why?"}, turn]}])


@pytest.mark.parametrize("turn", [IN_A_FIELD, INLINE, OPENED])
def test_a_thought_is_kept_dropped_or_summarised_wherever_it_stands(turn: dict[str, str]) -> None:
    kept, dropped, short = (
        next(conversations(rows(turn), thoughts=how)).messages[1] for how in ("keep", "drop", "summarise")
    )
    assert kept.to_dict() == turn
    assert dropped == Message("assistant", ANSWER)
    assert short == Message(
        "assistant",
        ANSWER,
        reasoning_content=f"It gets better with salbutamol. {LAST}",
    )


@pytest.mark.parametrize("how", ["drop", "summarise"])
def test_what_holds_no_thought_stays(how: str) -> None:
    turns = (
        Message("user", "Is <think>x</think> a tag?"),
        Message("assistant", "Say <think>no</think>."),
        Message("user", "Why?"),
        Message("assistant", "So."),
    )
    assert with_thoughts(turns, how) == turns  # type: ignore[arg-type]


def test_a_thought_without_an_answer_is_a_bad_row() -> None:
    with pytest.raises(DataError, match="empty answer: turn 2"):
        next(conversations(rows({"role": "assistant", "content": "<think>hm</think>"}), thoughts="drop"))


def test_a_summary_is_made_of_sentences_in_their_order_and_says_no_less_of_the_answer_than_any() -> None:
    found = summary(THOUGHT, "Reversible wheeze, so asthma.")
    assert found == "So the wheeze is reversible."
    found = summary("先看症状。夜间喘息可逆。考虑哮喘。", "考虑哮喘,夜间喘息可逆")
    assert found == "夜间喘息可逆。 考虑哮喘。"
    assert summary("One. Two!", "") == summary("One. Two!", "three") == "Two!"
    assert summary("", "three") == ""


def test_each_stage_reads_its_data_as_it_is_told(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    asked = []
    monkeypatch.setattr(
        pipeline.stages, "train", lambda stage, config, data, *_, **further: asked.append((data, further))
    )
    for name in ("one", "two"):
        write_jsonl(tmp_path / f"{name}.jsonl", rows(INLINE))
    config = load_config(
        settings=[
            f"aggregate.data={tmp_path / 'one.jsonl'}", "aggregate.thoughts=drop",
            f"align.data={tmp_path / 'two.jsonl'}", "align.thoughts=summarise", "align.replay=0.5",
        ]
    )  # fmt: skip
    pipeline.train_stage("align", config, tmp_path / "out")
    ((data, further),) = asked
    assert [entry.thoughts for entry in data] == ["summarise"]
    assert [entry.thoughts for entry in further["replayed"]] == ["drop"]
