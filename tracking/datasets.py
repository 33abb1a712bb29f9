"""The data of a run as MLflow's inputs."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tracking.lines import Lines


def datasets(lines: Lines) -> list[Any]:
    """The data's name and digest, as the input of training and of evaluation."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    spec = lines.header["spec"]
    data = spec.get("data") or {}
    own = data.get("fingerprint") or data.get("digest")
    digest = str(own or hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16])[:36]
    source = json.dumps({"tags": {"mlflow.source.type": "LOCAL", "mlflow.source.name": "kdbench"}})
    names = {"train": str(spec["dataset"]), "eval": f"{spec['dataset']} (held out)"}  # one name would be stored once
    return [
        DatasetInput(
            Dataset(name, digest, "code", source, profile=json.dumps(data)[:16000]),
            [InputTag("mlflow.data.context", context)],
        )
        for context, name in names.items()
    ]
