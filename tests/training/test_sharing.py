"""What records of one step begin with alike is computed once, and nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_runs import VOCABULARY, tiny_policy, with_references

from unipref.core.records import Comparison, Item, Record
from unipref.core.tries import SHARED, build_trie, pack
from unipref.objectives import as_objective, dpo, kto, upo
from unipref.training import Example, PreferenceTrainer, split_by_tokens
from unipref.training.prepared import prompts_of

OBJECTIVES = {name: as_objective(o) for name, o in {"dpo": dpo(), "kto": kto(), "upo": upo(base="dpo")}.items()}


def conversations(seed=0):
    """Rows of three conversations: pairs of one prompt, turns of which each goes on from the one before, thumbs, and a
    row of its own. The pairs and the turns begin with one system prompt."""
    rng = np.random.default_rng(seed)

    def ids(n):
        return rng.integers(3, VOCABULARY, n).tolist()

    system, prompt, asked = ids(SHARED + 1), ids(6), ids(SHARED + 3)
    first, answer = system + ids(5), ids(4)
    second = first + answer + ids(3)
    rows = [
        *(("pairs", [(system + prompt, ids(4)), (system + prompt, ids(5))]) for _ in range(3)),
        ("turns", [(first, answer), (first, ids(4))]),
        ("turns", [(second, ids(3)), (second, ids(6))]),
        *(("thumbs", [(asked, ids(5))]) for _ in range(4)),
        ("alone", [(ids(SHARED + 4), ids(3)), (ids(2), ids(4))]),
    ]
    examples = [example(f"r{i}", name, items) for i, (name, items) in enumerate(rows)]
    for i, one in enumerate(examples):  # another's response under this row's prompt
        context = one.trie.token[one.trie.path(0)[: -len(one.trie.scored[0])]].tolist()
        other = examples[(i + 1) % len(examples)].trie
        mismatched = example(f"m{i}", one.record.conversation, [(context, other.token[other.scored[0]].tolist())])
        examples[i].mismatched = mismatched
    return [examples[i] for i in rng.permutation(len(examples))]


def example(name, conversation, items):
    comparisons = (Comparison(0, 1),) if len(items) == 2 else ()
    label = None if comparisons else int(name[1:]) % 2
    texts = tuple(Item("context", f"{name} {i}", label=label, columns={"reward": 0.1 * i}) for i in range(len(items)))
    return Example(Record(name, texts, comparisons, conversation=conversation), build_trie(items))


def exact(policy):
    """`policy` with norms in its own precision: transformers' round to float32, and rounding depends on the shape."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    for module in policy.modules():
        if isinstance(module, LlamaRMSNorm):

            def forward(x, module=module):
                return module.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon)

            module.forward = forward
    return policy


@pytest.mark.parametrize("path", ["tries", "rows"])
def test_a_policy_says_the_same_of_merged_tries_and_learns_the_same(path):
    tries = [e.trie for e in conversations()]
    found = []
    for share in (False, True):
        policy = exact(tiny_policy(1, heads=("value",), path=path))
        batch = pack(tries, share=share)
        values = policy(batch, want=("logp", "entropy", "value"))
        weights = torch.linspace(-1, 1, len(values.logp), dtype=torch.float64)
        (values.logp @ weights + values.heads["value"].sum() + values.entropy.square().sum()).backward()
        gradients = {name: p.grad for name, p in policy.named_parameters()}
        found.append((len(batch.token), values, gradients))
    (n_plain, plain, before), (n_shared, shared, after) = found
    assert n_shared < 0.65 * n_plain
    for a, b in (
        (plain.logp, shared.logp),
        (plain.entropy, shared.entropy),
        *zip(plain.heads.values(), shared.heads.values(), strict=True),
    ):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-10)
    for name, gradient in before.items():
        assert (gradient - after[name]).norm() <= 1e-8 * gradient.norm(), name


def step_of(objective, arguments, examples, **options):
    policy = exact(tiny_policy(1, heads=OBJECTIVES[objective].heads))
    trainer = PreferenceTrainer(policy, OBJECTIVES[objective], arguments(len(examples)), examples, **options)
    loss = trainer.training_step(policy, {"examples": examples}).item()
    return loss, {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_step_is_the_same_with_and_without_shared_prompts_in_one_forward_or_many(objective, arguments):
    examples = with_references(conversations(), exact(tiny_policy(2)))
    if OBJECTIVES[objective].unit_needs == "pair":
        examples = [e for e in examples if e.record.comparisons]
    plain, gradients = step_of(objective, arguments, examples, share_prompts=False)
    for options in ({"max_tokens": 10_000}, {"max_tokens": 60}, {"max_tokens": 60, "share_prompts": False}):
        loss, found = step_of(objective, arguments, examples, **options)
        assert loss == pytest.approx(plain, rel=1e-6)  # references are float32
        assert found.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert (gradient - found[name]).norm() <= 1e-6 * gradient.norm(), name


def test_records_that_share_most_of_their_tokens_stay_in_one_forward_and_count_them_once():
    examples = conversations()
    groups = split_by_tokens(examples, 60)
    together = [{e.record.conversation for e in group} for group in groups]
    for name in ("pairs", "turns", "thumbs"):
        assert sum(name in names for names in together) == 1
    assert len(groups) < len(split_by_tokens(examples, 60, share=False))
    for budget in (20, 30, 60, 100):
        for group in split_by_tokens(examples, budget):
            nodes = len(pack([e.trie for e in group], share=True).token)
            assert nodes <= budget or len(group) == 1
        cut = split_by_tokens(examples, budget)
        assert sorted(e.record.id for group in cut for e in group) == sorted(e.record.id for e in examples)


def test_a_header_that_all_records_have_ties_none_of_them_together():
    rng = np.random.default_rng(0)
    header = list(range(3, 3 + SHARED))
    rows = [example(f"r{i}", "", [(header, rng.integers(3, VOCABULARY, 50).tolist())]) for i in range(8)]
    groups = split_by_tokens(rows, 240)
    assert [len(group) for group in groups] == [4, 4]  # 58 each; kept together, five would fit beside three


def test_rows_of_one_conversation_or_without_a_name_of_one_prompt_have_one_number():
    examples = conversations()
    number = prompts_of(examples)
    names = [e.record.conversation for e in examples]
    assert {(names[i], number[i]) for i in range(len(names))} == {
        (name, number[names.index(name)]) for name in dict.fromkeys(names)
    }
    assert len(set(number)) == 4
    for e in examples:
        e.record = replace(e.record, conversation="")
    prompts = [tuple(e.trie.token[e.trie.path(0)[: -len(e.trie.scored[0])]].tolist()) for e in examples]
    assert len(set(prompts_of(examples))) == len(set(prompts)) == 5
    assert len(set(zip(prompts_of(examples), prompts, strict=True))) == 5


@pytest.mark.parametrize(
    "options", [{}, {"by_length": True}, {"by_prompt": True}, {"by_prompt": True, "by_length": True}]
)
def test_a_run_follows_one_loss_curve_whether_prompts_are_shared_and_forwards_cut_or_not(options, arguments):
    examples = with_references(conversations(), exact(tiny_policy(2)))

    def curve(**further):
        policy = exact(tiny_policy(1))
        args = arguments(4, max_steps=6, learning_rate=3e-3)
        trainer = PreferenceTrainer(policy, dpo(), args, pairs, **options, **further)
        trainer.train()
        return [row["loss"] for row in trainer.state.log_history if "loss" in row]

    pairs = [e for e in examples if e.record.comparisons]
    plain = curve(share_prompts=False)
    assert len(plain) == 6
    assert len(set(plain)) > 3
    assert curve() == pytest.approx(plain, rel=1e-6)
    assert curve(max_tokens=50) == pytest.approx(plain, rel=1e-6)
