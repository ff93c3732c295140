"""The keys of TRL 1.16's configurations: their defaults, where they go in a recipe, or why they do not.

A test holds the names and defaults to the installed TRL; nothing here imports it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["FORMER", "TRAINERS", "VERSION", "Key"]

VERSION = "1.16"


class Key(NamedTuple):
    """One key.

    Attributes:
        default: TRL's.
        to: the recipe's key, "" where there is none.
        says: how the two differ, or why it is not kept; "" where they are the same.
        changes: of a key that is not kept, what another value than the default changes: "loss" (also the data and the
            model that it is taken on), "training" (the way to the same optimum), or "" (neither).
    """

    default: Any
    to: str = ""
    says: str = ""
    changes: str = ""


_DEVICES = "how the work is laid out on devices; unipref sees to it, and results do not depend on it"
_LOADING = "how rows are loaded; they are read once, before training"
_LOGS = "what is logged where; metrics.jsonl and the report have all metrics"
_HUB = "nothing is uploaded; push the folder of the model yourself"
_EVALUATION = "how evaluation is cut into batches; here its numbers do not depend on it"
_SAVING = "what a checkpoint holds; here always all that a resume needs, the last two and the best"
_UNREAD = "TRL's script does not read it either"
_CACHED = "log-probabilities of the reference are always computed once, before training, and kept"
_ONE_FORWARD = "no forward is padded to a size; set train.max_tokens_per_forward for memory"
_OPTIMISER = "the optimiser's own settings are not a recipe's"

_SCRIPT: Mapping[str, Key] = {
    "dataset_name": Key(None, "data.train", "a hub id stays one, as NAME:SPLIT"),
    "dataset_config": Key(None, "", "a recipe names no configuration of a hub data set; save it to a file", "loss"),
    "dataset_train_split": Key("train", "data.train"),
    "dataset_test_split": Key("test", "data.eval", "read where `eval_strategy` asks for evaluation"),
    "dataset_streaming": Key(False, "", _LOADING),
    "ignore_bias_buffers": Key(False, "", _DEVICES),
    "datasets": Key([], "data.train", "one data set is kept, of several the first alone"),
    "streaming": Key(False, "", _LOADING),
    "test_split_size": Key(None, "data.eval_share", "here by conversation, so that no prompt is on both sides"),
    "env": Key(None, "", "variables of the environment; set them in the shell"),
}

_MODEL: Mapping[str, Key] = {
    "model_name_or_path": Key(None, "model"),
    "model_revision": Key("main", "", "a recipe names no revision; download it, and give the folder", "loss"),
    "dtype": Key("float32", "model_options.dtype"),
    "attn_implementation": Key(None, "", "attention is chosen by what shares the prompt's tokens; same numbers"),
    "use_peft": Key(False, "model_options.lora"),
    "lora_r": Key(16, "model_options.lora.r"),
    "lora_alpha": Key(32, "model_options.lora.alpha"),
    "lora_dropout": Key(0.05, "model_options.lora.dropout", "0 unless `disable_dropout` is false, as in TRL itself"),
    "lora_target_modules": Key(None, "model_options.lora.target_modules", "TRL leaves null to peft; here it is named"),
    "lora_target_parameters": Key(None, "", "adapters sit on modules alone", "training"),
    "lora_modules_to_save": Key(None, "", "adapters alone are trained", "training"),
    "lora_task_type": Key("CAUSAL_LM", "", "always a causal language model"),
    "use_rslora": Key(False, "model_options.lora.alpha", "alpha is multiplied by the root of r: the same scale"),
    "use_dora": Key(False, "", "adapters are plain low-rank products", "training"),
    "load_in_8bit": Key(False, "model_options.quantize", "int8; needs adapters"),
    "load_in_4bit": Key(False, "model_options.quantize", "the kind of `bnb_4bit_quant_type`; needs adapters"),
    "bnb_4bit_quant_type": Key("nf4", "model_options.quantize"),
    "use_bnb_nested_quant": Key(False, "", "scales are always quantised once more: less memory, nearly the same model"),
    "bnb_4bit_quant_storage": Key(None, "", _DEVICES),
}

# What DPOConfig, KTOConfig, CPOConfig and ORPOConfig have in common: TRL's own keys, then those of transformers.
_COMMON: Mapping[str, Key] = {
    "model_init_kwargs": Key(None, "model_options.dtype", "its `dtype`; other entries are named", "loss"),
    "trust_remote_code": Key(False, "model_options.trust_remote_code"),
    "disable_dropout": Key(True, "", "dropout is off, but for that of adapters", "training"),
    "dataset_num_proc": Key(None, "", _LOADING),
    "max_length": Key(1024, "data.max_length", "TRL cuts the end of the response; here the prompt's start goes first"),
    "beta": Key(0.1, "stages.options"),
    "output_dir": Key(None, "output"),
    "per_device_train_batch_size": Key(8, "train.batch_size", "per device x accumulation x devices (taken to be one)"),
    "gradient_accumulation_steps": Key(1, "train.batch_size", "see `per_device_train_batch_size`"),
    "num_train_epochs": Key(3.0, "train.epochs"),
    "max_steps": Key(-1, "train.max_steps"),
    "learning_rate": Key(1e-6, "train.learning_rate"),
    "lr_scheduler_type": Key("linear", "train.schedule", "linear, cosine and constant"),
    "lr_scheduler_kwargs": Key(None, "", "schedules have no settings of their own", "training"),
    "warmup_steps": Key(0, "train.warmup_share", "a share of the steps; a number of steps needs `max_steps` beside it"),
    "optim": Key("adamw_torch_fused", "train.optimizer", "all forms of AdamW are `adamw`: the same numbers in 32 bits"),
    "optim_args": Key(None, "", _OPTIMISER, "training"),
    "optim_target_modules": Key(None, "", _OPTIMISER, "training"),
    "weight_decay": Key(0.0, "train.weight_decay"),
    "adam_beta1": Key(0.9, "", _OPTIMISER, "training"),
    "adam_beta2": Key(0.999, "", _OPTIMISER, "training"),
    "adam_epsilon": Key(1e-08, "", _OPTIMISER, "training"),
    "average_tokens_across_devices": Key(True, "", "sums are always over the whole step, whatever the devices"),
    "max_grad_norm": Key(1.0, "train.max_grad_norm"),
    "label_smoothing_factor": Key(0.0, "", "the preference trainers do not read it"),
    "bf16": Key(None, "train.precision", "null is on in TRL, unless `fp16` is"),
    "fp16": Key(False, "train.precision", "there is no loss scaling; bfloat16 is taken instead"),
    "bf16_full_eval": Key(False, "", "models are judged with float32 weights"),
    "fp16_full_eval": Key(False, "", "models are judged with float32 weights"),
    "tf32": Key(None, "", _DEVICES),
    "activation_checkpointing": Key(None, "", _DEVICES),
    "activation_checkpointing_kwargs": Key(None, "", _DEVICES),
    "gradient_checkpointing": Key(True, "train.gradient_checkpointing"),
    "gradient_checkpointing_kwargs": Key(None, "", _DEVICES),
    "torch_compile": Key(False, "", _DEVICES),
    "torch_compile_backend": Key(None, "", _DEVICES),
    "torch_compile_mode": Key(None, "", _DEVICES),
    "use_liger_kernel": Key(False, "", _DEVICES),
    "liger_kernel_config": Key(None, "", _DEVICES),
    "use_cache": Key(False, "", _DEVICES),
    "neftune_noise_alpha": Key(None, "", "no noise is added to embeddings", "loss"),
    "torch_empty_cache_steps": Key(None, "", _DEVICES),
    "auto_find_batch_size": Key(False, "", _ONE_FORWARD),
    "logging_strategy": Key("steps", "", _LOGS),
    "logging_steps": Key(10, "train.logging_steps", "a whole number; a share of the steps is not kept"),
    "logging_first_step": Key(False, "", "the first step is always logged"),
    "log_on_each_node": Key(True, "", _LOGS),
    "logging_nan_inf_filter": Key(True, "", "a loss that is not finite stops the run"),
    "include_num_input_tokens_seen": Key("no", "", _LOGS),
    "log_level": Key("passive", "", _LOGS),
    "log_level_replica": Key("warning", "", _LOGS),
    "disable_tqdm": Key(None, "", _LOGS),
    "report_to": Key("none", "train.report_to"),
    "run_name": Key(None, "name"),
    "project": Key("huggingface", "", _LOGS),
    "trackio_space_id": Key(None, "", _LOGS),
    "trackio_bucket_id": Key(None, "", _LOGS),
    "trackio_static_space_id": Key(None, "", _LOGS),
    "eval_strategy": Key("no", "train.eval_steps", "a report at the end is always made; `epoch` is the end alone"),
    "eval_steps": Key(None, "train.eval_steps", "on validation rows that are taken from the training rows"),
    "eval_delay": Key(0, "", _EVALUATION),
    "per_device_eval_batch_size": Key(8, "", _EVALUATION),
    "prediction_loss_only": Key(False, "", _EVALUATION),
    "eval_on_start": Key(False, "", "the report compares with the model before training"),
    "eval_do_concat_batches": Key(True, "", _EVALUATION),
    "eval_use_gather_object": Key(False, "", _EVALUATION),
    "eval_accumulation_steps": Key(None, "", _EVALUATION),
    "include_for_metrics": Key([], "", _EVALUATION),
    "batch_eval_metrics": Key(False, "", _EVALUATION),
    "save_only_model": Key(False, "", _SAVING),
    "save_strategy": Key("steps", "train.save_steps", "`epoch` is the end alone"),
    "save_steps": Key(500, "train.save_steps"),
    "save_on_each_node": Key(False, "", _SAVING),
    "save_total_limit": Key(None, "", _SAVING),
    "enable_jit_checkpoint": Key(False, "", _SAVING),
    "push_to_hub": Key(False, "", _HUB),
    "hub_token": Key(None, "", _HUB),
    "hub_private_repo": Key(None, "", _HUB),
    "hub_model_id": Key(None, "", _HUB),
    "hub_strategy": Key("every_save", "", _HUB),
    "hub_always_push": Key(False, "", _HUB),
    "hub_revision": Key(None, "", _HUB),
    "load_best_model_at_end": Key(False, "train.keep_best", "null keeps the last"),
    "metric_for_best_model": Key(None, "train.keep_best", "reward accuracy where TRL's name has no match"),
    "greater_is_better": Key(None, "", "follows from the metric"),
    "ignore_data_skip": Key(False, "", "a resumed run always goes on in the order of the one that was stopped"),
    "restore_callback_states_from_checkpoint": Key(False, "", _SAVING),
    "full_determinism": Key(False, "", _DEVICES),
    "seed": Key(42, "seeds", "the order of the rows is another than TRL's"),
    "data_seed": Key(None, "", "the order of the rows follows from the seed", "training"),
    "use_cpu": Key(False, "", "a GPU is used where there is one; hide it with CUDA_VISIBLE_DEVICES="),
    "accelerator_config": Key(None, "", _DEVICES),
    "parallelism_config": Key(None, "", _DEVICES),
    "dataloader_drop_last": Key(False, "", "the last, shorter step is trained too", "training"),
    "dataloader_num_workers": Key(0, "", _LOADING),
    "dataloader_pin_memory": Key(True, "", _LOADING),
    "dataloader_persistent_workers": Key(False, "", _LOADING),
    "dataloader_prefetch_factor": Key(None, "", _LOADING),
    "dataloader_multiprocessing_context": Key(None, "", _LOADING),
    "dataloader_in_order": Key(True, "", _LOADING),
    "remove_unused_columns": Key(True, "", _LOADING),
    "label_names": Key(None, "", _UNREAD),
    "train_sampling_strategy": Key("random", "train.group_by_length", "random or by length; rows are always shuffled"),
    "length_column_name": Key("length", "", "lengths are counted"),
    "ddp_find_unused_parameters": Key(None, "", _DEVICES),
    "ddp_bucket_cap_mb": Key(None, "", _DEVICES),
    "ddp_broadcast_buffers": Key(None, "", _DEVICES),
    "ddp_static_graph": Key(None, "", _DEVICES),
    "ddp_backend": Key(None, "", _DEVICES),
    "ddp_timeout": Key(1800, "", _DEVICES),
    "fsdp": Key(None, "", "a recipe says nothing of sharding"),
    "fsdp_config": Key(None, "", "a recipe says nothing of sharding"),
    "deepspeed": Key(None, "", "a recipe says nothing of sharding"),
    "debug": Key("", "", _DEVICES),
    "skip_memory_metrics": Key(True, "", _LOGS),
    "do_train": Key(False, "", _UNREAD),
    "do_eval": Key(False, "", _UNREAD),
    "do_predict": Key(False, "", _UNREAD),
    "resume_from_checkpoint": Key(None, "", "go on with `unipref align RECIPE --resume`"),
    "local_rank": Key(-1, "", _DEVICES),
}

_SYNCHRONISED = "TR-DPO: the reference stays what it is"
_REFERENCE: Mapping[str, Key] = {  # of the trainers that have a reference
    "router_aux_loss_coef": Key(None, "", "no loss that balances experts is added", "loss"),
    "pad_to_multiple_of": Key("auto", "", _ONE_FORWARD),
    "precompute_ref_log_probs": Key(False, "", _CACHED),
    "precompute_ref_batch_size": Key(None, "", _CACHED),
    "activation_offloading": Key(False, "", _DEVICES),
    "sync_ref_model": Key(False, "", _SYNCHRONISED, "loss"),
    "ref_model_mixup_alpha": Key(0.6, "", _SYNCHRONISED),
    "ref_model_sync_steps": Key(512, "", _SYNCHRONISED),
}
_NO_REFERENCE: Mapping[str, Key] = {  # of those that have none, TRL's experimental ones
    "max_completion_length": Key(None, "", "of encoder-decoder models, which are not trained here"),
    "generate_during_eval": Key(False, "sampling.prompts", "the report always shows answers"),
    "is_encoder_decoder": Key(None, "", "encoder-decoder models are not trained here", "loss"),
}

_OWN: Mapping[str, Mapping[str, Key]] = {
    "dpo": {
        **_REFERENCE,
        "truncation_mode": Key("keep_start", "", "what is too long loses the start of its prompt, BOS stays"),
        "padding_free": Key(False, "", _ONE_FORWARD),
        "loss_type": Key(["sigmoid"], "stages.method"),
        "loss_weights": Key(None, "stages.options"),
        "ld_alpha": Key(None, "", "LD-DPO: log-probabilities behind the shorter length are not weighted", "loss"),
        "f_divergence_type": Key("reverse_kl", "", "the score is the log-ratio, of the reverse KL", "loss"),
        "f_alpha_divergence_coef": Key(0.5, "", "see `f_divergence_type`"),
        "label_smoothing": Key(0.0, "stages.options", "read by `robust` and `exo_pair`, as in TRL"),
        "use_weighting": Key(False, "", "WPO's weights need squared probabilities over the vocabulary", "loss"),
        "discopop_tau": Key(0.05, "", "see `loss_type: discopop`"),
        "pad_token": Key(None, "", "padding is never scored"),
    },
    "kto": {
        **_REFERENCE,
        "train_sampling_strategy": Key("sequential", "", "rows are shuffled; z0 needs no order of the rows here"),
        "loss_type": Key("kto", "stages.method"),
        "desirable_weight": Key(1.0, "stages.options.lambda_d"),
        "undesirable_weight": Key(1.0, "stages.options.lambda_u"),
    },
    "cpo": {
        **_NO_REFERENCE,
        "label_smoothing": Key(0.0, "", "no method without a reference smooths its labels", "loss"),
        "loss_type": Key("sigmoid", "stages.method"),
        "cpo_alpha": Key(1.0, "stages.options.alpha", "TRL averages over a micro-batch's tokens, here over responses"),
        "simpo_gamma": Key(0.5, "stages.options.gamma"),
        "alpha": Key(0.0, "", "AlphaPO: a transform of the score that no method here has", "loss"),
    },
    "orpo": {**_NO_REFERENCE, "padding_value": Key(None, "", "padding is never scored")},
}

TRAINERS: Mapping[str, Mapping[str, Key]] = {
    trainer: {**_SCRIPT, **_MODEL, **_COMMON, **own} for trainer, own in _OWN.items()
}

# Keys that configurations from earlier versions still have; TRL 1.16 no longer reads them.
FORMER: Mapping[str, Key] = {
    "warmup_ratio": Key(0.0, "train.warmup_share"),
    "evaluation_strategy": Key("no", "train.eval_steps", "now called `eval_strategy`"),
    "torch_dtype": Key("float32", "model_options.dtype", "now called `dtype`"),
    "rpo_alpha": Key(None, "stages.options.lam", "now `loss_type: [sigmoid, sft]` with `loss_weights`"),
    "group_by_length": Key(False, "train.group_by_length", "now `train_sampling_strategy: group_by_length`"),
    "reference_free": Key(False, "", "dpo needs its reference; simpo, cpo and orpo have none", "loss"),
    "max_prompt_length": Key(None, "", "prompts have no limit of their own; see data.max_length"),
    "max_target_length": Key(None, "", "responses have no limit of their own; see data.max_length"),
    "dataset_mixer": Key(None, "", "several data sets are one file, or one hub data set", "loss"),
    "dataset_splits": Key(None, "", "name the split: NAME:SPLIT", "loss"),
    "label_pad_token_id": Key(-100, "", "padding is never scored"),
    "padding_value": Key(None, "", "padding is never scored"),
    "use_logits_to_keep": Key(False, "", _DEVICES),
    "use_liger_loss": Key(False, "", _DEVICES),
    "use_num_logits_to_keep": Key(False, "", _DEVICES),
    "base_model_attribute_name": Key("model", "", _DEVICES),
    "force_use_ref_model": Key(False, "", _CACHED),
    "model_adapter_name": Key(None, "", "an adapter that is to be trained further is the `model`", "loss"),
    "ref_adapter_name": Key(None, "", "the model under the adapter is the reference", "loss"),
    "generate_during_eval": Key(False, "sampling.prompts", "the report always shows answers"),
    "sanity_check": Key(False, "", "use `--set data.limit=100`", "loss"),
    "no_cuda": Key(False, "", "a GPU is used where there is one; hide it with CUDA_VISIBLE_DEVICES="),
    "overwrite_output_dir": Key(False, "", "an earlier run is kept beside the new one"),
    "per_gpu_train_batch_size": Key(None, "train.batch_size", "now `per_device_train_batch_size`"),
    "log_completions": Key(False, "", "the report always shows answers"),
    "include_tokens_per_second": Key(False, "", _LOGS),
    "half_precision_backend": Key("auto", "", _DEVICES),
    "tags": Key(None, "", _HUB),
}
