"""`unipref sample`: what models write, before and after, side by side."""

import argparse
from collections.abc import Mapping
from typing import Any

from unipref.core.errors import ConfigError

__all__ = ["add_drawing", "add_to"]

N_PROMPTS = 8
DTYPES = ("auto", "float32", "bfloat16", "float16")
PIPE_WIDTH = 120


def add_to(commands: Any) -> None:
    """Add the command to a parser's `commands`."""
    parser = commands.add_parser(
        "sample",
        help="draw responses from finished runs or models, side by side, with rewards",
        description="Draw responses from the models of a run, before and after alignment, or from any models, to the "
        "same prompts with the same random numbers, and score them by the recipe's objectives.",
    )
    parser.add_argument(
        "targets",
        metavar="RUN|MODEL",
        nargs="+",
        help="a run folder of align or compare, or its name in runs/; or a model: a folder, a hub id or `bundled`",
    )
    parser.add_argument("--runs", metavar="LIST", help="of a run folder, these runs, by commas (default: all)")
    parser.add_argument(
        "--prompts",
        nargs="+",
        metavar="FILE|TEXT",
        help="a text file with a prompt a line, a data file with the column `prompt`, or prompts as they are (default: "
        "held-out prompts of the run's recipe)",
    )
    parser.add_argument(
        "--n", type=int, metavar="N", help=f"the first N prompts (default: {N_PROMPTS} held-out ones, or all of a file)"
    )
    parser.add_argument(
        "--seed", type=int, nargs="+", metavar="N", help="of the draw; several give several responses (default: 0)"
    )
    add_drawing(parser)
    parser.add_argument("--no-rewards", action="store_true", help="do not score what is drawn")
    parser.add_argument("--stream", action="store_true", help="show tokens as they are drawn, one model after another")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print a JSON object a line for every response")
    shape.add_argument(
        "--page",
        action="store_true",
        help="write samples.json and samples.html into the run folder, beside report.html",
    )
    parser.set_defaults(run=run)


def add_drawing(parser: argparse.ArgumentParser, *, limit: str = "the recipe's, or 64") -> None:
    """Add what `sample` and `chat` have in common: how tokens are drawn, and from which seed's models."""
    parser.add_argument(
        "--temperature", type=float, metavar="X", help="0 takes the likeliest token (default: the recipe's, or 1)"
    )
    parser.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="of the fewest tokens that hold this share (default: the recipe's, or 1)",
    )
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help=f"longest answer (default: {limit})")
    parser.add_argument("--system", metavar="TEXT", help="a system message before every prompt")
    parser.add_argument(
        "--seed-folder", type=int, metavar="N", help="models of this training seed (default: the recipe's first)"
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="of the weights (default: float32; on a GPU, where no run is named, the checkpoint's own)",
    )


def run(args: argparse.Namespace) -> int:
    """Draw as `args` say; the exit code."""
    if args.n is not None and args.n < 1:
        raise ConfigError(f"--n: at least 1 prompt is needed, got {args.n}")
    if args.seed and (min(args.seed) < 0 or len(set(args.seed)) < len(args.seed)):
        raise ConfigError(f"--seed: expected different numbers of at least 0, got {args.seed}")

    import sys

    from rich.console import Console

    from unipref.recipes.finished import find_models
    from unipref.recipes.prompts import heldout_prompts, read_prompts
    from unipref.recipes.samples import Draw, account, draw
    from unipref.report import SAMPLES, render_samples, write_report, write_samples

    runs = [name.strip() for name in args.runs.split(",") if name.strip()] if args.runs else []
    found = find_models(args.targets, runs=runs, seed=args.seed_folder)
    if args.page and found.folder is None:
        raise ConfigError("--page writes into a run folder, and none is named; use --json, or name a run")
    if args.prompts:
        prompts = read_prompts(args.prompts, limit=args.n)
    elif found.recipe is not None:
        prompts = heldout_prompts(found.recipe, args.n or N_PROMPTS, found.folder)
    else:
        raise ConfigError("no prompts: a model alone has no held-out ones; give --prompts with a file or a text")
    how = Draw(
        **settings_of(args, found.sampling, found.sampling.max_new_tokens),
        seeds=tuple(args.seed or [found.sampling.seed]),
        rewards=not args.no_rewards,
    )

    console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH, soft_wrap=True)
    alone = len(found.contenders) == 1 and console.is_terminal
    streamed = not (args.json or args.page) and (args.stream or alone)
    waiting = Console(stderr=True)
    if streamed:
        rows, notes = draw(found, prompts, how, show=_Shown(console))
    else:
        with waiting.status(
            f"drawing from {len(found.contenders)} models, {len(prompts) * len(how.seeds)} prompts and seeds"
        ):
            rows, notes = draw(found, prompts, how)
    told = account(found, how, rows, notes)
    if args.json:
        from unipref.core.io import to_json

        for row in rows:
            print(to_json(row))
        return 0
    console.print(render_samples(told, texts=not streamed))
    if args.page:
        from unipref.core.io import write_json

        write_json(found.folder / SAMPLES, told)
        page = write_samples(found.folder)
        if (found.folder / "report.html").exists():
            write_report(found.folder)  # again, with a link to the page
        print(f"page: {page}")
    return 0


def settings_of(args: argparse.Namespace, recipe: Any, max_new_tokens: int) -> dict[str, Any]:
    """How is drawn: what `args` say, and for the rest the settings of a recipe's `sampling`."""
    return {
        "max_new_tokens": max_new_tokens if args.max_new_tokens is None else args.max_new_tokens,
        "temperature": recipe.temperature if args.temperature is None else args.temperature,
        "top_p": recipe.top_p if args.top_p is None else args.top_p,
        "system": args.system,
        "dtype": args.dtype,
    }


class _Shown:
    """Writes responses while they come: the model, its prompt, the text, its scores."""

    def __init__(self, console: Any) -> None:
        self.console = console
        self.model: Any = None
        self.open = False

    def piece(self, contender: Any, prompt: Any, seed: int, text: str) -> None:
        from unipref.sampling import printable

        self._begin(contender, prompt, seed)
        self.console.file.write(printable(text))
        self.console.file.flush()

    def row(self, contender: Any, prompt: Any, seed: int, row: Mapping[str, Any]) -> None:
        from unipref.report import scores_line

        self._begin(contender, prompt, seed)
        self.open = False
        self.console.print(f"\n[{scores_line(row)}]\n", style="cyan", markup=False, highlight=False)

    def _begin(self, contender: Any, prompt: Any, seed: int) -> None:
        from unipref.recipes.prompts import readable
        from unipref.report import label
        from unipref.sampling import printable

        if self.open:
            return
        self.open = True
        if contender != self.model:
            self.model = contender
            self.console.rule(label(contender.name), align="left")
        asked = f"{readable(prompt.text)}\n"
        self.console.print(printable(asked), style="dim", markup=False, highlight=False)
