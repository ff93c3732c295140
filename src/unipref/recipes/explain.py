"""The job of `unipref explain`: data, runs and scorers to pairs, concepts to values, an explanation to a folder."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import unipref
import unipref.explain.catalogue
import unipref.features.concept_cards
from unipref.core.cards import UNIPREF, bibtex, get_method
from unipref.core.errors import ConfigError, nearest
from unipref.core.io import write_json, write_text
from unipref.data.pairs import Pairs
from unipref.explain.applications import guided_live, tie_break_live
from unipref.explain.explanation import Explanation, explain, main_mechanism
from unipref.explain.study import Settings
from unipref.features.concept_sets import concept_set_names
from unipref.features.concepts import PairValues
from unipref.features.judging import Judge
from unipref.recipes._explain_asked import Asked, JudgeAsked, NamedFile, named_file, stem
from unipref.recipes._explain_concepts import ANSWERS, concept_values, judge_of, renamed
from unipref.recipes._explain_pairs import gathered, with_scorers, without_order
from unipref.report import EXPLANATION, write_report

__all__ = ["Asked", "JudgeAsked", "NamedFile", "explain_files", "named_file"]


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
    settings = settings or Settings()
    name = name or _name(asked)
    folder = Path("runs") / f"explain-{name}" if output is None else Path(output)
    ours = any((folder / kept).exists() for kept in (EXPLANATION, ANSWERS))
    if folder.exists() and any(folder.iterdir()) and not ours:
        raise ConfigError(f"{folder} is not empty and not an explanation; choose another with --output")
    pairs, evidence, data, notes = gathered(asked, tell)
    pairs = with_scorers(pairs, asked.scorers or {}, notes, tell)
    # one judge, so that its budget is of all it is asked
    judge = None if asked.judge is None else judge_of(asked.judge, folder)
    broken = _tie_breaker(asked, pairs)  # before anything is paid for
    values, accounts, judged = concept_values(asked, judge, pairs, settings, notes, tell)
    pairs, values = without_order(pairs, values)
    found = explain(pairs, values, settings=settings, main=asked.main, show=asked.show, evidence=evidence, tell=tell)
    if judge is not None and asked.judge is not None and (asked.judge.tried or asked.judge.ties):
        found.told["applications"] |= _live_tests(asked.judge, judge, found, broken, tell)
        judged["all_questions"] = judge.account.to_dict()
    told = {
        "name": name,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": unipref.__version__,
        "command": command,
        "data": data,
        "tables": [{key: value for key, value in one.items() if key != "notes"} for one in accounts],
        "judge": judged,
        "rests_on": _rests_on(asked, settings, values),
        **found.told,
    }
    told["notes"] = [*notes, *found.told["notes"]]
    write_json(folder / "data.json", {"sources": data})
    cards = [get_method(key, kind) for kind, keys in told["rests_on"].items() for key in keys]
    write_text(folder / "citations.bib", bibtex([UNIPREF, *cards]))
    write_json(folder / EXPLANATION, told)
    write_report(folder)
    return folder


def _rests_on(asked: Asked, settings: Settings, values: Sequence[PairValues]) -> dict[str, list[str]]:
    """Kind -> keys of the cards of what an explanation used."""
    methods = ["hmdr", "tau_influence", "chi2_association"]
    methods += ["hmdr_discovery"] if asked.judge is not None and asked.judge.discover else []
    named = [renamed(given)[1] for given in asked.concepts]
    sets = [source for source in named if source in concept_set_names()]
    sources = {concept.source for table in values for concept in table.concepts}
    counted = ["surface-v1"] if "surface-v1" in sources else []
    words = ["ngrams"] if settings.n_grams else []
    return {"explanation": methods, "concepts": [*counted, *words, *sets], "scorer": list(asked.scorers or {})}


def _name(asked: Asked) -> str:
    stems = [file.domain or file.mechanism or stem(file.path) for file in asked.files]
    stems += [Path(run).name for run in asked.runs]
    if not stems:
        raise ConfigError("there is nothing to explain; give a data file, or --run with a folder of `unipref align`")
    words = "-and-".join(dict.fromkeys(stems[:3])) + ("-and-more" if len(stems) > 3 else "")
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in words).lower()


# ---- live tests ----


def _tie_breaker(asked: Asked, pairs: Pairs) -> str:
    """The mechanism whose ties the endpoint's model is asked to break; "" where that was not asked for.

    Raises:
        ConfigError: there is none, or it cannot be told which.
    """
    if asked.judge is None or not asked.judge.ties:
        return ""
    names = sorted(set(pairs.mechanism.tolist()) - {asked.main or main_mechanism(pairs)})
    given = asked.judge.judged_as
    if given is not None and given not in names:
        raise ConfigError(f"--judged-as {given}: no mechanism beside the main one has this name{nearest(given, names)}")
    if not names:
        raise ConfigError(
            "--break-ties asks a judge again about what it could not decide, and all verdicts are of one mechanism; "
            "give the judge's verdicts beside people's, such as people/=pairs.jsonl judge/=judged.jsonl"
        )
    alone = names[0] if len(names) == 1 else None
    found = given or next((name for name in names if name == asked.judge.model), alone)
    if found is None:
        raise ConfigError(
            f"--break-ties: which of {', '.join(names)} did {asked.judge.model} judge as? Name it with --judged-as"
        )
    return found


def _live_tests(
    asked: JudgeAsked, judge: Judge, found: Explanation, broken: str, tell: Callable[[str], None]
) -> dict[str, Any]:
    """What came of the tests for which the judge's model was asked."""
    told, main = {}, found.told["main"]
    if asked.tried:
        what = f"{judge.name} answers prompts with and without named concepts"
        tried = guided_live(found.studies[main], judge, n=asked.tried, progress=_counting(what, "prompts", tell))
        told["guidance_live"] = {"mechanism": main, **tried}
    if asked.ties:
        if broken in found.studies and broken != main:
            what = f"{judge.name} is asked again, with hints"
            one, reference = found.studies[broken], found.studies[main]
            again = tie_break_live(one, reference, judge, n=asked.ties, progress=_counting(what, "pairs", tell))
        else:
            again = {"why_not": f"{broken} has too few pairs to be explained"}
        told["tie_break_live"] = {"reference": main, "mechanisms": {broken: again}}
    return told


def _counting(what: str, unit: str, tell: Callable[[str], None]) -> Callable[[int, int], None]:
    return lambda done, total: tell(f"{what}: {done:,} of {total:,} {unit}")
