"""The database: what is kept, and how it is read. Nobody else knows of SQLite, peewee or SQL."""
