"""Compare and explain fusions on data that they were not fitted to."""

from saikei.judging.choose import Choice, Rival, choose
from saikei.judging.explain import explain, explain_predictions
from saikei.judging.explaining.explanation import Explanation, MemberPart
from saikei.judging.explaining.one_model import attention_of
from saikei.judging.nested import NestedScore, nested_score

__all__ = [
    "Choice",
    "Explanation",
    "MemberPart",
    "NestedScore",
    "Rival",
    "attention_of",
    "choose",
    "explain",
    "explain_predictions",
    "nested_score",
]
