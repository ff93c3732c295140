"""Janus."""

from collections.abc import Mapping

from unipref.core.cards import get_method, method
from unipref.core.errors import ConfigError, nearest
from unipref.data.catalogue.conditioned import conditioned
from unipref.data.catalogue.cross_pairs import cross_pairs
from unipref.objectives.catalogue.dpo import dpo
from unipref.objectives.catalogue.orpo import orpo
from unipref.objectives.catalogue.sft import sft
from unipref.recipes.composition import Composition

_LOSSES = ("sft", "dpo", "orpo")


@method(
    "janus",
    kind="recipe",
    status="reconstructed",
    source="arXiv:2405.17977, released configurations",
    formula="sft on (system c + x, y_c); or dpo, orpo on (system c + x, y_c > y_d)",
    needs=("domain", "len", "ref_logp"),
    citation=get_method("conditioned").citation,
)
def janus(
    *,
    conditions: Mapping[str, str],
    loss: str = "sft",
    cross: bool = True,
    by: str = "domain",
    draws: int | None = 1,
    beta: float = 0.1,
    lam: float = 0.1,
    seed: int = 0,
) -> Composition:
    """Training under system messages that say which of many preferences a response serves.

    The system message is context and never trained on; an empty one gives the prompt back character for character.
    The source trains three models: supervised; DPO from a supervised model of a third of the data (two stages of a
    recipe); and ORPO. Where rows hold their own system messages already, plain `sft`, `dpo` or `orpo` is this method.

    Reconstructed: losses and formats are in the released configurations; how losers are drawn is recalled.

    Args:
        conditions: value of the fact -> system message.
        loss: "sft", "dpo" or "orpo".
        cross: rows are one response each, and pairs prefer it to responses to its prompt under other conditions; false
            takes the pairs of the data. Only for "dpo" and "orpo".
        by: the fact of a row that names its condition: "domain" or "user".
        draws: losers per response, drawn at random; all where it is None.
        beta: of DPO; not read.
        lam: of ORPO, 0.1 in its configuration.
        seed: of the draws.
    """
    if loss not in _LOSSES:
        raise ConfigError(f"janus(loss={loss!r}){nearest(str(loss), _LOSSES)}")
    objective = {"sft": sft(), "dpo": dpo(beta=beta), "orpo": orpo(lam=lam)}[loss]
    pairs = (cross_pairs(by=by, draws=draws, seed=seed),) if cross and loss != "sft" else ()
    return Composition(objective, (*pairs, conditioned(conditions=conditions, by=by, seed=seed)))
