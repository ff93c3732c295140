"""The command line says what went wrong in one block, leaves with the right code, and imports only what it needs."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import unipref.recipes.align
from unipref.cli import main
from unipref.core.errors import ConfigError
from unipref.recipes.stage import Interrupted

RECIPE = "model: bundled\ndata: {train: bundled:hh-harmless}\nstages: [{method: dpo}]\nfull: {seeds: [0, 1]}\n"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe file, in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def calls(monkeypatch):
    """What `align` was called with; instead of training it writes an empty summary."""
    seen = []

    def align(recipe, *, output, resume, console):
        seen.append({"recipe": recipe, "output": output, "resume": resume, "quiet": console.quiet})
        output.mkdir(parents=True)
        (output / "summary.json").write_text('{"runs": {}}')
        return output

    monkeypatch.setattr(unipref.recipes.align, "align", align)
    monkeypatch.setattr("unipref.report.render_table", lambda summary: f"the table of {summary}")
    return seen


def test_a_run_that_is_not_what_its_name_says_ends_with_exit_code_one(recipe, calls, monkeypatch):
    alarm = {"level": "error", "code": "gate_closed", "message": "never acted"}
    monkeypatch.setattr("unipref.cli.align.json.loads", lambda text: {"runs": {"upo": {"alarms": [alarm]}}})
    assert main(["align", "mine.yaml", "--quiet"]) == 1


def python(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60, check=False)


def test_align_trains_the_recipe_as_the_words_say_and_tells_where_the_report_is(recipe, calls, capsys):
    words = ["align", "mine.yaml", "--full", "--set", "train.epochs=3", "name=other", "--set", "seeds=[5]", "--strict"]
    assert main(words) == 0
    [call] = calls
    assert call["recipe"].train.epochs == 3
    assert call["recipe"].seeds == (5,)
    assert call["recipe"].data.strict
    assert (call["output"], call["resume"], call["quiet"]) == (Path("runs/other"), False, False)
    printed = capsys.readouterr().out
    assert "the table of {'runs': {}}" in printed
    assert "report: runs/other/report.html" in printed


def test_output_and_resume_reach_the_run_and_quiet_prints_nothing(recipe, calls, capsys):
    assert main(["align", str(recipe), "--output", "there", "--resume", "--quiet"]) == 0
    [call] = calls
    assert (call["output"], call["resume"], call["quiet"]) == (Path("there"), True, True)
    assert capsys.readouterr() == ("", "")


def test_only_the_first_of_many_processes_prints(recipe, calls, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert main(["align", str(recipe)]) == 0
    assert capsys.readouterr().out == ""


def failing(monkeypatch, error):
    def align(*args, **kwargs):
        raise error

    monkeypatch.setattr(unipref.recipes.align, "align", align)


def test_a_fault_of_the_user_is_one_block_on_stderr_and_code_2(recipe, calls, capsys):
    recipe.write_text(RECIPE.replace("data:", "dat:"))
    assert main(["align", "mine.yaml"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "error: mine.yaml: 2 faults; nothing was loaded",
        "  line 2: dat: unknown key (did you mean 'data'?)",
        "  data: this key is required",
    ]
    assert calls == []


def test_an_error_of_the_run_itself_is_told_the_same_way(recipe, capsys, monkeypatch):
    failing(monkeypatch, ConfigError("the tokenizer has no end-of-sequence token"))
    assert main(["align", "mine.yaml"]) == 2
    assert capsys.readouterr().err == "error: the tokenizer has no end-of-sequence token\n"


@pytest.mark.parametrize(
    ("stop", "told"),
    [
        (Interrupted("stopped at step 3 of 9"), "stopped at step 3 of 9\n"),
        (KeyboardInterrupt(), "stopped; whole checkpoints are in runs/mine, continue with --resume\n"),
    ],
)
def test_ctrl_c_is_code_130_and_says_what_was_kept(recipe, capsys, monkeypatch, stop, told):
    failing(monkeypatch, stop)
    assert main(["align", "mine.yaml"]) == 130
    assert capsys.readouterr().err == told


def test_a_full_disk_is_told_without_a_traceback_and_other_faults_of_the_system_are_not_hidden(
    recipe, capsys, monkeypatch
):
    failing(monkeypatch, OSError(errno.ENOSPC, "No space left on device", "runs/mine/model"))
    assert main(["align", "mine.yaml"]) == 2
    assert capsys.readouterr().err.startswith("error: the disk is full while writing runs/mine/model; make room")
    failing(monkeypatch, OSError(errno.EACCES, "Permission denied", "runs"))
    with pytest.raises(OSError, match="Permission denied"):
        main(["align", "mine.yaml"])


def test_a_run_that_is_not_there_is_named_with_where_it_was_sought(capsys):
    assert main(["report", "nowhere"]) == 2
    assert "neither nowhere nor runs/nowhere holds a summary.json" in capsys.readouterr().err


def test_report_takes_a_folder_or_the_name_of_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/mine").mkdir(parents=True)
    (tmp_path / "runs/mine/summary.json").write_text("{}")
    monkeypatch.setattr("unipref.report.write_report", lambda folder: folder / "report.html")
    for name in ("mine", "runs/mine"):
        assert main(["report", name]) == 0
        assert capsys.readouterr().out == "runs/mine/report.html\n"


def test_a_missing_command_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 2
    assert "usage: unipref" in capsys.readouterr().err


def test_python_m_unipref_is_the_same_program():
    shown = python("-m", "unipref", "--version")
    assert (shown.returncode, shown.stdout.split()[0]) == (0, "unipref")
    assert python("-m", "unipref", "methods", "dop").returncode == 2


def test_help_waits_for_no_heavy_import():
    heavy = ("torch", "transformers", "numpy", "pydantic", "rich", "yaml")
    code = "import sys; from unipref.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    shown = python("-c", f"{code}print(sorted(set({heavy}) & set(sys.modules)))")
    assert shown.stdout.splitlines()[-1] == "[]"
    assert "align" in shown.stdout


@pytest.mark.parametrize("words", [["methods"], ["methods", "--json"]])
def test_a_reader_that_leaves_a_pipe_early_is_no_error(words):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "unipref", *words]
    with os.fdopen(writer, "wb") as pipe:
        left = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (left.returncode, left.stderr) == (1, "")
