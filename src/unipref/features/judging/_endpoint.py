"""A language model behind an OpenAI-compatible endpoint: asked patiently, within a budget, and never twice.

The requests are made with the standard library: one POST of JSON is all there is to it, and a client library's own
retries would stand outside the budget and the account.
"""

import json
import math
import os
import random
import re
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any

from unipref.core.errors import ConfigError, UniprefError
from unipref.features.judging._account import Account
from unipref.features.judging._cache import AnswerCache, answer_key
from unipref.features.judging.wording import VERSION

__all__ = ["Budget", "Endpoint", "EndpointError", "Message"]

Message = Mapping[str, str]  # {"role": ..., "content": ...}

LONGEST_WAIT = 60.0  # seconds between two tries, whatever the server asks for
IN_A_ROW = 8  # questions without an answer one after another, and asking is given up
_PASSING = {408, 409, 425, 429}  # and every 5xx: worth another try
_OWN = ("model", "messages", "temperature", "max_tokens", "seed", "stream", "n")


class EndpointError(UniprefError, OSError):
    """The endpoint cannot be used as it is set up; answers that came before are kept."""


class _Stopped(Exception):
    """Asking was broken off elsewhere."""


@dataclass(frozen=True)
class Budget:
    """The most that may be spent; None: no bound.

    Attributes:
        requests: every retry counts; 0 answers from the cache alone.
        tokens: of prompts and answers together. Answers under way when it is reached still come.
    """

    requests: int | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("requests", "tokens"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise ConfigError(f"a budget of {name} is 0 or more, got {value}")


@dataclass(frozen=True, eq=False)
class Endpoint:
    """A chat model at an address, with its cache, budget and account.

    Attributes:
        url: the base address, such as "http://localhost:8000/v1"; "/chat/completions" is added where it is missing.
        model: as the server calls it.
        key_from: the name of the environment variable that holds the key; None: no key is sent. The key itself is read
            when a request is made, and stands in no file, message or repr.
        cache: where answers are kept; by default in memory.
        budget: of this object, over all its calls.
        temperature: None leaves it to the server, as some models demand.
        max_tokens: of an answer; length_field is what the server calls it ("max_completion_tokens" for some models).
        seed: sent where given. body: further fields of the request.
        timeout: seconds for an answer to be whole. tries: of one question. wait: seconds before the second try, twice
            as long before each further one, or as long as the server asks for.
        workers: how many requests may be under way.
    """

    url: str
    model: str
    key_from: str | None = None
    cache: AnswerCache = field(default_factory=AnswerCache)
    budget: Budget = Budget()
    temperature: float | None = 0.0
    max_tokens: int = 1024
    length_field: str = "max_tokens"
    seed: int | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    timeout: float = 120.0
    tries: int = 5
    wait: float = 1.0
    workers: int = 8
    account: Account = field(default_factory=Account, repr=False)
    stopping: threading.Event = field(default_factory=threading.Event, repr=False)
    _state: dict[str, Any] = field(init=False, repr=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"an endpoint is an address such as http://localhost:8000/v1, not {self.url!r}")
        named = [name.lower() for name, _ in urllib.parse.parse_qsl(parts.query)]
        if parts.username or parts.password or any(re.search("key|token|secret", name) for name in named):
            raise ConfigError(
                "the endpoint's address holds a name, password or key, which would be written into reports; put the "
                "key into an environment variable and name that (key_from)"
            )
        if not self.model:
            raise ConfigError("which model shall be asked? Give its name as the server knows it")
        for name, least in (("max_tokens", 1), ("tries", 1), ("workers", 1), ("timeout", 0.001), ("wait", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} of an endpoint is at least {least}, got {getattr(self, name)}")
        if own := sorted({*_OWN, self.length_field} & set(self.body)):
            raise ConfigError(f"{', '.join(own)} of a request is not set by `body`; n and stream cannot be chosen")
        object.__setattr__(self, "_state", {"under_way": {}, "failed_in_a_row": 0, "ever": False})

    @property
    def settings(self) -> dict[str, Any]:
        """What decides an answer besides the messages; part of the cache's keys."""
        settings: dict[str, Any] = {self.length_field: self.max_tokens, **self.body}
        if self.temperature is not None:
            settings["temperature"] = self.temperature
        if self.seed is not None:
            settings["seed"] = self.seed
        return settings

    def answer(self, messages: Sequence[Message]) -> str | None:
        """The model's answer to a conversation, as it is; None where there is none, and the account says why.

        The answer is in the cache before it is returned. Threads that ask the same at once share one request.

        Raises:
            EndpointError: the endpoint refuses the key or the model, nothing listens there, or too many questions in a
                row stayed without an answer.
        """
        question = {
            "model": self.model,
            "messages": [dict(message) for message in messages],
            "settings": self.settings,
            "wording": VERSION,
        }
        key = answer_key(question)
        with self._lock:
            shared: Future[str | None] | None = self._state["under_way"].get(key)
            if shared is None:
                mine: Future[str | None] = Future()
                self._state["under_way"][key] = mine
        if shared is not None:
            found = shared.result()
            self.account.add(cached=int(found is not None))
            return found
        try:
            kept = self.cache.get(key)
            if kept is not None:
                self.account.add(cached=1)
                found = kept["answer"]
            else:
                found = self._ask(key, {**self.settings, "model": self.model, "messages": question["messages"]})
            mine.set_result(found)
            return found
        except BaseException as err:
            mine.set_exception(err)
            raise
        finally:
            with self._lock:
                del self._state["under_way"][key]

    def _ask(self, key: str, body: Mapping[str, Any]) -> str | None:
        why, wait = "", self.wait
        for turn in range(self.tries):
            if turn:
                # apart from each other, so that many workers do not come back at once
                self.stopping.wait(wait * random.uniform(0.75, 1.25))
                wait = min(2 * wait, LONGEST_WAIT)
            if self.stopping.is_set():
                raise _Stopped
            if not self._may_spend():
                self.account.add(unasked=1)
                return None
            outcome = self._send(body)
            if isinstance(outcome, _Answer):
                estimate = 0 if outcome.counted else (len(json.dumps(body)) + len(outcome.text)) // 4
                self.account.add(
                    answered=1,
                    prompt_tokens=outcome.prompt_tokens,
                    completion_tokens=outcome.completion_tokens,
                    estimated_tokens=estimate,
                )
                self.cache.put(
                    key,
                    outcome.text,
                    model=self.model,
                    finish=outcome.finish,
                    tokens=[outcome.prompt_tokens, outcome.completion_tokens],
                )
                with self._lock:
                    self._state["failed_in_a_row"], self._state["ever"] = 0, True
                return outcome.text
            why = outcome.why
            if outcome.fatal or (outcome.nobody and not self._state["ever"]):
                raise EndpointError(f"{self.url}: {outcome.detail}{self._kept()}")
            if not outcome.passing:
                break
            wait = max(wait, outcome.wait)
        self.account.miss(why, example=outcome.detail)
        with self._lock:
            self._state["failed_in_a_row"] += 1
            given_up = self._state["failed_in_a_row"] >= IN_A_ROW
        if given_up:
            raise EndpointError(
                f"{self.url}: {IN_A_ROW} questions in a row had no answer, the last for: {outcome.detail}{self._kept()}"
            )
        return None

    def _kept(self) -> str:
        if self.cache.path is None:
            return ""
        return f". {len(self.cache):,} answers are kept in {self.cache.path}; run again to go on from there"

    def _may_spend(self) -> bool:
        """Whether one more request fits; it is counted."""
        with self._lock:  # two threads must not both take the last one
            if self.budget.requests is not None and self.account.requests >= self.budget.requests:
                return False
            if self.budget.tokens is not None and self.account.tokens >= self.budget.tokens:
                return False
            self.account.add(requests=1)
            return True

    def _send(self, body: Mapping[str, Any]) -> "_Answer | _Fault":
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "unipref"}
        secret = self._key()
        if secret:
            headers["Authorization"] = f"Bearer {secret}"
        request = urllib.request.Request(self._address(), json.dumps(body).encode("ascii"), headers)
        try:
            with _OPENER.open(request, timeout=self.timeout) as response:
                raw = _whole(response, self.timeout)
        except urllib.error.HTTPError as err:
            with err:
                return _refused(err, _said(err, secret))
        except TimeoutError:
            return _Fault("timed out", f"no whole answer within {self.timeout:g} s")
        except urllib.error.URLError as err:
            return _unreachable(err.reason, self.timeout)
        except (OSError, HTTPException) as err:
            return _Fault("connection broken", f"the connection broke: {err or type(err).__name__}")
        return _read(raw)

    def _address(self) -> str:
        parts = urllib.parse.urlsplit(self.url)
        path = parts.path.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        return urllib.parse.urlunsplit(parts._replace(path=path, fragment=""))

    def _key(self) -> str:
        if self.key_from is None:
            return ""
        key = os.environ.get(self.key_from, "").strip()
        if not key:
            raise ConfigError(
                f"the environment variable {self.key_from}, which is to hold the endpoint's key, is empty"
            )
        if not key.isascii() or not key.isprintable():
            raise ConfigError(f"the environment variable {self.key_from} holds what cannot be a key; set it again")
        return key


@dataclass(frozen=True)
class _Answer:
    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    counted: bool


@dataclass(frozen=True)
class _Fault:
    """Why there is no answer: a word for counting, a sentence for people, and what to do."""

    why: str
    detail: str
    passing: bool = True
    fatal: bool = False
    nobody: bool = False  # nothing listens there
    wait: float = 0.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would lose its body, and take the key to another server."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _whole(response: Any, timeout: float) -> bytes:
    """The body, or TimeoutError: the socket's own timeout would never end an answer that comes drop by drop."""
    end, parts = time.monotonic() + timeout, []
    while part := response.read1(1 << 16):
        parts.append(part)
        if time.monotonic() > end:
            raise TimeoutError
    if response.length:  # fewer bytes came than were announced
        raise HTTPException("the answer was cut off")
    return b"".join(parts)


def _said(err: urllib.error.HTTPError, secret: str) -> str:
    """What the server said about its refusal, in at most 300 characters and without the key."""
    try:
        text = err.read(1 << 14).decode("utf-8", "replace")
    except (OSError, HTTPException):
        return ""
    try:
        found = json.loads(text)
        inner = found.get("error", found) if isinstance(found, dict) else found
        text = inner.get("message", text) if isinstance(inner, dict) else str(inner)
    except (ValueError, AttributeError):
        pass
    text = " ".join(str(text).split())[:300]
    return text.replace(secret, "[key]") if secret else text


def _refused(err: urllib.error.HTTPError, said: str) -> _Fault:
    status, said = err.code, f": {said}" if said else ""
    why = f"HTTP {status}"
    if status in _PASSING or status >= 500:
        return _Fault(why, f"HTTP {status}{said}", wait=_asked_wait(err.headers.get("Retry-After")))
    advice = {
        401: "; name the environment variable that holds the key (key_from)",
        403: "; name the environment variable that holds the key (key_from)",
        404: "; check the address (it mostly ends in /v1) and the model's name",
    }
    if status in advice or status in (402, 405) or 300 <= status < 400:
        where = err.headers.get("Location", "") if 300 <= status < 400 else ""
        moved = f", it points to {where}; give that address" if where else ""
        return _Fault(why, f"HTTP {status}{said}{moved}{advice.get(status, '')}", passing=False, fatal=True)
    return _Fault(why, f"HTTP {status}{said}", passing=False)


def _asked_wait(given: str | None) -> float:
    """Seconds of a Retry-After header, which is a number or a date; 0 where it is neither."""
    if not given:
        return 0.0
    try:
        seconds = float(given)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(given).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT) if math.isfinite(seconds) else 0.0


def _unreachable(reason: Any, timeout: float) -> _Fault:
    if isinstance(reason, TimeoutError):
        return _Fault("timed out", f"no connection within {timeout:g} s")
    if isinstance(reason, ssl.SSLCertVerificationError):
        return _Fault("no trust", f"its certificate is not trusted: {reason.verify_message}", fatal=True)
    return _Fault("no connection", f"nothing answers there ({reason}); is the server running?", nobody=True)


def _read(raw: bytes) -> _Answer | _Fault:
    """The answer of a response that said 200."""
    try:
        found = json.loads(raw.decode("utf-8"))
        choice = found["choices"][0]
        text = choice["message"].get("content")
        usage = found.get("usage") or {}
        counts = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        start = raw[:120].decode("utf-8", "replace")
        return _Fault("not a chat answer", f"what came is no chat completion; it begins {start!r}")
    if not isinstance(text, str):  # a refusal, or thoughts that used up all tokens; readers say that it is empty
        text = ""
    return _Answer(text, str(choice.get("finish_reason") or ""), counts[0], counts[1], any(counts))
