"""Prices as the shop's pages show them: from the cache, which a receiver keeps honest."""

from decimal import Decimal

from django.core.cache import cache

from example_project.shop.models import Product


def price_of(product_id: int) -> Decimal:
    """Return a product's price, reading it from the database only after it changed."""
    return cache.get_or_set(_key(product_id), lambda: Product.objects.get(pk=product_id).price)


def forget_price(product_id: int) -> None:
    """Have the next `price_of` read the database."""
    cache.delete(_key(product_id))


def _key(product_id: int) -> str:
    return f"shop:price:{product_id}"
