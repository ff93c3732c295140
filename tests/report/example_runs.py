"""A comparison of finished runs: the example's runs twice, at two learning rates."""

from pathlib import Path

from example_run import METHODS, write_example

from unipref.core.io import write_json
from unipref.recipes import load_recipe
from unipref.recipes.side_by_side import side_by_side


def write_runs_example(home: Path) -> Path:
    """Write the run folders "slow" and "fast" and their comparison; the folder of the comparison."""
    folders = [_run(home / "slow", 1e-5), _run(home / "fast", 1e-4)]
    return side_by_side([str(folder) for folder in folders], output=home / "both", command="unipref compare slow fast")


def _run(folder: Path, rate: float) -> Path:
    """The example's folder with a whole recipe, as `align` writes it."""
    summary = write_example(folder, n_pairs=40, n_generations=60)
    recipe = load_recipe({
        "name": folder.name, "model": "bundled", "data": {"train": "bundled:hh-harmless"},
        "train": {"learning_rate": rate}, "runs": {run: [{"method": method}] for run, method in METHODS.items()},
    }).resolved()  # fmt: skip
    write_json(folder / "summary.json", {**summary, "recipe": recipe})
    return folder
