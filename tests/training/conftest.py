"""Arguments of tiny runs."""

import pytest
from transformers import TrainingArguments


@pytest.fixture
def arguments(tmp_path):
    def make(batch=4, folder="out", **options):
        defaults = {
            "output_dir": str(tmp_path / folder),
            "per_device_train_batch_size": batch,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "constant",
            "max_steps": 4,
            "logging_steps": 1,
            "logging_nan_inf_filter": False,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "disable_tqdm": True,
            "remove_unused_columns": False,
            "dataloader_pin_memory": False,
            "seed": 0,
        }
        return TrainingArguments(**{**defaults, **options})

    return make
