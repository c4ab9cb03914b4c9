"""All settings, as frozen dataclasses: YAML in, `--set key=value` over it, unknown keys are errors.

The defaults are the paper's (its section 4.1 and appendix) but for the size of a step, 8,192 tokens, which
suits data of thousands of rows; `presets/` beside it has the paper's own and the demonstration's.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from medcare.foundation.errors import ConfigError

Orthogonality = Literal["l1", "frobenius", "projection", "inputs", "contrast", "none"]
Layout = Literal["grouped", "packed"]
Batching = Literal["auto", "grouped", "packed"]
Stage = Literal["aggregate", "align"]
Quantization = Literal["none", "int8", "nf4"]
ThoughtsKept = Literal["keep", "drop", "summarise"]
Optimizer = Literal["adamw", "adamw_8bit", "muon", "adafactor", "schedule_free"]
RateSchedule = Literal["cosine", "linear", "constant", "wsd"]
Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]
Method = Literal[
    "medcare",
    "lora", "loraplus", "rslora", "dora", "pissa", "olora", "corda", "miss", "osf", "full",
    "lora_two_stage", "loraplus_two_stage", "rslora_two_stage", "dora_two_stage", "pissa_two_stage",
    "olora_two_stage", "corda_two_stage", "miss_two_stage", "osf_two_stage", "full_two_stage",
]  # fmt: skip
_Name = TypeVar("_Name", bound=str)
EMBEDDED = "embedded"
AUTO = "auto"
_MOST_EXPERTS = 1024
MOST_EPOCHS = 10_000  # all their batches are planned before the first step
STAGES: tuple[Stage, ...] = get_args(Stage)
METHODS: tuple[Method, ...] = get_args(Method)


class Checked:
    """Settings whose values are of the kinds that their annotations name, also where Python makes them."""

    group: ClassVar[str] = ""
    """What stands before their keys, as in `adapters.rank`; empty where they have several places."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a value of another kind."""
        kind_of: Any = type(self)
        hints = _hints(kind_of)
        for name, value in vars(self).items():
            if not _is_kind(value, hints[name]):
                kind, got = _kind_in_words(hints[name]), f"{type(value).__name__}: {value!r:.60}"
                raise ConfigError(f"{type(self).__name__}({name}=..) must be {kind}, got {got}.")

    def _require(self, ok: bool, name: str, required: str, *, got: object = ...) -> None:
        """Raise ConfigError unless a setting is as required; `got` may tell more than its value."""
        if not ok:
            value = getattr(self, name) if got is ... else got
            raise ConfigError(f"{self.group}{name} must be {required}, got {value!r}.")

    def _at_least(self, least: int, *names: str) -> None:
        for name in names:
            self._require(getattr(self, name) >= least, name, f"at least {least}")


@dataclass(frozen=True)
class ModelConfig(Checked):
    """The base model and where it runs.

    Attributes:
        base: `embedded` (SmolLM2-135M-Instruct out of a PyPI package), a folder, or a hub id, whose state
            `OWNER/NAME@REVISION` names.
        dtype: `auto` takes bfloat16 where the hardware computes in it and float32 elsewhere; `float16`, which
            trains with loss scaling, is for GPUs without bfloat16 (T4, V100).
        device: `auto` takes a GPU if there is one. For models that answer and that no GPU can hold: `spread`
            lays whole layers on all GPUs, and what is left into main memory and onto the disk; `split` cuts
            every weight among the processes of a launcher (docs/scaling.md).
        quantization: train beside a frozen base in 8 bits (`int8`) or 4 (`nf4`); see docs/performance.md.
        chat_template: a file with the chat template to use instead of the base's own.
    """

    base: str = EMBEDDED
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    quantization: Quantization = "none"
    chat_template: str = ""


@dataclass(frozen=True)
class AdapterConfig(Checked):
    """Shapes of the branches (paper section 4.1).

    Attributes:
        feed_forward: names of the linears or experts' weights that get knowledge, noise and alignment
            branches; `[auto]` finds those of the base.
        attention: names of the linears that get LoRA in stage 1, or `[auto]`.
        partial: train even where less than 90 % of the feed-forward weights can be adapted.
        rank: rank of attention LoRA and of each expert; knowledge and alignment have twice that.
        alpha: every branch is scaled by alpha / rank.
        dropout: on the branches' input.
        experts: number of experts in the noise aggregator; 0 leaves it out.
        top_k: experts used for each token.
        noise_drop: probability that a training step runs without the noise aggregator, so that the
            knowledge branch learns to do alone what it will have to do alone. The paper's is 0.
    """

    group = "adapters."
    feed_forward: tuple[str, ...] = (AUTO,)
    attention: tuple[str, ...] = (AUTO,)
    partial: bool = False
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    experts: int = 8
    top_k: int = 2
    noise_drop: float = 0.0

    @property
    def wide_rank(self) -> int:
        """Rank of the knowledge and of the alignment branch, 2r."""
        return 2 * self.rank

    @property
    def scale(self) -> float:
        """The factor of every branch."""
        return self.alpha / self.rank

    def __post_init__(self) -> None:
        """Check kinds and ranges."""
        super().__post_init__()
        self._at_least(1, "rank")
        self._require(0 < self.alpha < math.inf, "alpha", "above 0 and finite")
        self._require(0 <= self.dropout < 1, "dropout", "from 0 to below 1")
        self._require(0 <= self.noise_drop < 1, "noise_drop", "from 0 to below 1")
        self._require(0 <= self.experts <= _MOST_EXPERTS, "experts", f"from 0 to {_MOST_EXPERTS}")
        if self.experts:
            self._require(1 <= self.top_k <= self.experts, "top_k", f"from 1 to {self.experts}")
        self._require(bool(self.feed_forward), "feed_forward", "at least one name")
        for name in ("feed_forward", "attention"):
            names = getattr(self, name)
            self._require(AUTO not in names or len(names) == 1, name, f"names, or {AUTO} alone")
        both = sorted((set(self.feed_forward) & set(self.attention)) - {AUTO})
        self._require(not both, "attention", "other linears than adapters.feed_forward's", got=both)


@dataclass(frozen=True)
class ValidationConfig(Checked):
    """What is measured while a stage trains, on rows that it does not train on (docs/training.md).

    Attributes:
        data: conversations in any format of docs/data.md, a file or `hf:owner/name`.
        map: its columns, as a stage's `map`.
        share: instead of `data`, the share of the training rows of each source that is held out.
        rows: instead of `data`, how many of the training rows of each source are held out; never more than
            half of them.
        items: a test set, as `evaluation.items`, that is answered at every measurement.
        most_items: how many of its items, evenly over its tasks.
        samples: how many of the rows that are held out, or of `data`, the model answers in words at every
            measurement, for samples.jsonl and the page of `medcare serve`.
        every: steps between two measurements; 0 makes ten of them. There is always one at the end.
        measure: what says which model is the best: the mean `loss`, or the mean `score` of the items' tasks.
        patience: measurements without a better one after which training stops; 0 never stops it.
        use: the model that is kept in the end: the `best`, or the `last`.
    """

    group = "validation."
    data: str = ""
    map: dict[str, str] = field(default_factory=dict)
    share: float = 0.0
    rows: int = 0
    items: str = ""
    most_items: int = 32
    samples: int = 2
    every: int = 0
    measure: Literal["loss", "score"] = "loss"
    patience: int = 0
    use: Literal["best", "last"] = "best"

    @property
    def asked(self) -> bool:
        """Whether anything is measured."""
        return bool(self.data or self.draws or self.items)

    @property
    def draws(self) -> bool:
        """Whether rows of the training data are held out."""
        return bool(self.share or self.rows)

    def __post_init__(self) -> None:
        """Check kinds and ranges."""
        super().__post_init__()
        self._require(0 <= self.share <= 0.5, "share", "from 0 to 0.5")
        self._at_least(0, "rows", "samples", "every", "patience")
        self._at_least(1, "most_items")
        held_out = [name for name in ("data", "share", "rows") if getattr(self, name)]
        for name in held_out[1:]:
            self._require(False, name, "the only one of data, share and rows", got=" and ".join(held_out))
        if self.measure == "loss":
            self._require(
                bool(held_out) or not self.items,
                "measure",
                "score where there are items and no rows to take a loss of",
            )
        else:
            self._require(bool(self.items), "items", "a test set where measure is score")


@dataclass(frozen=True)
class StageConfig(Checked):
    """How one stage trains.

    Attributes:
        data: conversations in any format of docs/data.md, a file or `hf:owner/name`; empty means the
            embedded benchmark's own.
        map: for a table of one's own, its columns by what they are called in a format: `{question: Frage}`.
        thoughts: what becomes of an assistant's thoughts: `keep` trains on them, `drop` leaves them out, and
            `summarise` keeps the sentences that say most of the answer's words.
        epochs: passes over the data.
        learning_rate: the peak, after the warm-up.
        warmup: share of the steps that warm up.
        schedule: what the learning rate does then: fall to 0 as half a `cosine` or `linear`, stay `constant`,
            or stay for long and fall as a cosine over the last fifth of the steps (`wsd`).
        tail: with `train --from` a folder of the same stage: take the schedule up where its steps ended, as
            if they and these were one training; else it begins anew, with a warm-up.
        optimizer: `adamw`; with 8-bit moments (`adamw_8bit`, needs bitsandbytes); `muon`, for matrices, with
            AdamW for the rest; `adafactor`; or `schedule_free` AdamW, which averages instead of a schedule
            (needs schedulefree).
        rates: factors on the learning rate by branch or matrix, the words in a parameter's name:
            `{lora_B: 16}` is LoRA+, `{noise: 0.5}` has the noise branch learn half as fast.
        weight_decay: of the optimizer.
        clip: largest gradient norm.
        nonfinite: what happens when a batch has a loss or gradient that is no finite number: `stop`, with the
            ids of its rows, or `skip` the step and go on.
        neftune: alpha of the noise that is added to the embeddings in training (NEFTune); 0 for none.
        source_weights: factors on the loss of a source's rows, by the source's name; 1 for all others.
        batching: `grouped` by length with padding, `packed` into rows without, or `auto`: packed on a GPU
            if the model keeps packed examples apart, which is tried; grouped on a CPU, where packed rows are
            slower in float32 and no faster in bfloat16.
        tokens_per_batch: tokens in one micro-batch, padding included.
        accumulation: micro-batches a step, on each device.
        max_length: tokens; longer examples are left out and reported, never cut.
        gradient_checkpointing: recompute activations instead of keeping them.
        orthogonality: how the alignment branch is kept orthogonal (stage 2 only): to the knowledge branch by
            a penalty (`l1`, the paper's, or `frobenius`) or exactly (`projection`), or to the inputs that
            stage 1's data puts into each linear (`inputs`), those first that it uses more than stage 2's
            data does (`contrast`).
        orthogonality_weight: lambda, the weight of the penalty.
        input_energy: with `inputs` and `contrast`, the share of the energy of stage 1's inputs that is kept
            out of the alignment branch.
        train_knowledge: whether the knowledge branch goes on learning in stage 2.
        replay: share of stage 2's examples that are stage 1's, drawn anew for each epoch.
        distill: of the loss of those, the share that is the distance to how the model answered after stage 1
            (the Kullback-Leibler divergence, at each token), in place of their own labels.
        validation: what is measured on the way, and what follows from it.
        checkpoint_seconds: time between two checkpoints.
        stall_seconds: of several processes, the time without any progress after which all print where they
            stand and end; 0 for never.
        foreseen_rate: tokens a second that were foreseen for this machine, as `init --minutes` writes them; a
            training four times slower says so, once. 0: none were, and it is compared with its own beginning.
        keep: how many checkpoints are kept while the stage trains; a damaged one falls back to the one
            before.
        log_every: steps between two rows of metrics.jsonl.
    """

    data: str = ""
    map: dict[str, str] = field(default_factory=dict)
    thoughts: ThoughtsKept = "keep"
    epochs: int = 1
    learning_rate: float = 2e-4
    warmup: float = 0.03
    schedule: RateSchedule = "cosine"
    tail: bool = False
    optimizer: Optimizer = "adamw"
    rates: dict[str, float] = field(default_factory=dict)
    weight_decay: float = 0.0
    clip: float = 1.0
    nonfinite: Literal["stop", "skip"] = "stop"
    neftune: float = 0.0
    source_weights: dict[str, float] = field(default_factory=dict)
    batching: Batching = "auto"
    tokens_per_batch: int = 8192
    accumulation: int = 1
    max_length: int = 3072
    gradient_checkpointing: bool = False
    orthogonality: Orthogonality = "l1"
    orthogonality_weight: float = 1.0
    input_energy: float = 0.9
    train_knowledge: bool = True
    replay: float = 0.0
    distill: float = 0.0
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    checkpoint_seconds: float = 300.0
    stall_seconds: float = 1800.0
    foreseen_rate: float = 0.0
    keep: int = 2
    log_every: int = 10

    def __post_init__(self) -> None:
        """Check kinds and ranges."""
        super().__post_init__()
        self._at_least(1, "epochs", "tokens_per_batch", "accumulation", "max_length", "keep", "log_every")
        self._at_least(0, "checkpoint_seconds", "stall_seconds")
        self._require(self.epochs <= MOST_EPOCHS, "epochs", f"at most {MOST_EPOCHS}")
        self._require(0 < self.learning_rate < math.inf, "learning_rate", "above 0 and finite")
        self._require(self.clip > 0, "clip", "above 0")
        for name in ("weight_decay", "orthogonality_weight", "neftune", "foreseen_rate"):
            self._require(0 <= getattr(self, name) < math.inf, name, "at least 0 and finite")
        self._require(0 <= self.warmup < 1, "warmup", "from 0 to below 1")
        self._require(0 < self.input_energy < 1, "input_energy", "between 0 and 1")
        self._require(0 <= self.replay < 1, "replay", "from 0 to below 1")
        self._require(0 <= self.distill <= 1, "distill", "from 0 to 1")
        if self.distill:
            self._require(self.replay > 0, "replay", "above 0 with distill, which acts on what is replayed")
        for name in ("rates", "source_weights"):
            for key, factor in getattr(self, name).items():
                self._require(0 < factor < math.inf, f"{name}.{key}", "above 0 and finite", got=factor)
        if self.optimizer == "schedule_free":
            # It averages the weights: no rate that falls, and no weights that are moved behind its back.
            self._require(self.schedule == "constant", "schedule", "constant with schedule_free")
            penalty = self.orthogonality in ("l1", "frobenius", "none")
            self._require(penalty, "orthogonality", "a penalty or none with schedule_free")


@dataclass(frozen=True)
class BenchmarkConfig(Checked):
    """Size of the embedded benchmark (see docs/benchmark.md).

    Attributes:
        facts_per_task: facts taught in stage 1 for each knowledge task.
        items_per_task: test items of each task and split.
        align_per_task: stage-2 examples of each alignment task.
        aggregate_forms: examples of each alignment task mixed into stage 1.
        tasks: by name, those that are taught and tested; by default all 36.
    """

    group = "benchmark."
    facts_per_task: int = 24
    items_per_task: int = 16
    align_per_task: int = 60
    aggregate_forms: int = 0
    tasks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check kinds and ranges."""
        super().__post_init__()
        self._at_least(1, "facts_per_task", "items_per_task", "align_per_task")
        self._at_least(0, "aggregate_forms")


@dataclass(frozen=True)
class EvaluationConfig(Checked):
    """How models are tested.

    Attributes:
        items: a test set of one's own, see `evaluation.test_set.adopt`; empty: the embedded benchmark.
        map: its columns, as a stage's `map`.
        most_items: how many of its items, drawn by the seed evenly over its tasks; 0 takes all.
        strict: refuse a test set with a bad row; else bad rows are set aside, counted and listed.
        engine: what runs the model: `medcare`'s own engine, or `vllm` or `sglang` where they are installed,
            which take whole models.
        exams: how questions with options are answered: each option's log-likelihood as the answer, or a
            generated text out of which the chosen letters are read.
        shots: solved examples before each question, never test items.
        shots_from: where they are drawn from, in any format of docs/data.md; empty means the embedded
            benchmark's training conversations.
        shuffle_options: show the options in an order drawn by the seed.
        max_new_tokens: longest free-text answer.
        thinking: longest thought before it, in tokens, of a model that thinks; then the thought is closed and
            the answer asked for. 0 asks for an answer without one.
        samples: answers to each item that is answered in words; the one that most of them give counts.
        temperature: of answers that are drawn; 0 takes the most likely token at each place.
        tokens_per_batch: padded tokens in one batch.
        noise_ablation: also test the stage-1 model with its noise aggregator still on (the paper's figure 6).
        tokenizer: of a model behind a server, a folder or base name; only log-likelihoods need it.
        api_key_env: the environment variable that holds a server's API key; empty means that it needs none.
        concurrency: requests under way at a server at the same time.
        retries: how often a failed request to a server is tried again.
    """

    group = "evaluation."
    items: str = ""
    map: dict[str, str] = field(default_factory=dict)
    most_items: int = 0
    strict: bool = False
    engine: Literal["medcare", "vllm", "sglang"] = "medcare"
    exams: Literal["likelihood", "generation"] = "likelihood"
    shots: int = 0
    shots_from: str = ""
    shuffle_options: bool = False
    max_new_tokens: int = 64
    thinking: int = 0
    samples: int = 1
    temperature: float = 0.0
    tokens_per_batch: int = 4096
    noise_ablation: bool = False
    tokenizer: str = ""
    api_key_env: str = ""
    concurrency: int = 8
    retries: int = 4

    def __post_init__(self) -> None:
        """Check kinds and ranges."""
        super().__post_init__()
        self._at_least(1, "max_new_tokens", "samples", "tokens_per_batch", "concurrency")
        self._at_least(0, "most_items", "shots", "thinking", "retries")
        self._require(0 <= self.temperature <= 2, "temperature", "from 0 to 2")
        self._require(
            self.samples == 1 or self.temperature > 0,
            "temperature",
            "above 0 (such as 0.6) where evaluation.samples is above 1",
        )


@dataclass(frozen=True)
class TrackingConfig(Checked):
    """Where else the metrics of training go, beside metrics.jsonl.

    Attributes:
        trackers: any of the four, each from its own package; none by default.
        project: the name that the runs are gathered under.
    """

    trackers: tuple[Tracker, ...] = ()
    project: str = "medcare"


@dataclass(frozen=True)
class RunConfig(Checked):
    """A whole run: data, both stages, merge, evaluation.

    Attributes:
        seed: of all that is drawn: initial weights, order of the examples, dropout, the embedded benchmark.
        method: `medcare`, or what it is compared with (docs/baselines.md): a kind of fine-tuning in one stage
            on the rows of both, mixed, or, with `_two_stage` behind its name, in two, one after the other.
        model: the base.
        adapters: the branches.
        benchmark: the embedded one.
        aggregate: stage 1, or the one stage.
        align: stage 2.
        evaluation: the tests.
        tracking: where else metrics go.
    """

    seed: int = 17
    method: Method = "medcare"
    model: ModelConfig = field(default_factory=ModelConfig)
    adapters: AdapterConfig = field(default_factory=AdapterConfig)
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    aggregate: StageConfig = field(default_factory=lambda: StageConfig(orthogonality="none"))
    align: StageConfig = field(default_factory=lambda: StageConfig(epochs=3))
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        """Check kinds and ranges."""
        super().__post_init__()
        self._require(0 <= self.seed < 2**32, "seed", "from 0 to 2^32 - 1")

    def is_embedded(self) -> bool:
        """Whether it is the embedded base that trains, on the embedded benchmark's conversations."""
        return self.model.base == EMBEDDED and not (self.aggregate.data or self.align.data)

    @property
    def mixes_stages(self) -> bool:
        """Whether the method has one stage, on the rows of both."""
        return self.method != "medcare" and not self.method.endswith("_two_stage")

    @property
    def goes_back(self) -> bool:
        """Whether stage 2 needs the rows of stage 1."""
        return self.align.replay > 0 or self.method == "corda_two_stage"

    def stage(self, name: str) -> StageConfig:
        """The settings of one stage; raises ConfigError if there is no such stage."""
        return self.aggregate if as_stage(name) == "aggregate" else self.align

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for YAML or JSON."""
        tree: dict[str, Any] = _with_lists(asdict(self))
        return tree


@cache
def _hints(settings: type) -> dict[str, Any]:
    return get_type_hints(settings)


def _is_kind(value: Any, hint: Any) -> bool:
    """Whether a value is of the kind that a hint names; numbers may be numpy's."""
    origin, kinds = get_origin(hint), get_args(hint)
    if origin is Literal:
        return isinstance(value, str) and value in kinds
    if origin is tuple:
        return isinstance(value, tuple | list) and all(_is_kind(part, kinds[0]) for part in value)
    if origin is dict:
        return isinstance(value, Mapping)
    if hint in (int, float):
        number = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, hint)


def _kind_in_words(hint: Any) -> str:
    origin, kinds = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(kinds)}"
    if origin is tuple:
        return "a tuple"
    named = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}
    return "a dictionary" if origin is dict else named.get(hint) or f"of the class {hint.__name__}"


def as_stage(name: str) -> Stage:
    """The stage of that name; raises ConfigError if there is none."""
    return one_of(name, STAGES, "The stage (1 is aggregate, 2 is align)")


def as_method(name: str) -> Method:
    """The method of that name; raises ConfigError if there is none."""
    return one_of(name, METHODS, "The method")


def one_of(name: str, known: tuple[_Name, ...], what: str) -> _Name:
    """A name narrowed to those that are known; raises ConfigError if it is none of them."""
    for other in known:
        if name == other:
            return other
    raise ConfigError(f"{what} must be one of {', '.join(known)}, got {name!r}.")


def _with_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_lists(entry) for key, entry in value.items()}
    return [_with_lists(entry) for entry in value] if isinstance(value, list | tuple) else value
