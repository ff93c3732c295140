"""Pieces of compositions that several methods share: a base given by name, and the divergence from the reference."""

from collections.abc import Mapping
from typing import Any

from unipref.core.cards import get_method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.discrepancies import linear
from unipref.objectives.scores import logp
from unipref.objectives.terms import Objective, Term, as_objective, pointwise
from unipref.objectives.tokens import token_column, token_sum

__all__ = ["base_objective", "reference_kl"]

ESTIMATORS = ("samples", "base", "responses")
_COLUMNS = {"forward": "kl", "reverse": "reverse_kl"}


def base_objective(base: str | Term | Objective, options: Mapping[str, Any] | None, *, of: str) -> Objective:
    """The preference loss that the method `of` adds to: a method's name with its options, or an objective as it is.

    Raises:
        ConfigError: the name is no objective, or is `of` itself; or options come with an objective of one's own.
    """
    if isinstance(base, str):
        card = get_method(base)
        if card.kind != "objective" or base == of:
            raise ConfigError(
                f"{base!r} cannot be the base of {of}; a base is a preference loss such as 'dpo' or 'kto'"
            )
        return as_objective(card.build(**(options or {})))
    if options:
        raise ConfigError("base_options belong to a base given by name; this base is an objective already")
    return as_objective(base)


def reference_kl(estimator: str, *, direction: str = "forward") -> Term:
    """Mean divergence between the policy and the reference, summed over a response's tokens, as a term.

    Args:
        estimator: "samples": -log-likelihood of the reference's own answers, the forward divergence up to the
            reference's entropy; "base": the exact divergence of every next-token distribution along the reference's own
            answers, which has the same mean without the noise of single tokens; "responses": the same along the data's
            responses, which is a divergence at their prefixes and equals the others only where the reference wrote
            them.
        direction: "forward", KL(reference || policy), or "reverse", KL(policy || reference) of the next tokens; along
            fixed texts the reverse one weighs prefixes by who wrote them, not by the policy.

    Raises:
        ConfigError: a word is unknown, or the reverse direction is to be estimated from the reference's samples alone.
    """
    for name, choice, known in (("estimator", estimator, ESTIMATORS), ("direction", direction, _COLUMNS)):
        if choice not in known:
            raise ConfigError(f"reference_kl({name}={choice!r}){nearest(str(choice), known)}")
    if estimator == "samples":
        if direction == "reverse":
            raise ConfigError(
                "the reverse divergence cannot be taken from the reference's likelihoods alone; "
                "choose the estimator 'base' or 'responses'"
            )
        return pointwise("kl", score=logp(), of="base", link=linear(), role="anchor")
    divergence = token_sum(token_column(_COLUMNS[direction], live=True), -1.0)  # linear() turns the sign
    of = "base" if estimator == "base" else "all"
    return pointwise("kl", score=divergence, of=of, link=linear(), role="anchor")
