"""The text of a drafted card, and what is still to be done in it: both from one list, so that they agree.

What lives here: :func:`draft_text`. What the files say was found by ``draft.py``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from biossl.channels import canonical
from biossl.config import dump_yaml, to_plain
from biossl.corpus.card_check import CHECK, UNKNOWN
from biossl.io.table import TableSpec
from biossl.signal import CANONICAL_UNIT, CH_TYPES

_WINDOW_S = {"ecg": 10.0, "eeg": 4.0, "imu": 2.56}
_TEXTS = {
    "title": "what the recordings are",
    "licence": "who may use them for what",
    "citation": "how to cite them",
    "version": "which release or day of export",
    "obtain": "where they come from",
}


def draft_text(
    name: str,
    facts: dict[str, Any],
    entries: Sequence[dict[str, Any]],
    *,
    rate: float,
    by_subject: bool,
    unknown: Sequence[str],
    nameless: bool,
    minutes: Sequence[float],
) -> tuple[str, list[str]]:
    """Commented YAML with a ``CHECK`` at everything a person has to look at, and the same as a list.

    Parameters
    ----------
    name : str
    facts : dict
        Of :func:`biossl.corpus.draft.draft_card`.
    entries : sequence of dict
        Entries of ``files``.
    rate : float
        Hz of the view.
    by_subject : bool
        The patterns have a group ``subject``.
    unknown : sequence of str
        Channels without a unit.
    nameless : bool
        No channel's name is known.
    minutes : sequence of float
        Lengths of the recordings read.

    Returns
    -------
    text : str
    to_do : list of str
        ``keys: what to do``, one entry a ``CHECK`` of the text, the empty texts (title ...) in one.
    """
    modality, channels = facts["modality"], facts["channels"]
    to_do = [f"{', '.join(_TEXTS)}: fill in"]

    def check(keys: str, text: str) -> str:
        to_do.append(f"{keys}: {text}")
        return f"# {CHECK} the {keys}: {text}"

    rates = ", ".join(f"{r:g}" for r in facts["rates"])
    count = ", ".join(f"{n} {kind}" for kind, n in facts["formats"].items())
    lines = [
        f"# Draft from {facts['read']} of {facts['files']} files ({count}), {_span(minutes)}, {rates} Hz.",
        f"# Mend every line marked {CHECK}, then: biossl check THIS_FILE, biossl convert THIS_FILE FOLDER CORPUS --view windows",
        dump_yaml({"format": 1, "name": re.sub(r"[^a-z0-9_-]+", "_", name.lower()).strip("_-") or "my_recordings"}).rstrip(),
        f"title: {CHECK} {_TEXTS['title']}",
    ]
    if nameless:
        lines.append(check("modality and channel_map", "the names of the channels say nothing here"))
    lines += [
        dump_yaml({"modality": modality}).rstrip(),
        *(f"{key}: {CHECK} {_TEXTS[key]}" for key in list(_TEXTS)[1:]),
        "# false: subjects become keyed hashes and dates day offsets; nothing of the hospital's names leaves the corpus folder",
        "public: false",
        check(
            "files",
            "is the pattern right? Named groups record, subject, visit, placement and any covariate, on the end of the path",
        ),
        dump_yaml({"files": [{**e, "table": _table(e["table"])} if "table" in e else e for e in entries]}).rstrip(),
        "# Hz; a file of another rate is quarantined",
        dump_yaml({"native_sfreq": facts["rates"]}).rstrip(),
    ]
    if unknown:
        lines += _units(unknown, modality, check)
    if by_subject:
        how = "the id in the names that several files share was taken for the subject"
    else:
        how = "each record is taken for a person until the card says otherwise"
    lines += [
        check("subjects", how),
        "# (group = the pattern's group, record = every record is another person, table = a column of a metadata table)",
        dump_yaml({"subjects": "group" if by_subject else "record"}).rstrip(),
        "# Metadata by record or subject; only the columns named here are kept (source column: covariate):",
        "# tables:",
        "#   - {file: patients.csv, key: id, on: subject, columns: {age: age, sex: sex}}",
        check("views", "what is one window? `biossl list cards --copy ptbxl .` gives a card with filters and labels to look at"),
    ]
    view: dict[str, Any] = {"sfreq": rate, "window_s": round(_WINDOW_S[modality] * rate) / rate}
    view |= {"stride_s": view["window_s"], "channels": channels}
    if facts["partly"]:
        view["optional_channels"] = True
        some = ", ".join(f"{n} in {k}" for n, k in facts["partly"].items())
        lines.append(check("optional_channels", f"of {facts['read']} files read {some}; unobserved in the others"))
    if facts["not_common"]:
        lines += [
            check("channels", f"{n} is in {k} of the {facts['read']} files read, so the view leaves it out")
            for n, k in facts["not_common"].items()
        ]
        own = " and its files get an entry of their own under files" if any("table" in e for e in entries) else ""
        lines.append(f"# (with 'optional_channels: true' a view may name it{own}: unobserved where a file has none)")
    return "\n".join([*lines, dump_yaml({"views": {"windows": view}}).rstrip()]) + "\n", to_do


def _span(minutes: Sequence[float]) -> str:
    low, high = (f"{f(minutes):.1f}" for f in (min, max))
    return f"{low} minutes each" if low == high else f"{low} to {high} minutes each"


def _table(spec: TableSpec) -> dict[str, Any]:
    defaults = to_plain(TableSpec(sfreq=spec.sfreq))
    return {k: v for k, v in to_plain(spec).items() if k == "sfreq" or v != defaults[k]}


def _units(unknown: Sequence[str], modality: str, check: Any) -> list[str]:
    units = {}
    for channel in unknown:
        kind = canonical(channel, modality)[1]
        units[kind if kind != "other" else channel] = UNKNOWN
    usual = [k for k in ("ecg", "eeg", "acc", "gyro") if k in units or not set(units) & set(CH_TYPES)]
    example = ", ".join(f"{k}: {CANONICAL_UNIT[k]}" for k in usual)
    return [
        check("units", f"not every file states those of {', '.join(units)}; write what the device measures"),
        f"# e.g. {example}; '1' = uncalibrated",
        dump_yaml({"units": units}).rstrip(),
    ]
