"""What models write: the same prompts, the same random numbers, scored by the recipe's objectives, side by side."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

import unipref
from unipref.core.errors import ConfigError, DataError
from unipref.core.records import Text
from unipref.core.statistics import mean, mean_difference
from unipref.core.tries import Trie, build_trie
from unipref.engine import Policy, score
from unipref.recipes.finished import Contender, Found, Loaded, load_contender, n_positions
from unipref.recipes.prompts import Prompt, in_turns, prompt_ids, readable
from unipref.sampling import Sample, generate, stream
from unipref.training import autocast

__all__ = ["Draw", "Shown", "account", "draw", "summarise_samples"]

MEASURED = ("n_tokens", "stopped")
BUDGET = 16_384  # tokens of a forward pass where no recipe says


@dataclass(frozen=True)
class Draw:
    """How is drawn.

    Attributes:
        seeds: one response per prompt and seed.
        system: put before every prompt, in place of a system message that it has.
        dtype: of the weights; None: float32, as in a run's own evaluation, and on a GPU the checkpoint's own where no
            run folder is named.
        rewards: score what was drawn.
    """

    max_new_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    seeds: tuple[int, ...] = (0,)
    system: str | None = None
    dtype: str | None = None
    rewards: bool = True


class Shown(Protocol):
    """What is told of a response while it is drawn: a piece of its text, and at its end its row."""

    def piece(self, contender: Contender, prompt: Prompt, seed: int, text: str) -> None: ...

    def row(self, contender: Contender, prompt: Prompt, seed: int, row: Mapping[str, Any]) -> None: ...


def draw(
    found: Found, prompts: Sequence[Prompt], how: Draw, *, show: Shown | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """A row per prompt, seed and model, in this order, and what is to be said of them, in sentences.

    All models get the same prompts and, by `generate`'s rule, the same random numbers for the same tokens, so that
    before and after make pairs. With a recipe's own settings, the responses to its held-out prompts are those of the
    run's evaluation. Log-probabilities are taken over the tokens that were drawn, never over a text tokenised again.

    Args:
        show: told of every response while it is drawn, one after the other; without it many are drawn together.

    Returns:
        Rows with id, prompt, model, role, seed, text, n_tokens, stopped; where rewards are asked for, logp, ref_logp
        and log_ratio (sums, nats; the latter two None without a reference) and aux ({name: score}, None where missing).

    Raises:
        ConfigError, DataError: a prompt does not fit a model, or a model cannot be loaded.
    """
    if not prompts:
        raise ConfigError("there is no prompt to answer")
    job = _Job(found, prompts, how, show)
    for place, contender in enumerate(found.contenders):
        job.run(contender, place)
    return [row for _, row in sorted(job.rows, key=lambda pair: pair[0])], job.notes


class _Job:
    """Goes through the models, one in memory at a time besides those that later ones are compared with."""

    def __init__(self, found: Found, prompts: Sequence[Prompt], how: Draw, show: Shown | None) -> None:
        self.found, self.prompts, self.how, self.show = found, prompts, how, show
        self.scorers = found.scorers() if how.rewards else []
        # data of conversations are asked in turns, others in plain text; without data the template decides
        self.turns = None if found.recipe is None else in_turns(found.recipe)
        self.references: dict[str, tuple[Loaded, Policy]] = {}
        self.rows: list[tuple[tuple[int, int, int], dict[str, Any]]] = []
        self.manners: dict[str, list[str]] = {}

    @property
    def notes(self) -> list[str]:
        asked = [f"{', '.join(names)}: {manner}." for manner, names in self.manners.items()]
        if len(asked) == 1:  # of all models, so their names say nothing
            asked = [f"{manner[0].upper()}{manner[1:]}." for manner in self.manners]
        return [*self.found.notes, *asked]

    def run(self, contender: Contender, place: int) -> None:
        found, how = self.found, self.how
        loaded, policy = self._load(contender)
        turns = loaded.tokenizer.chat_template is not None if self.turns is None else self.turns
        self.manners.setdefault(self._manner(turns), []).append(contender.name)
        cut = None if found.recipe is None else found.recipe.data.max_length
        asked = [
            prompt_ids(prompt, loaded.tokenizer, turns=turns, system=how.system, max_length=cut)
            for prompt in self.prompts
        ]
        self._check_lengths(contender, policy, [ids for _, ids in asked])
        n = len(self.prompts)
        groups = [range(n)] if self.show is None else [range(i, i + 1) for i in range(n)]
        for number, seed in enumerate(how.seeds):
            for group in groups:
                samples = self._samples(loaded, policy, contender, asked, group, seed)
                made = [
                    self._row(contender, self.prompts[i], *asked[i], seed, sample)
                    for i, sample in zip(group, samples, strict=True)
                ]
                if how.rewards:
                    self._score(contender, policy, loaded, made, [asked[i] for i in group], samples)
                for i, row in zip(group, made, strict=True):
                    if self.show is not None:
                        self.show.row(contender, self.prompts[i], seed, row)
                    self.rows.append(((i, number, place), row))

    def _load(self, contender: Contender) -> tuple[Loaded, Policy]:
        if contender.model in self.references:
            return self.references[contender.model]
        loaded = load_contender(contender, self.found.recipe, dtype=self.how.dtype)
        ready = loaded, Policy(loaded.model).eval()
        if any(other.reference == contender.model for other in self.found.contenders):
            self.references[contender.model] = ready
        return ready

    def _manner(self, turns: bool) -> str:
        if turns:
            behind = ", behind the system message given" if self.how.system is not None else ""
            return f"prompts are turns of a conversation in the model's chat template{behind}"
        why = "as the training data are" if self.turns is False else "the model has no chat template"
        return f"prompts are plain text that the model goes on from ({why})"

    def _check_lengths(self, contender: Contender, policy: Policy, contexts: Sequence[Sequence[int]]) -> None:
        limit = n_positions(policy.model)
        for prompt, ids in zip(self.prompts, contexts, strict=True):
            if limit is not None and len(ids) + self.how.max_new_tokens > limit:
                raise DataError(
                    f"{prompt.source or prompt.id}: the prompt has {len(ids)} tokens for {contender.name}, which holds "
                    f"{limit}, and {self.how.max_new_tokens} are to be drawn; shorten it, or lower --max-new-tokens"
                )

    def _samples(
        self,
        loaded: Loaded,
        policy: Policy,
        contender: Contender,
        asked: Sequence[tuple[Text, list[int]]],
        group: Sequence[int],
        seed: int,
    ) -> list[Sample]:
        how = self.how
        settings = {"max_new_tokens": how.max_new_tokens, "temperature": how.temperature, "top_p": how.top_p}
        contexts = [ids for _, ids in asked]
        with autocast(loaded.device, loaded.precision):
            if self.show is None:
                return generate(policy.model, loaded.tokenizer, contexts, seed=seed, **settings)
            show = self.show
            return [
                stream(
                    policy.model,
                    loaded.tokenizer,
                    contexts[i],
                    show=lambda text, i=i: show.piece(contender, self.prompts[i], seed, text),
                    seed=seed,
                    nth=contexts[:i].count(contexts[i]),  # a prompt given twice gets two answers
                    **settings,
                )
                for i in group
            ]

    def _row(
        self, contender: Contender, prompt: Prompt, context: Text, ids: Sequence[int], seed: int, sample: Sample
    ) -> dict[str, Any]:
        return {
            "id": prompt.id,
            "prompt": readable(context),
            "model": contender.name,
            "role": contender.role,
            "seed": seed,
            "text": sample.text,
            "n_prompt_tokens": len(ids),
            "n_tokens": len(sample.ids),
            "stopped": sample.stopped,
        }

    def _score(
        self,
        contender: Contender,
        policy: Policy,
        loaded: Loaded,
        made: Sequence[dict[str, Any]],
        asked: Sequence[tuple[Text, list[int]]],
        samples: Sequence[Sample],
    ) -> None:
        tries = [build_trie([(ids, sample.ids)]) for (_, ids), sample in zip(asked, samples, strict=True)]
        logp = self._sums(policy, loaded, tries)
        against = logp
        if contender.reference != contender.model:
            against = [None] * len(tries)
            if contender.reference is not None:
                other, reference = self.references[contender.reference]
                against = self._sums(reference, other, tries)
        aux: dict[str, Any] = {}
        for scorers in self.scorers:
            aux |= scorers.score_texts([context for context, _ in asked], [sample.text for sample in samples])
        for i, row in enumerate(made):
            row["logp"], row["ref_logp"] = logp[i], against[i]
            row["log_ratio"] = None if against[i] is None else logp[i] - against[i]
            row["aux"] = {name: _known(values[i]) for name, values in aux.items()}

    def _sums(self, policy: Policy, loaded: Loaded, tries: Sequence[Trie]) -> list[float]:
        budget = BUDGET if self.found.recipe is None else 2 * self.found.recipe.train.max_tokens_per_forward
        with autocast(loaded.device, loaded.precision):
            return [float(values[0].sum(dtype=np.float64)) for values in score(policy, tries, max_tokens=budget)]


def _known(value: float) -> float | None:
    value = float(value)
    return value if math.isfinite(value) else None


# ---- what is kept and told ----


def summarise_samples(found: Found, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means per model, and differences of every run from what it started from, each {"value": [value, low, high], "n"}.

    Intervals are over prompts, all seeds of one together; a difference is of the prompts that both have a value for.
    """
    by_model = {c.name: [row for row in rows if row["model"] == c.name] for c in found.contenders}
    names = list(dict.fromkeys(name for row in rows for name in row.get("aux", ())))
    metrics = [*(f"aux.{name}" for name in names), *(["log_ratio"] if "log_ratio" in rows[0] else []), *MEASURED]
    models = {name: {metric: _mean(mine, metric) for metric in metrics} for name, mine in by_model.items()}
    differences = []
    for contender in found.contenders:
        before = next((c for c in found.contenders if c.role == "before" and c.model == contender.reference), None)
        if contender.role != "after" or before is None:
            continue
        for metric in (name for name in metrics if name != "log_ratio"):  # before alignment it is 0 by definition
            pair = [[_value(row, metric) for row in by_model[c.name]] for c in (contender, before)]
            clusters = tuple([row["id"] for row in by_model[c.name]] for c in (contender, before))
            bounds = (-1.0, 1.0) if metric == "stopped" else None
            between = mean_difference(*pair, clusters=clusters, bounds=bounds)
            told = {"metric": metric, "value": between.as_list(), "n": between.n}
            differences.append({"a": contender.name, "b": before.name, **told})
    return {"metrics": metrics, "models": models, "differences": differences}


def _mean(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    bounds = (0.0, 1.0) if metric == "stopped" else None
    found = mean([_value(row, metric) for row in rows], clusters=[row["id"] for row in rows], bounds=bounds)
    return {"value": found.as_list(), "n": found.n}


def _value(row: Mapping[str, Any], metric: str) -> float:
    value = row["aux"].get(metric.removeprefix("aux.")) if metric.startswith("aux.") else row[metric]
    return math.nan if value is None else float(value)


def account(found: Found, how: Draw, rows: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> dict[str, Any]:
    """All that is known of what was drawn, for `samples.json`, the page and the terminal."""
    scorers = found.scorers() if how.rewards else []
    return {
        "name": found.folder.resolve().name if found.folder is not None else found.contenders[0].name,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": unipref.__version__,
        "settings": {
            "max_new_tokens": how.max_new_tokens,
            "temperature": how.temperature,
            "top_p": how.top_p,
            "seeds": list(how.seeds),
            "system": how.system,
            "dtype": how.dtype,
        },
        "models": [
            {"name": c.name, "model": c.model, "role": c.role, "reference": c.reference} for c in found.contenders
        ],
        "designer": {name: facts for each in scorers for name, facts in each.describe().items()},
        "notes": list(notes),
        "summary": summarise_samples(found, rows),
        "rows": list(rows),
    }
