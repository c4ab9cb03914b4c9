"""The rows that a stage trains on, those it goes back to, and those that are kept apart from both."""

from __future__ import annotations

import functools
import operator
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from medcare.data.tokenised import TrainingData, tokenised
from medcare.foundation.errors import ConfigError, DataError
from medcare.foundation.progress import say
from medcare.settings.config import RunConfig, Stage
from medcare.text.chat_template import Rendered, render_all
from medcare.text.corpus import Corpus, as_corpus
from medcare.text.records import Conversation
from medcare.training.devices import is_sharded
from medcare.training.held_out import HeldOut, held_out
from medcare.training.samples import Samples
from medcare.training.validation import Validation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAMPLED = 256  # rows; as many as CorDA's authors take
Data = Sequence[TrainingData] | Sequence[Conversation]
"""Training data, in files or in memory."""
Test = Callable[..., dict[str, float]]
"""Called with a model and its `tokenizer`, it gives each task's score, as `evaluation.spot_check` does."""


@dataclass(frozen=True)
class StageRows:
    """The rows of a stage; none of those that train is one that any stage was measured on.

    Attributes:
        examples: they train.
        stage_one: those of stage 1 that stage 2 goes back to; empty if it doesn't.
        validation: what the stage is measured with, if the settings ask for it.
        apart: the rows that this stage and those before it are measured on.
    """

    examples: Corpus
    stage_one: Corpus
    validation: Validation | None
    apart: HeldOut

    @classmethod
    def prepare(
        cls,
        stage: Stage,
        config: RunConfig,
        tokenizer: PreTrainedTokenizerBase,
        conversations: Data,
        *,
        start: Path | None = None,
        replayed: Data = (),
        validation: Data = (),
        test: Test | None = None,
    ) -> StageRows:
        """Render, hold out and take apart; the arguments are those of `stages.train`.

        Raises:
            ConfigError: the settings ask for answers of a model that is cut into shards.
            DataError: nothing is left to train on, stage 2 was given plain text, or lacks stage 1's rows.
        """
        length = config.stage(stage).max_length
        examples = _render(tokenizer, conversations, length)
        if stage == "align" and examples.documents.any():
            raise DataError(
                "Stage 'align' trains the form of answers, but its data holds plain text. Put the text into "
                "stage 1, mixed with its conversations by a recipe (docs/data.md)."
            )
        stage_one = Corpus.of([])
        if stage == "align" and config.goes_back:
            if not replayed:
                raise DataError(
                    "align.replay and CorDA's second stage need the conversations of stage 1: set "
                    "aggregate.data to them."
                )
            stage_one = _render(tokenizer, replayed, length)
        measured, examples = _validation(config, stage, tokenizer, examples, validation, test)
        apart = HeldOut.before(start)
        if measured is not None and measured.examples:
            apart = apart.and_these(as_corpus(measured.examples))
        examples, stage_one = (_without(apart, rows, stage) for rows in (examples, stage_one))
        return cls(examples, stage_one, measured, apart)

    def sample(self, seed: int, device: torch.device) -> Iterator[torch.Tensor]:
        """Token ids [1, s] of some rows, drawn from those of stage 1 if there are any."""
        rows = self.stage_one or self.examples
        order = random.Random(f"sample:{seed}").sample(range(len(rows)), min(len(rows), _SAMPLED))
        return (torch.tensor([list(rows[number].ids)], device=device) for number in order)


def _validation(
    config: RunConfig,
    stage: Stage,
    tokenizer: PreTrainedTokenizerBase,
    examples: Corpus,
    conversations: Data,
    test: Test | None,
) -> tuple[Validation | None, Corpus]:
    """What the stage is validated with, if the settings ask for it, and the examples that are left."""
    settings = config.stage(stage).validation
    if not settings.asked:
        return None, examples
    if test is not None and is_sharded():
        raise ConfigError(
            "validation.items are answered by a whole model, which FSDP2 and ZeRO-3 cut. Measure the loss "
            "alone, or launch with configs/ddp.yaml."
        )
    apart: Sequence[Rendered] = ()
    if settings.data:
        apart = _render(tokenizer, conversations, config.stage(stage).max_length)
    elif settings.draws:
        examples, apart = held_out(examples, settings, config.seed)
    say(f"{stage}: {len(apart)} rows are for validation, {len(examples)} train")
    answer = None if test is None else functools.partial(test, tokenizer=tokenizer)
    # Where the model is cut, all processes would have to take part in every token.
    samples = None if is_sharded() else Samples(apart, tokenizer, settings.samples)
    return Validation(apart, answer, samples), examples


def _without(apart: HeldOut, rows: Corpus, stage: Stage) -> Corpus:
    """Rows without those that are held out, by what is in them: these are never trained on."""
    kept = apart.left_of(rows) if len(rows) else rows
    if left_out := len(rows) - len(kept):
        say(f"{stage}: {left_out} rows are left out, since validation has the same ones")
    return kept


def _render(tokenizer: PreTrainedTokenizerBase, data: Data, max_length: int) -> Corpus:
    """The rows to train on: of files out of the cache, of conversations in memory made on the spot."""
    files = [source for source in data if isinstance(source, TrainingData)]
    if files:
        corpora = {part: tokenised(tokenizer, part) for part in dict.fromkeys(files)}
        rendered = functools.reduce(operator.add, (corpora[part] for part in files))
    else:
        texts = [source for source in data if isinstance(source, Conversation)]
        rendered = Corpus.of(render_all(tokenizer, texts))
    return _within(rendered, max_length)


def _within(rendered: Corpus, max_length: int) -> Corpus:
    """The rows that are short enough, and documents in pieces; raises DataError if there are none."""
    kept = rendered.within(max_length)
    if left_out := int((rendered.lengths[~rendered.documents] > max_length).sum()):
        say(f"{left_out} examples are longer than {max_length} tokens and are left out.")
    if not len(kept):
        raise DataError(
            f"No example to train on: {len(rendered)} were given, none of at most {max_length} tokens. "
            "Raise max_length or check the data with: medcare data check FILE"
        )
    return kept
