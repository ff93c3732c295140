"""A stage that trains a reward model or a judge of pairs: what it writes, and what it is evaluated by.

A reward stage trains the backbone and a reward head with the one trainer, on shared tries. No reference is read, so
none is run. What it leaves is no language model any more: it is saved as the sequence classifier of its architecture. A
judge of pairs stays a language model, but what it prefers is asked, not read from the responses' log-probabilities.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from unipref.core.io import write_json, writing_folder
from unipref.data.pair_questions import PairQuestion
from unipref.data.pairs import Pairs
from unipref.engine import Policy, as_classifier, load_reward_policy, merged, padding_token, score_items
from unipref.objectives import as_objective
from unipref.recipes._judging import judging_precision
from unipref.recipes.config import Recipe, Stage
from unipref.rewards.as_trained import BACKBONE, FORMAT, JUDGE_FORMAT, texts_of
from unipref.rewards.pair_judge import PairJudge
from unipref.training import Example, autocast

__all__ = ["all_rewards", "rewards_of", "run_trains_reward", "trains_reward", "write_judge", "write_reward_model"]


def trains_reward(stage: Stage) -> bool:
    """Whether what the stage ends with is a reward model or a judge, and no policy."""
    composition = stage.composition
    return composition.judge is not None or as_objective(composition.objective).trains_reward


def run_trains_reward(recipe: Recipe, run: str) -> bool:
    """Whether the run of `recipe` ends with a reward model or a judge."""
    return trains_reward(recipe.run_plan()[run][-1])


def all_rewards(recipe: Recipe) -> bool:
    """Whether every run of `recipe` ends with a reward model, so that there is no policy to compare with any."""
    return all(run_trains_reward(recipe, run) for run in recipe.run_plan())


def write_reward_model(
    recipe: Recipe, stage: Stage, policy: Policy, tokenizer: Any, folder: Path, examples: Sequence[Example]
) -> None:
    """Write what `AutoModelForSequenceClassification`, `AutoTokenizer` and the scorer `reward_model` load.

    `reward.json` says how texts become tokens, so that the scorer reads them as training did.
    """
    whole = merged(policy.model) if hasattr(policy.model, "merge_and_unload") else policy.model
    made = as_classifier(whole, policy.heads["reward_head"])
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.padding_side = "right"
    ends = {int(example.trie.token[nodes[-1]]) for example in examples for nodes in example.trie.scored}
    padding, added = padding_token(tokenizer, ends)
    if added and padding >= made.get_input_embeddings().num_embeddings:
        with torch.no_grad():  # a row of zeros that no token attends to; the mean of all others costs a pass over them
            made.resize_token_embeddings(padding + 1, mean_resizing=False).weight[padding:] = 0
    made.config.get_text_config().pad_token_id = padding
    with writing_folder(folder) as temporary:
        made.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_json(
            temporary / BACKBONE,
            {
                "format": FORMAT,
                "method": stage.method,
                "options": stage.options,
                "max_length": recipe.data.max_length,
                "texts": texts_of(example.record for example in examples),
            },
        )


def write_judge(folder: Path, question: PairQuestion) -> None:
    """Write beside a language model what it is asked as a judge of pairs."""
    write_json(folder / BACKBONE, {"format": JUDGE_FORMAT, "question": question.to_dict()})


def rewards_of(recipe: Recipe, run: str, examples: Sequence[Example], folder: Path) -> list[list[float]]:
    """Per example and item: the reward of the run's model in `folder`; NaN where it has none to give.

    A judge of pairs, whose examples hold one pair each, gives half its logit to the one side and takes it from the
    other.
    """
    device, precision = judging_precision(recipe)
    trust = recipe.model_options.trust_remote_code
    if recipe.run_plan()[run][-1].composition.judge is not None:
        judge = PairJudge(str(folder), dtype="float32", trust_remote_code=trust)
        with autocast(device, precision):
            logits = judge.decision_function(Pairs.of(example.record for example in examples))
        return [[value / 2, -value / 2] for value in logits.tolist()]
    policy = load_reward_policy(folder, trust_remote_code=trust, longest=recipe.data.max_length).to(device)
    tries = [example.trie for example in examples]
    with autocast(device, precision):
        found = score_items(policy, tries, max_tokens=2 * recipe.train.max_tokens_per_forward)
    return [values.tolist() for values in found]
