"""TRL configurations become recipes: the same loss, TRL's numbers, and every key accounted for."""

import dataclasses
import math
import os
import re
import sys
import warnings
from pathlib import Path

import pytest
import torch
import trl

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # trl.experimental warns on import
sys.path.append(str(Path(__file__).parents[1] / "objectives"))  # where TRL's losses are measured beside ours

from conformance import BASE, MISSING, ROWS, Row
from test_against_trl import TRAINERS as MEASURES
from test_against_trl import measured
from trl import DPOConfig, KTOConfig, ModelConfig, ScriptArguments
from trl.experimental.cpo import CPOConfig
from trl.experimental.orpo import ORPOConfig
from trl.scripts.utils import DatasetMixtureConfig

from unipref.core.errors import ConfigError
from unipref.recipes import load_recipe
from unipref.recipes._source import yaml_value
from unipref.recipes._trl_keys import FORMER, TRAINERS
from unipref.recipes.from_trl import LOSS_TYPES, from_trl, loss_of, read_trl

CONFIGS = {"dpo": DPOConfig, "kto": KTOConfig, "cpo": CPOConfig, "orpo": ORPOConfig}
NAMED = {"model_name_or_path": "org/model", "dataset_name": "org/pairs"}

# As in TRL's own documentation and the alignment handbook's recipes of its time.
HANDBOOK = """\
# Model arguments
model_name_or_path: alignment-handbook/zephyr-7b-sft-full
torch_dtype: bfloat16
attn_implementation: flash_attention_2

# Data training arguments
dataset_name: HuggingFaceH4/ultrafeedback_binarized
dataset_train_split: train_prefs
dataset_test_split: test_prefs
dataset_num_proc: 12

# DPOTrainer arguments
bf16: true
beta: 0.01
do_eval: true
eval_strategy: steps
eval_steps: 100
gradient_accumulation_steps: 2
gradient_checkpointing: true
gradient_checkpointing_kwargs:
  use_reentrant: False
hub_model_id: zephyr-7b-dpo-full
learning_rate: 5.0e-7
log_level: info
logging_steps: 10
lr_scheduler_type: cosine
max_length: 1024
max_prompt_length: 512
num_train_epochs: 1
optim: adamw_torch
output_dir: data/zephyr-7b-dpo-full
per_device_train_batch_size: 8
per_device_eval_batch_size: 8
push_to_hub: true
save_strategy: "steps"
save_steps: 100
save_total_limit: 1
seed: 42
warmup_ratio: 0.1
"""


def converted(trainer=None, **values):
    return from_trl({**NAMED, **values}, trainer=trainer)


def defaults(config):
    fields = [
        f for part in (config, ScriptArguments, ModelConfig, DatasetMixtureConfig) for f in dataclasses.fields(part)
    ]
    return {
        f.name: f.default if f.default is not dataclasses.MISSING else f.default_factory() for f in fields if f.init
    }


def as_expression(loss):
    """The recipe's objective for `Row.ours`, times what TRL's loss is of it."""
    options = ", ".join(f"{name}={value!r}" for name, value in loss.options.items())
    factor = "" if loss.factor == 1.0 else f"{loss.factor!r} * "
    return f"{factor}{loss.method}({options})"


# ---- the table of keys ----


@pytest.mark.parametrize("trainer", CONFIGS)
def test_the_table_has_every_key_and_default_of_the_installed_trl(trainer):
    table = {key: entry.default for key, entry in TRAINERS[trainer].items() if key != "env"}
    version = ".".join(trl.__version__.split(".")[:2])
    earlier = {"1.16": {}, "1.14": {"pad_to_multiple_of": None}}[version]  # Python 3.10 has TRL 1.14
    assert table | {key: value for key, value in earlier.items() if key in table} == defaults(CONFIGS[trainer])


def test_no_former_key_is_a_key_of_the_dpo_that_is_installed():
    assert not FORMER.keys() & defaults(DPOConfig).keys()


@pytest.mark.parametrize("trainer", CONFIGS)
def test_a_key_that_is_not_kept_says_why(trainer):
    for key, entry in TRAINERS[trainer].items():
        assert entry.to or entry.says, key
        assert not (entry.to and entry.changes) or key == "model_init_kwargs", key


def test_every_key_stands_in_the_documentation_with_where_it_goes():
    page = (Path(__file__).parents[2] / "docs" / "init.md").read_text(encoding="utf-8")
    rows = {key: line for line in page.splitlines() for key in re.findall(r"`(\w+)`", line)}
    for table in TRAINERS.values():
        for key, entry in table.items():
            assert key in rows, key
            lines = [line for line in page.splitlines() if f"`{key}`" in line]
            assert not entry.to or any(f"`{entry.to}`" in line for line in lines), key


def test_nothing_of_the_product_imports_trl():
    source = Path(__file__).parents[2] / "src"
    importing = re.compile(r"^\s*(?:from|import) trl\b", re.MULTILINE)
    assert not [path for path in source.rglob("*.py") if importing.search(path.read_text(encoding="utf-8"))]


# ---- the loss ----


def mapped(row):
    return loss_of(row.trainer.lower(), {**BASE[row.trainer], **row.config})


_OURS = [row for row in ROWS if row.equal and row.trainer != "TPO"]


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row.trainer}-{row.name}") for row in _OURS])
def test_the_recipes_objective_is_trls_loss_or_is_said_not_to_be(row):
    loss = mapped(row)
    if loss.lost:
        assert set(loss.lost) <= {*row.config, "cpo_alpha"}
        return
    # A mean over responses is TRL's mean over a micro-batch's tokens for one pair alone, and the recipe says so.
    alone = "each response counts alike" in " ".join(loss.differs.values())
    single, several = (Row(row.trainer, row.config, as_expression(loss), pairs=pairs) for pairs in (1, 4))
    assert max(measured(single if alone else several)) < row.within
    assert not alone or measured(several)[0] > 1e-3


@pytest.mark.parametrize(
    ("trainer", "config"),
    [
        ("DPO", {"loss_type": ["sigmoid_norm"], "loss_weights": [3.0], "beta": 2.0}),
        ("DPO", {"loss_type": "hinge", "beta": 0.7, "label_smoothing": 0.3}),
        ("CPO", {"loss_type": "hinge", "beta": 0.25, "cpo_alpha": 0.0}),  # 0.25 * max(0, 4 - difference)
        ("CPO", {"cpo_alpha": 0.0, "beta": 0.3}),
    ],
)
def test_a_loss_that_is_a_multiple_of_ours_is_kept_with_its_factor(trainer, config):
    loss = loss_of(trainer.lower(), {**BASE[trainer], **config})
    assert not loss.lost
    assert max(measured(Row(trainer, config, as_expression(loss)))) < 1e-12


def test_weights_of_sigmoid_and_sft_keep_their_ratio():
    config = {"loss_type": ["sigmoid", "sft"], "loss_weights": [0.5, 0.3]}
    loss = loss_of("dpo", {**BASE["DPO"], **config})
    assert (loss.options["lam"], loss.factor) == (0.6, 0.5)
    assert max(measured(Row("DPO", config, as_expression(loss), pairs=1))) < 1e-12


@pytest.mark.parametrize("missing", [pytest.param(m, id=f"{m.trainer}-{m.name}") for m in MISSING])
def test_what_is_no_composition_of_our_parts_is_named_as_lost(missing):
    assert set(loss_of(missing.trainer.lower(), {**BASE[missing.trainer], **missing.config}).lost) & set(missing.config)


@pytest.mark.parametrize("trainer", ["DPO", "CPO"])
def test_every_loss_type_of_trl_is_kept_or_named_and_no_other_is_known(trainer):
    with pytest.raises(ValueError, match="Should be one of") as refused:
        MEASURES[trainer]({**BASE[trainer], "loss_type": "unheard of"}, 10, 4)
    known = re.findall(r"'([\w-]+)'", str(refused.value).split("Should be one of")[1])
    assert set(known) == set(LOSS_TYPES[trainer.lower()])
    for name in known:
        loss = loss_of(trainer.lower(), {**BASE[trainer], "loss_type": name, "label_smoothing": 0.1, "cpo_alpha": 0.0})
        assert loss.lost or (trainer, name) in {
            *(("DPO", kept) for kept in ("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "sft")),
            ("DPO", "sigmoid_norm"),
            ("CPO", "hinge"),
        }


@pytest.mark.parametrize("name", ["kto_pair", "sigmiod"])
def test_a_loss_that_trl_does_not_have_is_an_error_that_names_the_nearest(name):
    with pytest.raises(ConfigError, match=r"loss_type: the DPO of TRL 1.16 has no loss .*(did you mean|known)"):
        converted("dpo", loss_type=name)


def test_simpo_without_cpo_alpha_is_cpo_simpo_in_trl_and_said_to_be_lost():
    kept, lost = converted("cpo", loss_type="simpo", cpo_alpha=0.0), converted("cpo", loss_type="simpo")
    assert kept.lost == {}
    assert kept.recipe.stages[0].options == {"beta": 0.1, "gamma": 0.5}
    assert "1 x the likelihood" in lost.lost["cpo_alpha"]
    assert "NOT THE SAME LOSS, cpo_alpha" in lost.text


def test_smoothed_labels_under_sigmoid_are_left_unread_as_in_trl_and_cdpo_is_named():
    made = converted("dpo", label_smoothing=0.1)
    assert (made.recipe.stages[0].method, made.recipe.stages[0].options) == ("dpo", {"beta": 0.1})
    assert "cdpo with flip: 0.1" in made.differs["label_smoothing"]
    assert made.lost == {}


def test_the_former_rpo_alpha_adds_its_likelihood_to_sigmoid_and_is_lost_beside_another_loss():
    made = converted("dpo", rpo_alpha=0.3)
    assert (made.recipe.stages[0].method, made.recipe.stages[0].options) == ("dpo_sft", {"beta": 0.1, "lam": 0.3})
    assert "rpo_alpha" in converted("dpo", rpo_alpha=0.3, loss_type="ipo").lost


# ---- the numbers ----


@pytest.mark.parametrize("trainer", CONFIGS)
def test_who_gives_model_and_data_alone_gets_trls_numbers(trainer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = CONFIGS[trainer](output_dir="unused", use_cpu=True)
    made = converted(trainer)
    options, train = made.recipe.stages[0].options, made.recipe.train
    assert options.get("beta", options.get("lam")) == theirs.beta
    assert train.learning_rate == theirs.learning_rate == 1e-6
    assert train.schedule == str(theirs.lr_scheduler_type.value)
    assert train.warmup_share == theirs.warmup_steps == 0
    assert train.epochs == theirs.num_train_epochs
    assert train.batch_size == theirs.per_device_train_batch_size * theirs.gradient_accumulation_steps
    assert (train.weight_decay, train.max_grad_norm) == (theirs.weight_decay, theirs.max_grad_norm)
    assert (train.precision == "bfloat16") == theirs.bf16
    assert train.gradient_checkpointing is theirs.gradient_checkpointing is True
    assert (train.logging_steps, train.save_steps) == (theirs.logging_steps, theirs.save_steps)
    assert train.max_steps is train.keep_best is train.eval_steps is None
    assert made.recipe.data.max_length == theirs.max_length
    assert made.recipe.seeds == (theirs.seed,)
    assert made.recipe.model_options.dtype == ModelConfig().dtype
    assert (made.recipe.model, made.recipe.data.train) == ("org/model", "org/pairs:train")
    assert made.lost == made.minor == made.idle == made.unknown == {}


def test_a_published_configuration_is_kept_and_what_is_not_is_told(tmp_path):
    path = tmp_path / "config_full.yaml"
    path.write_text(HANDBOOK)
    made = from_trl(read_trl(path), source=path.name)
    recipe = made.recipe
    assert recipe.stages[0].options == {"beta": 0.01}
    assert (recipe.data.train, recipe.data.eval) == (
        "HuggingFaceH4/ultrafeedback_binarized:train_prefs",
        "HuggingFaceH4/ultrafeedback_binarized:test_prefs",
    )
    assert recipe.train.batch_size == 8 * 2
    assert recipe.train.warmup_share == 0.1
    assert (recipe.train.eval_steps, recipe.train.save_steps, recipe.train.epochs) == (100, 100, 1.0)
    assert recipe.output == "data/zephyr-7b-dpo-full"
    assert recipe.model_options.dtype == "bfloat16"
    assert made.trainer == "dpo"
    assert made.lost == made.minor == made.unknown == {}
    assert {"attn_implementation", "max_prompt_length", "push_to_hub", "hub_model_id", "do_eval"} <= made.idle.keys()
    accounted = [*made.kept, *made.lost, *made.minor, *made.idle, *made.unknown]
    assert sorted(accounted) == sorted(yaml_value(HANDBOOK, "the configuration"))


@pytest.mark.parametrize("trainer", CONFIGS)
def test_every_key_at_a_strange_value_is_in_one_list_and_in_the_recipes_text(trainer):
    strange = {bool: lambda v: not v, int: lambda v: v + 3, float: lambda v: v + 0.25, str: lambda v: f"other-{v}"}
    values = {
        key: strange[type(entry.default)](entry.default)
        for key, entry in TRAINERS[trainer].items()
        if type(entry.default) in strange and not entry.to
    }
    made = converted(trainer, **values)
    for key in values:
        assert sum(key in found for found in (made.kept, made.lost, made.minor, made.idle, made.unknown)) == 1, key
        assert key in made.kept or re.search(rf"# {key}: ", made.text), key
    harmful = {key for key in values if TRAINERS[trainer][key].changes == "loss"}
    assert harmful <= made.lost.keys() | {"router_aux_loss_coef"}
    assert {key for key in values if TRAINERS[trainer][key].changes == "training"} <= made.minor.keys()


def test_adapters_keep_their_scale_and_have_no_dropout_where_trl_switches_it_off():
    lora = converted(use_peft=True, lora_r=64, lora_alpha=8, use_rslora=True).recipe.model_options.lora
    assert lora.alpha / lora.r == pytest.approx(8 / math.sqrt(64))
    assert (lora.dropout, lora.merge, lora.target_modules) == (0.0, False, ("q_proj", "v_proj"))
    with_dropout = converted(use_peft=True, disable_dropout=False, lora_target_modules=["all-linear"])
    assert with_dropout.recipe.model_options.lora.dropout == 0.05
    assert with_dropout.recipe.model_options.lora.target_modules == "all-linear"


def test_trl_switches_off_the_dropout_of_adapters_too():
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl.trainer.utils import disable_dropout_in_model

    config = LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, pad_token_id=0
    )
    model = get_peft_model(LlamaForCausalLM(config), LoraConfig(lora_dropout=0.05, target_modules=["q_proj"]))
    disable_dropout_in_model(model)
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0}


@pytest.mark.parametrize(
    ("given", "share"),
    [
        ({"warmup_ratio": 0.2}, 0.2),
        ({"warmup_steps": 0.05}, 0.05),  # transformers 5: below 1 it is a share
        ({"warmup_steps": 30, "max_steps": 120}, 0.25),
        ({"warmup_steps": 30, "lr_scheduler_type": "constant"}, 0.0),  # transformers' constant has no warm-up
    ],
)
def test_a_warm_up_is_a_share_of_the_steps(given, share):
    assert converted(**given).recipe.train.warmup_share == share


def test_what_trl_itself_does_not_read_is_not_said_to_be_kept():
    made = converted(lora_r=64, dataset_test_split="dev")
    assert made.idle.keys() == {"lora_r", "dataset_test_split"}
    assert made.recipe.model_options.lora is None
    assert made.recipe.data.eval is None


def test_a_warm_up_in_steps_whose_number_is_unknown_is_named():
    made = converted(warmup_steps=100)
    assert re.search(r"warmup_share: 0.1 +# warmup_steps; a guess: 100 steps in TRL", made.text)
    assert made.minor["warmup_steps"].startswith("100 steps")
    assert made.lost == {}


@pytest.mark.parametrize(
    ("given", "precision"),
    [({}, "bfloat16"), ({"bf16": False}, "float32"), ({"fp16": True}, "bfloat16"), ({"bf16": "no"}, "float32")],
)
def test_precision_follows_trls_own_default(given, precision):
    assert converted(**given).recipe.train.precision == precision


def test_numbers_written_as_words_are_read_as_trl_reads_them():
    made = converted(learning_rate="5e-7", beta="0.2", max_length="null", use_peft="yes", max_steps="20")
    assert made.recipe.train.learning_rate == 5e-7
    assert made.recipe.stages[0].options == {"beta": 0.2}
    assert made.recipe.data.max_length == 1_000_000
    assert made.recipe.model_options.lora is not None
    assert made.recipe.train.max_steps == 20


def test_orpo_without_a_length_has_the_512_tokens_of_its_trainer():
    assert converted("orpo", max_length=None).recipe.data.max_length == 512


# ---- the data ----


def test_of_a_mixture_one_data_set_is_kept_and_several_are_named():
    one = from_trl(
        {"model_name_or_path": "m/x", "datasets": [{"path": "org/a", "split": "dev"}], "test_split_size": 0.1}
    )
    assert (one.recipe.data.train, one.recipe.data.eval_share) == ("org/a:dev", 0.1)
    assert one.lost == {}
    two = from_trl({"model_name_or_path": "m/x", "datasets": [{"path": "org/a"}, {"path": "org/b"}]})
    assert two.recipe.data.train == "org/a:train"
    assert "org/b not" in two.lost["datasets"]


def test_a_local_folder_becomes_the_file_of_its_split(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("{}\n")
    made = converted(dataset_name=str(tmp_path), eval_strategy="steps")
    assert made.recipe.data.train == str(tmp_path / "train.jsonl")
    assert made.recipe.data.eval == str(tmp_path / "test.jsonl")
    (tmp_path / "train-2.jsonl").write_text("{}\n")
    assert "which of the 3 data files" in converted(dataset_name=str(tmp_path)).lost["dataset_name"]
    (tmp_path / "train-2.jsonl").unlink()
    (tmp_path / "test.jsonl").rename(tmp_path / "validation.jsonl")
    assert converted(dataset_name=str(tmp_path)).lost == {}  # TRL asks for no test split without evaluation
    assert converted(dataset_name=str(tmp_path), eval_strategy="steps").lost.keys() == {"dataset_test_split"}


@pytest.mark.parametrize(
    "given", [{"dataset_config": "en"}, {"model_revision": "v2"}, {"load_in_4bit": True}, {"neftune_noise_alpha": 5}]
)
def test_another_data_set_model_or_noise_counts_as_lost(given):
    assert converted(**given).lost.keys() == given.keys()


def test_quantised_weights_under_adapters_are_kept_and_alone_are_lost():
    made = converted(load_in_4bit=True, use_peft=True, bnb_4bit_quant_type="fp4", use_bnb_nested_quant=True)
    assert (made.recipe.model_options.quantize, made.lost) == ("fp4", {})
    assert converted(load_in_8bit=True, use_peft=True).recipe.model_options.quantize == "int8"
    assert converted(load_in_4bit=True).recipe.model_options.quantize is None


@pytest.mark.parametrize(
    ("optim", "ours"),
    [("adamw_bnb_8bit", "adamw_8bit"), ("paged_adamw_8bit", "paged_adamw_8bit"), ("adamw_torch_4bit", "adamw")],
)
def test_an_optimiser_in_8_bits_stays_one(optim, ours):
    assert converted(optim=optim).recipe.train.optimizer == ours


def test_data_and_model_of_the_command_line_stand_in_for_those_that_the_file_lacks():
    made = from_trl({"beta": 0.2}, data="pairs.jsonl", model="org/model")
    assert (made.recipe.data.train, made.recipe.model) == ("pairs.jsonl", "org/model")
    with pytest.raises(ConfigError, match="no model_name_or_path; say which model with --model"):
        from_trl({"beta": 0.2}, data="pairs.jsonl")
    with pytest.raises(ConfigError, match="neither dataset_name nor datasets say what to train on"):
        from_trl({"beta": 0.2}, model="org/model")


# ---- which trainer ----


@pytest.mark.parametrize(
    ("values", "trainer"),
    [
        ({"beta": 0.1}, "dpo"),
        ({"desirable_weight": 1.3}, "kto"),
        ({"loss_type": "apo_zero_unpaired"}, "kto"),
        ({"loss_type": "simpo"}, "cpo"),
        ({"cpo_alpha": 0.0, "loss_type": "sigmoid"}, "cpo"),
        ({"loss_type": ["sigmoid", "sft"]}, "dpo"),
        ({"padding_value": 0}, "orpo"),
    ],
)
def test_the_trainer_is_told_from_keys_and_losses(values, trainer):
    made = converted(**values)
    assert made.trainer == trainer
    assert made.guess
    assert converted(trainer, **values).guess == ""


def test_keys_of_two_trainers_ask_for_one_and_an_unknown_trainer_is_refused():
    with pytest.raises(ConfigError, match="can be of cpo or orpo; say which with --trainer"):
        converted(max_completion_length=64)
    with pytest.raises(ConfigError, match=r"no trainer 'dop' can be converted \(did you mean 'dpo'"):
        converted("dop")


def test_unknown_keys_are_named_with_the_nearest_and_with_whose_they_are():
    made = converted("dpo", bata=0.3, desirable_weight=2.0)
    assert "did you mean 'beta'" in made.unknown["bata"]
    assert "a key of kto" in made.unknown["desirable_weight"]
    assert made.recipe.stages[0].options == {"beta": 0.1}


# ---- files ----


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("- beta\n- 0.1\n", "got a list"),
        ("just words\n", "got a str"),
        ("beta: 0.1\nmodel:\n\tname: x\n", "line 3: a tab"),
        ("beta: [0.1\n", "not YAML"),
        ("beta: 0.1\nbeta: 0.2\n", "written twice"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_with_what_was_expected(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_trl(path)


def test_a_missing_file_and_one_that_is_not_utf8_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_trl(tmp_path / "nothing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"beta: 0.1 # \xe9\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_trl(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    "text", ['{"beta": 0.3,\n\t"bf16": true, "eval_steps": null}', "{'beta': 0.3, 'bf16': True, 'eval_steps': None}"]
)
def test_json_and_python_dictionaries_are_read_as_yaml_is(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    assert read_trl(path) == {"beta": 0.3, "bf16": True, "eval_steps": None}


def test_all_values_of_a_wrong_kind_are_named_at_once():
    with pytest.raises(ConfigError) as refused:
        converted(beta="high", bf16="maybe", num_train_epochs=True, max_steps=1.5)
    for words in (
        "4 values do not fit",
        "beta: expected a number, got 'high'",
        "bf16: expected true or false, got 'maybe'",
        "num_train_epochs: expected a number, got True",
        "max_steps: expected a whole number, got 1.5",
    ):
        assert words in str(refused.value)


def test_the_text_is_the_recipe_and_names_trls_key_where_ours_has_another_name():
    made = converted(num_train_epochs=2, per_device_train_batch_size=4)
    assert load_recipe(yaml_value(made.text, "the text"), validate_files=False) == made.recipe
    assert re.search(r"epochs: 2.0 +# num_train_epochs$", made.text, re.MULTILINE)
    assert re.search(r"schedule: linear +# lr_scheduler_type, TRL's default$", made.text, re.MULTILINE)
    assert max(map(len, made.text.splitlines())) <= 100
