"""What is known or claimed of each objective, and what came out, as data: `docs/claims.md` is made of it.

The numbers of a row stand in its test, which measures them; `test_claims.py` holds the two together.
"""

from dataclasses import dataclass

HOLDS, REFUTED, UNDECIDED, ELSEWHERE = "holds", "refuted", "undecided", "not testable here"
VERDICTS = (HOLDS, REFUTED, UNDECIDED, ELSEWHERE)


@dataclass(frozen=True)
class Claim:
    """One fact or claim.

    Attributes:
        method: the key of the catalogue.
        says: what is known or claimed, in plain words.
        source: where that stands; "derived" where it follows from the loss by arithmetic.
        world: where it was put to the test, and the control that lacks it after "against".
        result: what came out: the statistic, with the numbers that the test asserts.
        verdict: one of VERDICTS, about this world alone.
        test: the file under tests/objectives, "::" and the test; empty where nothing could be tested.
    """

    method: str
    says: str
    source: str
    world: str
    result: str
    verdict: str
    test: str = ""


TABLE = "test_claims_optima.py::test_the_population_loss_of_a_table_is_least_at_its_closed_form"
LEAD = "test_claims_optima.py::test_the_lead_of_a_response_comes_to_rest_at_its_closed_form"
SILENT = "test_claims_optima.py::test_how_far_even_labels_alone_move_a_policy_from_its_reference"
LISTS = "test_list_worlds.py::test_rewards_of_all_responses_lead_to_the_rlhf_optimum"
ARMS = "test_points.py::test_three_arms_reach_the_published_worlds_policies"
EXPONENTIAL = "test_points.py::test_sppo_and_gpo_optima_are_the_exponential_weights_update_up_to_its_normaliser"

SOFT = "softmax table of 5 responses, every pair, exact Bradley-Terry labels of a utility u"
ONE_LEAD = "one pair with a soft label, its lead free"
EVEN = "softmax table of 5 responses, every label 1/2"
PAIR_FIT = "policy within 1e-6 of the closed form, in total variation"
AT_REST = "lead within 1e-9 of the closed form"

# Where the loss of a whole population is least.
OPTIMA = (
    Claim(
        "dpo",
        "optimum ref e^(u / beta), the RLHF one",
        "2305.18290",
        SOFT,
        "within 1e-8",
        HOLDS,
        "test_known_worlds.py::test_dpo_with_soft_labels_reaches_the_rlhf_optimum",
    ),
    Claim(
        "dpo",
        "certain labels: no finite optimum",
        "2310.12036",
        "5 responses in a certain order, against ipo",
        "loss below 1e-12 far out",
        HOLDS,
        "test_claims_optima.py::test_ipo_on_a_certain_order_leaves_log_ratios_of_wins_less_losses_over_2_K_tau_where_"
        "dpo_runs_away",
    ),
    Claim(
        "dpo",
        "cannot leave a reference alone that explains the preferences already",
        "2407.09072",
        "three arms, labels by the reference's own shares, against typo",
        "it ends at ref^(1 + 1 / beta), within 1e-6",
        HOLDS,
        "test_claims_optima.py::test_typo_keeps_a_reference_that_explains_the_preferences_already_and_dpo_sharpens_it",
    ),
    Claim("dpo", "even labels leave the reference as it is", "derived", EVEN, "total variation 0.0", HOLDS, SILENT),
    Claim(
        "cdpo",
        "a certain pair stops at the log-odds of the flip rate",
        "derived",
        "one pair, against dpo",
        "lead within 1e-6 of log(0.8 / 0.2) / beta; dpo still moves",
        HOLDS,
        "test_known_worlds.py::test_cdpo_stops_at_the_logit_of_the_flip_rate_where_dpo_never_stops",
    ),
    Claim(
        "dpo_robust",
        "labels flipped at a known rate: the clean optimum",
        "2403.00409",
        f"{SOFT}, 1 in 5 of them flipped, against dpo",
        f"{PAIR_FIT}; dpo's is less sharp",
        HOLDS,
        TABLE,
    ),
    Claim(
        "ipo",
        "certain order of K: log-ratios (wins - losses) / (2 K tau)",
        "2310.12036",
        "5 responses in a certain order, against dpo",
        "policy within 1e-6 of it, in total variation",
        HOLDS,
        "test_claims_optima.py::test_ipo_on_a_certain_order_leaves_log_ratios_of_wins_less_losses_over_2_K_tau_where_"
        "dpo_runs_away",
    ),
    Claim(
        "ipo",
        "additive preferences: ref e^(u / 2 tau)",
        "2310.12036",
        "table of 5, p = 1/2 + (u_i - u_j) / 2",
        "within 1e-8",
        HOLDS,
        "test_known_worlds.py::test_ipo_reaches_its_closed_form_on_preferences_that_add_up",
    ),
    Claim("cpo", "without its likelihood: e^(u / beta), no reference in it", "derived", SOFT, PAIR_FIT, HOLDS, TABLE),
    Claim(
        "cpo",
        "even labels move it off the reference, which it does not know",
        "derived",
        f"{EVEN}, against dpo",
        "total variation 0.516, dpo 0.0",
        HOLDS,
        SILENT,
    ),
    Claim(
        "orpo",
        "even labels move it off the reference, which it does not know",
        "derived",
        f"{EVEN}, against dpo",
        "total variation 0.534, dpo 0.0",
        HOLDS,
        SILENT,
    ),
    Claim("simpo", "margin 0: log-probabilities |y| (u + c) / beta", "derived", SOFT, PAIR_FIT, HOLDS, TABLE),
    Claim(
        "simpo",
        "a margin pulls an even pair nowhere and an uneven one further",
        "derived",
        ONE_LEAD,
        f"{AT_REST}; 0.0 for an even pair",
        HOLDS,
        LEAD,
    ),
    Claim(
        "simpo",
        "even labels move it off the reference, which it does not know",
        "derived",
        f"{EVEN}, against dpo",
        "total variation 0.614, dpo 0.0",
        HOLDS,
        SILENT,
    ),
    Claim("ln_dpo", "log-ratios |y| (u + c) / beta: not the RLHF optimum", "derived", SOFT, PAIR_FIT, HOLDS, TABLE),
    Claim(
        "dpo_length_reg",
        "annotators who like length: alpha per token takes exactly that out",
        "2406.11817, derived",
        f"{SOFT} + 0.2 |y|, against dpo",
        f"{PAIR_FIT} ref e^(u / beta); dpo keeps the 0.2",
        HOLDS,
        TABLE,
    ),
    Claim(
        "dpo_length_reg",
        "equal quality: a token costs alpha / beta",
        "derived",
        "table of 3, every label 1/2",
        "within 1e-8 of ref e^(-alpha |y| / beta)",
        HOLDS,
        "test_margins.py::test_length_regularised_dpo_pays_alpha_over_beta_per_token_between_equally_liked_responses",
    ),
    Claim(
        "odpo",
        "an even label: half of the offset; an uneven one: a quadratic's root",
        "derived",
        ONE_LEAD,
        AT_REST,
        HOLDS,
        LEAD,
    ),
    Claim(
        "dpo_shift",
        "even labels move it off its reference",
        "derived",
        f"{EVEN}, against dpo",
        "total variation 0.225, dpo 0.0",
        HOLDS,
        SILENT,
    ),
    Claim(
        "flex_dpo",
        "even labels move it off its reference",
        "derived",
        f"{EVEN}, beta_rejected 0.05, against dpo",
        "total variation 0.394, dpo 0.0",
        HOLDS,
        SILENT,
    ),
    Claim(
        "dpo_sft",
        "even labels move it off its reference",
        "derived",
        f"{EVEN}, against dpo",
        "total variation 0.459, dpo 0.0",
        HOLDS,
        SILENT,
    ),
    Claim(
        "minor_dpo",
        "the response preferred less often never falls below its reference",
        "2408.09834, derived",
        ONE_LEAD,
        f"{AT_REST}: 0.0 where p is 0.3, dpo's where it is 0.7",
        HOLDS,
        LEAD,
    ),
    Claim(
        "dpop",
        "the response preferred less often never falls below its reference",
        "derived",
        ONE_LEAD,
        f"{AT_REST}: 0.0 where p is 0.3, dpo's where it is 0.7",
        HOLDS,
        LEAD,
    ),
    Claim("slic", "keeps the majority, not its size: the lead is delta", "derived", ONE_LEAD, AT_REST, HOLDS, LEAD),
    Claim(
        "rso",
        "hinge: keeps the majority, not its size: the lead is 1 / gamma",
        "derived",
        ONE_LEAD,
        f"{AT_REST}, the same for p 0.7 and 0.95",
        HOLDS,
        LEAD,
    ),
    Claim(
        "kto",
        "ends with the response desired more often, whatever the reference",
        "2402.01306",
        "two responses, ref (0.1, 0.9), p 0.6, against dpo",
        "loss falls all the way to certainty; dpo's optimum gives it 1/7",
        HOLDS,
        "test_claims_optima.py::test_kto_always_ends_with_the_response_desired_more_often_and_dpo_need_not",
    ),
    Claim(
        "bco",
        "the log-odds of being desirable, above delta",
        "2404.04656, derived",
        "three responses, given shares",
        "within 1e-8",
        HOLDS,
        "test_points.py::test_bco_optimum_is_the_log_odds_of_an_answer_being_desirable_above_delta",
    ),
    Claim(
        "modpo",
        "optimum of the weighted sum of rewards",
        "2310.03708",
        "table of 5, three weight vectors",
        "within 1e-3 in total variation",
        HOLDS,
        "test_known_worlds.py::test_modpo_reaches_the_optimum_of_the_weighted_sum_of_rewards",
    ),
    Claim(
        "spo_sequential",
        "optimum of the new reward and mu times the earlier one",
        "2405.12739, derived",
        "table of 5, two rounds",
        "within 1e-8",
        HOLDS,
        "test_margins.py::test_more_weight_on_the_first_reward_keeps_more_of_it_through_the_second_round",
    ),
    Claim(
        "mrpo",
        "fixed shares: the references' harmonic mixture times e^(u / beta)",
        "2405.16388, derived",
        SOFT,
        PAIR_FIT,
        HOLDS,
        TABLE,
    ),
    Claim(
        "crpo_creative",
        "a weight s of the preferred response acts as a reward log s: ref (s e^u)^(1 / beta)",
        "derived",
        SOFT,
        PAIR_FIT,
        HOLDS,
        TABLE,
    ),
    Claim("step_dpo", "visit counts as soft labels: log-odds over beta", "2405.00451", SOFT, PAIR_FIT, HOLDS, TABLE),
    Claim(
        "dpo_2d",
        "one segment each: log-ratios (u + c) / (beta r): a *high* number means a *small* change",
        "derived",
        SOFT,
        PAIR_FIT,
        HOLDS,
        TABLE,
    ),
    Claim(
        "ada_dpo",
        "clear pairs get up to tau_max, doubtful ones tau_min times the log-odds",
        "2406.02764, derived",
        ONE_LEAD,
        f"{AT_REST}: times 0.1 where p is 0.6, times 5.0 where it is 0.9",
        HOLDS,
        LEAD,
    ),
    Claim(
        "ada_reward",
        "clear pairs get up to tau_max, doubtful ones tau_min times the log-odds",
        "2406.02764, derived",
        ONE_LEAD,
        f"{AT_REST}: times 0.1 where p is 0.6, times 1.0 where it is 0.9",
        HOLDS,
        LEAD,
    ),
    Claim(
        "bt",
        "the lead is the log-odds of the label; a margin, asked of either side, leaves an even pair even",
        "derived",
        ONE_LEAD,
        f"{AT_REST}: the log-odds where p is 0.7, twice that at temperature 2.0; 0.0 where p is 0.5 and the margin 1.0",
        HOLDS,
        LEAD,
    ),
    Claim(
        "dr_dpo",
        "mixed labels: dpo's lead times b / (b - 1), b the temperature; none that is finite at 1",
        "derived",
        "one pair seen both ways round",
        "within 1e-6 for 2.0 and 5.0; at 1.0 the lead runs on",
        HOLDS,
        "test_claims_optima.py::test_dr_dpo_on_labels_that_are_right_with_chance_p_rests_at_dpos_lead_times_b_over_b_"
        "less_1",
    ),
    Claim(
        "rpo",
        "rewards of all responses: the RLHF optimum, by any distance",
        "2502.00203",
        "table of 4, all rewards",
        "within 1e-7",
        HOLDS,
        LISTS,
    ),
    Claim(
        "infonca",
        "rewards of all responses: the RLHF optimum",
        "2402.05369",
        "table of 4, all rewards",
        "within 1e-7",
        HOLDS,
        LISTS,
    ),
    Claim(
        "exo",
        "rewards of all responses: the RLHF optimum",
        "2402.00856",
        "table of 4, all rewards",
        "within 1e-7",
        HOLDS,
        LISTS,
    ),
    Claim(
        "lipo", "softmax form: the RLHF optimum", "2402.01878", "table of 4, all rewards", "within 1e-7", HOLDS, LISTS
    ),
    Claim(
        "pl_dpo",
        "rankings drawn by their probabilities: the RLHF optimum",
        "2305.18290 App.",
        "table of 4, all 24 orders",
        "within 1e-7",
        HOLDS,
        "test_list_worlds.py::test_pl_dpo_on_rankings_drawn_by_their_probabilities_reaches_the_rlhf_optimum",
    ),
    Claim(
        "nca",
        "free responses: scores log(K q)",
        "2402.05369, derived",
        "four free responses, against the softmax",
        "within 1e-8",
        HOLDS,
        "test_list_worlds.py::test_nca_with_every_response_free_stops_at_the_shares_of_its_target",
    ),
    Claim(
        "sft",
        "by tokens: the data's shares; by responses: those over length",
        "derived",
        "table of 5, given shares",
        "both within 1e-6 in total variation",
        HOLDS,
        "test_claims_optima.py::test_likelihood_reaches_the_shares_of_the_data_by_tokens_and_divides_them_by_length_"
        "by_responses",
    ),
    Claim(
        "a_lol",
        "without its ratio: ref times positive advantage; with it: the policy gradient",
        "2305.14718, derived",
        "table of 5, answers of the reference",
        "within 1e-3 in total variation; gradient within 1e-12",
        HOLDS,
        "test_claims_optima.py::test_a_lol_without_its_ratio_reaches_ref_times_positive_advantage_and_with_it_has_the_"
        "policy_gradient",
    ),
    Claim(
        "dro_v",
        "the RLHF optimum and the soft value, from single responses",
        "2405.19107",
        "table of 5, all rewards",
        "both within 1e-7",
        HOLDS,
        "test_points.py::test_dro_v_reaches_the_rlhf_optimum_and_the_soft_value_from_unpaired_responses",
    ),
    Claim(
        "sppo",
        "the exponential-weights update",
        "2405.00675",
        "four free responses",
        "log-ratios within 1e-9",
        HOLDS,
        EXPONENTIAL,
    ),
    Claim(
        "gpo",
        "the exponential-weights update",
        "2410.02197",
        "four free responses",
        "log-ratios within 1e-9",
        HOLDS,
        EXPONENTIAL,
    ),
    Claim(
        "pmpo",
        "accepted less rejected plus beta times the reference",
        "2410.04166, derived",
        "six answers of the reference, half of them rejected",
        "within 1e-6 above the threshold of beta",
        HOLDS,
        "test_points.py::test_pmpo_optimum_is_accepted_minus_rejected_plus_reference",
    ),
    Claim(
        "pmpo",
        "its defaults have an optimum",
        "2410.04166",
        "six answers, half of the mass rejected",
        "the loss falls by more than 100 on the way from log-probabilities 10 lower to 1000 lower: none",
        REFUTED,
        "test_points.py::test_pmpo_defaults_with_half_of_the_mass_rejected_are_below_the_threshold",
    ),
    Claim(
        "typo",
        "from the policy that explains the preferences to the reference; dpo starts at an argmax",
        "2407.09072",
        "three arms, against dpo and ipo",
        "both ends within 1e-6; dpo's other end gives one arm more than 0.999",
        HOLDS,
        "test_points.py::test_typo_goes_from_the_preferred_policy_to_the_reference_and_dpo_starts_at_an_argmax_instead",
    ),
    Claim(
        "typo",
        "a reference that explains the preferences already is left alone",
        "2407.09072",
        "three arms, labels by the reference's own shares, against dpo",
        "within 1e-8 at three coefficients",
        HOLDS,
        "test_claims_optima.py::test_typo_keeps_a_reference_that_explains_the_preferences_already_and_dpo_sharpens_it",
    ),
    Claim(
        "upo",
        "with the margin in its base: the optimum of both rewards",
        "2405.17956 Eqs. 4-7",
        SOFT,
        "within 1e-8",
        HOLDS,
        "test_known_worlds.py::test_upo_with_base_margin_on_dpo_reaches_the_optimum_of_both_rewards",
    ),
    Claim(
        "upo",
        "auxiliary term alone: ref e^(lam R), over length in the paper's form",
        "2405.17956, derived",
        "table of 6, answers of the reference",
        "within 1e-8",
        HOLDS,
        "test_known_worlds.py::test_the_auxiliary_term_alone_reaches_ref_times_e_to_lambda_R_and_its_mean_form_"
        "divides_by_length",
    ),
)

SHARED = "one prompt of 8 responses, chosen and rejected nine tenths alike, 300 steps, against dpo"
DISPLACED = (
    "test_claims_properties.py::test_where_chosen_and_rejected_share_their_features_the_chosen_response_ends_here"
)
NOISE = "linear reward, 200 pairs, 3 in 10 labels swapped, 3 seeds, against dpo"
NOISY = (
    "test_claims_properties.py::test_how_much_better_than_dpo_unseen_pairs_are_ordered_where_three_in_ten_labels_are_"
    "swapped"
)
SINGLE = "linear reward, 80 single noisy labels, 3 seeds, against dpo on the same responses in pairs"
UNPAIRED = "test_claims_properties.py::test_how_well_unseen_pairs_are_ordered_after_single_labels"
LIKES_LENGTH = "table of 12, annotators for whom a token is worth 0.2, 5 worlds, against dpo"
LONGER = (
    "test_claims_properties.py::test_how_many_tokens_longer_than_the_references_answers_are_where_annotators_like_"
    "length"
)
LIST = "6 responses with rewards, 100 steps, 5 seeds, against dpo on best and worst and sft on the best"
ORDERED = "test_claims_properties.py::test_what_share_of_a_lists_comparisons_the_log_ratios_order_right"
ACCEPTED = "test_claims_properties.py::test_how_probable_a_response_above_the_mean_reward_becomes"
MARKER = "bigram policy, one token decides 64 pairs, against dpo"
MENDED = "chosen response's likelihood does not fall"


def mended(method: str, source: str, chosen: str, verdict: str = HOLDS) -> Claim:
    """A row of the displacement world."""
    result = f"log-ratio of the chosen response {chosen}, dpo -2.41"
    return Claim(method, MENDED, source, SHARED, result, verdict, DISPLACED)


def survives(method: str, source: str, gain: str, seeds: int, verdict: str) -> Claim:
    """A row of the noise world."""
    result = f"share of unseen pairs ordered right {gain} against dpo, better on {seeds} of 3 seeds"
    return Claim(method, "noisy labels do less harm", source, NOISE, result, verdict, NOISY)


def orders(method: str, source: str, share: str, verdict: str = HOLDS) -> Claim:
    """A row of the list world."""
    result = f"{share} of the list's comparisons in order, dpo 0.6, sft 0.8"
    return Claim(method, "a whole list, not its ends alone, is put in order", source, LIST, result, verdict, ORDERED)


# What papers claim, or what users ask for by the method's name.
PROPERTIES = (
    mended("dpop", "2402.13228", "+2.34"),
    mended("dpo_shift", "2502.07599", "+2.31"),
    mended("flex_dpo", "2406.07327", "+2.31"),
    mended("dpo_sft", "2406.07327", "+2.34"),
    mended("minor_dpo", "2408.09834", "+2.26"),
    mended("nca", "2402.05369", "+1.41"),
    mended("cpo", "2401.08417", "+2.34"),
    mended("slic", "2305.10425", "+2.31"),
    Claim(
        "sgdpo",
        "chosen responses end likelier and rejected ones less unlikely",
        "2505.12435",
        MARKER,
        "log-ratios 1.27 and -10.17, dpo -0.97 and -12.07",
        HOLDS,
        "test_claims_properties.py::test_sgdpo_ends_with_likelier_chosen_and_less_unlikely_rejected_responses_than_dpo",
    ),
    Claim(
        "dpo",
        "three faults of it: what is rejected falls faster than what is chosen, and mass goes to neither",
        "2406.07327",
        "one prompt of 8 responses, against flex_dpo and dpo_sft",
        "rejected below chosen, chosen below 0; mass of the others grows, more than under either control",
        HOLDS,
        "test_margins.py::test_dpo_moves_mass_to_responses_of_neither_side_and_its_regularised_forms_move_less",
    ),
    Claim(
        "dpo_shift",
        "margin is given for likelihood",
        "2502.07599",
        "the same world, three lam",
        "chosen log-ratio rises and margin falls with every step of lam",
        HOLDS,
        "test_margins.py::test_less_weight_on_the_rejected_side_buys_the_chosen_one_likelihood_with_margin",
    ),
    Claim(
        "minor_dpo",
        "a rejected response is not pushed below its reference",
        "2408.09834",
        "two prompts, against dpo",
        "at most a step below 0, chosen above 10; dpo's rejected below -10",
        HOLDS,
        "test_margins.py::test_minor_dpo_stops_within_a_step_below_the_reference_where_dpo_goes_on",
    ),
    Claim(
        "orpo",
        "likelihood alone raises what is rejected too; its odds hold that down",
        "2403.07691",
        "one prompt of 8 responses, chosen and rejected nine tenths alike, against sft",
        "log-ratio of the rejected response -3.86, sft -3.84: it falls without the odds",
        REFUTED,
        "test_claims_properties.py::test_likelihood_of_the_chosen_response_lowers_a_rejected_one_much_like_it_too_and_"
        "orpo_hardly_further",
    ),
    Claim(
        "ipo",
        "at dpo's step size it runs away: its curvature is 2, dpo's at most beta^2 / 4",
        "derived",
        SHARED,
        "log-ratio below -1e6",
        HOLDS,
        "test_claims_properties.py::test_ipo_runs_away_at_the_step_size_that_is_dpos_in_this_world",
    ),
    survives("dr_dpo", "2407.07880", "+0.036", 3, HOLDS),
    Claim(
        "dr_dpo",
        "noisy labels do less harm",
        "2407.07880",
        "the same world over 5 seeds, against dpo",
        "0.831 ordered right, dpo 0.797; better on 4 of 5 seeds",
        HOLDS,
        "test_claims_properties.py::test_over_five_seeds_dr_dpo_orders_831_of_1000_right_where_dpo_orders_797_and_loses_"
        "one_of_them",
    ),
    survives("beta_dpo", "2407.08639", "+0.012", 3, HOLDS),
    survives("dpo_robust", "2403.00409", "+0.010", 2, UNDECIDED),
    survives("ada_dpo", "2406.02764", "+0.009", 2, UNDECIDED),
    survives("cdpo", "note of the DPO authors", "0.000", 1, REFUTED),
    Claim(
        "ipo",
        "noisy labels do less harm",
        "2310.12036",
        NOISE,
        "at dpo's step size it runs away (-0.385, better on 0 of 3 seeds)",
        ELSEWHERE,
        NOISY,
    ),
    Claim(
        "dpo_robust",
        "unbiased: the mean over flips is the clean loss",
        "2403.00409",
        "table of 5, flips of 0.3",
        "equal to 1e-14",
        HOLDS,
        "test_known_worlds.py::test_robust_dpo_averages_to_the_clean_loss_over_flipped_labels",
    ),
    Claim(
        "beta_dpo",
        "pairs far from the running mean are kept less often",
        "2407.08639",
        "1000 draws of one of two",
        "as often as the weights say, within 5 deviations",
        HOLDS,
        "test_dynamic.py::test_pairs_far_from_the_running_mean_are_kept_less_often_as_often_as_the_weights_say",
    ),
    Claim(
        "kto",
        "single labels serve as well as pairs",
        "2402.01306",
        SINGLE,
        "0.888 of unseen pairs ordered right, dpo 0.871; better on 1 of 3 seeds",
        UNDECIDED,
        UNPAIRED,
    ),
    Claim(
        "bco",
        "single labels serve as well as pairs",
        "2404.04656",
        SINGLE,
        "0.879 of unseen pairs ordered right, dpo 0.871; better on 2 of 3 seeds",
        UNDECIDED,
        UNPAIRED,
    ),
    Claim(
        "rpo_relative",
        "single labels serve as well as pairs",
        "2402.10958",
        SINGLE,
        "0.858 of unseen pairs ordered right, dpo 0.871; better on 1 of 3 seeds",
        UNDECIDED,
        UNPAIRED,
    ),
    Claim(
        "rpo_relative",
        "contrasts with *related* prompts help",
        "2402.10958",
        "needs embeddings that mean something",
        "what is shown: at a cold similarity it is DPO over N",
        ELSEWHERE,
        "test_dynamic.py::test_a_cold_similarity_of_distinct_prompts_is_dpo_over_n_and_log_2_for_the_rest",
    ),
    Claim("dpo_length_reg", "shorter answers", "2406.11817", LIKES_LENGTH, "-0.262 tokens, dpo +0.216", HOLDS, LONGER),
    Claim("simpo", "shorter answers", "2405.14734", LIKES_LENGTH, "-0.889 tokens, dpo +0.216", HOLDS, LONGER),
    Claim(
        "ln_dpo",
        "shorter answers",
        "2407.15229",
        LIKES_LENGTH,
        "+0.297 tokens, dpo +0.216",
        REFUTED,
        "test_claims_properties.py::test_dividing_log_ratios_by_length_does_not_shorten_answers_where_annotators_like_"
        "length",
    ),
    Claim(
        "ln_dpo",
        "a response that says every token twice counts once",
        "derived",
        "one pair, against dpo",
        "the same loss; dpo's falls",
        HOLDS,
        "test_margins.py::test_length_normalised_dpo_ignores_that_every_token_stands_twice",
    ),
    Claim(
        "rpo",
        "a small reward gap leaves a small margin",
        "2502.00203",
        "two responses, rewards 0.1 apart, against dpo",
        "margin 0.1; dpo's passes 3",
        HOLDS,
        "test_list_worlds.py::test_a_small_reward_gap_leaves_a_small_margin_where_dpo_drives_it_on",
    ),
    Claim(
        "exo",
        "its gradient comes to that of the RLHF objective as samples grow",
        "2402.00856",
        "10 responses, 200,000 samples, against cross-entropy",
        "cosine above 0.999 at 512 a group; cross-entropy below 0.95",
        HOLDS,
        "test_list_worlds.py::test_exos_gradient_comes_to_that_of_the_rlhf_objective_as_samples_grow_and_cross_"
        "entropys_does_not",
    ),
    Claim(
        "exo",
        "seeks a mode",
        "2402.00856",
        "a target of two humps, against cross-entropy",
        "the narrow policy stands at 4, a hump; cross-entropy's within 1 of the middle",
        HOLDS,
        "test_lists.py::test_the_forward_form_seeks_a_mode_and_the_backward_form_covers_both",
    ),
    Claim(
        "nca",
        "stops the chosen score at log 2",
        "2402.05369",
        "one pair, against infonca",
        "slope 0 at log 2; a common fall costs more than 1, infonca nothing",
        HOLDS,
        "test_lists.py::test_nca_stops_the_chosen_score_at_log_2_while_dpo_is_indifferent_to_a_common_fall",
    ),
    orders("pl_dpo", "2305.18290 App.", "1.0"),
    orders("rankdpo", "2410.18013", "1.0"),
    orders("lipo", "2402.01878", "0.92"),
    orders("tpo_tree", "2410.12854", "0.92"),
    orders("knowpat", "2311.06503", "0.867", UNDECIDED),
    Claim(
        "swepo",
        "all good responses gain, not the best alone",
        "2412.04628",
        LIST,
        "probability of a response above the mean reward 0.948, dpo 0.655",
        HOLDS,
        ACCEPTED,
    ),
    Claim(
        "ampo",
        "all good responses gain, not the best alone",
        "2502.18293",
        LIST,
        "probability of a response above the mean reward 0.99, dpo 0.655",
        HOLDS,
        ACCEPTED,
    ),
    Claim(
        "tpo_tree",
        "steps that are shared do not dilute the margin",
        "2410.12854",
        "two responses of two steps",
        "a step counts by its mean and its weight",
        HOLDS,
        "test_lists.py::test_a_step_counts_by_its_mean_and_steps_beyond_the_shortest_response_join_its_last",
    ),
    Claim(
        "sparse_po",
        "the learned mask finds the tokens that decide, a penalty makes it sparse",
        "2410.05102",
        MARKER,
        "mean mask larger on the marker; share of zeros grows with the penalty",
        HOLDS,
        "test_tokens.py::test_in_a_world_where_one_token_decides_the_learned_mask_prefers_it_and_a_penalty_makes_it_"
        "sparser",
    ),
    Claim(
        "mapo",
        "only the tokens that matter move",
        "2410.05102",
        MARKER,
        "marker's log-ratio 3.93, divergence elsewhere 2.77; dpo 0.81 and 1.12",
        REFUTED,
        "test_claims_properties.py::test_a_mask_on_the_token_that_decides_does_not_keep_the_other_tokens_nearer_the_"
        "reference_than_dpo",
    ),
    Claim(
        "bmc",
        "differing tokens get more of the gradient",
        "2408.07471",
        "20 tokens, 2 of them differ, against dpo",
        "8/26 of the pull",
        HOLDS,
        "test_tokens.py::test_bmcs_differing_tokens_hold_eight_of_twenty_six_parts_of_the_weight_at_delta_three",
    ),
    Claim(
        "bmc",
        "the token that decides moves further",
        "2408.07471",
        MARKER,
        "marker's log-ratio 1.73, dpo 0.81",
        HOLDS,
        "test_claims_properties.py::test_bmc_raises_the_differing_token_further_than_dpo",
    ),
    Claim(
        "dpo_2d",
        "numbers per segment give better credit",
        "2410.19720",
        "8 segments of known quality in 64 pairs, 5 seeds, against dpo",
        "correlation of log-ratio and quality 0.905, dpo 0.984",
        REFUTED,
        "test_claims_properties.py::test_numbers_per_segment_make_log_ratios_follow_quality_less_well_than_whole_"
        "responses_do",
    ),
    Claim(
        "dpo_2d_robust",
        "noise in the judge's numbers does less harm",
        "2505.01706",
        "400 pairs, noise of deviation 0.5 and 1.0, against dpo_2d",
        "nearer the clean loss at both",
        HOLDS,
        "test_tokens.py::test_noise_in_the_judges_numbers_moves_the_plain_loss_further_from_the_clean_one_than_the_"
        "robust_one",
    ),
    Claim(
        "spac",
        "answers outside the data are held down where dpo raises them",
        "2406.04274",
        "3 answers, one unseen that looks like the winner and has 1/2 of the mass, against dpo",
        "it ends with 0.999, dpo 0.999: the pessimism adds to what the preferences begin",
        REFUTED,
        "test_roles.py::test_dpo_raises_an_unseen_answer_that_looks_like_the_winner_and_spac_does_not_hold_it_down",
    ),
    Claim(
        "spac",
        "answers outside the data are held down where the data's own are its baseline",
        "derived",
        "the same world, with samples of the data as the baseline",
        "it ends with 0.022 under the clip, the winner with 0.099; with 0.584 under the log-sigmoid; dpo 0.999",
        UNDECIDED,
        "test_roles.py::test_with_the_datas_answers_as_a_baseline_spac_holds_an_unseen_one_down_and_the_winner_that_it_"
        "looks_like_too",
    ),
    Claim(
        "spac",
        "dpo raises an answer outside the data in a table too",
        "2406.04274",
        "3 answers without shared features, against dpo",
        "dpo lowers it by itself, below 0.5 from there; spac to less than half of that",
        REFUTED,
        "test_roles.py::test_dpo_in_a_table_lowers_the_unseen_answer_by_itself_and_spac_lowers_it_further",
    ),
    Claim(
        "bapo",
        "the base answer is kept",
        "2407.00693",
        "5 answers, 300 steps, against dpo",
        "log-ratio above -0.1, dpo below -0.5",
        HOLDS,
        "test_roles.py::test_bapo_keeps_the_base_answer_where_dpo_lets_it_fall",
    ),
    Claim(
        "spo_sequential",
        "the earlier reward is kept through a later round",
        "2405.12739",
        "table of 5, two rounds, against mu = 0",
        "more of it with every step of mu",
        HOLDS,
        "test_margins.py::test_more_weight_on_the_first_reward_keeps_more_of_it_through_the_second_round",
    ),
    Claim(
        "ofs_dpo",
        "the modules' gradients do not vanish",
        "2406.05534",
        "one pair, both modules at one margin of up to 500, against dpo",
        "alpha beta / 2 above dpo's at every one, the chaser's too",
        HOLDS,
        "test_margins.py::test_either_module_is_pulled_by_half_alpha_beta_at_equality_however_far_both_are",
    ),
    Claim(
        "ofs_dpo",
        "the chaser's loss has no lower bound unless the margin of the chase is clamped",
        "derived",
        "one pair, margins up to 1e5",
        "it falls to -1e4; clamped at 10 it does not",
        HOLDS,
        "test_margins.py::test_the_chasers_loss_has_no_lower_bound_without_a_clamp",
    ),
    Claim(
        "tpo_triple",
        "the gold response gains while the margin grows",
        "2405.16681",
        "5 answers, 300 steps, against itself without the gold term",
        "gold above 0, without it below 0",
        HOLDS,
        "test_roles.py::test_tpo_raises_gold_likelihood_while_the_margin_grows_and_without_alpha_it_need_not",
    ),
    Claim(
        "tpo_l",
        "the gold response gains while the margin grows",
        "2405.16681",
        "5 answers, 300 steps, against itself without the gold term",
        "gold above 0, without it below 0",
        HOLDS,
        "test_claims_properties.py::test_tpo_l_raises_gold_likelihood_while_the_margin_grows_and_without_alpha_it_"
        "need_not",
    ),
    Claim(
        "tpo_l",
        "the gold text is no side of the comparison",
        "2405.16681",
        "random pairs",
        "no gradient from the contrast to it, none from the likelihood to the sides",
        HOLDS,
        "test_roles.py::test_the_gold_text_is_no_side_of_a_comparison_and_the_sides_are_no_gold",
    ),
    Claim(
        "odpo",
        "a better score asks for a larger lead",
        "2402.10571",
        "one pair, against dpo",
        "dpo's pull at the margin less the offset, to 1e-12",
        HOLDS,
        "test_margins.py::test_odpos_pull_at_a_margin_is_dpos_at_that_margin_less_the_offset",
    ),
    Claim(
        "alpha_dpo",
        "a pair already parted more than usual is asked for more",
        "2410.10148",
        "two pairs",
        "margins 0.15 and 0.15 + 0.05 times 4.0 deviations",
        HOLDS,
        "test_dynamic.py::test_a_pair_that_the_policy_parts_more_than_usual_gets_a_larger_margin_and_no_gradient_"
        "through_it",
    ),
    Claim("alpha_dpo", "better win rates than simpo", "2410.10148", "needs language", "", ELSEWHERE),
    Claim(
        "mrpo",
        "the reference that is sure counts more",
        "2405.16388",
        "random pairs, both readings of the weight",
        "equal to the plainest code to 1e-12; which reading is the paper's is an option",
        HOLDS,
        "test_references.py::test_the_mixture_equals_the_plainest_code",
    ),
    Claim(
        "sppo",
        "rounds come to the mixture that nothing beats, where dpo cannot",
        "2405.00675",
        "three answers in a cycle, 200 rounds, against dpo",
        "best reply wins 0.053 above even, dpo 0.067, reference 0.110; 0.02 was expected",
        UNDECIDED,
        "test_claims_properties.py::test_rounds_of_sppo_in_a_cycle_are_less_exploitable_than_dpos_fit_and_after_200_"
        "not_yet_unexploitable",
    ),
    Claim(
        "pmpo",
        "learns from rejected answers alone",
        "2410.04166",
        "six answers, beta on both sides of its threshold",
        "accepted mass grows by more than 0.1 above it; below it the loss falls without end",
        HOLDS,
        "test_points.py::test_pmpo_learns_from_rejected_answers_alone_above_its_threshold_and_collapses_below_it",
    ),
    Claim(
        "svpo",
        "values are learned beside the policy and leave it alone",
        "2406.10858",
        "random pairs",
        "no gradient from the value terms to the policy, none left where values are right and in order",
        HOLDS,
        "test_roles.py::test_svpo_value_terms_move_the_head_alone_and_vanish_where_values_are_right_and_in_order",
    ),
    Claim(
        "spo_degree",
        "what was taken away is learned, and the preference loss is no worse",
        "2409.17791",
        "60 variants on a line, against gamma 0",
        "held-out share above 0.6, without the term below 0.5",
        HOLDS,
        "test_roles.py::test_a_degree_head_learns_what_was_taken_away_and_the_preference_loss_is_no_worse",
    ),
    Claim(
        "step_dpo",
        "a shared prefix does not count",
        "2405.00451",
        "prefixes of 0, 1 and 7 tokens",
        "the same to 1e-12",
        HOLDS,
        "test_roles.py::test_step_dpo_does_not_see_a_shared_prefix",
    ),
    Claim(
        "crpo_creative",
        "creative responses pull harder",
        "2505.14442",
        "one pair, three weights, against dpo",
        "weight times dpo's pull",
        HOLDS,
        "test_roles.py::test_crpo_gradient_of_a_pair_is_its_weight_times_dpos",
    ),
    Claim(
        "rationale_dpo",
        "fewer data, less verbosity",
        "2407.14477",
        "needs language",
        "what is shown: the rationale's pull is gamma times a sigmoid",
        ELSEWHERE,
        "test_roles.py::test_rationale_gradient_is_gamma_times_a_sigmoid_between_a_half_and_1",
    ),
    Claim(
        "rationale_orpo",
        "fewer data, less verbosity",
        "2407.14477",
        "needs language",
        "what is shown: its rationales are averaged where rationale_dpo's are summed",
        ELSEWHERE,
        "test_roles.py::test_rationales_are_summed_in_dpo_and_averaged_in_orpo",
    ),
    Claim(
        "ada_reward",
        "reward models that lead to better policies",
        "2406.02764",
        "needs a policy trained on it",
        "",
        ELSEWHERE,
    ),
    Claim(
        "upo",
        "gains designer reward over its lam = 0 control, nearer the reference than kto",
        "2405.17956; control ours",
        "8 prompts, 12 responses, 4,000 pairs, 3 seeds, against kto and lam = 0",
        "reward more than 0.03 above the control and above kto, divergence below kto's, on every seed",
        HOLDS,
        "test_known_worlds.py::test_upo_gains_designer_reward_over_its_lambda_zero_control_and_stays_nearer_the_"
        "reference_than_kto",
    ),
    Claim(
        "a_lol",
        "responses below their value are left alone",
        "2305.14718",
        "single responses",
        "slope 0.0 at and below the value",
        HOLDS,
        "test_points.py::test_a_lol_leaves_responses_below_their_value_alone",
    ),
)

CLAIMS = OPTIMA + PROPERTIES
