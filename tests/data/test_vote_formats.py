import pytest

from unipref.core.errors import DataError
from unipref.core.records import Comparison, Record
from unipref.data import read_records

AD = {"ad1": "今すぐ予約", "ad2": "【公式】予約", "count.preference_ad1": 3, "count.preference_ad2": 5}
SCORES = {"conciseness": 4.5, "hallucination": 2.0}
OPINION = {
    "unique-id": "x",
    "reviews": ["Cleans well.", "It leaks."],
    "summary-pairs": {
        "summary-one": {"index": "1", "summary-text": "It cleans well.", "summary-score": SCORES},
        "summary-two": {"index": "2", "summary-text": "It cleans, but leaks.", "summary-score": {"conciseness": 3.0}},
    },
    "preference-data": 2,
    "source": "ann",
}


def one(row: dict, **options) -> Record:
    records, report = read_records([row], **options)
    assert (report.n_kept, report.set_aside) == (1, [])
    return records[0]


def reason(row: dict) -> str:
    good = AD if "ad1" in row else OPINION
    _, report = read_records([good, row])
    return next(iter(report.counts))


def test_who_skipped_is_half_a_vote_for_both():
    # (3 + 2/2) of 10 prefer the first, so the second wins with 0.6
    record = one({**AD, "count.preference_skip": 2})
    assert record.comparisons == (Comparison(1, 0, pytest.approx(0.6)),)
    assert [item.response for item in record.items] == ["今すぐ予約", "【公式】予約"]


def test_without_a_count_of_skips_only_the_votes_count():
    assert one(AD).comparisons == (Comparison(1, 0, pytest.approx(5 / 8)),)
    assert one({**AD, "count.preference_ad1": 5, "count.preference_ad2": 0}).comparisons[0].preference == 1.0


def test_equal_votes_are_a_tie_and_stay_in_the_data():
    assert one({**AD, "count.preference_ad1": 5}).comparisons == (Comparison(0, 1, 0.5),)


def test_the_general_names_may_have_a_prompt_and_a_judge():
    row = {"prompt": "Say hi.", "response_a": "Hi!", "response_b": "Go.", "n_a": 3, "n_b": 1, "annotator": "panel"}
    record = one(row)
    assert record.comparisons == (Comparison(0, 1, 0.75, annotator="panel"),)
    assert record.items[0].context == "Say hi."


def test_a_table_of_text_cells_gives_the_same_votes(tmp_path):
    file = tmp_path / "ads.csv"
    file.write_text(
        "ad1,ad2,count.preference_ad1,count.preference_ad2,count.preference_skip\na,b,3,5,2\n", encoding="utf-8"
    )
    assert read_records(file)[0][0].comparisons == (Comparison(1, 0, pytest.approx(0.6)),)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"count.preference_ad1": 0, "count.preference_ad2": 0}, "nobody voted"),
        ({"count.preference_ad1": -1}, "votes are not counts"),
        ({"count.preference_ad1": None}, "missing field 'count.preference_ad1'"),
        ({"ad2": AD["ad1"]}, "identical responses"),
        ({"ad2": " "}, "empty response"),
    ],
)
def test_a_row_of_votes_that_says_nothing_is_set_aside_by_name(change, why):
    assert reason({**AD, **change}) == why


def test_of_two_summaries_the_second_is_preferred_where_the_code_is_2():
    record = one(OPINION)
    assert record.comparisons == (Comparison(1, 0),)
    assert one({**OPINION, "preference-data": 1}).comparisons == (Comparison(0, 1),)
    assert record.items[1].response == "It cleans, but leaks."


def test_the_reviews_are_the_prompt_and_the_ratings_are_numbers_of_each_summary():
    first, second = one(OPINION).items
    assert first.context == second.context == "Cleans well.\n\nIt leaks."
    assert dict(first.columns) == SCORES
    assert dict(second.columns) == {"conciseness": 3.0}
    assert one(OPINION, domain_field="source").domain == "ann"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"preference-data": 0}, "field 'preference-data' is not 1 or 2"),
        ({"reviews": "one text"}, "field 'reviews' is not a list of texts"),
        ({"summary-pairs": {"summary-one": {}}}, "field 'summary-pairs' has no 'summary-one' with a 'summary-text'"),
    ],
)
def test_a_row_of_summaries_that_cannot_be_read_is_set_aside_by_name(change, why):
    assert reason({**OPINION, **change}) == why


def test_votes_without_their_counts_name_what_is_missing():
    with pytest.raises(DataError, match=r"votes.*n_b or count\.preference_ad2"):
        read_records([{"ad1": "a", "ad2": "b", "count.preference_ad1": 3}])
