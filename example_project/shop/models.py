"""The shop's tables: first those that people write to, then those that receivers keep."""

from django.db import models
from django.utils.timezone import now


class Customer(models.Model):
    name = models.CharField(max_length=100)
    email = models.EmailField(unique=True)
    joined_at = models.DateTimeField(default=now)

    def __str__(self) -> str:
        return self.name


class Tag(models.Model):
    name = models.CharField(max_length=50, unique=True)

    def __str__(self) -> str:
        return self.name


class Product(models.Model):
    name = models.CharField(max_length=100)
    price = models.DecimalField(max_digits=10, decimal_places=2)
    stock = models.IntegerField(default=0)
    attributes = models.JSONField(default=dict, blank=True)
    tags = models.ManyToManyField(Tag, blank=True)

    def __str__(self) -> str:
        return self.name


class Order(models.Model):
    class Status(models.TextChoices):
        NEW = "new"
        PAID = "paid"
        SHIPPED = "shipped"
        CANCELLED = "cancelled"

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="orders")
    status = models.CharField(max_length=10, choices=Status, default=Status.NEW)
    total = models.DecimalField(max_digits=12, decimal_places=2, default=0)
    created_at = models.DateTimeField(default=now)

    def __str__(self) -> str:
        return f"order {self.pk} ({self.status})"


class OrderItem(models.Model):
    # The constraint is the migration's: its ON DELETE CASCADE works for plain SQL too, where Django's does not.
    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="items", db_constraint=False)
    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="+")
    quantity = models.PositiveIntegerField(default=1)

    def __str__(self) -> str:
        return f"{self.quantity} x {self.product_id}"


class OrderStatusAudit(models.Model):
    """One row for each change of an order's status, written by a receiver; the order may be gone."""

    order_id = models.BigIntegerField(db_index=True)
    old_status = models.CharField(max_length=10)
    new_status = models.CharField(max_length=10)
    committed_at = models.DateTimeField()
    change_id = models.CharField(max_length=40, unique=True)

    def __str__(self) -> str:
        return f"order {self.order_id}: {self.old_status} -> {self.new_status}"


class StockTotal(models.Model):
    """How many units all products have together, kept by a receiver; the one row is the migration's."""

    ONLY = 1

    units = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.units} units"
