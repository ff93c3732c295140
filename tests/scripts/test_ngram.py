"""The 5-gram yardstick: a probability distribution after every context, equal to arithmetic done by hand."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "ngram.py"


@pytest.fixture(scope="module")
def kneser_ney():
    spec = importlib.util.spec_from_file_location("unipref_scripts_ngram", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name while the class body is made
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module.KneserNey


def random_documents(*, n_documents: int, n_vocab: int, seed: int) -> list[tuple[np.ndarray, int]]:
    rng = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, n_vocab)
    draws = [rng.choice(np.arange(1, n_vocab), size=rng.integers(1, 30), p=weights / weights.sum())
             for _ in range(n_documents)]  # fmt: skip
    return [(np.concatenate([[0], d]), 1) for d in draws]


A, B, C, START = 1, 2, 3, 0


def test_bigram_probabilities_equal_hand_arithmetic(kneser_ney):
    # Documents: <s> a b a b c   and   <s> a c.   Bigrams: <s>a 2, ab 2, ba 1, bc 1, ac 1. One discount, 1/2.
    documents = [(np.array([START, A, B, A, B, C]), 1), (np.array([START, A, C]), 1)]
    model = kneser_ney.fit(documents, order=2, n_vocab=4, discounts=(0.5, 0.5, 0.5))
    # Distinct predecessors: a has {<s>, b} = 2, b has {a} = 1, c has {b, a} = 2; five bigram types, three word types.
    uniform = 1 / 4
    p_a = (2 - 0.5) / 5 + (3 * 0.5 / 5) * uniform
    p_b = (1 - 0.5) / 5 + (3 * 0.5 / 5) * uniform
    p_c = (2 - 0.5) / 5 + (3 * 0.5 / 5) * uniform
    p_start = (3 * 0.5 / 5) * uniform
    # After a: b twice, c once, total 3, two types.
    after_a = [(2 * 0.5 / 3) * p_start, (2 * 0.5 / 3) * p_a,
               (2 - 0.5) / 3 + (2 * 0.5 / 3) * p_b, (1 - 0.5) / 3 + (2 * 0.5 / 3) * p_c]  # fmt: skip
    np.testing.assert_allclose(model.next_probs(np.array([START, A])), after_a, rtol=1e-12)
    # After c nothing was seen: the unigram distribution, undiminished.
    np.testing.assert_allclose(model.next_probs(np.array([START, C])), [p_start, p_a, p_b, p_c], rtol=1e-12)


def test_a_document_start_keeps_its_plain_count_below_the_highest_order(kneser_ney):
    # <s> a twice and <s> b once begin documents; as bigrams of a trigram model nothing can precede them.
    documents = [(np.array([START, A, B]), 1), (np.array([START, A, C]), 1), (np.array([START, B, C]), 1)]
    model = kneser_ney.fit(documents, order=3, n_vocab=4, discounts=(0.5, 0.5, 0.5))
    # Unigrams by distinct predecessors: a {<s>} = 1, b {a, <s>} = 2, c {a, b} = 2.
    p_a = (1 - 0.5) / 5 + (3 * 0.5 / 5) / 4
    expected = (2 - 0.5) / 3 + (2 * 0.5 / 3) * p_a
    assert model.next_probs(np.array([START]))[A] == pytest.approx(expected, rel=1e-12)


def test_modified_discounts_depend_on_the_count(kneser_ney):
    # Unigram model: a once, b twice, c three times, total 6; D1, D2, D3 = 0.2, 0.4, 0.9.
    model = kneser_ney.fit([(np.array([START, A, B, B, C, C, C]), 1)], order=1, n_vocab=4, discounts=(0.2, 0.4, 0.9))
    spare = (0.2 + 0.4 + 0.9) / 6 / 4
    expected = [spare, 0.8 / 6 + spare, 1.6 / 6 + spare, 2.1 / 6 + spare]
    np.testing.assert_allclose(model.next_probs(np.array([START])), expected, rtol=1e-12)


def test_probabilities_after_every_context_sum_to_one(kneser_ney):
    n_vocab = 30
    documents = random_documents(n_documents=200, n_vocab=n_vocab, seed=3)
    model = kneser_ney.fit(documents, order=5, n_vocab=n_vocab, discounts=(0.6, 0.9, 1.2))
    estimated = kneser_ney.fit(random_documents(n_documents=2000, n_vocab=300, seed=3), order=3, n_vocab=300)
    seen = [documents[i][0][:k] for i in range(5) for k in range(1, 6)]
    rng = np.random.default_rng(4)
    unseen = [np.concatenate([[0], rng.integers(0, n_vocab, size=6)]) for _ in range(10)]
    for context in [*seen, *unseen]:
        for fitted in (model, estimated):
            probs = fitted.next_probs(context)
            assert probs.sum() == pytest.approx(1.0, abs=1e-9)
            assert probs.min() > 0


def test_tokens_before_start_are_context_but_not_counted(kneser_ney):
    shared = np.array([START, A, B])
    twice = [(shared, 1), (np.append(shared, C), 3)]
    once = [(np.append(shared, C), 1)]
    fits = [kneser_ney.fit(d, order=3, n_vocab=4, discounts=(0.5, 0.5, 0.5)) for d in (twice, once)]
    for context in ([START], [START, A], [START, A, B]):
        np.testing.assert_allclose(*(fit.next_probs(np.array(context)) for fit in fits), rtol=1e-12)


def test_nats_sum_the_scored_tokens_of_each_document_alone(kneser_ney):
    documents = random_documents(n_documents=50, n_vocab=20, seed=5)
    model = kneser_ney.fit(documents, order=3, n_vocab=20, discounts=(0.6, 0.9, 1.2))
    scored = [(ids, 1 + i % 2) for i, (ids, _) in enumerate(documents[:6]) if len(ids) > 2]
    together = model.nats(scored)
    for (ids, start), nats in zip(scored, together, strict=True):
        slow = -sum(np.log(model.next_probs(ids[:t])[ids[t]]) for t in range(start, len(ids)))
        assert nats == pytest.approx(slow, rel=1e-12)


def test_a_corpus_too_small_for_estimated_discounts_is_an_error(kneser_ney):
    with pytest.raises(ValueError, match="give `discounts`"):
        kneser_ney.fit([(np.array([START, A, B]), 1)], order=2, n_vocab=4)
