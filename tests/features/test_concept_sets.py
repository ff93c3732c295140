import re

import pytest

from unipref.core.errors import ConfigError
from unipref.features.concept_sets import concept_set, concept_set_names, load_concepts
from unipref.features.rules import rule_of, rule_values

GOOD = """
name: mine
source: our guide
concepts:
  - key: warmth
    name: Warmth
    high: the response is kind
    low: the response is cold
  - key: short
    name: Short
    high: fewer than 60 words
    rule: tokens to 60
    source: elsewhere
  - {key: questions, name: Questions, high: more of them, kind: rule, domains: [law, food]}
"""


def written(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_users_set_is_read_with_its_kinds_rules_and_sources(tmp_path):
    warmth, short, questions = load_concepts(written(tmp_path, GOOD))
    assert (warmth.kind, warmth.high, warmth.low, warmth.source) == (
        "judge",
        "the response is kind",
        "the response is cold",
        "our guide",
    )
    assert (short.kind, short.rule, short.source) == ("rule", "tokens to 60", "elsewhere")
    assert (questions.kind, rule_of(questions).name, questions.domains) == ("rule", "questions", ("law", "food"))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (
            ("high: the response is kind", "hihg: the response is kind"),
            "line 7: a concept has no key 'hihg' (did",
        ),
        (
            ("source: our guide", "sauce: our guide"),
            "line 3: a concept set has no key 'sauce' (did",
        ),
        (("key: short", "key: warmth"), "line 9: line 5 has the key 'warmth', too"),
        (("name: Short", "name: warmth"), "short and warmth are both called 'warmth'"),
        (("    high: the response is kind\n", ""), "line 5: `high` of 'warmth' is missing"),
        (("high: the response is kind", "high:"), "line 7: `high` of 'warmth' is missing or empty"),
        (("- key: warmth", "- key: ''"), "line 5: `key` is missing or empty"),
        (("rule: tokens to 60", "rule: tokns to 60"), "line 12: short: no rule named 'tokns' (did you mean 'tokens'?)"),
        (("kind: rule", "kind: ruel"), "kind judge or rule, not 'ruel'"),
        (("rule: tokens to 60", "rule: tokens to 60\n    kind: judge"), "short names a rule, and is left to a judge"),
        (("key: questions", "key: inquiries"), "line 14: inquiries: no rule named 'inquiries'"),
        (("domains: [law, food]", "domains: law"), "`domains` of questions is a list"),
        (("name: Warmth", "name: [Warmth]"), "line 6: `name` is a text"),
        (("name: Warmth", "name: Warmth\n    name: Cold"), "line 7: the key 'name' stands twice"),
        (("name: Warmth", "name: Warmth: not"), "line 6: this is not YAML"),
        (("name: mine", "scale: [7, 1]"), "line 2: `scale` is the lowest and the highest score"),
    ],
    ids=lambda value: value[1][:30] if isinstance(value, tuple) else None,
)
def test_a_fault_is_named_with_its_file_and_line(tmp_path, change, word):
    assert change[0] in GOOD
    with pytest.raises(ConfigError, match=re.escape(word)) as caught:
        load_concepts(written(tmp_path, GOOD.replace(*change, 1)))
    assert "mine.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "is a mapping"),
        ("- a", "line 1: a concept set is a mapping"),
        ("name: x", "no list"),
        ("concepts: []", "list"),
    ],
)
def test_a_file_that_is_no_set_is_named(tmp_path, text, word):
    with pytest.raises(ConfigError, match=word):
        load_concepts(written(tmp_path, text))


def test_a_name_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'cpm-13'"):
        load_concepts("cpm13")
    with pytest.raises(ConfigError, match=r"no file missing\.yaml; .*cpm-13"):
        load_concepts("missing.yaml")


# what the cards of the sources list: all, and of them those that are counted
SIZES = {"ad-linguistic": (14, 14), "cpm-13": (14, 1), "decipher": (31, 22), "dissect-29": (29, 1), "profile": (14, 5)}


def test_the_published_sets_are_whole():
    found = {}
    for name in concept_set_names():
        concepts = load_concepts(name)
        found[name] = (len(concepts), sum(concept.kind == "rule" for concept in concepts))
    assert found == SIZES


@pytest.mark.parametrize("name", SIZES)
def test_every_published_concept_says_what_it_means_and_where_it_is_from(name):
    told = concept_set(name)
    assert told.name == name
    assert told.about
    for concept in told.concepts:
        assert concept.source.startswith("arXiv:"), concept.key
        assert concept.kind == "judge" or rule_of(concept) is not None
        assert concept.low or concept.rule, f"{concept.key} leaves open what low means"


def test_keys_of_published_sets_do_not_meet_so_that_all_can_stand_in_one_study():
    keys = [concept.key for name in concept_set_names() for concept in load_concepts(name)]
    assert len(keys) == len(set(keys))


def test_the_compositional_models_faults_are_named_by_what_a_high_value_has_more_of():
    at = {concept.key: concept for concept in load_concepts("cpm-13")}
    assert at["cpm:repetition"].high == "the response says the same thing again"
    assert at["cpm:too_long"].high.startswith("the response is longer than")
    assert at["cpm:ignores_preferences"].high.startswith("the response passes over")
    assert concept_set("cpm-13").scale == (1, 10)


def test_bins_of_one_quantity_are_exclusive_and_leave_nothing_out():
    counted = [concept for concept in load_concepts("decipher") if concept.kind == "rule"]
    texts = [f"{'ab cdefghij ' * n}" for n in (1, 4, 10, 15, 30, 60)]
    values = rule_values(counted, ["ab xy zz cdefghij ab"] * 6, texts, texts).first
    for start in ("len-tk", "len-ch", "src-cov", "consec-cov", "novel-words", "complex-words"):
        columns = [j for j, concept in enumerate(counted) if concept.key.startswith(f"decipher:{start}")]
        assert values[:, columns].sum(axis=1).tolist() == [1.0] * 6, start


def test_the_example_of_the_docs_string_is_a_set(tmp_path):
    import unipref.features.concept_sets as module

    example = re.search(r"```yaml\n(.*?)```", module.__doc__, re.DOTALL)[1]
    assert [concept.key for concept in load_concepts(written(tmp_path, example))] == ["warmth", "short", "cites_law"]
