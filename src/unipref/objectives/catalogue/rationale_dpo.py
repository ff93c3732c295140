"""DPO with the likelihood of a rationale."""

import math

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.catalogue.dpo import dpo
from unipref.objectives.discrepancies import linear, logistic
from unipref.objectives.scores import logp
from unipref.objectives.terms import Objective, pointwise

CITATION = Citation(
    "Data-Centric Human Preference with Rationales for Direct Preference Alignment",
    ("Hoang Anh Just", "Ming Jin", "Anit Sahu", "Huy Phan", "Ruoxi Jia"),
    2024,
    "2407.14477",
)
_LINKS = {"logistic": logistic(), "linear": linear()}


@method(
    "rationale_dpo",
    source="arXiv:2407.14477, as in the authors' code",
    formula="-log sigmoid(beta * dh) - log sigmoid(gamma * logp(rationale))",
    needs=("chosen", "rejected", "ref_logp", "rationale"),
    citation=CITATION,
    exceptions={
        "L2": "the rationale's likelihood is raised",
        "G1": "the rationale's likelihood is added",
        "G4": "the rationale's likelihood is raised",
    },
    golden=[
        (
            {},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -21.0,
                "logp_rationale": -10.0,
                "ref_logp_chosen": -1.0,
                "ref_logp_rejected": -1.0,
            },
            1.4401897,
        )
    ],  # ln(1 + e^-2) + ln(1 + e)
    limits=[Limit({"gamma": 0.0}, "dpo", constant=math.log(2)), Limit({"gamma": 0.0, "form": "linear"}, "dpo")],
)
def rationale_dpo(*, beta: float = 0.1, gamma: float = 0.1, form: str = "logistic") -> Objective:
    """DPO, and likelihood of a text that says why the chosen response is better, given both responses.

    The rationale's log-probability is a sum, so long rationales weigh more: its pull, gamma * sigmoid(-gamma * logp),
    goes from gamma / 2 for a certain rationale to gamma for an unlikely one. The rationale has a context of its own,
    which lists both responses; the authors always list the chosen one first, which gives away the position.

    Args:
        beta: as in DPO.
        gamma: strength of the rationale; 0.1 in the authors' configuration, 0.001 in the run of their README.
        form: "logistic", the authors' code; "linear", -gamma * logp, as the paper is described.
    """
    if form not in _LINKS:
        raise ConfigError(f"rationale_dpo(form={form!r}){nearest(str(form), _LINKS)}")
    return dpo(beta=beta) + pointwise("rationale", score=logp(gamma), of="rationale", link=_LINKS[form], role="anchor")
