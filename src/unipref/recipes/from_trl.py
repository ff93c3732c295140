"""A TRL configuration as a recipe, with every key accounted for: kept, kept in another form, or named with the reason.

TRL itself is not imported. What its keys are and where they stand by default is in `_trl_keys`, and a test holds both
to the installed TRL.
"""

import ast
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unipref.core.errors import ConfigError, nearest
from unipref.recipes._source import yaml_value
from unipref.recipes._trl_keys import FORMER, TRAINERS, VERSION, Key
from unipref.recipes._written import Entry, Items, Part, Section, scalar, written
from unipref.recipes.config import Recipe, load_recipe
from unipref.recipes.starting import next_steps, run_name

__all__ = ["LOSS_TYPES", "Conversion", "Loss", "from_trl", "loss_of", "read_trl"]

LOSS_TYPES = {
    "dpo": (
        *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
        *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
    ),
    "kto": ("kto", "apo_zero_unpaired"),
    "cpo": ("sigmoid", "hinge", "ipo", "simpo"),
    "orpo": (),
}
HELD_OUT = 0.05  # where TRL's configuration evaluates on nothing
UNLIMITED = 1_000_000  # tokens; stands for TRL's `max_length: null`
DATA_FILES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")

_TRUE, _FALSE, _NULL = ("true", "yes", "on", "1"), ("false", "no", "off", "0"), ("none", "null", "")
_PLACEMENT = ("attn_implementation", "device_map", "low_cpu_mem_usage", "max_memory", "use_cache", "use_kernels")
_NULLABLE = ("max_length",)  # null is a setting of its own there; elsewhere it stands for the default
# What a key holds where its default does not say it.
_KINDS: Mapping[str, type] = {
    "bf16": bool,
    "dataset_config": str,
    "dataset_name": str,
    "eval_steps": float,
    "ld_alpha": float,
    "max_length": int,
    "metric_for_best_model": str,
    "model_name_or_path": str,
    "neftune_noise_alpha": float,
    "output_dir": str,
    "report_to": object,
    "router_aux_loss_coef": float,
    "rpo_alpha": float,
    "run_name": str,
    "logging_steps": float,
    "save_steps": float,
    "warmup_steps": float,
    "test_split_size": float,
}


@dataclass(frozen=True)
class Loss:
    """The objective of a recipe for a TRL loss.

    Attributes:
        differs: TRL key -> what is not quite the same.
        lost: TRL key -> what could not be kept; where there is any, the method is the nearest and not the same loss.
        factor: TRL's loss is this many times ours, gradients too.
    """

    method: str
    options: Mapping[str, Any]
    differs: Mapping[str, str] = field(default_factory=dict)
    lost: Mapping[str, str] = field(default_factory=dict)
    factor: float = 1.0


@dataclass(frozen=True)
class Conversion:
    """A recipe made of a TRL configuration. Every key of the configuration is in one of the mappings.

    Attributes:
        text: the YAML file.
        recipe: the same, validated; files that it names may be missing.
        trainer: "dpo", "kto", "cpo" or "orpo", and `guess`, how it was told ("" where the user said it).
        kept: TRL key -> the recipe's key.
        differs: TRL key -> how what stands there now is different.
        lost: keys without which the loss, the data or the model are not what they were, and why they are not kept.
        minor: keys that change how training goes, and why they are not kept.
        idle: keys that change nothing here, and why.
        unknown: keys that TRL does not have.
        n_given: how many keys the configuration has.
    """

    text: str
    recipe: Recipe
    trainer: str
    guess: str
    kept: Mapping[str, str]
    differs: Mapping[str, str]
    lost: Mapping[str, str]
    minor: Mapping[str, str]
    idle: Mapping[str, str]
    unknown: Mapping[str, str]
    n_given: int


def read_trl(path: Path | str) -> dict[str, Any]:
    """The keys and values in a TRL configuration: YAML as of `trl dpo --config`, JSON, or a Python dictionary.

    Raises:
        ConfigError: the file is missing, empty, not UTF-8, none of the three, or no mapping.
    """
    try:
        text = Path(path).expanduser().read_bytes().decode("utf-8-sig")
    except OSError as err:
        raise ConfigError(f"{path}: cannot be read ({err.strerror}); give the YAML file of `trl dpo --config`") from err
    except UnicodeDecodeError as err:
        raise ConfigError(f"{path}: not UTF-8 (byte {err.start}); save the file as UTF-8") from err
    values = _parsed(text, str(path))
    if values is None:
        raise ConfigError(f"{path}: the file is empty; expected TRL's keys, such as `model_name_or_path: ...`")
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: expected `key: value` lines of TRL's keys, got a {type(values).__name__}")
    return {str(key): value for key, value in values.items()}


def _parsed(text: str, name: str) -> Any:
    if text.lstrip().startswith("{"):
        for parse in (json.loads, ast.literal_eval):
            try:
                return parse(text.strip())
            except (ValueError, SyntaxError):  # YAML has mappings in braces too
                continue
    for number, line in enumerate(text.splitlines(), 1):
        if "\t" in line[: len(line) - len(line.lstrip())] and line.strip():
            raise ConfigError(f"{name}, line {number}: a tab stands at its beginning; YAML is indented with blanks")
    return yaml_value(text, name)


def from_trl(
    values: Mapping[str, Any],
    *,
    trainer: str | None = None,
    data: str | None = None,
    eval: str | None = None,
    model: str | None = None,
    source: str = "config.yaml",
    command: str = "unipref init --from-trl config.yaml",
    file: str = "recipe.yaml",
) -> Conversion:
    """The recipe that trains as TRL 1.16 would with `values`; what stands there by TRL's default is written out.

    Args:
        trainer: "dpo", "kto", "cpo" or "orpo"; by default told from the keys.
        data, eval, model: what `trl dpo` was given on its command line, or what is to stand in place of it.
        source: the configuration's name in messages; `command` and `file` stand in the recipe's first lines.

    Raises:
        ConfigError: the trainer is unknown, a value is not of its key's kind, or neither data nor model are named.
    """
    if trainer is not None and trainer not in TRAINERS:
        raise ConfigError(f"no trainer {trainer!r} can be converted{nearest(trainer, TRAINERS)}")
    told, guess = (trainer, "") if trainer is not None else _guessed(values, source)
    converter = _Converter(told, values, source)
    parts = converter.parts(data=data, eval=eval, model=model)
    lists = converter.account()
    said = f"{told.upper()} as TRL {VERSION} trains it" + (f" ({guess}; --trainer says another)" if guess else "")
    heading = [
        f"Written by `{command}`.",
        f"{said}. Numbers that {source} leaves out are TRL's defaults. Next:",
        *next_steps(file, converter.values["output_dir"] or f"runs/{converter.name}"),
    ]
    ending = _ending(lists, source)
    text = written(heading, parts, ending)
    try:
        recipe = load_recipe(yaml_value(text, "the recipe"), validate_files=False)
    except ConfigError as err:
        raise ConfigError(f"{source}: its values make no valid recipe; {err}") from err
    return Conversion(text, recipe, told, guess, **lists, n_given=len(values))


def _ending(lists: Mapping[str, Mapping[str, str]], source: str) -> list[str]:
    titles = {
        "lost": "NOT KEPT, and what is trained is not the same without it:",
        "minor": "Not kept; it changes how training goes:",
        "idle": "Not kept; nothing here depends on it:",
        "unknown": f"Keys that TRL {VERSION} does not have:",
    }
    lines: list[str] = []
    for name, title in titles.items():
        if lists[name]:
            lines += [*([""] if lines else [f"From {source}", ""]), title]
            lines += [f"{key}: {why}" for key, why in lists[name].items()]
    return lines


def _guessed(values: Mapping[str, Any], source: str) -> tuple[str, str]:
    """The trainer whose configuration has the most of the keys, and how that was told."""
    losses = values.get("loss_type")
    losses = [losses] if isinstance(losses, str) else losses if isinstance(losses, list) else []

    def foreign(trainer: str) -> int:
        """Keys and losses of other trainers."""
        others = {key for table in TRAINERS.values() for key in table} - set(TRAINERS[trainer])
        strange = [loss for loss in losses if loss not in LOSS_TYPES[trainer]]
        return sum(key in others for key in values) + len(strange)

    counts = {trainer: foreign(trainer) for trainer in TRAINERS}
    best = [trainer for trainer, count in counts.items() if count == min(counts.values())]
    if len(best) == 1:
        return best[0], "by the keys in it"
    if "dpo" in best:
        return "dpo", "nothing in it is another trainer's"
    raise ConfigError(f"{source} can be of {' or '.join(best)}; say which with --trainer")


# ---- the loss ----


def loss_of(trainer: str, settings: Mapping[str, Any]) -> Loss:
    """The objective for TRL's loss under `settings`, which hold every key of the trainer that says something of it.

    docs/conformance.md has these equalities, measured.

    Raises:
        ConfigError: a loss type that TRL does not have, or weights that do not match the losses.

    Example:
        >>> found = loss_of("orpo", {"beta": 0.1})
        >>> found.method, found.options
        ('orpo', {'lam': 0.1})
    """
    made = {"dpo": _dpo, "kto": _kto, "cpo": _cpo, "orpo": _orpo}[trainer](settings)
    coefficient = settings.get("router_aux_loss_coef")
    if coefficient:
        made = _without(made, {"router_aux_loss_coef": TRAINERS[trainer]["router_aux_loss_coef"].says})
    return made


def _without(loss: Loss, lost: Mapping[str, str]) -> Loss:
    return Loss(loss.method, loss.options, loss.differs, {**loss.lost, **lost}, loss.factor)


_MICRO_BATCH = "TRL averages the likelihood over the tokens of a micro-batch; here each response counts alike"
_PARTS = "a sum of parts that docs/conformance.md writes out in Python, and that no method of a recipe is"
_SORTED = "it sorts the batch and compares ranks, so that a row's loss hangs on all others"
_INSTEAD = "what stands in the recipe is the nearest method, not this loss"


def _dpo(settings: Mapping[str, Any]) -> Loss:
    losses = settings["loss_type"]
    losses = [losses] if isinstance(losses, str) else list(losses)
    _known_losses("dpo", losses)
    if not losses:
        raise ConfigError("loss_type: the list is empty; give one loss, such as sigmoid")
    weights = settings.get("loss_weights") or [1.0] * len(losses)
    if any(isinstance(weight, bool) or not isinstance(weight, int | float) for weight in weights):
        raise ConfigError(f"loss_weights: expected a list of numbers, got {weights!r}")
    if len(weights) != len(losses):
        raise ConfigError(f"loss_weights has {len(weights)} weights for {len(losses)} losses; TRL refuses that too")
    lost = {
        key: f"{TRAINERS['dpo'][key].says}; {_INSTEAD}"
        for key, plain in (("use_weighting", False), ("sync_ref_model", False), ("f_divergence_type", "reverse_kl"))
        if settings.get(key, plain) != plain
    }
    if settings.get("ld_alpha") not in (None, 1.0):
        lost["ld_alpha"] = f"{TRAINERS['dpo']['ld_alpha'].says}; {_INSTEAD}"
    made = _mixture(losses, weights, settings) if len(losses) > 1 else _one_dpo(losses[0], settings)
    if len(losses) == 1 and weights[0] != 1.0:
        made = Loss(made.method, made.options, made.differs, made.lost, made.factor * weights[0])
    return _without(made, lost) if lost else made


def _one_dpo(loss: str, settings: Mapping[str, Any]) -> Loss:
    beta, smoothing = settings["beta"], settings.get("label_smoothing") or 0.0
    differs = {}
    if smoothing and loss not in ("robust", "exo_pair", "aot", "aot_unpaired"):
        differs["label_smoothing"] = (
            f"TRL {VERSION} does not read it with `{loss}`, so neither does this recipe; where an earlier TRL smoothed "
            f"the labels, the method is cdpo with flip: {smoothing:g}"
        )
    if loss == "sigmoid":
        return Loss("dpo", {"beta": beta}, differs)
    if loss == "hinge":
        differs["loss_type"] = "TRL's hinge is on log-ratios: the loss of rso, not that of slic"
        return Loss("rso", {"gamma": beta, "loss": "hinge"}, differs)
    if loss == "ipo":
        differs["loss_type"] = "TRL averages each log-ratio over its response's tokens, which is norm: mean here"
        return Loss("ipo", {"tau": beta, "norm": "mean"}, differs)
    if loss == "exo_pair":
        if smoothing <= 0:
            raise ConfigError("loss_type exo_pair needs label_smoothing above 0, such as 1e-3; TRL refuses 0 too")
        return Loss("exo", {"beta": beta, "target": "labels", "flip": smoothing}, differs)
    if loss == "nca_pair":
        return Loss("nca", {"beta": beta, "target": "labels"}, differs)
    if loss == "robust":
        return Loss("dpo_robust", {"beta": beta, "flip": smoothing}, differs)
    if loss == "sigmoid_norm":
        return Loss("ln_dpo", {"beta": beta}, differs)
    if loss == "sft":
        return Loss(
            "sft", {"per": "token"}, {**differs, "loss_type": "TRL averages over a micro-batch, here over a step"}
        )
    nearest_method, options, why = {
        "bco_pair": ("bco", {"beta": beta}, f"TRL's has no running mean of rewards, which bco subtracts: {_PARTS}"),
        "sppo_hard": (
            "sppo",
            {"beta": beta},
            "sppo reads `win_rate`: give the rows `chosen_win_rate: 1` and `rejected_win_rate: 0`, and it is half of "
            "TRL's loss, which adds the two sides",
        ),
        "apo_zero": ("kto", {"beta": beta}, f"kto subtracts a reference point, TRL's apo_zero does not: {_PARTS}"),
        "apo_down": ("dpo", {"beta": beta}, _PARTS),
        "aot": ("dpo", {"beta": beta}, _SORTED),
        "aot_unpaired": ("dpo", {"beta": beta}, _SORTED),
        "discopop": ("dpo", {"beta": beta}, "a link found by search, which no method here has"),
    }[loss]
    return Loss(nearest_method, options, differs, {"loss_type": f"{loss}: {why}; {_INSTEAD}"})


def _mixture(losses: Sequence[str], weights: Sequence[float], settings: Mapping[str, Any]) -> Loss:
    if list(losses) == ["sigmoid", "sft"] and weights[0] > 0:
        plain = _one_dpo("sigmoid", settings)
        options = {"beta": settings["beta"], "lam": weights[1] / weights[0]}
        differs = {**plain.differs, "loss_type": _MICRO_BATCH}
        if weights[0] != 1.0:
            differs["loss_weights"] = f"the whole is divided by {weights[0]:g}, the weight of sigmoid"
        return Loss("dpo_sft", options, differs, factor=weights[0])
    compared = [i for i, loss in enumerate(losses) if loss != "sft"] or [0]
    heaviest = losses[max(compared, key=lambda i: weights[i])]
    made = _one_dpo(heaviest, settings)
    told = " + ".join(f"{weight:g} {loss}" for weight, loss in zip(weights, losses, strict=True))
    return _without(made, {"loss_type": f"{told}: {_PARTS}; of the sum `{heaviest}` alone stands in the recipe"})


def _kto(settings: Mapping[str, Any]) -> Loss:
    _known_losses("kto", [settings["loss_type"]])
    options = {"beta": settings["beta"]}
    options |= {"lambda_d": settings["desirable_weight"], "lambda_u": settings["undesirable_weight"]}
    lost = {}
    if settings.get("sync_ref_model"):
        lost["sync_ref_model"] = f"{TRAINERS['kto']['sync_ref_model'].says}; {_INSTEAD}"
    if settings["loss_type"] == "apo_zero_unpaired":
        why = f"kto subtracts a reference point, TRL's apo_zero_unpaired does not: {_PARTS}"
        return Loss("kto", options, {}, {"loss_type": f"{why}; {_INSTEAD}", **lost})
    differs = {"loss_type": "the reference point z0 is taken over the whole step, TRL's over each micro-batch"}
    return Loss("kto", options, differs, lost)


def _cpo(settings: Mapping[str, Any]) -> Loss:
    loss, beta, anchor = settings["loss_type"], settings["beta"], settings["cpo_alpha"]
    _known_losses("cpo", [loss])
    lost: dict[str, str] = {}
    if settings.get("alpha"):
        lost["alpha"] = f"{TRAINERS['cpo']['alpha'].says}; {_INSTEAD}"
    if settings.get("label_smoothing") and loss in ("sigmoid", "simpo"):
        lost["label_smoothing"] = f"{TRAINERS['cpo']['label_smoothing'].says}; labels are taken as they are"
    if loss == "sigmoid":
        return Loss("cpo", {"beta": beta, "alpha": anchor}, {"cpo_alpha": _MICRO_BATCH} if anchor else {}, lost)
    if loss == "simpo":
        if anchor:
            lost["cpo_alpha"] = (
                f"with simpo TRL adds {anchor:g} x the likelihood of the chosen response (CPO-SimPO; `cpo_alpha` is 1 "
                "unless it is set to 0), which simpo here has not"
            )
        return Loss("simpo", {"beta": beta, "gamma": settings["simpo_gamma"]}, {}, lost)
    if loss == "hinge":
        if beta <= 0:
            raise ConfigError(f"beta: expected a number above 0 with the hinge of CPO, got {beta:g}")
        if anchor:
            lost["cpo_alpha"] = "slic adds the summed log-likelihood, TRL its mean over tokens; it is left out"
        differs = {} if beta == 1 else {"loss_type": f"slic is the same hinge divided by beta ({beta:g})"}
        return Loss("slic", {"delta": 1 / beta, "lam": 0.0}, differs, lost, factor=beta)
    lost["loss_type"] = f"ipo without a reference: {_PARTS}; {_INSTEAD}"
    return Loss("cpo", {"beta": beta, "alpha": anchor}, {}, lost)


def _orpo(settings: Mapping[str, Any]) -> Loss:
    differs = {"beta": f"{_MICRO_BATCH}, and TRL's also counts the prompt's tokens"}
    return Loss("orpo", {"lam": settings["beta"]}, differs)


def _known_losses(trainer: str, losses: Sequence[str]) -> None:
    for loss in losses:
        if loss not in LOSS_TYPES[trainer]:
            hint = nearest(str(loss), LOSS_TYPES[trainer])
            raise ConfigError(f"loss_type: the {trainer.upper()} of TRL {VERSION} has no loss {loss!r}{hint}")


# ---- key by key ----


class _Converter:
    """The parts of a recipe from TRL's values, and where each key went."""

    def __init__(self, trainer: str, values: Mapping[str, Any], source: str) -> None:
        self.trainer, self.source = trainer, source
        self.table: Mapping[str, Key] = {**FORMER, **TRAINERS[trainer]}
        self.given = {key: value for key, value in values.items() if key in self.table}
        self.accounts: dict[str, dict[str, str]] = {
            name: {} for name in ("kept", "differs", "lost", "minor", "idle", "unknown")
        }
        self.accounts["unknown"] = {key: self._unknown(key) for key in values if key not in self.table}
        self.values = {key: entry.default for key, entry in self.table.items()}
        faults = []
        for key, value in self.given.items():
            try:
                typed = _typed(value, _KINDS.get(key, type(self.table[key].default)))
                self.values[key] = self.table[key].default if typed is None and key not in _NULLABLE else typed
            except ValueError as err:
                faults.append(f"{key}: {err}")
        if faults:
            count = f"{len(faults)} value{'s do' if len(faults) > 1 else ' does'} not fit"
            raise ConfigError("\n  ".join([f"{source}: {count}", *faults]))
        self._rename()
        self.evaluates = self.values["eval_strategy"] not in ("no", None)
        self.loss = loss_of(trainer, self.values)
        self.accounts["lost"] |= self.loss.lost
        self.accounts["differs"] |= self.loss.differs
        self.name = "recipe"

    def _unknown(self, key: str) -> str:
        others = [trainer for trainer, table in TRAINERS.items() if key in table]
        if others:
            return f"a key of {' and '.join(others)}, which the trainer of {self.trainer} does not read"
        near = nearest(key, TRAINERS[self.trainer])
        return "TRL passes over it" + (near if near.startswith(" (did") else "")

    def _rename(self) -> None:
        """Former keys in the place of those that have taken their work over."""
        values, given = self.values, self.given
        for key in given:
            if key in FORMER and key not in TRAINERS[self.trainer] and FORMER[key].to:
                self.accounts["differs"][key] = f"a key of earlier versions, which TRL {VERSION} passes over"
        for old, new in (("torch_dtype", "dtype"), ("evaluation_strategy", "eval_strategy")):
            if old in given and new in given:
                self.accounts["idle"][old] = f"{new} is given too"
            elif old in given:
                values[new] = values[old]
        if "per_gpu_train_batch_size" in given and "per_device_train_batch_size" not in given:
            values["per_device_train_batch_size"] = _typed(given["per_gpu_train_batch_size"], int)
        anchor = values["rpo_alpha"]
        if anchor is not None and self.trainer != "dpo":
            self.accounts["idle"]["rpo_alpha"] = f"the trainer of {self.trainer} has never read it"
        elif anchor is not None and values["loss_type"] in ("sigmoid", ["sigmoid"]):
            values |= {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, anchor]}
        elif anchor is not None:
            self.accounts["lost"]["rpo_alpha"] = "the likelihood of the chosen response is added to sigmoid alone"
        if values["group_by_length"]:
            values["train_sampling_strategy"] = "group_by_length"
        kwargs = values["model_init_kwargs"]
        kwargs = yaml_value(kwargs, f"{self.source}: model_init_kwargs") if isinstance(kwargs, str) else kwargs
        if kwargs is not None and not isinstance(kwargs, Mapping):
            raise ConfigError(f"{self.source}: model_init_kwargs: expected `key: value` entries, got {kwargs!r}")
        if kwargs:
            values["dtype"] = kwargs.get("dtype", kwargs.get("torch_dtype", values["dtype"]))
            others = [key for key in kwargs if key not in ("dtype", "torch_dtype", *_PLACEMENT)]
            if others:
                self.accounts["lost"]["model_init_kwargs"] = f"a recipe has no {', '.join(others)} of a model"

    def account(self) -> dict[str, dict[str, str]]:
        """Every given key, once in the list that says most of it; `differs` stands beside `kept`."""
        found = self.accounts
        named = {key for name in ("lost", "minor", "idle") for key in found[name]}
        for key in self.given:
            entry = self.table[key]
            if key in named:
                continue
            if entry.to:
                found["kept"][key] = entry.to
            elif key in found["differs"] or self.values[key] == entry.default:
                found["kept"][key] = "TRL's default"
            else:
                name = {"loss": "lost", "training": "minor", "": "idle"}[entry.changes]
                found[name][key] = f"{scalar(self.values[key])}: {entry.says}"
        return found

    def entry(self, key: str, value: Any, *names: str, says: str = "") -> Entry:
        """A line of the recipe; behind it TRL's keys of another name that it comes from, and what differs."""
        told = [] if names in ((), (key,)) else [", ".join(names)]
        told += ["TRL's default"] if names and not self.given.keys() & set(names) else []
        differs = [self.accounts["differs"][name] for name in names if name in self.accounts["differs"]]
        return Entry(key, value, "; ".join(filter(None, [", ".join(told), *differs, says])))

    # ---- sections ----

    def parts(self, *, data: str | None, eval: str | None, model: str | None) -> list[Part]:
        model = model or self.values["model_name_or_path"]
        if not model:
            raise ConfigError(f"{self.source}: no model_name_or_path; say which model with --model")
        source = self._data(data, eval)
        train = self._train()
        stage = self._stage()
        self.name = run_name(self.values["run_name"] or self.source)
        parts: list[Part] = [self.entry("name", self.name, *(["run_name"] if self.values["run_name"] else []))]
        if self.values["output_dir"]:
            parts.append(self.entry("output", self.values["output_dir"], "output_dir"))
        parts += [self.entry("model", model, "model_name_or_path"), self._model(), source, train, stage]
        seed = self.entry("seeds", [self.values["seed"]], "seed")
        sampling = [
            Entry("prompts", 64, "held-out prompts that the model answers for the report; 0: none"),
            Entry("max_new_tokens", 128),
        ]
        return [*parts, seed, Section("sampling", sampling)]

    def _model(self) -> Section:
        values, minor = self.values, self.accounts["minor"]
        dtype = str(values["dtype"]).removeprefix("torch.")
        if dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise ConfigError(f"{self.source}: dtype: expected auto, float32, bfloat16 or float16, got {dtype!r}")
        if dtype == "auto" and not values["use_peft"]:
            self.accounts["differs"]["dtype"] = "where all weights are trained, auto is float32 here"
        entries: list[Part] = [
            self.entry("dtype", dtype, next((k for k in ("dtype", "torch_dtype") if k in self.given), "dtype"))
        ]
        if values["trust_remote_code"]:
            entries.append(self.entry("trust_remote_code", True, "trust_remote_code"))
        entries += self._quantised()
        if values["use_peft"]:
            modules = values["lora_target_modules"]
            modules = modules[0] if isinstance(modules, list) and modules == ["all-linear"] else modules
            drop = 0.0 if values["disable_dropout"] else values["lora_dropout"]
            says = "`disable_dropout` switches it off, in TRL too" if drop != values["lora_dropout"] else ""
            scale = math.sqrt(values["lora_r"]) if values["use_rslora"] else 1.0
            adapters = [
                self.entry("r", values["lora_r"], "lora_r"),
                self.entry(
                    "alpha",
                    round(values["lora_alpha"] * scale, 6),
                    "lora_alpha",
                    says="times the root of r, for use_rslora" if scale != 1.0 else "",
                ),
                self.entry("dropout", drop, "lora_dropout", says=says),
                self.entry(
                    "target_modules",
                    modules or ["q_proj", "v_proj"],
                    "lora_target_modules",
                    says="" if modules else "what peft takes for Llama, Mistral and Qwen; `all-linear` learns more",
                ),
                Entry("merge", False, "TRL saves the adapter alone; true writes the merged model"),
            ]
            entries.append(Section("lora", adapters, "use_peft"))
        else:
            unread = (key for key in self.given if key.startswith("lora_") or key == "use_rslora")
            self.accounts["idle"] |= dict.fromkeys(unread, "use_peft is not set, so TRL does not read it either")
            if not values["disable_dropout"]:
                minor["disable_dropout"] = self.table["disable_dropout"].says
        return Section("model_options", entries)

    def _quantised(self) -> list[Part]:
        values = self.values
        key = next((name for name in ("load_in_8bit", "load_in_4bit") if values[name]), None)
        if key is None:
            unread = (name for name in self.given if name.startswith("bnb_4bit_") or name == "use_bnb_nested_quant")
            self.accounts["idle"] |= dict.fromkeys(unread, "load_in_4bit is not set, so TRL does not read it either")
            return []
        if not values["use_peft"]:
            self.accounts["lost"][key] = "quantised weights are trained through adapters alone; set use_peft"
            return []
        if key == "load_in_4bit" and not values["use_bnb_nested_quant"]:
            self.accounts["differs"][key] = "scales are quantised once more here, as with use_bnb_nested_quant"
        kind = "int8" if key == "load_in_8bit" else values["bnb_4bit_quant_type"]
        return [self.entry("quantize", kind, key)]

    def _data(self, data: str | None, eval: str | None) -> Section:
        """What is trained and judged on."""
        values = self.values
        names: tuple[str, ...] = ()
        test: str | None = None
        if data is None:
            data, test, names = self._sources()
        elif self.given.keys() & {"dataset_name", "datasets"}:
            self.accounts["differs"]["dataset_name"] = "the data that init was given stand in its place"
        if data is None:
            raise ConfigError(
                f"{self.source}: neither dataset_name nor datasets say what to train on; give it as in "
                "`unipref init DATA --from-trl CONFIG`"
            )
        entries = [self.entry("train", data, *names)]
        if "dataset_test_split" in self.given and (eval is not None or test is None):
            self.accounts["idle"].setdefault("dataset_test_split", "no evaluation in TRL reads it")
        if eval is not None or test is not None:
            entries.append(self.entry("eval", eval or test, *([] if eval else ["dataset_test_split"])))
        elif values["test_split_size"] and 0 < values["test_split_size"] < 1:
            entries.append(self.entry("eval_share", values["test_split_size"], "test_split_size"))
        else:
            if values["test_split_size"]:
                self.accounts["minor"]["test_split_size"] = "a number of rows; eval_share is a share of them"
            says = "TRL trains on all rows and judges none; here some are always held out, for the report"
            entries.append(Entry("eval_share", HELD_OUT, "rows held out for the report" if self.evaluates else says))
        length = values["max_length"]
        if length is None and self.trainer in ("cpo", "orpo"):
            length = 512  # what these trainers take for null
        says = "TRL cuts the end of what is longer, here the start of the prompt goes first"
        if length is None:
            length, says = UNLIMITED, "null in TRL: no limit"
        if values.get("truncation_mode") == "keep_end":
            self.accounts["differs"]["truncation_mode"] = "BOS stays, and no response is lost"
            says = "the start of what is longer is cut, as with truncation_mode keep_end"
        entries.append(self.entry("max_length", length, "max_length", says=says))
        if values["dataset_config"] and "dataset_name" not in names:
            self.accounts["idle"]["dataset_config"] = "other data stand in the place of dataset_name"
        return Section("data", entries)

    def _sources(self) -> tuple[str | None, str | None, tuple[str, ...]]:
        """Training data, test data, and the keys that they come from."""
        values, lost = self.values, self.accounts["lost"]
        several = values["datasets"]
        if several:
            entries = several if isinstance(several, list) else [several]
            if not all(isinstance(one, Mapping) and one.get("path") for one in entries):
                raise ConfigError(f"{self.source}: datasets: expected a list of entries with a `path` each")
            first, *others = entries
            if others:
                left = ", ".join(str(one["path"]) for one in others)
                lost["datasets"] = f"the first alone is trained on, {left} not; write their rows into one file"
            elif first.get("name") or first.get("data_dir"):
                word = "name" if first.get("name") else "data_dir"
                lost["datasets"] = f"a recipe names no {word} ({first[word]}) of a data set; save its rows to a file"
            files = first.get("data_files")
            if isinstance(files, str) and files.endswith((*DATA_FILES, ".gz")):
                return files, None, ("datasets",)
            if files is not None:
                lost["datasets"] = f"of data_files a recipe takes one file, got {files!r}"
            return self._named(str(first["path"]), first.get("split") or "train", "datasets"), None, ("datasets",)
        name = values["dataset_name"]
        if not name:
            return None, None, ()
        names = ("dataset_name", "dataset_train_split")
        train = self._named(name, values["dataset_train_split"], "dataset_name")
        if not self.evaluates:
            return train, None, names
        test = self._named(name, values["dataset_test_split"], "dataset_test_split")
        return train, None if test in (train, name) else test, names

    def _named(self, name: str, split: str, key: str) -> str:
        """The split of a hub data set, or the file of a local folder that holds it; `key` is lost where none does."""
        path = Path(name).expanduser()
        if not (path.exists() or name.startswith((".", "/", "~")) or name.endswith((*DATA_FILES, ".gz"))):
            return f"{name}:{split}"
        if not path.is_dir():
            return name
        files = sorted(file for file in path.iterdir() if any(end in DATA_FILES for end in file.suffixes))
        of_split = [file for file in files if split in file.name]
        if len(of_split) == 1 or len(files) == 1:
            return str((of_split or files)[0])
        kind = "eval" if key == "dataset_test_split" else "train"
        self.accounts["lost"][key] = (
            f"which of the {len(files)} data files in {name} is {split!r} is not clear; name one as data.{kind}"
        )
        return name

    def _train(self) -> Section:
        values = self.values
        steps = values["max_steps"] if values["max_steps"] and values["max_steps"] > 0 else None
        each, gathered = values["per_device_train_batch_size"], values["gradient_accumulation_steps"]
        says = "their product, on one device; multiply it by the number of yours"
        if self.trainer == "kto":
            says += ". TRL counts responses, here a row with `chosen` and `rejected` counts once"
        entries: list[Part] = [
            self.entry("learning_rate", values["learning_rate"], "learning_rate"),
            self.entry(
                "batch_size", each * gathered, "per_device_train_batch_size", "gradient_accumulation_steps", says=says
            ),
            self.entry("epochs", values["num_train_epochs"], "num_train_epochs"),
        ]
        if steps is not None:
            entries.append(self.entry("max_steps", steps, "max_steps"))
        entries += [*self._schedule(steps), self._optimizer()]
        entries += [
            self.entry("weight_decay", values["weight_decay"], "weight_decay"),
            self.entry("max_grad_norm", values["max_grad_norm"] or None, "max_grad_norm"),
            self._precision(),
            self.entry("gradient_checkpointing", values["gradient_checkpointing"], "gradient_checkpointing"),
        ]
        order = values["train_sampling_strategy"]
        if order == "group_by_length":
            entries.append(self.entry("group_by_length", True, "train_sampling_strategy"))
        elif order != "random" and self.trainer != "kto":
            self.accounts["minor"]["train_sampling_strategy"] = f"{order}: rows are shuffled"
        return Section("train", [*entries, *self._rhythm(steps)])

    def _schedule(self, steps: int | None) -> list[Part]:
        values, minor = self.values, self.accounts["minor"]
        kind, warm, key = values["lr_scheduler_type"], values["warmup_steps"] or 0.0, "warmup_steps"
        guess = ""
        if not warm and values["warmup_ratio"]:
            warm, key = values["warmup_ratio"], "warmup_ratio"
        if warm >= 1:  # a number of steps
            if steps is None:
                minor[key] = (
                    f"{warm:g} steps: warmup_share is a share of all steps; divide it by the number that "
                    "`unipref align RECIPE --dry-run` tells"
                )
                guess = f"a guess: {warm:g} steps in TRL"
                warm = 0.1
            else:
                warm = min(0.99, round(warm / steps, 4))
        if kind == "constant":  # TRL's has no warm-up either
            warm, guess = 0.0, ""
        share = self.entry("warmup_share", warm, key, says=guess)
        if kind not in ("linear", "cosine", "constant"):
            taken = next((known for known in ("constant", "cosine") if str(kind).startswith(known)), "linear")
            minor["lr_scheduler_type"] = f"{kind}: a recipe has linear, cosine and constant; {taken} is taken"
            kind = taken
        return [share, self.entry("schedule", kind, "lr_scheduler_type")]

    def _optimizer(self) -> Entry:
        name = str(self.values["optim"])
        known = {"adamw": "adamw", "paged_adamw": "adamw", "adafactor": "adafactor", "rmsprop": "rmsprop", "sgd": "sgd"}
        eight_bit = {"adamw_8bit": "adamw_8bit", "adamw_bnb_8bit": "adamw_8bit", "paged_adamw_8bit": "paged_adamw_8bit"}
        if name in eight_bit:
            return self.entry("optimizer", eight_bit[name], "optim")
        taken = next((ours for start, ours in known.items() if name.startswith(start)), None)
        if taken is None:
            self.accounts["minor"]["optim"] = f"{name}: a recipe has {', '.join(dict.fromkeys(known.values()))}"
        elif "bit" in name or "paged" in name or "anyprecision" in name:
            self.accounts["differs"]["optim"] = f"{name} keeps its moments in fewer bits; here they are float32"
        return self.entry("optimizer", taken or "adamw", "optim")

    def _precision(self) -> Entry:
        half, old = self.values["bf16"], self.values["fp16"]
        if old:
            self.accounts["differs"]["fp16"] = self.table["fp16"].says
        on = bool(old) if half is None else bool(half)
        on = on or (half is None and not old)
        says = "`auto` takes float32 where a processor has no bfloat16 of its own" if on else ""
        return self.entry("precision", "bfloat16" if on else "float32", "fp16" if old else "bf16", says=says)

    def _rhythm(self, steps: int | None) -> list[Part]:
        """How often is logged, evaluated and saved."""
        values, idle = self.values, self.accounts["idle"]

        def whole(key: str, number: float | None, otherwise: int | None) -> int | None:
            """A number of steps; a share of them needs to know how many there are."""
            if number is None or number <= 0:
                return otherwise
            if number >= 1:
                return int(number)
            if steps is not None:
                return max(1, round(number * steps))
            idle[key] = f"{number:g} is a share of the steps, and their number is not known here"
            return otherwise

        entries: list[Part] = [
            self.entry("logging_steps", whole("logging_steps", values["logging_steps"], 10), "logging_steps")
        ]
        strategy = values["eval_strategy"]
        if strategy == "steps":
            key = "eval_steps" if values["eval_steps"] else "logging_steps"
            every = whole(key, values[key], None)
            says = "on a tenth of the training conversations, so that the held-out rows choose nothing"
            entries.append(self.entry("eval_steps", every, key, says=says))
        elif strategy == "epoch":
            idle["evaluation_strategy" if "evaluation_strategy" in self.given else "eval_strategy"] = (
                "epoch: evaluated at the end; give train.eval_steps for more"
            )
        if values["save_strategy"] == "steps":
            entries.append(self.entry("save_steps", whole("save_steps", values["save_steps"], 500), "save_steps"))
        elif values["save_strategy"] == "epoch":
            idle["save_strategy"] = "epoch: saved at the end; give train.save_steps for more"
        entries.append(self._best())
        trackers = values["report_to"]
        if trackers == "all" or trackers == ["all"]:
            idle["report_to"] = "all: name the trackers, such as [wandb, tensorboard]"
            trackers = "none"
        entries.append(self.entry("report_to", "none" if trackers in (None, []) else trackers, "report_to"))
        return entries

    def _best(self) -> Entry:
        if not self.values["load_best_model_at_end"]:
            return self.entry("keep_best", None, "load_best_model_at_end", says="null keeps the last checkpoint")
        metric = (self.values["metric_for_best_model"] or "loss").removeprefix("eval_")
        if metric not in ("loss", "rewards/accuracies", "rewards/margins"):
            self.accounts["minor"]["metric_for_best_model"] = f"{metric}: the loss is taken"
            metric = "loss"
        return self.entry("keep_best", f"eval_{metric}", "metric_for_best_model")

    def _stage(self) -> Items:
        loss = self.loss
        if self.trainer == "orpo":
            trl = "ORPO"
        else:
            kinds = self.values["loss_type"]
            trl = f"{self.trainer.upper()}, loss_type {', '.join(kinds) if isinstance(kinds, list) else kinds}"
        lines = [f"TRL's {trl}."]
        lines += [f"{key}: {words}." for key, words in loss.differs.items()]
        lines += [f"NOT THE SAME LOSS, {key}: {words}." for key, words in loss.lost.items()]
        options = [self._option(name, value) for name, value in loss.options.items()]
        return Items("stages", [[Entry("method", loss.method), Section("options", options)]], "\n".join(lines))

    def _option(self, name: str, value: Any) -> Entry:
        keys = {"gamma": "beta", "tau": "beta", "flip": "label_smoothing", "beta": "beta", "alpha": "cpo_alpha"}
        keys |= {"lambda_d": "desirable_weight", "lambda_u": "undesirable_weight", "delta": "1 / beta"}
        if self.loss.method == "simpo":
            keys["gamma"] = "simpo_gamma"
        if name == "lam":
            keys["lam"] = {"orpo": "beta", "dpo_sft": "loss_weights"}.get(self.loss.method, "cpo_alpha")
        key = keys.get(name)
        if key is None or key not in self.table:
            return Entry(name, value, key or "")
        default = "" if key in self.given else "TRL's default"
        return Entry(name, value, ", ".join(filter(None, ["" if key == name else key, default])))


def _typed(value: Any, kind: type) -> Any:
    """`value` as the key's kind; words that TRL's own parser takes for numbers, switches and null are taken too.

    Raises:
        ValueError: it is none.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in _NULL and kind is not str):
        return None
    if kind is bool:
        word = str(value).strip().lower()
        if isinstance(value, bool) or word in (*_TRUE, *_FALSE):
            return word in _TRUE
        raise ValueError(f"expected true or false, got {value!r}")
    if kind in (int, float):
        try:
            number = float(value) if not isinstance(value, bool) else math.nan
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number) or (kind is int and number != int(number)):
            raise ValueError(f"expected a {'whole ' if kind is int else ''}number, got {value!r}")
        return kind(number)
    if kind is str and isinstance(value, bool):  # YAML 1.1 has `no` for false, as in `eval_strategy: no`
        return "yes" if value else "no"
    if kind is str and not isinstance(value, str | int | float):
        raise ValueError(f"expected one word, got {value!r}")
    return str(value) if kind is str else value
