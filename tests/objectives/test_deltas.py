"""L10 and G2: the gradient of each loss in each response's log-probability is the closed form, in float64.

A method of the catalogue *is* these coefficients, so a new method must bring its own.
"""

import pytest
import torch
from torch import sigmoid
from worlds import OPEN, gradients, pair_batch

from unipref.core.batch import Batch
from unipref.core.cards import list_methods
from unipref.objectives import as_objective, ipo, log_odds, sft, upo


class Sides:
    """Log-ratios h, sums l, means m, lengths n and the rest, of chosen (w) and rejected (l) responses."""

    def __init__(self, batch):
        def both(name):
            values = batch.item(name)
            return values[batch.pairs["chosen"]], values[batch.pairs["rejected"]]

        self.l_w, self.l_l = both("logp")
        ref_w, ref_l = both("ref_logp")
        self.n_w, self.n_l = (n.double() for n in both("len"))
        self.h_w, self.h_l = self.l_w - ref_w, self.l_l - ref_l
        self.h = self.h_w - self.h_l
        self.m_w, self.m_l = self.l_w / self.n_w, self.l_l / self.n_l
        self.r_w, self.r_l = both("reward")
        self.v_w, self.v_l = both("value")
        self.z0 = batch.statistics["kl_baseline"]


def dpo_delta(s):
    pull = 0.1 * sigmoid(-0.1 * s.h)
    return -pull, pull


def cdpo_delta(s):
    pull = 0.1 * (0.8 * sigmoid(-0.1 * s.h) - 0.2 * sigmoid(0.1 * s.h))
    return -pull, pull


def dpo_robust_delta(s):
    pull = 0.1 * (0.9 * sigmoid(-0.1 * s.h) + 0.1 * sigmoid(0.1 * s.h)) / 0.8
    return -pull, pull


def ipo_delta(s):
    pull = 2 * (s.h - 5)
    return pull, -pull


def ipo_mean_delta(s):
    pull = 2 * (s.h_w / s.n_w - s.h_l / s.n_l - 5)
    return pull / s.n_w, -pull / s.n_l


def kto_delta(s):  # a mean over 2 P responses, so half per pair
    def slope(h):
        z = 0.1 * (h - s.z0)
        return 0.1 * sigmoid(z) * sigmoid(-z) / 2

    return -slope(s.h_w), slope(s.h_l)


def simpo_delta(s):
    pull = 2 * sigmoid(-(2 * (s.m_w - s.m_l) - 1))
    return -pull / s.n_w, pull / s.n_l


def cpo_delta(s):
    pull = 0.1 * sigmoid(-0.1 * (s.l_w - s.l_l))
    return -pull - 1 / s.n_w, pull


def slic_delta(s):
    active = (s.l_w - s.l_l < 1).double()
    return -active - 0.1, active


def orpo_delta(s):
    def odds(m):
        return m - torch.log(1 - torch.exp(m))

    pull = 0.1 * sigmoid(-(odds(s.m_w) - odds(s.m_l)))
    return (
        -pull / (s.n_w * (1 - torch.exp(s.m_w))) - 1 / s.n_w,
        pull / (s.n_l * (1 - torch.exp(s.m_l))),
    )


def modpo_delta(s):
    z = (0.1 * s.h - 0.5 * (s.r_w - s.r_l)) / 0.5
    pull = 0.2 * sigmoid(-z)
    return -pull, pull


def sft_delta(s):
    return -1 / s.n_w, torch.zeros_like(s.l_l)


def sft_sum_delta(s):
    return -torch.ones_like(s.l_w), torch.zeros_like(s.l_l)


def upo_delta(s):  # KTO, and gamma e^(lam A) / |y| in a mean over 2 P responses
    base = kto_delta(s)
    aux = [-0.5 * torch.exp(5 * (r - v)) / n / 2 for r, v, n in ((s.r_w, s.v_w, s.n_w), (s.r_l, s.v_l, s.n_l))]
    return base[0] + aux[0], base[1] + aux[1]


def upo_dpo_margin_delta(s):  # the pair must show more than its rewards already explain
    pull = 0.1 * sigmoid(-(0.1 * s.h - 2 * (s.r_w - s.r_l)))
    return -pull, pull


DEFAULTS = {
    "dpo": dpo_delta,
    "cdpo": cdpo_delta,
    "dpo_robust": dpo_robust_delta,
    "ipo": ipo_delta,
    "kto": kto_delta,
    "simpo": simpo_delta,
    "cpo": cpo_delta,
    "slic": slic_delta,
    "orpo": orpo_delta,
    "modpo": modpo_delta,
    "sft": sft_delta,
    "upo": upo_delta,
}
VARIANTS = {
    "ipo-mean": (ipo(norm="mean"), ipo_mean_delta),
    "sft-sum": (sft(per="sum"), sft_sum_delta),
    "upo-margin": (upo(base="dpo", gamma=0.0, base_margin=2.0), upo_dpo_margin_delta),
}
CASES = {card.key: (card.build(), DEFAULTS.get(card.key)) for card in list_methods("objective")} | VARIANTS


@pytest.mark.parametrize("name", CASES)
def test_autograd_equals_the_closed_form_coefficient_of_every_response(name):
    method, delta = CASES[name]
    assert delta is not None, f"{name} has no closed form here; write its coefficients"
    ones = torch.ones(7, dtype=torch.float64)
    # log-probabilities near each other, so that both sides of SLiC's corner occur
    close = {"logp_chosen": -torch.arange(2, 9).double() / 2, "logp_rejected": -torch.arange(9, 2, -1).double() / 2}
    batch = pair_batch(30, n=7, weight=ones, clock=OPEN, **close)
    _, (found,) = gradients(as_objective(method), batch)
    chosen, rejected = delta(Sides(batch))
    assert torch.allclose(found, torch.cat([chosen, rejected]) / 7, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("mean", [-0.01, -1.0, -5.0])
def test_the_odds_gradient_exceeds_the_log_ratio_gradient_by_one_over_one_minus_p(mean):
    logp = torch.tensor([4 * mean], dtype=torch.float64, requires_grad=True)
    log_odds()(Batch({"logp": logp, "len": torch.tensor([4])})).sum().backward()
    assert logp.grad.item() == pytest.approx(1 / (4 * (1 - torch.exp(torch.tensor(mean, dtype=torch.float64)).item())))
