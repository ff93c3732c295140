"""`unipref explain`: what drives preferences."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from unipref.core.errors import ConfigError

__all__ = ["add_to"]

VALUED = (
    "domain", "mechanism", "main", "n_grams", "heldout_share", "resamples", "seed", "limit", "endpoint", "judge_model",
    "key_from", "budget", "budget_tokens", "judgements", "judged_as", "evidence", "name",
)  # fmt: skip
FOR_A_JUDGE = {
    "discover": "--discover", "tried": "--try", "ties": "--break-ties", "scores": "--scores", "budget": "--budget",
    "budget_tokens": "--budget-tokens", "judged_as": "--judged-as",
}  # fmt: skip


def add_to(commands: Any) -> None:
    """Add the command to a parser's `commands`."""
    parser = commands.add_parser(
        "explain",
        help="say what drives preferences: of people, of judges, of an aligned model",
        description="Find which concepts go with being preferred, in all domains and in single ones, for each of "
        "several mechanisms (people, judges, a scorer, an aligned model), check it on held-out prompts, and write a "
        "page that says what may be trusted.",
    )
    _add_data(parser)
    parser.add_argument(
        "--concepts",
        action="append",
        default=[],
        metavar="TABLE|YAML|SET",
        help="further concepts: a table of their values with the columns id, concept, value (first response minus "
        "second; chosen minus rejected); a YAML file that defines them; or a published set: ad-linguistic, cpm-13, "
        "decipher, dissect-29, profile; NAME=… puts NAME before the keys; may be repeated",
    )
    parser.add_argument(
        "--no-surface", action="store_true", help="leave out what is counted in the texts; use --concepts and n-grams"
    )
    parser.add_argument("--n-grams", type=int, metavar="N", help="words and pairs of words per domain (default: 20)")
    parser.add_argument(
        "--heldout-share", type=float, metavar="SHARE", help="of the prompts, to check on (default: 0.25)"
    )
    parser.add_argument("--resamples", type=int, metavar="N", help="refits for sign stability (default: 100)")
    parser.add_argument("--seed", type=int, metavar="N", help="of folds and resamples (default: 0)")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N records of each file")
    parser.add_argument("--strict", action="store_true", help="a faulty row stops instead of being counted")
    _add_judge(parser)
    parser.add_argument("--name", help="of the explanation (default: of the files' names)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder (default: runs/explain-NAME)")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print explanation.json")
    shape.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(run=run)


def _add_data(parser: argparse.ArgumentParser) -> None:
    """What is explained: files, runs, scorers, and the columns that say who judged and where."""
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="data with comparisons, as `align` reads them; DOMAIN=FILE, MECHANISM/=FILE or MECHANISM/DOMAIN=FILE "
        "names what a file is of (several files without a name are a domain each)",
    )
    parser.add_argument(
        "--run",
        dest="runs",
        action="append",
        default=[],
        metavar="RUN",
        help="a folder of `unipref align`, its name in runs/, or FOLDER/RUN: explain the implicit rewards of its "
        "models on the held-out pairs, beside the data's own labels; may be repeated",
    )
    parser.add_argument(
        "--scorer",
        dest="scorers",
        action="append",
        default=[],
        metavar="KEY",
        help="explain this scorer's preferences on the same pairs, too; KEY:option=value;option=value sets options; "
        "may be repeated",
    )
    parser.add_argument("--domain", metavar="COLUMN", help="the column that names a row's domain (default: domain)")
    parser.add_argument(
        "--mechanism",
        metavar="COLUMN",
        help="the column that names who judged (default: annotator, if there is one)",
    )
    parser.add_argument("--main", metavar="NAME", help="the mechanism that others are compared with")
    parser.add_argument(
        "--evidence",
        metavar="COLUMN",
        help="the column in which a judge said why, to be read beside the pairs (default: rationale, if there is one)",
    )
    parser.add_argument("--format", default="auto", metavar="NAME", help="of the data (default: told from the columns)")


def _add_judge(parser: argparse.ArgumentParser) -> None:
    """Who is asked about concepts, and what else."""
    judge = parser.add_argument_group("a judge, for concepts that cannot be counted")
    judge.add_argument("--endpoint", metavar="URL", help="of a model that is asked as OpenAI's are; /v1 included")
    judge.add_argument("--judge-model", metavar="NAME", help="as the endpoint calls it")
    judge.add_argument("--key-from", metavar="VARIABLE", help="the environment variable that holds the endpoint's key")
    judge.add_argument("--budget", type=int, metavar="N", help="at most N requests; 0 takes kept answers alone")
    judge.add_argument(
        "--budget-tokens",
        type=int,
        metavar="N",
        help="at most N tokens, of questions and answers together",
    )
    judge.add_argument("--judgements", metavar="CSV", help="a table of judgements in place of an endpoint")
    judge.add_argument(
        "--scores", action="store_true", help="score each response by itself; without it the two are compared"
    )
    judge.add_argument(
        "--discover", type=int, default=0, metavar="N", help="have the judge name concepts, in N batches per domain"
    )
    judge.add_argument(
        "--try",
        dest="tried",
        type=int,
        default=0,
        metavar="N",
        help="have the model answer N held-out prompts, plainly and with the leading concepts named, and judge itself",
    )
    judge.add_argument(
        "--break-ties",
        dest="ties",
        type=int,
        default=0,
        metavar="N",
        help="ask the model again about N held-out pairs that a judge could not decide, with concepts as hints: how "
        "often does it then decide as the main mechanism did?",
    )
    judge.add_argument(
        "--judged-as", metavar="NAME", help="the judge of --break-ties (default: the model's name, or the only one)"
    )


def run(args: argparse.Namespace) -> int:
    """Explain as `args` say; the exit code."""
    if not args.files and not args.runs:
        raise ConfigError("there is nothing to explain; give a data file, or --run with a folder of `unipref align`")

    import json
    import sys

    from rich.console import Console

    from unipref.explain.study import Settings
    from unipref.recipes.explain import Asked, explain_files, named_file
    from unipref.report import EXPLANATION, render_explanation

    given = {
        "n_grams": args.n_grams,
        "heldout_share": args.heldout_share,
        "resamples": args.resamples,
        "seed": args.seed,
    }
    asked = Asked(
        files=tuple(named_file(text) for text in args.files),
        runs=tuple(args.runs),
        scorers=dict(_scorer(text) for text in args.scorers),
        format=args.format,
        strict=args.strict,
        domain=args.domain,
        mechanism=args.mechanism,
        evidence=args.evidence,
        concepts=tuple(args.concepts),
        surface=not args.no_surface,
        judge=_judge(args),
        main=args.main,
        limit=args.limit,
    )
    settings = Settings(**{name: value for name, value in given.items() if value is not None})
    with Console(stderr=True, quiet=args.quiet).status("explaining") as status:
        folder = explain_files(
            asked,
            settings=settings,
            name=args.name,
            output=args.output,
            command=_command(args),
            tell=status.update,
        )
    text = (folder / EXPLANATION).read_text(encoding="utf-8")
    if args.json:
        print(text, end="")
    elif not args.quiet:
        console = Console() if sys.stdout.isatty() else Console(width=120, soft_wrap=True)
        console.print(render_explanation(json.loads(text)), highlight=False)
        console.print()
        console.print(
            f"page: {folder / 'report.html'} (pairs one by one, all concepts, what would turn a verdict)",
            markup=False,
            highlight=False,
        )
        console.print(f"numbers: {folder / EXPLANATION}", markup=False, highlight=False)
    return 0


def _judge(args: argparse.Namespace) -> Any:
    from unipref.recipes.explain import JudgeAsked

    if not any((args.endpoint, args.judge_model, args.judgements)):
        for name, flag in FOR_A_JUDGE.items():
            if getattr(args, name):
                raise ConfigError(f"{flag} is for a judge, and there is none; give --endpoint and --judge-model")
        return None
    for name in ("discover", "tried", "ties"):
        if getattr(args, name) < 0:
            raise ConfigError(f"{FOR_A_JUDGE[name]} is 0 or more, got {getattr(args, name)}")
    if args.judged_as is not None and not args.ties:
        raise ConfigError("--judged-as says whose ties --break-ties is about; give --break-ties N")
    return JudgeAsked(
        url=args.endpoint,
        model=args.judge_model,
        key_from=args.key_from,
        budget=args.budget,
        budget_tokens=args.budget_tokens,
        table=args.judgements,
        representation="score" if args.scores else "comp",
        discover=args.discover,
        tried=args.tried,
        ties=args.ties,
        judged_as=args.judged_as,
    )


def _scorer(text: str) -> tuple[str, dict[str, Any]]:
    """KEY:option=value;option=value as the key and its options."""
    import yaml

    key, _, rest = text.partition(":")
    options = {}
    for part in filter(None, rest.split(";")):
        name, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"--scorer {text}: expected KEY:option=value;option=value, got {part!r}")
        options[name.strip()] = yaml.safe_load(value)
    return key, options


def _command(args: argparse.Namespace) -> str:
    """The command line that makes this explanation, whole."""
    words = ["unipref", "explain", *args.files]
    for flag, values in (("--run", args.runs), ("--scorer", args.scorers), ("--concepts", args.concepts)):
        for value in values:
            words += [flag, value]
    for name in VALUED:
        value = getattr(args, name)
        words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    words += [] if args.format == "auto" else ["--format", args.format]
    words += ["--scores"] if args.scores else []
    words += ["--discover", str(args.discover)] if args.discover else []
    words += ["--try", str(args.tried)] if args.tried else []
    words += ["--break-ties", str(args.ties)] if args.ties else []
    words += ["--no-surface"] if args.no_surface else []
    words += ["--strict"] if args.strict else []
    return shlex.join(words)
