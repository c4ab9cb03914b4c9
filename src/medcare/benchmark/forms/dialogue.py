"""Dialogues of doctor and patient: the status of each symptom, and a short report."""

from __future__ import annotations

from medcare.benchmark.forms.recipe import Draw, Example, form_task
from medcare.benchmark.forms.sentences import RELATIVES, capital

_STATUSES = ("present", "absent", "unknown")

_QUESTIONS = (
    "[any|and] {x}",
    "do you have {x}",
    "what about {x}",
    "have you [had|noticed] {x}",
    "are you troubled by {x}",
    "is there [also|] {x}",
    "and {x}, how is that",
    "have you got {x}",
)
_REPLIES = {
    "present": (
        "[yes|yeah|yes, I do]",
        "[every day|a lot|all the time]",
        "[unfortunately|sadly|I am afraid so]",
        "[for weeks now|for a year|since spring]",
        "that [is why I came|bothers me most]",
        "[it started|it began] [last week|in May]",
        "[sure|of course|indeed]",
        "[it is getting worse|more than ever]",
    ),
    "absent": (
        "[no|nope|no, never]",
        "[not at all|none|nothing of that]",
        "only my {r}, not me",
        "[I never had that|that is fine]",
        "[thank God, no|luckily not]",
        "that was [excluded|ruled out]",
        "[my {r} does, I don't|not me, my {r}]",
        "[I am free of that|that I don't have]",
    ),
    "unknown": (
        "[not sure|I am not sure]",
        "[hard to say|I can't tell]",
        "[nobody|no one] [checked|looked] so far",
        "[maybe|perhaps], I don't know",
        "[no idea|I wouldn't know]",
        "you would have to [look|test me]",
        "I would have to ask my {r}",
        "[I can't remember|I forgot]",
    ),
}
_COMPLAINTS = (
    "[I have had|I've got|it's about] {x} {t}",
    "I [came|am here] because of {x} {t}",
    "{x} {t}, doctor",
    "I [suffer from|am troubled by] {x} {t}",
)
_TIMES = ("for {n} [days|weeks|months|years]", "since [birth|childhood|last week|last winter|age {n}]")
_PASTS = (
    "[anything before|past illnesses|earlier problems]",
    "what did you have before",
    "any [old|other] trouble",
)
_PAST_REPLIES = ("{x} [as a child|years ago]", "[I once had|I used to have|there was] {x}", "[only|just] {x}")
_ORDERS = (
    "take {d} {dose}",
    "I [will give|prescribe] you {d} {dose}",
    "let us [try|start] {d} {dose}",
    "{d} {dose} should help",
)


def _symptom_status(draw: Draw) -> Example:
    rng = draw.rng
    findings = draw.findings(3)
    statuses = [rng.choice(_STATUSES) for _ in findings]
    turns = []
    for finding, status in zip(findings, statuses, strict=True):
        question = draw.wording(_QUESTIONS, x=finding)
        reply = draw.frame(_REPLIES[status], r=rng.choice(RELATIVES))
        turns.append(f"D: {capital(question)}? P: {capital(reply)}.")
    groups = {
        status: [finding for finding, given in zip(findings, statuses, strict=True) if given == status]
        for status in _STATUSES
    }
    target = "; ".join(f"{status}: {', '.join(names)}" for status, names in groups.items() if names)
    return Example(" ".join(turns), target, tuple(findings))


def _dialogue_report(draw: Draw) -> Example:
    rng = draw.rng
    complaint, asked, past = draw.findings(3)
    (drug,) = draw.terms("drugs", 1)
    time = draw.wording(_TIMES, n=str(rng.randint(2, 11)))
    dose = f"{rng.choice((5, 10, 20, 25, 50, 100, 200))} mg"
    status = rng.choice(("present", "absent"))
    reply = draw.frame(_REPLIES[status], r=rng.choice(RELATIVES))
    turns = [
        f"P: {capital(draw.wording(_COMPLAINTS, x=complaint, t=time))}.",
        f"D: {capital(draw.wording(_QUESTIONS, x=asked))}? P: {capital(reply)}.",
    ]
    history = f"D: {capital(draw.wording(_PASTS))}? P: {capital(draw.wording(_PAST_REPLIES, x=past))}."
    turns.insert(rng.choice((1, 2)), history)
    turns.append(f"D: {capital(draw.wording(_ORDERS, d=drug, dose=dose))}.")
    target = f"Complaint: {complaint} {time}. Asked: {asked} {status}. Past: {past}. Plan: {drug} {dose}."
    return Example(" ".join(turns), target, (complaint, asked, past, drug))


DIALOGUE = (
    form_task("symptom_status", _symptom_status),
    form_task("dialogue_report", _dialogue_report),
)
