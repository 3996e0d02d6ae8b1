"""``biossl check``: told apart by content, one line and the right exit code when wrong, a summary when good."""

import json

import pytest
import torch
from corpus_factory import make_corpus

from biossl import cli
from biossl.checkpoint import save_encoder
from biossl.cli.check import kind_of
from biossl.corpus import make_split, subject_keys
from biossl.models.transformer import EncoderConfig, TransformerEncoder

SMALL = [
    "--model.dim",
    "16",
    "--model.depth",
    "1",
    "--model.heads",
    "2",
    "--objective.target_layers",
    "1",
    "--data.batch_size",
    "8",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("c") / "ecg", n_channels=3)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, corpus):
    torch.manual_seed(0)
    net = TransformerEncoder(corpus.spec, EncoderConfig(dim=16, depth=1, heads=2))
    return save_encoder(net, tmp_path_factory.mktemp("e") / "encoder", seen={"subjects": subject_keys(corpus, range(8))})


def run(capsys, *argv):
    code = cli.main(["check", *map(str, argv)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_published_recipe_passes(capsys):
    code, out, _ = run(capsys, "recipes/ecg/jepa.yaml")
    assert code == 0 and "parameters: 96299520" in out and "grid: 8 50" in out and "hidden: 0.65" in out


def test_each_kind_is_told_apart_by_content(corpus, encoder, tmp_path):
    renamed = tmp_path / "anything.txt"
    renamed.write_text("objective: {name: jepa}\n")
    assert kind_of(str(renamed)) == kind_of("imu/jepa_small") == "recipe"
    assert kind_of("hapt") == kind_of("data_cards/hapt.yaml") == "card"
    assert kind_of(str(corpus.path)) == "corpus" and kind_of(str(encoder)) == kind_of(str(encoder.parent)) == "encoder"


def test_good_things_exit_0_and_say_what_they_are(capsys, corpus, encoder):
    code, out, _ = run(capsys, "ecg/jepa_small", corpus.path, *SMALL)
    assert code == 0 and "windows: 48" in out and "grid: 3 10" in out
    code, out, _ = run(capsys, "hapt")
    assert code == 0 and "modality: imu" in out
    code, out, _ = run(capsys, corpus.path)
    assert code == 0 and "subjects: 6" in out and "labels: group findings age state" in out
    code, out, _ = run(capsys, encoder, corpus.path)
    assert code == 0 and "has seen 1 of the 6 subjects" in out and "part test" not in out
    code, out, _ = run(capsys, encoder, corpus.path, "--splits", "official")
    assert "has seen 1 of the 4 subjects of part train" in out and "has seen 0 of the 1 subjects of part test" in out


def test_the_classes_of_a_label_are_counted_by_part(capsys, corpus):
    code, out, _ = run(capsys, corpus.path, "--label", "group")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0 and "label group (multiclass), parts of split official:" in out
    assert ["part", "class", "windows", "records", "subjects"] in lines and ["all", "slow", "24", "3", "3"] in lines
    assert ["test", "slow", "0", "0", "0"] in lines and ["test", "fast", "8", "1", "1"] in lines
    code, out, _ = run(capsys, corpus.path, "--label", "findings", "--json")
    label = json.loads(out)["label"]
    assert (label["name"], label["kind"], label["split"]) == ("findings", "multilabel", "official")
    assert list(label["counts"]) == ["all", "train", "val", "test"]
    assert label["counts"]["all"][-1] == {"class": "unknown", "windows": 8, "records": 1, "subjects": 1}
    code, out, _ = run(capsys, corpus.path, "--label", "age")
    assert (
        code == 0
        and "median" in out
        and ["all", "known", "48", "6", "6", "40", "42.5", "45"] in [x.split() for x in out.splitlines()]
    )


def test_a_split_is_named_as_in_pretraining(capsys, tmp_path):
    bare = make_corpus(tmp_path / "bare", n_channels=2, n_subjects=9, windows_per_subject=4, splits={})
    make_split(bare, "cv", folds=3)
    code, out, _ = run(capsys, "ecg/jepa_small", bare.path, *SMALL)
    assert code == 0 and "split: cv\n" in out and "training_windows: 12\n" in out and "note: bare: split 'cv' is used" in out
    make_split(bare, "halves", fractions=(0.5, 0.0, 0.5))
    code, out, err = run(capsys, "ecg/jepa_small", bare.path, *SMALL)
    assert code == 2 and out == "" and "several splits (cv, halves)" in err and err.count("\n") == 1
    code, out, _ = run(capsys, "ecg/jepa_small", bare.path, "--splits", "cv:2", *SMALL)
    assert code == 0 and "split: cv:2\n" in out and "note" not in out
    code, out, _ = run(capsys, bare.path, "--label", "group")  # a corpus with several splits is a good one
    assert code == 0 and "note: " in out and "--splits NAME" in out and "train" not in out
    code, out, _ = run(capsys, bare.path, "--label", "group", "--splits", "halves")
    assert code == 0 and "parts of split halves" in out and "train  slow" in out


def test_a_label_of_which_one_class_occurs_is_told(capsys, tmp_path):
    made = make_corpus(tmp_path / "one", n_channels=1, n_subjects=1, windows_per_subject=2)
    code, out, _ = run(capsys, made.path, "--label", "group")
    assert code == 0 and "note: label 'group': only class slow occurs" in out


def test_json_is_one_object_alone_on_stdout(capsys, corpus):
    code, out, err = run(capsys, corpus.path, "--json")
    assert code == 0 and json.loads(out)["windows"] == 48 and "good" in err


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["ecg/jepa_small", "CORPUS", "--mask.rato", "0.6"], 2, "key 'mask.rato' is not known; did you mean 'ratio'?"),
        (["ecg/jepa_small", "CORPUS", "--model.patch_s", "0.123"], 2, "model.patch_s"),
        (["ecg/jepa", "CORPUS", "--data.channels", "[I, II]"], 4, "the corpus has 100 Hz"),
        (["eeg/jepa_small", "CORPUS"], 2, "the recipe is for eeg"),
        (["CORPUS", "--label", "grop"], 4, "grop"),
        (["ecg/jepa_small", "--label", "group"], 2, "needs a corpus"),
        (["ecg/jepa_small", "--splits", "cv"], 2, "--splits cv: needs a corpus"),
        (["ecg/jepa_small", "CORPUS", "--splits", "offical"], 4, "did you mean 'official'"),
        (["CORPUS", "--splits", "official:1"], 2, "has no folds"),
        (["hapt", "--train.steps", "5"], 2, "only a recipe has keys to set"),
        (["ecg/jepa_smal"], 2, "did you mean 'ecg/jepa_small'?"),
        (["EMPTY"], 2, "neither a corpus"),
        (["ecg/jepa_small", "EMPTY"], 2, "not a corpus"),
    ],
)
def test_a_fault_is_one_line_with_its_exit_code(capsys, corpus, tmp_path, argv, code, text):
    places = {"CORPUS": str(corpus.path), "EMPTY": str(tmp_path)}
    got, out, err = run(capsys, *[places.get(a, a) for a in argv])
    assert got == code and text in err and err.count("\n") == 1 and err.startswith("biossl check: ") and out == ""


def test_a_damaged_shard_and_a_damaged_encoder_are_exit_4(capsys, tmp_path, corpus, encoder):
    damaged = make_corpus(tmp_path / "d", n_channels=2, n_subjects=3)
    shard = next(damaged.path.glob("shard-*.h5"))
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2] ^= 1
    shard.write_bytes(raw)
    code, _, err = run(capsys, damaged.path)
    assert code == 4 and shard.name in err
    import shutil

    copy = shutil.copytree(encoder, tmp_path / "encoder")
    weights = bytearray((copy / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(weights)
    code, _, err = run(capsys, copy)
    assert code == 4 and "weights.safetensors" in err


def test_the_fold_whose_labels_are_counted_is_said_once(tmp_path):
    from biossl.cli.check import _label

    bare = make_corpus(tmp_path / "bare", n_subjects=6, n_channels=1, windows_per_subject=2, splits={})
    make_split(bare, "cv", folds=3)
    counted, notes = _label(bare, "group", None)
    assert counted["split"] == "cv:0" and "bare: split 'cv' is used, the only one" in notes
    assert [n for n in notes if "fold" in n] == ["split cv: fold 0 of 3; --splits cv:1 is another"]
    assert _label(bare, "group", "cv")[1] == [n for n in notes if "the only one" not in n]
