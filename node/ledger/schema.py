"""Which schema does a database have, and does this version of the node know it?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from pipeline.errors import CmbError

if TYPE_CHECKING:
    from alembic.config import Config


class SchemaError(CmbError):
    """A database, or a copy of one, cannot be used: a newer version made it, or it is not empty."""


@dataclass(frozen=True)
class SchemaVersion:
    """The schema of a database, and those that this version knows, oldest first.

    Parameters
    ----------
    current : str
        Empty if there are no tables yet.
    """

    current: str
    known: tuple[str, ...]

    @property
    def newest(self) -> str:
        """The schema that this version works with."""
        return self.known[-1]

    @property
    def is_newer(self) -> bool:
        """Whether a newer version of the node made it."""
        return bool(self.current) and self.current not in self.known

    def require_known(self) -> None:
        """Refuse a schema of a newer version: its rows may mean something that this one does not know.

        Raises
        ------
        SchemaError
            If a newer version of the node made it.
        """
        if self.is_newer:
            raise SchemaError(
                f"it has schema {self.current}, and this version knows schemas up to {self.newest}",
                where="database",
                do="install the version that wrote it, or restore a backup that was made before the upgrade",
            )


def migrations() -> Config:
    """Where Alembic finds the migrations."""
    from alembic.config import Config  # heavy, and only needed here

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    return config


def known_schemas() -> tuple[str, ...]:
    """The schemas that this version knows, oldest first."""
    from alembic.script import ScriptDirectory

    return tuple(reversed([one.revision for one in ScriptDirectory.from_config(migrations()).walk_revisions()]))


def schema_version(connection: Connection) -> SchemaVersion:
    """Read the schema of a database."""
    from alembic.migration import MigrationContext

    return SchemaVersion(MigrationContext.configure(connection).get_current_revision() or "", known_schemas())
