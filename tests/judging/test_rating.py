"""Every request ends as grades or as unjudged with a reason, and none is sent twice."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from medcare.evaluation.client import Client
from medcare.foundation.errors import EvaluationError
from medcare.judging.cache import Cache
from medcare.judging.cases import AnswerFile
from medcare.judging.judge import Judge
from medcare.judging.rating import ASKS, Cost, RatingRequest, estimate, rate, requests
from medcare.judging.verdict import Verdict
from tests.fake_server import (
    GOOD,
    Action,
    FakeServer,
    content,
    failure,
    fake_server,
    in_turn,
    verdict,
)
from tests.judging.made_up import CASES, answers

pytestmark = pytest.mark.usefixtures("soon")

FENCE = f"Here you are:\n```json\n{json.dumps(GOOD)}\n```"


def work(
    judge: FakeServer, cache: Cache, *, count: int = 1, concurrency: int = 1, repeats: int = 1, tries: int = 2
) -> tuple[list[RatingRequest], dict[str, Verdict]]:
    cases = CASES[:count]
    wanted = requests(cases, [answers("base", cases=cases)], model="strict", repeats=repeats, seed=0)
    return wanted, ask(judge, wanted, cache, concurrency=concurrency, tries=tries)


def ask(
    judge: FakeServer,
    wanted: Sequence[RatingRequest],
    cache: Cache,
    *,
    concurrency: int,
    tries: int = 2,
    agree: Callable[[Cost], None] = lambda _: None,
) -> dict[str, Verdict]:
    with Client(judge.url, tries=tries, timeout=30) as client:
        return rate(wanted, Judge(client, "strict"), cache, concurrency=concurrency, agree=agree)


def only(verdicts: dict[str, Verdict]) -> Verdict:
    (found,) = verdicts.values()
    return found


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache.jsonl")


@pytest.mark.parametrize(
    "bad",
    [
        content(FENCE),
        content(json.dumps(GOOD)[:-3], finish="length"),
        verdict(fluency=6),
        verdict(fluency=0),
        content(json.dumps({**GOOD, "fluency": 4.5})),
        verdict(mood=5),
        content(""),
        content(None),
        content("x" * 500_000),
    ],
    ids=["prose", "truncated", "high", "low", "float", "extra", "empty", "null", "huge"],
)
def test_a_malformed_reply_is_asked_again_and_then_unjudged(bad: Action, tmp_path: Path):
    with fake_server(in_turn(bad, verdict())) as judge:
        found = only(work(judge, Cache(tmp_path / "one"))[1])
    assert found.scores == GOOD
    assert "An earlier reply" not in judge.prompts[0]
    assert "An earlier reply" in judge.prompts[1]
    assert (found.tokens_in, found.tokens_out) == (1800, 60)

    with fake_server(in_turn(bad)) as judge:
        cache = Cache(tmp_path / "two")
        found = only(work(judge, cache)[1])
    assert found.scores is None
    assert found.reason.startswith("malformed: ")
    assert len(judge.bodies) == len(found.replies) == ASKS
    assert len((tmp_path / "two").read_bytes()) < 6000


def test_what_is_unjudged_is_kept_and_not_asked_again(cache: Cache):
    with fake_server(in_turn(content("no"))) as judge:
        work(judge, cache)
        assert only(work(judge, cache)[1]).scores is None
    assert len(judge.bodies) == ASKS


def test_a_case_without_a_reply_is_unjudged_and_tried_again_the_next_time(cache: Cache):
    with fake_server(in_turn(failure(500), failure(500), verdict())) as judge:
        wanted, found = work(judge, cache, count=2)
        assert found[wanted[0].key].scores is None
        assert "HTTP 500" in found[wanted[0].key].reason
        assert found[wanted[1].key].scores == GOOD
        wanted, found = work(judge, cache, count=2)
    assert [found[request.key].scores for request in wanted] == [GOOD, GOOD]
    assert len(judge.bodies) == 4


def test_a_judge_that_is_gone_ends_the_work_and_what_was_done_is_kept(cache: Cache):
    with (
        fake_server(in_turn(verdict(), verdict(), failure(503))) as judge,
        pytest.raises(EvaluationError, match="5 cases in a row"),
    ):
        work(judge, cache, count=12)
    assert len(judge.bodies) == 2 + 5 * 2
    with fake_server(in_turn(verdict())) as judge:
        work(judge, cache, count=12)
    assert len(judge.bodies) == 10


def test_a_wrong_key_ends_the_work_at_once(cache: Cache):
    with fake_server(in_turn(failure(401))) as judge, pytest.raises(EvaluationError, match="--key-env"):
        work(judge, cache, count=12)
    assert len(judge.bodies) == 1


@pytest.mark.parametrize("concurrency", [1, 3])
def test_concurrency_is_bounded_and_used(cache: Cache, concurrency: int):
    together = threading.Barrier(concurrency)

    def wait_for_the_others(handler: BaseHTTPRequestHandler) -> None:
        together.wait(30)
        verdict()(handler)

    with fake_server(in_turn(wait_for_the_others)) as judge:
        work(judge, cache, count=12, concurrency=concurrency)
    # A handler whose reply is read already may not have counted itself out yet.
    assert concurrency <= judge.most <= 2 * concurrency < 12
    assert len(judge.bodies) == 12


def test_repeats_are_requests_of_their_own_and_later_ones_are_added(cache: Cache):
    with fake_server(lambda number, _body: verdict(fluency=1 + number % 5)) as judge:
        work(judge, cache, count=2, repeats=2)
        wanted, found = work(judge, cache, count=2, repeats=3)
    assert len(judge.bodies) == 6
    assert [request.repeat for request in wanted] == [0, 1, 2, 0, 1, 2]
    assert len({tuple(found[request.key].scores.values()) for request in wanted[:3]}) == 3


def test_equal_answers_are_judged_once(cache: Cache):
    files = [answers("base"), answers("tuned")]
    wanted = requests(CASES, files, model="strict", repeats=1, seed=0)
    assert len(wanted) == 24
    assert estimate(wanted, cache).calls == 12


def test_another_judge_answer_or_reference_is_another_request():
    def keys(model: str = "strict", files: Sequence[AnswerFile] = (answers("base"),)) -> set[str]:
        return {request.key for request in requests(CASES, files, model=model, repeats=1, seed=0)}

    assert keys() == keys(files=[answers("other name")])
    assert not keys() & keys("lenient")
    assert not keys() & keys(files=[answers("base", "Other.")])


def test_the_judge_is_not_told_whose_answer_it_is_and_files_take_turns_by_chance(cache: Cache):
    files = [answers("base", "A {id}."), answers("tuned-secretly", "B {id}.")]
    wanted = requests(CASES, files, model="strict", repeats=1, seed=0)
    assert [request.case.id for request in wanted[::2]] == [case.id for case in CASES]
    first = Counter(request.source for request in wanted[::2])
    assert min(first["base"], first["tuned-secretly"]) >= 2
    again = requests(CASES, files, model="strict", repeats=1, seed=0)
    assert [request.source for request in again] == [request.source for request in wanted]
    assert [r.source for r in requests(CASES, files, model="strict", repeats=1, seed=1)] != [
        request.source for request in wanted
    ]
    with fake_server(in_turn(verdict())) as judge:
        ask(judge, wanted, cache, concurrency=2)
    assert not any("tuned" in json.dumps(body) for body in judge.bodies)
    assert not any("tuned" in value for headers in judge.headers for value in headers.values())


def test_the_cost_is_estimated_from_what_is_not_known_yet(cache: Cache):
    with fake_server(in_turn(verdict())) as judge:
        wanted, _ = work(judge, cache, count=3)
    cost = estimate(wanted, cache)
    assert (cost.calls, cost.known, cost.tokens_in) == (0, 3, 0)
    wanted = requests(CASES, [answers("base")], model="strict", repeats=1, seed=0)
    cost = estimate(wanted, cache)
    assert (cost.calls, cost.known) == (9, 3)
    assert 300 * 9 < cost.tokens_in < 1200 * 9
    assert cost.price(2.0, 8.0) == pytest.approx((cost.tokens_in * 2 + cost.tokens_out * 8) / 1e6)
    chinese = requests(CASES[:1], [answers("zh", "热" * 1000)], model="strict", repeats=1, seed=0)
    assert estimate(chinese, cache).tokens_in - cost.tokens_in / 9 == pytest.approx(1000, rel=0.05)


def test_the_cost_is_told_before_anything_is_sent_and_may_be_refused(cache: Cache):
    told: list[int] = []

    def refuse(cost: Cost) -> None:
        told.append(cost.calls)
        raise EvaluationError("too dear")

    wanted = requests(CASES, [answers("base")], model="strict", repeats=1, seed=0)
    with fake_server(in_turn(verdict())) as judge:
        with pytest.raises(EvaluationError, match="too dear"):
            ask(judge, wanted, cache, concurrency=4, agree=refuse)
        assert not judge.bodies
        ask(judge, wanted, cache, concurrency=4, agree=lambda cost: told.append(cost.calls))
    assert told == [12, 12]
    assert len(judge.bodies) == 12
