"""The one trainer: a `transformers.Trainer` whose step's loss does not depend on how the step was cut up.

One batch of the trainer is a rank's records of one optimiser step. Inside the step they are cut into forwards by a
token budget; every term divides global sums, so micro-batches, packing and ranks change nothing but the time. Where the
rows of a step are tied by more than that (a running mean of the policy's own values, a loss of all pairs together), a
step that takes several forwards is first scored without gradient; one forward alone needs no second one.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from unipref.core.batch import Batch, Clock
from unipref.core.errors import ConfigError, UniprefError
from unipref.core.io import write_text
from unipref.core.tries import Trie, TrieBatch, build_trie, pack
from unipref.engine import Distribution, Policy, reference_distribution
from unipref.engine.shape import ModelShape
from unipref.objectives import Loss, Objective, as_objective
from unipref.training.allocation import keeping_freed_memory
from unipref.training.examples import Example, assemble, data_batch, split_by_tokens
from unipref.training.metrics import MetricSums, batch_metrics
from unipref.training.precision import autocast
from unipref.training.prepared import known_of, pairs_of, prompts_of, sizes_of
from unipref.training.sampler import StepSampler
from unipref.training.sharding import (
    SHARDS,
    accelerate_unsharded,
    asked_sharding,
    check_optimizer,
    gathered_state,
    is_sharded,
    load_shards,
    load_whole_optimizer,
    save_shards,
    shard,
)

__all__ = ["COMPLETE", "NonFiniteLossError", "PreferenceTrainer", "last_checkpoint"]

COMPLETE = "complete.json"  # written last into a checkpoint; a resume trusts no folder without it
HEADS = "heads.safetensors"
STATES = "states.json"  # what the objective keeps from step to step
OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"  # as `transformers.Trainer` names them


class NonFiniteLossError(UniprefError, ArithmeticError):
    """The loss became NaN or infinite; nothing was updated with it."""


def last_checkpoint(folder: Path | str) -> Path | None:
    """The newest whole checkpoint in `folder`, or None. A folder that a kill left half-written is passed over."""
    found = [path.parent for path in Path(folder).glob(f"checkpoint-*/{COMPLETE}")]
    return max(found, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def _moved(batch: Batch, device: Any) -> Batch:
    """`batch` on `device`, without gradient."""
    parts = (batch.items, batch.pairs, batch.tokens, batch.statistics)
    return Batch(*({name: v.detach().to(device) for name, v in part.items()} for part in parts), batch.clock)


@dataclass(frozen=True, eq=False)
class _Pull:
    """The gradient of a step's loss in the values of one forward."""

    tokens: Mapping[str, torch.Tensor]
    items: Mapping[str, torch.Tensor]

    def surrogate(self, batch: Batch) -> torch.Tensor:
        """0-d, with this gradient; its value means nothing."""
        parts = [(batch.tokens[name], slope) for name, slope in self.tokens.items()]
        parts += [(batch.items[name], slope) for name, slope in self.items.items()]
        return sum(((value * slope).sum() for value, slope in parts), torch.zeros((), device=batch.items["len"].device))


def _collate(examples: list[Example]) -> dict[str, list[Example]]:
    return {"examples": examples}


class PreferenceTrainer(Trainer):
    """Trains a policy (and its heads) on an objective.

    Args:
        policy: the one wrapped module.
        objective: what to minimise.
        args: as for `transformers.Trainer`; `per_device_train_batch_size` is a rank's records per optimiser step and
            `gradient_accumulation_steps` stays 1, because the step cuts itself up.
        train, heldout: examples; references that the objective needs are cached in them or given live. `train` may make
            them when they are asked for (`PreparedExamples`); it is never gone through as a whole then.
        max_tokens: trie nodes per forward.
        references: live references by column name ("ref_logp", "ref_logp.NAME"), used where an example caches none.
            None as the value is the policy with its adapters switched off.
        by_length: rows of similar length share a step.
        by_prompt: rows of one prompt or conversation share a step (`StepSampler` says how).
        share_prompts: what records of one forward begin with alike is computed once. It changes no loss and no
            gradient, only the time.
        tokenizer: saved beside the weights.

    Raises:
        ConfigError: the objective needs a column, head or reference that nothing provides.
    """

    def __init__(
        self,
        policy: Policy,
        objective: Objective,
        args: TrainingArguments,
        train: Sequence[Example],
        heldout: Sequence[Example] = (),
        *,
        max_tokens: int = 8192,
        references: Mapping[str, Policy | None] | None = None,
        by_length: bool = False,
        by_prompt: bool = False,
        share_prompts: bool = True,
        tokenizer: Any = None,
        callbacks: Sequence[Any] = (),
    ) -> None:
        self.objective = as_objective(objective)
        self.references = dict(references or {})
        self.max_tokens, self.by_length, self.by_prompt = max_tokens, by_length, by_prompt
        self.share_prompts = share_prompts
        self._pair_cost = ModelShape.of(policy).pair_cost
        self._check(policy, args, train)
        self._sharding = asked_sharding()
        if self._sharding is not None:
            check_optimizer(str(getattr(args.optim, "value", args.optim)))
            precision = "bfloat16" if args.bf16 else "float32"
            for module in (policy, *(r for r in self.references.values() if r is not None)):
                shard(module, self._sharding, device=args.device, precision=precision)
        with accelerate_unsharded():
            super().__init__(
                model=policy,
                args=args,
                data_collator=_collate,
                train_dataset=train,  # not a list: data that do not fit in memory make an example when it is asked for
                eval_dataset=list(heldout) or None,
                processing_class=tokenizer,
                callbacks=list(callbacks),
            )
        if self._sharding is not None:
            self.accelerator.prepare = self._prepare_sharded
        self.model_accepts_loss_kwargs = False
        self._states: dict[str, torch.Tensor | None] = {state.name: None for state in self.objective.states}
        self._sums = MetricSums()
        self.started = time.perf_counter()  # what the log's seconds count from
        self._tokens = 0
        for reference in self.references.values():
            if reference is not None:
                reference = reference if is_sharded(reference) else reference.to(args.device)
                reference.eval().requires_grad_(False)

    def _check(self, policy: Policy, args: TrainingArguments, train: Sequence[Example]) -> None:
        if not len(train):
            raise ConfigError("there is no record to train on; `data.json` in the run folder says what was set aside")
        if args.gradient_accumulation_steps != 1:
            raise ConfigError(
                "gradient_accumulation_steps must stay 1: a step cuts its records into forwards of max_tokens by itself"
            )
        missing = sorted(set(self.objective.heads) - set(policy.heads))
        if missing:
            raise ConfigError(f"the objective trains heads that the policy lacks: {', '.join(missing)}")
        needed = {name for name in self.objective.needs if name == "ref_logp" or name.startswith("ref_logp.")}
        known = known_of(train)
        lacking = sorted(needed - set(self.references) - known.references)
        if lacking:
            raise ConfigError(
                f"the objective needs the reference columns {', '.join(lacking)}; cache them with cache_references() "
                "or pass them as live references"
            )
        absent = [name for name in self._columns(policy) if name != "uid" and name not in known.columns]
        absent += [name for name in self._token_columns() if name not in known.tokens]
        if absent:
            present = sorted(known.columns - {"rank"}) or ["none"]
            raise ConfigError(
                f"the objective needs the columns {', '.join(absent)} per response; the data has {', '.join(present)}"
            )
        if self.objective.unit_needs == "pair" and not known.compares:
            raise ConfigError("the objective compares two responses, and no record holds a comparison")
        if self.objective.unit_needs == "group" and not known.lists:
            raise ConfigError("the objective compares the responses of a record, and no record holds two")
        missing_roles = [role for role in self.objective.roles if role not in known.roles]
        if missing_roles:
            raise ConfigError(
                f"the objective needs a {missing_roles[0]!r} text beside the responses, and no record has one; "
                f"give the data a column {missing_roles[0]!r}"
            )
        if self._reads_reference() and "ref_logp" not in self.references:
            names = ", ".join((*self.objective.computed, *self._masks()))
            raise ConfigError(
                f'the objective needs a live reference for {names}; pass references={{"ref_logp": policy}}'
            )
        if self.objective.statistics and not known.mismatched:
            raise ConfigError("the objective needs mismatched responses; attach them with attach_mismatched()")

    def _columns(self, policy: Policy) -> list[str]:
        known = {"logp", "len", "label", "weight", "group", "role", "preference", "margin", *policy.heads}
        return sorted(
            name
            for name in self.objective.needs - known
            if name != "ref_logp" and not name.startswith("ref_logp.") and name not in self._statistic_names()
        )

    def _token_columns(self) -> list[str]:
        """Token columns that the data must bring: neither a log-probability nor what the engine computes."""
        made = {"logp", *self.objective.heads, *self.objective.computed}
        return sorted(n for n in self.objective.token_needs - made if n != "ref_logp" and not n.startswith("ref_logp."))

    def _masks(self) -> list[str]:
        """Heads that read the reference, token by token."""
        return [name for name in self.objective.heads if name in self.objective.token_needs]

    def _reads_reference(self) -> bool:
        return bool(self.objective.computed or self._masks())

    def _statistic_names(self) -> set[str]:
        return {statistic.name for statistic in self.objective.statistics}

    def _prepare_sharded(self, *given: Any) -> Any:
        """What `Accelerator.prepare` gives, but the policy, whose weights are shared out already, is not wrapped."""
        prepared = [
            self.accelerator.prepare_model(x, device_placement=False, evaluation_mode=True)
            if isinstance(x, torch.nn.Module)
            else self.accelerator.prepare_optimizer(x, device_placement=False)
            for x in given
        ]
        return prepared[0] if len(prepared) == 1 else tuple(prepared)

    # ---- data ----

    def get_train_dataloader(self) -> DataLoader:
        sizes = sizes_of(self.train_dataset)
        sampler = StepSampler(
            sizes,
            self.args.per_device_train_batch_size * self.args.world_size,
            seed=self.args.data_seed if self.args.data_seed is not None else self.args.seed,
            rank=self.args.process_index,
            world=self.args.world_size,
            by_length=self.by_length,
            costs=sizes + self._pair_cost * pairs_of(self.train_dataset),
            prompts=prompts_of(self.train_dataset) if self.by_prompt else None,
        )
        loader = DataLoader(self.train_dataset, batch_sampler=sampler, collate_fn=_collate)
        loader.set_epoch = sampler.set_epoch  # what the training loop calls at the start of an epoch
        self._sampler = sampler
        return loader

    # ---- one step ----

    def train(self, *args: Any, **options: Any) -> Any:
        """As `transformers.Trainer.train`. Where no log-probability is read, an untied language-model head is frozen
        meanwhile: no gradient comes to it, and data parallelism would wait for one."""
        unread = [] if self._reads_logp() else [p for p in self.policy.head_alone() if p.requires_grad]
        for parameter in unread:
            parameter.requires_grad_(False)
        try:
            with keeping_freed_memory():
                return super().train(*args, **options)
        finally:
            for parameter in unread:
                parameter.requires_grad_(True)

    def training_step(self, model: torch.nn.Module, inputs: dict[str, list[Example]], num_items_in_batch=None):
        """Backward of one optimiser step. Returns this rank's share of its loss, scaled so that ranks average to it."""
        model.train()
        clock = Clock(self.state.global_step, self.state.max_steps)
        world = self.args.world_size
        groups = self._split(inputs["examples"])
        batches = self._data(groups, clock)
        denominators = self._global_denominators(batches)
        logging = (self.state.global_step + 1) % max(int(self.args.logging_steps), 1) == 0

        n_forwards = self._max_over_ranks(len(groups))
        alone = n_forwards == 1 and world == 1
        pulls: list[_Pull] | None = None
        total = torch.zeros((), device=self.args.device)
        if not alone and (self.objective.states or self.objective.coupling == "full"):
            seen = self._look(groups, batches, n_forwards)
            statistics = self._renew(seen)
            batches = [batch.with_statistics(**statistics) for batch in batches]
            if self.objective.coupling == "full":
                seen = [batch.with_statistics(**statistics) for batch in seen]
                pulls, loss, whole = self._pulls(seen, denominators)
                total += loss.total
                if self.is_world_process_zero():  # once for all ranks: what a row says may depend on all others
                    self._collect_terms(loss)
                    self._collect(whole, denominators, diagnose=logging)
        for i in range(n_forwards):
            last = i == n_forwards - 1
            with contextlib.nullcontext() if last else self._kept_back(model):
                if i < len(groups):
                    batch = self._forward(model, groups[i], batches[i])
                    if alone and self.objective.states:
                        batch = batch.with_statistics(**self._renew([batch]))
                    if pulls is None:
                        loss = self.objective.loss(batch, denominators)
                        value = loss.total
                        total += value.detach() * world
                        self._collect_terms(loss)
                        self._collect(batch, denominators, diagnose=logging)
                    else:
                        value = pulls[i].surrogate(batch)
                else:  # another rank has more to do: take part in its communication with a gradient of zero
                    value = self._idle_forward(model)
                if not torch.isfinite(value.detach()):
                    raise NonFiniteLossError(self._non_finite(batch))
                self.accelerator.backward(value * world)  # data parallelism averages over ranks; a sum is meant
        self._sums.mark_step()
        self._tokens += sum(example.trie.n_nodes for example in inputs["examples"])
        return total

    @contextlib.contextmanager
    def _kept_back(self, model: torch.nn.Module) -> Iterator[None]:
        """Inside, gradients add up and are not used yet: DeepSpeed takes its optimiser's step inside `backward`.

        Sharded weights have no such thing: their gradients are summed over the ranks in every backward, because a sum
        that is kept back is as large as the whole model.
        """
        if not self.is_deepspeed_enabled:
            with self.accelerator.no_sync(model):
                yield
            return
        state = self.accelerator.gradient_state
        state._set_sync_gradients(False)
        try:
            yield
        finally:
            state._set_sync_gradients(True)

    def _data(self, groups: Sequence[Sequence[Example]], clock: Clock) -> list[Batch]:
        """What the data says of every forward, with the statistics that are taken over mismatched responses."""
        statistics = self._statistics(groups, clock)
        columns, tokens = self._columns(self.policy), self._token_columns()
        return [
            data_batch(group, columns=columns, tokens=tokens, clock=clock).with_statistics(**statistics)
            for group in groups
        ]

    def _split(self, examples: Sequence[Example]) -> list[list[Example]]:
        """`examples` in the forwards that they take."""
        return split_by_tokens(
            examples,
            self.max_tokens,
            pair_cost=self._pair_cost,
            alike=self.policy.path == "rows",
            share=self.share_prompts,
        )

    def _look(self, groups: Sequence[Sequence[Example]], batches: Sequence[Batch], n_forwards: int) -> list[Batch]:
        """The batches with the policy's values, without gradient."""
        seen = []
        with torch.no_grad():
            for i in range(n_forwards):
                if i < len(groups):
                    seen.append(self._forward(self.model_wrapped, groups[i], batches[i]))
                else:
                    self._idle_forward(self.model_wrapped)
        return seen

    def _renew(self, seen: Sequence[Batch]) -> dict[str, torch.Tensor]:
        """The objective's states after this step's values, and what the loss reads of them."""
        for state in self.objective.states:
            none = torch.zeros(state.n_sums, dtype=torch.float64)  # a rank may have no row of the step
            total = self._sum_over_ranks(sum((state.sums(batch).cpu() for batch in seen), none))
            self._states[state.name] = state.renewed(self._states[state.name], total)
        return self._state_values()

    def _state_values(self) -> dict[str, torch.Tensor]:
        return {
            name: value.float().to(self.args.device)
            for state in self.objective.states
            for name, value in state.values(self._states[state.name]).items()
        }

    def _pulls(
        self, seen: Sequence[Batch], denominators: Mapping[str, torch.Tensor]
    ) -> tuple[list["_Pull"], Loss, Batch]:
        """How the loss of the whole step, over all ranks, pulls at every value of this rank's forwards; that loss; and
        the whole step as one batch."""
        ranks = (
            self._gather({"batches": [_moved(batch, "cpu") for batch in seen]}) if self.args.world_size > 1 else None
        )
        parts = list(seen) if ranks is None else [b for rank in ranks for b in rank["batches"]]
        before = 0 if ranks is None else sum(len(rank["batches"]) for rank in ranks[: self.args.process_index])
        whole = _moved(Batch.cat(parts), self.args.device)
        token_names = ["logp", *self.objective.computed, *(n for n in self.objective.heads if n in whole.tokens)]
        item_names = [name for name in self.objective.heads if name in whole.items]
        tokens = {name: whole.tokens[name].detach().clone().requires_grad_() for name in token_names}
        heads = {name: whole.items[name].detach().clone().requires_grad_() for name in item_names}
        logp = torch.zeros_like(whole.items["logp"]).index_add(0, whole.tokens["item"], tokens["logp"])
        whole = replace(whole, tokens={**whole.tokens, **tokens}, items={**whole.items, **heads, "logp": logp})
        loss = self.objective.loss(whole, denominators)
        if not torch.isfinite(loss.total.detach()):
            raise NonFiniteLossError(self._non_finite(whole))
        leaves = [*tokens.values(), *heads.values()]
        slopes = torch.autograd.grad(loss.total, leaves, allow_unused=True)
        found = dict(zip((*token_names, *item_names), slopes, strict=True))
        n_tokens, n_items = [len(b.tokens["item"]) for b in parts], [len(b.items["logp"]) for b in parts]
        pulls = []
        for i in range(before, before + len(seen)):
            t, n = sum(n_tokens[:i]), sum(n_items[:i])
            pulls.append(
                _Pull(
                    {name: found[name][t : t + n_tokens[i]] for name in token_names if found[name] is not None},
                    {name: found[name][n : n + n_items[i]] for name in item_names if found[name] is not None},
                )
            )
        return pulls, Loss(loss.total.detach(), loss.terms), whole

    @property
    def policy(self) -> Policy:
        """The policy inside whatever the accelerator wrapped around it."""
        return self.accelerator.unwrap_model(self.model)

    def _want(self) -> tuple[str, ...]:
        read = ("logp",) if self._reads_logp() else ()
        return (*read, *self.objective.heads, *self.objective.computed)

    def _reads_logp(self) -> bool:
        """Whether the policy's log-probabilities are needed; without them its language-model head is not run."""
        return self.objective.reads_logp or self.objective.coupling != "none"

    def _forward(self, model: torch.nn.Module, examples: Sequence[Example], data: Batch) -> Batch:
        tries = pack([example.trie for example in examples], share=self.share_prompts).to(self.args.device)
        said = self._distribution(tries)
        with self.compute_loss_context_manager():
            values = model(tries, want=self._want(), reference=said)
        live = self._live(tries, examples, said)
        return assemble(data, tries, values.logp, values.heads, values.tokens, **live)

    def _distribution(self, tries: TrieBatch) -> Distribution | None:
        """What the live reference says of every token of the vocabulary, where the objective asks for that."""
        if not self._reads_reference():
            return None
        reference = self.references["ref_logp"]
        with self.autocast():
            return reference_distribution(
                self.policy if reference is None else reference,
                tries,
                reference=reference is None,
                layers=bool(self._masks()),
            )

    def _live(
        self, tries: TrieBatch, examples: Sequence[Example], said: Distribution | None
    ) -> dict[str, torch.Tensor]:
        """(T,) log-probabilities under the references that the examples do not cache."""
        found = {}
        for name, reference in self.references.items():
            if name in examples[0].ref_logp:
                continue
            if name == "ref_logp" and said is not None:
                found[name] = said.logp
                continue
            # accelerate casts for the model that it prepared alone, and a reference must round as the policy does.
            with torch.no_grad(), self.autocast():
                if reference is None:
                    with self.policy.reference_mode():
                        found[name] = self.policy(tries, want=("logp",)).logp
                else:
                    found[name] = reference(tries, want=("logp",)).logp
        return found

    def _idle_forward(self, model: torch.nn.Module) -> torch.Tensor:
        trie: Trie = build_trie([([0], [0])])
        tries = pack([trie]).to(self.args.device)
        said = self._distribution(tries)
        with self.compute_loss_context_manager():
            values = model(tries, want=self._want(), reference=said)
        self._live(tries, [self.train_dataset[0]], said)  # a sharded reference is gathered from all ranks
        own = () if values.logp is None else (values.logp,)
        return sum(value.sum() for value in (*own, *values.heads.values(), *values.tokens.values())) * 0.0

    def _statistics(self, groups: Sequence[Sequence[Example]], clock: Clock) -> dict[str, torch.Tensor]:
        """The objective's statistics over the whole step, taken without gradient before the loss."""
        if not self.objective.statistics:
            return {}
        mismatched = [example.mismatched for group in groups for example in group]
        sums = {s.name: torch.zeros(2, dtype=torch.float64) for s in self.objective.statistics}
        parts = self._split(mismatched)
        self.policy.eval()
        try:
            for i in range(self._max_over_ranks(len(parts))):
                with torch.no_grad():
                    if i >= len(parts):
                        self._idle_forward(self.model_wrapped)
                        continue
                    batch = self._forward(self.model_wrapped, parts[i], data_batch(parts[i], clock=clock))
                    for statistic in self.objective.statistics:
                        sums[statistic.name] += torch.stack(statistic.sums(batch)).cpu()
        finally:
            self.policy.train()
        totals = {name: self._sum_over_ranks(value) for name, value in sums.items()}
        return {s.name: s.value(*totals[s.name]).float() for s in self.objective.statistics}

    def _global_denominators(self, batches: Sequence[Batch]) -> dict[str, torch.Tensor]:
        names = [term.name for term in self.objective.terms]
        sums = torch.zeros(len(names), dtype=torch.float64)
        for batch in batches:
            parts = self.objective.denominators(batch)
            sums += torch.stack([parts[name].double().cpu() for name in names])
        return dict(zip(names, self._sum_over_ranks(sums).unbind(), strict=True))

    def _sum_over_ranks(self, values: torch.Tensor) -> torch.Tensor:
        if self.args.world_size == 1:
            return values
        return self.accelerator.reduce(values.to(self.args.device), reduction="sum").cpu()

    def _max_over_ranks(self, value: int) -> int:
        if self.args.world_size == 1:
            return value
        return int(self.accelerator.gather(torch.tensor([value], device=self.args.device)).max())

    def _gather(self, value: dict) -> list[dict]:
        return [value] if self.args.world_size == 1 else gather_object([value])

    def _non_finite(self, batch: Batch) -> str:
        bad = self._reads_logp() and not torch.isfinite(batch.items["logp"]).all()
        where = "the log-probabilities of the policy" if bad else "the objective"
        return (
            f"the loss is not finite at step {self.state.global_step + 1}: it comes from {where}. Nothing was updated. "
            "Lower train.learning_rate, or use train.precision=float32; the last checkpoint is whole"
        )

    # ---- metrics ----

    def _collect_terms(self, loss: Loss) -> None:
        for name, value in loss.terms.items():
            self._sums.add_total(f"loss/{name}", value.detach())

    def _collect(self, batch: Batch, denominators: Mapping[str, torch.Tensor], *, diagnose: bool) -> None:
        with torch.no_grad():
            self._sums.add(batch_metrics(self.objective, batch))
        if diagnose:
            for name, value in self.objective.diagnostics(batch, denominators).items():
                self._sums.add_value(name, value, weight=len(batch.item("logp")))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the trainer's numbers together with the sample-weighted metrics since the last log."""
        if "loss" in logs:
            logs = {**logs, **self._sums.reduce(self._gather)}
            logs["seconds"] = time.perf_counter() - self.started
            logs["tokens"] = self._tokens
            self._sums = MetricSums()
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Sequence[Example] | None = None, ignore_keys=None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Loss and metrics over all held-out records: exact sums, so the same at any batch size and number of ranks."""
        examples = list(self.eval_dataset if eval_dataset is None else eval_dataset)
        mine = examples[self.args.process_index :: self.args.world_size]
        clock = Clock(self.state.global_step, max(self.state.max_steps, 1))
        groups = self._split(mine)
        batches = [batch.with_statistics(**self._state_values()) for batch in self._data(groups, clock)]
        denominators = self._global_denominators(batches)
        sums = MetricSums()
        seen = []
        was_training = self.model_wrapped.training
        self.model_wrapped.eval()
        with torch.no_grad():
            for i in range(self._max_over_ranks(len(groups))):
                if i >= len(groups):
                    self._idle_forward(self.model_wrapped)
                    continue
                batch = self._forward(self.model_wrapped, groups[i], batches[i])
                if self.objective.coupling == "full":
                    seen.append(batch)
                else:
                    sums.add(batch_metrics(self.objective, batch))
                    sums.add_total("loss", self.objective.loss(batch, denominators).total)
        if self.objective.coupling == "full":
            _, loss, whole = self._pulls(seen, denominators)
            if self.is_world_process_zero():  # every rank has the whole of it
                sums.add(batch_metrics(self.objective, whole))
                sums.add_total("loss", loss.total)
        self.model_wrapped.train(was_training)
        metrics = {f"{metric_key_prefix}_{k}": v for k, v in sums.reduce(self._gather).items()}
        best = self.args.metric_for_best_model
        if self.args.load_best_model_at_end and metric_key_prefix == "eval" and best not in metrics:
            raise ConfigError(f"train.keep_best: {best} is not measured here; there are {', '.join(sorted(metrics))}")
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # ---- checkpoints ----

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the model to `output_dir`, gathered where it is sharded. All ranks call it; the first one writes.

        A checkpoint of a sharded policy holds what each rank has; the gathered model too only where the accelerate
        configuration says `fsdp_state_dict_type: FULL_STATE_DICT`.
        """
        if self._sharding is None:
            super().save_model(output_dir, _internal_call)
        elif not _internal_call or self._sharding.full_checkpoints:
            self._save(output_dir, gathered_state(self.policy))
        elif self.args.should_save:
            Path(output_dir).mkdir(parents=True, exist_ok=True)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save what `AutoModelForCausalLM` and `AutoTokenizer` load, and the heads beside it."""
        from safetensors.torch import save_file

        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        policy = self.policy
        inner = None
        if state_dict is not None:  # gathered from shards
            inner = {k.removeprefix("model."): v for k, v in state_dict.items() if k.startswith("model.")}
        if self.args.should_save:
            policy.model.save_pretrained(folder, state_dict=inner)
            if len(policy.heads):
                source = state_dict if state_dict is not None else policy.state_dict()
                heads = {k: v.contiguous() for k, v in source.items() if k.startswith("heads.")}
                save_file(heads, folder / HEADS)
            if self.processing_class is not None:
                self.processing_class.save_pretrained(folder)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._sharding is None:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        save_shards(Path(output_dir) / SHARDS, self.policy, self.optimizer)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # the last file of every rank is there
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
            if folder.is_dir():  # rotation may have removed it
                states = {name: None if value is None else value.tolist() for name, value in self._states.items()}
                write_text(folder / STATES, json.dumps(states))
                write_text(folder / COMPLETE, json.dumps({"step": self.state.global_step}))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        if self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self._load_weights(Path(resume_from_checkpoint))

    def _load_states(self, folder: Path) -> None:
        states = json.loads((folder / STATES).read_text(encoding="utf-8"))
        self._states = {
            name: None if value is None else torch.tensor(value, dtype=torch.float64) for name, value in states.items()
        }

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        folder = None if checkpoint is None else Path(checkpoint)
        if folder is not None:
            self._load_states(folder)
        in_shards = folder is not None and (folder / SHARDS).is_dir()
        if folder is None or (self._sharding is None and not in_shards):
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        if in_shards:
            load_shards(folder / SHARDS, self.policy, self.optimizer)
        else:
            load_whole_optimizer(folder / OPTIMIZER, self.optimizer)
        self.lr_scheduler.load_state_dict(torch.load(folder / SCHEDULER, weights_only=True))

    def _load_best_model(self) -> None:
        if self.is_deepspeed_enabled:
            super()._load_best_model()
            return
        self._load_weights(Path(self.state.best_model_checkpoint))

    def _load_weights(self, folder: Path) -> None:
        from safetensors.torch import load_file

        from unipref.engine.weights import copy_whole, load_weights

        policy = self.policy
        if (folder / SHARDS).is_dir():
            load_shards(folder / SHARDS, policy)
            return
        load_weights(policy.model, folder)
        if len(policy.heads):
            state = load_file(folder / HEADS)
            with torch.no_grad():
                for name, value in policy.heads.state_dict().items():
                    copy_whole(value, state[f"heads.{name}"])

    def autocast(self) -> contextlib.AbstractContextManager:
        """The precision that the steps run in, for references and for passes outside of the steps."""
        return autocast(self.args.device, "bfloat16" if self.args.bf16 else "float32")
