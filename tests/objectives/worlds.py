"""Small worlds for objectives: seeded random fields, every method of the catalogue, and exact minimisation."""

import torch

from unipref.core.batch import Batch, Clock
from unipref.core.cards import list_methods
from unipref.objectives import as_objective, upo

OPEN = Clock(step=1, total=1)  # every gate is open
BASES = [card.key for card in list_methods("objective") if card.key != "upo"]


def catalogue():
    """(id, objective, card) of every method at its defaults, of its variants, and of upo over every base."""
    cards = {card.key: card for card in list_methods("objective")}
    found = [(key, as_objective(card.build()), card) for key, card in cards.items()]
    variants = [
        ("sft", {"per": "token"}),
        ("ipo", {"norm": "mean"}),
        ("kto", {"lambda_d": 1.5, "lambda_u": 0.5}),
        ("simpo", {"gamma": 0.0}),
        ("upo", {"value": "soft", "lam": 1.0}),
        ("upo", {"value": "group-mean", "norm": "sum"}),
        ("upo", {"value": "none", "weight_cap": 1.0, "positive_only": True}),
        ("upo", {"lam": 0.0}),
    ]
    for key, options in variants:
        name = ",".join(f"{k}={v}" for k, v in options.items())
        found.append((f"{key}({name})", as_objective(cards[key].build(**options)), cards[key]))
    found += [
        (f"upo({base})", upo(base=base, base_margin=0.2 if base != "sft" else 0.0), cards["upo"]) for base in BASES
    ]
    return found


def pair_fields(seed, n=5, dtype=torch.float64):
    """Every column that a method reads, for n pairs, and a KL baseline."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return (low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float64)).to(dtype)

    fields = {}
    for side in ("chosen", "rejected"):
        fields[f"len_{side}"] = torch.randint(1, 9, (n,), generator=generator)
        fields[f"logp_{side}"] = draw(-3, -0.2) * fields[f"len_{side}"]
        fields[f"ref_logp_{side}"] = draw(-3, -0.2) * fields[f"len_{side}"]
        fields[f"reward_{side}"] = draw(0, 1)
        fields[f"value_{side}"] = draw(0, 1)
    fields["weight"] = draw(0.5, 2)
    fields["kl_baseline"] = torch.tensor(0.7, dtype=dtype)
    return fields


def pair_batch(seed, n=5, dtype=torch.float64, clock=OPEN, **changes):
    """`pair_fields` as a batch, with `changes`; None takes a field away."""
    fields = {name: value for name, value in (pair_fields(seed, n, dtype) | changes).items() if value is not None}
    return Batch.from_fields(clock=clock, **fields)


def with_items(batch, **columns):
    """The batch with item columns replaced."""
    return Batch({**batch.items, **columns}, batch.pairs, batch.tokens, batch.statistics, batch.clock)


def gradients(objective, batch, names=("logp",), denominators=None):
    """The loss and its gradients in the item columns `names`; a column that is not reached has gradient 0."""
    leaves = [batch.item(name).detach().clone().requires_grad_() for name in names]
    held = with_items(batch, **dict(zip(names, leaves, strict=True)))
    total = objective.loss(held, denominators).total
    if not total.requires_grad:
        return total, [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    return total.detach(), [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


def minimise(loss, parameter, steps=400):
    """Minimise a smooth function of `parameter` (a leaf vector, changed in place): L-BFGS, then Newton steps."""
    optimiser = torch.optim.LBFGS(
        [parameter], max_iter=steps, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    optimiser.step(closure)
    for _ in range(3):
        (slope,) = torch.autograd.grad(loss(), parameter, create_graph=True)
        curvature = torch.stack([torch.autograd.grad(g, parameter, retain_graph=True)[0] for g in slope])
        parameter.data -= torch.linalg.pinv(curvature, hermitian=True, rtol=1e-10) @ slope.detach()


def all_pairs(n):
    """(P, 2) indices i < j of n responses."""
    return torch.combinations(torch.arange(n), 2)
