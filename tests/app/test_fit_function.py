"""`fit` and `resume` as a caller in Python has them: no Ray, simulator or MLflow, and nothing left of mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from embodichain.archive import Archive, ArchiveWriter
from embodichain.contracts import seed_range
from embodichain.replay import fake_episode

ROOT = Path(__file__).parents[2]
TRAIN = seed_range("train").start
FUNCTION = """
import json, sys
for name in ("ray", "sapien", "mani_skill", "mlflow", "gymnasium", "zarr"):
    sys.modules[name] = None  # importing it raises
from pathlib import Path
from embodichain.app.config import LearnerConfig
from embodichain.app.fit import FitConfig, fit, resume
from embodichain.contracts import WindowSpec
from embodichain.replay import ReplayConfig
from learner.config import preset

archive, output = sys.argv[1:]
steps = []
config = FitConfig(
    name="x", output=output, archive=archive, heldout=0.2,
    window=WindowSpec(frames=2, tau=8, chunk=8), replay=ReplayConfig(min_size_pairs=100, max_reuse=8),
    learner=LearnerConfig(steps=4, batch_windows=4, network=preset("tiny")),
)
first = fit(config, on_step=lambda step, losses, spent: steps.append((step, spent)), stop=lambda: len(steps) == 2)
folder = Path(output) / first["name"]
second = resume(folder, on_step=lambda step, losses, spent: steps.append((step, spent)))
refused = []
for wrong in (dict(archive=output), dict(archive=archive, heldout=0.999999)):
    try:
        fit(FitConfig(**{"name": "none", "output": output, **wrong}))
    except ValueError as error:
        refused.append(str(error))
print(json.dumps([first, second, steps, refused]))
"""


def test_fit_is_a_function_that_needs_no_ray_and_no_simulator(tmp_path):
    archive = tmp_path / "a"
    with ArchiveWriter(Archive.create(str(archive)), 0) as writer:
        for seed in range(12):
            writer.append(fake_episode(TRAIN + seed, 40, 4, 12))
    words = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{FUNCTION}", "a", "runs"]
    done = subprocess.run(words, cwd=tmp_path, text=True, capture_output=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    first, second, steps, refused = json.loads(done.stdout)
    assert (first["status"], first["learner_steps"], first["name"]) == ("stopped", 2, "x")
    assert (second["status"], second["learner_steps"], second["skipped"]) == ("done", 4, 0)
    assert steps == [[1, 0.0], [2, 0.25], [3, 0.5], [4, 0.75]]
    folder = tmp_path / "runs" / "x"
    assert json.loads((folder / "summary.json").read_text()) == second
    assert f"archive: {archive}" in (folder / "fit.yaml").read_text()  # found from anywhere
    assert "no archive.json there" in refused[0]
    assert "no episodes to learn from" in refused[1]
    assert [path.name for path in folder.parent.iterdir()] == ["x"]  # nothing of what was refused
