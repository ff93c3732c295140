"""A conversation with a model: turns in its chat template, cut to fit from the oldest one, never silently."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from unipref.core.errors import ConfigError
from unipref.core.records import Item, Message, Record, Text
from unipref.data import encode
from unipref.sampling._generate import Sample
from unipref.sampling._stream import stream

__all__ = ["Conversation", "Speaker"]


@dataclass(frozen=True)
class Speaker:
    """A model that answers.

    Attributes:
        positions: the most tokens that it holds, prompt and answer together; None for no limit.
    """

    model: Any
    tokenizer: Any
    positions: int | None = None

    @property
    def in_turns(self) -> bool:
        """Whether it has a chat template; without one every input is continued alone, as text."""
        return self.tokenizer.chat_template is not None


class Conversation:
    """What was said, and how the next answer is drawn.

    Attributes:
        turns: of the user and the assistant, in order, all of them; without the system message.
        system: the system message, None for none.
        forgotten: how many of the oldest turns the last answer was drawn without, because they did not fit.
    """

    def __init__(
        self,
        *,
        system: str | None = None,
        seed: int = 0,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int = 256,
    ) -> None:
        self.turns: list[Message] = []
        self.system = system
        self.seed, self.temperature, self.top_p, self.max_new_tokens = seed, temperature, top_p, max_new_tokens
        self.forgotten = 0
        self._again = 0

    def say(
        self,
        text: str,
        speaker: Speaker,
        *,
        show: Callable[[str], None],
        stop: Callable[[], bool] | None = None,
        forget: Callable[[int], None] | None = None,
    ) -> Sample:
        """The answer to `text`, shown while it is drawn; both are turns from then on.

        The same turns and seed give the same answer. An answer that was stopped stays as far as it came. Where this
        raises, nothing was said.

        Args:
            stop: as for `stream`.
            forget: told how many of the oldest turns do not fit any more, where that number has changed.

        Raises:
            ConfigError: the turn alone does not fit beside an answer.
            DataError: the chat template refuses the conversation.
        """
        self._again = 0
        return self._answer(text, speaker, show=show, stop=stop, forget=forget)

    def retry(self, speaker: Speaker, **how: Any) -> Sample:
        """Another answer in place of the last one, the next draw of the same seed; arguments as for `say`.

        Raises:
            ConfigError: nothing was said yet.
        """
        kept = list(self.turns)
        asked = self.undo()
        self._again += 1
        try:
            return self._answer(asked, speaker, **how)
        except BaseException:
            self.turns, self._again = kept, self._again - 1
            raise

    def undo(self) -> str:
        """Take the last exchange back; what the user had said.

        Raises:
            ConfigError: nothing was said yet.
        """
        if not self.turns:
            raise ConfigError("nothing was said yet")
        asked = self.turns[-2].content
        del self.turns[-2:]
        return asked

    def reset(self) -> None:
        """Forget all turns; the system message and the settings stay."""
        self.turns, self.forgotten, self._again = [], 0, 0

    def _answer(
        self,
        text: str,
        speaker: Speaker,
        *,
        show: Callable[[str], None],
        stop: Callable[[], bool] | None = None,
        forget: Callable[[int], None] | None = None,
    ) -> Sample:
        asked = Message("user", text)
        ids, left_out = self._context(asked, speaker)
        if forget is not None and left_out and left_out != self.forgotten:
            forget(left_out)
        self.forgotten = left_out
        sample = stream(
            speaker.model,
            speaker.tokenizer,
            ids,
            show=show,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            nth=self._again,
            stop=stop,
        )
        self.turns += [asked, Message("assistant", sample.text)]
        return sample

    def _context(self, asked: Message, speaker: Speaker) -> tuple[list[int], int]:
        """The tokens that the answer follows, and how many of the oldest turns are not among them."""
        room = None if speaker.positions is None else speaker.positions - self.max_new_tokens
        if room is not None and room < 1:
            raise ConfigError(
                f"{self.max_new_tokens} new tokens leave no room for a question in a model of {speaker.positions} "
                "positions; lower --max-new-tokens"
            )
        turns = self.turns if speaker.in_turns else []
        left_out = 0
        while True:
            ids = self._tokens(asked, turns[left_out:], speaker)
            if room is None or len(ids) <= room:
                return ids, left_out
            if left_out >= len(turns):
                raise ConfigError(
                    f"the text has {len(ids)} tokens, and {room} fit beside {self.max_new_tokens} new ones in a model "
                    f"of {speaker.positions} positions; shorten it, or lower --max-new-tokens"
                )
            left_out += 2  # an exchange: a conversation that begins with an answer is none

    def _tokens(self, asked: Message, before: list[Message], speaker: Speaker) -> list[int]:
        context: Text = asked.content
        if speaker.in_turns:
            system = () if self.system is None else (Message("system", self.system),)
            context = (*system, *before, asked)
        item = Item(context, "", response_ids=(speaker.tokenizer.eos_token_id,))  # rendered for generation
        return encode(Record("chat", (item,), source="chat"), speaker.tokenizer).ids(0)[0]
