"""Facts about the table in the terminal, at the widths terminals have."""

import copy
import re

import pytest
from example_run import write_example
from rich.console import Console

from unipref.report import render_table

WIDTHS = (60, 80, 120)
NUMBER = r"[+\u2212]?[\d,]+\.\d+"
CELL = rf"\u2013|{NUMBER}(?: \[(?:{NUMBER}, {NUMBER}|no interval)\])?"
WORD = "better|worse|higher|lower|unclear|unknown"
DIGITS = {"accuracy": 1, "ranking": 1, "agree": 1, "ended": 1, "length": 1, "seconds": 1, "KL": 2, "chosen": 2,
          "rejected": 2}  # fmt: skip
KEYS = {"accuracy": "accuracy", "ranking": "ranking_accuracy", "KL": "kl", "length": "length", "ended": "stopped",
        "seconds": "seconds"}  # fmt: skip
SIX = {"dpo": "dpo", "dpo_control": "dpo_lambda0", "upo_dpo": "upo_dpo",
       "kto": "dpo", "kto_control": "dpo_lambda0", "upo_kto": "upo_dpo"}  # fmt: skip


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    return write_example(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def six(three):
    """The shape of the full recipe."""
    summary = copy.deepcopy(three)
    summary["runs"] = {name: copy.deepcopy(three["runs"][source]) for name, source in SIX.items()}
    for i, run in enumerate(summary["runs"].values()):
        run["seeds"], run["kl"] = [0, 1, 2], [31.25 + i, -2.5, 1234.5]
    summary["differences"] = [
        {**entry, "a": a, "b": b}
        for a, b in (("upo_dpo", "dpo_control"), ("upo_kto", "kto_control"))
        for entry in three["differences"]
        if entry["b"] == "dpo_lambda0"
    ]
    return summary


def lines_of(summary, width):
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(render_table(summary))
    return [line.rstrip() for line in captured.get().splitlines()]


def number(text):
    return float(text.replace("\N{MINUS SIGN}", "-").replace(",", ""))


def numbers(cell):
    """[value, low, high] of a printed cell, None where it has none."""
    found = [number(text) for text in re.findall(NUMBER, cell)]
    return found + [None] * (3 - len(found))


def printed_runs(lines):
    """{(run, heading): cell} from either shape of the table."""
    table = {}
    end = next(i for i, line in enumerate(lines) if line.startswith("[a, b]"))
    columns, transposed = [], False
    for line in lines[1:end]:
        if line.startswith(("On held-out pairs", "On the run's own generations")) or not line:
            continue
        parts = re.split(r" {2,}", line.strip())
        if line.startswith("run "):
            columns, transposed = parts[1:], False
        elif line.startswith(" "):
            columns, transposed = parts, True
        else:
            assert len(parts) == len(columns) + 1, line
            for name, cell in zip(columns, parts[1:], strict=True):
                assert re.fullmatch(CELL, cell), line
                table[(name, parts[0]) if transposed else (parts[0], name)] = cell
    return table


def expected(summary, run, heading):
    entry = summary["reference"] if run == "before" else summary["runs"][run]
    word = heading.split()[0]
    if heading in summary["designer"]:
        return entry["aux"][heading]["generations"], 3
    if heading.endswith("agree %"):
        return entry["aux"][word].get("heldout"), 1
    if word in ("chosen", "rejected"):
        return entry.get("drift", {}).get(word), 2
    return entry.get(KEYS[word]), DIGITS[word]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("which", ["three", "six"])
def test_each_run_and_metric_is_one_cell_on_one_line_with_the_summary_s_numbers(which, width, request):
    summary = request.getfixturevalue(which)
    lines = lines_of(summary, width)
    assert max(map(len, lines)) <= width
    table = printed_runs(lines)
    assert len(table) == (len(summary["runs"]) + 1) * (8 + 2 * len(summary["designer"]))
    for (run, heading), cell in table.items():
        value, digits = expected(summary, run, heading)
        triple = [None] * 3 if value is None else value if isinstance(value, list) else [value, None, None]
        scale = 100 if heading.endswith("%") else 1
        exact = [None if x is None else float(f"{scale * x:.{digits}f}") for x in triple]
        assert numbers(cell) == exact, (run, heading)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("which", ["three", "six"])
def test_each_difference_is_one_line_with_its_numbers_and_a_word(which, width, request):
    summary = request.getfixturevalue(which)
    lines = lines_of(summary, width)
    row = re.compile(rf"  (\S.*?) {{2,}}({CELL}) {{2,}}({WORD})(?: {{2,}}n = (\d+))?")
    printed = {}
    pair = None
    for line in lines:
        if match := re.fullmatch(r"(\S+) minus (\S+), paired over prompts", line):
            pair = match.groups()
            printed[pair] = []
        elif match := row.fullmatch(line):
            printed[pair].append(match.groups())
    assert sum(map(len, printed.values())) == len(summary["differences"])
    for (a, b), rows in printed.items():
        entries = [entry for entry in summary["differences"] if (entry["a"], entry["b"]) == (a, b)]
        for entry, (_, cell, _, n) in zip(entries, rows, strict=True):
            score = entry["metric"].startswith("aux") and entry["metric"].endswith("generations")
            share = not score and entry["metric"] not in ("kl", "length")
            digits = 3 if score else {"kl": 2}.get(entry["metric"], 1)
            rounded = [None if x is None else float(f"{(100 if share else 1) * x:.{digits}f}") for x in entry["value"]]
            assert numbers(cell) == rounded, (a, b, entry["metric"])
            assert n is None or int(n) == entry["n"]
    assert width < 80 or all(n for rows in printed.values() for *_, n in rows)


def test_runs_are_columns_only_while_they_fit(three, six):
    def transposed(summary, width):
        return not any(line.startswith("run ") for line in lines_of(summary, width))

    assert [transposed(three, width) for width in WIDTHS] == [False, False, True]
    assert [transposed(six, width) for width in (*WIDTHS, 220)] == [False, False, False, True]


def test_alarms_stand_before_the_verdict_and_the_verdict_on_upo_is_last(three):
    lines = lines_of(three, 80)
    (alarm,) = three["runs"]["dpo"]["alarms"]
    at = next(i for i, line in enumerate(lines) if line.startswith(" WARNING  dpo: "))
    assert alarm["message"][:30] in lines[at]
    text = "\n".join(lines)
    assert text.index(" WARNING ") < text.index("\nupo_dpo gains on reading_level") < text.rindex("upo_dpo minus")
    assert text.endswith("intervals.")
    assert text.rindex("[95 % interval]. Objectives") > text.rindex("n = ")


def test_an_error_alarm_comes_before_warnings(three):
    summary = copy.deepcopy(three)
    summary["runs"]["upo_dpo"]["alarms"] = [{"level": "error", "code": "gate", "message": "the gate never opened"}]
    text = "\n".join(lines_of(summary, 80))
    assert text.index(" ERROR    upo_dpo: the gate never opened") < text.index(" WARNING  dpo: ")


def test_without_alarms_or_controls_it_says_so(three):
    summary = {**three, "runs": {"dpo": {**three["runs"]["dpo"], "alarms": []}}, "differences": []}
    text = " ".join(" ".join(lines_of(summary, 80)).split())
    assert "No alarms." in text
    assert "1 run measured; nothing is compared, so nothing is shown: name a control under `controls`" in text


def test_what_was_not_measured_has_no_column_and_no_number(tmp_path):
    text = "\n".join(lines_of(write_example(tmp_path, n_pairs=40, n_generations=0), 80))
    assert "KL nats" not in text.split("[a, b]")[0]
    assert re.search(r"KL nats +\u2013 +unknown +n = 0", text)
    assert "KL to the reference not measured" in " ".join(text.split())


def test_names_too_long_for_the_terminal_lose_their_middle_and_numbers_stay_whole(three):
    name = "a_run_whose_name_tells_all_there_is_to_tell_about_it_and_more_v2"
    summary = {**three, "runs": {name: three["runs"]["dpo"]}, "differences": []}
    lines = lines_of(summary, 60)
    assert max(map(len, lines)) <= 60
    row = next(line for line in lines if line.startswith("a_run"))
    assert re.match(r"a_run\w+\N{HORIZONTAL ELLIPSIS}\w+_v2 {2}" + NUMBER, row)
