"""A world small enough for thousands of trainings: a Llama of 91,000 parameters with a vocabulary of its own.

It is pre-trained on *facts* (a value for each of 200 entities and 6 relations, stated in every style) and on
six *forms* (a list of entities and values goes in, the form's rearrangement of it comes out); its lists hold
the new entities too, of which it learns no facts. Stage 1 teaches the facts of 160 new entities in the styles
of books and of a forum; the style of exams, in which facts are tested, is known from the pre-training only.
Stage 2 teaches four new forms. So each of the method's claims has a number here: new facts, old facts, old
forms, new forms.

Sources may be wrong (`noise`): `marked` ones have a style of their own, `unmarked` ones are books and forum
posts like any other. A source that is wrong about a fact is wrong in the same way each time.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from medcare.text.batches import IGNORED

Noise = Literal["clean", "marked", "unmarked"]
Method = Literal["medcare", "lora", "lora_two_stage", "full"]

PAD, BEGIN, END, ANSWER = range(4)
OLD, NEW, RELATIONS, VALUES = 200, 160, 6, 10
WIDTH = 12
"""Tokens of a row, padding included."""

_STYLES = ("book", "forum", "exam", "rumour", "filler", "question")
_SOURCES = ("book", "turned book", "forum", "turned forum")
_OLD_FORMS = ("copy", "reverse", "halves", "first", "last", "entities")
_NEW_FORMS = ("rotate", "neighbours", "values", "second")
_STYLE = {name: ANSWER + 1 + place for place, name in enumerate(_STYLES)}
_FORM = {name: ANSWER + 1 + len(_STYLES) + place for place, name in enumerate((*_OLD_FORMS, *_NEW_FORMS))}
_RELATION = ANSWER + 1 + len(_STYLES) + len(_FORM)
_VALUE = _RELATION + RELATIONS
_ENTITY = _VALUE + RELATIONS * VALUES
VOCABULARY = _ENTITY + OLD + NEW


@dataclass(frozen=True)
class SmallWorldConfig:
    """The sizes of the small world; see `small_world`.

    Attributes:
        method: `medcare`, or what it is compared with: `lora` on the data of both stages, mixed;
            `lora_two_stage`, one LoRA after the other, the first one merged; `full`, all weights on the data
            of both stages, mixed. After `lora_two_stage`'s first stage the second may be one of the package's
            baselines (the setting `method`), with as many trained parameters as the method's stage 2.
        noise: which of stage 1's sources are wrong.
        distill: of the rows that stage 2 replays, how much they are to be answered as the model did after
            stage 1 (1) and how much as they are labelled (0).
        forms: examples of old forms in stage 1, as a share of its right rows.
        pretraining_steps: of the base.
        pretraining_forms: examples of old forms in the base's data.
        stage_1_steps: of the optimizer.
        stage_2_steps: likewise; a mixed stage has as many as both.
        stage_2_forms: examples of new forms.
        batch: examples a step.
        stage_2: whether the cell has a stage 2; without, what is measured is stage 1.
    """

    method: Method = "medcare"
    noise: Noise = "clean"
    distill: float = 0.0
    forms: float = 0.1
    pretraining_steps: int = 1500
    pretraining_forms: int = 14400
    stage_1_steps: int = 700
    stage_2_steps: int = 500
    stage_2_forms: int = 6000
    batch: int = 64
    stage_2: bool = True


@dataclass(frozen=True)
class TokenRows:
    """Examples, all of one width.

    Attributes:
        ids: [n, s] token ids, padded on the right.
        labels: [n, s], the id where the loss covers it, the answer and its end, and `IGNORED` elsewhere.
    """

    ids: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """How many examples."""
        return len(self.ids)

    def __add__(self, other: TokenRows) -> TokenRows:
        """Both, one after the other."""
        return TokenRows(torch.cat([self.ids, other.ids]), torch.cat([self.labels, other.labels]))

    def some(self, share: float, seed: int) -> TokenRows:
        """A share of them, drawn."""
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(self), generator=generator)[: round(share * len(self))]
        return TokenRows(self.ids[chosen], self.labels[chosen])


@dataclass(frozen=True)
class World:
    """The facts, true and false, and the rows that state them; another seed is another world.

    Args:
        seed: of the facts and of all draws.
    """

    seed: int
    truth: list[list[int]] = field(init=False)
    error: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        """Draw what is true of each entity, and what wrong sources say."""
        draw = random.Random(f"facts:{self.seed}")
        truth = [[draw.randrange(VALUES) for _ in range(RELATIONS)] for _ in range(OLD + NEW)]
        error = [[(value + draw.randrange(1, VALUES)) % VALUES for value in row] for row in truth]
        object.__setattr__(self, "truth", truth)
        object.__setattr__(self, "error", error)

    def pretraining(self, forms: int) -> TokenRows:
        """Facts of the old entities in every style, and `forms` examples of the old forms."""
        styles = ("book", "turned book", "forum", "turned forum", "exam", "rumour")
        facts = [self._fact(entity, relation, style) for entity, relation in _old() for style in styles]
        return _rows(facts) + self.forms(_OLD_FORMS, forms, "pre-training")

    def stage_1(self, noise: Noise, forms: float) -> TokenRows:
        """The new entities' facts, four rows each; with noise three more that are wrong; and old forms.

        Args:
            noise: which sources are wrong.
            forms: examples of old forms, as a share of the right rows about facts.
        """
        draw = random.Random(f"sources:{self.seed}")
        facts = [self._fact(entity, relation, style) for entity, relation in _new() for style in _SOURCES]
        count = round(forms * len(facts))
        if noise != "clean":
            for entity, relation in _new():
                said = ("rumour",) * 3 if noise == "marked" else draw.sample(_SOURCES, 3)
                facts += [self._fact(entity, relation, style, wrong=True) for style in said]
        return _rows(facts) + self.forms(_OLD_FORMS, count, "stage 1")

    def stage_2(self, count: int) -> TokenRows:
        """Examples of the new forms."""
        return self.forms(_NEW_FORMS, count, "stage 2")

    def kinds(self, noise: Noise) -> dict[str, TokenRows]:
        """A twentieth of stage 1's rows by what they are: right ones of each style, wrong ones, old forms."""
        asked = _new()[::19]
        found = {
            style: _rows(self._fact(entity, relation, style) for entity, relation in asked)
            for style in _SOURCES
        }
        if noise != "clean":
            wrong = ("rumour",) if noise == "marked" else _SOURCES
            found["wrong"] = _rows(self._fact(*pair, style, wrong=True) for pair in asked for style in wrong)
        return found | {"forms": self.forms(_OLD_FORMS, 60, "kinds")}

    def tests(self, noise: Noise = "clean") -> dict[str, TokenRows]:
        """What is measured: facts in the style of exams, forms on lists that no training has seen.

        Where sources are wrong, also how often the new facts are answered as those say (`new_errors`).
        """
        found = {
            "new_facts": _rows(self._fact(entity, relation, "exam") for entity, relation in _new()),
            "old_facts": _rows(self._fact(entity, relation, "exam") for entity, relation in _old()),
            "old_forms": self.forms(_OLD_FORMS, 600, "test"),
            "new_forms": self.forms(_NEW_FORMS, 600, "test"),
        }
        if noise != "clean":
            found["new_errors"] = _rows(self._fact(*pair, "exam", wrong=True) for pair in _new())
        return found

    def forms(self, names: Sequence[str], count: int, purpose: str) -> TokenRows:
        """`count` examples, as many of each form, on lists of entities and values."""
        draw = random.Random(f"{purpose}:{self.seed}")
        return _rows(_form(names[number % len(names)], draw) for number in range(count))

    def _fact(
        self, entity: int, relation: int, style: str, wrong: bool = False
    ) -> tuple[list[int], list[int]]:
        value = (self.error if wrong else self.truth)[entity][relation]
        e, r = _ENTITY + entity, _RELATION + relation
        orders: dict[str, list[int | str]] = {
            "book": ["book", e, r],
            "turned book": ["book", r, e],
            "forum": ["forum", e, "filler", r],
            "turned forum": ["forum", r, "filler", e],
            "exam": ["exam", r, e, "question"],
            "rumour": ["rumour", e, r],
        }
        tokens = [_STYLE[part] if isinstance(part, str) else part for part in orders[style]]
        return tokens, [_VALUE + relation * VALUES + value]


def build_model(seed: int, hidden: int = 48) -> LlamaForCausalLM:
    """The untrained model: three layers, input and output embeddings in one."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=4 * WIDTH,
        tie_word_embeddings=True,
        initializer_range=0.1,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        bos_token_id=BEGIN,
        eos_token_id=END,
        pad_token_id=PAD,
        attn_implementation="eager",  # type: ignore[call-arg]  # its stubs leave out what all have
    )
    return LlamaForCausalLM(config)


@torch.no_grad()
def measure(model: LlamaForCausalLM, tests: dict[str, TokenRows]) -> dict[str, float]:
    """For each test, the share of answers right to the last token, and their mean log-likelihood.

    Returns:
        `NAME` and `NAME_logp` for every test.
    """
    found: dict[str, float] = {}
    model.eval()
    for name, rows in tests.items():
        asked = rows.labels[:, 1:] != IGNORED
        width = 1 + int(asked.any(0).nonzero().max())
        hidden = model.model(input_ids=rows.ids[:, :width], use_cache=False).last_hidden_state
        asked, targets = asked[:, :width], rows.labels[:, 1 : width + 1]
        logits = model.lm_head(hidden[asked])
        logs = logits.log_softmax(-1).gather(-1, targets[asked][:, None])[:, 0]
        wrong = torch.zeros(asked.shape).masked_scatter_(asked, (logits.argmax(-1) != targets[asked]).float())
        found[name] = round(float((wrong.sum(1) == 0).float().mean()), 5)
        found[f"{name}_logp"] = round(float(logs.sum()) / len(rows), 5)
    return found


def _old() -> Iterable[tuple[int, int]]:
    return [(entity, relation) for entity in range(OLD) for relation in range(RELATIONS)]


def _new() -> list[tuple[int, int]]:
    return [(OLD + entity, relation) for entity in range(NEW) for relation in range(RELATIONS)]


def _form(name: str, draw: random.Random) -> tuple[list[int], list[int]]:
    """A list of two to three entities among values, and its rearrangement."""
    kinds = [True, True, False, draw.random() < 0.5]
    draw.shuffle(kinds)
    items = [
        _ENTITY + draw.randrange(OLD + NEW) if entity else _VALUE + draw.randrange(RELATIONS * VALUES)
        for entity in kinds
    ]
    a, b, c, d = items
    answer = {
        "copy": [a, b, c, d],
        "reverse": [d, c, b, a],
        "halves": [c, d, a, b],
        "first": [a],
        "last": [d],
        "entities": [item for item, entity in zip(items, kinds, strict=True) if entity],
        "rotate": [b, c, d, a],
        "neighbours": [b, a, d, c],
        "values": [item for item, entity in zip(items, kinds, strict=True) if not entity],
        "second": [b],
    }[name]
    return [_FORM[name], *items], answer


def _rows(pairs: Iterable[tuple[list[int], list[int]]]) -> TokenRows:
    ids, labels = [], []
    for asked, answer in pairs:
        prompt, said = [BEGIN, *asked, ANSWER], [*answer, END]
        rest = WIDTH - len(prompt) - len(said)
        ids.append(prompt + said + [PAD] * rest)
        labels.append([IGNORED] * len(prompt) + said + [IGNORED] * rest)
    return TokenRows(*(torch.tensor(part, dtype=torch.int64).reshape(-1, WIDTH) for part in (ids, labels)))
