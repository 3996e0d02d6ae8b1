"""The data card: facts of a data set and its named views, as strict dataclasses read from YAML.

What lives here: the schema of ``data_cards/*.yaml`` and :func:`load_card`. What makes a card contradict itself is in
``card_check.py``. No file of a data set is opened here; ``discover.py`` lists them, ``views.py`` cuts, ``convert.py``
stores.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from biossl.config import build, load_yaml
from biossl.io.table import TableSpec
from biossl.resources import resource
from biossl.signal import FilterSpec


@dataclass
class Filter:
    """Filters of a view; see :class:`biossl.signal.FilterSpec`."""

    highpass_hz: float | None = None
    lowpass_hz: float | None = None
    notch_hz: float | None = None
    order: int = 4
    bridge_s: float = 0.5

    def spec(self) -> FilterSpec:
        """The frozen form stored in an InputSpec."""
        return FilterSpec(self.highpass_hz, self.lowpass_hz, self.notch_hz, self.order, self.bridge_s)


@dataclass
class Intervals:
    """One file of labelled intervals for all recordings (HAPT ``labels.txt``).

    Attributes
    ----------
    file : str
        End of its path below the source (also inside a zip).
    columns : list of str
        Names of its columns, which have no header line; separated by white space.
    key : dict
        Column -> named group of the pattern it equals (whole numbers are compared as numbers: ``1`` is ``01``).
    start, end, label : str
        Columns. ``start`` and ``end`` are sample numbers.
    first : int
        Number the file gives to the first sample.
    end_inclusive : bool
        The sample ``end`` belongs to the interval.
    kind : str
    """

    file: str
    columns: list[str]
    key: dict[str, str]
    start: str = "start"
    end: str = "end"
    label: str = "label"
    first: int = 0
    end_inclusive: bool = False
    kind: str = "activity"


@dataclass
class Files:
    """Which files make up the set.

    Attributes
    ----------
    pattern : str
        Regular expression on the end of the path below the source, beginning at the start of a folder or file name
        (forward slashes; files inside a zip count as in folders). WFDB: the header. Named groups ``record``,
        ``subject``, ``visit``, ``placement`` and any covariate. Without ``record`` the path without suffix is the
        record's name.
    reader : str
        ``wfdb``, ``edf``, ``brainvision``, ``wav`` or ``table`` (a fact checked against the file's content).
    annotations : list of str
        WFDB annotation extensions (``atr``; LUDB one per lead).
    table : TableSpec
        For ``table``: how to read one file.
    kind : str
        Kind given to every mark of these files that the reader could only call ``note`` (``trial`` for T0 T1 T2).
    event_labels : dict
        Label in the file -> label used, where its meaning depends on the file (EEGMMIDB: T1 is another movement in
        other runs).
    unmarked : dict
        Kind -> label that stretches without an interval of that kind have (CPSC 2021 marks only what begins and ends:
        before the first ``(AFIB`` the rhythm is ``N``). Without an entry such stretches are unknown.
    covariates : dict
        Covariates that are the same for all these files.
    intervals : Intervals
        A file of labelled intervals beside the recordings.
    """

    pattern: str
    reader: Literal["wfdb", "edf", "brainvision", "wav", "table"]
    annotations: list[str] = field(default_factory=list)
    table: TableSpec | None = None
    kind: str = ""
    event_labels: dict[str, str] = field(default_factory=dict)
    unmarked: dict[str, str] = field(default_factory=dict)
    covariates: dict[str, str] = field(default_factory=dict)
    intervals: Intervals | None = None


@dataclass
class MetadataTable:
    """A CSV of the set, one row per record or subject, joined by ``key``.

    ``file`` is the end of its path below the source. ``key`` is the column, ``on`` what it equals: ``record``,
    ``subject``, ``path`` (the path without suffix) or a named group of the pattern. ``key_format`` turns the cell into
    that text (``"{}"``; ``"{:05d}"``), ``columns`` renames the columns kept (allow-list: source column -> covariate).
    ``whole_numbers`` are columns whose ``12.0`` means ``12``; ``replace`` maps cells of a column to what they mean
    (after that; ``""`` = unknown). ``subject_column`` names the subject's column for ``subjects: table``.
    """

    file: str
    key: str
    on: str = "record"
    key_format: str = "{}"
    separator: str = ","
    columns: dict[str, str] = field(default_factory=dict)
    whole_numbers: list[str] = field(default_factory=list)
    replace: dict[str, dict[str, str]] = field(default_factory=dict)
    subject_column: str | None = None


@dataclass
class Label:
    """A named target a corpus can be probed with.

    Attributes
    ----------
    kind : str
        ``multiclass``, ``multilabel`` or ``regression``, of windows; ``dense``, of every sample.
    source : str
        ``event`` (the window's own event, views ``inside_labels`` and ``around_events``), ``overlap`` (the interval
        event covering most of the window), ``covariate`` (a covariate of the record). Of a sliding view ``event`` is ``overlap``.
    event_kind : str
        Which events count (``beat``, ``activity``, ``stage`` ...).
    column : str
        For ``covariate``.
    parse : str
        How a covariate's text becomes codes: ``value`` as it is, ``codes`` split at commas or spaces, ``scp`` a Python
        dict literal code -> likelihood.
    map : dict
        Class -> list of source labels. A source label in no list is unknown (missing), never negative.
    threshold : float
        For ``scp``: likelihoods from this on count.
    cover : float
        Of intervals: share of a window that one class must cover, from .5 (more than half) to 1 (all of it), else the label is unknown.
    depends : list of str
        What of the signal it is read from (keys of :data:`biossl.augment.depends.DEPENDENCES`): no augmentation of a run
        that is judged by it may destroy that.
    background : str
        For ``dense``: class of the samples that lie in no event; empty = they are unknown.
    last_s : float
        Of covariates: only windows that lie in the last ``last_s`` seconds of a recording count, back from the end of its last window
        with signal (padding is none); the others are unknown. 0 = all. Two labels of the same classes let a model of one be judged by
        the other.
    confounds : str
        What else differs between the classes; printed beside every figure of the label.
    judged : str
        For ``dense``: ``whole``, or ``annotated`` where a channel is outlined only in part: what lies before its first and after its
        last annotated boundary is unknown.
    """

    kind: Literal["multiclass", "multilabel", "regression", "dense"]
    source: Literal["event", "overlap", "covariate"]
    map: dict[str, list[str]] = field(default_factory=dict)
    event_kind: str = ""
    column: str = ""
    parse: Literal["value", "codes", "scp"] = "value"
    threshold: float = 0.0
    cover: float = 0.5
    description: str = ""
    depends: list[str] = field(default_factory=list)
    last_s: float = 0.0
    confounds: str = ""
    background: str = ""
    judged: Literal["whole", "annotated"] = "whole"


@dataclass
class Split:
    """An official split: ``by`` subject, record or a covariate; name of the part -> values."""

    by: Literal["subject", "record", "covariate"]
    parts: dict[str, list[str]]
    column: str = ""
    citation: str = ""


@dataclass
class View:
    """How recordings become windows.

    Attributes
    ----------
    sfreq : float
        Hz after resampling (polyphase, anti-aliased, on the continuous record).
    window_s, stride_s : float
        Seconds. For ``around_events`` the stride is not used.
    channels : list of str
        Canonical names, in order; derivable leads are derived. ``chest=V1|V5`` is the first of these that is there,
        under the name ``chest``.
    optional_channels : bool
        True: an absent channel is stored as not observed instead of quarantining the record.
    policy : str
        ``sliding`` over each contiguous run; ``inside_labels`` sliding inside each labelled interval, restarted at its
        first sample, windows that do not fit dropped, in (record, interval) order; ``around_events`` one window per
        event, from ``event_offset_s`` before it.
    event_kind : str
        Which events ``inside_labels`` and ``around_events`` use.
    event_labels : list of str
        Only these labels (empty = all of the kind).
    event_offset_s : float
        Seconds before the event's onset at which its window starts.
    reference : str
        EEG: ``as_recorded`` or ``average`` (of the chosen EEG channels).
    max_missing : float
        Largest share of unobserved samples a window may have, over the channels its record has.
    files : str
        Restricts the card's pattern for this view (a regular expression found in the path), e.g. ``records100/``.
    """

    sfreq: float
    window_s: float
    stride_s: float
    channels: list[str]
    policy: Literal["sliding", "inside_labels", "around_events"] = "sliding"
    filter: Filter = field(default_factory=Filter)
    event_kind: str = ""
    event_labels: list[str] = field(default_factory=list)
    event_offset_s: float = 0.0
    reference: Literal["as_recorded", "average"] = "as_recorded"
    max_missing: float = 0.2
    optional_channels: bool = False
    files: str = ""
    description: str = ""


@dataclass
class Card:
    """Facts of one data set.

    Attributes
    ----------
    format : int
        Schema version, 1.
    name, title, modality, licence, citation, version, obtain : str
        ``obtain`` says how to get the set (URL, agreement).
    public : bool
        False: subjects become keyed hashes, dates day offsets, paths are not stored.
    files : list of Files
    native_sfreq : list of float
        Hz; a file of another rate is quarantined.
    units : dict
        Channel or channel type -> unit, where the file does not state it (``"1"`` = uncalibrated).
    channel_map : dict
        Source channel name -> canonical name, where the packaged aliases do not suffice.
    subjects : str
        ``group`` (the pattern's named group), ``record`` or ``table`` (``MetadataTable.subject_column``).
    tables : list of MetadataTable
    header_covariates : dict
        Covariate -> header comment key (``Dx``, ``Age``; WFDB ``#Key: value``).
    same_person : list of lists
        Subjects that are one person; the first name is used.
    labels, splits, views : dict
    overlaps : list of str
        Cards that share recordings or people with this one.
    overlap_where : dict
        Of a card in ``overlaps``: covariate -> its values in the shared recordings (``{ptbxl: {site: [HR]}}``); default all are.
    known_defects : list of str
    expected : dict
        Counts of the full public set (``records``, ``subjects``); ``--partial`` allows fewer.
    """

    format: int
    name: str
    title: str
    modality: Literal["ecg", "eeg", "imu"]
    licence: str
    citation: str
    version: str
    obtain: str
    files: list[Files]
    native_sfreq: list[float]
    views: dict[str, View]
    public: bool = True
    units: dict[str, str] = field(default_factory=dict)
    channel_map: dict[str, str] = field(default_factory=dict)
    subjects: Literal["group", "record", "table"] = "group"
    tables: list[MetadataTable] = field(default_factory=list)
    header_covariates: dict[str, str] = field(default_factory=dict)
    same_person: list[list[str]] = field(default_factory=list)
    labels: dict[str, Label] = field(default_factory=dict)
    splits: dict[str, Split] = field(default_factory=dict)
    overlaps: list[str] = field(default_factory=list)
    overlap_where: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    known_defects: list[str] = field(default_factory=list)
    expected: dict[str, int] = field(default_factory=dict)


def load_card(name_or_path: str | Path) -> Card:
    """A card, checked.

    Parameters
    ----------
    name_or_path : str or path
        A packaged card's name (``ptbxl``) or a YAML file.

    Raises
    ------
    RequestError
        No such card, a key that is unknown or of another type, or a card that contradicts itself.

    Examples
    --------
    >>> load_card("ptbxl").modality
    'ecg'
    """
    from biossl.corpus.card_check import check_card

    text = str(name_or_path)
    packaged = not (text.endswith((".yaml", ".yml")) or "/" in text or "\\" in text or Path(text).is_file())
    path = resource(f"data_cards/{text}.yaml") if packaged else Path(text)
    card = build(Card, load_yaml(path), where=str(path))
    check_card(card, where=str(path))
    return card
