"""`unipref explain` with a judge behind a real endpoint, from the command to the numbers of the explanation."""

import json
import re

import numpy as np
import pytest
from openai_server import Reply, serving

from unipref.cli import main

SET = """
concepts:
  - {key: energy, name: Energy, high: the response is lively, low: the response is dull}
  - {key: calm, name: Calm, high: the response is calm, low: the response is not}
"""


def tagged(text, name):
    return re.search(rf"<{name}>\n(.*?)\n</{name}>", text, re.DOTALL)[1]


def counted(text, name):
    return text.split().count({"Energy": "zap", "Calm": "om"}.get(name, "nothing"))


def answer(body, n):
    """A judge who counts "zap" for Energy and "om" for Calm; nothing else tells responses apart."""
    question = body["messages"][0]["content"]
    names = re.findall(r"^\d+\. (.*?) \(high", question, re.MULTILINE)
    if "YES or NO" in question:
        values = ["YES"] * len(names)
    elif "response_A" in question:
        sides = (tagged(question, "response_A"), tagged(question, "response_B"))
        gaps = [counted(sides[0], name) - counted(sides[1], name) for name in names]
        values = ["A" if gap > 0 else "B" if gap < 0 else "SAME" for gap in gaps]
    else:
        values = [str(min(7, 1 + counted(tagged(question, "response"), name))) for name in names]
    return "\n".join(f"{i}: {value}" for i, value in enumerate(values, start=1))


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Call `unipref explain` on 160 pairs in which the livelier response wins four times in five."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(5)
    rows = []
    for i in range(160):
        dull, lively = (" ".join(["word", *["zap"] * k, *["om"] * rng.integers(0, 3)]) for k in (0, 1 + i % 3))
        chosen, rejected = (lively, dull) if rng.random() < 0.8 else (dull, lively)
        rows.append({"id": f"r{i}", "prompt": f"Ask {i}.", "chosen": chosen, "rejected": rejected})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.yaml").write_text(SET)

    def call(*words, folder="out"):
        small = ["--no-surface", "--n-grams", "0", "--resamples", "10", "--quiet", "--output", folder]
        code = main(["explain", "pairs.jsonl", *words, *small])
        path = tmp_path / folder / "explanation.json"
        return code, json.loads(path.read_text()) if path.exists() else None

    return call


def test_what_a_judge_sees_in_winners_gets_the_weight_and_no_question_is_paid_for_twice(asked):
    with serving(answer) as server:
        words = ("--concepts", "mine.yaml", "--endpoint", server.url, "--judge-model", "m")
        code, told = asked(*words)
        n = len(server.bodies)
        assert asked(*words)[0] == 0
        assert len(server.bodies) == n
    assert code == 0
    assert told["shared"]["energy"]["weight"] > 0
    assert told["shared"]["energy"]["low"] > 0
    assert abs(told["shared"].get("calm", {"weight": 0})["weight"]) < told["shared"]["energy"]["weight"]
    assert (told["judge"]["name"], told["judge"]["missing_values"], told["judge"]["inconsistent"]) == ("m", 0, 0)
    assert told["judge"]["requests"] == 160 + 2 * 160  # which concepts matter for a prompt, and a pair in both orders


def test_missing_judgements_are_said_and_the_next_call_asks_for_them(asked):
    with serving(answer) as server:
        words = ("--concepts", "mine.yaml", "--endpoint", server.url, "--judge-model", "m")
        code, told = asked(*words, "--budget", "400")
        assert code == 0
        assert told["judge"]["requests"] == len(server.bodies) == 400
        assert told["judge"]["unasked"] > 0
        assert told["judge"]["missing_values"] > 0
        assert any("gave no answer" in note for note in told["notes"])
        again = asked(*words)[1]["judge"]
    assert (again["missing_values"], again["requests"]) == (0, 480 - 400)


def test_a_published_set_is_scored_on_its_own_scale(asked):
    with serving(answer) as server:
        code, _ = asked("--concepts", "cpm-13", "--endpoint", server.url, "--judge-model", "m", "--scores")
    # nothing in these texts differs in them, so that nothing is left to explain with but length in characters
    assert code == 0
    scores = [body["messages"][0]["content"] for body in server.bodies]
    assert sum("from 1 (as low as can be) to 10 (as high as can be)" in question for question in scores) > 100
    assert not any("to 7 (" in question for question in scores)


def test_an_endpoint_that_refuses_ends_the_command_with_its_words_and_no_explanation(asked, capsys):
    refusal = Reply(status=401, raw=b'{"error": {"message": "who are you"}}')
    with serving(lambda body, n: refusal) as server:
        code, told = asked("--concepts", "mine.yaml", "--endpoint", server.url, "--judge-model", "m")
    assert (code, told) == (2, None)
    assert "who are you" in capsys.readouterr().err
