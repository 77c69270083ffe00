"""How did the ledger's tables become what they are? Alembic's revisions, applied by `Ledger.upgrade`."""
