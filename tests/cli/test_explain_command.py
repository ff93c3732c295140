import csv
import json
import math
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from unipref.cli import main
from unipref.core.io import write_json
from unipref.data import read_records
from unipref.recipes.explain import NamedFile, named_file

QUICK = ["--resamples", "2", "--n-grams", "4"]


WORDS = [f"{first}o{last}" for first in "bdfgk" for last in "lmnrst"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch, request):
    """In a folder of its own; the page, which tests of its own check, is written where a test asks for it."""
    monkeypatch.chdir(tmp_path)
    if "with_page" not in request.fixturenames:
        monkeypatch.setattr("unipref.recipes.explain.write_report", lambda folder: folder / "report.html")


@pytest.fixture
def with_page():
    """Asks for the page to be written."""


def rows(n: int = 120, *, seed: int = 0, word: str = "zap", domain: str | None = None) -> list[dict]:
    """Pairs in which who says `word` wins nine times in ten."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        texts = [" ".join(rng.choice(WORDS, 8)) for _ in range(2)]
        says = i % 2
        texts = [f"{text} {word if k == says else rng.choice(WORDS)}" for k, text in enumerate(texts)]  # of one length
        chosen = says if rng.random() < 0.9 else 1 - says
        row = {"id": f"p{i}", "prompt": f"Ask {i}.", "chosen": texts[chosen], "rejected": texts[1 - chosen]}
        found.append(row | ({} if domain is None else {"field": domain, "judge": f"j{i % 2}"}))
    return found


def written(name: str, data: list[dict]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in data), encoding="utf-8")
    return name


def told(folder: str) -> dict:
    return json.loads(Path(folder, "explanation.json").read_text(encoding="utf-8"))


def test_two_named_files_are_two_domains_and_what_both_reward_is_shared(capsys):
    one, other = written("a.jsonl", rows()), written("b.jsonl", rows(seed=1))
    assert main(["explain", f"law={one}", f"food={other}", *QUICK]) == 0
    out = capsys.readouterr().out
    found = told("runs/explain-law-and-food")
    assert list(found["domains"]) == ["food", "law"]
    assert next(iter(found["shared"])) == "says:zap"
    value = found["accuracy"]["heldout"][0]
    assert f"{100 * value:.1f} %" in out.splitlines()[1]  # whether to trust it stands before any concept
    assert "says “zap”" in out
    assert "runs/explain-law-and-food/report.html" in out
    assert Path("runs/explain-law-and-food/data.json").exists()
    assert found["data"][0]["rows"] == 120
    assert len(found["data"][0]["sha256"]) == 64


def test_the_command_that_is_kept_makes_the_same_explanation_again(capsys):
    file = written("a.jsonl", rows())
    assert main(["explain", file, *QUICK, "--seed", "3", "--heldout-share", "0.3", "--output", "x", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    first = told("x")
    assert first["command"] == f"unipref explain {file} --n-grams 4 --heldout-share 0.3 --resamples 2 --seed 3"
    assert main([*first["command"].split()[1:], "--output", "x", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert {k: v for k, v in again.items() if k != "created"} == {k: v for k, v in first.items() if k != "created"}


def test_columns_name_domains_and_judges_and_one_that_is_not_there_is_named_with_its_nearest(capsys):
    file = written("a.jsonl", rows(240, domain="law") + rows(240, seed=1, domain="food"))
    assert main(["explain", file, *QUICK, "--domain", "field", "--mechanism", "judge", "--quiet"]) == 0
    found = told("runs/explain-a")
    assert set(found["mechanisms"]) == {"j0", "j1"}
    assert set(found["domains"]) == {"law", "food"}
    assert main(["explain", file, "--domain", "fild"]) == 2
    assert (
        "--domain fild: no row of a.jsonl has a value in such a column (did you mean 'field'?)"
        in capsys.readouterr().err
    )
    assert main(["explain", file, "--mechanism", "jugde"]) == 2
    assert "did you mean 'judge'?" in capsys.readouterr().err


def test_files_without_names_are_a_domain_each_by_their_own():
    assert main(["explain", written("a.jsonl", rows()), written("b.jsonl", rows(seed=1)), *QUICK, "--quiet"]) == 0
    assert set(told("runs/explain-a-and-b")["domains"]) == {"a", "b"}


def test_one_file_judged_twice_is_two_mechanisms_over_the_same_pairs(capsys):
    data = rows(160)
    turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} if i % 5 == 0 else row
              for i, row in enumerate(data)]  # fmt: skip
    one, other = written("a.jsonl", data), written("b.jsonl", turned)
    assert main(["explain", f"people/={one}", f"judge/={other}", *QUICK]) == 0
    found = told("runs/explain-people-and-judge")
    assert found["main"] == "people"
    [pair] = found["between"]
    assert pair["same_pairs"] == 160
    assert pair["agreement"][0] == pytest.approx(0.8)
    assert "same verdict: 80.0" in capsys.readouterr().out


def test_a_name_before_a_file_says_domain_mechanism_or_both(tmp_path):
    assert named_file("x.jsonl") == NamedFile("x.jsonl")
    assert named_file("law=x.jsonl") == NamedFile("x.jsonl", domain="law")
    assert named_file("gpt/=x.jsonl") == NamedFile("x.jsonl", mechanism="gpt")
    assert named_file("gpt/law=x.jsonl") == NamedFile("x.jsonl", domain="law", mechanism="gpt")
    (tmp_path / "a=b.jsonl").write_text("{}")
    assert named_file("a=b.jsonl") == NamedFile("a=b.jsonl")


def test_a_users_own_concept_drives_where_it_decides_the_verdict(capsys):
    data, rng = rows(300), np.random.default_rng(0)
    file = written("a.jsonl", data)
    records, _ = read_records(file)
    with open("mine.csv", "w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(["id", "concept", "value", "name", "high"])
        for record in records:  # chosen minus rejected: nearly always more of it
            table.writerow([record.id, "care", round(1 + 0.8 * rng.normal(), 3), "care", "shows care"])
        table.writerow(["p999", "care", 1, "", ""])
    assert main(["explain", file, "--resamples", "20", "--n-grams", "4", "--concepts", "mine.csv"]) == 0
    out = capsys.readouterr().out
    found = told("runs/explain-a")
    assert next(iter(found["shared"])) == "care"
    assert found["shared"]["care"]["drives"]
    assert found["concepts"]["care"]["high"] == "shows care"
    assert found["tables"][0]["unknown"] == 1
    assert "1 ids are of no pair and were not used: p999" in out


def test_a_published_set_that_is_counted_needs_no_judge_and_one_that_is_not_says_so(capsys):
    file = written("a.jsonl", rows())
    assert main(["explain", file, *QUICK, "--concepts", "profile"]) == 0
    assert "concepts that a judge would score are left out, as there is none" in capsys.readouterr().out
    assert main(["explain", file, *QUICK, "--concepts", "profil"]) == 2
    assert "did you mean 'profile'?" in capsys.readouterr().err
    Path("mine.yaml").write_text(
        "name: mine\nconcepts:\n  - {key: warm, name: Warmth, high: the response is kind}\n", encoding="utf-8"
    )
    assert main(["explain", file, *QUICK, "--concepts", "mine.yaml"]) == 2
    assert "for a judge to score; give --endpoint" in capsys.readouterr().err
    assert main(["explain", file, *QUICK, "--discover", "3"]) == 2
    assert "--discover is for a judge, and there is none" in capsys.readouterr().err


def test_what_a_judge_does_not_say_is_missing_and_counted(capsys):
    file = written("a.jsonl", rows())
    Path("mine.yaml").write_text(
        "name: mine\nconcepts:\n  - {key: warm, name: Warmth, high: the response is kind}\n", encoding="utf-8"
    )
    words = ["explain", file, *QUICK, "--concepts", "mine.yaml", "--judge-model", "m", "--budget", "0"]
    assert main([*words, "--endpoint", "http://localhost:9/v1"]) == 0  # nobody is there, and nobody is asked
    found = told("runs/explain-a")
    assert found["judge"]["missing_values"] == 120
    assert found["judge"]["requests"] == 0
    assert "m gave no answer for 120 of 120 values (100%)" in capsys.readouterr().out


class Judging(BaseHTTPRequestHandler):
    """Says of two responses that the one with "zap" is warmer, and that warmth always matters."""

    def do_POST(self):
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        sides = re.findall(r"<response_[AB]>(.*?)</response_", text, re.DOTALL)
        answer = ("1: A" if "zap" in sides[0] else "1: B") if sides else "1: YES"
        usage = {"prompt_tokens": 3, "completion_tokens": 2}
        message = {"role": "assistant", "content": answer}
        body = json.dumps({"choices": [{"message": message}], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Quiet."""


@pytest.fixture
def endpoint():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judging)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_judge_is_asked_within_its_budget_and_never_twice_for_the_same(endpoint):
    file = written("a.jsonl", rows(60))
    Path("mine.yaml").write_text(
        "name: mine\nconcepts:\n  - {key: warm, name: Warmth, high: the response is kind}\n", encoding="utf-8"
    )
    words = ["explain", file, *QUICK, "--n-grams", "0", "--concepts", "mine.yaml", "--endpoint", endpoint]
    words += ["--judge-model", "m", "--quiet"]
    assert main([*words, "--budget", "100"]) == 0
    first = told("runs/explain-a")["judge"]
    assert first["requests"] == 100
    assert first["missing_values"] > 0
    assert main(words) == 0
    found = told("runs/explain-a")
    # a question of relevance for each of 60 prompts, and each pair in both orders
    assert found["judge"]["requests"] == 3 * 60 - 100
    assert found["judge"]["missing_values"] == 0
    assert next(iter(found["shared"])) == "warm"
    assert found["shared"]["warm"]["weight"] > 0.5


def test_a_scorers_preferences_are_explained_beside_the_datas(capsys):
    rng = np.random.default_rng(0)
    data = [
        {"prompt": f"Ask {i}.", "chosen": "a " * int(rng.integers(5, 60)), "rejected": "b " * int(rng.integers(5, 60))}
        for i in range(200)
    ]
    file = written("a.jsonl", data)
    assert main(["explain", file, *QUICK, "--scorer", "length:unit=characters", "--quiet"]) == 0
    found = told("runs/explain-a")["mechanisms"]["scorer:length"]
    assert next(iter(found["shared"])) in ("characters", "tokens")
    assert next(iter(found["shared"].values()))["weight"] > 1
    assert main(["explain", file, "--scorer", "lenght"]) == 2
    assert "did you mean 'length'?" in capsys.readouterr().err


def run_folder(n: int = 400) -> Path:
    """A run whose model prefers what says "bol"; the data's labels prefer "zap"."""
    folder, data = Path("runs/tuned"), rows(n)
    written("a.jsonl", data)
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(
        "name: tuned\nmodel: bundled\ndata: {train: a.jsonl}\nstages: [{method: dpo}]\n"
    )
    for run, sign in (("good", 1), ("bad", -1)):
        pairs = []
        for row in data:
            margin = sign * (("bol " in row["chosen"]) - ("bol " in row["rejected"]))
            pairs.append({"id": row["id"], "logp_chosen": -5.0 + 2 * margin, "ref_logp_chosen": -5.0,
                          "logp_rejected": -7.0, "ref_logp_rejected": -7.0})  # fmt: skip
        pairs.append({"id": "gone", "logp_chosen": -1.0, "ref_logp_chosen": -1.0, "logp_rejected": -1.0,
                      "ref_logp_rejected": -1.0})  # fmt: skip
        write_json(folder / run / "evaluation.json", {"seed": 0, "pairs": pairs, "generations": []})
    return folder


def test_an_aligned_models_implicit_rewards_are_a_mechanism_beside_the_labels(capsys):
    run_folder()
    assert main(["explain", "--run", "tuned", "--resamples", "2", "--n-grams", "20", "--quiet"]) == 0
    found = told("runs/explain-tuned")
    assert set(found["mechanisms"]) == {"all", "model:good", "model:bad"}
    assert found["main"] == "all"
    assert found["mechanisms"]["model:good"]["domains"]["all"]["says:bol"]["weight"] > 0
    assert found["mechanisms"]["model:bad"]["domains"]["all"]["says:bol"]["weight"] < 0
    assert any("log p - log p_ref" in note for note in found["notes"])
    assert any("1 pairs are left out: the data have no such pair any more" in note for note in found["notes"])
    pair = next(p for p in found["between"] if {p["a"], p["b"]} == {"model:good", "model:bad"})
    assert pair["same_pairs"] > 100
    assert pair["agreement"][0] == 0.0
    assert main(["explain", "--run", "runs/tuned/good", *QUICK, "--output", "only", "--quiet"]) == 0
    assert set(told("only")["mechanisms"]) == {"all", "model:good"}
    assert main(["explain", "--run", "tuned/godo"]) == 2
    assert main(["explain", "--run", "runs/tuned/godo"]) == 2
    assert "no evaluated run 'godo' (did you mean 'good'?)" in capsys.readouterr().err


def test_a_scorer_that_agrees_with_the_data_has_no_baseline_that_knows_which_side_was_chosen():
    rng = np.random.default_rng(0)
    data = []
    for i in range(240):
        long, short = ("a " * int(k) for k in (rng.integers(40, 60), rng.integers(5, 25)))
        data.append({"prompt": f"Ask {i}.", "chosen": long, "rejected": short})
    with open("mine.csv", "w", encoding="utf-8") as out:
        out.write("id,concept,value\n" + "".join(f"a.jsonl:{i + 1},mine,{1 + i % 2}\n" for i in range(240)))
    words = [written("a.jsonl", data), *QUICK, "--scorer", "length", "--concepts", "mine.csv", "--quiet"]
    assert main(["explain", *words]) == 0
    found = told("runs/explain-a")["mechanisms"]["scorer:length"]
    assert found["accuracy"]["baselines"]["majority"][0] < 0.65
    # the table is chosen minus rejected, and follows the responses: the scorer always takes what has more of "mine"
    assert found["concepts"]["mine"]["alone"]["share"][0] == 1.0


def test_a_folder_of_something_else_is_never_written_into(capsys):
    Path("mine").mkdir()
    Path("mine", "thesis.txt").write_text("all of it")
    assert main(["explain", written("a.jsonl", rows()), "--output", "mine"]) == 2
    assert "mine is not empty and not an explanation" in capsys.readouterr().err
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.txt"]


@pytest.mark.usefixtures("with_page")
def test_the_page_can_be_written_again_and_nothing_to_explain_is_said(capsys):
    assert main(["explain", written("a.jsonl", rows()), *QUICK, "--quiet"]) == 0
    page = Path("runs/explain-a/report.html")
    before = page.read_text(encoding="utf-8")
    page.unlink()
    assert main(["report", "explain-a"]) == 0
    assert page.read_text(encoding="utf-8") == before
    assert main(["explain"]) == 2
    assert "there is nothing to explain" in capsys.readouterr().err


def test_ratings_of_several_responses_are_compared_in_pairs(capsys):
    rng = np.random.default_rng(0)
    data = []
    for i in range(80):
        texts = ["a " * int(k) for k in rng.choice(np.arange(3, 40), 3, replace=False)]
        data.append({"prompt": f"Ask {i}.", "responses": texts, "scores": [math.log(len(text)) for text in texts]})
    assert main(["explain", written("a.jsonl", data), *QUICK, "--quiet"]) == 0
    found = told("runs/explain-a")["mechanisms"]["all"]
    assert found["n"]["pairs"] == 240
    assert found["accuracy"]["heldout"][0] == 1.0


def test_two_sources_of_one_concept_are_named_with_the_way_to_rename_one_and_renamed_both_are_weighed(capsys):
    file = written("a.jsonl", rows())
    for name, value in (("mine.csv", "{}"), ("yours.csv", "-{}")):
        lines = [f"p{i},care,{value.format(i % 3 + 1 if i % 2 else i % 5)}" for i in range(120)]
        Path(name).write_text("id,concept,value\n" + "\n".join(lines), encoding="utf-8")
    words = ["explain", file, *QUICK, "--quiet"]
    assert main([*words, "--concepts", "mine.csv", "--concepts", "yours.csv"]) == 2
    assert (
        "two concepts have the key 'care': one of mine.csv, one of yours.csv. Give a source a name, which is put "
        "before its keys, such as --concepts more=yours.csv" in capsys.readouterr().err
    )
    assert main([*words, "--concepts", "mine.csv", "--concepts", "more=yours.csv"]) == 0
    found = told("runs/explain-a")
    assert found["concepts"]["care"]["alike"] == ["more:care"]  # the same numbers turned round
    assert any("care for the opposite of care (more)" in note for note in found["notes"])
    assert "--concepts more=yours.csv" in found["command"]
    Path("clash.csv").write_text("id,concept,value\np1,tokens,1\n", encoding="utf-8")
    assert main([*words, "--concepts", "clash.csv"]) == 2
    assert "one of what is counted in all texts, one of clash.csv" in capsys.readouterr().err
    assert main([*words, "--concepts", "=mine.csv"]) == 2
    assert "expected TABLE, YAML, SET or NAME=one of these" in capsys.readouterr().err


def test_a_counted_set_under_another_name_is_counted_by_the_same_rules():
    rng = np.random.default_rng(0)
    data = []
    for i in range(120):
        chosen, rejected = ("a " * int(k) for k in rng.choice(np.arange(5, 60), 2, replace=False))
        data.append({"prompt": f"Ask {i}.", "chosen": chosen, "rejected": rejected})
    file = written("a.jsonl", data)
    Path("mine.yaml").write_text(
        "concepts:\n  - {key: characters, name: Length, high: longer, kind: rule}\n", encoding="utf-8"
    )
    words = ["explain", file, *QUICK, "--n-grams", "0", "--no-surface", "--quiet"]
    assert main([*words, "--concepts", "mine.yaml", "--output", "x"]) == 0
    assert main([*words, "--concepts", "my=mine.yaml", "--output", "y"]) == 0
    before, after = told("x")["concepts"]["characters"], told("y")["concepts"]["my:characters"]
    assert (after["name"], after["rule"]) == ("Length (my)", "characters")
    assert {**after, "name": "Length", "rule": ""} == before


def test_what_a_judge_said_is_read_from_the_column_that_is_named_or_from_rationales(capsys):
    data = [{**row, "why": f"<i>as {row['id']} says</i>"} if i % 2 else row for i, row in enumerate(rows())]
    one, other = written("a.jsonl", data), written("b.jsonl", rows(seed=1))
    words = ["explain", f"a={one}", f"b={other}", *QUICK, "--quiet"]
    assert main([*words, "--evidence", "why"]) == 0
    found = {(pair["domain"], pair["id"]): pair["evidence"] for pair in told("runs/explain-a-and-b")["pairs"]}
    assert any(found.values())
    for (domain, id_), said in found.items():
        assert said == (f"<i>as {id_} says</i>" if domain == "a" and int(id_[1:]) % 2 else "")
    assert main([*words, "--evidence", "wyh"]) == 2
    assert "--evidence wyh: no row of a.jsonl has a value in such a column" in capsys.readouterr().err
    rationales = written("c.jsonl", [{**row, "rationale": f"because of {row['id']}"} for row in rows()])
    assert main(["explain", rationales, *QUICK, "--quiet"]) == 0
    assert all(pair["evidence"] == f"because of {pair['id']}" for pair in told("runs/explain-c")["pairs"])


def test_an_explanation_is_cited_with_its_model_its_concepts_and_no_more(capsys):
    words = ["explain", written("a.jsonl", rows()), "--resamples", "2", "--quiet"]
    assert main([*words, "--concepts", "profile", "--scorer", "length"]) == 0
    found = told("runs/explain-a")["rests_on"]
    assert found == {
        "explanation": ["hmdr", "tau_influence", "chi2_association"],
        "concepts": ["surface-v1", "ngrams", "profile"],
        "scorer": ["length"],
    }
    cited = []
    for name in ("explain-a", "runs/explain-a", "runs/explain-a/explanation.json"):
        assert main(["cite", name]) == 0
        cited.append(capsys.readouterr().out)
    assert cited[0] == cited[1] == cited[2]
    assert set(re.findall(r"eprint = \{(.*?)\}", cited[0])) == {"2505.20088", "2410.06965", "2502.04674"}
    assert "Fightin' Words" in cited[0]
    assert main(["explain", "a.jsonl", *QUICK, "--n-grams", "0", "--quiet", "--output", "plain"]) == 0
    assert told("plain")["rests_on"]["concepts"] == ["surface-v1"]
    Path("plain/citations.bib").unlink()
    assert main(["cite", "plain"]) == 2
    assert "plain holds no citations.bib; make the explanation again" in capsys.readouterr().err


def test_the_share_of_verdicts_that_change_with_the_order_is_told_where_both_orders_were_asked(capsys):
    rng, data = np.random.default_rng(0), []
    for i in range(200):
        texts = [" ".join(rng.choice(WORDS, 8)) for _ in range(2)]
        for k, (a, b) in enumerate((texts, texts[::-1])):  # one pair in four is decided by its order
            first = True if i % 4 == 0 else (len(a), a) > (len(b), b)
            data.append({"id": f"{i}.{k}", "instruction": f"Ask {i}.", "output_1": a, "output_2": b,
                         "preference": 1 if first else 2})  # fmt: skip
    assert main(["explain", written("a.jsonl", data), *QUICK]) == 0
    order = told("runs/explain-a")["mechanisms"]["all"]["order"]
    assert (order["n"], order["changed"][0], order["first"], order["second"]) == (200, 0.25, 50, 0)
    assert order["changed"][1] < 0.25 < order["changed"][2]
    assert "verdicts that change with the order: 25.0 % of 200 pairs asked in both orders" in capsys.readouterr().out
