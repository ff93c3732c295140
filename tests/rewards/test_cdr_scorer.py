"""The density ratio of two language models: its limits, its sums by hand, and what an instruction moves."""

import itertools

import numpy as np
import pytest
from toy_language_models import CHAT, SPECIAL, log_softmax, save_toy

from unipref.core.errors import ConfigError, DataError
from unipref.core.protocols import Scorer
from unipref.core.records import Message
from unipref.rewards import DesignerObjectives, make_scorer

WORDS = ("a", "b", "c", "d", "e", "f")
SIZE = len(SPECIAL) + len(WORDS)


def at(word):
    return [*SPECIAL, *WORDS].index(word)


def table(seed):
    return np.random.default_rng(seed).normal(size=(SIZE, SIZE))


def scorer(strong, weak, **options):
    return make_scorer({"scorer": "cdr", "options": {"strong": strong, "weak": weak, **options}})


def ratio(strong, weak, text):
    """By hand: the sum over the words of `text` but the first, which stands before them."""
    gap = log_softmax(strong) - log_softmax(weak)
    words = text.split()
    return sum(gap[at(word), at(last)] for last, word in itertools.pairwise(words))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models of random tables without a chat template."""
    folder = tmp_path_factory.mktemp("toys")
    return [save_toy(folder / str(k), WORDS, table(k)) for k in range(2)]


def test_two_equal_models_give_exactly_zero_also_from_two_folders(models, tmp_path):
    twin = save_toy(tmp_path / "twin", WORDS, table(0))
    texts = [" a", " b c d e f a b", " f f f"]
    for weak in (models[0], twin):
        assert scorer(models[0], weak).score(["c", "a b", "d"], texts).tolist() == [0.0, 0.0, 0.0]


def test_the_ratio_is_the_difference_of_two_sums_of_log_probabilities(models):
    made = scorer(*models)
    expected = [ratio(table(0), table(1), "d b c a"), ratio(table(0), table(1), "e f")]
    assert made.score(["a d", "e"], [" b c a", " f"]) == pytest.approx(expected, abs=1e-5)
    mean = scorer(*models, reduce="mean").score(["a d", "e"], [" b c a", " f"])
    assert mean == pytest.approx([expected[0] / 3, expected[1]], abs=1e-5)


def test_models_exchanged_negate_the_ratio(models):
    texts = [" b c a", " f", " a a a a b"]
    there, back = scorer(*models), scorer(*models[::-1])
    np.testing.assert_array_equal(there.score(["d"] * 3, texts), -back.score(["d"] * 3, texts))


def test_a_constant_added_to_all_logits_of_a_model_changes_nothing(models, tmp_path):
    shifted = save_toy(tmp_path / "shifted", WORDS, table(0) + 3.0)
    texts = [" b c a", " f e"]
    got = scorer(shifted, models[1]).score(["d", "d"], texts)
    np.testing.assert_allclose(got, scorer(*models).score(["d", "d"], texts), atol=1e-5)


def test_a_sum_adds_up_over_the_parts_of_a_response_and_a_mean_does_not(models):
    for reduce, adds in (("sum", True), ("mean", False)):
        made = scorer(*models, reduce=reduce)
        whole, first, second = made.score(["d", "d", "d b c"], [" b c a f", " b c", " a f"])
        assert bool(abs(whole - (first + second)) < 1e-5) is adds


def test_a_weak_model_tilted_by_a_reward_gives_the_reward_over_beta_up_to_a_constant(tmp_path):
    """Ten answers to one prompt, r ~ N(0, 1), beta = 1/2: the slope is 2 and the order that of r."""
    answers = [f"y{k}" for k in range(10)]
    names = [*SPECIAL, "x", *answers]
    generator = np.random.default_rng(3)
    weak = generator.normal(size=(len(names), len(names)))
    reward, beta = generator.normal(size=10), 0.5
    strong = weak.copy()
    strong[-10:, names.index("x")] += reward / beta
    folders = [save_toy(tmp_path / name, ["x", *answers], t) for name, t in (("s", strong), ("w", weak))]
    found = scorer(*folders).score(["x"] * 10, [f" {answer}" for answer in answers])
    slope, constant = np.polyfit(reward, found, 1)
    assert slope == pytest.approx(2.0, abs=1e-5)
    np.testing.assert_allclose(found, slope * reward + constant, atol=1e-5)
    alone = log_softmax(strong)[-10:, names.index("x")]
    assert (np.argsort(found) == np.argsort(reward)).all()
    assert not (np.argsort(alone) == np.argsort(reward)).all()  # what the strong model finds likely is not what is good


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_a_longer_answer_has_the_larger_sum_where_the_strong_model_is_surer_throughout_and_no_larger_mean(
    tmp_path, reduce
):
    surer = np.zeros((SIZE, SIZE))
    surer[at("a"), at("a")] = 2.0
    folders = [save_toy(tmp_path / str(k), WORDS, t) for k, t in enumerate((surer, np.zeros((SIZE, SIZE))))]
    short, long = scorer(*folders, reduce=reduce).score(["a", "a"], [" a", " a a a a"])
    assert long == pytest.approx(short * (4 if reduce == "sum" else 1), abs=1e-5)


def test_models_with_different_tokens_each_sum_their_own(tmp_path):
    """The strong model reads words, the weak one letters: "ab c" is 2 tokens of the one and 3 of the other."""
    words, letters = ("x", "ab", "c"), ("x", "a", "b", "c")
    generator = np.random.default_rng(0)
    tables = [generator.normal(size=(len(SPECIAL) + len(names),) * 2) for names in (words, letters)]
    strong = save_toy(tmp_path / "strong", words, tables[0])
    weak = save_toy(tmp_path / "weak", letters, tables[1], letters=True)
    place = [{name: len(SPECIAL) + k for k, name in enumerate(names)} for names in (words, letters)]
    sure, unsure = (log_softmax(each) for each in tables)
    first = sum(sure[place[0][y], place[0][x]] for x, y in (("x", "ab"), ("ab", "c")))
    second = sum(unsure[place[1][y], place[1][x]] for x, y in (("x", "a"), ("a", "b"), ("b", "c")))
    assert scorer(strong, weak).score(["x"], [" ab c"])[0] == pytest.approx(first - second, abs=1e-5)
    assert scorer(strong, weak, reduce="mean").score(["x"], [" ab c"])[0] == pytest.approx(
        (first - second) / 2, abs=1e-5
    )


def test_the_further_the_strong_model_is_tilted_the_more_often_the_better_answer_wins(tmp_path):
    """Words of quality +1 and -1; the weak model is uniform, and the strong one knows quality with noise."""
    generator = np.random.default_rng(5)
    quality = np.zeros(SIZE)
    quality[[at(w) for w in "abc"]], quality[[at(w) for w in "def"]] = 1.0, -1.0
    answers = [" " + " ".join(generator.choice(WORDS, 8)) for _ in range(120)]
    good = np.array([sum(quality[at(word)] for word in answer.split()) for answer in answers])
    noise = generator.normal(size=(SIZE, SIZE))
    weak = save_toy(tmp_path / "weak", WORDS, np.zeros((SIZE, SIZE)))
    right = []
    for tilt in (0.0, 0.5, 2.0):
        strong = save_toy(tmp_path / f"strong{tilt}", WORDS, tilt * quality[:, None] + noise)
        found = scorer(strong, weak).score(["a"] * 120, answers)
        pairs = [(i, j) for i in range(0, 120, 2) for j in (i + 1,) if good[i] != good[j]]
        right.append(np.mean([(found[i] > found[j]) == (good[i] > good[j]) for i, j in pairs]))
    assert right[0] < right[1] <= right[2]
    assert right[2] > 0.8


@pytest.fixture(scope="module")
def listener(tmp_path_factory):
    """A strong model that makes "b" likelier and "a" less likely once "f" was said, and a weak one of the same table
    that reads no system message here; both with a chat template."""
    folder = tmp_path_factory.mktemp("listener")
    told = np.zeros((SIZE, SIZE))
    told[at("b"), at("f")], told[at("a"), at("f")] = 30.0, -30.0
    told[at("a"), at("d")] = told[at("a"), at("e")] = 30.0
    return [save_toy(folder / str(k), WORDS, told, attention=3.0, chat=CHAT) for k in range(2)]


def test_a_domains_instruction_changes_the_order_in_its_domain_and_in_no_other(listener):
    domains = {"e-domain": {"when": r"\be\b", "instruction": "f f f", "exemplars": ["f f"]}}
    made = scorer(*listener, domains=domains)
    prompts = ["d d", "d d", "e e", "e e"]
    plain = scorer(*listener).score(prompts, ["a", "b", "a", "b"])
    told = made.score(prompts, ["a", "b", "a", "b"])
    assert plain.tolist() == [0.0] * 4
    assert told[:2].tolist() == [0.0, 0.0]
    assert told[3] - told[2] > 1.0  # equal models, so the instruction alone speaks
    assert [made.domain_of(prompt) for prompt in ("d d", "E e")] == [None, "e-domain"]
    both = scorer(*listener, domains=domains, instructed="both").score(prompts, ["a", "b", "a", "b"])
    assert both.tolist() == [0.0] * 4


def test_an_instruction_stands_before_a_system_message_that_is_there_and_in_plain_text_before_the_prompt(
    listener, models
):
    made = scorer(*listener, instruction="f f", exemplars=["f"])
    system = (Message("system", "c"), Message("user", "d"))
    joined = (Message("system", "f f\n\nf\n\nc"), Message("user", "d"))
    expected = scorer(*listener).score([joined], ["b"])
    strong = made._models[0].token_logp([made._item(made._models[0], system, "b", told=True)])[0]
    alone = made._models[0].token_logp([made._item(made._models[0], joined, "b", told=False)])[0]
    assert strong[1].tolist() == alone[1].tolist()
    assert expected.tolist() == [0.0]
    plain = scorer(*models, instruction="f")
    assert plain._item(plain._models[0], "d", " b", told=True).context == "f\n\nd"


def test_in_a_chat_template_the_words_of_the_answer_count_and_not_what_the_template_adds(listener):
    made = scorer(*listener)
    ids, logp = made._models[0].token_logp([made._item(made._models[0], "d", "a b", told=False)])[0]
    assert ids.tolist() == [at("a"), at("b")]
    assert len(logp) == 2
    turns = (Message("user", "d"),)
    given = made._models[0].token_logp([made._item(made._models[0], turns, (Message("assistant", "a b"),), told=False)])
    assert given[0][1].tolist() == logp.tolist()


def test_what_is_empty_or_longer_than_either_model_reads_has_no_score_and_nothing_is_cut(models, tmp_path):
    short = save_toy(tmp_path / "short", WORDS, table(1), longest=12)
    long = " a b c d e f a b c d e"  # with the prompt 12 tokens, with the end 13
    for pair in ((models[0], short), (short, models[0])):
        found = scorer(*pair).score(["a"] * 4, [" b", "", "  ", long])
        assert np.isnan(found).tolist() == [False, True, True, True]
        assert found[0] == pytest.approx(scorer(pair[0], pair[1]).score(["a"], [" b"])[0], abs=1e-6)
    assert not np.isnan(scorer(*models).score(["a"], [long])).any()
    assert np.isnan(scorer(*models, max_length=12).score(["a"], [long])).all()
    assert scorer(*models).score([], []).shape == (0,)


def test_a_response_that_a_chat_template_refuses_has_no_score_and_leaves_its_neighbours_theirs(tmp_path):
    refusing = "{% for m in messages %}{% if 'f' in m['content'] %}{{ raise_exception('no f') }}{% endif %}{% endfor %}"
    folders = [save_toy(tmp_path / str(k), WORDS, table(k), chat=refusing + CHAT) for k in range(2)]
    made = scorer(*folders)
    found = made.score(["d"] * 3, ["a b", "a f", "c"])
    assert np.isnan(found).tolist() == [False, True, False]
    np.testing.assert_allclose(found[[0, 2]], made.score(["d"] * 2, ["a b", "c"]), atol=1e-5)
    with pytest.raises(DataError, match="the chat template refuses the conversation"):
        made.score(["d"] * 2, ["f", "a f"])


def test_a_response_is_scored_alone_whatever_stands_beside_it(models):
    made = scorer(*models)
    prompts = ["a", "b", "a", "a", "c d"]
    texts = [" b c", " b c", " d", "", " f a b c d e f"]
    alone = [made.score([prompt], [text])[0] for prompt, text in zip(prompts, texts, strict=True)]
    np.testing.assert_allclose(made.score(prompts, texts), alone, atol=1e-5)
    np.testing.assert_allclose(made.score(prompts[::-1], texts[::-1])[::-1], alone, atol=1e-5)
    tight = scorer(*models, max_tokens_per_forward=1)
    np.testing.assert_allclose(tight.score(prompts, texts), alone, atol=1e-5)


def test_the_version_follows_both_models_and_what_decides_the_number(models, tmp_path):
    first = scorer(*models).version
    twin = save_toy(tmp_path / "twin", WORDS, table(0))
    assert scorer(twin, models[1]).version == first
    assert scorer(*models, max_tokens_per_forward=7).version == first
    others = [
        scorer(*models[::-1]),
        scorer(*models, reduce="mean"),
        scorer(*models, instruction="be good"),
        scorer(*models, exemplars=["be good"]),
        scorer(*models, domains={"d": {"when": "x", "instruction": "y"}}),
        scorer(*models, max_length=20),
        scorer(*models, dtype="bfloat16"),
    ]
    assert len({first, *(other.version for other in others)}) == 8
    assert isinstance(scorer(*models), Scorer)


def test_it_is_an_objective_like_any_other(models):
    made = DesignerObjectives.from_config(
        {"better": {"scorer": "cdr", "options": {"strong": models[0], "weak": models[1]}, "weight": 2.0}}
    )
    found = made.score_texts(["d"], [" b c a"])
    assert found["reward"][0] == pytest.approx(2 * ratio(table(0), table(1), "d b c a"), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strong": ""}, "strong is a hub id, a folder or 'bundled', not ''"),
        ({"weak": "./missing"}, r"weak: there is no model at \./missing"),
        ({"reduce": "average"}, "reduce is one of sum, mean, not 'average'"),
        ({"instructed": "weak"}, "instructed is one of strong, both"),
        ({"exemplars": 3}, "exemplars is a text or a list of texts, not 3"),
        ({"domains": ["safety"]}, "domains is a mapping"),
        ({"domains": {"safety": {"when": "x"}}}, "domains.safety takes `when` and an `instruction` or `exemplars`"),
        (
            {"domains": {"safety": {"when": "x", "instruction": "y", "wen": 1}}},
            r"no key 'wen' \(did you mean 'when'\?\)",
        ),
        ({"domains": {"safety": {"when": "(", "instruction": "y"}}}, r"'\(' is no regular expression"),
        ({"max_length": 2}, "max_length is a number of tokens from 8, not 2"),
        ({"max_tokens_per_forward": 0}, "max_tokens_per_forward is a number of tokens from 1"),
        ({"dtype": "fp8"}, "no dtype named 'fp8'"),
        ({"trust_remote_code": "yes"}, "trust_remote_code is true or false"),
    ],
)
def test_a_wrong_option_is_refused_before_a_model_is_loaded(options, message):
    with pytest.raises(ConfigError, match=message):
        scorer(**{"strong": "org/strong", "weak": "org/weak", **options})


def test_a_reward_models_folder_is_refused_for_its_language_head_would_be_random(models, reward):
    with pytest.raises(ConfigError, match=r"cdr: model: .* is a sequence classifier"):
        scorer(models[0], reward).score(["a"], ["b"])
