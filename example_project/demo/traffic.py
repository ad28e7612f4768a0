"""The shop's traffic: one small function for each way in which Django code, or SQL, writes rows."""

import random
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import NamedTuple, TypeVar

from django.db import connection, transaction
from django.db.models import F, Model

from example_project.shop.models import Customer, Order, OrderItem, Product, Tag

M = TypeVar("M", bound=Model)

NAMES = ("Ada", "Björn", "Chiara", "Dmitri", "Esra", "Farid", "Grete", "Hiro", "Inés", "Jun")
GOODS = ("tea", "coffee", "honey", "olives", "bread", "cheese", "soap", "candles")
TAGS = ("organic", "new", "sale", "local")
MOST_CUSTOMERS = 2
MOST_PRODUCTS = 12
"""The demo may run all day: what is more than that goes."""

SHIP = "UPDATE shop_order SET status = 'shipped' WHERE status = 'paid'"
CANCEL = "DELETE FROM shop_order WHERE id = (SELECT max(id) FROM shop_order)"


class Action(NamedTuple):
    """Something to do, and how to announce it."""

    title: str
    perform: Callable[[], object]


def actions() -> Iterator[Action]:
    """Yield actions for ever; each needs what those before it have written."""
    while True:
        yield Action("Product.objects.bulk_create([three products])", list_products)
        yield Action("Customer.objects.create(...)", sign_up)
        yield Action("one transaction: an order, its items, its total", place_order)
        yield Action("product.tags.add(two tags)", tag_product)
        yield Action("Product.objects.bulk_update([three products], ['price'])", raise_prices)
        yield Action("order.status = 'paid'; order.save()", pay)
        yield Action("product.attributes['colour'] = ...; product.save()", describe)
        yield Action("Product.objects.filter(...).update(stock=F('stock') - 1)", sell)
        yield Action(f"SQL: {SHIP}", ship_with_sql)
        yield Action("product.tags.set([two tags])", retag)
        yield Action(f"SQL, and the database's own cascade: {CANCEL}", cancel_with_sql)
        if Customer.objects.count() > MOST_CUSTOMERS:
            yield Action("customer.delete(), and Django's cascade", forget_customer)
        if _surplus_products():
            yield Action("Product.objects.filter(...).delete()", clear_out)


def list_products() -> None:
    Tag.objects.bulk_create([Tag(name=name) for name in TAGS], ignore_conflicts=True)
    Product.objects.bulk_create(
        Product(name=name, price=_price(), stock=random.randint(5, 50), attributes={"weight": random.randint(1, 9)})
        for name in random.sample(GOODS, 3)
    )


def sign_up() -> None:
    Customer.objects.create(name=random.choice(NAMES), email=f"{uuid.uuid4().hex[:12]}@example.com")


@transaction.atomic
def place_order() -> None:
    order = Order.objects.create(customer=_one(Customer))
    products = _some(Product, 2)
    OrderItem.objects.bulk_create(
        OrderItem(order=order, product=product, quantity=random.randint(1, 3)) for product in products
    )
    order.total = sum((product.price for product in products), Decimal())
    order.save(update_fields=["total"])


def tag_product() -> None:
    _one(Product).tags.add(*_some(Tag, 2))


def raise_prices() -> None:
    products = _some(Product, 3)
    for product in products:
        product.price = _price()
    Product.objects.bulk_update(products, ["price"])


def pay() -> None:
    order = _one(Order)
    order.status = Order.Status.PAID
    order.save()


def describe() -> None:
    product = _one(Product)
    product.attributes = {**product.attributes, "colour": random.choice(["red", "green", "blue"])}
    product.save(update_fields=["attributes"])


def sell() -> None:
    Product.objects.filter(stock__gt=0).update(stock=F("stock") - 1)


def ship_with_sql() -> None:
    _execute(SHIP)


def retag() -> None:
    _one(Product).tags.set(_some(Tag, 2))


def cancel_with_sql() -> None:
    _execute(CANCEL)


def forget_customer() -> None:
    Customer.objects.order_by("pk")[0].delete()


def clear_out() -> None:
    Product.objects.filter(pk__in=_surplus_products()).delete()


def _surplus_products() -> list[int]:
    unsold = Product.objects.exclude(pk__in=OrderItem.objects.values("product")).order_by("pk")
    return list(unsold.values_list("pk", flat=True)[: max(0, Product.objects.count() - MOST_PRODUCTS)])


def _some(model: type[M], number: int) -> list[M]:
    return list(model._default_manager.order_by("?")[:number])


def _one(model: type[M]) -> M:
    return _some(model, 1)[0]


def _price() -> Decimal:
    return Decimal(random.randint(100, 9999)) / 100


def _execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
