"""Structures as terms of an objective, and the symbolic form of the catalogue's methods.

Shapes: I items, P pairs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from unipref.core.batch import Batch
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.discrepancies import Link, hinge, logistic, square
from unipref.objectives.logic.formulas import FALSE, TRUE, M, Ref
from unipref.objectives.logic.structures import CE, CPO, DPO, DPOP, ORPO, Structure
from unipref.objectives.scores import logp
from unipref.objectives.terms import Term
from unipref.objectives.units import pair

__all__ = ["SYMBOLIC", "Form", "counted", "symbolic", "symbolic_form"]

LINKS = {
    "logistic": "-log sigmoid(beta * rho)",
    "squared": "(rho - 1 / (2 * beta))^2",
    "margin": "max(0, beta - rho)",
}
_SIDES = ("w", "l")
_PROBABILITY = {0.0: "p of the whole response.", 1.0: "p as the geometric mean over tokens."}


@dataclass(frozen=True, repr=False)
class counted(pair):
    """scale * rho of a structure, of a pair whose log-probabilities per response are given; a row is a pair.

    rho of the swapped pair is in general not -rho: CE, log p_w / (1 - p_w), says nothing of l. So a soft label weighs
    link(rho(w, l)) and link(rho(l, w)), each counted for itself. The contrast is one of log-probabilities: offsets and
    targets that compare other numbers have no meaning here.

    Attributes:
        structure: over M("w"), M("l"), Ref("w"), Ref("l") and copies of these. w is the chosen response.
        scale: what rho is multiplied by.
        eta: the reference's log-probabilities are divided by len^eta; the score's own eta should be the same.
        manual: ((side, log-probability), ...) of a reference set by hand, constants for w and l in place of "ref_logp".
            They belong to the place: in the swapped pair, too, the side that should win has that of "w".
    """

    structure: Structure
    scale: float = 1.0
    eta: float = 1.0
    manual: tuple[tuple[str, float], ...] | None = None

    asymmetric = True

    def __post_init__(self) -> None:
        strangers = [p for p in self.structure.propositions if type(p) not in (M, Ref) or p.of not in _SIDES]
        if strangers:
            raise ConfigError(
                f"a pair gives probabilities to M and Ref of 'w' and 'l'; the structure also names {strangers}"
            )
        if 0 in self.structure.rows(self.structure.propositions):
            raise ConfigError(f"a side of {self.structure} holds in no world, so that its log ratio is never finite")
        if self.manual is None:
            return
        if tuple(side for side, _ in self.manual) != _SIDES or any(value > 0 for _, value in self.manual):
            raise ConfigError(
                f"a reference set by hand has a log-probability, at most 0, for w and for l; got {dict(self.manual)}"
            )
        if not self._refers:
            raise ConfigError(f"there is no Ref in {self.structure} for the reference set by hand, {dict(self.manual)}")

    @property
    def _refers(self) -> bool:
        return any(isinstance(p, Ref) for p in self.structure.propositions)

    @property
    def reads(self) -> tuple[str, ...]:
        if self.manual is not None or not self._refers:
            return ()
        return ("ref_logp",) + (("len",) if self.eta != 0 else ())

    def across(self, chosen: Tensor, rejected: Tensor, batch: Batch, *, swapped: bool = False) -> Tensor:
        """(P,) scale * rho, with log-probabilities `chosen` of the one response and `rejected` of the other."""
        first, second = self.sides(batch)
        if swapped:
            first, second = second, first
        values = {(M, "w"): chosen[first], (M, "l"): rejected[second]}
        if self.reads:
            fixed = replace(batch, items={**batch.items, "logp": batch.item("ref_logp").detach()})
            reference = logp(eta=self.eta)(fixed)
            values |= {(Ref, "w"): reference[first], (Ref, "l"): reference[second]}
        else:
            values |= {(Ref, side): torch.full_like(values[M, side], value) for side, value in self.manual or ()}
        log_probs = {p: values[type(p), p.of] for p in self.structure.propositions}
        return self.scale * self.structure.log_ratio(log_probs)

    def reverse(self, values: Tensor, batch: Batch) -> Tensor:
        """(P,) scale * rho of the swapped pairs."""
        return self.across(values, values, batch, swapped=True)


def symbolic(
    structure: Structure,
    name: str = "symbolic",
    *,
    link: str = "logistic",
    beta: float = 1.0,
    eta: float = 1.0,
    manual: Mapping[str, float] | None = None,
) -> Term:
    """A term that makes a loss of a preference structure's log ratio rho.

    Args:
        structure: over M("w"), M("l"), Ref("w") and Ref("l"); w is the chosen response, l the rejected one.
        link: "logistic" is -log sigmoid(beta * rho), "squared" (rho - 1 / (2 beta))^2, "margin" max(0, beta - rho).
        beta: its parameter.
        eta: 1 takes a response's probability as the geometric mean over its tokens, 0 as that of the whole response.
            With 0, 1 - p is almost 1 for any text of some length, and what a formula says with "not" is lost: ORPO's
            structure becomes CPO's.
        manual: log-probabilities of a reference set by hand, {"w": 0.0, "l": -1.0}, in place of the column "ref_logp".

    Raises:
        ConfigError: the structure names other propositions, has no world to count on one side, or an option is unknown.

    Source: arXiv:2412.17696, compilation by weighted model counting.

    Example:
        >>> from unipref.objectives.logic import STRUCTURES
        >>> loss = symbolic(STRUCTURES["CE"])  # -log sigmoid(log(p / (1 - p))) = -log p
        >>> round(loss(logp_chosen=[-3.0], logp_rejected=[-8.0], len_chosen=[2], len_rejected=[4]).item(), 6)
        1.5
    """
    if link not in LINKS:
        raise ConfigError(f"symbolic(link={link!r}){nearest(str(link), LINKS)}")
    if beta < 0 or (beta == 0 and link != "margin"):
        raise ConfigError(f"symbolic(link={link!r}) needs a positive beta, got {beta}")
    if link == "logistic":
        shape: Link = logistic()
    else:
        shape = hinge(at=float(beta)) if link == "margin" else square(at=1 / (2 * beta))
    scale = float(beta) if link == "logistic" else 1.0
    fixed = None if manual is None else tuple((side, float(manual[side])) for side in sorted(manual, reverse=True))
    return Term(name, logp(eta=eta), counted(structure, scale, float(eta), fixed), shape)


@dataclass(frozen=True)
class Form:
    """The symbolic form of a catalogue method.

    Attributes:
        structure: what is compiled.
        link: as in `symbolic`.
        eta: as in `symbolic`.
        says: what a reader needs to get the method from it: its options in these terms, and what it adds.
    """

    structure: Structure
    link: str = "logistic"
    eta: float = 0.0
    says: str = ""

    def term(self, beta: float = 1.0, manual: Mapping[str, float] | None = None) -> Term:
        """The term that the form compiles to."""
        return symbolic(self.structure, link=self.link, beta=beta, eta=self.eta, manual=manual)


SYMBOLIC: Mapping[str, Form] = MappingProxyType(
    {
        "bapo": Form(DPO, says="The hinge, at place='outside', stands outside the formula."),
        "cdpo": Form(DPO, says="The pair counts 1 - flip, the swapped pair flip."),
        "cpo": Form(CPO, says="Likelihood stands outside the formula."),
        "dpo": Form(DPO),
        "dpo_robust": Form(
            DPO, says="The pair counts (1 - flip) / (1 - 2 flip), the swapped pair -flip / (1 - 2 flip)."
        ),
        "dpo_sft": Form(DPO, says="Likelihood stands outside the formula."),
        "dpop": Form(DPOP, says="lam is 1 and the chosen response below its reference; where it is not, DPO's form."),
        "ipo": Form(DPO, "squared", says="beta is its tau; norm='mean' takes geometric means over tokens for p and r."),
        "ln_dpo": Form(DPO, eta=1.0),
        "orpo": Form(ORPO, eta=1.0, says="beta is 1, times lam; likelihood stands outside the formula."),
        "rationale_dpo": Form(DPO, says="Likelihood, of a rationale, stands outside the formula."),
        "rationale_orpo": Form(ORPO, eta=1.0, says="beta is 1, times its beta; likelihoods stand outside the formula."),
        "rso": Form(DPO, "margin", says="beta is 1 / gamma, times gamma; with its logistic loss it is DPO's form."),
        "sft": Form(
            CE,
            eta=1.0,
            says="w is a demonstration, beta 1: -log sigmoid(rho) is -log p_w itself; per='sum' has p per response.",
        ),
        "simpo": Form(DPO, eta=1.0, says="The reference is set by hand: log r_w = 0, log r_l = -gamma / beta."),
        "slic": Form(CPO, "margin", says="beta is its delta; likelihood stands outside the formula."),
        "spac": Form(DPO, says="beta is 1 / eta; the critic's terms stand outside the formula."),
        "step_dpo": Form(DPO, says="A response is a step; its square loss, on part of the tokens, is not this form."),
        "svpo": Form(DPO, says="The terms of the step values stand outside the formula."),
        "tpo_l": Form(
            DPO,
            eta=1.0,
            says="The reference is set by hand: log r_w = 0, log r_l = -gamma / beta. Likelihood stands outside.",
        ),
        "tpo_triple": Form(CPO, says="Likelihood, of a third response, stands outside the formula."),
        "typo": Form(CPO, says="beta is 1; the divergence stands outside the formula."),
    }
)
"""Catalogue methods whose preference term is exactly a compiled formula, by key; `says` names the case where one is."""


def symbolic_form(key: str) -> str | None:
    """The symbolic form of a catalogue method as plain text, a line an item; None for a method without one.

    p and r are probabilities of the policy and of the reference, a prime marks a second copy of a proposition.

    Example:
        >>> print(symbolic_form("orpo"))
        core:      implies(M('l'), M('w'))
        condition: (M('w') | M('l')) & ~(M('w') & M('l'))
        log ratio: rho = log[p_w * (1 - p_l)] - log[(1 - p_w) * p_l]
        loss:      -log sigmoid(beta * rho)
        with:      p as the geometric mean over tokens. beta is 1, times lam; likelihood stands outside the formula.
    """
    if key not in SYMBOLIC:
        return None
    form, structure = SYMBOLIC[key], SYMBOLIC[key].structure
    lines = {
        "core": repr(structure.core),
        "condition": repr(structure.condition) if structure.condition != TRUE else None,
        "additive": repr(structure.additive) if structure.additive != FALSE else None,
        "log ratio": f"rho = log[{structure.numerator!r}] - log[{structure.denominator!r}]",
        "loss": LINKS[form.link],
        "with": " ".join(filter(None, (_PROBABILITY[form.eta], form.says))),
    }
    return "\n".join(f"{slot + ':':<10} {text}" for slot, text in lines.items() if text is not None)
