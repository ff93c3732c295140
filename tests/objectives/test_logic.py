"""Formulas, their counts, the losses they compile to and the order of these losses.

The slow twin of the count adds up worlds one by one, with Python's own reading of the formula's repr.
"""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from worlds import gradients, minimise, pair_batch, with_items

from unipref.core.batch import Batch
from unipref.core.cards import get_method
from unipref.core.errors import ConfigError
from unipref.objectives import (
    as_objective,
    hinge,
    log_odds,
    logistic,
    logp,
    mean_logp,
    nll,
    pairwise,
    square,
)
from unipref.objectives.logic import (
    FALSE,
    SINGLE_MODEL,
    STRUCTURES,
    SYMBOLIC,
    TRUE,
    Chance,
    M,
    Ref,
    Structure,
    between,
    count_worlds,
    counted,
    decompile,
    definable,
    entails,
    equivalent,
    from_truth_table,
    implies,
    lattice,
    symbolic,
    symbolic_form,
    wmc,
)

W, L = M("w"), M("l")
FOUR = (W, L, Ref("w"), Ref("l"))

# name -> numerator and denominator of the ratio; p and r are the policy's and the reference's probabilities
CLOSED = {
    "CE": (lambda pw, pl, rw, rl: pw, lambda pw, pl, rw, rl: 1 - pw),
    "CEUnl": (lambda pw, pl, rw, rl: pw * (1 - pl), lambda pw, pl, rw, rl: 1 - pw * (1 - pl)),
    "CPO": (lambda pw, pl, rw, rl: pw, lambda pw, pl, rw, rl: pl),
    "ORPO": (lambda pw, pl, rw, rl: pw * (1 - pl), lambda pw, pl, rw, rl: pl * (1 - pw)),
    "DPO": (lambda pw, pl, rw, rl: pw * rl, lambda pw, pl, rw, rl: rw * pl),
    "SimPO": (lambda pw, pl, rw, rl: pw * rl, lambda pw, pl, rw, rl: rw * pl),
    "DPOP": (lambda pw, pl, rw, rl: pw * pw * rl, lambda pw, pl, rw, rl: rw * rw * pl),
}

# worlds of (w, l): TT, TF, FT, FF
TRUTH_TABLES = {
    "CEUnl": "D,N,D,D",
    "CE": "N,N,D,D",
    "cUnl": "D,N,D,·",
    "qfUnl": "·,N,D,ND",
    "fUnl": "D,N,D,N",
    "ORPO": "·,N,D,·",
    "cfUnl": "·,N,D,N",
    "CPO": "ND,N,D,·",
    "cCPO": "N,N,D,·",
    "unCPO": "N,N,D,N",
}

# by hand from TRUTH_TABLES: N may only grow and D only shrink upwards
EDGES = {
    ("CEUnl", "CE"),  # TT from D to N
    ("CEUnl", "cUnl"),  # FF out of D
    ("CEUnl", "qfUnl"),  # TT out of D, FF into N
    ("cUnl", "fUnl"),  # FF into N
    ("cUnl", "ORPO"),  # TT out of D
    ("cUnl", "CPO"),  # TT into N
    ("CE", "cCPO"),  # FF out of D
    ("qfUnl", "cfUnl"),  # FF out of D
    ("fUnl", "cfUnl"),  # TT out of D
    ("ORPO", "cfUnl"),  # FF into N
    ("ORPO", "cCPO"),  # TT into N
    ("CPO", "cCPO"),  # TT out of D
    ("cfUnl", "unCPO"),  # TT into N
    ("cCPO", "unCPO"),  # FF into N
}


def random_formula(generator, propositions, depth=4):
    if depth == 0 or generator.random() < 0.15:
        return generator.choice([*propositions, TRUE, FALSE]) if depth else generator.choice(propositions)
    left, right = (random_formula(generator, propositions, depth - 1) for _ in range(2))
    return [lambda: left & right, lambda: left | right, lambda: ~left, lambda: implies(left, right)][
        generator.integers(4)
    ]()


def holds(formula, world):
    """Whether the formula holds in `world`, proposition -> bool, by Python's precedence rules and numpy's booleans."""
    names = {
        "M": lambda *name: np.bool_(world[M(*name)]),
        "Ref": lambda *name: np.bool_(world[Ref(*name)]),
        "implies": lambda a, b: ~a | b,
        "TRUE": np.True_,
        "FALSE": np.False_,
    }
    return bool(eval(repr(formula), names))


def brute(formula, probs):
    """The weighted model count of the formula, world by world; probs: proposition -> (P,) probabilities."""
    total = torch.zeros_like(next(iter(probs.values())))
    for truth in itertools.product([True, False], repeat=len(probs)):
        world = dict(zip(probs, truth, strict=True))
        if holds(formula, world):
            total = total + math.prod(p if world[name] else 1 - p for name, p in probs.items())
    return total


def weightings(seed, propositions, n=2000):
    """n random probabilities per proposition, some close to 0 and some close to 1."""
    generator = torch.Generator().manual_seed(seed)
    return {p: torch.sigmoid(4 * torch.randn(n, generator=generator, dtype=torch.float64)) for p in propositions}


def logs(probs):
    return {name: p.log() for name, p in probs.items()}


def close(left, right, tolerance=1e-12):
    return torch.allclose(left, right, rtol=tolerance, atol=tolerance)


def soft_batch(seed, **changes):
    return pair_batch(seed, preference=torch.tensor([1.0, 0.8, 0.5, 0.3, 0.0], dtype=torch.float64), **changes)


# -- formulas


def test_the_repr_of_a_formula_evaluates_to_the_same_formula():
    generator = np.random.default_rng(0)
    names = {"M": M, "Ref": Ref, "implies": implies, "TRUE": TRUE, "FALSE": FALSE}
    for _ in range(300):
        formula = random_formula(generator, (*FOUR, M("w", 2)))
        assert eval(repr(formula), names) == formula
    assert repr(W & (L & Ref("w"))) == "M('w') & (M('l') & Ref('w'))"
    assert repr(~(W | L) & L) == "~(M('w') | M('l')) & M('l')"


def test_a_proposition_of_the_policy_is_not_that_of_the_reference_nor_its_own_copy():
    assert len({M("w"), Ref("w"), M("w", 2), M("w")}) == 3


def test_python_words_between_formulas_are_refused_since_they_would_drop_one():
    with pytest.raises(TypeError, match="neither true nor false by itself; join formulas with"):
        bool(W and L)


# -- counting


def test_the_count_is_the_sum_over_worlds_values_and_gradients():
    generator = np.random.default_rng(1)
    for seed in range(60):
        formula = random_formula(generator, FOUR)
        probs = {p: v.clamp(0.01, 0.99).requires_grad_() for p, v in weightings(seed, FOUR, 5).items()}
        slow = brute(formula, probs)
        fast = wmc(formula, logs(probs)).exp()
        assert close(fast, slow)
        if fast.requires_grad:
            slopes = (torch.autograd.grad(x.sum(), list(probs.values()), allow_unused=True) for x in (fast, slow))
            for ours, theirs in zip(*slopes, strict=True):
                assert close(torch.zeros(5, dtype=torch.float64) if ours is None else ours, theirs)


def test_true_counts_one_false_nothing_and_the_shape_is_that_of_the_rows():
    rows = {W: torch.full((3,), -1.0, dtype=torch.float64)}
    assert wmc(TRUE, rows).tolist() == [0.0] * 3
    assert wmc(W | ~W, rows).tolist() == [0.0] * 3
    assert wmc(W & ~W, rows).tolist() == [-math.inf] * 3
    assert wmc(TRUE, rows).dtype == torch.float64
    assert wmc(TRUE, {}).tolist() == 0.0


def test_locality_unused_propositions_change_neither_value_nor_gradient_by_a_bit():
    probs = {p: v.log().requires_grad_() for p, v in weightings(2, FOUR).items()}
    plain = wmc(W & ~L, {W: probs[W], L: probs[L]})
    for formula in (W & ~L, W & ~L & (Ref("w") | ~Ref("w")), (W & ~L & Ref("l")) | (W & ~L & ~Ref("l"))):
        wider = wmc(formula, probs)
        assert torch.equal(wider, plain)
        slopes = torch.autograd.grad(wider.sum(), list(probs.values()), allow_unused=True)
        assert slopes[2] is None
        assert slopes[3] is None
    assert count_worlds((W & Ref("l")) | (W & ~Ref("l"))) == Chance(W)


def test_twelve_propositions_are_counted_and_thirteen_refused():
    many = [M(str(i)) for i in range(13)]
    any_of = many[0]
    for proposition in many[1:12]:
        any_of = any_of | proposition
    half = torch.tensor([0.5], dtype=torch.float64).log()
    assert wmc(any_of, dict.fromkeys(many, half)).exp().item() == pytest.approx(1 - 2.0**-12, rel=1e-15)
    with pytest.raises(ConfigError, match="13 propositions make 2\\^13 worlds"):
        wmc(any_of | many[12], dict.fromkeys(many, half))


def test_a_missing_log_probability_is_named():
    with pytest.raises(ConfigError, match=r"needs the log-probability of M\('l'\); given are M\('w'\)"):
        wmc(W & L, {W: torch.zeros(1)})


@pytest.mark.parametrize("logit", [-1e4, -50.0, -1e-9, 0.0])
def test_counts_and_slopes_are_finite_at_the_ends_of_the_scale(logit):
    for name, structure in STRUCTURES.items():
        values = {p: torch.tensor([logit, -0.7], requires_grad=True) for p in structure.propositions}
        rho = structure.log_ratio(values)
        assert rho.isfinite().all(), name
        for slope in torch.autograd.grad(rho.sum(), list(values.values())):
            assert slope.isfinite().all(), name


# -- structures


@pytest.mark.parametrize("name", CLOSED)
def test_log_ratios_are_those_of_the_published_table(name):
    probs = weightings(3, FOUR)
    copies = {M("w", 2): probs[W], Ref("w", 2): probs[Ref("w")]} if name == "DPOP" else {}
    structure = STRUCTURES[name]
    top, bottom = (part(*probs.values()) for part in CLOSED[name])
    assert close(structure.log_ratio(logs(probs | copies)), top.log() - bottom.log())
    few = {p: v[:50] for p, v in (probs | copies).items()}
    worlds = brute(structure.form, few).log() - brute(structure.negated, few).log()
    assert close(structure.log_ratio(logs(few)), worlds, 1e-10)  # adding up 1 - p_w (1 - p_l) loses digits, ours not


def test_truth_tables_are_those_of_the_published_view():
    assert {name: s.truth_table((W, L)) for name, s in SINGLE_MODEL.items()} == TRUTH_TABLES
    for marks in TRUTH_TABLES.values():
        assert from_truth_table(marks, (W, L)).truth_table((W, L)) == marks


def test_a_condition_that_is_false_as_printed_for_ce_leaves_no_world():
    printed = Structure(W, FALSE)
    assert printed.truth_table() == "·,·"
    with pytest.raises(ConfigError, match="holds in no world"):
        symbolic(printed)
    assert STRUCTURES["CE"].condition == STRUCTURES["CEUnl"].condition == TRUE


def test_the_printed_denominator_of_ceunl_counts_a_world_twice_and_is_refused():
    p_w, p_l = Chance(W), Chance(L)
    with pytest.raises(ConfigError, match=r"both summands count the world ~M\('w'\) & M\('l'\)"):
        decompile(p_w * (1 - p_l), p_l + (1 - p_w))
    assert equivalent(decompile(p_w * (1 - p_l), 1 - p_w * (1 - p_l)), STRUCTURES["CEUnl"])
    probs = weightings(4, (W, L))
    printed, ours = probs[L] + 1 - probs[W], STRUCTURES["CEUnl"].denominator.log_value(logs(probs)).exp()
    assert close(printed - ours, (1 - probs[W]) * probs[L])  # the weight of that world


@pytest.mark.parametrize(
    ("top", "bottom"),
    [
        *(pair for name, pair in CLOSED.items() if name != "DPOP"),
        (lambda pw, pl, rw, rl: pw * rl + (1 - pw) * rw, lambda pw, pl, rw, rl: 1 - pl),
        (lambda pw, pl, rw, rl: (pw + (1 - pw) * pl) * (1 - rw), lambda pw, pl, rw, rl: pl * (1 - (1 - rl) * rw)),
    ],
)
def test_decompiled_polynomials_have_the_ratio_they_came_from(top, bottom):
    chances = [Chance(p) for p in FOUR]
    structure = decompile(top(*chances), bottom(*chances))
    probs = weightings(5, FOUR)
    expected = top(*probs.values()).log() - bottom(*probs.values()).log()
    assert close(structure.log_ratio(logs(probs)), expected)


def test_decompiling_gives_the_core_formulas_of_the_published_table():
    p_w, p_l, r_w, r_l = (Chance(p) for p in FOUR)
    assert decompile(p_w, p_l).core == implies(L, W)
    assert decompile(p_w * r_l, r_w * p_l) == STRUCTURES["DPO"]
    copied = decompile(p_w * r_l * Chance(M("w", 2)), r_w * p_l * Chance(Ref("w", 2)))
    assert equivalent(copied, STRUCTURES["DPOP"])
    for name in ("CE", "CEUnl", "ORPO"):  # another core, the same worlds
        structure = STRUCTURES[name]
        assert equivalent(decompile(structure.numerator, structure.denominator), structure)


def test_what_is_no_chance_of_an_event_is_refused():
    p_w = Chance(W)
    with pytest.raises(ConfigError, match=r"p_w \* p_w is not multilinear.*copy of its own, M\('w', 2\)"):
        decompile(p_w * p_w, Chance(L))
    with pytest.raises(ConfigError, match="2 - p_w is no probability"):
        2 - p_w


@pytest.mark.parametrize("marks", ["D,N,D", "D,N,D,X", "D,N,D,·,·"])
def test_a_truth_table_has_one_known_mark_per_world(marks):
    with pytest.raises(ConfigError, match="has 4 of the marks ·, D, N, ND"):
        from_truth_table(marks, (W, L))


# -- the order of losses


def test_n_propositions_define_4_to_the_2_to_the_n_losses_each_with_a_structure():
    for n, propositions in ((1, (W,)), (2, (W, L))):
        tables = [",".join(marks) for marks in itertools.product(("·", "D", "N", "ND"), repeat=2**n)]
        found = [from_truth_table(marks, propositions) for marks in tables]
        assert [s.truth_table(propositions) for s in found] == tables
        assert len(found) == definable(n)
    assert definable(4) == 4_294_967_296


def test_the_lattice_of_the_named_losses_is_the_one_worked_out_by_hand():
    assert lattice() == EDGES


def test_a_loss_that_entails_another_is_never_below_it():
    ordered = [(a, b) for a, b in itertools.permutations(SINGLE_MODEL, 2) if entails(SINGLE_MODEL[a], SINGLE_MODEL[b])]
    assert set(ordered) >= EDGES
    rho = {name: s.log_ratio(logs(weightings(6, (W, L), 5000))) for name, s in SINGLE_MODEL.items()}
    for a, b in ordered:
        for link in (logistic(), hinge(at=0.5)):
            assert (link(rho[a]) >= link(rho[b]) - 1e-12).all(), (a, b)


def test_losses_that_do_not_entail_each_other_are_each_larger_somewhere():
    rho = {name: s.log_ratio(logs(weightings(7, (W, L), 5000))) for name, s in SINGLE_MODEL.items()}
    others = [
        (a, b) for a, b in itertools.permutations(SINGLE_MODEL, 2) if not entails(SINGLE_MODEL[a], SINGLE_MODEL[b])
    ]
    for a, b in others:
        assert (rho[a] > rho[b] + 1e-6).any(), (a, b)


def test_two_names_for_one_structure_have_no_place_in_a_lattice():
    with pytest.raises(ConfigError, match="DPO and SimPO are one structure under two names"):
        lattice(STRUCTURES)


def test_two_losses_lie_between_ceunl_and_cpo_and_one_of_them_has_no_name():
    found = [s.truth_table((W, L)) for s in between(STRUCTURES["CEUnl"], STRUCTURES["CPO"])]
    assert found == [TRUTH_TABLES["cUnl"], "ND,N,D,D"]
    assert "ND,N,D,D" not in TRUTH_TABLES.values()


def test_between_gives_every_structure_that_both_ends_bound_and_no_other():
    bottom, top = STRUCTURES["CEUnl"], STRUCTURES["unCPO"]
    tables = {",".join(marks) for marks in itertools.product(("·", "D", "N", "ND"), repeat=4)}
    inside = {
        marks
        for marks in tables - {TRUTH_TABLES["CEUnl"], TRUTH_TABLES["unCPO"]}
        if entails(bottom, from_truth_table(marks, (W, L))) and entails(from_truth_table(marks, (W, L)), top)
    }
    found = [s.truth_table((W, L)) for s in between(bottom, top)]
    assert set(found) == inside
    assert len(found) == len(inside) == 2 ** (2 + 2) - 2  # TT and FF into N, TT and FF out of D
    with pytest.raises(ConfigError, match="the first does not entail the second"):
        list(between(top, bottom))


# -- compiled losses


def preference(key, **options):
    """The term of a catalogue method that has a symbolic form."""
    terms = as_objective(get_method(key).build(**options)).terms
    return next((term for term in terms if term.role == "preference"), terms[0])


METHODS = {
    "bapo": [(preference("bapo", beta=0.3), SYMBOLIC["bapo"].term(0.3))],
    "cdpo": [
        (
            preference("cdpo", beta=0.3, flip=0.2),
            replace(SYMBOLIC["cdpo"].term(0.3), target=preference("cdpo", flip=0.2).target),
        )
    ],
    "cpo": [(preference("cpo", beta=0.3), SYMBOLIC["cpo"].term(0.3))],
    "dpo": [(preference("dpo", beta=0.3), SYMBOLIC["dpo"].term(0.3))],
    "dpop": [(preference("dpop", beta=0.3, lam=1.0), SYMBOLIC["dpop"].term(0.3))],
    "dpo_sft": [(preference("dpo_sft", beta=0.3), SYMBOLIC["dpo_sft"].term(0.3))],
    "dpo_robust": [
        (
            preference("dpo_robust", beta=0.3, flip=0.1),
            replace(SYMBOLIC["dpo_robust"].term(0.3), target=preference("dpo_robust", flip=0.1).target),
        )
    ],
    "ipo": [
        (preference("ipo", tau=0.2), SYMBOLIC["ipo"].term(0.2)),
        (preference("ipo", tau=0.2, norm="mean"), replace(SYMBOLIC["ipo"], eta=1.0).term(0.2)),
    ],
    "ln_dpo": [(preference("ln_dpo", beta=3.0), SYMBOLIC["ln_dpo"].term(3.0))],
    "orpo": [(preference("orpo", lam=0.1), 0.1 * SYMBOLIC["orpo"].term())],
    "rationale_dpo": [(preference("rationale_dpo", beta=0.3), SYMBOLIC["rationale_dpo"].term(0.3))],
    "rationale_orpo": [(preference("rationale_orpo", beta=0.1), 0.1 * SYMBOLIC["rationale_orpo"].term())],
    "rso": [
        (preference("rso", gamma=0.3), 0.3 * SYMBOLIC["rso"].term(1 / 0.3)),
        (preference("rso", gamma=0.3, loss="sigmoid"), SYMBOLIC["dpo"].term(0.3)),
    ],
    "sft": [
        (preference("sft"), SYMBOLIC["sft"].term()),
        (preference("sft", per="sum"), replace(SYMBOLIC["sft"], eta=0.0).term()),
    ],
    "simpo": [
        (preference("simpo", beta=2.0, gamma=1.2), SYMBOLIC["simpo"].term(2.0, manual={"w": 0.0, "l": -0.6})),
    ],
    "slic": [(preference("slic", delta=2.0), SYMBOLIC["slic"].term(2.0))],
    "spac": [(preference("spac", eta=4.0, lam=0.5), SYMBOLIC["spac"].term(1 / 4))],
    "step_dpo": [(preference("step_dpo", beta=0.3), SYMBOLIC["step_dpo"].term(0.3))],
    "svpo": [(preference("svpo", beta=0.3), SYMBOLIC["svpo"].term(0.3))],
    "tpo_l": [
        (
            preference("tpo_l", beta=2.0, gamma=1.6),
            SYMBOLIC["tpo_l"].term(2.0, manual={"w": 0.0, "l": -0.8}),
        )
    ],
    "tpo_triple": [(preference("tpo_triple", beta=0.3), SYMBOLIC["tpo_triple"].term(0.3))],
    "typo": [(preference("typo"), SYMBOLIC["typo"].term())],
}


def test_every_symbolic_form_is_held_against_its_method():
    assert set(METHODS) == set(SYMBOLIC)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize(("key", "case"), [(key, case) for key, cases in METHODS.items() for case in range(len(cases))])
def test_a_compiled_formula_is_the_catalogues_loss_gradients_too(key, case, soft):
    if key == "sft" and soft:
        return check_likelihood_with_soft_labels()
    catalogue, compiled = METHODS[key][case]
    for seed in (10, 11, 12):
        batch = soft_batch(seed) if soft else pair_batch(seed)
        batch = with_items(batch, logp=batch.item("logp") / 2)  # torch's softplus drops e^-20 from 20 on; stay below
        if key == "dpop":  # its form is that of the side of the kink where the penalty acts
            batch = with_items(batch, ref_logp=0.9 * batch.item("logp"))
        theirs, (slope,) = gradients(as_objective(catalogue), batch)
        ours, (found,) = gradients(as_objective(compiled), batch)
        assert close(ours, theirs)
        assert close(found, slope)


def check_likelihood_with_soft_labels():
    """Demonstrations have no soft labels; the anchor on pairs has, and is the same formula."""
    batch = soft_batch(13)
    theirs, (slope,) = gradients(as_objective(nll()), batch)
    ours, (found,) = gradients(as_objective(SYMBOLIC["sft"].term()), batch)
    assert close(ours, theirs)
    assert close(found, slope)


def test_dpop_is_its_structure_where_the_chosen_response_is_below_its_reference():
    chosen, rejected, ref_chosen, ref_rejected = -7.0, -5.0, -6.0, -5.5
    margin = (chosen - ref_chosen) - (rejected - ref_rejected) - max(0.0, ref_chosen - chosen)
    loss = symbolic(STRUCTURES["DPOP"], beta=0.4, eta=0)(
        logp_chosen=[chosen], logp_rejected=[rejected], ref_logp_chosen=[ref_chosen], ref_logp_rejected=[ref_rejected]
    )
    assert loss.item() == pytest.approx(math.log1p(math.exp(-0.4 * margin)), rel=1e-6)


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("link", ["logistic", "squared", "margin"])
def test_a_swapped_pair_with_the_opposite_label_is_the_same_row(name, link):
    term = as_objective(symbolic(STRUCTURES[name], link=link, beta=0.7))
    batch = soft_batch(14)
    swapped = {"chosen": batch.pairs["rejected"], "rejected": batch.pairs["chosen"], "weight": batch.pairs["weight"]}
    other = replace(batch, pairs=swapped | {"preference": 1 - batch.pairs["preference"]})
    (ours, (slope,)), (theirs, (back,)) = gradients(term, batch), gradients(term, other)
    assert close(ours, theirs)
    assert close(slope, back)


def test_a_soft_label_weighs_both_readings_of_a_formula_that_speaks_of_one_side():
    loss = symbolic(STRUCTURES["CE"])(
        logp_chosen=[-2.0], logp_rejected=[-9.0], len_chosen=[2], len_rejected=[3], preference=[0.75]
    )
    assert loss.item() == pytest.approx(0.75 * 1.0 + 0.25 * 3.0, rel=1e-6)


def test_only_antisymmetric_ratios_turn_their_sign_with_the_pair():
    batch = pair_batch(15)
    values = mean_logp()(batch)
    turned = set()
    for name, structure in STRUCTURES.items():
        unit = counted(structure)
        if close(unit.reverse(values, batch), -unit.contrast(values, batch)):
            turned.add(name)
    # swapping w and l swaps TF with FT: N and D change places only where TT and FF count on both sides or on none
    assert turned == {"ORPO", "CPO", "qfUnl", "DPO", "SimPO"}


def test_a_reference_in_the_formula_is_read_without_gradient_and_only_there():
    dpo, cpo = (symbolic(STRUCTURES[name]) for name in ("DPO", "CPO"))
    assert dpo.needs == {"len", "ref_logp"}
    assert cpo.needs == {"len"}
    assert symbolic(STRUCTURES["CPO"], eta=0).needs == frozenset()
    assert symbolic(STRUCTURES["DPO"], eta=0, manual={"w": 0.0, "l": 0.0}).needs == frozenset()
    _, (policy, reference) = gradients(as_objective(dpo), pair_batch(16), ("logp", "ref_logp"))
    assert (policy != 0).all()
    assert (reference == 0).all()
    with pytest.raises(ConfigError, match="needs the column 'ref_logp'"):
        dpo(logp_chosen=[-1.0], logp_rejected=[-2.0], len_chosen=[1], len_rejected=[1])


def test_with_probabilities_of_whole_responses_orpos_formula_says_no_more_than_cpos():
    batch = pair_batch(17)
    long = with_items(batch, logp=batch.item("logp") - 300.0, len=batch.item("len") * 0 + 200)
    for eta, alike in ((0, True), (1, False)):
        losses = [as_objective(symbolic(STRUCTURES[n], eta=eta)).loss(long).total for n in ("ORPO", "CPO")]
        assert close(*losses) == alike


def test_half_precision_is_counted_in_single():
    columns = {"logp_chosen": -40.25, "logp_rejected": -41.5, "ref_logp_chosen": -40.0, "ref_logp_rejected": -41.0}
    fields = {name: torch.tensor([value], dtype=torch.bfloat16) for name, value in columns.items()}
    wide = {name: value.double() for name, value in fields.items()}
    lengths = {"len_chosen": torch.tensor([20]), "len_rejected": torch.tensor([21])}
    for name in STRUCTURES:
        term = symbolic(STRUCTURES[name], beta=0.1)
        assert term(**fields, **lengths).item() == pytest.approx(term(**wide, **lengths).item(), rel=1e-6)


def test_a_term_is_its_formula():
    term = symbolic(STRUCTURES["ORPO"], "odds", beta=2.0)
    names = {"Term": type(term), "counted": counted, "Structure": Structure, "M": M, "FALSE": FALSE}
    names |= {"implies": implies}
    assert eval(repr(term), names | {"mean_logp": mean_logp, "logistic": logistic}) == term
    assert as_objective(term).unit_needs == "pair"
    assert symbolic(STRUCTURES["CPO"], link="squared", beta=0.1).discrepancy == square(at=5.0)
    both = term + 0.5 * nll()
    assert [t.name for t in both.terms] == ["odds", "nll"]
    same = pairwise("odds", score=log_odds())
    batch = pair_batch(18)
    assert close(as_objective(symbolic(STRUCTURES["ORPO"])).loss(batch).total, as_objective(same).loss(batch).total)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: symbolic(STRUCTURES["CE"], link="logstic"), "did you mean 'logistic'"),
        (lambda: symbolic(STRUCTURES["CE"], beta=0), "needs a positive beta"),
        (lambda: symbolic(STRUCTURES["CE"], link="margin", beta=-1), "needs a positive beta"),
        (lambda: symbolic(Structure(M("other"))), "also names .*M\\('other'\\)"),
        (lambda: symbolic(STRUCTURES["DPO"], manual={"w": 0.0}), "for w and for l"),
        (lambda: symbolic(STRUCTURES["DPO"], manual={}), "for w and for l"),
        (lambda: symbolic(STRUCTURES["DPO"], manual={"w": 0.5, "l": 0.0}), "at most 0"),
        (lambda: symbolic(STRUCTURES["CPO"], manual={"w": 0.0, "l": 0.0}), "there is no Ref in"),
        (lambda: symbolic(Structure(W | ~W)), "holds in no world"),
    ],
)
def test_what_cannot_be_compiled_is_refused_by_name(call, says):
    with pytest.raises(ConfigError, match=says):
        call()


def test_the_page_of_a_method_shows_the_formula_and_its_ratio():
    assert symbolic_form("kto") is None
    assert symbolic_form("dpo").splitlines() == [
        "core:      implies(Ref('w') & M('l'), M('w') & Ref('l'))",
        "condition: M('w') & Ref('l') | Ref('w') & M('l')",
        "additive:  M('w') & Ref('l') & (Ref('w') & M('l'))",
        "log ratio: rho = log[p_w * r_l] - log[p_l * r_w]",
        "loss:      -log sigmoid(beta * rho)",
        "with:      p of the whole response.",
    ]
    assert "rho = log[p_w] - log[1 - p_w]" in symbolic_form("sft")
    assert "(rho - 1 / (2 * beta))^2" in symbolic_form("ipo")
    assert "max(0, beta - rho)" in symbolic_form("slic")


# -- a world in which a loss without a name is trained


def judged(logits):
    """Four of five judges take the first response over the second, one the second over the first."""
    both = logits.log_softmax(0)[:2]
    one = torch.ones(2)
    share = torch.tensor([0.8, 0.2], dtype=torch.float64)
    return Batch.from_fields(
        logp_chosen=both, logp_rejected=both.flip(0), len_chosen=one, len_rejected=one, weight=share
    )


def trained(term, responses, steps=500):
    """Logits of a policy over `responses` after gradient descent at rate 1, from the uniform one."""
    logits = torch.zeros(responses, dtype=torch.float64, requires_grad=True)
    for _ in range(steps):
        loss = as_objective(term).loss(judged(logits)).total
        logits.data -= torch.autograd.grad(loss, logits)[0]
    return logits.detach()


def test_the_unnamed_loss_between_ceunl_and_cpo_reaches_its_optimum():
    (_, unnamed) = between(STRUCTURES["CEUnl"], STRUCTURES["CPO"])
    logits = torch.tensor([0.3, 0.0], dtype=torch.float64, requires_grad=True)
    minimise(lambda: as_objective(symbolic(unnamed)).loss(judged(logits)).total, logits)
    # two responses, x = p_w = 1 - p_l: loss = -0.8 log x - 0.2 log(1 - x) + log(1 + x - x^2), slope by hand
    low, high = 0.5, 1.0 - 1e-12
    for _ in range(100):
        x = (low + high) / 2
        low, high = (x, high) if -0.8 / x + 0.2 / (1 - x) + (1 - 2 * x) / (1 + x - x * x) < 0 else (low, x)
    assert logits.softmax(0)[0].item() == pytest.approx(x, abs=1e-9)


def test_what_counts_against_the_winner_decides_where_the_other_responses_mass_goes():
    ends = STRUCTURES["CEUnl"], STRUCTURES["CPO"]
    structures = dict(zip(("CEUnl", "cUnl", "unnamed", "CPO"), (ends[0], *between(*ends), ends[1]), strict=True))
    policies = {name: trained(symbolic(s), 5) for name, s in structures.items()}
    rest = {name: logits.softmax(0)[2:].sum().item() for name, logits in policies.items()}
    # "neither is said" counts against w in CEUnl and the unnamed one: what nobody judged dies out
    assert rest["CEUnl"] < 0.03
    assert rest["unnamed"] < 0.03
    # CPO sees only the odds of w against l: 4 to 1 with the rest untouched, 3 / (2 + 1/2 + 3)
    assert policies["CPO"][2:].tolist() == [0.0] * 3
    assert rest["CPO"] == pytest.approx(3 / 5.5, abs=1e-6)
    # cUnl forgives "neither": it unsays both judged responses, and the mass goes to the rest, 3/5 before
    assert rest["cUnl"] > 0.9
    # and at each of these policies the four losses stand in the order of the lattice
    for logits in policies.values():
        losses = {name: as_objective(symbolic(s)).loss(judged(logits)).total for name, s in structures.items()}
        assert losses["CEUnl"] >= losses["cUnl"] >= losses["CPO"]
        assert losses["CEUnl"] >= losses["unnamed"] >= losses["CPO"]


def test_compiled_scores_are_log_probabilities_of_the_response():
    batch = pair_batch(19)
    assert torch.equal(as_objective(symbolic(STRUCTURES["DPO"], eta=0)).implicit_reward(batch), logp()(batch))
