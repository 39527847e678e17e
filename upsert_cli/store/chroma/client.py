"""A client of Chroma for a folder or a server. No other module imports chromadb."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from upsert_cli.packages import lean_imports

if TYPE_CHECKING:
    from chromadb.api.client import Client
    from chromadb.auth import UserIdentity

    from upsert_cli.store.chroma.http_session import HttpSession

# `model_construct` takes the defaults alone: variables of the environment or a .env file cannot redirect a client.


def connect_folder(path: str) -> Client:
    """Open the Chroma in a folder."""
    with lean_imports():
        import chromadb
        from chromadb.config import Settings

    settings = Settings.model_construct(anonymized_telemetry=False)
    return cast("Client", chromadb.PersistentClient(path, settings=settings))


def connect_server(session: HttpSession, url: str, *, tenant: str, database: str) -> Client:
    """Connect to a Chroma server through our session."""
    with lean_imports():
        import chromadb.api.client
        from chromadb.auth import UserIdentity
        from chromadb.config import Settings

    class PatientClient(chromadb.api.client.Client):
        """A client that sends every request through our session, from the first one on."""

        def get_user_identity(self) -> UserIdentity:
            """Replace the session in the first call of the constructor; the identity needs no request."""
            self._server._session.close()  # type: ignore[attr-defined]  # there is no other way
            self._server._session = session  # type: ignore[attr-defined]
            return UserIdentity(user_id="", tenant=tenant, databases=[database])

        def _validate_tenant_database(self, tenant: str, database: str) -> None:
            """Skip the check, which would use another session; `ServerDatabase` has made it."""

    settings = Settings.model_construct(
        anonymized_telemetry=False,
        chroma_api_impl="chromadb.api.fastapi.FastAPI",
        chroma_server_host=url,
        chroma_server_http_port=0,  # the address has it
    )
    return PatientClient(tenant=tenant, database=database, settings=settings)
