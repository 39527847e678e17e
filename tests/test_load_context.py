"""The events that a running load reports to its observer."""

from __future__ import annotations

import threading
from pathlib import Path
from unittest.mock import create_autospec

from tests.journal.conftest import start
from tests.support.journal_tasks import make_task
from upsert_cli.journal.journal import Journal
from upsert_cli.load.load_context import LoadContext, Observer


def test_a_message_of_another_thread_is_shown_at_the_latest_at_the_end(tmp_path: Path) -> None:
    """It waits for the main thread, which has just shown the progress, and may have nothing to show after that."""
    journal = Journal(tmp_path)
    journal.create(make_task("t"))
    with start(journal) as claim:
        observer = create_autospec(Observer, instance=True)
        context = LoadContext(claim, journal.find("t"), observer)
        context.show()
        thread = threading.Thread(target=context.warning, args=("a retry",))
        thread.start()
        thread.join()
        context.show_now(is_last=True)
    observer.warning.assert_called_once_with("a retry")
