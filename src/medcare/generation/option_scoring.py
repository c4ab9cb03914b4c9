"""Log-likelihoods of answer options, each prompt computed once for all of its options.

One row holds a prompt and, after it, its options as a prefix tree: what several begin with alike is there
once. A mask lets every token see the prompt and what it follows, but no other option, and positions count on
from the prompt, so that the numbers are those of encoding `prompt + option` anew. Prompts are padded on the
left and trees on the right: all trees of a batch start at the same column, and only the columns from there on
go through the LM head.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from medcare.foundation.errors import EvaluationError
from medcare.generation.decoder import Decoder, batches, common_prefix, evaluating
from medcare.models.soundness import check_answer

# Most logits held at once; 2^27 floats are 512 MiB.
_LOGITS = 1 << 27

Options = Sequence[Sequence[int]]


class _PrefixTree:
    """The options of one question as a prefix tree.

    The last token of an option is only predicted, never read, and so has no place here.

    Attributes:
        tokens: token ids, every one after the one it follows.
        depths: how far from the prompt each stands; 0 right after it.
    """

    def __init__(self, options: Options) -> None:
        self.tokens: list[int] = []
        self.depths: list[int] = []
        self._parents: list[int] = []
        # For each predicted token: the option, the place that predicts it (-1 is the prompt's end), the id.
        self._steps: list[tuple[int, int, int]] = []
        self._count = len(options)
        places: dict[tuple[int, int], int] = {}
        for number, option in enumerate(options):
            parent = -1
            for depth, token in enumerate(option):
                self._steps.append((number, parent, token))
                if depth + 1 == len(option):
                    break
                if (parent, token) not in places:
                    places[parent, token] = len(self.tokens)
                    self.tokens.append(token)
                    self.depths.append(depth)
                    self._parents.append(parent)
                parent = places[parent, token]

    def sees(self) -> Tensor:
        """Whether each token sees each other [n, n]: itself and those that it follows."""
        seen = torch.eye(len(self.tokens), dtype=torch.bool)
        for place, parent in enumerate(self._parents):
            if parent >= 0:
                seen[place] |= seen[parent]
        return seen

    def sums(self, logits: Tensor) -> list[float]:
        """Log-likelihood of each option.

        Args:
            logits: [1 + n or more, v]; the first are those of the prompt's last token.
        """
        owners, sources, targets = torch.tensor(self._steps).unbind(1)
        sources, targets = (sources + 1).to(logits.device), targets.to(logits.device)
        values = logits[: len(self.tokens) + 1].float()
        check_answer(values)
        picked = values[sources, targets] - values.logsumexp(-1)[sources]
        total = torch.zeros(self._count, dtype=torch.float64)
        total.index_add_(0, owners, picked.double().cpu())
        sums: list[float] = total.tolist()
        return sums


@dataclass(frozen=True)
class _Question:
    """A prompt and its options as token ids, and where they stand in the caller's lists."""

    index: int
    prompt: list[int]
    options: list[list[int]]

    @cached_property
    def tree(self) -> _PrefixTree:
        """The options as they are computed."""
        return _PrefixTree(self.options)

    @property
    def width(self) -> int:
        """Tokens of the options that are computed."""
        return len(self.tree.tokens)


def score_options(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    options: Sequence[Options],
    *,
    tokens_per_batch: int = 4096,
) -> list[list[float]]:
    """Log-likelihood of each option given its prompt: the sum over the option's tokens, in nats.

    Args:
        model: a causal language model.
        prompts: token ids of each question, each at least one.
        options: token ids of each question's options, each at least one.
        tokens_per_batch: most tokens in a batch, padding included.

    Returns:
        One list a question, one number an option, in the order given.

    Raises:
        EvaluationError: a prompt or an option has no tokens, or there is not one list of options a prompt.
    """
    stream = stream_option_scores(model, prompts, options, tokens_per_batch=tokens_per_batch)
    return [scores for _, scores in sorted(chain.from_iterable(stream))]


def stream_option_scores(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    options: Sequence[Options],
    *,
    tokens_per_batch: int = 4096,
) -> Iterator[list[tuple[int, list[float]]]]:
    """As `score_options`, but yields each batch's `(index of the prompt, log-likelihoods)` once done."""
    questions = _questions(prompts, options)
    if not questions:
        return
    decoder = Decoder.of(model)
    longest = max(len(question.prompt) + question.width for question in questions)
    # Padding counts: a sliding window is one of columns.
    whole = decoder.reaches(longest + max(question.width for question in questions))
    shared = decoder.plain_cache and whole and decoder.traits.masks_blocks
    prefix = common_prefix(prompts) if shared else []
    with evaluating(model):
        cache = decoder.prefix_cache(prefix) if shared else None
    for chosen in _batches(questions, decoder, tokens_per_batch):
        with evaluating(model):
            if cache is not None:
                values = _score_together(decoder, chosen, cache)
            else:
                values = [_score_apart(decoder, question) for question in chosen]
        yield [(question.index, scores) for question, scores in zip(chosen, values, strict=True)]


def _batches(
    questions: Sequence[_Question], decoder: Decoder, tokens_per_batch: int
) -> Iterator[list[_Question]]:
    """Questions of like widths together, and among these of like prompts: both sides of a row are padded."""
    by_width: dict[int, list[_Question]] = {}
    for question in questions:
        by_width.setdefault(math.ceil(math.log(question.width + 1, 1.25)), []).append(question)
    for _, alike in sorted(by_width.items(), reverse=True):
        widest = max(question.width for question in alike)
        lengths = [len(question.prompt) for question in alike]
        budget = min(tokens_per_batch, _row_limit(decoder, widest + 1) * (max(lengths) + widest))
        for batch in batches(lengths, widest, budget):
            yield [alike[index] for index in batch]


def _questions(prompts: Sequence[Sequence[int]], options: Sequence[Options]) -> list[_Question]:
    if len(prompts) != len(options):
        raise EvaluationError(
            f"Each prompt needs its list of options: got {len(prompts)} prompts and {len(options)} lists."
        )
    questions = [
        _Question(index, list(prompt), [list(option) for option in choices])
        for index, (prompt, choices) in enumerate(zip(prompts, options, strict=True))
    ]
    for question in questions:
        if not question.prompt or not question.options or not all(question.options):
            raise EvaluationError(
                f"Question {question.index} can't be scored: its prompt and each of its options need at "
                "least one token. Leave out empty options."
            )
    return questions


def _row_limit(decoder: Decoder, columns: int) -> int:
    vocabulary: int = decoder.model.get_input_embeddings().weight.shape[0]
    return max(1, _LOGITS // (columns * vocabulary))


def _score_together(decoder: Decoder, questions: list[_Question], prefix: DynamicCache) -> list[list[float]]:
    """Score each question's options in one row."""
    past, rows = prefix.get_seq_length(), len(questions)
    left = max(len(question.prompt) for question in questions) - past
    right = max(question.width for question in questions)
    ids = torch.zeros(rows, left + right, dtype=torch.long)
    positions = torch.zeros_like(ids)
    seen = torch.zeros(rows, left + right, left + right, dtype=torch.bool)
    causal = torch.ones(left + right, left, dtype=torch.bool).tril()
    for row, question in enumerate(questions):
        own, tree = question.prompt[past:], question.tree
        start, end = left - len(own), left + len(tree.tokens)
        ids[row, start:end] = torch.tensor(own + tree.tokens)
        depths = [len(question.prompt) + depth for depth in tree.depths]
        positions[row, start:end] = torch.tensor([*range(past, len(question.prompt)), *depths])
        seen[row, start:end, start:left] = causal[start:end, start:left]
        seen[row, left:end, left:end] = tree.sees()
    # Padding sees itself: a row of the mask that is all closed would make NaN.
    seen |= torch.eye(left + right, dtype=torch.bool)
    device = decoder.device
    mask = _additive(torch.cat([seen.new_ones(rows, left + right, past), seen], dim=-1), decoder)
    cache = decoder.expand(prefix, rows)
    logits = decoder.logits(ids.to(device), mask, positions.to(device), right + 1, cache)
    return [question.tree.sums(row) for question, row in zip(questions, logits, strict=True)]


def _additive(seen: Tensor, decoder: Decoder) -> Tensor:
    """[b, 1, s, past + s] to be added to attention scores, of who sees whom [b, s, past + s]."""
    seen = seen.to(decoder.device)
    dtype: torch.dtype = decoder.model.dtype
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def _score_apart(decoder: Decoder, question: _Question) -> list[float]:
    """Encode `prompt + option` anew for each option: no padding, no mask, any kind of model."""
    sums = []
    for option in question.options:
        ids = torch.tensor([question.prompt + option], device=decoder.device)
        logits = decoder.model(input_ids=ids, use_cache=False).logits[0, -len(option) - 1 : -1].float()
        check_answer(logits)
        target = torch.tensor(option, device=decoder.device)[:, None]
        sums.append(float((logits.gather(1, target)[:, 0] - logits.logsumexp(-1)).double().sum()))
    return sums
