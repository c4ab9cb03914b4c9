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
        files: of `medcare data get`: patterns of a hub repository's files, or of a GitHub repository's files
            each with its git blob id; empty where they have to be asked for or collected by hand.
        commit: of the GitHub repository, which pins those files. A hub's is kept at the first download.
    """

    name: str
    kind: Kind
    language: str
    source: str
    licence: str
    size: str
    format: str
    get: str
    files: tuple[str, ...] | dict[str, str] = ()
    commit: str = ""

    @property
    def repository(self) -> str:
        """`owner/name` on the hub or on GitHub."""
        bare = self.source.removeprefix("hf:").removeprefix("https://huggingface.co/datasets/")
        return bare.removeprefix("https://github.com/").partition(":")[0]

    @property
    def on_hub(self) -> bool:
        """Whether it is on the hub, not on GitHub."""
        return "github.com" not in self.source


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
        files=("train/*", "test/*"),
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
        files={
            "data/train.csv": "be436732f2d242e01a9188c4969d1d86571bd283",
            "data/val.csv": "9e7ca22b5c727749e364b196585d5c355ee2b38f",
            "data/test_with_annotations.csv": "e6521e67f44b0f958167c91113a2950cffa681a7",
        },
        commit="fadb22c89beb1b7115dc36460ba792eb96b7b972",
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
        files={
            "data/CMB.zip": "c05ff2040d8257408aee77a774d41f29727401bf",
            "data/CMB-test-choice-answer.json": "5a2035e8c6fcb95c868e22675d810eb71e7432b8",
        },
        commit="6c8ece46097dae736c6805dd3b831e1a38c08971",
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
        files={
            "data/test/anatomy.csv": "6ce224d0fdef0bacdf9d0a767fe2844f678dad5f",
            "data/test/clinical_knowledge.csv": "6e48245470021bbeefcda0d825d6635e607bb9ca",
            "data/test/college_medical_statistics.csv": "d530caf052b9baeec3d192811242821ede0d68d6",
            "data/test/college_medicine.csv": "ffdd39684fea905f1b818c7b38d46836cfb99e76",
            "data/test/genetics.csv": "6c7cd4489a59a5c47fafd226347ee0782ad99f62",
            "data/test/nutrition.csv": "d352f81923d2d1998d3634d428ffd06b0c140d89",
            "data/test/professional_medicine.csv": "723e299b642e496e40b650d722774f865f2921e8",
            "data/test/traditional_chinese_medicine.csv": "73f1f8059576c1a8b86fc3220c6f06da471753a7",
            "data/test/virology.csv": "83e044db7262a01c90ca377585ccbe1e625ee136",
        },
        commit="d6e7b716d8ac694f38969a6c0407437d1fded799",
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
        files=("basic_medicine/*", "clinical_medicine/*", "physician/*"),
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
        files=("*.json", "*.jsonl"),
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
        files=("*.parquet",),
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
        files=("MMedBench.zip",),
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
        files=(
            "anatomy/*",
            "clinical_knowledge/*",
            "college_biology/*",
            "college_medicine/*",
            "medical_genetics/*",
            "professional_medicine/*",
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
        files=("*.json", "*.jsonl", "*.parquet"),
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
        files=("*.json", "*.jsonl", "*.parquet"),
    ),
    KnownSet(
        name="pubmedqa",
        kind="knowledge exam",
        language="English",
        source="https://github.com/pubmedqa/pubmedqa",
        licence="MIT",
        size="1,000, of which its authors keep 500 for tests",
        format="pubmedqa",
        get=(
            "data/ori_pqal.json; data/test_ground_truth.json names the 500 for tests. On the hub: "
            "hf:qiaojin/PubMedQA:pqa_labeled, in the format pubmedqa_hf."
        ),
        files={
            "data/ori_pqal.json": "38db7750761c78950ed32303e7545bdaa513390c",
            "data/test_ground_truth.json": "825bf8f262c3cca0e3bd1c6f38eecf5e581b0659",
        },
        commit="1cbae8e92f72f20c8d3747cbb3bf5bc53554d997",
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
        files=("Text/*",),
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
        files=("*.json", "*.jsonl", "*.parquet"),
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
        files=("*.json", "*.jsonl", "*.parquet"),
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
        files=("*.json", "*.jsonl", "*.parquet"),
    ),
)
