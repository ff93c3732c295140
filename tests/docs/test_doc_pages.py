"""Pages are read as a reader reads them, and a page that is wrong fails."""

from pathlib import Path

import pytest
from doc_pages import blocks, commands
from test_commands import Given, Reader

from unipref.core.errors import ConfigError

PAGE = """
`mine.yaml`, a recipe with one run:

```yaml
model: bundled
```

- Of `--set` see below:

  ```sh
  unipref align mine.yaml \\
      --set data.limit=3   # ends with exit code 1
  # a comment alone
  unipref report a#b
  ```

<!-- not run by the tests: needs two machines -->
```sh
ssh elsewhere
```
"""


def test_a_line_above_a_block_names_its_file_and_a_comment_there_says_why_it_is_not_run():
    recipe, shown, elsewhere = blocks(PAGE)
    assert (recipe.language, recipe.file, recipe.text) == ("yaml", "mine.yaml", "model: bundled\n")
    assert (shown.file, shown.not_run) == ("", "")
    assert elsewhere.not_run == "needs two machines"


def test_lines_are_joined_comments_are_no_words_and_may_tell_the_exit_code():
    first, second = commands(blocks(PAGE)[1])
    assert (first.line, first.exit_code) == ("unipref align mine.yaml --set data.limit=3", 1)
    assert (second.words, second.exit_code) == (["unipref", "report", "a#b"], 0)


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Read a page with this text, in a folder of its own, with no model and no run to be had."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def read_page(text):
        page = tmp_path / "page.md"
        page.write_text(text)
        return Reader(page, Given(Path("nowhere"), Path("nowhere"), {}), monkeypatch).read()

    return read_page


@pytest.mark.parametrize(
    "line",
    [
        "unipref methods dpoo",
        "unipref methods dpo  # exits with 2",
        "unipref cite nosuch",
        "make nosuch",
        'pip install ".[nosuch]"',
        "pip install torch",
        "cat nosuch.txt",
        "accelerate launch --nosuch 2 -m unipref methods",
        "unipref align quickstart --nosuch",
    ],
)
def test_a_command_that_does_not_end_as_its_page_says_fails(read, line, capsys):
    with pytest.raises((AssertionError, SystemExit)):
        read(f"```sh\n{line}\n```\n")


@pytest.mark.parametrize(
    "line",
    ["unipref methods dpo", "unipref methods dpoo  # exits with 2", "make docs", 'pip install -e ".[docs]"', "ls"],
)
def test_a_command_that_ends_as_its_page_says_passes(read, line, capsys):
    assert read(f"```sh\n{line}\n```\n") == []


def test_a_recipe_with_an_unknown_key_fails_and_so_does_python_that_raises(read):
    with pytest.raises(ConfigError):
        read("```yaml\nmodel: bundled\ndata: {train: bundled:hh-harmless}\nstages: [{method: dpo, optoins: {}}]\n```\n")
    with pytest.raises(ZeroDivisionError):
        read("```python\n1 / 0\n```\n")


def test_what_is_not_run_comes_back_with_its_reason(read):
    [left] = read(PAGE[PAGE.index("<!--") :])
    assert (left.line, left.not_run) == ("ssh elsewhere", "needs two machines")


def test_output_goes_into_a_file_and_input_comes_through_a_pipe_as_in_a_shell(read, tmp_path):
    read("```sh\nunipref methods dpo --json > dpo.json\necho hello | unipref methods\n```\n")
    assert '"key": "dpo"' in (tmp_path / "work" / "dpo.json").read_text()
