"""What a trained model is judged on: held-out pairs and sampled responses, under it and under its reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from unipref.core.errors import DataError
from unipref.core.records import Record
from unipref.core.tries import build_trie
from unipref.data import as_pairs, limit_records
from unipref.engine import Policy, score
from unipref.evaluate import generation_rows, pair_rows
from unipref.recipes.config import Recipe
from unipref.rewards import DesignerObjectives, Judges
from unipref.sampling import generate
from unipref.training import Example, autocast, resolve_precision

__all__ = ["Rows", "compared", "judge_pairs", "judging_precision", "sample"]


@dataclass
class Rows:
    """Of one model or of several seeds of it."""

    pairs: list[dict[str, Any]]
    generations: list[dict[str, Any]]


def compared(records: Sequence[Record]) -> Sequence[Record]:
    """`records` with comparisons wherever ranks, ratings or thumbs give any."""
    try:
        return as_pairs(records)[0]
    except DataError:
        return records


def judging_precision(recipe: Recipe) -> tuple[torch.device, str]:
    """Where and in which arithmetic models are judged."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # what is reported is not rounded to bfloat16 where that costs seconds; on a GPU it would cost a model's size
    return device, "float32" if device.type == "cpu" else resolve_precision(recipe.train.precision, device)


def judge_pairs(
    recipe: Recipe, examples: Sequence[Example], *, seed: int, reward: Sequence[Sequence[float]] | None = None
) -> list[dict[str, Any]]:
    """A row for every comparison of `examples`, whose log-probabilities "logp" and "ref_logp" are filled in.

    Args:
        reward: of a reward model, per example and item; log-probabilities are then not read.
    """
    return pair_rows(
        [e.record for e in examples],
        logp=[e.trie.scored if reward is not None else e.ref_logp["logp"] for e in examples],
        ref_logp=None if reward is not None else [e.ref_logp["ref_logp"] for e in examples],
        reward=reward,
        aux=recipe.scores,
        seed=seed,
    )


def sample(
    recipe: Recipe,
    designer: DesignerObjectives | None,
    judges: Judges | None,
    examples: Sequence[Example],
    policy: Policy,
    base: Policy,
    tokenizer: Any,
    precision: str,
    *,
    seed: int,
) -> list[dict[str, Any]]:
    """A row for every response that `policy` writes to prompts of `examples`, one per conversation."""
    sampling = recipe.sampling
    chosen: dict[str, Example] = {}
    for example in examples:  # one prompt per conversation, so that prompts are independent draws
        chosen.setdefault(example.record.conversation, example)
    if not sampling.prompts:
        return []
    prompts, _ = limit_records([example.record for example in chosen.values()], sampling.prompts)
    kept = [chosen[record.conversation] for record in prompts]
    contexts = [_context_ids(example) for example in kept]
    device = next(policy.parameters()).device
    with autocast(device, precision):
        samples = generate(
            policy.model,
            tokenizer,
            contexts,
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
        )
    tries = [build_trie([(context, sample.ids)]) for context, sample in zip(contexts, samples, strict=True)]
    budget = 2 * recipe.train.max_tokens_per_forward
    with autocast(device, precision):
        logp = score(policy, tries, max_tokens=budget)
        ref_logp = score(base, tries, max_tokens=budget)
    aux = {}
    for scorers in (designer, judges):
        if scorers is not None:
            aux |= scorers.score_texts([r.items[0].context for r in prompts], [sample.text for sample in samples])
    return generation_rows(
        prompts,
        samples,
        logp=[values[0] for values in logp],
        ref_logp=[values[0] for values in ref_logp],
        aux=aux,
        seed=seed,
    )


def _context_ids(example: Example) -> list[int]:
    trie = example.trie
    path = trie.path(0)
    return trie.token[path[: len(path) - len(trie.scored[0])]].tolist()
