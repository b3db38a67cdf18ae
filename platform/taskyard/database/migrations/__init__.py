"""The migrations of the schema, for Alembic: one file for each version."""
