"""A publication for as long as a temporary slot, and what becomes of it where its owner is killed.

Its owner holds an advisory lock on its name (``commands.take``) from before it is made, on the connection that then
streams from the slot. The server gives that lock up when the connection ends, however it ends: so a publication whose
lock can be had has no owner any more, and one with an owner can't be taken for such. Only names of our own making are
looked at.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from django.db import DatabaseError, connections, transaction

from django_walsignals.conf import StreamConfig
from django_walsignals.exceptions import WalSignalsError
from django_walsignals.provisioning.ddl import Report, run_ddl
from django_walsignals.provisioning.setup import StreamSetUp
from django_walsignals.replication import commands
from django_walsignals.replication.catalogue import Server

logger = logging.getLogger(__name__)

_PREFIX: Final = "walsignals_tmp_"

_OF_OURS: Final = "SELECT pubname::text FROM pg_publication WHERE pubname ~ %s ORDER BY 1"

#: The lock of ``commands.take``, until the end of the transaction: a pooler may hand the session to somebody else.
_TAKE: Final = "SELECT pg_try_advisory_xact_lock(hashtext('django_walsignals'), hashtext(%s))"


def temporary_name() -> str:
    """Make up a name for a publication, and for the slot beside it."""
    return f"{_PREFIX}{secrets.token_hex(6)}"


@contextmanager
def temporary_publication(config: StreamConfig, server: Server, report: Report = logger.warning) -> Iterator[None]:
    """Keep the stream's publication for a while only, leave its tables' identity alone, and sweep up behind others.

    It holds all columns, those too that are excluded and thus never decoded: under a list of columns, a table that is
    made FULL meanwhile would refuse the application's UPDATE and DELETE.

    ``report`` is called with a line where it can't be dropped afterwards.
    """
    sweep(config.database)
    plan = StreamSetUp(replace(config, replica_identity="keep", exclude={}), server, logger.info).plan()
    try:
        for step in plan.steps:
            run_ddl(config.database, step.statement)
        yield
    finally:
        _drop(config, report)


def sweep(alias: str) -> list[str]:
    """Drop the temporary publications of this database whose owners are gone; return their names."""
    with connections[alias].cursor() as cursor:
        cursor.execute(_OF_OURS, [f"^{_PREFIX}[0-9a-f]{{12}}$"])
        found = [name for (name,) in cursor.fetchall()]
    return [name for name in found if _drop_ownerless(alias, name)]


def _drop_ownerless(alias: str, name: str) -> bool:
    """Drop a publication if its lock can be had; one that is another role's, or in somebody's hands, is let be."""
    try:
        with transaction.atomic(using=alias, durable=True), connections[alias].cursor() as cursor:
            cursor.execute(_TAKE, [name])
            (is_ownerless,) = cursor.fetchone()
            if is_ownerless:
                cursor.execute("SET LOCAL lock_timeout = '2s'")
                cursor.execute(commands.drop_publication(name))
    except DatabaseError as exc:
        logger.info("Publication %s, whose owner is gone, stays behind: %s", name, " ".join(str(exc).split()))
        return False
    if is_ownerless:
        logger.info("Dropped publication %s, whose owner is gone", name)
    return bool(is_ownerless)


def _drop(config: StreamConfig, report: Report) -> None:
    try:
        connections[config.database].close()  # whatever state it is in
        run_ddl(config.database, commands.drop_publication(config.publication))
    except (DatabaseError, WalSignalsError) as exc:
        report(
            f"Publication {config.publication} stays behind ({' '.join(str(exc).split())}); the next waltail or "
            "walconsume --temporary drops it."
        )
