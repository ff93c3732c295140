"""`unipref chat`: talk to a model in the terminal."""

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from unipref.cli.sample import add_drawing, settings_of
from unipref.core.errors import ConfigError, DataError, UniprefError, nearest

__all__ = ["add_to"]

MAX_NEW_TOKENS = 256

COMMANDS = {
    "help": "this list",
    "reset": "forget the conversation",
    "retry": "another answer to the last question",
    "undo": "take the last question and its answer back",
    "seed N": "draw from seed N from here on",
    "temperature X": "0 takes the likeliest token",
    "system TEXT": "the system message; without a text, none",
    "switch NAME": "go on with another model of the run, such as `before` or a run's name",
    "save FILE": "write the conversation, as text or, in a .json or .jsonl file, as messages",
    "quit": "leave, as Ctrl-D does",
}


def add_to(commands: Any) -> None:
    """Add the command to a parser's `commands`."""
    parser = commands.add_parser(
        "chat",
        help="talk to a run's model, or to any other",
        description="Talk to a model in the terminal. Answers come as they are drawn; Ctrl-C stops one and keeps the "
        "chat, Ctrl-D leaves, /help lists commands. From a pipe, every line is a turn.",
    )
    parser.add_argument(
        "targets",
        metavar="RUN|MODEL",
        nargs="+",
        help="a run folder, or its name in runs/; or a model: a folder, a hub id or `bundled`; /switch goes between",
    )
    parser.add_argument(
        "--run", dest="start", metavar="NAME", help="of a run folder, start with this one (default: the last)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw (default: 0)")
    add_drawing(parser, limit=str(MAX_NEW_TOKENS))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Talk as `args` say; the exit code."""
    if args.seed < 0:
        raise ConfigError(f"--seed: expected a number of at least 0, got {args.seed}")

    from unipref.recipes.finished import find_models

    found = find_models(args.targets, seed=args.seed_folder)
    chat = _Chat(found, args)
    for stream in (sys.stdin, sys.stdout):
        if hasattr(stream, "reconfigure"):  # what a terminal cannot show is no reason to stop
            stream.reconfigure(errors="replace")
    chat.begin()
    return chat.loop()


class _Chat:
    """The state of the terminal's conversation: which model, what was said."""

    def __init__(self, found: Any, args: argparse.Namespace) -> None:
        from unipref.sampling import Conversation

        self.found, self.dtype = found, args.dtype
        settings = settings_of(args, found.sampling, MAX_NEW_TOKENS)
        settings.pop("dtype")
        self.talk = Conversation(seed=args.seed, **settings)
        _check(self.talk)
        self.names = {("before" if c.role == "before" and c.name == "reference" else c.name): c
                      for c in found.contenders}  # fmt: skip
        self.name = self._chosen(args.start) if args.start else list(self.names)[-1]
        self.written: set[Path] = set()
        self.terminal = sys.stdin.isatty()
        self.speaker: Any = None

    def begin(self) -> None:
        if self.terminal:
            with suppress(ImportError):  # it is not on Windows
                import readline  # noqa: F401 (`input` then edits lines and knows the earlier ones)
        self._load()
        talk = self.talk
        _say(f"Seed {talk.seed}, temperature {talk.temperature:g}, top-p {talk.top_p:g}, at most {talk.max_new_tokens} "
             "tokens an answer. /help lists commands.")  # fmt: skip

    def loop(self) -> int:
        """Turn after turn until the user leaves; the exit code."""
        while True:
            try:
                line = input("\n> " if self.terminal else "")
            except EOFError:
                print()
                return 0
            except KeyboardInterrupt:
                _say("\nCtrl-D or /quit leaves.")
                continue
            if not self.terminal and line.strip():
                print(f"\n> {line}")
            if line.strip() == "/quit":
                return 0
            try:
                self._turn(line)
            except UniprefError as err:
                _say(f"error: {err}")
            except KeyboardInterrupt:
                if self.speaker is None:  # while another model was loaded: there is nobody to go on with
                    raise
                _say("\n(stopped; the turn is not kept)")

    def _turn(self, line: str) -> None:
        if not line.strip():
            return
        if line.startswith("/") and not line.startswith("//"):
            word, _, rest = line[1:].strip().partition(" ")
            known = {command.split()[0]: command for command in COMMANDS}
            if word not in known:
                raise ConfigError(f"no command /{word}{nearest(word, known)}; // at the start says a slash")
            getattr(self, f"_{word}")(rest.strip())
            return
        text = line[1:] if line.startswith("//") else line
        self._answered(lambda **how: self.talk.say(text, self.speaker, **how))

    def _answered(self, draw: Callable[..., Any]) -> None:
        from unipref.sampling import printable

        def show(piece: str) -> None:
            sys.stdout.write(printable(piece))
            sys.stdout.flush()

        with _stopped_by_ctrl_c() as stop:
            sample = draw(show=show, stop=stop, forget=_forgotten)
        print(flush=True)
        if not sample.text.strip():
            _say("(the model ended its turn without a word)")
        elif stop():
            _say("(stopped)")
        elif not sample.stopped:
            _say(f"(cut off after {len(sample.ids)} tokens; --max-new-tokens allows more)")

    def _load(self) -> None:
        from unipref.recipes.finished import load_contender, n_positions
        from unipref.sampling import Speaker

        contender = self.names[self.name]
        self.speaker = None  # the earlier model makes room
        loaded = load_contender(contender, self.found.recipe, dtype=self.dtype)
        self.speaker = Speaker(loaded.model, loaded.tokenizer, n_positions(loaded.model))
        others = [name for name in self.names if name != self.name]
        known = f" /switch goes to: {', '.join(others)}." if others else ""
        _say(f"Talking to {self.name} ({contender.model}).{known}")
        if not self.speaker.in_turns:
            _say(
                "This model has no chat template: it was not made for conversations. Every input is continued as text, "
                "each alone, without what was said before."
            )
            if self.talk.system is not None:
                _say("The system message is not used.")

    def _chosen(self, name: str) -> str:
        if name == "after" and len(self.names) == 2:
            return list(self.names)[-1]
        if name not in self.names:
            raise ConfigError(f"no model here is called {name!r}{nearest(name, self.names)}")
        return name

    # ---- commands ----

    def _help(self, rest: str) -> None:
        for command, words in COMMANDS.items():
            _say(f"/{command:<14} {words}")

    def _reset(self, rest: str) -> None:
        self.talk.reset()
        _say("The conversation is empty.")

    def _retry(self, rest: str) -> None:
        self._answered(lambda **how: self.talk.retry(self.speaker, **how))

    def _undo(self, rest: str) -> None:
        _say(f"Taken back: {self.talk.undo()}")

    def _seed(self, rest: str) -> None:
        if not rest.isdecimal():
            raise ConfigError(f"/seed takes a whole number, such as /seed 1, not {rest!r}")
        self.talk.seed = int(rest)
        _say(f"Seed {self.talk.seed}.")

    def _temperature(self, rest: str) -> None:
        before = self.talk.temperature
        try:
            self.talk.temperature = float(rest)
            _check(self.talk)
        except ValueError:
            self.talk.temperature = before
            raise ConfigError(
                f"/temperature takes a number of at least 0, such as /temperature 0.7, not {rest!r}"
            ) from None
        _say(f"Temperature {self.talk.temperature:g}.")

    def _system(self, rest: str) -> None:
        if rest and not self.speaker.in_turns:
            raise ConfigError("this model has no chat template, so there is no place for a system message")
        self.talk.system = rest or None
        _say("The system message holds from the next turn on." if rest else "No system message.")

    def _switch(self, rest: str) -> None:
        before = self.name
        self.name = self._chosen(rest)
        try:
            self._load()
        except UniprefError:
            self.name = before
            self._load()
            raise

    def _save(self, rest: str) -> None:
        from unipref.core.io import to_json, write_text
        from unipref.core.records import as_turns

        if not rest:
            raise ConfigError("/save takes a file, such as /save chat.txt or /save chat.jsonl")
        path = Path(rest).expanduser()
        if path.exists() and path.resolve() not in self.written:
            raise ConfigError(f"{path} is there already, and not of this chat; give another name")
        talk = self.talk
        system = [] if talk.system is None else [{"role": "system", "content": talk.system}]
        turns = [*system, *as_turns(talk.turns)]
        if path.suffix in (".json", ".jsonl"):
            about = {"model": self.names[self.name].model, "seed": talk.seed, "temperature": talk.temperature}
            text = to_json({"messages": turns, **about}) + "\n"
        else:
            text = "".join(f"{turn['role'].capitalize()}: {turn['content']}\n\n" for turn in turns)
        try:
            write_text(path, text)
        except OSError as err:
            raise DataError(f"cannot write {path}: {err.strerror}") from err
        self.written.add(path.resolve())
        n = len(talk.turns)
        _say(f"{n} turn{'s' * (n != 1)} written to {path}.")


def _check(talk: Any) -> None:
    """Raise where a setting of the draw is out of range, before a model is loaded."""
    from unipref.sampling import check_settings

    check_settings(talk.max_new_tokens, talk.temperature, talk.top_p)


def _forgotten(n: int) -> None:
    _say(f"(the conversation is longer than the model holds: the {n} oldest turns are not seen any more)")


def _say(words: str) -> None:
    """Print what is not the model's."""
    from unipref.sampling import printable

    text = printable(words)
    print(f"\x1b[2m{text}\x1b[0m" if sys.stdout.isatty() else text, flush=True)


@contextmanager
def _stopped_by_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed inside the block, which it does not end; pressed twice, it does."""
    pressed = []

    def press(*_: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(True)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
