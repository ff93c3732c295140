"""Closed-form coefficients of the objectives of lists, steps, segments and tokens, from their papers or authors' code.

What a delta takes and returns is said in `deltas_pairs`. A slope of a list takes the (K,) scores and the rewards of one
record and gives the (K,) gradient of its loss in the scores.
"""

import math
from functools import partial

import torch
from deltas_pairs import each, opposed
from torch import sigmoid

from unipref.objectives import (
    ampo,
    bmc,
    dpo_2d,
    dpo_2d_robust,
    exo,
    infonca,
    lipo,
    nca,
    pl_dpo,
    pmpo,
    rankdpo,
    rpo,
    sparse_po,
    step_dpo,
    svpo,
    swepo,
    tpo_tree,
    typo,
)

# arXiv:2407.09072: -log sigmoid(l_w - l_l) + lam KL(ref || policy), the divergence of samples being -mean l of them


def typo_delta(s, lam=1.0):
    return (*opposed(sigmoid(s.l_l - s.l_w)), torch.full_like(s.l_w, -lam))


def typo_exact_delta(s, of, lam=0.7):
    """The divergence token by token: of the reference's answers, or, a mean over both responses, of these."""
    chosen, rejected = opposed(sigmoid(s.l_l - s.l_w))
    share = [torch.full_like(s.l_w, lam / len(of) if text in of else 0.0) for text in s.texts]
    return {"logp": (chosen, rejected, *(torch.zeros_like(chosen) for _ in s.texts[2:])), "kl": s.spread(*share)}


# arXiv:2410.04166: -alpha mean of accepted l + (1 - alpha) mean of rejected l + beta KL(ref || policy)


def pmpo_delta(s, alpha=0.5, beta=0.5, column="kl"):
    one = torch.ones_like(s.l_w)
    return {"logp": (-alpha * one, (1 - alpha) * one), column: s.spread(*each(beta * one, beta * one))}


def pmpo_samples_delta(s, alpha=0.3, beta=0.9):
    one = torch.ones_like(s.l_w)
    return -alpha * one, (1 - alpha) * one, -beta * one


# arXiv:2402.05369 (InfoNCA, NCA), 2502.00203 (RPO) and 2402.00856 (EXO): lists, and pairs with a label. a are the
# policy's numbers, b the target's.


def bwd_slope(a, b):
    """KL(softmax b || softmax a); with the entropy of softmax b added, the cross-entropy."""
    return a.softmax(0) - b.softmax(0)


def fwd_slope(a, b):
    """KL(softmax a || softmax b)."""
    gap = a.log_softmax(0) - b.log_softmax(0)
    return a.softmax(0) * (gap - (a.softmax(0) * gap).sum())


def sq_slope(a, b):
    """The mean over pairs of squared gaps, 2 / (K - 1) times the sum of squares of a - b about its mean."""
    return 4 / (len(a) - 1) * ((a - b) - (a - b).mean())


def nca_slope(a, b):
    """-sum of q_i log sigmoid(a_i) + log sigmoid(-a_i) / K."""
    return sigmoid(a) / len(a) - b.softmax(0) * sigmoid(-a)


def infonca_labels_delta(s, beta=0.3):
    return opposed(beta * sigmoid(-beta * s.h))


def nca_labels_delta(s, beta=0.3):
    z_w, z_l = beta * s.h_w, beta * s.h_l
    return beta * (sigmoid(z_w) / 2 - sigmoid(-z_w)), beta * sigmoid(z_l) / 2


def rpo_delta(s, beta=0.2, eta=1.0, distance="bwd", b=None):
    a = beta * s.h
    return opposed(-beta * _distance_slope(distance, a, eta * (s.r_w - s.r_l) if b is None else b))


def _distance_slope(distance, a, b):
    """Of D[a || b] in the gap a."""
    if distance == "sq":
        return 2 * (a - b)
    return sigmoid(a) - sigmoid(b) if distance == "bwd" else sigmoid(a) * sigmoid(-a) * (a - b)


def rpo_implicit_delta(s, distance):
    """eta 1.5 times the reward 0.7 log(teacher / reference)."""
    chosen, rejected = _teacher(s)
    return rpo_delta(s, distance=distance, b=1.5 * 0.7 * (chosen - rejected))


def rpo_implicit_mean_delta(s, beta=0.2):
    other = [log_ratio / n for log_ratio, n in zip(_teacher(s), (s.n_w, s.n_l), strict=True)]
    pull = beta * _distance_slope("bwd", beta * (s.h_w / s.n_w - s.h_l / s.n_l), 0.7 * (other[0] - other[1]))
    return pull / s.n_w, -pull / s.n_l


def _teacher(s):
    """Its log-ratios to the reference."""
    return [teacher - ref for teacher, ref in zip(s("ref_logp.target"), s("ref_logp"), strict=True)]


def rpo_mean_delta(s, beta=0.2):
    """Means over tokens in the policy's gap, with rewards as they are, and 0.3 of the chosen response's likelihood."""
    pull = beta * _distance_slope("bwd", beta * (s.h_w / s.n_w - s.h_l / s.n_l), s.r_w - s.r_l)
    return pull / s.n_w - 0.3 / s.n_w, -pull / s.n_l


def exo_labels_delta(s, beta=0.5, flip=0.1):
    a = beta * s.h
    return opposed(-beta * sigmoid(a) * sigmoid(-a) * (a - math.log((1 - flip) / flip)))


# arXiv:2402.01878 (LiPO), 2410.18013 (RankDPO), 2305.18290 (rankings), 2412.04628 (SWEPO), 2502.18293 (AMPO)


def lambda_weights(s, gain, discount=True):
    """|2^g_i - 2^g_j| |1 / log(1 + t_i) - 1 / log(1 + t_j)|, t the rank by score."""
    rank = (-s).argsort().argsort().double() + 1
    gaps = (2 ** gain[:, None] - 2 ** gain[None, :]).abs()
    return gaps * (1 / torch.log1p(rank[:, None]) - 1 / torch.log1p(rank[None, :])).abs() if discount else gaps


def pairs_slope(s, gain, weight=None):
    """-weight_ij log sigmoid(s_i - s_j) of every i that is better than j."""
    pull = (gain[:, None] > gain[None, :]) * sigmoid(s[None, :] - s[:, None]) * (1 if weight is None else weight)
    return pull.sum(0) - pull.sum(1)


def lambda_slope(s, gain, discount=True):
    return pairs_slope(s, gain, lambda_weights(s, gain, discount))


def plackett_luce_slope(s, gain, top=None):
    order = gain.argsort(descending=True)
    found = torch.zeros_like(s)
    for k in range(len(s) if top is None else top):
        found[order[k]] -= 1
        found[order[k:]] += s[order[k:]].softmax(0)
    return found


def beaten(reward):
    """The share of the other responses that each one beats."""
    return (reward[:, None] > reward[None, :]).double().sum(1) / (len(reward) - 1)


def set_slope(s, reward, alpha, bonus="absolute", best=False, gamma=1.0):
    """Shares of e^(s + alpha * bonus) in the whole, where the others count gamma, minus those in the accepted set."""
    gap = reward - reward.mean()
    accepted = reward == reward.max() if best else gap > 0
    odds = torch.exp(s + alpha * (gap.abs() if bonus == "absolute" else gap))
    whole = torch.where(accepted, odds, gamma * odds)
    return whole / whole.sum() - odds * accepted / (odds * accepted).sum()


def mean_of_pairs(s, gain):
    return pairs_slope(s, gain) / (gain[:, None] > gain[None, :]).sum()


# name -> method, what scales its log-ratios (ampo: its mean log-probabilities), and the slope in these of one record
LISTS = {
    "infonca": (infonca(), 0.01, lambda s, r: bwd_slope(s, r / 1e-4)),
    "infonca-soft": (infonca(beta=0.3, alpha=0.5), 0.3, lambda s, r: bwd_slope(s, 2 * r)),
    "nca": (nca(), 0.01, lambda s, r: nca_slope(s, r / 1e-4)),
    "nca-soft": (nca(beta=0.3, alpha=0.5), 0.3, lambda s, r: nca_slope(s, 2 * r)),
    "rpo-group-bwd": (rpo(beta=0.3, eta=2.0, unit="group"), 0.3, lambda s, r: bwd_slope(s, 2 * r)),
    "rpo-group-fwd": (rpo(beta=0.3, eta=2.0, unit="group", distance="fwd"), 0.3, lambda s, r: fwd_slope(s, 2 * r)),
    "rpo-group-sq": (rpo(beta=0.3, eta=2.0, unit="group", distance="sq"), 0.3, lambda s, r: sq_slope(s, 2 * r)),
    "exo": (exo(), 0.5, lambda s, r: fwd_slope(s, r / 0.5)),
    "exo-cool": (exo(beta=0.3, beta_r=0.2), 0.3, lambda s, r: fwd_slope(s, r / 0.2)),
    "pl_dpo": (pl_dpo(), 0.1, plackett_luce_slope),
    "pl_dpo-top-1": (pl_dpo(beta=0.3, top=1), 0.3, partial(plackett_luce_slope, top=1)),
    "lipo": (lipo(), 0.1, lambda_slope),
    "lipo-pair-logistic": (lipo(beta=0.3, loss="pair_logistic"), 0.3, pairs_slope),
    "lipo-pair-logistic-mean": (lipo(beta=0.3, loss="pair_logistic", reduction="mean"), 0.3, mean_of_pairs),
    "lipo-list-mle": (lipo(beta=0.3, loss="list_mle"), 0.3, plackett_luce_slope),
    "lipo-softmax": (lipo(beta=0.3, loss="softmax"), 0.3, bwd_slope),
    "lipo-pointwise-mse": (lipo(beta=0.3, loss="pointwise_mse"), 0.3, lambda s, r: 2 * (s - r)),
    "lipo-pointwise-ce": (
        lipo(beta=0.3, loss="pointwise_ce", reduction="mean"),
        0.3,
        lambda s, r: (sigmoid(s) - r) / len(s),
    ),
    "rankdpo": (rankdpo(), 0.1, lambda s, r: lambda_slope(s, beaten(r))),
    "rankdpo-gains-alone": (
        rankdpo(beta=0.3, discount=False),
        0.3,
        lambda s, r: lambda_slope(s, beaten(r), discount=False),
    ),
    "swepo": (swepo(), 0.1, partial(set_slope, alpha=1.0)),
    "swepo-signed": (swepo(beta=0.3, alpha=2.0, bonus="signed"), 0.3, partial(set_slope, alpha=2.0, bonus="signed")),
    "ampo": (ampo(), 5.0, partial(set_slope, alpha=1.0, bonus="signed", best=True)),
    "ampo-gamma": (
        ampo(beta=1.0, gamma=3.0),
        1.0,
        partial(set_slope, alpha=1.0, bonus="signed", best=True, gamma=3.0),
    ),
    "ampo-wide": (ampo(beta=1.0, alpha=0.0), 1.0, partial(set_slope, alpha=0.0, bonus="signed", best=True)),
}


def list_slopes(name, logp, ref_logp, length, reward):
    """(K,) gradient in log-probabilities of one record's loss by the entry `name` of LISTS."""
    _, beta, slope = LISTS[name]
    if name.startswith("ampo"):
        return beta / length * slope(beta * logp / length, reward)
    return beta * slope(beta * (logp - ref_logp), reward)


def _of_pairs(name):
    def delta(s):
        columns = (s("logp"), s("ref_logp"), (s.n_w, s.n_l), s("rank") if "rank" in s.batch.items else s("reward"))
        sign = -1 if "rank" in s.batch.items else 1  # rank 1 is best
        found = []
        for p in range(s.size):
            logp, ref, length, number = (torch.stack([side[p] for side in pair]) for pair in columns)
            found.append(list_slopes(name, logp, ref, length, sign * number))
        return tuple(torch.stack(found).T)

    return delta


# arXiv:2410.05102: z = beta (u - delta), u of masked log-ratios, delta the rejected side's masked divergence minus the
# chosen side's; the masks are learned (sparse_po) or fixed (mapo)


def totals(s, values):
    """(P,) sums over the tokens of the chosen, and of the rejected responses."""
    total = torch.zeros(2 * s.size, dtype=values.dtype).index_add(0, s.token("item"), values)
    return total.split(s.size)


def masked_slopes(s, beta, m_u, m_d):
    """Gradient in one token's masked log-ratio (that in its masked divergence is the same), ratio and divergence."""
    ratio, divergence = s.token("logp") - s.token("ref_logp"), s.token("kl")
    (u_w, u_l), (d_w, d_l) = totals(s, m_u * ratio), totals(s, m_d * divergence)
    pull = beta * sigmoid(-beta * ((u_w - u_l) - (d_l - d_w)))
    return s.spread(*opposed(pull)), ratio, divergence


def sparse_po_delta(s, beta=0.1, lam=0.0):
    """One mask for both; each penalty is halved, since the same norm comes twice."""
    mask = s.token("reward_mask")
    slope, ratio, divergence = masked_slopes(s, beta, mask, mask)
    return {"logp": slope * mask, "kl": slope * mask, "reward_mask": slope * (ratio + divergence) + lam / 2}


def sparse_po_independent_delta(s, beta=0.8, lam_u=0.3, lam_d=0.2):
    m_u, m_d = s.token("reward_mask"), s.token("kl_mask")
    slope, ratio, divergence = masked_slopes(s, beta, m_u, m_d)
    masks = {"reward_mask": slope * ratio + lam_u, "kl_mask": slope * divergence + lam_d}
    return {"logp": slope * m_u, "kl": slope * m_d, **masks}


def mapo_delta(s, beta=0.1):
    slope, _, _ = masked_slopes(s, beta, s.token("mask"), s.token("mask"))
    return {"logp": slope * s.token("mask"), "kl": slope * s.token("mask")}


# arXiv:2408.07471: z = sum of w_t (logp - ref_logp), w_t = 1 + diff_t min(1 / p_t, delta) held; or, as the code has it,
# the reference's log-probabilities times weights of its own


def bmc_delta(s, beta=0.05, cap=2.0, own=False):
    def weight(logp):
        return 1 + s.token("diff") * torch.exp(-logp).clamp(max=cap)

    policy, reference = s.token("logp"), s.token("ref_logp")
    w = weight(policy)
    z_w, z_l = totals(s, w * policy - (weight(reference) if own else w) * reference)
    return {"logp": s.spread(*opposed(beta * sigmoid(-beta * (z_w - z_l)))) * w}


# arXiv:2410.19720 and 2505.01706: f(u), f = -log sigmoid, u = x_w r_w - x_l r_l, x = beta times a segment's log-ratio,
# summed over matched segments: best of the chosen side against worst of the rejected one, as many as both have


def segmented(slope, beta=0.1):
    """`slope` gives the gradient in x_w and in x_l."""

    def delta(s):
        item, segment, number = (s.token(name) for name in ("item", "segment", "segment_score"))
        ratio = s.token("logp") - s.token("ref_logp")
        found = torch.zeros_like(ratio)

        def ordered(text, best_first):
            own = item == text
            parts = [(own & (segment == k)).nonzero()[:, 0] for k in segment[own].unique()]
            return sorted(parts, key=lambda tokens: number[tokens[0]].item(), reverse=best_first)

        for p in range(s.size):
            for up, down in zip(ordered(p, True), ordered(p + s.size, False), strict=False):
                x = beta * ratio[up].sum(), beta * ratio[down].sum()
                found[up], found[down] = (beta * pull for pull in slope(*x, number[up[0]], number[down[0]]))
        return {"logp": found}

    return delta


def dpo_2d_slope(x_w, x_l, r_w, r_l):
    pull = sigmoid(-(x_w * r_w - x_l * r_l))
    return -pull * r_w, pull * r_l


def gaussian_slope(x_w, x_l, r_w, r_l, noise=0.25, sign=-1.0):
    """f(u) + sign * sigmoid'(u) noise^2 (x_w^2 + x_l^2) / 2, with noise |x| at most 1."""
    u = x_w * r_w - x_l * r_l
    curve = sigmoid(u) * sigmoid(-u)
    sides = [(noise * x).clamp(-1, 1) for x in (x_w, x_l)]
    in_u = -sigmoid(-u) + sign * curve * (1 - 2 * sigmoid(u)) * (sides[0] ** 2 + sides[1] ** 2) / 2
    in_x = [sign * curve * noise * side * (side.abs() < 1) for side in sides]
    return in_u * r_w + in_x[0], -in_u * r_l + in_x[1]


def flip_slope(x_w, x_l, r_w, r_l, flip=0.2):
    u = x_w * r_w - x_l * r_l
    in_u = (-(1 - flip) * sigmoid(-u) - flip * sigmoid(u)) / (1 - 2 * flip)
    return in_u * r_w, -in_u * r_l


def worst_case_slope(x_w, x_l, r_w, r_l, radius=0.3):
    u = x_w * (r_w - radius * x_w.sign()) - x_l * (r_l + radius * x_l.sign())
    pull = sigmoid(-u)
    return -pull * (r_w - radius * x_w.sign()), pull * (r_l + radius * x_l.sign())


# arXiv:2406.10858: DPO of steps, c_V (V - q)^2 as a mean over steps, and c_R max(0, gamma - (V_w - V_l))


def svpo_delta(s, gamma=0.1, c_v=1.0, c_r=1.0):
    (v_w, v_l), (q_w, q_l) = s("step_value"), s("q")
    behind = c_r * (v_w - v_l < gamma).double()
    fit_w, fit_l = each(2 * c_v * (v_w - q_w), 2 * c_v * (v_l - q_l))
    return {"logp": opposed(0.1 * sigmoid(-0.1 * s.h)), "step_value": (fit_w - behind, fit_l + behind)}


# arXiv:2405.00451: (z - 1 / (2 beta))^2, z of log-ratios averaged from the first token on which the two sides differ


def step_dpo_delta(s):
    return opposed(0.1 * sigmoid(-0.1 * s.h))


def step_dpo_ipo_delta(s, beta=0.2):
    ratio, fresh = s.token("logp") - s.token("ref_logp"), s.token("fresh")
    (m_w, m_l), (n_w, n_l) = totals(s, fresh * ratio), (n.clamp(min=1) for n in totals(s, fresh))
    pull = 2 * (m_w / n_w - m_l / n_l - 1 / (2 * beta))
    return {"logp": s.spread(pull / n_w, -pull / n_l) * fresh}


# arXiv:2410.12854: LiPO's lambda loss of s = beta sum_k w_k mean_k / sum_k w_k over steps; those beyond the shortest
# response's are one with its last


def tpo_tree_delta(s, beta=0.5, scale=1.0):
    item, segment, weight = (s.token(name) for name in ("item", "segment", "step_weight"))
    ratio = s.token("logp") - s.token("ref_logp")
    found = torch.zeros_like(ratio)
    for p in range(s.size):
        steps = []
        for text in (p, p + s.size):
            own = item == text
            steps.append([(own & (segment == k)).nonzero()[:, 0] for k in segment[own].unique()])
        last = min(map(len, steps)) - 1
        steps = [[*own[:last], torch.cat(own[last:])] for own in steps]
        shares = [torch.stack([weight[step].mean() for step in own]) for own in steps]
        means = [torch.stack([ratio[step].mean() for step in own]) for own in steps]
        score = beta * torch.stack([(w * m).sum() / w.sum() for w, m in zip(shares, means, strict=True)])
        slope = lambda_slope(score, scale * torch.stack([s.r_w[p], s.r_l[p]]))
        for pull, own, w in zip(slope, steps, shares, strict=True):
            for step, share in zip(own, w / w.sum(), strict=True):
                found[step] = beta * pull * share / len(step)
    return {"logp": found}


DELTAS = {
    "typo": typo_delta,
    "pmpo": pmpo_delta,
    "rpo": rpo_delta,
    "sparse_po": sparse_po_delta,
    "mapo": mapo_delta,
    "bmc": bmc_delta,
    "dpo_2d": segmented(dpo_2d_slope),
    "dpo_2d_robust": segmented(gaussian_slope),
    "svpo": svpo_delta,
    "step_dpo": step_dpo_delta,
    "tpo_tree": tpo_tree_delta,
} | {name: _of_pairs(name) for name in LISTS if "-" not in name}

VARIANTS = {
    "typo-lam": (typo(lam=0.3), partial(typo_delta, lam=0.3)),
    "typo-base": (typo(lam=0.7, kl="base"), partial(typo_exact_delta, of=("base",))),
    "typo-responses": (typo(lam=0.7, kl="responses"), partial(typo_exact_delta, of=("chosen", "rejected"))),
    "pmpo-reverse": (
        pmpo(alpha=0.3, beta=0.9, direction="reverse"),
        partial(pmpo_delta, alpha=0.3, beta=0.9, column="reverse_kl"),
    ),
    "pmpo-samples": (pmpo(alpha=0.3, beta=0.9, kl="samples"), pmpo_samples_delta),
    "infonca-labels": (infonca(beta=0.3, target="labels"), infonca_labels_delta),
    "nca-labels": (nca(beta=0.3, target="labels"), nca_labels_delta),
    "exo-labels": (exo(target="labels", flip=0.1), exo_labels_delta),
    "rpo-implicit-mean": (rpo(norm="mean", rewards="implicit", target_beta=0.7), rpo_implicit_mean_delta),
    "rpo-mean-sft": (rpo(norm="mean", sft_weight=0.3), rpo_mean_delta),
    "sparse_po-penalty": (sparse_po(lam_u=0.3, lam_d=0.2), partial(sparse_po_delta, lam=0.5)),
    "sparse_po-independent": (
        sparse_po(beta=0.8, masks="independent", lam_u=0.3, lam_d=0.2),
        sparse_po_independent_delta,
    ),
    "bmc-tight": (bmc(beta=0.2, delta=3.0), partial(bmc_delta, beta=0.2, cap=3.0)),
    "bmc-own": (bmc(delta=3.0, weight_source="own"), partial(bmc_delta, cap=3.0, own=True)),
    "dpo_2d-steep": (dpo_2d(beta=0.7), segmented(dpo_2d_slope, 0.7)),
    "dpo_2d_robust-clipped": (
        dpo_2d_robust(beta=0.9, noise=0.5),
        segmented(partial(gaussian_slope, noise=0.5), 0.9),
    ),
    "dpo_2d_robust-conservative": (
        dpo_2d_robust(estimator="conservative", noise=0.8),
        segmented(partial(gaussian_slope, noise=0.8, sign=1.0)),
    ),
    "dpo_2d_robust-flip": (dpo_2d_robust(estimator="flip", noise=0.2), segmented(flip_slope)),
    "dpo_2d_robust-worst-case": (dpo_2d_robust(estimator="worst_case", noise=0.3), segmented(worst_case_slope)),
    "svpo-coefficients": (
        svpo(gamma=0.4, value_coefficient=2.0, rank_coefficient=0.5),
        partial(svpo_delta, gamma=0.4, c_v=2.0, c_r=0.5),
    ),
    "step_dpo-ipo": (step_dpo(beta=0.2, loss="ipo"), step_dpo_ipo_delta),
    "tpo_tree-scale": (tpo_tree(beta=0.2, scale=0.5), partial(tpo_tree_delta, beta=0.2, scale=0.5)),
}
VARIANTS |= {name: (LISTS[name][0], _of_pairs(name)) for name in LISTS if "-" in name}
for _distance in ("sq", "fwd", "bwd"):
    VARIANTS[f"rpo-{_distance}"] = (
        rpo(beta=0.3, eta=2.0, distance=_distance),
        partial(rpo_delta, beta=0.3, eta=2.0, distance=_distance),
    )
    VARIANTS[f"rpo-implicit-{_distance}"] = (
        rpo(eta=1.5, distance=_distance, rewards="implicit", target_beta=0.7),
        partial(rpo_implicit_delta, distance=_distance),
    )
