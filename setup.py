"""What setup.cfg cannot say: the manual page is made of the help texts when a wheel is built."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).parent))  # an isolated build does not have it there

from upsert_cli.cli.manual import manual_page

PAGE = Path("build", "man", "upsert-cli.1")
PAGE.parent.mkdir(parents=True, exist_ok=True)
PAGE.write_text(manual_page(), encoding="ascii")

setup(data_files=[("share/man/man1", [str(PAGE)])])
