"""A packaged card is found by its name, whatever lies in the working directory."""

from biossl.corpus.card import load_card


def test_a_folder_of_the_same_name_does_not_hide_a_packaged_card(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hapt").mkdir()
    assert load_card("hapt").name == "hapt"
