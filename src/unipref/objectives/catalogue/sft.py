"""Supervised fine-tuning."""

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.scores import logp, mean_logp
from unipref.objectives.terms import Term, nll

_FORMS = {
    "response": {"score": mean_logp()},
    "token": {"score": logp(), "per": "token"},
    "sum": {"score": logp()},
}


@method(
    "sft",
    source="arXiv:2203.02155",
    formula="-logp(y) / |y|",
    needs=("len",),
    citation=Citation(
        "Training language models to follow instructions with human feedback",
        (
            "Long Ouyang",
            "Jeff Wu",
            "Xu Jiang",
            "Diogo Almeida",
            "Carroll L. Wainwright",
            "Pamela Mishkin",
            "Chong Zhang",
            "Sandhini Agarwal",
            "Katarina Slama",
            "Alex Ray",
            "John Schulman",
            "Jacob Hilton",
            "Fraser Kelton",
            "Luke Miller",
            "Maddie Simens",
            "Amanda Askell",
            "Peter Welinder",
            "Paul Christiano",
            "Jan Leike",
            "Ryan Lowe",
        ),
        2022,
        "2203.02155",
    ),
    exceptions={
        "L2": "likelihood is a score of single responses; there is no contrast to cancel a shift",
        "G1": "there is no reference and no comparison",
        "G4": "it raises likelihood, so a common shift of log-probabilities changes it",
    },
    golden=[
        ({}, {"logp": [-6.0, -2.0], "len": [3, 4]}, 1.25),  # (6/3 + 2/4) / 2
        ({"per": "token"}, {"logp": [-6.0, -2.0], "len": [3, 4]}, 1.1428571),  # (6 + 2) / (3 + 4)
        ({"per": "sum"}, {"logp": [-6.0, -2.0], "len": [3, 4]}, 4.0),
    ],  # (6 + 2) / 2
)
def sft(*, per: str = "response") -> Term:
    """Negative log-likelihood of demonstrations: chosen responses, thumbs up, and responses nobody judged.

    Args:
        per: "response" averages the tokens of each response and then responses; "token" averages all tokens alike, the
            common form; "sum" adds a response's tokens, the likelihood itself.
    """
    if per not in _FORMS:
        raise ConfigError(f"sft(per={per!r}){nearest(str(per), _FORMS)}")
    return nll("sft", of="demonstrations", **_FORMS[per])
