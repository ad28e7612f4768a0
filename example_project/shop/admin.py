"""The shop in Django's admin; what receivers keep can be read there, not changed."""

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from example_project.shop.models import Customer, Order, OrderItem, OrderStatusAudit, Product, StockTotal, Tag


class ReadOnlyAdmin(admin.ModelAdmin):
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class OrderItemInline(admin.TabularInline):
    model = OrderItem
    extra = 0


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["id", "customer", "status", "total", "created_at"]
    list_filter = ["status"]
    list_select_related = ["customer"]
    inlines = [OrderItemInline]


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    list_display = ["name", "price", "stock"]
    list_editable = ["price", "stock"]
    filter_horizontal = ["tags"]


@admin.register(Customer)
class CustomerAdmin(admin.ModelAdmin):
    list_display = ["name", "email", "joined_at"]
    search_fields = ["name", "email"]


@admin.register(OrderStatusAudit)
class OrderStatusAuditAdmin(ReadOnlyAdmin):
    list_display = ["order_id", "old_status", "new_status", "committed_at"]
    date_hierarchy = "committed_at"


admin.site.register(StockTotal, ReadOnlyAdmin)
admin.site.register(Tag)
