"""Private sets: what the card names stays readable, every other text only tells categories apart."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from corpus_factory import synthetic_card

import biossl
from biossl.corpus.card import Label, Split
from biossl.corpus.identity import Pseudonyms, day_number
from biossl.corpus.privacy import id_shape, private_card, private_covariates, private_fault

NAMES = Pseudonyms(b"s" * 32)
CARD = synthetic_card(
    labels={
        "sex": Label("multiclass", "covariate", {"m": ["Herr"], "f": ["Frau"]}, column="sex"),
        "dx": Label("multilabel", "covariate", {"af": ["164889003"], "sr": ["426783006"]}, column="dx", parse="codes"),
        "scp": Label("multilabel", "covariate", {"MI": ["IMI"]}, column="scp", parse="scp"),
        "count": Label("regression", "covariate", column="count"),
        "age": Label("regression", "covariate", column="years"),
    },
    splits={"official": Split("covariate", {"train": ["north wing"]}, column="ward")},
)


def kept(column: str, text: str) -> str:
    return private_covariates({column: text}, CARD, NAMES, "subject key", ["MRN1", "rec7"])[column]


@pytest.mark.parametrize(
    ("column", "text", "expected"),
    [
        ("age", "61", "61"), ("age", "61.5", "61.5"), ("age", "", ""), ("dose", "1e-3", "1e-3"),
        ("sex", "Frau", "Frau"), ("gender", "F", "F"), ("gender", "Female", "Female"), ("ward", "north wing", "north wing"),
        ("dx", "426783006,55555,Smith", "426783006"), ("dx", "Smith", ""), ("scp", "{'IMI': 80.0, 'Smith': 0}", "{'IMI': 80.0}"),
        ("scp", "Smith", ""), ("count", "1234567", "1234567"), ("note", "of MRN1", ""), ("note", "rec7", ""),
        ("seen", "03/04/1950", ""), ("seen", "3 Apr 1950", ""),
        ("age", "89", "89"), ("age", "89.9", "89.9"), ("age", "90", "90"), ("age", "97.5", "90"), ("patientAge", "101", "90"),
        ("AGE_years", "93", "90"), ("years", "95", "90"), ("age_months", "1104", "1080"), ("age_months", "300", "300"),
        ("age", "300", "300"), ("age", "999", "999"), ("dosage", "95", "95"), ("pages", "95", "95"),
        ("born", "1950-04-03", ""), ("date_of_birth", "1950-04-03", ""), ("DOB", "19500403", ""),
        ("AgeYears", "97", "90"), ("ageYears", "97", "90"), ("AgeAtVisit", "97", "90"), ("patientage", "97", "90"),
        ("PATIENTAGE", "97", "90"), ("agedays", "35000", "32872"), ("Alter", "97", "90"), ("alterJahre", "97", "90"),
        ("Patientenalter", "97", "90"), ("ageinyears", "97", "90"), ("visit_age", "97", "90"),
        ("stage", "95", "95"), ("sleepStage", "95", "95"), ("page", "95", "95"), ("image", "95", "95"), ("IMAGE", "95", "95"),
        ("average", "95", "95"), ("voltage", "95", "95"), ("AGENT", "95", "95"), ("ageing", "95", "95"),
        ("alternans", "95", "95"), ("alteration", "95", "95"), ("Averages", "95", "95"), ("percentage", "95", "95"),
        ("Geburtsdatum", "1950-04-03", ""), ("date_naissance", "1950-04-03", ""), ("fechaNacimiento", "1950-04-03", ""),
        ("BirthYear", "1950", ""), ("birth_weight", "3400", "3400"), ("BirthWeightGrams", "3400", "3400"),
        ("birth_order", "2", "2"), ("Geburtsgewicht", "3400", "3400"),
    ],
)  # fmt: skip
def test_what_is_kept(column: str, text: str, expected: str) -> None:
    assert kept(column, text) == expected


@pytest.mark.parametrize("text", ["Smith", "Smith, John", "778812", "0171 5556677", "south wing"])
def test_other_text_becomes_a_key_that_tells_categories_apart(text: str) -> None:
    key = kept("site", text)
    assert text not in key and key.startswith("k") and len(key) == 13
    assert key == kept("site", text) != kept("site", text + "x") and key != kept("ward", text)


def test_dates_move_with_the_patient() -> None:
    day = NAMES.day(day_number("2020-01-05") or 0, "subject key")
    assert kept("date", "2020-01-05 13:00") == f"{day:.0f}" and float(kept("date", "20200107")) == day + 2


def test_the_stored_card_names_nobody() -> None:
    card = synthetic_card(
        same_person=[["anna", "berta"]],
        splits={"a": Split("subject", {"train": ["anna"], "test": ["clara"]}), "b": Split("record", {"train": ["r1"]})},
    )
    stored = private_card(card, NAMES)
    assert stored.same_person == [] and stored.splits["a"].parts["train"] == [NAMES.subject("berta", card)]
    assert stored.splits["b"].parts["train"] == [NAMES.record("r1", card)]


def test_every_code_a_reader_has_says_what_is_wrong_and_what_to_do() -> None:
    package = Path(biossl.__file__).parent
    text = "".join(p.read_text(encoding="utf-8") for room in ("io", "corpus") for p in (package / room).glob("*.py"))
    codes = set(re.findall(r'RecordError\(\s*"(\w+)"', text)) - {"wrong_shape"}
    told = {code: private_fault(code, CARD.modality) for code in codes}
    assert len(codes) > 15 and len(set(told.values())) == len(codes)
    assert all(";" in text and not text.startswith(code) for code, text in told.items())
    assert "`units: {ecg: mV}`" in told["unknown_unit"]


@pytest.mark.parametrize(
    ("ids", "shape"),
    [
        ([f"P{i:03d}" for i in range(9)], "A999"), ([f"{i}" for i in range(5)], "9"), (["P001", "P002"], ""),
        (["Ada", "Berta", "Clara Zebrowski"], ""), ([*(f"s_{i}" for i in range(5)), "Ada Zebrowski"], "a_9"),
    ],
)  # fmt: skip
def test_the_shape_of_ids_tells_none_of_them(ids: list[str], shape: str) -> None:
    assert id_shape(ids) == shape
