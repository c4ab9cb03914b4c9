"""Dialogues of doctor and patient: the status of each symptom, and a short report."""

from __future__ import annotations

from medcare.benchmark.forms.recipe import Draw, Example, form_task
from medcare.benchmark.forms.sentences import RELATIVES, capital
from medcare.benchmark.task_data import texts

_STATUSES = ("present", "absent", "unknown")
_SAID = texts("forms/wordings.yaml")["dialogue"]


def _symptom_status(draw: Draw) -> Example:
    rng = draw.rng
    findings = draw.findings(3)
    statuses = [rng.choice(_STATUSES) for _ in findings]
    turns = []
    for finding, status in zip(findings, statuses, strict=True):
        question = draw.wording(_SAID["questions"], x=finding)
        reply = draw.frame(_SAID["replies"][status], r=rng.choice(RELATIVES))
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
    time = draw.wording(_SAID["times"], n=str(rng.randint(2, 11)))
    dose = f"{rng.choice((5, 10, 20, 25, 50, 100, 200))} mg"
    status = rng.choice(("present", "absent"))
    reply = draw.frame(_SAID["replies"][status], r=rng.choice(RELATIVES))
    turns = [
        f"P: {capital(draw.wording(_SAID['complaints'], x=complaint, t=time))}.",
        f"D: {capital(draw.wording(_SAID['questions'], x=asked))}? P: {capital(reply)}.",
    ]
    history = f"D: {capital(draw.wording(_SAID['pasts']))}?"
    history += f" P: {capital(draw.wording(_SAID['past_replies'], x=past))}."
    turns.insert(rng.choice((1, 2)), history)
    turns.append(f"D: {capital(draw.wording(_SAID['orders'], d=drug, dose=dose))}.")
    target = f"Complaint: {complaint} {time}. Asked: {asked} {status}. Past: {past}. Plan: {drug} {dose}."
    return Example(" ".join(turns), target, (complaint, asked, past, drug))


DIALOGUE = (
    form_task("symptom_status", _symptom_status),
    form_task("dialogue_report", _dialogue_report),
)
