"""A run folder as `unipref align` leaves it, made from synthetic rows through the real evaluation."""

import math
import random
from pathlib import Path

from unipref.core.io import append_jsonl, write_json, write_text
from unipref.evaluate import alarms, differences, summarise, summarise_reference

DESIGNER = {
    "reading_level": {
        "description": "Easy to read: 1 at school grade 4 or below, 0 at grade 9 or above.", "weight": 0.7,
        "scorer": "reading_level",
    },
    "plain_words": {"description": "Share of words without hedging.", "weight": 0.3, "scorer": "word_list"},
}  # fmt: skip
METHODS = {"dpo": "dpo", "dpo_lambda0": "upo", "upo_dpo": "upo"}
GAIN = {"reference": 0.0, "dpo": 0.01, "dpo_lambda0": 0.0, "upo_dpo": 0.06}
CONTROLS = {"upo_dpo": ["dpo_lambda0", "dpo"]}
HOSTILE = '<script>document.title="broken"</script><img src=x onerror="document.title=1"> & "quoted" \u2014 </textarea>'
WORDS = ["we", "can", "talk", "about", "this", "and", "you", "may", "want", "to", "ask", "a", "friend", "for", "help"]


def pair_rows(run: str, n: int) -> list[dict]:
    shared, own = random.Random("pairs"), random.Random(f"pairs {run}")
    rows = []
    for i in range(n):
        chosen, rejected = -40 + 8 * shared.gauss(0, 1), -42 + 8 * shared.gauss(0, 1)
        easy, plain = [shared.random() for _ in range(2)], [round(shared.random(), 1) for _ in range(2)]
        trend = 0.0 if run == "reference" else 0.6
        pull = 2 * (easy[0] - easy[1]) if run == "upo_dpo" else 0.0
        rows.append({
            "id": f"r{i}", "conversation": f"conversation {i // 2}", "domain": None, "weight": 1.0,
            "logp_chosen": chosen - 1 + trend * own.gauss(0.5, 1) + pull, "logp_rejected": rejected - 1.5 * trend,
            "ref_logp_chosen": chosen, "ref_logp_rejected": rejected, "len_chosen": 40, "len_rejected": 45,
            "words": [shared.randint(5, 110), shared.randint(5, 110)],
            "aux": {"reading_level": [None if i % 17 == 0 else easy[0], easy[1]], "plain_words": plain},
        })  # fmt: skip
    return rows


def generation_rows(run: str, n: int) -> list[dict]:
    shared, own = random.Random("generations"), random.Random(f"generations {run}")
    rows = []
    for i in range(n):
        base, words = shared.random() * 0.6, shared.randint(4, 95) + own.randint(0, 9)
        text = " ".join(own.choice(WORDS) for _ in range(words)).capitalize() + "."
        kl = 0.0 if run == "reference" else own.gauss(3, 2)
        rows.append({
            "id": f"r{i}", "conversation": f"conversation {i // 2}",
            "prompt": HOSTILE if i == 0 else f"User: Question {i}, what should I do about my neighbour?",
            "text": HOSTILE if i == 1 else text, "n_tokens": words + 4, "stopped": words < 60, "logp": -60.0 + kl,
            "ref_logp": -60.0,
            "aux": {"reading_level": base + GAIN[run] + 0.05 * own.random() if words >= 20 else None,
                    "plain_words": 0.8 - GAIN[run] / 2 + 0.1 * own.random()},
        })  # fmt: skip
    return rows


def metric_rows(run: str, steps: int = 60) -> list[dict]:
    own = random.Random(f"metrics {run}")
    rows = []
    for step in range(5, steps + 1, 5):
        done = step / steps
        row = {
            "step": step, "epoch": done, "loss": 0.69 - 0.1 * done + 0.01 * own.random(),
            "learning_rate": 1e-5 * (1 - done),
            "grad_norm": 2 + own.random(), "rewards/margins": 0.4 * done, "rewards/accuracies": 0.5 + 0.15 * done,
            "logps/chosen": -40 - 2 * done, "logps/rejected": -42 - 4 * done,
            "seconds": 3.0 * step, "tokens": 900 * step,
        }  # fmt: skip
        if METHODS[run] == "upo":
            row["upo/gradient_ratio"] = 0.0 if done < 0.1 else 0.3 + 0.1 * own.random()
            row["upo/ess"] = 1.0 if run == "dpo_lambda0" else 0.8
            row["upo/advantage"] = 0.1 * math.sin(step)
        rows.append(row)
    return rows


def write_example(folder: Path, *, n_pairs: int = 160, n_generations: int = 60) -> dict:
    """Write a run folder (without `report.html`); its summary."""
    rows = {run: (pair_rows(run, n_pairs), generation_rows(run, n_generations)) for run in ("reference", *METHODS)}
    reference = summarise_reference(*rows["reference"], designer=DESIGNER, resamples=300)
    before = dict(zip(("pairs", "generations"), rows["reference"], strict=True))
    write_json(folder / "shared" / "reference.json", before)
    runs = {}
    for run, method in METHODS.items():
        logs = metric_rows(run)
        append_jsonl(folder / run / method / "metrics.jsonl", logs)
        write_json(folder / run / "evaluation.json", {"seed": 0, "pairs": rows[run][0], "generations": rows[run][1]})
        summary = summarise(*rows[run], designer=DESIGNER, resamples=300)
        bounds = {"kl": 2.0} if run == "dpo" else None
        runs[run] = {
            **summary, "method": method, "seeds": [0], "seconds": 61.5 + len(run),
            "diagnostics": {"gradient_ratio": 0.3},
            "alarms": alarms(logs, summary, reference=reference, method=method, bounds=bounds),
        }  # fmt: skip
    data = {
        "train": {
            "n_read": 2312, "n_kept": 2300, "n_set_aside": 12,
            "counts": {"both responses are the same": 11, "empty response": 1},
            "set_aside": [{"source": "a.jsonl.gz", "line": 7, "reason": "empty response", "detail": "<b>chosen</b>"}],
            "left_out": {}, "changed": {"white space at the end removed": 4},
            "notes": ["Prompts were cut at the last turn of the user."],
            "sources": {"bundled:hh-harmless": {"rows": 2312, "format": "hh", "sha256": "0f" * 32}},
        },
        "designer": {
            "train": {
                "responses": 3680, "conflicts": [],
                "parts": {name: {"missing": 3, "mean": 0.4, "agreement": [0.5, 0.45, 0.55]} for name in DESIGNER},
            },
        },
        "split": {"train": 1840, "heldout": n_pairs, "by": "conversation"},
    }  # fmt: skip
    summary = {
        "name": "quickstart", "created": "2026-01-02T03:04:05Z", "version": "0.1.0",
        "recipe": {"stages": [], "runs": {run: [{"method": method}] for run, method in METHODS.items()}},
        "data": data, "designer": DESIGNER, "runs": runs, "reference": reference,
        "differences": differences({run: rows[run] for run in METHODS}, CONTROLS, designer=DESIGNER, resamples=300),
    }  # fmt: skip
    write_json(folder / "summary.json", summary)
    write_json(folder / "data.json", data)
    write_text(folder / "recipe.yaml", "name: quickstart\nmodel: bundled\n# <not a tag>\n")
    write_text(folder / "citations.bib", "@misc{upo, title={Unified Preference Optimization}, eprint={2405.17956}}\n")
    return summary
