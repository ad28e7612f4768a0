"""The tables of the models to publish, as the catalogue has them, and what would break the application's own writes.

PostgreSQL accepts a table into a publication and then refuses the application's UPDATE and DELETE, where the table
has no replica identity, or has one that the publication does not cover. So each such case is looked for here first.
https://www.postgresql.org/docs/current/logical-replication-publication.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

from django_walsignals.replication.commands import TableRef

#: One row a table, and for a partitioned one a row for each of its partitions too, since each has an identity of its
#: own. The parameters are the tables' names as a query would quote them, and our publication's name. A table is
#: published under its own name or under that of a partitioned table above it.
_TABLES: Final = """
    WITH wanted AS (
        SELECT position, to_regclass(name) AS root
        FROM unnest(%(names)s::text[]) WITH ORDINALITY AS t(name, position)
    ), members AS (
        SELECT position, root, root AS relid FROM wanted WHERE root IS NOT NULL
        UNION
        SELECT position, root, tree.relid FROM wanted, pg_partition_tree(root) tree
    ), lines AS (
        SELECT members.relid, members.relid AS ancestor FROM members
        UNION
        SELECT members.relid, above.relid FROM members, pg_partition_ancestors(members.relid) AS above(relid)
    )
    SELECT
        members.position,
        members.relid = members.root,
        n.nspname,
        c.relname,
        c.relkind,
        c.relpersistence,
        c.relreplident,
        CASE c.relreplident
            WHEN 'f' THEN true
            WHEN 'd' THEN EXISTS (
                SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate)
            WHEN 'i' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident)
            ELSE false
        END,
        EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped AND a.attgenerated = 's'),
        EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped AND a.attgenerated = 'v'),
        ARRAY(
            SELECT DISTINCT p.pubname::text
            FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
            WHERE r.prattrs IS NOT NULL AND p.pubname <> %(publication)s
            AND r.prrelid IN (SELECT ancestor FROM lines WHERE lines.relid = c.oid)
        ),
        ARRAY(
            SELECT DISTINCT p.pubname::text
            FROM pg_publication p
            JOIN pg_publication_tables t ON t.pubname = p.pubname
            JOIN pg_namespace tn ON tn.nspname = t.schemaname
            JOIN pg_class tc ON tc.relname = t.tablename AND tc.relnamespace = tn.oid
            WHERE p.pubname <> %(publication)s
            AND coalesce(to_jsonb(p) ->> 'pubgencols', 'n') = 'n'
            AND tc.oid IN (SELECT ancestor FROM lines WHERE lines.relid = c.oid)
        ),
        ARRAY(
            SELECT a.attname::text FROM pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            AND (a.attgenerated = '' OR (a.attgenerated = 's' AND %(lists_generated)s))
            ORDER BY a.attnum
        ),
        ARRAY(
            SELECT a.attname::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE i.indrelid = c.oid AND a.attnum = ANY (i.indkey)
            AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
        )
    FROM members
    JOIN pg_class c ON c.oid = members.relid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    ORDER BY 1, 2 DESC, 3, 4
"""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A table, or a partition of one (``is_root`` is then false), and what its identity would allow.

    ``columns`` are those that a list in a publication may name, ``identity_columns`` those of the index that is its
    replica identity. ``column_lists`` are other publications', since ours is made to fit.
    """

    model: type[models.Model]
    is_root: bool
    table: TableRef
    kind: str
    persistence: str
    replica_identity: str
    has_identity: bool
    has_stored_generated: bool
    has_virtual_generated: bool
    column_lists: Sequence[str]
    without_generated_elsewhere: Sequence[str]
    columns: Sequence[str]
    identity_columns: Sequence[str]

    @property
    def not_publishable(self) -> str:
        """Why the table can't be in a publication; empty if it can."""
        if self.kind not in "rp":
            return "it is not a table"
        return {"p": "", "u": "it is UNLOGGED: the WAL does not hold it", "t": "it is temporary"}[self.persistence]

    @property
    def full_breaks_writes(self) -> str:
        """Why UPDATE and DELETE would fail under REPLICA IDENTITY FULL; empty if they would not."""
        if self.has_virtual_generated:
            return "it has a virtual generated column, which no publication can hold"
        if self.column_lists:
            return f"publication {', '.join(self.column_lists)} has a column list for it"
        if self.has_stored_generated and self.without_generated_elsewhere:
            return f"publication {', '.join(self.without_generated_elsewhere)} leaves out its generated column"
        return ""


def read_tables(
    connection: BaseDatabaseWrapper, wanted: Sequence[type[models.Model]], publication: str
) -> list[TableFacts]:
    """Read what the catalogue says of these models' tables; a model without a table has no row."""
    names = [connection.ops.quote_name(model._meta.db_table) for model in wanted]
    with connection.cursor() as cursor:
        version: int = connection.pg_version  # type: ignore[attr-defined]
        lists_generated = version >= 180000
        cursor.execute(_TABLES, {"names": names, "publication": publication, "lists_generated": lists_generated})
        rows = cursor.fetchall()
    return [_facts(wanted, row, version) for row in rows]


def _facts(wanted: Sequence[type[models.Model]], row: Sequence[Any], server_version: int) -> TableFacts:
    """Read one row of the query; before PostgreSQL 18 a generated column is no part of an identity, and harmless."""
    position, is_root, schema, name, kind, persistence, identity, has_identity, stored, virtual, *elsewhere = row
    counts = server_version >= 180000
    return TableFacts(
        wanted[position - 1],
        is_root,
        TableRef(schema, name),
        kind,
        persistence,
        identity,
        has_identity,
        stored and counts,
        virtual and counts,
        *elsewhere,
    )
