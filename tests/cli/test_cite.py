"""`unipref cite`: the sources of runs, comparisons and methods, each once."""

import re

import pytest

from unipref.cli import main
from unipref.core.cards import bibtex, get_method


def keys_of(text):
    return re.findall(r"^@misc\{([^,]+),$", text, flags=re.MULTILINE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run folder `runs/mine` that used DPO and UPO, in the current folder."""
    import unipref.objectives  # noqa: F401 (fills the registry)

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "runs/mine"
    path.mkdir(parents=True)
    (path / "citations.bib").write_text(bibtex([get_method("dpo"), get_method("upo")]), encoding="utf-8")
    return path


def test_methods_are_cited_by_key_each_source_once_and_in_order(capsys):
    assert main(["cite", "simpo", "dpo", "dpo"]) == 0
    assert capsys.readouterr().out == bibtex([get_method("dpo"), get_method("simpo")])


def test_a_run_is_cited_from_its_folder_by_path_or_name(folder, capsys):
    for name in ("mine", "runs/mine", str(folder)):
        assert main(["cite", name]) == 0
        assert capsys.readouterr().out == (folder / "citations.bib").read_text(encoding="utf-8")


def test_a_comparison_is_cited_with_all_its_runs(folder, capsys):
    for run, key in (("a", "kto"), ("b", "dpo")):
        (folder / "runs" / run).mkdir(parents=True)
        (folder / "runs" / run / "citations.bib").write_text(bibtex([get_method(key)]), encoding="utf-8")
    assert main(["cite", "mine"]) == 0
    expected = bibtex([get_method(key) for key in ("dpo", "kto", "upo")])
    assert capsys.readouterr().out == expected


def test_runs_and_methods_can_be_named_together(folder, capsys):
    assert main(["cite", "mine", "slic"]) == 0
    found = keys_of(capsys.readouterr().out)
    assert found == sorted(found)
    assert {get_method(key).citation.key for key in ("dpo", "upo", "slic")} == set(found)


def test_entries_with_braces_and_accents_come_back_as_they_were_written(folder, capsys):
    entry = "@misc{o2020study,\n  title = {{A {N}ote on @ things}},\n  author = {Rémi Ó},\n  year = {2020},\n}\n"
    (folder / "citations.bib").write_text(entry, encoding="utf-8")
    assert main(["cite", "mine"]) == 0
    assert capsys.readouterr().out == entry


def test_what_is_neither_a_folder_nor_a_method_is_named_with_the_nearest(folder, capsys):
    assert main(["cite", "modpoo"]) == 2
    assert capsys.readouterr().err == (
        "error: neither modpoo nor runs/modpoo is a folder, and no method named 'modpoo' (did you mean 'modpo'?); "
        "`unipref methods` lists all\n"
    )


def test_a_folder_without_citations_says_what_writes_them(folder, capsys):
    (folder / "citations.bib").unlink()
    assert main(["cite", "mine"]) == 2
    assert "runs/mine holds no citations.bib; `unipref align` writes one" in capsys.readouterr().err
