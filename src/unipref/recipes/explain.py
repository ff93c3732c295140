"""The job of `unipref explain`: data, runs and scorers to pairs, concepts to values, an explanation to a folder."""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import unipref
from unipref.core.errors import ConfigError, DataError, nearest
from unipref.core.io import write_json
from unipref.core.records import Record
from unipref.data import DataReport, as_pairs, is_heldout, read_records
from unipref.data.sources import open_source
from unipref.explain.applications import guided_live
from unipref.explain.discovery import discover
from unipref.explain.explanation import explain, main_mechanism
from unipref.data.pairs import UNNAMED, Pairs
from unipref.explain.study import Settings
from unipref.explain.tables import read_concept_table
from unipref.features.concept_sets import concept_set
from unipref.features.concepts import PairValues, surface_values
from unipref.features.judging import AnswerCache, Budget, Endpoint, Judge, LanguageJudge, TableJudge, judged_values
from unipref.features.rules import rule_values
from unipref.recipes.config import load_recipe
from unipref.report import EXPLANATION, write_report
from unipref.rewards import make_scorer

__all__ = ["Asked", "JudgeAsked", "NamedFile", "explain_files", "named_file"]

ANSWERS = "answers.jsonl"  # of a judge; what is there is not asked again
TABLES = (".csv", ".jsonl", ".ndjson", ".json", ".parquet")
DERIVED = ("model:", "scorer:")  # how the names of mechanisms begin that the data do not hold
ORDER_SALT = "unipref-explain-order-1"
MOST_JUDGES = 12  # names in the column `annotator`, more are people of one mechanism


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
        budget: the most requests; what is left unasked is missing, and counted.
        table: a file of judgements instead.
        representation: "comp" (which of the two has more) or "score" (each by itself).
        discover: batches per domain in which the judge names concepts of its own; 0: none.
        tried: held-out prompts that the model answers with and without the leading concepts named.
    """

    url: str | None = None
    model: str | None = None
    key_from: str | None = None
    budget: int | None = None
    table: str | None = None
    representation: str = "comp"
    discover: int = 0
    tried: int = 0


@dataclass(frozen=True)
class Asked:
    """What is explained.

    Attributes:
        files: data sources. runs: folders of `align`, or FOLDER/RUN, whose implicit rewards are mechanisms.
        scorers: key -> options of scorers that are mechanisms.
        domain, mechanism: columns that name a row's domain and its mechanism; None: "domain", and the annotator.
        concepts: files of concept values, files of concept definitions (.yaml), and names of published sets. surface:
            take the surface features as concepts.
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


def explain_files(
    asked: Asked,
    *,
    settings: Settings | None = None,
    name: str | None = None,
    output: Path | None = None,
    command: str = "",
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Explain what `asked` names; the folder with `explanation.json`, `data.json` and `report.html`.

    Args:
        name: of the explanation; None: made of the sources' names.
        output: the folder; None: runs/explain-NAME.
        tell: is told what is being worked on.

    Raises:
        ConfigError: there is nothing to explain, a name is of nothing, or the folder holds something else.
        DataError: a source cannot be read, or has too little in it.
    """
    tell = tell or (lambda _: None)
    name = name or _name(asked)
    folder = Path("runs") / f"explain-{name}" if output is None else Path(output)
    ours = any((folder / kept).exists() for kept in (EXPLANATION, ANSWERS))
    if folder.exists() and any(folder.iterdir()) and not ours:
        raise ConfigError(f"{folder} is not empty and not an explanation; choose another with --output")
    pairs, data, notes = _gathered(asked, tell)
    pairs = _with_scorers(pairs, asked.scorers or {}, notes, tell)
    judge = (
        None if asked.judge is None else _judge(asked.judge, folder)
    )  # one, so that its budget is of all it is asked
    values, accounts, judged = _values(asked, judge, pairs, settings or Settings(), notes, tell)
    pairs, values = _without_order(pairs, values)
    found = explain(pairs, values, settings=settings, main=asked.main, show=asked.show, tell=tell)
    if judge is not None and asked.judge is not None and asked.judge.tried:
        tell(f"{judge.name} answers {asked.judge.tried} prompts with and without named concepts")
        main = found.told["main"]
        tried = guided_live(found.studies[main], judge, n=asked.judge.tried)
        found.told["applications"]["guidance_live"] = {"mechanism": main, **tried}
        judged["all_questions"] = judge.account.to_dict()
    told = {
        "name": name,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": unipref.__version__,
        "command": command,
        "data": data,
        "tables": [{key: value for key, value in one.items() if key != "notes"} for one in accounts],
        "judge": judged,
        **found.told,
    }
    told["notes"] = [*notes, *found.told["notes"]]
    write_json(folder / "data.json", {"sources": data})
    write_json(folder / EXPLANATION, told)
    write_report(folder)
    return folder


def _name(asked: Asked) -> str:
    stems = [file.domain or file.mechanism or _stem(file.path) for file in asked.files]
    stems += [Path(run).name for run in asked.runs]
    if not stems:
        raise ConfigError("there is nothing to explain; give a data file, or --run with a folder of `unipref align`")
    words = "-and-".join(dict.fromkeys(stems[:3])) + ("-and-more" if len(stems) > 3 else "")
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in words).lower()


def _stem(path: str) -> str:
    return Path(path.removeprefix("bundled:").removesuffix(".gz")).stem


# ---- pairs ----


def _gathered(asked: Asked, tell: Callable[[str], None]) -> tuple[Pairs, list[dict[str, Any]], list[str]]:
    """The pairs of all sources, the account of each, and what a reader should know."""
    parts, data, notes = [], [], []
    by_file = len(asked.files) > 1
    with_column = 0
    for file in asked.files:
        tell(f"reading {file.path}")
        records, report = _records(file.path, asked)
        named = sum(record.domain is not None for record in records)
        with_column += named > 0
        if file.domain is not None:
            records = [replace(record, domain=file.domain) for record in records]
        elif not named and asked.domain is not None:
            raise ConfigError(_no_column(file.path, asked.domain, "--domain"))
        elif not named and by_file and file.mechanism is None:
            records = [replace(record, domain=_stem(file.path)) for record in records]
        elif 0 < named < len(records):
            notes.append(f"{file.path}: {len(records) - named:,} rows name no domain; they are the domain {UNNAMED!r}.")
        pairs, told = _judged(records, file, asked)
        notes += told
        parts.append(pairs)
        data.append(_account(file.path, report))
        # a column that is not used is no news here; it stands in data.json
        notes += [note for note in report.notes if note not in notes and "columns not used" not in note]
        if report.set_aside:
            reasons = "; ".join(f"{count:,} x {reason}" for reason, count in report.counts.items())
            notes.append(f"{file.path}: {len(report.set_aside):,} of {report.n_read:,} rows are set aside: {reasons}.")
    for run in asked.runs:
        tell(f"reading {run}")
        pairs, account, told = _of_run(run)
        parts.append(pairs)
        data.append(account)
        notes += told
    pairs = Pairs.joined(parts)
    if asked.domain is not None and asked.files and not with_column:
        raise ConfigError(_no_column(asked.files[0].path, asked.domain, "--domain"))
    return pairs, data, notes


def _records(path: str, asked: Asked) -> tuple[list[Record], DataReport]:
    records, report = read_records(
        path,
        format=asked.format,
        strict=asked.strict,
        limit=asked.limit,
        domain_field=asked.domain or "domain",
        user_field=asked.mechanism or "user",
    )
    if all(record.comparisons for record in records):
        return records, report
    records, paired = as_pairs(records)
    return records, report.then(paired)


def _no_column(path: str, column: str, flag: str) -> str:
    names = {name for _, row in open_source(path).rows if isinstance(row, Mapping) for name in row}
    return (
        f"{flag} {column}: no row of {path} has a value in such a column{nearest(column, names)}; name another, or "
        "the file's own as NAME=FILE"
    )


def _judged(records: Sequence[Record], file: NamedFile, asked: Asked) -> tuple[Pairs, list[str]]:
    """The pairs of `records` by whoever judged them."""
    if file.mechanism is not None:
        return Pairs.of(records, mechanism=file.mechanism), []
    if asked.mechanism is not None:
        if not any(record.user for record in records):
            raise ConfigError(_no_column(file.path, asked.mechanism, "--mechanism"))
        records = [
            replace(
                record,
                comparisons=tuple(replace(one, annotator=record.user or UNNAMED) for one in record.comparisons),
            )
            for record in records
        ]
    pairs = Pairs.of(records)
    names = set(pairs.mechanism.tolist())
    if len(names) > MOST_JUDGES and asked.mechanism is None:
        note = (
            f"{file.path}: {len(names):,} annotators are taken as one mechanism; name the column of a few groups or "
            "judges with --mechanism to tell them apart."
        )
        return replace(pairs, mechanism=np.full(len(pairs), UNNAMED, dtype=object)), [note]
    return pairs, []


def _of_run(name: str) -> tuple[Pairs, dict[str, Any], list[str]]:
    """Held-out pairs of an `align` run as the data judge them and as each aligned model's implicit reward does.

    The implicit reward of a response is log p / p_ref; the model prefers the response with the larger one, whatever its
    method's beta is.
    """
    folder, only = _run_folder(name)
    recipe = load_recipe(folder / "recipe.yaml", validate_files=False)
    collected = folder / "shared" / "collected-heldout.jsonl"
    source = str(collected) if collected.is_file() else recipe.data.eval or recipe.data.train
    records, report = read_records(source, format="auto" if collected.is_file() else recipe.data.format)
    by_id = {record.id: record for record in records if record.comparisons}
    paths = [*sorted(folder.glob("*/evaluation.json")), *sorted(folder.glob("*/seed-*/evaluation.json"))]
    evaluations = {path.parent.relative_to(folder).parts[0]: path for path in reversed(paths)}  # of the first seed
    if only is not None:
        if only not in evaluations:
            raise ConfigError(f"{folder} has no evaluated run {only!r}{nearest(only, evaluations)}")
        evaluations = {only: evaluations[only]}
    if not evaluations:
        raise ConfigError(f"{folder} holds no evaluation.json; finish the run with `unipref align … --resume`")
    parts: list[Pairs] = []
    notes = [
        f"{folder}: an aligned model prefers the response of the larger implicit reward, log p - log p_ref; its size "
        "is not used, as it depends on each method's beta."
    ]
    for run, path in sorted(evaluations.items()):
        rows = json.loads(path.read_text(encoding="utf-8"))["pairs"]
        judged, lost = [], Counter[str]()
        for row in rows:
            record, margin = by_id.get(row["id"]), _margin(row)
            if record is None or len(record.comparisons) != 1:
                lost["the data have no such pair any more" if record is None else "the record has several pairs"] += 1
            elif margin is None:
                lost["no log-probability"] += 1
            else:
                judged.append((record, margin))
        if not judged:
            told = "; ".join(f"{n} x {why}" for why, n in lost.items()) or "it has none"
            raise DataError(f"{path}: no held-out pair can be taken from it ({told}); the texts are read from {source}")
        notes += [f"{path}: {n:,} pairs are left out: {why}." for why, n in lost.items()]
        model = Pairs.of([record for record, _ in judged], mechanism=f"model:{run}")
        if not parts:
            parts.append(replace(model, mechanism=np.full(len(model), UNNAMED, dtype=object)))
        wins = 0.5 * (1 + np.sign([margin for _, margin in judged]))  # of the chosen one
        chosen_first = np.array([record.comparisons[0].winner < record.comparisons[0].loser for record, _ in judged])
        parts.append(replace(model, p=np.where(chosen_first, wins, 1 - wins)))
    account = _account(str(source), report) | {"run": str(folder)}
    return Pairs.joined(parts), account, notes


def _account(source: str, report: DataReport) -> dict[str, Any]:
    facts = next(iter(report.sources.values()), {})
    return {"source": source, "rows": report.n_read, "sha256": facts.get("sha256"), "report": report.to_dict()}


def _run_folder(name: str) -> tuple[Path, str | None]:
    for folder in (Path(name), Path("runs") / name):
        if (folder / "recipe.yaml").is_file():
            return folder, None
        if (folder.parent / "recipe.yaml").is_file():
            return folder.parent, folder.name
    raise ConfigError(
        f"--run {name}: there is no folder of `unipref align` there, nor in runs/; give FOLDER or FOLDER/RUN"
    )


def _margin(row: Mapping[str, Any]) -> float | None:
    values = [row.get(key) for key in ("logp_chosen", "ref_logp_chosen", "logp_rejected", "ref_logp_rejected")]
    if any(value is None for value in values):
        return None
    return (values[0] - values[1]) - (values[2] - values[3])


def _with_scorers(
    pairs: Pairs, scorers: Mapping[str, Mapping[str, Any]], notes: list[str], tell: Callable[[str], None]
) -> Pairs:
    """`pairs`, and those of each scorer, which prefers the response that it scores higher."""
    if not scorers:
        return pairs
    seen: dict[tuple[str, frozenset[str]], int] = {}
    for i, key in enumerate(zip(pairs.prompt.tolist(), pairs.first.tolist(), pairs.second.tolist(), strict=True)):
        seen.setdefault((key[0], frozenset(key[1:])), i)
    once = pairs.take(sorted(seen.values()))
    parts = [pairs]
    for key, options in scorers.items():
        tell(f"scoring by {key}")
        scorer = make_scorer({"scorer": key, "options": dict(options)})
        prompts = once.prompt.tolist()
        first, second = (np.asarray(scorer.score(prompts, side.tolist())) for side in (once.first, once.second))
        known = ~(np.isnan(first) | np.isnan(second))
        if not known.any():
            raise DataError(f"the scorer {key!r} has no score of both responses of any pair")
        if not known.all():
            notes.append(f"scorer:{key}: {int((~known).sum()):,} pairs without a score of both responses are left out.")
        own = once.take(known)
        p = 0.5 * (1 + np.sign(first[known] - second[known]))
        parts.append(replace(own, p=p, mechanism=np.full(len(own), f"scorer:{key}", dtype=object)))
    return Pairs.joined(parts)


def _without_order(pairs: Pairs, values: Sequence[PairValues]) -> tuple[Pairs, list[PairValues]]:
    """The same pairs; those of models and scorers, which see no order, in one that is drawn by lot.

    In files of chosen and rejected responses the first is the one that people took. Kept in that order, "the first
    wins" would be a baseline of a model that agrees with people, and know what no baseline may.
    """
    derived = np.array([name.startswith(DERIVED) for name in pairs.mechanism.tolist()])
    lot = np.array([is_heldout(id_, share=0.5, salt=ORDER_SALT) for id_ in pairs.ids.tolist()])
    rows = derived & lot
    if not rows.any():
        return pairs, list(values)
    turned = rows[:, None]
    swapped = []
    for table in values:
        sides = (table.first, table.second)
        if table.first is not None and table.second is not None:
            sides = (np.where(turned, table.second, table.first), np.where(turned, table.first, table.second))
        swapped.append(PairValues(table.concepts, np.where(turned, -table.difference, table.difference), *sides))
    return pairs.swapped(rows), swapped


# ---- concepts ----


def _values(
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
    for given in asked.concepts:
        if given.removesuffix(".gz").lower().endswith(TABLES):
            table, account = read_concept_table(given).of(pairs)
            values.append(table)
            accounts.append(account)
            notes += account["notes"]
            continue
        named = concept_set(given)
        concepts = named.concepts
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
            judged += found.concepts
            notes += found.notes
            account["discovery"] = found.account.to_dict()
        if not judged and not asked.judge.tried:
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
    if asked.surface or not values:
        tell(f"counting in the responses of {len(pairs):,} pairs")
        values.insert(0, surface_values(*columns))
    return values, accounts, account


def _judge(asked: JudgeAsked, folder: Path) -> Judge:
    if asked.table is not None:
        if asked.url is not None:
            raise ConfigError("concepts are judged by an endpoint or by a table of judgements; give one of the two")
        return TableJudge.from_csv(asked.table)
    if asked.url is None or asked.model is None:
        raise ConfigError("a judge needs --endpoint with an address and --judge-model with the model's name")
    endpoint = Endpoint(
        asked.url,
        asked.model,
        key_from=asked.key_from,
        cache=AnswerCache(folder / ANSWERS),
        budget=Budget(requests=asked.budget),
    )
    return LanguageJudge(endpoint)


def _main_pairs(pairs: Pairs, main: str | None) -> Pairs:
    """The pairs of one mechanism, for concepts to be found in."""
    return pairs.take(pairs.mechanism == (main or main_mechanism(pairs)))
