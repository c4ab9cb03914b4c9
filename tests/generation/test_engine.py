from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from medcare.foundation.errors import DataError
from medcare.generation import generate
from medcare.generation.engine import BatchingEngine
from medcare.generation.requests import EngineRequest, Event, Finished, PromptTokens, Token
from medcare.generation.sampling import Sampling
from tests.conftest import tiny_model


class EventLog:
    """Collects what an engine hands out."""

    def __init__(self, engine: BatchingEngine) -> None:
        self.engine = engine
        self.events: list[list[Event]] = []

    def ask(self, prompt: list[int], *, score_prompt: bool = False, **settings: object) -> EngineRequest:
        self.events.append([])
        sampling = Sampling(**{"max_new_tokens": 12, **settings})  # type: ignore[arg-type]
        return self.engine.add(prompt, sampling, self.events[-1].append, score_prompt=score_prompt)

    def run(self, steps: int = 1000) -> None:
        while self.engine.busy and steps:
            self.engine.step()
            steps -= 1

    def tokens(self, index: int) -> list[int]:
        return [event.id for event in self.events[index] if isinstance(event, Token)]

    def end(self, index: int) -> str | None:
        last = self.events[index][-1] if self.events[index] else None
        return last.reason if isinstance(last, Finished) else None


def prompts(count: int, *, longest: int = 20, seed: int = 3) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(3, 90) for _ in range(draw.randrange(1, longest))] for _ in range(count)]


def sliding(window: int = 6) -> PreTrainedModel:
    torch.manual_seed(3)
    config = AutoConfig.for_model(
        "gemma2", hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, vocab_size=96, sliding_window=window,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def recurrent() -> PreTrainedModel:
    torch.manual_seed(3)
    config = AutoConfig.for_model(
        "mamba", hidden_size=32, num_hidden_layers=2, vocab_size=96, state_size=4, pad_token_id=0
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def check_as_alone(model: PreTrainedModel, engine: BatchingEngine, *, seed: int = 3) -> None:
    """Requests that come at odd times get what they would get alone."""
    rows = prompts(9, seed=seed)
    alone = [generate(model, None, [row], max_new_tokens=14, stop_ids=[])[0] for row in rows]
    stop = alone[0][5]
    limits = [3, 14, 1, 9, 14, 14, 5, 14, 2]
    answers, waiting = EventLog(engine), list(zip(rows, limits, strict=True))
    while waiting or engine.busy:
        for row, limit in waiting[: 1 + len(waiting) % 3]:
            answers.ask(row, max_new_tokens=limit, stop_ids=(stop,))
        waiting = waiting[1 + len(waiting) % 3 :]
        answers.run(steps=2)
    for index, (expected, limit) in enumerate(zip(alone, limits, strict=True)):
        expected = expected[:limit]
        ended = stop in expected
        assert answers.tokens(index) == (expected[: expected.index(stop)] if ended else expected)
        assert answers.end(index) == ("stop" if ended else "length")


def test_rows_join_and_leave_without_changing_the_others(any_model: PreTrainedModel) -> None:
    check_as_alone(any_model, BatchingEngine(any_model, max_rows=4, prefill_tokens=16))


@pytest.mark.parametrize("window", [2, 6, 30])
def test_sliding_windows(window: int) -> None:
    model = sliding(window)
    check_as_alone(model, BatchingEngine(model, max_rows=4, prefill_tokens=7))


def test_a_recurrent_model_serves_one_at_a_time() -> None:
    model = recurrent()
    engine = BatchingEngine(model, max_rows=4, prefill_tokens=4)
    assert engine.max_rows == 1
    check_as_alone(model, engine)


def test_a_small_cache_makes_requests_wait(llama: PreTrainedModel) -> None:
    engine = BatchingEngine(llama, max_rows=8, cache_tokens=80)
    answers = EventLog(engine)
    rows = prompts(6)
    for row in rows:
        answers.ask(row)
    while engine.busy:
        engine.step()
        if len(engine.active) > 1:
            assert len(engine.active) * max(request.longest for request in engine.active) <= 80
    expected = generate(llama, None, rows, max_new_tokens=12, stop_ids=[])
    assert [answers.tokens(index) for index in range(6)] == expected
    assert engine.longest == 80


def test_a_long_prompt_does_not_hold_up_the_others(llama: PreTrainedModel) -> None:
    engine = BatchingEngine(llama, prefill_tokens=8)
    answers = EventLog(engine)
    answers.ask([5, 6, 7], max_new_tokens=40)
    answers.run(steps=1)
    answers.ask([9] * 64, max_new_tokens=2)
    for step in range(8):
        before = len(answers.tokens(0))
        engine.step()
        assert len(answers.tokens(0)) == before + 1
        assert bool(answers.tokens(1)) == (step == 7), "64 tokens at 8 a step"


def test_a_cancelled_request_frees_its_row_and_says_no_more(llama: PreTrainedModel) -> None:
    engine = BatchingEngine(llama, max_rows=2)
    answers = EventLog(engine)
    requests = [answers.ask(row) for row in prompts(4)]
    answers.run(steps=2)
    requests[0].cancelled = requests[3].cancelled = True
    before = list(answers.events[0])
    answers.run(steps=1)
    assert requests[0] not in engine.active
    assert requests[2] in engine.active, "the row goes to the next in the queue"
    answers.run()
    assert answers.events[0] == before
    assert answers.events[3] == []
    expected = generate(llama, None, prompts(4)[1:3], max_new_tokens=12, stop_ids=[])
    assert [answers.tokens(1), answers.tokens(2)] == expected


def test_log_probabilities_equal_a_direct_forward_pass(any_model: PreTrainedModel) -> None:
    engine = BatchingEngine(any_model, prefill_tokens=16)
    answers = EventLog(engine)
    rows = prompts(3)
    for row, count in zip(rows, (0, 4, 2), strict=True):
        answers.ask(row, alternatives=count, temperature=1.3, seed=4)
    answers.ask([4, 5])
    answers.run()
    for index, (row, count) in enumerate(zip(rows, (0, 4, 2), strict=True)):
        written = answers.tokens(index)
        with torch.no_grad():
            logits = any_model(torch.tensor([row + written])).logits[0, len(row) - 1 : -1]
        expected = logits.log_softmax(-1)
        events = [event for event in answers.events[index] if isinstance(event, Token)]
        for position, event in enumerate(events):
            assert event.log_probability == pytest.approx(float(expected[position, event.id]), abs=1e-5)
            assert len(event.alternatives) == count
            for token, value in event.alternatives:
                assert value == pytest.approx(float(expected[position, token]), abs=1e-5)
    assert all(event.log_probability is None for event in answers.events[3] if isinstance(event, Token))


def test_a_seed_gives_the_same_answer_whoever_shares_the_batch(llama: PreTrainedModel) -> None:
    def answer(company: int, seed: int | None) -> list[int]:
        answers = EventLog(BatchingEngine(llama))
        answers.ask([7, 8, 9], temperature=1.5, seed=seed)
        for row in prompts(company):
            answers.ask(row, temperature=0.7)
        answers.run()
        return answers.tokens(0)

    assert answer(0, 11) == answer(5, 11)
    assert answer(0, 11) != answer(0, 12)
    assert answer(0, None) != answer(0, None)


def test_what_has_begun_can_be_dropped(llama: PreTrainedModel) -> None:
    engine = BatchingEngine(llama, max_rows=2)
    answers = EventLog(engine)
    requests = [answers.ask(row) for row in prompts(4)]
    answers.run(steps=1)
    requests[1].cancelled = True
    assert engine.drop_active() == [requests[0]]
    assert engine.active == []
    assert engine.waiting == requests[2:]
    answers.run()
    assert answers.end(2) == answers.end(3) == "length"


def test_cancelled_requests_do_not_wait(llama: PreTrainedModel) -> None:
    engine = BatchingEngine(llama, max_rows=1, cache_tokens=60)
    answers = EventLog(engine)
    requests = [answers.ask(row) for row in prompts(4)]
    answers.run(steps=1)
    requests[1].cancelled = requests[2].cancelled = True
    assert engine.waiting == [requests[3]]
    answers.run()
    assert answers.end(3) == "length"
    assert answers.events[1] == answers.events[2] == []


def test_the_longest_row_is_the_models_or_the_caches() -> None:
    model = tiny_model("llama")
    assert BatchingEngine(model).longest == 256
    assert BatchingEngine(model, cache_tokens=100).longest == 100


def logarithms(model: PreTrainedModel, row: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([row])).logits[0].log_softmax(-1)


def check_prompt(model: PreTrainedModel, row: list[int], events: list[Event], alternatives: int) -> None:
    """What was read of a prompt is what one forward pass says."""
    read = [token for event in events if isinstance(event, PromptTokens) for token in event.tokens]
    expected = logarithms(model, row)
    assert [token.id for token in read] == row
    assert (read[0].log_probability, read[0].alternatives) == (None, ())
    for place, token in enumerate(read[1:]):
        assert token.log_probability == pytest.approx(float(expected[place, token.id]), abs=1e-5)
        best = expected[place].topk(alternatives).values.tolist()
        assert [value for _, value in token.alternatives] == pytest.approx(best, abs=1e-5)


def test_prompts_are_scored_while_others_are_answered(any_model: PreTrainedModel) -> None:
    engine = BatchingEngine(any_model, max_rows=5, prefill_tokens=16)
    answers, rows = EventLog(engine), prompts(9, longest=40)
    for index, row in enumerate(rows):
        if index % 3:
            answers.ask(row, score_prompt=True, max_new_tokens=index % 4, alternatives=index % 3)
        else:
            answers.ask(row, max_new_tokens=6)
        answers.run(steps=1)
    answers.run()
    expected = generate(any_model, None, rows, max_new_tokens=6, stop_ids=[])
    for index, row in enumerate(rows):
        limit = index % 4 if index % 3 else 6
        assert answers.tokens(index) == expected[index][:limit]
        assert answers.end(index) == "length"
        if index % 3:
            check_prompt(any_model, row, answers.events[index], index % 3)
            first = next(
                n for n, event in enumerate(answers.events[index]) if not isinstance(event, PromptTokens)
            )
            assert not any(isinstance(event, PromptTokens) for event in answers.events[index][first:])
        else:
            assert not any(isinstance(event, PromptTokens) for event in answers.events[index])


@pytest.mark.parametrize("make", [sliding, recurrent])
def test_prompts_are_scored_by_other_kinds_of_cache(make: Callable[[], PreTrainedModel]) -> None:
    model = make()
    answers, rows = (
        EventLog(BatchingEngine(model, prefill_tokens=7)),
        [*prompts(3, longest=30), [4], [5] * 300],
    )
    for row in rows:
        answers.ask(row, score_prompt=True, max_new_tokens=0, alternatives=2)
    answers.run()
    for index, row in enumerate(rows):
        check_prompt(model, row, answers.events[index], 2)
        assert answers.events[index][-1] == Finished("length")


def test_the_token_that_ends_an_answer_comes_with_its_end(llama: PreTrainedModel) -> None:
    row = prompts(1)[0]
    stop = generate(llama, None, [row], max_new_tokens=1, stop_ids=[])[0][0]
    answers = EventLog(BatchingEngine(llama))
    answers.ask(row, stop_ids=(stop,), alternatives=1)
    answers.run()
    expected = float(logarithms(llama, row)[-1, stop])
    (end,) = answers.events[0]
    assert isinstance(end, Finished)
    assert end.token is not None
    assert end.token.id == stop
    assert end.token.log_probability == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("after", [0, 3])
def test_a_failure_of_one_request_is_its_own(
    after: int, llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether while its prompt is read or in the middle: the others get the answers that they get alone."""
    rows = prompts(4)
    expected = EventLog(BatchingEngine(llama))
    for row in rows:
        expected.ask(row, temperature=1.0, seed=5)
    expected.run()
    engine = BatchingEngine(llama)
    answers = EventLog(engine)
    requests = [answers.ask(row, temperature=1.0, seed=5) for row in rows]
    forward = engine._forward

    def failing(ids, first, group, **options):
        if any(request is requests[1] and len(request.answer) >= after for request in group.requests):
            raise RuntimeError("at fault")
        return forward(ids, first, group, **options)

    monkeypatch.setattr(engine, "_forward", failing)
    failed = []
    while engine.busy:
        try:
            engine.step()
        except RuntimeError:
            failed += engine.isolate()
    assert failed == [requests[1]]
    for index in (0, 2, 3):
        assert answers.tokens(index) == expected.tokens(index)
        assert answers.end(index) == expected.end(index)


def test_a_prompt_without_tokens_is_refused_before_it_is_anyone_s(llama: PreTrainedModel) -> None:
    """An empty list would reach the embedding as floats, and take the requests beside it along."""
    engine = BatchingEngine(llama)
    with pytest.raises(DataError, match="at least one"):
        engine.add((), Sampling(2), lambda event: None)
    assert not engine.busy


def test_a_token_without_a_row_is_refused_before_it_is_anyone_s(llama: PreTrainedModel) -> None:
    engine = BatchingEngine(llama)
    for token in (-1, 96):
        with pytest.raises(DataError, match="0 to 95"):
            engine.add([5, token], Sampling(3), lambda event: None)
    assert not engine.busy
