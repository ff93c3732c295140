"""Write the numbers of a finished `unipref align reviews` into docs/reviews.md, between its two marks.

    python scripts/reviews_table.py runs/reviews

The table, the classifiers' accuracies and the sentences under it all come from the run folder; none is typed.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unipref.core.io import write_text
from unipref.report._fronts import told_of_front

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reviews.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
START = "reference"


def measured(folder: Path) -> str:
    """The part of the page between the marks, as Markdown."""
    summary, data = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("summary.json", "data.json"))
    parts = [_setting(summary, data), _classifiers(data)]
    for front in summary["fronts"]:
        told = "\n".join(f"- {sentence}" for sentence in told_of_front(summary, front))
        parts += [_heading(front), _runs(summary, front), _families(front), told]
    return "\n\n".join(parts)


def _setting(summary: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    runs, seeds = len(summary["runs"]), len(summary["recipe"]["seeds"])
    minutes = sum(run["seconds"] for run in summary["runs"].values()) / 60
    plain = data["designer"]["train"]["parts"]["plain"]
    share, low, high = (100 * value for value in plain["agreement"])
    return (
        f"{runs} run{'s' * (runs > 1)}, {seeds} seed{'s' * (seeds > 1)}, {data['split']['train']:,} collected "
        f"pairs, {data['split']['heldout']:,} held-out pairs, {minutes:.0f} minutes of training. The preferred answer "
        f"is the plainer one in {share:.0f} % [{low:.0f}, {high:.0f}] of {plain['n_agreement']:,} pairs."
    )


def _classifiers(data: Mapping[str, Any]) -> str:
    rows = []
    for key, facts in data["scorers"].items():
        right = "; ".join(
            f"{100 * held['accuracy']:.1f} % of {held['n']:,} {part}" for part, held in facts["held_out"].items()
        )
        rows.append([f"`{key}`", facts["half"], f"{facts['texts']:,}", f"{facts['penalty']:g}", right])
    return _table(["classifier", "half", "texts", "penalty", "right on the other half"], rows)


def _heading(front: Mapping[str, Any]) -> str:
    return (
        f"**{front['name']}**: means over a run's generations for {front['conversations']:,} held-out openings, "
        "all seeds together, with 95 % intervals."
    )


def _runs(summary: Mapping[str, Any], front: Mapping[str, Any]) -> str:
    metrics = [axis["metric"] for axis in front["axes"]]
    rows = []
    for run, point in front["points"].items():
        accuracy = summary["runs"].get(run, {}).get("accuracy")
        rows.append(
            [
                "start" if run == START else f"`{run}`",
                point["family"] or "",
                *(_triple(point["values"][metric]) for metric in metrics),
                _triple([100 * value for value in accuracy], 1) if accuracy else "",
                f"{100 * point['on_front_share']:.0f} %",
            ]
        )
    heads = [metric.removeprefix("aux.").removesuffix(".generations") for metric in metrics]
    return _table(["run", "family", *heads, "accuracy %", "on the front"], rows)


def _families(front: Mapping[str, Any]) -> str:
    rows = [
        [
            family,
            str(len(found["runs"])),
            _triple(found["hypervolume"], 3),
            ", ".join(f"`{run}`" for run in found["front"]),
        ]
        for family, found in front["families"].items()
    ]
    return _table(["family", "runs", "hypervolume", "its front"], rows)


def _triple(value: Sequence[float | None], digits: int = 2) -> str:
    if value[0] is None:
        return "not measured"
    if value[1] is None:
        return f"{value[0]:.{digits}f}"
    return f"{value[0]:.{digits}f} [{value[1]:.{digits}f}, {value[2]:.{digits}f}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Rewrite the marked part of the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="the run folder of `unipref align reviews`")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page with the marks; default: docs/reviews.md")
    args = parser.parse_args()
    text = args.page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after and END not in text:
        raise SystemExit(f"{args.page} lacks the marks {BEGIN} and {END}")
    write_text(args.page, f"{before}{BEGIN}\n{measured(args.folder)}\n{END}{after}")


if __name__ == "__main__":
    main()
