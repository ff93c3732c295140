"""`unipref launcher`: the configuration with which `accelerate launch` starts a run on several devices."""

import argparse
from importlib.resources import files
from pathlib import Path
from typing import Any

from unipref.core.errors import ConfigError, nearest

__all__ = ["add_to"]

PER_MACHINE = 8


def add_to(commands: Any) -> None:
    """Add the command to a parser's `commands`."""
    parser = commands.add_parser(
        "launcher",
        help="write the configuration for a run on several devices",
        description="Write an accelerate configuration and say how to start a recipe with it. Without NAME: list them.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="ddp, fsdp2, hsdp, zero1 or zero2")
    parser.add_argument("--processes", type=int, default=PER_MACHINE, metavar="N", help="devices in all (default: 8)")
    parser.add_argument("--machines", type=int, default=1, metavar="N", help="machines in all (default: 1)")
    parser.add_argument("--output", metavar="FILE", help="where to (default: NAME.yaml)")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    parser.set_defaults(run=run)


def shipped() -> dict[str, str]:
    """The configurations that come with the package, by name."""
    folder = files("unipref") / "assets" / "accelerate"
    found = {Path(entry.name).stem: entry for entry in folder.iterdir() if entry.name.endswith(".yaml")}
    return {name: found[name].read_text(encoding="utf-8") for name in sorted(found)}


def configuration(name: str, *, processes: int = PER_MACHINE, machines: int = 1) -> str:
    """The configuration `name` for so many devices, as text with its comments.

    Raises:
        ConfigError: no configuration is called that, or the devices cannot be shared out so.
    """
    known = shipped()
    if name not in known:
        raise ConfigError(f"launcher: no configuration named {name!r}{nearest(name, known)}; it is {', '.join(known)}")
    if machines < 1 or processes < 2 or processes % machines:
        raise ConfigError(
            f"launcher: {processes} processes on {machines} machines; give two or more processes, as many on each"
        )
    if name == "hsdp" and machines == 1:
        raise ConfigError("launcher: hsdp is for several machines; on one, take fsdp2")
    values = {"num_processes": processes, "num_machines": machines}
    values |= {"parallelism_config_dp_replicate_size": machines}
    values |= {"parallelism_config_dp_shard_size": processes // machines}
    lines = []
    for line in known[name].splitlines():
        key = line.split(":")[0].strip()
        lines.append(f"{line.split(':')[0]}: {values[key]}" if key in values else line)
    return "\n".join(lines) + "\n"


def run(args: argparse.Namespace) -> int:
    """Write the configuration that `args` ask for, or list them."""
    if args.name is None:
        for name, text in shipped().items():
            print(f"{name:<6} {text.splitlines()[0].removeprefix('# ')}")
        return 0
    from unipref.core.io import write_text

    text = configuration(args.name, processes=args.processes, machines=args.machines)
    path = Path(args.output or f"{args.name}.yaml")
    if path.exists() and not args.force:
        raise ConfigError(f"{path} exists; choose another with --output, or write over it with --force")
    write_text(path, text)
    rank = " --machine_rank RANK --main_process_ip HOST --main_process_port 29500" if args.machines > 1 else ""
    print(f"Wrote {path}. Then{', on each machine' if args.machines > 1 else ''}:")
    print(f"accelerate launch --config_file {path}{rank} -m unipref align recipe.yaml")
    return 0
