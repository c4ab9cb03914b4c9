"""A law over the functions in Python: an argument of another kind ends in a sentence, not in a traceback."""

from __future__ import annotations

import inspect
from dataclasses import is_dataclass

import pytest

import medcare
from medcare.foundation.errors import ConfigError, MedCareError
from medcare.settings.config import RunConfig, StageConfig

FUNCTIONS = [name for name in medcare.__all__ if inspect.isfunction(getattr(medcare, name))]


class Odd:
    """What nobody gives on purpose."""


def arguments():
    for name in FUNCTIONS:
        for parameter in inspect.signature(getattr(medcare, name)).parameters.values():
            for value in (42, Odd(), b"bytes"):
                yield name, parameter.name, value


def fitting(name):
    """For each parameter that must be given, something of its kind that leads nowhere."""
    values = {"model": "./none", "stage": "aggregate", "folder": "./none", "data": "./none.jsonl"}
    needed = [
        parameter.name
        for parameter in inspect.signature(getattr(medcare, name)).parameters.values()
        if parameter.default is parameter.empty
    ]
    return {parameter: values.get(parameter, "text") for parameter in needed}


@pytest.mark.parametrize(("name", "parameter", "value"), list(arguments()))
def test_an_argument_of_another_kind_is_told(name, parameter, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if parameter in ("noise", "merge", "train_knowledge") and value == 42:
        pytest.skip("a number is true or false")
    with pytest.raises(MedCareError) as told:
        getattr(medcare, name)(**{**fitting(name), parameter: value})
    assert str(told.value).endswith((".", ")"))


def settings():
    groups = [type(value) for value in vars(RunConfig()).values() if is_dataclass(value)]
    for cls in (RunConfig, *groups, type(StageConfig().validation)):
        for name in cls.__dataclass_fields__:
            yield cls, name


@pytest.mark.parametrize(("cls", "name"), sorted(set(settings()), key=str))
def test_a_setting_of_another_kind_is_told(cls, name):
    with pytest.raises(ConfigError, match=rf"{cls.__name__}\({name}=\.\.\) must be "):
        cls(**{name: Odd()})


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: medcare.train("aggregate", "x", config={"align": {}}), "Make one: medcare.load_config("),
        (lambda: medcare.run("x", baselines="lora"), "run(baselines=..) must be a list, got str: 'lora'"),
        (lambda: medcare.attach("tiny", "aggregate"), "must be a model in memory, got str: 'tiny'"),
        (lambda: medcare.check([{"Frage": "a"}]), 'map={"question": "COLUMN", "answer": "COLUMN"}'),
        (lambda: medcare.check([]), "What was given holds no rows"),
        (lambda: medcare.AdapterConfig(rank="8"), "rank=..) must be a whole number, got str: '8'"),
        (lambda: StageConfig(optimizer="adam"), "must be one of adamw"),
        (lambda: medcare.KeepOrthogonal("l3"), "must be one of l1, frobenius"),
        (lambda: medcare.generate("embedded", " "), "The question is empty"),
    ],
)  # fmt: skip
def test_what_to_do_is_told(call, said, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDCARE_CACHE", str(tmp_path))
    with pytest.raises(MedCareError) as told:
        call()
    assert said in str(told.value)


def test_columns_are_named_in_python_as_on_the_command_line():
    found = medcare.check([{"Frage": "a", "Antwort": "b"}], map={"question": "Frage", "answer": "Antwort"})
    assert (found["rows"], found["bad"]) == (1, {})
