"""The models of finished runs: found in their folders, where `align` and `compare` keep them, and loaded."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from unipref.core.errors import ConfigError, nearest
from unipref.engine import load_model, load_tokenizer
from unipref.recipes._judging import judging_precision
from unipref.recipes._run import quiet_transformers, stage_key
from unipref.recipes.config import Recipe, Sampling, Stage, bundled_recipes, load_recipe
from unipref.rewards import DesignerObjectives, Judges, make_scorer

__all__ = ["REFERENCE", "Contender", "Found", "Loaded", "find_models", "load_contender", "n_positions"]

REFERENCE = "reference"  # the model before alignment, as `summary.json` calls it


@dataclass(frozen=True)
class Contender:
    """A model that is drawn from.

    Attributes:
        name: what tables call it: a run, `reference` for what the runs started from, or the model's own name.
        model: its folder or hub id.
        role: "before" or "after" alignment, or "model" where no run folder says.
        reference: the model that its log-ratios are taken against; None where there is none.
        trust: run code that comes with it, as the recipe says.
    """

    name: str
    model: str
    role: str
    reference: str | None = None
    trust: bool = False


@dataclass(frozen=True)
class Found:
    """What the words of a user stand for.

    Attributes:
        folder: the run folder, the first one where several were named; None where there is none.
        recipe: its recipe.
        notes: what was left out and why, in sentences.
    """

    contenders: tuple[Contender, ...]
    folder: Path | None = None
    recipe: Recipe | None = None
    notes: tuple[str, ...] = ()

    @property
    def sampling(self) -> Sampling:
        """The recipe's settings of sampling, or their defaults."""
        return Sampling() if self.recipe is None else self.recipe.sampling

    def scorers(self) -> list[DesignerObjectives | Judges]:
        """What the recipe scores responses by: its designer objectives, as the run fitted them, and its judges.

        Raises:
            ConfigError: an objective is normalised, and the folder does not say how.
        """
        if self.recipe is None:
            return []
        judges = {name: make_scorer(judge.model_dump()) for name, judge in self.recipe.judges.items()}
        return [*self._designer(), *([Judges(judges)] if judges else [])]

    def _designer(self) -> list[DesignerObjectives]:
        if not self.recipe.objectives:
            return []
        specs = {name: spec.model_dump(exclude_none=True) for name, spec in self.recipe.objectives.items()}
        fitted = _told(self.folder).get("designer", {})
        for name, spec in specs.items():
            scale = fitted.get(name, {}).get("scale")
            if scale is not None:
                spec["scale"] = scale
            elif spec["normalise"] != "none":
                raise ConfigError(
                    f"objectives.{name} is normalised by the training responses, and {self.folder} holds no summary "
                    "that says how; finish the run with --resume, or give --no-rewards"
                )
        return [DesignerObjectives.from_config(specs, missing=self.recipe.missing_rewards)]


def find_models(targets: Sequence[str], *, runs: Sequence[str] = (), seed: int | None = None) -> Found:
    """The models that `targets` name: run folders, or their names in runs/, and models, side by side.

    Args:
        runs: of a run folder, these runs alone; empty: all. What they started from comes along.
        seed: of a run that was trained with several seeds, this one's models; None: the first.

    Raises:
        ConfigError: there is no such run, seed or model, or a run has kept no model.
    """
    folders = [_run_folder(target) for target in targets]
    several = sum(folder is not None for folder in folders) > 1
    contenders: list[Contender] = []
    notes: list[str] = []
    first: tuple[Path, Recipe] | None = None
    known: set[str] = set()
    for target, folder in zip(targets, folders, strict=True):
        if folder is None:
            contenders.append(Contender(target, target, "model"))
            continue
        recipe = load_recipe(folder / "recipe.yaml", validate_files=False)
        first = first or (folder, recipe)
        compared_ = (folder / "comparison.json").exists()
        listed = _compared_models(folder, recipe, seed) if compared_ else _aligned_models(folder, recipe, seed)
        names = [run.name for run in listed]
        known |= set(names)
        wanted = [run for run in listed if not runs or run.name in runs]
        lacking = [run for run in wanted if not _holds_model(run.model)]
        if lacking and (runs or len(lacking) == len(wanted)):
            raise ConfigError(_why_no_model(folder, lacking[0], compared_))
        if lacking:
            notes.append(f"Left out, because no model of theirs is kept: {', '.join(run.name for run in lacking)}.")
        for run in wanted:
            if run in lacking:
                continue
            before = Contender(REFERENCE, run.reference, "before", run.reference, run.trust)
            if not any(other.role == "before" and other.model == before.model for other in contenders):
                taken = any(other.role == "before" for other in contenders)
                contenders.append(replace(before, name=f"{folder.name}/{REFERENCE}") if taken else before)
            contenders.append(replace(run, name=f"{folder.name}/{run.name}") if several else run)
    unknown = [name for name in runs if name not in known]
    if unknown:
        raise ConfigError(f"--runs: no run is called {unknown[0]!r}{nearest(unknown[0], known)}")
    names = [contender.name for contender in contenders]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two of the models are called {twice!r}; name each once, and folders of different names")
    if first is None:
        return Found(tuple(contenders))
    return Found(tuple(contenders), *first, tuple(notes))


def _run_folder(target: str) -> Path | None:
    """The run folder that `target` names, None where it names a model.

    Raises:
        ConfigError: it is neither, as far as can be told without the network.
    """
    for folder in (Path(target).expanduser(), Path("runs") / target):
        if (folder / "recipe.yaml").is_file():
            return folder
    path = Path(target).expanduser()
    if (path / "config.json").is_file() or (path / "adapter_config.json").is_file():
        return None
    if path.exists():
        inside = next((up for up in path.resolve().parents if (up / "recipe.yaml").is_file()), None)
        if inside is not None:
            name = path.resolve().relative_to(inside).parts[0]
            raise ConfigError(f"{target} is a part of the run folder {inside}; give that, and --runs {name}")
        raise ConfigError(
            f"{target} is neither a run folder (it holds no recipe.yaml) nor a model (it holds no config.json)"
        )
    if target in bundled_recipes():
        raise ConfigError(f"there is no run in runs/{target} yet; train it with: unipref align {target}")
    if target.startswith("runs/"):
        raise ConfigError(f"there is no run folder {target}; `unipref align RECIPE` makes one")
    return None


def _holds_model(place: str) -> bool:
    return any((Path(place) / name).is_file() for name in ("config.json", "adapter_config.json"))


def _why_no_model(folder: Path, run: Contender, compared_: bool) -> str:
    if compared_:
        return (
            f"{run.name} of {folder} has kept no model; compare keeps them where it is run with --keep-models "
            "(with another --output, as what is finished is not trained again)"
        )
    return f"{run.name} has no model in {run.model}; the run is not finished, go on with: unipref align … --resume"


def _aligned_models(folder: Path, recipe: Recipe, seed: int | None) -> list[Contender]:
    """The last model of every run where `align` puts it, with what the run started from; it need not be there."""
    seed = _seed_among(recipe.seeds, seed, folder)
    shared = recipe.shared_stages if recipe.runs else []
    start = _shared_start(folder, recipe, shared, seed)
    found = []
    for run, stages in recipe.run_plan().items():
        own = stages[len(shared) :]
        first = 0 if recipe.runs else len(own) - 1  # as in `align`: what a lone run is compared with is before its
        while first and own[first].round:  # last stage, and of a loop before its first round
            first -= 1
        place = folder / run / f"seed-{seed}" if len(recipe.seeds) > 1 else folder / run
        reference = str(place / own[first - 1].label / "model") if first else start
        found.append(_after(run, place / own[-1].label / "model", reference, recipe))
    return found


def _compared_models(folder: Path, recipe: Recipe, seed: int | None) -> list[Contender]:
    """The chosen model of every method of a comparison, with what the methods started from; it need not be there."""
    told = _told(folder)
    seed = _seed_among(told["settings"]["seeds"], seed, folder)
    shared = recipe.shared_stages if recipe.runs else recipe.shared_stages[:-1]
    start = _shared_start(folder, recipe, shared, seed)
    done = {name: entry for name, entry in told["methods"].items() if entry["state"] == "done"}
    if not done:
        raise ConfigError(f"no method of {folder} was trained to its end")
    places = {name: folder / name / f"lr-{entry['learning_rate']:g}-seed-{seed}" for name, entry in done.items()}
    return [_after(name, place / "model", start, recipe) for name, place in places.items()]


def _after(name: str, model: Path, reference: str, recipe: Recipe) -> Contender:
    return Contender(name, str(model), "after", reference, recipe.model_options.trust_remote_code)


def _shared_start(folder: Path, recipe: Recipe, shared: Sequence[Stage], seed: int) -> str:
    if not shared:
        return recipe.model
    return str(folder / "shared" / f"{shared[-1].label}-{stage_key(seed, shared)}" / "model")


def _seed_among(seeds: Sequence[int], seed: int | None, folder: Path) -> int:
    if seed is not None and seed not in seeds:
        known = ", ".join(map(str, seeds))
        raise ConfigError(f"{folder} was not trained with the seed {seed}; its training seeds: {known}")
    return seeds[0] if seed is None else seed


def _told(folder: Path | None) -> dict[str, Any]:
    """The run's or the comparison's own account; empty where it has none yet."""
    for name in ("comparison.json", "summary.json"):
        if folder is not None and (folder / name).is_file():
            return json.loads((folder / name).read_text(encoding="utf-8"))
    return {}


@dataclass(frozen=True)
class Loaded:
    """A model on the device it is used on, its tokenizer, and the arithmetic of its forward passes."""

    model: torch.nn.Module
    tokenizer: Any
    precision: str

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def load_contender(contender: Contender, recipe: Recipe | None, *, dtype: str | None = None) -> Loaded:
    """The model of `contender`, ready to be drawn from.

    Raises:
        ConfigError: it cannot be loaded.
    """
    device, precision = torch.device("cuda" if torch.cuda.is_available() else "cpu"), "float32"
    if recipe is not None and dtype is None:
        device, precision = judging_precision(recipe)
    kind = dtype or ("float32" if recipe is not None or device.type == "cpu" else "auto")
    with quiet_transformers():
        tokenizer = load_tokenizer(contender.model, trust_remote_code=contender.trust)
        model = load_model(contender.model, dtype=kind, trust_remote_code=contender.trust)
    return Loaded(model.to(device).eval(), tokenizer, precision)


def n_positions(model: Any) -> int | None:
    """The most tokens that a model can hold, prompt and answer together; None where its configuration does not say."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    found = getattr(inner.config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None
