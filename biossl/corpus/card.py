"""The data card: facts of a data set and its named views, as strict dataclasses read from YAML.

What lives here: the schema of ``data_cards/*.yaml``. No file of a data set is opened here; ``views.py`` discovers
and cuts, ``convert.py`` stores.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

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
class Files:
    """Which files make up the set.

    Attributes
    ----------
    pattern : str
        Regular expression on the path relative to the source (forward slashes; inside a zip: ``a.zip!inner/b.txt``).
        Named groups ``record``, ``subject``, ``visit``, ``placement`` and any covariate. Without ``record`` the path
        without suffix is the record's name.
    reader : str
        ``wfdb``, ``edf``, ``brainvision`` or ``table`` (a fact checked against the file's content).
    annotations : list of str
        WFDB annotation extensions (``atr``; LUDB one per lead).
    table : dict
        For ``table``: fields of :class:`biossl.io.table.TableSpec`.
    """

    pattern: str
    reader: Literal["wfdb", "edf", "brainvision", "table"]
    annotations: list[str] = field(default_factory=list)
    table: dict[str, Any] = field(default_factory=dict)


@dataclass
class MetadataTable:
    """A CSV of the set, one row per record or subject, joined by ``key``.

    ``key`` is the column, ``on`` what it equals (``record``, ``subject`` or ``path``: the path without suffix),
    ``key_format`` turns the cell into that text (``"{}"``; ``"Subject{:02d}"``), ``columns`` renames the columns kept
    (allow-list: source column -> covariate).
    """

    file: str
    key: str
    on: Literal["record", "subject", "path"] = "record"
    key_format: str = "{}"
    separator: str = ","
    columns: dict[str, str] = field(default_factory=dict)
    subject_column: str | None = None


@dataclass
class Label:
    """A named target a corpus can be probed with.

    Attributes
    ----------
    kind : str
        ``multiclass``, ``multilabel`` or ``regression``.
    source : str
        ``event`` (the window's own event, views ``inside_labels`` and ``around_events``), ``overlap`` (the interval
        event covering most of the window), ``covariate`` (a covariate of the record).
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
    """

    kind: Literal["multiclass", "multilabel", "regression"]
    source: Literal["event", "overlap", "covariate"]
    map: dict[str, list[str]] = field(default_factory=dict)
    event_kind: str = ""
    column: str = ""
    parse: Literal["value", "codes", "scp"] = "value"
    threshold: float = 0.0
    description: str = ""


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
        Canonical names, in order; derivable leads are derived.
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
        Largest share of unobserved samples a window may have.
    files : str
        Restricts the card's pattern for this view (a regular expression on the path), e.g. ``records100/``.
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
    known_defects: list[str] = field(default_factory=list)
    expected: dict[str, int] = field(default_factory=dict)
