"""What a recipe's `collect` asks for: the start model answers prompts, a scorer labels, pairs are trained on."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError
from unipref.core.io import to_json, write_text
from unipref.core.records import Record
from unipref.data import DataReport
from unipref.engine import load_model, load_tokenizer
from unipref.online import Pairing, answered, pair_rows_of, paired
from unipref.recipes._judging import judging_precision
from unipref.recipes.config import Recipe
from unipref.rewards import make_scorer, scores_of
from unipref.store import ScoreStore
from unipref.training import autocast, processes

__all__ = ["COLLECTED", "collected"]

COLLECTED = {"train": "collected.jsonl", "heldout": "collected-heldout.jsonl"}
ANSWERS = {"train": "answers.jsonl", "heldout": "answers-heldout.jsonl"}  # every answer with its token ids


def collected(
    recipe: Recipe,
    prompts: Sequence[Record],
    part: str,
    folder: Path,
    store: ScoreStore | None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Record], DataReport]:
    """Pairs made of the start model's answers to `prompts`, and the account from prompts to pairs.

    They are written to `folder`/shared as a data file. Answers that are there are not sampled again.

    Args:
        part: "train" or "heldout".
        progress: told how many prompts are answered, of how many.

    Raises:
        ConfigError: no pair is left; the message says what became of them.
    """
    asked = recipe.collect
    shared = folder / "shared"
    scorer = make_scorer(asked.label.model_dump())
    settings = {
        "model": recipe.model,
        "max_new_tokens": asked.max_new_tokens,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "seed": asked.seed,
    }
    device, precision = judging_precision(recipe)
    trust = recipe.model_options.trust_remote_code

    def load() -> tuple[Any, Any]:
        model = load_model(recipe.model, dtype="float32", trust_remote_code=trust).to(device)
        return model, load_tokenizer(recipe.model, trust_remote_code=trust)

    def read() -> tuple[list[Record], DataReport]:
        with autocast(device, precision):
            return answered(
                prompts,
                load,
                shared / ANSWERS[part],
                responses=asked.responses,
                settings=settings,
                max_length=recipe.data.max_length,
                progress=progress,
            )

    if processes().is_main_process:  # one rank samples, the others read what it wrote
        records, report = read()
    processes().wait_for_everyone()
    if not processes().is_main_process:
        records, report = read()
    items = [item for record in records for item in record.items]
    scores = scores_of(scorer, [item.context for item in items], [item.response for item in items], store)
    split = np.split(scores, np.cumsum([len(record.items) for record in records])[:-1])
    pairing = Pairing(asked.pairs, asked.preference, asked.scale, asked.min_gap)
    pairs, found = paired(records, split, pairing)
    report = report.then(found)
    if not pairs:
        why = "; ".join(f"{count:,} x {reason}" for reason, count in report.left_out.items())
        raise ConfigError(
            f"collect: no pair could be made of {len(prompts):,} prompts ({why}); "
            "choose another label, more responses, a higher temperature, or a smaller min_gap"
        )
    report.notes.append(
        f"The answers are the start model's own, {asked.responses} to a prompt, sampled once at temperature "
        f"{asked.temperature:g} and labelled by {asked.label.scorer}: on-policy at the first step, and "
        "less so with every later one."
    )
    text = "".join(to_json(row) + "\n" for row in pair_rows_of(pairs))
    path = shared / COLLECTED[part]
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    report.sources[str(path)] = {"rows": len(pairs), "format": "preference", "sha256": sha256}
    if processes().is_main_process:
        write_text(path, text)
    return pairs, report
