"""What is wrong with a Chroma server, or with the way to it."""

from __future__ import annotations

from upsert_cli.errors.base import UpsertCliError, UsageFault


class BadServerAddress(UsageFault):
    """Raised when what was typed as a server's address cannot be one."""

    reason: str
    """Never holds a password that the address has."""

    def __str__(self) -> str:
        return (
            f"--chroma takes a folder, `cloud`, or a server such as http://localhost:8000 or "
            f"https://host/tenant/database; {self.reason} (tokens come from UPSERT_CLI_CHROMA_TOKEN)"
        )


class ServerOrFolder(UsageFault):
    """Raised when a target looks like a server's address without its scheme, and no folder has that name."""

    typed: str
    server: str
    folder: str

    def __str__(self) -> str:
        return (
            f"{self.typed} is neither a server's address nor a folder that exists; write {self.server} for the "
            f"server, or {self.folder} for a new folder of that name"
        )


class BadAccess(UsageFault):
    """Raised when the variable or the file that lets us into a server does not hold what it should."""

    source: str
    """The variable that was used, with the file if it names one."""

    reason: str

    def __str__(self) -> str:
        return f"{self.source} cannot be used: {self.reason}"


class ServerUnreachable(UpsertCliError):
    """Raised when nothing answers at a server's address, or nothing that we may trust."""

    url: str
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.url} cannot be reached: {self.reason}; see whether the address is right (`chroma run` listens at "
            f"port 8000), whether a server runs there, and which proxies and certificates the environment names"
        )


class NotAChromaServer(UpsertCliError):
    """Raised when something answers that is no Chroma, or one that speaks another language."""

    url: str
    found: str
    """What it is, as the end of a sentence: `a Chroma of version 0.5.3`."""

    def __str__(self) -> str:
        return (
            f"{self.url} is {self.found}, and a Chroma server of version 1 is needed; see whether the address is right"
        )


class NotChromasAnswer(UpsertCliError):
    """Raised when what answers a request, or stands in between, is not Chroma: nothing is known to be written."""

    url: str
    request: str
    """Method and path."""

    found: str
    """What the answer is, such as `200 OK with a page for a browser`."""

    def __str__(self) -> str:
        return (
            f"{self.url}: the answer to {self.request} is not Chroma's ({self.found}); see whether the address is "
            f"right and whether a proxy, gateway or login page answers in its place, then try again"
        )


class TokenRefused(UpsertCliError):
    """Raised when a server does not let us in."""

    url: str
    status: int
    sources: tuple[str, ...]
    """Where the credentials came from: names of variables, with the files that they name."""

    def __str__(self) -> str:
        if self.sources:
            return (
                f"{self.url} refuses access ({self.status}) with the credentials of {' and '.join(self.sources)}; "
                f"see whether they are right for this server"
            )
        return (
            f"{self.url} refuses access ({self.status}); UPSERT_CLI_CHROMA_TOKEN, or the file that "
            f"UPSERT_CLI_CHROMA_TOKEN_FILE names, has to hold a token for it (for the cloud also CHROMA_API_KEY)"
        )


class ProxyRefuses(UpsertCliError):
    """Raised when a proxy on the way to a server does not let us through."""

    url: str
    variables: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"the proxy on the way to {self.url} refuses access (407); see whether user and password in "
            f"{' or '.join(self.variables) or 'HTTPS_PROXY'} are right, or name the host in NO_PROXY"
        )


class DatabaseNotFound(UpsertCliError):
    """Raised when a server has no such tenant or database."""

    url: str
    tenant: str | None
    database: str | None

    def __str__(self) -> str:
        if self.tenant is None or self.database is None:
            return (
                f"{self.url} does not say for which database the token is; name it as "
                f"--chroma {self.url}/TENANT/DATABASE, or in CHROMA_TENANT and CHROMA_DATABASE"
            )
        return (
            f"{self.url} has no database {self.database} of a tenant {self.tenant}; make it there, or name another as "
            f"--chroma {self.url}/TENANT/DATABASE"
        )


class ServerFailing(UpsertCliError):
    """Raised when a server that worked before fails for longer than the user wants to wait."""

    url: str
    reason: str
    seconds: float
    """For which it was tried again."""

    pause: float = 0.0
    """Seconds for which the server asks to be left alone."""

    def __str__(self) -> str:
        wish = f", and asks to be left alone for {self.pause:.0f} s" if self.pause else ""
        return (
            f"{self.url} has failed for {self.seconds:.0f} s: {self.reason}{wish}; all that it confirmed is "
            f"checkpointed, so restart the task once it is well again, or allow more with --retry-for"
        )


class ServerRefuses(UpsertCliError):
    """Raised when a server answers with an error that is no row's fault and that does not pass."""

    url: str
    collection: str
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.url} fails on the collection {self.collection} ({self.reason}); its own log says more. Once it is "
            f"mended, try again"
        )
