# ruff: noqa: E501  (templates are quoted as they are)
"""Templates that would never end, or write without end, are refused; all others write what they wrote before."""

from __future__ import annotations

import pytest
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import _compile_jinja_template

from medcare.foundation.errors import ModelError
from medcare.text.chat_template import render_prompt
from medcare.text.records import Message
from medcare.text.template_sandbox import SpentError, compiled, render
from tests.hostile import TEMPLATES as HOSTILE
from tests.text.tokenizers_by_family import TEMPLATES, templated, tokenizer_of

TALK = [
    {"role": "user", "content": "What is fever?"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHeat."},
    {"role": "user", "content": "And what causes it?"},
]
GIVEN = {
    "messages": TALK,
    "tools": None,
    "add_generation_prompt": True,
    "bos_token": "<s>",
    "eos_token": "</s>",
}


def written(make, *arguments):
    try:
        return make(*arguments, **GIVEN)
    except TemplateError as error:
        return str(error)


@pytest.mark.parametrize("name", TEMPLATES)
def test_it_writes_what_transformers_writes(name):
    """And takes a small share of what it may, so that no template in use is refused."""
    source = templated(name).chat_template
    template = compiled(source)
    assert written(render, template) == written(_compile_jinja_template(source).render)
    most = 100_000 + 30 * sum(len(turn["content"]) for turn in TALK)
    assert template.environment.left > 0.9 * most


# Refused before or while it runs; or harmless, since what they try gives nothing.
@pytest.mark.parametrize("source", HOSTILE)
def test_a_hostile_template_ends(source):
    try:
        text = render(compiled(source), **GIVEN)
    except (TemplateError, ArithmeticError, TypeError, RecursionError):
        return
    assert len(text) < 1 << 20
    assert "class" not in text


@pytest.mark.parametrize("source", HOSTILE[:34])
def test_what_never_ends_is_refused_by_that_name(source):
    if "10**10**10" in source:  # a number of eleven digits, squared from the right: nothing but a long number
        return
    with pytest.raises((SpentError, TemplateError, RecursionError)):
        render(compiled(source), **GIVEN)


def test_a_tokenizer_with_such_a_template_is_refused_in_a_sentence():
    tokenizer = tokenizer_of("chatml")
    own = tokenizer.chat_template
    tokenizer.chat_template = HOSTILE[0]
    try:
        with pytest.raises(ModelError, match=r"too many steps.*--chat-template"):
            render_prompt(tokenizer, [Message("user", "Hello?")])
    finally:
        tokenizer.chat_template = own


def test_the_budget_grows_with_the_conversation():
    """Looking at every pair of turns is allowed, however many there are."""
    pairs = "{% for a in messages %}{% for b in messages %}{% if a.content == b.content %}{% endif %}{% endfor %}{% endfor %}"
    template = compiled(pairs)
    assert render(template, messages=[{"role": "user", "content": "x" * 200}] * 300) == ""
