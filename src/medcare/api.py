"""The package in Python: the commands as functions, and the pieces for a training loop of one's own.

The functions take the same settings as the commands and write the same folders. A setting is given as in
`--set`, `medcare.load_config(settings=["align.epochs=2"])`, or in a dictionary, `{"align": {"epochs": 2}}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcare import pipeline
from medcare.adapters.branches import trained_in
from medcare.adapters.loading import base_source, tokenizer_of
from medcare.adapters.tuner import add_branches
from medcare.adapters.tuner import trainable as let_train
from medcare.data.check import check as check_data
from medcare.data.in_memory import Data, load_config, source_of
from medcare.evaluation.engines import LocalEngine
from medcare.evaluation.results import RESULTS
from medcare.export import merged
from medcare.foundation.commands import in_python
from medcare.foundation.errors import ConfigError, DataError, FolderError, ModelError
from medcare.foundation.outside import read_object
from medcare.foundation.processes import is_main, wait
from medcare.models.base_model import positions_of
from medcare.models.identity import base_digest
from medcare.settings.config import AdapterConfig, RunConfig, Stage, as_method, as_stage
from medcare.settings.files import build
from medcare.settings.run_folder import claim, origin, read_manifest
from medcare.training import stages

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from medcare.serving.chat import Chat


@in_python
def run(out: str | Path, config: RunConfig | None = None, *, baselines: Sequence[str] = ()) -> dict[str, Any]:
    """The whole pipeline, as `medcare run`.

    Args:
        out: the run folder; an interrupted run there is continued.
        config: all settings; by default the embedded demonstration.
        baselines: methods that the run is compared with, as `--baseline`.

    Returns:
        What `results.json` holds.

    Raises:
        MedCareError: see `medcare.foundation.errors`; what was written stays.
    """
    report = pipeline.run_pipeline(
        config or load_config(), Path(out), [as_method(name) for name in baselines]
    )
    wait()
    return read_object(report.parent / RESULTS, DataError)


@in_python
def train(
    stage: Stage,
    out: str | Path,
    *,
    data: Data | None = None,
    start: str | Path | None = None,
    config: RunConfig | None = None,
) -> dict[str, float]:
    """Train one stage, as `medcare train`.

    Args:
        stage: `aggregate` or `align`.
        out: the stage folder to write; an interrupted stage there is continued.
        data: a file, `hf:owner/name`, or rows in any format of docs/data.md: a list of dictionaries such as
            `{"messages": [{"role": "user", "content": ..}, ..]}`, a pandas DataFrame or a `datasets.Dataset`;
            by default the embedded benchmark's.
        start: the stage-1 folder that `align` starts from.
        config: all settings; by default the embedded demonstration's.

    Returns:
        `steps`, the last `loss`, `seconds` and `tokens`; empty if the folder was finished already.

    Raises:
        MedCareError: see `medcare.foundation.errors`.
    """
    config, stage = config or load_config(), as_stage(stage)
    if data is not None:
        settings = config.to_dict()
        settings[stage]["data"] = source_of(data)
        config = build(RunConfig, settings)
    return pipeline.train_stage(stage, config, Path(out), start=None if start is None else Path(start))


@in_python
def merge(folder: str | Path, out: str | Path) -> Path:
    """Fold the branches of a stage folder into the weights, as `medcare merge`.

    Returns:
        `out`, a plain Hugging Face folder.

    Raises:
        AdapterError: the folder has a noise aggregator, which can't be merged.
        MedCareError: see `medcare.foundation.errors`.
    """
    merged.merge(Path(folder), Path(out))
    return Path(out)


@in_python
def evaluate(
    model: str | Path | PreTrainedModel,
    out: str | Path,
    *,
    items: Data | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    config: RunConfig | None = None,
) -> dict[str, Any]:
    """Test one model, as `medcare evaluate`.

    Args:
        model: a run, stage, merged or PEFT folder, a base name, a server's `http://HOST:PORT/v1#MODEL`, or a
            model in memory, for example in the middle of its training.
        out: where predictions, results and report go. An interrupted test there is continued, but for a model
            in memory, which may have changed since: its folder must be new.
        items: a test set: a file, `hf:owner/name`, or rows as `train` takes them; by default the embedded
            benchmark.
        tokenizer: of a model in memory, with a chat template.
        config: all settings; `config.evaluation` is what counts here.

    Returns:
        What `results.json` holds.

    Raises:
        ConfigError: a model in memory comes without its tokenizer.
        FolderError: `out` is in use.
        MedCareError: see `medcare.foundation.errors`.
    """
    config = config or load_config()
    if items is not None:
        config = replace(config, evaluation=replace(config.evaluation, items=source_of(items)))
    if isinstance(model, str | Path):
        report = pipeline.evaluate_model(str(model), config, Path(out))
    else:
        with _engine(model, tokenizer, config, Path(out)) as engine:
            report = pipeline.evaluate_model(engine, config, Path(out))
    wait()
    return read_object(report.parent / RESULTS, DataError)


@in_python
def check(
    data: Data,
    *,
    format: str | None = None,
    map: Mapping[str, str] | None = None,
    model: str | Path | None = None,
) -> dict[str, Any]:
    """Check every row of training or test data, as `medcare data check`.

    Args:
        data: as of `train`.
        format: its format's name; by default it is recognised.
        map: what its columns are called, by their name in the format: `{"question": "Frage"}`.
        model: a base name or a folder with a model, which renders the rows: lengths are in its tokens then.

    Returns:
        `rows`, `good`, `bad` by what is wrong, `bad_examples` with numbers and reasons, `format`, and what
        else was counted.

    Raises:
        DataError: it can't be read at all; bad rows are no error here.
        ModelError: there is no such model.
    """
    tokenizer = positions = None
    if model is not None:
        tokenizer, positions = tokenizer_of(str(model), ""), positions_of(base_source(str(model)))
    source = source_of(data)
    return check_data(source, format, columns=map, tokenizer=tokenizer, positions=positions).to_dict()


@in_python
def generate(
    model: str | Path, question: str, *, system: str = "", settings: dict[str, Any] | None = None
) -> str:
    """Answer one question, as `medcare ask`; for several load the model once, with `chat`.

    Args:
        model: as `chat`.
        question: what to ask.
        system: as `chat`.
        settings: as `chat`.

    Returns:
        The answer.

    Raises:
        MedCareError: as `chat`, or the question is longer than the model's context.
    """
    if not question.strip():
        raise ConfigError("The question is empty. Ask something, such as 'What is fever?'")
    return chat(model, system=system, settings=settings).answer(question)


@in_python
def chat(model: str | Path, *, system: str = "", settings: dict[str, Any] | None = None) -> Chat:
    """Begin a conversation with a model, as `medcare chat`.

    Args:
        model: a run, stage, merged or PEFT folder, or a base name.
        system: what the model is told before the conversation.
        settings: how answers are drawn, as in `medcare.generation.sampling.Sampling`, such as
            `{"max_new_tokens": 64, "temperature": 0.7, "seed": 1}`; by default the likeliest token at
            each place.

    Returns:
        The conversation: `answer(text)` returns an answer, and `turns` is what was said.

    Raises:
        ConfigError: a setting that there is not, or of another type.
        MedCareError: as `load_model`.
    """
    from medcare.generation.sampling import Sampling
    from medcare.serving.chat import Chat, QuietTerminal
    from medcare.serving.served_model import load_one

    sampling = build(Sampling, settings or {})
    served = load_one(str(model), str(model), device="auto", dtype="auto")
    return Chat(served, sampling, QuietTerminal(), system)


@in_python
def attach(
    model: nn.Module, stage: Stage, adapters: AdapterConfig | None = None, *, train_knowledge: bool = True
) -> dict[str, nn.Parameter]:
    """Put the branches of a stage onto a model, for a training loop of one's own.

    Args:
        model: for `aggregate` a causal language model of transformers, as in docs/models.md; for `align`
            the model of `load_model(STAGE_1_FOLDER, noise=False)`.
        stage: whose branches.
        adapters: their shapes; by default the paper's.
        train_knowledge: whether the knowledge branch goes on learning in `align`.

    Returns:
        The parameters that train, by name; all others are frozen. See `KeepOrthogonal` for stage 2.

    Raises:
        AdapterError: a module name matches nothing, or a branch is there that must not be.
    """
    add_branches(model, as_stage(stage), adapters or AdapterConfig())
    return let_train(model, trained_in(stage, train_knowledge=train_knowledge))


@in_python
def save_stage(
    model: PreTrainedModel,
    out: str | Path,
    stage: Stage,
    *,
    adapters: AdapterConfig | None = None,
    base: str | None = None,
    start: str | Path | None = None,
) -> Path:
    """Write what a loop of one's own has trained as a stage folder, as `train` writes it.

    Args:
        model: the model that `attach` was called on.
        out: the folder to write.
        stage: which one it was.
        adapters: what `attach` was given.
        base: the base's name, by which `load_model` will find it; by default what `align` inherits from
            `start`, and for `aggregate` where transformers loaded the model from.
        start: the stage-1 folder that `align` started from.

    Returns:
        `out`, for `train(.., start=out)`, `load_model` and, after stage 2, `merge`.

    Raises:
        FolderError: `out` holds something else, or `start` is missing.
        StorageError: the disk is full.
    """
    if (as_stage(stage) == "align") != (start is not None):
        raise FolderError("start names the stage-1 folder: 'align' requires it, 'aggregate' has none.")
    folder, begun = Path(out), None if start is None else Path(start)
    named = base or str(model.name_or_path if begun is None else read_manifest(begun)["base"])
    config = RunConfig()
    config = replace(config, model=replace(config.model, base=named), adapters=adapters or AdapterConfig())
    settings = {"stage": stage, "data": "own loop", **origin(begun, folder)}
    with suppress(ModelError):  # a model that was made in memory
        settings["base_sha256"] = base_digest(named)
    if not claim(folder, config, settings):
        stages.save(model, folder, config, {**settings, "base": named, "result": {}}, start=begun)
    return folder


@contextmanager
def _engine(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, config: RunConfig, out: Path
) -> Iterator[LocalEngine]:
    """A model in memory, in evaluation mode for as long as it answers."""
    if tokenizer is None:
        raise ConfigError("A model in memory is tested with its tokenizer: give tokenizer=..")
    if is_main() and out.exists() and any(out.iterdir()):
        raise FolderError(f"{out} is not empty: the model may have changed since. Choose another folder.")
    training = model.training
    try:
        yield LocalEngine(model.eval(), tokenizer, config.evaluation, config.seed)
    finally:
        model.train(training)
