"""What the parts of a preference model are, and the tensors they see.

Shapes: n comparisons of a batch, D features of a response, E numbers of a prompt, K outputs of a head, Z of a code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from torch import Tensor, nn

from unipref.objectives.parts import Part

__all__ = ["UNSEEN", "Adaptation", "AddOn", "Encoder", "Fitting", "Head", "Mixing", "Output", "Part", "Rows", "Sizes"]

UNSEEN = -1  # the number of a user or domain that the model does not know


@dataclass(frozen=True)
class Sizes:
    """What a model is built for: numbers per response and prompt; how many users, domains and attributes it knows."""

    features: int
    contexts: int = 0
    users: int = 0
    domains: int = 0
    attributes: int = 0


@dataclass(frozen=True, eq=False)
class Rows:
    """n comparisons as tensors.

    Attributes:
        first, second: (n, D) features, scaled as the model scales them.
        user, domain: (n,) int64 numbers, UNSEEN for those that the model does not know.
        p: (n,) probability that the first is preferred. weight: (n,).
        context: (n, E), or None where prompts are not given. margin: (n,), NaN where nobody said.
        attributes: ((n, A), (n, A)) ratings of both sides, NaN where missing; None where there are none.
        index: (n,) the comparisons' numbers in the table.
    """

    first: Tensor
    second: Tensor
    user: Tensor
    domain: Tensor
    p: Tensor
    weight: Tensor
    margin: Tensor
    index: Tensor
    context: Tensor | None = None
    attributes: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.p)

    def take(self, where: Tensor) -> "Rows":
        """The comparisons at `where`, a mask or indices."""
        single = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "attributes"}
        taken = {name: None if value is None else value[where] for name, value in single.items()}
        both = None if self.attributes is None else (self.attributes[0][where], self.attributes[1][where])
        return Rows(**taken, attributes=both)


@dataclass(frozen=True, eq=False)
class Output:
    """What a model says of n comparisons.

    Attributes:
        logit: (n,) of the probability that the first is preferred; the negative of itself where both change places.
        rewards: (2, n) of both sides, whose difference `logit` is; None where a comparison is no such difference.
        columns: further columns (2, n) or (2, n, C) by name, of both sides, for objectives that read them.
    """

    logit: Tensor
    rewards: Tensor | None = None
    columns: Mapping[str, Tensor] = field(default_factory=dict)


class Head(Part):
    """Features of responses to K numbers each."""

    outputs: int = 1
    convex = False  # the loss has one minimum in the parameters, where mixing and link leave it so

    def width(self, sizes: Sizes) -> int:
        """K, which may depend on the data."""
        return self.outputs

    def build(self, sizes: Sizes) -> nn.Module:
        """A module from (n, D) to (n, K)."""
        raise NotImplementedError


class Encoder(Part):
    """Who is asked, or what is asked about, as numbers.

    A module that keeps something of the training data has a method `begin(data: Data)`, which is called before a fit,
    or `end(net: Net, data: Data)`, which is called after it. Those of mixings may too.
    """

    convex = False  # the code is no parameter of the fit

    reads_prompts = False  # a table without contexts is then refused, where the model was trained on one with them
    reads_users = False  # names of users count, though a table need not have them
    learns_users = True  # in the fit; otherwise only whom a model is adapted to is known
    fallback = ""  # what somebody unknown gets, as the end of a sentence

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        """A module whose `forward(rows: Rows)` gives (n, Z); `outputs` is the head's K."""
        raise NotImplementedError


class Mixing(Part):
    """The head's numbers of both sides, and the code, to one comparison."""

    convex = False  # the logit is linear in the head's numbers

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        """A module whose `forward(first (n, K), second (n, K), code (n, Z) | None, rows)` gives an `Output`.

        `alone(values (m, K), code (m, Z) | None)` gives (m,) rewards of single responses, up to a constant that no
        comparison sees, or raises ConfigError where there are none.
        """
        raise NotImplementedError


class AddOn(Part):
    """A further term of the fit that reads what the objective's batch does not hold: parameters, codes, domains."""

    convex = False

    def build(self, sizes: Sizes) -> nn.Module | None:
        """What the term itself trains (a critic); None where it has no parameters of its own."""
        return None

    def __call__(self, net: nn.Module, rows: Rows, output: Output, own: nn.Module | None) -> Tensor:
        """0-d, added to the loss of the batch."""
        raise NotImplementedError


class Fitting(Part):
    """How a model's parameters are found."""

    unlabelled = False  # comparisons without labels teach it something


class Adaptation(Part):
    """How a user or domain that was not trained on is learned from a few comparisons, all else left as it is."""

    reads_labels = True  # otherwise comparisons without labels teach as much
