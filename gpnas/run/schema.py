"""The tables of a journal, and how an older journal gets them."""

from __future__ import annotations

import sqlite3

SCHEMA_VERSION = 3

_EVALUATIONS = """
CREATE TABLE evaluations (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    trial INTEGER NOT NULL REFERENCES trials (id), rung INTEGER NOT NULL,
    hash TEXT NOT NULL, epochs INTEGER NOT NULL, imgsz INTEGER NOT NULL, data_share REAL NOT NULL, seed INTEGER NOT NULL,
    state TEXT NOT NULL, evaluation TEXT, started REAL NOT NULL, finished REAL,
    UNIQUE (trial, rung, seed), UNIQUE (hash, epochs, imgsz, data_share, seed)
);
"""

_SCHEMA = f"""
CREATE TABLE run (
    settings TEXT NOT NULL, state TEXT NOT NULL, elapsed REAL NOT NULL, created REAL NOT NULL
);
CREATE TABLE trials (
    id INTEGER PRIMARY KEY, hash TEXT NOT NULL, genotype TEXT NOT NULL, origin TEXT NOT NULL,
    score REAL NOT NULL, params INTEGER NOT NULL, macs INTEGER NOT NULL
);
{_EVALUATIONS}
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL
);
"""

_FROM_2 = f"""
ALTER TABLE evaluations RENAME TO evaluations_2;
{_EVALUATIONS}
INSERT INTO evaluations
    SELECT number, trial, rung, hash, epochs, imgsz, data_share, 0, state, evaluation, started, finished FROM evaluations_2;
DROP TABLE evaluations_2;
"""
"""Evaluations had no seed in version 2: all were of seed 0."""


def create(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty database, in one transaction."""
    connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")


def version_after_migration(connection: sqlite3.Connection) -> int:
    """Bring the tables of version 2 up to date, in one transaction; returns the version, which may be an unknown one."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != 2:
        return version
    connection.executescript(f"BEGIN IMMEDIATE; {_FROM_2} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    return SCHEMA_VERSION
