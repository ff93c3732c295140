"""The concepts that `unipref explain` can weigh without being given any: each set with its card."""

from collections.abc import Callable
from functools import partial

from unipref.core.cards import UNIPREF, Citation, method
from unipref.features.concept_sets import ConceptSet, concept_set
from unipref.features.concepts import PairValues, discriminative_ngrams, surface_values

__all__ = ["AD_PARAPHRASE", "CPM", "DECIPHER", "DISSECT", "PROFILE"]

CPM = Citation(
    "Compositional preference models for aligning LMs",
    ("Dongyoung Go", "Tomasz Korbak", "Germán Kruszewski", "Jos Rozen", "Marc Dymetman"),
    2023,
    "2310.13011",
)
PROFILE = Citation(
    "Uncovering Factor Level Preferences to Improve Human-Model Alignment",
    ("Juhyun Oh", "Eunsu Kim", "Jiseon Kim", "Wenda Xu", "Inha Cha", "William Yang Wang", "Alice Oh"),
    2024,
    "2410.06965",
)
DISSECT = Citation(
    "Dissecting Human and LLM Preferences",
    ("Junlong Li", "Fan Zhou", "Shichao Sun", "Yikai Zhang", "Hai Zhao", "Pengfei Liu"),
    2024,
    "2402.11296",
)
DECIPHER = Citation(
    "DecipherPref: Analyzing Influential Factors in Human Preference Judgments via GPT-4",
    ("Yebowen Hu", "Kaiqiang Song", "Sangwoo Cho", "Xiaoyang Wang", "Hassan Foroosh", "Fei Liu"),
    2023,
    "2305.14702",
)
AD_PARAPHRASE = Citation(
    "AdParaphrase: Paraphrase Dataset for Analyzing Linguistic Features toward Generating Attractive Ad Texts",
    ("Soichiro Murakami", "Peinan Zhang", "Hidetaka Kamigaito", "Hiroya Takamura", "Manabu Okumura"),
    2025,
    "2502.04674",
)


@method(
    "surface-v1",
    kind="concepts",
    source="unipref",
    formula="30 properties counted in the text: length, lists, hedges, refusals, what is repeated of the prompt, ...",
    citation=UNIPREF,
)
def surface_v1() -> Callable[..., PairValues]:
    """What can be counted in a response, in any script, without a model.

    `unipref explain` takes these unless `--no-surface` is given. A count n is weighed as log(1 + n).
    """
    return surface_values


@method(
    "ngrams",
    kind="concepts",
    source="Monroe, Colaresi and Quinn 2008, Political Analysis 16(4), Eqs. 15, 16 and 22",
    formula="z of the log-odds that winners have a word or two and losers lack it, under an informative prior",
    needs=("chosen", "rejected"),
    citation=Citation(
        "Fightin' Words: Lexical Feature Selection and Evaluation for Identifying the Content of Political Conflict",
        ("Burt L. Monroe", "Michael P. Colaresi", "Kevin M. Quinn"),
        2008,
        url="https://doi.org/10.1093/pan/mpn018",
    ),
)
def ngrams(*, most: int = 20, order: int = 2) -> Callable[..., list[tuple[str, float]]]:
    """The words and pairs of words that tell a domain's winners from its losers.

    Found on prompts that are used for nothing else but fitting. The prior of an n-gram is its count in all texts, so
    that rare ones need more evidence.

    Args:
        most: per domain (`--n-grams`).
        order: of the longest run of words.
    """
    return partial(discriminative_ngrams, most=most, order=order)


@method(
    "cpm-13",
    kind="concepts",
    source="arXiv:2310.13011, the authors' code",
    formula="13 properties scored from 1 to 10 by a language model, and length in characters",
    citation=CPM,
)
def cpm_13() -> ConceptSet:
    """What the compositional preference model scores in a response.

    Helpfulness, specificity, intent, factuality and the like. The definitions are ours, and each concept is named after
    what a high value has more of, also where the authors' own scale runs the other way.
    """
    return concept_set("cpm-13")


@method(
    "profile",
    kind="concepts",
    source="arXiv:2410.06965",
    status="reconstructed",
    formula="14 factors of summaries, helpful responses and answers about documents; 5 of them counted",
    citation=PROFILE,
)
def profile() -> ConceptSet:
    """The factors of PROFILE: intent, formality, facts, coverage, novelty, length, fluency, hallucination and others.

    Reconstructed: the paper's own list could be read in part only; names and definitions are ours.
    """
    return concept_set("profile")


@method(
    "dissect-29",
    kind="concepts",
    source="arXiv:2402.11296, the authors' code",
    formula="29 properties of responses, judged side by side; length by the authors' rule",
    citation=DISSECT,
)
def dissect_29() -> ConceptSet:
    """The properties by which preferences of people and of 32 models were dissected.

    The definitions are ours. The authors count errors against a reference answer; here a judge says which response has
    fewer.
    """
    return concept_set("dissect-29")


@method(
    "decipher",
    kind="concepts",
    source="arXiv:2305.14702, the project's examples",
    status="reconstructed",
    formula="31 labels of summaries: bins of length, coverage, novelty, word length; facts, focus, style; 22 counted",
    citation=DECIPHER,
)
def decipher() -> ConceptSet:
    """The labels of DecipherPref.

    Reconstructed: the vocabulary of labels is the authors'; the edges of their bins are not published, and those here
    are ours.
    """
    return concept_set("decipher")


@method(
    "ad-linguistic",
    kind="concepts",
    source="arXiv:2502.04674",
    formula="14 linguistic features of advertising text, all counted: length, brackets, scripts, fluency, ...",
    citation=AD_PARAPHRASE,
)
def ad_linguistic() -> ConceptSet:
    """Linguistic features of advertising text, for Japanese and any other script.

    Fluency is how expected the characters are after the five before them in the study's other texts, where the authors
    take a language model's perplexity. Nouns and noun phrases, which they count, too, need a tagger and are not here.
    """
    return concept_set("ad-linguistic")
