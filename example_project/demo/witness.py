"""What was written, by PostgreSQL's own count: independent of the demo's traffic, of Django and of the WAL.

The statistics count every row that any session inserted, updated or deleted, cascades and other people's psql included.
They count rolled-back rows too, so the demo rolls nothing back.
"""

from collections import Counter

from django.apps import apps
from django.db import connection
from django.db.models import Sum

from example_project.demo.ledger import Counts
from example_project.shop.models import OrderStatusAudit, Product, StockTotal

KEPT_BY_RECEIVERS = (OrderStatusAudit, StockTotal)

COUNTS = """
    SELECT relid::regclass::text, n_tup_ins, n_tup_upd, n_tup_del
    FROM pg_stat_user_tables WHERE relid = ANY(%s::regclass[])
"""


def counts() -> Counts:
    """Count all that was ever written to the shop's watched tables."""
    labels = {
        model._meta.db_table: model._meta.label
        for model in apps.get_app_config("shop").get_models(include_auto_created=True)
        if model not in KEPT_BY_RECEIVERS
    }
    result: Counts = Counter()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")  # else this session's own counts may be a second late
        cursor.execute(COUNTS, [list(labels)])
        for table, *numbers in cursor.fetchall():
            for operation, number in zip(("insert", "update", "delete"), numbers, strict=True):
                result[labels[table], operation] = number
    return result


def stock_totals() -> tuple[int, int]:
    """Return the stock total as the products say, and as the receiver kept it."""
    summed = Product.objects.aggregate(units=Sum("stock", default=0))["units"]
    return summed, StockTotal.objects.get(pk=StockTotal.ONLY).units
