"""Data files of twelve rows that hold, between them, everything that a method of the catalogue reads."""

import json
import math

TOPICS = (
    ("How do I keep basil alive in a pot?", "basil", "a sunny window", "the soil feels dry"),
    ("Why is my sourdough flat?", "sourdough", "a warm corner", "the dough has doubled"),
    ("What is the best way to learn chess?", "chess", "a quiet table", "you have lost a game"),
    ("How should I store winter tyres?", "tyres", "a dark garage", "spring arrives"),
    ("Can you help me write a polite complaint?", "a complaint", "a short letter", "the facts are listed"),
    ("How do bees find their way home?", "bees", "the open sky", "the sun is low"),
    ("What makes a good password?", "a password", "a password manager", "a site was breached"),
    ("How can I run five kilometres?", "running", "a soft path", "your breath is calm"),
    ("Why does ice float?", "ice", "cold water", "the crystals form"),
    ("How do I descale a kettle?", "a kettle", "white vinegar", "the water boils"),
    ("Which book should I read on Rome?", "Rome", "a good library", "the empire has split"),
    ("How do I calm a nervous dog?", "a dog", "a quiet room", "the noise is over"),
)


def better(i):
    _, thing, place, moment = TOPICS[i]
    return (
        f" Think of {thing} first. Look for {place}, and take your time; then wait until {moment}. "
        "Ask me again if it fails! I am glad to help."
    )


def worse(i):
    _, thing, place, _ = TOPICS[i]
    return f" Think of {place}, I guess. Who cares about {thing}?"


def _share(i, side, name):
    """A number in (0, 1) of its own for every row, side and column."""
    return round(0.5 + 0.45 * math.sin(1 + 7 * i + 3 * side + sum(map(ord, name))), 4)


COLUMNS = ("reward", "win_rate", "score", "q", "diversity", "novelty", "surprise", "quality")
FURTHER = ("gold", "base_response", "rationale", "policy_sample", "baseline_sample")


def pairs():
    rows = []
    for i, (prompt, thing, place, moment) in enumerate(TOPICS):
        row = {
            "prompt": prompt,
            "chosen": better(i),
            "rejected": worse(i),
            "gold": f" The truth about {thing}: {place}.",
            "base_response": f" Well, {moment}, so {thing} it is.",
            "rationale": f" The first answer names {place} and says when to act.",
            "policy_sample": f" I would say {thing} and {place}.",
            "baseline_sample": f" Nobody knows {thing}.",
        }
        row["rejected_segments"] = [f"Think of {place}, I guess.", f"Who cares about {thing}?"]
        row["rejected_segment_scores"] = [0, 1 + i % 2]
        row["chosen_segment_scores"] = [4, 3, 2 + i % 3, 1]
        for side, name in enumerate(("chosen", "rejected")):
            row |= {f"{name}_{column}": _share(i, side, column) for column in COLUMNS}
        rows.append(row)
    return rows


def lists():
    rows = []
    for i, (prompt, thing, place, _) in enumerate(TOPICS):
        responses = [worse(i), better(i), f" Try {place}. It is good for {thing}."]
        rewards = [_share(i, side, "list") for side in range(3)]
        order = sorted(range(3), key=lambda j: -rewards[j])
        ranks = [order.index(j) + 1 for j in range(3)]
        rows.append({"prompt": prompt, "responses": responses, "rewards": rewards, "ranks": ranks})
    return rows


def thumbs():
    rows = []
    for i, (prompt, *_) in enumerate(TOPICS):
        up = i % 3 > 0
        text = better(i) if up else worse(i)
        numbers = {name: _share(i, up, name) for name in ("reward", "win_rate", "score")}
        rows.append({"prompt": prompt, "completion": text, "label": up, **numbers})
    return rows


def demonstrations():
    return [{"prompt": topic[0], "completion": better(i)} for i, topic in enumerate(TOPICS)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def without(rows, *names):
    """The rows without these columns, which are spelled as the file has them."""
    return [{key: value for key, value in row.items() if key not in names} for row in rows]
