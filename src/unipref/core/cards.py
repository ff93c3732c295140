"""Cards: what each method is, where it comes from and what it needs; the one registry for every kind."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from unipref.core.errors import ConfigError, nearest

__all__ = [
    "COUPLINGS",
    "KINDS",
    "LAWS",
    "STATUSES",
    "UNIPREF",
    "Card",
    "Citation",
    "Limit",
    "bibtex",
    "get_method",
    "list_methods",
    "method",
]

KINDS = ("objective", "operator", "loop", "recipe", "reward", "scorer", "explanation", "concepts")
STATUSES = ("verified", "reconstructed")
COUPLINGS = ("none", "statistic", "full")
LAWS = (*(f"L{i}" for i in range(1, 11)), *(f"G{i}" for i in range(1, 8)), "W1")
REQUIRED = "required"  # stands as the default of an option that has none


@dataclass(frozen=True)
class Citation:
    """What a BibTeX entry needs. Authors are "First Last", in the paper's order; "and others" may stand last."""

    title: str
    authors: tuple[str, ...]
    year: int
    arxiv: str | None = None
    url: str | None = None

    @property
    def key(self) -> str:
        """The entry's key: first author's last name, year, first long word of the title, as in "rafailov2023direct"."""
        name = self.authors[0].split()[-1]
        word = next((w for w in re.findall(r"[A-Za-z]+", self.title) if len(w) > 3), self.title.split()[0])
        return f"{name}{self.year}{word}".lower()

    def bibtex(self) -> str:
        """The entry, ending in a newline."""
        fields = {"title": f"{{{self.title}}}", "author": " and ".join(a.removeprefix("and ") for a in self.authors)}
        fields["year"] = str(self.year)
        if self.arxiv is not None:
            fields |= {"eprint": self.arxiv, "archivePrefix": "arXiv"}
        if self.url is not None:
            fields["url"] = self.url
        lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
        return f"@misc{{{self.key},\n{lines}}}\n"


UNIPREF = Citation("unipref: unified preference optimization for language models", ("The unipref authors",), 2026)


def _sections(function: Callable[..., Any]) -> list[str]:
    """A docstring's text and its sections ("Args:" and the like), each as one string."""
    return re.split(r"\n\n(?=(?:Args|Attributes|Returns|Raises|Example|Source):\n)", inspect.getdoc(function) or "")


Golden = tuple[Mapping[str, Any], Mapping[str, Any], float]  # options, fields of a batch, the loss worked out by hand


@dataclass(frozen=True)
class Limit:
    """A special case: with `options`, this method's loss is factor * another method's + constant, gradients too.

    Attributes:
        options: of this method; those left out stand at their defaults.
        method: key of the other method.
        method_options: of the other method, likewise.
        factor: by which the other loss and its gradient are multiplied.
        constant: what is then added to the loss alone.
        where: column of responses, pairs or tokens -> the number it holds everywhere, where the equality asks for it.
        tolerance: largest relative difference; above the default where `options` only come near the limit.
        note: what a reader should know besides.
    """

    options: Mapping[str, Any]
    method: str
    method_options: Mapping[str, Any] = field(default_factory=dict)
    factor: float = 1.0
    constant: float = 0.0
    where: Mapping[str, float] = field(default_factory=dict)
    tolerance: float = 1e-10
    note: str = ""


@dataclass(frozen=True)
class Card:
    """One method.

    Attributes:
        key: the name users give, as in a recipe's `method`; once per kind.
        kind: one of KINDS.
        title: the first line of the function's docstring.
        source: where the definition stands, such as "arXiv:2305.18290 Eq. 7".
        status: "verified" in its source, or "reconstructed" where part of it is inferred; the docstring says which.
        formula: the loss or rule on one line.
        needs: columns; "chosen" and "rejected" where responses are compared, else names per response ("ref_logp", ...).
        options: option -> default, read from the function's signature.
        citation: for `bibtex`.
        coupling: what ties rows of a batch together: "none", a "statistic" taken first without gradient, or "full".
        exceptions: law -> why this method breaks it by design.
        golden: (options, fields, loss) worked out by hand. A bare number among the fields is a column of one row.
        limits: special cases that are other methods; only an objective has them.
        function: builds the method from its options.
    """

    key: str
    kind: str
    title: str
    source: str
    status: str
    formula: str
    needs: tuple[str, ...]
    options: Mapping[str, Any]
    citation: Citation
    coupling: str
    exceptions: Mapping[str, str]
    golden: tuple[Golden, ...]
    limits: tuple[Limit, ...]
    function: Callable[..., Any] = field(repr=False)

    @property
    def text(self) -> str:
        """What the function's docstring says before its sections."""
        return _sections(self.function)[0]

    @property
    def explanation(self) -> str:
        """The docstring's text behind its first line, without what is `inferred`."""
        paragraphs = self.text.split("\n\n")[1:]
        return "\n\n".join(part for part in paragraphs if not part.startswith("Reconstructed:"))

    @property
    def defaults(self) -> dict[str, str]:
        """Option -> its default as code, a function by its name; "required" where there is none."""
        return {
            name: value if value == REQUIRED else value.__name__ if callable(value) else repr(value)
            for name, value in self.options.items()
        }

    @property
    def meanings(self) -> dict[str, str]:
        """Option -> what the docstring's `Args` say of it, on one line; options it does not mention are absent."""
        found: dict[str, list[str]] = {}
        names: list[str] = []
        for heading, *lines in map(str.splitlines, _sections(self.function)[1:]):
            for line in lines if heading in ("Args:", "Attributes:") else ():
                entry = re.fullmatch(r" {4}([\w, ]+): (.*)", line)
                if entry:
                    names = entry[1].split(", ")
                    found |= {name: [entry[2]] for name in names}
                else:
                    for name in names:
                        found[name].append(line.strip())
        return {name: " ".join(words) for name, words in found.items()}

    @property
    def inferred(self) -> str:
        """What is inferred of a reconstructed method, as its docstring says after "Reconstructed:"; of others ""."""
        if self.status != "reconstructed":
            return ""
        paragraphs = [" ".join(part.split()) for part in self.text.split("\n\n")]
        said = next((part for part in paragraphs if part.startswith("Reconstructed:")), "")
        return said or "Reconstructed: a part of the definition is inferred; the text below says which."

    def build(self, **options: Any) -> Any:
        """What the method's function makes of `options`.

        Raises:
            ConfigError: an option is unknown, or its value does not fit.
        """
        for name in options:
            if name not in self.options:
                raise ConfigError(f"{self.key} has no option {name!r}{nearest(name, self.options)}")
        try:
            return self.function(**options)
        except TypeError as err:
            raise ConfigError(f"{self.key}: {err}; its options are {dict(self.options)}") from err


_REGISTRY: dict[tuple[str, str], Card] = {}  # by kind and key: a loss and the model fitted with it share a name


def method(
    key: str,
    *,
    source: str,
    formula: str,
    citation: Citation,
    kind: str = "objective",
    status: str = "verified",
    needs: Iterable[str] = (),
    coupling: str = "none",
    exceptions: Mapping[str, str] = MappingProxyType({}),
    golden: Iterable[Golden] = (),
    limits: Iterable[Limit] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that writes the function's card and registers it; the function itself stays as it is.

    Raises:
        ConfigError: the kind has the key already, or a slot of the card holds something unknown.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        slots = (("kind", kind, KINDS), ("status", status, STATUSES), ("coupling", coupling, COUPLINGS))
        for slot, value, known in slots:
            if value not in known:
                raise ConfigError(f"the card of {key!r} has {slot} {value!r}{nearest(value, known)}")
        for law in exceptions:
            if law not in LAWS:
                raise ConfigError(f"the card of {key!r} excepts itself from {law!r}{nearest(law, LAWS)}")
        special = tuple(limits)
        if special and kind != "objective":
            raise ConfigError(
                f"the card of {key!r} names limits; only an objective has a loss to compare, not a {kind}"
            )
        held = _REGISTRY.get((kind, key))
        if held is not None and held.function.__module__ != function.__module__:
            modules = f"{held.function.__module__} and {function.__module__}"
            raise ConfigError(f"two methods of kind {kind} are called {key!r}: {modules}")
        if not function.__doc__:
            raise ConfigError(f"the function of {key!r} needs a docstring; its first line becomes the card's title")
        options = {
            name: REQUIRED if p.default is inspect.Parameter.empty else p.default
            for name, p in inspect.signature(function).parameters.items()
        }
        _REGISTRY[kind, key] = Card(
            key=key,
            kind=kind,
            title=function.__doc__.strip().splitlines()[0],
            source=source,
            status=status,
            formula=formula,
            needs=tuple(needs),
            options=MappingProxyType(options),
            citation=citation,
            coupling=coupling,
            exceptions=MappingProxyType(dict(exceptions)),
            golden=tuple(golden),
            limits=special,
            function=function,
        )
        return function

    return register


def get_method(key: str, kind: str | None = None) -> Card:
    """The card of `key`.

    Cards exist once the room that holds them is imported (`import unipref.objectives`).

    Args:
        kind: one of KINDS; None: where several kinds have the key, the first of them in the order of KINDS.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    found = [_REGISTRY[each, key] for each in KINDS if kind in (None, each) and (each, key) in _REGISTRY]
    if not found:
        known = [card.key for card in list_methods(kind)]
        named, lists = ("method", "") if kind is None else (f"method of kind {kind}", f" --kind {kind}")
        raise ConfigError(f"no {named} named {key!r}{nearest(str(key), known)}; `unipref methods{lists}` lists all")
    return found[0]


def list_methods(kind: str | None = None) -> list[Card]:
    """All cards, or those of one kind, in the order of their keys and then of KINDS."""
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"no kind of method is called {kind!r}{nearest(kind, KINDS)}")
    cards = sorted(_REGISTRY.values(), key=lambda card: (card.key, KINDS.index(card.kind)))
    return [card for card in cards if kind in (None, card.kind)]


def bibtex(sources: Iterable[Card | Citation]) -> str:
    """BibTeX of citations, or of cards' sources, each once, in the order of their keys."""
    citations = [source.citation if isinstance(source, Card) else source for source in sources]
    entries = {citation.key: citation for citation in citations}
    return "\n".join(entries[key].bibtex() for key in sorted(entries))
