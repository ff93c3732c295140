"""MetaAlign."""

from collections.abc import Mapping

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError
from unipref.data.catalogue.conditioned import conditioned
from unipref.data.catalogue.cross_pairs import cross_pairs
from unipref.objectives.catalogue.dpo import dpo
from unipref.objectives.catalogue.sft import sft
from unipref.recipes.composition import Composition, Loop


@method(
    "metaalign",
    kind="loop",
    status="reconstructed",
    source="arXiv:2410.14184",
    formula="-logp(y_c | c + x) / |y_c|, then -log sigmoid(beta * dh) on (c + x, y_c > y_d)",
    needs=("domain", "len", "ref_logp"),
    citation=Citation(
        "MetaAlign: Align Large Language Models with Diverse Preferences during Inference Time",
        ("Mozhi Zhang", "Pengyu Wang", "Chenkun Tan", "Mianqiu Huang", "Dong Zhang", "Yaqian Zhou", "Xipeng Qiu"),
        2024,
        "2410.14184",
    ),
)
def metaalign(
    *,
    conditions: Mapping[str, str],
    stages: int = 2,
    by: str = "domain",
    where: str = "system",
    drop: float = 0.0,
    draws: int | None = None,
    beta: float = 0.1,
    seed: int = 0,
) -> Loop:
    """A preference in words above the prompt: supervised training under it, then DPO against answers for another one.

    A row is one response and the preference it was written for. In the second round it is preferred, under its own
    preference, to the responses to the same prompt for others; these answer well too, so the pairs say nothing once
    the preferences are taken away. Which of two preferences has to give way where they conflict is learned from rows
    that show it.

    Reconstructed: that the preference is a tier above system and user, and that there are one-stage and two-stage
    runs, is known from the repository; the template and all numbers were not read.

    Args:
        conditions: value of the fact -> words; an empty text leaves the prompt as it is.
        stages: 1 is the supervised round alone.
        by: the fact that names a row's preference: "domain" or "user".
        where: "system" puts the words above the system message, "user" before the last user turn.
        drop: share of the rows whose words are left out.
        draws: losers per response in the second round; all where it is not given.
        beta: not from the source.
        seed: of the draws.
    """
    if stages not in (1, 2):
        raise ConfigError(f"metaalign has 1 or 2 stages, not {stages}")
    worded = conditioned(conditions=conditions, by=by, where=where, drop=drop, seed=seed)
    pairs = cross_pairs(by=by, draws=draws, seed=seed)
    return Loop((Composition(sft(), (worded,)), Composition(dpo(beta=beta), (pairs, worded)))[:stages])
