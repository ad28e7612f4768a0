"""What follows from a committed change, whoever made it. `django_walsignals` imports this module by its name.

Effects in the database commit together with the consumer's checkpoint: they happen exactly once. All others happen at
least once, with `change.id` to tell a repeat.

Receivers that write must not listen to what they write, or each change would cause another: no receiver here names
OrderStatusAudit or StockTotal, so those tables are not even published.
"""

from typing import Any

from django.core.mail import send_mail
from django.db.models import F

from django_walsignals import Operation, WalChange, on_change, on_insert, on_update, post_wal_change
from example_project.shop import feed
from example_project.shop.models import Customer, Order, OrderItem, OrderStatusAudit, Product, StockTotal, Tag
from example_project.shop.prices import forget_price


@on_insert(Customer)
def welcome(change: WalChange[Customer]) -> None:
    """Greet a new customer. Mail cannot be rolled back: a crash at the wrong moment sends it twice."""
    customer = change.instance
    send_mail(f"Welcome, {customer.name}!", "It is good to have you.", None, [customer.email])


@on_update(Order, fields=["status"])
def audit_status(change: WalChange[Order]) -> None:
    """Keep one row for each change of status: a database effect, so there are no repeats to look for."""
    status = change.diff["status"]
    OrderStatusAudit.objects.create(
        order_id=change.pk,
        old_status=status.old,
        new_status=status.new,
        committed_at=change.transaction.committed_at,
        change_id=change.id,
    )


@on_update(Product, fields=["price"])
def forget_cached_price(change: WalChange[Product]) -> None:
    """Forget a price that changed, also by `bulk_update()` or in psql; forgetting twice does no harm."""
    forget_price(change.pk)


@on_change(Product, fields=["stock"])
def keep_stock_total(change: WalChange[Product]) -> None:
    """Add what this change adds: adding twice would be wrong, and exactly once is what database effects get."""
    before = change.old.stock if change.old else 0
    after = 0 if change.operation == Operation.DELETE else change.instance.stock
    StockTotal.objects.filter(pk=StockTotal.ONLY).update(units=F("units") + after - before)


def show(change: WalChange[Any], **kwargs: Any) -> None:
    """Hand every change to whoever watches: the log, and the demo's screen."""
    feed.publish(change)


for model in (Customer, Tag, Product, Product.tags.through, Order, OrderItem):
    post_wal_change.connect(show, sender=model)
