"""The public data sets that the method is trained and tested on: where they are, and under which licence.

Facts are those of the authors' repositories and hub cards (see docs/data.md); what neither says is `unknown`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

UNKNOWN = "unknown"

Kind = Literal["knowledge exam", "CBLUE tasks", "dialogue", "both families"]


@dataclass(frozen=True)
class KnownSet:
    """A public data set.

    Attributes:
        name: short and unique.
        kind: what it trains or tests.
        language: of its texts.
        source: URL, or hub id as this package reads it.
        licence: as its authors state it.
        size: rows by split, as its authors state them.
        format: a format's name, or `unknown`.
        get: how to get it, in one or two sentences.
    """

    name: str
    kind: Kind
    language: str
    source: str
    licence: str
    size: str
    format: str
    get: str


KNOWN_SETS: tuple[KnownSet, ...] = (
    KnownSet(
        name="medcare",
        kind="both families",
        language="Chinese, English",
        source="hf:BlueZeros/MedCareData",
        licence="Apache-2.0 (hub card; the sets it was made from have their own)",
        size=UNKNOWN,
        format="sharegpt",
        get="The paper's own mixes. Download the folders train/ and test/ from the hub and name the files.",
    ),
    KnownSet(
        name="cmexam",
        kind="knowledge exam",
        language="Chinese",
        source="https://github.com/williamliujl/CMExam",
        licence="Apache-2.0; its authors ask for academic use only",
        size="54,497 train, 6,811 val, 6,811 test",
        format="cmexam",
        get="Clone the repository; the files are data/train.csv, val.csv and test_with_annotations.csv.",
    ),
    KnownSet(
        name="cmb",
        kind="knowledge exam",
        language="Chinese",
        source="https://github.com/FreedomIntelligence/CMB",
        licence="Apache-2.0",
        size="269,359 train, 280 val, 11,200 test",
        format="cmb",
        get=(
            "Unpack data/CMB.zip of the repository. The answers of the test questions are in a file "
            "of their own, data/CMB-test-choice-answer.json, by id."
        ),
    ),
    KnownSet(
        name="cmmlu",
        kind="knowledge exam",
        language="Chinese",
        source="https://github.com/haonan-li/CMMLU",
        licence="CC BY-NC-SA 4.0",
        size="11,582 test in 67 subjects, of which 1,815 in nine medical ones",
        format="cmmlu",
        get=(
            "Clone the repository; data/test/ has a file a subject: anatomy, clinical_knowledge, "
            "college_medical_statistics, college_medicine, genetics, nutrition, "
            "professional_medicine, traditional_chinese_medicine, virology."
        ),
    ),
    KnownSet(
        name="ceval",
        kind="knowledge exam",
        language="Chinese",
        source="hf:ceval/ceval-exam",
        licence="CC BY-NC-SA 4.0",
        size="13,948 in 52 subjects; the medical ones are basic_medicine, clinical_medicine and physician",
        format="ceval",
        get=(
            "Read hf:ceval/ceval-exam:physician:val, and so on. The test split is published without answers."
        ),
    ),
    KnownSet(
        name="medqa",
        kind="knowledge exam",
        language="English, Chinese (simplified and traditional)",
        source="https://github.com/jind11/MedQA",
        licence="MIT",
        size=(
            "English 10,178 train, 1,272 dev, 1,273 test; simplified Chinese 27,400, 3,425, 3,426; "
            "traditional Chinese 11,298, 1,412, 1,413"
        ),
        format="medqa",
        get=(
            "The repository links an archive with folders of JSONL files by country. On the hub: "
            "hf:GBaker/MedQA-USMLE-4-options (English, four options, CC BY 4.0)."
        ),
    ),
    KnownSet(
        name="medqa_hf",
        kind="knowledge exam",
        language="English",
        source="hf:GBaker/MedQA-USMLE-4-options-hf",
        licence="CC BY-SA 4.0",
        size="10,178 train, 1,272 dev, 1,273 test",
        format="medqa_hf",
        get="Read hf:GBaker/MedQA-USMLE-4-options-hf:test; the form that lm-evaluation-harness uses.",
    ),
    KnownSet(
        name="medmcqa",
        kind="knowledge exam",
        language="English",
        source="hf:openlifescienceai/medmcqa",
        licence="Apache-2.0 (hub card), MIT (authors' repository)",
        size="182,822 train, 4,183 validation, 6,150 test",
        format="medmcqa",
        get=(
            "Read hf:openlifescienceai/medmcqa:validation. The test split is published without "
            "answers. The authors' own files (github.com/medmcqa/medmcqa) are the format "
            "medmcqa_original."
        ),
    ),
    KnownSet(
        name="mmedbench",
        kind="knowledge exam",
        language="English, Chinese, Japanese, French, Russian, Spanish",
        source="https://huggingface.co/datasets/Henrychur/MMedBench",
        licence="CC BY-NC 4.0",
        size="45,048 train, 8,518 test",
        format="mmedbench",
        get=(
            "Download MMedBench.zip from the hub and unpack it: Train/ and Test/ have a JSONL file a "
            "language."
        ),
    ),
    KnownSet(
        name="mmlu",
        kind="knowledge exam",
        language="English",
        source="hf:cais/mmlu",
        licence="MIT",
        size="14,042 test, 1,531 validation, 285 dev in all subjects",
        format="mmlu",
        get=(
            "Read hf:cais/mmlu:anatomy:test; the medical subjects are anatomy, clinical_knowledge, "
            "college_biology, college_medicine, medical_genetics and professional_medicine."
        ),
    ),
    KnownSet(
        name="ple_pharmacy",
        kind="knowledge exam",
        language="Chinese",
        source="hf:FreedomIntelligence/2023_Pharmacist_Licensure_Examination-Pharmacy_track",
        licence="Apache-2.0",
        size="480",
        format=UNKNOWN,
        get="Read the hub id with --format cmb: the authors' evaluation reads question, option and answer.",
    ),
    KnownSet(
        name="ple_tcm",
        kind="knowledge exam",
        language="Chinese",
        source="hf:FreedomIntelligence/2023_Pharmacist_Licensure_Examination-TCM_track",
        licence="Apache-2.0",
        size="480",
        format=UNKNOWN,
        get="Read the hub id with --format cmb: the authors' evaluation reads question, option and answer.",
    ),
    KnownSet(
        name="pubmedqa",
        kind="knowledge exam",
        language="English",
        source="hf:qiaojin/PubMedQA:pqa_labeled",
        licence="MIT",
        size="1,000, of which its authors keep 500 for tests",
        format="pubmedqa_hf",
        get="Read the hub id, or clone pubmedqa/pubmedqa: data/ori_pqal.json is in the format pubmedqa.",
    ),
    KnownSet(
        name="headqa",
        kind="knowledge exam",
        language="Spanish, English",
        source="https://github.com/aghie/head-qa",
        licence="MIT",
        size="2,657 train, 1,366 dev, 2,742 test",
        format="headqa",
        get="The repository says where the JSON files are; name them.",
    ),
    KnownSet(
        name="frenchmedmcqa",
        kind="knowledge exam",
        language="French",
        source="https://github.com/qanastek/FrenchMedMCQA",
        licence="Apache-2.0",
        size="2,171 train, 312 dev, 622 test",
        format="frenchmedmcqa_hf",
        get="Its JSON files are in the format frenchmedmcqa.",
    ),
    KnownSet(
        name="medxpertqa",
        kind="knowledge exam",
        language="English",
        source="hf:TsinghuaC3I/MedXpertQA:Text:test",
        licence="MIT (hub card)",
        size="2,450 test (Text)",
        format="medxpertqa",
        get="Read the hub id.",
    ),
    KnownSet(
        name="promptcblue",
        kind="CBLUE tasks",
        language="Chinese",
        source="https://github.com/michael-wzhu/PromptCBLUE",
        licence="academic use only (its README)",
        size="68,900 train, 10,360 dev, 10,320 test A, 10,320 test B",
        format="promptcblue",
        get=(
            "Register at the Tianchi competition that the README links and download the files; the "
            "repository has a few rows of each in datasets/PromptCBLUE/toy_examples/."
        ),
    ),
    KnownSet(
        name="huatuogpt2_sft",
        kind="dialogue",
        language="Chinese",
        source="https://huggingface.co/datasets/FreedomIntelligence/HuatuoGPT2-SFT-GPT4-140K",
        licence="Apache-2.0",
        size="142,248",
        format=UNKNOWN,
        get=(
            "Download the JSON file from the hub, and see with 'medcare data check' whether its "
            "columns are known."
        ),
    ),
    KnownSet(
        name="healthcaremagic",
        kind="dialogue",
        language="English",
        source="hf:lavita/ChatDoctor-HealthCareMagic-100k",
        licence=UNKNOWN,
        size="about 112,000",
        format="alpaca",
        get="Read the hub id.",
    ),
    KnownSet(
        name="medical_flashcards",
        kind="dialogue",
        language="English",
        source="hf:medalpaca/medical_meadow_medical_flashcards",
        licence="CC (hub card, no version)",
        size="33,955",
        format="alpaca",
        get="Read the hub id.",
    ),
)
