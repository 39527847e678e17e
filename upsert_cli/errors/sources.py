"""What is wrong with a source, or with how it is to be read."""

from __future__ import annotations

import shlex

from upsert_cli.errors.base import Refusal, UpsertCliError, UsageFault


class SourceNotFound(UsageFault):
    """Raised when a source names nothing that exists."""

    name: str

    def __str__(self) -> str:
        return f"{self.name} does not exist; name a file, a folder or a glob, or `-` for standard input"


class BadAddress(UsageFault):
    """Raised when a source is an address that cannot be read."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"the address {self.name} cannot be read: {self.reason}"


class NoItemFiles(UsageFault):
    """Raised when a folder or a glob holds no file of a known format."""

    name: str
    known: tuple[str, ...]
    """Suffixes."""

    skipped: int = 0
    """Files and folders whose names begin with `_` or `.`."""

    def __str__(self) -> str:
        looked_for = f"looked for {', '.join(self.known)}"
        if self.skipped:
            looked_for += f", but not in {self.skipped:,} files or folders whose names begin with `_` or `.`"
        return f"{self.name} holds no file of items; {looked_for}"


class TableFolder(Refusal):
    """Raised when a folder is that of a table whose log says which of its files are valid."""

    name: str
    kind: str
    """Such as `Delta`."""

    remedy: str
    """May hold `FOLDER`."""

    def __str__(self) -> str:
        remedy = self.remedy.replace("FOLDER", shlex.quote(self.name))
        return (
            f"{self.name} is a {self.kind} table, whose files also hold rows that were deleted or replaced, "
            f"so nothing was written; {remedy}"
        )


class UnknownFormat(UsageFault):
    """Raised when the suffix of a file that was named says nothing about its format."""

    name: str
    known: tuple[str, ...]
    """Suffixes."""

    content: str | None = None
    """What its first bytes say, such as `Parquet; --format parquet reads it`."""

    def __str__(self) -> str:
        if self.content is not None:
            return f"{self.name} has no suffix that tells its format; it is {self.content}"
        json = "; `jq -c '.[]'` makes JSONL of a JSON array" if self.name.lower().endswith(".json") else ""
        return (
            f"{self.name} has none of the suffixes {', '.join(self.known)}; "
            f"--format says what it is, such as --format jsonl{json}"
        )


class SourceUnreadable(UpsertCliError):
    """Raised when a source cannot be opened, or not be read to its end."""

    name: str
    reason: str
    row: int = 0
    """The last row that could be read."""

    remedy: str | None = None
    """How to load it, if it is sound; None: it is not."""

    def __str__(self) -> str:
        if self.name == "-":
            return f"standard input cannot be read ({self.reason}); pipe data into it, or name a file"
        where = f"{self.name} cannot be read beyond row {self.row}" if self.row else f"{self.name} cannot be read"
        if self.remedy is not None:
            return f"{where}: {self.reason}; {self.remedy}"
        remedy = "see that it can be reached" if "://" in self.name else "mend the file"
        return f"{where} ({self.reason}); {remedy} or leave it out, then load again"


class ForeignForm(UsageFault):
    """Raised when a source is in a form that has to be converted before it is loaded."""

    name: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name} is not loaded as it is: {self.reason}; {self.remedy}"


class SourceChanged(Refusal):
    """Raised when a source is no longer what a checkpoint was made for."""

    name: str
    how: str
    """Such as `size 120 -> 180 bytes`."""

    task_id: str | None = None
    """None where whoever reads the file knows of no task."""

    is_gone: bool = False
    """It cannot be read at all."""

    def __str__(self) -> str:
        if self.is_gone:
            return f"{self.name} cannot be read any more ({self.how}); put it back as it was, then try again"
        again = "with --from-start a restart"
        if self.task_id is not None:
            again = f"`upsert-cli restart {self.task_id} --from-start`"
        return (
            f"{self.name} changed since the task was last run ({self.how}), so its checkpoint means nothing; "
            f"{again} reads it anew"
        )


class ScratchUnusable(UpsertCliError):
    """Raised when the ids that have to be remembered find no room in the temporary folder."""

    reason: str

    def __str__(self) -> str:
        return (
            f"the temporary folder ($TMPDIR, or else /var/tmp) cannot be used ({self.reason}); make room there or "
            f"set TMPDIR to another folder, then restart the task"
        )


class SpoolFailed(UpsertCliError):
    """Raised when standard input or a pipe cannot be kept for a restart."""

    path: str
    reason: str

    def __str__(self) -> str:
        return (
            f"the input cannot be kept in {self.path} ({self.reason}); give it as a file, or choose another --journal"
        )


class TextFieldMissing(UsageFault):
    """Raised when the first item has none of the fields whose text is to be embedded."""

    source: str
    row: int
    wanted: tuple[str, ...]
    there: tuple[str, ...]
    """Dotted paths of the fields that the payload has, the first few."""

    beside: tuple[str, ...] = ()
    """Of the fields that the row has beside an empty payload."""

    def __str__(self) -> str:
        where = f"{self.source}, row {self.row}"
        wanted = " or ".join(f"`{name}`" for name in self.wanted)
        if self.beside:
            return (
                f"{where}: it has no payload with {wanted}, but {_quoted(self.beside)}; "
                f"--id-field object_id takes them as the payload, and --text-field names the text"
            )
        there = f"it has {_quoted(self.there)}" if self.there else "it is empty"
        return f"{where}: the payload has no {wanted}, {there}; --text-field names the text"


class IdFieldMissing(UsageFault):
    """Raised when none of the first rows has the field that the id is to be taken from."""

    source: str
    row: int
    wanted: str
    there: tuple[str, ...]
    """Dotted paths of the fields that the row has, the first few."""

    def __str__(self) -> str:
        there = f"it has {_quoted(self.there)}" if self.there else "it is empty"
        return (
            f"{self.source}, row {self.row}: there is no `{self.wanted}`, {there}; "
            f"--id-field names the id, --id-from row or hash makes one where there is none"
        )


class FieldsMissing(UsageFault):
    """Raised when none of the first items has a field that an option names."""

    source: str
    row: int
    option: str
    """Such as `--template`."""

    wanted: tuple[str, ...]
    there: tuple[str, ...]
    """Dotted paths of the fields that the payload has, the first few."""

    def __str__(self) -> str:
        there = f"it has {_quoted(self.there)}" if self.there else "it is empty"
        return (
            f"{self.source}, row {self.row}: the payload has no {_quoted(self.wanted)}, {there}; "
            f"correct {self.option}, which takes dotted paths"
        )


class RowIdsRepeat(UsageFault):
    """Raised when ids are to be made of file and row, and two files have the same name."""

    name: str

    def __str__(self) -> str:
        return (
            f"two files are called {self.name}, so --id-from row would give their rows the same ids; "
            f"rename one of them, or use --id-from hash"
        )


class BadTemplate(UsageFault):
    """Raised when a template cannot be understood."""

    template: str
    reason: str

    def __str__(self) -> str:
        return (
            f"--template {self.template!r}: {self.reason}; it takes `{{field}}` or `{{outer.inner}}`, "
            f"and `{{{{` and `}}}}` for the braces themselves"
        )


class BadMapping(UsageFault):
    """Raised when what says how to read a file cannot be understood."""

    where: str
    """A file of `--map`, or an option."""

    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


class SplitterMissing(UpsertCliError):
    """Raised when texts are to be split and the package that does it is not installed."""

    def __str__(self) -> str:
        return "--split needs a package that is not installed; `pip install 'upsert-cli[split]'` installs it"


class PartsTooLong(Refusal):
    """Raised when parts of texts are to be longer than what the model reads."""

    asked: int
    model: str
    limit: int

    def __str__(self) -> str:
        return f"--max-tokens {self.asked}: {self.model} reads at most {self.limit} tokens; give that, or less"
