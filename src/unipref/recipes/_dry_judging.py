"""The evaluation and the report of a run, foreseen."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unipref.core.tries import build_trie
from unipref.data import limit_records
from unipref.engine import Policy, fingerprint, load_model, load_tokenizer
from unipref.evaluate import differences, summarise, summarise_reference
from unipref.recipes._cost import JudgeCost
from unipref.recipes._dry_bench import TIMED_TEXTS, Bench, keys_of, make_up, sizes_of
from unipref.recipes._dry_training import Training
from unipref.recipes._judging import compared, judge_pairs, judging_precision
from unipref.recipes._reward_backbone import all_rewards, run_trains_reward
from unipref.recipes._run import RunData
from unipref.recipes._work import (
    CostModel,
    ModelShape,
    TrieSize,
    Work,
    scoring_work,
)
from unipref.recipes.stage import examples_of
from unipref.rewards import DesignerObjectives, Judges
from unipref.sampling import generate
from unipref.training import Example, autocast

__all__ = ["Judging", "sample_batches"]

TIMED_TOKENS = 12  # of a generation that is timed
SAMPLE_BATCH = 16_384  # positions per batch of `unipref.sampling.generate`


class Judging:
    """The evaluation of every trained model and of the model before alignment, and the report."""

    def __init__(self, bench: Bench, data: RunData, training: Training) -> None:
        self.bench, self.data, self.recipe, self.training = bench, data, bench.recipe, training
        self.memory = self.report_seconds = 0.0

    def models(self) -> Iterator[JudgeCost]:
        """A cost for every model that is judged."""
        recipe, bench = self.recipe, self.bench
        jobs = list(self._jobs())
        if not any(cost.left for cost, *_ in jobs):
            bench.notes.append("Everything is finished; to resume it is to write the report again.")
            yield from (cost for cost, *_ in jobs)
            return
        device, precision = judging_precision(recipe)
        trust = recipe.model_options.trust_remote_code
        bench.peak.reset()
        tokenizer, t_tokenizer = bench.timed(lambda: load_tokenizer(recipe.model, trust_remote_code=trust))

        def load() -> tuple[Policy, str]:
            headless = all_rewards(recipe)
            model = load_model(recipe.model, dtype="float32", trust_remote_code=trust, headless=headless)
            policy = Policy(model).to(device).eval()
            return policy, fingerprint(policy)

        load()  # the first time also imports
        (policy, weights), t_load = bench.timed(load)
        base, _ = load()  # two are held: a model and its reference
        examples, t_encode = bench.timed(
            lambda: examples_of(compared(self.data.heldout), tokenizer, max_length=recipe.data.max_length)[0]
        )
        shape, sizes, path = ModelShape.of(policy), sizes_of(examples), policy.path
        budget = 2 * recipe.train.max_tokens_per_forward
        tries = [example.trie for example in examples]
        same = recipe.model_options.lora is None and recipe.model_options.dtype in ("auto", "float32")
        name = precision if same else f"{precision}, judging"
        forward = bench.forward_model(name, shape, policy, tries, precision, budget)
        keys = [keys_of(trie) for trie in tries]
        lengths = [[len(nodes) for nodes in trie.scored] for trie in tries]
        prompts, contexts = self._prompts(examples)
        t_draw, draws = self._drawing(policy, tokenizer, contexts, precision)
        mean = round(np.mean([length for row in lengths for length in row]))
        drawn = [build_trie([(ids, [0] * max(1, min(mean, recipe.sampling.max_new_tokens)))]) for ids in contexts]
        drawn_work = scoring_work(shape, [TrieSize.of(t) for t in drawn], budget, path=path)
        t_designer = sum(self._on_samples(scorers, prompts) for scorers in (self.data.designer, self.data.judges))
        rows, t_rows = self._made_up_rows(examples)
        self.memory = bench.peak.read()
        del policy, base
        n_bytes = len(json.dumps(rows, indent=1, ensure_ascii=False).encode())
        n_bytes += len(prompts) * (n_bytes / max(len(rows), 1) + 4 * recipe.sampling.max_new_tokens)
        self.report_seconds = self._reporting(rows)

        for cost, folder, reference in jobs:
            if not cost.left:
                yield cost
                continue
            if cost.run != "reference" and run_trains_reward(recipe, cost.run):  # scored once, and writes nothing
                work = scoring_work(shape, sizes, budget, path=path)
                evaluation = forward.seconds(work) + t_rows
                cost.seconds = {"loading": t_tokenizer + t_load, "encoding": t_encode, "evaluation": evaluation}
                cost.flops, cost.forwards, cost.disk = work.flops, work.forwards, n_bytes
                yield cost
                continue
            before = weights if reference == recipe.model else f"after {reference}"
            work = drawn_work.times(2)
            for model in (before if cost.run == "reference" else f"after {folder}", before):
                space = {"kind": "logp", "weights": model, "precision": precision, "path": path}
                lacking = bench.ledger.missing(space, keys, lengths)
                work += scoring_work(shape, [sizes[i] for i in lacking], budget, path=path)
            scoring, sampled = forward.seconds(work), forward.seconds(drawn_work.times(2))
            cost.seconds = {
                "loading": t_tokenizer + 2 * t_load,
                "encoding": t_encode,
                "evaluation": scoring - sampled + t_rows,
                "sampling": t_draw + sampled + t_designer,
            }
            cost.flops, cost.forwards, cost.draws, cost.disk = work.flops, work.forwards, draws, n_bytes
            yield cost

    def _jobs(self) -> Iterator[tuple[JudgeCost, Path, str]]:
        """Every model that is judged, the one before alignment last, with its folder and what it began as."""
        finals = self.training.finals
        for run, seed, folder, reference in finals:
            left = not (self.bench.resume and (folder / "evaluation.json").exists())
            yield JudgeCost(run, seed, left=left), folder, reference
        if all_rewards(self.recipe):
            return
        _, seed, _, reference = next(final for final in finals if not run_trains_reward(self.recipe, final[0]))
        folder = self.bench.folder / "shared"
        left = not (self.bench.resume and (folder / "reference.json").exists())
        yield JudgeCost("reference", seed, left=left), folder, reference

    def _prompts(self, examples: Sequence[Example]) -> tuple[list[Example], list[list[int]]]:
        """One example per conversation, as the run samples them, and the tokens of their contexts."""
        chosen: dict[str, Example] = {}
        for example in examples:
            chosen.setdefault(example.record.conversation, example)
        if not self.recipe.sampling.prompts or all_rewards(self.recipe):
            return [], []
        records, _ = limit_records([example.record for example in chosen.values()], self.recipe.sampling.prompts)
        kept = [chosen[record.conversation] for record in records]
        paths = [(example.trie, example.trie.path(0)) for example in kept]
        return kept, [trie.token[path[: len(path) - len(trie.scored[0])]].tolist() for trie, path in paths]

    def _drawing(
        self, policy: Policy, tokenizer: Any, contexts: Sequence[Sequence[int]], precision: str
    ) -> tuple[float, int]:
        """Seconds to draw all samples of one model, none of them ending early, and the decoding steps that takes.

        A batch is read once and then drawn from step by step; a step costs something of its own, something per row,
        and something per position that the rows have by then.
        """
        sampling = self.recipe.sampling
        if not contexts:
            return 0.0, 0
        longest = sampling.max_new_tokens
        batches = list(sample_batches([len(ids) for ids in contexts], longest))
        n = min(TIMED_TOKENS, longest)

        def draw(rows: Sequence[int], tokens: int) -> float:
            how = {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": sampling.seed}
            some = [contexts[i] for i in rows]
            with autocast(policy.device, precision):
                return self.bench.timed(lambda: generate(policy.model, tokenizer, some, max_new_tokens=tokens, **how))[
                    1
                ]

        def step(rows: Sequence[int], tokens: float) -> Work:
            width = len(contexts[rows[0]]) + tokens / 2
            return Work(1, 0, float(len(rows)), float(len(rows) * width))

        draw(batches[-1][-1:], 2)  # warms up
        positions, reading, steps, seconds = 0, 0.0, [], []
        third = max(1, min(len(batches[0]), len(batches[-1])) // 3)
        # many rows and few, wide and narrow: what a row costs and what its positions cost can be told apart
        for rows in dict.fromkeys(map(tuple, (batches[0], batches[-1], batches[0][:third], batches[-1][-third:]))):
            once = draw(rows, 1)
            positions += len(rows) * len(contexts[rows[0]])
            reading += once
            if n > 1:
                steps.append(step(rows, n))
                seconds.append(max(draw(rows, n) - once, 1e-6) / (n - 1))
        model = CostModel.fit(steps, seconds) if steps else CostModel(0.0, 0.0, 0.0)
        total = sum(
            reading / positions * len(rows) * len(contexts[rows[0]])
            + (longest - 1) * model.seconds(step(rows, longest))
            for rows in batches
        )
        return total, len(batches) * longest

    def _on_samples(self, scorers: DesignerObjectives | Judges | None, prompts: Sequence[Example]) -> float:
        if scorers is None or not prompts:
            return 0.0
        some = [example.record.items[0] for example in prompts[:TIMED_TEXTS]]
        texts = [item.context for item in some], [item.response for item in some]
        return self.bench.timed(lambda: scorers.score_texts(*texts))[1] / len(some) * len(prompts)

    def _made_up_rows(self, examples: Sequence[Example]) -> tuple[list[dict[str, Any]], float]:
        """The rows of the held-out pairs with made-up log-probabilities: as long as real ones, and as slow to make."""
        for name in ("logp", "ref_logp"):
            make_up(examples, name)
        return self.bench.timed(lambda: judge_pairs(self.recipe, examples, seed=0))

    def _reporting(self, rows: Sequence[Mapping[str, Any]]) -> float:
        """Seconds of intervals and differences, over made-up rows; the page itself takes about a fifth of a second."""
        names, runs = self.recipe.scores, list(self.recipe.run_plan())
        whole = [{**row, "seed": seed} for seed in self.recipe.seeds for row in rows]
        everything = {run: (whole, []) for run in runs}
        _, one = self.bench.timed(lambda: summarise(whole, [], designer=names))
        _, before = self.bench.timed(lambda: summarise_reference(list(rows), [], designer=names))
        _, between = self.bench.timed(lambda: differences(everything, self.recipe.controls, designer=names))
        sampled = 1 + min(1.0, self.recipe.sampling.prompts / max(len(rows), 1))  # intervals of samples come besides
        return sampled * (one * len(runs) + before + between) + 0.2


def sample_batches(lengths: Sequence[int], max_new_tokens: int) -> Iterator[list[int]]:
    """The batches that `unipref.sampling.generate` makes of contexts of these lengths, the longest first."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        rows = max(1, SAMPLE_BATCH // (lengths[order[0]] + max_new_tokens))
        yield order[:rows]
        order = order[rows:]
