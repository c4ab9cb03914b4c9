"""Log-likelihoods of answer options, each prompt computed once for all of its options.

One row holds a prompt and, after it, all of its options. A block mask lets every option see the prompt and
itself but no other option, and each option's positions count on from the prompt, so that the numbers are
those of encoding `prompt + option` anew. Prompts are padded on the left and options on the right: all options
of a batch start at the same column, and only the columns from there on go through the LM head.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from medcare.errors import EvaluationError
from medcare.generation.decoder import Decoder, Progress, batches, common_prefix, evaluating

# Most logits held at once; 2^27 floats are 512 MiB.
_LOGITS = 1 << 27

Options = Sequence[Sequence[int]]


@dataclass(frozen=True)
class _Question:
    """A prompt and its options as token ids, and where they stand in the caller's lists."""

    index: int
    prompt: list[int]
    options: list[list[int]]

    @property
    def width(self) -> int:
        """Tokens of all options."""
        return sum(map(len, self.options))


def score_options(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    options: Sequence[Options],
    *,
    tokens_per_batch: int = 4096,
    progress: Progress | None = None,
) -> list[list[float]]:
    """Log-likelihood of each option given its prompt: the sum over the option's tokens, in nats.

    Args:
        model: a causal language model.
        prompts: token ids of each question, each at least one.
        options: token ids of each question's options, each at least one.
        tokens_per_batch: most tokens in a batch, padding included.
        progress: called after every batch.

    Returns:
        One list a question, one number an option, in the order given.

    Raises:
        EvaluationError: a prompt or an option has no tokens, or there is not one list of options a prompt.
    """
    scores: list[list[float]] = [[] for _ in prompts]
    done = 0
    for batch in stream_option_scores(model, prompts, options, tokens_per_batch=tokens_per_batch):
        done += len(batch)
        for index, values in batch:
            scores[index] = values
        if progress:
            progress(done, len(prompts))
    return scores


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
    shared = decoder.plain_cache and whole and _masks_blocks(decoder, questions[0])
    prefix = common_prefix(prompts) if shared else []
    with evaluating(model):
        cache = decoder.prefix_cache(prefix)
    for chosen in _batches(questions, decoder, tokens_per_batch):
        with evaluating(model):
            if shared:
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
        by_width.setdefault(math.ceil(math.log(question.width, 1.25)), []).append(question)
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


def _masks_blocks(decoder: Decoder, question: _Question) -> bool:
    """Whether the model honours a mask of blocks; one that ignores or can't take it is encoded plainly.

    Found out by trying, on one question: attention kernels and position schemes are too many to list.
    """
    if getattr(decoder.model.config, "_attn_implementation", None) not in ("sdpa", "eager"):
        return False
    precise = decoder.model.get_input_embeddings().weight.dtype in (torch.float32, torch.float64)
    with evaluating(decoder.model):
        together = _score_together(decoder, [question], decoder.prefix_cache([]))[0]
        apart = _score_apart(decoder, question)
    return all(
        abs(a - b) <= (1e-4 if precise else 5e-2) * (abs(b) + len(option))
        for a, b, option in zip(together, apart, question.options, strict=True)
    )


def _score_together(decoder: Decoder, questions: list[_Question], prefix: DynamicCache) -> list[list[float]]:
    """Score each question's options in one row."""
    past, rows = prefix.get_seq_length(), len(questions)
    left = max(len(question.prompt) for question in questions) - past
    right = max(question.width for question in questions)
    # Segment of each column: -1 is padding, 0 the prompt, n the n-th option.
    ids = torch.zeros(rows, left + right, dtype=torch.long)
    segments = torch.full_like(ids, -1)
    positions = torch.zeros_like(ids)
    for row, question in enumerate(questions):
        parts = [question.prompt[past:], *question.options]
        column, start = left - len(parts[0]), past
        for segment, part in enumerate(parts):
            ids[row, column : column + len(part)] = torch.tensor(part)
            segments[row, column : column + len(part)] = segment
            positions[row, column : column + len(part)] = torch.arange(start, start + len(part))
            column, start = column + len(part), len(question.prompt)
    device = decoder.device
    mask = _block_mask(segments.to(device), past, decoder.model.dtype)
    cache = decoder.expand(prefix, rows)
    logits = decoder.logits(ids.to(device), mask, positions.to(device), right + 1, cache)
    return _sums(logits, ids[:, left:], segments[:, left:])


def _block_mask(segments: Tensor, past: int, dtype: torch.dtype) -> Tensor:
    """Additive mask [b, 1, s, past + s]: the prefix and the prompt for all, each option for itself."""
    width = segments.shape[1]
    query, key = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(width, width, dtype=torch.bool, device=segments.device).tril()
    seen = causal & ((key == 0) | ((key == query) & (key > 0)))
    # Padding sees itself: a row of the mask that is all closed would make NaN.
    seen = seen | torch.eye(width, dtype=torch.bool, device=segments.device)
    seen = torch.cat([seen.new_ones(len(segments), width, past), seen], dim=-1)
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(
        ~seen, torch.finfo(dtype).min
    )[:, None]


def _sums(logits: Tensor, ids: Tensor, segments: Tensor) -> list[list[float]]:
    """Sum the log-likelihoods of each option's tokens.

    Args:
        logits: [b, right + 1, v]; the first column is the prompt's last token.
        ids: [b, right], the options' tokens.
        segments: [b, right], 1 for the first option.
    """
    sums = []
    for row in range(len(ids)):
        count = int(segments[row].max())
        width = int((segments[row] > 0).sum())
        owner = segments[row, :width]
        # An option's first token is predicted by the prompt's end, the others by the token before.
        first = torch.cat([owner.new_ones(1, dtype=torch.bool), owner[1:] != owner[:-1]])
        source = torch.where(first, 0, torch.arange(width))
        values = logits[row, source.to(logits.device)].float()
        picked = values.gather(1, ids[row, :width, None].to(logits.device))[:, 0] - values.logsumexp(-1)
        total = torch.zeros(count, dtype=torch.float64)
        total.index_add_(0, owner - 1, picked.double().cpu())
        sums.append(total.tolist())
    return sums


def _score_apart(decoder: Decoder, question: _Question) -> list[float]:
    """Encode `prompt + option` anew for each option: no padding, no mask, any kind of model."""
    sums = []
    for option in question.options:
        ids = torch.tensor([question.prompt + option], device=decoder.device)
        logits = decoder.model(input_ids=ids, use_cache=False).logits[0, -len(option) - 1 : -1].float()
        target = torch.tensor(option, device=decoder.device)[:, None]
        sums.append(float((logits.gather(1, target)[:, 0] - logits.logsumexp(-1)).double().sum()))
    return sums
