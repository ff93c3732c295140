"""Everything that README.md and docs/ tell a reader to type is typed here, page by page, in a folder of its own.

A page's files (`doc_pages`) are written as it shows them; a file that it only names comes from `files/`, and
`pairs.jsonl` from the bundled comparisons. Commands stay as they are printed. What makes them short is here alone:
`SHORT` appends to a command, `MODELS` says what is a tiny model here, `METHODS` shortens a list, and a page about
finished runs finds `runs/quickstart` made.
"""

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from doc_pages import PAGES, ROOT, Block, Command, blocks, commands, name
from transformers import LlamaConfig, LlamaForCausalLM

import unipref
from unipref.cli import main
from unipref.core.records import plain_text
from unipref.data import read_records
from unipref.engine import load_tokenizer
from unipref.features.concept_sets import load_concepts
from unipref.recipes import load_recipe
from unipref.recipes._source import read_yaml
from unipref.recipes.reward_config import load_reward_recipe

FILES = Path(__file__).parent / "files"
MODELS = re.compile(r"\b(?:org|Qwen)/[\w.-]+")
TINY = [
    "data.limit=16",
    "data.eval_limit=8",
    "train.max_steps=3",
    "train.batch_size=4",
    "sampling.prompts=2",
    "sampling.max_new_tokens=8",
]
# The recipe of docs/reviews.md with two of its runs, and scorers that need no fitting.
REVIEWS = [
    "model=org/model",
    *TINY,
    "collect.max_new_tokens=8",
    "collect.label={scorer: length, options: {cap: 60}}",
    "objectives.plain={scorer: length, options: {cap: 60}}",
    "judges={}",
    "runs={dpo: [{method: dpo}], upo: [{method: upo, options: {base: dpo}}]}",
    "controls={}",
    "fronts={}",
]
# How a command begins -> what is appended to it. The first line that fits counts.
SHORT = {
    "unipref align quickstart": ["--set", "model=org/model", *TINY],
    "unipref align reviews": ["--set", *REVIEWS],
    "unipref align": ["--set", *TINY],
    "unipref compare quickstart --methods": [
        "--set",
        "model=org/model",
        *TINY,
        "--learning-rates",
        "1e-4",
        "--seeds",
        "0",
    ],
    "unipref compare methods --methods": [
        "--set",
        "model=org/model",
        *TINY,
        "--learning-rates",
        "1e-4",
        "--seeds",
        "0",
    ],
    "unipref compare recipe.yaml --methods": ["--set", *TINY, "--learning-rates", "1e-4", "--seeds", "0"],
    "unipref sample": ["--n", "2", "--max-new-tokens", "8"],
    "unipref chat": ["--max-new-tokens", "8"],
    "unipref doctor quickstart": ["--set", "data.train=pairs.jsonl"],
    "unipref explain": ["--resamples", "5"],
    "unipref reward train people.yaml": ["--set", "options.epochs=10"],
    "unipref init": ["--force"],  # over the recipe.yaml that every page finds
}
# What a comparison of many methods, or of all, is made of here; tests/test_docs.py holds that all that are shown parse.
METHODS, MANY = "dpo,simpo", 4
# Looking at all bundled rows takes seconds, so these commands look at fewer.
ROWS = {
    "unipref doctor bundled:hh-harmless": "unipref doctor pairs.jsonl",
    "unipref explain bundled:hh-harmless": "unipref explain pairs.jsonl",
    "unipref reward train bundled:hh-harmless": "unipref reward train pairs.jsonl",
    "unipref cite explain-hh-harmless": "unipref cite explain-pairs",  # what the command above made of fewer rows
}
SHARED = "unipref align quickstart"
# What begins so reads nothing of a page and leaves nothing that it goes on with: typed once, for all pages that say it.
ALIKE = (
    "unipref align quickstart --dry-run",
    "unipref chat quickstart",
    "unipref doctor bundled:",
    "unipref doctor quickstart",
    "unipref sample quickstart",
)
TURNS = "How do I cook rice?\n"

# Commands that no test can run -> why, in the words of the comment above them. A new one is a decision, made here.
NOT_RUN: dict[str, str] = {
    "unipref explain pairs.jsonl --concepts cpm-13 --endpoint http://localhost:8000/v1 --judge-model org/model": (
        "it needs a model that can judge"
    ),
    "unipref explain pairs.jsonl --concepts cpm-13 --endpoint https://HOST/v1 --judge-model NAME --key-from MY_KEY "
    "--budget 5000": "it needs a model that can judge",
    "unipref explain people/=pairs.jsonl judge/=judged.jsonl --endpoint http://localhost:8000/v1 "
    "--judge-model org/model --try 50 --break-ties 50": "it needs a model that can judge",
}


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A random Llama of one layer with the bundled tokenizer: what `org/model` is in the pages."""
    folder = tmp_path_factory.mktemp("pages") / "model"
    tokenizer = load_tokenizer("bundled")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def quickstart(tiny_model, tmp_path_factory) -> Path:
    """The run folder of `SHARED`, made short; pages get a copy of it."""
    folder = tmp_path_factory.mktemp("shared") / "quickstart"
    words = [MODELS.sub(str(tiny_model), word) for word in [*SHARED.split(), *SHORT[SHARED]]]
    assert main([*words[1:], "--output", str(folder), "--quiet"]) == 0
    return folder


@dataclass(frozen=True)
class Given:
    """What every page finds: the model that stands for those on the hub, a finished run, and files by name."""

    model: Path
    quickstart: Path
    files: Mapping[str, str]
    codes: dict[str, int] = field(default_factory=dict)  # how the commands of `ALIKE` ended that were typed before


@pytest.fixture(scope="session")
def given(tiny_model, quickstart) -> Given:
    files = {path.name: path.read_text(encoding="utf-8") for path in FILES.iterdir()}
    return Given(tiny_model, quickstart, {**files, "pairs.jsonl": pairs()})


def pairs() -> str:
    """The `pairs.jsonl` that many pages read: bundled comparisons with a short question, as texts."""
    records, _ = read_records("bundled:hh-harmless")
    rows = []
    for record in records:
        context, (first, second) = record.items[0].context, map(plain_text, (i.response for i in record.items))
        if len(context) == 1 and len(first) + len(second) < 400:
            rows.append({"prompt": context[0].content, "chosen": f" {first}", "rejected": f" {second}"})
    return "".join(json.dumps(row) + "\n" for row in rows[:320])


class Reader:
    """Somebody who types a page's commands, one after another, in the folder they are in."""

    def __init__(self, page: Path, given: Given, monkeypatch: pytest.MonkeyPatch):
        self.page, self.given, self.monkeypatch = page, given, monkeypatch
        self.names: dict[str, object] = {"__name__": "__page__"}
        self.typed: set[str] = set()  # words of `unipref` that the page had run: a launcher need not do it again

    def read(self) -> list[Command]:
        """Do all that the page says; the commands that it says are not to be run by a test."""
        text = self.page.read_text(encoding="utf-8")
        for file, content in self.given.files.items():
            Path(file).write_text(self.with_models(content), encoding="utf-8")
        if re.search(r"runs/quickstart|unipref (?:sample|chat|report|cite|compare) quickstart", text):
            shutil.copytree(self.given.quickstart, "runs/quickstart")
        left = []
        for block in blocks(text):
            if block.file:
                Path(block.file).write_text(self.with_models(block.text), encoding="utf-8")
            if block.language == "yaml" and block.file and f"--concepts {block.file}" in text:
                load_concepts(block.file)
            elif block.language == "yaml" and f"--from-trl {block.file}" not in text:
                self.check_recipe(block)
            elif block.language == "sh":
                for command in commands(block):
                    if command.not_run:
                        left.append(command)
                    else:
                        self.type(command)
            elif block.language == "python" and not block.file:
                exec(compile(self.with_models(block.text), name(self.page), "exec"), self.names)
        return left

    def with_models(self, text: str) -> str:
        return MODELS.sub(str(self.given.model), text)

    def check_recipe(self, block: Block) -> None:
        """A recipe is valid, its section `full` too; the files that it names need not be there."""
        path = Path(block.file or "shown.yaml")
        if not block.file:
            path.write_text(self.with_models(block.text), encoding="utf-8")
        if re.search(r"^method:", block.text, re.MULTILINE):  # of `unipref reward train`
            assert load_reward_recipe(read_yaml(path).values | {"data": {"train": "bundled:hh-harmless"}}).spec
            return
        for full in {False, "\nfull:" in block.text}:
            assert load_recipe(path, full=full, validate_files=False).run_plan()

    def type(self, command: Command) -> None:
        """Run one command; it ends as its comment says."""
        first = command.words[0]
        if first == "make":
            self.check_make(command.words[1:])
        elif first == "pip":
            self.check_pip(command.words[1:])
        elif first == "accelerate":
            self.launch(command)
        elif "unipref" in command.words:
            assert self.unipref(command.line) == command.exit_code, f"{name(self.page)}: {command.line}"
        else:
            done = subprocess.run(["bash", "-c", command.line], check=False)
            assert done.returncode == command.exit_code, f"{name(self.page)}: {command.line}"

    def unipref(self, line: str) -> int:
        """The exit code of a line with one `unipref` in it, maybe after a pipe, maybe into a file."""
        if line == SHARED:
            shutil.copytree(self.given.quickstart, "runs/quickstart", dirs_exist_ok=True)
            return 0
        if line.startswith(ALIKE) and ">" not in line and line in self.given.codes:
            return self.given.codes[line]
        self.typed.add(line.removeprefix("unipref "))
        said = line
        before, _, line = line.rpartition(" | ")
        line, _, target = line.partition(" > ")
        typed = subprocess.run(["bash", "-c", before], capture_output=True, text=True, check=True).stdout
        words = shlex.split(self.with_models(shorter(line)))
        with self.monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(typed or TURNS))
            output = io.StringIO()
            if target:
                patch.setattr(sys, "stdout", output)
            try:
                code = main(words[1:])
            except SystemExit as leave:  # --help and --version
                code = leave.code or 0
        if target:
            Path(target).write_text(output.getvalue(), encoding="utf-8")
        self.given.codes[said] = code
        return code

    def check_make(self, words: list[str]) -> None:
        text = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in (word for word in words if "=" not in word):
            assert re.search(rf"^{target}:", text, flags=re.MULTILINE), f"{name(self.page)}: no target {target}"

    def check_pip(self, words: list[str]) -> None:
        """`pip install .` and `pip install ".[extra]"`; the extras are in pyproject.toml."""
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        _, _, section = project.partition("[project.optional-dependencies]\n")
        extras = re.findall(r"^([\w-]+) = \[", section.partition("\n\n")[0], flags=re.MULTILINE)
        assert words[0] == "install"
        for word in words[1:]:
            package = re.fullmatch(r"-e|(?:\.|unipref)(?:\[([\w,]+)\])?", word)
            assert package, f"{name(self.page)}: pip install {word}"
            assert not set((package[1] or "").split(",")) - {"", *extras}, f"{name(self.page)}: {word}"

    def launch(self, command: Command) -> None:
        """`accelerate launch FLAGS -m unipref WORDS`: on this machine's processors as it stands, otherwise in here."""
        from accelerate.commands.launch import launch_command_parser

        flags, _, words = command.line.partition(" -m unipref ")
        launch_command_parser().parse_args([*flags.split()[2:], "-m", "unipref"])  # flags that accelerate has
        if "--cpu" not in flags:
            if words not in self.typed:
                assert self.unipref(f"unipref {words}") == command.exit_code
            return
        self.typed.add(words)
        line = self.with_models(f"{flags} -m {shorter(f'unipref {words}')}")
        done = subprocess.run(
            [sys.executable, "-m", "accelerate.commands.accelerate_cli", *shlex.split(line)[1:]],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == command.exit_code, done.stderr[-3000:]


def shorter(line: str) -> str:
    """The command with what `SHORT` appends to it."""
    for start, other in ROWS.items():
        line = line.replace(start, other)
    added = next((words for start, words in SHORT.items() if line.startswith(start)), [])
    many = re.search(r"--methods (\S+)", line)
    if many and (many[1] == "all" or many[1].count(",") >= MANY):
        line = line.replace(many[1], METHODS)
    return shlex.join([*shlex.split(line), *added])


def typed(page: Path) -> list[Command]:
    return [
        command
        for block in blocks(page.read_text(encoding="utf-8"))
        if block.language == "sh"
        for command in commands(block)
    ]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_a_page_tells_a_reader_to_type_works(page, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    short = [*TINY, f"model={given.model}"]
    monkeypatch.setattr(
        unipref, "load_recipe", lambda recipe, changes=(): load_recipe(recipe, [*changes, *short]), raising=False
    )
    Reader(page, given, monkeypatch).read()


def test_what_cannot_be_run_here_is_listed_with_its_reason():
    assert {c.line: c.not_run for page in PAGES for c in typed(page) if c.not_run} == NOT_RUN
