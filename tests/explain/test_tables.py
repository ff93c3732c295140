import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from worlds_of_text import records

from unipref.core.errors import DataError
from unipref.core.records import Comparison
from unipref.data.pairs import Pairs
from unipref.explain.tables import read_concept_table


def three() -> Pairs:
    """law-0, law-1 and law-2."""
    return Pairs.of(records(3, own={"law": "lex"}))


def written(folder: Path, text: str) -> Path:
    file = folder / "table.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_values_are_joined_by_the_pairs_id_and_what_nobody_gave_is_missing(tmp_path):
    file = written(tmp_path, "id,concept,value\nlaw-1,depth,2\nlaw-0,depth,-1\nlaw-1,tone,\nlaw-9,tone,1\n")
    values, account = read_concept_table(file).of(three())
    assert [concept.key for concept in values.concepts] == ["depth", "tone"]
    np.testing.assert_array_equal(values.difference, [[-1, math.nan], [2, math.nan], [math.nan, math.nan]])
    assert (account["pairs"], account["values"], account["missing"], account["unknown"]) == (2, 2, 4, 1)
    assert "1 ids are of no pair and were not used: law-9" in account["notes"][0]
    assert "4 of 6 values are missing (67%)" in account["notes"][1]


def test_a_concept_is_called_and_defined_as_the_table_says_once(tmp_path):
    rows = "law-0,d,1,Depth,goes into detail,stays general\nlaw-1,d,1,,,\nlaw-2,e,1,,,\n"
    depth, other = read_concept_table(written(tmp_path, f"id,concept,value,name,high,low\n{rows}")).concepts
    assert (depth.name, depth.high, depth.low, depth.kind) == ("Depth", "goes into detail", "stays general", "table")
    assert (other.name, other.kind) == ("e", "table")
    twice = "id,concept,value,name\nlaw-0,d,1,Depth\nlaw-1,d,1,Width\n"
    with pytest.raises(DataError, match=r"line 3: 'name' of the concept 'd' is 'Width', and was 'Depth'"):
        read_concept_table(written(tmp_path, twice))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("id,concept,value\na,d,1\nb,d,1\na,d,2\n", r"line 4: the pair 'a' has a value of 'd' already, in line 2"),
        ("id,concept,value\na,d,much\n", r"line 2: the value 'much' is no finite number"),
        ("id,concept,value\na,d,inf\n", r"line 2: the value 'inf' is no finite number"),
        ("id,concept,value\na,,1\n", r"line 2: 'concept' is empty"),
        ("id,concept\na,d\n", r"'value' is missing; found concept, id"),
        ("id,concept,value,nmae\na,d,1,x\n", r"no column 'nmae' \(did you mean 'name'\?\)"),
    ],
)
def test_a_table_that_cannot_be_read_names_line_and_remedy(tmp_path, text, told):
    with pytest.raises(DataError, match=told):
        read_concept_table(written(tmp_path, text))


def test_a_table_of_other_data_is_refused_with_both_kinds_of_id(tmp_path):
    table = read_concept_table(written(tmp_path, "id,concept,value\nrow-1,d,1\n"))
    with pytest.raises(DataError, match=r"it has 'row-1', and the data have 'law-0'"):
        table.of(three())


def test_one_id_in_two_domains_needs_the_column_domain_and_then_goes_where_it_belongs(tmp_path):
    pairs = replace(three(), ids=np.array(["1", "1", "2"], object), domain=np.array(["law", "food", "law"], object))
    with pytest.raises(DataError, match=r"the id '1' is a pair in several domains \(food, law\); add a column"):
        read_concept_table(written(tmp_path, "id,concept,value\n1,d,1\n")).of(pairs)
    values, _ = read_concept_table(written(tmp_path, "id,concept,value,domain\n1,d,5,food\n")).of(pairs)
    np.testing.assert_array_equal(values.difference[:, 0], [math.nan, 5, math.nan])


def test_a_records_id_is_that_of_its_further_comparisons_of_the_same_responses_and_of_no_others(tmp_path):
    one = records(1, own={"law": "lex"})[0]
    third = replace(one.items[1], response="another text")
    several = replace(
        one, items=(*one.items, third), comparisons=(Comparison(0, 1), Comparison(1, 0), Comparison(0, 2))
    )
    pairs = Pairs.of([several])
    assert pairs.ids.tolist() == ["law-0", "law-0#1", "law-0#2"]
    values, account = read_concept_table(written(tmp_path, "id,concept,value\nlaw-0,d,2\n")).of(pairs)
    # first minus second, and the same item stands first whoever won
    np.testing.assert_array_equal(values.difference[:, 0], [2, 2, math.nan])
    assert (account["pairs"], account["further"], account["missing"]) == (2, 1, 1)
    assert "1 further comparisons of a record's two responses have the values of its id" in account["notes"][0]
    assert "are of other responses than the first, and their values are missing: law-0#2" in account["notes"][1]
    own = read_concept_table(written(tmp_path, "id,concept,value\nlaw-0,d,2\nlaw-0#1,d,-1\nlaw-0#2,d,5\n"))
    values, account = own.of(pairs)
    np.testing.assert_array_equal(values.difference[:, 0], [2, -1, 5])
    assert (account["further"], account["missing"], account["notes"]) == (0, 0, [])
