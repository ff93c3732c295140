"""What a run folder holds, as the report needs it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unipref.core.errors import DataError
from unipref.core.io import read_jsonl

__all__ = ["REFERENCE", "Curve", "RunFolder", "curves_of", "load"]

REFERENCE = "reference"  # the model before alignment, beside the runs
SAMPLES_PAGE = "samples.html"  # what `unipref sample --page` writes beside the report


@dataclass(frozen=True, slots=True)
class Curve:
    """Logged rows of one training run: its name, the seed's folder ("" for the only one) and the stage."""

    run: str
    seed: str
    rows: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The parts of a run folder. Everything but the summary may be empty.

    Attributes:
        samples: per prompt {"id", "prompt", "texts": {run: generation row}}.
    """

    summary: dict[str, Any]
    recipe: str
    data: dict[str, Any]
    citations: str
    curves: list[Curve]
    samples: list[dict[str, Any]]
    doctor: dict[str, Any] = field(default_factory=dict)


def load(folder: Path | str) -> RunFolder:
    """Read `folder`.

    Raises:
        DataError: it holds no whole `summary.json`.
    """
    folder = Path(folder)
    path = folder / "summary.json"
    if not path.exists():
        raise DataError(f"{folder} holds no summary.json; run `unipref align` to its end first")
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise DataError(f"{path} is not JSON ({err}); run `unipref align --resume` to write it again") from err
    data, doctor = folder / "data.json", folder / "doctor.json"
    return RunFolder(
        summary=summary,
        recipe=_text(folder / "recipe.yaml"),
        data=json.loads(data.read_text(encoding="utf-8")) if data.exists() else {},
        citations=_text(folder / "citations.bib"),
        curves=[curve for run in summary["runs"] for curve in curves_of(folder / run, run, summary)],
        samples=_samples(folder, summary),
        doctor=json.loads(doctor.read_text(encoding="utf-8")) if doctor.exists() else {},
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def curves_of(folder: Path, run: str, summary: Mapping[str, Any]) -> list[Curve]:
    """What was logged in the folder of `run`; of the last stage where stages have folders of their own."""
    recipe = summary.get("recipe") or {}
    stages = (recipe.get("runs") or {}).get(run) or recipe.get("stages") or [{}]
    last = stages[-1].get("name") or stages[-1].get("method")
    paths = sorted(folder.rglob("metrics.jsonl"))
    chosen = [path for path in paths if path.parent.name == last] or paths
    curves = []
    for path in chosen:
        first = path.relative_to(folder).parts[0]
        curves.append(Curve(run, first if first.startswith("seed-") else "", list(read_jsonl(path))))
    return curves


def _samples(folder: Path, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Generations of the first seed, side by side, in the order in which they were sampled."""
    by_id: dict[str, dict[str, Any]] = {}
    places = {REFERENCE: [folder / "shared" / "reference.json"]}
    for run in summary["runs"]:
        places[run] = [folder / run / "evaluation.json", *sorted((folder / run).glob("seed-*/evaluation.json"))]
    for run, paths in places.items():
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            continue
        for row in json.loads(path.read_text(encoding="utf-8"))["generations"]:
            sample = by_id.setdefault(row["id"], {"id": row["id"], "prompt": row["prompt"], "texts": {}})
            sample["texts"][run] = row
    return list(by_id.values())
