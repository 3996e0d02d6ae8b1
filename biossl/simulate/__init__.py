"""Simulated people with known truth, written as ordinary files: for the demo, the tests and the examples.

What lives here: generators of recordings (ECG as WFDB, EEG as EDF, IMU as CSV), each with a card and a truth table. They
serve where no recording may be shared; a number measured on them is a statement about software, not about patients.
"""
