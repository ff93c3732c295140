"""The stages of a run, foreseen: a few of their steps measured, all of them counted."""

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PrinterCallback

from unipref.core.errors import ConfigError
from unipref.core.io import to_json
from unipref.core.records import Record
from unipref.core.tries import pack
from unipref.data import TOKEN_COLUMNS, DataReport
from unipref.data.prepared import n_cores
from unipref.data.prepared import prepare as prepare_rows
from unipref.data.readers import CHUNK
from unipref.engine import WeightBytes, fingerprint, n_weights, weight_bytes
from unipref.recipes._changes import changes
from unipref.recipes._cost import StageCost, size
from unipref.recipes._dry_bench import Bench, keys_of, make_up, sizes_of
from unipref.recipes._meters import Steps, Watch, now
from unipref.recipes._run import RunData, stage_key
from unipref.recipes._work import (
    FORWARD,
    CostModel,
    ModelShape,
    Passes,
    TrieSize,
    Work,
    groups_of,
    plan_of_steps,
    saved_bytes,
    scoring_work,
    work_of,
)
from unipref.recipes.columns import add_columns
from unipref.recipes.config import Recipe, Stage, TrainOptions
from unipref.recipes.stage import DONE, Ready, arguments, prepare, set_up, stage_done
from unipref.recipes.streamed import part_of
from unipref.training import Example, autocast, last_checkpoint
from unipref.training.prepared import prompts_of

__all__ = ["OPTIMISER_COPIES", "Kind", "Measured", "Training"]

OPTIMISER_COPIES = {  # numbers of 4 bytes per trained weight; in 8 bits embeddings keep 32
    "adamw": 2.0, "adamw_8bit": 0.5, "paged_adamw_8bit": 0.5, "rmsprop": 1.0, "adafactor": 0.05, "sgd": 0.0
}  # fmt: skip
CHECKPOINT_FILES = 20_000  # bytes of random states, schedule and trainer state
ALONE = 3 * CHUNK  # streamed rows up to which one process tokenises them


@dataclass(frozen=True)
class Measured:
    """One kind of step, as it was timed.

    Attributes:
        update: seconds of an optimiser step besides its forwards and backwards.
        starting: seconds of setting a trainer up and of ending it.
        memory: bytes at the peak. activations: kept for its backward by the largest forward.
        state: bytes of weights, gradients, optimiser and live references.
        merging: bytes in use while quantised weights are unpacked at the end; 0 where none are.
        residual: root mean square of the fit's relative errors.
    """

    model: CostModel
    update: float
    starting: float
    memory: float
    activations: float
    state: float
    merging: float
    timed: list[dict[str, float]]
    residual: float


@dataclass
class Kind:
    """A stage without its place: what it has in common over runs and seeds.

    Attributes:
        sizes, held: of the examples trained and validated on; mismatched, held_mismatched: of their other responses.
        prompts: of the examples trained on, where steps are made by them.
        keys, lengths: of all these, what the score store knows them by and their scored tokens.
        weights: the fingerprint of the model that the run begins with.
        references: what it reads log-probabilities of, all but live ones.
        couples: a step that takes several forwards is first scored without gradient.
        weight_bytes: what the policy's weights take.
        rows: examples in all. Of streamed rows these are a sample's, taken to be like it; else as many as `sizes`.
        encoding: of streamed rows, what decides the files that they are prepared in.
    """

    stage: Stage
    options: TrainOptions
    precision: str
    path: str
    shape: ModelShape
    passes: Passes
    sizes: list[TrieSize]
    prompts: np.ndarray | None
    held: list[TrieSize]
    mismatched: list[TrieSize]
    held_mismatched: list[TrieSize]
    keys: list[list[bytes]]
    lengths: list[list[int]]
    weights: str
    references: list[str]
    live: bool
    couples: bool
    load: float
    encode: float
    total: int
    disk: dict[str, float]
    weight_bytes: WeightBytes
    rows: int
    encoding: str | None
    measured: Measured | None = None

    @property
    def times(self) -> float:
        """Rows that each of those measured stands for."""
        return self.rows / len(self.sizes)

    def plan(self, seed: int, done: int = 0) -> tuple[list[list[int]], float]:
        """The rows of every step after the first `done`, and how many steps each of these stands for.

        Of a sample, one epoch is planned, or what is left where that is less.
        """
        if self.times > 1:
            whole = max(1, len(self.sizes) // self.options.batch_size)
            steps = self._steps(seed, min(whole, self.total - done))
            return steps, (self.total - done) / max(len(steps), 1)
        return self._steps(seed, self.total)[done:], 1.0

    def _steps(self, seed: int, total: int) -> list[list[int]]:
        nodes = [size.nodes for size in self.sizes]
        options = self.options
        steps = plan_of_steps(
            nodes,
            batch_size=options.batch_size,
            seed=seed,
            total=total,
            by_length=options.group_by_length,
            prompts=self.prompts,
        )
        return list(steps)

    def groups(self, sizes: Sequence[TrieSize]) -> list[list[TrieSize]]:
        """The forwards that a step, or a validation, of `sizes` takes."""
        return [[sizes[i] for i in group] for group in self.cuts(sizes)]

    def cuts(self, sizes: Sequence[TrieSize]) -> list[list[int]]:
        """Which of `sizes` share a forward."""
        budget, alike = self.options.max_tokens_per_forward, self.path == "rows"
        return groups_of(sizes, budget, pair_cost=self.shape.pair_cost, alike=alike)

    def train_work(self, groups: Sequence[Sequence[TrieSize]]) -> Work:
        """Of forwards and backwards, the live reference's forwards included."""
        work = work_of(self.shape, groups, self.passes, path=self.path)
        if self.live:
            work += replace(work_of(self.shape, groups, FORWARD, path=self.path), forwards=0, tokens=0)
        return work

    def looks(self, rows: Sequence[int]) -> list[list[TrieSize]]:
        """The forwards of a step that carry no gradient."""
        found = self.groups([self.mismatched[i] for i in rows]) if self.mismatched else []
        own = self.groups([self.sizes[i] for i in rows])
        return [*found, *own] if self.couples and len(own) > 1 else found

    def forward_work(self, groups: Sequence[Sequence[TrieSize]]) -> Work:
        """Of forwards alone."""
        return work_of(self.shape, groups, FORWARD, path=self.path)


class Training:
    """The stages of a run, and the kinds of stages among them.

    Args:
        reading: seconds of going over the training file once, which streamed rows take again to be prepared.
    """

    def __init__(self, bench: Bench, data: RunData, *, reading: float = 0.0) -> None:
        self.bench, self.data, self.recipe, self.reading = bench, data, bench.recipe, reading
        self.watch = Watch(bench.clock)
        self.kinds: dict[str, Kind] = {}
        self.measured: dict[str, Measured] = {}
        self.finals: list[tuple[str, int, Path, str]] = []
        # Of streamed rows, by what decides their files: the bytes of these, and the seconds that they take once.
        self.prepared: dict[str, float] = {}
        self.preparing: dict[str, float] = {}
        self.counted: set[str | None] = set()

    @property
    def merging(self) -> float:
        return max((m.merging for m in self.measured.values()), default=0.0)

    @property
    def memory(self) -> float:
        return max((m.memory for m in self.measured.values()), default=0.0)

    @property
    def residual(self) -> float:
        return max((m.residual for m in self.measured.values()), default=0.0)

    @property
    def precision(self) -> str:
        return next((kind.precision for kind in self.kinds.values()), "float32")

    def model(self) -> dict[str, Any]:
        """The model's path and shape, and the bytes of its weights."""
        for kind in self.kinds.values():
            held = kind.weight_bytes
            taken = {"packed": held.packed, "constants": held.constants, "whole": held.whole}
            return {"path": kind.path, **vars(kind.shape), "weight_bytes": taken}
        return {}

    def stages(self) -> Iterator[StageCost]:
        """A cost for every stage that the run trains, in its order and with its places (see `recipes.align`)."""
        recipe, folder = self.recipe, self.bench.folder
        plan, several = recipe.run_plan(), len(recipe.seeds) > 1
        shared = recipe.shared_stages if recipe.runs else []
        for seed in recipe.seeds:
            start = recipe.model
            for i, stage in enumerate(shared):
                place = folder / "shared" / f"{stage.label}-{stage_key(seed, shared[: i + 1])}"
                yield self._cost("shared", seed, stage, place, start)
                start = str(place / "model")
            for run, stages in plan.items():
                own = stages[len(shared) :]
                first = 0 if recipe.runs else len(own) - 1
                while first and own[first].round:
                    first -= 1
                run_folder = folder / run / f"seed-{seed}" if several else folder / run
                model = reference = start
                for i, stage in enumerate(own):
                    reference = model if i == first else reference
                    yield self._cost(run, seed, stage, run_folder / stage.label, model)
                    model = str(run_folder / stage.label / "model")
                self.finals.append((run, seed, run_folder, reference))

    def _cost(self, run: str, seed: int, stage: Stage, place: Path, start: str) -> StageCost:
        cost = StageCost(run, seed, stage.label, stage.method, str(place.relative_to(self.bench.folder)))
        if stage.composition.merges:
            self.bench.notes.append(f"{stage.label} averages models instead of training; its time is not counted.")
            return cost
        cost.tokens = dict.fromkeys(("plain", "shared", "policy"), 0)
        if self.bench.resume and (place / DONE).exists():
            cost.steps = stage_done(place)["steps"]
            return cost
        kind = self._kind(stage, seed)
        cost.records, cost.steps = kind.rows, kind.total
        cost.epochs = kind.total * kind.options.batch_size / kind.rows
        checkpoint = last_checkpoint(place / "checkpoints") if self.bench.resume else None
        done = 0 if checkpoint is None else int(checkpoint.name.rsplit("-", 1)[1])
        cost.left = kind.total - done
        train = looks = Work()
        plan, times = kind.plan(seed, done)
        for rows in plan:
            sizes = [kind.sizes[i] for i in rows]
            lengths = [length for one in sizes for length in one.rows]
            cost.tokens["plain"] += len(lengths) * max(lengths)
            cost.tokens["shared"] += sum(one.nodes for one in sizes)
            extra = kind.looks(rows)
            cost.tokens["policy"] += sum(one.nodes for group in extra for one in group)
            train += kind.train_work(kind.groups(sizes))
            looks += kind.forward_work(extra)
        if times != 1:
            train, looks = train.times(times), looks.times(times)
            cost.tokens = {name: round(times * number) for name, number in cost.tokens.items()}
        held = [*kind.groups(kind.held), *kind.groups(kind.held_mismatched)]
        n_validations = _n_validations(kind, done)
        validation = kind.forward_work(held).times(n_validations)
        cost.tokens["policy"] += cost.tokens["shared"]
        cost.tokens["policy"] += n_validations * sum(one.nodes for group in held for one in group)
        references = self._reference_work(kind, seed, start)
        forward = self.bench.forward[kind.precision]
        cost.forwards, cost.passes = train.forwards, (looks + validation + references).forwards
        cost.flops = {"matrix": train.matrix, "attention": train.attention, "head": train.head}
        cost.flops["forward"] = (looks + validation + references).flops
        cost.disk = dict(kind.disk)
        measured = kind.measured
        cost.seconds = {
            "loading": kind.load,
            "encoding": 0.0 if kind.encoding in self.counted else kind.encode,
            "references": forward.seconds(references),
            "training": measured.model.seconds(train + looks) + cost.left * measured.update + measured.starting,
            "validation": forward.seconds(validation),
            "writing": self.bench.writing(sum(kind.disk.values())),
        }
        if kind.encoding is not None:  # found prepared from then on
            self.counted.add(kind.encoding)
        cost.memory, cost.timed = measured.memory, measured.timed
        return cost

    def _reference_work(self, kind: Kind, seed: int, start: str) -> Work:
        """Of scoring what the references say and the score store does not hold by then."""
        work = Work()
        everything = [*kind.sizes, *kind.held, *kind.mismatched, *kind.held_mismatched]
        adapters = self.recipe.model_options.lora is not None  # fresh ones are another model for every seed
        for name in kind.references:
            weights = kind.weights if start == self.recipe.model else f"after {start}"
            if name != "model":
                weights = f"named {name}"
            elif adapters and seed != self.recipe.seeds[0]:
                weights = f"after {start} with seed {seed}"
            space = {"kind": "logp", "weights": weights, "precision": kind.precision, "path": kind.path}
            budget = 2 * kind.options.max_tokens_per_forward
            for some, times in self._parts(kind):
                keys, lengths = [kind.keys[i] for i in some], [kind.lengths[i] for i in some]
                lacking = self.bench.ledger.missing(space, keys, lengths, times=times)
                sizes = [everything[some[i]] for i in lacking]
                work += scoring_work(kind.shape, sizes, budget, path=kind.path).times(times or 1)
        return work

    def _parts(self, kind: Kind) -> list[tuple[list[int], float | None]]:
        """What references say something of, by its place in `kind.keys`, and what each stands for in a column."""
        if kind.encoding is None:
            return [(list(range(len(kind.keys))), None)]
        n, n_held = len(kind.sizes), len(kind.held)
        train = [*range(n), *range(n + n_held, n + n_held + len(kind.mismatched))]
        held = sorted(set(range(len(kind.keys))) - set(train))
        return [(train, kind.times), (held, None)]

    def _kind(self, stage: Stage, seed: int) -> Kind:
        name = to_json(stage.model_dump(mode="json", exclude={"name"}))
        if name not in self.kinds:
            self.kinds[name] = self._new_kind(stage, seed)
            gc.collect()
        return self.kinds[name]

    def _new_kind(self, stage: Stage, seed: int) -> Kind:
        recipe, watch, stream = self.recipe, self.watch, self.data.stream
        train, _ = prepare(stage, self.data.train) if stream is None else part_of(stage, list(self.data.train))
        watch.load = watch.encode = 0.0
        self.bench.peak.reset()
        common = {"start": recipe.model, "folder": self.bench.scratch, "seed": seed, "bench": watch}
        ready = set_up(recipe, stage, train=train, validation=self.data.validation, **common)
        if not ready.examples:
            raise ConfigError(f"{stage.label}: no record is left to train on once encoded; raise data.max_length")
        objective, options = ready.objective, ready.options
        others = [e.mismatched for e in ready.examples if e.mismatched is not None]
        held_others = [e.mismatched for e in ready.held if e.mismatched is not None]
        everything = [*ready.examples, *ready.held, *others, *held_others]
        rows, encode, encoding = len(ready.examples), watch.encode, None
        if stream is not None:
            rows = round(rows * self.data.n_train / len(self.data.train))
            encoding = self._encoding(stage, ready)
            encode = self._prepare(encoding, stage, ready)
        per_epoch = -(-rows // options.batch_size)
        lora = recipe.model_options.lora is not None
        total = options.max_steps or max(1, int(np.ceil(options.epochs * per_epoch)))
        kind = Kind(
            stage=stage,
            options=options,
            precision=ready.precision,
            path=ready.policy.path,
            shape=ModelShape.of(ready.policy),
            passes=Passes.of_training(frozen=lora, checkpointing=options.gradient_checkpointing),
            sizes=sizes_of(ready.examples),
            prompts=prompts_of(ready.examples) if options.group_by_prompt else None,
            held=sizes_of(ready.held),
            mismatched=sizes_of(others),
            held_mismatched=sizes_of(held_others),
            keys=[keys_of(example.trie) for example in everything],
            lengths=[[len(nodes) for nodes in example.trie.scored] for example in everything],
            weights="",
            references=self._references(ready),
            live=bool(ready.references),
            couples=bool(objective.states) or objective.coupling == "full",
            load=watch.load,
            encode=encode,
            total=total,
            disk=_stage_disk(recipe, stage, ready, total, self.bench.scratch),
            weight_bytes=weight_bytes(ready.policy),
            rows=rows,
            encoding=encoding,
        )
        self._tell(kind)
        if kind.references:
            kind.weights = fingerprint(ready.policy)
        name = _step_name(kind, ready)
        if name not in self.measured:
            self.measured[name] = self._measure(kind, ready, seed)
        kind.measured = self.measured[name]
        return kind

    def _encoding(self, stage: Stage, ready: Ready) -> str:
        """What decides the files of the stage's streamed rows, within one run."""
        tokens = sorted(ready.objective.token_needs & set(TOKEN_COLUMNS))
        return to_json([[name for name, _ in changes(stage)], tokens])

    def _prepare(self, encoding: str, stage: Stage, ready: Ready) -> float:
        """Seconds of preparing all streamed rows, and what their files take: what it is for the sample, many times."""
        if encoding in self.preparing:
            return self.preparing[encoding]
        stream, designer = self.data.stream, self.data.designer
        place = self.bench.scratch / f"rows-{len(self.prepared)}"
        names = sorted(ready.objective.token_needs & set(TOKEN_COLUMNS))
        length, strict = self.recipe.data.max_length, self.recipe.data.strict

        def changed() -> list[Record]:
            records = list(stream.split.sample)
            if designer is not None:
                records = designer.score_part(records, store=stream.store)
            return part_of(stage, records)[0]

        train, alone = self.bench.timed(changed)
        chunks = [(train, DataReport(n_read=len(train), n_kept=len(train)))]
        options = {"key": {}, "max_length": length, "strict": strict, "tokens": names, "workers": 1}
        _, shared = self.bench.timed(lambda: prepare_rows(chunks, ready.tokenizer, place, **options))
        n = self.data.n_train
        times = n / len(self.data.train)
        self.prepared[encoding] = times * sum(path.stat().st_size for path in place.iterdir())
        self.preparing[encoding] = self.reading + times * (alone + shared / (n_cores() if n > ALONE else 1))
        return self.preparing[encoding]

    def _tell(self, kind: Kind) -> None:
        """What of this kind is not foreseen, or is to be known of how it was."""
        notes, held, options = self.bench.notes, kind.weight_bytes, self.recipe.model_options
        if options.quantize is not None:
            notes.append(
                f"Weights: {size(held.packed)} in {options.quantize} with {size(held.constants)} of scales, "
                f"{size(held.whole)} whole (embeddings, norms, head, adapters)."
            )
            if options.lora.merge:
                notes.append(
                    f"At the end merging unpacks the quantised weights, once: {size(held.unpacked)} instead of "
                    f"{size(held.packed)}."
                )
        if kind.encoding is None:
            return
        n, n_sample = self.data.n_train, len(self.data.train)
        if n > n_sample:
            notes.append(
                f"Of {n:,} streamed rows {n_sample:,} were measured, chosen by a hash of their texts. Steps are those "
                "of all rows; tokens, time and bytes are the sample's, as many times. A longer row than the sample's "
                "longest is not foreseen."
            )
            if kind.options.group_by_prompt:
                notes.append(
                    "Fewer rows of one prompt are in a sample than in all rows: more will be shared than here."
                )
        notes.append(
            "Streamed rows are trained on from mapped files and take no memory that the system cannot take back. What "
            "an earlier run left (prepared rows, columns of log-probabilities) is not looked for: preparing and "
            "scoring count in full, and a run that finds them skips these."
        )

    def _references(self, ready: Ready) -> list[str]:
        needs = ready.objective.needs | ready.objective.token_needs
        read = {name for name in needs if name.startswith("ref_logp")} - set(ready.references)
        if not read:
            return []
        named = [model for column, model in self.recipe.named_references().items() if column in needs]
        return [*(name for name, _ in self.recipe.reference_weights()), *named]

    def _measure(self, kind: Kind, ready: Ready, seed: int) -> Measured:
        """The largest forward of the plan to warm up, then the smallest, the median and the largest."""
        bench, options = self.bench, kind.options
        smallest, median, largest = _chosen(kind, seed)
        budget = 2 * options.max_tokens_per_forward
        tries = [example.trie for example in ready.examples]
        bench.forward_model(kind.precision, kind.shape, ready.policy, tries, kind.precision, budget)
        copies = OPTIMISER_COPIES[options.optimizer]
        further = 4 * kind.shape.trained * (1 + copies)  # gradients, and what the optimiser keeps
        live = [p for r in ready.references.values() if r is not None for p in r.parameters()]
        state = kind.weight_bytes.held + further + sum(p.numel() * p.element_size() for p in live)

        trainer = self._trainer(kind, ready, [smallest, median, largest], seed)
        one = ready.examples[smallest[0]]
        per_token = self._activations(trainer, ready, one) / one.trie.n_nodes
        activations = per_token * sum(kind.sizes[i].nodes for i in largest)
        projected = bench.peak.now() + further + activations
        fits = projected < bench.available
        if not fits:
            bench.notes.append("The largest forward does not fit in memory; the smallest one was timed in its place.")
            least = bench.peak.now() + further + per_token * sum(kind.sizes[i].nodes for i in smallest)
            if least > bench.available:
                raise ConfigError(
                    f"{kind.stage.label}: not even its smallest forward fits here: about {size(least)} are needed and "
                    f"{size(bench.available)} are available. Lower train.batch_size or train.max_tokens_per_forward, "
                    "set train.gradient_checkpointing=true, train adapters (model_options.lora), or use more memory"
                )
        steps = [largest, smallest, median, largest] if fits else [smallest, smallest]
        if smallest == largest:
            steps = [smallest] * 3
        elif fits and self.measured:  # the first kind has shown how well two sizes tell the ones between
            steps = [largest, smallest, largest]
        trainer.steps = [[trainer.place[i] for i in rows] for rows in steps]
        trainer.args.max_steps = len(steps)
        _, took = bench.timed(trainer.train)
        works = [kind.train_work(kind.groups([kind.sizes[i] for i in rows])) for rows in steps]
        works = [work + kind.forward_work(kind.looks(rows)) for work, rows in zip(works, steps, strict=True)]
        merging = 0.0
        if kind.weight_bytes.packed and self.recipe.model_options.lora.merge:
            merging = bench.peak.now() + kind.weight_bytes.unpacked - kind.weight_bytes.packed
        inside, whole = np.array(trainer.inside[1:]), np.array(trainer.whole[1:])
        model = CostModel.fit(works[1:], inside)
        timed = [
            {"tokens": work.tokens, "seconds": float(seconds), "fitted": model.seconds(work)}
            for work, seconds in zip(works[1:], inside, strict=True)
        ]
        return Measured(
            model=model,
            update=float(np.median(whole - inside)),
            starting=max(0.0, took - sum(trainer.whole)) + trainer.setting_up,
            memory=bench.peak.read() if fits else projected,
            activations=activations,
            state=state,
            merging=merging,
            timed=timed,
            residual=float(np.sqrt(np.mean([(t["fitted"] / t["seconds"] - 1) ** 2 for t in timed]))),
        )

    def _trainer(self, kind: Kind, ready: Ready, chosen: Sequence[Sequence[int]], seed: int) -> Steps:
        """A trainer for the chosen rows alone; what references say of them is made up, which no time depends on."""
        rows = list(dict.fromkeys(i for group in chosen for i in group))
        examples = [ready.examples[i] for i in rows]
        needs = ready.objective.needs | ready.objective.token_needs
        columns = {name for name in needs if name.startswith("ref_logp")} - set(ready.references)
        for column in columns:
            make_up([*examples, *(e.mismatched for e in examples if e.mismatched is not None)], column)
        with autocast(ready.args.device, ready.precision):
            budget = 2 * kind.options.max_tokens_per_forward
            add_columns(examples, ready.objective, ready.policy, max_tokens=budget)
        few = {"max_steps": 4, "save_steps": None, "eval_steps": None, "report_to": ()}
        args, _ = arguments(
            kind.options.model_copy(update=few),
            output=self.bench.scratch / "steps",
            seed=seed,
            n_records=len(examples),
            has_validation=False,
            world=1,
            ends_with_checkpoint=False,
        )
        began = now(self.bench.clock)
        trainer = Steps(
            ready.policy,
            ready.objective,
            args,
            examples,
            clock=self.bench.clock,
            max_tokens=kind.options.max_tokens_per_forward,
            references=ready.references,
            tokenizer=ready.tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.setting_up = now(self.bench.clock) - began
        trainer.place = {row: i for i, row in enumerate(rows)}
        return trainer

    def _activations(self, trainer: Steps, ready: Ready, example: Example) -> float:
        """Bytes that the forward of one record keeps for its backward."""
        tries = pack([example.trie]).to(ready.policy.device)
        values = []
        ready.policy.train()
        forward = trainer.one_forward(tries)
        return saved_bytes(lambda: values.append(forward()), ready.policy.parameters())


def _chosen(kind: Kind, seed: int) -> tuple[list[int], list[int], list[int]]:
    """Rows of the smallest, the median and the largest forward of the plan."""
    works: dict[tuple[int, ...], float] = {}
    for rows in kind.plan(seed)[0]:
        for group in kind.cuts([kind.sizes[i] for i in rows]):
            mine = [rows[i] for i in group]
            works[tuple(mine)] = kind.train_work([[kind.sizes[i] for i in mine]]).flops
    order = sorted(works, key=lambda group: (works[group], group))
    return list(order[0]), list(order[len(order) // 2]), list(order[-1])


def _step_name(kind: Kind, ready: Ready) -> str:
    """Equal for stages whose steps compute the same on numbers that differ."""
    objective, options = ready.objective, kind.options
    sets = (objective.needs, objective.token_needs, objective.heads, objective.computed, objective.roles)
    return to_json(
        [
            *(sorted(names) for names in sets),
            [repr(part) for part in (*objective.statistics, *objective.states)],
            [objective.coupling, objective.unit_needs, len(objective.terms)],
            [repr(operator) for operator in kind.stage.composition.operators],
            [options.optimizer, options.batch_size, options.max_tokens_per_forward, options.precision],
            [options.gradient_checkpointing, options.max_grad_norm is None],
            [options.group_by_length, options.group_by_prompt],
        ]
    )


def _n_validations(kind: Kind, done: int) -> int:
    """Every so many of the steps that are left, after the last step, and once when the stage has ended."""
    every = kind.options.eval_steps
    return 0 if not kind.held else 1 + (-(-kind.total // every) - done // every if every else 0)


def _stage_disk(recipe: Recipe, stage: Stage, ready: Ready, total: int, scratch: Path) -> dict[str, float]:
    """Bytes that a stage leaves: its model, and its checkpoints with the optimiser's numbers."""
    policy, options, lora = ready.policy, ready.options, recipe.model_options.lora
    folder = scratch / "small"
    ready.tokenizer.save_pretrained(folder)
    policy.config.save_pretrained(folder)
    small = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    named = list(policy.model.named_parameters())
    width = policy.model.get_input_embeddings().weight.element_size()  # what quantised weights are unpacked to
    base = sum(
        n_weights(p) * (p.element_size() if p.is_floating_point() else width)
        for name, p in named
        if "lora_" not in name
    )
    trained = sum(p.numel() * p.element_size() for p in policy.parameters() if p.requires_grad)
    heads = sum(p.numel() * p.element_size() for p in policy.heads.parameters())
    saved = base if lora is None else trained - heads
    model = saved if lora is not None and not lora.merge else base
    checkpoint = saved + heads + trained * OPTIMISER_COPIES[options.optimizer] + small + CHECKPOINT_FILES
    keeps_best = options.eval_steps is not None and bool(ready.held) and options.keep_best is not None
    every = (options.eval_steps if keeps_best else options.save_steps) or total
    copies = 2 if stage.composition.momentum else 1  # a round that is moved on is kept as it was trained, too
    return {"models": copies * model + small, "checkpoints": min(2, -(-total // every)) * checkpoint}
