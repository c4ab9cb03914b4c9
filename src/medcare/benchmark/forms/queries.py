"""Queries of patients: by what they ask for, in ways to ask the same, and the titles of pages that answer.

Slots: {x} the finding, {r} and {s} relatives, {n} the age of who asks, {m} the age of {s}; {q} a query
and {z} a finding that it is not about.
"""

from __future__ import annotations

# How a query may begin.
ASKING = (
    *("", "", ""),
    "[hi|hello|please help|quick question]: ",
    "I am {n}, ",
    "my {s} is {m}, ",
    "we just read about it, ",
)

# How a query may set another finding aside.
ASIDES = (
    "apart from {z}, {q}",
    "[my {s} has|I also have] {z}, but {q}",
    "{z} is [cured|gone], so {q}",
    "not about {z}: {q}",
    "{q}, apart from {z}",
    "{q}, now that {z} is [cured|gone]",
    "{q}, not {z}",
    "{q}, and [it's|this is] not about {z}",
)

INTENTS: dict[str, tuple[str, ...]] = {
    "cause": (
        "why do [people|some children|women|men] get {x}",
        "what [leads to|brings on|is behind] {x}",
        "how did my {r} end up with {x}",
        "where does {x} come from",
        "is {x} [inherited|in the genes|genetic]",
        "can [stress|a virus|smoking|an injury] trigger {x}",
        "[reason|reasons] for {x}",
        "could my job be to blame for {x}",
    ),
    "diagnosis": (
        "how do I know [if it is|that it is] {x}",
        "which [scan|blood work|specialist] can confirm {x}",
        "[can|does] an [MRI|X-ray|ultrasound|EEG] show {x}",
        "is there a way to check for {x} at home",
        "how do doctors [detect|recognise|find] {x}",
        "my [GP|doctor] suspects {x}, how can [she|he] be sure",
        "signs that it could be {x}",
        "what would prove that my {r} has {x}",
    ),
    "treatment": (
        "how [to|can I] get rid of {x}",
        "what [helps|works|do I take] against {x}",
        "which [pills|medicine|ointment] for {x}",
        "does {x} need [surgery|an operation]",
        "can {x} be [cured|fixed|corrected]",
        "what will the doctor do about {x}",
        "best [remedy|therapy|drug] for {x}",
        "how is {x} dealt with in hospital",
    ),
    "prevention": (
        "how to avoid [getting|] {x}",
        "how can I protect my {r} from {x}",
        "is there a [vaccine|shot] against {x}",
        "how do I keep from getting {x}",
        "ways to lower [the|my] risk of {x}",
        "anything to stop {x} before it starts",
        "can {x} be headed off",
        "what should I do now so that I never have {x}",
    ),
    "diet": (
        "what should I eat with {x}",
        "[foods|drinks] to skip with {x}",
        "is [coffee|sugar|salt|chocolate] bad with {x}",
        "can I [drink alcohol|have milk|eat nuts] with {x}",
        "which [meals|vegetables|snacks] are good with {x}",
        "is fasting ok with {x}",
        "vitamins [and|or] minerals with {x}",
        "what to cook for my {r} who has {x}",
    ),
}

# Titles of pages that answer a query, by its intent.
TITLES: dict[str, tuple[str, ...]] = {
    "cause": (
        "{x}: [origins|risk factors|where it comes from]",
        "why {x} happens",
        "[the genetics|the biology] of {x}",
        "what can bring on {x}",
        "how {x} begins",
        "is {x} in the family",
        "{x} and what triggers it",
        "the roots of {x}",
    ),
    "diagnosis": (
        "{x}: [signs|scans and blood work|how doctors find it]",
        "how to tell whether it is {x}",
        "[checking|screening] for {x}",
        "[recognising|detecting] {x} [early|in time]",
        "which specialist can confirm {x}",
        "when doctors suspect {x}",
        "{x} on [MRI|X-ray|ultrasound]",
        "is it {x} or something else",
    ),
    "treatment": (
        "{x}: [drugs and surgery|what helps|therapy options]",
        "[medicine|pills|new drugs] for {x}",
        "how to get rid of {x}",
        "an operation for {x}",
        "can {x} be cured",
        "[home|natural] remedies against {x}",
        "{x} in hospital: what doctors do",
        "managing {x} step by step",
    ),
    "prevention": (
        "{x}: [how to avoid it|staying safe|lowering the risk]",
        "protect [your child|yourself] from {x}",
        "[vaccines|shots] against {x}",
        "can {x} be avoided",
        "stop {x} before it starts",
        "how to keep from getting {x}",
        "ten steps against getting {x}",
        "never have {x}: tips for the healthy",
    ),
    "diet": (
        "{x}: [what to eat|food and drink|recipes]",
        "[meals|snacks|cooking] for people with {x}",
        "[coffee|sugar|salt] and {x}",
        "eating well with {x}",
        "which foods to skip with {x}",
        "vitamins with {x}",
        "can you drink alcohol with {x}",
        "a menu for {x}",
    ),
}

# Ways to ask one and the same thing, a row each.
QUESTIONS: tuple[tuple[str, ...], ...] = (
    ("how long does {x} last", "[when|how soon] will {x} be over", "for how long will I have {x}"),
    ("is {x} [inherited|genetic]", "does {x} run in families", "can I pass {x} on to my children"),
    ("can I catch {x} from [others|my {r}]", "is {x} contagious", "does {x} spread between people"),
    ("does {x} [hurt|cause pain]", "is {x} painful", "will I have pain from {x}"),
    ("can {x} be [cured|healed]", "is there a cure for {x}", "will {x} ever be healed for good"),
    ("does {x} need [surgery|an operation]", "must {x} be operated on", "is surgery a must for {x}"),
    ("can I do sports with {x}", "is exercise [safe|allowed] with {x}", "may I work out when I have {x}"),
    ("which [doctor|specialist] treats {x}", "who should I see for {x}", "where do I go to have {x} treated"),
    ("how [common|frequent] is {x}", "how many people have {x}", "what share of people gets {x}"),
    (
        "at what age does {x} [start|begin]",
        "how old are people when {x} appears",
        "when in life does {x} set in",
    ),
    ("[what causes|what leads to] {x}", "where does {x} come from", "what is the reason for {x}"),
    (
        "[can|how can] {x} be prevented",
        "how to avoid getting {x}",
        "is there a way to keep {x} from starting",
    ),
    ("is {x} [dangerous|serious]", "can {x} do much harm", "do I have to worry about {x}"),
    (
        "can I [drive|drive a car] with {x}",
        "is it safe to be at the wheel with {x}",
        "does {x} keep me from driving",
    ),
    ("should I stay in bed with {x}", "is bed rest good for {x}", "do I need to lie down because of {x}"),
    ("does {x} show on [an X-ray|a scan]", "can you see {x} in pictures", "will imaging find {x}"),
)
