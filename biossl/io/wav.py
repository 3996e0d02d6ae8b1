"""WAV files that hold biosignals: counts and a rate, no names and no units.

What lives here: one reader. Everything a WAV does not state comes from the card.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from biossl.errors import RecordError
from biossl.io.common import calibrate, meta, reader
from biossl.signal import Recording


@reader
def read_wav(
    path: str | Path,
    *,
    modality: str | None = None,
    channel_map: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
) -> list[Recording]:
    """Read a PCM WAV file as uncalibrated counts.

    Parameters
    ----------
    path : path
    modality, channel_map, units
        See :func:`biossl.io.common.calibrate`; the channels are called ``ch1``, ``ch2`` ...

    Returns
    -------
    list of Recording
        One, unit ``1`` unless ``units`` states another for a channel.

    Raises
    ------
    RecordError
        ``truncated``, ``empty``, ``unreadable``.

    Examples
    --------
    >>> read_wav("psg.wav")[0].units  # doctest: +SKIP
    ('1', '1')
    """
    from scipy.io import wavfile

    path = Path(path)
    with open(path, "rb") as f:
        stated = int.from_bytes(f.read(8)[4:], "little") + 8
    if path.stat().st_size < stated:
        raise RecordError("truncated", f"the header states {stated} bytes, the file has {path.stat().st_size}; copy it again")
    sfreq, counts = wavfile.read(path)
    counts = counts.reshape(counts.shape[0], -1)
    if counts.shape[0] == 0:
        raise RecordError("empty", "the file holds no sample")
    names = [f"ch{i + 1}" for i in range(counts.shape[1])]
    cal = calibrate(names, ["1"] * len(names), modality=modality, channel_map=channel_map, units=units)
    return [
        Recording(
            data=(counts.T * cal.factors[:, None]).astype(np.float32), sfreq=float(sfreq), ch_names=cal.names,
            ch_types=cal.types, units=cal.units, record=path.stem, meta=meta("wav", names, cal.findings),
        )
    ]  # fmt: skip
