"""The jobs of `unipref reward`: train a preference model, ask it, measure it, teach it newcomers."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import unipref
from unipref.core.cards import UNIPREF, bibtex, get_method
from unipref.core.errors import ConfigError, DataError, UniprefError
from unipref.core.io import write_json, write_text
from unipref.core.records import Record
from unipref.data import DataReport, as_pairs, read_records
from unipref.data.pairs import UNNAMED, Pairs
from unipref.evaluate import HeldOutPairs, Judgement, evaluate_preferences
from unipref.recipes._run import prepare_folder, read_split
from unipref.recipes.reward_config import Choice, RewardRecipe
from unipref.report import EVALUATION, write_report
from unipref.rewards import (
    FeatureReport,
    PreferenceModel,
    PreferenceTable,
    TextPreferenceModel,
    leave_one_domain_out,
    make_features,
    make_model,
    preference_table,
)
from unipref.rewards.trained import FOLDER
from unipref.store import FeatureStore

__all__ = ["PLAINLY", "STORE", "Reading", "adapt_reward", "compared", "evaluate_reward", "judgement", "train_reward"]

Tell = Callable[[str], None]
BAG = "bag of words"  # a baseline's name
STORE = ".scores"  # beside run folders, as for all that was computed


@dataclass(frozen=True)
class Reading:
    """How a data file is read: its format, whether a faulty row stops, and the columns that name user and domain."""

    format: str = "auto"
    strict: bool = False
    user: str = "user"
    domain: str = "domain"

    def records(self, source: str) -> tuple[list[Record], DataReport]:
        """The records of `source`, and what happened to every row."""
        return read_records(
            source, format=self.format, strict=self.strict, user_field=self.user, domain_field=self.domain
        )


def compared(records: Sequence[Record], report: DataReport) -> tuple[list[Record], DataReport]:
    """`records` with comparisons between the responses of each; lists, ratings and thumbs become comparisons.

    Raises:
        DataError: no record gives a pair.
    """
    if all(record.comparisons for record in records):
        return list(records), report
    paired, later = as_pairs(records)
    return paired, report.then(later)


PLAINLY = Reading()


def _silent(_: str) -> None:
    """Tell nobody."""


# ---- train ----


def train_reward(recipe: RewardRecipe, *, output: Path | None = None, tell: Tell = _silent) -> Path:
    """Fit what `recipe` says and measure it on held-out conversations; the run folder.

    The folder holds `model/` (which scores, evaluates, adapts, and is the scorer `preference_model`), `recipe.yaml`,
    `data.json`, `evaluation.json`, `report.html` and `citations.bib`.

    Raises:
        ConfigError: the folder holds something else, or a model needs what the data lack.
        DataError: there is nothing to learn or to measure.
    """
    folder = Path(output) if output is not None else recipe.folder
    prepare_folder(folder, recipe, resume=False)
    train, heldout, report, told = read_split(recipe.data)
    if not train:
        raise DataError("no conversation is left to train on: the held-out data have them all; give other data")
    train, report = compared(train, report)
    heldout, _ = compared(heldout, DataReport())
    tell(report.describe())
    store = FeatureStore(folder.parent / STORE)
    features = make_features(recipe.spec, records=[*train, *heldout])
    of_train = Pairs.of(train)
    of_heldout, notes = _apart(of_train, Pairs.of(heldout))
    made, size = FeatureReport(), len(of_train)
    everything = preference_table(
        Pairs.joined([of_train, of_heldout]),
        features,
        store,
        records=[*train, *heldout],
        attributes=recipe.attributes,
        report=made,
    )
    table, held = everything.take(np.arange(size)), everything.take(np.arange(size, len(everything)))
    for line in made.lines():
        tell(line)
    tell(f"{len(table):,} comparisons to train on, {len(held):,} held out; {table.width} numbers per response")
    choices = {recipe.label: Choice(method=recipe.method, options=recipe.options), **recipe.beside}
    fitted, unfit = _fitted(choices, recipe.label, table, tell)
    model = fitted[recipe.label][0]
    model.about |= {
        "data": {"sources": list(recipe.data.train), "comparisons": len(table)},
        "version": unipref.__version__,
    }
    TextPreferenceModel(model, features, store).save(folder / FOLDER)
    judged: dict[str, Judgement] = {}
    for name, (each, seconds) in fitted.items():
        tell(f"measuring {name}")
        judged[name] = judgement(each, held, seconds)
        if recipe.left_out_domains:
            judged[name] = replace(judged[name], left_out=_left_out(choices[name], everything, size))
    told |= {"features": made.to_dict(), "split": _split(of_train, of_heldout)}
    write_json(folder / "data.json", told)
    write_text(folder / "citations.bib", bibtex([UNIPREF, *(get_method(choices[n].method, "reward") for n in fitted)]))
    about = _about(recipe.name, told, [*notes, *unfit, *(f"{recipe.label}: {note}" for note in model.notes_)])
    about["fit"] = {name: each.told_ for name, (each, _) in fitted.items()}
    _write_evaluation(folder, of_heldout, judged, {BAG: _bag(of_train, of_heldout)}, recipe.label, about)
    return folder


def _fitted(
    choices: Mapping[str, Choice], main: str, table: PreferenceTable, tell: Tell
) -> tuple[dict[str, tuple[PreferenceModel, float]], list[str]]:
    """The fitted models with the seconds that each took, and why others are not among them.

    Raises:
        UniprefError: the model `main` cannot be fitted.
    """
    fitted: dict[str, tuple[PreferenceModel, float]] = {}
    notes = []
    for name, choice in choices.items():
        tell(f"fitting {name}")
        began = time.perf_counter()
        try:
            model = make_model(choice.method, **choice.options).fit(table)
        except UniprefError as err:
            if name == main:
                raise
            notes.append(f"{name} is not beside {main}: {err}")
            continue
        fitted[name] = (model, time.perf_counter() - began)
    return fitted, notes


def _apart(train: Pairs, heldout: Pairs) -> tuple[Pairs, list[str]]:
    """Held-out pairs without those that training compares too, whatever the prompt; and what is to be told of it."""
    seen = {frozenset(pair) for pair in zip(train.first.tolist(), train.second.tolist(), strict=True)}
    again = np.array([frozenset(pair) in seen for pair in zip(heldout.first, heldout.second, strict=True)], dtype=bool)
    notes = []
    if again.any():
        notes.append(
            f"{int(again.sum())} of {len(heldout)} held-out pairs compare two texts that training compares too; "
            "they are left out of the evaluation"
        )
        if again.all():
            raise DataError("every held-out pair stands in the training data too; give other held-out data")
    return heldout.take(~again), notes


def judgement(model: PreferenceModel, held: PreferenceTable, seconds: float | None = None) -> Judgement:
    """What `model` says of held-out comparisons, asked in both orders."""
    return Judgement(
        model.decision_function(held),
        swapped=model.decision_function(held.swapped()),
        fallback=_fallback(model, held),
        seconds=seconds,
    )


def _fallback(model: PreferenceModel, table: PreferenceTable) -> np.ndarray:
    """(N,) what the model does not know of a comparison; "" where it knows all that it reads."""
    told = np.full(len(table), "", dtype=object)
    for what, known in (("domain", model.domains_), ("user", model.users_)):
        if what in model.needs:
            unknown = ~np.isin(getattr(table, what).astype(str), known)
            told[unknown] = f"unseen {what}"
    return told


def _left_out(choice: Choice, everything: PreferenceTable, size: int) -> np.ndarray:
    """(N,) logits of held-out comparisons by models that were fitted without their domain; NaN where they have none.

    Args:
        size: comparisons of `everything` that are trained on; those behind them are held out.
    """
    seen = np.arange(len(everything)) < size
    logits = np.full(len(everything), np.nan)
    for domain, found in leave_one_domain_out(choice.method, choice.options, everything, seen=seen).items():
        logits[everything.domain == domain] = found
    return logits[~seen]


def _bag(train: Pairs, heldout: Pairs) -> np.ndarray:
    """(N,) margins of a weighted sum of hashed word counts: what words alone are worth."""
    features = make_features("bag_of_words")
    model = make_model("bt").fit(preference_table(train, features))
    return model.decision_function(preference_table(heldout, features))


def _split(train: Pairs, heldout: Pairs) -> dict[str, Any]:
    return {
        "train": len(train),
        "heldout": len(heldout),
        "conversations_heldout": len(set(heldout.group.tolist())),
        "by": "conversation (hash of the first user turn)",
    }


def _about(name: str, data: Mapping[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    return {
        "name": name,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": unipref.__version__,
        "split": data.get("split"),
        "notes": list(notes),
    }


def _write_evaluation(
    folder: Path,
    pairs: Pairs,
    judged: Mapping[str, Judgement],
    rules: Mapping[str, np.ndarray],
    main: str,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    others = [name for name in judged if name != main]
    baseline = None if not others else "bt" if "bt" in judged else others[0]
    found = evaluate_preferences(_held_out(pairs), judged, baselines=rules, main=main, baseline=baseline, about=about)
    write_json(folder / EVALUATION, found)
    write_report(folder)
    return found


def _held_out(pairs: Pairs) -> HeldOutPairs:
    def named(names: np.ndarray) -> np.ndarray | None:
        known = names != UNNAMED
        return np.where(known, names, None) if known.any() else None

    sizes = [np.array([len(text) for text in side], dtype=float) for side in (pairs.first, pairs.second)]
    return HeldOutPairs(
        pairs.p,
        pairs.group,
        weight=pairs.weight,
        domain=named(pairs.domain),
        user=named(pairs.user),
        length_difference=sizes[0] - sizes[1],
    )


# ---- evaluate ----


def evaluate_reward(
    models: Mapping[str, Path | str],
    source: str,
    *,
    reading: Reading = PLAINLY,
    output: Path | None = None,
    tell: Tell = _silent,
) -> Path:
    """Measure fitted models on all comparisons of `source`, side by side; the folder with `evaluation.json` and page.

    Args:
        models: name -> folder of a run or a model; the first is spoken of first, and held against `bt` where one of
            the others is called so, else against the second.
        output: the folder; None: runs/reward-eval-NAME of the first model.

    Raises:
        ConfigError: a folder holds no model, or `output` holds something else.
        DataError: nothing in the source can be compared.
    """
    if not models:
        raise ConfigError("there is no model to evaluate; name a folder of `unipref reward train`")
    main = next(iter(models))
    folder = Path("runs") / f"reward-eval-{main}" if output is None else Path(output)
    if folder.exists() and any(folder.iterdir()) and not (folder / EVALUATION).exists():
        raise ConfigError(f"{folder} is not empty and not an evaluation; choose another with --output")
    records, report = compared(*reading.records(source))
    tell(report.describe())
    pairs = Pairs.of(records)
    store = FeatureStore(folder.parent / STORE)
    judged, notes = {}, []
    for name, path in models.items():
        tell(f"asking {name}")
        whole = TextPreferenceModel.load(path, store=store, records=records)
        judged[name] = judgement(whole.model, whole.table(pairs, records=records, attributes=()))
        if source in (whole.model.about.get("data") or {}).get("sources", ()):
            notes.append(f"{name} was trained on this source too: what it holds out there is measured by its own run")
    write_json(folder / "data.json", {"eval": report.to_dict()})
    _write_evaluation(folder, pairs, judged, {}, main, _about(folder.name, {}, notes))
    return folder


# ---- newcomers ----


def adapt_reward(model: Path | str, source: str, output: Path, *, reading: Reading = PLAINLY) -> dict[str, Any]:
    """Teach the model the users (or domains) of `source` that it does not know; `output` becomes the new model.

    Returns:
        {"users": [...], "domains": [...] that are new, "comparisons": n of each, "accuracy": on these comparisons
        before and after, which the fit has seen: no measure of what it is worth}.

    Raises:
        ConfigError: the model has nothing to adapt, or `output` holds something else.
        DataError: the source names nobody new.
    """
    output = Path(output)
    if output.exists() and any(output.iterdir()) and not (output / "reward.json").exists():
        raise ConfigError(f"{output} is not empty and no model; choose another folder with --output")
    records, _ = compared(*reading.records(source))
    whole = TextPreferenceModel.load(model, store=FeatureStore(output.parent / STORE), records=records)
    table = whole.table(Pairs.of(records), records=records, attributes=())
    grown = whole.model.adapt(table)
    new = {
        "users": [name for name in grown.users_ if name not in whole.model.users_],
        "domains": [name for name in grown.domains_ if name not in whole.model.domains_],
    }
    counts = {
        what: dict(Counter(str(name) for name in getattr(table, what[:-1]) if name in names))
        for what, names in new.items()
    }
    TextPreferenceModel(grown, whole.features).save(output)
    inside = np.isin(table.user.astype(str), new["users"]) | np.isin(table.domain.astype(str), new["domains"])
    theirs = table.take(inside)
    return {**new, "comparisons": counts, "accuracy": [whole.model.score(theirs), grown.score(theirs)]}
