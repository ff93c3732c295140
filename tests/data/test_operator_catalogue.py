"""Published operators: laws that all of them keep, and what each of them says by hand."""

import copy
import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
from data_templates import CHATML
from hypothesis import given
from hypothesis import strategies as st

from unipref.core.cards import get_method, list_methods
from unipref.core.errors import ConfigError, DataError
from unipref.core.records import Comparison, Item, Message, Record
from unipref.data import Chain, Operator, encode_records, read_records
from unipref.data import catalogue as ops
from unipref.data.catalogue.pseudo_labels import last_number, majority
from unipref.data.catalogue.rejection_sample import accepted
from unipref.data.conditioning import put_before
from unipref.data.selection import cover_cost, distances, hashed_tfidf, k_medoids, k_medoids_exact


def pair(k: int, **columns) -> Record:
    sides = {
        f"{name}_{side}": value[i] for name, value in columns.items() for i, side in enumerate(("chosen", "rejected"))
    }
    row = {"prompt": f"p{k}", "chosen": f"good {k}. Yes.", "rejected": f"bad {k}. No.", "gold": "g", **sides}
    return read_records([{"id": f"pair{k}", "domain": f"d{k % 2}", "annotator": "ann", **row}])[0][0]


def rows(k: int, n: int = 6) -> Record:
    rng = random.Random(k)
    fields = {name: [rng.randint(0, 5) for _ in range(n)] for name in ("rewards", "help", "honest", "passed")}
    answers = [f"So it is {rng.randint(0, 2)}" + "." * i for i in range(n)]
    row = {"id": f"list{k}", "prompt": f"q{k}", "responses": answers, "gold": "g", "tests": [5] * n, **fields}
    return read_records([row])[0][0]


PAIRS = [pair(k, score=(k % 4, 1), judge=(0.9, 0.3), epsilon=(0.2, 0.2)) for k in range(8)]
LISTS = [rows(k) for k in range(8)]
TREES = read_records(
    [
        {
            "id": f"tree{k}",
            "prompt": f"t{k}",
            "nodes": [
                {"id": 0, "text": " s", "v": 3, "q": 1},
                {"id": 1, "text": " o", "v": k % 3, "q": 0},
                {"id": 2, "parent": 0, "text": " e f", "reward": 1, "v": 1},
                {"id": 3, "parent": 1, "text": " h", "reward": 0},
            ],
        }
        for k in range(4)
    ]
)[0]
ANSWERS = read_records(
    [{"id": f"answer{k}", "prompt": f"q{k // 3}", "completion": f"y{k}", "domain": f"d{k % 3}"} for k in range(9)]
)[0]
CASES = {
    "ab_question": ({"by": "domain"}, PAIRS),
    "axiomatic": ({}, PAIRS),
    "best_of_directions": ({"by": ("help", "honest"), "draws": 2}, LISTS + PAIRS),
    "chunk": ({"part": 1, "parts": 3, "by": "score"}, PAIRS + LISTS),
    "conditioned": (
        {"conditions": {"d0": "Be short.", "d1": "Be long."}, "counterfactual": {"d0": "d1"}},
        [*PAIRS, *LISTS],
    ),
    "controllable": ({"objectives": ("help", "honest")}, LISTS + PAIRS),
    "cross_pairs": ({"draws": 1}, ANSWERS + PAIRS),
    "degrade": ({"n": 1}, PAIRS + LISTS),
    "few_shot": ({"shots": 2}, PAIRS),
    "goal_conditioned": ({}, PAIRS + LISTS),
    "joint": ({}, PAIRS + LISTS),
    "mine_pairs": ({"cap": 2}, LISTS + PAIRS),
    "persona_weights": ({"target": "ann"}, PAIRS + LISTS),
    "pseudo_labels": ({"tau": 0.4}, LISTS + PAIRS),
    "rejection_sample": ({"k": 4}, LISTS + PAIRS),
    "segment": ({"score": "score"}, PAIRS + LISTS),
    "select_negatives": ({}, LISTS + PAIRS),
    "soft_labels": ({}, PAIRS + LISTS),
    "threshold": ({}, LISTS + PAIRS),
    "tree_leaves": ({}, TREES),
    "tree_prefixes": ({}, TREES),
    "tree_siblings": ({}, TREES),
    "tree_steps": ({}, TREES),
}
EVERY = pytest.mark.parametrize("key", sorted(CASES))


def run(key: str, records, **options):
    return getattr(ops, key)(**options)(records)


def of_role(record: Record, role: str = "response") -> list[Item]:
    return [item for item in record.items if item.role == role]


def compared(record: Record) -> list[tuple[str, str]]:
    return [(record.items[c.winner].response, record.items[c.loser].response) for c in record.comparisons]


# ------------------------------------------------------------------------------------------------- laws of them all


def test_every_operator_is_under_the_laws():
    cards = [c for c in list_methods("operator") if c.function.__module__.startswith("unipref.data.")]
    assert {card.key for card in cards} == set(CASES) == set(ops.__all__)


@EVERY
def test_every_record_is_accounted_for(key):
    options, records = CASES[key]
    found, report = run(key, records, **options)
    assert report.n_read == len(records)
    assert report.n_kept == len(found) > 0
    gone = len(report.set_aside) + sum(report.left_out.values())
    assert report.n_read + sum(report.added.values()) == report.n_kept + gone
    given_ids = {record.id: record for record in records}
    assert sum(report.changed.values()) == sum(r.id in given_ids and r != given_ids[r.id] for r in found)


@EVERY
def test_the_input_stays_as_it_is_and_the_same_seed_gives_the_same(key):
    options, records = CASES[key]
    before = copy.deepcopy(records)
    first, second = run(key, records, **options), run(key, records, **options)
    assert repr(records) == repr(before)
    assert repr(first) == repr(second)


@EVERY
def test_ids_stay_unique_and_comparisons_point_at_responses(key):
    options, records = CASES[key]
    found, _ = run(key, records, **options)
    assert len({record.id for record in found}) == len(found)
    for record in found:
        for c in record.comparisons:
            assert c.winner != c.loser
            assert record.items[c.winner].role == record.items[c.loser].role == "response"


@EVERY
def test_the_order_of_the_records_changes_nothing_that_is_made_of_one(key):
    options, records = CASES[key]
    expected = {r.id: repr(r) for r in run(key, records, **options)[0]}
    assert {r.id: repr(r) for r in run(key, records[::-1], **options)[0]} == expected


@EVERY
def test_texts_of_other_roles_come_along(key):
    options, records = CASES[key]
    for record in run(key, records, **options)[0]:
        if not record.id.startswith(("tree", "answer")):
            assert [item.response for item in of_role(record, "gold")] == ["g"]


@EVERY
def test_an_operator_reads_as_its_call_and_equals_its_twin(key):
    made, twin = (get_method(key).build(**CASES[key][0]) for _ in range(2))
    assert isinstance(made, Operator)
    assert made == twin
    assert repr(made).startswith(f"{key}(")
    assert " at 0x" not in repr(made)  # the same in every process, for it stands in the account of a run


def test_operators_in_a_chain_have_one_account():
    chain = Chain((ops.chunk(part=0, parts=2), ops.goal_conditioned()))
    found, report = chain(PAIRS)
    assert report.n_read == 8
    assert report.left_out["in another part"] == 4
    assert report.n_read + sum(report.added.values()) == len(found) + sum(report.left_out.values())


# -------------------------------------------------------------------------------------------------- joint and goals


def test_joint_scores_contexts_of_responses_alone():
    record = run("joint", PAIRS[:1])[0][0]
    assert [item.score_context for item in record.items] == [True, True, False]


def test_each_side_of_a_joint_pair_is_cut_by_its_own_length(make_tokenizer):
    row = {"prompt_chosen": "blue " * 30, "response_chosen": "a", "prompt_rejected": "Hi", "response_rejected": "b"}
    records = run("joint", read_records([row])[0])[0]
    encoded = encode_records(records, make_tokenizer(), max_length=12)[0][0]
    assert encoded.n_cut_context[0] > 0
    assert encoded.n_cut_context[1] == 0  # the released code cuts the rejected side by the chosen side's length


def test_a_pair_stands_twice_and_its_second_copy_is_exchanged_whole_in_both_places():
    user = (Message("user", "Hi"),)
    items = tuple(
        Item(user, (Message("assistant", t),), columns={"score": s}) for t, s in (("good", 9.0), ("bad", 2.5))
    )
    record = Record("r", items, (Comparison(0, 1, margin=6.5),))
    for where in ("system", "user"):
        found, report = run("goal_conditioned", [record], where=where, template="Score {goal}.")
        words = [r.items[0].context[0].content for r in found]
        assert words == (["Score 9.", "Score 2.5."] if where == "system" else ["Score 9.\nHi", "Score 2.5.\nHi"])
        assert [r.items[0].response[0].content for r in found] == ["good", "bad"]  # the released code: good, good
        assert [r.items[1].response[0].content for r in found] == ["bad", "good"]
        assert all(r.items[0].context == r.items[1].context for r in found)
        assert all(r.comparisons[0].winner == 0 for r in found)
        assert report.added == {"pair under another goal": 1}


def test_at_either_goal_the_preferred_side_is_the_nearer_one():
    for record in run("goal_conditioned", PAIRS)[0]:
        c = record.comparisons[0]
        better, worse = record.items[c.winner].columns, record.items[c.loser].columns
        assert abs(better["score"] - better["goal"]) < abs(worse["score"] - worse["goal"])


def test_equal_scores_are_left_out_and_a_second_application_is_refused():
    found, report = run("goal_conditioned", PAIRS)
    assert report.left_out == {"both sides have the same score": 2}
    assert len(found) == 2 * 6
    assert run("goal_conditioned", found)[1].counts == {"the record is conditioned on a goal already": 12}
    with pytest.raises(ConfigError, match=r"no '\{goal\}'"):
        ops.goal_conditioned(template="Score")


# -------------------------------------------------------------------------------------------------------- soft labels


def test_a_preference_is_the_logistic_of_the_scores_and_a_failed_revision_turns_the_pair():
    found = [r.comparisons[0].preference for r in run("soft_labels", PAIRS[:4], kappa=2.0)[0]]
    expected = [1 / (1 + math.exp(-2.0 * (k - 1))) for k in range(4)]
    assert found == pytest.approx(expected, abs=1e-15)
    assert found[1] == 0.5
    assert found[0] < 0.5
    hard = [r.comparisons[0].preference for r in run("soft_labels", PAIRS[:4], kappa=math.inf)[0]]
    assert hard == [0.0, 0.5, 1.0, 1.0]


def test_a_judges_two_orders_are_averaged_and_place_alone_says_nothing():
    assert run("soft_labels", PAIRS[:1], how="judge")[0][0].comparisons[0].preference == pytest.approx(0.8)
    biased = pair(0, judge=(0.9, 0.9))  # whichever stands first is called better
    assert run("soft_labels", [biased], how="judge")[0][0].comparisons[0].preference == pytest.approx(0.5)


def test_epsilon_of_an_oracle_or_of_all():
    assert run("soft_labels", PAIRS[:1], how="epsilon")[0][0].comparisons[0].preference == 0.8
    assert run("soft_labels", PAIRS[:1], how="epsilon", epsilon=0.0)[0][0].comparisons[0].preference == 1.0
    _, report = run("soft_labels", [pair(0, epsilon=(0.6, 0.6)), PAIRS[0]], how="epsilon")
    assert report.counts == {"'epsilon' is not in [0, 1/2]": 1}
    for wrong in ({"how": "hope"}, {"kappa": -1.0}, {"epsilon": 0.1}, {"how": "epsilon", "epsilon": 0.6}):
        with pytest.raises(ConfigError):
            ops.soft_labels(**wrong)


# ------------------------------------------------------------------------------------------------------ persona weights


def vote(k: int, who: str, answer: str) -> Record:
    items = (Item(f"p{k}", answer), Item(f"p{k}", "x"))
    return Record(f"{k}{who}", items, (Comparison(0, 1, annotator=who),))


def test_tiers_have_the_masses_of_the_paper_and_the_mean_weight_is_one():
    people = ["t", "u", "v"]
    disagree = [0, 0, 0, 1, 2, 2]
    votes = [
        vote(k, who, "no" if who != "t" and people.index(who) <= n else "yes")
        for k, n in enumerate(disagree)
        for who in people
    ]
    found, report = run("persona_weights", votes, target="t")
    weights = [r.weight for r in found]
    assert report.left_out == {"judged by another persona": 12}
    assert sum(weights) == pytest.approx(len(weights))
    masses = [sum(w for w, n in zip(weights, disagree, strict=True) if n == tier) for tier in range(3)]
    assert [m / masses[0] for m in masses] == pytest.approx([1, 2, 3])  # (i / K)^1, whatever the tier's size
    uniform, _ = run("persona_weights", votes, target="t", a=0.0, b=0.0)
    assert [r.weight for r in uniform] == pytest.approx([1.0] * 6)


def test_an_empty_tier_breaks_nothing_and_an_unknown_persona_is_named():
    votes = [vote(0, "t", "yes"), vote(0, "u", "no"), vote(0, "v", "no"), vote(1, "t", "yes"), vote(1, "u", "yes")]
    found, _ = run("persona_weights", votes, target="t", personas=7)
    assert [r.weight for r in found] == pytest.approx([2 * 3 / 4, 2 * 1 / 4])
    with pytest.raises(DataError, match="persona 'tt'"):
        run("persona_weights", votes, target="tt")
    with pytest.raises(ConfigError, match="3 annotators"):
        run("persona_weights", votes, target="t", personas=2)


# -------------------------------------------------------------------------------------------------------------- chunk


@pytest.mark.parametrize("by", [None, "score"])
@pytest.mark.parametrize("parts", [1, 3, 8])
def test_the_parts_are_all_records_each_once_and_of_almost_equal_size(by, parts):
    found = [run("chunk", PAIRS, part=i, parts=parts, by=by)[0] for i in range(parts)]
    assert sorted(r.id for part in found for r in part) == sorted(r.id for r in PAIRS)
    assert max(map(len, found)) - min(map(len, found)) <= 1
    if by:
        scores = [r.items[0].columns["score"] for part in found for r in part]
        assert scores == sorted(scores)
        hardest = run("chunk", PAIRS, part=0, parts=parts, by=by, hardest_first=True)[0]
        assert hardest[0].items[0].columns["score"] == 3.0


# --------------------------------------------------------------------------------------------------------- mine_pairs


@given(
    rewards=st.lists(st.integers(-3, 3), min_size=2, max_size=6),
    eta=st.sampled_from([0.5, 0.8, 0.85, 0.9]),
    tau=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_mined_pairs_are_those_whose_logistic_gap_exceeds_eta(rewards, eta, tau):
    record = Record("r", tuple(Item("p", f"y{i}", columns={"reward": float(r)}) for i, r in enumerate(rewards)))
    expected = {
        (f"y{i}", f"y{j}")
        for i, j in itertools.permutations(range(len(rewards)), 2)
        if 1 / (1 + math.exp(-(rewards[i] - rewards[j]) / tau)) > eta + 1e-12
    }
    found, report = run("mine_pairs", [record], eta=eta, tau=tau)
    assert {p for r in found for p in compared(r)} == expected
    assert sum(report.left_out.values()) == (not expected)
    shifted = Record("r", tuple(Item("p", f"y{i}", columns={"reward": r + 100.0}) for i, r in enumerate(rewards)))
    assert [compared(r) for r in run("mine_pairs", [shifted], eta=eta, tau=tau)[0]] == [compared(r) for r in found]


def test_a_cap_and_equal_prompts_hold_the_quadratic_number_of_pairs_down():
    record = Record("r", tuple(Item("p", f"y{i}", columns={"reward": 5.0 * i}) for i in range(5)), weight=2.0)
    assert len(run("mine_pairs", [record])[0][0].comparisons) == 10
    capped = run("mine_pairs", [record], cap=4, equal_prompts=True)[0][0]
    assert len(capped.comparisons) == 4
    assert capped.weight == 0.5
    assert set(compared(capped)) <= set(compared(run("mine_pairs", [record])[0][0]))
    with pytest.raises(ConfigError, match="eta must be"):
        ops.mine_pairs(eta=0.4)


# ---------------------------------------------------------------------------------------------------- rejection_sample


def test_one_accepted_of_a_pool_follows_the_tilted_law():
    rng = random.Random(0)
    counts = Counter()
    for _ in range(3000):
        pool = rng.choices([0, 1, 2], [0.6, 0.3, 0.1], k=64)
        counts[pool[accepted(dict(enumerate(map(float, pool))), 1, 1.0, rng)[0]]] += 1
    law = np.array([0.6, 0.3, 0.1]) * np.exp([0.0, 1.0, 2.0])
    found = np.array([counts[k] for k in range(3)]) / 3000
    assert np.abs(found - law / law.sum()).max() < 0.045  # five standard errors: false alarm below 1e-5


@given(st.lists(st.integers(0, 9), min_size=3, max_size=9), st.integers(1, 3), st.integers(0, 99))
def test_no_trust_takes_any_and_full_trust_takes_the_best_and_exactly_k_are_kept(values, k, seed):
    reward = dict(enumerate(map(float, values)))
    best = accepted(reward, k, 0.0, random.Random(seed))
    assert sorted((reward[i] for i in best), reverse=True) == sorted(reward.values(), reverse=True)[:k]
    for beta in (0.5, math.inf):
        kept = accepted(reward, k, beta, random.Random(seed))
        assert len(set(kept)) == len(kept) == k
    shifted = {i: r + 50 for i, r in reward.items()}
    assert accepted(shifted, k, 0.5, random.Random(seed)) == accepted(reward, k, 0.5, random.Random(seed))


def test_equal_texts_are_candidates_of_their_own_and_too_few_set_the_record_aside():
    twins = Record("r", tuple(Item("p", t, columns={"reward": r}) for t, r in (("a", 1.0), ("a", 1.0), ("b", 0.0))))
    kept = run("rejection_sample", [twins], k=3, pairing="tournament")[0][0]
    assert [item.response for item in kept.items] == ["a", "a", "b"]
    assert run("rejection_sample", [twins], k=4)[1].counts == {"fewer than 4 candidates": 1}


def test_pairings_have_their_sizes_and_prefer_the_higher_reward():
    record = Record("r", tuple(Item("p", f"y{i}", columns={"reward": float(i)}) for i in range(8)))
    sizes = {"first_round": 4, "tournament": 7, "best_worst": 1, "none": 0}
    for pairing, size in sizes.items():
        found = run("rejection_sample", [record], k=8, pairing=pairing)[0][0]
        assert len(found.comparisons) == size
        assert all(winner > loser for winner, loser in compared(found))
    first = run("rejection_sample", [record], k=8)[0][0]
    assert len({i for c in first.comparisons for i in (c.winner, c.loser)}) == 8  # disjoint
    assert compared(run("rejection_sample", [record], k=2, variant="rs_plus", beta=math.inf)[0][0]) == [("y7", "y0")]


# ------------------------------------------------------------------------------------------------- directions, control


def scored(*scores: tuple[float, ...], names=("help", "short")) -> Record:
    items = [Item("Hi", f"y{i}", columns=dict(zip(names, s, strict=True))) for i, s in enumerate(scores)]
    return Record("r", tuple(items))


def best_under(record, *direction) -> Item:
    found = run("best_of_directions", [record], by=("help", "short"), directions=(direction,))[0][0]
    assert found.comparisons == ()
    return found.items[0]


def test_the_best_response_under_a_direction_and_its_opposite():
    record = scored((3.0, 0.0), (1.0, 9.0), (0.0, 1.0))
    assert best_under(record, 1.0, 0.0).response == "y0"  # ordinary best of n
    assert best_under(record, -1.0, 0.0).response == "y2"
    kept = best_under(record, 0.6, 0.8)
    assert kept.response == "y1"
    assert "help*60 + short*80" in kept.context
    with pytest.raises(ConfigError, match="needs 2 numbers"):
        ops.best_of_directions(directions=((1.0,),))


def test_drawn_weights_lie_on_the_circle_and_the_first_is_at_least_71():
    found = run("best_of_directions", [scored((3.0, 0.0), (1.0, 9.0))], by=("help", "short"), draws=200)[0]
    for record in found:
        a, b = (round(100 * record.items[0].columns[f"weight_{n}"]) for n in ("help", "short"))
        assert abs(a * a + b * b - 10_000) < 142
        assert 71 <= a <= 100


def test_what_is_kept_under_all_directions_is_the_upper_hull_of_the_rewards():
    points = [(0.0, 9.0), (4.0, 8.0), (8.0, 4.0), (9.0, 0.0), (4.0, 4.0), (5.9, 5.9)]  # the last two lie inside
    angles = np.radians(np.linspace(0, 90, 200))
    kept = {best_under(scored(*points), math.cos(a), math.sin(a)).response for a in angles}
    assert kept == {"y0", "y1", "y2", "y3"}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=7))
def test_the_first_reward_of_what_is_kept_falls_as_the_direction_turns_away(points):
    record = scored(*[tuple(map(float, p)) for p in points])
    angles = np.radians(np.linspace(0, 45, 10))
    kept = [best_under(record, math.cos(a), math.sin(a)).columns["help"] for a in angles]
    assert all(later <= earlier for earlier, later in itertools.pairwise(kept))


def test_a_response_that_meets_the_request_beats_a_better_one_that_does_not():
    record = scored((3.0, 4.0), (5.0, 5.0), names=("help", "honest"))
    found = run("controllable", [record], objectives=("help", "honest"), controlled=("help",), request={"help": 3.0})[
        0
    ][0]
    assert compared(found) == [("y0", "y1")]
    assert found.comparisons[0].margin == 1.0  # 0 + 4 against -2 + 5
    assert found.items[0].context == "< help: 3 >\nHi"


def test_nothing_controlled_is_the_sum_of_scores_and_leaves_the_prompt_as_it_is():
    record = scored((3.0, 4.0), (5.0, 5.0), names=("help", "honest"))
    found = run("controllable", [record], objectives=("help", "honest"), controlled=())[0][0]
    assert compared(found) == [("y1", "y0")]
    assert found.items[0].context == "Hi"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=5), st.integers(0, 5))
def test_with_all_controlled_the_nearest_is_preferred_and_an_exact_match_is_never_rejected_for_another(points, extra):
    request = dict(zip(("help", "honest"), map(float, points[0]), strict=True))
    record = scored(*[tuple(map(float, p)) for p in points], names=("help", "honest"))
    found = run("controllable", [record], objectives=("help", "honest"), request=request)[0]
    gap = {f"y{i}": abs(p[0] - points[0][0]) + abs(p[1] - points[0][1]) for i, p in enumerate(points)}
    for winner, loser in (p for r in found for p in compared(r)):
        assert gap[winner] < gap[loser]
    shifted = scored(*[(float(a), float(b + extra)) for a, b in points], names=("help", "honest"))
    one = {"objectives": ("help", "honest"), "controlled": ("help",), "request": {"help": 2.0}}
    orders = [[compared(r) for r in run("controllable", [r], **one)[0]] for r in (record, shifted)]
    assert orders[0] == orders[1]  # a constant on what is not controlled changes nothing


def test_every_objective_counts_its_distance_with_the_right_sign():
    for name in ("help", "honest"):  # the released honesty branch computes -|rating| - target
        low, high = ({"help": 3.0, "honest": 3.0, name: value} for value in (1.0, 5.0))
        record = scored(tuple(low.values()), tuple(high.values()), names=("help", "honest"))
        for request, winner in ((1.0, "y0"), (5.0, "y1")):
            found = run("controllable", [record], objectives=("help", "honest"), request={name: request})[0][0]
            assert compared(found)[0][0] == winner


def test_both_stages_write_the_same_names_and_the_top_score_may_be_silent():
    record = scored((5.0, 1.0), (2.0, 4.0), names=("help", "honest"))
    options = {"objectives": ("help", "honest"), "controlled": ("help",)}
    found = run("controllable", [record], stage="sft", silent_at=5.0, **options)[0]
    assert [r.items[0].context for r in found] == ["Hi", "< help: 2 >\nHi"]
    dpo = run("controllable", [record], request={"help": 2.0}, **options)[0][0]
    assert dpo.items[0].context == found[1].items[0].context
    with pytest.raises(ConfigError, match="did you mean 'help'"):
        ops.controllable(objectives=("help",), controlled=("helpp",))


# ---------------------------------------------------------------------------------------------------------- conditioned


def test_no_condition_is_the_prompt_byte_for_byte_in_text_and_template(make_tokenizer):
    assert put_before("Hi", "") == "Hi"
    user = (Message("user", "Hi"),)
    assert put_before(user, "") is user
    record = Record("r", (Item(user, (Message("assistant", "a"),)),), domain="none")
    plain = run("conditioned", [record], conditions={"none": ""})[0]
    tokenizer = make_tokenizer(CHATML)
    ids = [encode_records(r, tokenizer)[0][0].ids(0) for r in (plain, [record])]
    assert ids[0] == ids[1]


def test_a_condition_is_context_and_stands_above_the_system_message():
    turns = (Message("system", "S"), Message("user", "Hi"))
    assert put_before(turns, "C") == (Message("system", "C\nS"), Message("user", "Hi"))
    assert put_before(turns, "C", where="user") == (Message("system", "S"), Message("user", "C\nHi"))
    assert put_before(turns[1:], "C") == (Message("system", "C"), Message("user", "Hi"))
    with pytest.raises(ConfigError, match="without a user turn"):
        put_before(turns[:1], "C", where="user")


def test_the_counterfactual_stands_under_the_other_condition_with_its_sides_exchanged():
    conditions = {"d0": "Be short.", "d1": "Be long."}
    found, report = run("conditioned", PAIRS[:2], conditions=conditions, counterfactual={"d0": "d1", "d1": "d0"})
    assert report.added == {"counterfactual pair": 2}
    own, other = found[:2]
    assert (own.items[0].context, other.items[0].context) == ("Be short.\np0", "Be long.\np0")
    assert compared(own) == [pair_[::-1] for pair_ in compared(other)]
    assert other.domain == "d1"
    assert run("conditioned", PAIRS[:1], conditions={"d1": "x"})[1].counts == {
        "the record's domain has no condition": 1
    }


def test_a_response_is_preferred_under_its_own_condition_to_those_for_others():
    found, report = run("cross_pairs", ANSWERS)
    assert sum(len(r.comparisons) for r in found) == 3 * 3 * 2  # k (k - 1) of three conditions, for three prompts
    first = found[0]
    assert (first.domain, compared(first)) == ("d0", [("y0", "y1"), ("y0", "y2")])
    words = {"d0": "A.", "d1": "B.", "d2": "C."}
    written = Chain((ops.cross_pairs(draws=1), ops.conditioned(conditions=words)))(ANSWERS)[0]
    assert all({item.context for item in r.items} == {f"{words[r.domain]}\n{r.conversation}"} for r in written)
    alone = run("cross_pairs", ANSWERS[:1])[1]
    assert alone.left_out == {"no response to its prompt for another condition": 1}
    assert report.n_kept == 9


def test_dropped_conditions_have_about_their_share():
    many = [pair(2 * k) for k in range(200)]
    found, report = run("conditioned", many, conditions={"d0": "C"}, drop=0.3)
    dropped = sum(not r.items[0].context.startswith("C\n") for r in found)
    assert 27 < dropped < 93  # five standard errors of 60 around it
    assert report.changed == {"condition before the prompt": 200 - dropped}


# ------------------------------------------------------------------------------------------------------------ negatives


def test_the_weighted_medoids_of_the_card_cost_what_it_says():
    rng = np.random.default_rng(0)
    distance, rewards = distances(rng.normal(size=(7, 2))), rng.normal(size=7)
    weights = np.exp(rewards.mean() - rewards)
    assert k_medoids_exact(distance, weights, 2, range(7)) == (0, 6)
    assert cover_cost(distance, weights, (0, 6)) == pytest.approx(4.829336, abs=1e-6)
    assert cover_cost(distance, weights, (0, 1)) == pytest.approx(5.545529, abs=1e-6)


def test_exchanges_never_beat_the_exact_choice_and_stay_within_five_times_its_cost():
    rng = np.random.default_rng(1)
    for _ in range(60):
        distance, weights = distances(rng.normal(size=(8, 3))), rng.exponential(size=8)
        exact, local = (
            cover_cost(distance, weights, find(distance, weights, 3, range(8))) for find in (k_medoids_exact, k_medoids)
        )
        assert exact <= local + 1e-12
        assert local <= 5 * exact
        assert local <= cover_cost(distance, weights, (0, 1, 2)) + 1e-12  # never worse than its start


def candidates(rewards, texts=None) -> Record:
    texts = texts or [f"word{i} " * 3 for i in range(len(rewards))]
    return Record("r", tuple(Item("p", t, columns={"reward": float(r)}) for t, r in zip(texts, rewards, strict=True)))


def chosen_texts(record: Record) -> list[str]:
    return [item.response for item in record.items if item.label is False]


@pytest.mark.parametrize("how", ["bottomk", "coreset", "optselect"])
def test_all_ways_agree_where_all_others_are_taken_and_the_best_is_the_one_positive(how):
    record = candidates([1, 5, 0, 2])
    found = run("select_negatives", [record], how=how, k=3)[0][0]
    assert [item.response for item in found.items if item.label] == [record.items[1].response]
    assert sorted(chosen_texts(found)) == sorted(record.items[i].response for i in (0, 2, 3))
    assert run("select_negatives", [record], how=how, k=4)[1].counts == {"fewer than 4 responses beside the best": 1}


def test_bottomk_takes_one_failure_mode_and_coreset_covers_both():
    texts = ["the best", "rude a", "rude b", "rude c", "vague x", "vague y", "vague z"]
    record = candidates([9, 0.0, 0.1, 0.2, 1.0, 1.1, 1.2], texts)

    def embed(found):
        return np.array([[float(t.startswith("rude")), float(ord(t[-1]) % 3) / 100] for t in found])

    assert chosen_texts(run("select_negatives", [record], how="bottomk", k=2)[0][0]) == ["rude a", "rude b"]
    assert chosen_texts(run("select_negatives", [record], how="coreset", k=2, embed=embed)[0][0]) == [
        "rude a",
        "vague x",
    ]


@pytest.mark.parametrize("exact", [True, False])
def test_of_equal_embeddings_the_lowest_rewards_are_taken(exact):
    record = candidates([5, 3, 1, 2])
    same = run("select_negatives", [record], k=2, embed=lambda texts: np.ones((len(texts), 2)), exact=exact)[0][0]
    assert chosen_texts(same) == [record.items[i].response for i in (2, 3)]


def test_equal_texts_embed_equally_and_every_row_has_length_one():
    found = hashed_tfidf(["The cat sat", "the CAT sat", "A dog ran", "..."])
    assert np.array_equal(found[0], found[1])
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1, 1, 0])
    assert distances(found)[0, 2] > distances(found)[0, 1]


# ------------------------------------------------------------------------------------------ degrade, segment, threshold


def test_variants_lose_more_and_more_whole_sentences_and_the_first_is_the_response():
    text = " I like it. Quantum chromodynamics matters. It is it."
    others = [Record(f"o{i}", (Item("p", "I like it. It is it. is like"),)) for i in range(3)]
    record = Record("r", (Item("p", text), Item("p", "x")), (Comparison(0, 1),))
    found = run("degrade", [record, *others], n=2)[0][0]
    variants = of_role(found, "variant")
    assert [item.columns["degree"] for item in variants] == [0, 1, 2]
    assert variants[0].response == text
    assert variants[1].response == " I like it. It is it."  # the rarest words go first
    assert len(variants[2].response) < len(variants[1].response)
    assert all(item.context == "p" for item in variants)
    assert found.items[:2] == record.items
    assert len(of_role(run("degrade", [record], n=2, of="all")[0][0], "variant")) == 3  # "x" has one part


def test_a_sentence_is_taken_apart_at_its_clauses_before_it_is_given_up():
    record = Record("r", (Item("p", "Well, it rains, so we stay."),))
    assert len(of_role(run("degrade", [record], n=2)[0][0], "variant")) == 3


def test_segments_are_added_where_there_are_none():
    record = run("segment", PAIRS[2:3], score="score")[0][0]
    item = record.items[0]
    assert [item.response[s.start : s.end] for s in item.spans] == ["good 2.", "Yes."]
    assert [s.score for s in item.spans] == [2.0, 2.0]
    assert run("segment", [record])[0][0] == record
    assert of_role(record, "gold")[0].spans == ()


def test_a_threshold_labels_by_a_number_or_by_the_mean_and_at_it_is_bad():
    record = candidates([0, 1, 5])
    assert [item.label for item in run("threshold", [record])[0][0].items] == [False, False, True]
    assert [item.label for item in run("threshold", [record], at=0.0)[0][0].items] == [False, True, True]


# ------------------------------------------------------------------------------------------------------- pseudo labels


def samples(*answers: str) -> Record:
    return Record("r", tuple(Item("p", f"way {chr(97 + i)}: {a}") for i, a in enumerate(answers)))


def test_the_majority_is_preferred_to_all_others_and_must_exceed_tau():
    record = samples("7", "7", "8", "no idea")
    found = run("pseudo_labels", [record], tau=0.4)[0][0]
    assert {(w[-1], loser[4]) for w, loser in compared(found)} == {("7", "c"), ("7", "d")}
    assert len(found.comparisons) == 4
    assert run("pseudo_labels", [record], tau=0.5)[1].left_out == {"no answer has the majority": 1}
    assert len(run("pseudo_labels", [record], tau=0.4, draw=True)[0][0].comparisons) == 1
    assert run("pseudo_labels", [samples("7", "7")], tau=0.0)[1].left_out == {"the samples agree": 1}
    assert run("pseudo_labels", [record], tau=1.0)[1].n_kept == 0


def test_empty_answers_have_no_vote_and_of_a_tie_the_first_wins():
    assert majority(["", "", "", "5"]) == ("5", 1)
    assert majority(["b", "a", "a", "b"]) == ("b", 2)
    assert majority([""]) == ("", 0)
    assert [last_number(t) for t in ("1 or 1,250.5.", "none", "-3")] == ["1250.5", "", "-3"]
    assert run("pseudo_labels", [samples("none", "nothing")], tau=0.0)[1].left_out == {"no answer has the majority": 1}


@pytest.mark.parametrize(("accuracy", "rises"), [(0.6, True), (0.4, False)])
def test_more_samples_make_the_pseudo_label_better_above_one_half_and_worse_below(accuracy, rises):
    def right(n: int) -> float:
        rng = random.Random(0)
        votes = [["r" if rng.random() < accuracy else "w" for _ in range(n)] for _ in range(2000)]
        return sum(majority(v)[0] == "r" for v in votes) / 2000

    exact = [
        sum(math.comb(n, k) * accuracy**k * (1 - accuracy) ** (n - k) for k in range(n // 2 + 1, n + 1)) for n in (3, 9)
    ]
    assert (exact[1] > exact[0]) == rises
    for n, value in zip((3, 9), exact, strict=True):
        assert abs(right(n) - value) < 0.056  # five standard errors


def test_programs_are_paired_by_tests_passed_and_one_test_is_pass_or_fail():
    def programs(passed, tests):
        columns = [{"passed": float(p), "tests": float(tests)} for p in passed]
        return Record("r", tuple(Item("p", f"code {i}", columns=c) for i, c in enumerate(columns)))

    found = run("pseudo_labels", [programs([10, 5, 4, 3], 10)], how="passes")[0][0]
    assert compared(found) == [("code 0", "code 2"), ("code 0", "code 3")]
    loose = run("pseudo_labels", [programs([10, 5, 4, 3], 10)], how="passes", margin=1, lower=0.5)[0][0]
    assert len(loose.comparisons) == 5  # 4 of 10 is below the least share of a winner
    binary = run("pseudo_labels", [programs([1, 0, 1], 1)], how="passes", margin=1, lower=1.0)[0][0]
    assert compared(binary) == [("code 0", "code 1"), ("code 2", "code 1")]
