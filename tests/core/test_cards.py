"""The registry of methods and what a card knows."""

import pytest

import unipref.core.cards as cards
from unipref.core.cards import REQUIRED, Card, Citation, Limit, bibtex, get_method, list_methods, method
from unipref.core.errors import ConfigError

PAPER = Citation("A Fine Method for Things", ("Ada Lovelace", "Carl F. Gauss"), 2031, arxiv="3101.00001")


@pytest.fixture
def registry(monkeypatch):
    """An empty registry for one test."""
    held: dict[tuple[str, str], Card] = {}
    monkeypatch.setattr(cards, "_REGISTRY", held)
    return held


def add(key, **slots):
    def function(*, beta: float = 0.1, weight):
        """Says what comes back.

        And more.
        """
        return beta, weight

    return method(key, **{"source": "arXiv:3101.00001 Eq. 1", "formula": "x", "citation": PAPER} | slots)(function)


def test_a_card_reads_title_and_options_from_its_function(registry):
    function = add("fine", needs=("ref_logp",), golden=[({}, {"logp": -1.0}, 1.0)])
    card = get_method("fine")
    assert card.function is function
    assert card.title == "Says what comes back."
    assert dict(card.options) == {"beta": 0.1, "weight": REQUIRED}
    assert (card.kind, card.status, card.coupling, card.needs) == ("objective", "verified", "none", ("ref_logp",))


def test_build_calls_the_function_and_refuses_unknown_and_missing_options(registry):
    add("fine")
    assert get_method("fine").build(weight=2) == (0.1, 2)
    with pytest.raises(ConfigError, match=r"fine has no option 'bta' .did you mean 'beta'"):
        get_method("fine").build(bta=1, weight=2)
    with pytest.raises(ConfigError, match=r"missing 1 required.*'weight'"):
        get_method("fine").build()


def test_an_unknown_key_is_answered_with_the_nearest(registry):
    add("fine")
    with pytest.raises(ConfigError, match=r"no method named 'fin' .did you mean 'fine'"):
        get_method("fin")


def test_listing_is_in_the_order_of_keys_and_by_kind(registry):
    add("zeta")
    add("alpha", kind="scorer")
    assert [card.key for card in list_methods()] == ["alpha", "zeta"]
    assert [card.key for card in list_methods("scorer")] == ["alpha"]
    with pytest.raises(ConfigError, match="did you mean 'objective'"):
        list_methods("objectives")


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        ({"kind": "objectiv"}, "did you mean 'objective'"),
        ({"status": "guess"}, "status 'guess'"),
        ({"coupling": "all"}, "coupling 'all'"),
        ({"exceptions": {"L11": "why"}}, "excepts itself from 'L11'"),
    ],
)
def test_a_slot_with_an_unknown_word_is_refused(registry, slots, message):
    with pytest.raises(ConfigError, match=message):
        add("fine", **slots)
    assert not registry


def test_two_files_cannot_hold_one_key(registry):
    add("fine")
    add("fine")  # the same file again, as on a reload

    def other():
        """Another one."""

    other.__module__ = "elsewhere"
    with pytest.raises(ConfigError, match="two methods of kind objective are called 'fine'"):
        method("fine", source="s", formula="f", citation=PAPER)(other)


def test_a_loss_and_the_model_fitted_with_it_share_a_name_and_the_loss_is_meant_where_no_kind_is_said(registry):
    add("fine")
    add("fine", kind="reward", formula="y")
    assert [card.kind for card in list_methods()] == ["objective", "reward"]
    assert get_method("fine").formula == "x"
    assert get_method("fine", "reward").formula == "y"
    with pytest.raises(ConfigError, match="no method of kind scorer named 'fine'"):
        get_method("fine", "scorer")


def test_a_function_without_a_docstring_is_refused(registry):
    def silent():
        return None

    with pytest.raises(ConfigError, match="needs a docstring"):
        method("fine", source="s", formula="f", citation=PAPER)(silent)


def test_bibtex_gives_each_source_once(registry):
    add("one")
    add("two")
    text = bibtex(list_methods())
    assert text == (
        "@misc{lovelace2031fine,\n"
        "  title = {{A Fine Method for Things}},\n"
        "  author = {Ada Lovelace and Carl F. Gauss},\n"
        "  year = {2031},\n"
        "  eprint = {3101.00001},\n"
        "  archivePrefix = {arXiv},\n"
        "}\n"
    )


def test_bibtex_of_a_source_without_arxiv_gives_its_address():
    note = Citation("A Note", ("Eric Author", "and others"), 2023, url="https://example.org/a&b.pdf")
    assert "author = {Eric Author and others}" in note.bibtex()
    assert "url = {https://example.org/a&b.pdf}" in note.bibtex()


def test_only_an_objective_has_limits(registry):
    limit = Limit({"beta": 1.0}, "dpo", factor=2.0)
    add("fine", limits=[limit])
    assert get_method("fine").limits == (limit,)
    assert get_method("fine").limits[0].tolerance == 1e-10
    with pytest.raises(ConfigError, match="'mine' names limits; only an objective has a loss to compare, not a scorer"):
        add("mine", kind="scorer", limits=[limit])


def test_a_default_is_shown_as_code_and_a_function_by_its_name(registry):
    def judge(*, by=len, names=("a",), weight):
        """Says what comes back."""

    method("judge", kind="operator", source="s", formula="f", citation=PAPER)(judge)
    assert get_method("judge").defaults == {"by": "len", "names": "('a',)", "weight": "required"}


def test_a_docstring_is_read_in_its_parts(registry):
    def parted(*, beta=0.1, gamma=0.2, delta=0.3):
        """The title.

        What a reader
        could get wrong.

        Reconstructed: the sign
        is inferred.

        Args:
            beta, gamma: two of
                a kind.
        """

    method("parted", status="reconstructed", source="s", formula="f", citation=PAPER)(parted)
    card = get_method("parted")
    assert card.title == "The title."
    assert card.explanation == "What a reader\ncould get wrong."
    assert card.inferred == "Reconstructed: the sign is inferred."
    assert card.meanings == {"beta": "two of a kind.", "gamma": "two of a kind."}


def test_a_reconstructed_method_says_so_even_where_its_docstring_does_not_and_a_verified_one_does_not(registry):
    add("one", status="reconstructed")
    add("two")
    assert get_method("one").inferred.startswith("Reconstructed: a part of the definition is inferred")
    assert get_method("two").inferred == ""
