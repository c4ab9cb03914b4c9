"""From answers to verdicts: which requests there are, what they will cost, and getting them answered."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medcare.evaluation.client import UnansweredError, ask_all
from medcare.foundation.errors import EvaluationError
from medcare.foundation.progress import track
from medcare.judging import rubric
from medcare.judging.cache import Cache, request_key
from medcare.judging.cases import AnswerFile, Case
from medcare.judging.judge import Judge
from medcare.judging.verdict import MalformedError, Verdict, parse_verdict

# A malformed reply is asked for again so often, counting the first.
ASKS = 3
# So many cases in a row without a reply, and nothing will come any more.
_GIVE_UP = 5
_KEPT_OF_REPLY = 500
_VERDICT_TOKENS = 40


@dataclass(frozen=True)
class RatingRequest:
    """One answer to be judged once.

    Attributes:
        source: the name of the answer's file; not part of the message.
        case: the task.
        answer: what is judged.
        repeat: from 0.
        key: see `cache.request_key`; equal answers to a task share one.
    """

    source: str
    case: Case
    answer: str
    repeat: int
    key: str


@dataclass(frozen=True)
class Cost:
    """What is still to be asked, roughly.

    Attributes:
        calls: requests without a verdict, if no reply is malformed.
        known: requests that the cache answers.
        tokens_in: of the calls: a token for 3.5 Latin characters, one for each other character.
        tokens_out: of the replies, if the judge doesn't reason first.
    """

    calls: int
    known: int
    tokens_in: int
    tokens_out: int

    def price(self, price_in: float, price_out: float) -> float:
        """The price, in the currency of the prices for a million tokens."""
        return (self.tokens_in * price_in + self.tokens_out * price_out) / 1e6


def requests(
    cases: Sequence[Case], files: Sequence[AnswerFile], *, model: str, repeats: int, seed: int
) -> list[RatingRequest]:
    """All requests, those of a case together and, of several files, in an order drawn for each case.

    So neither the file's position nor the hour at which the judge is asked goes with the model.
    """
    found = []
    for index, case in enumerate(cases):
        version = rubric.version(criteria=bool(case.criteria))
        order = list(files)
        random.Random(f"{seed}/{case.id}").shuffle(order)
        for file in order:
            answer = file.texts[index]
            prompt = rubric.request(case, answer)
            for repeat in range(repeats):
                key = request_key(model, version, prompt, repeat)
                found.append(RatingRequest(file.name, case, answer, repeat, key))
    return found


def estimate(wanted: Sequence[RatingRequest], cache: Cache) -> Cost:
    """What the requests without a verdict will take."""
    open_ = _open(wanted, cache)
    tokens = sum(_tokens(rubric.request(request.case, request.answer)) for request in open_)
    known = len({request.key for request in wanted}) - len(open_)
    return Cost(len(open_), known, tokens, _VERDICT_TOKENS * len(open_))


def rate(
    wanted: Sequence[RatingRequest],
    judge: Judge,
    cache: Cache,
    *,
    concurrency: int,
    agree: Callable[[Cost], None] = lambda _: None,
    title: str = "Judging",
) -> dict[str, Verdict]:
    """Get a verdict for every request.

    Args:
        wanted: the requests; those that the cache knows are not sent.
        judge: who is asked.
        cache: gets each verdict at once, but not a case without a reply, which is tried again next time.
        concurrency: most requests under way at once.
        agree: called with the cost before anything is sent; raises to stop here.
        title: stands beside the progress bar.

    Returns:
        Verdicts by key.

    Raises:
        EvaluationError: the judge can't be used, or several cases in a row got no reply.
        StorageError: the cache can't be written.
    """
    open_ = _open(wanted, cache)
    lost: dict[str, Verdict] = {}
    in_a_row, counting = 0, threading.Lock()  # several threads ask

    def ask(request: RatingRequest) -> Verdict | str:
        nonlocal in_a_row
        try:
            verdict = _judge(request, judge)
        except UnansweredError as error:
            with counting:
                in_a_row += 1
                if in_a_row >= _GIVE_UP:
                    raise EvaluationError(
                        f"{error} {in_a_row} cases in a row had none, so this stops here. What was judged is "
                        "kept; the same command continues."
                    ) from error
            return str(error)
        with counting:
            in_a_row = 0
        return verdict

    cost = estimate(wanted, cache)
    agree(cost)
    with track(title, cost.calls + cost.known) as task:
        task.start_at(cost.known)
        for index, verdict in ask_all(ask, open_, concurrency):
            if isinstance(verdict, str):
                lost[open_[index].key] = Verdict(open_[index].key, None, verdict)
            else:
                cache.add(verdict)
            task.advance()
    known = {request.key: cache[request.key] for request in wanted if request.key in cache}
    return known | lost


def _judge(request: RatingRequest, judge: Judge) -> Verdict:
    """Ask until a reply can be used, or `ASKS` times."""
    scale = rubric.scale_of(request.case)
    replies: list[str] = []
    reason = ""
    tokens_in = tokens_out = 0
    for _ in range(ASKS):
        prompt = rubric.request(request.case, request.answer, reason)
        reply = judge.ask(prompt, rubric.scheme(scale))
        replies.append(reply.text[:_KEPT_OF_REPLY])
        tokens_in += reply.tokens_in
        tokens_out += reply.tokens_out
        try:
            scores = parse_verdict(reply.text, scale)
        except MalformedError as error:
            reason = f"{error}, and was cut off at the longest allowed" if reply.cut else str(error)
        else:
            return Verdict(request.key, scores, "", tuple(replies), tokens_in, tokens_out, reply.form)
    return Verdict(
        request.key, None, f"malformed: {reason}", tuple(replies), tokens_in, tokens_out, reply.form
    )


def _open(wanted: Sequence[RatingRequest], cache: Cache) -> list[RatingRequest]:
    """The requests without a verdict, one for each key."""
    by_key = {request.key: request for request in wanted if request.key not in cache}
    return list(by_key.values())


def _tokens(text: str) -> int:
    latin = sum(letter < "\u0250" for letter in text)
    return round(latin / 3.5) + len(text) - latin
