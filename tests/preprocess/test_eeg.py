from __future__ import annotations

import numpy as np

from biossl.preprocess.eeg import average_reference


def test_eeg_channels_sum_to_zero_and_others_are_left_alone() -> None:
    x = np.random.default_rng(0).standard_normal((5, 100)).astype(np.float32)
    x[1, 10:20] = np.nan
    y = average_reference(x, ["eeg", "eeg", "eeg", "ecg", "eeg"])
    np.testing.assert_allclose(np.nansum(y[[0, 1, 2, 4]], axis=0), 0.0, atol=1e-5)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    np.testing.assert_array_equal(y[3], x[3])


def test_differences_between_electrodes_do_not_change() -> None:
    x = np.random.default_rng(1).standard_normal((3, 50))
    y = average_reference(x, ["eeg"] * 3)
    np.testing.assert_allclose(y[0] - y[2], x[0] - x[2])
