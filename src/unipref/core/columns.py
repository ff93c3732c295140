"""Columns a method may ask for, and how a user makes each: said once, for pages, the command line and errors."""

from collections.abc import Collection

__all__ = ["DATA_REWARD", "MAKE", "how_to_make", "in_words"]

DATA_REWARD = "data_reward"  # the data's own `reward` where a recipe's `objectives:` make one
_COMPUTED = "computed while training; nothing to give"

# Column -> how to make it, as the end of "COLUMN: ...".
MAKE = {
    "chosen": "pairs: rows with `prompt`, `chosen`, `rejected`; or lists with `ranks` or `scores`",
    "rejected": "the other side of `chosen`",
    "label": "thumbs: rows with `prompt`, `completion`, `label`; of a pair the chosen side has 1, the rejected one 0",
    "group": "which responses answer one prompt; lists with `responses` have more than two, pairs are groups of two",
    "rank": "lists with `ranks`, best rank 1",
    "len": "tokens of each response; counted for you",
    "ref_logp": "log-probability under a reference, kept once computed; `references:` names its model (default: the "
    "one that the stage starts from)",
    "reward": "add `objectives:` with a scorer; or numbers in the data: `chosen_reward` and `rejected_reward`, or "
    "`rewards` of a list, which `objectives:` take the place of",
    "win_rate": "a judge's share of wins against the last iterate's answers, in [0, 1]: `win_rate`, or per side",
    "score": "a judge's mean preference for a response, 0 for a tie: `scores` of a list, or per side",
    "q": "the value of a step from a search: node values of a tree, or per side",
    **{
        name: f"a number of the chosen response, from 0 to 1: `chosen_{name}` and `rejected_{name}`"
        for name in ("diversity", "novelty", "surprise", "quality")
    },
    "judge": "P(a response is better) by a judge that saw it first: `chosen_judge` and `rejected_judge`",
    "epsilon": "P(the preference is wrong) by an oracle, at most 1/2: `chosen_epsilon`",
    "annotator": "who judged: `annotator`, per pair",
    "domain": "what a row was written for: `domain`, per row",
    "tree": "a search's steps, one object per node: rows with `prompt` and `nodes`",
    "density_ratio": "how much likelier a prompt is among desirable responses: `density_ratio`, per response",
    "preference": "a probability per pair in `preference`, or counts in `votes_chosen` and `votes_rejected`",
    "margin": "a number per pair in `margin`",
    "value": "a value head on the last token of the context, added to the model for you and trained beside it",
    "kl_baseline": "drift of the policy on mismatched responses; taken for you once per step",
    "gold": "a column `gold` (or `reference`): an answer that is known to be right, beside `chosen` and `rejected`",
    "base": "a column `base_response`: the reference model's own answer to the prompt, generated before training",
    "rationale": "a column `rationale`: a text that says why the chosen response is better",
    "policy_sample": "a column `policy_sample`: an answer of the policy that the stage starts from",
    "baseline_sample": "a column `baseline_sample`: an answer of what the policy is compared with",
    "variant": "degraded forms of the chosen response, which `operators: [degrade]` makes",
    "diff": "1 on tokens in which chosen and rejected differ; aligned for you",
    "fresh": "1 on tokens that a response does not share with the other one's beginning; known from the data",
    "segment": "parts of each response: `chosen_segments` and `rejected_segments`, its sentences where only their "
    "scores are given, or `operators: [segment]`",
    "segment_score": "a judge's number per part: `chosen_segment_scores` and `rejected_segment_scores`",
    "step_weight": "how near a step is to the same step of the best response, by hidden states of the model that the "
    "stage starts from; computed before training",
    "mask": "how active the model that the stage starts from is at a token; computed before training",
    "reward_mask": "a weight per token from a small head on the reference, added for you and trained beside the model",
    "kl_mask": "as `reward_mask`, for the divergence",
    "step_value": "a value head on the last token of a step, added to the model for you and trained beside it",
    "reward_head": "a reward head on the last token of the response, added for you and trained beside the model",
    "user": "a column `user` (or `annotator`): whose choice the row is",
    "degree": "how much was taken away from a variant, 0 for none; known where `operators: [degrade]` made it",
    "degree_head": "a classifier on the last token of the response, added for you and trained beside the model",
    "embedding": "mean hidden state of the context in the model that the stage starts from; computed before training",
    "kl": f"divergence from a live reference per token; {_COMPUTED}",
    "reverse_kl": f"divergence of a live reference from the policy per token; {_COMPUTED}",
}

# Short words for a list of methods: what a user must have. Columns that are computed without any choice have none.
_SHORT = {"group": "lists", "rank": "ranks", "segment": "segments", "ref_logp": "reference"}
_SHORT |= {"kl": "live reference", "reverse_kl": "live reference"}
_HEADS = ("value", "reward_mask", "kl_mask", "step_value", "reward_head", "degree_head")
_SILENT = frozenset(
    ("logp", "len", "kl_baseline", "diff", "fresh", "step_weight", "mask", "degree", "embedding", *_HEADS)
)


def how_to_make(column: str) -> str:
    """How the column comes into being; one that is not in MAKE has to be in the data.

    Example:
        >>> how_to_make("ref_logp.teacher")
        'log-probability under a further reference; name its model in `references:`'
    """
    if column.startswith("ref_logp."):
        return "log-probability under a further reference; name its model in `references:`"
    return MAKE.get(column, f"numbers per response in the data, such as `chosen_{column}` and `rejected_{column}`")


def in_words(needs: Collection[str]) -> str:
    """What `needs` ask of a user, in short; "" where any response will do.

    Example:
        >>> in_words(("chosen", "rejected", "ref_logp", "len", "reward"))
        'pairs, reference, reward'
        >>> in_words(("label", "ref_logp.teacher"))
        'thumbs or pairs, reference teacher'
    """
    pairs = {"chosen", "rejected"} <= set(needs)
    words = ["pairs"] if pairs else ["thumbs or pairs"] if "label" in needs else []
    for name in needs:
        if name in ("chosen", "rejected", "label") or name in _SILENT:
            continue
        if name.startswith("ref_logp."):
            words.append(f"reference {name.removeprefix('ref_logp.')}")
        else:
            words.append(_SHORT.get(name, name.replace("_", " ")))
    if "live reference" in words:
        words = [word for word in words if word != "reference"]
    return ", ".join(dict.fromkeys(words))
