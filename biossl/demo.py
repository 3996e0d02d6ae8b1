"""The main job on simulated patients, from recordings to a report, each step with the functions the verbs call.

What lives here: the order of the steps and their settings. Every number printed is computed; the recipe is
``recipes/demo/ecg_jepa.yaml``. The simulator was written and committed before that recipe.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from biossl.errors import RequestError

SEED = 1  # of the cohort; the recipe was chosen on seed 1000
PATIENTS = 900  # the test part is three in ten of them
TEST_SHARE = 0.3
POOL = "mean"


def demo(out: str | Path, *, seed: int = SEED, patients: int = PATIENTS, overwrite: bool = False) -> dict[str, Any]:
    """Simulate, convert, pretrain, probe, embed, report.

    Parameters
    ----------
    out : path
        Folder to make: ``recordings/``, ``corpus/``, the run ``simulated_ecg/``, ``embeddings.parquet`` and ``report.html``.
    seed : int
        Of the simulated patients.
    patients : int
        How many are simulated; the settings were chosen for the default.
    overwrite : bool
        Remove what is in ``out``.

    Returns
    -------
    dict
        ``report``, ``embeddings``, ``run`` (paths), ``probe`` (the result of :func:`biossl.probe.probe`), ``seconds``.

    Raises
    ------
    RequestError
        ``out`` exists and ``overwrite`` is False, or it is no folder of a demo.

    Examples
    --------
    >>> demo("runs/demo")["report"]  # doctest: +SKIP
    'runs/demo/report.html'
    """
    from biossl.corpus import Corpus, convert
    from biossl.embeddings import embed_to_parquet
    from biossl.probe import probe
    from biossl.recipe import load_recipe
    from biossl.report import write_report
    from biossl.simulate.ecg import write_patients
    from biossl.training import pretrain

    run = Path(out)
    begun = time.monotonic()
    if run.exists() and any(run.iterdir() if run.is_dir() else [run]):
        if (run / "report.html").is_file() and not overwrite:
            raise RequestError(f"{run}: exists; give another --out, or --overwrite")
        if not (run / "recordings").is_dir():  # what was stopped half-way is begun anew
            raise RequestError(f"{run}: exists and is no demo; give another --out")
        shutil.rmtree(run)
    card = write_patients(run / "recordings", n_patients=patients, seed=seed, test_share=TEST_SHARE)
    converted = convert(card, card.parent, run / "corpus", view="resting")
    corpus = Corpus.open(converted["path"])
    trained = pretrain(load_recipe("demo/ecg_jepa"), [(corpus, 1.0)], run / "simulated_ecg")
    judged = probe(trained["run"], corpus, "diagnosis", pool=POOL, seed=seed)
    embed_to_parquet(trained["encoder"], corpus.path, run / "embeddings.parquet")
    write_report(trained["run"], run / "report.html", label="diagnosis")
    return {
        "report": str(run / "report.html"),
        "embeddings": str(run / "embeddings.parquet"),
        "run": trained["run"],
        "probe": judged,
        "seconds": round(time.monotonic() - begun, 1),
    }
