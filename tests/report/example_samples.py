"""A `samples.json` as `unipref sample --page` writes it, from rows made up by hand."""

from pathlib import Path
from types import SimpleNamespace

from example_run import HOSTILE

from unipref.core.io import write_json
from unipref.recipes.samples import summarise_samples

MODELS = ("reference", "dpo", "upo_dpo")
N = 8


def rows(seeds=(0,)):
    made = []
    for i in range(N):
        for seed in seeds:
            for place, model in enumerate(MODELS):
                text = f"Answer {i} of {model} about {'cats' if i % 2 else 'dogs'}."
                made.append({
                    "id": f"p{i}", "prompt": HOSTILE if i == 0 else f"User: Question {i} 猫", "model": model,
                    "role": "after" if place else "before", "seed": seed,
                    "text": HOSTILE if (i, place) == (1, 1) else text, "n_prompt_tokens": 12, "n_tokens": 9 + place,
                    "stopped": i != 3, "logp": -30.0 + place, "ref_logp": -30.0, "log_ratio": float(place),
                    "aux": {"easy": None if i == 2 else 0.25 * place + 0.01 * i, "reward": 0.5 - 0.125 * place},
                })  # fmt: skip
    return made


def example(seeds=(0,)):
    """The account of drawing."""
    models = [
        {"name": name, "model": f"/models/{name}", "role": "after" if place else "before",
         "reference": "/models/reference"} for place, name in enumerate(MODELS)
    ]  # fmt: skip
    contenders = [SimpleNamespace(**model) for model in models]
    made = rows(seeds)
    return {
        "name": "small", "created": "2026-01-02T03:04:05Z", "version": "0.1.0",
        "settings": {"max_new_tokens": 12, "temperature": 0.7, "top_p": 0.9, "seeds": list(seeds), "system": None,
                     "dtype": None},
        "models": models, "designer": {}, "notes": ["Prompts are turns of a conversation."],
        "summary": summarise_samples(SimpleNamespace(contenders=contenders), made), "rows": made,
    }  # fmt: skip


def write_example(folder: Path, seeds=(0,)) -> dict:
    """Write it into a run folder."""
    found = example(seeds)
    write_json(folder / "samples.json", found)
    return found
