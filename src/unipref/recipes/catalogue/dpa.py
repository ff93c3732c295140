"""Directional preference alignment."""

from unipref.core.cards import get_method, method
from unipref.core.errors import ConfigError
from unipref.data.catalogue.best_of_directions import TEMPLATE, best_of_directions
from unipref.objectives.catalogue.sft import sft
from unipref.recipes.composition import Composition, Loop


@method(
    "dpa",
    kind="loop",
    status="reconstructed",
    source="arXiv:2402.18571, released README",
    formula="-logp(y* | x + v) / |y*|, y* = argmax_y v . r(x, y), v drawn anew per round",
    needs=("group", "reward", "len"),
    citation=get_method("best_of_directions").citation,
)
def dpa(
    *,
    rounds: int = 2,
    by: tuple[str, ...] = ("helpfulness", "verbosity"),
    max_angle: float = 45.0,
    directions: tuple[tuple[float, ...], ...] | None = None,
    draws: int = 1,
    template: str = TEMPLATE,
    seed: int = 0,
) -> Loop:
    """Supervised training on the best response under a direction of rewards that the prompt states, in rounds.

    Afterwards a user asks for a direction. A weighted sum reaches the convex part of the front alone. Under (1, 0)
    it is ordinary best-of-n.

    Reconstructed: the template and the geometry are the README's; the law of the directions, the number of rounds and
    of responses were not read.

    Args:
        rounds: ours. Each draws other directions.
        by: columns of the rewards, in one unit; two where directions are angles.
        max_angle: in degrees.
        directions: to draw from in place of angles.
        draws: directions per prompt and round.
        template: has "{direction}" where the weighted sum goes.
        seed: of the draws.
    """
    if rounds < 1:
        raise ConfigError(f"{rounds} rounds train nothing; give 1 or more")
    shared = {"by": by, "max_angle": max_angle, "directions": directions, "draws": draws, "template": template}
    return Loop(
        tuple(Composition(sft(), (best_of_directions(**shared, seed=seed + i),)) for i in range(rounds)),
        collects="several responses per prompt from the last round's model, written with the direction in the prompt, "
        "each with its rewards",
    )
