import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from openai_server import Reply, serving

from unipref.core.errors import ConfigError, DataError, UniprefError
from unipref.features.judging import AnswerCache, Budget, Endpoint, EndpointError
from unipref.features.judging import _endpoint as endpoint_module

ASK = [{"role": "user", "content": "What is it?"}]


def asking(text):
    return [{"role": "user", "content": text}]


def endpoint(server, **options):
    return Endpoint(server.url, "m", **{"wait": 0.01, "timeout": 60.0, **options})


def test_a_question_is_sent_as_the_protocol_says_and_its_answer_comes_back_in_any_script():
    with serving(lambda body, n: "とても良い 🌸 — ok") as server:
        chat = endpoint(server, max_tokens=50, seed=3, body={"top_p": 0.5})
        assert chat.answer(asking("どう、")) == "とても良い 🌸 — ok"
    assert server.headers[0]["path"] == "/v1/chat/completions"
    assert server.bodies == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "どう、"}],
            "max_tokens": 50,
            "temperature": 0.0,
            "seed": 3,
            "top_p": 0.5,
        }
    ]
    assert "Authorization" not in server.headers[0]
    assert (chat.account.requests, chat.account.prompt_tokens, chat.account.completion_tokens) == (1, 7, 3)


@pytest.mark.parametrize(
    "fault",
    [
        Reply(status=429),
        Reply(status=500, raw=b"oh"),
        Reply(status=503),
        Reply(raw=b"<html>busy</html>"),
        Reply(raw=b'{"choices": []}'),
        Reply(raw=b"\xff\xfe"),
        Reply("cut", headers={"Content-Length": "4000"}),
    ],
    ids=["429", "500", "503", "html", "no choice", "no text", "cut off"],
)
def test_a_passing_fault_is_tried_again_and_the_answer_counts_once(fault):
    with serving(lambda body, n: fault if n <= 2 else "yes") as server:
        chat = endpoint(server)
        assert chat.answer(ASK) == "yes"
    assert len(server.bodies) == 3
    assert (chat.account.requests, chat.account.answered, dict(chat.account.missing)) == (3, 1, {})


def test_an_answer_that_is_late_is_asked_for_again():
    with serving(lambda body, n: Reply("late", wait=3.0) if n == 1 else "in time") as server:
        chat = endpoint(server, timeout=1.0)
        assert chat.answer(ASK) == "in time"
    assert (chat.account.requests, chat.account.answered) == (len(server.bodies), 1)
    assert len(server.bodies) >= 2


def test_waits_double_and_a_server_that_names_a_time_is_given_it():
    def answer(body, n):
        return Reply(status=429, headers={"Retry-After": "1.5"} if n == 3 else {}) if n <= 3 else "yes"

    with serving(answer) as server:
        assert endpoint(server, wait=0.1).answer(ASK) == "yes"
    gaps = [after - before for before, after in zip(server.times, server.times[1:], strict=False)]
    # 0.1, 0.2, then the 1.5 that it asked for (0.4 by itself), each times 0.75 to 1.25; a busy machine only adds
    assert gaps[0] >= 0.075
    assert gaps[1] >= 0.15
    assert gaps[2] >= 1.125


def test_an_answer_that_comes_drop_by_drop_ends_at_the_timeout():
    with serving(lambda body, n: Reply("slow" * 300, drip=0.05)) as server:
        chat = endpoint(server, timeout=0.5, tries=1)
        start = time.monotonic()
        assert chat.answer(ASK) is None
    assert time.monotonic() - start < 20  # the whole would take a minute
    assert dict(chat.account.missing) == {"timed out": 1}


def test_what_stays_without_an_answer_is_none_and_counted_by_its_reason():
    with serving(lambda body, n: Reply(status=500)) as server:
        chat = endpoint(server, tries=3)
        assert chat.answer(ASK) is None
    assert chat.account.requests == 3
    assert dict(chat.account.missing) == {"HTTP 500": 1}
    assert len(chat.cache) == 0


def test_a_question_that_the_server_cannot_take_is_not_sent_again():
    with serving(lambda body, n: Reply(status=400, raw=b'{"error": {"message": "too long"}}')) as server:
        assert endpoint(server).answer(ASK) is None
    assert len(server.bodies) == 1


@pytest.mark.parametrize(("status", "word"), [(401, "key_from"), (404, "/v1"), (402, "no credit"), (405, "405")])
def test_a_refusal_that_the_user_must_mend_ends_the_asking_with_the_servers_words(status, word):
    refusal = Reply(status=status, raw=b'{"error": {"message": "no credit"}}')
    with serving(lambda body, n: refusal) as server, pytest.raises(EndpointError, match=word) as caught:
        endpoint(server).answer(ASK)
    assert "no credit" in str(caught.value)
    assert isinstance(caught.value, UniprefError)
    assert len(server.bodies) == 1


def test_a_redirect_is_not_followed_with_the_key():
    with serving(lambda body, n: "stolen") as other:
        there = Reply(status=307, headers={"Location": f"{other.url}/chat/completions"})
        with serving(lambda body, n: there) as server, pytest.raises(EndpointError, match="give that address"):
            endpoint(server).answer(ASK)
    assert other.bodies == []


def test_nobody_there_is_said_at_once_and_kept_answers_still_serve(tmp_path):
    with serving(lambda body, n: "yes") as server:
        endpoint(server, cache=AnswerCache(tmp_path / "answers.jsonl")).answer(ASK)
    gone = endpoint(server, cache=AnswerCache(tmp_path / "answers.jsonl"))
    assert gone.answer(ASK) == "yes"
    with pytest.raises(EndpointError, match="is the server running"):
        gone.answer(asking("new"))


def test_many_questions_in_a_row_without_an_answer_end_the_asking_and_say_where_answers_are_kept(tmp_path):
    with serving(lambda body, n: "yes" if n == 1 else Reply(status=500)) as server:
        chat = endpoint(server, tries=1, cache=AnswerCache(tmp_path / "answers.jsonl"))
        chat.answer(ASK)
        with pytest.raises(EndpointError, match="8 questions in a row") as caught:
            [chat.answer(asking(str(i))) for i in range(20)]
    assert len(server.bodies) == 1 + endpoint_module.IN_A_ROW
    assert "1 answers are kept in" in str(caught.value)


def test_the_key_comes_from_the_environment_and_stands_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    cache = AnswerCache(tmp_path / "answers.jsonl")
    with serving(lambda body, n: "yes" if n == 1 else Reply(status=401, raw=b"bad key sk-secret")) as server:
        chat = endpoint(server, key_from="MY_KEY", cache=cache)
        chat.answer(ASK)
        with pytest.raises(EndpointError) as caught:
            chat.answer(asking("more"))
    assert server.headers[0]["Authorization"] == "Bearer sk-secret"
    told = [repr(chat), str(caught.value), str(chat.account.to_dict()), (tmp_path / "answers.jsonl").read_text()]
    assert not any("sk-secret" in text for text in told)


def test_a_key_that_is_not_there_is_named_before_anything_is_sent(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with serving(lambda body, n: "yes") as server, pytest.raises(ConfigError, match="MY_KEY"):
        endpoint(server, key_from="MY_KEY").answer(ASK)
    assert server.bodies == []


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"url": "localhost:8000"}, "http://localhost"),
        ({"url": "https://me:pass@host/v1"}, "key_from"),
        ({"url": "https://host/v1?api_key=pass@"}, "key_from"),
        ({"model": ""}, "which model"),
        ({"body": {"stream": True}}, "stream"),
        ({"tries": 0}, "tries"),
    ],
)
def test_options_that_cannot_be_are_named(options, word):
    with pytest.raises(ConfigError, match=word) as caught:
        Endpoint(**{"url": "http://localhost/v1", "model": "m", **options})
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize("ending", ["", "/", "/chat/completions", "/chat/completions/"])
def test_the_path_of_the_protocol_is_added_where_it_is_missing_and_a_query_stays(ending):
    with serving(lambda body, n: "yes") as server:
        Endpoint(f"{server.url}{ending}?api-version=2", "m").answer(ASK)
    assert server.headers[0]["path"] == "/v1/chat/completions?api-version=2"


def test_a_budget_below_nothing_is_refused():
    with pytest.raises(ConfigError, match="budget of requests"):
        Budget(requests=-1)


def test_an_answer_is_asked_for_once_whatever_the_process_and_never_served_to_another_question(tmp_path):
    path = tmp_path / "answers.jsonl"
    with serving(lambda body, n: f"answer {n}") as server:
        for _ in range(2):
            assert endpoint(server, cache=AnswerCache(path)).answer(ASK) == "answer 1"
        cache = AnswerCache(path)
        assert endpoint(server, cache=cache, temperature=1.0).answer(ASK) == "answer 2"
        assert endpoint(server, cache=cache, max_tokens=5).answer(ASK) == "answer 3"
        assert Endpoint(server.url, "other", cache=cache).answer(ASK) == "answer 4"
        assert endpoint(server, cache=cache).answer([*ASK, *ASK]) == "answer 5"
    assert len(path.read_text().splitlines()) == 5


def test_other_words_of_ours_make_other_keys(tmp_path, monkeypatch):
    with serving(lambda body, n: str(n)) as server:
        chat = endpoint(server)
        assert [chat.answer(ASK), chat.answer(ASK)] == ["1", "1"]
        monkeypatch.setattr(endpoint_module, "VERSION", "another")
        assert chat.answer(ASK) == "2"


def test_threads_with_one_question_share_one_request():
    with serving(lambda body, n: Reply("yes", wait=0.2)) as server:
        chat = endpoint(server)
        threads = [threading.Thread(target=chat.answer, args=(ASK,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(server.bodies) == 1
    assert (chat.account.requests, chat.account.cached) == (1, 5)


def test_a_budget_of_requests_is_never_passed_and_what_it_had_no_room_for_is_counted():
    with serving(lambda body, n: Reply(status=500) if n == 2 else "yes") as server:
        chat = endpoint(server, budget=Budget(requests=3))
        found = [chat.answer(asking(str(i))) for i in range(5)]
    assert found == ["yes", "yes", None, None, None]  # the retry was the third request
    assert len(server.bodies) == 3
    assert (chat.account.unasked, dict(chat.account.missing)) == (3, {})
    assert "3 not asked, the budget is spent" in str(chat.account)


def test_many_threads_do_not_pass_the_budget_together():
    with serving(lambda body, n: Reply("yes", wait=0.05)) as server:
        chat = endpoint(server, budget=Budget(requests=4))
        threads = [threading.Thread(target=chat.answer, args=(asking(str(i)),)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(server.bodies) == 4
    assert chat.account.unasked == 8


def test_a_budget_of_tokens_ends_the_asking_and_uncounted_tokens_are_guessed():
    with serving(lambda body, n: "yes") as server:
        chat = endpoint(server, budget=Budget(tokens=20))  # 10 tokens an answer
        found = [chat.answer(asking(str(i))) for i in range(4)]
    assert found == ["yes", "yes", None, None]
    with serving(lambda body, n: Reply("y" * 400, usage=None)) as server:
        chat = endpoint(server)
        chat.answer(ASK)
    assert chat.account.estimated_tokens == chat.account.tokens == (len(json.dumps(server.bodies[0])) + 400) // 4


def test_no_budget_at_all_replays_what_is_kept(tmp_path):
    path = tmp_path / "answers.jsonl"
    with serving(lambda body, n: "yes") as server:
        endpoint(server, cache=AnswerCache(path)).answer(ASK)
        offline = endpoint(server, cache=AnswerCache(path), budget=Budget(requests=0))
        assert [offline.answer(ASK), offline.answer(asking("new"))] == ["yes", None]
    assert len(server.bodies) == 1


def test_a_killed_run_loses_no_answer_that_came_and_the_next_asks_only_the_rest(tmp_path):
    path = tmp_path / "answers.jsonl"
    program = textwrap.dedent(
        """
        import sys
        from unipref.features.judging import AnswerCache, Endpoint
        chat = Endpoint(sys.argv[1], "m", cache=AnswerCache(sys.argv[2]))
        for i in range(1000):
            chat.answer([{"role": "user", "content": str(i)}])
        """
    )
    reached = threading.Event()

    def answer(body, n):
        if n == 4:
            reached.set()
            return Reply("late", wait=5.0)
        return f"answer {body['messages'][0]['content']}"

    with serving(answer) as server:
        process = subprocess.Popen([sys.executable, "-c", program, server.url, str(path)])
        assert reached.wait(60)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with serving(lambda body, n: "second run") as server:
        chat = endpoint(server, cache=AnswerCache(path))
        assert [chat.answer(asking(str(i))) for i in range(4)] == ["answer 0", "answer 1", "answer 2", "second run"]
    assert len(server.bodies) == 1


def test_a_line_that_was_cut_off_is_passed_over_and_the_next_answer_stands_on_its_own(tmp_path):
    path = tmp_path / "answers.jsonl"
    cache = AnswerCache(path)
    cache.put("a", "one")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:10])
    again = AnswerCache(path)
    assert again.get("a")["answer"] == "one"
    again.put("b", "two\nlines \u2028 and \ud800")
    last = AnswerCache(path)
    assert [last.get(key)["answer"] for key in "ab"] == ["one", "two\nlines \u2028 and \ud800"]
    assert last.damaged == 1


def test_what_another_process_adds_is_found_without_reading_the_file_anew(tmp_path):
    path = tmp_path / "answers.jsonl"
    here, there = AnswerCache(path), AnswerCache(path)
    assert here.get("a") is None
    there.put("a", "one")
    assert here.get("a")["answer"] == "one"


def test_processes_that_write_at_once_leave_whole_lines(tmp_path):
    path = tmp_path / "answers.jsonl"
    program = textwrap.dedent(
        """
        import sys
        from unipref.features.judging import AnswerCache
        cache = AnswerCache(sys.argv[1])
        for i in range(40):
            cache.put(f"{sys.argv[2]}-{i}", "x" * 20_000)
        """
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, str(path), str(k)]) for k in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    cache = AnswerCache(path)
    assert (len(cache), cache.damaged) == (80, 0)


def test_a_file_of_something_else_is_not_added_to(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    with pytest.raises(DataError, match="name another file"):
        AnswerCache(path)
    assert len(path.read_text().splitlines()) == 2
