"""What setup.cfg cannot say: a wheel's manual page is made of the help texts, and an sdist has the tests."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.sdist import sdist

sys.path.insert(0, str(Path(__file__).parent))  # an isolated build does not have it there

from upsert_cli.cli.help import manual_page
from upsert_cli.cli.root import cli


class CompleteSource(sdist):
    """A source distribution whose tests can be run."""

    def make_distribution(self) -> None:
        """Add the tests, their data, and what describes the project."""
        described = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
        for name in (*described, ".editorconfig", ".gitattributes", ".gitignore", ".pre-commit-config.yaml"):
            self.filelist.include(name)
        for folder in (".ci", ".github", "sample_data", "tests"):
            self.filelist.graft(folder)
        self.filelist.global_exclude("*.py[cod]")
        super().make_distribution()


PAGE = Path("build", "man", "upsert-cli.1")
PAGE.parent.mkdir(parents=True, exist_ok=True)
PAGE.write_text(manual_page(cli), encoding="ascii")

setup(cmdclass={"sdist": CompleteSource}, data_files=[("share/man/man1", [str(PAGE)])])
