"""What can be counted in a response without a model: length, form, tone, and how it goes with its prompt.

Every feature is deterministic. Those that read English words are NaN where the response's letters are mostly not Latin;
nothing else assumes English or spaces between words: a letter of a script that writes without spaces is a token.
"""

import itertools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from unipref.features.readability import count_text, flesch_reading_ease

__all__ = ["SURFACE", "is_unspaced", "script_of", "surface", "tokens"]

RECIPE = 1  # version of everything here that decides a number

# name -> what a high value means
SURFACE = {
    "characters": "longer, in characters",
    "tokens": "longer, in words (letters where a script has no spaces)",
    "sentences": "more sentences",
    "sentence_length": "longer sentences, in tokens",
    "type_token_ratio": "less repetition of words: distinct tokens over tokens",
    "repeated_trigrams": "more repeated runs of three tokens, as a share of all",
    "bullets": "more lines with a bullet",
    "numbered": "more numbered lines",
    "headings": "more headings",
    "bold": "more bold spans",
    "code": "more blocks and spans of code",
    "tables": "more lines of tables",
    "links": "more links and citations",
    "digits": "more digits, as a share of the characters",
    "brackets": "more brackets: (, [, { and wide ones such as \u3010\u3011, \u300c\u300d, \u300a\u300b",
    "questions": "more question marks",
    "exclamations": "more exclamation marks",
    "emoji": "more emoji",
    "refusals": "more refusals and admissions of limits in the first person",
    "hedges": "more hedging words (maybe, might, it depends)",
    "politeness": "more politeness (please, thank, sorry, happy to)",
    "second_person": "addresses the reader more (you, your)",
    "imperatives": "more lines that begin with an instruction (try, use, make)",
    "steps": "more markers of order (first, then, finally)",
    "prompt_recall": "repeats more of the prompt's words: share of its distinct tokens",
    "prompt_precision": "says less besides the prompt's words: share of its own distinct tokens that the prompt has",
    "novel_tokens": "more tokens that the prompt does not have, as a share",
    "reading_ease": "easier to read (Flesch)",
    "long_words": "more words of seven letters and more, as a share",
    "other_script": "written in another script than the prompt (1) or the same (0)",
}
_ENGLISH = ("refusals", "hedges", "politeness", "second_person", "imperatives", "steps", "reading_ease", "long_words")

_UNSPACED = ("HAN", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_SENTENCE_END = re.compile(r"[.!?\u2026]+(?=\s|$)|[\u3002\uff01\uff1f]+|\n{2,}")
_LINES = {
    "bullets": re.compile(r"^[ \t]*[-*\u2022\u30fb][ \t]*\S", re.MULTILINE),
    "numbered": re.compile(r"^[ \t]*\(?\d{1,3}[.)][ \t]+", re.MULTILINE),
    "headings": re.compile(r"^[ \t]*#{1,6}[ \t]+\S|^\u3010[^\u3011\n]+\u3011[ \t]*$", re.MULTILINE),
    "tables": re.compile(r"^[ \t]*\|.*\|[ \t]*$", re.MULTILINE),
    "bold": re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__|<b>|<strong>"),
    "code": re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL),
    "links": re.compile(r"https?://\S+|www\.\S+|\[\d{1,3}\]|\([A-Z][A-Za-z]+(?: et al\.)?,? \d{4}\)"),
    "brackets": re.compile(r"[(\[{\uff08\uff3b\uff5b\uff1c\u3008\u300a\u300c\u300e\u3010\u3014\u3016\u226a]"),
    "questions": re.compile(r"[?\uff1f]"),
    "exclamations": re.compile(r"[!\uff01]"),
}
_WORDS = {
    "refusals": r"i(?:'m| am) sorry,? (?:but )?i|i (?:can(?:no|')t|can not|won't|will not|am unable to|am not able to)"
    r"|i(?:'m| am) (?:not (?:able|comfortable|sure|going)|unable|just an? (?:ai|language model))|as an ai\b"
    r"|i don't know",
    "hedges": r"maybe|perhaps|possibly|probably|might|could be|may be|seems?|appears? to|it depends|i think|i guess"
    r"|i believe|somewhat|sort of|kind of|likely|usually|generally|often",
    "politeness": r"please|thank(?:s| you)?|sorry|apologi[sz]e|welcome|happy to|glad to|kindly|of course|feel free",
    "second_person": r"you|your|yours|yourself|you're|you'll|you've|you'd",
    "steps": r"first|firstly|second|secondly|third|then|next|after that|finally|lastly|step \d+",
}
_COUNTED = {name: re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE) for name, pattern in _WORDS.items()}
_VERBS = (
    "add ask avoid be bring buy call check choose click consider cook cut do don't drink eat find follow get give go "
    "keep leave let look make mix move never open pick place put read remember remove run set start stay stop take "
    "talk tell think try turn use visit wait wash watch wear write"
)
_IMPERATIVE = re.compile(
    rf"^[ \t]*(?:[-*\u2022][ \t]*|\(?\d{{1,3}}[.)][ \t]+)?(?:{_VERBS.replace(' ', '|')})\b",
    re.IGNORECASE | re.MULTILINE,
)


def surface(responses: Sequence[str], prompts: Sequence[str]) -> np.ndarray:
    """(N, len(SURFACE)) float64, columns in the order of SURFACE.

    NaN where a feature has nothing to stand on: a share of an empty text or of an empty prompt, English words in
    another script. Counts of an empty text are 0.

    Example:
        >>> values = surface(["Try this:\\n- rest\\n- water!"], ["How do I rest?"])[0]
        >>> found = dict(zip(SURFACE, values.tolist(), strict=True))
        >>> found["bullets"], found["imperatives"], found["exclamations"], found["prompt_recall"]
        (2.0, 1.0, 1.0, 0.25)
    """
    rows = [_of(response, prompt) for response, prompt in zip(responses, prompts, strict=True)]
    return np.array([[row[name] for name in SURFACE] for row in rows], dtype=np.float64).reshape(-1, len(SURFACE))


def _of(text: str, prompt: str) -> dict[str, float]:
    found = tokens(text)
    n = len(found)
    own, asked, letters = set(found), set(tokens(prompt)), Counter(text)
    trigrams = Counter(zip(found, found[1:], found[2:], strict=False))
    sentences = len([part for part in _SENTENCE_END.split(text) if _WORD.search(part)])
    values = {name: float(len(pattern.findall(text))) for name, pattern in _LINES.items()}
    values |= {
        "characters": float(len(text)),
        "tokens": float(n),
        "sentences": float(sentences),
        "sentence_length": _share(n, sentences),
        "type_token_ratio": _share(len(own), n),
        "repeated_trigrams": _share(sum(trigrams.values()) - len(trigrams), sum(trigrams.values())),
        "digits": _share(sum(n for character, n in letters.items() if character.isdigit()), len(text)),
        "emoji": float(sum(n for character, n in letters.items() if _is_emoji(character))),
        "prompt_recall": _share(len(own & asked), len(asked)),
        "prompt_precision": _share(len(own & asked), len(own)),
        "novel_tokens": _share(sum(token not in asked for token in found), n) if asked else math.nan,
    }
    here, there = script_of(text), script_of(prompt)
    values["other_script"] = math.nan if not here or not there else float(here != there)
    if here and here != "LATIN":
        return values | dict.fromkeys(_ENGLISH, math.nan)
    counts = count_text(text)
    plain = text.replace("\u2019", "'")
    values |= {name: float(len(pattern.findall(plain))) for name, pattern in _COUNTED.items()}
    values["imperatives"] = float(len(_IMPERATIVE.findall(plain)))
    values["reading_ease"] = flesch_reading_ease(counts) if counts.words else math.nan
    values["long_words"] = _share(sum(len(token) >= 7 for token in found), n)
    return values


def tokens(text: str) -> list[str]:
    """The tokens of `text` in order, in lower case: words, and single letters of scripts that write without spaces.

    Example:
        >>> tokens("Don't panic, 東京タワー!")
        ["don't", 'panic', '東', '京', 'タ', 'ワ', 'ー']
    """
    found: list[str] = []
    for word in _WORD.findall(unicodedata.normalize("NFKC", text)):
        if word.isascii():  # most words of most data
            found.append(word.casefold())
            continue
        for unspaced, run in itertools.groupby(word, key=is_unspaced):
            letters = "".join(run)
            found += list(letters) if unspaced else [letters.casefold()]
    return found


def script_of(text: str) -> str:
    """The script of most letters of `text`, by the first word of their Unicode names ("LATIN", "CYRILLIC"); "" without.

    Chinese characters and both kana are one, "CJK".
    """
    counts = Counter[str]()
    for character, n in Counter(text).items():
        if character.isalpha():
            counts[_script(character)] += n
    return counts.most_common(1)[0][0] if counts else ""


@lru_cache(maxsize=1 << 14)
def _script(character: str) -> str:
    name = unicodedata.name(character, "").replace("FULLWIDTH ", "").replace("HALFWIDTH ", "")
    first = name.split(" ")[0].split("-")[0]
    return "CJK" if first in ("CJK", "HIRAGANA", "KATAKANA") else first


@lru_cache(maxsize=1 << 14)
def is_unspaced(character: str) -> bool:
    """Whether the letter is of a script that writes without spaces between words."""
    name = unicodedata.name(character, "")
    return name.startswith(("CJK", *_UNSPACED))


def _is_emoji(character: str) -> bool:
    code = ord(character)
    return 0x1F300 <= code <= 0x1FAFF or 0x2600 <= code <= 0x27BF


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
