from __future__ import annotations

import math

import pytest

from medcare.study.likelihood import right_answers
from medcare.text.records import Item


class Fixed:
    """An engine that finds answers as likely as it was told, by their text; and backwards, as any may."""

    def __init__(self, nats):
        self.nats = nats

    def rank(self, prompts):
        for index in reversed(range(len(prompts))):
            yield [(index, [self.nats[option] for option in prompts[index].options])]


def item(name, family, options=(), answer=0, target=""):
    answers = (answer,) if options else ()
    return Item(name, name, family, "taught", name, "?", options, answers, target)


def test_it_tells_how_likely_the_right_answers_are():
    items = [
        item("one", "knowledge", ("yes", "no"), 1),
        item("two", "knowledge", ("yes", "no"), 0),
        item("form", "alignment", target="none"),
    ]
    one, two, form = right_answers(Fixed({"yes": math.log(0.06), "no": math.log(0.02), "none": -2.0}), items)
    assert form == {"logp": -0.5}
    assert one == pytest.approx({"logp": math.log(0.02) / 2, "share": math.log(0.25), "likeliest": 0})
    assert two == pytest.approx({"logp": math.log(0.06) / 3, "share": math.log(0.75), "likeliest": 1})
