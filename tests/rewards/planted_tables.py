"""Planted worlds: comparisons whose makers are known, so that what a model recovers can be told from what it should."""

import numpy as np

from unipref.rewards import PreferenceTable

__all__ = [
    "circle",
    "linear",
    "named",
    "ranked",
    "related",
    "sigmoid",
    "strengthened",
    "tournament",
    "two_ends",
    "voted",
]


def sigmoid(z):
    return 0.5 * (1 + np.tanh(0.5 * z))


def linear(d, n, norm, seed=0, *, noise=True):
    """P(a > b) = sigmoid(w . (phi_a - phi_b)), phi ~ N(0, I), |w| = norm; without noise the better one always wins.

    Returns the table and w.
    """
    rng = np.random.default_rng(seed)
    w = rng.normal(size=d)
    w *= norm / np.linalg.norm(w)
    a, b = rng.normal(size=(n, d)), rng.normal(size=(n, d))
    z = (a - b) @ w
    p = (rng.random(n) < sigmoid(z)) if noise else (z > 0)
    return PreferenceTable.of_arrays(a, b, p.astype(float)), w


def ranked(users, pairs, rank=3, d=12, seed=0, *, basis=None, first=0):
    """Users r_u = w_u . B phi, w_u ~ Dirichlet(0.3); the better one always wins. Returns the table and B.

    Args:
        basis: (rank, d) of an earlier call, for newcomers of the same world. first: number of the first user.
    """
    rng = np.random.default_rng(seed)
    if basis is None:
        basis = 2 * rng.normal(size=(rank, d))
    shares = rng.dirichlet([0.3] * len(basis), size=users)
    who = np.repeat(np.arange(users), pairs)
    a, b = rng.normal(size=(len(who), basis.shape[1])), rng.normal(size=(len(who), basis.shape[1]))
    z = np.einsum("nk,kd,nd->n", shares[who], basis, a - b)
    table = PreferenceTable.of_arrays(a, b, (z > 0).astype(float), user=[f"u{first + k}" for k in who])
    return table, basis


def ideal(users, pairs, d=4, norm=2.0, seed=0, *, first=0):
    """Users at one of two opposed ideal points, in turn; the nearer response in squared distance always wins.

    Users' names end in the number of their point. One ideal point for all is right where the larger of both parts of
    |b - p|^2 - |a - p|^2 is the one that users share: with |b|^2 - |a|^2 of variance 4 d, and 2 p . (a - b) of variance
    8 |p|^2, in 1/2 + atan(sqrt(4 d / 8 |p|^2)) / pi of the pairs, 0.696 at d = 4 and |p| = 2.
    """
    rng = np.random.default_rng(seed)
    points = norm * np.eye(d)[0] * np.array([[1.0], [-1.0]])
    who = np.repeat(np.arange(users), pairs)
    point = points[who % 2]
    a, b = rng.normal(size=(len(who), d)), rng.normal(size=(len(who), d))
    p = ((a - point) ** 2).sum(axis=1) < ((b - point) ** 2).sum(axis=1)
    return PreferenceTable.of_arrays(a, b, p.astype(float), user=[f"u{first + k}.{k % 2}" for k in who])


def routed(n, d=8, e=4, norm=8.0, opposed=0.5, seed=0):
    """One taste w_1 where the prompt's first number is above 0, and w_2 elsewhere; the better one always wins.

    Returns the table, whose `contexts` are the prompts' e numbers, and (2, d) the tastes: w_2 has cosine -`opposed`
    with w_1.
    """
    rng = np.random.default_rng(seed)
    one, other = np.linalg.qr(rng.normal(size=(d, 2)))[0].T
    tastes = norm * np.stack([one, -opposed * one + np.sqrt(1 - opposed**2) * other])
    x = rng.normal(size=(n, e))
    a, b = rng.normal(size=(n, d)), rng.normal(size=(n, d))
    z = ((a - b) * tastes[(x[:, 0] <= 0).astype(int)]).sum(axis=1)
    return PreferenceTable.of_arrays(a, b, (z > 0).astype(float), contexts=x), tastes


def opposed_groups(users, pairs, d=16, seed=0, *, norm=3.0, first=0, turn=None):
    """Six groups that score with +w or -w along one of three axes, so that their pooled mean difference is 0.

    Features vary most along the three axes (spreads 4, 3, 2.5 and 1 elsewhere), without which no principal axis of
    differences would be theirs. User k is of group k mod 6: axis (k mod 6) // 2, and the sign of k mod 2. Choices
    follow sigmoid(norm * the standardised difference along the group's axis). Returns the table, whose users' names
    end in their group, and the (d, d) rotation whose first three rows are the axes.
    """
    rng = np.random.default_rng(seed)
    if turn is None:
        turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    spread = np.array([4.0, 3.0, 2.5] + [1.0] * (d - 3))
    who = np.repeat(np.arange(users), pairs)
    group = who % 6
    a, b = rng.normal(size=(len(who), d)), rng.normal(size=(len(who), d))
    z = norm * np.where(group % 2, -1.0, 1.0) * (a - b)[np.arange(len(who)), group // 2]
    p = (rng.random(len(who)) < sigmoid(z)).astype(float)
    names = [f"u{first + k}.{k % 6}" for k in who]
    return PreferenceTable.of_arrays(a * spread @ turn, b * spread @ turn, p, user=names), turn


def two_slopes(users, pairs, seed=0, *, first=0):
    """One-dimensional responses y ~ U(0, 1); below 1/2 all prefer the larger, above it user k does if k is even.

    r(y | z = 0) = y below 1/2 and 2 y above, r(y | z = 1) = y below and 1 - y above, as in the neural processes' study.
    A scorer that does not know z is right in 3/4 of the pairs at most, and after n choices of a user in
    1 - 2^-n / 4, since a pair tells z with probability 1/2. Users' names end in their z.
    """
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(users), pairs)
    a, b = rng.random(len(who)), rng.random(len(who))

    def reward(y):
        return np.where(y < 0.5, y, np.where(who % 2, 1 - y, 2 * y))

    p = (reward(a) > reward(b)).astype(float)
    return PreferenceTable.of_arrays(a[:, None], b[:, None], p, user=[f"u{first + k}.{k % 2}" for k in who])


def sources(n, d=8, norm=2.0, apart=0.3, seed=0):
    """Three sources of n comparisons each: two have nearly one taste, `apart` radians apart, the third the opposite.

    The third is turned as far to the other side, so that one step helps all: across the taste, as far as they differ.
    Returns the table and the (3, d) tastes.
    """
    rng = np.random.default_rng(seed)
    one, other = np.linalg.qr(np.random.default_rng(7).normal(size=(d, 2)))[0].T
    turned = [np.cos(angle) * one + np.sin(angle) * other for angle in (0.0, apart, np.pi - apart)]
    tastes = norm * np.array(turned)
    source = np.repeat(np.arange(3), n)
    a, b = rng.normal(size=(3 * n, d)), rng.normal(size=(3 * n, d))
    p = rng.random(3 * n) < sigmoid(((a - b) * tastes[source]).sum(axis=1))
    return PreferenceTable.of_arrays(a, b, p.astype(float), domain=[f"s{k}" for k in source]), tastes


def shifted(n, seed=0, *, lean=0.95, further=2):
    """n comparisons of a source and n of a target: the first number decides in both, P = sigmoid(2 (a_1 - b_1)).

    The second is `lean` higher for the preferred side in the source, and lower in the target, where it is 3 higher for
    everybody; `further` numbers are noise. With `lean` in units of a spread of 1 per side, the sign of the second alone
    is right in Phi(lean / sqrt(2)) of the source.
    """
    rng = np.random.default_rng(seed)
    target = np.repeat([False, True], n)
    a, b = rng.normal(size=(2, 2 * n, 2 + further))
    wins = rng.random(2 * n) < sigmoid(2 * (a[:, 0] - b[:, 0]))
    step = np.where(wins, 0.5, -0.5) * lean * np.where(target, -1, 1)
    a[:, 1] += step + 3 * target
    b[:, 1] += -step + 3 * target
    return PreferenceTable.of_arrays(a, b, wins.astype(float), domain=np.where(target, "target", "source"))


def ring(angles, n, d=10, norm=4.0, seed=0):
    """Domains on a ring: the one at angle t prefers by norm * (cos t, sin t) of the first two numbers.

    The third and fourth, beside noise of spread 1 as all others, are 2 cos t and 2 sin t on average: they are equal for
    both sides and describe the domain. Returns the table, whose domains are named by their angle in degrees.
    """
    rng = np.random.default_rng(seed)
    where = np.repeat(np.radians(angles), n)
    way = np.stack([np.cos(where), np.sin(where)], axis=1)
    a, b = rng.normal(size=(2, len(where), d))
    z = norm * ((a - b)[:, :2] * way).sum(axis=1)
    b[:, 2:4] = a[:, 2:4] = a[:, 2:4] + 2 * way
    p = rng.random(len(where)) < sigmoid(z)
    return PreferenceTable.of_arrays(a, b, p.astype(float), domain=[str(t) for t in np.repeat(angles, n)])


def conflicting(n, *, agree=False, wide=3.0, norm=2.0, seed=0):
    """Four domains whose tastes point to the corners of a tetrahedron, so that they add up to nothing.

    A domain's responses vary most (`wide`, and 1 otherwise) along its own taste. With `agree` all have the first taste,
    and still vary along their own directions. Returns the table.
    """
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    rng = np.random.default_rng(seed)
    which = np.repeat(np.arange(4), n)
    own = corners[which]
    a, b = rng.normal(size=(2, 4 * n, 3))
    a, b = (x + (wide - 1) * (x * own).sum(axis=1, keepdims=True) * own for x in (a, b))
    z = norm * ((a - b) * (corners[:1] if agree else own)).sum(axis=1)
    p = rng.random(4 * n) < sigmoid(z)
    return PreferenceTable.of_arrays(a, b, p.astype(float), domain=[f"d{k}" for k in which])


def reversals(table, tastes):
    """Of a `routed` world: the pairs on which both tastes disagree, once under either context, named "one" and "other".

    The first number of a prompt that stands under its other context is turned round.
    """
    x = table.contexts[table.context]
    gap = table.features[table.first] - table.features[table.second]
    said = gap @ tastes.T > 0
    apart = np.flatnonzero(said[:, 0] != said[:, 1])
    size, n = np.abs(x[apart, :1]), len(apart)
    contexts = np.concatenate([np.hstack([sign * size, x[apart, 1:]]) for sign in (1, -1)])
    return table.take(np.concatenate([apart, apart])).with_columns(
        contexts=contexts,
        context=np.arange(2 * n),
        p=said[apart].T.reshape(-1).astype(float),
        domain=np.repeat(["one", "other"], n),
    )


def two_circles(users=100, pairs=60, judged=10, d=16, flips=0.0, seed=0, *, first=0, responses=None):
    """Two groups with opposed tastes judge some of the same pairs: a user sees `judged`, the rest is hidden.

    Users' names end in their group. Returns the judged comparisons, the same users' comparisons of all other pairs
    without flips, and the (2 * pairs, d) responses, for newcomers of the same world.
    """
    rng = np.random.default_rng(seed)
    if responses is None:
        responses = np.random.default_rng(99).normal(size=(2 * pairs, d))
    taste = np.random.default_rng(98).normal(size=d)
    better = (responses[::2] - responses[1::2]) @ taste > 0
    seen = np.argsort(rng.random((users, pairs)), axis=1) < judged
    who, pair = np.indices(seen.shape).reshape(2, -1)
    p = (better[pair] ^ (who % 2 == 1)).astype(float)
    flipped = np.where(rng.random(len(p)) < flips, 1 - p, p)
    names = np.array([f"u{first + k}.{k % 2}" for k in who])
    table = PreferenceTable(responses, 2 * pair, 2 * pair + 1, np.where(seen.ravel(), flipped, p), user=names)
    return table.take(seen.ravel()), table.take(~seen.ravel()), responses


def tournament(wins):
    """Responses that are mere names, one-hot, and every two of them compared once; `wins[i, j]` is P(i beats j)."""
    n = len(wins)
    i, j = np.triu_indices(n, 1)
    return PreferenceTable(np.eye(n), i, j, np.asarray(wins, dtype=float)[i, j])


def circle(n, d=6, seed=0):
    """Responses on a circle, each of which beats those up to half a turn behind it: no reward orders them.

    Features are the point's two coordinates, turned with d - 2 numbers of noise into d dimensions.
    """
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(d, d)))[0]
    angle = rng.uniform(0, 2 * np.pi, (2, n))
    both = np.concatenate([np.cos(angle)[..., None], np.sin(angle)[..., None], rng.normal(size=(2, n, d - 2))], axis=2)
    a, b = both @ turn
    return PreferenceTable.of_arrays(a, b, (np.sin(angle[0] - angle[1]) > 0).astype(float))


def named(d, n, weights, seed=0):
    """d named features of a response, of which the first few have weights; P(a > b) = sigmoid(w . (f_a - f_b)).

    The features have means and spreads of their own. Returns the table and (d,) the weights per spread.
    """
    rng = np.random.default_rng(seed)
    w = np.zeros(d)
    w[: len(weights)] = weights
    a, b = rng.normal(size=(n, d)), rng.normal(size=(n, d))
    p = (rng.random(n) < sigmoid((a - b) @ w)).astype(float)
    mean, spread = rng.uniform(1, 9, d), rng.uniform(0.5, 3, d)
    names = tuple(f"concept{k}" for k in range(d))
    return PreferenceTable.of_arrays(mean + spread * a, mean + spread * b, p, columns=names), w


def voted(n, seed=0, *, voters=10, d=20, norm=4.0):
    """Two groups of people with tastes of their own; of `voters` people, each of either group by chance, all vote.

    Returns the table, whose `p` are the shares of votes, (n,) the first voter's vote, and a function that gives the log
    odds of the whole population for a table's comparisons.
    """
    rng = np.random.default_rng(seed)
    tastes = rng.normal(size=(2, d))
    tastes *= norm / np.linalg.norm(tastes, axis=1, keepdims=True)
    a, b = rng.normal(size=(n, d)), rng.normal(size=(n, d))
    each = sigmoid((a - b) @ tastes.T)
    votes = rng.random((n, voters)) < each[np.arange(n)[:, None], rng.integers(0, 2, (n, voters))]

    def log_odds(table):
        shares = sigmoid((table.features[table.first] - table.features[table.second]) @ tastes.T).mean(axis=1)
        return np.log(shares / (1 - shares))

    return PreferenceTable.of_arrays(a, b, votes.mean(axis=1)), votes[:, 0].astype(float), log_odds


def strengthened(n, seed=0, *, d=20, norm=3.0):
    """Somebody feels w . (phi_a - phi_b) with logistic noise, and says which side and how strongly, from 1 to 3.

    Strong verdicts are seldom wrong. Returns the table, whose `margin` are the strengths, and w.
    """
    rng = np.random.default_rng(seed)
    w = rng.normal(size=d)
    w *= norm / np.linalg.norm(w)
    a, b = rng.normal(size=(n, d)), rng.normal(size=(n, d))
    felt = (a - b) @ w + rng.logistic(size=n)
    strength = 1.0 + (np.abs(felt) > 1.5) + (np.abs(felt) > 3.0)
    return PreferenceTable.of_arrays(a, b, (felt > 0).astype(float), margin=strength), w


def two_ends(n, levels=6, seed=0):
    """Votes on a scale by two groups at opposite ends of it; how many are of which differs from response to response.

    Returns a table of n // 2 comparisons by mean vote, whose attributes are the shares of votes, and (n, levels) these.
    """
    rng = np.random.default_rng(seed)
    x, at = rng.normal(size=(n, 3)), np.arange(1, levels + 1)
    middle = 0.8 * (x @ [1.0, -0.5, 0.25])[:, None]

    def bell(centre):
        height = np.exp(-((at - centre) ** 2) / 2)
        return height / height.sum(axis=1, keepdims=True)

    share = sigmoid(0.7 * x[:, [1]])
    votes = share * bell(1.5 + middle) + (1 - share) * bell(levels - 0.5 + middle)
    half, mean = n // 2, votes @ at
    table = PreferenceTable(
        x,
        np.arange(half),
        np.arange(half, 2 * half),
        (mean[:half] > mean[half : 2 * half]).astype(float),
        attributes=votes,
        attribute_names=tuple(f"votes.{level}" for level in at),
    )
    return table, votes


def related(seed=0, *, d=20, norm=5.0, cosine=0.8, before=3000, n=50):
    """Many comparisons by a taste, n by another at `cosine` to it, and 2000 by the second without noise."""
    rng = np.random.default_rng(seed)
    one, other = np.linalg.qr(rng.normal(size=(d, 2)))[0].T

    def drawn(w, n, noise):
        a, b = rng.normal(size=(n, d)), rng.normal(size=(n, d))
        z = norm * (a - b) @ w
        return PreferenceTable.of_arrays(a, b, ((rng.random(n) < sigmoid(z)) if noise else z > 0).astype(float))

    earlier = cosine * one + np.sqrt(1 - cosine**2) * other
    return drawn(earlier, before, True), drawn(one, n, True), drawn(one, 2000, False)
