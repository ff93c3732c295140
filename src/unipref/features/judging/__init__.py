"""Questions to a judge, and what comes back: a language model at an endpoint, a table of verdicts, or rules.

A judge (`Judge`) scores, compares and writes. What it does not say is None, never 0.
"""

from unipref.features.judging._account import Account
from unipref.features.judging._cache import AnswerCache
from unipref.features.judging._endpoint import Budget, Endpoint, EndpointError
from unipref.features.judging._judges import LanguageJudge, RuleJudge, TableJudge
from unipref.features.judging._port import Judge, in_parallel, rubric_of
from unipref.features.judging._values import REPRESENTATIONS, Judged, judged_values

__all__ = [
    "REPRESENTATIONS",
    "Account",
    "AnswerCache",
    "Budget",
    "Endpoint",
    "EndpointError",
    "Judge",
    "Judged",
    "LanguageJudge",
    "RuleJudge",
    "TableJudge",
    "in_parallel",
    "judged_values",
    "rubric_of",
]
