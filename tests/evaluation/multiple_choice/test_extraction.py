"""Answers as models of today write them, and what this package trains: what is stated, and no more."""

from __future__ import annotations

import json

import pytest

from medcare.evaluation.multiple_choice.extraction import extract_letters
from tests.evaluation.multiple_choice.made_up_options import DISEASES, DOSES, DRUGS, EFFECTS, GROUPS

STUDY = ("yes", "no", "maybe")
SHARED = ("Cyanosis", "Clubbing", "Dyspnoea", "All of the above")
BOTH = ("Iron", "Folate", "Both A and B", "None of the above")
JOINTLY = ("发热", "咳嗽", "胸痛", "以上都是")
PAIRED = ("头痛", "呕吐", "A和B", "抽搐")
GENES = ("BRCA1 protein", "brca1 protein", "TP53 protein")
TOXINS = ("Vibrio", "E. coli O157", "Shigella", "C. botulinum")

REASONS = "Ibuprofen relieves pain. Aspirin irritates the stomach, and warfarin would raise the risk."


def read(text, options, **known):
    return "".join(sorted(extract_letters(text, options, **known) or ""))


@pytest.mark.parametrize(
    "key",
    [
        "answer",
        "answer_choice",
        "final_answer",
        "choice",
        "correct_option",
        "Answer",
        "correct_answer",
        "选项",
        "答案",
        "option",
        "selected_option",
        "predicted_answer",
        "answer_letter",
        "final answer",
        "correct_choice",
    ],
)
@pytest.mark.parametrize(
    "value", ["B", "B. Ibuprofen", "(B)", "Option B", "Ibuprofen", "b", "B) Ibuprofen", "B: ibuprofen"]
)
def test_the_key_of_an_answer_is_read(key, value):
    thought = 'Aspirin (A) is risky, so "A" is not it. Warfarin is worse.'
    if key == "选项":  # which alone may list them
        key = "正确选项"
    for row in ({"thinking": thought, key: value}, {key: value, "explanation": thought}):
        for text in (json.dumps(row), json.dumps(row, indent=2), f"```json\n{json.dumps(row)}\n```"):
            assert read(text, DRUGS) == "B"


@pytest.mark.parametrize(
    ("options", "text", "letters"),
    [
        # Objects, whole and damaged.
        (DRUGS, '{"answer": ["A", "C"]}', "AC"),
        (DRUGS, '{"answer": ["Aspirin", "Warfarin"]}', "AE"),
        (DRUGS, '{"answer": {"letter": "C", "text": "Beta blocker"}}', "C"),
        (DRUGS, "{'answer': 'D'}", "D"),
        (DRUGS, '{"answer": D}', "D"),
        (DRUGS, '{"reason": "it says "no" to A", "answer": "D"', "D"),
        (DRUGS, '{"answer_choices": ["A", "B", "C", "D", "E"], "answer": "E"}', "E"),
        (DRUGS, '{"answer": "A, B, and D"}', "ABD"),
        (DRUGS, '{"answer": "C"}\n\nWait, I was wrong. The answer is E.', "E"),
        (DRUGS, '{"explanation": "Therefore, the answer is A.", "answer": "B"}', "B"),
        (DRUGS, '{"A": false, "B": true, "C": false, "D": false, "E": false}', "B"),
        (DRUGS, '{"answer": "D. calcium antagonist"}', "D"),
        (DRUGS, '{"answer": "Calcium channel blocker (amlodipine)"}', "D"),
        (DRUGS, r'{"answer": "A. Aspirin\nC. Beta blocker"}', "AC"),
        (DRUGS, r'{"answer": "B. Ibuprofen\nIt relieves pain, unlike C."}', "B"),
        (DRUGS, r'{"answer": "\"B\""}', "B"),
        (DOSES, '{"answer": "50mg"}', "A"),
        # Boxes and tags.
        (DRUGS, r"\boxed{A}、\boxed{B}", "AB"),
        (DRUGS, r"Both fit: \boxed{A} and \boxed{C}.", "AC"),
        (DRUGS, r"First \boxed{A}. Looking again, \boxed{D}.", "D"),
        (DRUGS, r"The final answer is $\boxed{\text{(C) Beta blocker}}$. I hope it is correct.", "C"),
        (DRUGS, r"$\boxed{\mathbf{B}}$", "B"),
        (DRUGS, "<answer> C </answer>", "C"),
        (DRUGS, "<answer>C. Beta blocker</answer>", "C"),
        (DRUGS, "<explanation>A is out.</explanation>\n<answer>\nB\n</answer>", "B"),
        # End tokens and markdown.
        (DRUGS, "C</s>", "C"),
        (DRUGS, "C<|im_end|>\n<|im_start|>user\nIs it A?", "C"),
        (DRUGS, "<|im_start|>assistant\nC<|im_end|>", "C"),
        (DRUGS, "C<|eot_id|>", "C"),
        (DRUGS, "<|start_header_id|>assistant<|end_header_id|>\n\nC. Beta blocker<|eot_id|>", "C"),
        (DRUGS, "C<｜end▁of▁sentence｜>", "C"),
        (DRUGS, "C<end_of_turn>\n", "C"),
        (DRUGS, "C [/INST] D", "C"),
        (DRUGS, "## C", "C"),
        (DRUGS, "### Answer\n\n**C**", "C"),
        (DRUGS, "**C**", "C"),
        (DRUGS, "**C. Beta blocker**", "C"),
        (DRUGS, "> C", "C"),
        (DRUGS, "`C`", "C"),
        (DRUGS, "### **Final Answer:**  \n**C) Beta blocker**", "C"),
        (
            DRUGS,
            "**Correct Answer: (C) Beta blocker**\n\n**Explanation:**\n- **A. Aspirin** – not here.",
            "C",
        ),
        (DRUGS, "__Answer__: C", "C"),
        (DRUGS, "#### C", "C"),
        # Thoughts.
        (DRUGS, "<think>The answer is A.</think>\n\nC", "C"),
        (DRUGS, "<think>\nA?\n</think>\n\n**Answer: C**", "C"),
        (DRUGS, "So maybe the answer is A.\n</think>\n\nC", "C"),
        (DRUGS, "<thinking>the answer is A</thinking>The answer is C.", "C"),
        (
            DRUGS,
            "<|channel|>analysis<|message|>Is it A?<|end|><|start|>assistant<|channel|>final<|message|>C",
            "C",
        ),
        (DRUGS, "<reasoning>answer: A</reasoning><answer>C</answer>", "C"),
        (DRUGS, "<answer>C</answer><reasoning>The answer is A unless</reasoning>", "C"),
        (DRUGS, "[THINK]The answer is A[/THINK]C", "C"),
        # Several.
        (DRUGS, "A, B, and D", "ABD"),
        (DRUGS, "A|B|D", "ABD"),
        (DRUGS, "The correct answers are A, B, and D.", "ABD"),
        (DRUGS, "The correct options are A, B & D", "ABD"),
        (DRUGS, "The answer is option A and option D.", "AD"),
        (DRUGS, "A. Aspirin, C. Beta blocker, E. Warfarin", "ACE"),
        (DRUGS, "- A. Aspirin\n- C. Beta blocker", "AC"),
        (DRUGS, "1. **A. Aspirin**\n2. **C. Beta blocker**", "AC"),
        (DISEASES, "A、B、D均正确", "ABD"),
        (DISEASES, "A、B、D均符合题意。", "ABD"),
        (DISEASES, "正确答案为A、B和D。", "ABD"),
        (DISEASES, "本题选A，B，D", "ABD"),
        (DISEASES, "选项A、C、E正确，选项B、D错误。", "ACE"),
        (DISEASES, "A/B/D", "ABD"),
        # All of them.
        (SHARED, "All of the above", "D"),
        (SHARED, "All of the above.", "D"),
        (SHARED, "The answer is all of the above.", "D"),
        (SHARED, "A, B and C are all correct.", "D"),
        (
            SHARED,
            "Cyanosis, clubbing and dyspnoea all occur. Therefore, all of the options are correct.",
            "D",
        ),
        (SHARED, "Cyanosis and dyspnoea may occur. Most likely, clubbing is seen.", "B"),
        (JOINTLY, "以上都是", "D"),
        (JOINTLY, "A、B、C均正确，故选D。", "D"),
        (JOINTLY, "A、B、C均正确", "D"),
        (BOTH, "Both A and B", "C"),
        (BOTH, "The answer is both A and B.", "C"),
        (BOTH, "A and B", "C"),
        (BOTH, "C. Both A and B", "C"),
        (BOTH, "The correct answer is C (both A and B).", "C"),
        (BOTH, "A", "A"),
        (PAIRED, "A和B", "C"),
        (PAIRED, "答案是A和B。", "C"),
        (PAIRED, "C", "C"),
        # Yes, no, maybe.
        (STUDY, "Yes", "A"),
        (STUDY, "yes.", "A"),
        (STUDY, "No, because the difference was not significant.", "B"),
        (STUDY, "Yes, the results suggest a benefit. There was no difference in harm.", "A"),
        (STUDY, "No. The study shows yes-men are rare.", "B"),
        (STUDY, "Maybe – the evidence is mixed.", "C"),
        (STUDY, "The answer is maybe, since the sample was small.", "C"),
        (STUDY, "**Yes**\n\nThe abstract reports no adverse events.", "A"),
        (STUDY, "Based on the abstract, the answer is no.", "B"),
        (STUDY, "Answer: yes", "A"),
        (STUDY, "B. no\n\nYes, there was a trend.", "B"),
        (("Yes", "No", "Maybe"), "no", "B"),
        (("True", "False"), "False. It is a myth.", "B"),
        (("是", "否"), "是，因为结果显著。", "A"),
        (("对", "错"), "错。", "B"),
        # Case.
        (GENES, "brca1 protein", "B"),
        (GENES, "The answer is BRCA1 protein.", "A"),
        (GENES, "TP53 protein", "C"),
        # The text of an option.
        (DRUGS, "beta blocker", "C"),
        (DRUGS, "The best choice here is warfarin.", "E"),
        (DRUGS, "Beta blockers are the drugs of choice here.", "C"),
        (DRUGS, "Aspirin, because it inhibits platelets.", "A"),
        (DRUGS, "The answer is ibuprofen because aspirin and warfarin raise the risk of bleeding.", "B"),
        (TOXINS, "C. botulinum", "D"),
        (TOXINS, "The organism is most likely C. botulinum.", "D"),
        (TOXINS, "C", "C"),
        # The last statement, conclusions after reasoning.
        (DRUGS, "At first the answer seems to be A. But bleeding matters, so the answer is C.", "C"),
        (DRUGS, f"{REASONS} This corresponds to option C.", "C"),
        (DRUGS, f"{REASONS} This matches option C.", "C"),
        (DRUGS, f"{REASONS} Thus, option C is the most appropriate choice.", "C"),
        (DRUGS, f"{REASONS} Hence, C is correct.", "C"),
        (DRUGS, f"{REASONS} Therefore, the drug that should be given is C. Beta blocker.", "C"),
        (DRUGS, f"{REASONS} So we are left with option C.", "C"),
        (DRUGS, "Aspirin bleeds. A beta blocker slows the heart. This is best given early.", "C"),
        (DRUGS, "Aspirin bleeds. Therefore, a beta blocker is given. She stopped warfarin.", "C"),
        (DRUGS, f"{REASONS} Based on this, I would choose option C for her.", "C"),
        (DRUGS, "A, B, D and E are ruled out, leaving C.", "C"),
        (DRUGS, "Options A, B, D and E are incorrect.", "C"),
        (
            DRUGS,
            "Step by step.\n\n1. Aspirin: no.\n2. Warfarin: no.\n\nThe answer to the question is C.",
            "C",
        ),
        (
            DRUGS,
            "### Conclusion\nThe best option is:\n\n**C. Beta blocker**\n\nThis slows the heart.",
            "C",
        ),
        (DISEASES, "综上，C选项符合题意", "C"),
        (DISEASES, "排除A、B、D、E后，只剩C", "C"),
        (DISEASES, "排除A、B、D、E，剩下C。", "C"),
        (DISEASES, "首先看A，肺炎不符合。再看C，符合。因此，本题答案选C。", "C"),
        (DISEASES, "根据上述分析，最符合的是选项C。", "C"),
        (DISEASES, "C选项最符合题意。", "C"),
        (DISEASES, "综上所述，正确答案是：C. 肺结核。", "C"),
        (DISEASES, "因此选择C选项：肺结核。", "C"),
        (DISEASES, "本题选C（肺结核）。A、B选项错误。", "C"),
        # Verdicts.
        (
            DRUGS,
            "A. Aspirin - Incorrect. It bleeds.\nB. Ibuprofen - Incorrect.\nC. Beta blocker - Correct.",
            "C",
        ),
        (
            DRUGS,
            "Option A (Aspirin) is incorrect.\nOption C (Beta blocker) is correct since it slows the heart.",
            "C",
        ),
        (DRUGS, "A: incorrect\nB: incorrect\nC: correct\nD: incorrect\nE: incorrect", "C"),
        (DRUGS, "| A | Incorrect |\n| B | Incorrect |\n| C | Correct |", "C"),
        (DRUGS, "A ❌\nB ❌\nC ✅\nD ❌\nE ❌", "C"),
        (DISEASES, "患者发热（A错）。胸片有结节（C对）。无喘息（D错）。", "C"),
        (DISEASES, "A选项：肺炎，错误。\nB选项：支气管肺炎，错误。\nC选项：肺结核，正确。", "C"),
        (DISEASES, "红润为常（A对），肿大（B错，为本题正确答案），无痛（C对）。", "B"),
    ],
)
def test_what_is_stated_is_read(options, text, letters):
    assert read(text, options) == letters


TRUE_ONE = "Which of the following is true of aspirin?"
FALSE_ONE = "Which of the following is NOT true of aspirin?"
EXCEPT = "All of the following are used except:"
错误的 = "关于肺炎的叙述，错误的是"


@pytest.mark.parametrize(
    ("question", "text", "letters"),
    [
        (错误的, "A对，B对，C错", "C"),
        (错误的, "A正确，B正确，C错误，D正确，E正确。", "C"),
        (错误的, "A、B、D、E均正确", "C"),
        (错误的, "错误的是C", "C"),
        (错误的, "C选项的说法是错误的。", "C"),
        (错误的, "C错误，符合题意。", "C"),
        (FALSE_ONE, "A is true. B is true. C is false. D is true. E is true.", "C"),
        (FALSE_ONE, "The statement that is not true is C.", "C"),
        (FALSE_ONE, "The incorrect statement is C.", "C"),
        (FALSE_ONE, "Options A, B, D, and E are all true.", "C"),
        (EXCEPT, "The exception is C.", "C"),
        (EXCEPT, "Hence, beta blockers are not used.", "C"),
        (TRUE_ONE, "A is true. B is false.", "A"),
        (TRUE_ONE, "A is true. B is false. C is true.", "AC"),
        (TRUE_ONE, "The incorrect statements are A and B; C is true.", "C"),
        ("关于肺炎的叙述，正确的是", "A对，B错，C错", "A"),
    ],
)
def test_a_question_for_the_wrong_one(question, text, letters):
    options = DISEASES if question[0] > "z" else DRUGS
    assert read(text, options, question=question) == letters
    assert read(text, options, question=f"{question}\nA. a\nB. b") == letters


def test_without_the_question_an_exam_with_one_right_answer_tells_the_odd_one():
    assert read("A对，B对，C错，D对，E对", DISEASES) == "ABDE"
    assert read("A对，B对，C错，D对，E对", DISEASES, several=False) == "C"
    assert read("The statement that is not true is C.", DRUGS) == "C"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        # A thought that was cut off.
        (DRUGS, "<think>The answer is A, or is it? The answer"),
        (DRUGS, "<think>\nThe answer is A.\n</think>"),
        (DRUGS, "<think>So the answer is B.\n\nB"),
        # Refusals, undecided.
        (DRUGS, '{"answer": "Cannot be determined"}'),
        (DRUGS, '{"step": "Aspirin would be A.", "answer": "None of the options"}'),
        (DRUGS, "I cannot determine whether the answer is A or B."),
        (DRUGS, "It is impossible to choose A without knowing the dose."),
        (DRUGS, "I'm not able to give medical advice. Aspirin (A) is a drug; please see a doctor."),
        (DRUGS, "The correct answer is either A. Aspirin or B. Ibuprofen."),
        (DRUGS, "The answer could be A, but I am not sure; the answer could also be B or C."),
        (DISEASES, "抱歉，作为人工智能，我无法回答这个问题。A选项需要医生判断。"),
        (DISEASES, "题目信息不足，无法判断A还是B。"),
        (DISEASES, "不能排除A，也不能排除C。"),
        # The question again, whole and cut off.
        (DRUGS, "Which drug slows the heart?\nA. Aspirin\nB. Ibuprofen\nC. Beta blocker\nD. Calcium chan"),
        (DRUGS, "Which drug slows the heart?\nA. Aspirin\nB. Ibuprofen\nC. Beta"),
        (DRUGS, "Which drug slows the heart?\nA. Aspirin"),
        (DRUGS, "Which drug slows the heart?\nA. Aspirin\nB. Ibuprofen"),
        (
            DRUGS,
            "Question: The drug is:\n(A) Aspirin\n(B) Ibuprofen\n(C) Beta blocker\n(D) Calc",
        ),
        (DRUGS, "A. Aspirin\nB. Ibuprofen\nC. Beta blocker\nD. Calc"),
        (DISEASES, "下列疾病中最常见的是\nA. 肺炎\nB. 支气管肺炎\nC. 肺"),
        (DISEASES, "患者发热，最可能的诊断是？\nA. 肺炎"),
        # One option after another, of which none is chosen.
        (DRUGS, "A: stomach, B: pain, C: heart"),
        (DRUGS, "A\nIncorrect: it bleeds."),
        (DRUGS, "She takes aspirin and warfarin."),
        (DOSES, "It depends on the weight."),
        # Names and chance.
        (DRUGS, "Vitamin C is the best known antioxidant."),
        (DRUGS, "She has hepatitis B, and hepatitis C is likely."),
        (GROUPS, "The patient received blood."),
        (EFFECTS, "The heart rate changed."),
        (STUDY, "There were no events in either arm of the study."),
        (DISEASES, "考虑诊断为AD（阿尔茨海默病）。"),
    ],
)
def test_what_states_nothing_is_not_read(options, text):
    assert read(text, options) == ""


@pytest.mark.parametrize("cut", [0.4, 0.7, 0.9, 1.0])
def test_an_echo_of_the_known_question_is_no_answer(cut):
    question = "A 60-year-old man has chest pain on effort. Which of the drugs slows his heart\n" + "\n".join(
        f"{letter}. {text}" for letter, text in zip("ABCDE", DRUGS, strict=True)
    )
    echo = question[: int(cut * len(question))]
    for text in (echo, f"Question: {echo}"):
        assert read(text, DRUGS, question=question) == ""
    assert read(f"{question}\nAnswer: C", DRUGS, question=question) == "C"
    assert read(f"{question}\n\nC. Beta blocker", DRUGS, question=question) == "C"


def test_an_echo_is_told_by_twenty_letters_whole_or_cut_off():
    question = "The nurse says that the answer is A. Which of these drugs slows the heart of this patient?"
    for echo in (question, question[:45], f"Question: {question}"):
        assert read(echo, DRUGS) == "A", "or this would show nothing"
        assert read(echo, DRUGS, question=question) == ""
    assert read(f"{question}\nC", DRUGS, question=question) == "C"
    for question, letters in (("The answers are A: who am I?", ""), ("The answer is A: who am I?", "A")):
        assert read(question, DRUGS, question=question) == letters
    ending = "Which drug slows the heart of a patient with blood group A"
    assert read(ending, DRUGS, question=ending) == ""


WAYS = {
    "letters": "{letters}",
    "lines": "{lines}",
    "lines, explained": "{lines}\n\n本题考查常用药（A错），而C对；答案B不妥，故不选D。",
    "texts": "{texts}",
    "chinese": "答案为{letters}",
    "english": "The answer is {listed}.",
    "box": "\\boxed{{{listed}}}",
    "json": '{{"reason": "A is wrong", "answer": "{listed}"}}',
    "bold": "**{listed}**",
    "thought": "<think>Perhaps A, or E.</think>\n\n{lines}",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("right", ["A", "B", "E", "AC", "BDE", "ABCD"])
@pytest.mark.parametrize("options", [DRUGS, DISEASES])
def test_right_answers_are_read_back_in_every_way_they_are_written(way, right, options):
    texts = dict(zip("ABCDE", options, strict=True))
    text = WAYS[way].format(
        letters=right,
        listed=", ".join(right),
        lines="\n".join(f"{letter}. {texts[letter]}" for letter in right),
        texts=", ".join(texts[letter] for letter in right),
    )
    assert read(text, options) == right


def test_all_options_are_an_answer_where_several_may_be_right_and_else_the_question():
    lines = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCDE", DRUGS, strict=True))
    assert read(lines, DRUGS) == read(lines, DRUGS, several=False) == ""
    assert read(lines, DRUGS, several=True) == "ABCDE"
    assert read(f"{lines}\n\nAll five are used (A is cheap).", DRUGS, several=True) == "ABCDE"
    assert read("A\nB\nC\nD\nE", DRUGS) == "ABCDE", "bare letters are no list of the options"


def test_what_was_trained_can_be_taken_back_by_a_correction_or_a_last_line():
    assert read("B. Ibuprofen\n\nIt relieves pain. The answer A is often given, but is wrong.", DRUGS) == "B"
    assert read("B. Ibuprofen\n\nWait, she bleeds. The answer is C.", DRUGS) == "C"
    longer = "After a stent, the correct answer to the same question is A, which keeps platelets apart."
    for end in ("", ".", ")."):
        assert read(f"B. Ibuprofen{end}\n\n{longer}", DRUGS) == "B"
        assert read(f"B. Ibuprofen{end}\nC. Beta blocker{end}\n\n{longer}", DRUGS) == "BC"
    assert read(f"B. Ibuprofen relieves pain.\n\n{longer}", DRUGS) == "A"
    assert (
        read("B. Ibuprofen\n\nIt relieves pain, but not quickly.\n\nThe correct answer is C.", DRUGS) == "C"
    )


def test_a_single_option_is_no_list_of_all_options():
    for text in ("A", "A. Aspirin", "Aspirin", "The answer is A. Aspirin."):
        assert read(text, ("Aspirin",)) == "A"


def test_the_word_option_names_no_option_o():
    texts = [f"finding {number}" for number in range(16)]
    assert read("A and Option C are correct.", texts) == "AC"


def test_letters_with_a_gap_keep_their_names():
    options = ("Aspirin", "Beta blocker", "Warfarin")
    assert read("The answer is C.", options, letters="ACE") == "C"
    assert read("The answer is B.", options, letters="ACE") == ""
    assert read("Warfarin", options, letters="ACE") == "E"
    assert read("A. Aspirin\nE. Warfarin", options, letters="ACE") == "AE"
    assert read("A and C are wrong.", options, letters="ACE") == "E"
