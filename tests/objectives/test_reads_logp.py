"""Whether an objective reads the policy's log-probabilities, which is what a step runs its language-model head for."""

from dataclasses import replace

import torch
from worlds import batch_for, catalogue, with_items

from unipref.objectives import bt, nll


def test_an_objective_says_that_it_reads_log_probabilities_exactly_where_its_loss_is_lost_without_them() -> None:
    for name, objective, _ in catalogue():
        if objective.coupling != "none":
            continue  # its states and couplings are handed the policy's values in any case
        batch = batch_for(objective, seed=3)
        unknown = with_items(batch, logp=torch.full_like(batch.item("logp"), torch.nan))
        if batch.tokens:
            nothing = torch.full_like(batch.token("logp"), torch.nan)
            unknown = replace(unknown, tokens={**batch.tokens, "logp": nothing})
        same = torch.equal(objective.loss(unknown).total, objective.loss(batch).total)
        assert same is not objective.reads_logp, name


def test_a_reward_model_reads_none_until_a_likelihood_is_added_to_it() -> None:
    assert not bt(centring=0.1).reads_logp
    assert (bt() + 0.1 * nll()).reads_logp
