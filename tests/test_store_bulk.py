"""Embedding folders without a store: in this process, and over Ray Data on a cluster of two nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fake_model import INFO, FakeModel, gallery, paint
from unicross.store.archive import EmbeddingArchive
from unicross.store.bulk import embed_folder

RUN = """
import json, sys
from pathlib import Path
import ray
from fake_model import FakeModel
from ray.cluster_utils import Cluster
from unicross.store import StoreInfo
from unicross.store.bulk import embed_folder_ray

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False)
nodes = len([node for node in ray.nodes() if node["Alive"]])
model = FakeModel()
info = StoreInfo(fingerprint=model.fingerprint(), checkpoint="m", dim=16)
steps, reports = [], []
for _ in range(2):
    report = embed_folder_ray(
        FakeModel, info, Path(sys.argv[1]), Path(sys.argv[2]), captions=Path(sys.argv[3]),
        on_progress=lambda done, total: steps.append((done, total)), workers=2,
    )
    reports.append([report.added, report.unchanged, [failure.reason for failure in report.failed]])
print(json.dumps({"nodes": nodes, "reports": reports, "last": steps[-1]}))
ray.shutdown()
cluster.shutdown()
"""


def test_two_folders_in_one_archive(tmp_path: Path) -> None:
    photos, other = gallery(tmp_path / "photos"), tmp_path / "other"
    paint(other / "pink.png", (250, 100, 150))
    for folder in (photos, other):
        embed_folder(FakeModel(), INFO, folder, tmp_path / "out", captions=None, on_progress=lambda *_: None)
    archive = EmbeddingArchive(tmp_path / "out")
    assert archive.info.roots == (str(photos.resolve()), str(other.resolve()))
    assert sum(map(len, archive.replay())) == 7


@pytest.mark.slow
def test_two_nodes_embed_what_one_process_does(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    photos = gallery(tmp_path / "photos")
    for number in range(30):
        paint(photos / "many" / f"{number}.png", (number * 8, 255 - number * 8, 90))
    (photos / "bad.png").write_bytes(b"no picture")
    (tmp_path / "captions.csv").write_text("image,caption,year\nred.png,a red wall,2020\n")
    result = subprocess.run(
        [sys.executable, "-c", RUN, str(photos), str(tmp_path / "out"), str(tmp_path / "captions.csv")],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parent),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": "300",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    said = json.loads(result.stdout.splitlines()[-1])
    reason = "not an image, or of a kind that Pillow does not know: replace it or remove it"
    assert said["nodes"] == 2
    assert said["reports"] == [[37, 0, [reason]], [0, 37, [reason]]]
    rows = {row.id: row for part in EmbeddingArchive(tmp_path / "out").replay() for row in part}
    assert len(rows) == 37
    (red,) = [row for row in rows.values() if row.path.endswith("/red.png") and row.kind == "image"]
    assert red.extra == {"year": 2020}
    assert all(row.extra == {} for row in rows.values() if not row.path.endswith("/red.png"))
    np.testing.assert_allclose(red.vector, FakeModel().encode_texts(["red"])[0], atol=1e-6)
