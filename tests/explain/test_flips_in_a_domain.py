"""What would have turned a verdict round is something that pairs of its own domain do."""

import numpy as np
from worlds_of_text import records

from unipref.data.pairs import Pairs
from unipref.explain.explanation import explain
from unipref.explain.study import Settings
from unipref.features.concepts import Concept, PairValues, ngram_values


def test_a_flip_moves_only_what_differs_in_pairs_of_the_same_domain():
    pairs = Pairs.of(records(200))
    law = pairs.domain == "law"
    rng = np.random.default_rng(0)
    # a form that only law has, and that goes with winning there: shared, so that it has a weight in food too
    form = np.where(law, np.sign(pairs.p - 0.5) * rng.choice([0.0, 1.0], len(pairs)), 0.0)
    tables = [
        PairValues((Concept("form", "form", "more"),), form[:, None]),
        ngram_values(["zap", "lex", "ghee"], pairs.first.tolist(), pairs.second.tolist()),
    ]
    told = explain(pairs, tables, settings=Settings(resamples=2, n_grams=0), show=80).told
    assert told["shared"]["form"]["weight"] > 0.1
    moved = {domain: [] for domain in ("law", "food")}
    for pair in told["pairs"]:
        moved[pair["domain"]] += [concept for concept, _, _ in pair["flip"]["changes"]]
    assert "form" in moved["law"]
    assert moved["food"]
    assert "form" not in moved["food"]
