"""One wrapped module: a causal language model, its heads, and the way from tries to values.

Shapes: N nodes, T scored tokens, I items, U nodes that a scored token is read from, H hidden width, V vocabulary,
R rows (one per item), L tokens of the longest row, K decoder blocks, M positions that the model computes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unipref.core.errors import ConfigError, ShapeError
from unipref.core.tries import TrieBatch, build_trie, pack
from unipref.engine import attention
from unipref.engine.fused import fuse
from unipref.engine.head import LogitHead, divergences
from unipref.engine.products import rounded
from unipref.engine.readouts import Head, TokenMask

__all__ = ["Distribution", "Policy", "Values"]

PROBE_TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-4}  # relative to the largest; models compute norms in float32
DIVERGENCES = ("kl", "reverse_kl")
_OF_VOCABULARY = ("logp", "entropy", *DIVERGENCES, "distribution", "layers")
PROBE_LONGEST = 1024  # tokens of the long probe, unless the caller knows better


@dataclass(frozen=True, eq=False)
class Distribution:
    """What a model says of the whole vocabulary wherever a scored token of one batch is predicted.

    The vocabulary itself is not here: the hidden states are, and the head that turns them into logits.

    Attributes:
        hidden: (U, H) hidden states, or, of a model whose head is unknown, (T, V) logits with an identity as head.
        row: (T,) int64, the hidden state that each scored token is predicted from.
        head: turns `hidden` into logits.
        logp: (T,) log-probabilities of the scored tokens, nats: what `Values.logp` is.
        layers: (U, K, H) outputs of the K decoder blocks at the same positions (the last one behind the model's final
            norm, as transformers gives it), or None.
    """

    hidden: Tensor
    row: Tensor
    head: LogitHead
    logp: Tensor
    layers: Tensor | None = None


class Values(NamedTuple):
    """What one forward gives. A named tuple, so that DDP and FSDP find the tensors in it.

    Attributes:
        logp: (T,) float32 (float64 where the model is), nats, aligned with `TrieBatch.scored`; gradient flows. None
            where nothing that was wanted reads the vocabulary: heads alone cost no logits.
        entropy: (T,) nats, of the distribution each scored token was drawn from; None unless wanted.
        heads: (I,) or (I, C) per head, by name.
        tokens: (T,) per further number of a scored token, by name: divergences and token masks.
        distribution: what a later forward takes as its reference; None unless wanted.
    """

    logp: Tensor | None
    entropy: Tensor | None
    heads: dict[str, Tensor]
    tokens: dict[str, Tensor]
    distribution: Distribution | None = None

    @property
    def kl(self) -> Tensor | None:
        """(T,) forward divergence to the reference, nats: `tokens["kl"]`; None unless wanted."""
        return self.tokens.get("kl")


class Policy(nn.Module):
    """A causal language model that gives log-probabilities of token tries, and the heads trained with it.

    Two ways lead to the same numbers. *tries*: each shared token once, no padding, attention by
    `engine.attention`. *rows*: each item a right-padded row. "auto" compares the two on random tokens, once, and takes
    rows where tries are not exact for this model; `path` and `path_reason` say what was taken and why. Whatever the
    path, a batch with a row past a window that was not probed goes by rows, and one with a row so long that the model
    rescales its positions goes row by row.

    Args:
        model: a transformers causal language model, with peft adapters or without.
        heads: modules that read hidden states, by name (`Head`: the policy's own; `TokenMask`: a reference's); their
            parameters are trained with the model's.
        path: "auto", or the path to be taken. "tries" raises where they are not exact.
        dropout: keep the model's and the adapters' dropout. Off by default: a policy and its reference must agree.
        longest: tokens of the longest row that will come; the probe goes up to it.
        fused: on a CPU, let norms, rotations, gates and tied embeddings of `model` go over memory less often
            (`engine.fused`); the numbers are the same up to their last digits.
    """

    def __init__(
        self,
        model: nn.Module,
        heads: Mapping[str, Head | TokenMask] | None = None,
        path: Literal["auto", "tries", "rows"] = "auto",
        *,
        dropout: bool = False,
        longest: int | None = None,
        fused: bool = True,
    ) -> None:
        super().__init__()
        if path not in ("auto", "tries", "rows"):
            raise ConfigError(f"path is 'auto', 'tries' or 'rows', not {path!r}")
        self.model = model
        self.heads = nn.ModuleDict(heads or {})
        if not dropout:
            _switch_dropout_off(model)
        if fused:
            fuse(model)
        self._has_dropout = dropout
        self._inner = [_inner_model(model)]  # in a list, so that its parameters are registered once
        self.path_reason = "asked for"
        self._decoder, self._head, self._head_reason = self._find_head()
        self._probes = self._probe_lengths(longest)
        self.path: Literal["tries", "rows"] = self._choose(path)

    @property
    def config(self) -> Any:
        """The model's own configuration."""
        return self._inner[0].config

    @property
    def device(self) -> torch.device:
        parameter = next(self.model.parameters())
        mesh = getattr(parameter, "device_mesh", None)  # shards may lie in the host's memory; they run elsewhere
        return parameter.device if mesh is None else torch.device(mesh.device_type)

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> None:
        """As on the model: activations are recomputed in the backward pass. Non-reentrant unless asked otherwise."""
        given = {"use_reentrant": False, **(activation_checkpointing_kwargs or {})}
        self._checkpointing("enable")(given, **options)

    def activation_checkpointing_disable(self) -> None:
        """Activations are kept again."""
        self._checkpointing("disable")()

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """`activation_checkpointing_enable` under the name that earlier trainers call."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs)

    def gradient_checkpointing_disable(self) -> None:
        """`activation_checkpointing_disable` under its earlier name."""
        self.activation_checkpointing_disable()

    def _checkpointing(self, verb: str) -> Any:
        """The model's method under its new name or, in earlier releases of transformers, its old one."""
        new = getattr(self.model, f"activation_checkpointing_{verb}", None)
        return new if new is not None else getattr(self.model, f"gradient_checkpointing_{verb}")

    def head_alone(self) -> list[nn.Parameter]:
        """Parameters of the language-model head that nothing else uses: where no log-probability is asked for, no
        gradient comes to them. Empty where the head is the embedding matrix."""
        module = self._inner[0].get_output_embeddings()
        if module is None:
            return []
        own = set(module.modules())
        elsewhere = {id(p) for other in self.modules() if other not in own for p in other.parameters(recurse=False)}
        return [p for p in module.parameters() if id(p) not in elsewhere]

    @contextmanager
    def reference_mode(self) -> Iterator[None]:
        """Adapters switched off: the model as it was before training.

        Raises:
            ConfigError: the model has no adapters, so its reference must be another model.
        """
        if not hasattr(self.model, "disable_adapter"):
            raise ConfigError("the model has no adapter to switch off; score the reference with a policy of its own")
        with self.model.disable_adapter():
            yield

    def forward(
        self, batch: TrieBatch, want: tuple[str, ...] = ("logp",), reference: Distribution | None = None
    ) -> Values:
        """Values of every scored token of `batch`.

        Args:
            want: "logp", "entropy", the names of heads, "kl" and "reverse_kl" (divergences to `reference`),
                "distribution" (what this model says, as another's reference) and "layers" (the same, with the outputs
                of every block). Log-probabilities come with all of these but heads.
            reference: what a reference says of the same batch (`reference_distribution`). Divergences and token masks
                need it; no gradient goes there.

        Raises:
            ConfigError: `want` holds an unknown name, or something that needs a reference where none is given; or the
                reference has another vocabulary.
            ShapeError: the reference was made of another batch.
        """
        known = (*_OF_VOCABULARY, *self.heads)
        unknown = sorted(set(want) - set(known))
        if unknown:
            raise ConfigError(f"the policy gives nothing called {', '.join(unknown)}; it gives {', '.join(known)}")
        self._check_reference(batch, want, reference)
        way = self._way(batch)
        if way in ("whole rows", "one by one"):
            return self._whole_rows(batch, want, reference, one_by_one=way == "one by one")
        states = self._tries_hidden if way == "tries" else self._rows_hidden
        return self._read(states(batch, layers="layers" in want), batch, want, reference)

    def hidden(self, batch: TrieBatch) -> tuple[Tensor, Tensor | None]:
        """Last hidden states of all positions that the model computes for `batch`, rows laid end to end.

        Returns:
            (M, H), and (I,) int64 where each item's row begins: its token of depth d is at begin + d. None in the
            place of the latter where the first N positions are the nodes of `batch`.
        """
        way = self._way(batch)
        if way == "tries":
            return self._row_of_tries(batch)[-1], None
        rows = _Rows(batch)
        if way == "rows":
            begin = torch.arange(batch.n_items, device=rows.token.device) * rows.token.shape[1]
            return self._decode(rows.token, None, None)[-1].flatten(0, 1), begin
        found, begin, done = [], [], 0
        for group in rows.groups(one_by_one=way == "one by one"):
            states = self._full(rows, group, states=True)[1][-1]
            begin.append(done + torch.arange(len(states), device=states.device) * states.shape[1])
            found.append(states.flatten(0, 1))
            done += len(found[-1])
        return torch.cat(found), torch.cat(begin)

    def _check_reference(self, batch: TrieBatch, want: tuple[str, ...], reference: Distribution | None) -> None:
        masks = [name for name in want if name in self.heads and isinstance(self.heads[name], TokenMask)]
        needing = [name for name in want if name in DIVERGENCES or name in masks]
        if needing and reference is None:
            raise ConfigError(f"{', '.join(needing)}: compared with a reference; give reference_distribution(...)")
        if masks and reference.layers is None:
            raise ConfigError(f"{', '.join(masks)}: read from a reference's blocks; make it with layers=True")
        if reference is not None and len(reference.row) != len(batch.scored):
            raise ShapeError(
                f"the reference speaks of {len(reference.row)} scored tokens and the batch has {len(batch.scored)}; "
                "make it from the same batch"
            )

    def _way(self, batch: TrieBatch) -> Literal["tries", "rows", "whole rows", "one by one"]:
        """How `batch` goes through the model: rows so long that the model rescales its positions go one by one."""
        if self._deeper_than(_position_threshold(self.config.get_text_config()), batch):
            return "one by one"
        if self._head is None:
            return "whole rows"
        return "tries" if self.path == "tries" and not self._deeper_than(self._unprobed_window(), batch) else "rows"

    # -- hidden states ------------------------------------------------------------------------------------------------

    def _tries_hidden(self, batch: TrieBatch, *, layers: bool = False) -> tuple[Tensor, ...]:
        """(N, H) of the nodes of `batch`: last hidden states, or those of every block."""
        return tuple(x[: len(batch.token)] for x in self._row_of_tries(batch, layers=layers))

    def _row_of_tries(self, batch: TrieBatch, *, layers: bool = False) -> tuple[Tensor, ...]:
        """(M, H) of a row that begins with the nodes of `batch`: last hidden states, or those of every block."""
        n, device = len(batch.token), batch.token.device
        # A chain of tokens that nobody reads fills the row up.
        extra = torch.arange(rounded(n, self._dtype(), device) - n, device=device)
        token, depth = torch.cat((batch.token, 0 * extra)), torch.cat((batch.depth, extra))
        end = torch.cat((batch.end, torch.full_like(extra, n + len(extra))))
        layout = attention.layout_of(depth, end)
        return tuple(x[0] for x in self._decode(token[None], layout, depth[None], layers=layers))

    def _rows_hidden(self, batch: TrieBatch, *, layers: bool = False) -> tuple[Tensor, ...]:
        """(N, H), each node taken from the first row it stands in: last hidden states, or those of every block."""
        rows = _Rows(batch)
        return tuple(x.flatten(0, 1)[rows.place] for x in self._decode(rows.token, None, None, layers=layers))

    def _decode(
        self, token: Tensor, mask: Tensor | None, position: Tensor | None, *, layers: bool = False
    ) -> tuple[Tensor, ...]:
        given = {"attention_mask": mask, "position_ids": position} if mask is not None else {}
        if layers:
            given["output_hidden_states"] = True
        self._forget_lengths()
        out = self._decoder[0](input_ids=token, use_cache=False, **given)
        return out.hidden_states[1:] if layers else (out.last_hidden_state,)  # the first are the embeddings

    def _read(
        self, states: tuple[Tensor, ...], batch: TrieBatch, want: tuple[str, ...], reference: Distribution | None = None
    ) -> Values:
        """Values from the (N, H) hidden states: the vocabulary is met at the parents of scored nodes only."""
        hidden, entropy = states[-1], "entropy" in want
        heads = {name: head(hidden[self._at(batch, name)]) for name, head in self._wanted(want, Head)}
        if not _reads_vocabulary(want):
            return Values(None, None, heads, self._masks(want, reference))
        scored, back = torch.unique(batch.scored, return_inverse=True)
        source, row = torch.unique(batch.parent[scored], return_inverse=True)
        at_source = hidden.index_select(0, source)
        logp, entropies = self._head(at_source, row, batch.token[scored], entropy=entropy)
        layers = torch.stack([x.index_select(0, source) for x in states], 1) if "layers" in want else None
        said = Distribution(at_source, row[back], self._head, logp.index_select(0, back), layers)
        return Values(
            said.logp,
            entropies[row][back] if entropies is not None else None,
            heads,
            self._tokens(said, want, reference),
            said if "distribution" in want or "layers" in want else None,
        )

    def _wanted(self, want: tuple[str, ...], kind: type[nn.Module]) -> list[tuple[str, Any]]:
        return [(name, head) for name, head in self.heads.items() if name in want and isinstance(head, kind)]

    def _at(self, batch: TrieBatch, name: str) -> Tensor:
        return batch.context if self.heads[name].at == "context" else batch.last

    def _masks(self, want: tuple[str, ...], reference: Distribution | None) -> dict[str, Tensor]:
        return {name: mask(reference.layers)[reference.row] for name, mask in self._wanted(want, TokenMask)}

    def _tokens(self, said: Distribution, want: tuple[str, ...], reference: Distribution | None) -> dict[str, Tensor]:
        """(T,) divergences from `reference` and token masks, by name."""
        found = self._masks(want, reference)
        if not any(name in want for name in DIVERGENCES):
            return found
        ours, theirs, row = said.hidden, reference.hidden, said.row
        if not torch.equal(row, reference.row):  # one of the two went token by token
            ours, theirs, row = ours[row], theirs[reference.row], torch.arange(len(row), device=row.device)
        values = divergences(said.head, ours, reference.head, theirs)
        found.update((n, v.index_select(0, row)) for n, v in zip(DIVERGENCES, values, strict=True) if n in want)
        return found

    def _whole_rows(
        self, batch: TrieBatch, want: tuple[str, ...], reference: Distribution | None = None, *, one_by_one: bool
    ) -> Values:
        """Values from the model's own logits, row by row or all rows at once: for models of which less is known."""
        rows = _Rows(batch)
        token_T, row_T, column_T = batch.token[batch.scored], batch.scored_item, batch.depth[batch.scored] - 1
        heads = self._wanted(want, Head)
        entropy, layered = "entropy" in want, "layers" in want
        kept = layered or "distribution" in want or any(name in want for name in DIVERGENCES)
        logp, entropies, hidden, logits, layers = [], [], [], [], []
        for group in rows.groups(one_by_one=one_by_one):
            full, states = self._full(rows, group, states=layered or bool(heads))
            pick = (row_T >= group.start) & (row_T < group.stop)
            where = row_T[pick] - group.start, column_T[pick]
            log_p = LogitHead(nn.Identity()).log_probs(full[where])
            logp.append(log_p.gather(1, token_T[pick, None])[:, 0])
            if entropy:
                entropies.append(-(log_p.exp() * log_p).sum(1))
            if heads:
                hidden.extend(states[-1])
            if kept:
                logits.append(full[where])
            if layered:
                layers.append(torch.stack([x[where] for x in states[1:]], 1))
        found = {}
        for name, head in heads:
            column = batch.depth[self._at(batch, name)].tolist()
            found[name] = head(torch.stack([h[c] for h, c in zip(hidden, column, strict=True)]))
        said = None
        if kept:
            row, none = torch.arange(len(row_T), device=row_T.device), LogitHead(nn.Identity())
            said = Distribution(torch.cat(logits), row, none, torch.cat(logp), torch.cat(layers) if layered else None)
        return Values(
            torch.cat(logp) if _reads_vocabulary(want) else None,
            torch.cat(entropies) if entropy else None,
            found,
            self._tokens(said, want, reference),
            said if layered or "distribution" in want else None,
        )

    def _full(self, rows: "_Rows", group: slice, *, states: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The model's own (n, L, V) logits of `group`, and (n, L, H) embeddings and outputs of every block."""
        width = int(rows.length[group].max())
        self._forget_lengths()
        out = self.model(input_ids=rows.token[group, :width], use_cache=False, output_hidden_states=states)
        # A prompt that was learned stands before the tokens.
        return out.logits[:, -width:], tuple(x[:, -width:] for x in out.hidden_states) if states else ()

    def _forget_lengths(self) -> None:
        """Let a model that rescales its positions do so anew: it keeps the frequencies of a longer row before."""
        if _position_threshold(self.config.get_text_config()) is None:
            return
        for module in self.model.modules():
            for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
                setattr(module, name, 0)

    # -- choosing the path --------------------------------------------------------------------------------------------

    def _find_head(self) -> tuple[list[nn.Module] | None, LogitHead | None, str]:
        """The decoder without its head and the head, or (None, None, why not)."""
        inner = self._inner[0]
        config = inner.config
        if getattr(config, "is_encoder_decoder", False):
            raise ConfigError(f"{type(inner).__name__} is an encoder-decoder; unipref trains causal language models")
        if any(getattr(c, "is_prompt_learning", False) for c in getattr(self.model, "peft_config", {}).values()):
            return None, None, "prompt-learning adapters change the input"
        decoder, module = inner.get_decoder(), inner.get_output_embeddings()
        if decoder is inner or module is None:
            return None, None, f"{type(inner).__name__} does not say where its decoder and head are"
        text = config.get_text_config()
        scale = getattr(text, "logit_scale", None) or 1 / (getattr(text, "logits_scaling", None) or 1)
        softcap = getattr(text, "final_logit_softcapping", None)
        return [decoder], LogitHead(module, scale=float(scale), softcap=softcap), ""

    def _choose(self, path: str) -> Literal["tries", "rows"]:
        probes = [_probe_batch(length, self._vocabulary(), self.device) for length in self._probes]
        truth = [self._quietly(lambda b=b: self._whole_rows(b, ("logp",), one_by_one=True).logp) for b in probes]
        if self._head is not None:
            reason = self._compare(probes, truth, self._rows_hidden)
            if reason:
                self._head, self._head_reason = None, f"the head alone does not give the model's logits: {reason}"
        if path == "rows":
            return "rows"
        reason = self._head_reason or self._why_not_tries(probes, truth)
        if reason and path == "tries":
            name = type(self._inner[0]).__name__
            raise ConfigError(f"path='tries' is not exact for {name}: {reason}; use path='auto'")
        self.path_reason = reason or "tries equal rows on the probe"
        return "rows" if reason else "tries"

    def _why_not_tries(self, probes: list[TrieBatch], truth: list[Tensor]) -> str:
        inner = self._inner[0]
        if self._has_dropout:
            return "dropout is on"
        before = inner.config._attn_implementation
        if before not in ("sdpa", "eager", attention.NAME):
            return f"the attention implementation {before!r} was asked for"
        attention.install()
        try:
            inner.set_attn_implementation(attention.NAME)
            if inner.config._attn_implementation != attention.NAME:
                return "the model does not take its attention function by name"
            reason = self._compare(probes, truth, self._tries_hidden)
        except ConfigError as err:
            reason = str(err)
        except Exception as err:  # whatever a foreign architecture raises, it says that tries are not for it
            reason = f"the model cannot run a row of tries ({type(err).__name__}: {err})"
        if reason:
            inner.set_attn_implementation(before)
        return reason

    def _compare(self, probes: list[TrieBatch], truth: list[Tensor], hidden_of: Any) -> str:
        """Empty where the path gives the true log-probabilities, else what it gave."""
        for batch, expected in zip(probes, truth, strict=True):
            got = self._quietly(lambda b=batch: self._read(hidden_of(b), b, ("logp",)).logp)
            difference = float((got - expected).abs().max())
            if not difference <= _probe_tolerance(self._dtype(), expected):
                return f"log-probabilities differ by {difference:.2g} nats at {int(batch.depth.max()) + 1} tokens"
        return ""

    def _quietly(self, call: Any) -> Tensor:
        training = self.training
        self.train(not self._has_dropout)  # as in training, so that a dropout that was not found shows
        try:
            with torch.no_grad():
                return call()
        finally:
            self.train(training)

    def _dtype(self) -> torch.dtype:
        device = self.device.type
        if torch.is_autocast_enabled(device):
            return torch.get_autocast_dtype(device)
        return next(p.dtype for p in self.model.parameters() if p.is_floating_point())

    def _vocabulary(self) -> int:
        return self._inner[0].get_input_embeddings().num_embeddings

    def _probe_lengths(self, longest: int | None) -> list[int]:
        """Tokens of the short and the long probe: past the window of a windowed layer where that is cheap."""
        text = self.config.get_text_config()
        ceiling = getattr(text, "max_position_embeddings", None) or PROBE_LONGEST
        past_window = max((window + 16 for window in _windows(text) if window + 16 <= PROBE_LONGEST), default=64)
        long = min(longest or past_window, ceiling, _position_threshold(text) or ceiling)
        return sorted({min(12, long), long})

    def _unprobed_window(self) -> int | None:
        """The smallest window that no probe went past, so that longer tries are not vouched for."""
        unprobed = [window for window in _windows(self.config.get_text_config()) if window >= self._probes[-1]]
        return min(unprobed, default=None)

    @staticmethod
    def _deeper_than(limit: int | None, batch: TrieBatch) -> bool:
        return limit is not None and int(batch.depth.max()) + 1 > limit


class _Rows:
    """The items of a batch as rows, padded on the right with their own last token.

    A causal model never looks to the right, so rows need no mask.

    Attributes:
        token: (R, L) vocabulary ids. length: (R,) tokens. place: (N,) where a node stands in the flattened rows.
    """

    def __init__(self, batch: TrieBatch) -> None:
        device = batch.token.device
        depth, parent = batch.depth, batch.parent
        self.length = depth[batch.last] + 1
        node = torch.full((batch.n_items, int(self.length.max())), -1, dtype=torch.int64, device=device)
        here, row = batch.last, torch.arange(batch.n_items, device=device)
        while len(here):  # up from the last tokens to the roots, all rows at once
            node[row, depth[here]] = here
            here = parent[here]
            row, here = row[here >= 0], here[here >= 0]
        real = node >= 0
        self.token = batch.token[torch.where(real, node, batch.last[:, None])]
        self.place = torch.zeros_like(depth)
        self.place[node[real]] = real.flatten().nonzero().squeeze(1)

    def groups(self, *, one_by_one: bool) -> Iterator[slice]:
        """All rows at once, or one after the other."""
        n = len(self.length)
        yield from (slice(i, i + 1) for i in range(n)) if one_by_one else [slice(0, n)]


def _reads_vocabulary(want: tuple[str, ...]) -> bool:
    """Whether something of `want` is made of logits."""
    return any(name in _OF_VOCABULARY for name in want)


def _inner_model(model: nn.Module) -> nn.Module:
    """The transformers model under peft's wrappers."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _switch_dropout_off(model: nn.Module) -> None:
    """Dropout of modules and of attention functions to 0; the saved configuration stays as it is."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and ("dropout" in name or "layerdrop" in name or "jitter" in name):
                setattr(module, name, 0.0)


def _position_threshold(config: Any) -> int | None:
    """Tokens past which rotary frequencies depend on the longest row of the batch (dynamic NTK, LongRoPE)."""
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = [p for p in parameters.values() if isinstance(p, dict)] or [parameters]
    if not any(p.get("rope_type") in ("dynamic", "longrope") for p in nested):
        return None
    known = [p.get("original_max_position_embeddings") for p in nested if p.get("original_max_position_embeddings")]
    known.append(getattr(config, "original_max_position_embeddings", None) or config.max_position_embeddings)
    return int(min(known))


def _windows(config: Any) -> list[int]:
    """Tokens that windowed or chunked layers look back, as far as the configuration says."""
    return [w for w in (getattr(config, n, None) for n in ("sliding_window", "attention_chunk_size")) if w]


def _probe_tolerance(dtype: torch.dtype, expected: Tensor) -> float:
    """Nats by which two exact ways may differ: rounding, not visibility."""
    if dtype in PROBE_TOLERANCE:
        return PROBE_TOLERANCE[dtype] * max(1.0, float(expected.abs().max()))
    return 0.05 * max(1.0, float(expected.abs().max()))


def _probe_batch(length: int, vocabulary: int, device: torch.device) -> TrieBatch:
    """Random tries whose longest row has `length` tokens: a pair, three branches, and a single item."""
    generator = np.random.default_rng(length)

    def ids(n: int) -> list[int]:
        return generator.integers(0, vocabulary, max(n, 1)).tolist()

    prompt, common = ids(length - length // 3 - length // 4), ids(length // 4 - 2)
    tries = [
        build_trie([(prompt, common + ids(length // 3)), (prompt, common + ids(length // 5))]),
        build_trie([(ids(3), ids(2)), (ids(2), ids(4)), (ids(1), ids(3))]),
    ]
    return pack(tries).to(device)
