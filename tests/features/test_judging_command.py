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


def hinted(body, n):
    """A judge who takes the response ahead in the words that a hint names; without one, what it reads first."""
    question = body["messages"][0]["content"]
    sides = [tagged(question, f"response_{side}").split() for side in "AB"]
    named = re.findall(r"(more|less) of this: the response has “(\w+)”", question)
    gap = sum((1 if sign == "more" else -1) * ((word in sides[0]) - (word in sides[1])) for sign, word in named)
    if not named:
        return "1: A"
    return "1: A" if gap > 0 else "1: B" if gap < 0 else "1: SAME"


@pytest.fixture
def two_who_judged(tmp_path, monkeypatch):
    """Call `unipref explain` on people, who want "zap", and a judge, who wants "om" and calls the rest a tie."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    rows = {"people": [], "judge": []}
    for i in range(300):
        zap, om = rng.integers(0, 2, (2, 2))
        texts = [
            " ".join(["zap" if zap[k] else "zip", "om" if om[k] else "am", str(rng.integers(10**6))]) for k in (0, 1)
        ]
        pair = {"id": f"r{i}", "instruction": f"Ask {i}.", "output_1": texts[0], "output_2": texts[1]}
        likes = (zap[0] - zap[1]) or rng.choice([-1, 1])
        rows["people"].append({**pair, "preference": 1 if likes > 0 else 2})
        rows["judge"].append({**pair, "preference": 1.5 - 0.5 * int(om[0] - om[1])})
    for name, each in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in each))

    def call(*words):
        small = ["--n-grams", "10", "--resamples", "5", "--quiet", "--output", "out"]
        code = main(["explain", "people/=people.jsonl", "judge/=judge.jsonl", *words, *small])
        path = tmp_path / "out" / "explanation.json"
        return code, json.loads(path.read_text()) if path.exists() else None

    return call


def test_hints_of_what_people_look_at_break_a_judges_ties_as_people_did_and_a_second_call_pays_nothing(two_who_judged):
    with serving(hinted) as server:
        words = ("--endpoint", server.url, "--judge-model", "m", "--break-ties", "30")
        code, told = two_who_judged(*words)
        n = len(server.bodies)
        again = two_who_judged(*words)[1]
        assert len(server.bodies) == n
    assert code == 0
    live = told["applications"]["tie_break_live"]
    assert live["reference"] == "people"
    [(name, found)] = live["mechanisms"].items()
    assert (name, found["model"], found["n"], found["missing"]) == ("judge", "m", 30, 0)
    # a pair is asked plainly and with four hints, each in both orders; two choices of the same words are one question
    assert n == found["asked"]["requests"] == len({json.dumps(body) for body in server.bodies}) <= 10 * 30
    assert found["plain"] == pytest.approx([0.5, 0.5, 0.5], abs=0.06)  # it took whatever it read first: ties
    assert found["asked"]["inconsistent"] >= 30
    assert found["concepts"]["reference"] == [["says:zap", 1]]
    assert found["reference"][0] > 0.6 > found["own"][0]
    kept = again["applications"]["tie_break_live"]["mechanisms"]["judge"]
    assert (kept["asked"]["requests"], kept["reference"]) == (0, found["reference"])
    assert told["command"].endswith("--judge-model m --break-ties 30")


def test_a_budget_of_tokens_ends_the_questions_and_what_is_left_is_missing_until_the_next_call(two_who_judged):
    with serving(hinted) as server:
        words = ("--endpoint", server.url, "--judge-model", "m", "--break-ties", "30")
        code, told = two_who_judged(*words, "--budget-tokens", "400")
        asked = told["applications"]["tie_break_live"]["mechanisms"]["judge"]
        # an answer is 7 + 3 tokens; those under way when the last comes are one for each of eight workers at most
        assert code == 0
        assert 400 <= told["judge"]["all_questions"]["tokens"] < 400 + 8 * 10
        assert asked["asked"]["unasked"] > 0
        assert asked["missing"] > 0
        assert told["command"].endswith("--budget-tokens 400 --break-ties 30")
        again = two_who_judged(*words)[1]["applications"]["tie_break_live"]["mechanisms"]["judge"]
        assert again["missing"] == 0
        assert again["asked"]["cached"] > 0


def test_who_is_asked_again_must_be_told_where_it_is_not_clear_before_anything_is_paid_for(two_who_judged, capsys):
    with serving(hinted) as server:
        words = ("--endpoint", server.url, "--judge-model", "m", "--break-ties", "30")
        assert two_who_judged("other/=judge.jsonl", *words) == (2, None)
        assert "which of judge, other did m judge as? Name it with --judged-as" in capsys.readouterr().err
        assert two_who_judged("other/=judge.jsonl", *words, "--judged-as", "jugde") == (2, None)
        assert "no mechanism beside the main one has this name (did you mean 'judge'?)" in capsys.readouterr().err
        assert main(["explain", "people.jsonl", *words]) == 2
        assert "all verdicts are of one mechanism" in capsys.readouterr().err
        assert server.bodies == []
    assert two_who_judged("--break-ties", "3")[0] == 2
    assert "--break-ties is for a judge, and there is none" in capsys.readouterr().err
    assert two_who_judged(*words, "--break-ties", "0", "--judged-as", "judge")[0] == 2
    assert "--judged-as says whose ties --break-ties is about" in capsys.readouterr().err


def test_how_often_verdicts_on_concepts_change_with_the_order_is_said_with_its_interval(asked):
    def first(body, n):  # a judge who takes whatever it reads first for Calm, and counts for Energy
        given = answer(body, n)
        return given if "YES" in given else re.sub("^2: .*$", "2: A", given, flags=re.MULTILINE)

    with serving(first) as server:
        words = ("--concepts", "mine.yaml", "--endpoint", server.url, "--judge-model", "m")
        told = asked(*words)[1]["judge"]
        scored = asked(*words, "--scores", folder="scored")[1]["judge"]
    # every prompt has a verdict on each of the two, and that on Calm alone changes
    assert (told["comparisons"], told["inconsistent"], told["changed"][0]) == (320, 160, 0.5)
    # all prompts are alike, so that the interval says what 160 of them prove: 1 - 0.05^(1/160) of the way to 0 and to 1
    assert told["changed"][1:] == pytest.approx([0.5 * 0.05 ** (1 / 160), 1 - 0.5 * 0.05 ** (1 / 160)])
    assert (scored["comparisons"], scored["changed"]) == (0, [None, None, None])
