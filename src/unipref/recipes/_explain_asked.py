"""What `unipref explain` can be asked, as a user says it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unipref.core.errors import ConfigError

__all__ = ["Asked", "JudgeAsked", "NamedFile", "named_file", "stem"]


@dataclass(frozen=True)
class NamedFile:
    """A data source, and the domain and mechanism that a user says it is of."""

    path: str
    domain: str | None = None
    mechanism: str | None = None


@dataclass(frozen=True)
class JudgeAsked:
    """Who judges concepts, and how.

    Attributes:
        url, model: of an endpoint that speaks as OpenAI's does. key_from: the environment variable with its key.
        budget, budget_tokens: the most requests, and the most tokens of questions and answers; what is left unasked is
            missing, and counted.
        table: a file of judgements instead.
        representation: "comp" (which of the two has more) or "score" (each by itself).
        discover: batches per domain in which the judge names concepts of its own; 0: none.
        tried: held-out prompts that the model answers with and without the leading concepts named.
        ties: held-out pairs that a judge could not decide, of which the model is asked again with hints.
        judged_as: the mechanism whose verdicts the model gave; None: the one of its name, or the only one beside the
            main one.
    """

    url: str | None = None
    model: str | None = None
    key_from: str | None = None
    budget: int | None = None
    budget_tokens: int | None = None
    table: str | None = None
    representation: str = "comp"
    discover: int = 0
    tried: int = 0
    ties: int = 0
    judged_as: str | None = None


@dataclass(frozen=True)
class Asked:
    """What is explained.

    Attributes:
        files: data sources. runs: folders of `align`, or FOLDER/RUN, whose implicit rewards are mechanisms.
        scorers: key -> options of scorers that are mechanisms.
        domain, mechanism: columns that name a row's domain and its mechanism; None: "domain", and the annotator.
        evidence: the column in which a judge said why; None: the texts that the data call a rationale.
        concepts: files of concept values, files of concept definitions (.yaml), and names of published sets, each
            perhaps as NAME=…, which puts NAME before its keys. surface: take the surface features as concepts.
        judge: who scores concepts that cannot be counted.
        main: see `explain`. show: held-out pairs to be read one by one.
        limit: at most so many records of each source.
    """

    files: tuple[NamedFile, ...] = ()
    runs: tuple[str, ...] = ()
    scorers: Mapping[str, Mapping[str, Any]] | None = None
    format: str = "auto"
    strict: bool = False
    domain: str | None = None
    mechanism: str | None = None
    evidence: str | None = None
    concepts: tuple[str, ...] = ()
    surface: bool = True
    judge: JudgeAsked | None = None
    main: str | None = None
    show: int = 200
    limit: int | None = None


def named_file(text: str) -> NamedFile:
    """FILE, DOMAIN=FILE, MECHANISM/=FILE or MECHANISM/DOMAIN=FILE.

    Example:
        >>> named_file("judge/law=law.jsonl")
        NamedFile(path='law.jsonl', domain='law', mechanism='judge')
    """
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return NamedFile(text)
    mechanism, slash, domain = name.partition("/")
    if not slash:
        mechanism, domain = "", name
    if not path or not (mechanism or domain) or "/" in domain:
        raise ConfigError(
            f"{text!r}: expected FILE, DOMAIN=FILE, MECHANISM/=FILE or MECHANISM/DOMAIN=FILE, such as law=law.jsonl"
        )
    return NamedFile(path, domain or None, mechanism or None)


def stem(path: str) -> str:
    return Path(path.removeprefix("bundled:").removesuffix(".gz")).stem
