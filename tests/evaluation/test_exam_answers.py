"""Letters read from generated answers: for each rule, answers as models write them and near misses."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medcare.evaluation.exam_answers import extract_letters

DRUGS = ("Aspirin", "Ibuprofen", "Beta blocker", "Calcium channel blocker", "Warfarin")
DISEASES = ("肺炎", "支气管肺炎", "肺结核", "支气管哮喘", "肺癌")
MARKERS = ("维生素D", "C反应蛋白", "D-二聚体", "降钙素原")
BACTERIA = ("S. aureus", "E. coli", "P. aeruginosa", "A. baumannii", "C. difficile")
YEARS = ("5", "10", "15", "50")
GROUPS = ("A", "B", "AB", "O")
VITAMINS = ("Vitamin A", "Vitamin B12", "Vitamin C", "Vitamin D")
TYPES = ("A型行为", "B型行为", "C型行为", "D型行为")
EFFECTS = ("Increased heart rate", "Decreased heart rate", "No change in heart rate", "Cardiac arrest")
PHRASES = ("All of the above", "It is contagious", "None of the above", "It is hereditary")


@pytest.mark.parametrize(
    ("options", "text", "letters"),
    [
        # Chinese: announced.
        (DISEASES, "答案为B", "B"),
        (DISEASES, "答案是C。", "C"),
        (DISEASES, "正确答案：ABD", "ABD"),
        (DISEASES, "正确答案:A、B、D。", "ABD"),
        (DISEASES, "答案：D，B，A", "ABD"),
        (DISEASES, "答案：Ａ，Ｃ", "AC"),
        (DISEASES, "答案：ＢＤ", "BD"),
        (DISEASES, "答案：\nB", "B"),
        (DISEASES, "答：C", "C"),
        (DISEASES, "【答案】D", "D"),
        (DISEASES, "参考答案（E）", "E"),
        (DISEASES, "本题的正确选项是 **B**。", "B"),
        (DISEASES, "正确的选项有：A和C两项", "AC"),
        (DISEASES, "正确的是A、B及E。", "ABE"),
        (DISEASES, "患者发热、咳嗽，胸片见斑片影，故选B。", "B"),
        (DISEASES, "综上所述，本题应选择AC。", "AC"),
        (DISEASES, "因此，选D项。", "D"),
        (DISEASES, "结合病史与体征，因此C。", "C"),
        (DISEASES, "我选择 E", "E"),
        (DISEASES, "答案是B选项，因为影像学支持。", "B"),
        (DISEASES, "答案是B，C选项错误。", "B"),
        (DISEASES, "答案是Ⓒ", "C"),
        (DISEASES, '{"answer": "B", "reason": "影像学表现"}', "B"),
        (DISEASES, '["A", "C"]', "AC"),
        (DISEASES, "符合题意的是C", "C"),
        (DISEASES, "最可能的诊断是B", "B"),
        (DISEASES, "正确答案：\nA. 肺炎\nC. 肺结核", "AC"),
        (DISEASES, "排除A、B，剩下C、D，根据病史选C。", "C"),
        (DISEASES, "患者为A型血，答案是C", "C"),
        # Chinese: the letters are called the answer.
        (DISEASES, "D为正确答案", "D"),
        (DISEASES, "根据题意，A、C是本题的正确答案。", "AC"),
        (DISEASES, "A对，B对，C对，D错，为本题正确答案，E对。", "D"),
        (DISEASES, "E选项是最佳选项。", "E"),
        # Chinese: verdicts.
        (DISEASES, "A错，B对，C错，D对，E错", "BD"),
        (DISEASES, "A错误。B正确。C不正确。", "B"),
        (DISEASES, "A项错误，因为没有肿块；B项正确，与体征相符；C项错误。", "B"),
        (DISEASES, "A、C正确，B、D错误", "AC"),
        (DISEASES, "A×，B√，C×", "B"),
        (DISEASES, "以上A、B、C、D、E均正确", "ABCDE"),
        (DISEASES, "A. 肺炎：错误。\nB. 支气管肺炎：正确。\nC. 肺结核：错误。", "B"),
        (DISEASES, "选项A的说法是正确的，选项B的说法是错误的。", "A"),
        # Chinese: a text instead of a letter.
        (DISEASES, "答案是支气管哮喘。", "D"),
        (DISEASES, "答案为支气管肺炎，而不是肺结核", "B"),
        (DISEASES, "支气管肺炎", "B"),
        (DISEASES, "根据症状，最可能的诊断是支气管肺炎。", "B"),
        (DISEASES, "不考虑肺癌，患者符合肺结核的表现。", "C"),
        (MARKERS, "答案是C反应蛋白。", "B"),
        (MARKERS, "正确答案：D-二聚体", "C"),
        (MARKERS, "答案：B. C反应蛋白", "B"),
        (MARKERS, "B C反应蛋白", "B"),
        (TYPES, "A型行为", "A"),
        (TYPES, "答案是B型行为。", "B"),
        (TYPES, "答案：B", "B"),
        # Chinese: only the wrong one is named.
        (DISEASES, "错误的是B。", "B"),
        (DISEASES, "本题中不正确的说法是：D", "D"),
        # English: announced.
        (DRUGS, "The answer is (B).", "B"),
        (DRUGS, "The correct answer is: B", "B"),
        (DRUGS, "The correct answer is:\n\nB. Ibuprofen", "B"),
        (DRUGS, "Answer: C", "C"),
        (DRUGS, "ANSWER: D", "D"),
        (DRUGS, "**Answer:** **E**", "E"),
        (DRUGS, "The answers are A, C, and D.", "ACD"),
        (DRUGS, "The answer is A and C.", "AC"),
        (DRUGS, "Final answer: A C E", "ACE"),
        (DRUGS, "The most likely answer to this question is option C.", "C"),
        (DRUGS, "The answer should be D because it dilates arterioles.", "D"),
        (DRUGS, "The answer is A since it inhibits COX.", "A"),
        (DRUGS, "the answer is b.", "B"),
        (DRUGS, "answer: (c)", "C"),
        (DRUGS, "I would go with option D.", "D"),
        (DRUGS, "I choose E", "E"),
        (DRUGS, "My choice is A.", "A"),
        (DRUGS, "It prolongs the PT. Therefore, E.", "E"),
        (DRUGS, "She has angina, so the answer is C", "C"),
        (DRUGS, "The answer is B, A is wrong because of bleeding.", "B"),
        (DRUGS, "Therefore the answer is $\\boxed{C}$.", "C"),
        (DRUGS, "[[B]]", "B"),
        (DRUGS, "<answer>B</answer>", "B"),
        (DRUGS, "Ans: B", "B"),
        (DRUGS, "Choose the correct answer. A. Aspirin, B. Ibuprofen. The best next step is B.", "B"),
        (DRUGS, "The correct answer is not listed, but the closest is B.", "B"),
        (DRUGS, "\\[ \\boxed{\\text{B, D}} \\]", "BD"),
        (DRUGS, "\\boxed{\\text{Warfarin}}", "E"),
        (DRUGS, "<think>Maybe the answer is A.</think>The answer is D", "D"),
        # English: called the answer; verdicts.
        (DRUGS, "B is the correct answer.", "B"),
        (DRUGS, "A and D are the correct options.", "AD"),
        (DRUGS, "Option B is correct.", "B"),
        (DRUGS, "Option A is incorrect. Option C is correct, since it slows the heart.", "C"),
        (DRUGS, "A: False\nB: True\nC: True\nD: False\nE: False", "BC"),
        (DRUGS, "A is wrong, B is right, and C is wrong.", "B"),
        (DRUGS, "A and B are incorrect, C is correct", "C"),
        (DRUGS, "A. Aspirin: incorrect.\nB. Ibuprofen: incorrect.\nC. Beta blocker: correct.", "C"),
        (DRUGS, "Option C would be the best choice.", "C"),
        (DRUGS, "D is the answer", "D"),
        # English: a text instead of a letter.
        (DRUGS, "The answer is a beta blocker.", "C"),
        (DRUGS, "The answer is Beta blocker", "C"),
        (DRUGS, "Correct answer: aspirin and warfarin", "AE"),
        (DRUGS, "Ibuprofen", "B"),
        (DRUGS, "This patient should receive warfarin for stroke prevention.", "E"),
        (DRUGS, "She should get a calcium channel blocker.", "D"),
        (BACTERIA, "The answer is E. coli.", "B"),
        (BACTERIA, "A. baumannii", "D"),
        (BACTERIA, "D. A. baumannii", "D"),
        (VITAMINS, "The answer is vitamin C.", "C"),
        (VITAMINS, "C. Vitamin C", "C"),
        (VITAMINS, "Scurvy comes from a lack of vitamin C.", "C"),
        (VITAMINS, "Vitamin B12 is low, so the answer is B.", "B"),
        (EFFECTS, "There will be no change in heart rate.", "C"),
        (YEARS, "The answer is 50.", "D"),
        (YEARS, "答案是5", "A"),
        (YEARS, "B", "B"),
        (GROUPS, "The answer is AB.", "C"),
        (GROUPS, "The answer is B.", "B"),
        (PHRASES, "None of the above", "C"),
        (PHRASES, "All of the above", "A"),
        # The first or the last line is the answer.
        (DRUGS, "B", "B"),
        (DRUGS, " b ", "B"),
        (DRUGS, "(B)", "B"),
        (DRUGS, "B.", "B"),
        (DRUGS, "B、", "B"),
        (DRUGS, "B) Ibuprofen", "B"),
        (DRUGS, "B: Ibuprofen", "B"),
        (DRUGS, "Option B", "B"),
        (DRUGS, "ABD", "ABD"),
        (DRUGS, "D, A, B", "ABD"),
        (DRUGS, "A\nC\nD", "ACD"),
        (DRUGS, "ABCDE", "ABCDE"),
        (DRUGS, "A. Aspirin\nC. Beta blocker", "AC"),
        (DRUGS, "B. Ibuprofen\n\nIt relieves pain. Aspirin would irritate the stomach.", "B"),
        (DRUGS, "B. The other drugs raise the risk of bleeding.", "B"),
        (DRUGS, "Aspirin inhibits platelets.\nWarfarin needs monitoring.\n\nC", "C"),
        (DISEASES, "B\n解析：A对，C对，此题选错误的。", "B"),
        # Denied, but then stated; the last statement wins.
        (DRUGS, "The answer is not B but C.", "C"),
        (DISEASES, "答案不是B，而是C。", "C"),
        (DISEASES, "不选A，选D。", "D"),
        (DRUGS, "The answer is A. Wait, that is for adults. The answer is D.", "D"),
        (DRUGS, "The answer is A. Actually, it is C.", "C"),
        (DISEASES, "答案是A。……不对，答案应该是C。", "C"),
        (DRUGS, "B\n\nOn reflection, the correct answer is C.", "C"),
        (DRUGS, "Is the answer B? No. The answer is C.", "C"),
        (DRUGS, "If the answer is B, the drug acts on COX; it does not. The answer is E.", "E"),
        (DISEASES, "抱歉，我无法完全确定，但答案可能是B。", "B"),
        # A question that the model asks itself is not part of the answer.
        (DRUGS, "B\n\nQuestion: Which drug is an anticoagulant?\nAnswer: E", "B"),
        (DISEASES, "答案：A\n问题：下列哪项正确？\n答案：D", "A"),
    ],
)
def test_letters_are_read(options, text, letters):
    assert extract_letters(text, options) == frozenset(letters)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        # Nothing, and nothing to read.
        (DRUGS, ""),
        (DRUGS, " \n\t"),
        (DRUGS, "。"),
        (DRUGS, "The answer is"),
        (DISEASES, "答案："),
        (DRUGS, "F"),
        (DRUGS, "The answer is F."),
        # Refusals.
        (DRUGS, "I'm sorry, but I cannot answer this question."),
        (DRUGS, "As an AI, I can't say whether aspirin is right for this patient."),
        (DRUGS, "I do not know."),
        (DISEASES, "抱歉，我无法确定，请咨询医生。"),
        (DISEASES, "根据目前信息无法判断是否为肺炎。"),
        (DRUGS, "None of the above."),
        (DRUGS, "The answer is none of the above."),
        # Letters in words and names.
        (DRUGS, "A patient with angina needs further tests."),
        (DRUGS, "A 45-year-old woman presents with chest pain."),
        (DRUGS, "B cells mature in the bone marrow."),
        (DRUGS, "The answer is B cells."),
        (DRUGS, "The answer is C-reactive protein."),
        (DRUGS, "The answer is ACE inhibitors."),
        (DRUGS, "The answer is E. coli."),
        (DRUGS, "E. coli is the most common cause."),
        (DRUGS, "Vitamin B is the correct answer to deficiency."),
        (DRUGS, "Vitamin D is true of bone health."),
        (DRUGS, "The answer depends on hepatitis B status."),
        (DRUGS, "A right-sided murmur was heard."),
        (DISEASES, "答案是B型利钠肽。"),
        (DISEASES, "C反应蛋白升高"),
        (DISEASES, "选B超检查"),
        (DISEASES, "维生素B为正确答案的一部分"),
        (DISEASES, "A型行为与冠心病有关。"),
        (DISEASES, "体温39℃，D-二聚体升高"),
        (DISEASES, "B对心脏有毒性"),
        # Denied, supposed, left open.
        (DRUGS, "The answer is not B."),
        (DRUGS, "not B"),
        (DISEASES, "答案不是B"),
        (DISEASES, "不选B"),
        (DISEASES, "不能选B。"),
        (DRUGS, "If the answer is B, then the drug acts on COX."),
        (DISEASES, "如果答案是B，则应有喘息。"),
        (DRUGS, "The answer is A or B."),
        (DISEASES, "答案是A或B"),
        (DRUGS, "The answer is A, B or C."),
        (DRUGS, "The answer cannot be B."),
        (DRUGS, "The answer is either A or C."),
        (EFFECTS, "The heart rate is not decreased."),
        # Only wrong ones; no choice between several texts.
        (DISEASES, "A错，B错"),
        (DRUGS, "A is wrong. B is incorrect."),
        (DRUGS, "A and B are wrong."),
        (DRUGS, "A. Incorrect. It irritates the stomach."),
        (DRUGS, "Both aspirin and warfarin could be used."),
        (DRUGS, "I would not give warfarin."),
        (DISEASES, "肺炎与肺结核都有可能。"),
        # The question again.
        (DRUGS, "A. Aspirin\nB. Ibuprofen\nC. Beta blocker\nD. Calcium channel blocker\nE. Warfarin"),
        (DISEASES, "选择正确答案：\nA. 肺炎\nB. 支气管肺炎\nC. 肺结核\nD. 支气管哮喘\nE. 肺癌"),
        (DRUGS, "Answer choices: A. Aspirin B. Ibuprofen C. Beta blocker"),
        (DRUGS, "A. Aspirin B. Ibuprofen C. Beta blocker D. Calcium channel blocker E. Warfarin"),
    ],
)
def test_no_letters_are_read(options, text):
    assert extract_letters(text, options) is None


@given(
    letters=st.sets(st.sampled_from("ABCDE"), min_size=1).map(sorted),
    joint=st.sampled_from([",", "，", "、", ", ", "", " ", "；", " and ", "和"]),
    frame=st.sampled_from(
        ["答案为{}", "正确答案：{}。", "The answer is {}.", "Answer: ({})", "分析……\n\n故选{}", "{}"]
    ),
)
def test_any_set_of_letters_is_read_back(letters, joint, frame):
    assert extract_letters(frame.format(joint.join(letters)), DISEASES) == frozenset(letters)


@given(st.text(), st.lists(st.text(max_size=8), max_size=30))
@settings(max_examples=300)
def test_any_text_is_read(text, options):
    letters = extract_letters(text, options)
    assert letters is None or (letters and all(ord(letter) - ord("A") < len(options) for letter in letters))


def test_ten_thousand_damaged_answers():
    draw = random.Random(0)
    answers = [
        "答案为ABD。因为B、D符合题意，故选ABD。",
        "The answer is not B but (C), because \\boxed{C}.",
        "A对，B错，C错，为本题正确答案",
        "Option A is incorrect.\nB. 支气管肺炎\n\nTherefore, 肺炎",
    ]
    marks = [
        *"ABCDEabc()[]{}.,:;、。，：（）\n \0*$\\",
        "不",
        "对",
        "not ",
        "答案",
        "answer ",
        "\ud800",
        "Ａ",
    ]
    for _ in range(10_000):
        text = draw.choice(answers) + draw.choice(answers)
        for _ in range(draw.randint(1, 5)):
            start, end = sorted(draw.choices(range(len(text) + 1), k=2))
            text = (
                text[:start] + draw.choice(marks) + draw.choice((text[end:], text[start:end], text[start:]))
            )
        letters = extract_letters(text, DISEASES)
        assert letters is None or letters <= set("ABCDE")


@pytest.mark.parametrize(
    "unit",
    [
        "A",
        "A,",
        "A, ",
        "答案",
        "答案是",
        "answer is ",
        "(",
        "\\boxed{",
        "A对",
        "B is ",
        "\n",
        "肺炎",
        "不选",
        "not ",
        "if ",
        " ",
    ],
)
def test_enormous_answers_take_little_time(unit):
    start = time.process_time()
    extract_letters(unit * (1_000_000 // len(unit)), DISEASES)
    assert time.process_time() - start < 5
