"""An `explanation.json` as `unipref explain` writes it, with numbers made up by hand and sums that are right."""

import math
from pathlib import Path

from example_run import HOSTILE

from unipref.core.io import write_json

# concept -> (kind, name, high, low, domains)
CONCEPTS = {
    "characters": ("rule", "characters", "longer, in characters", "", ()),
    "clarity": ("judge", "clarity", "easy to follow", "hard to follow", ()),
    "says:lex": ("ngram", "says “lex”", "the response has “lex”", "", ("law",)),
    "hedges": ("rule", "hedges", "more hedging words", "", ()),
    "hostile": ("table", HOSTILE, HOSTILE, HOSTILE, ()),
    "questions": ("rule", "questions", "more question marks", "", ()),
    **{f"extra_{i}": ("rule", f"extra {i}", f"more of extra {i}", "", ()) for i in range(12)},
}
SHARED = {
    "people": {"characters": 0.4, "clarity": 0.25, "hedges": -0.1, "hostile": 0.02}
    | {f"extra_{i}": 0.015 - 0.001 * i for i in range(12)},
    "judge": {"characters": 0.6, "clarity": 0.05, "questions": -0.25},
    "model": {"characters": 0.1},
}
OWN = {
    "people": {"law": {"says:lex": 0.3, "characters": -0.5, "hedges": 0.05}, "food": {"clarity": 0.15}},
    "judge": {"law": {}, "food": {"clarity": 0.1}},
    "model": {"all": {}},
}
ORDER = {"judge": {"n": 40, "changed": [0.275, 0.15, 0.42], "first": 8, "second": 2}}
TRUSTED = {"people": True, "judge": True, "model": False}
UNSTABLE = ("hedges", "hostile", *(f"extra_{i}" for i in range(12)))
N = 12  # pairs of each mechanism


def entry(key: str, weight: float, trusted: bool, own: float | None = None) -> dict:
    """What is said of a weight; clarity's interval holds 0, and questions have none."""
    stability = 0.7125 if key in UNSTABLE else 0.9875
    low, high = weight - 0.125, weight + 0.1875
    if key == "clarity":
        low, high = -0.0625, 0.5
    told = {"weight": weight, "lift": 50 * weight, "low": low, "high": high, "stability": stability,
            "drives": trusted and stability >= 0.9}  # fmt: skip
    if own is not None:
        told["specific"] = own
    if key == "questions":
        told |= {"low": None, "high": None, "no_interval": "only 3 held-out pairs differ in it"}
    return told


def weights(mechanism: str, domain: str) -> dict[str, float]:
    """Of a domain: shared and its own together, the largest first."""
    own = OWN[mechanism][domain]
    found = {key: SHARED[mechanism].get(key, 0.0) + own.get(key, 0.0) for key in {**SHARED[mechanism], **own}}
    return dict(sorted(found.items(), key=lambda item: -abs(item[1])))


def mechanism(name: str) -> dict:
    trusted = TRUSTED[name]
    domains = {
        domain: {
            key: entry(key, w, trusted and domain == "law", own.get(key, 0.0))
            for key, w in weights(name, domain).items()
        }
        for domain, own in OWN[name].items()
    }
    several = len(domains) > 1
    differences = {"majority": [0.21, 0.15, 0.27], "length_only": [0.05, 0.01, 0.09] if trusted else [0.0, -0.03, 0.02]}
    simpler = {"shared_only": [0.69, 0.63, 0.74], "specific_only": [0.66, 0.6, 0.71], "dirty": [0.7, 0.64, 0.75]}
    return {
        "mechanism": name,
        "n": {"pairs": 400, "ties": 3, "prompts": 380, "training": 300, "heldout": 100, "missing_values": 7,
              "domains": dict.fromkeys(domains, 400 // len(domains))},
        "model": {"lambda_shared": 0.125, "lambda_specific": 0.0625, "alpha": 1 / len(domains), "gap": 1e-10,
                  "loss": "mean over each domain's rows", "path": [{"lambda_shared": 0.125, "log_loss": 0.6}],
                  "chosen": 0},
        "accuracy": {
            "heldout": [0.71, 0.65, 0.76],
            "baselines": {"majority": [0.5, 0.44, 0.56], "length_only": [0.66, 0.61, 0.71],
                          **(simpler if several else {})},
            "differences": differences,
            "by_domain": {domain: [0.7 + 0.02 * i, 0.6, 0.8] for i, domain in enumerate(domains)},
            "calibration": [{"predicted": 0.55, "right": [0.52, 0.4, 0.64], "n": 49},
                            {"predicted": 0.8, "right": [0.85, 0.75, 0.92], "n": 48}],
            "differences_by_domain": {d: differences for d in domains},
            "leave_one_domain_out": {d: [0.62, 0.53, 0.7] for d in domains} if several else {},
            **({"left_out_domains": [0.62, 0.56, 0.68]} if several else {}),
        },
        "trusted": trusted, "trusted_in": {d: trusted and d == "law" for d in domains},
        "shared": {key: entry(key, w, trusted) for key, w in SHARED[name].items()},
        "domains": domains,
        "concepts": {key: concept(key) for key in CONCEPTS if name != "model" or key != "questions"},
        "bias": {"position": {"alone": [0.03, -0.05, 0.11], "beside_content": [0.04, -0.04, 0.12], "why_not": {}},
                 "characters": {"alone": [0.5, 0.3, 0.7], "beside_content": [None, None, None],
                                "why_not": {"beside_content": "the concepts separate the held-out pairs"}},
                 "tables": {"alone": [None] * 3, "beside_content": [None] * 3,
                            "why_not": dict.fromkeys(["alone", "beside_content"], "only 2 held-out pairs differ")}},
        "order": ORDER.get(name, {"n": 0, "changed": [None, None, None], "first": 0, "second": 0}),
        "settings": {"heldout_share": 0.25, "resamples": 80, "seed": 0, "grid": None},
        "notes": [],
    }  # fmt: skip


def concept(key: str) -> dict:
    kind, name, high, low, domains = CONCEPTS[key]
    return {
        "name": name, "high": high, "low": low, "kind": kind, "source": "surface-v1", "domains": list(domains),
        "spread": 1.5, "coverage": 0.875, "alike": ["tokens"] if key == "characters" else [],
        "alone": {"share": [0.61, 0.52, 0.7] if key != "questions" else [None, None, None], "n": 90,
                  "p_holm": 0.0123, "influence": 0.22},
    }  # fmt: skip


def pair(name: str, i: int) -> dict:
    """A pair whose contributions sum to its logit; every fourth is predicted wrongly, the sixth is a tie."""
    domain = sorted(OWN[name])[i % len(OWN[name])]
    w = weights(name, domain)
    x = {key: (1 + 0.25 * ((i + j) % 5)) * (-1 if (i + j) % 3 else 1) for j, key in enumerate(w)} if i != 7 else {}
    parts = sorted(((key, value, w[key] * value) for key, value in x.items()), key=lambda part: -abs(part[2]))
    logit = math.fsum(part[2] for part in parts)
    p = 0.5 if i == 5 else float((logit > 0) != (i % 4 == 0))
    key, old, _ = parts[0] if parts else ("", 0.0, 0.0)
    text = f"Response {i} about {'cats' if i % 2 else 'dogs'}, 猫. "
    return {
        "id": f"{name}-{i}", "place": f"pairs.jsonl, line {i + 1}", "domain": domain, "mechanism": name,
        "prompt": HOSTILE if i == 0 else f"User: Question {i}",
        "first": HOSTILE if i == 1 else text * (60 if i == 2 else 1), "second": f"Another {text}",
        "p": p, "predicted": 1 / (1 + math.exp(-logit)), "logit": logit,
        "contributions": [list(part) for part in parts],
        "flip": {"changes": [[key, old, old - 1.01 * logit / w[key]]], "found": True} if parts and i != 3
                else {"changes": [], "found": False},
        "evidence": f"the first is clearer, 猫\n{HOSTILE}" if i == 2 else "",
    }  # fmt: skip


def between(a: str, b: str, similarity: float | None, same: int) -> dict:
    def of(name: str, key: str) -> float:
        return SHARED[name].get(key, 0.0)

    keys = sorted({*SHARED[a], *SHARED[b]}, key=lambda key: -abs(of(a, key) - of(b, key)))
    chosen = [
        {"concept": key, "a": of(a, key), "b": of(b, key), "difference": of(a, key) - of(b, key),
         "stability": 0.5 if key in UNSTABLE else 0.95} for key in keys if of(a, key) != of(b, key)
    ]  # fmt: skip
    return {"a": a, "b": b, "similarity": similarity, "by_domain": {"law": similarity}, "same_pairs": same,
            "agreement": [0.8, 0.75, 0.85] if same else None,
            "overlooked": [e for sign in (1, -1) for e in chosen if sign * e["difference"] > 0][:20]}  # fmt: skip


def applications(names) -> dict:
    tested = {"concepts": [["characters", 1], ["hedges", -1]], "n": 97, "top": [0.7, 0.6, 0.8],
              "random": [0.55, 0.5, 0.6], "difference": [0.15, 0.05, 0.25]}  # fmt: skip
    broken = {"n": 31, "rule": "pairs that it calls a tie", "random": [0.5, 0.4, 0.6], "own": [0.52, 0.4, 0.64],
              "reference": [0.6, 0.5, 0.7], "overlooked": [0.62, 0.5, 0.74],
              "concepts": {"own": [["characters", 1]], "reference": [["clarity", 1]]}}  # fmt: skip
    few = {"why_not": "1 concept has a weight; the test needs 2"}
    guided = {name: tested if TRUSTED[name] else few for name in names}
    if "judge" not in names:
        return {"guidance": {"k": 2, "mechanisms": guided}, "tie_break": {}}
    tie_break = {"k": 1, "reference": names[0], "mechanisms": {"judge": broken}}
    again = {
        **broken,
        "model": "a-model",
        "n": 20,
        "of": 31,
        "missing": 3,
        "plain": [0.5, 0.4, 0.6],
        "difference": [0.12, 0.02, 0.22],
        "asked": {"requests": 190, "tokens": 1900, "cached": 10, "comparisons": 97, "changed": [0.4, 0.3, 0.5]},
    }
    live = {"reference": names[0], "mechanisms": {"judge": again}}
    return {"guidance": {"k": 2, "mechanisms": guided}, "tie_break": tie_break, "tie_break_live": live}


def example(names=("people", "judge", "model")) -> dict:
    mechanisms = {name: mechanism(name) for name in names}
    main = mechanisms[names[0]]
    couples = [("people", "judge", 0.5, 400), ("people", "model", None, 0), ("judge", "model", -0.25, 0)]
    report = {"n_read": 401, "n_kept": 400, "counts": {"no response": 1}, "notes": [], "sources": {},
              "set_aside": [{"source": HOSTILE, "line": 7, "reason": "no response", "detail": ""}]}  # fmt: skip
    return {
        "name": "small", "created": "2026-01-02T03:04:05Z", "version": "0.1.0",
        "command": "unipref explain law=law.jsonl food=food.jsonl",
        "judge": {"name": "a-model", "comparisons": 900, "inconsistent": 63, "changed": [0.07, 0.05, 0.09]},
        "data": [{"source": "law.jsonl", "rows": 401, "sha256": "ab" * 32, "report": report}],
        "main": names[0], "shared": main["shared"], "domains": main["domains"], "accuracy": main["accuracy"],
        "concepts": {key: concept(key) for key in CONCEPTS}, "mechanisms": mechanisms,
        "between": [between(*couple) for couple in couples if {couple[0], couple[1]} <= {*names}],
        "pairs": [pair(name, i) for name in names for i in range(N)],
        "applications": applications(names), "pairs_shown": {"shown": N * len(names), "heldout": 100 * len(names)},
        "bias": main["bias"], "limits": ["Ten people judged."], "settings": main["settings"],
        "notes": ["domains with fewer than 30 decided pairs are left out: tax (4)."],
    }  # fmt: skip


def write_example(folder: Path, **options) -> dict:
    """Write it into a folder."""
    found = example(**options)
    write_json(folder / "explanation.json", found)
    return found
