"""What is wrong with the settings of a file."""

from __future__ import annotations

from upsert_cli.errors.base import UsageFault


class ConfigUnreadable(UsageFault):
    """Raised when a file of settings cannot be read, or is not TOML."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} cannot be read ({self.reason}); it has to be TOML, or name another file with --config"


class ConfigUntrusted(UsageFault):
    """Raised when a file of settings that nobody named is, or could be, somebody else's."""

    path: str
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.path} is not used, since {self.reason}; make it yours (`chown`, `chmod go-w`), "
            f"name it with --config if you trust it, or do without any with --config /dev/null"
        )


class UnknownSetting(UsageFault):
    """Raised when a file of settings has a key that no option has."""

    key: str
    where: str
    """Table and file: `[run] of /data/upsert-cli.toml`."""

    nearest: str | None

    def __str__(self) -> str:
        meant = f", did you mean `{self.nearest}`?" if self.nearest else ";"
        shown = "`upsert-cli config show --config /dev/null`"  # which reads no file, and so not this one
        return f"`{self.key}` in {self.where} is no setting{meant} {shown} lists all settings"


class BadSetting(UsageFault):
    """Raised when a file of settings has a value of a wrong kind."""

    key: str
    where: str
    needed: str
    """Such as `true or false`."""

    def __str__(self) -> str:
        return f"`{self.key}` in {self.where} has to be {self.needed}"


class UnknownProfile(UsageFault):
    """Raised when no file of settings has the profile that is asked for."""

    name: str
    nearest: str | None
    files: tuple[str, ...]
    """Those that were read."""

    def __str__(self) -> str:
        if not self.files:
            return f"there is no file of settings, so no profile {self.name!r}; --config names the file that has it"
        meant = f", did you mean `{self.nearest}`?" if self.nearest else ";"
        return f"no profile {self.name!r} in {' or '.join(self.files)}{meant} [profile.{self.name}] would make it one"
