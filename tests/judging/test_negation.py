"""What clinical sentences affirm, deny, or leave open about the term in brackets."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcare.benchmark.forms.sentences import RELATIVES, Statement, note
from medcare.judging.negation import status

AFFIRMED = """
The patient has [fever].
Presents with [fever] and cough for three days.
[Fever] to 39.2 C, chills.
No cough, but [fever] since Monday.
He has no rash and has [fever].
Denies chest pain. [Fever] noted on admission.
Denies chest pain; reports [fever].
No relief of [fever] after paracetamol.
There was no change in the [fever].
[Fever] has not improved.
[Fever] not controlled by ibuprofen.
Not only cough but also [fever].
[Fever], no cough.
No cough, [fever] for three days.
No cough, [fever] since Monday.
[Fever] without cough.
Positive for [fever].
Chest X-ray shows [pneumonia] without effusion.
No known allergies, admitted for treatment of severe community-acquired [pneumonia].
History of [asthma].
She did not sleep because of the [fever].
Ultrasound revealed no gallstones, however [hepatomegaly] was seen.
Reports [fever], denied cough.
[Fever] is present; rash is absent.
The CRP was not raised although [fever] persisted.
患者3天前无明显诱因出现[发热]，体温39.2℃。
[发热]3天，伴咳嗽。
无咳嗽，有[发热]。
无咳嗽但[发热]。
否认高血压病史，[发热]3天。
[发热]未见明显好转。
患者[发热]，无咳嗽、咳痰。
无痛性[血尿]2周。
四肢无力，[发热]。
[发热]、咳嗽，无胸痛。
咳嗽阴性，[发热]阳性。
没有缓解，[发热]加重。
主诉：[发热]伴头痛。
""".strip().splitlines()

DENIED = """
No [fever].
No fever, cough, or [rash].
The patient denies fever, chills, night sweats, shortness of breath and [chest pain].
Denies any [fever].
Without [fever].
w/o [fever].
No evidence of [pneumonia].
No signs of [pneumonia] on X-ray.
Does not have [fever].
He hasn't had any [fever].
She never had [fever].
Negative for [fever].
Free of [fever].
The absence of [fever] is reassuring.
[Fever] was ruled out.
[Pneumonia] has been excluded.
[Fever] is absent.
[Fever], cough and rash are absent.
[Fever] not seen.
[Pneumonia] is unlikely.
[Fever]: none.
[Fever]: no
[Fever] (-), cough (+).
Neither [fever] nor cough.
Neither fever nor [cough].
Cough for three days, no [fever].
The patient has cough and no [fever].
X-ray did not show [pneumonia].
No longer has [fever].
No acute [fever].
[Fever] denied.
[Fever] denied, cough reported.
无[发热]。
无发热、咳嗽、[胸痛]。
否认[发热]。
否认[高血压]、糖尿病病史。
否认高血压、[糖尿病]病史。
未见[肺炎]征象。
双肺未闻及[湿啰音]。
没有[发热]。
不伴[发热]。
咳嗽3天，无[发热]。
患者咳嗽，未出现[发热]。
[发热]：无
[发热]（-），咳嗽（+）。
[过敏]史：无
[巴氏征]阴性。
已排除[肺炎]。
[肺炎]已排除。
无发热及[寒战]。
无明显[水肿]。
否认有[发热]。
从未[发热]。
肝脾肋下未触及，双下肢无[水肿]。
""".strip().splitlines()

UNSURE = """
Possible [pneumonia].
Suspected [pneumonia].
[Pneumonia] cannot be excluded.
[Pneumonia] has not been ruled out.
Cannot exclude [pneumonia].
CT to rule out [pneumonia].
Return if [fever] develops.
Family history of [diabetes].
His mother has [diabetes].
Watch for fever or [rash].
[Fever] has resolved.
不排除[肺炎]。
不能排除[肺炎]可能。
考虑[肺炎]可能。
[肺炎]待排。
如有[发热]，请及时就诊。
父亲有[糖尿病]。
预防[感染]。
注意[发热]。
""".strip().splitlines()


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        (sentence, name)
        for name, group in (("affirmed", AFFIRMED), ("denied", DENIED), ("unsure", UNSURE))
        for sentence in group
    ],
)
def test_a_sentence(sentence: str, expected: str):
    start = sentence.index("[")
    end = sentence.index("]") - 1
    text = sentence.replace("[", "").replace("]", "")
    assert status(text, start, end) == expected
    # What stands in other sentences changes nothing.
    around = f"No cough. 无咳嗽。\n{text}\nNo rash. 否认皮疹。"
    shift = around.index(text)
    assert status(around, start + shift, end + shift) == expected


def test_on_the_benchmarks_sentences_it_is_mostly_right_and_hardly_ever_the_opposite():
    """Notes of the benchmark's grammar, with typing errors in the cues."""
    wanted = {"present": "affirmed", "absent": "denied", "suspected": "unsure", "family": "unsure"}
    terms = ("fever", "chest pain", "hepatomegaly", "skin rash", "seizures", "short stature")
    draw = random.Random(0)
    found: Counter[tuple[str, str]] = Counter()
    for _ in range(500):
        kinds, pool = draw.sample(list(wanted), 3), draw.sample(terms, 6)
        statements = [
            Statement(
                kind, tuple(pool.pop() for _ in range(draw.randint(1, 2))), {"r": draw.choice(RELATIVES)}
            )
            for kind in kinds
        ]
        text = note(draw, statements)
        for statement in statements:
            for term in statement.terms:
                start = text.lower().index(term)
                found[statement.kind, status(text, start, start + len(term))] += 1
    for kind, right in wanted.items():
        total = sum(count for (name, _), count in found.items() if name == kind)
        assert found[kind, right] / total > 0.95
    assert found["present", "denied"] == 0
    assert found["suspected", "denied"] == 0


@given(st.text(max_size=200), st.integers(0, 200), st.integers(0, 200))
def test_no_text_breaks_it(text: str, start: int, length: int):
    assert status(text, min(start, len(text)), min(start + length, len(text))) in (
        "affirmed",
        "denied",
        "unsure",
    )
