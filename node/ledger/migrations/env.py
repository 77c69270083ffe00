"""How does Alembic run here? On the connection, and within the transaction, of :meth:`node.ledger.Ledger.upgrade`."""

from __future__ import annotations

from alembic import context

from node.ledger.models import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter columns in place
)
context.run_migrations()
