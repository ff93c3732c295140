"""`unipref launcher`: configurations that accelerate reads as they are meant."""

import pytest
import yaml
from accelerate.commands.config import load_config_from_file

from unipref.cli import main
from unipref.cli.launcher import configuration, shipped
from unipref.core.errors import ConfigError


@pytest.mark.parametrize("name", shipped())
def test_accelerate_reads_every_shipped_configuration_with_the_devices_that_were_asked_for(name, tmp_path):
    path = tmp_path / "launch.yaml"
    path.write_text(configuration(name, processes=32, machines=4))
    read = load_config_from_file(str(path))
    assert (read.num_processes, read.num_machines) == (32, 4)
    assert read.mixed_precision == "no"  # the recipe's word
    expected = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "hsdp": "FSDP", "zero1": "DEEPSPEED", "zero2": "DEEPSPEED"}
    assert str(read.distributed_type).endswith(expected[name])


def test_hsdp_shares_out_inside_machines_and_repeats_between_them():
    found = yaml.safe_load(configuration("hsdp", processes=32, machines=4))["parallelism_config"]
    assert found == {"parallelism_config_dp_replicate_size": 4, "parallelism_config_dp_shard_size": 8}


@pytest.mark.parametrize(
    ("name", "devices", "said"),
    [
        ("fsdp", {}, "did you mean 'fsdp2'"),
        ("ddp", {"processes": 9, "machines": 2}, "as many on each"),
        ("ddp", {"processes": 1}, "two or more processes"),
        ("hsdp", {}, "take fsdp2"),
    ],
)
def test_devices_that_cannot_be_shared_out_are_refused_with_the_next_step(name, devices, said):
    with pytest.raises(ConfigError, match=said):
        configuration(name, **devices)


def test_the_command_writes_the_file_once_and_says_how_to_start(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["launcher", "fsdp2", "--processes", "4"]) == 0
    assert "accelerate launch --config_file fsdp2.yaml -m unipref align recipe.yaml" in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "fsdp2.yaml").read_text())["num_processes"] == 4
    assert main(["launcher", "fsdp2"]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["launcher"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(shipped())
