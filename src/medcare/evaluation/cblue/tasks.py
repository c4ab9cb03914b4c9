"""The 18 PromptCBLUE tasks: one declaration a task, no code a task.

The first of a task's labels is what the official evaluator takes an empty answer for.

The tasks and the forms of answers: Zhu et al., "PromptCBLUE: A Chinese Prompt Tuning Benchmark for the
Medical Domain" (arXiv 2310.14151), and the repository michael-wzhu/PromptCBLUE, whose evaluator defines the
metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medcare.data.task import Task
from medcare.foundation.errors import EvaluationError

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


def _task(name: str, form: str, metric: str, **further: Any) -> Task:
    return Task(
        name,
        family="alignment",
        form=f"cblue_{form}",
        metric=metric,
        measures=f"PromptCBLUE's {name}, as its evaluator scores it.",
        **further,
    )


_ALL = (
    _task("CMeEE-V2", "entities", "micro_f1"),
    _task("CMeIE", "relations", "micro_f1", aliases=("CMeIE-V2",)),
    _task("CHIP-CDN", "choices", "micro_f1"),
    _task("CHIP-CDEE", "events", "micro_f1"),
    _task("IMCS-V2-NER", "entities", "micro_f1"),
    _task("CHIP-MDCFNPC", "attributes", "micro_f1", default="不标注"),
    _task("IMCS-V2-SR", "attributes", "micro_f1", default="无法根据上下文确定病人是否患有该症状"),
    _task("Text2DT", "tree", "tree_edit_ratio"),
    _task("CMedCausal", "causal", "micro_f1"),
    _task("IMCS-V2-DAC", "label", "macro_f1", labels=_labels(_DIALOGUE_ACTS)),
    _task("CHIP-CTC", "label", "macro_f1", labels=_labels(_TRIAL_CRITERIA)),
    _task("KUAKE-QIC", "label", "macro_f1", labels=_labels(_QUERY_INTENTS)),
    _task(
        "CHIP-STS",
        "label",
        "weighted_f1",
        labels=("是的", "不是"),
        synonyms={"相同": "是的", "不同": "不是"},
    ),
    _task("KUAKE-IR", "label", "weighted_f1", labels=("相关", "不相关")),
    _task(
        "KUAKE-QTR",
        "label",
        "weighted_f1",
        labels=("完全不匹配或者没有参考价值", "很少匹配有一些参考价值", "部分匹配", "完全匹配"),
    ),
    _task(
        "KUAKE-QQR",
        "label",
        "weighted_f1",
        labels=("完全一致", "后者是前者的语义子集", "后者是前者的语义父集", "语义无直接关联"),
    ),
    _task("MedDG", "text", "rouge_l"),
    _task("IMCS-V2-MRG", "sections", "rouge_l"),
)

TASKS: Mapping[str, Task] = {task.name: task for task in _ALL}


def find_task(name: str) -> Task:
    """The task of this name or alias.

    Raises:
        EvaluationError: there is none; the message lists the names.
    """
    for task in _ALL:
        if name == task.name or name in task.aliases:
            return task
    raise EvaluationError(
        f"'{name}' is neither 'exam' nor a PromptCBLUE task. Choose one of: {', '.join(TASKS)}."
    )
