"""Which model a table of the WAL belongs to.

The tables of all models are looked up once, on Django's own connection, so that its search path and names in quotes
count as they do for the ORM. A relation is then found by OID, or by name where its OID is of another time (a restored
database, a table made anew). While streaming nothing asks the catalogue: it knows today's tables, the WAL knows those
of its own day.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

from django_walsignals.protocol.messages import Relation

# A partition's changes are published under its root's name, unless a publication made elsewhere says otherwise: then
# they come under the partition's name, and are the root's model's all the same.
_LOOK_UP: Final = """
    WITH wanted AS (
        SELECT position, to_regclass(name) AS root
        FROM unnest(%s::text[]) WITH ORDINALITY AS t(name, position)
    ), members AS (
        SELECT position, root, root AS relid FROM wanted WHERE root IS NOT NULL
        UNION
        SELECT position, root, tree.relid FROM wanted, pg_partition_tree(root) tree
    )
    SELECT position, c.oid::bigint, n.nspname, c.relname, members.relid = root, c.relkind = 'p'
    FROM members
    JOIN pg_class c ON c.oid = members.relid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    ORDER BY 5 DESC, 1
"""

_BASE_TYPES: Final = """
    WITH RECURSIVE base AS (
        SELECT oid AS domain, typbasetype AS type FROM pg_type WHERE typtype = 'd'
        UNION ALL
        SELECT base.domain, t.typbasetype FROM base JOIN pg_type t ON t.oid = base.type WHERE t.typtype = 'd'
    )
    SELECT base.domain::bigint, base.type::bigint
    FROM base JOIN pg_type t ON t.oid = base.type
    WHERE t.typtype <> 'd'
"""


class TableName(NamedTuple):
    """A table's schema and name, not quoted."""

    schema: str
    name: str


@dataclass(frozen=True, slots=True)
class TableRegistry:
    """The models by their table's OID and by its name."""

    by_oid: Mapping[int, type[models.Model]]
    by_name: Mapping[TableName, type[models.Model]]
    #: The type under each domain, by OID: a query's result has that one, and the WAL the domain's.
    base_types: Mapping[int, int] = field(default_factory=dict)
    #: The tables that are partitioned, by OID.
    partitioned: Collection[int] = ()

    @classmethod
    def load(cls, connection: BaseDatabaseWrapper, candidates: Sequence[type[models.Model]]) -> Self:
        """Look up the tables of these models in this database; of two models of one table the first counts."""
        names = [connection.ops.quote_name(model._meta.db_table) for model in candidates]
        with connection.cursor() as cursor:
            cursor.execute(_LOOK_UP, [names])
            rows = cursor.fetchall()
            cursor.execute(_BASE_TYPES)
            base_types = dict(cursor.fetchall())
        by_oid: dict[int, type[models.Model]] = {}
        by_name: dict[TableName, type[models.Model]] = {}
        for position, oid, schema, name, _is_root, _is_partitioned in rows:
            model = candidates[position - 1]
            by_oid.setdefault(oid, model)
            by_name.setdefault(TableName(schema, name), model)
        return cls(by_oid, by_name, base_types, frozenset(row[1] for row in rows if row[-1]))

    def model_for(self, relation: Relation) -> type[models.Model] | None:
        """Find the model of a relation; None for a table that no model describes."""
        model = self.by_oid.get(relation.relation_id)
        return model or self.by_name.get(TableName(relation.namespace, relation.name))
