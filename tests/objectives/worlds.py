"""Small worlds for objectives: seeded random fields, every method of the catalogue, and exact minimisation."""

from dataclasses import replace

import torch

from unipref.core.batch import Batch, Clock
from unipref.core.cards import list_methods
from unipref.core.errors import ConfigError
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
    for base in BASES:
        of_one_head = {"value": "none"} if "value" in as_objective(cards[base].build()).heads else {}
        try:
            on_it = upo(base=base, base_margin=0.2, **of_one_head)
        except ConfigError:  # nothing to shift, or parts of responses
            on_it = upo(base=base, **of_one_head)
        both = {**cards[base].exceptions, **cards["upo"].exceptions}  # what the base breaks stays broken
        found.append((f"upo({base})", on_it, replace(cards["upo"], exceptions=both)))
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


def batch_for(objective, seed, n=5, dtype=torch.float64, clock=OPEN, **changes):
    """`pair_batch` with whatever else `objective` reads: further columns, roles, tokens and states' values."""
    fields = pair_fields(seed, n, dtype) | changes
    draw = _Draw(seed, dtype)
    texts = ("chosen", "rejected", *objective.roles)
    for role in objective.roles:
        fields.setdefault(f"len_{role}", draw.integers(n, 1, 9))
        for name in ("logp", "ref_logp"):
            fields.setdefault(f"{name}_{role}", draw.between(n, -3, -0.2) * fields[f"len_{role}"])
    special = {
        "rank": lambda text: torch.full((n,), float(texts.index(text) + 1), dtype=dtype),
        "uid": lambda text: torch.arange(n) + 1000 * texts.index(text),
        "degree": lambda text: draw.integers(n, 0, 3).to(dtype),
        "degree_head": lambda text: draw.between(3 * n, -1, 1).reshape(n, 3),
        "embedding": lambda text: draw.again("embedding").between(4 * n, -1, 1).reshape(n, 4),
    }
    present = {"label", "weight", "group", "len", "role", "preference", "margin"}
    known = {name.rsplit("_", 1)[0] for name in fields if name.endswith(("_chosen", "_rejected"))}
    for name in sorted(objective.needs - present):
        for text in texts:
            if name.startswith("ref_logp."):
                value = draw.between(n, -3, -0.2) * fields[f"len_{text}"]
            elif name in special:
                value = special[name](text)
            elif name in known and text in ("chosen", "rejected"):
                continue
            else:
                value = draw.between(n, 0.05, 1)
            fields.setdefault(f"{name}_{text}", value)
    for state in objective.states:
        for i, name in enumerate(state.values(None)):
            fields.setdefault(name, torch.tensor((0.2, 0.9, 0.4)[i], dtype=dtype))
    fields = {name: value for name, value in fields.items() if value is not None}
    batch = Batch.from_fields(clock=clock, **fields)
    return with_tokens(batch, objective.token_needs, seed) if objective.token_needs else batch


class _Draw:
    def __init__(self, seed, dtype):
        self.seed, self.dtype = seed, dtype
        self.generator = torch.Generator().manual_seed(1000 + seed)

    def again(self, name):
        """A stream of its own, the same for both sides of a pair."""
        return _Draw(self.seed + sum(map(ord, name)), self.dtype)

    def between(self, n, low, high):
        return (low + (high - low) * torch.rand(n, generator=self.generator, dtype=torch.float64)).to(self.dtype)

    def integers(self, n, low, high):
        return torch.randint(low, high, (n,), generator=self.generator)


def with_tokens(batch, names, seed):
    """The batch with token columns that add up to its sums."""
    draw = _Draw(5000 + seed, batch.item("logp").dtype)
    length = batch.item("len").long()
    item = torch.repeat_interleave(torch.arange(len(length)), length)
    place = torch.arange(len(item)) - (length.cumsum(0) - length)[item]
    share = draw.between(len(item), 0.5, 1.5)
    share = share / share.new_zeros(len(length)).index_add(0, item, share)[item]
    tokens = {"item": item}
    for name in sorted({"logp", *names}):
        if name == "logp" or name.startswith("ref_logp"):
            tokens[name] = share * batch.item(name)[item]
        elif name == "segment":
            tokens[name] = (place // 2).to(draw.dtype)
        elif name == "segment_score":  # one number for all tokens of a segment
            tokens[name] = draw.between(len(item), 0, 1.5)[torch.arange(len(item)) - place % 2]
        elif name in ("diff", "fresh"):
            tokens[name] = (draw.between(len(item), 0, 1) < 0.5).to(draw.dtype)
        else:
            tokens[name] = draw.between(len(item), 0, 1.5)
    return Batch(batch.items, batch.pairs, tokens, batch.statistics, batch.clock)


def subset(batch, records):
    """The batch with only the records `records`, numbered anew; one that is named twice stands twice."""
    texts = torch.bincount(batch.item("group"), minlength=1).max()  # items of a record, from_fields order
    n = len(batch.item("group")) // max(int(texts), 1)
    rows = torch.tensor([p + n * text for text in range(int(texts)) for p in records], dtype=torch.long)
    items = {name: value[rows] for name, value in batch.items.items()}
    items["group"] = torch.arange(len(records)).repeat(int(texts))
    pairs = {name: value[rows[: len(records)]] for name, value in batch.pairs.items()}
    pairs |= {"chosen": torch.arange(len(records)), "rejected": torch.arange(len(records)) + len(records)}
    tokens = {}
    if batch.tokens:
        where = [(batch.tokens["item"] == row).nonzero()[:, 0] for row in rows]
        order = torch.cat(where) if where else rows
        tokens = {name: value[order] for name, value in batch.tokens.items()}
        tokens["item"] = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor([len(w) for w in where]).long())
    return Batch(items, pairs, tokens, batch.statistics, batch.clock)


def items_of(batch, records):
    """(n,) items of the records `records`, in the order that `subset` gives them."""
    n = int(batch.item("group").max()) + 1
    texts = len(batch.item("group")) // n
    return torch.tensor([p + n * text for text in range(texts) for p in records], dtype=torch.long)


def with_items(batch, **columns):
    """The batch with item columns replaced; a response's new log-probability is shared equally by its tokens."""
    tokens = dict(batch.tokens)
    for name, value in columns.items():
        if name in tokens and name in batch.items:
            item, length = tokens["item"], batch.item("len").clamp(min=1)
            tokens[name] = tokens[name] + ((value - batch.item(name)) / length)[item]
    return Batch({**batch.items, **columns}, batch.pairs, tokens, batch.statistics, batch.clock)


def with_weights(batch, weight):
    """The batch with the (P,) example weights `weight`, whatever the pairs' further texts are."""
    texts = len(batch.item("group")) // len(weight)
    items = {**batch.items, "weight": weight.repeat(texts)}
    return Batch(items, {**batch.pairs, "weight": weight}, batch.tokens, batch.statistics, batch.clock)


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
