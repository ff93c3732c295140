"""Interpolated modified Kneser-Ney n-gram model over token ids: the yardstick the bundled model has to beat.

How the smoothing works, for a word w after a context h (Chen and Goodman 1999, Eq. 20-26; Kneser and Ney 1995):

    p_n(w | h) = max(c(h w) - D(c(h w)), 0) / sum_v c(h v)  +  gamma(h) * p_{n-1}(w | h without its first token)

- The discount D takes a little from every n-gram that was seen: D1 from those with count 1, D2 from count 2 and D3
  from all higher counts. With n_k the number of n-grams of count k and Y = n_1 / (n_1 + 2 n_2), the estimates are
  D1 = 1 - 2 Y n_2/n_1, D2 = 2 - 3 Y n_3/n_2 and D3 = 3 - 4 Y n_4/n_3.
- gamma(h) is exactly what the discounts took after h, so the probabilities after every context sum to one. A context
  that was never seen passes the whole probability to the next shorter one.
- Below the highest order c is not how often an n-gram occurs but how many different tokens precede it: "Francisco"
  is frequent, yet nearly always after "San", so it is an unlikely word after an unseen context. An n-gram that starts
  a document has nothing before it and keeps its plain count.
- Below the unigrams lies the uniform distribution over the vocabulary.

Token ids are numpy arrays throughout. An n-gram is known by the number of its first n-1 tokens (their place among the
distinct (n-1)-grams) and its last token, packed into one int64, so that each order is one sorted array.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["KneserNey"]

Documents = Sequence[tuple[np.ndarray, int]]


@dataclass(frozen=True)
class _Order:
    """All n-grams of one order, sorted by `keys`; contexts are numbered as the n-grams of the order below."""

    keys: np.ndarray  # (n-grams,) context number * n_vocab + last token
    discounted: np.ndarray  # (n-grams,) count minus discount
    context_total: np.ndarray  # (contexts,) sum of counts after the context
    context_gamma: np.ndarray  # (contexts,) share of the mass that the discounts took; 1 where nothing was seen


def _concatenate(documents: Documents) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One long token array, each token's place in its document, and whether it is counted or scored."""
    tokens = np.concatenate([np.asarray(ids, dtype=np.int64) for ids, _ in documents])
    place = np.concatenate([np.arange(len(ids)) for ids, _ in documents])
    counted = np.concatenate([np.arange(len(ids)) >= start for ids, start in documents])
    return tokens, place, counted


def _discounts(counts: np.ndarray, *, order: int) -> tuple[float, float, float]:
    """D1, D2, D3 of one order.

    Raises:
        ValueError: of some order above 1, no n-gram occurs once, twice, three or four times, so that the estimates do
            not exist.
    """
    n1, n2, n3, n4 = (int((counts == k).sum()) for k in (1, 2, 3, 4))
    if not (n1 and n2 and n3 and n4):
        if order == 1:
            return 0.5, 1.0, 1.5  # a subword vocabulary may hold no rare token; KenLM falls back on the same numbers
        raise ValueError(
            f"estimating discounts needs n-grams of count 1, 2, 3 and 4, found {(n1, n2, n3, n4)}; "
            "give `discounts` for a corpus this small"
        )
    y = n1 / (n1 + 2 * n2)
    estimates = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    # An odd corpus can push an estimate outside the range in which gamma is a probability.
    return tuple(min(max(d, 0.0), float(k)) for k, d in zip((1, 2, 3), estimates, strict=True))


@dataclass(frozen=True)
class KneserNey:
    """Interpolated modified Kneser-Ney model; build it with `fit`."""

    orders: tuple[_Order, ...]
    n_vocab: int

    @classmethod
    def fit(
        cls,
        documents: Documents,
        *,
        order: int,
        n_vocab: int,
        discounts: tuple[float, float, float] | None = None,
    ) -> "KneserNey":
        """Model of the n-grams in `documents`.

        Args:
            documents: (token ids, start) each. N-grams whose last token lies before `start` are not counted; with
                start 1 the first token is only ever a context. No n-gram reaches across documents.
            order: length of the longest n-gram.
            n_vocab: number of token ids; the model gives each of them a probability above zero.
            discounts: D1, D2, D3 for every order, in place of the estimates from each order's counts.

        Raises:
            ValueError: a corpus too small to estimate discounts from, and none given.
        """
        tokens, place, counted = _concatenate(documents)
        keys_by_order, raw_counts, suffixes, starts_document = [], [], [], []
        number = np.zeros(len(tokens), dtype=np.int64)  # which (n-1)-gram ends here; order 0 has one, the empty one
        for n in range(1, order + 1):
            before = np.concatenate([[0], number[:-1]]) if n > 1 else np.zeros(len(tokens), dtype=np.int64)
            here = place >= n - 1
            packed = before[here] * n_vocab + tokens[here]
            # Uncounted n-grams get a number too (count zero): they are contexts of counted ones.
            keys, first, inverse = np.unique(packed, return_index=True, return_inverse=True)
            keys_by_order.append(keys)
            raw_counts.append(np.bincount(inverse, weights=counted[here], minlength=len(keys)))
            suffixes.append(number[here][first])  # the same n-gram without its first token
            at_start = np.zeros(len(keys), dtype=bool)
            at_start[inverse[place[here] == n - 1]] = True
            starts_document.append(at_start)
            number = np.full(len(tokens), -1, dtype=np.int64)
            number[here] = inverse

        counts_by_order = list(raw_counts)
        for n in range(order - 1, 0, -1):
            seen_longer = raw_counts[n] > 0
            preceding = np.bincount(suffixes[n][seen_longer], minlength=len(raw_counts[n - 1])).astype(float)
            # Nothing precedes the start of a document, so there the plain count is the only evidence.
            alone = starts_document[n - 1] & (preceding == 0)
            counts_by_order[n - 1] = np.where(alone, raw_counts[n - 1], preceding)

        built = []
        for n, (keys, counts) in enumerate(zip(keys_by_order, counts_by_order, strict=True), start=1):
            d = np.array([0.0, *(discounts or _discounts(counts, order=n))])
            taken = d[np.minimum(counts, 3).astype(int)]
            contexts = keys // n_vocab
            n_contexts = 1 if n == 1 else len(keys_by_order[n - 2])
            total = np.bincount(contexts, weights=counts, minlength=n_contexts)
            lost = np.bincount(contexts, weights=taken, minlength=n_contexts)
            gamma = np.divide(lost, total, out=np.ones(n_contexts), where=total > 0)
            built.append(_Order(keys, counts - taken, total, gamma))
        return cls(tuple(built), n_vocab)

    def token_probs(self, documents: Documents) -> np.ndarray:
        """Probability of every token of `documents` given the tokens before it in its document, in one long array.

        Each document's first token is given the empty context. `start` is ignored.
        """
        tokens, place, _ = _concatenate(documents)
        probs = np.full(len(tokens), 1.0 / self.n_vocab)
        number = np.zeros(len(tokens), dtype=np.int64)
        for n, order in enumerate(self.orders, start=1):
            before = np.concatenate([[0], number[:-1]]) if n > 1 else np.zeros(len(tokens), dtype=np.int64)
            before[place < n - 1] = -1  # would reach back into the previous document
            packed = before * self.n_vocab + tokens
            at = np.minimum(np.searchsorted(order.keys, packed), len(order.keys) - 1)
            found = (before >= 0) & (order.keys[at] == packed)
            number = np.where(found, at, -1)
            usable = (before >= 0) & (order.context_total[before] > 0)
            held = np.where(found, order.discounted[at], 0.0)[usable]
            context = before[usable]
            probs[usable] = held / order.context_total[context] + order.context_gamma[context] * probs[usable]
        return probs

    def nats(self, documents: Documents) -> np.ndarray:
        """Negative log-likelihood of each document's tokens from its `start` on, in nats."""
        logs = -np.log(self.token_probs(documents))
        ends = np.cumsum([len(ids) for ids, _ in documents])
        return np.array(
            [logs[end - len(ids) + start : end].sum() for (ids, start), end in zip(documents, ends, strict=True)]
        )

    def next_probs(self, context: np.ndarray) -> np.ndarray:
        """(n_vocab,) probability of each token after `context`, taken as the beginning of a document."""
        rows = [(np.append(np.asarray(context, dtype=np.int64), v), 0) for v in range(self.n_vocab)]
        length = len(context) + 1
        return self.token_probs(rows)[length - 1 :: length]
