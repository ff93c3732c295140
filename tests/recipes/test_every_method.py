"""Every objective of the catalogue from a data file to a model on disk: what is trained is what the data and formulas
say, worked out beside the run from the saved start model."""

import json
from dataclasses import replace
from functools import cache
from io import StringIO

import numpy as np
import pytest
import torch
from data_files import TOPICS, better, demonstrations, lists, pairs, thumbs, without, worse, write
from rich.console import Console
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
)

import unipref.recipes.stage as stage_module
from unipref.core.batch import Batch, Clock
from unipref.core.cards import list_methods
from unipref.core.columns import how_to_make
from unipref.core.errors import ConfigError, DataError, UniprefError
from unipref.core.io import read_jsonl
from unipref.data import as_pairs, read_records
from unipref.engine import Policy, load_model, load_tokenizer, make_head, score
from unipref.objectives import HEADS, as_objective
from unipref.recipes import load_recipe
from unipref.recipes._run import read_data
from unipref.recipes.align import align
from unipref.recipes.columns import add_columns
from unipref.recipes.fit import check_data
from unipref.recipes.stage import _heads, examples_of, prepare, run_stage
from unipref.store import ScoreStore
from unipref.training import data_batch
from unipref.training.prepared import Known

CARDS = {card.key: card for card in list_methods("objective")}
KEYS = sorted(CARDS)
OPERATORS = {"spo_degree": ["degrade"], "tpo_tree": ["segment"]}
ROWS = {"pair": pairs, "group": lists, "point": thumbs}


@cache
def saved_policy(path):
    """The saved model, for scoring alone."""
    return Policy(load_model(path, dtype="float32"))


@cache
def saved_model(path):
    """The same as transformers has it."""
    return AutoModelForCausalLM.from_pretrained(path)


def objective_of(key):
    return as_objective(CARDS[key].build())


def rows_for(key):
    return demonstrations() if key == "sft" else ROWS[objective_of(key).unit_needs]()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three saved models of one architecture: where runs start, their reference, and a further one."""
    tokenizer = load_tokenizer("bundled")
    found = {}
    for seed, name in enumerate(("start", "other", "third")):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=256,
            initializer_range=0.15,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        found[name] = tmp_path_factory.mktemp(name)
        LlamaForCausalLM(config).save_pretrained(found[name])
        tokenizer.save_pretrained(found[name])
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder to write data files into; the held-out rows are another conversation than all others."""
    folder = tmp_path_factory.mktemp("files")
    return folder


def named(key):
    return [name.removeprefix("ref_logp.") for name in CARDS[key].needs if name.startswith("ref_logp.")]


def recipe_of(key, path, models, *, reference="other", **changes):
    references = [str(models[reference]) if reference in models else reference]
    references += [{"model": str(models["third"]), "name": name} for name in named(key)]
    values = {
        "name": "every",
        "model": str(models["start"]),
        "references": references,
        "data": {"train": str(path), "eval_share": 0.4, "max_length": 192},
        "train": {
            "learning_rate": 1e-2,
            "batch_size": len(TOPICS),
            "max_steps": 2,
            "schedule": "constant",
            "warmup_share": 0.0,
            "logging_steps": 1,
            "precision": "float32",
        },
        "stages": [{"method": key, "operators": OPERATORS.get(key, [])}],
    }
    return load_recipe({**values, **changes})


def trained(recipe, folder):
    """The folder of the one stage of `recipe`, run as `align` runs it, and the records it was given."""
    records, _ = read_records(recipe.data.train, strict=True)
    check_data(recipe, records)
    run_stage(
        recipe,
        recipe.stages[0],
        start=recipe.model,
        folder=folder,
        seed=0,
        train=records,
        validation=[],
        store=None,
        resume=False,
        show=lambda *told: None,
    )
    return records


def losses(folder):
    return [row["loss"] for row in read_jsonl(folder / "metrics.jsonl") if "loss" in row]


def plain_logits(model, example, item):
    """(len, V) log-probabilities of every token of the vocabulary where the item's scored tokens are predicted, by
    transformers alone."""
    path = example.trie.token[example.trie.path(item)]
    n = len(example.trie.scored[item])
    with torch.no_grad():
        logits = model(torch.tensor(path[None].astype(np.int64))).logits[0].double()
    return logits.log_softmax(-1)[-n - 1 : -1]


def worked_out(recipe, records, *, at=None, step=0, masks=None, reference=None):
    """The loss of one step over all `records`, from saved models.

    Args:
        at: the policy; by default the start model.
        masks: a checkpoint that holds trained masks of tokens; by default they are 1, as all other heads are 0.
        reference: "policy" takes the policy itself for the reference, which is wrong.
    """
    stage = recipe.stages[0]
    objective = as_objective(stage.composition.objective)
    records, _ = prepare(stage, records)
    tokenizer = load_tokenizer(recipe.model)
    mixed = {"ref_logp": recipe.reference_weights()[0][0], **recipe.named_references()}
    mixed = {name: recipe.model if model == "model" else model for name, model in mixed.items()}
    if reference == "policy":
        mixed["ref_logp"] = at
    examples, _ = examples_of(
        records,
        tokenizer,
        max_length=recipe.data.max_length,
        tokens=objective.token_needs,
        mismatched_seed=0 if objective.statistics else None,
    )
    policy = saved_policy(str(at or recipe.model))
    references = {name: saved_policy(str(model)) for name, model in mixed.items()}
    add_columns(examples, objective, saved_policy(recipe.model), max_tokens=4096)
    clock = Clock(step, 2)

    def batch_of(some):
        for name, reference in references.items():
            for example, values in zip(some, score(reference, [e.trie for e in some]), strict=True):
                example.ref_logp[name] = values
        made = {"logp", "ref_logp", *objective.heads, *objective.computed, "kl_baseline"}
        columns = {n for n in objective.needs - made if not n.startswith("ref_logp")}
        tokens = {n for n in objective.token_needs - made if not n.startswith("ref_logp")}
        data = data_batch(some, columns=columns, tokens=tokens, clock=clock)
        found = [torch.from_numpy(x) for values in score(policy, [e.trie for e in some]) for x in values]
        logp = torch.stack([values.sum() for values in found])
        item = torch.repeat_interleave(data.items["len"].long())
        return Batch(
            {**data.items, "logp": logp}, data.pairs, {**data.tokens, "logp": torch.cat(found), "item": item}, {}, clock
        )

    batch = batch_of(examples)
    n = len(batch.items["logp"])
    for name in objective.heads:
        if name == "degree_head":
            batch = with_item(batch, name, torch.zeros(n, 4))
        elif name.endswith("_mask"):
            values = torch.ones(len(batch.tokens["logp"]))
            if masks is not None:
                values = mask_of(masks, name, mixed["ref_logp"], examples)
            batch = with_token(batch, name, values)
        else:
            batch = with_item(batch, name, torch.zeros(n))
    for name in objective.computed:
        batch = with_token(batch, name, divergence(name, at or recipe.model, mixed["ref_logp"], examples))
    for statistic in objective.statistics:
        value = statistic.value(*statistic.sums(batch_of([e.mismatched for e in examples])))
        batch = batch.with_statistics(**{statistic.name: value.float()})
    for state in objective.states:
        values = state.values(state.renewed(None, state.sums(batch)))
        batch = batch.with_statistics(**{name: value.float() for name, value in values.items()})
    return objective.loss(batch).total.item(), examples


def with_item(batch, name, value):
    return Batch({**batch.items, name: value}, batch.pairs, batch.tokens, batch.statistics, batch.clock)


def with_token(batch, name, value):
    return Batch(batch.items, batch.pairs, {**batch.tokens, name: value}, batch.statistics, batch.clock)


def mask_of(checkpoint, name, reference, examples):
    """(T,) what the saved mask `name` says on the hidden states of the reference."""
    state = {k.removeprefix(f"heads.{name}."): v for k, v in load_file(checkpoint / "heads.safetensors").items()}
    head = make_head(name, 16, n_layers=2)
    head.load_state_dict(state)
    model = saved_model(str(reference))
    found = []
    for example in examples:
        for item in range(example.trie.n_items):
            path = example.trie.token[example.trie.path(item)][None].astype(np.int64)
            n = len(example.trie.scored[item])
            with torch.no_grad():
                states = model(torch.tensor(path), output_hidden_states=True).hidden_states[1:]
                found.append(head(torch.stack(states, dim=2)[0, -n - 1 : -1]))
    return torch.cat(found)


def divergence(name, policy, reference, examples):
    """(T,) KL(reference || policy), or for "reverse_kl" the other one, where each scored token is predicted."""
    models = [saved_model(str(path)) for path in (policy, reference)]
    found = []
    for example in examples:
        for item in range(example.trie.n_items):
            one, other = (plain_logits(model, example, item) for model in models)
            if name == "kl":
                one, other = other, one
            found.append((one.exp() * (one - other)).sum(-1))
    return torch.cat(found).float()


@pytest.mark.parametrize("key", KEYS)
def test_the_first_loss_of_a_run_from_a_file_is_the_formulas_and_its_model_loads(key, models, files, tmp_path):
    recipe = recipe_of(key, write(files / f"{key}.jsonl", rows_for(key)), models)
    records = trained(recipe, tmp_path)
    assert len(records) == len(TOPICS)
    expected, _ = worked_out(recipe, records)
    found = losses(tmp_path)
    assert found[0] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert len(found) == 2
    assert np.isfinite(found).all()
    done = json.loads((tmp_path / "done.json").read_text())
    assert done["steps"] == 2
    rates = objective_of(key).trains_reward
    auto = AutoModelForSequenceClassification if rates else AutoModelForCausalLM
    model = auto.from_pretrained(tmp_path / "model")
    before = saved_model(str(models["start"])).state_dict()
    assert any(not torch.equal(value, before.get(name, value)) for name, value in model.state_dict().items())
    ids = AutoTokenizer.from_pretrained(tmp_path / "model")(TOPICS[0][0], return_tensors="pt")["input_ids"]
    assert torch.isfinite(model(ids).logits).all()


def test_dpos_first_loss_from_a_file_is_worked_out_with_transformers_alone(models, files, tmp_path):
    rows = pairs()
    recipe = recipe_of("dpo", write(files / "plain.jsonl", rows), models)
    trained(recipe, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(models["start"])
    policy, reference = (saved_model(str(models[name])) for name in ("start", "other"))

    def log_ratio(prompt, response):
        context = tokenizer(prompt)["input_ids"]
        whole = torch.tensor([[*context, *tokenizer(response)["input_ids"], tokenizer.eos_token_id]])
        answer = whole[0, len(context) :, None]
        with torch.no_grad():
            one, other = (
                m(whole).logits[0, len(context) - 1 : -1].log_softmax(-1).gather(1, answer).sum()
                for m in (policy, reference)
            )
        return (one - other).item()

    margins = [log_ratio(row["prompt"], row["chosen"]) - log_ratio(row["prompt"], row["rejected"]) for row in rows]
    expected = np.mean([np.log1p(np.exp(-0.1 * margin)) for margin in margins])
    assert np.std(margins) > 1
    assert losses(tmp_path)[0] == pytest.approx(expected, rel=1e-4)


# ---- data that lack what a method reads ----

TEXTS = {"base": "base_response"}
MADE = {"len", "ref_logp", "kl", "step_weight", "mask", "embedding", "diff", *HEADS}  # nothing to give, or to take away


def lacking(key, column):
    """Rows and operators with everything that `key` reads but `column`, and what the refusal must say."""
    rows, operators = rows_for(key), OPERATORS.get(key, [])
    told = f"`{column}`: {how_to_make(column)}"
    if column in ("chosen", "rejected"):
        return without(rows, column), operators, column
    if column == "group":
        return demonstrations(), operators, "give rows with `responses`"
    if column == "label":
        return demonstrations(), operators, told
    if column in ("degree", "variant"):
        return rows, [], told
    if column == "segment" and operators:
        return rows, [], told
    if column == "segment":
        names = [f"{side}_segment{end}" for side in ("chosen", "rejected") for end in ("s", "_scores")]
        return without(rows, *names), operators, told
    if column == "segment_score":
        return without(rows, "chosen_segment_scores", "rejected_segment_scores"), operators, told
    if column == "rank":
        return without(rows, "ranks"), operators, told
    names = [column, f"{column}s", f"chosen_{column}", f"rejected_{column}", TEXTS.get(column, column)]
    return without(rows, *names), operators, told


LACKS = [
    (key, column)
    for key in KEYS
    for column in CARDS[key].needs
    if column not in MADE and not column.startswith("ref_logp.")
]


@pytest.mark.parametrize(("key", "column"), LACKS, ids=[f"{key}-{column}" for key, column in LACKS])
def test_data_without_a_column_are_refused_before_a_model_is_loaded_and_told_how_to_make_it(
    key, column, models, tmp_path
):
    rows, operators, told = lacking(key, column)
    recipe = recipe_of(
        key,
        write(tmp_path / "rows.jsonl", rows),
        models,
        model="nobody/has-this-model",
        stages=[{"method": key, "operators": operators}],
    )
    with pytest.raises(UniprefError) as refusal:
        align(recipe, output=tmp_path / "run", console=Console(quiet=True))
    assert told in str(refusal.value)
    assert not list((tmp_path / "run").glob("**/model*"))


@pytest.mark.parametrize("key", [key for key in KEYS if named(key)])
def test_a_recipe_without_a_further_reference_is_refused_with_the_line_that_gives_it(key, models, tmp_path):
    (name,) = named(key)
    path = write(tmp_path / "rows.jsonl", pairs())
    with pytest.raises(ConfigError, match=rf"{key} needs a further reference, ref_logp\.{name}; add one, such as "):
        recipe_of(key, path, models, references=["model"])


@pytest.mark.parametrize("key", [key for key in KEYS if objective_of(key).unit_needs == "pair"])
def test_every_pairwise_method_refuses_demonstrations_and_names_both_ways_out(key, models, tmp_path):
    recipe = recipe_of(key, write(tmp_path / "rows.jsonl", demonstrations()), models)
    records, _ = read_records(recipe.data.train)
    with pytest.raises(ConfigError, match=f"{key}: no pair can be made.*`chosen` and `rejected`.*such as kto"):
        check_data(recipe, records)


def test_a_live_reference_that_would_be_a_mixture_is_refused_before_a_model_is_loaded(models, tmp_path):
    path = write(tmp_path / "rows.jsonl", pairs())
    recipe = recipe_of("mapo", path, models, references=[str(models["start"]), str(models["other"])])
    with pytest.raises(ConfigError, match=r"mapo reads the whole distribution of one live reference.*mixes 2"):
        check_data(recipe, read_records(path)[0])


# ---- rows and forms that a method has to cope with ----


def test_a_row_of_which_a_token_column_cannot_be_made_is_set_aside_and_counted_unless_strict(models, tmp_path):
    rows = pairs()
    for name in ("chosen_segment_scores", "rejected_segments", "rejected_segment_scores"):
        del rows[3][name]  # no parts at all
    del rows[5]["rejected_segment_scores"]  # parts without a score
    recipe = recipe_of("dpo_2d", write(tmp_path / "rows.jsonl", rows), models)
    trained(recipe, tmp_path / "run")
    encoding = json.loads((tmp_path / "run" / "done.json").read_text())["data"]["encoding"]
    assert (encoding["n_read"], encoding["n_kept"]) == (12, 10)
    assert encoding["counts"] == {
        "a response has no segments": 1,
        "what a method reads per token cannot be made": 1,
    }
    assert sorted(row["line"] for row in encoding["set_aside"]) == [4, 6]
    with pytest.raises(DataError, match="line 4: a response has no segments"):
        trained(load_recipe(recipe.resolved(), ["data.strict=true"]), tmp_path / "strict")


def test_a_list_becomes_a_record_for_every_pair_where_the_sides_of_a_pair_are_aligned(models, tmp_path):
    path = write(tmp_path / "rows.jsonl", lists())
    recipe = recipe_of("bmc", path, models)
    trained(recipe, tmp_path / "run")
    data = json.loads((tmp_path / "run" / "done.json").read_text())["data"]
    assert data["one_pair_each"]["n_kept"] == 3 * len(TOPICS)
    assert data["encoding"]["n_kept"] == 3 * len(TOPICS)
    whole, apart = (prepare(recipe_of(key, path, models).stages[0], read_records(path)[0])[0] for key in ("dpo", "bmc"))
    compared = [
        sorted((r.items[c.winner].response, r.items[c.loser].response, c.margin) for r in some for c in r.comparisons)
        for some in (whole, apart)
    ]
    assert compared[0] == compared[1]


def test_kto_takes_pairs_that_carry_further_texts_and_mismatches_their_responses_alone(models, tmp_path):
    recipe = recipe_of("kto", write(tmp_path / "rows.jsonl", pairs()), models)
    records = trained(recipe, tmp_path / "run")
    expected, examples = worked_out(recipe, records)
    assert losses(tmp_path / "run")[0] == pytest.approx(expected, rel=1e-4)
    for example in examples:
        prompt, other = example.record.items[0].context, example.mismatched.record
        assert len(example.record.items) == 7
        assert [item.context for item in other.items] == [prompt] * 2
        assert not {item.response for item in other.items} & {item.response for item in example.record.items}
        assert {item.response for item in other.items} <= {better(i) for i in range(12)} | {worse(i) for i in range(12)}


def test_align_judges_runs_whose_records_carry_further_texts_on_their_pairs_alone(models, tmp_path):
    methods = ("spac", "rationale_dpo", "spo_degree")
    path = write(tmp_path / "rows.jsonl", pairs())
    runs = {key: [{"method": key, "operators": OPERATORS.get(key, [])}] for key in methods}
    designed = {"short": {"scorer": "length", "options": {"cap": 40}, "normalise": "zscore"}}
    more = {"objectives": designed, "sampling": {"prompts": 2, "max_new_tokens": 4}}
    recipe = recipe_of("dpo", path, models, stages=[], runs=runs, **more)
    folder = align(recipe, output=tmp_path / "run", console=Console(quiet=True))
    summary = json.loads((folder / "summary.json").read_text())
    n_heldout = summary["data"]["split"]["heldout"]
    assert 1 <= n_heldout < len(TOPICS)
    assert list(summary["runs"]) == list(methods)
    for key in methods:
        evaluation = json.loads((folder / key / "evaluation.json").read_text())
        assert len(evaluation["pairs"]) == n_heldout
        assert len(evaluation["generations"]) == min(2, n_heldout)
    assert (folder / "report.html").exists()


def test_masks_read_a_reference_of_another_shape_than_the_policy(models, tmp_path):
    tokenizer = load_tokenizer(str(models["start"]))
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=24, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "reference")
    path = write(tmp_path / "rows.jsonl", pairs())
    recipe = recipe_of("sparse_po", path, models, references=[str(tmp_path / "reference")])
    records = trained(recipe, tmp_path / "run")
    assert losses(tmp_path / "run")[0] == pytest.approx(worked_out(recipe, records)[0], rel=1e-4)
    mask = load_file(tmp_path / "run" / "checkpoints" / "checkpoint-2" / "heads.safetensors")
    assert mask["heads.reward_mask.weight"].shape == (3, 24)


def test_a_reference_that_runs_beside_the_policy_is_not_scored_beforehand_too(models, tmp_path, monkeypatch):
    scored = []
    monkeypatch.setattr(stage_module, "cache_references", lambda examples, policy, *, name, **_: scored.append(name))
    trained(recipe_of("sparse_po", write(tmp_path / "rows.jsonl", pairs()), models), tmp_path / "run")
    assert scored == []


def test_degrees_that_are_missing_do_not_count_among_the_classes(models, tmp_path):
    recipe = recipe_of("spo_degree", write(tmp_path / "rows.jsonl", pairs()), models)
    records, _ = prepare(recipe.stages[0], read_records(recipe.data.train)[0])
    first = records[0].items[0]
    spoiled = replace(first, columns={**first.columns, "degree": float("nan")})
    records[0] = replace(records[0], items=(spoiled, *records[0].items[1:]))
    policy = saved_policy(recipe.model)
    made = _heads(objective_of("spo_degree"), policy, policy, Known.of_records(records).degrees)
    assert made["degree_head"].module.out_features == 4


# ---- adapters ----


@pytest.mark.parametrize(
    ("key", "options"), [("sparse_po", {}), ("mapo", {}), ("typo", {"kl": "base"}), ("pmpo", {}), ("dpo", {})]
)
def test_with_adapters_the_reference_is_the_model_with_adapters_off(key, options, models, tmp_path):
    path = write(tmp_path / "rows.jsonl", rows_for(key))
    stages = [{"method": key, "options": options}]
    lora = {"lora": {"r": 4, "alpha": 64.0, "merge": True}}
    once = {"max_steps": 1, "batch_size": len(TOPICS), "learning_rate": 1e-2, "schedule": "constant"}
    once |= {"warmup_share": 0.0, "logging_steps": 1, "precision": "float32"}
    found = {}
    for n in (1, 2):
        more = {"stages": stages, "model_options": lora, "train": {**once, "max_steps": n}}
        recipe = recipe_of(key, path, models, references=["model"], **more)
        records = trained(recipe, tmp_path / str(n))
        found[n] = losses(tmp_path / str(n))
    assert found[2][0] == pytest.approx(found[1][0], rel=1e-6)
    masks = None
    if "reward_mask" in objective_of(key).heads:
        masks = tmp_path / "1" / "checkpoints" / "checkpoint-1"
    after, _ = worked_out(recipe, records, at=tmp_path / "1" / "model", step=1, masks=masks)
    wrong, _ = worked_out(recipe, records, at=tmp_path / "1" / "model", step=1, masks=masks, reference="policy")
    assert found[2][1] == pytest.approx(after, rel=1e-3)
    assert abs(wrong - after) > 10 * abs(found[2][1] - after)


# ---- a designer's reward ----


def test_a_designers_reward_and_one_in_the_data_are_kept_apart_and_lists_keep_their_order(models, tmp_path):
    path = write(tmp_path / "rows.jsonl", without(lists(), "ranks"))
    recipe = recipe_of("dpo", path, models, objectives={"short": {"scorer": "length", "options": {"cap": 40}}})
    plain, _ = read_records(path)
    said = StringIO()
    data = read_data(recipe, ScoreStore(tmp_path / "scores"), Console(file=said, width=400))
    assert "kept as `data_reward`" in said.getvalue()
    rewards = {record.id: [item.columns["reward"] for item in record.items] for record in plain}
    lengths = {record.id: [len(item.response.split()) for item in record.items] for record in plain}
    for record in [*data.train, *data.heldout]:
        assert [item.columns["data_reward"] for item in record.items] == rewards[record.id]
        found = [item.columns["reward"] for item in record.items]
        assert np.argsort(found).tolist() == np.argsort(lengths[record.id], kind="stable").tolist()
    for record in as_pairs(data.train)[0]:
        for comparison in record.comparisons:
            values = [record.items[i].columns["data_reward"] for i in (comparison.winner, comparison.loser)]
            assert comparison.margin == pytest.approx(values[0] - values[1])


def test_methods_read_the_designers_reward_where_there_are_two(models, tmp_path):
    path = write(tmp_path / "rows.jsonl", pairs())
    plain = recipe_of("modpo", path, models)
    designed = recipe_of("modpo", path, models, objectives={"short": {"scorer": "length", "options": {"cap": 40}}})
    data = read_data(designed, ScoreStore(tmp_path / "scores"), None)
    own, _ = worked_out(plain, [r for r in read_records(path)[0] if r.id in {x.id for x in data.train}])
    mixed, _ = worked_out(designed, data.train)
    bare = [
        replace(record, items=tuple(replace(item, columns={"reward": item.columns["short"]}) for item in record.items))
        for record in ([replace(r, items=r.items[:2]) for r in data.train])
    ]
    assert mixed == pytest.approx(worked_out(plain, bare)[0], rel=1e-6)
    assert abs(mixed - own) > 1e-3
