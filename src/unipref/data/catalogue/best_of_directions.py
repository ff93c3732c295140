"""Directional preference alignment: the best response under a direction that the prompt states."""

import math
import random
from dataclasses import replace

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError
from unipref.core.records import Record
from unipref.data.conditioning import put_before
from unipref.data.operators import Operator, digest, each, rated, with_items

TEMPLATE = "You are a helpful assistant. Your response should maximize weighted rating = {direction}."


@method(
    "best_of_directions",
    kind="operator",
    status="reconstructed",
    source="arXiv:2402.18571, released README",
    formula="keep argmax_y v . r(x, y) under (x + v), v = (cos a, sin a)",
    needs=("reward",),
    citation=Citation(
        "Arithmetic Control of LLMs for Diverse User Preferences: Directional Preference Alignment with "
        "Multi-Objective Rewards",
        ("Haoxiang Wang", "Yong Lin", "Wei Xiong", "Rui Yang", "Shizhe Diao", "Shuang Qiu", "Han Zhao", "Tong Zhang"),
        2024,
        "2402.18571",
    ),
)
def best_of_directions(
    *,
    by: tuple[str, ...] = ("helpfulness", "verbosity"),
    max_angle: float = 45.0,
    directions: tuple[tuple[float, ...], ...] | None = None,
    draws: int = 1,
    template: str = TEMPLATE,
    seed: int = 0,
) -> Operator:
    """One row per drawn direction: the response with the largest weighted sum of rewards, the weights in its prompt.

    For supervised training on what is kept; all other responses go. The weights in the prompt are 100 times the
    direction's, rounded.

    Reconstructed: template and geometry are in the released README, which suggests weights of 71 to 100 for the first
    objective, an angle within 45 degrees. The law of the directions and the number of draws were not read.

    Args:
        by: columns of the rewards; two where directions are angles.
        max_angle: in degrees; angles are uniform within it on both sides.
        directions: to draw from in place of angles, one number per column each.
        draws: directions per record.
        template: has "{direction}" where the weighted sum goes.
    """
    if "{direction}" not in template:
        raise ConfigError(f"the template has no '{{direction}}' where the weights go: {template!r}")
    if directions is None and len(by) != 2:
        raise ConfigError(f"angles need two columns, not {len(by)}; give directions")
    if directions is not None and (not directions or any(len(v) != len(by) for v in directions)):
        raise ConfigError(f"each direction needs {len(by)} numbers, one per column of {by}: {directions}")
    if draws < 1:
        raise ConfigError(f"{draws} draws leave nothing; give 1 or more")

    def make(record: Record) -> list[Record]:
        rewards = [rated(record, name) for name in by]
        rng = random.Random(f"direction {seed} {digest(record, seed).hex()}")
        found = []
        for draw in range(draws):
            if directions is None:
                angle = math.radians(rng.uniform(-max_angle, max_angle))
                direction = (math.cos(angle), math.sin(angle))
            else:
                direction = rng.choice(directions)
            best = max(rewards[0], key=lambda i, v=direction: sum(w * r[i] for w, r in zip(v, rewards, strict=True)))
            words = " + ".join(f"{name}*{round(100 * w)}" for name, w in zip(by, direction, strict=True))
            part = with_items(record, [best], comparisons=())
            kept = part.items[0]
            kept = replace(
                kept,
                context=put_before(kept.context, template.replace("{direction}", words)),
                columns={**kept.columns, **{f"weight_{n}": w for n, w in zip(by, direction, strict=True)}},
            )
            suffix = f"~direction{draw}" if draw else ""
            found.append(replace(part, id=record.id + suffix, items=(kept, *part.items[1:])))
        return found

    options = {"by": by, "max_angle": max_angle, "directions": directions, "draws": draws, "seed": seed}
    return each(
        "best_of_directions", options, make, changed="best response under a direction", added="further direction"
    )
