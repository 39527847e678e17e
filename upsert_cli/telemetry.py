"""Keeps the libraries from reporting home: nobody learns who loads data with this tool."""

from __future__ import annotations

import os

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime writes a device id and an event database into the home folder
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ANONYMIZED_TELEMETRY": "False",  # chromadb
}


def switch_off() -> None:
    """Switch off the telemetry of all libraries before any of them is imported; child processes inherit the setting."""
    os.environ.update(SWITCHES)
