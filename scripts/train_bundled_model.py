"""Rebuild the bundled model from the bundled corpora: tokenizer, weights, 5-gram comparison, samples, model card.

    python scripts/train_bundled_model.py --stage all

Stages run alone as well (`--stage train`, `--stage evaluate`): training reads 7 million tokens, at 2300 to 5500 tokens
a second on two CPU cores, by how busy they are, and the rest takes minutes. Every stage reads its text from
`src/unipref/assets` and needs no network; training needs torch 2.9 or later for `torch.optim.Muon`.
"""

import argparse
import gzip
import html
import json
import math
import os
import platform
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from ngram import KneserNey
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from unipref.data.corpora import undo_tokenization
from unipref.data.split import conversation_key, is_heldout

ASSETS = Path(__file__).resolve().parents[1] / "src" / "unipref" / "assets"
HH_SHARE, OTHER_SHARE = 0.2, 0.05
DEFAULT_TOKENS = 7_000_000  # about as many as the shipped weights were trained on
BOS, PAD, EOS = "<|bos|>", "<|pad|>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{{ '<|bos|>' }}"
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role ' + message['role'] + '; known: system, user, assistant') }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] | trim + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] | trim + '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# ---------------------------------------------------------------------------------------------------- corpora


@dataclass(frozen=True)
class Pair:
    """One comparison of the HH file: two conversations that share everything up to the last answer."""

    chosen: tuple[tuple[str, str], ...]
    rejected: tuple[tuple[str, str], ...]
    heldout: bool


@dataclass(frozen=True)
class Text:
    """One document that is not a conversation."""

    source: str
    text: str
    heldout: bool


@dataclass(frozen=True)
class Document:
    """Token ids of one document. Tokens before `start` are context: neither counted, scored nor charged for bytes."""

    source: str
    ids: np.ndarray
    start: int


def parse_transcript(transcript: str) -> tuple[tuple[str, str], ...]:
    """Turns of an HH transcript as (role, stripped content).

    Raises:
        ValueError: text before the first speaker, or an empty turn.
    """
    head, *parts = re.split(r"\n\n(Human|Assistant): ?", transcript)
    turns = tuple(
        ({"Human": "user", "Assistant": "assistant"}[speaker], content.strip())
        for speaker, content in zip(parts[::2], parts[1::2], strict=True)
    )
    if head.strip() or not turns or not all(content for _, content in turns):
        raise ValueError(f"expected non-empty turns after a speaker's name, got {transcript[:80]!r}")
    return turns


def read_pairs() -> tuple[list[Pair], int]:
    """The HH comparisons, and the number of rows left out because a turn is empty."""
    pairs, n_malformed = [], 0
    with gzip.open(ASSETS / "hh_harmless" / "harmless_base_test.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            try:
                chosen, rejected = parse_transcript(row["chosen"]), parse_transcript(row["rejected"])
            except ValueError:
                n_malformed += 1
                continue
            pairs.append(Pair(chosen, rejected, is_heldout(conversation_key(chosen[0][1]), share=HH_SHARE)))
    return pairs, n_malformed


def _members(corpus: str, pattern: str) -> Iterator[str]:
    with zipfile.ZipFile(ASSETS / "corpora" / f"{corpus}.zip") as archive:
        for name in sorted(archive.namelist()):
            if re.fullmatch(pattern, name.split("/", 1)[1]):
                raw = archive.read(name)
                try:
                    yield raw.decode("utf-8")
                except UnicodeDecodeError:  # comparative_sentences is Windows text, the others are UTF-8
                    yield raw.decode("cp1252", errors="replace")


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.casefold())


def read_texts() -> list[Text]:
    """Documents of the review corpora, annotation removed, each with its side of the split.

    The comparative-sentence file quotes some of the same product reviews, so its sentences that also stand in a
    product review are left out: otherwise a held-out review could be read in training.
    """
    found: list[tuple[str, str]] = []
    found += [("movie_reviews", text) for text in _members("movie_reviews", r"(pos|neg)/.*\.txt")]
    for side in ("neg", "pos"):
        for text in _members("sentence_polarity", rf"rt-polarity\.{side}"):
            found += [("sentence_polarity", line) for line in text.splitlines()]
    for text in _members("pros_cons", r"Integrated.*\.txt"):
        inside = re.findall(r"<(Pros|Cons)>(.*?)</\1>", text, flags=re.DOTALL)
        found += [("pros_cons", html.unescape(html.unescape(line))) for _, line in inside]

    reviewed = set()
    for corpus in ("product_reviews_1", "product_reviews_2"):
        for text in _members(corpus, r"(?!README).*\.txt"):
            body = re.sub(r"^\*.*$", "", text, flags=re.MULTILINE)  # the banner above the first review
            for review in re.split(r"^\s*\[t\]", body, flags=re.MULTILINE):
                lines = [line.split("##", 1)[-1].strip() for line in review.splitlines()]
                reviewed.update(map(_letters, lines))
                found.append((corpus, "\n".join(filter(None, lines))))

    for text in _members("comparative_sentences", r"labeledSentences\.txt"):
        lines = re.sub(r"</?cs-\d+>", "", text).splitlines()
        kept = [line.strip() for line in lines if not re.match(r"\s*(\*\*\*|[123]_)", line)]
        kept = [line for line in kept if line and _letters(line) not in reviewed]
        found += [("comparative_sentences", "\n".join(kept[i : i + 12])) for i in range(0, len(kept), 12)]

    documents = ((source, undo_tokenization(text)) for source, text in found)
    return [
        Text(source, text, is_heldout(conversation_key(text), share=OTHER_SHARE)) for source, text in documents if text
    ]


# -------------------------------------------------------------------------------------------------- tokenizer


def train_tokenizer(pairs: list[Pair], texts: list[Text], folder: Path, *, n_vocab: int) -> None:
    """Byte-level BPE over the training text, written to `folder` as a fast tokenizer with its chat template."""
    turns = dict.fromkeys(c for p in pairs if not p.heldout for side in (p.chosen, p.rejected) for _, c in side)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_vocab,
        special_tokens=[BOS, PAD, EOS, *ROLES],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*turns, *(t.text for t in texts if not t.heldout)], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        pad_token=PAD,
        eos_token=EOS,
        additional_special_tokens=list(ROLES),
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        padding_side="left",
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def encode(pairs: list[Pair], texts: list[Text], tokenizer, *, heldout: bool) -> tuple[list, list[Document]]:
    """Token ids of one side of the split: (chosen, rejected) documents of each pair, and the other documents.

    The rejected document's `start` lies where it parts from the chosen one, so that shared turns count once.
    """
    role = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("user", "assistant")}
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id

    def ids_of(contents: list[str]) -> list[list[int]]:
        return tokenizer(contents, add_special_tokens=False)["input_ids"] if contents else []

    conversations, seen = [], set()
    for pair in pairs:
        if pair.heldout != heldout or (pair.chosen, pair.rejected) in seen:
            continue
        seen.add((pair.chosen, pair.rejected))
        sides = []
        for side in (pair.chosen, pair.rejected):
            ids = [bos]
            for (speaker, _), content in zip(side, ids_of([c for _, c in side]), strict=True):
                ids += [role[speaker], *content, eos]
            sides.append(np.array(ids, dtype=np.int64))
        shorter = min(map(len, sides))
        differs = np.flatnonzero(sides[0][:shorter] != sides[1][:shorter])
        parting = int(differs[0]) if len(differs) else shorter
        conversations.append((Document("hh", sides[0], 1), Document("hh", sides[1], parting)))

    chosen_texts = list({t.text: t for t in texts if t.heldout == heldout}.values())
    others = [
        Document(t.source, np.array([bos, *ids, eos], dtype=np.int64), 1)
        for t, ids in zip(chosen_texts, ids_of([t.text for t in chosen_texts]), strict=True)
    ]
    return conversations, others


# --------------------------------------------------------------------------------------------------- training


def new_model(tokenizer) -> LlamaForCausalLM:
    """A Llama of about 6.5 million parameters with random weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        intermediate_size=704,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def add_dropout(model: LlamaForCausalLM, rate: float) -> None:
    """Drop out of the embedding and of each block's two branches; Llama has no such setting of its own."""

    def drop(module, _inputs, output):
        return F.dropout(output, rate, training=module.training)

    model.model.embed_tokens.register_forward_hook(drop)
    for layer in model.model.layers:
        layer.self_attn.o_proj.register_forward_hook(drop)
        layer.mlp.down_proj.register_forward_hook(drop)


class Stream:
    """Endless tokens of one source: every pass shuffles its documents, and each pair shows one side per pass."""

    def __init__(self, documents: list, rng: np.random.Generator):
        self.documents, self.rng = documents, rng
        self.tokens, self.n_passes = np.empty(0, dtype=np.int64), 0

    def take(self, n: int) -> np.ndarray:
        while len(self.tokens) < n:
            order = self.rng.permutation(len(self.documents))
            picked = (self.documents[i] for i in order)
            ids = [(d[self.rng.integers(2)] if isinstance(d, tuple) else d).ids for d in picked]
            self.tokens = np.concatenate([self.tokens, *ids])
            self.n_passes += 1
        taken, self.tokens = self.tokens[:n], self.tokens[n:]
        return taken


def next_token_nats(model: LlamaForCausalLM, rows_RT: Tensor) -> Tensor:
    """Mean negative log-likelihood of every token but the first of each row, in nats."""
    logits_RTV = model(input_ids=rows_RT, use_cache=False).logits
    return F.cross_entropy(logits_RTV[:, :-1].flatten(0, 1).float(), rows_RT[:, 1:].flatten())


def export(model: LlamaForCausalLM, tokenizer_folder: Path, folder: Path) -> None:
    """Write bf16 weights, configuration and tokenizer into `folder`; each file appears whole or not at all."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        copy = LlamaForCausalLM(model.config)
        copy.load_state_dict(model.state_dict())
        copy = copy.to(torch.bfloat16)
        copy.generation_config = GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            do_sample=True,
            temperature=0.8,
            top_p=0.95,
            max_new_tokens=128,
        )
        copy.save_pretrained(scratch)
        for note_of_where_it_was_read_from in ("is_local", "local_files_only"):
            tokenizer.init_kwargs.pop(note_of_where_it_was_read_from, None)
        tokenizer.save_pretrained(scratch)
        publish(Path(scratch), folder)


def publish(scratch: Path, folder: Path) -> None:
    """Move the files of `scratch` into `folder` by rename, so that a reader never sees half a file."""
    for file in sorted(scratch.iterdir()):
        os.chmod(file, 0o644)
        os.replace(file, folder / file.name)


def train(args: argparse.Namespace) -> None:
    """Train from scratch, or onward from an earlier leg; leaves `final/` and `training.json` in the work folder."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(args.seed)
    pairs, n_malformed = read_pairs()
    texts = read_texts()
    print(f"{len(pairs)} pairs ({n_malformed} rows with an empty turn left out), {len(texts)} texts", flush=True)
    tokenizer_folder = args.work / "tokenizer"
    if not (tokenizer_folder / "tokenizer.json").exists():
        train_tokenizer(pairs, texts, tokenizer_folder, n_vocab=args.vocabulary)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    conversations, others = encode(pairs, texts, tokenizer, heldout=False)
    held = encode(pairs, texts, tokenizer, heldout=True)
    watched = [side for pair in held[0][:40] for side in pair], held[1][:: max(1, len(held[1]) // 150)]
    hh, rest = Stream(conversations, rng), Stream(others, rng)
    n_hh = sum(len(c.ids) for c, _ in conversations)
    n_rest = sum(len(d.ids) for d in others)
    print(f"one pass: {n_hh} HH tokens, {n_rest} other tokens", flush=True)

    model, earlier = new_model(tokenizer), []
    if args.start_from is not None:
        model = LlamaForCausalLM.from_pretrained(args.start_from, dtype=torch.float32)
        leg = json.loads((args.start_from / "training.json").read_text(encoding="utf-8"))
        earlier = [*leg.pop("earlier_legs"), leg]
    add_dropout(model, args.dropout)
    matrices = [p for p in model.model.layers.parameters() if p.dim() == 2]
    rest_of_model = [p for p in model.parameters() if all(p is not m for m in matrices)]
    optimizers = [
        torch.optim.Muon(matrices, lr=args.muon_rate, weight_decay=args.weight_decay, momentum=0.95),
        torch.optim.AdamW(rest_of_model, lr=args.learning_rate, weight_decay=0.0, betas=(0.9, 0.98)),
    ]
    forward = torch.compile(next_token_nats, dynamic=False) if args.compile else next_token_nats

    log, recent, began, exported, seen, step = [], [], time.monotonic(), time.monotonic(), 0, 0
    n_seen_hh, progress = 0, 0.0
    while progress < 1.0:
        minutes = (time.monotonic() - began) / 60
        progress = max(seen / args.tokens, minutes / args.max_minutes if args.max_minutes else 0.0)
        # Rows are 512 long, later 1024 so that every position is trained; HH grows to the end.
        length = 512 if progress < args.long_from else 1024
        n_rows = args.batch_tokens // length
        share_hh = args.hh_first + (args.hh_last - args.hh_first) * min(progress, 1.0)
        n_rows_hh = int(n_rows * share_hh + rng.random())  # rounded up or down so that the share holds on average
        rows = np.concatenate([hh.take(n_rows_hh * length), rest.take((n_rows - n_rows_hh) * length)])
        rows_RT = torch.from_numpy(rows.reshape(n_rows, length))

        warm = min(1.0, (step + 1) / args.warmup_steps)
        factor = warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))
        for optimizer, peak in zip(optimizers, (args.muon_rate, args.learning_rate), strict=True):
            optimizer.param_groups[0]["lr"] = factor * peak
        model.train()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
            loss = forward(model, rows_RT)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        seen, n_seen_hh, step = seen + rows.size, n_seen_hh + n_rows_hh * length, step + 1
        recent.append(loss.item())

        if step % 20 == 0:
            minutes = (time.monotonic() - began) / 60
            row = {
                "step": step,
                "tokens": seen,
                "minutes": round(minutes, 2),
                "progress": round(progress, 4),
                "train_nats": round(float(np.mean(recent)), 4),
                "tokens_per_second": round(seen / minutes / 60),
            }
            recent = []
            if step % 200 == 0:
                row["heldout_hh_nats"] = round(nats_per_token(model, watched[0]), 4)
                row["heldout_other_nats"] = round(nats_per_token(model, watched[1]), 4)
            log.append(row)
            print(json.dumps(row), flush=True)
        finished = progress >= 1.0
        if finished or time.monotonic() - exported > 60 * args.export_minutes:
            folder = args.work / ("final" if finished else "checkpoint")
            export(model, tokenizer_folder, folder)
            exported = time.monotonic()
            local = ("work", "stage", "into", "export_minutes", "start_from")
            record = {
                "settings": {k: v for k, v in vars(args).items() if k not in local},
                "steps": step,
                "tokens": seen,
                "tokens_hh": n_seen_hh,
                "minutes": round((exported - began) / 60, 2),
                "tokens_per_second": round(seen / (exported - began)),
                "stopped_by": "tokens" if seen >= args.tokens else "max_minutes" if finished else "interruption",
                "tokens_in_one_pass": {"hh": n_hh, "other": n_rest},
                "rows_left_out": n_malformed,
                "earlier_legs": earlier,
                "log": log,
            }
            (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------------------------- evaluation


@torch.no_grad()
def document_nats(model: LlamaForCausalLM, documents: list[Document], *, window: int = 1024) -> np.ndarray:
    """Negative log-likelihood of each document's tokens from its `start` on, in nats.

    Documents longer than `window` are read in windows that overlap by half, each token scored once.
    """
    model.eval()
    totals = np.zeros(len(documents))
    jobs = []  # (document, ids of the window, first scored position inside it)
    for index, document in enumerate(documents):
        done, begin = document.start, 0
        while done < len(document.ids):
            end = min(begin + window, len(document.ids))
            jobs.append((index, document.ids[begin:end], done - begin))
            done, begin = end, max(0, end - window // 2)
    jobs.sort(key=lambda job: len(job[1]))
    batch: list = []
    for number, job in enumerate(jobs):
        batch.append(job)
        if len(batch) * len(job[1]) < 8192 and number + 1 < len(jobs):
            continue
        longest = max(len(ids) for _, ids, _ in batch)
        rows = torch.zeros(len(batch), longest, dtype=torch.long)
        for row, (_, ids, _) in zip(rows, batch, strict=True):
            row[: len(ids)] = torch.from_numpy(ids)  # padding on the right is never looked at under a causal mask
        logits_RTV = model(input_ids=rows, use_cache=False).logits
        nats = F.cross_entropy(logits_RTV[:, :-1].flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
        nats_RT = nats.view(len(batch), -1)
        for nats_T, (index, ids, first) in zip(nats_RT, batch, strict=True):
            totals[index] += float(nats_T[max(first, 1) - 1 : len(ids) - 1].sum())
        batch = []
    return totals


def nats_per_token(model: LlamaForCausalLM, documents: list[Document]) -> float:
    """Mean negative log-likelihood per scored token over `documents`."""
    return float(document_nats(model, documents).sum() / sum(len(d.ids) - d.start for d in documents))


def byte_lengths(tokenizer) -> np.ndarray:
    """UTF-8 bytes of text that each token stands for; special tokens stand for none."""
    special = set(tokenizer.all_special_ids)
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    return np.array([0 if i in special else len(name) for i, name in enumerate(names)])  # one character per byte


def words_of(text: str) -> list[str]:
    """Words of `text`, case folded: runs of letters with apostrophes inside.

    Example:
        >>> words_of("It's 2 o'clock")
        ["it's", "o'clock"]
    """
    return re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", text.casefold().replace("\u2019", "'"))


def sample_answers(model, tokenizer, pairs: list[Pair], *, n: int, seed: int, plain: bool) -> list[str]:
    """Answers to `n` held-out prompts: pure sampling at temperature 1 if `plain`, else the bundled defaults."""
    prompts = []
    for pair in (p for p in pairs if p.heldout):
        messages = [{"role": role, "content": content} for role, content in pair.chosen[:-1]]
        prompts.append(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    prompts = list(dict.fromkeys(prompts))
    prompts = [p for p in prompts if len(tokenizer(p)["input_ids"]) <= 768]  # cutting one would lose its end
    order = np.random.default_rng(seed).permutation(len(prompts))[:n]
    torch.manual_seed(seed)
    options = {"temperature": 1.0, "top_p": 1.0, "top_k": 0} if plain else {}
    answers = []
    for begin in range(0, len(order), 50):
        chunk = [prompts[i] for i in order[begin : begin + 50]]
        batch = tokenizer(chunk, return_tensors="pt", padding=True, return_token_type_ids=False)
        ids = model.generate(**batch, do_sample=True, max_new_tokens=96, **options)
        answers += tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return answers


def evaluate(args: argparse.Namespace) -> dict:
    """Measure the model in the work folder against the 5-gram and count its sampled words; returns the metrics."""
    torch.set_num_threads(args.threads)
    folder = args.work / "final"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)  # the bf16 weights, float32 arithmetic
    pairs, _ = read_pairs()
    texts = read_texts()
    conversations, others = encode(pairs, texts, tokenizer, heldout=False)
    held_conversations, held_others = encode(pairs, texts, tokenizer, heldout=True)
    training_hh = [side for pair in conversations for side in pair]
    held = [side for pair in held_conversations for side in pair] + held_others
    sources = np.array([d.source for d in held])
    n_tokens = np.array([len(d.ids) - d.start for d in held])
    lengths = byte_lengths(tokenizer)
    n_bytes = np.array([lengths[d.ids[d.start :]].sum() for d in held])

    model_nats = document_nats(model, held)
    n_vocab = len(tokenizer)
    mixed = KneserNey.fit([(d.ids, d.start) for d in training_hh + others], order=5, n_vocab=n_vocab)
    ngram_nats = mixed.nats([(d.ids, d.start) for d in held])
    hh_only = KneserNey.fit([(d.ids, d.start) for d in training_hh], order=5, n_vocab=n_vocab)
    is_hh = sources == "hh"
    hh_only_nats = hh_only.nats([(d.ids, d.start) for d, keep in zip(held, is_hh, strict=True) if keep])

    def row(keep: np.ndarray) -> dict:
        def bits(nats: np.ndarray) -> float:
            return round(float(nats[keep].sum() / math.log(2) / n_bytes[keep].sum()), 4)

        return {
            "n_documents": int(keep.sum()),
            "tokens": int(n_tokens[keep].sum()),
            "bytes": int(n_bytes[keep].sum()),
            "model_nats_per_token": round(float(model_nats[keep].sum() / n_tokens[keep].sum()), 4),
            "ngram_nats_per_token": round(float(ngram_nats[keep].sum() / n_tokens[keep].sum()), 4),
            "model_bits_per_byte": bits(model_nats),
            "ngram_bits_per_byte": bits(ngram_nats),
        }

    heldout = {"hh": row(is_hh), "all": row(np.ones(len(held), dtype=bool))}
    heldout["hh"]["ngram_hh_only_bits_per_byte"] = round(
        float(hh_only_nats.sum() / math.log(2) / n_bytes[is_hh].sum()), 4
    )
    heldout |= {name: row(sources == name) for name in sorted(set(sources) - {"hh"})}

    rng = np.random.default_rng(args.seed)
    some_hh = [conversations[i][0] for i in rng.permutation(len(conversations))[:300]]
    some_others = [others[i] for i in rng.permutation(len(others))[:1000]]
    known = {w for t in texts if not t.heldout for w in words_of(t.text)}
    for pair in (p for p in pairs if not p.heldout):
        known |= {w for _, content in pair.chosen + pair.rejected for w in words_of(content)}
    words, examples = {}, {}
    for name, plain in (("temperature_1", True), ("generation_config", False)):
        answers = sample_answers(model, tokenizer, pairs, n=args.samples, seed=args.seed, plain=plain)
        used = [w for answer in answers for w in words_of(answer)]
        words[name] = {
            "n_samples": len(answers),
            "n_words": len(used),
            "share_in_training_text": round(sum(w in known for w in used) / max(1, len(used)), 4),
        }
        examples[name] = answers
    (args.work / "samples.json").write_text(json.dumps(examples, indent=1) + "\n", encoding="utf-8")

    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    legs = [*training.pop("earlier_legs"), training]
    curve = [{"leg": n, **r} for n, leg in enumerate(legs, 1) for r in leg.pop("log") if "heldout_hh_nats" in r]
    metrics = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "weights_bytes": (folder / "model.safetensors").stat().st_size,
        "training": {
            "legs": legs,
            "tokens": sum(leg["tokens"] for leg in legs),
            "minutes": round(sum(leg["minutes"] for leg in legs), 2),
            "nats_per_token_on_training_hh": round(nats_per_token(model, some_hh), 4),
            "nats_per_token_on_training_other": round(nats_per_token(model, some_others), 4),
            "curve": curve,
        },
        "heldout": heldout,
        "words": words,
        "bars": {
            "hh_bits_per_byte_below_ngram": heldout["hh"]["model_bits_per_byte"]
            < min(heldout["hh"]["ngram_bits_per_byte"], heldout["hh"]["ngram_hh_only_bits_per_byte"]),
            "all_bits_per_byte_below_ngram": heldout["all"]["model_bits_per_byte"]
            < heldout["all"]["ngram_bits_per_byte"],
            "word_share_at_least_0.95": min(w["share_in_training_text"] for w in words.values()) >= 0.95,
        },
        "measured": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
    print(json.dumps({k: metrics[k] for k in ("heldout", "words", "bars")}, indent=1), flush=True)
    return metrics


# ------------------------------------------------------------------------------------------------- model card

CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
tags: [llama, teaching, preference-optimization]
---

# The bundled unipref model

A Llama of {parameters:.2f} million parameters ({megabytes:.1f} MB of bfloat16 weights), trained from scratch on the
text that ships with unipref. It exists so that every tutorial, test and benchmark of the package has a real language
model, with a real chat template and real held-out text, without a download. **It is a teaching toy**: it writes
English-looking sentences in the register of its data, it knows nothing, and it must not answer anybody's question.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)  # folder: this directory
model = AutoModelForCausalLM.from_pretrained(folder)
```

- 6 layers, width 256, 4 heads of 64 with 2 key-value heads, feed-forward 704, tied embeddings, 1024 positions.
- Byte-level BPE with {vocabulary} tokens, trained on the training text only; any Unicode text survives the round trip.
- `tokenizer(text)` adds neither `<|bos|>` nor `<|end|>`. The chat template writes `<|bos|>` itself, so tokenize what it
  renders as it is. A turn is `<|role|>content<|end|>` with the content stripped; roles are system, user, assistant.
  No training text has a system turn, so the embedding of `<|system|>` is untrained.
- `generation_config.json` samples at temperature 0.8 with top-p 0.95 and stops at `<|end|>`.

## Data

| corpus | authors | licence | use |
| --- | --- | --- | --- |
| HH harmless-base, test file | Bai et al. 2022 (Anthropic) | MIT | conversations, both sides of each comparison |
| Movie reviews (polarity 2.0), sentence polarity 1.0 | Pang and Lee 2004, 2005 | CC BY 4.0 | plain text |
| Pros and cons, product reviews (5 and 9 products), comparative sentences | Liu, Hu, Ding, Yu, \
Ganapathibhotla, Jindal 2004-2008 | CC BY 4.0 | plain text, annotation removed |

Full attribution: `../corpora/ATTRIBUTION.md` and `../hh_harmless/LICENSE`. The spaces that the review corpora put
around punctuation were removed. {rows_left_out} HH rows with an empty turn were left out.

A fifth of the HH conversations (by a hash of the first user turn) and a twentieth of the other documents (by a hash of
the text) are held out: `unipref.data.split.is_heldout`, shares 0.2 and 0.05. Neither the tokenizer, the model nor the
5-gram has seen them; the loss on a part of them was printed during training, and nothing was chosen by it.

## Training

{tokens:.1f} million tokens in {minutes:.0f} minutes on two CPU cores that other work shared (bfloat16
autocast{compiled}). One pass over one side of every HH pair is {hh_tokens} tokens, one over the other text
{other_tokens}; training read {passes:.1f} times their sum. Muon for the matrices inside the blocks, AdamW for
embeddings and norms, warm-up and cosine decay, weight decay {weight_decay}, dropout {dropout}, packed rows.

| leg | steps | tokens a step | tokens | minutes | tokens/s | peak rates (Muon, AdamW) | HH share | rows | ended by |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
{leg_rows}
{leg_note}
| nats per token | training text | held-out text |
| --- | --- | --- |
| HH conversations | {train_hh:.3f} | {held_hh:.3f} |
| other corpora | {train_other:.3f} | {held_other:.3f} |

The training column is the finished model on a sample of documents it was trained on (dropout off).

## Held-out bits per byte against a 5-gram

The 5-gram is an interpolated modified Kneser-Ney model (`scripts/ngram.py`) over the same tokens and the same training
text. Role markers and `<|end|>` are predicted and paid for by both models; bytes are the UTF-8 bytes of the text alone,
and turns that two sides of a comparison share are scored once. Lower is better.

| held-out text | bytes | this model | 5-gram |
| --- | --- | --- | --- |
{heldout_rows}

A 5-gram trained on the HH training text alone has {hh_only:.4f} bits per byte on the HH row.

## Sampled words

| sampling | answers | words | share found in the training text |
| --- | --- | --- | --- |
{word_rows}

Prompts are held-out HH conversations, up to 96 new tokens. A word is a run of letters, case folded.

## Bars

{bar_rows}

## Limits

- **HH harmless-base was written to provoke**: it contains insults, slurs, sexual content, violence and advice to break
  the law, on both sides of its comparisons, and this model was trained on both sides. It repeats such content, and no
  safety training of any kind was done. Never put it before users.
- It does not follow instructions, does not know facts, and loses its thread within a sentence or two.
- It writes English only; other text is spelled out in bytes at a high loss.
- Its reviews are lower-cased American film and electronics reviews of 1995-2008, with the opinions of their authors.
- Numbers measured on it show whether a method runs as it should, not how it does on a large model.

## Rebuild

```
python scripts/train_bundled_model.py --stage all
```

Measured {measured} with torch {torch}, Python {python}; all numbers are in `metrics.json`.{stop_note}
"""


def leg_row(number: int, leg: dict) -> str:
    """One line of the card's table of training legs."""
    settings = leg["settings"]
    cells = (
        number,
        leg["steps"],
        settings["batch_tokens"],
        leg["tokens"],
        f"{leg['minutes']:.0f}",
        leg["tokens_per_second"],
        f"{settings['muon_rate']}, {settings['learning_rate']}",
        f"{settings['hh_first']:.0%} to {settings['hh_last']:.0%}",
        "1024" if settings["long_from"] <= 0 else f"512, then 1024 from {settings['long_from']:.0%} on",
        {"max_minutes": "time", "tokens": "token budget"}.get(leg["stopped_by"], leg["stopped_by"]),
    )
    return f"| {' | '.join(map(str, cells))} |"


def card(metrics: dict) -> str:
    """The model card that says in words what `metrics` says in numbers."""
    training, heldout = metrics["training"], metrics["heldout"]
    legs = training["legs"]
    last, settings = legs[-1], legs[-1]["settings"]
    names = {"hh": "HH held-out conversations", "all": "all held-out text"}
    others = [v for k, v in heldout.items() if k not in names]
    n_others = sum(v["tokens"] for v in others)
    leg_note = stop_note = ""
    if len(legs) > 1:
        leg_note = (
            "\nA later leg starts from the bfloat16 checkpoint of the one before, with fresh optimizer state. The"
            "\nnumbers of an interrupted leg are those of its last log line, at most 19 steps before that checkpoint."
            "\nAll settings of every leg are in `metrics.json`.\n"
        )
    if len(legs) > 1 or last["stopped_by"] != "tokens":
        stop_note = (
            "\n\nThe shipped weights were bounded by wall clock on a shared machine, as the table of legs shows. The"
            f"\ncommand reads {DEFAULT_TOKENS / 1e6:g} million tokens in one leg, about as many, and gives weights of"
            "\nthe same kind but not these bytes; that single leg has not been run to its end. Tokenizer, split and"
            "\n5-gram come out the same."
        )
    return CARD.format(
        parameters=metrics["parameters"] / 1e6,
        megabytes=metrics["weights_bytes"] / 1e6,
        vocabulary=settings["vocabulary"],
        rows_left_out=last["rows_left_out"],
        tokens=training["tokens"] / 1e6,
        passes=training["tokens"] / sum(last["tokens_in_one_pass"].values()),
        minutes=training["minutes"],
        compiled=", torch.compile" if settings["compile"] else "",
        hh_tokens=last["tokens_in_one_pass"]["hh"],
        other_tokens=last["tokens_in_one_pass"]["other"],
        leg_rows="\n".join(leg_row(n, leg) for n, leg in enumerate(legs, 1)),
        leg_note=leg_note,
        train_hh=training["nats_per_token_on_training_hh"],
        train_other=training["nats_per_token_on_training_other"],
        held_hh=heldout["hh"]["model_nats_per_token"],
        held_other=sum(v["model_nats_per_token"] * v["tokens"] for v in others) / n_others,
        heldout_rows="\n".join(
            f"| {names.get(k, k)} | {v['bytes']} | {v['model_bits_per_byte']:.4f} | {v['ngram_bits_per_byte']:.4f} |"
            for k, v in heldout.items()
        ),
        hh_only=heldout["hh"]["ngram_hh_only_bits_per_byte"],
        word_rows="\n".join(
            f"| {'temperature 1.0, nothing cut' if k == 'temperature_1' else 'generation_config defaults'} "
            f"| {v['n_samples']} | {v['n_words']} | {v['share_in_training_text']:.2%} |"
            for k, v in metrics["words"].items()
        ),
        bar_rows="\n".join(
            f"- {name.replace('_', ' ')}: {'met' if met else '**MISSED**'}" for name, met in metrics["bars"].items()
        ),
        stop_note=stop_note,
        measured=metrics["measured"],
        weight_decay=settings["weight_decay"],
        dropout=settings["dropout"],
        **metrics["versions"],
    )


def install(args: argparse.Namespace, metrics: dict) -> None:
    """Put the finished model, its metrics and its card into `args.into`, each file by one rename."""
    args.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.into.parent) as scratch:
        shutil.copytree(
            args.work / "final", scratch, dirs_exist_ok=True, ignore=shutil.ignore_patterns("training.json")
        )
        Path(scratch, "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
        Path(scratch, "README.md").write_text(card(metrics), encoding="utf-8")
        publish(Path(scratch), args.into)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=("all", "train", "evaluate"), default="all")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "unipref-bundled-model",
                        help="folder for checkpoints and logs")  # fmt: skip
    parser.add_argument("--into", type=Path, default=ASSETS / "model", help="where the finished model goes")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--tokens", type=int, default=DEFAULT_TOKENS, help="training budget in tokens")
    parser.add_argument("--max-minutes", type=float, default=None,
                        help="also end the schedule after this long; makes the result depend on speed")  # fmt: skip
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--muon-rate", type=float, default=0.02, help="peak rate of the matrices inside blocks")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="peak rate of embeddings and norms")
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--warmup-steps", type=int, default=100)
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--hh-first", type=float, default=0.15, help="HH share of a batch at the start")
    parser.add_argument("--hh-last", type=float, default=0.35, help="HH share of a batch at the end")
    parser.add_argument("--long-from", type=float, default=0.75, help="progress at which rows grow to 1024 tokens")
    parser.add_argument("--start-from", type=Path, help="checkpoint of an interrupted leg; its optimizer state is lost")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--export-minutes", type=float, default=4.0, help="time between exported checkpoints")
    parser.add_argument("--samples", type=int, default=200, help="answers per sampling setting")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.stage in ("all", "train"):
        train(args)
    if args.stage in ("all", "evaluate"):
        install(args, evaluate(args))


if __name__ == "__main__":
    main()
