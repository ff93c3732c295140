"""Every objective of the catalogue from a data file to a model on disk: what is trained is what the data and formulas
say, worked out beside the run from the saved start model."""

import json

import numpy as np
import pytest
import torch
from data_files import TOPICS, demonstrations, lists, pairs, thumbs, without, write
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from unipref.core.batch import Batch, Clock
from unipref.core.cards import list_methods
from unipref.core.columns import how_to_make
from unipref.core.errors import ConfigError
from unipref.core.io import read_jsonl
from unipref.data import read_records
from unipref.engine import Policy, load_model, load_tokenizer, score
from unipref.objectives import as_objective
from unipref.recipes import load_recipe
from unipref.recipes.align import align
from unipref.recipes.columns import add_columns
from unipref.recipes.fit import check_data
from unipref.recipes.stage import examples_of, prepare, run_stage
from unipref.training import data_batch

CARDS = {card.key: card for card in list_methods("objective")}
KEYS = sorted(CARDS)
OPERATORS = {"spo_degree": ["degrade"], "tpo_tree": ["segment"]}
ROWS = {"pair": pairs, "group": lists, "point": thumbs}


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
        "data": {"train": str(path), "max_length": 192},
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


def worked_out(recipe, records, *, at=None, step=0, heads=None):
    """The loss of one step over all `records`, from saved models: the policy is `at` (default: the start model)."""
    stage = recipe.stages[0]
    objective = as_objective(stage.composition.objective)
    records, _ = prepare(stage, records)
    tokenizer = load_tokenizer(recipe.model)
    mixed = {"ref_logp": recipe.reference_weights()[0][0], **recipe.named_references()}
    mixed = {name: recipe.model if model == "model" else model for name, model in mixed.items()}
    examples, _ = examples_of(
        records,
        tokenizer,
        max_length=recipe.data.max_length,
        tokens=objective.token_needs,
        mismatched_seed=0 if objective.statistics else None,
    )
    start = Policy(load_model(recipe.model, dtype="float32"))
    policy = Policy(load_model(str(at or recipe.model), dtype="float32"))
    references = {name: Policy(load_model(str(model), dtype="float32")) for name, model in mixed.items()}
    add_columns(examples, objective, start, max_tokens=4096)
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
    for name in objective.heads:  # every head starts at 0, and a mask at 1
        if name == "degree_head":
            batch = with_item(batch, name, torch.zeros(n, 4))
        elif name.endswith("_mask"):
            batch = with_token(batch, name, torch.ones(len(batch.tokens["logp"])))
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


def divergence(name, policy, reference, examples):
    """(T,) KL(reference || policy), or for "reverse_kl" the other one, where each scored token is predicted."""
    models = [AutoModelForCausalLM.from_pretrained(str(path)) for path in (policy, reference)]
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
    expected, examples = worked_out(recipe, records)
    found = losses(tmp_path)
    assert found[0] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert len(found) == 2
    assert np.isfinite(found).all()
    done = json.loads((tmp_path / "done.json").read_text())
    assert done["steps"] == 2
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    before = AutoModelForCausalLM.from_pretrained(models["start"]).state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    ids = AutoTokenizer.from_pretrained(tmp_path / "model")(TOPICS[0][0], return_tensors="pt")["input_ids"]
    assert torch.isfinite(model(ids).logits).all()
