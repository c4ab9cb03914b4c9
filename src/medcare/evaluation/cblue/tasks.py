"""The registry of the 18 PromptCBLUE tasks: one entry a task, no code a task.

The tasks and the forms of answers: Zhu et al., "PromptCBLUE: A Chinese Prompt Tuning Benchmark for the
Medical Domain" (arXiv 2310.14151), and the repository michael-wzhu/PromptCBLUE, whose evaluator defines the
metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from medcare.foundation.errors import EvaluationError

Grammar = Literal[
    "entities",
    "relations",
    "causal",
    "choices",
    "events",
    "attributes",
    "label",
    "sections",
    "text",
    "tree",
]
Metric = Literal["micro_f1", "macro_f1", "weighted_f1", "rouge_l", "tree_edit_ratio"]


@dataclass(frozen=True)
class CblueTask:
    """One task.

    Attributes:
        name: as in the rows' `task_dataset`.
        grammar: how an answer is written; see `medcare.evaluation.cblue.answers`.
        metric: a key of `medcare.evaluation.cblue.metrics.METRICS`.
        labels: the labels of a classification; the official evaluator takes an empty answer for the first.
        synonyms: other spellings of labels.
        default: the value of an attribute that is none of the row's choices.
        aliases: other names of the task in published files.
    """

    name: str
    grammar: Grammar
    metric: Metric
    labels: tuple[str, ...] = ()
    synonyms: Mapping[str, str] = field(default_factory=dict)
    default: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def needs_choices(self) -> bool:
        """Whether an answer can't be read without the row's `answer_choices`."""
        return self.grammar in ("entities", "choices", "attributes")


@dataclass(frozen=True)
class CblueItem:
    """What is needed of a PromptCBLUE row to score an answer to it.

    Attributes:
        id: `sample_id`.
        target: the right answer, as text.
        choices: `answer_choices`; empty for tasks without.
    """

    id: str
    target: str
    choices: tuple[str, ...] = ()


_NONE_OF_THESE = "非上述类型"

# One string a label list, because a list of 45 quoted words is harder to check against the source.
_TRIAL_CRITERIA = (
    "疾病 症状(患者感受) 体征(医生检测） 怀孕相关 肿瘤进展 疾病分期 过敏耐受 器官组织状态 预期寿命 口腔相关 "
    "药物 治疗或手术 设备 护理 诊断 实验室检查 风险评估 受体状态 年龄 特殊病人特征 读写能力 性别 教育情况 "
    "居住情况 种族 知情同意 参与其它试验 研究者决定 能力 伦理审查 依存性 成瘾行为 睡眠 锻炼 饮食 酒精使用 "
    "性取向 吸烟状况 献血 病例来源 残疾群体 健康群体 数据可及性 含有多个类别"
)
_DIALOGUE_ACTS = (
    "关于症状的询问 关于症状的回答 关于病因的询问 关于病因的回答 关于个人基本信息的询问 "
    "关于个人基本信息的回答 关于已有检查和治疗的提问 关于已有检查和治疗的回答 关于用药建议的提问 "
    "关于用药建议的解答 关于就医建议的提问 关于就医建议的解答 关于注意事项的提问 关于注意事项的解答 给出诊断"
)
_QUERY_INTENTS = "病情诊断 病因分析 治疗方案 就医建议 指标解读 疾病描述 后果表述 注意事项 功效作用 医疗费用"


def _labels(words: str) -> tuple[str, ...]:
    return (_NONE_OF_THESE, *words.split())


_ALL = (
    CblueTask("CMeEE-V2", "entities", "micro_f1"),
    CblueTask("CMeIE", "relations", "micro_f1", aliases=("CMeIE-V2",)),
    CblueTask("CHIP-CDN", "choices", "micro_f1"),
    CblueTask("CHIP-CDEE", "events", "micro_f1"),
    CblueTask("IMCS-V2-NER", "entities", "micro_f1"),
    CblueTask("CHIP-MDCFNPC", "attributes", "micro_f1", default="不标注"),
    CblueTask("IMCS-V2-SR", "attributes", "micro_f1", default="无法根据上下文确定病人是否患有该症状"),
    CblueTask("Text2DT", "tree", "tree_edit_ratio"),
    CblueTask("CMedCausal", "causal", "micro_f1"),
    CblueTask("IMCS-V2-DAC", "label", "macro_f1", labels=_labels(_DIALOGUE_ACTS)),
    CblueTask("CHIP-CTC", "label", "macro_f1", labels=_labels(_TRIAL_CRITERIA)),
    CblueTask("KUAKE-QIC", "label", "macro_f1", labels=_labels(_QUERY_INTENTS)),
    CblueTask(
        "CHIP-STS",
        "label",
        "weighted_f1",
        labels=("是的", "不是"),
        synonyms={"相同": "是的", "不同": "不是"},
    ),
    CblueTask("KUAKE-IR", "label", "weighted_f1", labels=("相关", "不相关")),
    CblueTask(
        "KUAKE-QTR",
        "label",
        "weighted_f1",
        labels=("完全不匹配或者没有参考价值", "很少匹配有一些参考价值", "部分匹配", "完全匹配"),
    ),
    CblueTask(
        "KUAKE-QQR",
        "label",
        "weighted_f1",
        labels=("完全一致", "后者是前者的语义子集", "后者是前者的语义父集", "语义无直接关联"),
    ),
    CblueTask("MedDG", "text", "rouge_l"),
    CblueTask("IMCS-V2-MRG", "sections", "rouge_l"),
)

TASKS: Mapping[str, CblueTask] = {task.name: task for task in _ALL}


def find_task(name: str) -> CblueTask:
    """The task of this name or alias.

    Raises:
        EvaluationError: there is none; the message lists the names.
    """
    for task in _ALL:
        if name == task.name or name in task.aliases:
            return task
    raise EvaluationError(f"'{name}' is no PromptCBLUE task. Choose one of: {', '.join(TASKS)}.")
