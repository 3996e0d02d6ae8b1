"""Openings of test parts are appended, counted per label and part, and survive a line that was cut off."""

import json

import pytest

from biossl.errors import MachineError
from biossl.ledger import openings, record_opening

ENTRY = {"label": "a", "split": "official", "part": "test", "score": 0.5}


def test_openings_are_counted_per_label_over_all_splits(tmp_path):
    file, n = record_opening([tmp_path], ENTRY)
    assert (file, n) == (tmp_path / "ledger.jsonl", 1)
    record_opening([tmp_path], {**ENTRY, "label": "b"})
    assert record_opening([tmp_path], {**ENTRY, "split": "mine"})[1] == 2  # the same subjects under another name
    assert len(openings(tmp_path, "a", "mine")) == 1
    entry = json.loads(file.read_text().splitlines()[0])
    assert entry["score"] == 0.5 and entry["date"].endswith("+00:00") and "commit" in entry
    assert len(openings(tmp_path)) == 3


def test_a_cut_off_line_is_passed_over(tmp_path):
    file, _ = record_opening([tmp_path], ENTRY)
    file.write_text(file.read_text() + '{"label": "a", "spl\n')
    assert record_opening([tmp_path], ENTRY)[1] == 2


def test_where_the_corpus_cannot_be_written_the_next_folder_is_taken(tmp_path):
    (tmp_path / "file").write_text("")  # a file where a folder is needed: cannot be written, whoever runs the test
    file, _ = record_opening([tmp_path / "file" / "corpus", tmp_path / "run"], ENTRY)
    assert file == tmp_path / "run" / "ledger.jsonl"
    with pytest.raises(MachineError, match="cannot be recorded"):
        record_opening([tmp_path / "file" / "corpus"], ENTRY)
