"""Language models that are asked about a pair: by a letter, or through a user's earlier choices."""

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, DataError
from unipref.core.records import Item, Message, Record
from unipref.core.statistics import both_sides, pair_accuracy
from unipref.data import encode_records
from unipref.data.few_shots import Shot, draw_shots, few_shot_words
from unipref.data.pair_questions import PairQuestion
from unipref.data.pairs import UNNAMED, Pairs
from unipref.rewards.as_trained import read_question

__all__ = ["FewShotJudge", "PairJudge"]


class _Asked:
    """What both have in common: probabilities and accuracy of a `decision_function` on `Pairs` of texts."""

    def decision_function(self, pairs: Pairs) -> np.ndarray:
        raise NotImplementedError

    def predict_proba(self, pairs: Pairs) -> np.ndarray:
        """(N, 2) probabilities that the second and that the first is preferred; NaN where there is no verdict."""
        return both_sides(self.decision_function(pairs))

    def score(self, pairs: Pairs) -> float:
        """Accuracy by weight over the pairs that are no ties and have a verdict; an even one is half right."""
        return pair_accuracy(self.decision_function(pairs), pairs.p, pairs.weight)


@dataclass(frozen=True)
class PairJudge(_Asked):
    """A language model that reads both responses and answers with the letter of the better one.

    It is asked in both orders, and the two probabilities are averaged, so that P(a > b) + P(b > a) = 1 whatever it
    thinks of places. The probability is a softmax over the two answers alone. A pair that is longer than the model has
    positions for gets no verdict, NaN: a judge that did not read both responses says nothing.

    Attributes:
        model: folder or hub id of a causal language model.
        question: what is asked; None: what a model that was trained here was trained on, or no criterion.
        turns: ask in the tokenizer's chat template; None: where it has one and the model was not trained on plain text.
        max_tokens: per forward pass.
    """

    model: str
    question: PairQuestion | None = None
    turns: bool | None = None
    max_tokens: int = 16_384
    dtype: str = "auto"
    trust_remote_code: bool = False

    @cached_property
    def _loaded(self) -> "_Language":
        return _Language(self.model, self.dtype, self.trust_remote_code)

    @cached_property
    def asked(self) -> PairQuestion:
        """The question in force."""
        return self.question or read_question(self.model) or PairQuestion()

    def by_order(self, pairs: Pairs) -> np.ndarray:
        """(2, N) logits that the first is better: where it stands as A, and where it stands as B.

        Raises:
            DataError: a pair has no criterion where the question is put by a fact of its row.
        """
        turns = self.turns
        if turns is None:
            turns = bool(self._loaded.tokenizer.chat_template)
        records = []
        for i in range(len(pairs)):
            domain, user = (None if str(name) == UNNAMED else str(name) for name in (pairs.domain[i], pairs.user[i]))
            words = self.asked.criterion_of(domain=domain, user=user)
            if words is None:
                raise DataError(
                    f"{pairs.place[i]}: the question takes its criterion by {self.asked.by}, and the pair's is "
                    f"{(domain if self.asked.by == 'domain' else user)!r}; add it to the criteria"
                )
            # one order for both ways round, so that an exchanged pair is the very same forward pass
            sides = sorted((str(pairs.first[i]), str(pairs.second[i])))
            records.append(self.asked.both_orders(str(i), str(pairs.prompt[i]), *sides, words, turns=turns))
        logp = self._loaded.logp(records, self.max_tokens)
        logits = np.stack([logp[:, 0] - logp[:, 1], logp[:, 3] - logp[:, 2]])
        return np.where(pairs.first > pairs.second, -logits[::-1], logits)

    def decision_function(self, pairs: Pairs) -> np.ndarray:
        """(N,) logits of the mean over both orders of the probability that the first is preferred."""
        as_a, as_b = np.tanh(0.5 * self.by_order(pairs))
        return 2.0 * np.arctanh(np.clip(0.5 * (as_a + as_b), -_CERTAIN, _CERTAIN))

    def swap_bias(self, pairs: Pairs) -> dict[str, float]:
        """How much the places matter, which averaging takes out.

        Returns:
            n: pairs with a verdict; first: mean probability of whichever stands as A, one half where places do not
            matter; consistent: share of pairs where both orders prefer the same response.
        """
        as_a, as_b = self.by_order(pairs)
        known = ~np.isnan(as_a + as_b)
        as_a, as_b = as_a[known], as_b[known]
        if not len(as_a):
            return {"n": 0.0, "first": float("nan"), "consistent": float("nan")}
        first = 0.5 + 0.25 * (np.tanh(0.5 * as_a) - np.tanh(0.5 * as_b))
        consistent = np.mean(np.sign(as_a) == np.sign(as_b))
        return {"n": float(len(as_a)), "first": float(first.mean()), "consistent": float(consistent)}


@dataclass(frozen=True)
class FewShotJudge(_Asked):
    """A policy's implicit reward behind the choices that a user made before: adapting is putting them in the prompt.

    The logit is tau (dh) with h = logp - ref_logp of a response behind the examples. Only its sign is calibrated: IPO
    pulls it to one half. A user without examples is asked without any, as everybody is before `adapt`.

    Attributes:
        model, reference: folders or hub ids of the trained policy and of what it was trained from.
        tau: as in training. shots: examples per prompt, at most. where: "user" or "system", as in the operator.
        seed: of which examples and in what order. memory: user -> the examples that `adapt` was given.
    """

    model: str
    reference: str
    tau: float = 0.01
    shots: int = 4
    where: str = "user"
    seed: int = 0
    turns: bool | None = None
    max_tokens: int = 16_384
    dtype: str = "auto"
    trust_remote_code: bool = False
    memory: tuple[tuple[str, tuple[Shot, ...]], ...] = ()

    @cached_property
    def _loaded(self) -> tuple["_Language", "_Language"]:
        return tuple(_Language(name, self.dtype, self.trust_remote_code) for name in (self.model, self.reference))

    def adapt(self, pairs: Pairs) -> "FewShotJudge":
        """The same model with these pairs among its examples; nothing is trained. Ties say nothing and are left out.

        Raises:
            DataError: no pair names its user.
        """
        known = defaultdict(list, {user: list(shots) for user, shots in self.memory})
        named = False
        for i in range(len(pairs)):
            user = str(pairs.user[i])
            named |= user != UNNAMED
            if user == UNNAMED or pairs.p[i] == 0.5:
                continue
            better, worse = pairs.first[i], pairs.second[i]
            if pairs.p[i] < 0.5:
                better, worse = worse, better
            known[user].append((str(pairs.group[i]), str(pairs.prompt[i]), str(better), str(worse)))
        if not named:
            raise DataError("no pair names its user, so there is nobody to adapt to; give the column `user`")
        grown = replace(self, memory=tuple((user, tuple(shots)) for user, shots in known.items()))
        if "_loaded" in vars(self):
            vars(grown)["_loaded"] = self._loaded
        return grown

    def decision_function(self, pairs: Pairs, *, seed: int | None = None) -> np.ndarray:
        """(N,) tau times the difference of log-ratios; NaN where the prompt is longer than the model has positions.

        Args:
            seed: of the examples, instead of the judge's own.
        """
        policy, reference = self._loaded
        turns = bool(policy.tokenizer.chat_template) if self.turns is None else self.turns
        known, seed = dict(self.memory), self.seed if seed is None else seed
        records = []
        for i in range(len(pairs)):
            shots = draw_shots(known.get(str(pairs.user[i]), ()), str(pairs.group[i]), self.shots, f"{seed} {i}")
            records.append(self._record(i, pairs, few_shot_words(shots), turns))
        h = policy.logp(records, self.max_tokens) - reference.logp(records, self.max_tokens)
        return self.tau * (h[:, 0] - h[:, 1])

    def _record(self, i: int, pairs: Pairs, words: str, turns: bool) -> Record:
        from unipref.data.conditioning import put_before

        prompt, sides = str(pairs.prompt[i]), (str(pairs.first[i]), str(pairs.second[i]))
        context: Any = (Message("user", prompt),) if turns else prompt
        context = put_before(context, words, where=self.where)
        return Record(str(i), tuple(Item(context, (Message("assistant", side),) if turns else side) for side in sides))

    def variation(self, pairs: Pairs, *, orders: int = 8) -> dict[str, float]:
        """What the choice and order of examples do to a verdict, which ought to be nothing.

        Returns:
            spread: mean over pairs of the logit's standard deviation over `orders` draws; flips: mean share of draws
            whose verdict is not that of the pair's majority.
        """
        logits = np.stack([self.decision_function(pairs, seed=self.seed + k) for k in range(orders)])
        share = (logits > 0).mean(0)
        spread = float(np.nanmean(logits.std(0, ddof=1)))
        return {"spread": spread, "flips": float(np.minimum(share, 1 - share).mean()), "draws": float(orders)}


_CERTAIN = 1.0 - 1e-15  # a probability of exactly 1 has no logit


class _Language:
    """A language model that scores the items of records."""

    def __init__(self, name: str, dtype: str, trust_remote_code: bool) -> None:
        import torch

        from unipref.engine import Policy, load_model, load_tokenizer

        if not isinstance(name, str) or not name:
            raise ConfigError(f"a judge needs a model, a folder or hub id, not {name!r}")
        name = str(Path(name).expanduser()) if name.startswith("~") else name
        self.tokenizer = load_tokenizer(name, trust_remote_code=trust_remote_code)
        model = load_model(name, dtype=dtype, trust_remote_code=trust_remote_code)
        self.longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.policy = Policy(model, longest=self.longest and min(self.longest, 4096)).to(device).eval()

    def logp(self, records: list[Record], max_tokens: int) -> np.ndarray:
        """(N, items) summed log-probabilities, nats; NaN of records that are too long or cannot be encoded."""
        from unipref.engine import score

        found = np.full((len(records), len(records[0].items) if records else 0), np.nan)
        if not records:
            return found
        try:
            encoded, _ = encode_records(records, self.tokenizer, max_length=self.longest)
        except DataError:  # none of them can be
            return found
        whole = [each for each in encoded if not any(each.n_cut_context) and not any(each.n_cut_response)]
        values = score(self.policy, [each.trie for each in whole], max_tokens=max_tokens)
        for each, items in zip(whole, values, strict=True):
            found[int(each.record.id)] = [float(item.sum(dtype=np.float64)) for item in items]
        return found
