"""Where benchmarks leave their figures: small JSON under docs/results, with the date and the hardware."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent.parent / "docs" / "results"


def keep(name: str, **figures: Any) -> None:
    """Write docs/results/NAME.json."""
    hardware = f"{torch.get_num_threads()} threads, {torch.cpu.get_capabilities().get('cpu_name')}"
    if torch.cuda.is_available():
        hardware += f", {torch.cuda.get_device_name()}"
    about = {"name": name, "date": date.today().isoformat(), "hardware": hardware, "torch": torch.__version__}
    (RESULTS / f"{name}.json").write_text(json.dumps(about | figures, indent=1) + "\n", encoding="utf-8")
