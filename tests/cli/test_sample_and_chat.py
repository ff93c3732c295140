"""`unipref sample` and `unipref chat`: what they print, write and refuse; the chat as a user types it."""

import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from unipref.cli import main
from unipref.core.io import write_text
from unipref.engine import load_tokenizer
from unipref.recipes import load_recipe
from unipref.sampling import Conversation, Speaker, generate

POSITIONS = 4096


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("bundled")


@pytest.fixture(scope="module")
def babbler(tmp_path_factory, tokenizer):
    """A random model with the bundled tokenizer, which hardly ever ends an answer."""
    folder = tmp_path_factory.mktemp("babbler")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=POSITIONS, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(babbler, tmp_path_factory):
    """A run folder with two runs whose models are the one that they started from."""
    place = tmp_path_factory.mktemp("runs") / "mine"
    recipe = load_recipe({
        "name": "mine", "model": str(babbler), "data": {"train": "bundled:hh-harmless", "eval_limit": 4},
        "objectives": {"detail": {"scorer": "length", "options": {"cap": 60}}},
        "runs": {"dpo": [{"method": "dpo"}], "simpo": [{"method": "simpo"}]},
        "sampling": {"max_new_tokens": 6},
    })  # fmt: skip
    write_text(place / "recipe.yaml", yaml.safe_dump(recipe.resolved()))
    for run in ("dpo", "simpo"):
        (place / run / run).mkdir(parents=True)
        (place / run / run / "model").symlink_to(babbler)
    return place


# ---- sample ----


def test_json_is_a_row_a_line_and_nothing_else(folder, capsys):
    assert main(["sample", str(folder), "--runs", "dpo", "--prompts", "Hello", "--seed", "0", "1", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["seed"], row["model"]) for row in rows] == [(s, m) for s in (0, 1) for m in ("reference", "dpo")]
    assert {row["prompt"] for row in rows} == {"User: Hello"}
    assert rows[0]["text"] == rows[1]["text"]  # the same weights and random numbers
    assert rows[0]["text"] != rows[2]["text"]
    assert set(rows[0]["aux"]) == {"detail", "reward"}
    assert max(row["n_tokens"] for row in rows) == 6  # the recipe's limit


def test_without_prompts_held_out_ones_of_the_recipe_are_answered_and_shown_with_means(folder, capsys):
    assert main(["sample", str(folder), "--n", "2", "--max-new-tokens", "3"]) == 0
    out = capsys.readouterr().out
    assert out.count("== ") == 3
    assert out.count("\nbefore:\n") == out.count("\nsimpo:\n") == 2
    assert "2 prompts, 3 models; seed 0, temperature 1, top-p 1, at most 3 tokens" in out
    assert "log-ratio +0.00" in out


def test_stream_writes_each_text_once_and_then_its_scores(folder, capsys):
    words = ["sample", str(folder), "--runs", "dpo", "--prompts", "Hello", "--seed", "4"]
    assert main([*words, "--json"]) == 0
    text = json.loads(capsys.readouterr().out.splitlines()[0])["text"]
    assert main([*words, "--stream"]) == 0
    out = capsys.readouterr().out
    assert out.count(text) == 2  # before and after
    assert out.index("User: Hello" if "User: Hello" in out else "Hello") < out.index(text)


def test_page_writes_into_the_run_folder(folder, capsys):
    assert main(["sample", str(folder), "--n", "2", "--page"]) == 0
    assert f"page: {folder / 'samples.html'}" in capsys.readouterr().out
    saved = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    assert len(saved["rows"]) == 2 * 3
    assert saved["settings"]["max_new_tokens"] == 6
    assert {model["name"] for model in saved["models"]} == {"reference", "dpo", "simpo"}
    html = (folder / "samples.html").read_text(encoding="utf-8")
    assert html.count("<article") == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["bundled"], "no prompts: a model alone has no held-out ones; give --prompts"),
        (["bundled", "--prompts", "a", "--page"], "--page writes into a run folder, and none is named"),
        (["bundled", "--prompts", "a", "--n", "0"], "--n: at least 1 prompt is needed, got 0"),
        (["bundled", "--prompts", "a", "--seed", "1", "1"], "--seed: expected different numbers of at least 0"),
        (["bundled", "--prompts", "a", "--temperature", "-1"], "temperature must be at least 0"),
        (["quickstart"], "train it with: unipref align quickstart"),
    ],
)
def test_what_cannot_be_drawn_is_told_with_the_next_step(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sample", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err


# ---- a conversation ----


@pytest.fixture(scope="module")
def speaker(babbler, tokenizer):
    return Speaker(LlamaForCausalLM.from_pretrained(babbler).eval(), tokenizer, POSITIONS)


def said(talk, text, speaker, **how):
    return talk.say(text, speaker, show=lambda piece: None, **how)


def test_an_answer_is_what_generate_draws_after_the_whole_conversation_in_the_chat_template(speaker, tokenizer):
    talk = Conversation(system="Be kind.", seed=3, max_new_tokens=8)
    said(talk, "Hello", speaker)
    answer = said(talk, "And then?", speaker)
    turns = [{"role": "system", "content": "Be kind."}]
    turns += [{"role": turn.role, "content": turn.content} for turn in talk.turns[:-1]]
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert generate(speaker.model, tokenizer, [ids], max_new_tokens=8, seed=3) == [answer]


def test_retry_draws_the_next_of_the_same_seed_and_undo_takes_the_exchange_back(speaker, tokenizer):
    talk = Conversation(max_new_tokens=8)
    first = said(talk, "Hello", speaker)
    second = talk.retry(speaker, show=lambda piece: None)
    third = talk.retry(speaker, show=lambda piece: None)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], add_generation_prompt=True,
                                        return_dict=False)  # fmt: skip
    drawn = generate(speaker.model, tokenizer, [ids] * 3, max_new_tokens=8, batch_tokens=1)
    assert drawn == [first, second, third]
    assert [turn.content for turn in talk.turns] == ["Hello", third.text]
    assert talk.undo() == "Hello"
    assert talk.turns == []
    assert said(talk, "Hello", speaker) == first  # a new question begins with the first draw


def test_a_long_conversation_loses_its_oldest_exchanges_and_says_how_many(speaker, tokenizer):
    few = Speaker(speaker.model, tokenizer, 60)
    talk, told = Conversation(system="Be kind.", max_new_tokens=10), []
    for i in range(6):
        said(talk, f"Question {i}", few, forget=told.append)
    assert len(talk.turns) == 12  # all are kept
    assert told == sorted(set(told))  # each change once
    assert told
    assert set(n % 2 for n in told) == {0}
    last = talk.turns[-1].content
    # by hand: the system message, what was not left out, the question
    turns = [{"role": "system", "content": "Be kind."}]
    turns += [{"role": turn.role, "content": turn.content} for turn in talk.turns[told[-1] : -1]]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert len(ids) + 10 <= 60
    assert generate(speaker.model, tokenizer, [ids], max_new_tokens=10)[0].text == last
    with_more = [turns[0], *({"role": t.role, "content": t.content} for t in talk.turns[told[-1] - 2 : -1])]
    assert len(tokenizer.apply_chat_template(with_more, add_generation_prompt=True, return_dict=False)) + 10 > 60


def test_a_question_that_does_not_fit_alone_is_refused_and_the_conversation_stays(speaker, tokenizer):
    few = Speaker(speaker.model, tokenizer, 60)
    talk = Conversation(max_new_tokens=10)
    said(talk, "Hello", few)
    before = list(talk.turns)
    with pytest.raises(ValueError, match=r"the text has \d+ tokens, and 50 fit beside 10 new ones"):
        said(talk, "word " * 60, few)
    assert talk.turns == before


# ---- the chat in the terminal ----


def typed(monkeypatch, capsys, *lines, words):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("".join(f"{line}\n" for line in lines).encode())))
    assert main(["chat", *words]) == 0
    return capsys.readouterr().out


def test_commands_change_what_they_say_and_a_wrong_one_ends_nothing(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = ["/undo", "/sed 3", "/temperature cold", "/temperature 0", "/seed 5", "Hello", "/retry", "//slash",
             "/save chat.txt", "/switch before", "/switch nobody", "/save chat.jsonl", "/save chat.jsonl", "/reset",
             "/save chat.txt", "/help", "/quit", "never said"]  # fmt: skip
    (tmp_path / "there.txt").write_text("mine")
    lines.insert(-2, "/save there.txt")
    out = typed(monkeypatch, capsys, *lines, words=[str(folder), "--max-new-tokens", "5", "--seed", "2"])
    assert out.startswith("Talking to simpo (")
    for told in (
        "error: nothing was said yet",
        "error: no command /sed (did you mean 'seed'?)",
        "error: /temperature takes a number of at least 0",
        "Temperature 0.",
        "Seed 5.",
        "4 turns written to chat.txt.",
        "Talking to before (",
        "error: no model here is called 'nobody'",
        "error: there.txt is there already, and not of this chat",
        "0 turns written to chat.txt.",
        "/retry ",
    ):
        assert told in out, told
    assert "never said" not in out
    row = json.loads((tmp_path / "chat.jsonl").read_text(encoding="utf-8"))
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"] * 2
    assert row["messages"][2]["content"] == "/slash"
    assert (tmp_path / "there.txt").read_text() == "mine"


def test_a_model_without_a_chat_template_goes_on_from_each_text_alone_and_says_so(
    babbler, tokenizer, tmp_path, monkeypatch, capsys
):
    plain = tmp_path / "plain"
    LlamaForCausalLM.from_pretrained(babbler).save_pretrained(plain)
    bare = load_tokenizer("bundled")
    bare.chat_template = None
    bare.save_pretrained(plain)
    out = typed(monkeypatch, capsys, "Once upon", "Once upon", "/system Be kind.",
                words=[str(plain), "--max-new-tokens", "6", "--system", "x"])  # fmt: skip
    assert "This model has no chat template: it was not made for conversations." in out
    assert "The system message is not used." in out
    assert "error: this model has no chat template, so there is no place for a system message" in out
    ids = bare("Once upon")["input_ids"]
    model = LlamaForCausalLM.from_pretrained(plain).eval()
    (sample,) = generate(model, bare, [ids], max_new_tokens=6)
    assert out.count(sample.text) == 2  # what was said before is not seen


def test_an_answer_that_is_broken_off_by_force_leaves_the_conversation_as_it_was(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    drawn = []

    def stream(*args, **how):
        drawn.append(args)
        if len(drawn) != 1:
            raise KeyboardInterrupt
        return real(*args, **how)

    import unipref.sampling._conversation as module

    real = module.stream
    monkeypatch.setattr(module, "stream", stream)
    out = typed(monkeypatch, capsys, "Hello", "/retry", "And then?", "/save chat.jsonl",
                words=[str(folder), "--max-new-tokens", "5"])  # fmt: skip
    assert out.count("(stopped; the turn is not kept)") == 2
    assert "2 turns written" in out
    messages = json.loads((tmp_path / "chat.jsonl").read_text(encoding="utf-8"))["messages"]
    assert messages[0]["content"] == "Hello"
    assert messages[1]["content"] in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["bundled", "--seed", "-1"], "--seed: expected a number of at least 0"),
        (["bundled", "--run", "dpo"], "no model here is called 'dpo'"),
        (["bundled", "--top-p", "0"], "top_p must be in (0, 1]"),
    ],
)
def test_a_chat_that_cannot_begin_is_told_before_a_model_is_loaded(words, told, capsys):
    assert main(["chat", *words]) == 2
    assert told in capsys.readouterr().err


def unipref(*words):
    return [sys.executable, "-m", "unipref", *words]


def test_a_piped_chat_answers_every_line_with_the_bundled_model():
    lines = "Hello!\n\n/seed 1\nこんにちは\n"
    words = unipref("chat", "bundled", "--max-new-tokens", "12")
    done = subprocess.run(words, input=lines.encode(), capture_output=True, timeout=120, check=False)
    assert done.stderr == b""
    assert done.returncode == 0
    out = done.stdout.decode()
    assert "\x1b" not in out
    answers = re.split(r"^> .*\n", out, flags=re.MULTILINE)
    assert len(answers) == 4  # what is said at the start, and three lines
    assert re.findall("^> (.*)$", out, flags=re.MULTILINE) == ["Hello!", "/seed 1", "こんにちは"]
    tokenizer = load_tokenizer("bundled")
    from unipref.engine import load_model

    talk = Conversation(max_new_tokens=12)
    speaker = Speaker(load_model("bundled", dtype="float32"), tokenizer, 1024)
    assert answers[1].startswith(said(talk, "Hello!", speaker).text)
    talk.seed = 1
    assert answers[3].startswith(said(talk, "こんにちは", speaker).text)


class Terminal:
    """A chat in a terminal of its own."""

    def __init__(self, *words):
        import pty

        self.here, there = pty.openpty()
        self.process = subprocess.Popen(
            unipref("chat", *words), stdin=there, stdout=there, stderr=there, close_fds=True, start_new_session=True,
            env={**os.environ, "TERM": "dumb"},
            # a shell's background job ignores Ctrl-C, and so would its children: a terminal's programs do not
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        os.close(there)
        self.seen, self.at = "", 0

    def until(self, words, timeout=120):
        """What came until `words` did, these included, from where the last such call ended."""
        start, end = self.at, time.monotonic() + timeout
        while words not in self.seen[start:]:
            ready, _, _ = select.select([self.here], [], [], max(0, end - time.monotonic()))
            assert ready, f"{words!r} did not come; seen: {self.seen[-500:]!r}"
            self.seen += os.read(self.here, 4096).decode("utf-8", "replace")
        self.at = self.seen.index(words, start) + len(words)
        return self.seen[start : self.at]

    def type(self, line):
        os.write(self.here, f"{line}\n".encode())

    def ctrl_c(self):
        self.process.send_signal(signal.SIGINT)

    def ctrl_c_until(self, words):
        """Press as a person does: again, where nothing happens. CPython's `input` shows its prompt a moment before it
        listens, and a signal in between is seen only with the next key."""
        for _ in range(5):
            self.ctrl_c()
            if select.select([self.here], [], [], 5)[0]:
                break
        return self.until(words)

    def leave(self):
        self.type("/quit")
        assert self.process.wait(timeout=60) == 0
        os.close(self.here)


def test_in_a_terminal_answers_stream_and_ctrl_c_stops_one_and_keeps_the_chat(babbler, tmp_path):
    chat = Terminal(str(babbler), "--max-new-tokens", str(POSITIONS - 300))
    chat.until("> ")
    chat.type("Hello")
    chat.until("Hello")
    assert "stopped" not in chat.until(" ")  # pieces come while thousands of tokens are still to be drawn
    chat.ctrl_c()
    chat.until("(stopped)")
    chat.until("> ")
    chat.ctrl_c_until("Ctrl-D or /quit leaves.")  # while nothing is drawn
    path = tmp_path / "chat.jsonl"
    chat.type(f"/save {path}")
    chat.until("2 turns written")
    chat.until("> ")
    chat.leave()
    messages = json.loads(path.read_text(encoding="utf-8"))["messages"]
    assert messages[0] == {"role": "user", "content": "Hello"}
    assert messages[1]["content"]
