"""Closed-form coefficients of the objectives of pairs and of single responses, each from its paper or authors' code.

A delta takes `Sides` and says what the gradient of the loss is, times the number of pairs, so that a term which is a
mean over pairs shows the coefficient of one pair. It returns

- (chosen, rejected, further texts...), each (P,): the gradient in the sums of log-probabilities; or
- {column: the same tuple, or one tensor}, for gradients in heads ("value", "reward_head", ...), too, and for those in
  single tokens, "logp" then being one (T,) tensor. A head that is not named must have no gradient.
"""

import math

import torch
from torch import sigmoid

from unipref.objectives import (
    a_lol,
    ada_dpo,
    ada_reward,
    alpha_dpo,
    bapo,
    bco,
    beta_dpo,
    bt,
    crpo_creative,
    dpo_shift,
    dr_dpo,
    flex_dpo,
    ipo,
    mrpo,
    odpo,
    ofs_dpo,
    random_subset,
    rationale_dpo,
    rpo_relative,
    rso,
    sft,
    sgdpo,
    spac,
    spo_degree,
    spo_sequential,
    upo,
)


class Sides:
    """A batch of `worlds.batch_for`, text by text.

    h log-ratios, l sums, m means, n lengths, r rewards and v values, of chosen (_w) and rejected (_l) responses; `h`
    alone is the pair's difference.
    """

    def __init__(self, batch, objective):
        self.batch, self.objective = batch, objective
        self.size = len(batch.pairs["chosen"])
        self.texts = ("chosen", "rejected", *objective.roles)
        self.l_w, self.l_l = self("logp")
        self.n_w, self.n_l = (n.double() for n in self("len"))
        self.h_w, self.h_l = (self.ratio(text) for text in self.texts[:2])
        self.h = self.h_w - self.h_l
        self.m_w, self.m_l = self.l_w / self.n_w, self.l_l / self.n_l
        self.r_w, self.r_l = self("reward")
        self.v_w, self.v_l = self("value")

    def __call__(self, name, *texts):
        """The item column `name` of `texts`, by default of both responses: (P,) each, or one tensor for one text."""
        found = [self.batch.item(name).split(self.size)[self.texts.index(t)] for t in texts or ("chosen", "rejected")]
        return found[0] if len(texts) == 1 else found

    def ratio(self, text):
        """(P,) log-ratios of one text."""
        return self("logp", text) - self("ref_logp", text)

    def gap(self, name):
        """(P,) chosen minus rejected."""
        chosen, rejected = self(name)
        return chosen - rejected

    def state(self, name):
        return self.batch.statistics[name]

    def token(self, name):
        """(T,)"""
        return self.batch.tokens[name]

    def spread(self, *texts):
        """(T,) what each text, (P,), says of its response, at every token."""
        return torch.cat(texts)[self.batch.tokens["item"]]


def opposed(pull):
    """The chosen response up by `pull` and the rejected one down by it."""
    return -pull, pull


def each(chosen, rejected):
    """Means over all 2 P responses, so half of them per pair."""
    return chosen / 2, rejected / 2


# base losses


def dpo_delta(s):
    return opposed(0.1 * sigmoid(-0.1 * s.h))


def cdpo_delta(s):
    return opposed(0.1 * (0.8 * sigmoid(-0.1 * s.h) - 0.2 * sigmoid(0.1 * s.h)))


def dpo_robust_delta(s):
    return opposed(0.1 * (0.9 * sigmoid(-0.1 * s.h) + 0.1 * sigmoid(0.1 * s.h)) / 0.8)


def ipo_delta(s):
    pull = 2 * (s.h - 5)
    return pull, -pull


def ipo_mean_delta(s):
    pull = 2 * (s.h_w / s.n_w - s.h_l / s.n_l - 5)
    return pull / s.n_w, -pull / s.n_l


def kto_delta(s):
    def slope(h):
        z = 0.1 * (h - s.state("kl_baseline"))
        return 0.1 * sigmoid(z) * sigmoid(-z)

    return each(-slope(s.h_w), slope(s.h_l))


def slic_delta(s):
    active = (s.l_w - s.l_l < 1).double()
    return -active - 0.1, active


def rso_delta(s, gamma=0.05):  # arXiv:2309.06657, hinge-norm
    return opposed(gamma * (gamma * s.h < 1).double())


def rso_sigmoid_delta(s):  # arXiv:2309.06657, sigmoid-norm
    return opposed(0.05 * sigmoid(-0.05 * s.h))


def simpo_delta(s):
    pull = 2 * sigmoid(-(2 * (s.m_w - s.m_l) - 1))
    return -pull / s.n_w, pull / s.n_l


def cpo_delta(s):
    pull = 0.1 * sigmoid(-0.1 * (s.l_w - s.l_l))
    return -pull - 1 / s.n_w, pull


def orpo_delta(s):
    pull = 0.1 * sigmoid(-(odds(s.m_w) - odds(s.m_l)))
    chosen, rejected = (pull / (n * (1 - torch.exp(m))) for n, m in ((s.n_w, s.m_w), (s.n_l, s.m_l)))
    return -chosen - 1 / s.n_w, rejected


def odds(m):
    return m - torch.log(1 - torch.exp(m))


def modpo_delta(s):
    return opposed(0.2 * sigmoid(-(0.1 * s.h - 0.5 * (s.r_w - s.r_l)) / 0.5))


def sft_delta(s):
    return -1 / s.n_w, torch.zeros_like(s.l_l)


def sft_sum_delta(s):
    return -torch.ones_like(s.l_w), torch.zeros_like(s.l_l)


# arXiv:2405.17956, and what it is compared with


def upo_delta(s):  # KTO, gamma e^(lam A) / |y|, and c_V times the square |1/2| u^2 of the value's error
    aux = each(*(-0.5 * torch.exp(5 * (r - v)) / n for r, v, n in ((s.r_w, s.v_w, s.n_w), (s.r_l, s.v_l, s.n_l))))
    value = each(0.1 * (s.v_w - s.r_w), 0.1 * (s.v_l - s.r_l))
    return {"logp": [a + b for a, b in zip(kto_delta(s), aux, strict=True)], "value": value}


def upo_expectile_delta(s):  # tau = 0.9: an error below the reward counts nine times one above it
    def slope(r, v):
        return 0.2 * (0.9 - 0.8 * (r < v).double()) * (v - r)

    return {**upo_delta(s), "value": each(slope(s.r_w, s.v_w), slope(s.r_l, s.v_l))}


def upo_dpo_margin_delta(s):  # the pair must show more than its rewards already explain
    z = 0.1 * s.h - 2 * (s.r_w - s.r_l)
    return {"logp": opposed(0.1 * sigmoid(-z)), "value": each(0.1 * (s.v_w - s.r_w), 0.1 * (s.v_l - s.r_l))}


def gains(s):
    return (s.r_w - s.v_w).clamp(min=0), (s.r_l - s.v_l).clamp(min=0)


def a_lol_delta(s):  # arXiv:2305.14718: max(0, A) times the clipped ratio, and the value's squared error
    ratio = [torch.exp(h).clamp(0.1, 1.9) for h in (s.h_w, s.h_l)]
    logp = each(*(-gain * r for gain, r in zip(gains(s), ratio, strict=True)))
    return {"logp": logp, "value": each(s.v_w - s.r_w, s.v_l - s.r_l)}


def a_lol_token_delta(s):  # a ratio per token
    ratio = torch.exp(s.token("logp") - s.token("ref_logp")).clamp(0.1, 1.9)
    return {**a_lol_delta(s), "logp": -s.spread(*each(*gains(s))) * ratio}


def a_lol_free_delta(s):  # without a ratio, with the penalty 0.4 on the mean log-ratio of all responses
    return {**a_lol_delta(s), "logp": each(*(0.4 - gain for gain in gains(s)))}


def dro_v_delta(s, tau=1.0):  # arXiv:2405.19107
    errors = s.r_w - s.v_w - tau * s.h_w, s.r_l - s.v_l - tau * s.h_l
    return {"logp": each(*(-tau * error for error in errors)), "value": each(*(-error for error in errors))}


def bco_delta(s):  # arXiv:2404.04656: logits beta h - delta of thumbs up and down
    shift = s.state("bco_reward_mean")
    return each(-0.1 * sigmoid(shift - 0.1 * s.h_w), 0.1 * sigmoid(0.1 * s.h_l - shift))


def bco_density_delta(s, least=0.5, most=10.0):
    chosen, rejected = bco_delta(s)
    return chosen, rejected * s("density_ratio", "rejected").clamp(least, most)


# (h - target / beta)^2 of every response: arXiv:2405.00675 and arXiv:2410.02197


def sppo_delta(s, beta=1e-3):
    return each(*(2 * (h - (p - 0.5) / beta) for h, p in zip((s.h_w, s.h_l), s("win_rate"), strict=True)))


def gpo_delta(s, beta=1e-3):
    return each(*(2 * (h - score / beta) for h, score in zip((s.h_w, s.h_l), s("score"), strict=True)))


# margins


def odpo_delta(s):  # arXiv:2402.10571; pairs scored against their label have no offset here
    gap = s.r_w - s.r_l
    return opposed(0.1 * sigmoid(-(0.1 * s.h - torch.where(gap > 0, gap, 1.0).log())))


def odpo_ratio_delta(s):
    offset = 0.5 * torch.where(s.r_w > s.r_l, s.r_w / s.r_l, 1.0).log()
    return opposed(0.1 * sigmoid(-(0.1 * s.h - offset)))


def odpo_identity_delta(s):
    return opposed(0.1 * sigmoid(-(0.1 * s.h - (s.r_w - s.r_l))))


def alpha_dpo_lead(s, sign=1):  # arXiv:2410.10148: d - M, of the pair or of the swapped pair
    q = s.h_w / s.n_w - s.h_l / s.n_l
    z = (sign * q - s.state("alpha_dpo_mean")) / s.state("alpha_dpo_std")
    return 2.5 * (sign * (s.m_w - s.m_l) - (0.15 + 0.05 * z))


def alpha_dpo_delta(s, flip=0.0):
    right, wrong = sigmoid(-alpha_dpo_lead(s)), sigmoid(-alpha_dpo_lead(s, -1))
    pull = 2.5 * ((1 - flip) * right - flip * wrong)
    return -pull / s.n_w, pull / s.n_l


def dpo_length_reg_delta(s):  # arXiv:2403.19159
    return opposed(0.1 * sigmoid(-(0.1 * s.h + 0.01 * (s.n_w - s.n_l))))


def sgdpo_delta(s, r_w=0.6, r_l=0.9, seed=0):  # arXiv:2505.12435: either response against a part of the other one
    def pilot(r, text):
        drawn = random_subset(r, seed)(s.batch).double()
        none = torch.zeros_like(s.batch.item("logp"))
        count, h = (
            none.index_add(0, s.token("item"), values).split(s.size)[text]
            for values in (drawn, drawn * (s.token("logp") - s.token("ref_logp")))
        )
        assert torch.equal(count, torch.floor(r * torch.minimum(s.n_w, s.n_l) + 1e-9).clamp(min=1))
        return h

    return -0.05 * sigmoid(-0.1 * (s.h_w - pilot(r_l, 1))), 0.05 * sigmoid(-0.1 * (pilot(r_w, 0) - s.h_l))


def dpo_shift_delta(s, lam=0.7):  # arXiv:2502.07599
    pull = 0.1 * sigmoid(-0.1 * (s.h_w - lam * s.h_l))
    return -pull, lam * pull


def minor_dpo_delta(s):  # arXiv:2408.09834
    pull = 0.1 * sigmoid(-0.1 * (s.h_w - s.h_l.clamp(min=0)))
    return -pull, pull * (s.h_l >= 0)


# lengths, and a third text


def ln_dpo_delta(s):  # arXiv:2407.15229
    pull = 5 * sigmoid(-5 * (s.h_w / s.n_w - s.h_l / s.n_l))
    return -pull / s.n_w, pull / s.n_l


def gold_delta(s, alpha):  # a mean over the gold tokens of all pairs
    return torch.full_like(s.h, -alpha * s.size / int(s("len", "gold").sum()))


def tpo_triple_delta(s):  # arXiv:2405.16681
    return *opposed(0.01 * sigmoid(-0.01 * (s.l_w - s.l_l))), gold_delta(s, 1.0)


def tpo_l_delta(s):
    pull = 10 * sigmoid(-(10 * (s.m_w - s.m_l) - 3))
    return -pull / s.n_w, pull / s.n_l, gold_delta(s, 0.05)


# references


def mrpo_delta(s, share=None, epsilon=0.1):  # arXiv:2405.16388; share: of 1 / base in 1 / mix
    extra, base = s("ref_logp.1"), s("ref_logp")
    if share is None:
        far, near = (side[0] - side[1] for side in (extra, base))
        share = far.abs() / (far.abs() + near.abs() + 1e-6)
    size = [(one + two).abs() / 2 for one, two in zip(extra, base, strict=True)]
    log_mix = []
    for one, two, own in zip(extra, base, size, strict=True):
        radius = -epsilon if epsilon < 0 else epsilon * own / (size[0] + size[1])
        held = torch.maximum(torch.minimum(one, (1 - radius) * two), (1 + radius) * two)
        log_mix.append(-torch.log(share * torch.exp(-two) + (1 - share) * torch.exp(-held)))
    return opposed(0.1 * sigmoid(-0.1 * ((s.l_w - log_mix[0]) - (s.l_l - log_mix[1]))))


def mrpo_three_delta(s):  # confidences of three references on their own 1 / pi_k, nothing held
    columns = [s(name) for name in ("ref_logp.1", "ref_logp.2", "ref_logp")]
    far = [(chosen - rejected).abs() for chosen, rejected in columns]
    one, two = (f / (sum(far) + 1e-6) for f in far[:2])
    shares = (one, two, 1 - one - two)
    mix = [-torch.log(sum(k * torch.exp(-c[i]) for k, c in zip(shares, columns, strict=True))) for i in (0, 1)]
    return opposed(0.1 * sigmoid(-0.1 * ((s.l_w - mix[0]) - (s.l_l - mix[1]))))


def ofs_dpo_delta(s, alpha=1.0, sign=1, clamp=math.inf):  # arXiv:2406.05534: sign -1 of the chaser, who is behind
    lead = 0.1 * ((s.l_w - s.l_l) - s.gap("ref_logp.partner"))
    return opposed(0.1 * sigmoid(-0.1 * s.h) + alpha * 0.1 * sigmoid(-sign * lead) * (lead.abs() <= clamp))


# betas, temperatures and weights of a batch


def beta_dpo_delta(s, a=0.6, kept=None):  # arXiv:2407.08639
    kept = s.objective.terms[0].weight.kept(s.batch, s.objective.terms[0].unit) if kept is None else kept
    assert kept.sum() == (5 if s.objective.terms[0].weight.drop else 7)  # floor(7 * 0.8)
    beta = (0.1 * (1 + a * (s.h[kept].mean() - s.state("beta_dpo_mean")))).clamp(min=1e-3)
    return opposed(beta * sigmoid(-beta * s.h) * kept * s.size / kept.sum())


def entropy(u):
    p = sigmoid(u)
    return -p * p.log() - (1 - p) * (1 - p).log()


def bisected(rising, low, high):
    """(P,) where `rising` is 0, between `low` and `high`; the end where it has no zero."""
    low, high = torch.broadcast_tensors(*(torch.as_tensor(x, dtype=torch.float64) for x in (low, high)))
    for _ in range(100):
        middle = (low + high) / 2
        above = rising(middle) > 0
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low + high) / 2


def tempered_pull(delta, low, high, rho=0.1, quadratic=False):  # arXiv:2406.02764
    """sigmoid(-delta / tau) at the tau where g'(tau) = H(sigmoid(delta / tau)) - log 2 + rho, or + 2 rho tau, is 0."""

    def slope(tau):
        return entropy(delta / tau) - math.log(2) + (2 * rho * tau if quadratic else rho)

    return sigmoid(-delta / bisected(slope, torch.full_like(delta, low), high))


def ada_dpo_delta(s, beta=0.1, **options):
    return opposed(beta * tempered_pull(beta * s.h, 0.1, 5.0, **options))


def ada_reward_delta(s, low=0.1, high=1.0, rho=0.1):
    pull = tempered_pull(s.gap("reward_head"), low, high, rho)
    return {"logp": opposed(torch.zeros_like(pull)), "reward_head": opposed(pull)}


def bt_delta(s, margin=0.0, temperature=1.0):
    pull = sigmoid(-(s.gap("reward_head") - margin) / temperature) / temperature
    return {"logp": opposed(torch.zeros_like(pull)), "reward_head": opposed(pull)}


def rpo_relative_delta(s):  # arXiv:2402.10958: the weight stands inside the link
    e = s("embedding", "chosen")
    cosine = (e @ e.T) / (e.norm(dim=1)[:, None] * e.norm(dim=1)[None, :])
    weight = torch.softmax((cosine - 1) / 0.5, 1)
    pull = 0.1 * weight * sigmoid(-0.1 * weight * (s.h_w[:, None] - s.h_l[None, :])) / s.size
    return -pull.sum(1), pull.sum(0)


def rpo_diagonal_delta(s):
    pull = 0.1 * sigmoid(-0.1 * (s.h_w[:, None] - s.h_l[None, :]))
    same = torch.eye(s.size, dtype=torch.float64)
    pull = pull * (0.8 * same + 0.2 / (s.size - 1) * (1 - same))
    return -pull.sum(1), pull.sum(0)


# sides and auxiliary terms


def flex_dpo_delta(s, chosen=0.1, rejected=0.08):  # arXiv:2406.07327
    pull = sigmoid(-(chosen * s.h_w - rejected * s.h_l))
    return -chosen * pull, rejected * pull


def dpo_sft_delta(s):
    chosen, rejected = dpo_delta(s)
    return chosen - 1 / s.n_w, rejected


def degree_delta(base):  # arXiv:2409.17791: cross-entropy of the degraded variants' degrees, in the head alone
    def delta(s):
        nothing = torch.zeros(s.size, 3, dtype=torch.float64)
        classes = torch.nn.functional.one_hot(s("degree", "variant").long(), 3)
        wrong = torch.softmax(s("degree_head", "variant"), 1) - classes
        return {"logp": (*base(s), nothing[:, 0]), "degree_head": (nothing, nothing, 0.1 * wrong)}

    return delta


# anchors


def bapo_delta(s):  # arXiv:2407.00693
    return *dpo_delta(s), -(s.ratio("base") < 0).double()


def bapo_inside_delta(s):
    hold = 0.5 * (-s.ratio("base")).clamp(min=0)
    pull = sigmoid(-(0.1 * s.h - hold))
    return *opposed(0.1 * pull), -0.5 * pull * (s.ratio("base") < 0)


def spac_delta(s, eta=10.0, lam=0.1, slope=sigmoid):  # arXiv:2406.04274; slope of the bound in a sample's log-ratio
    samples = [lam * slope(s.ratio("policy_sample"))]
    if "baseline_sample" in s.texts:
        samples.append(-lam * slope(-s.ratio("baseline_sample")))
    return *opposed(sigmoid(-s.h / eta) / eta), *samples


def crpo_delta(s, **weights):  # arXiv:2505.14442: numbers of the chosen response alone
    weights = weights or dict.fromkeys(("diversity", "novelty", "surprise", "quality"), 0.25)
    return opposed(0.1 * sum(w * s(name, "chosen") for name, w in weights.items()) * sigmoid(-0.1 * s.h))


# rationales and ranked sets


def rationale_dpo_delta(s):  # arXiv:2407.14477
    return *dpo_delta(s), -0.1 * sigmoid(-0.1 * s("logp", "rationale"))


def rationale_linear_delta(s):
    return *dpo_delta(s), torch.full_like(s.h, -0.1)


def rationale_orpo_delta(s):
    return *orpo_delta(s), -1 / s("len", "rationale").double()


def knowpat_delta(s):  # arXiv:2311.06503, of two: the better response has weight 1 where it scores higher, else 0
    weight = 0.1 * (s.m_w > s.m_l).double()
    return (-weight * sigmoid(-s.m_w) - 1) / s.n_w, weight * sigmoid(s.m_l) / s.n_l


# a fall that is punished, and a loss of the whole step


def dpop_delta(s):  # arXiv:2402.13228
    falls = 50 * (s.h_w < 0).double()
    pull = 0.1 * sigmoid(-0.1 * (s.h - falls * -s.h_w))
    return -(1 + falls) * pull, pull


def dr_dpo_delta(s, spread=1.0):  # arXiv:2407.07880
    loss = torch.log1p(torch.exp(-0.1 * s.h))
    return opposed(s.size * torch.softmax(-loss / spread, 0) * 0.1 * sigmoid(-0.1 * s.h))


# rounds: arXiv:2405.12739


def spo_sequential_delta(s):
    earlier = 0.1 * (s.gap("ref_logp") - s.gap("ref_logp.0"))
    return opposed(0.1 * sigmoid(-(0.1 * s.h - 0.1 * earlier)))


def spo_third_round_delta(s):
    first = 0.2 * (s.gap("ref_logp.1") - s.gap("ref_logp.0"))
    second = 0.4 * (s.gap("ref_logp") - s.gap("ref_logp.1")) - 0.3 * first
    return opposed(0.1 * sigmoid(-(0.1 * s.h - 0.3 * first - 0.7 * second)))


DELTAS = {
    "a_lol": a_lol_delta,
    "ada_dpo": ada_dpo_delta,
    "ada_reward": ada_reward_delta,
    "alpha_dpo": alpha_dpo_delta,
    "bapo": bapo_delta,
    "bco": bco_delta,
    "beta_dpo": beta_dpo_delta,
    "bt": bt_delta,
    "cdpo": cdpo_delta,
    "cpo": cpo_delta,
    "crpo_creative": crpo_delta,
    "dpo": dpo_delta,
    "dpo_length_reg": dpo_length_reg_delta,
    "dpo_robust": dpo_robust_delta,
    "dpo_sft": dpo_sft_delta,
    "dpo_shift": dpo_shift_delta,
    "dpop": dpop_delta,
    "dr_dpo": dr_dpo_delta,
    "dro_v": dro_v_delta,
    "flex_dpo": flex_dpo_delta,
    "gpo": gpo_delta,
    "ipo": ipo_delta,
    "knowpat": knowpat_delta,
    "kto": kto_delta,
    "ln_dpo": ln_dpo_delta,
    "minor_dpo": minor_dpo_delta,
    "modpo": modpo_delta,
    "mrpo": mrpo_delta,
    "odpo": odpo_delta,
    "ofs_dpo": ofs_dpo_delta,
    "orpo": orpo_delta,
    "rationale_dpo": rationale_dpo_delta,
    "rationale_orpo": rationale_orpo_delta,
    "rpo_relative": rpo_relative_delta,
    "rso": rso_delta,
    "sft": sft_delta,
    "sgdpo": sgdpo_delta,
    "simpo": simpo_delta,
    "slic": slic_delta,
    "spac": spac_delta,
    "spo_degree": degree_delta(dpo_delta),
    "spo_sequential": spo_sequential_delta,
    "sppo": sppo_delta,
    "tpo_l": tpo_l_delta,
    "tpo_triple": tpo_triple_delta,
    "upo": upo_delta,
}
VARIANTS = {
    "a_lol-token": (a_lol(ratio="token"), a_lol_token_delta),
    "a_lol-free": (a_lol(ratio="none", kl=0.4), a_lol_free_delta),
    "ada_dpo-quadratic": (ada_dpo(quadratic=True), lambda s: ada_dpo_delta(s, quadratic=True)),
    "ada_dpo-steep": (ada_dpo(beta=1.0, rho=0.2), lambda s: ada_dpo_delta(s, beta=1.0, rho=0.2)),
    "ada_reward-narrow": (
        ada_reward(tau_min=0.05, tau_max=0.3, rho=0.2),
        lambda s: ada_reward_delta(s, 0.05, 0.3, 0.2),
    ),
    "bt-margin": (bt(margin=1.0, temperature=2.0), lambda s: bt_delta(s, 1.0, 2.0)),
    "alpha_dpo-flip": (alpha_dpo(flip=0.1), lambda s: alpha_dpo_delta(s, 0.1)),
    "alpha_dpo-simpo": (alpha_dpo(beta=2.0, gamma_ratio=0.5, alpha=0.0), simpo_delta),
    "bapo-inside": (bapo(place="inside", lam=0.5), bapo_inside_delta),
    "bco-density": (bco(density_ratio=True), bco_density_delta),
    "bco-bounded": (
        bco(density_ratio=True, least_ratio=0.3, most_ratio=0.7),
        lambda s: bco_density_delta(s, 0.3, 0.7),
    ),
    "beta_dpo-all": (beta_dpo(rho=0.0, a=6.0), lambda s: beta_dpo_delta(s, 6.0, torch.ones(7, dtype=torch.bool))),
    "crpo-two": (
        crpo_creative(weights={"novelty": 2.0, "quality": 0.5}),
        lambda s: crpo_delta(s, novelty=2.0, quality=0.5),
    ),
    "dpo_shift-rising": (dpo_shift(schedule="increase_linear"), lambda s: dpo_shift_delta(s, 0.5 + 0.5 * 0.75)),
    "dpo_shift-falling": (dpo_shift(schedule="decrease_linear"), lambda s: dpo_shift_delta(s, 1 - 0.5 * 0.75)),
    "dr_dpo-sharp": (dr_dpo(beta_prime=0.3), lambda s: dr_dpo_delta(s, 0.3)),
    "flex-half": (flex_dpo(beta_rejected=0.05), lambda s: flex_dpo_delta(s, rejected=0.05)),
    "ipo-mean": (ipo(norm="mean"), ipo_mean_delta),
    "mrpo-own": (mrpo(alpha=0.3, weight_on="own", epsilon=None), lambda s: mrpo_delta(s, 0.7, math.inf)),
    "mrpo-other": (mrpo(alpha=0.3, epsilon=-0.2), lambda s: mrpo_delta(s, 0.3, -0.2)),
    "mrpo-three": (mrpo(extra=("ref_logp.1", "ref_logp.2"), weight_on="own", epsilon=None), mrpo_three_delta),
    "odpo-identity": (odpo(of="identity"), odpo_identity_delta),
    "odpo-ratio": (odpo(of="log-ratio", alpha=0.5), odpo_ratio_delta),
    "ofs-chaser": (ofs_dpo(module="chaser", alpha=0.3), lambda s: ofs_dpo_delta(s, 0.3, -1)),
    "ofs-clamped": (ofs_dpo(clamp=0.5), lambda s: ofs_dpo_delta(s, clamp=0.5)),
    "ofs-chaser-clamped": (
        ofs_dpo(module="chaser", alpha=0.3, clamp=0.5),
        lambda s: ofs_dpo_delta(s, 0.3, -1, 0.5),
    ),
    "rationale-linear": (rationale_dpo(form="linear"), rationale_linear_delta),
    "rpo-unpaired": (rpo_relative(variant="unpaired"), rpo_relative_delta),
    "rpo-diagonal": (rpo_relative(variant="diagonal"), rpo_diagonal_delta),
    "rso-sharp": (rso(gamma=0.5), lambda s: rso_delta(s, 0.5)),
    "rso-sigmoid": (rso(loss="sigmoid"), rso_sigmoid_delta),
    "sft-sum": (sft(per="sum"), sft_sum_delta),
    "sgdpo-other": (sgdpo(r_chosen=0.8, r_rejected=0.4, seed=3), lambda s: sgdpo_delta(s, 0.8, 0.4, 3)),
    "spac-baseline": (spac(eta=4.0, lam=0.5, baseline=True), lambda s: spac_delta(s, 4.0, 0.5)),
    "spac-tight": (
        spac(eta=4.0, lam=0.5, bound="clip", clip=3.0, baseline=True),
        lambda s: spac_delta(s, 4.0, 0.5, lambda h: (h.abs() <= 3).double()),
    ),
    "spac-free": (spac(bound="none"), lambda s: spac_delta(s, slope=torch.ones_like)),
    "spo_degree-simpo": (spo_degree(base="simpo"), degree_delta(simpo_delta)),
    "spo_sequential-third": (spo_sequential(mu=(0.3, 0.7), betas=(0.2, 0.4)), spo_third_round_delta),
    "upo-expectile": (upo(tau=0.9), upo_expectile_delta),
    "upo-margin": (upo(base="dpo", gamma=0.0, base_margin=2.0), upo_dpo_margin_delta),
}
