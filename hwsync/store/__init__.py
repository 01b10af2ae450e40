"""The database: what is kept of records and commands, and how it is read again.

The law: nobody outside of this package knows of SQLite, peewee or SQL, and this package knows of
the protocol only. What the database or its disk raise comes out as ``DatabaseError``; of an open
store as its subclass ``StoreError``, which may heal.

- ``api``: what the coordinator needs of a store, and what it saves in one go
- ``store``: the coordinator's own one; ``database``: its open file; ``saving``: a round as rows
- ``models``, ``rows``, ``statements``: tables, values by name, all SQL
- ``migrations``: older schemas; ``chain``: the hashes over the log
- ``reader``, ``inspection``, ``checking``: from outside; ``read_only``: how they open the file
- ``backups``, ``restoring``; ``retention``, ``pruning``: what need not be kept
- ``private``: which accounts may read the files
"""
