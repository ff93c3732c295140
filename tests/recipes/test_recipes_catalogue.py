"""Published recipes and loops: what each trains, round by round, on which rows."""

import math

import pytest
import torch
from torch import nn

import unipref.recipes.catalogue  # noqa: F401 (registers the cards)
from unipref.core.cards import get_method, list_methods
from unipref.core.errors import ConfigError
from unipref.core.records import Comparison, Item, Record, plain_text
from unipref.data import read_records
from unipref.engine import extrapolate
from unipref.objectives import as_objective
from unipref.objectives import catalogue as objectives
from unipref.recipes import load_recipe
from unipref.recipes.fit import check_data
from unipref.recipes.stage import prepare


def read(*rows):
    return read_records([{"id": f"r{k}", **row} for k, row in enumerate(rows)])[0]


def pair(k, **fields):
    return {"prompt": f"p{k}", "chosen": f"good {k}. Yes, it is. So be it. Now.", "rejected": f"bad {k}", **fields}


def scored(k, chosen, rejected, name="score"):
    return pair(k, **{f"chosen_{name}": chosen, f"rejected_{name}": rejected})


def listed(k, rewards, **fields):
    answers = [f"answer {i} of {k}" for i in range(len(rewards))]
    return {"prompt": f"q{k}", "responses": answers, "rewards": rewards, **fields}


def tree(k):
    nodes = [
        {"id": 0, "text": " one", "q": 1.0, "v": 3, "n_visit": 30},
        {"id": 1, "text": " won", "q": 0.5, "v": 1, "n_visit": 10},
        {"id": 2, "parent": 0, "text": " two", "q": 0.2, "v": 1, "n_visit": 10},
        {"id": 3, "parent": 0, "text": " too", "q": 0.1, "v": 0, "n_visit": 30},
    ]
    return {"prompt": f"count {k}:", "nodes": nodes}


PAIRS = [pair(k) for k in range(6)]
LISTS = [listed(k, [0.0, 3.0, 1.0, 1.0]) for k in range(3)]
TREES = [tree(k) for k in range(6)]
WISHES = [
    {"prompt": f"q{k}", "completion": f"for {wish} {k}", "domain": wish}
    for k in range(3)
    for wish in ("kids", "experts")
]
WORDS = {"kids": "Answer a child.", "experts": "Answer an expert."}
VOTES = [
    {"prompt": f"q{k}", "annotator": who, **dict(zip(("chosen", "rejected"), sides, strict=True))}
    for k in range(3)
    for who, sides in (
        ("me", ("a", "b")),
        ("you", ("a", "b") if k == 0 else ("b", "a")),
        ("they", ("b", "a") if k == 2 else ("a", "b")),
    )
]
JUDGED = [
    {"prompt": f"q{k}", "responses": ["x", "y", "z"], "scores": [4, 5, 1], "help": [3, 5, 1], "honest": [4, 5, 1]}
    for k in range(3)
]

# key -> options that have no default, rows that are enough, labels of the stages
CASES = {
    "ampo_selected": ({}, LISTS, 1),
    "apo_momentum": ({}, PAIRS, 3),
    "bpo_behavior": ({}, PAIRS, 2),
    "cofs_dpo": ({"domains": ("kids", "experts"), "base": "dpo"}, [pair(k, domain=d) for k, d in enumerate(WORDS)], 3),
    "cpo_controllable": ({"objectives": ("help", "honest")}, JUDGED, 2),
    "d2po": ({}, LISTS, 1),
    "dove": ({}, PAIRS, 1),
    "dpa": ({"by": ("help", "honest")}, JUDGED, 2),
    "dpo_refined": ({}, [scored(0, 3, 1)], 1),
    "fairpp_weight": ({"target": "me"}, VOTES, 1),
    "fspo": ({"shots": 2}, [pair(k, user="me") for k in range(3)], 1),
    "ilr_dpo": ({}, LISTS, 3),
    "janus": ({"conditions": WORDS}, WISHES, 1),
    "longdpo": ({}, TREES, 1),
    "mcts_dpo": ({}, TREES, 3),
    "metaalign": ({"conditions": WORDS}, WISHES, 2),
    "osp": ({}, [scored(0, 0.9, 0.3, "judge")], 1),
    "pair_token": ({}, PAIRS, 1),
    "pfpo": ({}, [{"prompt": "1 + 1", "responses": ["it is 2", "so 2", "2", "3"], "scores": [0, 0, 0, 0]}], 1),
    "ra_dpo": ({}, [scored(0, 9, 4)], 1),
    "rosepo": ({}, [scored(0, 0.2, 0.2, "epsilon")], 1),
    "rs_dpo": ({}, LISTS, 1),
    "rso_sampled": ({"k": 3}, LISTS, 1),
    "sdpo_stepwise": ({}, PAIRS, 2),
    "spo_degree_variants": ({}, PAIRS, 1),
    "sprec": ({"iterations": 2}, [pair(k, policy_sample=f"own {k}") for k in range(3)], 4),
}


def recipe(key, **options):
    values = {"model": "m", "data": {"train": "d"}, "stages": [{"method": key, "options": options}]}
    return load_recipe(values, validate_files=False)


def stages(key, **options):
    (run,) = recipe(key, **options).run_plan().values()
    return run


def trained(stage, records):
    """What a stage trains: the objective, and the rows it sees."""
    return as_objective(stage.composition.objective), prepare(stage, records)[0]


def told(records):
    """(context, preferred, other, preference, weight) of every comparison."""
    return [
        (
            plain_text(record.items[c.winner].context),
            plain_text(record.items[c.winner].response),
            plain_text(record.items[c.loser].response),
            c.preference,
            record.weight,
        )
        for record in records
        for c in record.comparisons
    ]


def imitated(records):
    return [(plain_text(i.context), plain_text(i.response)) for record in records for i in record.items]


def pairs_of(records):
    return [(chosen, rejected) for _, chosen, rejected, _, _ in told(records)]


# ------------------------------------------------------------------------------------------------------- all of them


def test_every_recipe_and_loop_is_asked_below():
    assert {card.key for kind in ("recipe", "loop") for card in list_methods(kind)} == set(CASES)


@pytest.mark.parametrize("key", CASES)
def test_a_recipe_names_it_as_a_method_and_a_loop_is_a_stage_per_round(key):
    options, _, rounds = CASES[key]
    found = stages(key, **options)
    names = [key] if rounds == 1 else [f"{key}-{i + 1}" for i in range(rounds)]
    assert [stage.label for stage in found] == names
    assert all(as_objective(stage.composition.objective).terms for stage in found)


@pytest.mark.parametrize("key", CASES)
def test_rows_that_have_what_its_card_needs_are_enough_for_every_round(key):
    options, rows, _ = CASES[key]
    check_data(recipe(key, **options), read(*rows))
    for stage in stages(key, **options):
        objective, records = trained(stage, read(*rows))
        assert records
        if objective.unit_needs == "pair":
            assert all(record.comparisons for record in records)


@pytest.mark.parametrize("key", CASES)
def test_rows_without_it_are_refused_before_a_model_is_loaded(key):
    options, _, _ = CASES[key]
    with pytest.raises(ConfigError, match=key):
        check_data(recipe(key, **options), [Record("1", (Item("q", "a"),))])


def test_where_no_row_is_left_the_reasons_are_told():
    with pytest.raises(ConfigError, match=r"ra_dpo: none of the 2 training records is left .* \(2 x a side of the"):
        check_data(recipe("ra_dpo"), read(pair(0), pair(1)))
    with pytest.raises(ConfigError, match=r"none of the 1 training records .* \(1 x both sides have the same score"):
        check_data(recipe("ra_dpo"), read(scored(0, 5, 5)))


@pytest.mark.parametrize("key", CASES)
def test_what_is_built_twice_is_equal(key):
    options, _, _ = CASES[key]
    assert get_method(key).build(**options) == get_method(key).build(**options)


@pytest.mark.parametrize("key", CASES)
def test_only_loops_collect_and_of_those_all_that_sample(key):
    options, _, _ = CASES[key]
    at_hand = {"cofs_dpo", "sdpo_stepwise", "cpo_controllable", "metaalign"}
    collects = stages(key, **options)[0].collects
    assert bool(collects) == (get_method(key).kind == "loop" and key not in at_hand)
    assert not collects.endswith(".")


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("ilr_dpo", {"rounds": 0}),
        ("cofs_dpo", {"domains": ()}),
        ("cofs_dpo", {"domains": ("law", "law")}),
        ("cofs_dpo", {"domains": "law"}),
        ("sdpo_stepwise", {"parts": 0}),
        ("bpo_behavior", {"phases": 0}),
        ("mcts_dpo", {"rounds": 0}),
        ("apo_momentum", {"rounds": 0}),
        ("apo_momentum", {"alpha": 1.0}),
        ("apo_momentum", {"alpha": -0.1}),
        ("apo_momentum", {"base": "apo_momentum"}),
        ("sprec", {"iterations": 0}),
        ("dpa", {"rounds": 0}),
        ("metaalign", {"conditions": WORDS, "stages": 3}),
        ("janus", {"conditions": WORDS, "loss": "dop"}),
        ("rosepo", {"link": "robuts"}),
        ("dpo_refined", {"how": "soft "}),
        ("pfpo", {"how": "vote"}),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(key, options):
    with pytest.raises(ConfigError, match="stages"):
        recipe(key, **options)


# ------------------------------------------------------------------------------------------------ rounds over the data


def test_the_parts_of_stepwise_dpo_are_all_records_each_once_easy_first():
    records = read(*(scored(k, (3, 0, 5, 1, 4, 2)[k], 0, "ease") for k in range(6)))
    seen = [trained(stage, records)[1] for stage in stages("sdpo_stepwise", parts=3, by="ease")]
    assert [[record.items[0].columns["ease"] for record in part] for part in seen] == [[0, 1], [2, 3], [4, 5]]
    turned = stages("sdpo_stepwise", parts=3, by="ease", hardest_first=True)
    assert trained(turned[0], records)[1] == [records[2], records[4]]


@pytest.mark.parametrize(("key", "name"), [("sdpo_stepwise", "parts"), ("bpo_behavior", "phases")])
def test_one_part_is_the_base_on_the_records_as_they_are(key, name):
    records = read(*PAIRS)
    assert trained(*stages(key, **{name: 1}), records) == trained(*stages("dpo"), records)
    based = stages(key, **{name: 1, "base": "ipo", "base_options": {"tau": 0.2}})
    assert trained(*based, records) == trained(*stages("ipo", tau=0.2), records)


def test_phases_on_data_at_hand_are_stepwise_dpo():
    records = read(*PAIRS)
    one, other = stages("bpo_behavior", phases=3), stages("sdpo_stepwise", parts=3)
    assert [trained(stage, records) for stage in one] == [trained(stage, records) for stage in other]
    assert one[0].collects
    assert not other[0].collects


def test_momentum_0_is_the_plain_rounds_and_every_round_sees_every_record():
    records = read(*PAIRS)
    rounds = [stage.composition for stage in stages("apo_momentum", rounds=2, alpha=0.0)]
    assert rounds == [stages("sdpo_stepwise", parts=1)[0].composition] * 2
    for stage in stages("apo_momentum", rounds=2, alpha=0.5):
        assert stage.composition.momentum == 0.5
        assert trained(stage, records) == trained(*stages("dpo"), records)


def test_length_regularised_rounds_compare_the_best_with_the_worst_and_take_pairs_as_they_are():
    for stage in stages("ilr_dpo", rounds=2, beta=0.3, alpha=0.02):
        objective, records = trained(stage, read(listed(0, [0.0, 3.0, 1.0]), listed(1, [2.0, -1.0])))
        assert objective == as_objective(objectives.dpo_length_reg.dpo_length_reg(beta=0.3, alpha=0.02))
        assert pairs_of(records) == [("answer 1 of 0", "answer 0 of 0"), ("answer 0 of 1", "answer 1 of 1")]
        assert trained(stage, read(*PAIRS))[1] == read(*PAIRS)
    by = stages("ilr_dpo", by="help")[0]
    assert pairs_of(trained(by, read(*JUDGED[:1]))[1]) == [("y", "z")]


def test_search_trees_are_shared_out_and_visits_soften_their_labels():
    records = read(*TREES)
    seen = [trained(stage, records)[1] for stage in stages("mcts_dpo", rounds=3)]
    prompts = [{plain_text(record.items[0].context)[:8] for record in part} for part in seen]
    assert [len(part) for part in prompts] == [2, 2, 2]
    assert len(set.union(*prompts)) == 6
    # " one" beats " won" with 30 visits to 10: eps = 10 / 40; " two" beats " too" with 10 to 30: eps = 1/2
    (one,) = stages("mcts_dpo", rounds=1)
    assert told(trained(one, records[:1])[1]) == [
        ("count 0:", " one", " won", 0.75, 1.0),
        ("count 0: one", " two", " too", 0.5, 1.0),
    ]
    hard = stages("mcts_dpo", rounds=1, smoothing=False, beta=0.2)[0]
    objective, rows = trained(hard, records[:1])
    assert [row[3] for row in told(rows)] == [1.0, 1.0]
    assert objective == as_objective(objectives.step_dpo.step_dpo(beta=0.2))


def test_domains_are_trained_one_by_one_and_some_rows_of_each_are_kept_to_fit_the_mean():
    records = read(*(pair(k, domain=("law", "art", "law")[k % 3]) for k in range(9)))
    *domains, merged = stages("cofs_dpo", domains=("art", "law"), base="ipo", replay=2, beta=0.3)
    seen = [trained(stage, records) for stage in domains]
    assert [[record.domain for record in rows] for _, rows in seen] == [["art"] * 3, ["law"] * 6]
    assert all(objective == as_objective(objectives.ipo.ipo()) for objective, _ in seen)
    objective, rows = trained(merged, records)
    assert [record.domain for record in rows] == ["art", "art", "law", "law"]
    assert objective == as_objective(objectives.dpo.dpo(beta=0.3))
    assert [stage.composition.merges for stage in (*domains, merged)] == [False, False, True]
    with pytest.raises(ConfigError, match=r"no record is of the domain 'lay' \(did you mean 'law'"):
        check_data(recipe("cofs_dpo", domains=("lay",), base="dpo"), records)


# -------------------------------------------------------------------------------------------------------- soft labels


def test_a_judge_that_sees_both_orders_gives_the_label_and_a_certain_one_gives_dpo():
    objective, records = trained(*stages("osp"), read(scored(0, 0.9, 0.3, "judge")))
    assert told(records)[0][3] == pytest.approx((0.9 + 1 - 0.3) / 2)
    assert objective == as_objective(objectives.dpo.dpo())
    certain = read(scored(0, 1.0, 0.0, "judge"))
    assert trained(*stages("osp"), certain)[1] == certain


def test_a_failed_revision_turns_its_pair_around_and_equal_scores_teach_nothing():
    records = read(scored(0, 3, 1), scored(1, 1, 3), scored(2, 2, 2))
    labels = [row[3] for row in told(trained(*stages("dpo_refined", kappa=0.5), records)[1])]
    assert labels == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1)), 0.5])
    hard = [row[3] for row in told(trained(*stages("dpo_refined", kappa=math.inf), records)[1])]
    assert hard == [1.0, 0.0, 0.5]
    assert trained(*stages("dpo_refined", kappa=math.inf), records[:1]) == trained(*stages("dpo"), records[:1])


def fields(**more):
    """Two pairs with h = 20 and h = -10."""
    values = {
        "logp_chosen": [-1.0, -11.0],
        "logp_rejected": [-21.0, -1.0],
        "ref_logp_chosen": [-1.0, -1.0],
        "ref_logp_rejected": [-1.0, -1.0],
        **more,
    }
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def softplus(x):
    return math.log1p(math.exp(x))


def test_the_signed_weight_multiplies_dpo_by_the_difference_of_the_scores():
    objective, records = trained(*stages("dpo_refined", how="weight"), read(scored(0, 3, 1)))
    assert records == read(scored(0, 3, 1))  # hard labels
    both = fields(score_chosen=[3.0, 1.0], score_rejected=[1.0, 1.5])
    assert objective(**both).item() == pytest.approx((2 * softplus(-2) - 0.5 * softplus(1)) / 2)
    same = fields(score_chosen=[1.0, 1.0], score_rejected=[1.0, 1.0])
    assert objective(**same).item() == 0.0
    swapped = {**both, "preference": torch.zeros(2, dtype=torch.float64)}  # the pair written the other way round
    assert objective(**swapped).item() == pytest.approx((-2 * softplus(2) + 0.5 * softplus(-1)) / 2)


def test_a_row_without_a_score_does_not_count_in_the_signed_weight():
    objective = as_objective(stages("dpo_refined", how="weight")[0].composition.objective)
    one = fields(score_chosen=[3.0, math.nan], score_rejected=[1.0, 1.0])
    assert objective(**one).item() == pytest.approx(2 * softplus(-2))


def test_no_doubt_is_dpo_one_doubt_for_all_is_cdpo_and_with_the_robust_link_robust_dpo():
    records = read(*(scored(k, 0.2, 0.7, "epsilon") for k in range(2)))
    objective, rows = trained(*stages("rosepo"), records)
    assert [row[3] for row in told(rows)] == [0.8, 0.8]
    assert trained(*stages("rosepo", epsilon=0.0), records) == trained(*stages("dpo"), records)
    assert stages("rosepo", epsilon=0.3)[0].composition.operators != stages("rosepo")[0].composition.operators
    soft = fields(preference=[0.8, 0.8])
    expected = objectives.cdpo.cdpo(flip=0.2)(**fields()).item()
    assert objective(**soft).item() == pytest.approx(expected, rel=1e-12)
    robust = as_objective(stages("rosepo", link="robust")[0].composition.objective)
    expected = objectives.dpo_robust.dpo_robust(flip=0.2)(**fields()).item()
    assert robust(**soft).item() == pytest.approx(expected, rel=1e-12)
    assert robust(**fields()).item() == pytest.approx(objectives.dpo.dpo()(**fields()).item(), rel=1e-12)
    other = {"chosen": "rejected", "rejected": "chosen"}  # the same pair written the other way round says the same
    turned = {"preference": 1 - soft["preference"]}
    turned |= {f"{name}_{side}": soft[f"{name}_{other[side]}"] for name in ("logp", "ref_logp") for side in other}
    assert robust(**turned).item() == pytest.approx(robust(**soft).item(), rel=1e-12)


@pytest.mark.parametrize("link", ["conservative", "robust"])
def test_a_pair_of_which_the_oracle_knows_nothing_stays_where_it_is(link):
    objective = as_objective(stages("rosepo", link=link)[0].composition.objective)
    values = fields(preference=[0.5, 0.5])
    values |= {f"logp_{side}": values[f"ref_logp_{side}"].clone() for side in ("chosen", "rejected")}
    values["logp_chosen"].requires_grad_()
    objective(**values).backward()
    assert values["logp_chosen"].grad.tolist() == [0.0, 0.0]


# -------------------------------------------------------------------------------------------- conditions and weights


def test_both_sides_are_scored_with_their_own_prompt_and_responses_alone_without():
    sides = (Item("one question", "an answer"), Item("another", "no answer"))
    records = [Record("1", sides, (Comparison(0, 1),))]
    objective, rows = trained(*stages("dove", beta=0.2), records)
    assert objective == as_objective(objectives.dpo.dpo(beta=0.2))
    assert [item.score_context for item in rows[0].items] == [True, True]
    assert trained(*stages("dove", score_prompt=False), records) == trained(*stages("dpo"), records)


def test_reward_augmented_rows_are_two_per_pair_and_the_second_prefers_the_loser():
    records = read(scored(0, 9, 4), scored(1, 7, 7))
    objective, rows = trained(*stages("ra_dpo", template="Score {goal}:"), records)
    (good, bad) = (plain_text(item.response) for item in records[0].items)
    assert told(rows) == [("Score 9:\np0", good, bad, 1.0, 1.0), ("Score 4:\np0", bad, good, 1.0, 1.0)]
    assert objective == as_objective(objectives.cdpo.cdpo(beta=0.01, flip=0.3))
    smooth = as_objective(stages("ra_dpo", beta=0.1, flip=0.0)[0].composition.objective)
    assert smooth(**fields()).item() == pytest.approx(objectives.dpo.dpo()(**fields()).item(), rel=1e-12)


def test_a_persona_is_trained_on_its_own_answers_those_that_others_contest_weighing_more():
    # tiers: q0 is contested by nobody (1), q1 by one (2), q2 by two (3); one row each, so w ~ i / 3
    rows = trained(*stages("fairpp_weight", target="me"), read(*VOTES))[1]
    assert [row[0] for row in told(rows)] == ["q0", "q1", "q2"]
    assert [row[4] for row in told(rows)] == pytest.approx([0.5, 1.0, 1.5])
    objective, plain = trained(*stages("fairpp_weight", target="me", a=0.0, b=0.0), read(*VOTES))
    mine = [record for record in read(*VOTES) if record.comparisons[0].annotator == "me"]
    assert (objective, plain) == trained(*stages("dpo"), mine)


def test_controllable_training_asks_for_scores_a_response_has_and_then_prefers_the_nearer_one():
    row = {"prompt": "q", "responses": ["a", "b"], "scores": [0, 0], "help": [3, 5], "honest": [4, 5]}
    options = {"objectives": ("help", "honest"), "controlled": ("help",), "request": {"help": 3}}
    first, second = stages("cpo_controllable", **options)
    objective, records = trained(first, read(row))
    assert objective == as_objective(objectives.sft.sft())
    assert imitated(records) == [("< help: 3 >\nq", "a"), ("< help: 5 >\nq", "b")]
    objective, records = trained(second, read(row))
    assert objective == as_objective(objectives.dpo.dpo(beta=0.1))
    assert told(records) == [("< help: 3 >\nq", "a", "b", 1.0, 1.0)]  # 4 - 0 against 5 - 2
    free = stages("cpo_controllable", objectives=("help", "honest"), controlled=())[1]
    assert told(trained(free, read(row))[1]) == [("q", "b", "a", 1.0, 1.0)]  # the larger sum


def test_under_one_reward_alone_the_best_of_n_is_imitated_and_every_round_draws_other_directions():
    alone = stages("dpa", by=("help", "honest"), directions=((1.0, 0.0),), template="{direction}")
    row = {"prompt": "q", "responses": ["a", "b"], "scores": [0, 0], "help": [3, 5], "honest": [9, 1]}
    objective, records = trained(alone[0], read(row))
    assert objective == as_objective(objectives.sft.sft())
    assert imitated(records) == [("help*100 + honest*0\nq", "b")]
    found = [imitated(trained(stage, read(*JUDGED))[1]) for stage in stages("dpa", by=("help", "honest"), rounds=2)]
    assert found[0] != found[1]


def test_a_preference_in_words_is_imitated_and_then_preferred_to_answers_for_another_one():
    first, second = stages("metaalign", conditions=WORDS)
    rows = read(*WISHES[:2])
    assert imitated(trained(first, rows)[1]) == [
        ("Answer a child.\nq0", "for kids 0"),
        ("Answer an expert.\nq0", "for experts 0"),
    ]
    assert told(trained(second, rows)[1]) == [
        ("Answer a child.\nq0", "for kids 0", "for experts 0", 1.0, 1.0),
        ("Answer an expert.\nq0", "for experts 0", "for kids 0", 1.0, 1.0),
    ]
    assert len(stages("metaalign", conditions=WORDS, stages=1)) == 1
    silent = stages("metaalign", conditions=dict.fromkeys(WORDS, ""), stages=1)
    assert trained(*silent, rows)[1] == trained(*stages("sft"), rows)[1]  # character for character


def test_a_system_message_conditions_all_three_losses_and_pairs_may_be_the_datas_own():
    rows = read(*WISHES[:2])
    for loss, expected in (("dpo", objectives.dpo.dpo(beta=0.2)), ("orpo", objectives.orpo.orpo(lam=0.3))):
        objective, records = trained(*stages("janus", conditions=WORDS, loss=loss, beta=0.2, lam=0.3), rows)
        assert objective == as_objective(expected)
        assert pairs_of(records) == [("for kids 0", "for experts 0"), ("for experts 0", "for kids 0")]
    assert imitated(trained(*stages("janus", conditions=WORDS), rows)[1])[0] == ("Answer a child.\nq0", "for kids 0")
    own = stages("janus", conditions=WORDS, loss="dpo", cross=False)
    given = read(pair(0, domain="kids"))
    assert told(trained(*own, given)[1])[0][:2] == ("Answer a child.\np0", "good 0. Yes, it is. So be it. Now.")


# ------------------------------------------------------------------------------------------------------ samples, trees


def test_pairs_are_mined_where_rewards_are_far_apart():
    row = listed(0, [0.0, 3.0, 1.0, 1.0])
    found = pairs_of(trained(*stages("rs_dpo"), read(row))[1])  # more than log(.85 / .15) = 1.73 apart
    assert found == [("answer 1 of 0", f"answer {i} of 0") for i in (0, 2, 3)]
    every = pairs_of(trained(*stages("rs_dpo", eta=0.5), read(row))[1])
    assert len(every) == 5  # of six, one is a tie
    objective, capped = trained(*stages("rs_dpo", eta=0.5, cap=2, equal_prompts=True, beta=0.3), read(row))
    assert [record_weight for *_, record_weight in told(capped)] == [0.5, 0.5]
    assert objective == as_objective(objectives.dpo.dpo(beta=0.3))


def test_gold_labels_go_before_the_discriminators_and_a_tie_in_gold_leaves_it_the_word():
    def order(**columns):
        return pairs_of(trained(*stages("d2po"), read(listed(0, [1.0, 2.0], **columns)))[1])

    assert order() == [("answer 1 of 0", "answer 0 of 0")]
    assert order(gold_reward=[5.0, 3.0]) == [("answer 0 of 0", "answer 1 of 0")]
    assert order(gold_reward=[3.0, 3.0]) == [("answer 1 of 0", "answer 0 of 0")]
    assert order(gold_reward=[5.0, None]) == [("answer 1 of 0", "answer 0 of 0")]
    assert order(gold_reward=[1.0, 2.0]) == order()  # a discriminator that is right
    assert as_objective(stages("d2po")[0].composition.objective) == as_objective(objectives.dpo.dpo(beta=0.05))


def logged(k, item, own):
    return Record(f"u{k}", (Item(f"u{k}", item), Item(f"u{k}", own, role="policy_sample")))


def test_self_play_imitates_the_logged_item_and_then_rejects_the_models_own():
    rows = [logged(0, "film A", "film B"), logged(1, "film C", "film C")]
    first, second = stages("sprec", iterations=1)
    assert sorted(imitated(trained(first, rows)[1])) == [("u0", "film A"), ("u1", "film C")]
    records, reports = prepare(second, rows)
    assert told(records) == [("u0", "film A", "film B", 1.0, 1.0)]  # the right prediction makes no pair
    (report,) = [report for name, report in reports.items() if "against_own" in name]
    assert report.left_out == {"the model's own answer is the preferred one": 1}
    assert [item.role for item in records[0].items] == ["response", "response"]


def test_a_prediction_takes_the_rejected_responses_place_and_without_one_self_play_is_dpo():
    (_, second) = stages("sprec", iterations=1)
    with_own = read(pair(0, policy_sample="own"))
    assert pairs_of(trained(second, with_own)[1]) == [(with_own[0].items[0].response, "own")]
    assert trained(second, read(*PAIRS)) == trained(*stages("dpo"), read(*PAIRS))


def test_an_iteration_of_self_play_trains_twice_on_one_draw_and_the_next_on_another():
    rows = [logged(k, "A", "B") for k in range(12)]
    drawn = [[record.id for record in trained(s, rows)[1]] for s in stages("sprec", iterations=2, rows=5)]
    assert [len(ids) for ids in drawn] == [5, 5, 5, 5]
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3]


def test_steps_of_a_tree_are_compared_behind_the_accepted_steps():
    objective, records = trained(*stages("longdpo", beta=0.2), read(tree(0)))
    assert told(records) == [("count 0:", " one", " won", 1.0, 1.0), ("count 0: one", " two", " too", 1.0, 1.0)]
    assert objective == as_objective(objectives.dpo.dpo(beta=0.2))


def test_pseudo_feedback_compares_by_the_majority_by_tests_or_by_completions():
    objective, records = trained(*stages("pfpo", lam=0.5), read(*CASES["pfpo"][1]))
    assert pairs_of(records) == [("it is 2", "3"), ("so 2", "3"), ("2", "3")]
    assert objective == as_objective(objectives.dpo_sft.dpo_sft(beta=0.5, lam=0.5))
    tests = {
        "prompt": "p",
        "responses": ["f", "g", "h"],
        "scores": [0, 0, 0],
        "passed": [9, 4, 3],
        "tests": [10, 10, 10],
    }
    assert pairs_of(trained(*stages("pfpo", how="passes"), read(tests))[1]) == [("f", "h")]  # a lead of 6
    nodes = [
        {"id": 0, "text": " a", "v": 2},
        {"id": 1, "parent": 0, "text": " b", "v": 2},
        {"id": 2, "text": " c", "v": 0},
        {"id": 3, "parent": 2, "text": " d", "v": 0},
    ]
    beginnings = trained(*stages("pfpo", how="prefixes"), read({"prompt": "p", "nodes": nodes}))[1]
    assert pairs_of(beginnings) == [(" a", " c")]
    without = as_objective(stages("pfpo", lam=0.0)[0].composition.objective)
    counted = fields(len_chosen=[2, 2], len_rejected=[2, 2])
    assert without(**counted).item() == pytest.approx(objectives.dpo.dpo(beta=0.5)(**fields()).item(), rel=1e-12)


def test_survivors_of_rejection_sampling_are_compared_by_reward():
    best = stages("rso_sampled", k=2, beta=0.0, pairing="best_worst")[0]  # no trust in luck: the two best
    objective, records = trained(best, read(listed(0, [0.0, 3.0, 1.0, 2.0])))
    assert pairs_of(records) == [("answer 1 of 0", "answer 3 of 0")]
    assert objective == as_objective(objectives.rso.rso())
    plain = as_objective(stages("rso_sampled", loss="sigmoid", gamma=0.1)[0].composition.objective)
    assert plain(**fields()).item() == pytest.approx(objectives.dpo.dpo()(**fields()).item(), rel=1e-12)


@pytest.mark.parametrize("how", ["bottomk", "coreset", "optselect"])
def test_as_many_negatives_as_there_are_others_is_ampo_on_the_whole_list(how):
    records = read(listed(0, [0.0, 3.0, 1.0, 2.0]))
    objective, chosen = trained(*stages("ampo_selected", how=how, k=3), records)
    assert objective == as_objective(objectives.ampo.ampo())
    assert {item.response for item in chosen[0].items} == {item.response for item in records[0].items}
    assert [item.response for item in chosen[0].items if item.label] == ["answer 1 of 0"]


def test_two_negatives_of_three_are_the_two_worst_where_that_is_asked_for():
    _, (record,) = trained(*stages("ampo_selected", how="bottomk", k=2), read(listed(0, [0.0, 3.0, 1.0, 2.0])))
    assert [item.response for item in record.items] == ["answer 1 of 0", "answer 0 of 0", "answer 2 of 0"]


def test_variants_are_made_of_pairs_and_enter_no_comparison():
    objective, (record,) = trained(*stages("spo_degree_variants", n=2), read(pair(0)))
    variants = [item for item in record.items if item.role == "variant"]
    assert [item.columns["degree"] for item in variants] == [0, 1, 2]
    assert variants[0].response == record.items[0].response
    assert len(variants[2].response) < len(variants[1].response) < len(variants[0].response)
    assert pairs_of([record]) == [(record.items[0].response, "bad 0")]
    assert objective == as_objective(objectives.spo_degree.spo_degree())
    bare = stages("spo_degree_variants", gamma=0.0, base="ipo", base_options={"tau": 0.3})[0].composition
    assert bare.objective == objectives.spo_degree.spo_degree(base="ipo", base_options={"tau": 0.3}, gamma=0.0)


# ------------------------------------------------------------------------------------------------------ tabular worlds


class Table(nn.Module):
    """A policy over answers to one prompt: free logits."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.as_tensor(logits, dtype=torch.float64).clone())

    @property
    def logp(self):
        return self.logits.log_softmax(0)


def minimise(parameters, loss):
    """Move `parameters` to the minimum of `loss`, which is smooth and convex."""
    options = {"max_iter": 300, "tolerance_grad": 1e-13, "tolerance_change": 1e-16, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS(parameters, **options)

    def step():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(step)


REWARD = torch.tensor([0.0, 0.4, 1.0, -0.7], dtype=torch.float64)
START = torch.tensor([0.3, -0.2, 0.1, 0.0], dtype=torch.float64)


def fit(objective, start):
    """The optimum of `objective` from the table `start`, which is its reference, on all pairs, labels by REWARD."""
    table = Table(start.logits.detach())
    first, second = torch.combinations(torch.arange(len(REWARD))).T
    reference = start.logp.detach()

    def loss():
        return objective(
            logp_chosen=table.logp[first],
            logp_rejected=table.logp[second],
            ref_logp_chosen=reference[first],
            ref_logp_rejected=reference[second],
            preference=torch.sigmoid(REWARD[first] - REWARD[second]),
        )

    minimise(table.parameters(), loss)
    return table


def progress(table):
    """c with log pi - log pi_0 = c * REWARD / beta + const, beta = 0.5; it must fit exactly."""
    moved = table.logp.detach() - Table(START).logp.detach()
    moved, reward = moved - moved.mean(), (REWARD - REWARD.mean()) / 0.5
    c = (moved @ reward / (reward @ reward)).item()
    assert torch.allclose(moved, c * reward, atol=1e-5)
    return c


def test_momentum_carries_each_round_further_by_a_geometric_sum():
    alpha = 0.4
    gained = []
    model, before = Table(START), Table(START)
    for stage in stages("apo_momentum", rounds=3, alpha=alpha, base_options={"beta": 0.5}):
        trained_to = fit(as_objective(stage.composition.objective), model)
        model = Table(trained_to.logits.detach())
        extrapolate(model, before, stage.composition.momentum)
        before = trained_to  # where the round ended in training, not where it was moved to
        gained.append(progress(model))
    steps = [1 + alpha, 1 + alpha + alpha**2, 1 + alpha + alpha**2 + alpha**3]
    assert gained == pytest.approx([sum(steps[:1]), sum(steps[:2]), sum(steps)], abs=1e-5)
    assert gained[:2] == pytest.approx([1 + alpha, 2 + 2 * alpha + alpha**2], abs=1e-5)


def test_steps_that_say_the_same_are_one_training_with_beta_divided_by_their_number():
    model = Table(START)
    for stage in stages("sdpo_stepwise", parts=3, base_options={"beta": 0.5}):
        model = fit(as_objective(stage.composition.objective), model)
    once = fit(as_objective(objectives.dpo.dpo(beta=0.5 / 3)), Table(START))
    assert torch.allclose(model.logp, once.logp, atol=1e-5)
    assert progress(model) == pytest.approx(3.0, abs=1e-5)


def test_an_item_that_the_model_recommends_more_is_pushed_down_more():
    # expected gradient at the start, the rejected item drawn from the model itself: -beta/2 (e_logged - pi)
    (_, second) = stages("sprec", iterations=1)
    objective = as_objective(second.composition.objective)
    table, logged = Table(START), 2
    pi = table.logp.exp().detach()
    others = torch.arange(len(pi))
    logp = table.logp
    loss = sum(
        pi[k]
        * objective(
            logp_chosen=logp[logged : logged + 1],
            logp_rejected=logp[k : k + 1],
            ref_logp_chosen=logp[logged : logged + 1].detach(),
            ref_logp_rejected=logp[k : k + 1].detach(),
        )
        for k in others
    )
    loss.backward()
    expected = -0.05 * (torch.eye(len(pi), dtype=pi.dtype)[logged] - pi)
    assert torch.allclose(table.logits.grad, expected, atol=1e-12)


def lead_of(objective, labels):
    """The beta * dh per pair at which `objective` is least, with the reference at 0 and beta = 0.1."""
    h = torch.zeros(len(labels), dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(len(labels), dtype=torch.float64)
    minimise(
        [h],
        lambda: objective(
            logp_chosen=h,
            logp_rejected=zero,
            ref_logp_chosen=zero,
            ref_logp_rejected=zero,
            preference=torch.tensor(labels, dtype=torch.float64),
        ),
    )
    return 0.1 * h.detach()


@pytest.mark.parametrize("key", ["osp", "dpo_refined", "rosepo"])
def test_a_soft_label_is_reached_at_its_log_odds(key):
    objective = as_objective(stages(key)[0].composition.objective)
    labels = [0.5, 0.7, 0.9, 0.2]
    expected = torch.logit(torch.tensor(labels, dtype=torch.float64))
    assert torch.allclose(lead_of(objective, labels), expected, atol=1e-3)


def test_scores_of_a_judge_undo_failed_revisions_where_plain_dpo_learns_to_revise():
    # 3 rows in 10 are failed revisions. A pair differs by (1 = was revised, quality, 6 features without meaning); the
    # policy's log-ratio is linear in them. Statistic: how many of 2000 other pairs it orders as their quality does.
    generator = torch.Generator().manual_seed(0)

    def pairs_with_failures(n):
        quality = torch.randn(n, generator=generator, dtype=torch.float64).abs()
        quality[: n * 3 // 10] *= -1
        rest = torch.randn(n, 6, generator=generator, dtype=torch.float64)
        return torch.cat([torch.ones(n, 1, dtype=torch.float64), quality[:, None], rest], 1), quality

    (seen, quality), (new, truth) = pairs_with_failures(200), pairs_with_failures(2000)
    rows = [scored(k, float(q), 0.0) for k, q in enumerate(quality)]

    def accuracy(key, **options):
        objective, records = trained(*stages(key, **options), read(*rows))
        direction = torch.zeros(seen.shape[1], dtype=torch.float64, requires_grad=True)
        zero = torch.zeros(len(seen), dtype=torch.float64)
        labels = torch.tensor([record.comparisons[0].preference for record in records], dtype=torch.float64)

        def loss():
            fit_to = objective(
                logp_chosen=seen @ direction,
                logp_rejected=zero,
                ref_logp_chosen=zero,
                ref_logp_rejected=zero,
                preference=labels,
            )
            return fit_to + 1e-4 * direction @ direction  # where labels are separable the optimum is at infinity

        minimise([direction], loss)
        return ((new @ direction.detach() > 0) == (truth > 0)).double().mean().item()

    clean = accuracy("dpo_refined", kappa=math.inf)  # every pair in its true order
    assert accuracy("dpo_refined") > clean - 0.02  # 0.99 and 0.94 when first run
    assert accuracy("dpo") < 0.75  # 0.70: "revised is better" holds for 7 rows in 10, and no more is learned
