"""Answers to exams that choose no option: refusals, names that hold a letter, denials, the question again."""

from __future__ import annotations

import pytest

from medcare.evaluation.multiple_choice.extraction import extract_letters
from tests.evaluation.multiple_choice.made_up_options import DISEASES, DOSES, DRUGS, EFFECTS


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
        # Amounts in another unit, or in none where there are several.
        (DOSES, "50 g"),
        (("50 mg", "50 g", "5 mg"), "50"),
        (DRUGS, "50 mg"),
        (DRUGS, "There is no B."),
    ],
)
def test_no_letters_are_read(options, text):
    assert extract_letters(text, options) is None
