"""The concepts that are weighed, and who judges them."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from unipref.core.errors import ConfigError
from unipref.data.pairs import Pairs
from unipref.explain.discovery import discover
from unipref.explain.explanation import main_mechanism
from unipref.explain.study import Settings
from unipref.explain.tables import read_concept_table
from unipref.features.concept_sets import concept_set
from unipref.features.concepts import Concept, PairValues, surface_values
from unipref.features.judging import AnswerCache, Budget, Endpoint, Judge, LanguageJudge, TableJudge, judged_values
from unipref.features.rules import rule_values
from unipref.recipes._explain_asked import Asked, JudgeAsked

__all__ = ["ANSWERS", "concept_values", "judge_of", "renamed"]

ANSWERS = "answers.jsonl"  # of a judge; what is there is not asked again
TABLES = (".csv", ".jsonl", ".ndjson", ".json", ".parquet")


def renamed(given: str) -> tuple[str, str]:
    """What is put before the keys of a source of concepts, and the source.

    Example:
        >>> renamed("mine=table.csv")
        ('mine', 'table.csv')
    """
    name, equals, source = given.partition("=")
    if not equals or Path(given).exists():
        return "", given
    if not name or not source:
        raise ConfigError(f"--concepts {given!r}: expected TABLE, YAML, SET or NAME=one of these")
    return name, source


def _prefixed(prefix: str, concept: Concept) -> Concept:
    if not prefix:
        return concept
    rule = concept.rule or (concept.key if concept.kind == "rule" else "")  # a rule may be named by its key alone
    return replace(concept, key=f"{prefix}:{concept.key}", name=f"{concept.name} ({prefix})", rule=rule)


def _distinct(origins: dict[str, str], concepts: Iterable[Concept], source: str, *, given: bool = True) -> None:
    """Note where concepts come from.

    Args:
        given: whether the source is one that a user names, and can rename.

    Raises:
        ConfigError: a key stands in two sources.
    """
    for concept in concepts:
        if (before := origins.get(concept.key)) is not None:
            raise ConfigError(
                f"two concepts have the key {concept.key!r}: one of {before}, one of {source}. Give a source a name, "
                f"which is put before its keys, such as --concepts more={renamed(source if given else before)[1]}"
            )
        origins[concept.key] = source


def concept_values(
    asked: Asked,
    judge: Judge | None,
    pairs: Pairs,
    settings: Settings,
    notes: list[str],
    tell: Callable[[str], None],
) -> tuple[list[PairValues], list[dict[str, Any]], dict[str, Any]]:
    """Values of all concepts but the n-grams, the accounts of tables, and what the judge was asked and said."""
    columns = (pairs.prompt.tolist(), pairs.first.tolist(), pairs.second.tolist())
    values, accounts, left, judged = [], [], [], []
    scales: set[tuple[int, int]] = set()
    origins: dict[str, str] = {}
    if asked.surface:
        tell(f"counting in the responses of {len(pairs):,} pairs")
        values.append(surface_values(*columns))
        _distinct(origins, values[0].concepts, "what is counted in all texts", given=False)
    for given in asked.concepts:
        prefix, source = renamed(given)
        if source.removesuffix(".gz").lower().endswith(TABLES):
            table, account = read_concept_table(source).of(pairs)
            table = replace(table, concepts=tuple(_prefixed(prefix, concept) for concept in table.concepts))
            _distinct(origins, table.concepts, given)
            values.append(table)
            accounts.append(account)
            notes += account["notes"]
            continue
        named = concept_set(source)
        concepts = tuple(_prefixed(prefix, concept) for concept in named.concepts)
        _distinct(origins, concepts, given)
        counted = [concept for concept in concepts if concept.kind == "rule"]
        others = [concept for concept in concepts if concept.kind != "rule"]
        if counted:
            tell(f"counting for {len(counted)} concepts of {given}")
            values.append(rule_values(counted, *columns))
        if others and judge is None:
            if not counted:
                raise ConfigError(
                    f"--concepts {given}: its {len(others)} concepts are for a judge to score; give --endpoint and "
                    "--judge-model, or --judgements with a table of what was judged"
                )
            left += others
        judged += others
        scales |= {named.scale} if others and named.scale else set()
    if left:
        notes.append(
            f"{len(left)} concepts that a judge would score are left out, as there is none (--endpoint): "
            f"{', '.join(concept.name for concept in left)}."
        )
    account: dict[str, Any] = {}
    if judge is not None:
        assert asked.judge is not None
        if asked.judge.discover:
            tell(f"{judge.name} names concepts")
            found = discover(
                _main_pairs(pairs, asked.main),
                judge,
                n_batches=asked.judge.discover,
                settings=settings,
                progress=lambda done, total: tell(f"{judge.name} names concepts: {done:,} of {total:,} in this step"),
            )
            _distinct(origins, found.concepts, f"what {judge.name} named (--discover)", given=False)
            judged += found.concepts
            notes += found.notes
            account["discovery"] = found.account.to_dict()
        if not judged and not asked.judge.tried and not asked.judge.ties:
            raise ConfigError(
                "a judge has nothing to score; name concepts with --concepts, or have it find some: --discover"
            )
    if judge is not None and judged:
        assert asked.judge is not None
        tell(f"{judge.name} judges {len(judged)} concepts of {len(pairs):,} pairs")
        how = asked.judge.representation
        if len(scales) > 1 and how == "score":
            raise ConfigError("the sets of concepts are scored on different scales; give them in separate calls")
        if scales and isinstance(judge, LanguageJudge):
            judge = replace(judge, scale=scales.pop())

        def progress(done: int, total: int) -> None:
            tell(f"{judge.name} judges {len(judged)} concepts: {done:,} of {total:,} pairs")

        answers = judged_values(
            *columns, judged, judge, representation=how, domains=pairs.domain.tolist(), progress=progress
        )
        values.append(answers.values)
        account |= {"name": judge.name, "representation": how, **answers.told}
        if answers.missing:
            share = answers.missing / answers.values.difference.size
            notes.append(
                f"{judge.name} gave no answer for {answers.missing:,} of {answers.values.difference.size:,} values "
                f"({share:.0%}); each counts as no difference. The same command asks again for what had no answer; an "
                "unreadable one is kept as it is."
            )
    if not values:
        tell(f"counting in the responses of {len(pairs):,} pairs")
        values.append(surface_values(*columns))
    return values, accounts, account


def judge_of(asked: JudgeAsked, folder: Path) -> Judge:
    if asked.table is not None:
        if asked.url is not None:
            raise ConfigError("concepts are judged by an endpoint or by a table of judgements; give one of the two")
        if asked.tried or asked.ties:
            raise ConfigError("a table of judgements answers nothing new; --try and --break-ties need an endpoint")
        return TableJudge.from_csv(asked.table)
    if asked.url is None or asked.model is None:
        raise ConfigError("a judge needs --endpoint with an address and --judge-model with the model's name")
    endpoint = Endpoint(
        asked.url,
        asked.model,
        key_from=asked.key_from,
        cache=AnswerCache(folder / ANSWERS),
        budget=Budget(requests=asked.budget, tokens=asked.budget_tokens),
    )
    return LanguageJudge(endpoint)


def _main_pairs(pairs: Pairs, main: str | None) -> Pairs:
    """The pairs of one mechanism, for concepts to be found in."""
    return pairs.take(pairs.mechanism == (main or main_mechanism(pairs)))
