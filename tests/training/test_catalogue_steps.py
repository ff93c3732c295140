"""Every method of the catalogue in the trainer: a step is the step of its records, and costs the tokens it needs."""

from functools import cache

import pytest
import torch
from tiny_runs import examples_for, reference, tiny_policy

from unipref.core.cards import list_methods
from unipref.objectives import as_objective, dpo
from unipref.training import PreferenceTrainer

CARDS = [pytest.param(card, id=card.key) for card in list_methods("objective")]
PAIRWISE = [
    pytest.param(card, id=card.key)
    for card in list_methods("objective")
    if as_objective(card.build()).unit_needs == "pair" and not as_objective(card.build()).roles
]


@cache
def policy_with(*heads):
    """A policy for steps that leave its weights as they are; what it says depends on nothing else but them."""
    return tiny_policy(1, heads=heads)


def trainer_of(objective, arguments, examples, max_tokens, policy=None):
    policy = policy or policy_with(*objective.heads)
    policy.zero_grad()
    reads = objective.computed or set(objective.heads) & objective.token_needs
    references = {"ref_logp": reference(2)} if reads else None
    batch = len(examples)
    trainer = PreferenceTrainer(
        policy, objective, arguments(batch), examples, max_tokens=max_tokens, references=references
    )
    trainer.create_optimizer_and_scheduler(10)
    trainer.model_wrapped = policy
    trainer.state.max_steps, trainer.state.global_step = 10, 5  # gates are open
    return trainer, policy


def step(objective, arguments, max_tokens):
    examples = examples_for(objective, 6)
    trainer, policy = trainer_of(objective, arguments, examples, max_tokens)
    loss = trainer.training_step(policy, {"examples": examples}).item()
    return loss, {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("card", CARDS)
def test_a_step_of_every_method_does_not_depend_on_how_many_forwards_it_takes(card, arguments):
    objective = as_objective(card.build())
    whole, gradients = step(objective, arguments, 10_000)
    cut, others = step(objective, arguments, 40)
    assert cut == pytest.approx(whole, rel=1e-5, abs=1e-7)  # columns of the data are float32
    assert gradients.keys() == others.keys()
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    assert largest > 0
    for name, gradient in gradients.items():
        assert torch.allclose(others[name], gradient, rtol=1e-4, atol=1e-5 * largest), name


@pytest.mark.parametrize("card", [card for card in CARDS if card.values[0].coupling == "full"])
def test_what_is_logged_and_evaluated_of_a_coupled_step_does_not_depend_on_how_it_is_cut(card, arguments):
    objective = as_objective(card.build())
    logged, evaluated = [], []
    for max_tokens in (10_000, 40):
        examples = examples_for(objective, 6)
        trainer, policy = trainer_of(objective, arguments, examples, max_tokens)
        trainer.training_step(policy, {"examples": examples})
        logged.append(trainer._sums.reduce(trainer._gather))
        evaluated.append(trainer.evaluate(examples))
    for whole, cut in (logged, evaluated):
        assert cut == pytest.approx(whole, rel=1e-5, abs=1e-7)
        assert any(name.endswith("rewards/margins") for name in whole)


class Counted:
    """Tokens that go through the decoder."""

    def __init__(self, policy):
        self.tokens = 0
        policy._decoder[0].register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module, args, kwargs):
        self.tokens += kwargs["input_ids"].numel()


def tokens_of(objective, arguments, max_tokens):
    examples = examples_for(objective, 6)
    policy = tiny_policy(1, heads=objective.heads)
    counted = Counted(policy)
    trainer, _ = trainer_of(objective, arguments, examples, max_tokens, policy)
    trainer.training_step(policy, {"examples": examples})
    return counted.tokens


@pytest.mark.parametrize("card", PAIRWISE)
def test_a_pairwise_method_puts_exactly_dpos_tokens_through_the_policy(card, arguments):
    objective = as_objective(card.build())
    if objective.statistics:  # KTO's reference point is one of mismatched responses
        assert card.coupling == "statistic"
        return
    assert tokens_of(objective, arguments, 10_000) == tokens_of(as_objective(dpo()), arguments, 10_000)


@pytest.mark.parametrize("card", [c for c in CARDS if as_objective(c.values[0].build()).states])
def test_states_are_renewed_by_steps_alone_and_come_back_with_a_checkpoint(card, arguments):
    objective = as_objective(card.build())
    examples = examples_for(objective, 6)
    trainer, policy = trainer_of(objective, arguments, examples, 10_000)
    before = dict(trainer._states)
    trainer.evaluate(examples)
    assert trainer._states == before
    trainer.training_step(policy, {"examples": examples})
    after = {name: value.clone() for name, value in trainer._states.items()}
    assert all(value is not None for value in after.values())
    trainer._save_checkpoint(policy, None)
    fresh, _ = trainer_of(objective, arguments, examples, 10_000)
    fresh._load_optimizer_and_scheduler(f"{trainer.args.output_dir}/checkpoint-{trainer.state.global_step}")
    for name, value in after.items():
        assert torch.equal(fresh._states[name], value)
