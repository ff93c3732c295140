"""The one preference model: a composition of parts that is fitted to comparisons, asked, taught newcomers and saved."""

import functools
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unipref.core.cards import get_method, method
from unipref.core.errors import ConfigError, DataError
from unipref.core.io import write_json, writing_folder
from unipref.core.statistics import both_sides, pair_accuracy
from unipref.data.pairs import UNNAMED
from unipref.objectives import Objective, Term, as_objective
from unipref.rewards._threads import one_thread
from unipref.rewards.models.data import Data, Scaling, numbers_of
from unipref.rewards.models.descent import Problem, descent
from unipref.rewards.models.heads import difference
from unipref.rewards.models.net import Net
from unipref.rewards.models.parts import Adaptation, AddOn, Encoder, Fitting, Head, Mixing, Sizes
from unipref.rewards.table import PreferenceTable

__all__ = ["PreferenceModel", "load_preference_model", "make_model", "preference_model"]

FORMAT = "unipref-preference-model-1"
_FILES = "reward.json and model.safetensors"
_EXACT = 2**26  # numbers of features up to which the arithmetic is in float64
_SMALL = 2**22  # numbers of features up to which one thread is the fastest
_CHUNK = 16_384


class PreferenceModel:
    """A model of who prefers what: P(first preferred) = sigmoid(logit), and where it has them, rewards of responses.

    It is used as scikit-learn's estimators are, on a `PreferenceTable`. Both orders of a pair have probabilities that
    add up to 1.

    Args:
        head: features of a response to numbers. encoder: who is asked, to a code. mixing: both to a comparison.
        objective: the loss, of the algebra; it reads the column "reward_head".
        addons: further terms of the fit.
        fitting: how parameters are found. adaptation: how newcomers are learned; None: they get the fallback.
        scale: what happens to features first: "each" is centred and divided by its spread over training responses;
            "all" by one spread; "none".
        needs: what a table must have besides comparisons: "user", "domain", "context", "attributes", "columns".

    Attributes:
        users_, domains_: names that were trained on or adapted to, in the order of their numbers.
        told_: what is said of the fit. notes_: warnings about the training data, one sentence each.
        about: what whoever trained the model wants kept beside it (features, data), for `save`.
    """

    key = ""  # both set by `preference_model`
    options: Mapping[str, Any] = {}

    def __init__(
        self,
        head: Head,
        objective: Objective | Term,
        *,
        encoder: Encoder | None = None,
        mixing: Mixing | None = None,
        addons: tuple[AddOn, ...] = (),
        fitting: Fitting | None = None,
        adaptation: Adaptation | None = None,
        scale: str = "each",
        needs: Iterable[str] = (),
    ) -> None:
        self.head, self.encoder = head, encoder
        self.mixing = difference() if mixing is None else mixing
        self.objective = as_objective(objective)
        self.addons = addons
        self.fitting = descent() if fitting is None else fitting
        self.adaptation, self.scale, self.needs = adaptation, scale, tuple(needs)
        self.about: dict[str, Any] = {}

    @property
    def convex(self) -> bool:
        """Whether the fit has one optimum."""
        parts = (self.head, *(() if self.encoder is None else (self.encoder,)), self.mixing, *self.addons)
        return all(part.convex for part in parts)

    @property
    def reads_prompts(self) -> bool:
        """Whether vectors of prompts enter, where the table has them."""
        return "context" in self.needs or getattr(self.encoder, "reads_prompts", False)

    # ---- scikit-learn's manner ----

    def fit(self, table: PreferenceTable, *, start: "PreferenceModel | None" = None) -> "PreferenceModel":
        """Learn from comparisons.

        Args:
            start: a fitted model of the same parts, such as one of many comparisons of another kind. The fit begins at
                its numbers, the ridge pulls to them in place of 0, and features are scaled as it scales them.

        Raises:
            DataError: the table lacks what the model needs, has no comparison that is no tie, or features that are not
                finite. ConfigError: `start` is made of other parts, or knows other users or domains.
        """
        self._check(table)
        used = np.concatenate([table.first, table.second])
        self.scaling_ = Scaling.of(table.features, used, self.scale, table.columns)
        self.context_scaling_ = None
        if table.contexts is not None and self.reads_prompts:
            self.context_scaling_ = Scaling.of(table.contexts, table.context, self.scale)
        self.columns_, self.attribute_names_ = table.columns, table.attribute_names
        self.users_ = table.users if getattr(self.encoder, "learns_users", True) else ()
        self.domains_ = table.domains
        small = 2 * len(table) * table.width <= _EXACT
        self.dtype_ = torch.float64 if small else torch.float32
        self.sizes_ = Sizes(
            table.width,
            table.context_width if self.reads_prompts else 0,
            len(self.users_),
            len(self.domains_),
            len(table.attribute_names),
        )
        if start is not None:
            self._begin_at(start)
        self.notes_ = self._notes(table)
        data = self._data(table)
        centre = None if start is None else start.net_
        problem = Problem(
            lambda seed: self._net(seed, data) if centre is None else deepcopy(centre).to(self.dtype_).requires_grad_(),
            self.objective,
            self.addons,
            self.convex,
            None if centre is None else deepcopy(centre).to(self.dtype_).requires_grad_(),
        )
        # a fit has a seed of its own, and leaves the caller's draws alone
        with torch.random.fork_rng(devices=[]), one_thread(where=2 * len(table) * table.width <= _SMALL):
            self.net_, self.told_ = self.fitting.fit(problem, data)
        self.notes_ += self.told_.pop("notes", [])
        with torch.no_grad():
            for module in self.net_.modules():
                if hasattr(module, "end"):
                    module.end(self.net_, data)
        self.net_.requires_grad_(False)
        self.told_ |= {"comparisons": len(table), "features": table.width}
        return self

    def decision_function(self, table: PreferenceTable) -> np.ndarray:
        """(N,) logits of the probability that the first is preferred.

        Raises:
            DataError: features, or prompts, that are not finite.
        """
        data = self._data(table)
        logits = np.empty(len(data))
        with torch.no_grad():
            for start in range(0, len(data), _CHUNK):
                index = np.arange(start, min(start + _CHUNK, len(data)))
                logits[index] = self.net_(data.rows(index)).logit.double().numpy()
        return _finite(logits, "comparisons")

    def predict_proba(self, table: PreferenceTable) -> np.ndarray:
        """(N, 2) probabilities that the second and that the first is preferred."""
        return both_sides(self.decision_function(table))

    def score(self, table: PreferenceTable) -> float:
        """Accuracy by weight over the comparisons that are no ties; an even verdict is half right."""
        return pair_accuracy(self.decision_function(table), table.p, table.weight)

    def reward(
        self,
        features: np.ndarray,
        *,
        contexts: np.ndarray | None = None,
        user: str | Sequence[str] | None = None,
        domain: str | Sequence[str] | None = None,
    ) -> np.ndarray:
        """(M,) rewards of single responses, up to a constant that no comparison of the same prompt and user sees.

        Args:
            features: (M, D). contexts: (M, E), where the model reads prompts.
            user, domain: a name for all, or one for each; None or a name the model does not know: the fallback.

        Raises:
            ConfigError: the model's comparisons are no differences of rewards. DataError: features, or prompts, that
                are not finite.
        """
        m = len(features)
        table = PreferenceTable(
            np.asarray(features),
            np.arange(m),
            np.arange(m),
            np.full(m, 0.5),
            contexts=contexts,
            context=None if contexts is None else np.arange(m),
            user=_spread(user, m),
            domain=_spread(domain, m),
        )
        data, rewards = self._data(table), np.empty(m)
        with torch.no_grad():
            for start in range(0, m, _CHUNK):
                index = np.arange(start, min(start + _CHUNK, m))
                rows = data.rows(index)
                code = None if self.net_.encoder is None else self.net_.encoder(rows)
                rewards[index] = self.net_.mixing.alone(self.net_.head(rows.first), code).double().numpy()
        return _finite(rewards, "responses")

    # ---- newcomers ----

    def unseen(self, table: PreferenceTable) -> dict[str, Any]:
        """Who of the table the model does not know: {"users": [...], "user_rows": n, "domains": [...], ...}.

        Only what the model reads counts. "fallback" says what they get.
        """
        told: dict[str, Any] = {"users": [], "user_rows": 0, "domains": [], "domain_rows": 0}
        for what, known in (("user", self.users_), ("domain", self.domains_)):
            if self.encoder is None:
                continue  # a name may have weighed in the fit; nothing reads it now
            if what in self.needs or (what == "user" and self.encoder.reads_users):
                names = getattr(table, what)
                unknown = numbers_of(names, _numbered(known)) < 0
                told[f"{what}s"] = sorted({str(name) for name in names[unknown]})
                told[f"{what}_rows"] = int(unknown.sum())
        told["fallback"] = getattr(self.encoder, "fallback", "") if told["user_rows"] or told["domain_rows"] else ""
        return told

    def adapt(self, table: PreferenceTable) -> "PreferenceModel":
        """A model that knows the table's newcomers too; whatever it knew before it says bit by bit as before.

        Raises:
            ConfigError: this model has no adaptation. DataError: the table names nobody new.
        """
        if self.adaptation is None:
            raise ConfigError(
                f"{self.key or 'this model'} has no users or domains to adapt to; "
                "train one that has, such as lore or pal"
            )
        grown = copy(self)
        grown.net_, grown.users_, grown.domains_ = self.adaptation.adapt(self, table)
        grown.sizes_ = Sizes(
            self.sizes_.features,
            self.sizes_.contexts,
            len(grown.users_),
            len(grown.domains_),
            self.sizes_.attributes,
        )
        grown.net_.requires_grad_(False)
        return grown

    # ---- files ----

    def save(self, folder: Path | str) -> None:
        """Write `model.safetensors` and `reward.json`; the folder is whole or absent.

        Raises:
            ConfigError: the model is not fitted, or was not made by its name, or a file has the folder's name.
        """
        if Path(folder).is_file():
            raise ConfigError(f"{folder} is a file; a model is a folder of two: give another name")
        with writing_folder(folder) as into:
            self.write(into)

    def write(self, into: Path) -> None:
        """Both files, into a folder that is there."""
        if not self.key:
            raise ConfigError("only a model that was made by its name can be saved: unipref.rewards.make_model(...)")
        tensors = {f"net.{name}": value.contiguous() for name, value in self.net_.state_dict().items()}
        for name, scaling in (("features", self.scaling_), ("contexts", self.context_scaling_)):
            if scaling is not None:
                for slot in ("centre", "spread", "constant"):
                    tensors[f"{name}.{slot}"] = torch.from_numpy(np.ascontiguousarray(getattr(scaling, slot)))
        save_file(tensors, str(into / "model.safetensors"))
        write_json(
            into / "reward.json",
            {
                "format": FORMAT,
                "method": self.key,
                "options": dict(self.options),
                "sizes": vars(self.sizes_),
                "users": list(self.users_),
                "domains": list(self.domains_),
                "columns": list(self.columns_),
                "attributes": list(self.attribute_names_),
                "dtype": str(self.dtype_).removeprefix("torch."),
                "told": self.told_,
                "notes": self.notes_,
                "about": self.about,
            },
        )

    # ---- within ----

    def _begin_at(self, start: "PreferenceModel") -> None:
        """Take the scaling of another model, which must be of the same parts and sizes."""
        why = "it is not fitted" if not hasattr(start, "net_") else self._unlike(start)
        if why:
            raise ConfigError(f"the fit cannot begin at the model {start.key or 'given'}: {why}")
        self.scaling_, self.context_scaling_ = start.scaling_, start.context_scaling_

    def _unlike(self, start: "PreferenceModel") -> str:
        """Why the numbers of another model do not fit this one; "" where they do."""
        for slot in ("head", "encoder", "mixing", "addons", "reads_prompts"):
            if getattr(self, slot) != getattr(start, slot):
                return f"its {slot} differs"
        for what, own, other in (("user", self.users_, start.users_), ("domain", self.domains_, start.domains_)):
            if what in self.needs and own != other:
                return f"it knows other {what}s; teach it these with adapt"
        if self.sizes_.features != start.sizes_.features:
            return f"it reads {start.sizes_.features} features and the table has {self.sizes_.features}"
        return ""

    def _net(self, seed: int, data: Data | None = None) -> Net:
        """A net before its fit; its parts take from the training data what they keep of it."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = Net(self.head, self.encoder, self.mixing, self.addons, self.sizes_).to(self.dtype_)
            for module in net.modules() if data is not None else ():
                if hasattr(module, "begin"):
                    module.begin(data)
        return net

    def _data(self, table: PreferenceTable) -> Data:
        if not hasattr(self, "scaling_"):
            raise ConfigError("the model is not fitted yet; call fit(table) first")
        if self.context_scaling_ is not None and table.contexts is None:
            raise DataError("the model reads prompts, and the table has no contexts; make it with the same features")
        users, domains = _numbered(self.users_), _numbered(self.domains_)
        return Data(table, self.scaling_, self.context_scaling_, users, domains, self.dtype_)

    def _check(self, table: PreferenceTable) -> None:
        if not len(table) or not (table.p != 0.5).any() or not table.weight[table.p != 0.5].any():
            raise DataError(f"of {len(table)} comparisons none says which side is better; there is nothing to learn")
        missing = {
            "user": not table.users,
            "domain": not table.domains,
            "context": table.contexts is None,
            "attributes": table.attributes is None,
            "columns": not table.columns,
        }
        for what in self.needs:
            if missing[what]:
                raise DataError(f"{self.key or 'the model'} needs {_MEANING[what]}, and the data have none")

    def _notes(self, table: PreferenceTable) -> list[str]:
        notes = []
        constant = int(self.scaling_.constant.sum())
        if constant:
            named = [name for name, flat in zip(self.columns_, self.scaling_.constant, strict=False) if flat][:5]
            told = f" ({', '.join(named)}{', ...' if constant > len(named) else ''})" if named else ""
            notes.append(f"{constant} of {table.width} features{told} are the same in all training responses: unused")
        same = int((table.first == table.second).sum())
        if same:
            notes.append(f"{same} of {len(table)} comparisons are of a response with itself and say nothing")
        if "user" in self.needs:
            counts = {name: int(((table.user == name) & (table.p != 0.5)).sum()) for name in self.users_}
            few = [name for name, n in counts.items() if n < 2]
            if few:
                notes.append(
                    f"{len(few)} of {len(counts)} users have fewer than 2 choices, which hardly tell their taste "
                    f"({', '.join(few[:5])}{', ...' if len(few) > 5 else ''})"
                )
            nobody = int((table.user == UNNAMED).sum())
            if nobody:
                notes.append(
                    f"{nobody} of {len(table)} comparisons name no user: {self.encoder.fallback} stands for them"
                )
        return notes


_MEANING = {
    "user": "to know whose comparison it is (the column `user`, or `annotator`)",
    "domain": "to know the domain of a comparison (the column `domain`)",
    "context": "vectors of prompts (features that read the prompt)",
    "attributes": "ratings of responses by attribute",
    "columns": "features that have names (concepts or surface features), since its weights are there to be read",
}


def _finite(said: np.ndarray, what: str) -> np.ndarray:
    odd = ~np.isfinite(said)
    if odd.any():
        raise DataError(
            f"{int(odd.sum())} of {len(said)} {what} have features or prompts that are not finite or far too large, "
            f"the first at row {int(odd.argmax())}; leave them out, or make their numbers as those of the training data"
        )
    return said


def _numbered(names: Sequence[str]) -> dict[str, int]:
    return {name: k for k, name in enumerate(names)}


def _spread(names: str | Sequence[str] | None, n: int) -> np.ndarray | None:
    return np.full(n, names, dtype=object) if isinstance(names, str) else None if names is None else np.asarray(names)


Maker = Callable[..., PreferenceModel]


def preference_model(key: str, **card: Any) -> Callable[[Maker], Maker]:
    """A decorator for the files of the catalogue: the function's card, of kind "reward", with the slots of `method`.

    The model that the function returns knows its name and options, by which it is loaded again.
    """

    def register(function: Maker) -> Maker:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def build(*args: Any, **options: Any) -> PreferenceModel:
            bound = signature.bind(*args, **options)
            bound.apply_defaults()
            model = function(*bound.args, **bound.kwargs)
            model.key, model.options = key, dict(bound.arguments)
            return model

        return method(key, kind="reward", **card)(build)

    return register


def make_model(name: str, **options: Any) -> PreferenceModel:
    """The preference model called `name`, not fitted yet.

    Raises:
        ConfigError: there is none, or an option does not fit.
    """
    return get_method(name, "reward").build(**options)


def read_description(folder: Path | str) -> dict[str, Any]:
    """What `reward.json` says of the model in `folder`: "method", "options", "users", "about", ...

    Raises:
        ConfigError: there is none, or one that this version does not read.
    """
    path = Path(folder)
    try:
        told = json.loads((path / "reward.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise ConfigError(f"{path} holds no preference model ({_FILES}): {err}") from err
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise ConfigError(f"{path}/reward.json is not of the format {FORMAT}; train the model again with this version")
    return told


def load_preference_model(folder: Path | str) -> PreferenceModel:
    """The model that `PreferenceModel.save` wrote; its files are numbers and names, and nothing in them is run.

    Raises:
        ConfigError: the folder holds no such model, or one that this version does not read.
    """
    path, told = Path(folder), read_description(folder)
    try:
        tensors = load_file(str(path / "model.safetensors"))
    except (OSError, ValueError, SafetensorError) as err:
        raise ConfigError(f"{path} holds no preference model ({_FILES}): {err}") from err
    try:
        odd = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
        odd += [name for name in tensors if name.endswith(".spread") and not (tensors[name] > 0).all()]
        if odd:
            raise ConfigError(f"{path}: {odd[0]} holds numbers that no fit leaves; train the model again")
        return _restored(told, tensors)
    except (KeyError, TypeError, AttributeError, RuntimeError) as err:
        raise ConfigError(f"{path}: the files are not of one model, or not whole: {err}") from err


def _restored(told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> PreferenceModel:
    model = make_model(told["method"], **told["options"])
    model.sizes_ = Sizes(**told["sizes"])
    model.users_, model.domains_ = tuple(told["users"]), tuple(told["domains"])
    model.columns_, model.attribute_names_ = tuple(told["columns"]), tuple(told["attributes"])
    model.dtype_ = {"float32": torch.float32, "float64": torch.float64}[told["dtype"]]
    model.told_, model.notes_, model.about = told["told"], told["notes"], told["about"]
    model.scaling_ = _scaling(tensors, "features", model.sizes_.features)
    model.context_scaling_ = None
    if "contexts.centre" in tensors:
        model.context_scaling_ = _scaling(tensors, "contexts", model.sizes_.contexts)
    model.net_ = model._net(0)
    model.net_.load_state_dict(
        {name.removeprefix("net."): value for name, value in tensors.items() if name.startswith("net.")}
    )
    model.net_.requires_grad_(False)
    return model


def _scaling(tensors: Mapping[str, Tensor], name: str, width: int) -> Scaling:
    slots = [tensors[f"{name}.{slot}"] for slot in ("centre", "spread", "constant")]
    if any(slot.shape != (width,) for slot in slots):
        raise ConfigError(f"the scaling of {name} is of {len(slots[0])} numbers, and the model reads {width}")
    return Scaling(*(slot.numpy() for slot in slots))
