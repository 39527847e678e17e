"""Keeps the libraries below from reporting home: who loads data with this tool tells nobody about it."""

from __future__ import annotations

import os

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime writes a device id and a database of events into the home folder
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ANONYMIZED_TELEMETRY": "False",  # chromadb
}


def switch_off() -> None:
    """Switches the telemetry of all libraries off, before any of them is imported; child processes inherit it."""
    os.environ.update(SWITCHES)
